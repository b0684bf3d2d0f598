//! Copying beside the order: initial copy, falling behind, and resync from the dirty map.
//!
//! ```text
//!   InOrder ──overflow──▶ Behind ──link up──▶ Resync: map durable ─▶ gap placed ─▶ open ──nothing owed, cut──▶ InOrder
//! ```
//!
//! While behind, records stay local and the dirty map remembers what they touch. A gap record tells the secondary that
//! the numbers below it were given up; from there on everything is an ordinary record again. The map is durable before
//! the gap is placed: otherwise a crash could leave a secondary that has the gap and nobody who knows what it lacks.
//! The secondary offers its last consistent state until the cut.

use serde::Serialize;

use super::*;

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
    /// What each map that is being made durable covers.
    persisting: VecDeque<(u64, Sequence)>,
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
    /// The map is being made durable, under this stamp; nothing is placed meanwhile.
    MapPending(u64),
    /// The gap record is the next to be placed.
    GapDue,
    /// The gap record has its place.
    GapPlaced,
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
                unacked.iter().filter_map(|record| record.extent).for_each(|extent| map.mark(extent));
                Phase::Behind { map }
            }
        };
        Self { phase, stamp: 0, covered: Sequence::NONE, persisting: VecDeque::new() }
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

    pub(super) fn behind(&self) -> bool {
        matches!(self.phase, Phase::Behind { .. })
    }

    /// An initiator wrote here. Until the gap is open its record will not be sent.
    pub(super) fn written(&mut self, extent: Extent) {
        if !self.sends()
            && let Phase::Behind { map } | Phase::Resync { map, .. } = &mut self.phase
        {
            map.mark(extent);
        }
    }

    pub(super) fn owe_everything(&mut self, settings: &Settings) {
        self.phase = Phase::Behind { map: OwedMap::full(settings.blocks, settings.block_bytes) };
    }

    /// Nothing may be placed before the map is durable.
    pub(super) fn awaits_map(&self) -> bool {
        matches!(self.phase, Phase::Resync { stage: Stage::MapPending(_), .. })
    }

    pub(super) fn gap_due(&self) -> bool {
        matches!(self.phase, Phase::Resync { stage: Stage::GapDue, .. })
    }

    /// The gap that opens a resync, the cut that closes it.
    pub(super) fn marker_due(&mut self, next: Sequence) -> Option<Kind> {
        let Phase::Resync { map, stage } = &mut self.phase else {
            return None;
        };
        match stage {
            Stage::GapDue => {
                *stage = Stage::GapPlaced;
                Some(Kind::Gap)
            }
            Stage::Open if map.is_empty() => {
                *stage = Stage::CutPlaced(next);
                Some(Kind::Cut)
            }
            Stage::MapPending(_) | Stage::GapPlaced | Stage::Open | Stage::CutPlaced(_) => None,
        }
    }

    pub(super) fn gap_opened(&mut self) {
        if let Phase::Resync { stage, .. } = &mut self.phase {
            *stage = Stage::Open;
        }
    }

    pub(super) fn copied_in(&mut self, extent: Extent, sequence: Sequence) {
        if let Phase::Resync { map, .. } = &mut self.phase {
            map.copied_in(extent, sequence);
        }
    }

    pub(super) fn read_failed(&mut self, extent: Extent) {
        if let Phase::Resync { map, .. } = &mut self.phase {
            map.copy_failed(extent);
        }
    }

    /// The secondary holds everything up to `acked`. Says whether that ends a resync.
    pub(super) fn acknowledged(&mut self, acked: Sequence) -> bool {
        let Phase::Resync { map, stage } = &mut self.phase else {
            return false;
        };
        map.acknowledged(acked);
        let ended = matches!(stage, Stage::CutPlaced(cut) if *cut <= acked);
        if ended {
            self.phase = Phase::InOrder;
            self.covered = Sequence::NONE;
            self.persisting.clear();
        }
        ended
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
    pub(super) fn persist_failed(&mut self, stamp: u64) {
        self.persisting.retain(|(persisting, _)| *persisting != stamp);
        if self.awaits_map() {
            self.fall_behind();
        }
    }

    /// Back to remembering only; copies under way count for nothing.
    fn fall_behind(&mut self) {
        if let Phase::Resync { map, .. } = std::mem::replace(&mut self.phase, Phase::InOrder) {
            let mut map = map;
            map.forget_copies();
            self.phase = Phase::Behind { map };
        }
    }
}

