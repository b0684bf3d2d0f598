//! The requests of one connection that are in flight, and how much they hold.

use crate::nbd::admit::Command;
use crate::nbd::completion::SlotId;
use crate::nbd::limits::{MAX_IN_FLIGHT, MAX_IN_FLIGHT_BYTES};

/// What is needed to answer a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slot {
    pub(super) cookie: u64,
    pub(super) command: Command,
    pub(super) offset: u64,
    pub(super) len: u32,
    /// Answers still to come: one, or one a metadata context.
    pub(super) parts: usize,
    /// Payload bytes that the request holds.
    pub(super) held: usize,
}

/// Slots are given to the export; counts hold until the reply is written.
#[derive(Debug, Default)]
pub(super) struct Table {
    slots: Vec<Option<Slot>>,
    free: Vec<u32>,
    requests: usize,
    bytes: usize,
}

impl Table {
    /// Whether another request with `bytes` of payload has room. One alone always has.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        let bytes_fit = self.bytes == 0 || self.bytes + bytes <= MAX_IN_FLIGHT_BYTES;
        self.requests < MAX_IN_FLIGHT && bytes_fit
    }

    /// Takes room for a request, until [`release`](Self::release).
    pub(super) fn occupy(&mut self, bytes: usize) {
        self.requests += 1;
        self.bytes += bytes;
    }

    pub(super) fn release(&mut self, requests: usize, bytes: usize) {
        self.requests = self.requests.saturating_sub(requests);
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// Whether nothing is in flight.
    pub(super) fn is_empty(&self) -> bool {
        self.requests == 0
    }

    pub(super) fn in_flight(&self) -> usize {
        self.requests
    }

    pub(super) fn insert(&mut self, slot: Slot) -> SlotId {
        let place = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            // Occupied slots are at most MAX_IN_FLIGHT.
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        let id = SlotId { place, part: 0 };
        if let Some(free) = self.place(id) {
            *free = Some(slot);
        }
        id
    }

    /// One part of the request is answered; gives the request, and frees its slot with the last part.
    pub(super) fn answered(&mut self, id: SlotId) -> Option<Slot> {
        let place = self.place(id)?;
        let slot = place.as_mut()?;
        slot.parts = slot.parts.saturating_sub(1);
        let slot = *slot;
        if slot.parts == 0 {
            *place = None;
            self.free.push(id.place);
        }
        Some(slot)
    }

    fn place(&mut self, id: SlotId) -> Option<&mut Option<Slot>> {
        self.slots.get_mut(usize::try_from(id.place).ok()?)
    }
}
