//! Two sites that change sides there and back while initiators write, without losing a write.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::qemu::{Initiator, SECTOR, Writer, Written};
use super::{PAIR, READ_BYTES, Story, compare_copy, wait};
use crate::nbd_client::Client;
use crate::site::{PairTerms, Site, Status, free_port, wait_for};

/// How long the new side may take to answer a first write.
const PATIENCE: Duration = Duration::from_secs(120);

/// Changes sides so many times in such a time; then every byte is compared with what was answered, and with the copy.
pub(super) fn run(
    story: &mut Story,
    dir: &Path,
    sites: &mut [Site; 2],
    mebibytes: u64,
    (swaps, length): (u64, Duration),
) -> Result<()> {
    let initiator = Initiator::find();
    match initiator {
        Initiator::QemuIo => story.say("initiators are processes of qemu-io"),
        Initiator::Own => {
            story.say("qemu-io is NOT installed (Debian package qemu-utils): an NBD client of our own writes")
        }
    }
    pair(dir, sites, mebibytes)?;
    let writer = Writer::start(initiator, sites, PAIR, mebibytes << 20)?;
    let pause = length.div_f64(f64::from(u32::try_from(swaps + 1)?));
    let (mut writes, mut times) = (0, Vec::new());
    for swap in 1..=swaps {
        std::thread::sleep(pause);
        if writer.has_ended() {
            break;
        }
        let (took, silence) = change_sides(sites, writes, &writer).with_context(|| format!("swap {swap}"))?;
        writes = 1 - writes;
        story.say(&format!(
            "swap {swap}: {} writes now; the command took {:.2} s, the first write was answered there after {:.2} s; \
             {} commands of initiators were answered so far",
            sites[writes].name,
            took.as_secs_f64(),
            silence.as_secs_f64(),
            writer.answered(),
        ));
        times.push((took, silence));
    }
    std::thread::sleep(pause);
    let written = writer.stop()?;
    wait(&sites[writes], "everything at the other site", Status::is_safe)?;
    let bytes = compare_model(&sites[writes], &written)?;
    report(story, &times, &written, bytes);
    let [main, remote] = sites;
    let (writing, keeping) = if writes == 0 { (main, &*remote) } else { (remote, &*main) };
    compare_copy(story, writing, keeping)
}

/// Two nodes that can reach each other, so that either may write.
fn pair(dir: &Path, [main, remote]: &mut [Site; 2], mebibytes: u64) -> Result<()> {
    let (volume, listen) = (dir.join("main/volume.img"), format!("127.0.0.1:{}", free_port()?));
    let options = ["--listen", &listen];
    main.pair_with(remote, &PairTerms { name: PAIR, volume: &volume, mebibytes, options: &options })?;
    remote.start()?;
    main.start()?;
    wait(main, "copying", |status| status.is_safe() && status.epoch() > 0).map(drop)
}

/// Says how long the command took, and how long it was until a write was answered at the new side.
fn change_sides(sites: &[Site; 2], writes: usize, writer: &Writer) -> Result<(Duration, Duration)> {
    wait(&sites[writes], "copying", |status| status.state() == "copying" && status.epoch() > 0)?;
    writer.forget_answers(1 - writes);
    let begun = Instant::now();
    sites[writes].farseal(&["swap", PAIR])?;
    let took = begun.elapsed();
    let first = wait_for("a write that the new side answers", PATIENCE, || {
        if writer.has_ended() {
            bail!("the initiator gave up");
        }
        Ok(writer.first_answer(1 - writes))
    })?;
    Ok((took, first.duration_since(begun)))
}

/// Reads what the writing side exports. Says how many bytes that were.
fn compare_model(site: &Site, written: &Written) -> Result<u64> {
    let mut client = Client::connect(&site.socket(), PAIR)?;
    let (mut at, mut buffer) = (0, vec![0; READ_BYTES]);
    let sector_bytes = usize::try_from(SECTOR)?;
    for patterns in written.model.chunks(READ_BYTES / sector_bytes) {
        let bytes = &mut buffer[..patterns.len() * sector_bytes];
        client.read(at, bytes)?;
        for ((place, pattern), sector) in (at..).step_by(sector_bytes).zip(patterns).zip(bytes.chunks(sector_bytes)) {
            if let Some(found) = sector.iter().find(|byte| *byte != pattern) {
                bail!("{}: at byte {place} there is {found:#04x} where {pattern:#04x} was answered", site.name);
            }
        }
        at += u64::try_from(bytes.len())?;
    }
    Ok(at)
}

fn report(story: &Story, times: &[(Duration, Duration)], written: &Written, bytes: u64) {
    let spread = |of: fn(&(Duration, Duration)) -> Duration| {
        let mut times: Vec<f64> = times.iter().map(|both| of(both).as_secs_f64()).collect();
        times.sort_by(f64::total_cmp);
        let at = |index: usize| times.get(index).copied().unwrap_or_default();
        format!("median {:.2} s, longest {:.2} s", at(times.len() / 2), at(times.len().saturating_sub(1)))
    };
    story.say("what was answered is what the volume holds");
    println!("  swaps                      {}", times.len());
    println!("  time of the command        {}", spread(|(took, _)| *took));
    println!("  until the new side answers {}", spread(|(_, silence)| *silence));
    println!("  commands answered          {}", written.answered);
    println!("  commands tried again       {}", written.refusals.values().sum::<u64>());
    written.refusals.iter().for_each(|(why, count)| println!("    {count:>6}  {why}"));
    println!("  bytes compared             {bytes}");
}
