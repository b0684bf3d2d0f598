//! What strategies that open the whole volume have in common: chunks in their turn, a rate, and an operator who may pause, resume and change it

use serde::{Deserialize, Serialize};

use super::chunks::{Chunks, Next};
use super::{Context, Decisions, Extent};
use crate::Diagnostic;
use crate::settings::wrong;

/// How fast it goes, by the settings.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Blocks opened by one decision, 1 to 65536.
    pub chunk: u32,
    /// Chunks being opened at any time, 1 to 16.
    pub at_once: u32,
    /// Blocks a second at most; 0 for as fast as it goes.
    pub rate: u64,
}

/// How far it is. Kept between calls.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Background {
    sweep: Chunks,
    paused: bool,
    /// Blocks a second, in place of the settings'.
    rate: Option<u64>,
    finished: bool,
}

impl Pace {
    /// What is wrong with it.
    #[must_use]
    pub fn check(&self) -> Vec<Diagnostic> {
        let mut found = Vec::new();
        if !(1..=65_536).contains(&self.chunk) {
            found.push(wrong("chunk", "outside 1 to 65536", "for example 4096"));
        }
        if !(1..=16).contains(&self.at_once) {
            found.push(wrong("at-once", "outside 1 to 16", "for example 4"));
        }
        found
    }
}

impl Background {
    /// The beginning, or a restart.
    pub fn begin(&mut self, pace: &Pace, volume_blocks: u64) {
        self.sweep.begin(pace.chunk, volume_blocks);
        self.finished = false;
    }

    /// An `open` is done.
    pub fn swept(&mut self, extent: Extent) {
        self.sweep.swept(extent);
    }

    /// The surroundings of this read come next.
    pub fn accessed(&mut self, extent: Extent) {
        self.sweep.accessed(extent);
    }

    /// These come before the rest, in this order; at most 1024 chunks of them.
    pub fn prefer(&mut self, extents: impl Iterator<Item = Extent>) {
        self.sweep.prefer(extents);
    }

    /// Opens as much as may be open at once, as fast as the rate lets it.
    pub fn go_on<S>(&mut self, pace: &Pace, cx: &Context<'_, S>, decisions: &mut Decisions) {
        if self.paused || self.finished {
            return;
        }
        let rate = self.rate.unwrap_or(pace.rate);
        loop {
            match self.sweep.next(cx.now, rate, pace.at_once) {
                Next::Open(extent, why) => decisions.open(extent, why),
                Next::WaitUntil(at) => return decisions.wake_at(at, "the rate"),
                Next::WaitForSwept => return,
                Next::Finished => {
                    self.finished = true;
                    let failed = cx.progress.failed;
                    if failed > 0 {
                        decisions.alert(&format!("{failed} blocks failed verification and cannot be read"));
                    }
                    return decisions.finished("every block was gone through");
                }
            }
        }
    }

    /// An operator's `pause`, `resume`, `rate N` (blocks a second) or `rate off`.
    pub fn obey(&mut self, text: &str, decisions: &mut Decisions) {
        let words: Vec<&str> = text.split_whitespace().collect();
        match words.as_slice() {
            ["pause"] => self.paused = true,
            ["resume"] => self.paused = false,
            ["rate", "off"] => self.rate = Some(0),
            ["rate", number] if let Ok(rate) = number.parse() => self.rate = Some(rate),
            _ => decisions.alert("not understood; there are: pause, resume, rate N (blocks a second), rate off"),
        }
    }
}
