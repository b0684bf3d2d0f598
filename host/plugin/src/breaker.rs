//! Strikes and quarantine: a component that keeps failing is not called again until an operator says so.
//!
//! Kept by digest, so that the same bytes in another slot are quarantined too and new bytes start clean.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::fault::FaultClass;
use crate::kind::Digest;
use crate::limits;

/// One fault, when and of what class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Strike {
    /// Milliseconds since 1970, by the node's clock.
    pub at: u64,
    /// What kind of fault.
    pub class: FaultClass,
}

/// Where a component stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Standing {
    /// Faults that still count, oldest first.
    pub strikes: Vec<Strike>,
    /// Since when it is not called any more; `None` while it is.
    pub quarantined_since: Option<u64>,
}

/// All standings, as the node stores them.
pub type BreakerState = BTreeMap<Digest, Standing>;

/// Told of every change, with all standings: it is to be quick, as whoever called a component waits for it.
pub type Changed = Box<dyn Fn(BreakerState) + Send + Sync>;

/// The standings of all components of a node; shared by its slots.
#[derive(Default)]
pub struct Breaker {
    standings: Mutex<BreakerState>,
    changed: Option<Changed>,
}

impl fmt::Debug for Breaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Breaker").field("standings", &self.standings).finish_non_exhaustive()
    }
}

impl Breaker {
    /// Goes on from a stored state.
    #[must_use]
    pub const fn restore(state: BreakerState) -> Self {
        Self { standings: Mutex::new(state), changed: None }
    }

    /// Goes on from a stored state, and tells `changed` of each strike and each release, to be stored.
    #[must_use]
    pub fn telling(state: BreakerState, changed: Changed) -> Self {
        Self { standings: Mutex::new(state), changed: Some(changed) }
    }

    /// All standings.
    #[must_use]
    pub fn state(&self) -> BreakerState {
        self.lock().clone()
    }

    /// Where this component stands.
    #[must_use]
    pub fn standing(&self, digest: &Digest) -> Standing {
        self.lock().get(digest).cloned().unwrap_or_default()
    }

    /// Whether it may be called.
    #[must_use]
    pub fn allows(&self, digest: &Digest) -> bool {
        self.lock().get(digest).is_none_or(|standing| standing.quarantined_since.is_none())
    }

    /// Counts a fault at `now` (milliseconds since 1970); `true` when this one means quarantine.
    ///
    /// A clock that steps back keeps the strikes: they count until they are ten minutes old by the later clock.
    pub fn strike(&self, digest: Digest, now: u64, class: FaultClass) -> bool {
        let mut standings = self.lock();
        let standing = standings.entry(digest).or_default();
        standing.strikes.retain(|strike| now.saturating_sub(strike.at) < limits::STRIKE_WINDOW_MS);
        standing.strikes.push(Strike { at: now, class });
        let quarantined = standing.quarantined_since.is_none() && standing.strikes.len() >= limits::STRIKES;
        if quarantined {
            standing.quarantined_since = Some(now);
        }
        drop(standings);
        self.tell();
        quarantined
    }

    /// An operator lets a component run again, with no strikes; `false` when it was not in quarantine.
    pub fn release(&self, digest: &Digest) -> bool {
        let released = self.lock().remove(digest).is_some_and(|standing| standing.quarantined_since.is_some());
        self.tell();
        released
    }

    fn tell(&self) {
        if let Some(changed) = &self.changed {
            changed(self.state());
        }
    }

    fn lock(&self) -> MutexGuard<'_, BreakerState> {
        // Every change under the lock is whole; a panic elsewhere leaves nothing half done.
        self.standings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    const MINUTE: u64 = 60_000;

    #[test]
    fn three_faults_in_ten_minutes_mean_quarantine_until_released() {
        let breaker = Breaker::default();
        let digest = Digest([1; 32]);
        assert!(!breaker.strike(digest, 0, FaultClass::Panic));
        assert!(!breaker.strike(digest, 5 * MINUTE, FaultClass::Fuel));
        assert!(!breaker.strike(digest, 10 * MINUTE, FaultClass::Fuel), "the first is ten minutes old");
        assert!(breaker.allows(&digest));
        assert!(breaker.strike(digest, 14 * MINUTE, FaultClass::Memory));
        assert!(!breaker.allows(&digest));
        assert!(breaker.allows(&Digest([2; 32])));
        assert!(breaker.release(&digest));
        assert!(breaker.allows(&digest));
        assert!(!breaker.release(&digest));
    }

    #[test]
    fn quarantine_survives_a_restart() {
        let breaker = Breaker::default();
        let digest = Digest([3; 32]);
        (0..3).for_each(|at| {
            breaker.strike(digest, at, FaultClass::Invariant);
        });
        let stored = serde_json::to_string(&breaker.state()).unwrap();
        assert!(!Breaker::restore(serde_json::from_str(&stored).unwrap()).allows(&digest));
    }

    #[test]
    fn every_strike_and_release_is_told_with_all_standings() {
        let (sender, told) = std::sync::mpsc::channel();
        let breaker = Breaker::telling(BreakerState::new(), Box::new(move |state| sender.send(state).unwrap()));
        let digest = Digest([4; 32]);
        (0..3).for_each(|at| {
            breaker.strike(digest, at, FaultClass::Panic);
        });
        assert!(breaker.release(&digest));
        let strikes = |state: BreakerState| state.get(&digest).map(|standing| standing.strikes.len());
        assert_eq!(told.try_iter().map(strikes).collect::<Vec<_>>(), [Some(1), Some(2), Some(3), None]);
    }
}
