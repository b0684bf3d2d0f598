//! Recovery strategy `hot-first`: what is read is opened at once; in the background what was written last comes first, then the
//! rest from the volume's first block on. An operator can say `pause`, `resume`, `rate N` (blocks a second) and `rate off`.

use farseal_sdk::recovery::{Awaited, Background, Context, Decisions, Event, OnAccess, Pace, Strategy, WRITTEN_LAST};
use farseal_sdk::{About, Diagnostic, Plugin};
use serde::{Deserialize, Serialize};

farseal_sdk::settings! {
    /// How the background goes on.
    pub struct Settings {
        /// Blocks opened by one decision, 1 to 65536; what was written last is told in parts of this size, 1024 of them.
        chunk: u32 = 1024,
        /// Chunks being opened at any time, 1 to 16.
        at_once: u32 = 4,
        /// Blocks a second at most; 0 for as fast as it goes.
        rate: u64 = 0,
    }
}

/// What is kept between calls.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct State {
    background: Background,
    awaited: Awaited,
}

/// The strategy.
#[derive(Debug)]
pub struct HotFirst;

impl Plugin for HotFirst {
    const ABOUT: About =
        farseal_sdk::about!("Opens what is read at once, and first of the rest what was written last.");
    const STATE_SCHEMA: u32 = 1;
    const UNDERSTANDS: &'static [&'static str] = &[WRITTEN_LAST];
    type Settings = Settings;

    fn check(settings: &Settings) -> Vec<Diagnostic> {
        pace(settings).check()
    }
}

impl Strategy for HotFirst {
    type State = State;

    fn step(state: &mut State, event: &Event, cx: &Context<'_, Settings>, decisions: &mut Decisions) {
        let (pace, State { background, awaited }) = (pace(cx.settings), state);
        match event {
            Event::Begin => {
                decisions.access(OnAccess::Open, "whoever reads shall not wait for the background");
                background.begin(&pace, cx.volume_blocks);
                awaited.ask(pace.chunk, cx.now, decisions);
            }
            Event::Swept(swept) => background.swept(swept.extent),
            Event::Accessed(extents) => extents.iter().for_each(|extent| background.accessed(*extent)),
            Event::Requested(text) => background.obey(text, decisions),
            Event::Ext(ext) => awaited.came(ext).into_iter().for_each(|extents| background.prefer(extents.into_iter())),
            Event::Timer => awaited.give_up(cx.now),
        }
        if !awaited.waits() {
            background.go_on(&pace, cx, decisions);
        }
    }
}

fn pace(settings: &Settings) -> Pace {
    Pace { chunk: settings.chunk, at_once: settings.at_once, rate: settings.rate }
}

farseal_sdk::export_recovery!(HotFirst);
