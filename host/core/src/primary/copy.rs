//! Copying beside the order: initial copy, falling behind, and resync from the dirty map.
//!
//! ```text
//!   InOrder ──overflow──▶ Behind ──link up──▶ Resync: key ready ─▶ map durable ─▶ gap placed ─▶ open ──cut──▶ InOrder
//!                           ▲                                                              │
//!                           └─ overflow, key refused, gap cannot join, map not written ────┘
//! ```
//!
//! While behind, records stay local and the dirty map remembers what they touch. A gap record tells the secondary that
//! the numbers below it were given up; from there on everything is an ordinary record again. The map is durable before
//! the gap is placed: otherwise a crash could leave a secondary that has the gap and nobody who knows what it lacks.
//! A fresh key follows the gap at once, because the secondary lacks the keys among what was given up; it is prepared
//! beforehand, so that nothing is held for longer than the map's write takes.
//! The secondary offers its last consistent state until the cut.
//!
//! # Why no activity log is needed
//!
//! Other systems mark a place durably before they answer a write there, and keep a log of hot places so that this costs
//! less than a write for each write. Here the journal is that log: every write stands in it before a FLUSH that covers
//! it is answered, and it leaves the journal only when (`run_trim`) home holds it *and* the secondary acknowledged it, or a
//! map that was made durable after the write was marked owes it (`covered`). In each phase:
//!
//! - *In order*: there is no map. Everything above the acknowledged mark is in the journal.
//! - *Behind* (overflow, split, takeover): [`Copying::written`] marks the map in memory when the write is accepted;
//!   `covered` grows only in [`Copying::persisted`], by the mark up to which home was durable when that map was asked for,
//!   and the driver encodes the map when it carries the request out, which is not earlier. What came later stands in
//!   the journal, and a restart marks it again ([`Copying::new`]).
//! - *Resync, before the gap is placed*: the same; nothing is placed while the map is being made durable.
//! - *Resync, open*: writes go in the order again and stand in the journal until they are acknowledged. The map only
//!   shrinks, by acknowledged copies; the file may show more than is owed, never less. `run_shrink` writes it anew with the
//!   acknowledged mark of that time and lets no trim lean on it.
//! - *Falling behind from there*: the map takes over what is in flight at once, in memory; until it is durable the trim
//!   stands still.
//!
//! So a crash at any moment leaves each owed place in the journal, in the durable map, or in both.

use std::collections::BTreeMap;

use serde::Serialize;

use super::*;
use crate::limits::COPY_REPEATED_BYTES_MAX;
use crate::owed::CopyKind;

/// How the secondary is brought up to date.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub enum CopyState {
    /// There is no secondary.
    Unpaired,
    /// Every record is sent in its order.
    InOrder,
    /// Records are not sent; the dirty map remembers what is owed.
    Behind,
    /// The dirty map is worked off beside the order.
    Resync,
}

#[derive(Debug)]
pub(super) struct Copying {
    phase: Phase,
    /// Grows with each change of the map that a trim may lean on.
    stamp: u64,
    /// Trimming may lean on the durable map up to here.
    covered: Sequence,
    /// A resync failed: the next begins not before this.
    retry_at: Option<Instant>,
    /// Reads for copies that the driver has under way, by their first block. Stale once an initiator wrote there.
    reads: BTreeMap<Lba, Read>,
    /// What each map that is being made durable covers.
    persisting: VecDeque<(u64, Sequence)>,
    /// Granules that the map no longer owes and its file does.
    cleared: u64,
    /// The secondary has said where its base differs, and a map with that in it owes it until the resync's end.
    told: bool,
    /// What was read and written meanwhile: to be read again, at once.
    hot: Vec<Extent>,
}

#[derive(Clone, Copy, Debug)]
struct Read {
    extent: Extent,
    stale: bool,
}

#[derive(Debug)]
enum Phase {
    Unpaired,
    InOrder,
    Behind { map: OwedMap },
    Resync { map: OwedMap, stage: Stage },
}

/// How far a resync is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// The key that follows the gap is being prepared; records go on here meanwhile.
    KeyPending,
    /// The map is being made durable, under this stamp; nothing is placed meanwhile.
    MapPending(u64),
    /// The gap record is the next to be placed.
    GapDue,
    /// The gap record has its place, this one.
    GapPlaced(Sequence),
    /// Records are sent, copies beside writes.
    Open,
    /// Nothing is owed; the cut that says so has its place.
    CutPlaced(Sequence),
}

