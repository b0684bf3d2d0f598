//! When each site was heard last over its line: what a witness can say.
//!
//! It knows of its own time alone: a site that was not heard since this process began was never heard, for it cannot tell that
//! site's silence from its own.

use std::collections::BTreeMap;

use super::Said;
use crate::units::{Instant, Millis};

/// The sites' words.
#[derive(Clone, Debug)]
pub struct Heard<S>(BTreeMap<S, Word>);

#[derive(Clone, Copy, Debug)]
struct Word {
    at: Instant,
    /// Between two words of the site's, as it says; it has not said.
    beat: Option<Millis>,
}

impl<S> Default for Heard<S> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<S: Ord> Heard<S> {
    /// Something came from this site.
    pub fn word(&mut self, site: S, at: Instant) {
        let word = self.0.entry(site).or_insert(Word { at, beat: None });
        word.at = word.at.max(at);
    }

    /// The site says how often it speaks.
    pub fn beat(&mut self, site: S, beat: Millis) {
        self.0.entry(site).and_modify(|word| word.beat = Some(beat));
    }

    /// What is known of a site now.
    #[must_use]
    pub fn said(&self, site: &S, now: Instant) -> Said {
        match self.0.get(site) {
            Some(Word { at, beat: Some(gap) }) => Said::Heard { ago: now.since(*at), gap: *gap },
            Some(Word { beat: None, .. }) | None => Said::NeverHeard,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_is_silent_since_its_last_word_and_only_if_it_said_how_often_it_speaks() {
        let mut heard = Heard::default();
        heard.beat(1, Millis(9));
        assert_eq!(heard.said(&1, Instant(5)), Said::NeverHeard, "a beat without a word");
        heard.word(1, Instant(0));
        assert_eq!(heard.said(&1, Instant(5)), Said::NeverHeard, "a word without a beat");
        heard.beat(1, Millis(100));
        heard.word(1, Instant(70));
        heard.word(1, Instant(60));
        assert_eq!(heard.said(&1, Instant(100)), Said::Heard { ago: Millis(30), gap: Millis(100) });
        assert_eq!(heard.said(&1, Instant(0)), Said::Heard { ago: Millis(0), gap: Millis(100) });
        assert_eq!(heard.said(&2, Instant(100)), Said::NeverHeard);
    }
}
