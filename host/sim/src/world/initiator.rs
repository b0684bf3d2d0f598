//! Initiators of the world: writes with a hot spot, flushes, and reads of the whole volume.

use farseal_core::primary::What;
use farseal_core::units::{BlockCount, Extent, Lba};

use super::{Outcome, World};
use crate::check;
use crate::stats::Sometimes;

impl World {
    pub(super) fn write(&mut self) -> Outcome {
        if !self.room_for_write() {
            self.stats.see(Sometimes::WriteRefusedForRoom);
            return Ok(());
        }
        let blocks = crate::disk::wide(self.model.accepted.len());
        let dice = &mut self.dice_initiator;
        let most = if dice.chance(20) { blocks } else { 12.min(blocks) };
        // A hot spot makes overlaps likely.
        let first = if dice.chance(400) { dice.below(8) } else { dice.below(blocks) };
        let len = dice.between(1, most + 1).min(blocks - first);
        let what = match dice.below(12) {
            0 => What::Zero,
            1 => What::Trim,
            _ => What::Data,
        };
        let fua = dice.chance(100);
        let Some(extent) = Extent::new(Lba(first), BlockCount(len)) else { return Ok(()) };
        let stamps = match what {
            What::Data => {
                self.next_stamp += len;
                (self.next_stamp - len + 1..=self.next_stamp).collect()
            }
            What::Zero | What::Trim => Vec::new(),
        };
        let ticket = self.ticket();
        self.submit_write(ticket, what, extent, fua, stamps)
    }

    pub(super) fn flush(&mut self) -> Outcome {
        let ticket = self.ticket();
        self.submit_flush(ticket)
    }

    pub(super) fn read(&mut self) -> Outcome {
        let found = self.primary.read_all();
        check::write_order::read(self, &found)
    }
}
