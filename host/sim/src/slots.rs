//! Slots beside the records of a connection: filled by the primary's driver, read by the secondary's, with the real masks.

use std::collections::BTreeMap;

use farseal_core::carriage::{Carriage, CarriageNumber, Mask, Nth, Pieces, SLOT_BYTES, Said, Slot};
use farseal_core::primary::{Planned, Slots as Filled};
use farseal_core::record::{Framed, Kind};
use farseal_core::secondary::Input;
use farseal_core::units::Path;

use crate::check::{Checker, Failure};
use crate::link::{Message, Side};
use crate::model::Rec;
use crate::stats::Sometimes;
use crate::world::{Outcome, World};

/// What both drivers remember of slots.
#[derive(Debug, Default)]
pub struct Slots {
    /// The primary's, until its next crash.
    carriage: Option<Kept>,
    /// The secondary's, until its next crash or its last path's end.
    pieces: Pieces,
    /// Slots that went over each path's connection, and that came over it.
    filled: BTreeMap<Path, Counted>,
    read: BTreeMap<Path, Counted>,
}

/// A key record that goes in slots.
#[derive(Debug)]
struct Kept {
    carriage: Carriage,
    planned: Planned,
    rec: Rec,
}

/// Slots of one connection.
#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    session: u64,
    slots: u64,
}

impl Slots {
    /// Keeps the record as it will be committed.
    pub fn carry(&mut self, number: CarriageNumber, planned: Planned, rec: Rec) -> Outcome {
        let carriage = Carriage::new(number, rec.bytes.to_vec());
        let carriage = carriage.map_err(|error| Failure::new(Checker::Panic, error.to_string()))?;
        self.carriage = Some(Kept { carriage, planned, rec });
        Ok(())
    }

    /// The key record that was carried as this.
    pub fn carried(&self, planned: &Planned) -> Option<Rec> {
        self.carriage.as_ref().filter(|kept| kept.planned == *planned).map(|kept| kept.rec.clone())
    }

    pub fn primary_crashed(&mut self) {
        self.carriage = None;
    }

    pub fn forget(&mut self) {
        self.pieces.forget();
    }
}

impl Counted {
    fn next(counted: &mut BTreeMap<Path, Self>, path: Path, session: u64) -> Nth {
        let own = counted.entry(path).or_default();
        if own.session != session {
            *own = Self { session, slots: 0 };
        }
        own.slots += 1;
        Nth(own.slots - 1)
    }
}

impl World {
    /// Sends whole records, with slots where the disguise has them.
    pub fn send_beside_slots(&mut self, path: Path, records: Vec<u8>, count: u64, filled: Filled) {
        // What is not sent counts for nothing.
        if !self.disguise.in_slots || !self.link.line(path).open {
            return self.send(path, Side::Secondary, Message::Records(records));
        }
        let slots = (0..count).map(|at| self.fill_slot(path, at, filled)).collect();
        self.send(path, Side::Secondary, Message::Slotted { records, slots });
    }

    /// Takes in what a slotted frame brought.
    pub fn slotted_received(&mut self, path: Path, records: &[u8], slots: &[Slot]) -> Outcome {
        let mut at = 0;
        for slot in slots {
            let Some(rest) = records.get(at..) else { break };
            let Ok(framed) = Framed::decode(rest) else { break };
            let session = self.link.line(path).session;
            let nth = Counted::next(&mut self.slots.read, path, session);
            match self.slots.pieces.take(&mask(path, session), nth, *slot) {
                Said::Nothing => {}
                Said::Whole(_) => self.stats.see(Sometimes::KeyCarried),
                Said::Stands(record) => {
                    let cover = Framed::decode(&record).is_ok_and(|framed| framed.header.kind == Kind::Cover);
                    self.stats.see(if cover { Sometimes::CarriedCoverStands } else { Sometimes::CarriedKeyStands });
                    self.records_received(path, &record)?;
                }
                Said::Missing => {
                    self.stats.see(Sometimes::CarriedKeyMissing);
                    return self.tell_secondary(Input::Nonsense { path });
                }
            }
            let end = at + framed.header.record_bytes();
            self.records_received(path, records.get(at..end).unwrap_or_default())?;
            at = end;
        }
        Ok(())
    }

    fn fill_slot(&mut self, path: Path, at: u64, filled: Filled) -> Slot {
        let session = self.link.line(path).session;
        let nth = Counted::next(&mut self.slots.filled, path, session);
        let mask = mask(path, session);
        let carriage = self.slots.carriage.as_ref().map(|kept| &kept.carriage);
        let said = carriage.and_then(|carriage| match filled {
            Filled::Pieces { number, first } if number == carriage.number() => {
                carriage.piece(&mask, nth, u16::try_from(u64::from(first) + at).ok()?)
            }
            Filled::Stands { number, .. } if number == carriage.number() && at == 0 => {
                Some(carriage.stands(&mask, nth))
            }
            Filled::Idle | Filled::Pieces { .. } | Filled::Stands { .. } => None,
        });
        said.unwrap_or_else(|| self.idle_slot())
    }

    fn idle_slot(&mut self) -> Slot {
        let mut slot = [0; SLOT_BYTES];
        for word in slot.chunks_mut(8) {
            word.copy_from_slice(&self.disguise.dice.draw().to_le_bytes());
        }
        slot
    }
}

fn mask(path: Path, session: u64) -> Mask {
    let mut said = [0; 32];
    said[..8].copy_from_slice(&session.to_le_bytes());
    said[8..10].copy_from_slice(&path.0.to_le_bytes());
    Mask::new(&said, &said)
}