impl Primary {
    /// A path is up: what the map owes can be worked off, once the map is durable.
    pub(super) fn link_came_up(&mut self) {
        if let Phase::Behind { .. } = self.copying.phase {
            let Phase::Behind { map } = std::mem::replace(&mut self.copying.phase, Phase::InOrder) else {
                return;
            };
            let stamp = self.next_stamp(self.homed);
            self.copying.phase = Phase::Resync { map, stage: Stage::MapPending(stamp) };
        }
    }

    /// Asks for the next granules of a resync, a bounded number at a time.
    pub(super) fn run_copy(&mut self) {
        if !self.link_up() || self.pause.is_some() {
            return;
        }
        let most = usize::try_from(COPY_BYTES_IN_FLIGHT_MAX.0 / OWED_GRANULE_BYTES.0).unwrap_or(usize::MAX);
        let Phase::Resync { map, stage: Stage::Open } = &mut self.copying.phase else {
            return;
        };
        while map.copies_under_way() < most {
            let Some(extent) = map.next_copy() else {
                return;
            };
            self.outputs.push_back(Output::ReadForCopy { extent });
        }
    }

    /// When the journal has grown past its limit for the secondary's sake, what it holds for it goes to the dirty map.
    pub(super) fn run_overflow(&mut self, now: Now) {
        if !self.settings.paired || self.journal_bytes <= self.settings.journal_bytes_max || self.home_lags() {
            return;
        }
        match self.copying.phase {
            Phase::InOrder => {
                let map = OwedMap::empty(self.settings.blocks, self.settings.block_bytes);
                self.copying.phase = Phase::Behind { map };
            }
            Phase::Resync { stage: Stage::Open | Stage::CutPlaced(_), .. } => self.copying.fall_behind(),
            Phase::Unpaired | Phase::Behind { .. } | Phase::Resync { .. } => {
                return self.persist_owed();
            }
        }
        self.alarm(now, Alarm::Behind);
        self.owe_what_is_in_flight();
        self.transfer.stop_sending();
        self.persist_owed();
        // A path that is up begins the resync at once: the rest of the order was given up.
        if self.link_up() {
            self.link_came_up();
        }
    }

    /// Home is the reason that the journal is long, not the secondary.
    fn home_lags(&self) -> bool {
        self.homed <= self.trimmed
    }

    fn owe_what_is_in_flight(&mut self) {
        let Phase::Behind { map } = &mut self.copying.phase else {
            return;
        };
        let planned = self.commits.iter().flat_map(|commit| &commit.records).filter_map(|record| record.extent);
        let sent = self.transfer.unacked().filter_map(|record| record.extent);
        let queued = self.queue.iter().map(|accepted| accepted.rest);
        sent.chain(planned).chain(queued).for_each(|extent| map.mark(extent));
    }

    /// Makes the map durable, so that the journal below what it covers can go.
    fn persist_owed(&mut self) {
        if self.copying.behind() && self.copying.persisting.is_empty() && self.homed > self.copying.covered {
            self.next_stamp(self.homed);
        }
    }

    fn next_stamp(&mut self, through: Sequence) -> u64 {
        self.copying.stamp += 1;
        let stamp = self.copying.stamp;
        self.copying.persisting.push_back((stamp, through));
        let (acked, acked_chain) = (self.transfer.acked(), self.transfer.acked_chain());
        self.outputs.push_back(Output::PersistOwed { stamp, acked, acked_chain });
        stamp
    }
}
