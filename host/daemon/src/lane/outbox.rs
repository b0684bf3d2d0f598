//! Records that were committed and not acknowledged, as far as memory allows: what a path sends comes from here.

use std::collections::VecDeque;

use bytes::Bytes;
use farseal_core::units::{Instant, Sequence};
use farseal_core::window::Range;
use farseal_plugin::wit::disguise::Seen;

/// Bytes kept; what is older is read from the journal again. The window of a lane.
const BYTES_MAX: usize = 64 << 20;
/// What a disguise is shown of the recent past.
const SEEN_MAX: usize = 256;

#[derive(Debug, Default)]
pub struct Outbox {
    records: VecDeque<(Sequence, Bytes)>,
    bytes: usize,
    seen: VecDeque<Seen>,
    last: Instant,
}

impl Outbox {
    pub fn push(&mut self, sequence: Sequence, record: Bytes, now: Instant) {
        let blocks = u32::try_from(record.len() / 4112).unwrap_or(u32::MAX).clamp(1, 256);
        self.seen.push_back(Seen { gap: now.since(self.last).0, blocks });
        if self.seen.len() > SEEN_MAX {
            self.seen.pop_front();
        }
        self.last = now;
        self.bytes += record.len();
        self.records.push_back((sequence, record));
        while self.bytes > BYTES_MAX {
            self.drop_front();
        }
    }

    /// The records of a range, if all of it is here.
    #[must_use]
    pub fn records(&self, range: Range) -> Option<Vec<Bytes>> {
        let from = self.records.partition_point(|(sequence, _)| *sequence < range.first);
        let records: Vec<Bytes> = self
            .records
            .iter()
            .skip(from)
            .take_while(|(sequence, _)| *sequence <= range.last)
            .map(|(_, record)| record.clone())
            .collect();
        let whole = u64::try_from(records.len()).unwrap_or(0) == range.last.since(range.first) + 1;
        whole.then_some(records)
    }

    pub fn acknowledged(&mut self, durable: Sequence) {
        while self.records.front().is_some_and(|(sequence, _)| *sequence <= durable) {
            self.drop_front();
        }
    }

    /// The lengths and times that an observer of the link has seen lately, oldest first.
    #[must_use]
    pub fn recent(&self) -> Vec<Seen> {
        self.seen.iter().copied().collect()
    }

    fn drop_front(&mut self) {
        if let Some((_, record)) = self.records.pop_front() {
            self.bytes -= record.len();
        }
    }
}
