//! Disks that forget what was not synced: a journal of segments, a home of blocks, a log of records.
//!
//! Writing changes what a running node reads; syncing changes what a crash leaves. A crash keeps none, all or any of
//! the writes that were not synced, in any order, and may tear one.
//!
//! A sync that fails may drop what it was to write: the next one says that all is well, the node goes on reading what it
//! wrote, and after a crash it is gone. Who asks again and trusts the answer loses data.

use std::collections::BTreeMap;

use farseal_core::units::{Lba, Sequence};

use crate::dice::Dice;
use crate::seal::Stamp;

/// What a crash does to writes that were not synced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Loss {
    None,
    All,
    /// Each by itself; one of the lost may be torn.
    Some,
}

impl Loss {
    pub fn draw(dice: &mut Dice) -> Self {
        match dice.below(4) {
            0 => Self::None,
            1 => Self::All,
            _ => Self::Some,
        }
    }

    fn keeps(self, dice: &mut Dice) -> bool {
        match self {
            Self::None => true,
            Self::All => false,
            Self::Some => dice.chance(500),
        }
    }
}

/// The journal's files.
#[derive(Clone, Debug, Default)]
pub struct Tape {
    pub segments: Vec<Segment>,
    next_id: u64,
}

#[derive(Clone, Debug)]
pub struct Segment {
    pub id: u64,
    pub bytes: Vec<u8>,
    pub durable: usize,
    /// Where each write that is not durable begins.
    pub unsynced: Vec<usize>,
    /// What a failed sync dropped: gone with the next crash, whatever later syncs say.
    dropped: Vec<(usize, usize)>,
    pub last: Sequence,
}

/// How far a sync reaches that began now.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    id: u64,
    len: usize,
}

impl Tape {
    /// A new segment; its header is durable before anything is appended.
    pub fn begin(&mut self, header: &[u8]) {
        self.next_id += 1;
        self.segments.push(Segment {
            id: self.next_id,
            bytes: header.to_vec(),
            durable: header.len(),
            unsynced: Vec::new(),
            dropped: Vec::new(),
            last: Sequence::NONE,
        });
    }

    pub fn append(&mut self, bytes: &[u8], last: Sequence) {
        if let Some(segment) = self.segments.last_mut() {
            segment.unsynced.push(segment.bytes.len());
            segment.bytes.extend(bytes);
            segment.last = last;
        }
    }

    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| wide(segment.bytes.len())).sum()
    }

    pub fn mark(&self) -> Mark {
        let last = self.segments.last();
        Mark { id: last.map_or(0, |segment| segment.id), len: last.map_or(0, |segment| segment.bytes.len()) }
    }

    pub fn synced(&mut self, mark: Mark) {
        for segment in self.segments.iter_mut().filter(|segment| segment.id <= mark.id) {
            let len = if segment.id == mark.id { mark.len } else { segment.bytes.len() };
            segment.durable = segment.durable.max(len.min(segment.bytes.len()));
            segment.unsynced.retain(|at| *at >= segment.durable);
        }
    }

    /// The sync that began at this mark fails, and what it was to make durable is not written any more.
    pub fn sync_dropped(&mut self, mark: Mark) {
        for segment in self.segments.iter_mut().filter(|segment| segment.id <= mark.id) {
            let len = if segment.id == mark.id { mark.len } else { segment.bytes.len() };
            let gone = segment.unsynced.iter().copied().find(|at| *at < len);
            segment.dropped.extend(gone.map(|from| (from, len)));
            segment.unsynced.retain(|at| *at >= len);
        }
    }

    /// A crash would take more than what was not synced.
    pub fn has_dropped(&self) -> bool {
        self.segments.iter().any(|segment| !segment.dropped.is_empty())
    }

    /// Whole segments that end at or before `through`, but never the last.
    pub fn trim(&mut self, through: Sequence) {
        while self.segments.len() > 1 && self.segments[0].last <= through {
            self.segments.remove(0);
        }
    }

    pub fn crash(&mut self, loss: Loss, dice: &mut Dice) {
        for segment in &mut self.segments {
            std::mem::take(&mut segment.dropped).into_iter().for_each(|(from, to)| segment.bytes[from..to].fill(0));
            let mut ends: Vec<usize> = segment.unsynced.iter().skip(1).copied().collect();
            ends.push(segment.bytes.len());
            for (from, to) in segment.unsynced.clone().into_iter().zip(ends) {
                let from = from.max(segment.durable);
                if loss.keeps(dice) || from >= to {
                    continue;
                }
                let torn = if loss == Loss::Some && dice.chance(500) { dice.below(wide(to - from)) } else { 0 };
                let from = from + usize::try_from(torn).unwrap_or(0);
                segment.bytes[from..to].fill(0);
            }
            segment.unsynced.clear();
            segment.durable = segment.bytes.len();
        }
    }

    /// After a scan: nothing stands behind the valid part any more, in no segment.
    pub fn cut(&mut self, segment: usize, bytes: usize) {
        self.segments.truncate(segment + 1);
        if let Some(last) = self.segments.last_mut() {
            last.bytes.truncate(bytes);
            last.durable = last.bytes.len();
        }
    }
}

