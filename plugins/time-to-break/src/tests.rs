//! Which limit binds, and the policy as the host calls it, natively.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use farseal_sdk::bindings::exports::farseal::plugin::rotation::Context as HostContext;
use farseal_sdk::rotation::{HostLimits, KeyState, init, step};

use super::*;

const HOUR: u64 = 3_600_000;
const START: u64 = 1_000 * HOUR;

fn host(config: &str, now: u64, bytes: u64) -> HostContext {
    let key = KeyInfo {
        epoch: 1,
        state: KeyState::Active,
        since: START,
        bytes_sealed: bytes,
        blocks_sealed: bytes / 4096,
        records_sealed: 1,
    };
    HostContext {
        now,
        pair: String::from("vault"),
        entropy: 7,
        config: String::from(config),
        keys: vec![key],
        limits: HostLimits { min_interval: 60_000, max_age: 10_000 * HOUR, max_bytes: 1 << 50 },
        link_up: true,
    }
}

/// Alerts at the start, and the reason that is given to a key of this age and use.
fn told(config: &str, hours: u64, bytes: u64) -> (Vec<String>, Option<String>) {
    let start = init::<TimeToBreak>(&host(config, START, 0)).unwrap();
    let alerts = start.decisions.into_iter().filter_map(|decision| match decision.action {
        Action::Alert(text) => Some(text),
        Action::Rotate(_) | Action::Watch(_) | Action::WakeAt(_) | Action::Ext(_) => None,
    });
    let later = step::<TimeToBreak>(&start.state, &Event::Timer, &host(config, START + hours * HOUR, bytes)).unwrap();
    let reason = later.decisions.into_iter().find_map(|decision| match decision.action {
        Action::Rotate(rotate) => Some(rotate.reason),
        Action::Alert(_) | Action::Watch(_) | Action::WakeAt(_) | Action::Ext(_) => None,
    });
    (alerts.collect(), reason)
}

#[test]
fn with_a_256_bit_key_exposure_binds_and_the_reason_says_so() {
    assert_eq!(told("{}", 23, 0), (vec![], None));
    let (_, reason) = told("{}", 24, 0);
    assert_eq!(reason.as_deref(), Some("the key is 1d old; exposure: a stolen key opens 1d of data"));
    let (_, reason) = told("{}", 1, 64 << 30);
    assert_eq!(reason.as_deref(), Some("the key has sealed 64GiB; exposure: a stolen key opens 64GiB"));
}

#[test]
fn key_search_binds_where_it_is_the_shortest() {
    let config = r#"{"key-bits": 128, "success-exponent": 1, "targets-exponent": 0, "secrecy": "3650d", "exposed-time": "365d"}"#;
    let (alerts, reason) = told(config, 24 * 30, 0);
    assert!(alerts.is_empty(), "{alerts:?}");
    let reason = reason.unwrap();
    assert!(reason.contains("key search: 1/1000 of what is left of 25"), "about 71 years: {reason}");
}

#[test]
fn the_aead_bound_binds_where_it_is_the_smallest() {
    let (_, reason) = told(r#"{"advantage-exponent": 50}"#, 1, 1 << 30);
    let reason = reason.unwrap();
    assert!(reason.ends_with("AEAD bound: an advantage of 2^-50 over 280PiB"), "{reason}");
}

#[test]
fn what_no_rotation_can_mend_is_said_at_the_start() {
    let (alerts, _) = told(r#"{"key-bits": 128}"#, 0, 0);
    assert!(alerts[0].contains("no interval is short enough"), "{alerts:?}");
    let (alerts, _) = told(r#"{"agreement-broken": "3650d"}"#, 0, 0);
    assert!(alerts[0].contains("new data keys do not help"), "{alerts:?}");
    let (alerts, _) = told(r#"{"exposed-time": "2s"}"#, 0, 0);
    assert_eq!(alerts, ["a key should live for 2s, and the host's floor is 1m"]);
}

#[test]
fn settings_that_make_no_sense_are_named() {
    let check = |text: &str| {
        let parsed = <Settings as farseal_sdk::Settings>::parse(text).unwrap();
        TimeToBreak::check(&parsed).into_iter().map(|wrong| wrong.path).collect::<Vec<_>>()
    };
    assert!(check("{}").is_empty());
    assert_eq!(check(r#"{"budget": 0, "share": 0, "halving": "1h"}"#), ["/budget", "/halving", "/share"]);
    assert_eq!(check(r#"{"key-bits": 0, "exposed-time": "1ms"}"#), ["/key-bits", "/exposed-time"]);
    assert_eq!(check(r#"{"block-bytes": "3B", "exposed-bytes": "1B"}"#), ["/exposed-bytes", "/block-bytes"]);
}
