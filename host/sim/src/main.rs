//! `farseal-sim`: one seed, a number of seeds, or as many as fit into a time; prints what the runs have seen.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use farseal_sim::check::{Checker, Failure};
use farseal_sim::faults::Fault;
use farseal_sim::group;
use farseal_sim::group::figures::Figures;
use farseal_sim::mutation::Mutation;
use farseal_sim::stats::Stats;
use farseal_sim::tamper::{self, Tally};
use farseal_sim::trace;
use farseal_sim::world::{Report, Settings, run};

const USAGE: &str = "farseal-sim [--seed N] [--seeds N] [--seconds S] [--first N] [--operations N] [--without FAULT]..

Every eighth seed also runs a world of groups.

  tamper [--count N] [--first N]  tampers N times (1000000 unless told) with what travels and what is stored

  broken [--seeds N] [--first N]  breaks takeovers by word and by silence on purpose: how many seeds notice each break

  --seed N        one seed, told in full
  --group-seed N  one seed of groups of lanes, told in full
  --group-seeds N this many seeds of groups, and no others; --first counts here, too
  --seeds N       this many seeds (1000 unless told)
  --seconds S     as many seeds as fit
  --first N       the first seed (1 unless told)
  --operations N  operations before everything heals
  --brief 1       names failures, tells none (50 at most)
  --without F     leaves a kind of fault out
  --with F        puts a kind of fault in, often
  --keep DIR      where failing runs are recorded (target/sim unless told)
  --replay FILE   plays a recorded run again, and says whether it is the same
  --step          with --replay: one event for each line of input";

/// Failures that are told before it stops; with `--brief`, named.
const FAILURES_TOLD: u64 = 5;
const FAILURES_NAMED: u64 = 50;
/// Every so many seeds one is run twice: a run is a function of its seed, or nothing here can be repeated.
const TWICE_EVERY: u64 = 1000;
/// Every so many seeds a world of groups is run, too.
const GROUPS_EVERY: u64 = 8;

#[derive(Debug, Default)]
struct Wanted {
    seed: Option<u64>,
    group_seed: Option<u64>,
    group_seeds: Option<u64>,
    seeds: Option<u64>,
    seconds: Option<u64>,
    first: Option<u64>,
    count: Option<u64>,
    operations: Option<u64>,
    brief: Option<u64>,
    without: BTreeSet<Fault>,
    with: BTreeSet<Fault>,
    keep: Option<PathBuf>,
    replay: Option<PathBuf>,
    step: bool,
}

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1).peekable();
    if words.next_if_eq("tamper").is_some() {
        return tamper_with(words);
    }
    let broken = words.next_if_eq("broken").is_some();
    // A panic of a machine is a failure like any other: it is told with its seed, not where it happens.
    std::panic::set_hook(Box::new(|_| {}));
    let Some(wanted) = parse(words) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    if broken {
        return break_takeovers(wanted.first.unwrap_or(1), wanted.seeds.unwrap_or(100));
    }
    if let Some(file) = &wanted.replay {
        return replay(file, wanted.step);
    }
    let first = wanted.seed.or(wanted.first).unwrap_or(1);
    let count = if wanted.seed.is_some() {
        1
    } else {
        wanted.seeds.unwrap_or(if wanted.seconds.is_some() { u64::MAX } else { 1000 })
    };
    let mut seen = Seen { begun: Instant::now(), stats: Stats::default(), figures: Figures::default(), failed: 0 };
    match (wanted.group_seed, wanted.group_seeds) {
        (Some(seed), _) => seen.groups(&wanted, seed..=seed),
        (None, Some(count)) => seen.groups(&wanted, first..=first.saturating_add(count).saturating_sub(1)),
        (None, None) => seen.pairs(&wanted, (first..).take(usize::try_from(count).unwrap_or(usize::MAX))),
    }
    seen.print();
    if seen.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What the runs have seen.