impl Copying {
    pub(super) fn new(settings: &Settings, owed: Option<OwedMap>, unacked: &[Unacked]) -> Self {
        let phase = match (settings.paired, owed) {
            (false, _) => Phase::Unpaired,
            (true, None) => Phase::InOrder,
            (true, Some(mut map)) => {
                map.begin(CopyKind::Resync);
                unacked.iter().filter_map(|record| record.extent).for_each(|extent| map.mark(extent));
                Phase::Behind { map }
            }
        };
        Self {
            phase,
            stamp: 0,
            covered: Sequence::NONE,
            retry_at: None,
            reads: BTreeMap::new(),
            persisting: VecDeque::new(),
            cleared: 0,
            told: false,
            hot: Vec::new(),
        }
    }

    pub(super) fn state(&self) -> CopyState {
        match self.phase {
            Phase::Unpaired => CopyState::Unpaired,
            Phase::InOrder => CopyState::InOrder,
            Phase::Behind { .. } => CopyState::Behind,
            Phase::Resync { .. } => CopyState::Resync,
        }
    }

    pub(super) fn map(&self) -> Option<&OwedMap> {
        match &self.phase {
            Phase::Unpaired | Phase::InOrder => None,
            Phase::Behind { map } | Phase::Resync { map, .. } => Some(map),
        }
    }

    pub(super) fn owed(&self) -> BlockCount {
        self.map().map_or(BlockCount(0), OwedMap::owed)
    }

    /// Are records sent at all?
    pub(super) fn sends(&self) -> bool {
        match self.phase {
            Phase::InOrder | Phase::Resync { stage: Stage::Open | Stage::CutPlaced(_), .. } => true,
            Phase::Unpaired | Phase::Behind { .. } | Phase::Resync { .. } => false,
        }
    }

    /// Records only go to the map, and may leave the journal once that is durable.
    fn only_remembers(&self) -> bool {
        matches!(self.phase, Phase::Behind { .. } | Phase::Resync { .. }) && !self.sends()
    }

    /// What the secondary gets next is no consistent state before the closing cut.
    pub(super) fn gap_open(&self) -> bool {
        matches!(self.phase, Phase::Resync { stage: Stage::GapPlaced(_) | Stage::Open | Stage::CutPlaced(_), .. })
    }

    pub(super) fn timeout(&self) -> Option<Instant> {
        self.retry_at.filter(|_| matches!(self.phase, Phase::Behind { .. }))
    }

    /// An initiator wrote here. Until the gap is open its record will not be sent.
    pub(super) fn written(&mut self, extent: Extent) {
        self.reads.values_mut().filter(|read| read.extent.overlaps(extent)).for_each(|read| read.stale = true);
        if !self.sends()
            && let Phase::Behind { map } | Phase::Resync { map, .. } = &mut self.phase
        {
            map.mark(extent);
        }
    }

    /// Nothing may be placed before the map is durable.
    pub(super) fn awaits_map(&self) -> bool {
        matches!(self.phase, Phase::Resync { stage: Stage::MapPending(_), .. })
    }

    pub(super) fn gap_due(&self) -> bool {
        matches!(self.phase, Phase::Resync { stage: Stage::GapDue, .. })
    }

    pub(super) fn gap_placed(&mut self, gap: Sequence) {
        if let Phase::Resync { stage, .. } = &mut self.phase {
            *stage = Stage::GapPlaced(gap);
        }
    }

    /// Nothing is owed: the cut that closes the resync is next.
    pub(super) fn closes(&self) -> bool {
        matches!(&self.phase, Phase::Resync { map, stage: Stage::Open } if map.is_empty())
    }

    /// The cut that closes a resync.
    pub(super) fn cut_due(&mut self, next: Sequence) -> bool {
        let Phase::Resync { map, stage: stage @ Stage::Open } = &mut self.phase else {
            return false;
        };
        if map.is_empty() {
            *stage = Stage::CutPlaced(next);
        }
        map.is_empty()
    }

    /// The gap is in the journal. Says whether it is the one that counts: another resync may have begun since.
    pub(super) fn gap_opened(&mut self, gap: Sequence) -> bool {
        let Phase::Resync { stage, .. } = &mut self.phase else {
            return false;
        };
        let counts = *stage == Stage::GapPlaced(gap);
        if counts {
            *stage = Stage::Open;
        }
        counts
    }

