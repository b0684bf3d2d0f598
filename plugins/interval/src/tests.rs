//! The policy as the host calls it, natively: text in, text out.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use farseal_sdk::bindings::exports::farseal::plugin::rotation::Context as HostContext;
use farseal_sdk::rotation::{Action, Decided, HostLimits, KeyInfo, KeyState, OutcomeOfDecision, init, step};

use super::*;

const HOUR: u64 = 3_600_000;
const START: u64 = 1_000 * HOUR;

fn key(epoch: u64, since: u64, state: KeyState) -> KeyInfo {
    KeyInfo { epoch, state, since, bytes_sealed: 0, blocks_sealed: 0, records_sealed: 0 }
}

fn host(now: u64, keys: Vec<KeyInfo>) -> HostContext {
    HostContext {
        now,
        pair: String::from("vault"),
        entropy: 7,
        config: String::from("{}"),
        keys,
        limits: HostLimits { min_interval: 60_000, max_age: 4_000 * HOUR, max_bytes: 1 << 40 },
        link_up: true,
    }
}

/// A pair with its policy: carries the state from call to call.
struct Pair {
    state: String,
}

impl Pair {
    fn new() -> Self {
        Self { state: init::<Interval>(&host(START, vec![key(1, START, KeyState::Active)])).unwrap().state }
    }

    fn at(&mut self, now: u64, keys: Vec<KeyInfo>, event: Event) -> Vec<Action> {
        self.with(&host(now, keys), event)
    }

    fn with(&mut self, host: &HostContext, event: Event) -> Vec<Action> {
        let outcome = step::<Interval>(&self.state, &event, host).unwrap();
        self.state = outcome.state;
        outcome.decisions.into_iter().map(|decision| decision.action).collect()
    }
}

fn reason(actions: &[Action]) -> Option<&str> {
    actions
        .iter()
        .find_map(|action| if let Action::Rotate(rotate) = action { Some(rotate.reason.as_str()) } else { None })
}

fn wake(actions: &[Action]) -> Option<u64> {
    actions.iter().find_map(|action| if let Action::WakeAt(at) = action { Some(*at) } else { None })
}

fn first(since: u64) -> Vec<KeyInfo> {
    vec![key(1, since, KeyState::Active)]
}

#[test]
fn rotates_at_the_interval_and_not_before() {
    let mut pair = Pair::new();
    let early = pair.at(START + HOUR - 1, first(START), Event::Timer);
    assert_eq!((reason(&early), wake(&early).is_some()), (None, true));
    let due = pair.at(START + HOUR, first(START), Event::Timer);
    assert_eq!(reason(&due), Some("the key is 1h old"));
}

#[test]
fn never_asks_twice_while_a_rotation_is_under_way() {
    let mut pair = Pair::new();
    let now = START + HOUR;
    assert!(reason(&pair.at(now, first(START), Event::Timer)).is_some());
    let on_its_way = || vec![key(2, now, KeyState::Delivering), key(1, START, KeyState::Active)];
    for event in [Event::Timer, Event::Requested(String::from("x")), Event::Suspect(1), Event::Started, Event::Usage] {
        assert_eq!(reason(&pair.at(now + 10 * HOUR, on_its_way(), event)), None);
    }
    let in_force = vec![key(2, now, KeyState::Active), key(1, START, KeyState::Retired)];
    let after = pair.at(now, in_force, Event::Rotated(2));
    assert_eq!((reason(&after), wake(&after)), (None, Some(now + HOUR)));
}

#[test]
fn a_lost_answer_is_outwaited_and_a_repeated_one_is_harmless() {
    let mut pair = Pair::new();
    let now = START + HOUR;
    let asked = pair.at(now, first(START), Event::Timer);
    assert!(reason(&asked).is_some());
    let refused = || Event::Decided(Decided { id: 2, outcome: OutcomeOfDecision::Refused(String::from("too soon")) });
    assert_eq!(reason(&pair.at(now + 60_000, first(START), Event::Timer)), None);
    let again = pair.at(now + 10 * 60_000, first(START), Event::Timer);
    assert!(reason(&again).is_some(), "no answer and no key after ten minutes");
    assert_eq!(reason(&pair.at(now + 10 * 60_000, first(START), refused())), None, "an answer to an older decision");
    assert_eq!(reason(&pair.at(now + 11 * 60_000, first(START), Event::Timer)), None, "the newer one is still open");
}

