//! `farseal-sim`: one seed, a number of seeds, or as many as fit into a time; prints what the runs have seen.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use farseal_sim::faults::Fault;
use farseal_sim::stats::Stats;
use farseal_sim::trace;
use farseal_sim::world::{Settings, run};

const USAGE: &str = "farseal-sim [--seed N] [--seeds N] [--seconds S] [--first N] [--operations N] [--without FAULT]..

  --seed N        one seed, told in full
  --seeds N       this many seeds (1000 unless told)
  --seconds S     as many seeds as fit
  --first N       the first seed (1 unless told)
  --operations N  operations before everything heals
  --brief 1       names failures, tells none (50 at most)
  --without F     leaves a kind of fault out";

#[derive(Debug, Default)]
struct Wanted {
    seed: Option<u64>,
    seeds: Option<u64>,
    seconds: Option<u64>,
    first: Option<u64>,
    operations: Option<u64>,
    brief: Option<u64>,
    without: BTreeSet<Fault>,
}

fn main() -> ExitCode {
    // A panic of a machine is a failure like any other: it is told with its seed, not where it happens.
    std::panic::set_hook(Box::new(|_| {}));
    let Some(wanted) = parse(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let first = wanted.seed.or(wanted.first).unwrap_or(1);
    let count = if wanted.seed.is_some() {
        1
    } else {
        wanted.seeds.unwrap_or(if wanted.seconds.is_some() { u64::MAX } else { 1000 })
    };
    let begun = Instant::now();
    let until = wanted.seconds.map(|seconds| begun + Duration::from_secs(seconds));
    let mut stats = Stats::default();
    let mut failed = 0;
    for seed in (first..).take(usize::try_from(count).unwrap_or(usize::MAX)) {
        if until.is_some_and(|until| Instant::now() >= until) {
            break;
        }
        let settings =
            Settings { operations: wanted.operations, without: wanted.without.clone(), ..Settings::new(seed) };
        let report = run(&settings);
        stats.add(&report.stats);
        if let Some(failure) = &report.failure {
            failed += 1;
            let most = if wanted.brief.is_some() {
                eprintln!("seed {seed} fails: {failure}");
                50
            } else {
                eprintln!("{}", trace::tell(&report));
                5
            };
            if failed == most {
                break;
            }
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    print!("{stats}");
    println!(
        "{seconds:.1} s; {:.1} simulated hours a minute; {failed} seeds failed",
        stats.simulated_hours() * 60.0 / seconds
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn parse(mut words: impl Iterator<Item = String>) -> Option<Wanted> {
    let mut wanted = Wanted::default();
    while let Some(word) = words.next() {
        let value = words.next()?;
        match word.as_str() {
            "--seed" => wanted.seed = Some(value.parse().ok()?),
            "--seeds" => wanted.seeds = Some(value.parse().ok()?),
            "--seconds" => wanted.seconds = Some(value.parse().ok()?),
            "--first" => wanted.first = Some(value.parse().ok()?),
            "--operations" => wanted.operations = Some(value.parse().ok()?),
            "--brief" => wanted.brief = Some(value.parse().ok()?),
            "--without" => {
                let fault = Fault::ALL.into_iter().find(|fault| fault.to_string() == value)?;
                wanted.without.insert(fault);
            }
            _ => return None,
        }
    }
    Some(wanted)
}
