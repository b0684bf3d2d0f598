//! Recovery strategy `on-access`: what is read is opened at once, and the rest of the volume in the background, from
//! its first block on, with the surroundings of recent reads first. An operator can say `pause`, `resume`,
//! `rate N` (blocks a second) and `rate off`.

use farseal_sdk::recovery::{Background, Context, Decisions, Event, OnAccess, Pace, Strategy};
use farseal_sdk::{About, Diagnostic, Plugin};

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

/// The strategy.
#[derive(Debug)]
pub struct OnAccessFirst;

impl Plugin for OnAccessFirst {
    const ABOUT: About = farseal_sdk::about!("Opens what is read at once and the rest in the background.");
    const STATE_SCHEMA: u32 = 1;
    type Settings = Settings;

    fn check(settings: &Settings) -> Vec<Diagnostic> {
        pace(settings).check()
    }
}

impl Strategy for OnAccessFirst {
    type State = Background;

    fn step(state: &mut Background, event: &Event, cx: &Context<'_, Settings>, decisions: &mut Decisions) {
        let pace = pace(cx.settings);
        match event {
            Event::Begin => {
                decisions.access(OnAccess::Open, "whoever reads shall not wait for the background");
                state.begin(&pace, cx.volume_blocks);
            }
            Event::Swept(swept) => state.swept(swept.extent),
            Event::Accessed(extents) => extents.iter().for_each(|extent| state.accessed(*extent)),
            Event::Requested(text) => state.obey(text, decisions),
            Event::Timer | Event::Ext(_) => {}
        }
        state.go_on(&pace, cx, decisions);
    }
}

fn pace(settings: &Settings) -> Pace {
    Pace { chunk: settings.chunk, at_once: settings.at_once, rate: settings.rate }
}

farseal_sdk::export_recovery!(OnAccessFirst);

#[cfg(test)]
mod tests;
