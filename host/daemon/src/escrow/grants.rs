//! What a person's yes grants: the keys that were held when it was said, for a day. It is in memory alone, so a restart ends it

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use farseal_core::units::WallTime;

use super::wire::Place;
use crate::keys::capsule::KemSecret;

/// By the number of the request.
#[derive(Debug, Default)]
pub(super) struct Grants(Mutex<BTreeMap<u64, Grant>>);

/// What one yes grants.
#[derive(Clone, Debug)]
pub(super) struct Grant {
    /// The escrow's key as people's shares made it. `None`: the node has its own.
    pub(super) secret: Option<Arc<KemSecret>>,
    /// The deposits, in order. Which epochs were asked for is the asking site's word and may have no end: what its main site deposits
    /// after the yes is not among these.
    pub(super) held: Arc<[Place]>,
    pub(super) until: WallTime,
}

impl Grants {
    pub(super) fn put(&self, request: u64, grant: Grant) {
        self.all().insert(request, grant);
    }

    pub(super) fn end(&self, request: u64) {
        self.all().remove(&request);
    }

    pub(super) fn in_force(&self, request: u64, now: WallTime) -> Option<Grant> {
        self.all().get(&request).filter(|grant| now < grant.until).cloned()
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<u64, Grant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Grant {
    pub(super) fn covers(&self, place: &Place) -> bool {
        self.held.binary_search(place).is_ok()
    }

    /// How many come before what follows this one.
    pub(super) fn next(&self, after: Option<Place>) -> usize {
        after.map_or(0, |after| self.held.partition_point(|place| *place <= after))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use farseal_core::units::Epoch;

    use super::*;

    fn place(epoch: u64, deposit: u8) -> Place {
        Place { epoch: Epoch(epoch), deposit: [deposit; 32] }
    }

    fn grant(held: &[Place]) -> Grant {
        Grant { secret: None, held: held.into(), until: WallTime(10) }
    }

    #[test]
    fn a_grant_covers_what_was_held_and_no_other_key_of_the_same_epochs() {
        let granted = grant(&[place(1, 5), place(2, 5), place(4, 5)]);
        for (asked, covered) in [(place(2, 5), true), (place(2, 4), false), (place(3, 5), false), (place(5, 5), false)]
        {
            assert_eq!(granted.covers(&asked), covered, "{asked:?}");
        }
        let after = [None, Some(place(1, 5)), Some(place(3, 0)), Some(place(u64::MAX, 0))];
        assert_eq!(after.map(|after| granted.next(after)), [0, 1, 2, 3]);
    }

    #[test]
    fn a_grant_ends_with_its_time_or_when_it_is_taken_back() {
        let grants = Grants::default();
        grants.put(1, grant(&[place(1, 5)]));
        assert!(grants.in_force(1, WallTime(9)).unwrap().covers(&place(1, 5)));
        assert!(grants.in_force(1, WallTime(10)).is_none() && grants.in_force(2, WallTime(9)).is_none());
        grants.end(1);
        assert!(grants.in_force(1, WallTime(9)).is_none());
    }
}
