//! The epoch ledger: which epoch opens which sequence number. Filled by the records themselves, in their order.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::units::{Epoch, Generation, Sequence};

/// An epoch's place in the order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Entry {
    pub epoch: Epoch,
    pub generation: Generation,
    /// The key record that carries it.
    pub key: Sequence,
    /// The first sequence number that it seals.
    pub start: Sequence,
}

/// Every epoch of a lane. Lookups never guess: what falls in no epoch is an error.
///
/// A clone costs nothing: what is in it is copied when an epoch comes while somebody still reads the older state.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(from = "Stored")]
pub struct Ledger {
    /// By the first sequence number that they seal.
    #[serde(serialize_with = "by_reference")]
    by_start: Arc<BTreeMap<Sequence, Entry>>,
}

/// As it is kept.
#[derive(Deserialize)]
struct Stored {
    by_start: BTreeMap<Sequence, Entry>,
}

impl From<Stored> for Ledger {
    fn from(stored: Stored) -> Self {
        Self { by_start: Arc::new(stored.by_start) }
    }
}

fn by_reference<S: serde::Serializer>(shared: &Arc<impl Serialize>, to: S) -> Result<S::Ok, S::Error> {
    shared.serialize(to)
}

/// Why a key record does not fit the ledger.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LedgerError {
    #[error("epoch {epoch} is not newer than epoch {newest}: a replayed key record")]
    NotNewer { epoch: Epoch, newest: Epoch },
    #[error("epoch {epoch} would start at {start}, not after its own key record {key}")]
    StartsTooEarly { epoch: Epoch, key: Sequence, start: Sequence },
}

impl Ledger {
    /// Adds the epoch of a key record. Called in the order of the records.
    ///
    /// An epoch that has not begun at this key record, and would not begin before the new one, never seals: a restart
    /// or a gap put a new key in its place.
    pub fn arm(&mut self, entry: Entry) -> Result<(), LedgerError> {
        if entry.start <= entry.key {
            return Err(LedgerError::StartsTooEarly { epoch: entry.epoch, key: entry.key, start: entry.start });
        }
        if let Some(newest) = self.newest().filter(|newest| entry.epoch <= newest.epoch) {
            return Err(LedgerError::NotNewer { epoch: entry.epoch, newest: newest.epoch });
        }
        // Starts are after their keys, and keys come in order: what lies at or after this start has not begun.
        let by_start = Arc::make_mut(&mut self.by_start);
        by_start.split_off(&entry.start);
        by_start.insert(entry.start, entry);
        Ok(())
    }

    /// Takes back the newest epoch by its void record at `at`. Says whether it was there and had not begun.
    pub fn void(&mut self, epoch: Epoch, at: Sequence) -> bool {
        let Some(entry) = self.newest().filter(|newest| newest.epoch == epoch && at < newest.start) else {
            return false;
        };
        Arc::make_mut(&mut self.by_start).remove(&entry.start);
        true
    }

    /// The epoch that seals, and so opens, `sequence`.
    pub fn epoch_of(&self, sequence: Sequence) -> Option<Entry> {
        self.by_start.range(..=sequence).next_back().map(|(_, entry)| *entry)
    }

    /// The number of [`Self::epoch_of`]; [`Epoch::NONE`], older than any, where the ledger does not say.
    pub fn epoch_at(&self, sequence: Sequence) -> Epoch {
        self.epoch_of(sequence).map_or(Epoch::NONE, |entry| entry.epoch)
    }

    /// The one that starts last.
    pub fn newest(&self) -> Option<Entry> {
        self.by_start.last_key_value().map(|(_, entry)| *entry)
    }

    pub fn get(&self, epoch: Epoch) -> Option<Entry> {
        self.by_start.values().rfind(|entry| entry.epoch == epoch).copied()
    }

