//! Records of 512 bytes on a volume, a million of them, sealed under several keys. After a takeover only those that a search found are opened,
//! which is counted by the blocks that a key was used on, and every other access is refused.

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::{PAIR, Story, mib, wait};
use crate::nbd_client::Client;
use crate::site::{PairTerms, Site, wait_for};

const RECORD: usize = 512;
/// Bytes of a write: 256 records.
const PIECE: u64 = 128 << 10;
/// Keys that the records are sealed under.
const KEYS: u64 = 8;
/// One record in so many is of the customer that is searched for.
const ONE_IN: u64 = 1_511;
/// EPERM.
const REFUSED: &str = "with error 1";
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(120);

pub(super) fn run(
    story: &mut Story,
    dir: &Path,
    [main, remote]: &mut [Site; 2],
    components: &Path,
    mebibytes: u64,
) -> Result<()> {
    let options = [
        "--record-bytes",
        "512",
        "--field",
        "id:0:8:number-le",
        "--field",
        "customer:16:24:text",
        "--disguise",
        "plain",
    ];
    let volume = dir.join("main/volume.img");
    main.pair_with(remote, &PairTerms { name: PAIR, volume: &volume, mebibytes, options: &options })?;
    opens_by_search_alone(remote, components)?;
    remote.start()?;
    main.start()?;
    wait(main, "the link and a key", |status| status.is_safe() && status.epoch() > 0)?;
    let records = fill(story, main, mebibytes)?;
    let wanted = (0..records).filter(|id| customer(*id) == "Meier").count();
    main.kill()?;
    remote.farseal(&["takeover", PAIR, "--yes"])?;
    let mut client = wait_for("the export", PATIENCE, || Ok(Client::connect(&remote.socket(), PAIR).ok()))?;
    for id in [0, records / 2, records - 1] {
        refused(&mut client, id)?;
    }
    let begun = Instant::now();
    let said = remote.farseal(&["recover", "search", PAIR, "--field", "customer=Meier", "--json"])?;
    let took = begun.elapsed().as_secs_f64();
    let report: Value = serde_json::from_str(&said).context("the search's report")?;
    let number = |name: &str| report[name].as_u64().unwrap_or(0);
    story.say(&format!(
        "{} tags compared in {took:.1} s, {:.0} a second: {} records found, {} blocks opened, a key used on {}",
        number("compared"),
        per_second(number("compared"), took),
        number("found"),
        number("opened"),
        number("units"),
    ));
    ensure!(number("found") == u64::try_from(wanted)?, "{wanted} records are Meier's");
    ensure!(number("units") == number("found") && number("served") == number("found"), "others were opened: {report}");
    let mut open = 0;
    for id in 0..records {
        if customer(id) == "Meier" {
            let mut found = vec![0; RECORD];
            client.read(id * 512, &mut found).with_context(|| format!("record {id}"))?;
            ensure!(found == record(id), "record {id} is not what was written");
            open += 1;
        } else if id % 1_009 == 0 {
            refused(&mut client, id)?;
        }
    }
    story.say(&format!("all {open} read as they were written; every other one that was tried is refused"));
    Ok(())
}

/// The remote's strategy, pinned as it must be.
fn opens_by_search_alone(remote: &Site, components: &Path) -> Result<()> {
    let text = fs::read_to_string(remote.config())?;
    let line = text.lines().find(|line| line.starts_with("recovery = ")).context("the pair names no strategy")?;
    let wasm = fs::read(components.join("search-only.wasm"))?;
    let digest: String = Sha256::digest(&wasm).iter().map(|byte| format!("{byte:02x}")).collect();
    remote.edit(line, &format!("recovery = {{ component = \"search-only\", sha256 = \"{digest}\" }}"))
}

/// Fills the volume, under several keys. Says how many records there are.
fn fill(story: &mut Story, main: &Site, mebibytes: u64) -> Result<u64> {
    let (bytes, begun) = (mebibytes << 20, Instant::now());
    let mut client = Client::connect(&main.socket(), PAIR)?;
    for key in 0..KEYS {
        let (first, end) = (bytes * key / KEYS / PIECE * PIECE, bytes * (key + 1) / KEYS / PIECE * PIECE);
        for at in (first..end).step_by(usize::try_from(PIECE)?) {
            let piece: Vec<u8> = (at / 512..(at + PIECE) / 512).flat_map(record).collect();
            client.write(at, &piece)?;
        }
        client.flush()?;
        if key + 1 < KEYS {
            main.farseal(&["rotate", PAIR, "--force"])?;
        }
    }
    wait(main, "everything at the remote", |status| status.is_safe())?;
    let took = begun.elapsed().as_secs_f64();
    let records = bytes / PIECE * PIECE / 512;
    story.say(&format!(
        "{records} records with two fields each, under {KEYS} keys, written and copied in {took:.1} s: {:.0} MiB/s",
        mib(bytes) / took
    ));
    Ok(records)
}

fn customer(id: u64) -> String {
    if id % ONE_IN == 3 { "Meier".to_owned() } else { format!("customer {}", id % 89) }
}

fn record(id: u64) -> Vec<u8> {
    let (mut bytes, name) = (vec![0; RECORD], customer(id));
    bytes[..8].copy_from_slice(&id.to_le_bytes());
    bytes[16..16 + name.len()].copy_from_slice(name.as_bytes());
    let order = format!("order {id}");
    bytes[100..100 + order.len()].copy_from_slice(order.as_bytes());
    bytes
}

fn refused(client: &mut Client, id: u64) -> Result<()> {
    let read = client.read(id * 512, &mut vec![0; RECORD]);
    let said = read.err().map(|error| error.to_string()).unwrap_or_default();
    ensure!(said.ends_with(REFUSED), "record {id} is not refused: {said:?}");
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "a number for people")]
fn per_second(count: u64, seconds: f64) -> f64 {
    count as f64 / seconds
}
