//! What a plugin of a story was called for, and how long after the call before: what is said where a story has too many calls.

use std::collections::BTreeMap;

use super::units::span;

/// Calls by event.
#[derive(Debug, Default)]
pub(super) struct Heard(BTreeMap<&'static str, Calls>);

#[derive(Debug, Default)]
struct Calls {
    count: usize,
    last: u64,
    /// How often a call came so long after the one before it, in milliseconds. None came where no time had passed: that is no pace.
    apart: BTreeMap<u64, usize>,
}

impl Heard {
    /// A call for this event, at this moment of the story.
    pub(super) fn note(&mut self, event: &'static str, now: u64) {
        let calls = self.0.entry(event).or_default();
        let apart = now.saturating_sub(calls.last);
        if calls.count > 0 && apart > 0 {
            *calls.apart.entry(apart).or_default() += 1;
        }
        (calls.count, calls.last) = (calls.count + 1, now);
    }

    /// The commonest event and its usual distance: "woken every 1s by `wake-at`".
    pub(super) fn words(&self) -> String {
        let Some((event, calls)) = self.0.iter().max_by_key(|(_, calls)| calls.count) else {
            return "it was called for nothing".into();
        };
        let usual = calls.apart.iter().max_by_key(|(_, times)| **times).map(|(apart, _)| span(*apart));
        let every = usual.map_or_else(|| "without time passing".into(), |usual| format!("every {usual}"));
        match *event {
            "timer" => format!("woken {every} by `wake-at`"),
            "usage" => format!("told {every} of a mark that `watch` set"),
            other => format!("told `{other}` {every}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commonest_event_is_told_with_its_usual_distance() {
        let mut heard = Heard::default();
        heard.note("started", 0);
        assert_eq!(heard.words(), "told `started` without time passing");
        for now in [1_000, 2_000, 2_000, 3_000, 90_000] {
            heard.note("timer", now);
        }
        assert_eq!(heard.words(), "woken every 1s by `wake-at`");
        (0..9).for_each(|each| heard.note("usage", each * 60_000));
        assert_eq!(heard.words(), "told every 1m of a mark that `watch` set");
    }
}