struct Seen {
    begun: Instant,
    stats: Stats,
    figures: Figures,
    failed: u64,
}

impl Seen {
    fn pairs(&mut self, wanted: &Wanted, seeds: impl Iterator<Item = u64>) {
        for seed in seeds {
            if self.is_enough(wanted) {
                break;
            }
            let settings = Settings {
                operations: wanted.operations,
                without: wanted.without.clone(),
                with: wanted.with.clone(),
                ..Settings::new(seed)
            };
            let report = run(&settings);
            if seed.is_multiple_of(TWICE_EVERY) && !is_repeatable(&settings) {
                eprintln!("seed {seed} runs otherwise each time");
                self.failed += 1;
            }
            self.stats.add(&report.stats);
            if let Some(failure) = &report.failure {
                self.failed += 1;
                if wanted.brief.is_some() {
                    eprintln!("seed {seed} fails: {failure}");
                } else {
                    eprintln!("{}", trace::tell(&report));
                    keep(wanted, &report);
                }
            }
            if seed.is_multiple_of(GROUPS_EVERY) && wanted.seed.is_none() {
                self.group(wanted, seed);
            }
        }
    }

    fn groups(&mut self, wanted: &Wanted, seeds: RangeInclusive<u64>) {
        for seed in seeds {
            if self.is_enough(wanted) {
                break;
            }
            self.group(wanted, seed);
        }
    }

    fn group(&mut self, wanted: &Wanted, seed: u64) {
        let report = group::run(seed, None);
        let again = || group::run_traced(seed, None).trace_hash;
        if seed.is_multiple_of(TWICE_EVERY) && again() != again() {
            eprintln!("seed {seed} of groups runs otherwise each time");
            self.failed += 1;
        }
        self.figures.add_all(&report.figures);
        if let Some(failure) = &report.failure {
            self.failed += 1;
            if wanted.brief.is_some() {
                eprintln!("seed {seed} of groups fails: {failure}");
            } else {
                eprintln!("{}", trace::tell_group(&report));
            }
        }
    }

    fn is_enough(&self, wanted: &Wanted) -> bool {
        let most = if wanted.brief.is_some() { FAILURES_NAMED } else { FAILURES_TOLD };
        let over = wanted.seconds.is_some_and(|seconds| self.begun.elapsed() >= Duration::from_secs(seconds));
        self.failed >= most || over
    }

    fn print(&self) {
        let seconds = self.begun.elapsed().as_secs_f64();
        if self.stats.seeds > 0 {
            print!("{}", self.stats);
        }
        if self.figures != Figures::default() {
            print!("{}", self.figures);
        }
        let hours = self.stats.simulated_hours() * 60.0 / seconds;
        println!("{seconds:.1} s; {hours:.1} simulated hours a minute; {} seeds failed", self.failed);
    }
}

/// A history for so many tamperings.
const TAMPERINGS_EACH: u64 = 10_000;

