//! The shipped plugins, loaded and called as the daemon does.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/shipped.rs"]
mod components;
#[path = "support/host.rs"]
mod environment;

use std::sync::Arc;

use components::shipped;
use environment::host;
use farseal_plugin::vault::guest::{GuestLayer, GuestUnit};
use farseal_plugin::vault::stack::Stack;
use farseal_plugin::wit::rotation::{Context, Event, HostLimits, KeyInfo, KeyState};
use farseal_plugin::{
    Cipher, Differences, Digest, Disguise, Grant, Kind, LoadRequest, Plugin, Power, Recovery, RotationCall,
    RotationPolicy, Slot, SwapError, replay_diff,
};

fn loads<P: Plugin>(bytes: &[u8]) -> P {
    let config = serde_json::Value::Null;
    let request =
        LoadRequest { slot: "test", bytes, pin: Some(Digest::of(bytes)), grants: &[Grant::Raw], config: &config };
    host().load(&request).unwrap()
}

#[test]
fn every_shipped_plugin_describes_itself_under_its_own_name() {
    for (name, bytes) in shipped() {
        let inspection = host().inspect(name, bytes).unwrap();
        assert_eq!(inspection.about.name, *name);
        assert!(inspection.abi.starts_with("0.1."));
        assert!(inspection.describe_fuel < 1_000_000, "{name}: describe takes {}", inspection.describe_fuel);
        assert!(inspection.bytes < 1 << 20, "{name}");
    }
}

#[test]
fn every_shipped_plugin_works_with_no_settings_at_all() {
    for (name, bytes) in shipped() {
        let kind = host().inspect(name, bytes).unwrap().kind;
        let facts = match kind {
            Kind::Rotation => loads::<RotationPolicy>(bytes).facts().clone(),
            Kind::Disguise => loads::<Disguise>(bytes).facts().clone(),
            Kind::Recovery => loads::<Recovery>(bytes).facts().clone(),
            Kind::Cipher => loads::<Cipher>(bytes).facts().clone(),
        };
        assert_eq!(facts.config, "{}");
    }
}

#[test]
fn only_the_raw_cipher_wants_raw_keys() {
    for (name, bytes) in shipped() {
        let powers = host().inspect(name, bytes).unwrap().powers;
        assert_eq!(powers.contains(&Power::Raw), name == "chacha20-guest", "{name}");
    }
}

fn context(config: &str) -> Context {
    let key =
        KeyInfo { epoch: 1, state: KeyState::Active, since: 0, bytes_sealed: 0, blocks_sealed: 0, records_sealed: 0 };
    Context {
        now: 0,
        pair: "pair".into(),
        entropy: 1,
        config: config.into(),
        keys: vec![key],
        limits: HostLimits { min_interval: 1_000, max_age: 1 << 40, max_bytes: 1 << 40 },
        link_up: true,
    }
}

fn interval(days: u64) -> Arc<RotationPolicy> {
    let bytes = &shipped()["interval"];
    let config = serde_json::json!({ "interval": format!("{days}d") });
    let request = LoadRequest { slot: "test", bytes, pin: Some(Digest::of(bytes)), grants: &[], config: &config };
    Arc::new(host().load(&request).unwrap())
}

/// What a node journals over ten days, a call a day.
fn journal(policy: &RotationPolicy) -> Vec<RotationCall> {
    let config = &policy.facts().config;
    let mut calls = vec![RotationCall::Init { context: context(config) }];
    let mut state = policy.init(&context(config)).unwrap().value.state;
    for day in 1..=10 {
        let context = Context { now: day * 86_400_000, ..context(config) };
        let call = RotationCall::Step { state, event: Event::Timer, context };
        state = policy.call(&call).unwrap().value.state;
        calls.push(call);
    }
    calls
}

#[test]
fn a_policy_replays_its_own_journal_without_a_difference() {
    let policy = interval(5);
    assert_eq!(replay_diff(&journal(&policy), &policy, &interval(5)), []);
    // What a node stores is what it replays.
    let stored = serde_json::to_string(&journal(&policy)).unwrap();
    let read: Vec<RotationCall> = serde_json::from_str(&stored).unwrap();
    assert_eq!(read, journal(&policy));
}

#[test]
fn a_swap_that_changes_decisions_needs_consent() {
    let old = interval(5);
    let slot = Slot::<RotationPolicy>::new("vault-1.rotation", Arc::default());
    slot.install(Some(Arc::clone(&old)));
    let calls = journal(&old);
    let refused = slot.swap(interval(3), Some("{}"), &calls, Differences::Refuse).unwrap_err();
    assert!(matches!(refused, SwapError::Differs { calls: 11, .. }), "{refused}");
    assert!(Arc::ptr_eq(&slot.current().unwrap(), &old), "the old one stays");
    let swapped = slot.swap(interval(3), Some("{}"), &calls, Differences::Accept).unwrap();
    assert!(!swapped.differences.is_empty());
    assert!(Arc::ptr_eq(&swapped.previous.unwrap(), &old));
}

#[test]
fn the_vault_seals_through_the_guests_own_algorithm() {
    let cipher = Arc::new(loads::<Cipher>(&shipped()["chacha20-guest"]));
    assert!(cipher.stacks().as_slice().iter().any(Stack::needs_guest));
    let mut worker = cipher.worker();
    let nonces: Vec<u8> = (0..24).collect();
    let mut body = vec![0x33; 5_000];
    let mut units = [GuestUnit { nonces: &nonces, block_len: 4_096, body: &mut body }];
    GuestLayer::seal(&mut worker, &[9; 32], &mut units).unwrap();
    assert!(body.iter().any(|byte| *byte != 0x33));
    let mut units = [GuestUnit { nonces: &nonces, block_len: 4_096, body: &mut body }];
    GuestLayer::open(&mut worker, &[9; 32], &mut units).unwrap();
    assert_eq!(body, vec![0x33; 5_000]);
}
