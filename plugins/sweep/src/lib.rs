//! Recovery strategy `sweep`: the whole volume in one order, whatever is read meanwhile, which is opened at once as well. An
//! operator can say `pause`, `resume`, `rate N` (blocks a second) and `rate off`.

use farseal_sdk::recovery::{Awaited, Background, Context, Decisions, Event, OnAccess, Pace, Strategy, WRITTEN_LAST};
use farseal_sdk::{About, Diagnostic, Plugin};
use serde::{Deserialize, Serialize};

/// The most parts that the host names by their age.
const PARTS: u64 = 1024;
/// The most blocks that one decision opens.
const CHUNK_MAX: u32 = 65_536;

farseal_sdk::settings! {
    /// In which order, and how fast.
    pub struct Settings {
        /// What was written last first, in 1024 parts of the volume; else from its first block on.
        newest_first: bool = false,
        /// Blocks opened by one decision, 1 to 65536; at least a part.
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
    background: Background,
    awaited: Awaited,
}

/// The strategy.
#[derive(Debug)]
pub struct Sweep;

impl Plugin for Sweep {
    const ABOUT: About = farseal_sdk::about!("Opens the whole volume in one order.");
    const STATE_SCHEMA: u32 = 1;
    const UNDERSTANDS: &'static [&'static str] = &[WRITTEN_LAST];
    type Settings = Settings;

    fn check(settings: &Settings) -> Vec<Diagnostic> {
        pace(settings, 0).check()
    }
}

impl Strategy for Sweep {
    type State = State;

    fn step(state: &mut State, event: &Event, cx: &Context<'_, Settings>, decisions: &mut Decisions) {
        let (pace, State { background, awaited }) = (pace(cx.settings, cx.volume_blocks), state);
        match event {
            Event::Begin => {
                decisions.access(OnAccess::Open, "whoever reads shall not wait for the sweep");
                background.begin(&pace, cx.volume_blocks);
                if cx.settings.newest_first {
                    awaited.ask(pace.chunk, cx.now, decisions);
                }
            }
            Event::Swept(swept) => background.swept(swept.extent),
            Event::Requested(text) => background.obey(text, decisions),
            Event::Ext(ext) => awaited.came(ext).into_iter().for_each(|extents| background.prefer(extents.into_iter())),
            Event::Timer => awaited.give_up(cx.now),
            Event::Accessed(_) => {}
        }
        if !awaited.waits() {
            background.go_on(&pace, cx, decisions);
        }
    }
}

/// By age, a chunk is a part of the volume, as far as one decision can open it.
fn pace(settings: &Settings, volume_blocks: u64) -> Pace {
    let part = u32::try_from(volume_blocks.div_ceil(PARTS)).unwrap_or(u32::MAX).min(CHUNK_MAX);
    let chunk = if settings.newest_first { settings.chunk.max(part) } else { settings.chunk };
    Pace { chunk, at_once: settings.at_once, rate: settings.rate }
}

farseal_sdk::export_recovery!(Sweep);
