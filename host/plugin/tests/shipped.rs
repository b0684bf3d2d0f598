//! The shipped plugins, loaded and called as the daemon does.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/shipped.rs"]
mod components;
#[path = "support/host.rs"]
mod environment;

use std::sync::Arc;

use components::shipped;
use environment::host;
use farseal_plugin::scenario::Scenario;
use farseal_plugin::scenario::export::{Made, MadeBy, export};
use farseal_plugin::vault::guest::{GuestLayer, GuestUnit};
use farseal_plugin::vault::stack::Stack;
use farseal_plugin::wit::recovery;
use farseal_plugin::wit::rotation::{Context, Event, HostLimits, KeyInfo, KeyState};
use farseal_plugin::{
    Cipher, Digest, Disguise, Grant, Kind, LoadRequest, NotCarried, Plugin, Power, Recovery, RecoveryCall,
    RotationCall, RotationPolicy, Slot, StateOwner, StepFunction as _, contrast_ciphers, contrast_disguises,
    replay_diff,
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
fn every_ordinary_call_of_a_shipped_plugin_takes_little_of_its_fuel() {
    for (name, bytes) in shipped() {
        for cost in host().cost(name, bytes, &serde_json::Value::Null).unwrap() {
            // A strategy is asked of a search that was never made, a cover of one block is too small for a key: refusals.
            assert!(cost.calls > 0, "{name}: {cost:?}");
            assert!(cost.most < cost.limit / 20, "{name}: {cost:?}");
        }
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
fn a_policy_replays_its_own_journal_without_a_difference_and_with_other_settings_not() {
    let policy = interval(5);
    assert_eq!(replay_diff(&journal(&policy), &*policy, &*interval(5)), []);
    assert!(!replay_diff(&journal(&policy), &*policy, &*interval(3)).is_empty());
    // What a node stores is what it replays.
    let stored = serde_json::to_string(&journal(&policy)).unwrap();
    let read: Vec<RotationCall> = serde_json::from_str(&stored).unwrap();
    assert_eq!(read, journal(&policy));
}

/// The same days at a pair that has a name, where somebody asks for a key in words of his own.
fn named_journal(policy: &RotationPolicy) -> Vec<MadeBy<RotationPolicy>> {
    let mut made = Vec::new();
    let mut state = None;
    for (day, event) in [Event::Started, Event::Requested("for Meier & Sons".into()), Event::Rotated(2), Event::Timer]
        .into_iter()
        .enumerate()
    {
        let now = (u64::try_from(day).unwrap() + 1) * 86_400_000;
        let context = Context { now, pair: "payroll".into(), ..context(&policy.facts().config) };
        let call = match state.take() {
            None => RotationCall::Init { context },
            Some(state) => RotationCall::Step { state, event, context },
        };
        let answer = policy.call(&call).unwrap().value;
        state = Some(answer.state);
        made.push(Made { call, decisions: answer.decisions });
    }
    made
}

#[test]
fn a_journal_becomes_a_story_that_goes_as_it_went_and_names_nobody() {
    let policy = interval(5);
    let made = named_journal(&policy);
    let exported = export(&*policy, &made).unwrap();
    assert_eq!(exported.otherwise, 0);
    for name in ["payroll", "Meier"] {
        assert!(!exported.yaml.contains(name), "{}", exported.yaml);
    }
    let component = host().check("interval", &shipped()["interval"]).unwrap();
    let played = |yaml: &str| Scenario::parse("story", yaml).unwrap().play(host(), "interval", &component);
    let run = played(&exported.yaml).unwrap();
    assert_eq!(run.failures, Vec::<String>::new(), "{}", run.transcript);
    assert_eq!((run.counts["journalled"], run.counts.get("differences")), (4, None));
    // A part of it begins with the state that was there.
    let part = export(&*policy, &made[2..]).unwrap();
    assert_eq!(played(&part.yaml).unwrap().failures, Vec::<String>::new());
    // With other settings it goes otherwise, and the story's expectation says so.
    let run = played(&exported.yaml.replace("\"5d\"", "\"1d\"")).unwrap();
    assert!(run.failures.iter().any(|failure| failure.starts_with("differences:")), "{}", run.transcript);
}

#[test]
fn a_policy_goes_on_from_the_state_of_its_own_name_alone_however_well_anothers_reads() {
    let policy = interval(5);
    let state = policy.init(&context(&policy.facts().config)).unwrap().value.state;
    assert_eq!(policy.carry_over(&policy.facts().owner(), &state).unwrap(), state);
    let foreign = StateOwner { plugin: "irregular".into(), ..policy.facts().owner() };
    let why = policy.carry_over(&foreign, &state).unwrap_err();
    assert_eq!(why.to_string(), "it is the state of irregular, and this is interval");
    // Of its own name but of a form that it never had: for `migrate` to say.
    let newer = StateOwner { schema: 900, ..policy.facts().owner() };
    assert!(matches!(policy.carry_over(&newer, &state), Err(NotCarried::Migration(_))));
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

fn strategy(name: &str, config: serde_json::Value) -> Arc<Recovery> {
    let bytes = &shipped()[name];
    let request = LoadRequest { slot: "test", bytes, pin: Some(Digest::of(bytes)), grants: &[], config: &config };
    Arc::new(host().load(&request).unwrap())
}

fn volume(strategy: &Recovery, opened: u64) -> recovery::Context {
    recovery::Context {
        now: 1_767_225_600_000 + opened,
        volume: "payroll".into(),
        config: strategy.facts().config.clone(),
        volume_blocks: 10_000,
        progress: recovery::Progress { present: 10_000, opened, failed: 0 },
        entropy: 7,
    }
}

/// What a node journals of a recovery: each extent is open before the next call.
fn recovery_journal(strategy: &Recovery) -> Vec<MadeBy<Recovery>> {
    let mut opened = 0;
    let mut call = RecoveryCall::Init { context: volume(strategy, opened) };
    let mut waiting = std::collections::VecDeque::from([recovery::Event::Begin]);
    let mut made = Vec::new();
    loop {
        let (state, decisions) = strategy.make(&call).unwrap();
        let opens = decisions.iter().filter_map(|decision| {
            if let recovery::Action::Open(extent) = &decision.action { Some(*extent) } else { None }
        });
        for extent in opens {
            waiting.push_back(recovery::Event::Swept(recovery::Swept { extent, opened: extent.blocks, failed: 0 }));
        }
        made.push(Made { call, decisions });
        let Some(event) = waiting.pop_front() else { return made };
        if let recovery::Event::Swept(swept) = &event {
            opened += swept.opened;
        }
        call = RecoveryCall::Step { state, event, context: volume(strategy, opened) };
    }
}

#[test]
fn a_strategy_replays_its_own_journal_and_another_one_parts_from_it() {
    let sweep = strategy("sweep", serde_json::Value::Null);
    let made = recovery_journal(&sweep);
    assert!(made.len() > 4, "{made:?}");
    let calls: Vec<RecoveryCall> = made.iter().map(|one| one.call.clone()).collect();
    assert_eq!(replay_diff(&calls, &*sweep, &*strategy("sweep", serde_json::Value::Null)), []);
    let stored = serde_json::to_string(&calls).unwrap();
    assert_eq!(serde_json::from_str::<Vec<RecoveryCall>>(&stored).unwrap(), calls);

    let smaller = replay_diff(&calls, &*sweep, &*strategy("sweep", serde_json::json!({ "chunk": 512 })));
    assert_eq!(smaller[0].event, "begin");
    assert!(smaller[0].new.contains(&"open 512 blocks from 0".into()), "{smaller:?}");
    let closed = replay_diff(&calls, &*sweep, &*strategy("search-only", serde_json::Value::Null));
    assert!(closed[0].new.contains(&"accesses are refused".into()), "{closed:?}");
}

#[test]
fn a_strategys_journal_becomes_a_story_that_goes_as_it_went_and_names_nobody() {
    let sweep = strategy("sweep", serde_json::Value::Null);
    let made = recovery_journal(&sweep);
    let exported = export(&*sweep, &made).unwrap();
    assert!(exported.otherwise == 0 && !exported.yaml.contains("payroll"), "{}", exported.yaml);
    let component = host().check("sweep", &shipped()["sweep"]).unwrap();
    let played = |yaml: &str| Scenario::parse("story", yaml).unwrap().play(host(), "sweep", &component).unwrap();
    let run = played(&exported.yaml);
    assert_eq!(run.failures, Vec::<String>::new(), "{}", run.transcript);
    assert_eq!(run.counts["journalled"], u64::try_from(made.len()).unwrap());
    assert!(run.finished, "{}", run.transcript);
    let part = export(&*sweep, &made[2..]).unwrap();
    assert_eq!(played(&part.yaml).failures, Vec::<String>::new());
    let run = played(&exported.yaml.replace("config: {}", "config: { chunk: 512 }"));
    assert!(run.failures.iter().any(|failure| failure.starts_with("differences:")), "{}", run.transcript);
}

/// It was initialised, and never told to begin.
#[test]
fn a_strategy_that_gets_anothers_state_begins_and_opens() {
    let slot = Slot::<Recovery>::new("vault-1.recovery", Arc::default());
    let before = strategy("search-only", serde_json::Value::Null);
    let made = recovery_journal(&before);
    let Some(Made { call: RecoveryCall::Step { state, .. }, .. }) = made.last() else { panic!("{made:?}") };
    let sweep = strategy("sweep", serde_json::Value::Null);
    slot.install(Some(Arc::clone(&sweep)));
    for event in [recovery::Event::Begin, recovery::Event::Timer] {
        let context = volume(&sweep, 0);
        let answer = slot.step(0, state, &event, &context);
        let opens = answer.value.decisions.iter().filter(|each| matches!(each.action, recovery::Action::Open(_)));
        assert!(opens.count() > 0, "{answer:?}");
        // And its journal is a story all the same.
        let call = RecoveryCall::Step { state: state.clone(), event, context };
        let exported = export(&*sweep, &[Made { call, decisions: answer.value.decisions }]).unwrap();
        assert_eq!(exported.otherwise, 0, "{}", exported.yaml);
    }
}

#[test]
fn what_is_not_journalled_is_contrasted() {
    let cipher = |name: &str| Arc::new(loads::<Cipher>(&shipped()[name]));
    let differs = |found: &farseal_plugin::Contrast| found.old != found.new;
    let found = contrast_ciphers(&cipher("aes-256-gcm"), &cipher("cascade"));
    assert!(found.iter().all(differs) && found[0].old.starts_with("aes-256-gcm under key"), "{found:?}");
    assert!(!contrast_ciphers(&cipher("cascade"), &cipher("cascade")).iter().any(differs));

    let disguise = |name: &str| loads::<Disguise>(&shipped()[name]);
    let found = contrast_disguises(&disguise("cover"), &disguise("plain"));
    assert!(differs(&found[0]) && found[0].new == "none", "{found:?}");
    assert!(!contrast_disguises(&disguise("cover"), &disguise("cover")).iter().any(differs));
    assert_ne!(found[3].old, contrast_disguises(&disguise("cover"), &disguise("slot"))[3].new);
}
