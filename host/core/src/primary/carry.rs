//! Keys in the slots of other records: where they will stand, which pieces go with what, and when they have their place.
//!
//! The place and the start of such a key are fixed before its first piece goes, because its record names and signs them.
//! The record has no place before the secondary has all of it; if the order comes there first, the key is carried anew.

use super::*;
use crate::carriage::{CarriageNumber, PIECE_BYTES};
use crate::limits::CARRIAGE_BYTES_MAX;
use crate::schedule;

/// A key record whose pieces go.
#[derive(Clone, Debug)]
pub(super) struct Carried {
    number: CarriageNumber,
    /// As it will be committed.
    planned: Planned,
    pieces: u64,
    sent: u64,
    /// The record with which the last of them went.
    last: Sequence,
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
}

impl Primary {
    /// Begins to carry a key that waits, and notes when all of it is there.
    pub(super) fn run_carriage(&mut self, now: Now) {
        if !self.rotation.is_carrying() {
            self.transfer.carriage = None;
        } else if self.transfer.carriage.is_none() {
            self.rotation.uncarry();
        } else if self.transfer.is_carried() {
            self.rotation.carried();
        }
        let sends = self.deliverable() && !self.copying.gap_open() && !self.copying.gap_due();
        // One carriage at a time: the secondary still has the pieces of a key of which it was not told.
        let sends = sends && self.transfer.veil.is_none_or(|veil| veil.told);
        if sends && let Some((epoch, slot)) = self.rotation.waits_to_be_carried(now) {
            self.carry(now, epoch, slot);
        }
    }

    /// A key record of this slot's length goes in no slots.
    pub(super) fn is_too_long(&self, slot: Slot) -> bool {
        let at_once = matches!(self.rotation.state(), RotationState::Preparing { how: How::AtOnce | How::Pause, .. });
        self.settings.in_slots && !at_once && self.key_bytes(slot.blocks) > wide(CARRIAGE_BYTES_MAX)
    }

    /// The key that was carried takes its place, with the bytes that were carried.
    pub(super) fn plan_carried(&mut self, now: Now) -> Option<Planned> {
        let carried = self.transfer.carriage.take()?;
        let key = carried.planned.sequence;
        self.rotation.placed(now, key, 0, 0);
        self.transfer.veil = Some(Veil { key, number: carried.number, told: false });
        self.next = key.next();
        Some(carried.planned)
    }

    fn carry(&mut self, now: Now, epoch: Epoch, slot: Slot) {
        let pieces = self.key_bytes(slot.blocks).div_ceil(wide(PIECE_BYTES)) + 1;
        let in_flight = self.in_flight();
        let (far, further) = (schedule::gap(slot.chance), schedule::gap(slot.chance.rotate_left(32)));
        // A round trip until the last piece is sent, and one until it is acknowledged.
        let key = self.next.plus(pieces).plus(self.rotation.lead(in_flight.saturating_mul(2), far));
        let start = key.plus(self.rotation.lead(in_flight, further));
        let number = CarriageNumber(self.carriages);
        self.carriages = self.carriages.wrapping_add(1);
        let source = Source::Capsules { start, how: How::InBand };
        let planned = Planned {
            sequence: key,
            kind: Kind::Key,
            epoch,
            extent: None,
            body_blocks: slot.blocks,
            wall: now.wall,
            aux: 0,
            source,
        };
        self.rotation.carry(key, start);
        self.outputs.push_back(Output::CarryKey { number, planned });
        self.transfer.carriage = Some(Carried { number, planned, pieces, sent: 0, last: Sequence::NONE });
    }

    fn key_bytes(&self, blocks: u32) -> u64 {
        let blocks = u64::from(blocks);
        let tags = blocks.max(1) * wide(TAG_BYTES);
        wide(HEADER_BYTES) + tags + BlockCount(blocks).byte_len(self.settings.block_bytes).0
    }
}