    pub(super) fn copied_in(&mut self, extent: Extent, sequence: Sequence) {
        if let Phase::Resync { map, .. } = &mut self.phase {
            map.copied_in(extent, sequence);
        }
    }

    /// A read came back, and its content has no place yet. Says whether it may have one: a write that was accepted since
    /// the read began stands before the copy in the order, and the copy would undo it.
    pub(super) fn take_read(&mut self, extent: Extent) -> bool {
        let Some(read) = self.reads.remove(&extent.first()) else {
            return false;
        };
        let good =
            !read.stale && read.extent == extent && matches!(self.phase, Phase::Resync { stage: Stage::Open, .. });
        if read.stale && matches!(self.phase, Phase::Resync { stage: Stage::Open, .. }) {
            // The map has it as under way still.
            self.hot.push(read.extent);
        } else if !good {
            self.read_failed(extent);
        }
        good
    }

    pub(super) fn read_failed(&mut self, extent: Extent) {
        self.reads.remove(&extent.first());
        if let Phase::Resync { map, .. } = &mut self.phase {
            map.copy_failed(extent);
        }
    }

    /// The secondary holds everything up to `acked`. Says how many granules that clears, and whether it ends a resync.
    pub(super) fn acknowledged(&mut self, acked: Sequence) -> (u64, bool) {
        let Phase::Resync { map, stage } = &mut self.phase else {
            return (0, false);
        };
        let cleared = map.acknowledged(acked);
        self.cleared += cleared;
        let ended = matches!(stage, Stage::CutPlaced(cut) if *cut <= acked);
        if ended {
            self.phase = Phase::InOrder;
            self.covered = Sequence::NONE;
            self.persisting.clear();
            self.told = false;
        }
        (cleared, ended)
    }

    pub(super) fn covered_through(&self) -> Sequence {
        self.covered
    }

    pub(super) fn persisted(&mut self, stamp: u64) {
        while let Some((persisting, through)) = self.persisting.front().copied() {
            if persisting > stamp {
                break;
            }
            self.persisting.pop_front();
            self.covered = self.covered.max(through);
        }
        if let Phase::Resync { stage, .. } = &mut self.phase
            && matches!(stage, Stage::MapPending(awaited) if *awaited <= stamp)
        {
            *stage = Stage::GapDue;
        }
    }

    /// The map stays as it was on disk: what leans on it waits, and the resync begins again with the next path.
    pub(super) fn persist_failed(&mut self, now: Now, stamp: u64) {
        self.persisting.retain(|(persisting, _)| *persisting != stamp);
        if matches!(self.phase, Phase::Resync { stage: Stage::MapPending(awaited), .. } if awaited == stamp) {
            self.wait_and_retry(now);
            self.fall_behind();
        }
    }

    fn wait_and_retry(&mut self, now: Now) {
        self.retry_at = Some(now.instant.plus(STORE_RETRY_INTERVAL));
    }

    /// The next resync begins not before this.
    pub(super) fn wait_until(&mut self, at: Instant) {
        self.retry_at = Some(at);
    }

    /// Back to remembering only; copies under way count for nothing.
    fn fall_behind(&mut self) {
        if let Phase::Resync { map, .. } = std::mem::replace(&mut self.phase, Phase::InOrder) {
            let mut map = map;
            self.hot.clear();
            map.forget_copies();
            self.phase = Phase::Behind { map };
        }
    }
}

impl Primary {
    /// A path is up: what the map owes can be worked off, once the key that follows the gap is there and the map is durable.
    pub(super) fn run_resync(&mut self, now: Now) {
        if !self.link_up() || self.pauses() || self.journal_failed {
            return;
        }
        let waits = self.copying.retry_at.is_some_and(|at| now.instant < at);
        if !waits && let Phase::Behind { .. } = self.copying.phase {
            self.copying.retry_at = None;
            let Phase::Behind { map } = std::mem::replace(&mut self.copying.phase, Phase::InOrder) else {
                return;
            };
            self.copying.phase = Phase::Resync { map, stage: Stage::KeyPending };
        }
        if !matches!(self.copying.phase, Phase::Resync { stage: Stage::KeyPending, .. }) {
            return;
        }
        if let Some(epoch) = self.rotation.renew(now) {
            self.prepare(epoch, Wish::CatchUp);
        }
        if self.rotation.is_ready_at_once() {
            let stamp = self.next_stamp(self.homed);
            if let Phase::Resync { stage, .. } = &mut self.copying.phase {
                *stage = Stage::MapPending(stamp);
            }
        }
    }

