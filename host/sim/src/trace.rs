//! A failing run, told: its last events, the command that repeats it, and the same failure with less around it.

use std::collections::VecDeque;
use std::fmt::Write as _;

use crate::faults::Faults;
use crate::world::{Report, Settings, run};

/// How much of the end of a run is told.
const LINES_MAX: usize = 80;

#[derive(Clone, Debug)]
pub struct Trace {
    on: bool,
    lines: VecDeque<String>,
}

impl Trace {
    pub fn new(on: bool) -> Self {
        Self { on, lines: VecDeque::new() }
    }

    pub fn note(&mut self, now_us: u64, line: impl FnOnce() -> String) {
        if self.on {
            if self.lines.len() == LINES_MAX {
                self.lines.pop_front();
            }
            let mut line = line();
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

fn command(settings: &Settings) -> String {
    let mut command = format!("cargo xtask sim --seed {}", settings.seed);
    if let Some(operations) = settings.operations {
        let _ = write!(command, " --operations {operations}");
    }
    settings.without.iter().for_each(|fault| {
        let _ = write!(command, " --without {fault}");
    });
    command
}
