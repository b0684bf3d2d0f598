//! Keys in the slots of other records: where they will stand, which pieces go with what, and when they have their place.
//!
//! The place and the start of such a key are fixed before its first piece goes, because its record names and signs them.
//! The record has no place before the secondary has all of it; if the order comes there first, the key is carried anew.
//!
//! Where the disguise keeps a standing schedule, something is carried whenever that says so: the key that waits, or a cover
//! that takes the same way to a place of its own. When work for a key begins says nothing then, and neither does the work.

use super::*;
use crate::carriage::{CarriageNumber, PIECE_BYTES};
use crate::limits::CARRIAGE_BYTES_MAX;
use crate::schedule;

/// A key record whose pieces go, or a cover in its stead.
#[derive(Clone, Debug)]
pub(super) struct Carried {
    number: CarriageNumber,
    /// As it will be committed.
    planned: Planned,
    /// Of its slot.
    chance: u64,
    pieces: u64,
    sent: u64,
    /// The record with which the last of them went.
    last: Sequence,
}

impl Carried {
    /// The slot that it took.
    fn open(&self) -> schedule::Open {
        schedule::Open { blocks: self.planned.body_blocks, chance: self.chance }
    }
}

/// A key record with a place, which a word in the next record's slot stands for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Veil {
    pub(super) key: Sequence,
    number: CarriageNumber,
    told: bool,
}

impl transfer::Transfer {
    /// What the slots of a run say that goes now.
    pub(super) fn fill_slots(&mut self, run: Range, records: u64) -> Slots {
        if let Some(veil) = self.veil.as_mut().filter(|veil| !veil.told && veil.key < run.first) {
            veil.told = true;
            return Slots::Stands { number: veil.number, key: veil.key };
        }
        let Some(carried) = self.carriage.as_mut().filter(|carried| carried.sent < carried.pieces) else {
            return Slots::Idle;
        };
        let first = u16::try_from(carried.sent).unwrap_or(u16::MAX);
        carried.sent = carried.pieces.min(carried.sent + records);
        carried.last = run.last;
        Slots::Pieces { number: carried.number, first }
    }

    /// Sending stops with this record: a key that stands there goes as it is.
    pub(super) fn unveil(&mut self, last: Sequence) {
        self.veil = self.veil.filter(|veil| veil.told || veil.key != last);
    }

    fn is_carried(&self) -> bool {
        self.carriage.as_ref().is_some_and(|carried| carried.sent == carried.pieces && self.acked() >= carried.last)
    }

    /// The cover that is carried in a key's stead.
    fn sham(&self) -> Option<&Planned> {
        let planned = self.carriage.as_ref().map(|carried| &carried.planned);
        planned.filter(|planned| planned.kind == Kind::Cover)
    }
}

impl Primary {
    /// Begins to carry what is to be carried, and notes when all of it is there.
    pub(super) fn run_carriage(&mut self, now: Now) {
        if !self.settings.in_slots {
            return;
        }
        self.end_carriage();
        let sends = self.deliverable() && !self.copying.gap_open() && !self.copying.gap_due();
        // One carriage at a time: the secondary still has the pieces of a key of which it was not told.
        if !sends || self.transfer.carriage.is_some() || self.transfer.veil.is_some_and(|veil| !veil.told) {
            return;
        }
        if !self.schedule.is_standing() {
            if let Some((epoch, slot)) = self.rotation.waits_to_be_carried(now) {
                self.carry(now, Kind::Key, epoch, schedule::Open { blocks: slot.blocks, chance: slot.chance });
            }
            return;
        }
        if self.covers()
            && self.schedule.is_due(now.instant)
            && let Some(active) = self.rotation.active()
            && let Some(slot) = self.schedule.take(now.instant)
        {
            self.prepare_beside(now);
            match self.rotation.take_slot(now, self.next) {
                Some(epoch) => self.carry(now, Kind::Key, epoch, slot),
                None => self.carry(now, Kind::Cover, active.epoch, slot),
            }
        }
    }

    /// What is carried for nobody any more is given up.
    fn end_carriage(&mut self) {
        if let Some(sham) = self.transfer.sham() {
            let passed = sham.sequence < self.next;
            // A cover names the key under which it stands.
            if passed || self.rotation.active().is_none_or(|active| active.epoch != sham.epoch) {
                self.transfer.carriage = None;
            }
        } else if !self.rotation.is_carrying() {
            self.transfer.carriage = None;
        } else if self.transfer.carriage.is_none() {
            self.rotation.uncarry();
        } else if self.transfer.is_carried() {
            self.rotation.carried();
        }
    }

