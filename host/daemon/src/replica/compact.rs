//! The replica's part in compaction: what to compact, what of it is still read, and the change from the old segments to the
//! new ones.
//!
//! A thread reads the old segments and writes the new ones. It asks the replica's thread, which owns the index, what of
//! each record is still read; what is overwritten between the question and the change is dead in its new place, and
//! nothing that was dead comes to life, so the answer cannot become wrong.
//!
//! Only what the index on disk knows is compacted: a restart gives records that it does not know to the index again, and
//! must find them where they were.

use std::sync::mpsc::{Sender, SyncSender, sync_channel};
use std::thread::JoinHandle;

use farseal_core::compaction::{self, Facts, Room};
use farseal_core::layout::SearchTags;
use farseal_core::record::{Header, Kind, tag_bytes_each};
use farseal_core::units::{ByteLen, Sequence};

use super::{Event, Runner, StartError};
use crate::role::Control;
use crate::store::index::Index;
use crate::store::log::{CompactError, Compacted, Kept, Location, Log};

/// A question of the thread that compacts.
#[derive(Debug)]
pub struct Judge {
    records: Vec<(Header, Location)>,
    /// Dropped when there is nobody any more who could say.
    answer: SyncSender<Vec<Option<Kept>>>,
}

/// What came of a pass.
#[derive(Debug)]
pub struct Pass(Result<Compacted, CompactError>);

/// One pass at a time.
pub(super) struct Compaction {
    inbox: Sender<Event>,
    thread: Option<JoinHandle<()>>,
    /// New segments for which there was no room in the manifest yet.
    waiting: Option<Compacted>,
    /// Segments that hold damage: they stay as they are until a restart.
    spoiled: Vec<u32>,
}

impl Compaction {
    pub(super) fn new(inbox: Sender<Event>) -> Self {
        Self { inbox, thread: None, waiting: None, spoiled: Vec::new() }
    }

    /// Where a thread's answer goes.
    pub(super) fn inbox(&self) -> Sender<Event> {
        self.inbox.clone()
    }

    /// Waits for the thread, which ends when it is not answered any more.
    pub(super) fn end(self) {
        if let Some(thread) = self.thread {
            let _ = thread.join();
        }
    }
}

impl Runner {
    /// Begins a pass, if something is worth it and none is under way.
    pub(super) fn compact(&mut self, room: Room) {
        if self.compaction.thread.is_some() || self.control.taken_over_at.is_some() {
            return;
        }
        if let Some(waiting) = self.compaction.waiting.take() {
            return self.change_over(waiting);
        }
        if self.index.is_none() {
            return;
        }
        let tags = tag_bytes_each(Kind::Data, self.settings.layout.map_or(SearchTags::NONE, |layout| layout.tags));
        let each = self.settings.block_bytes.as_u64() + u64::try_from(tags).unwrap_or_default();
        let mut segments = self.log.full_segments(self.compacts_before());
        segments.retain(|segment| !self.log.is_replaced(segment.number));
        let full: Vec<u32> = segments.iter().map(|segment| segment.number).collect();
        let must_go = self.retire.must_go(&full, &self.compaction.spoiled);
        segments.retain(|segment| !self.compaction.spoiled.contains(&segment.number));
        let facts: Vec<Facts> = segments
            .iter()
            .map(|segment| Facts {
                bytes: segment.bytes,
                live: ByteLen(self.anybody_lives_in(segment.number) * each),
                written: segment.compacted.map(|blocks| ByteLen(blocks * each)),
            })
            .collect();
        let group: Vec<u32> = if must_go.is_empty() {
            compaction::choose(&facts, room).into_iter().map(|at| segments[at].number).collect()
        } else {
            must_go
        };
        if group.is_empty() {
            return;
        }
        let (compactor, inbox) = (self.log.compactor(), self.compaction.inbox.clone());
        let spawned = std::thread::Builder::new().name(format!("compact-{}", self.name)).spawn(move || {
            let result = compactor.compact(&group, |records| {
                let (answer, answered) = sync_channel(1);
                inbox.send(Event::Judge(Judge { records, answer })).ok()?;
                answered.recv().ok()
            });
            let _ = inbox.send(Event::Compacted(Pass(result)));
        });
        match spawned {
            Ok(thread) => self.compaction.thread = Some(thread),
            Err(error) => tracing::error!(pair = self.name, %error, "the log could not be compacted"),
        }
    }

    pub(super) fn judge(&mut self, judge: Judge) {
        if self.index.is_some() {
            let reads = |(header, location): &(Header, Location)| self.anybody_reads(header, *location);
            let _ = judge.answer.send(judge.records.iter().map(reads).collect());
        }
    }

    pub(super) fn compacted(&mut self, pass: Pass) {
        if let Some(thread) = self.compaction.thread.take() {
            let _ = thread.join();
        }
        match pass.0 {
            Ok(compacted) => self.change_over(compacted),
            Err(CompactError::Stopped) => {}
            Err(CompactError::Damaged(location, flaw)) => {
                let (segment, offset) = (location.segment, location.offset);
                tracing::error!(pair = self.name, segment, offset, %flaw, "damaged: not compacted; a scrub says what it covers");
                self.compaction.spoiled.push(segment);
            }
            Err(CompactError::Store(error)) => {
                tracing::warn!(pair = self.name, %error, "the log could not be compacted: it is tried again");
            }
        }
    }

    /// The index changes over to the new segments, and the old ones go.
    fn change_over(&mut self, mut compacted: Compacted) {
        let state = self.state(self.frontier());
        let Some(index) = &mut self.index else { return };
        if let Err(error) = self.log.adopt(&mut compacted, &state) {
            tracing::warn!(pair = self.name, %error, "the log could not be compacted: it is tried again");
            self.compaction.waiting = Some(compacted);
            return;
        }
        for (header, to) in compacted.moved() {
            index.moved(header, *to, |number| compacted.replaces(number));
            self.beside.moved(header, *to, &|number| compacted.replaces(number));
        }
        self.checkpoint();
        let (kept, log) = (compacted.bytes().0, self.log.bytes().0);
        tracing::info!(pair = self.name, kept, log, "the log is compacted");
        self.swept_on();
        self.compact(Room::Enough);
    }

    /// Removes what the index does not read any more, if this site is still the one that keeps the copy.
    pub(super) fn drop_replaced(&mut self, state: &[u8]) {
        match Control::load(&self.pair_directory) {
            Ok(control) if control.generation == self.control.generation => {}
            Ok(control) => {
                tracing::error!(pair = self.name, here = %self.control.generation, kept = %control.generation, "another has raised the generation: nothing of the log is removed");
                return;
            }
            Err(error) => {
                tracing::error!(pair = self.name, %error, "the generation cannot be confirmed: nothing of the log is removed");
                return;
            }
        }
        if let Err(error) = self.log.drop_replaced(state) {
            tracing::warn!(pair = self.name, %error, "replaced segments could not be removed: it is tried again");
        }
    }
}

/// After a crash in the middle of a change: the index reads the new segments. The next checkpoint removes the old ones.
pub(super) fn finish(log: &Log, index: &mut Index) -> Result<(), StartError> {
    for (header, to) in log.unfinished()? {
        index.moved(&header, to, |number| log.is_replaced(number));
    }
    Ok(())
}

/// What compaction kept of the records up to `through`, for an index that is built again.
pub(super) fn index_again(log: &Log, through: Sequence, index: &mut Index) -> Result<(), StartError> {
    log.compacted_records(&mut |header, location| {
        if header.sequence <= through {
            index.apply(header, location);
        }
    })?;
    Ok(())
}
