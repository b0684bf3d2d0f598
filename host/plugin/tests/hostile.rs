//! Hostile components: each is contained, put in the right class, and explained in a message that a person reviews.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/hostile.rs"]
mod components;
#[path = "support/host.rs"]
mod environment;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::{Arc, Mutex};

use components::{hostile, load, text};
use environment::{host, root};
use farseal_plugin::vault::guest::{GuestLayer, GuestUnit};
use farseal_plugin::wit::cipher::{Batch, RecordKind, Shape, Unit};
use farseal_plugin::wit::{recovery, rotation};
use farseal_plugin::{
    Because, Breaker, By, CallError, Cipher, CodeCache, Digest, Disguise, FaultClass, HostOptions, LoadRequest,
    PluginHost, Problem, Recovery, RotationPolicy, Slot, limits,
};
use serde_json::json;

fn settings() -> insta::Settings {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(root().join("fixtures/snapshots/hostile"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings
}

/// `name` and what was said about it, as one reviewable text.
#[derive(Default)]
struct Sheet(String);

impl Sheet {
    fn add(&mut self, name: &str, said: impl Display) {
        self.0.push_str(&format!("{name}\n{said}\n\n"));
    }

    fn check(self, name: &str) {
        settings().bind(|| insta::assert_snapshot!(name, self.0));
    }
}

fn rotation_context() -> rotation::Context {
    let key = rotation::KeyInfo {
        epoch: 1,
        state: rotation::KeyState::Active,
        since: 1_000,
        bytes_sealed: 0,
        blocks_sealed: 0,
        records_sealed: 0,
    };
    rotation::Context {
        now: 2_000,
        pair: "pair".into(),
        entropy: 1,
        config: "{}".into(),
        keys: vec![key],
        limits: rotation::HostLimits { min_interval: 1_000, max_age: 1_000_000, max_bytes: 1 << 40 },
        link_up: true,
    }
}

fn rotation_does(deed: &str) -> Result<rotation::Outcome, CallError> {
    let policy: RotationPolicy = load(&hostile("rotation"), json!({ "do": deed })).unwrap();
    let mut context = rotation_context();
    context.config = json!({ "do": deed }).to_string();
    policy.step("s", &rotation::Event::Timer, &context).map(|called| called.value)
}

/// `fixtures/hostile/wasip2`: what somebody tries on the first day.
fn program() -> Vec<u8> {
    std::fs::read(root().join("fixtures/hostile/wasip2/hello.wasm")).unwrap()
}

#[test]
fn every_unloadable_component_is_refused_with_its_cause_and_fix() {
    let mut sheet = Sheet::default();
    let names = [
        "core-module",
        "wasi",
        "foreign-import",
        "raw-in-rotation",
        "other-version",
        "pre-release",
        "no-meta",
        "no-kind",
        "two-kinds",
        "other-shape",
        "log-of-other-shape",
        "nested-code",
        "relaxed-simd",
        "threads",
    ];
    for name in names {
        let error = load::<RotationPolicy>(&text(name), json!({})).unwrap_err();
        sheet.add(name, error);
    }
    sheet.add("a program for wasm32-wasip2", load::<RotationPolicy>(&program(), json!({})).unwrap_err());
    sheet.add("not WebAssembly", load::<RotationPolicy>(b"#!/bin/sh\necho hello\n", json!({})).unwrap_err());
    sheet.add("nothing", load::<RotationPolicy>(b"", json!({})).unwrap_err());
    let mut cut = hostile("rotation");
    cut.truncate(cut.len() / 2);
    // Where a cut file breaks depends on the compiler's bytes; the message's form does not.
    let said = load::<RotationPolicy>(&cut, json!({})).unwrap_err();
    assert_eq!(said.problem.code(), "E03");
    sheet.add("too large", load::<RotationPolicy>(&vec![0; limits::COMPONENT_BYTES + 1], json!({})).unwrap_err());
    sheet.check("refused");
}

#[test]
fn pin_grant_kind_and_settings_are_checked_before_any_code_runs() {
    let mut sheet = Sheet::default();
    let bytes = text("core-module");
    let config = json!({});
    let request = LoadRequest { slot: "vault-1.rotation", bytes: &bytes, pin: None, grants: &[], config: &config };
    sheet.add("no pin", host().load::<RotationPolicy>(&request).unwrap_err());
    let other = LoadRequest { pin: Some(Digest([0; 32])), ..request.clone() };
    sheet.add("another file", host().load::<RotationPolicy>(&other).unwrap_err());
    let raw = text("raw");
    let ungranted =
        LoadRequest { slot: "vault-1.cipher", bytes: &raw, pin: Some(Digest::of(&raw)), grants: &[], config: &config };
    sheet.add("no grant", host().load::<Cipher>(&ungranted).unwrap_err());
    sheet.add("another kind", load::<Disguise>(&hostile("rotation"), json!({})).unwrap_err());
    sheet.add("settings are a list", load::<RotationPolicy>(&hostile("rotation"), json!([1])).unwrap_err());
    let mut refused = load::<RotationPolicy>(&hostile("rotation"), json!({ "do": "refuse" })).unwrap_err();
    sheet.add("settings are refused", &refused);
    let Problem::Config { given, .. } = &mut refused.problem else { panic!("{refused}") };
    *given = false;
    sheet.add("its defaults are refused", refused);
    sheet.add(
        "check-config dies",
        load::<RotationPolicy>(&hostile("rotation"), json!({ "do": "check-traps" })).unwrap_err(),
    );
    sheet.check("not-allowed");
}

#[test]
fn a_component_that_cannot_describe_itself_is_not_loaded() {
    let mut sheet = Sheet::default();
    sheet.add("describe dies", host().inspect("x.wasm", &hostile("rotation,describe-traps")).unwrap_err());
    sheet.add("describe lies", host().inspect("x.wasm", &hostile("rotation,describe-lies")).unwrap_err());
    for deed in ["naked", "twice", "own", "same-label", "bad-label", "no-stack"] {
        sheet.add(deed, load::<Cipher>(&hostile("plan"), json!({ "do": deed })).unwrap_err());
    }
    sheet.add("early-key", load::<Cipher>(&hostile("cipher"), json!({ "do": "early-key" })).unwrap_err());
    sheet.check("describe");
}

#[test]
fn every_misbehaving_policy_is_stopped_and_classified() {
    let mut sheet = Sheet::default();
    for (deed, class) in [
        ("loop", FaultClass::Fuel),
        ("hoard", FaultClass::Memory),
        ("flood", FaultClass::Protocol),
        ("long-line", FaultClass::Protocol),
        ("recurse", FaultClass::Memory),
        ("trap", FaultClass::Panic),
        ("panic", FaultClass::Panic),
        ("divide", FaultClass::Panic),
        ("huge", FaultClass::Protocol),
        ("long-state", FaultClass::Protocol),
        ("many", FaultClass::Protocol),
        ("same-id", FaultClass::Protocol),
        ("long-why", FaultClass::Protocol),
        ("not-text", FaultClass::Protocol),
        ("false-length", FaultClass::Protocol),
        ("internal", FaultClass::Panic),
    ] {
        let error = rotation_does(deed).unwrap_err();
        assert_eq!(error.class(), Some(class), "{deed}: {error}");
        sheet.add(deed, error);
    }
    // Memory or fuel, whichever the allocator meets first.
    assert!(rotation_does("very-many").unwrap_err().class().is_some());
    let refused = rotation_does("reject").unwrap_err();
    assert_eq!(refused.class(), None);
    sheet.add("reject", refused);
    assert_eq!(rotation_does("nothing").unwrap().state, "s.");
    sheet.check("rotation");
}

#[test]
fn a_disguise_that_lies_about_lengths_or_payloads_is_caught_before_sending() {
    let mut sheet = Sheet::default();
    let load = |deed: &str| load::<Disguise>(&hostile("disguise"), json!({ "do": deed })).unwrap();
    for deed in ["many-slots", "small-slot", "late-slot", "loop", "hoard"] {
        sheet.add(deed, load(deed).plan(&[], 2, &[0; 32]).unwrap_err());
    }
    for deed in ["longer", "corrupts", "blind", "stubborn"] {
        let error = load(deed).embed(&[9; 512], b"sealed already", &[0; 32]).unwrap_err();
        assert_eq!(error.class(), Some(FaultClass::Invariant), "{deed}");
        sheet.add(deed, error);
    }
    sheet.add("capacious", load("capacious").capacity(512).unwrap_err());
    let honest = load("nothing");
    let carrier = honest.embed(&[9; 512], b"sealed already", &[0; 32]).unwrap().value;
    assert_eq!(honest.extract(&carrier).unwrap().value.unwrap(), b"sealed already");
    sheet.check("disguise");
}

#[test]
fn a_recovery_cannot_open_outside_its_volume() {
    let mut sheet = Sheet::default();
    for deed in ["outside", "wraps", "many-opens", "flood", "panic"] {
        let strategy: Recovery = load(&hostile("recovery"), json!({ "do": deed })).unwrap();
        let context = recovery::Context {
            now: 1,
            volume: "v".into(),
            config: json!({ "do": deed }).to_string(),
            volume_blocks: 100,
            progress: recovery::Progress { present: 100, opened: 0, failed: 0 },
            entropy: 0,
        };
        sheet.add(deed, strategy.step("s", &recovery::Event::Begin, &context).unwrap_err());
    }
    sheet.check("recovery");
}

#[test]
fn a_recovery_that_begins_afresh_answers_within_the_bounds_of_one_answer() {
    let strategy: Recovery = load(&hostile("recovery"), json!({ "do": "talks-afresh" })).unwrap();
    let context = recovery::Context {
        now: 1,
        volume: "v".into(),
        config: json!({ "do": "talks-afresh" }).to_string(),
        volume_blocks: 100,
        progress: recovery::Progress { present: 100, opened: 0, failed: 0 },
        entropy: 0,
    };
    let begun = strategy.step_or_begin("of another", &recovery::Event::Begin, &context).unwrap();
    assert_eq!(begun.value.decisions.len(), 60);
    let refused = strategy.step_or_begin("of another", &recovery::Event::Timer, &context).unwrap_err();
    assert_eq!(refused.class(), Some(FaultClass::Protocol), "{refused}");
    assert!(refused.to_string().contains("begun afresh: 90 decisions in one answer"), "{refused}");
}

fn batch() -> Batch {
    let shape = Shape { kind: RecordKind::Data, first: 0, blocks: 2 };
    Batch { epoch: 1, first_sequence: 1, block_bytes: 4096, records: vec![shape; 3] }
}

#[test]
fn a_cipher_that_plans_nonsense_is_caught_and_its_worker_goes_on_afresh() {
    let mut sheet = Sheet::default();
    for (features, deed) in [
        ("plan", "no-such-stack"),
        ("plan", "miscounts"),
        ("plan", "for-ever"),
        ("plan", "hoard"),
        ("plan", "panic"),
        ("plan", "loop"),
        ("cipher", "late-key"),
    ] {
        let cipher: Arc<Cipher> = Arc::new(load(&hostile(features), json!({ "do": deed })).unwrap());
        let mut worker = cipher.worker();
        let error = worker.plan_batch(&batch()).unwrap_err();
        assert_eq!(worker.plan_batch(&batch()).unwrap_err(), error, "{deed}: a fresh instance fails the same way");
        sheet.add(deed, error);
    }
    sheet.check("cipher");
}

#[test]
fn raw_batches_keep_their_lengths_and_come_back() {
    let cipher: Arc<Cipher> = Arc::new(load(&hostile("cipher"), json!({})).unwrap());
    let mut worker = cipher.worker();
    let subkey = [5; 32];
    let plain = Unit { nonces: vec![1; 24], block_bytes: 4096, bytes: vec![7; 8192] };
    let sealed = worker.seal(&subkey, std::slice::from_ref(&plain)).unwrap().value;
    assert_eq!(sealed[0], vec![12; 8192]);
    let opened = worker.open(&subkey, &[Unit { bytes: sealed[0].clone(), ..plain.clone() }]).unwrap().value;
    assert_eq!(opened[0], plain.bytes);
    let longer = worker.seal(&subkey, &[Unit { bytes: vec![0xee; 8192], ..plain.clone() }]).unwrap_err();
    assert_eq!(longer.class(), Some(FaultClass::Invariant));
    let nonces = worker.seal(&subkey, &[Unit { nonces: vec![1; 12], ..plain }]).unwrap_err();
    assert!(matches!(nonces, CallError::Input { .. }));
}

#[test]
fn the_vaults_inner_layer_splits_batches_to_what_a_guest_may_carry() {
    let cipher: Arc<Cipher> = Arc::new(load(&hostile("cipher"), json!({})).unwrap());
    let mut worker = cipher.worker();
    let nonces = vec![3; 12 * 256];
    let mut bodies = vec![vec![1_u8; 1 << 20]; 9];
    let mut units: Vec<GuestUnit<'_>> =
        bodies.iter_mut().map(|body| GuestUnit { nonces: &nonces, block_len: 4096, body }).collect();
    GuestLayer::seal(&mut worker, &[2; 32], &mut units).unwrap();
    assert!(bodies.iter().flatten().all(|byte| *byte == 3));
    let mut units: Vec<GuestUnit<'_>> =
        bodies.iter_mut().map(|body| GuestUnit { nonces: &nonces, block_len: 4096, body }).collect();
    GuestLayer::open(&mut worker, &[2; 32], &mut units).unwrap();
    assert!(bodies.iter().flatten().all(|byte| *byte == 1));
}

#[test]
fn a_slot_always_answers_and_quarantines_after_three_faults() {
    let breaker = Arc::new(Breaker::default());
    let slot = Slot::<RotationPolicy>::new("vault-1.rotation", Arc::clone(&breaker));
    let context = rotation_context();
    let answer = slot.step(0, "kept", &rotation::Event::Timer, &context);
    assert_eq!(answer.by, By::Fallback(Because::NoPlugin));
    assert_eq!(answer.value.state, "kept");
    slot.install(Some(Arc::new(load(&hostile("rotation"), json!({ "do": "panic" })).unwrap())));
    for strike in 1..=3 {
        let answer = slot.step(strike, "kept", &rotation::Event::Timer, &context);
        assert!(
            matches!(&answer.by, By::Fallback(Because::Failed { quarantined, .. }) if *quarantined == (strike == 3))
        );
        assert_eq!(answer.value.state, "kept");
        assert_eq!(answer.logs.len(), 1, "the panic's text is kept");
    }
    let digest = Digest::of(&hostile("rotation"));
    assert_eq!(slot.step(4, "kept", &rotation::Event::Timer, &context).by, By::Fallback(Because::Quarantined(digest)));
    breaker.release(&digest);
    let answer = slot.step(5, "kept", &rotation::Event::Timer, &context);
    assert!(matches!(answer.by, By::Fallback(Because::Failed { quarantined: false, .. })));
    slot.install(Some(Arc::new(load(&hostile("rotation"), json!({})).unwrap())));
    assert_eq!(slot.step(6, "kept", &rotation::Event::Timer, &context).by, By::Plugin(digest));
    assert_eq!(slot.stood_in(), None, "of what was in its place before");
}

#[test]
fn a_refusal_is_no_fault_and_is_counted_all_the_same() {
    let slot = Slot::<Disguise>::new("vault-1.disguise", Arc::default());
    assert_eq!(slot.stood_in(), None);
    slot.install(Some(Arc::new(load(&hostile("disguise"), json!({ "do": "hides" })).unwrap())));
    let embed = |payload: usize| slot.embed(1, &[1; 64], &vec![2; payload], &[3; 32]);
    assert!(matches!(embed(60).by, By::Plugin(_)) && slot.stood_in().is_none());
    for times in 1..=4 {
        let answer = embed(61);
        assert!(matches!(&answer.by, By::Fallback(because) if because.class().is_none()), "{:?}", answer.by);
        let stood_in = slot.stood_in().unwrap();
        assert_eq!(stood_in.times, times);
        assert!(stood_in.last.contains("the payload does not fit"), "{}", stood_in.last);
    }
    slot.install(Some(Arc::new(load(&hostile("disguise"), json!({ "do": "hides" })).unwrap())));
    assert_eq!(slot.stood_in(), None);
}

#[test]
fn a_cipher_slot_fails_closed() {
    let slot = Slot::<Cipher>::new("vault-1.cipher", Arc::default());
    assert!(slot.worker().is_err());
    slot.install(Some(Arc::new(load(&hostile("plan"), json!({ "do": "no-such-stack" })).unwrap())));
    let mut worker = slot.worker().unwrap();
    (0..3).for_each(|now| {
        slot.plan_batch(now, &mut worker, &batch()).unwrap_err();
    });
    let error = slot.plan_batch(3, &mut worker, &batch()).unwrap_err();
    assert!(matches!(error.because, Because::Quarantined(_)));
    assert!(slot.worker().is_err());
}

#[derive(Default)]
struct Memory(Mutex<BTreeMap<String, Vec<u8>>>);

impl CodeCache for Memory {
    fn get(&self, key: &str) -> Option<Vec<u8>> {
        self.0.lock().unwrap().get(key).cloned()
    }

    fn put(&self, key: &str, bytes: &[u8]) {
        self.0.lock().unwrap().insert(key.into(), bytes.into());
    }
}

#[test]
fn cached_code_is_used_and_a_changed_entry_is_a_miss() {
    let memory = Arc::new(Memory::default());
    let new_host = || {
        let options =
            HostOptions { code_cache: Some(Arc::clone(&memory) as Arc<dyn CodeCache>), ..HostOptions::uncached() };
        PluginHost::new(options).unwrap()
    };
    let bytes = hostile("rotation");
    let inspection = new_host().inspect("x.wasm", &bytes).unwrap();
    let first = memory.0.lock().unwrap().clone();
    assert_eq!(first.len(), 1);
    assert_eq!(new_host().inspect("x.wasm", &bytes).unwrap(), inspection);
    for stored in memory.0.lock().unwrap().values_mut() {
        let last = stored.last_mut().unwrap();
        *last ^= 1;
    }
    assert_eq!(new_host().inspect("x.wasm", &bytes).unwrap(), inspection);
    assert_eq!(*memory.0.lock().unwrap(), first, "compiled and stored again, the same bytes");
}