    /// Oldest first.
    pub fn entries(&self) -> impl DoubleEndedIterator<Item = Entry> {
        self.by_start.values().copied()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(epoch: u64, key: u64, start: u64) -> Entry {
        Entry { epoch: Epoch(epoch), generation: Generation(1), key: Sequence(key), start: Sequence(start) }
    }

    #[test]
    fn below_its_start_the_old_key_opens_and_from_it_on_the_new() {
        let mut ledger = Ledger::default();
        ledger.arm(entry(1, 1, 2)).unwrap();
        ledger.arm(entry(2, 10, 14)).unwrap();
        let epochs: Vec<u64> = [1, 2, 13, 14, 99]
            .into_iter()
            .map(|sequence| ledger.epoch_of(Sequence(sequence)).map_or(0, |entry| entry.epoch.0))
            .collect();
        assert_eq!(epochs, [0, 1, 1, 2, 2]);
    }

    #[test]
    fn who_reads_an_older_state_keeps_it() {
        let mut ledger = Ledger::default();
        ledger.arm(entry(1, 1, 2)).unwrap();
        let older = ledger.clone();
        ledger.arm(entry(2, 10, 14)).unwrap();
        assert_eq!((older.newest().unwrap().epoch, ledger.newest().unwrap().epoch), (Epoch(1), Epoch(2)));
    }

    #[test]
    fn a_void_epoch_never_seals() {
        let mut ledger = Ledger::default();
        ledger.arm(entry(1, 1, 2)).unwrap();
        ledger.arm(entry(2, 10, 14)).unwrap();
        assert!(!ledger.void(Epoch(2), Sequence(14)), "too late: it has begun");
        assert!(ledger.void(Epoch(2), Sequence(13)));
        assert_eq!(ledger.epoch_of(Sequence(14)).unwrap().epoch, Epoch(1));
        assert!(!ledger.void(Epoch(2), Sequence(13)), "only once");
    }

    #[test]
    fn replayed_and_early_keys_are_refused() {
        let mut ledger = Ledger::default();
        ledger.arm(entry(2, 1, 2)).unwrap();
        assert!(matches!(ledger.arm(entry(2, 10, 12)), Err(LedgerError::NotNewer { .. })));
        assert!(matches!(ledger.arm(entry(1, 10, 12)), Err(LedgerError::NotNewer { .. })));
        assert!(matches!(ledger.arm(entry(3, 10, 10)), Err(LedgerError::StartsTooEarly { .. })));
    }

    #[test]
    fn a_key_before_the_start_of_the_last_epoch_takes_its_place() {
        let mut ledger = Ledger::default();
        ledger.arm(entry(1, 1, 2)).unwrap();
        ledger.arm(entry(2, 10, 20)).unwrap();
        ledger.arm(entry(3, 12, 13)).unwrap();
        assert_eq!(ledger.epoch_of(Sequence(12)).unwrap().epoch, Epoch(1));
        assert_eq!(ledger.epoch_of(Sequence(13)).unwrap().epoch, Epoch(3));
        assert_eq!(ledger.epoch_of(Sequence(99)).unwrap().epoch, Epoch(3));
        assert_eq!(ledger.get(Epoch(2)), None);
    }

    proptest! {
        #[test]
        fn every_sequence_number_has_at_most_one_epoch_and_the_last_started_wins(
            gaps in proptest::collection::vec((1..50u64, 1..10u64), 1..20), probe in 0..2000u64
        ) {
            let (mut ledger, mut at, mut model) = (Ledger::default(), 0, Vec::new());
            for (index, (gap, lead)) in gaps.iter().enumerate() {
                at += gap;
                let armed = entry(index as u64 + 1, at, at + lead);
                if ledger.arm(armed).is_ok() {
                    model.retain(|earlier: &Entry| earlier.start < armed.start);
                    model.push(armed);
                }
            }
            let expected = model.iter().rfind(|entry| entry.start.0 <= probe).copied();
            prop_assert_eq!(ledger.epoch_of(Sequence(probe)), expected);
        }
    }
}
