//! What was written last: a strategy asks the host once, and goes on without it where the host does not know

use serde::{Deserialize, Serialize};

use super::{Action, Decisions, Extent};
use crate::{Extension, Instant, Span};

/// The extension by which a strategy asks for the parts of the volume in the order of their newest record, the newest first.
/// It says how many blocks a part has, `{"blocks": 4096}`, and the host answers with the same and the first block of each part, 1024
/// of them at most: `{"blocks": 4096, "firsts": [81920, 0]}`.
pub const WRITTEN_LAST: &str = "written-last";
/// How long the answer is waited for.
const PATIENCE: Span = Span::from_millis(1_000);

/// An answer that may be waited for. Kept between calls.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Awaited {
    until: Option<Instant>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Parts {
    blocks: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    firsts: Vec<u64>,
}

impl Awaited {
    /// Asks, in parts of so many blocks.
    pub fn ask(&mut self, blocks: u32, now: Instant, decisions: &mut Decisions) {
        let parts = Parts { blocks: u64::from(blocks), firsts: Vec::new() };
        let json = serde_json::to_string(&parts).unwrap_or_default();
        decisions
            .make("what was written last is wanted first", Action::Ext(Extension { name: WRITTEN_LAST.into(), json }));
        let until = now + PATIENCE;
        decisions.wake_at(until, "a host that does not know goes on in order");
        self.until = Some(until);
    }

    /// The answer, if it is one: these parts, the newest first.
    pub fn came(&mut self, ext: &Extension) -> Option<Vec<Extent>> {
        if ext.name != WRITTEN_LAST {
            return None;
        }
        self.until = None;
        let Parts { blocks, firsts } = serde_json::from_str(&ext.json).ok()?;
        Some(firsts.into_iter().map(|first| Extent { first, blocks }).collect())
    }

    /// It is not waited for any longer once its time is over, nor when the clock stepped back meanwhile.
    pub fn give_up(&mut self, now: Instant) {
        if self.until.is_some_and(|until| until <= now || until > now + PATIENCE) {
            self.until = None;
        }
    }

    /// Nothing is to be opened yet.
    #[must_use]
    pub fn waits(&self) -> bool {
        self.until.is_some()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn ext(json: &str) -> Extension {
        Extension { name: WRITTEN_LAST.into(), json: json.into() }
    }

    #[test]
    fn a_clock_that_steps_back_ends_the_wait() {
        let (mut awaited, mut decisions) = (Awaited::default(), Decisions::default());
        awaited.ask(64, Instant::from_millis(5_000), &mut decisions);
        awaited.give_up(Instant::from_millis(1_000));
        assert!(!awaited.waits());
    }

    #[test]
    fn an_answer_ends_the_wait_and_so_does_a_second_without_one() {
        let (mut awaited, mut decisions) = (Awaited::default(), Decisions::default());
        let begun = Instant::from_millis(5_000);
        awaited.ask(64, begun, &mut decisions);
        assert_eq!(decisions.as_slice().len(), 2);
        awaited.give_up(Instant::from_millis(5_999));
        assert!(awaited.waits());
        let other = Extension { name: "something-else".into(), json: "{}".into() };
        assert_eq!(awaited.came(&other), None);
        assert!(awaited.waits());
        let parts = awaited.came(&ext(r#"{"blocks": 64, "firsts": [128, 0]}"#)).unwrap();
        assert_eq!(parts, [Extent { first: 128, blocks: 64 }, Extent { first: 0, blocks: 64 }]);
        assert!(!awaited.waits());
        awaited.ask(64, begun, &mut decisions);
        awaited.give_up(Instant::from_millis(6_000));
        assert!(!awaited.waits());
    }

    #[test]
    fn an_answer_that_is_none_ends_the_wait_without_parts() {
        let mut awaited = Awaited::default();
        awaited.ask(64, Instant::from_millis(0), &mut Decisions::default());
        assert_eq!(awaited.came(&ext("[]")), None);
        assert!(!awaited.waits());
    }
}
