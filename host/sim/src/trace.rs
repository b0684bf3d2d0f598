//! A failing run, told: its last events, the command that repeats it, and the same failure with less around it.

use std::collections::VecDeque;
use std::fmt::Write as _;

use crate::dice::mix;
use crate::faults::{Fault, Faults};
use crate::group;
use crate::world::{Report, Settings, run};

/// How much of the end of a run is told.
const LINES_MAX: usize = 80;

#[derive(Clone, Debug)]
pub struct Trace {
    on: bool,
    most: usize,
    lines: VecDeque<String>,
    hash: u64,
}

impl Trace {
    /// With `whole`, every line is kept.
    pub fn new(on: bool, whole: bool) -> Self {
        Self { on, most: if whole { usize::MAX } else { LINES_MAX }, lines: VecDeque::new(), hash: 0 }
    }

    /// Of every line that was noted, kept or not.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    pub fn note(&mut self, now_us: u64, line: impl FnOnce() -> String) {
        if self.on {
            if self.lines.len() == self.most {
                self.lines.pop_front();
            }
            let mut line = line();
            self.hash = mix(self.hash ^ now_us ^ u64::from(crc32c::crc32c(line.as_bytes())) << 20);
            if let Some((at, _)) = line.char_indices().nth(400) {
                line.truncate(at);
            }
            self.lines.push_back(format!(
                "{:>12.3} ms  {line}",
                std::time::Duration::from_micros(now_us).as_secs_f64() * 1e3
            ));
        }
    }

    pub fn lines(self) -> Vec<String> {
        self.lines.into()
    }
}

/// The same failure with fewer operations and fewer kinds of fault.
pub fn shorten(report: &Report) -> Settings {
    let mut best = report.settings.clone();
    let checker = report.failure.as_ref().map(|failure| failure.checker);
    let fails = |settings: &Settings| run(settings).failure.map(|failure| failure.checker) == checker;
    for fault in Faults::draw(best.seed, &best.without).kinds() {
        let mut less = best.clone();
        less.without.insert(fault);
        if fails(&less) {
            best = less;
        }
    }
    let mut operations = report.stats.operations;
    let mut step = operations / 2;
    while step > 0 {
        let less = Settings { operations: Some(operations.saturating_sub(step)), ..best.clone() };
        if fails(&less) {
            operations = operations.saturating_sub(step);
            best = less;
        } else {
            step /= 2;
        }
    }
    best
}

/// Everything that a reader needs to repeat it.
pub fn tell(report: &Report) -> String {
    let short = shorten(report);
    let again = run(&Settings { traced: true, ..short.clone() });
    let mut out = String::new();
    if let Some(failure) = &report.failure {
        let _ = writeln!(out, "seed {} fails: {failure}", report.settings.seed);
    }
    let _ = writeln!(out, "repeat: {}", command(&report.settings));
    let _ = writeln!(out, "shortened: {}", command(&short));
    let _ = writeln!(out, "faults left: {:?}", Faults::draw(short.seed, &short.without).kinds().collect::<Vec<_>>());
    again.trace.iter().for_each(|line| {
        let _ = writeln!(out, "{line}");
    });
    if let Some(failure) = &again.failure {
        let _ = writeln!(out, "=> {failure}");
    }
    out
}

/// A failing run of groups: its last events, and the command that repeats it.
pub fn tell_group(report: &group::Report) -> String {
    let again = group::run_traced(report.seed, None);
    let mut out = format!("cargo xtask sim --group-seed {}\n\n", report.seed);
    again.trace.iter().for_each(|line| {
        let _ = writeln!(out, "{line}");
    });
    if let Some(failure) = &again.failure {
        let _ = writeln!(out, "=> {failure}");
    }
    out
}

/// First line of a recorded run.
const RECORDED: &str = "farseal-sim trace 1";

/// A failing run as a file: its settings, how it fails, and every event, the shortest that is known.
pub fn record(report: &Report) -> String {
    let short = run(&Settings { traced: true, whole: true, ..shorten(report) });
    let mut out = format!("{RECORDED}\nseed {}\n", short.settings.seed);
    if let Some(operations) = short.settings.operations {
        let _ = writeln!(out, "operations {operations}");
    }
    short.settings.without.iter().for_each(|fault| {
        let _ = writeln!(out, "without {fault}");
    });
    short.settings.with.iter().for_each(|fault| {
        let _ = writeln!(out, "with {fault}");
    });
    if let Some(failure) = &short.failure {
        let _ = writeln!(out, "fails {failure}");
    }
    let _ = writeln!(out, "events {} hash {:016x}", short.trace.len(), short.trace_hash);
    short.trace.iter().for_each(|line| {
        let _ = writeln!(out, "{line}");
    });
    out
}

/// The settings of a recorded run, how it failed, and the hash of its events; `None` where it is no such file.
pub fn recorded(text: &str) -> Option<(Settings, Option<String>, String)> {
    let mut lines = text.lines();
    if lines.next()? != RECORDED {
        return None;
    }
    let mut settings = Settings::new(lines.next()?.strip_prefix("seed ")?.parse().ok()?);
    (settings.traced, settings.whole) = (true, true);
    let mut fails = None;
    for line in lines {
        match line.split_once(' ')? {
            ("operations", count) => settings.operations = Some(count.parse().ok()?),
            (which @ ("without" | "with"), name) => {
                let fault = Fault::ALL.into_iter().find(|fault| fault.to_string() == name)?;
                if which == "with" {
                    settings.with.insert(fault)
                } else {
                    settings.without.insert(fault)
                };
            }
            ("fails", failure) => fails = Some(failure.to_owned()),
            ("events", rest) => return Some((settings, fails, rest.split_once(" hash ")?.1.to_owned())),
            _ => return None,
        }
    }
    None
}

fn command(settings: &Settings) -> String {
    let mut command = format!("cargo xtask sim --seed {}", settings.seed);
    if let Some(operations) = settings.operations {
        let _ = write!(command, " --operations {operations}");
    }
    settings.without.iter().for_each(|fault| {
        let _ = write!(command, " --without {fault}");
    });
    settings.with.iter().for_each(|fault| {
        let _ = write!(command, " --with {fault}");
    });
    command
}
