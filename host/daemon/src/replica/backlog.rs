//! What of the log is not in the index yet: some of it remembered, the rest read again when it is offered.
//!
//! Records come as long as there is room for them, but what is offered may stand still: behind a gap until its cut, or
//! because a node of the group is away. So only the lowest sequence numbers are remembered, up to a limit. Of the others
//! it is known between which places of the log they lie, and which of them comes first in the order. An offer below that
//! one needs nothing of the log; else a *pass* reads from the first place to the last, some records at a time, so that its
//! thread goes on with the link.
//!
//! The order in which a pass and memory give records to the index does not matter: for each block the newest sequence
//! number wins there, however often and in whatever order it is told, and nothing above the target is told.

use std::collections::BTreeMap;

use farseal_core::limits::{BACKLOG_RECORDS_MAX, BACKLOG_STEP_BYTES, BACKLOG_STEP_RECORDS};
use farseal_core::record::Header;
use farseal_core::units::{ByteLen, Sequence};

use crate::store::index::Index;
use crate::store::log::{Location, Log, ReadError, Walk};

/// How much is remembered, and how much is read at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub records: usize,
    pub step_records: u64,
    pub step_bytes: ByteLen,
}

#[derive(Debug)]
pub(super) struct Backlog {
    limits: Limits,
    /// The lowest of those that wait, all above the target.
    remembered: BTreeMap<Sequence, (Header, Location)>,
    spilled: Option<Spilled>,
    pass: Option<Pass>,
    /// Everything up to here is in the index.
    indexed: Sequence,
    /// Everything up to here shall be.
    target: Sequence,
}

/// Records that are only in the log.
#[derive(Clone, Copy, Debug)]
struct Spilled {
    /// None of them lies before this, and none behind `to`.
    from: Location,
    to: Location,
    /// None of them comes before this in the order.
    lowest: Sequence,
}

/// What was spilled and is being read. What was already read of it is in the index, remembered, or spilled anew.
#[derive(Debug)]
struct Pass {
    at: Location,
    to: Location,
    lowest: Sequence,
    /// There is none before the first step, and when the log took something back.
    walk: Option<Walk>,
}

impl Limits {
    pub(super) const fn standard() -> Self {
        Self { records: BACKLOG_RECORDS_MAX, step_records: BACKLOG_STEP_RECORDS, step_bytes: BACKLOG_STEP_BYTES }
    }
}

impl Backlog {
    /// Nothing waits, and the index has everything up to `indexed`.
    pub(super) fn new(limits: Limits, indexed: Sequence) -> Self {
        Self { limits, remembered: BTreeMap::new(), spilled: None, pass: None, indexed, target: indexed }
    }

    /// Everything up to here is in the index. Later records may be as well, up to [`Self::target`].
    pub(super) fn indexed(&self) -> Sequence {
        self.indexed
    }

    /// The last offer.
    pub(super) fn target(&self) -> Sequence {
        self.target
    }

    /// Everything that lies before this is in the index. Not behind `durable`, where what is durable of the log ends: a
    /// restart after a power cut that found less than a checkpoint counts on would take the log for an old copy.
    pub(super) fn frontier(&self, durable: Location) -> Location {
        let remembered = self.remembered.values().map(|(_, location)| *location).min();
        let (spilled, pass) = (self.spilled.map(|spilled| spilled.from), self.pass.as_ref().map(|pass| pass.at));
        remembered.into_iter().chain(spilled).chain(pass).fold(durable, Location::min)
    }

    /// A record has its place in the log.
    pub(super) fn add(&mut self, header: &Header, location: Location) {
        let sequence = header.sequence;
        if self.remembered.len() >= self.limits.records && !self.remembered.contains_key(&sequence) {
            match self.remembered.last_entry().filter(|last| *last.key() > sequence) {
                Some(last) => {
                    let (greatest, (_, location)) = last.remove_entry();
                    self.spill(greatest, location);
                }
                None => return self.spill(sequence, location),
            }
        }
        self.remembered.insert(sequence, (*header, location));
    }

