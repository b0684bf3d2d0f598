//! What should be true: every accepted write, the order that the journal gave, and what was promised of it.

use std::rc::Rc;

use farseal_core::chain::Digest;
use farseal_core::record::{Header, Kind};
use farseal_core::units::{Epoch, Extent, Sequence};

use crate::branch::Branch;
use crate::disk::{to_usize, wide};
use crate::seal::{Facts, Sealer, Stamp};

/// A record as it was sealed.
#[derive(Clone, Debug)]
pub struct Rec {
    pub header: Header,
    pub digest: Digest,
    pub sealer: Sealer,
    /// The epoch that it is sealed under; for a key record, the one that goes on until its start.
    pub epoch: Epoch,
    pub stamps: Vec<Stamp>,
    pub facts: Option<Facts>,
    pub bytes: Rc<Vec<u8>>,
    /// The last write that this record completes, counted in accepted writes of this life.
    pub order: Option<usize>,
}

/// The oracle. It sees what initiators and driver do, never the inside of the machines.
#[derive(Clone, Debug)]
pub struct Model {
    /// The volume as initiators of this life must read it.
    pub accepted: Vec<Stamp>,
    /// The order begins behind this record; what led to it is a volume of zeroes.
    pub before: Sequence,
    /// Every record that was appended.
    pub history: Vec<Rec>,
    /// The place of each accepted write's last record, by its order in this life.
    pub placed: Vec<Option<Sequence>>,
    /// Flushes and FUA writes that were answered cover everything up to here.
    pub promised: Sequence,
    /// What was answered in a mode that waits for the secondary.
    pub promised_at_both: Sequence,
}

impl Model {
    pub fn new(blocks: usize, before: Sequence) -> Self {
        Self {
            accepted: vec![0; blocks],
            before,
            history: Vec::new(),
            placed: Vec::new(),
            promised: before,
            promised_at_both: before,
        }
    }

    pub fn get(&self, sequence: Sequence) -> Option<&Rec> {
        self.history.get(to_usize(sequence.since(self.before)).checked_sub(1)?)
    }

    /// The last record that was appended.
    pub fn last(&self) -> Sequence {
        self.before.plus(wide(self.history.len()))
    }

    /// Every write accepted so far in this life.
    pub fn orders(&self) -> usize {
        self.placed.len()
    }

    pub fn accept(&mut self, extent: Extent, stamps: &[Stamp]) -> usize {
        write(&mut self.accepted, extent, stamps);
        self.placed.push(None);
        self.placed.len() - 1
    }

    pub fn append(&mut self, rec: Rec) {
        if let Some(placed) = rec.order.and_then(|order| self.placed.get_mut(order)) {
            *placed = Some(rec.header.sequence);
        }
        self.history.push(rec);
    }

    /// Where the first `orders` writes of this life end in the order; `None` if one of them has no place yet.
    pub fn through(&self, orders: usize) -> Option<Sequence> {
        let mut through = self.before;
        for placed in self.placed.iter().take(orders) {
            through = through.max((*placed)?);
        }
        Some(through)
    }

    /// The volume after every record up to `sequence`.
    pub fn image(&self, sequence: Sequence) -> Vec<Stamp> {
        self.image_of(&self.history[..to_usize(sequence.since(self.before)).min(self.history.len())])
    }

    /// The volume after every record of a history.
    pub fn image_of(&self, history: &[Rec]) -> Vec<Stamp> {
        let mut image = vec![0; self.accepted.len()];
        history.iter().for_each(|rec| apply(&mut image, &rec.header, &rec.stamps));
        image
    }

    /// An own old history goes on, all of it.
    pub fn adopt(&mut self, own: Branch) {
        self.history = own.history;
        self.restarted(self.last());
    }

    /// The primary came back with everything up to `last`.
    pub fn restarted(&mut self, last: Sequence) {
        self.history.truncate(to_usize(last.since(self.before)));
        self.accepted = self.image(last);
        self.placed.clear();
    }
}

/// What a record does to a volume.
pub fn apply(image: &mut [Stamp], header: &Header, stamps: &[Stamp]) {
    let Some(extent) = header.extent() else { return };
    let stamps = if header.kind == Kind::Data { stamps } else { &[] };
    write(image, extent, stamps);
}

/// Writes stamps to an extent; zeroes where there are none.
pub fn write(image: &mut [Stamp], extent: Extent, stamps: &[Stamp]) {
    let first = to_usize(extent.first().0);
    for (index, block) in image.iter_mut().skip(first).take(to_usize(extent.blocks().0)).enumerate() {
        *block = stamps.get(index).copied().unwrap_or(0);
    }
}
