//! What a person's yes grants: the keys that were held when it was said, until they were fetched, or for a day. It is in memory alone, so a restart ends it

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use farseal_core::units::WallTime;

use super::wire::Place;
use crate::keys::capsule::KemSecret;

/// Keys that a line of the log is about: a release of thousands is some lines, and a key that is fetched again makes none.
const NOTED_TOGETHER: usize = 256;

/// By the number of the request.
#[derive(Debug, Default)]
pub(super) struct Grants(Mutex<BTreeMap<u64, Kept>>);

#[derive(Debug)]
struct Kept {
    grant: Grant,
    /// The first of each [`NOTED_TOGETHER`] that the log says to be released.
    noted: BTreeSet<usize>,
}

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
        self.all().insert(request, Kept { grant, noted: BTreeSet::new() });
    }

    pub(super) fn end(&self, request: u64) {
        self.all().remove(&request);
    }

    /// Forgets those whose time is over, and with them the key that people brought.
    pub(super) fn expire(&self, now: WallTime) {
        self.all().retain(|_, kept| now < kept.grant.until);
    }

    pub(super) fn in_force(&self, request: u64, now: WallTime) -> Option<Grant> {
        self.all().get(&request).map(|kept| &kept.grant).filter(|grant| now < grant.until).cloned()
    }

    /// Which lines of the log are to be written before these keys leave, by the keys that each is about. `None`: the grant has ended.
    pub(super) fn unnoted(&self, request: u64, keys: &Range<usize>) -> Option<Vec<Range<usize>>> {
        let all = self.all();
        let Kept { grant, noted } = all.get(&request)?;
        let first = keys.start - keys.start % NOTED_TOGETHER;
        let end = if keys.is_empty() { first } else { keys.end };
        let lines = (first..end).step_by(NOTED_TOGETHER).filter(|first| !noted.contains(first));
        Some(lines.map(|first| first..grant.held.len().min(first + NOTED_TOGETHER)).collect())
    }

    /// A line that [`Self::unnoted`] named is durable.
    pub(super) fn noted(&self, request: u64, keys: &Range<usize>) {
        if let Some(kept) = self.all().get_mut(&request) {
            kept.noted.insert(keys.start);
        }
    }

    /// The log says of every key that it was released.
    pub(super) fn is_all_noted(&self, request: u64) -> bool {
        let all = self.all();
        all.get(&request).is_some_and(|kept| kept.noted.len() == kept.grant.held.len().div_ceil(NOTED_TOGETHER))
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<u64, Kept>> {
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
    use crate::keys::capsule::KemId;

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
    fn every_key_is_in_a_line_of_the_log_before_it_leaves_and_none_is_in_two() {
        let grants = Grants::default();
        let held: Vec<Place> = (1..=600).map(|epoch| place(epoch, 5)).collect();
        grants.put(1, grant(&held));
        let mut lines = Vec::new();
        // The asking site says where a batch begins: out of order, again, over two lines.
        for keys in [600..600, 590..600, 0..30, 30..60, 250..280, 0..600] {
            for line in grants.unnoted(1, &keys).unwrap() {
                assert!(!grants.is_all_noted(1));
                grants.noted(1, &line);
                lines.push(line);
            }
            let said = |key| lines.iter().filter(|line: &&Range<usize>| line.contains(&key)).count();
            assert!(keys.clone().all(|key| said(key) == 1), "{keys:?} of {lines:?}");
        }
        assert_eq!(lines, [512..600, 0..256, 256..512]);
        assert!(grants.is_all_noted(1) && !grants.is_all_noted(2));
        assert_eq!(grants.unnoted(2, &(0..1)), None, "what was taken back is released to nobody");
    }

    #[test]
    fn the_key_that_people_brought_is_wiped_with_its_grant() {
        let grants = Grants::default();
        let put = |request, until| {
            let secret = Arc::new(KemSecret::generate(KemId::DhP256).unwrap());
            let seen = Arc::downgrade(&secret);
            grants.put(request, Grant { secret: Some(secret), until, ..grant(&[]) });
            seen
        };
        let (taken_back, over, later) = (put(1, WallTime(10)), put(2, WallTime(10)), put(3, WallTime(11)));
        grants.end(1);
        assert!(taken_back.upgrade().is_none());
        grants.expire(WallTime(9));
        assert!(over.upgrade().is_some());
        grants.expire(WallTime(10));
        assert!(over.upgrade().is_none() && later.upgrade().is_some());
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
