//! A copy that is opened as it arrives, on real nodes: it is shown, a takeover needs nothing of the log for it, and what does not open is
//! known before anybody asks.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/built.rs"]
mod built;
#[expect(dead_code, reason = "other tests use the rest")]
#[path = "../../../xtask/src/nbd_client.rs"]
mod nbd_client;
#[path = "support/records.rs"]
mod records;
#[expect(dead_code, reason = "other tests use the rest")]
#[path = "../../../xtask/src/site.rs"]
mod site;
#[path = "support/sites.rs"]
mod sites;

use std::fs;

use nbd_client::Client;
use serde_json::Value;
use site::{Site, wait_for};
use sites::{BLOCK, PAIR, PATIENCE, sites, started};

const SHOWN: &str = "vault.copy";
const MIB: usize = 1 << 20;

/// Bytes that no other seed has.
fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let words = 0..u64::try_from(len / 8).unwrap();
    words.flat_map(|word| (seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ word).to_le_bytes()).collect()
}

fn write(site: &Site, at: u64, bytes: &[u8]) {
    let mut client = Client::connect(&site.socket(), PAIR).unwrap();
    client.write(at, bytes).unwrap();
    client.flush().unwrap();
}

fn read(site: &Site, export: &str, len: usize) -> Vec<u8> {
    let mut client = wait_for(export, PATIENCE, || Ok(Client::connect(&site.socket(), export).ok())).unwrap();
    let mut bytes = vec![0; len];
    client.read(0, &mut bytes).unwrap();
    bytes
}

fn settle(main: &Site) -> u64 {
    main.wait_until("everything at both sites", |status| status.is_safe() && status.lag_records() == 0)
        .unwrap()
        .mark("last")
}

/// What the remote says of what is open.
fn arrived(remote: &Site) -> Option<(u64, u64)> {
    let mut child = std::process::Command::new(built::farseal());
    child.args(["status", PAIR, "--json", "--config"]).arg(remote.config());
    let status: Value = serde_json::from_slice(&child.output().unwrap().stdout).ok()?;
    let status = status["pairs"].get(0).unwrap_or(&status);
    Some((status["arrived"]["through"].as_u64()?, status["arrived"]["closed"].as_u64()?))
}

fn wait_arrived(remote: &Site, last: u64) -> u64 {
    let open = || Ok(arrived(remote).filter(|(through, _)| *through >= last));
    wait_for("everything to be open at the remote", PATIENCE, open).unwrap().1
}

fn open_on_arrival(remote: &mut Site) {
    remote.edit("\nopen-on-arrival = false", "\nopen-on-arrival = true").unwrap();
    remote.start().unwrap();
}

/// Alters the block in every segment of the copy that has it. Writes were of so many blocks.
fn alter(remote: &Site, block: u64, per_record: u64) {
    let log = remote.state().join("pairs").join(PAIR).join("log");
    let files = fs::read_dir(log).unwrap().map(|file| file.unwrap().path());
    let segments = files.filter(|file| file.extension().is_some_and(|extension| extension == "fsl"));
    let altered: Vec<u64> = segments.filter_map(|segment| records::alter(&segment, block, per_record)).collect();
    assert!(!altered.is_empty(), "no record of it was found");
}

#[test]
fn what_arrives_is_opened_and_shown_and_a_takeover_serves_it_without_the_log() {
    let (_stage, mut main, mut remote) = sites("arrival");
    remote.kill().unwrap();
    open_on_arrival(&mut remote);
    settle(&main);
    let mut image = bytes(1, 4 * MIB);
    write(&main, 0, &image);
    wait_arrived(&remote, settle(&main));
    assert!(read(&remote, SHOWN, image.len()) == image);
    assert!(Client::connect(&remote.socket(), SHOWN).unwrap().write(0, &[1; 4096]).is_err(), "it is read-only");

    // Written over, zeroed, under another key, and over a kill.
    main.farseal(&["rotate", PAIR, "--force"]).unwrap();
    image[MIB..2 * MIB].copy_from_slice(&bytes(2, MIB));
    write(&main, u64::try_from(MIB).unwrap(), &image[MIB..2 * MIB]);
    remote.kill().unwrap();
    image[..MIB].copy_from_slice(&bytes(3, MIB));
    write(&main, 0, &image[..MIB]);
    remote.start().unwrap();
    assert_eq!(wait_arrived(&remote, settle(&main)), 0, "nothing stays closed");
    assert!(read(&remote, SHOWN, image.len()) == image);

    // Whatever happens to the log from here on: what is open is served.
    main.kill().unwrap();
    remote.kill().unwrap();
    alter(&remote, 7, u64::try_from(MIB).unwrap() / BLOCK);
    remote.start().unwrap();
    remote.farseal(&["takeover", PAIR, "--yes"]).unwrap();
    assert!(read(&remote, PAIR, image.len()) == image);
    assert!(Client::connect(&remote.socket(), SHOWN).is_err(), "it is not shown any more");
    // What was opened as it arrived is said to stay, and goes when all is open.
    let report = remote.farseal(&["recover", "report", PAIR]).unwrap();
    assert!(report.contains("arrived.image stays, ") && report.contains("recover drop-arrived"), "{report}");
    let said = remote.farseal(&["recover", "drop-arrived", PAIR]).unwrap();
    assert!(said.contains("is removed: "), "{said}");
    let again = remote.farseal(&["recover", "drop-arrived", PAIR]).unwrap_err().to_string();
    assert!(again.contains("nothing was opened as it arrived"), "{again}");
    assert!(read(&remote, PAIR, image.len()) == image);
    // A restart keeps it so.
    write(&remote, 0, &[9; 4096]);
    image[..4096].fill(9);
    remote.kill().unwrap();
    remote.start().unwrap();
    assert!(read(&remote, PAIR, image.len()) == image);
}