/// The volume's home: a block is what was written last, durable or not.
#[derive(Clone, Debug)]
pub struct Home {
    durable: Vec<Stamp>,
    /// What a failed sync dropped, as a running node still reads it.
    dropped: BTreeMap<Lba, Stamp>,
    written: BTreeMap<Lba, Vec<Stamp>>,
}

impl Home {
    pub fn new(blocks: usize) -> Self {
        Self { durable: vec![0; blocks], dropped: BTreeMap::new(), written: BTreeMap::new() }
    }

    pub fn write(&mut self, lba: Lba, stamp: Stamp) {
        self.written.entry(lba).or_default().push(stamp);
    }

    pub fn image(&self) -> Vec<Stamp> {
        let mut image = self.durable.clone();
        let written = self.written.iter().filter_map(|(lba, stamps)| Some((lba, stamps.last()?)));
        for (lba, stamp) in self.dropped.iter().chain(written) {
            if let Some(block) = image.get_mut(to_usize(lba.0)) {
                *block = *stamp;
            }
        }
        image
    }

    /// How many writes each block has had; a sync makes these durable.
    pub fn mark(&self) -> BTreeMap<Lba, usize> {
        self.written.iter().map(|(lba, stamps)| (*lba, stamps.len())).collect()
    }

    pub fn synced(&mut self, mark: &BTreeMap<Lba, usize>) {
        for (lba, stamp) in self.taken(mark) {
            if let Some(block) = self.durable.get_mut(to_usize(lba.0)) {
                *block = stamp;
            }
            self.dropped.remove(&lba);
        }
    }

    /// The sync that began at this mark fails, and what it was to make durable is not written any more.
    pub fn sync_dropped(&mut self, mark: &BTreeMap<Lba, usize>) {
        let gone = self.taken(mark);
        self.dropped.extend(gone);
    }

    /// What each block was last given up to the mark; it waits for no sync any more.
    fn taken(&mut self, mark: &BTreeMap<Lba, usize>) -> Vec<(Lba, Stamp)> {
        let mut taken = Vec::new();
        for (lba, count) in mark {
            let Some(stamps) = self.written.get_mut(lba) else { continue };
            taken.extend(stamps.drain(..(*count).min(stamps.len())).next_back().map(|stamp| (*lba, stamp)));
            if stamps.is_empty() {
                self.written.remove(lba);
            }
        }
        taken
    }

    /// Any write to a block may be the one that reached the disk.
    pub fn crash(&mut self, loss: Loss, dice: &mut Dice) {
        self.dropped.clear();
        for (lba, stamps) in std::mem::take(&mut self.written) {
            let kept = match loss {
                Loss::None => stamps.len(),
                Loss::All => 0,
                Loss::Some => to_usize(dice.below(wide(stamps.len()) + 1)),
            };
            if let (Some(block), Some(stamp)) =
                (self.durable.get_mut(to_usize(lba.0)), kept.checked_sub(1).and_then(|last| stamps.get(last)))
            {
                *block = *stamp;
            }
        }
    }
}

/// The secondary's log.
#[derive(Clone, Debug, Default)]
pub struct Log {
    pub records: Vec<Vec<u8>>,
    pub durable: usize,
    /// What a failed sync dropped, by place.
    dropped: std::ops::Range<usize>,
}

impl Log {
    pub fn bytes(&self) -> u64 {
        self.records.iter().map(|record| wide(record.len())).sum()
    }

    /// The sync of this many records fails, and what it was to make durable is not written any more.
    pub fn sync_dropped(&mut self, records: usize) {
        if self.dropped.is_empty() {
            self.dropped = self.durable..records.max(self.durable);
        }
    }

    pub fn crash(&mut self, loss: Loss, dice: &mut Dice) {
        let dropped = std::mem::take(&mut self.dropped);
        if !dropped.is_empty() {
            self.records.drain(dropped.start..dropped.end.min(self.records.len()));
            self.durable = self.durable.min(dropped.start).max(self.durable.saturating_sub(dropped.len()));
        }
        let unsynced = self.records.split_off(self.durable.min(self.records.len()));
        self.records.extend(unsynced.into_iter().filter(|_| loss.keeps(dice)));
        self.durable = self.records.len();
    }
}

pub fn wide(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

pub fn to_usize(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
