//! Rotation policy `interval`: a new key when the one in force is as old as `interval`, or has sealed `max-bytes`;
//! at once when it may be known to others or when somebody asks.

use farseal_sdk::asking::Asking;
use farseal_sdk::rotation::{Context, Decisions, Event, Policy};
use farseal_sdk::settings::wrong;
use farseal_sdk::{About, Diagnostic, Plugin, Size, Span};
use serde::{Deserialize, Serialize};

farseal_sdk::settings! {
    /// How long and for how much a key is used.
    pub struct Settings {
        /// The age at which the key changes.
        interval: Span = "1h",
        /// Each key changes up to this much earlier than `interval`, by chance.
        jitter: Span = "0s",
        /// The bytes after which the key changes; null for no limit of this policy's own.
        max_bytes: Option<Size> = null,
    }
}

/// The shortest interval that makes sense: the host wakes nobody more often.
const SHORTEST: Span = Span::from_millis(1_000);

/// What is kept between calls.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct State {
    asking: Asking,
    /// How much earlier than `interval` the key in force changes.
    early: Span,
}

/// The policy.
#[derive(Debug)]
pub struct Interval;

impl Plugin for Interval {
    const ABOUT: About = farseal_sdk::about!("Changes the key at a set age or after a set number of bytes.");
    const STATE_SCHEMA: u32 = 1;
    type Settings = Settings;

    fn check(settings: &Settings) -> Vec<Diagnostic> {
        let mut found = Vec::new();
        if settings.interval < SHORTEST {
            found.push(wrong("interval", "shorter than a second", "for example \"1h\""));
        }
        if settings.jitter >= settings.interval {
            found.push(wrong("jitter", "not shorter than the interval", "choose less than `interval`"));
        }
        if settings.max_bytes == Some(Size::from_bytes(0)) {
            found.push(wrong("max-bytes", "zero would change the key without end", "null for no limit"));
        }
        found
    }
}

impl Policy for Interval {
    type State = State;

    fn step(state: &mut State, event: &Event, cx: &Context<'_, Settings>, decisions: &mut Decisions) {
        let Settings { interval, jitter, max_bytes } = *cx.settings;
        let new_key = state.asking.observe(event, cx);
        if new_key {
            state.early = jitter.part(cx.entropy);
        }
        if matches!(event, Event::Started) && interval > cx.ceiling() {
            decisions.alert(&format!("the interval of {interval} is above the host's ceiling of {}", cx.ceiling()));
        }

        // A change of settings can make the drawn jitter the longer one; time saturates then, and the key is due.
        let due = state.asking.born() + (interval - state.early);
        if cx.now >= due {
            state.asking.want(&format!("the key is {} old", cx.now - state.asking.born()));
        }
        if let (Some(most), Some(key)) = (max_bytes, cx.sealing()) {
            if key.sealed() >= most {
                state.asking.want(&format!("the key has sealed {most}"));
            } else if new_key || matches!(event, Event::Started) {
                decisions.watch_bytes(most, "the limit of this policy");
            }
        }
        state.asking.ask(cx, decisions);
        decisions.wake_at(state.asking.wake_at(due, cx), "the next look");
    }
}

farseal_sdk::export_rotation!(Interval);

#[cfg(test)]
mod tests;
