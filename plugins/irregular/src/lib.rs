//! Rotation policy `irregular`: the age at which a key changes is drawn anew for each key, so that knowing when keys
//! changed until now says nothing of when the next one will.

use farseal_sdk::asking::Asking;
use farseal_sdk::rotation::{Context, Decisions, Event, Policy};
use farseal_sdk::settings::wrong;
use farseal_sdk::{About, Diagnostic, Plugin, Span};
use serde::{Deserialize, Serialize};

farseal_sdk::settings! {
    /// How the ages are drawn.
    pub struct Settings {
        /// The mean age at which a key changes, before the bounds.
        mean: Span = "15m",
        /// No key changes younger than this.
        shortest: Span = "1m",
        /// No key grows older than this.
        longest: Span = "2h",
    }
}

/// The shortest age that makes sense: the host wakes nobody more often.
const LEAST: Span = Span::from_millis(1_000);

/// What is kept between calls.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct State {
    asking: Asking,
    /// The age at which the key in force changes.
    drawn: Span,
}

/// The policy.
#[derive(Debug)]
pub struct Irregular;

impl Plugin for Irregular {
    const ABOUT: About = farseal_sdk::about!("Changes each key at an age drawn by chance, which nobody can foretell.");
    const STATE_SCHEMA: u32 = 1;
    type Settings = Settings;

    fn check(settings: &Settings) -> Vec<Diagnostic> {
        let mut found = Vec::new();
        if settings.shortest < LEAST {
            found.push(wrong("shortest", "shorter than a second", "for example \"1m\""));
        }
        if settings.mean <= settings.shortest {
            found.push(wrong("mean", "not longer than `shortest`", "nearly every key would change at one age"));
        }
        if settings.longest <= settings.mean {
            found.push(wrong("longest", "not longer than `mean`", "for example eight times `mean`"));
        }
        found
    }
}

impl Policy for Irregular {
    type State = State;

    fn step(state: &mut State, event: &Event, cx: &Context<'_, Settings>, decisions: &mut Decisions) {
        let Settings { mean, shortest, longest } = *cx.settings;
        let new_key = state.asking.observe(event, cx);
        if new_key || state.drawn == Span::ZERO {
            state.drawn = memoryless(mean, cx.entropy).clamp(shortest, longest);
        }
        if matches!(event, Event::Started) && longest > cx.ceiling() {
            decisions.alert(&format!("`longest` of {longest} is above the host's ceiling of {}", cx.ceiling()));
        }
        // Other bounds count for a key that is in force already.
        let due = state.asking.born() + state.drawn.clamp(shortest, longest);
        if cx.now >= due {
            state.asking.want(&format!("the key is {} old", cx.now - state.asking.born()));
        }
        state.asking.ask(cx, decisions);
        decisions.wake_at(state.asking.wake_at(due, cx), "the next look");
    }
}

/// A span from the exponential distribution with this mean: `-mean * ln(u)`, where `u` is `entropy` over 2^64. How
/// long it has lasted says nothing of how long it will. In whole numbers, so that it is the same everywhere.
fn memoryless(mean: Span, entropy: u64) -> Span {
    // ln 2 in units of 2^-16.
    const LN_2: u128 = 45_426;
    let minus_log2 = (64 << FRACTION) - u128::from(log2(entropy.max(1)));
    let millis = (u128::from(mean.as_millis()) * minus_log2 * LN_2) >> (2 * FRACTION);
    Span::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
}

/// Bits after the point.
const FRACTION: u32 = 16;

/// The binary logarithm in units of 2^-16, rounded down, of a number that is not zero: each squaring of the mantissa
/// gives one more bit.
fn log2(number: u64) -> u64 {
    let whole = u64::from(number.ilog2());
    // The mantissa in [1, 2) with 63 bits after the point.
    let mut mantissa = u128::from(number << number.leading_zeros());
    let mut bits = whole;
    for _ in 0..FRACTION {
        mantissa = (mantissa * mantissa) >> 63;
        let carry = mantissa >> 64;
        mantissa >>= carry;
        bits = (bits << 1) | u64::from(carry > 0);
    }
    bits
}

farseal_sdk::export_rotation!(Irregular);

#[cfg(test)]
mod tests;
