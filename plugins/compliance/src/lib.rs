//! Rotation policy `compliance`: keys change on set days of the calendar, and in between when enough different people ask for it;
//! every change is told to the operator with its ground. A key that may be known to others changes at once.

mod calendar;

use calendar::Calendar;
use farseal_sdk::asking::Asking;
use farseal_sdk::rotation::{Context, Decisions, Event, Policy};
use farseal_sdk::settings::wrong;
use farseal_sdk::{About, Diagnostic, Instant, Plugin, Span};
use serde::{Deserialize, Serialize};

farseal_sdk::settings! {
    /// When keys have to change, and who may have one changed sooner. Times are UTC.
    pub struct Settings {
        /// The months in which a key changes, 1 to 12.
        months: String = "1 4 7 10",
        /// The day of the month, 1 to 28.
        day: u32 = 1,
        /// The hour of that day, 0 to 23.
        hour: u32 = 2,
        /// So many different people have to ask before a key changes out of turn: a request begins with a name and a colon.
        quorum: u32 = 2,
        /// A request counts for so long.
        within: Span = "24h",
    }
}

/// More people than this are not remembered; nobody needs a larger quorum.
const MOST_VOICES: usize = 16;
/// How much of a request's text is kept.
const LONGEST_QUOTE: usize = 100;

/// What is kept between calls.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct State {
    asking: Asking,
    /// Who asked for a key since the last one, one entry a person.
    voices: Vec<Voice>,
}

/// Somebody who asked.
#[derive(Debug, Serialize, Deserialize)]
pub struct Voice {
    who: String,
    why: String,
    at: Instant,
}

/// The policy.
#[derive(Debug)]
pub struct Compliance;

impl Plugin for Compliance {
    const ABOUT: About =
        farseal_sdk::about!("Changes keys by the calendar, and out of turn when enough people ask for it.");
    const STATE_SCHEMA: u32 = 1;
    type Settings = Settings;

    fn check(settings: &Settings) -> Vec<Diagnostic> {
        let mut found = Vec::new();
        if calendar::months(&settings.months).is_none() {
            found.push(wrong("months", "no months", "for example \"1 4 7 10\""));
        }
        if !(1..=28).contains(&settings.day) {
            found.push(wrong("day", "outside 1 to 28", "for example 1: every month has it"));
        }
        if settings.hour > 23 {
            found.push(wrong("hour", "outside 0 to 23", "for example 2"));
        }
        if !(1..=8).contains(&settings.quorum) {
            found.push(wrong("quorum", "outside 1 to 8", "for example 2"));
        }
        found
    }
}

impl Policy for Compliance {
    type State = State;

    fn step(state: &mut State, event: &Event, cx: &Context<'_, Settings>, decisions: &mut Decisions) {
        // `check` saw these settings before.
        let Some(calendar) = calendar_of(cx.settings) else { return };
        // One request is not enough.
        if state.asking.observe_holding(event, cx) {
            state.voices.clear();
        }
        // A clock that stepped back must not make a voice count for ever.
        state.voices.iter_mut().for_each(|voice| voice.at = voice.at.min(cx.now));
        state.voices.retain(|voice| cx.now - voice.at < cx.settings.within);
        if let Event::Requested(text) = event {
            hear(state, text, cx, decisions);
        }

        let due = calendar.next_after(state.asking.born());
        if cx.now >= due {
            state.asking.want(&format!("the calendar says {}", calendar::date(due)));
        }
        if state.voices.len() >= usize::try_from(cx.settings.quorum).unwrap_or(usize::MAX) {
            let said: Vec<String> = state.voices.iter().map(|voice| format!("{}: {}", voice.who, voice.why)).collect();
            state.asking.want(&format!("asked for by {}", said.join("; ")));
        }
        state.asking.ask(cx, decisions);
        let forgets = state.voices.iter().map(|voice| voice.at + cx.settings.within).min();
        let next = forgets.map_or(due, |forgets| forgets.min(due));
        decisions.wake_at(state.asking.wake_at(next, cx), "the calendar, or a voice that counts no more");
    }
}

/// One more person has asked, or the same one again.
fn hear(state: &mut State, text: &str, cx: &Context<'_, Settings>, decisions: &mut Decisions) {
    let (who, why) = text.split_once(':').unwrap_or((text, ""));
    let quote = |text: &str| text.trim().chars().take(LONGEST_QUOTE).collect::<String>();
    let (who, why) = (quote(who), quote(why));
    if state.voices.iter().any(|voice| voice.who == who) || state.voices.len() >= MOST_VOICES {
        return;
    }
    state.voices.push(Voice { who, why, at: cx.now });
    let (voices, quorum) = (state.voices.len(), cx.settings.quorum);
    if voices < usize::try_from(quorum).unwrap_or(usize::MAX) {
        decisions.alert(&format!("{voices} of {quorum} people have asked for a new key"));
    }
}

fn calendar_of(settings: &Settings) -> Option<Calendar> {
    let months = calendar::months(&settings.months)?;
    Some(Calendar { months, day: settings.day, hour: settings.hour })
}

farseal_sdk::export_rotation!(Compliance);

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use farseal_sdk::Settings as _;

    use super::*;

    #[test]
    fn settings_that_make_no_sense_are_named() {
        let check = |config: &str| {
            let found = Compliance::check(&Settings::parse(config).unwrap());
            found.into_iter().map(|wrong| wrong.path).collect::<Vec<_>>()
        };
        assert!(check("{}").is_empty());
        assert_eq!(
            check(r#"{"months": "0 13", "day": 31, "hour": 24, "quorum": 0}"#),
            ["/months", "/day", "/hour", "/quorum"]
        );
    }
}
