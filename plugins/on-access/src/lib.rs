//! Recovery strategy `on-access`: what is read is opened at once, and the rest of the volume in the background, from
//! its first block on, with the surroundings of recent reads first. An operator can say `pause`, `resume`,
//! `rate N` (blocks a second) and `rate off`.

mod sweep;

use farseal_sdk::recovery::{Context, Decisions, Event, OnAccess, Strategy};
use farseal_sdk::settings::wrong;
use farseal_sdk::{About, Diagnostic, Plugin};
use serde::{Deserialize, Serialize};

use sweep::{Next, Sweep};

farseal_sdk::settings! {
    /// How the background goes on.
    pub struct Settings {
        /// Blocks opened by one decision, 1 to 65536.
        chunk: u32 = 4096,
        /// Chunks being opened at any time, 1 to 16.
        at_once: u32 = 4,
        /// Blocks a second at most; 0 for as fast as it goes.
        rate: u64 = 0,
    }
}

/// What is kept between calls.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct State {
    sweep: Sweep,
    paused: bool,
    /// Blocks a second, in place of the settings'.
    rate: Option<u64>,
    finished: bool,
}

/// The strategy.
#[derive(Debug)]
pub struct OnAccessFirst;

impl Plugin for OnAccessFirst {
    const ABOUT: About = farseal_sdk::about!("Opens what is read at once and the rest in the background.");
    const STATE_SCHEMA: u32 = 1;
    type Settings = Settings;

    fn check(settings: &Settings) -> Vec<Diagnostic> {
        let mut found = Vec::new();
        if !(1..=65_536).contains(&settings.chunk) {
            found.push(wrong("chunk", "outside 1 to 65536", "for example 4096"));
        }
        if !(1..=16).contains(&settings.at_once) {
            found.push(wrong("at-once", "outside 1 to 16", "for example 4"));
        }
        found
    }
}

impl Strategy for OnAccessFirst {
    type State = State;

    fn step(state: &mut State, event: &Event, cx: &Context<'_, Settings>, decisions: &mut Decisions) {
        match event {
            Event::Begin => {
                decisions.access(OnAccess::Open, "whoever reads shall not wait for the background");
                state.sweep.begin(cx.settings.chunk, cx.volume_blocks);
                state.finished = false;
            }
            Event::Swept(swept) => state.sweep.swept(swept.extent),
            Event::Accessed(extents) => extents.iter().for_each(|extent| state.sweep.accessed(*extent)),
            Event::Requested(text) => obey(state, text, decisions),
            Event::Timer | Event::Ext(_) => {}
        }
        if !state.paused && !state.finished {
            go_on(state, cx, decisions);
        }
    }
}

/// Opens as much as may be open at once, as fast as the rate lets it.
fn go_on(state: &mut State, cx: &Context<'_, Settings>, decisions: &mut Decisions) {
    let rate = state.rate.unwrap_or(cx.settings.rate);
    loop {
        match state.sweep.next(cx.now, rate, cx.settings.at_once) {
            Next::Open(extent, why) => decisions.open(extent, why),
            Next::WaitUntil(at) => return decisions.wake_at(at, "the rate"),
            Next::WaitForSwept => return,
            Next::Finished => {
                state.finished = true;
                if cx.progress.failed > 0 {
                    decisions.alert(&format!("{} blocks failed verification and cannot be read", cx.progress.failed));
                }
                return decisions.finished("every block was gone through");
            }
        }
    }
}

fn obey(state: &mut State, text: &str, decisions: &mut Decisions) {
    let words: Vec<&str> = text.split_whitespace().collect();
    match words.as_slice() {
        ["pause"] => state.paused = true,
        ["resume"] => state.paused = false,
        ["rate", "off"] => state.rate = Some(0),
        ["rate", number] if let Ok(rate) = number.parse() => state.rate = Some(rate),
        _ => decisions.alert("not understood; there are: pause, resume, rate N (blocks a second), rate off"),
    }
}

farseal_sdk::export_recovery!(OnAccessFirst);

#[cfg(test)]
mod tests;