    /// A key's start or a cover's has come: what is carried begins anew, whatever it is. A cover names the key under which it stands,
    /// so it must at a key's start, and the work of making it shows there on a machine without a free core.
    pub(super) fn carry_anew(&mut self, now: Now) {
        if !self.schedule.is_standing() {
            return;
        }
        if let Some(carried) = self.transfer.carriage.take() {
            self.rotation.uncarry();
            self.schedule.again(now.instant, carried.open());
        }
    }

    /// A key record of this slot's length goes in no slots.
    pub(super) fn is_too_long(&self, slot: Slot) -> bool {
        let at_once = matches!(self.rotation.state(), RotationState::Preparing { how: How::AtOnce | How::Pause, .. });
        self.settings.in_slots && !at_once && !self.fits_slots(slot.blocks)
    }

    /// Can a record of this length be carried?
    pub(super) fn fits_slots(&self, blocks: u32) -> bool {
        self.key_bytes(blocks) <= wide(CARRIAGE_BYTES_MAX)
    }

    /// The key that was carried takes its place, with the bytes that were carried.
    pub(super) fn plan_carried(&mut self, now: Now) -> Option<Planned> {
        let carried = self.transfer.carriage.take()?;
        self.rotation.placed(now, carried.planned.sequence, 0, 0);
        Some(self.stands(&carried))
    }

    /// The order has come to the place of the cover that is carried.
    pub(super) fn is_at_sham(&self) -> bool {
        self.transfer.sham().is_some_and(|sham| sham.sequence == self.next)
    }

    /// The cover that was carried takes its place as a key would. If it is not all there, what waits takes the place.
    pub(super) fn plan_carried_sham(&mut self, now: Now, epoch: Epoch) -> Option<Planned> {
        if !self.ordinary_waits(now) {
            return None;
        }
        let whole = self.transfer.is_carried();
        let carried = self.transfer.carriage.take()?;
        if let Source::Sham { start } = carried.planned.source
            && whole
        {
            self.schedule.covered(carried.planned.sequence, start);
            self.prepare_beside(now);
            return Some(self.stands(&carried));
        }
        self.missed(now, &carried);
        self.plan_ordinary(now, epoch)
    }

    /// The key that is carried is not all there at its place.
    pub(super) fn miss_carried_key(&mut self, now: Now) {
        self.rotation.uncarry();
        if let Some(carried) = self.transfer.carriage.take() {
            self.missed(now, &carried);
        }
    }

    /// What is carried next has a longer lead, and goes at once: how it fares does not depend on what it is.
    fn missed(&mut self, now: Now, carried: &Carried) {
        self.rotation.came_late();
        if self.schedule.is_standing() {
            self.schedule.again(now.instant, carried.open());
        }
    }

    fn stands(&mut self, carried: &Carried) -> Planned {
        let key = carried.planned.sequence;
        self.transfer.veil = Some(Veil { key, number: carried.number, told: false });
        self.next = key.next();
        carried.planned
    }

    /// Fixes a place and a start, and has the record made that goes there: the key of `epoch`, or a cover under it.
    fn carry(&mut self, now: Now, kind: Kind, epoch: Epoch, slot: schedule::Open) {
        let pieces = self.key_bytes(slot.blocks).div_ceil(wide(PIECE_BYTES)) + 1;
        let in_flight = self.in_flight();
        let (far, further) = (schedule::gap(slot.chance), schedule::gap(slot.chance.rotate_left(32)));
        // A round trip until the last piece is sent, and one until it is acknowledged.
        let place = self.next.plus(pieces).plus(self.rotation.lead(in_flight.saturating_mul(2), far));
        let start = place.plus(self.rotation.lead(in_flight, further));
        let number = CarriageNumber(self.carriages);
        self.carriages = self.carriages.wrapping_add(1);
        let source = if kind == Kind::Key {
            self.rotation.carry(place, start);
            Source::Capsules { start, how: How::InBand }
        } else {
            Source::Sham { start }
        };
        let planned = Planned {
            sequence: place,
            kind,
            epoch,
            extent: None,
            body_blocks: slot.blocks,
            wall: now.wall,
            aux: 0,
            source,
        };
        self.outputs.push_back(Output::CarryKey { number, planned });
        self.transfer.carriage =
            Some(Carried { number, planned, chance: slot.chance, pieces, sent: 0, last: Sequence::NONE });
    }

    fn key_bytes(&self, blocks: u32) -> u64 {
        let blocks = u64::from(blocks);
        let tags = blocks.max(1) * wide(tag_bytes_each(Kind::Key, self.settings.search_tags()));
        wide(HEADER_BYTES) + tags + BlockCount(blocks).byte_len(self.settings.block_bytes).0
    }
}
