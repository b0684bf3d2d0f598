//! The budgets, and the policy as the host calls it, natively.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use farseal_sdk::bindings::exports::farseal::plugin::rotation::Context as HostContext;
use farseal_sdk::rotation::{HostLimits, KeyState, init, step};

use super::*;

fn key(bytes: u64, blocks: u64) -> KeyInfo {
    KeyInfo {
        epoch: 1,
        state: KeyState::Active,
        since: 5,
        bytes_sealed: bytes,
        blocks_sealed: blocks,
        records_sealed: 1,
    }
}

fn host(config: &str, key: KeyInfo) -> HostContext {
    HostContext {
        now: 1_000_000,
        pair: String::from("vault"),
        entropy: 7,
        config: String::from(config),
        keys: vec![key],
        limits: HostLimits { min_interval: 60_000, max_age: 1 << 40, max_bytes: 1 << 50 },
        link_up: true,
    }
}

/// What is watched at the start, and why a key with this use is changed.
fn told(config: &str, bytes: u64, blocks: u64) -> (Option<Watch>, Option<String>) {
    let start = init::<VolumeBudget>(&host(config, key(0, 0))).unwrap();
    let watch = start.decisions.iter().find_map(|decision| match decision.action {
        Action::Watch(watch) => Some(watch),
        Action::Rotate(_) | Action::WakeAt(_) | Action::Alert(_) | Action::Ext(_) => None,
    });
    let later = step::<VolumeBudget>(&start.state, &Event::Usage, &host(config, key(bytes, blocks))).unwrap();
    let reason = later.decisions.into_iter().find_map(|decision| match decision.action {
        Action::Rotate(rotate) => Some(rotate.reason),
        Action::Watch(_) | Action::WakeAt(_) | Action::Alert(_) | Action::Ext(_) => None,
    });
    (watch, reason)
}

#[test]
fn each_budget_is_watched_and_named_when_it_is_used_up() {
    let bytes = r#"{"bytes": "1MiB"}"#;
    let (watch, reason) = told(bytes, 1 << 20, 256);
    assert_eq!(watch.unwrap().bytes, Some(1 << 20));
    assert_eq!(reason.as_deref(), Some("the key has sealed 1MiB, its budget"));
    let (watch, reason) = told(r#"{"blocks": 1000}"#, 0, 1000);
    assert_eq!(watch.unwrap().blocks, Some(1000));
    assert_eq!(reason.as_deref(), Some("the key has sealed 1000 blocks, its budget"));
    assert_eq!(told(bytes, (1 << 20) - 1, 255).1, None);
}

#[test]
fn without_a_budget_the_bound_is_one() {
    let (watch, reason) = told("{}", 0, 30_000_000);
    let blocks = watch.unwrap().blocks.unwrap();
    assert!((29_000_000..30_000_000).contains(&blocks), "about 114 GiB of 4 KiB blocks, not {blocks}");
    let reason = reason.unwrap();
    assert!(reason.ends_with("blocks, what an advantage of 2^-40 over 280PiB leaves to one key"), "{reason}");
}

#[test]
fn the_bound_wins_over_a_larger_budget() {
    let (watch, _) = told(r#"{"blocks": 1000000000000}"#, 0, 0);
    assert!(watch.unwrap().blocks.unwrap() < 30_000_000);
}

#[test]
fn age_alone_changes_nothing_and_asks_for_no_timer() {
    let mut host = host("{}", key(0, 0));
    let start = init::<VolumeBudget>(&host).unwrap();
    host.now += 1 << 45;
    let later = step::<VolumeBudget>(&start.state, &Event::Timer, &host).unwrap();
    assert!(later.decisions.is_empty(), "{:?}", later.decisions);
}

#[test]
fn settings_that_make_no_sense_are_named() {
    let check = |text: &str| {
        let parsed = <Settings as farseal_sdk::Settings>::parse(text).unwrap();
        VolumeBudget::check(&parsed).into_iter().map(|wrong| wrong.path).collect::<Vec<_>>()
    };
    assert!(check("{}").is_empty());
    assert_eq!(check(r#"{"bytes": "0B", "blocks": 1}"#), ["/bytes", "/blocks"]);
    assert_eq!(check(r#"{"block-bytes": "1MiB"}"#), ["/block-bytes"]);
    assert_eq!(check(r#"{"advantage-exponent": 64}"#), ["/advantage-exponent"]);
}