#[test]
fn a_block_that_does_not_open_is_known_before_a_takeover_and_no_other_is_withheld_by_it() {
    let (_stage, mut main, mut remote) = sites("arrival-closed");
    let image = bytes(4, 64 << 10);
    write(&main, 0, &image);
    let last = settle(&main);
    main.kill().unwrap();
    remote.kill().unwrap();
    alter(&remote, 3, 16);
    open_on_arrival(&mut remote);
    assert_eq!(wait_arrived(&remote, last), 16, "the blocks that were to be opened with it");
    let mut shown = Client::connect(&remote.socket(), SHOWN).unwrap();
    assert!(shown.read(3 * BLOCK, &mut [0; 4096]).is_err(), "what it was before is shown as what it is");
    shown.read(16 * BLOCK, &mut [0; 4096]).unwrap();
    remote.farseal(&["takeover", PAIR, "--yes"]).unwrap();
    let mut client = wait_for(PAIR, PATIENCE, || Ok(Client::connect(&remote.socket(), PAIR).ok())).unwrap();
    let early = remote.farseal(&["recover", "drop-arrived", PAIR]).unwrap_err().to_string();
    assert!(early.contains("blocks are not open yet"), "{early}");
    for block in 0..16 {
        let mut found = [0; 4096];
        let at = usize::try_from(block * BLOCK).unwrap();
        match client.read(block * BLOCK, &mut found) {
            Ok(()) => assert!(block != 3 && found == image[at..at + 4096], "block {block}"),
            Err(_) => assert_eq!(block, 3),
        }
    }
}

#[test]
fn what_arrived_and_cannot_be_read_any_more_is_opened_from_the_log() {
    let (_stage, mut main, mut remote) = sites("arrival-lost");
    remote.kill().unwrap();
    open_on_arrival(&mut remote);
    let image = bytes(6, MIB);
    write(&main, 0, &image);
    wait_arrived(&remote, settle(&main));
    main.kill().unwrap();
    let arrived = remote.state().join("pairs").join(PAIR).join("arrived.image");
    fs::File::options().write(true).open(arrived).unwrap().set_len(0).unwrap();
    remote.farseal(&["takeover", PAIR, "--yes"]).unwrap();
    assert!(read(&remote, PAIR, image.len()) == image);
}

#[test]
fn after_the_sides_were_swapped_there_and_back_nothing_of_the_first_copy_is_left() {
    let (_stage, mut main, mut remote) = sites("arrival-swapped");
    main.kill().unwrap();
    remote.kill().unwrap();
    main.edit("\nopen-on-arrival = false", "\nopen-on-arrival = true").unwrap();
    open_on_arrival(&mut remote);
    main.start().unwrap();
    write(&main, 0, &bytes(7, MIB));
    wait_arrived(&remote, settle(&main));
    for (from, to) in [(&main, &remote), (&remote, &main)] {
        from.farseal(&["swap", PAIR]).unwrap();
        to.wait_until("the sides swapped", |status| status.is_safe() && status.epoch() > 0).unwrap();
    }
    let folder = remote.state().join("pairs").join(PAIR);
    for name in ["log", "index", "epochs", "arrived.image", "arrived.json"] {
        assert!(!folder.join(name).exists(), "{name} is still there");
    }
    main.kill().unwrap();
    remote.farseal(&["takeover", PAIR, "--yes"]).unwrap();
    assert!(read(&remote, PAIR, MIB) == bytes(7, MIB));
}

#[test]
fn an_earlier_point_is_opened_from_the_log_and_not_from_what_arrived_since() {
    let (_stage, mut main, mut remote) = started("arrival-point", &["--disguise", "plain"]);
    main.wait_until("the link and a key", |status| status.is_safe() && status.epoch() > 0).unwrap();
    remote.kill().unwrap();
    remote.edit("\nretention = \"none\"", "\nretention = \"24h\"").unwrap();
    open_on_arrival(&mut remote);
    settle(&main);
    let (before, after) = (bytes(5, MIB), bytes(6, MIB));
    write(&main, 0, &before);
    main.farseal(&["cut", "default", "monday"]).unwrap();
    let known = || Ok(remote.farseal(&["recover", "points", PAIR]).unwrap().contains("monday").then_some(()));
    wait_for("monday", PATIENCE, known).unwrap();
    write(&main, 0, &after);
    wait_arrived(&remote, settle(&main));
    assert!(read(&remote, SHOWN, MIB) == after);
    main.kill().unwrap();
    remote.farseal(&["takeover", PAIR, "--at", "monday", "--yes"]).unwrap();
    assert!(read(&remote, PAIR, MIB) == before);
}
