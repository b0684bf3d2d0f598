//! What of the log the index still reads: how many blocks of each segment, which of a record, and where they lie when they
//! have moved.

use std::collections::BTreeMap;
use std::sync::Arc;

use farseal_core::record::{Header, Kind};

use super::{CHUNK_BLOCKS, Chunk, DATA, GROUP_CHUNKS, Index, Slot};
use crate::store::log::{Kept, Location, Run};
use crate::store::narrow;

/// Blocks of data by segment.
#[derive(Clone, Debug, Default)]
pub(super) struct Live {
    blocks: BTreeMap<u32, u64>,
}

impl Live {
    pub(super) fn of(&self, segment: u32) -> u64 {
        self.blocks.get(&segment).copied().unwrap_or_default()
    }

    pub(super) fn add_chunk(&mut self, chunk: &Chunk) {
        for (segment, blocks) in by_segment(chunk) {
            self.give(segment, blocks);
        }
    }

    pub(super) fn drop_chunk(&mut self, chunk: &Chunk) {
        for (segment, blocks) in by_segment(chunk) {
            self.take(segment, blocks);
        }
    }

    fn give(&mut self, segment: u32, blocks: u64) {
        *self.blocks.entry(segment).or_default() += blocks;
    }

    fn take(&mut self, segment: u32, blocks: u64) {
        if let Some(left) = self.blocks.get_mut(&segment) {
            *left = left.saturating_sub(blocks);
            if *left == 0 {
                self.blocks.remove(&segment);
            }
        }
    }
}

/// What neighbouring slots change: they mostly lie in one segment, and are counted there together.
#[derive(Debug, Default)]
pub(super) struct Tally {
    lost: Option<(u32, u64)>,
    gained: Option<(u32, u64)>,
}

impl Tally {
    pub(super) fn replaced(&mut self, live: &mut Live, old: Slot, new: Slot) {
        if let Some((segment, blocks)) = count(&mut self.lost, old) {
            live.take(segment, blocks);
        }
        if let Some((segment, blocks)) = count(&mut self.gained, new) {
            live.give(segment, blocks);
        }
    }

    /// What is gained goes first: a segment is never below nothing.
    pub(super) fn end(self, live: &mut Live) {
        self.gained.into_iter().for_each(|(segment, blocks)| live.give(segment, blocks));
        self.lost.into_iter().for_each(|(segment, blocks)| live.take(segment, blocks));
    }
}

/// Adds a block to the run of its segment; gives back the run before, if this is another segment.
fn count(run: &mut Option<(u32, u64)>, slot: Slot) -> Option<(u32, u64)> {
    if slot.kind() != DATA {
        return None;
    }
    match run {
        Some((segment, blocks)) if *segment == slot.segment() => {
            *blocks += 1;
            None
        }
        _ => run.replace((slot.segment(), 1)),
    }
}

/// Neighbours mostly lie in one segment.
fn by_segment(chunk: &Chunk) -> Vec<(u32, u64)> {
    let mut counts: Vec<(u32, u64)> = Vec::new();
    for slot in chunk.slots.iter().filter(|slot| slot.kind() == DATA) {
        match counts.last_mut() {
            Some((segment, blocks)) if *segment == slot.segment() => *blocks += 1,
            _ => counts.push((slot.segment(), 1)),
        }
    }
    counts
}

impl Index {
    /// Which blocks of the record at `location` anybody could still read through this index; `None` if none of them. A
    /// record that touches no block is none of the index's business, and nobody reads it here.
    pub fn reads(&self, header: &Header, location: Location) -> Option<Kept> {
        let extent = header.extent()?;
        let (first, end) = (extent.first().0.min(self.blocks), extent.end().0.min(self.blocks));
        let is_read = |slot: Slot| slot.sequence() == header.sequence.0 && slot.location == location.pack();
        if header.kind != Kind::Data {
            return self.any(first, end, is_read).then_some(Kept::Whole);
        }
        let mut runs: Vec<Run> = Vec::new();
        for (lba, index) in (first..end).zip(0..) {
            if is_read(self.slot(lba)) {
                match runs.last_mut() {
                    Some(run) if run.first + run.count == index => run.count += 1,
                    _ => runs.push(Run { first: index, count: 1 }),
                }
            }
        }
        match runs.as_slice() {
            [] => None,
            [run] if run.count == header.blocks => Some(Kept::Whole),
            _ => Some(Kept::Runs(runs)),
        }
    }

    /// Reads what came from the record of this header, and lay in a segment that `left` names, at `to` from now on.
    pub fn moved(&mut self, header: &Header, to: Location, left: impl Fn(u32) -> bool) {
        let Some(extent) = header.extent() else {
            return;
        };
        let (first, end) = (extent.first().0.min(self.blocks), extent.end().0.min(self.blocks));
        let mine = |slot: &Slot| slot.sequence() == header.sequence.0 && left(slot.segment());
        let mut number = first / CHUNK_BLOCKS;
        while number * CHUNK_BLOCKS < end {
            let Some(Some(group)) = self.groups.get_mut(narrow(number / GROUP_CHUNKS)) else {
                number = (number / GROUP_CHUNKS + 1) * GROUP_CHUNKS;
                continue;
            };
            let place = &mut group.chunks[narrow(number % GROUP_CHUNKS)];
            if let Some(chunk) = place.as_mut().filter(|chunk| chunk.slots.iter().any(&mine)) {
                let (chunk, mut tally) = (Arc::make_mut(chunk), Tally::default());
                for slot in chunk.slots.iter_mut().filter(|slot| mine(slot)) {
                    let old = *slot;
                    slot.location = to.pack();
                    tally.replaced(&mut self.live, old, *slot);
                }
                tally.end(&mut self.live);
                self.touch(number);
            }
            number += 1;
        }
        self.zeroes.moved(first / CHUNK_BLOCKS, end.div_ceil(CHUNK_BLOCKS), to, mine);
    }

    /// Is there a block between `first` and `end` whose slot `is`?
    fn any(&self, first: u64, end: u64, is: impl Fn(Slot) -> bool) -> bool {
        let mut at = first;
        while at < end {
            let number = at / CHUNK_BLOCKS;
            let Some(Some(_)) = self.groups.get(narrow(number / GROUP_CHUNKS)) else {
                let group_end = (number / GROUP_CHUNKS + 1) * GROUP_CHUNKS;
                let until = group_end.min(end.div_ceil(CHUNK_BLOCKS));
                if self.zeroes.within(number, until).any(&is) {
                    return true;
                }
                at = group_end * CHUNK_BLOCKS;
                continue;
            };
            let until = ((number + 1) * CHUNK_BLOCKS).min(end);
            let found = match self.chunk(number) {
                Some(chunk) => (at..until).any(|lba| is(chunk.slots[narrow(lba % CHUNK_BLOCKS)])),
                None => self.zeroes.get(number).is_some_and(&is),
            };
            if found {
                return true;
            }
            at = until;
        }
        false
    }
}