fn tamper_with(words: impl Iterator<Item = String>) -> ExitCode {
    let Some(wanted) = parse(words) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let (begun, mut tally) = (Instant::now(), Tally::default());
    let count = wanted.count.unwrap_or(1_000_000);
    let first = wanted.first.unwrap_or(1);
    for seed in first..first + count.div_ceil(TAMPERINGS_EACH) {
        tamper::run(seed, TAMPERINGS_EACH.min(count - tally.count), &mut tally);
    }
    print!("{tally}");
    tally.undetected.iter().for_each(|undetected| eprintln!("{undetected}"));
    println!("{:.1} s; {} not noticed", begun.elapsed().as_secs_f64(), tally.undetected.len());
    if tally.undetected.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Each break of the rules by which a site takes over without an operator there must be noticed by some seeds.
fn break_takeovers(first: u64, count: u64) -> ExitCode {
    let seeds = first..first.saturating_add(count);
    let mut blind = 0;
    let mut tell = |name: String, found: Vec<Failure>| {
        blind += u64::from(found.is_empty());
        let by: BTreeSet<Checker> = found.iter().map(|failure| failure.checker).collect();
        println!("{name}: {} of {count} seeds, by {by:?}", found.len());
        found.first().iter().for_each(|failure| println!("  {failure}"));
    };
    for mutation in group::Mutation::OF_DECLARING.into_iter().chain(group::Mutation::OF_SILENCE) {
        let broken = |seed| group::run(seed, Some(mutation)).failure;
        tell(format!("{mutation:?}, of groups"), seeds.clone().filter_map(broken).collect());
    }
    for mutation in Mutation::OF_DECLARING.into_iter().chain(Mutation::OF_THE_WITNESS) {
        let broken = |seed| run(&Settings { mutation: Some(mutation), ..Settings::new(seed) }).failure;
        tell(format!("{mutation:?}"), seeds.clone().filter_map(broken).collect());
    }
    if blind == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn is_repeatable(settings: &Settings) -> bool {
    let traced = Settings { traced: true, ..settings.clone() };
    run(&traced).trace_hash == run(&traced).trace_hash
}

fn keep(wanted: &Wanted, report: &Report) {
    let dir = wanted.keep.clone().unwrap_or_else(|| PathBuf::from("target/sim"));
    let file = dir.join(format!("seed-{}.trace", report.settings.seed));
    match std::fs::create_dir_all(&dir).and_then(|()| std::fs::write(&file, trace::record(report))) {
        Ok(()) => eprintln!("recorded: cargo xtask sim --replay {} --step\n", file.display()),
        Err(error) => eprintln!("{}: {error}", file.display()),
    }
}

/// Plays a recorded run again.
fn replay(file: &Path, step: bool) -> ExitCode {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) => {
            eprintln!("{}: {error}", file.display());
            return ExitCode::from(2);
        }
    };
    let Some((settings, failed, hash)) = trace::recorded(&text) else {
        eprintln!("{}: no recorded run", file.display());
        return ExitCode::from(2);
    };
    let report = run(&settings);
    for line in &report.trace {
        println!("{line}");
        if step && std::io::stdin().read_line(&mut String::new()).is_err() {
            break;
        }
    }
    let fails = report.failure.as_ref().map(ToString::to_string);
    println!("=> {}", fails.as_deref().unwrap_or("every promise is kept"));
    let same = format!("{:016x}", report.trace_hash) == hash;
    println!("{}", if same { "the run that was recorded" } else { "another run: the code has changed since" });
    if fails.is_none() { ExitCode::SUCCESS } else { ExitCode::from(u8::from(fails == failed) + 1) }
}

fn parse(mut words: impl Iterator<Item = String>) -> Option<Wanted> {
    let mut wanted = Wanted::default();
    while let Some(word) = words.next() {
        if word == "--step" {
            wanted.step = true;
            continue;
        }
        let value = words.next()?;
        match word.as_str() {
            "--keep" => wanted.keep = Some(value.into()),
            "--replay" => wanted.replay = Some(value.into()),
            "--seed" => wanted.seed = Some(value.parse().ok()?),
            "--group-seed" => wanted.group_seed = Some(value.parse().ok()?),
            "--group-seeds" => wanted.group_seeds = Some(value.parse().ok()?),
            "--seeds" => wanted.seeds = Some(value.parse().ok()?),
            "--seconds" => wanted.seconds = Some(value.parse().ok()?),
            "--count" => wanted.count = Some(value.parse().ok()?),
            "--first" => wanted.first = Some(value.parse().ok()?),
            "--operations" => wanted.operations = Some(value.parse().ok()?),
            "--brief" => wanted.brief = Some(value.parse().ok()?),
            "--without" | "--with" => {
                let fault = Fault::ALL.into_iter().find(|fault| fault.to_string() == value)?;
                if word == "--with" {
                    wanted.with.insert(fault)
                } else {
                    wanted.without.insert(fault)
                };
            }
            _ => return None,
        }
    }
    Some(wanted)
}