    /// Asks for the next granules of a resync, a bounded number at a time.
    pub(super) fn run_copy(&mut self, now: Now) {
        if !self.link_up() || self.pauses() {
            return;
        }
        // Copies pass through the journal: they must not be what makes it overflow.
        let bytes = COPY_BYTES_IN_FLIGHT_MAX.0.min(self.settings.journal_bytes_max.0 / 8);
        let most = usize::try_from(bytes / OWED_GRANULE_BYTES.0).unwrap_or(usize::MAX).max(1);
        // One record takes a whole run.
        let run = (self.record_blocks_max() * self.settings.block_bytes.as_u64() / OWED_GRANULE_BYTES.0).max(1);
        let Phase::Resync { map, stage: Stage::Open } = &mut self.copying.phase else {
            return;
        };
        // A granule at a time, each before the next write: where initiators write all the time, too, a copy gets done.
        let granule = OWED_GRANULE_BYTES.0 / self.settings.block_bytes.as_u64();
        for hot in std::mem::take(&mut self.copying.hot) {
            let firsts = (hot.first().0..hot.end().0).step_by(usize::try_from(granule).unwrap_or(usize::MAX));
            let granules = firsts.filter_map(|first| Extent::new(Lba(first), BlockCount(granule)));
            for extent in granules.filter_map(|extent| extent.intersection(hot)) {
                self.copying.reads.insert(extent.first(), Read { extent, stale: false });
                self.outputs.push_back(Output::ReadForCopy { extent, at_once: true });
            }
        }
        let kind = map.progress().map_or(CopyKind::Resync, |(kind, ..)| kind);
        self.flow.copy_as(now, kind);
        let mut busy = Vec::new();
        while map.copies_under_way() < most && self.flow.may_copy(now) {
            let room = wide(most - map.copies_under_way());
            let Some(extent) = map.next_copy(run.min(room)) else {
                break;
            };
            if self.copying.reads.values().any(|read| read.extent.overlaps(extent)) {
                // A read of an earlier resync is under way still: its content may be old. This one waits for its end.
                busy.push(extent);
                continue;
            }
            self.copying.reads.insert(extent.first(), Read { extent, stale: false });
            self.flow.copies(extent.blocks().byte_len(self.settings.block_bytes));
            self.outputs.push_back(Output::ReadForCopy { extent, at_once: false });
        }
        busy.into_iter().for_each(|extent| map.copy_failed(extent));
    }

    pub(super) fn on_copy_read(&mut self, ticket: Ticket, what: What, extent: Extent) {
        if what != What::Data {
            // It is read no further and hardly sent.
            self.flow.copies_nothing(extent.blocks().byte_len(self.settings.block_bytes));
        }
        if self.copying.take_read(extent) && !self.journal_failed {
            self.accept(ticket, Content::Copied(what), extent);
        } else {
            self.outputs.push_back(Output::DiscardCopy { ticket });
        }
    }

    pub(super) fn owe_everything(&mut self) {
        let mut map = OwedMap::full(self.settings.blocks, self.settings.block_bytes);
        map.begin(CopyKind::Initial);
        self.copying.hot.clear();
        self.copying.phase = Phase::Behind { map };
        self.transfer.stop_sending();
        // Asked for is done, whatever crashes.
        self.next_stamp(self.homed);
    }

    /// What was found different at the secondary is copied again, as after an outage.
    pub(super) fn owe_again(&mut self, different: &OwedMap) {
        if !self.settings.paired || different.is_empty() || !self.swap_allows(Command::CopyAll) {
            return;
        }
        let mut through = Sequence::NONE;
        if !matches!(self.copying.phase, Phase::Resync { stage: Stage::Open, .. }) {
            self.start_over();
            through = self.homed;
        }
        if let Phase::Behind { map } | Phase::Resync { map, .. } = &mut self.copying.phase {
            map.join(different);
        }
        // Asked for is done, whatever crashes.
        self.next_stamp(through);
    }

