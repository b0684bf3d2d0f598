//! When each site was heard last over its line: what an escrow site can say as a witness.
//!
//! It knows of its own time alone: a site that was not heard since this process began was never heard, for it cannot tell that
//! site's silence from its own.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use farseal_core::units::Millis;
use farseal_core::witness::Said;

use crate::keys::fingerprint::Fingerprint;

/// The sites' words.
#[derive(Debug, Default)]
pub struct Heard(Mutex<BTreeMap<Fingerprint, Word>>);

#[derive(Clone, Copy, Debug)]
struct Word {
    at: Instant,
    /// Between two words of the site's, as it says; it has not said.
    beat: Option<Millis>,
}

impl Heard {
    /// A cell came from this site.
    pub fn word(&self, site: Fingerprint, at: Instant) {
        let mut words = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let word = words.entry(site).or_insert(Word { at, beat: None });
        word.at = word.at.max(at);
    }

    /// The site says how often it speaks.
    pub fn beat(&self, site: Fingerprint, beat: Millis) {
        let mut words = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        words.entry(site).and_modify(|word| word.beat = Some(beat));
    }

    /// What is known of a site now.
    #[must_use]
    pub fn said(&self, site: Fingerprint, now: Instant) -> Said {
        let words = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match words.get(&site) {
            Some(Word { at, beat: Some(gap) }) => {
                Said::Heard { ago: millis(now.saturating_duration_since(*at)), gap: *gap }
            }
            Some(Word { beat: None, .. }) | None => Said::NeverHeard,
        }
    }
}

fn millis(span: Duration) -> Millis {
    Millis(u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_is_silent_since_its_last_word_and_only_if_it_said_how_often_it_speaks() {
        let (heard, site, begin) = (Heard::default(), Fingerprint([1; 32]), Instant::now());
        let after = |ms| begin + Duration::from_millis(ms);
        heard.beat(site, Millis(9));
        assert_eq!(heard.said(site, after(5)), Said::NeverHeard, "a beat without a word");
        heard.word(site, begin);
        assert_eq!(heard.said(site, after(5)), Said::NeverHeard, "a word without a beat");
        heard.beat(site, Millis(100));
        heard.word(site, after(70));
        heard.word(site, after(60));
        assert_eq!(heard.said(site, after(100)), Said::Heard { ago: Millis(30), gap: Millis(100) });
        assert_eq!(heard.said(site, begin), Said::Heard { ago: Millis(0), gap: Millis(100) });
        assert_eq!(heard.said(Fingerprint([2; 32]), after(100)), Said::NeverHeard);
    }
}
