//! What changes of key cost the writes: once a second in both ways, and as often as the host's limits allow, against none.

use std::collections::VecDeque;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use serde_json::{Value, json};

use super::fio::{self, Figures, Job, WRITE_QD1, WRITE_QD32};
use super::{Effort, Programs, median};
use crate::site::{PairTerms, Site, Stage, Status, begin_rotation};

const PAIR: &str = "rotating";
/// Without a disguise a key goes at once. With one it waits for a slot, and no more keys change than there are slots.
const TERMS: [&str; 4] = ["--disguise", "plain", "--policy", "on-command"];
/// So many keys a second are one a second, as measured by a run of a few of them.
const CHANGED: f64 = 0.5;

/// How often keys change, and how.
#[derive(Debug, Clone, Copy)]
struct Way {
    name: &'static str,
    how: &'static str,
    every: Duration,
}

const WAYS: [Way; 3] = [
    Way { name: "in-band, 1 a second", how: "in-band", every: Duration::from_secs(1) },
    Way { name: "in-band, 100 a second", how: "in-band", every: Duration::from_millis(10) },
    Way { name: "pause, 1 a second", how: "pause", every: Duration::from_secs(1) },
];
/// A request for a key is carried out well within it; then its connection is closed, and the node looks for its end no more.
const ANSWERED: Duration = Duration::from_millis(60);

/// In each round the same writes without rotations and with those of each way, one after the other.
pub(super) fn measure(stage: &Rc<Stage>, programs: &Programs, effort: Effort) -> Result<Value> {
    let (main, _remote) = start(stage, programs, effort)?;
    println!("\nwrites while keys change, as ratios to none in the same round, medians of {} rounds", effort.rounds);
    println!("  {:<26} {:<23} {:>7} {:>6} {:>6} {:>6} {:>9}", "", "", "keys/s", "p50", "p99", "IO/s", "p99 us");
    let mut rows = Vec::new();
    for job in [WRITE_QD1, WRITE_QD32] {
        rows.extend(measure_job(&main, job, effort)?);
    }
    Ok(Value::from(rows))
}

/// A pair of its own, whose keys may change as often as the host's limits allow.
fn start(stage: &Rc<Stage>, programs: &Programs, effort: Effort) -> Result<(Site, Site)> {
    let init = |name| Site::init(stage, &programs.farseal, &programs.plugins, name);
    let (mut main, mut remote) = (init("rotating-main")?, init("rotating-remote")?);
    let volume = main.dir.join("volume.img");
    let terms = PairTerms { name: PAIR, volume: &volume, mebibytes: effort.mebibytes, options: &TERMS };
    main.pair_with(&remote, &terms)?;
    main.edit("min-interval = \"100ms\"", "min-interval = \"10ms\"")?;
    remote.start()?;
    main.start()?;
    main.wait_until("a link", |status| status.state() == "copying" && status.epoch() > 0)?;
    fio::fill(&main.uri(PAIR), effort.mebibytes)?;
    settle(&main)?;
    Ok((main, remote))
}

fn measure_job(main: &Site, job: Job, effort: Effort) -> Result<Vec<Value>> {
    // So that there is more than one rotation in each.
    let seconds = (effort.seconds * 2).max(3);
    let mut quiet = Vec::new();
    let mut rotating: [Vec<(Figures, f64)>; 3] = Default::default();
    for _ in 0..effort.rounds {
        quiet.push(fio::run(job, &main.uri(PAIR), effort.mebibytes, seconds)?);
        settle(main)?;
        for (way, found) in WAYS.into_iter().zip(&mut rotating) {
            found.push(run_rotating(main, job, way, effort.mebibytes, seconds)?);
            settle(main)?;
        }
    }
    let rows = WAYS.into_iter().zip(&rotating).enumerate().map(|(at, (way, found))| {
        let name = if at == 0 { job.name } else { "" };
        row(name, job, way, &quiet, found)
    });
    Ok(rows.collect())
}

fn row(name: &str, job: Job, way: Way, quiet: &[Figures], found: &[(Figures, f64)]) -> Value {
    let ratio = |what: fn(&Figures) -> f64| {
        median(&found.iter().zip(quiet).map(|((found, _), quiet)| what(found) / what(quiet)).collect::<Vec<_>>())
    };
    let (p50, p99, iops) = (ratio(|run| run.p50_us), ratio(|run| run.p99_us), ratio(|run| run.iops));
    let keys = median(&found.iter().map(|(_, keys)| *keys).collect::<Vec<_>>());
    let p99_us = median(&found.iter().map(|(run, _)| run.p99_us).collect::<Vec<_>>());
    println!("  {name:<26} {:<23} {keys:>7.1} {p50:>6.2} {p99:>6.2} {iops:>6.2} {p99_us:>9.0}", way.name);
    let changed = keys >= CHANGED;
    if !changed {
        println!("  {:<26} no key changed in most of these runs: the ratios say nothing", "");
    }
    let [p50, p99, iops] = [p50, p99, iops].map(|ratio| changed.then_some(ratio));
    json!({
        "job": job.name, "way": way.name, "keys-per-s": keys, "p50-ratio": p50, "p99-ratio": p99, "iops-ratio": iops,
        "p99-us": p99_us,
    })
}

/// One run of the load, and how many keys came into force in each of its seconds.
fn run_rotating(main: &Site, job: Job, way: Way, mebibytes: u64, seconds: u32) -> Result<(Figures, f64)> {
    let before = main.status()?.epoch();
    let uri = main.uri(PAIR);
    let begun = Instant::now();
    let running = std::thread::spawn(move || fio::run(job, &uri, mebibytes, seconds));
    let control = main.state().join("control.sock");
    let mut asked: VecDeque<(Instant, UnixStream)> = VecDeque::new();
    let mut next = begun + way.every;
    while !running.is_finished() {
        std::thread::sleep(next.saturating_duration_since(Instant::now()).min(Duration::from_millis(20)));
        let now = Instant::now();
        while asked.front().is_some_and(|(since, _)| now - *since > ANSWERED) {
            asked.pop_front();
        }
        if now >= next {
            next = (next + way.every).max(now);
            // One that is refused because another is under way is not asked for again.
            asked.push_back((now, begin_rotation(&control, PAIR, way.how)?));
        }
    }
    let took = begun.elapsed();
    let figures = running.join().map_err(|_| anyhow!("fio's thread failed"))??;
    let keys = u32::try_from(main.status()?.epoch() - before)?;
    Ok((figures, f64::from(keys) / took.as_secs_f64()))
}

/// Until the remote has everything.
fn settle(main: &Site) -> Result<()> {
    main.wait_until("everything at the remote", Status::is_safe).map(drop)
}