#[test]
fn a_refusal_is_tried_again_with_growing_waits() {
    let mut pair = Pair::new();
    let mut now = START + HOUR;
    let mut actions = pair.at(now, first(START), Event::Requested(String::from("audit")));
    let mut waits = Vec::new();
    for _ in 0..8 {
        assert_eq!(reason(&actions), Some("requested: audit"));
        let id = serde_json_id(&pair.state);
        let outcome = OutcomeOfDecision::Refused(String::from("no escrow"));
        let refused = pair.at(now, first(START), Event::Decided(Decided { id, outcome }));
        assert_eq!(reason(&refused), None);
        let next = wake(&refused).unwrap();
        waits.push((next - now) / 60_000);
        now = next;
        actions = pair.at(now, first(START), Event::Timer);
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
}

/// The id of the rotation under way, from the state text.
fn serde_json_id(state: &str) -> u64 {
    let state: farseal_sdk::serde_json::Value = farseal_sdk::serde_json::from_str(state).unwrap();
    state["own"]["asking"]["asked"]["id"].as_u64().unwrap()
}

#[test]
fn a_suspicion_counts_for_the_key_that_seals() {
    let mut pair = Pair::new();
    let suspect = vec![key(1, START, KeyState::Suspect)];
    let now = pair.at(START + 1, suspect, Event::Suspect(1));
    assert_eq!(reason(&now), Some("the key of epoch 1 may be known to others"));

    let mut pair = Pair::new();
    let second = || vec![key(2, START + 5, KeyState::Active), key(1, START, KeyState::Suspect)];
    assert_eq!(reason(&pair.at(START + 6, second(), Event::Rotated(2))), None);
    assert_eq!(reason(&pair.at(START + 7, second(), Event::Suspect(1))), None, "it seals nothing any more");
}

#[test]
fn a_key_suspected_on_its_way_is_replaced_once_in_force() {
    let mut pair = Pair::new();
    let on_its_way = vec![key(2, START + 1, KeyState::Delivering), key(1, START, KeyState::Active)];
    assert_eq!(reason(&pair.at(START + 2, on_its_way, Event::Suspect(2))), None);
    let in_force = vec![key(2, START + 3, KeyState::Active), key(1, START, KeyState::Retired)];
    assert!(reason(&pair.at(START + 3, in_force, Event::Rotated(2))).is_some());
}

#[test]
fn a_clock_that_steps_is_survived() {
    let mut pair = Pair::new();
    let ten_years = 10 * 365 * 24 * HOUR;
    assert!(reason(&pair.at(START + ten_years, first(START), Event::Timer)).is_some(), "ahead: due at once");

    let mut pair = Pair::new();
    let back = pair.at(START - 5 * HOUR, first(START), Event::Timer);
    assert_eq!((reason(&back), wake(&back)), (None, Some(START - 4 * HOUR)), "back: an interval from now");
    assert!(reason(&pair.at(START - 4 * HOUR, first(START), Event::Timer)).is_some());
}

#[test]
fn bytes_are_watched_and_obeyed() {
    let mut pair = Pair::new();
    let mut host = host(START + 1, first(START));
    host.config = String::from(r#"{"max-bytes": "1MiB"}"#);
    let actions = pair.with(&host, Event::Started);
    assert!(actions.iter().any(|action| matches!(action, Action::Watch(mark) if mark.bytes == Some(1 << 20))));
    host.keys[0].bytes_sealed = 1 << 20;
    assert_eq!(reason(&pair.with(&host, Event::Usage)), Some("the key has sealed 1MiB"));
}

#[test]
fn jitter_comes_from_the_entropy_of_the_call() {
    let mut host = host(START, first(START));
    host.config = String::from(r#"{"jitter": "5ms"}"#);
    let outcome = init::<Interval>(&host).unwrap();
    let actions: Vec<_> = outcome.decisions.into_iter().map(|decision| decision.action).collect();
    assert_eq!(wake(&actions), Some(START + HOUR - 7 % 5));
}

#[test]
fn the_same_call_again_gives_the_same_answer() {
    let pair = Pair::new();
    let host = host(START + HOUR, first(START));
    let [once, again] = [(); 2].map(|()| step::<Interval>(&pair.state, &Event::Timer, &host).unwrap());
    assert_eq!(once, again);
}

#[test]
fn settings_that_make_no_sense_are_named() {
    let check = |text: &str| {
        let parsed = <Settings as farseal_sdk::Settings>::parse(text).unwrap();
        Interval::check(&parsed).into_iter().map(|wrong| wrong.path).collect::<Vec<_>>()
    };
    assert_eq!(check(r#"{"interval": "0s", "max-bytes": "0B"}"#), ["/interval", "/jitter", "/max-bytes"]);
    assert!(check("{}").is_empty());
}
