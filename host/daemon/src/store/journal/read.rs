//! Reading the journal's records back, verbatim, for the link.

use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::Bytes;
use farseal_core::units::Sequence;
use farseal_core::window::Range;

use super::{Segment, Shared, sequence_of};
use crate::store::{StoreError, narrow, shared};

/// Bytes of one read: whole frames' worth of records.
const READ_BYTES: u64 = 4 << 20;

/// Reads records by sequence number, beside the one that appends.
#[derive(Clone, Debug)]
pub struct JournalReader {
    shared: Arc<Shared>,
}

impl JournalReader {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The whole records of `range`, as they were appended. One that is missing, or does not say of itself that it is
    /// what was asked for, is an error.
    pub fn read(&self, range: Range) -> Result<Vec<Bytes>, StoreError> {
        let mut records = Vec::new();
        let mut next = range.first;
        while next <= range.last {
            let segment = self.segment_of(next)?;
            let places: Vec<(u32, u32)> = {
                let all = shared(&segment.places);
                let from = narrow(next.since(segment.first));
                let most = narrow(range.last.since(next).saturating_add(1));
                all.records.iter().skip(from).take(most).copied().collect()
            };
            if places.is_empty() {
                return Err(self.missing(next));
            }
            next = read_places(&segment, next, &places, &mut records)?;
        }
        Ok(records)
    }

    fn segment_of(&self, sequence: Sequence) -> Result<Arc<Segment>, StoreError> {
        let segments = shared(&self.shared.segments);
        segments.range(..=sequence).next_back().map(|(_, segment)| Arc::clone(segment)).ok_or(self.missing(sequence))
    }

    fn missing(&self, sequence: Sequence) -> StoreError {
        StoreError::NotInJournal { path: self.shared.dir.clone(), sequence }
    }
}

/// Reads neighbours together, and gives the sequence number after the last.
fn read_places(
    segment: &Segment,
    mut next: Sequence,
    mut places: &[(u32, u32)],
    records: &mut Vec<Bytes>,
) -> Result<Sequence, StoreError> {
    while let Some((start, _)) = places.first().copied() {
        let within = |(offset, len): &(u32, u32)| u64::from(*offset) + u64::from(*len) <= u64::from(start) + READ_BYTES;
        let together = places.iter().take_while(|place| within(place)).count().max(1);
        let (now, later) = places.split_at(together);
        let end = now.last().map_or(start, |(offset, len)| offset + len);
        let mut bytes = vec![0; narrow(u64::from(end - start))];
        segment
            .file
            .read_exact_at(&mut bytes, u64::from(start))
            .map_err(|source| StoreError::io(&segment.path, "read records", source))?;
        let bytes = Bytes::from(bytes);
        for (offset, len) in now {
            let at = narrow(u64::from(offset - start));
            let record = bytes.slice(at..at + narrow(u64::from(*len)));
            if sequence_of(&record) != Some(next) {
                let (path, offset) = (segment.path.clone(), u64::from(*offset));
                return Err(StoreError::Damaged { path, offset, what: "the record's header is not what was written" });
            }
            records.push(record);
            next = next.next();
        }
        places = later;
    }
    Ok(next)
}
