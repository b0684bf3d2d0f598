//! Rotation policy `on-command`: a new key when somebody asks for one or when the old one may be known to others,
//! never otherwise. It tells the operator, in good time, when the host's ceiling is about to change the key anyway.

use farseal_sdk::asking::Asking;
use farseal_sdk::rotation::{Context, Decisions, Event, Policy};
use farseal_sdk::{About, Plugin, Span};
use serde::{Deserialize, Serialize};

farseal_sdk::settings! {
    /// When the operator hears of the ceiling.
    pub struct Settings {
        /// How long before the host's ceiling the operator is told.
        warn_before: Span = "7d",
    }
}

/// What is kept between calls.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct State {
    asking: Asking,
    /// Was the operator told about this key?
    warned: bool,
}

/// The policy.
#[derive(Debug)]
pub struct OnCommand;

impl Plugin for OnCommand {
    const ABOUT: About = farseal_sdk::about!("Changes the key only when told to, and warns before the host must.");
    const STATE_SCHEMA: u32 = 1;
    type Settings = Settings;
}

impl Policy for OnCommand {
    type State = State;

    fn step(state: &mut State, event: &Event, cx: &Context<'_, Settings>, decisions: &mut Decisions) {
        if state.asking.observe(event, cx) {
            state.warned = false;
        }
        state.asking.ask(cx, decisions);

        let ceiling = state.asking.born() + cx.ceiling();
        let warning = ceiling - cx.settings.warn_before;
        if cx.now >= warning && !state.warned {
            state.warned = true;
            let left = ceiling - cx.now;
            decisions.alert(&format!(
                "the host will change the key in {left}, at its ceiling of {}, unless a new key is requested before",
                cx.ceiling(),
            ));
        }
        let next = if state.warned { ceiling } else { warning };
        decisions.wake_at(state.asking.wake_at(next, cx), "the next look");
    }
}

farseal_sdk::export_rotation!(OnCommand);

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use farseal_sdk::bindings::exports::farseal::plugin::rotation::Context as HostContext;
    use farseal_sdk::rotation::{Action, HostLimits, KeyInfo, KeyState, init, step};

    use super::*;

    const DAY: u64 = 86_400_000;

    fn host(now: u64) -> HostContext {
        let state = KeyState::Active;
        HostContext {
            now,
            pair: String::from("vault"),
            entropy: 7,
            config: String::from("{}"),
            keys: vec![KeyInfo { epoch: 1, state, since: 0, bytes_sealed: 0, blocks_sealed: 0, records_sealed: 0 }],
            limits: HostLimits { min_interval: 0, max_age: 180 * DAY, max_bytes: 1 << 40 },
            link_up: true,
        }
    }

    /// Rotations and alerts of one call.
    fn texts(state: &mut String, now: u64, event: &Event) -> Vec<String> {
        let outcome = step::<OnCommand>(state, event, &host(now)).unwrap();
        *state = outcome.state;
        let texts = outcome.decisions.into_iter().filter_map(|decision| match decision.action {
            Action::Rotate(rotate) => Some(rotate.reason),
            Action::Alert(text) => Some(text),
            Action::WakeAt(_) | Action::Watch(_) | Action::Ext(_) => None,
        });
        texts.collect()
    }

    #[test]
    fn age_alone_changes_nothing_but_is_told_once() {
        let mut state = init::<OnCommand>(&host(0)).unwrap().state;
        assert!(texts(&mut state, 172 * DAY, &Event::Timer).is_empty());
        let told = texts(&mut state, 173 * DAY, &Event::Timer);
        assert_eq!(told.len(), 1);
        assert!(told[0].contains("in 7d"), "{told:?}");
        assert!(texts(&mut state, 174 * DAY, &Event::Timer).is_empty());
    }

    #[test]
    fn a_request_and_a_suspicion_are_carried_out_at_once() {
        let mut state = init::<OnCommand>(&host(0)).unwrap().state;
        let asked = texts(&mut state.clone(), 1, &Event::Requested(String::from("before the audit")));
        assert_eq!(asked, ["requested: before the audit"]);
        assert_eq!(texts(&mut state, 1, &Event::Suspect(1)).len(), 1);
    }
}