    /// What the secondary holds is not where this site thought that a gap would join it: it is among what was given up.
    pub(super) fn joins_elsewhere(&self, ack: &Ack) -> bool {
        if ack.durable <= self.transfer.acked() || ack.durable > self.synced {
            return false;
        }
        match &self.copying.phase {
            Phase::Unpaired | Phase::InOrder => false,
            Phase::Behind { .. }
            | Phase::Resync {
                stage: Stage::KeyPending | Stage::MapPending(_) | Stage::GapDue | Stage::GapPlaced(_),
                ..
            } => true,
            Phase::Resync { stage: Stage::Open | Stage::CutPlaced(_), .. } => {
                let gap = self.transfer.unacked().next().filter(|record| record.kind == Kind::Gap);
                gap.is_some_and(|gap| gap.sequence > ack.durable)
            }
        }
    }

    /// The secondary is elsewhere: a gap that has its place already would not join it.
    pub(super) fn rebase(&mut self) {
        if self.copying.gap_open() {
            self.start_over();
        }
    }

    /// The secondary tells with every attach, until its gap is closed; once is enough while this machine lives. A resync
    /// that began without it begins again, so that the map is durable with it before a gap has its place.
    pub(super) fn on_differs(&mut self, differs: &Differs) {
        if self.copying.told {
            return;
        }
        self.start_over();
        if let Phase::Behind { map } = &mut self.copying.phase {
            map.mark_differing(differs);
            self.copying.told = differs.last;
        }
    }

    /// The rest of the order is given up: the map owes what is under way.
    pub(super) fn start_over(&mut self) {
        match self.copying.phase {
            Phase::Unpaired | Phase::Behind { .. } => return,
            Phase::InOrder => {
                let mut map = OwedMap::empty(self.settings.blocks, self.settings.block_bytes);
                map.begin(CopyKind::Resync);
                self.copying.phase = Phase::Behind { map };
            }
            Phase::Resync { .. } => self.copying.fall_behind(),
        }
        self.owe_what_is_in_flight();
        self.transfer.stop_sending();
    }

    /// The secondary refuses a key that seals already: what it sealed comes again, behind a gap and another key.
    pub(super) fn key_in_force_refused(&mut self, now: Now) {
        if self.copying.sends() || self.copying.gap_open() {
            self.copying.wait_and_retry(now);
            self.start_over();
        }
    }

    /// When the journal has grown past its limit for the secondary's sake, what it holds for it goes to the dirty map.
    pub(super) fn run_overflow(&mut self, now: Now) {
        let over = self.journal_bytes > self.settings.journal_bytes_max || self.journal_full();
        if !self.settings.paired || !over || self.home_lags() {
            return;
        }
        if self.copying.sends() {
            if self.copying.gap_open() {
                // The resync itself is too much for the journal now: not at once again.
                self.copying.wait_and_retry(now);
            }
            self.alarm(now, Alarm::Behind);
            self.flow.overflowed();
            self.start_over();
        }
        self.persist_owed();
    }

    /// Home is the reason that the journal is long, not the secondary.
    fn home_lags(&self) -> bool {
        self.homed <= self.trimmed
    }

    fn owe_what_is_in_flight(&mut self) {
        let under_way: Vec<Extent> = self.under_way().collect();
        if let Phase::Behind { map } = &mut self.copying.phase {
            under_way.into_iter().for_each(|extent| map.mark(extent));
        }
    }

    /// Makes the map durable, so that the journal below what it covers can go.
    fn persist_owed(&mut self) {
        if self.copying.only_remembers() && self.copying.persisting.is_empty() && self.homed > self.copying.covered {
            self.next_stamp(self.homed);
        }
    }

    /// A restart begins with the map on disk: now and then it learns what need not be copied again.
    pub(super) fn run_shrink(&mut self) {
        let volume = self.settings.blocks.byte_len(self.settings.block_bytes).0;
        let most = COPY_REPEATED_BYTES_MAX.0.max(volume / 1024).min(volume / 8);
        let open = matches!(self.copying.phase, Phase::Resync { stage: Stage::Open, .. });
        let due = self.copying.cleared >= (most / OWED_GRANULE_BYTES.0).max(1);
        if open && due && self.copying.persisting.is_empty() {
            // No trim leans on it: what is under way stands in the journal.
            self.next_stamp(Sequence::NONE);
        }
    }

    fn next_stamp(&mut self, through: Sequence) -> u64 {
        self.copying.stamp += 1;
        self.copying.cleared = 0;
        let stamp = self.copying.stamp;
        self.copying.persisting.push_back((stamp, through));
        let (acked, acked_chain) = (self.transfer.acked(), self.transfer.acked_chain());
        self.outputs.push_back(Output::PersistOwed { stamp, acked, acked_chain });
        stamp
    }
}
