//! What searches found in a test of a copy that is opened by search alone: nothing else of it is opened

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use farseal_core::units::Extent;

/// Records by their first block, and where each ends. In memory as long as the test: 32 bytes or so for each that was found.
#[derive(Debug, Default)]
pub struct Released(Mutex<BTreeMap<u64, u64>>);

impl Released {
    /// A record was found. Says whether it was not before.
    pub fn add(&self, record: Extent) -> bool {
        let mut records = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        records.insert(record.first().0, record.end().0).is_none()
    }

    /// Are all of these blocks of records that were found?
    #[must_use]
    pub fn has(&self, extent: Extent) -> bool {
        let records = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut at = extent.first().0;
        while at < extent.end().0 {
            match records.range(..=at).next_back() {
                Some((_, end)) if *end > at => at = *end,
                Some(_) | None => return false,
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use farseal_core::units::{BlockCount, Lba};

    use super::*;

    #[test]
    fn only_whole_records_that_were_found_are_released() {
        let released = Released::default();
        let extent = |first, blocks| Extent::new(Lba(first), BlockCount(blocks)).into_iter();
        extent(4, 2).for_each(|record| assert!(released.add(record)));
        extent(6, 2).for_each(|record| assert!(released.add(record)));
        extent(6, 2).for_each(|record| assert!(!released.add(record), "a second time"));
        for (first, blocks, is) in [(4, 1, true), (5, 3, true), (3, 2, false), (7, 2, false), (0, 1, false)] {
            extent(first, blocks).for_each(|asked| assert_eq!(released.has(asked), is, "{asked:?}"));
        }
    }
}
