//! When each site was heard last over its line: what an escrow site can say as a witness, by this process's own time
//!
//! What counts is in `host/core/src/witness/heard.rs`.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use farseal_core::units::{Instant as Moment, Millis};
use farseal_core::witness::{Heard as Words, Said};

use crate::keys::fingerprint::Fingerprint;

/// The sites' words.
#[derive(Debug)]
pub struct Heard {
    began: Instant,
    words: Mutex<Words<Fingerprint>>,
}

impl Default for Heard {
    fn default() -> Self {
        Self { began: Instant::now(), words: Mutex::default() }
    }
}

impl Heard {
    /// A cell came from this site.
    pub fn word(&self, site: Fingerprint, at: Instant) {
        let at = self.moment(at);
        self.words.lock().unwrap_or_else(PoisonError::into_inner).word(site, at);
    }

    /// The site says how often it speaks.
    pub fn beat(&self, site: Fingerprint, beat: Millis) {
        self.words.lock().unwrap_or_else(PoisonError::into_inner).beat(site, beat);
    }

    /// What is known of a site now.
    #[must_use]
    pub fn said(&self, site: Fingerprint, now: Instant) -> Said {
        let now = self.moment(now);
        self.words.lock().unwrap_or_else(PoisonError::into_inner).said(&site, now)
    }

    fn moment(&self, at: Instant) -> Moment {
        let since = at.saturating_duration_since(self.began);
        Moment(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_silence_is_told_in_milliseconds_of_this_process() {
        let (heard, site) = (Heard::default(), Fingerprint([1; 32]));
        let after = |ms| heard.began + Duration::from_millis(ms);
        heard.word(site, after(70));
        heard.beat(site, Millis(100));
        assert_eq!(heard.said(site, after(100)), Said::Heard { ago: Millis(30), gap: Millis(100) });
        assert_eq!(heard.said(Fingerprint([2; 32]), after(100)), Said::NeverHeard);
    }
}
