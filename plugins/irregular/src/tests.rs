//! The drawing, and the policy as the host calls it, natively.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use farseal_sdk::bindings::exports::farseal::plugin::rotation::Context as HostContext;
use farseal_sdk::rotation::{Action, HostLimits, KeyInfo, KeyState, init, step};

use super::*;

const MINUTE: u64 = 60_000;
const START: u64 = 1_000_000 * MINUTE;

fn host(now: u64, entropy: u64, config: &str) -> HostContext {
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
        pair: String::from("vault"),
        entropy,
        config: String::from(config),
        keys: vec![key],
        limits: HostLimits { min_interval: 1_000, max_age: 10_000 * MINUTE, max_bytes: 1 << 40 },
        link_up: true,
    }
}

/// Stretches a counter over all 64 bits (the finalizer of SplitMix64).
fn spread(counter: u64) -> u64 {
    let mixed = (counter ^ (counter >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[test]
fn the_logarithm_is_exact_to_its_last_bit() {
    for number in [1, 2, 3, 7, 1_000, 0x8000_0000_0000_0000, u64::MAX] {
        let exact = (number as f64).log2() * 65_536.0;
        let found = log2(number) as f64;
        assert!((found - exact).abs() <= 1.01, "{number}: {found} {exact}");
    }
}

#[test]
fn drawn_ages_are_memoryless_with_the_mean_that_was_set() {
    let mean = Span::from_millis(900_000);
    let drawn: Vec<u64> =
        (1..=20_000_u64).map(|n| memoryless(mean, spread(n.wrapping_mul(0x9e37_79b9_7f4a_7c15))).as_millis()).collect();
    let share = |from: u64| drawn.iter().filter(|age| **age >= from).count() * 1_000 / drawn.len();
    let average = drawn.iter().sum::<u64>() / 20_000;
    assert!((880_000..920_000).contains(&average), "{average}");
    // Of an exponential distribution 1/e lies above its mean, and 1/e of those above twice its mean.
    assert!((355..381).contains(&share(900_000)), "{}", share(900_000));
    assert!((125..146).contains(&share(1_800_000)), "{}", share(1_800_000));
}

#[test]
fn the_extremes_of_the_entropy_stay_within_the_bounds() {
    for entropy in [0, 1, u64::MAX] {
        let outcome = init::<Irregular>(&host(START, entropy, "{}")).unwrap();
        let wake = outcome.decisions.iter().find_map(|decision| match decision.action {
            Action::WakeAt(at) => Some((at - START) / MINUTE),
            Action::Rotate(_) | Action::Watch(_) | Action::Alert(_) | Action::Ext(_) => None,
        });
        assert!(matches!(wake, Some(1 | 120)), "{entropy}: {wake:?}");
    }
}

#[test]
fn a_key_keeps_the_age_that_was_drawn_for_it() {
    let mut state = init::<Irregular>(&host(START, spread(1), "{}")).unwrap().state;
    let mut asked = None;
    for minute in 1..=120 {
        let outcome = step::<Irregular>(&state, &Event::Timer, &host(START + minute * MINUTE, spread(minute), "{}"));
        let outcome = outcome.unwrap();
        state = outcome.state;
        if outcome.decisions.iter().any(|decision| matches!(decision.action, Action::Rotate(_))) {
            asked = asked.or(Some(minute));
        }
    }
    let drawn = memoryless(Span::from_millis(15 * MINUTE), spread(1)).as_millis().div_ceil(MINUTE);
    assert_eq!(asked, Some(drawn.clamp(1, 120)));
}

#[test]
fn settings_that_make_no_sense_are_named() {
    let check = |text: &str| {
        let parsed = <Settings as farseal_sdk::Settings>::parse(text).unwrap();
        Irregular::check(&parsed).into_iter().map(|wrong| wrong.path).collect::<Vec<_>>()
    };
    assert!(check("{}").is_empty());
    assert_eq!(check(r#"{"shortest": "1ms"}"#), ["/shortest"]);
    assert_eq!(check(r#"{"mean": "1m", "longest": "30s"}"#), ["/mean", "/longest"]);
}
