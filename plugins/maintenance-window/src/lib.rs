//! Rotation policy `maintenance-window`: keys change in a weekly window only, when one is old enough or somebody has asked
//! since; a key that may be known to others does not wait for it, and neither does one that is overdue.

mod window;

use farseal_sdk::asking::Asking;
use farseal_sdk::rotation::{Context, Decisions, Event, Policy};
use farseal_sdk::settings::wrong;
use farseal_sdk::{About, Diagnostic, Plugin, Span};
use serde::{Deserialize, Serialize};
use window::Window;

farseal_sdk::settings! {
    /// When a key may change, and from which age on it does. Times are UTC.
    pub struct Settings {
        /// The age from which a key changes in the next window.
        interval: Span = "30d",
        /// The age at which a key changes whether there is a window or not.
        overdue: Span = "45d",
        /// The days on which the window opens.
        days: String = "mon tue wed thu fri sat sun",
        /// The time at which it opens.
        opens: String = "22:00",
        /// The time at which it closes, on the next day if that is earlier; the same time: a whole day.
        closes: String = "05:00",
    }
}

/// How much of a request's text goes into the reason.
const LONGEST_QUOTE: usize = 200;

/// What is kept between calls.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct State {
    asking: Asking,
    /// What somebody asked for and waits for the window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    request: Option<String>,
}

/// The policy.
#[derive(Debug)]
pub struct MaintenanceWindow;

impl Plugin for MaintenanceWindow {
    const ABOUT: About = farseal_sdk::about!("Changes keys in a weekly window only.");
    const STATE_SCHEMA: u32 = 1;
    type Settings = Settings;

    fn check(settings: &Settings) -> Vec<Diagnostic> {
        let mut found: Vec<Diagnostic> = window_of(settings).err().into_iter().collect();
        if settings.overdue < settings.interval {
            found.push(wrong("overdue", "less than the interval", "choose at least a week more than `interval`"));
        }
        found
    }
}

impl Policy for MaintenanceWindow {
    type State = State;

    fn step(state: &mut State, event: &Event, cx: &Context<'_, Settings>, decisions: &mut Decisions) {
        // `check` saw these settings before.
        let Ok(window) = window_of(cx.settings) else { return };
        if state.asking.observe_holding(event, cx) {
            state.request = None;
        }
        if let Event::Requested(text) = event {
            state.request.get_or_insert_with(|| text.chars().take(LONGEST_QUOTE).collect());
        }
        if matches!(event, Event::Started) && cx.settings.overdue > cx.ceiling() {
            decisions.alert(&format!("keys change at {}, the host's ceiling, whatever the window", cx.ceiling()));
        }

        let age = cx.now - state.asking.born();
        let due = state.asking.born() + cx.settings.interval;
        let overdue = state.asking.born() + cx.settings.overdue;
        if cx.now >= overdue {
            state.asking.want(&format!("the key is {age} old, and no window came"));
        } else if window.is_open(cx.now) {
            if let Some(request) = &state.request {
                state.asking.want(&format!("requested: {request}"));
            } else if cx.now >= due {
                state.asking.want(&format!("the key is {age} old"));
            }
        }

        let earliest = if state.request.is_some() { cx.now } else { due.max(cx.now) };
        let next = window.opening(earliest).min(overdue);
        // What the host refused in one window is asked for again in the next one, and not between them.
        let next = if state.asking.is_suspect() || cx.now >= overdue || window.is_open(cx.now) {
            state.asking.ask(cx, decisions);
            state.asking.wake_at(next, cx)
        } else {
            // Within the last second before a window opens: it is open long enough for a second more.
            next.max(cx.soonest_wake())
        };
        decisions.wake_at(next, "the next window, or an overdue key");
    }
}

fn window_of(settings: &Settings) -> Result<Window, Diagnostic> {
    let time = |name: &str, text: &str| {
        window::minutes(text).ok_or_else(|| wrong(name, &format!("\"{text}\" is no time"), "for example \"22:00\""))
    };
    let (opens, closes) = (time("opens", &settings.opens)?, time("closes", &settings.closes)?);
    let days = window::days(&settings.days).map_err(|word| {
        wrong(
            "days",
            &format!("\"{word}\" is no day"),
            "for example \"sat sun\"; there are: mon tue wed thu fri sat sun",
        )
    })?;
    Ok(Window { days, opens, closes })
}

farseal_sdk::export_rotation!(MaintenanceWindow);

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use farseal_sdk::Settings as _;
    use farseal_sdk::bindings::exports::farseal::plugin::rotation::Context as HostContext;
    use farseal_sdk::rotation::{Action, HostLimits, KeyInfo, KeyState, init, step};

    use super::*;

    /// 2026-01-01T00:00:00Z, and how long a day is.
    const START: u64 = 1_767_225_600_000;
    const DAY: u64 = 86_400_000;

    fn host(now: u64) -> HostContext {
        let key = KeyInfo {
            epoch: 1,
            state: KeyState::Active,
            since: START,
            bytes_sealed: 0,
            blocks_sealed: 0,
            records_sealed: 0,
        };
        HostContext {
            now,
            pair: "vault".into(),
            entropy: 7,
            config: "{}".into(),
            keys: vec![key],
            limits: HostLimits { min_interval: 60_000, max_age: 180 * DAY, max_bytes: 1 << 40 },
            link_up: true,
        }
    }

    fn wake(actions: &[farseal_sdk::rotation::Decision]) -> Option<u64> {
        actions.iter().find_map(|decision| if let Action::WakeAt(at) = decision.action { Some(at) } else { None })
    }

    #[test]
    fn a_request_in_the_last_second_before_the_window_asks_for_no_wake_up_that_the_host_clamps() {
        let opening = START + DAY - 2 * 3_600_000;
        let state = init::<MaintenanceWindow>(&host(opening - 10_000)).unwrap().state;
        for (before, woken) in [(5_000, opening), (1_000, opening), (400, opening + 600)] {
            let now = opening - before;
            let answer = step::<MaintenanceWindow>(&state, &Event::Requested("now".into()), &host(now)).unwrap();
            assert_eq!(wake(&answer.decisions), Some(woken), "{before} ms before it opens");
        }
    }

    #[test]
    fn settings_that_make_no_sense_are_named() {
        let check = |config: &str| {
            let found = MaintenanceWindow::check(&Settings::parse(config).unwrap());
            found.into_iter().map(|wrong| wrong.path).collect::<Vec<_>>()
        };
        assert!(check("{}").is_empty());
        assert_eq!(check(r#"{"opens": "24:00", "overdue": "1d"}"#), ["/opens", "/overdue"]);
        assert_eq!(check(r#"{"days": "mon funday"}"#), ["/days"]);
        assert_eq!(check(r#"{"days": ""}"#), ["/days"]);
    }
}