    /// The index takes in what may be offered; what is not remembered of it, with the steps that follow.
    pub(super) fn offer(&mut self, through: Sequence, index: &mut Index) {
        let later = self.remembered.split_off(&through.next());
        for (header, location) in std::mem::replace(&mut self.remembered, later).values() {
            index.apply(header, *location);
        }
        self.target = through;
        self.settle();
    }

    /// Is there a step to be done?
    pub(super) fn is_reading(&self) -> bool {
        self.pass.is_some()
    }

    /// One step of a pass. Says how many records it read. After an error it can be tried again: nothing is passed over.
    pub(super) fn read_on(&mut self, log: &Log, index: &mut Index) -> Result<u64, ReadError> {
        let Some(mut pass) = self.pass.take() else { return Ok(0) };
        let done = self.step(&mut pass, log, index);
        match done {
            Ok((_, true)) => self.settle(),
            Ok((_, false)) => self.pass = Some(pass),
            // It is read from the disk again.
            Err(_) => self.pass = Some(Pass { walk: None, ..pass }),
        }
        done.map(|(records, _)| records)
    }

    /// The log ends at `end` again: what lay behind was never durable.
    pub(super) fn discard(&mut self, end: Location) {
        self.remembered.retain(|_, (_, location)| *location < end);
        self.spilled = self.spilled.filter(|spilled| spilled.from < end);
        if let Some(spilled) = &mut self.spilled {
            spilled.to = spilled.to.min(end);
        }
        if let Some(pass) = &mut self.pass {
            (pass.at, pass.to) = (pass.at.min(end), pass.to.min(end));
            // It may have read ahead.
            pass.walk = None;
        }
    }

    /// Reads so many records, or bytes, or to the end of the pass. Says how many, and whether that was the end.
    fn step(&mut self, pass: &mut Pass, log: &Log, index: &mut Index) -> Result<(u64, bool), ReadError> {
        let walk = pass.walk.get_or_insert_with(|| log.reader().walk(pass.at));
        let enough = walk.bytes().saturating_add(self.limits.step_bytes.0);
        let mut records = 0;
        while records < self.limits.step_records && walk.bytes() < enough {
            if walk.at() > pass.to {
                return Ok((records, true));
            }
            // What is still in the log's buffer can be read after the next flush.
            let Some((header, location)) = walk.record()? else { return Ok((records, log.is_flushed())) };
            pass.at = walk.at();
            records += 1;
            if header.sequence > self.target {
                self.add(&header, location);
            } else if header.sequence > self.indexed {
                index.apply(&header, location);
            }
        }
        Ok((records, false))
    }

    /// Begins a pass if the target needs something that is not remembered; else everything up to it is in the index. The
    /// offer may have been raised since a pass read what it now asks for: that was spilled, and takes another pass.
    fn settle(&mut self) {
        let lowest = self.pass.as_ref().map(|pass| pass.lowest).into_iter().chain(self.spilled.map(|left| left.lowest));
        let reached = lowest.min().map_or(self.target, |lowest| self.target.min(lowest.previous()));
        self.indexed = self.indexed.max(reached);
        if self.pass.is_none()
            && let Some(Spilled { from, to, lowest }) = self.spilled.take_if(|spilled| spilled.lowest <= self.target)
        {
            self.pass = Some(Pass { at: from, to, lowest, walk: None });
        }
    }

    fn spill(&mut self, sequence: Sequence, location: Location) {
        let spilled = self.spilled.get_or_insert(Spilled { from: location, to: location, lowest: sequence });
        spilled.from = spilled.from.min(location);
        spilled.to = spilled.to.max(location);
        spilled.lowest = spilled.lowest.min(sequence);
    }
}

#[cfg(test)]
mod tests;
