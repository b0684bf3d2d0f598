//! The strategy as the host calls it, natively: text in, text out.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::VecDeque;

use farseal_sdk::bindings::exports::farseal::plugin::recovery::Context as HostContext;
use farseal_sdk::recovery::{Action, Extent, Progress, Swept, init, step};

use super::*;

/// A volume of ten chunks of a hundred blocks, the last one short.
struct Volume {
    state: String,
    now: u64,
    config: &'static str,
    /// What was asked for and is not swept yet.
    opening: VecDeque<Extent>,
    opened: Vec<u64>,
    alerts: Vec<String>,
    wake: Option<u64>,
    finished: bool,
}

impl Volume {
    fn new(config: &'static str) -> Self {
        let mut volume = Self {
            state: String::new(),
            now: 1_000_000,
            config,
            opening: VecDeque::new(),
            opened: Vec::new(),
            alerts: Vec::new(),
            wake: None,
            finished: false,
        };
        let outcome = init::<OnAccessFirst>(&volume.host()).unwrap();
        volume.take(outcome);
        volume.event(&Event::Begin);
        volume
    }

    fn host(&self) -> HostContext {
        HostContext {
            now: self.now,
            volume: String::from("vault"),
            config: self.config.to_owned(),
            volume_blocks: 950,
            progress: Progress { present: 950, opened: 0, failed: 3 },
            entropy: 7,
        }
    }

    fn event(&mut self, event: &Event) {
        let outcome = step::<OnAccessFirst>(&self.state, event, &self.host()).unwrap();
        self.take(outcome);
    }

    fn take(&mut self, outcome: farseal_sdk::recovery::Outcome) {
        self.state = outcome.state;
        for decision in outcome.decisions {
            match decision.action {
                Action::Open(extent) => {
                    self.opening.push_back(extent);
                    self.opened.push(extent.first / 100);
                }
                Action::WakeAt(at) => self.wake = Some(at),
                Action::Finished => self.finished = true,
                Action::Alert(text) => self.alerts.push(text),
                Action::Access(_) | Action::Ext(_) => {}
            }
        }
    }

    /// The oldest `open` is done.
    fn sweep_one(&mut self) -> bool {
        let Some(extent) = self.opening.pop_front() else { return false };
        self.event(&Event::Swept(Swept { extent, opened: extent.blocks, failed: 0 }));
        true
    }

    fn read(&mut self, first: u64) {
        self.event(&Event::Accessed(vec![Extent { first, blocks: 1 }]));
    }

    fn say(&mut self, text: &str) {
        self.event(&Event::Requested(text.to_owned()));
    }
}

const TWO_AT_ONCE: &str = r#"{"chunk": 100, "at-once": 2}"#;

#[test]
fn every_block_is_opened_once_in_order_with_a_bound() {
    let mut volume = Volume::new(TWO_AT_ONCE);
    while volume.opening.len() <= 2 && volume.sweep_one() {}
    assert_eq!(volume.opened, (0..10).collect::<Vec<_>>());
    assert!(volume.finished);
    assert_eq!(volume.alerts.len(), 1, "the failed blocks are told");
}

#[test]
fn the_last_chunk_ends_with_the_volume() {
    let mut volume = Volume::new(r#"{"chunk": 100, "at-once": 16}"#);
    assert_eq!(volume.opening.back(), Some(&Extent { first: 900, blocks: 50 }));
    while volume.sweep_one() {}
    assert!(volume.finished);
}

#[test]
fn surroundings_of_reads_come_first_and_are_not_opened_again() {
    let mut volume = Volume::new(TWO_AT_ONCE);
    volume.read(720);
    while volume.sweep_one() {}
    assert_eq!(volume.opened, [0, 1, 7, 8, 2, 3, 4, 5, 6, 9]);
    assert!(volume.finished);
}

#[test]
fn a_restart_opens_again_what_was_interrupted() {
    let mut volume = Volume::new(TWO_AT_ONCE);
    volume.read(500);
    volume.sweep_one();
    assert_eq!(volume.opened, [0, 1, 5]);
    volume.opening.clear();
    volume.opened.clear();
    volume.event(&Event::Begin);
    while volume.sweep_one() {}
    volume.opened.sort_unstable();
    volume.opened.dedup();
    assert_eq!(volume.opened, (1..10).collect::<Vec<_>>());
    assert!(volume.finished);
}

#[test]
fn an_operator_can_pause_and_resume() {
    let mut volume = Volume::new(TWO_AT_ONCE);
    volume.say("pause");
    while volume.sweep_one() {}
    assert_eq!(volume.opened, [0, 1]);
    volume.say("resume");
    while volume.sweep_one() {}
    assert!(volume.finished);
    volume.say("hurry");
    assert!(volume.alerts.last().unwrap().starts_with("not understood"));
}

#[test]
fn a_rate_spaces_the_chunks() {
    let mut volume = Volume::new(r#"{"chunk": 100, "at-once": 2, "rate": 50}"#);
    assert_eq!((volume.opened.len(), volume.wake), (1, Some(1_001_000)));
    volume.sweep_one();
    assert_eq!(volume.opened.len(), 1, "not before its time");
    volume.now = 1_001_000;
    volume.event(&Event::Timer);
    assert_eq!(volume.opened.len(), 2);
    volume.now -= 1_000_000;
    volume.event(&Event::Timer);
    assert_eq!(volume.wake, Some(volume.now + 2_000), "the clock stepped back");
    volume.say("rate off");
    while volume.sweep_one() {}
    assert!(volume.finished);
}

#[test]
fn state_stays_small_under_scattered_reads() {
    let mut volume = Volume::new(r#"{"chunk": 1, "at-once": 16}"#);
    for round in 0..2_000 {
        volume.read(round * 389 % 950);
        volume.sweep_one();
        assert!(volume.state.len() < 16_384, "{} bytes", volume.state.len());
    }
    while volume.sweep_one() {}
    assert!(volume.finished);
}
