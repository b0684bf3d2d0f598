//! When a policy looks at the keys again, and what it makes of a request for one: kept across restarts, told to whoever asked.

use farseal_core::limits::POLICY_WAKE_MIN;
use farseal_core::primary::{Action, Decision};
use farseal_core::units::WallTime;
use farseal_plugin::scenario::units;
use farseal_plugin::wit::rotation as wit;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

/// Somebody asks the policy for a key.
#[derive(Debug)]
pub struct KeyRequest {
    /// In whose words.
    pub text: String,
    /// Who waits for what the policy makes of it.
    pub heard: oneshot::Sender<Heard>,
}

/// What a policy makes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It asks for a key.
    Rotates,
    /// Not now. Whether it keeps the request is its own business.
    Holds(Looks, Option<String>),
}

/// Until when a policy is left alone: its `wake-at` and its marks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Looks {
    pub at: Option<WallTime>,
    /// Sealed under one key.
    pub bytes: Option<u64>,
    pub blocks: Option<u64>,
}

impl Looks {
    /// A policy is told each look once.
    pub fn told(&mut self, event: &wit::Event) {
        match event {
            wit::Event::Timer => self.at = None,
            wit::Event::Usage => (self.bytes, self.blocks) = (None, None),
            wit::Event::Started
            | wit::Event::Requested(_)
            | wit::Event::Suspect(_)
            | wit::Event::Rotated(_)
            | wit::Event::Decided(_)
            | wit::Event::Ext(_) => {}
        }
    }

    /// A later one replaces the one before.
    pub fn decided(&mut self, decisions: &[wit::Decision]) {
        for decision in decisions {
            match &decision.action {
                wit::Action::WakeAt(at) => self.at = Some(WallTime(*at)),
                wit::Action::Watch(watch) => (self.bytes, self.blocks) = (watch.bytes, watch.blocks),
                wit::Action::Rotate(_) | wit::Action::Alert(_) | wit::Action::Ext(_) => {}
            }
        }
    }

    /// As decisions, for a core that began anew. They have the id 0, and belong to no answer of the policy's: what passed meanwhile
    /// is due at the soonest that is not clamped, so that it hears nothing of them.
    pub fn again(&self, now: WallTime) -> Vec<Decision> {
        let soonest = WallTime(now.0.saturating_add(POLICY_WAKE_MIN.0));
        let wake = self.at.map(|at| Action::WakeAt(at.max(soonest)));
        let marks = self.bytes.or(self.blocks).map(|_| Action::Watch { bytes: self.bytes, blocks: self.blocks });
        wake.into_iter().chain(marks).map(|action| Decision { id: 0, action }).collect()
    }

    /// For people: `at 2027-03-01T22:00:00Z (in 3h5m), or once 50GiB are sealed under one key`.
    pub fn words(&self, now: WallTime) -> String {
        let at = self.at.map(|at| {
            let wait = at.since(now).0.next_multiple_of(1_000);
            format!("at {} (in {})", units::instant(at.0), units::span(wait))
        });
        let bytes = self.bytes.map(units::size);
        let blocks = self.blocks.map(|blocks| format!("{blocks} blocks"));
        let marks: Vec<_> = bytes.into_iter().chain(blocks).collect();
        let marks = (!marks.is_empty()).then(|| format!("once {} are sealed under one key", marks.join(" or ")));
        let looks: Vec<_> = at.into_iter().chain(marks).collect();
        if looks.is_empty() { "when something else happens".into() } else { looks.join(", or ") }
    }
}

/// Of the answer to a request.
pub fn heard(decisions: &[wit::Decision], looks: Looks) -> Heard {
    if decisions.iter().any(|decision| matches!(decision.action, wit::Action::Rotate(_))) {
        return Heard::Rotates;
    }
    let why = decisions.iter().map(|decision| decision.why.trim()).rfind(|why| !why.is_empty());
    Heard::Holds(looks, why.map(farseal_plugin::escaped))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decision(why: &str, action: wit::Action) -> wit::Decision {
        wit::Decision { id: 7, why: why.into(), action }
    }

    #[test]
    fn a_later_look_replaces_the_one_before_and_what_was_told_is_not_told_again() {
        let mut looks = Looks::default();
        let marks = |bytes, blocks| wit::Action::Watch(wit::Watch { bytes, blocks });
        looks.decided(&[decision("", wit::Action::WakeAt(5)), decision("", marks(Some(1), Some(2)))]);
        looks.decided(&[decision("", wit::Action::WakeAt(9)), decision("", marks(None, Some(3)))]);
        assert_eq!(looks, Looks { at: Some(WallTime(9)), bytes: None, blocks: Some(3) });
        looks.told(&wit::Event::Started);
        looks.told(&wit::Event::Usage);
        assert_eq!(looks, Looks { at: Some(WallTime(9)), bytes: None, blocks: None });
        looks.told(&wit::Event::Timer);
        assert_eq!(looks, Looks::default());
        assert!(looks.again(WallTime(0)).is_empty());
    }

    #[test]
    fn what_was_due_during_a_stop_is_due_a_second_from_the_call() {
        let looks = Looks { at: Some(WallTime(5)), bytes: Some(1 << 30), blocks: None };
        let again: Vec<_> = looks.again(WallTime(10_000)).into_iter().map(|decision| decision.action).collect();
        let marks = Action::Watch { bytes: Some(1 << 30), blocks: None };
        assert_eq!(again, [Action::WakeAt(WallTime(11_000)), marks]);
    }

    #[test]
    fn a_request_that_is_held_is_answered_with_the_next_look_in_words() {
        let mut looks = Looks::default();
        assert_eq!(looks.words(WallTime(0)), "when something else happens");
        looks = Looks { at: Some(WallTime(86_400_000)), bytes: Some(1 << 30), blocks: Some(7) };
        let words = "at 1970-01-02T00:00:00Z (in 1d), or once 1GiB or 7 blocks are sealed under one key";
        assert_eq!(looks.words(WallTime(1)), words);
        let held = heard(
            &[decision("", wit::Action::Alert("x".into())), decision("not \u{7} now", wit::Action::WakeAt(9))],
            looks,
        );
        assert_eq!(held, Heard::Holds(looks, Some("not \\u{7} now".into())));
        let rotate = wit::Rotate { how: wit::How::AsConfigured, reason: String::new() };
        assert_eq!(heard(&[decision("x", wit::Action::Rotate(rotate))], looks), Heard::Rotates);
    }
}
