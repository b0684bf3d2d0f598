//! What a primary destages, and its dirty map.

use farseal_core::primary::{Input, StoreFault};
use farseal_core::units::{Lba, Sequence};

use super::{MapOperation, PrimaryEvent};
use crate::check::{Checker, Failure};
use crate::disk::{to_usize, wide};
use crate::faults::Fault;
use crate::mutation::Mutation;
use crate::world::{Event, Outcome, World, block_bytes};

impl World {
    pub(super) fn destaged(&mut self, through: Sequence) -> Outcome {
        if self.primary.home_disk_full {
            return self.tell_primary(Input::DestageFailed { fault: StoreFault::Full });
        }
        if through > self.primary.durable_on_disk {
            return Err(Failure::new(
                Checker::WriteOrder,
                format!("record {through} is destaged before it is durable"),
            ));
        }
        for sequence in self.primary.destaged.0 + 1..=through.0 {
            let Some(rec) = self.model.get(Sequence(sequence)) else { continue };
            let Some(extent) = rec.header.extent() else { continue };
            for block in 0..extent.blocks().0 {
                let stamp = rec.stamps.get(to_usize(block)).copied().unwrap_or(0);
                self.primary.home.write(Lba(extent.first().0 + block), stamp);
            }
        }
        self.primary.destaged = through;
        while self.primary.buffer.front().is_some_and(|entry| entry.last.is_some_and(|last| last <= through)) {
            if let Some(entry) = self.primary.buffer.pop_front()
                && (entry.order.is_some() || self.settings.mutation != Some(Mutation::BufferLeaked))
            {
                self.primary.buffered_bytes -= wide(entry.stamps.len()) * block_bytes().as_u64();
            }
        }
        self.tell_primary(Input::Destaged { through })
    }

    pub(super) fn map_operation(&mut self, operation: MapOperation) {
        self.primary.map_operations.push_back(operation);
        if self.primary.map_operations.len() == 1 {
            self.next_map_operation();
        }
    }

    fn next_map_operation(&mut self) {
        let delay = self.disk_delay(5_000);
        let life = self.primary.life;
        self.after(delay, Event::Primary { life, event: PrimaryEvent::MapDone });
    }

    /// Does the oldest operation; for a write, says its stamp and whether it came off.
    pub(super) fn do_map_operation(&mut self) -> Option<(u64, bool)> {
        let operation = self.primary.map_operations.pop_front()?;
        if !self.primary.map_operations.is_empty() && self.primary.machine.is_some() {
            self.next_map_operation();
        }
        match operation {
            MapOperation::Write { stamp, .. } if self.faults.strikes(Fault::MapFails) => Some((stamp, false)),
            MapOperation::Write { stamp, bytes, acked, acked_chain } => {
                self.primary.map = Some((bytes, acked, acked_chain));
                Some((stamp, true))
            }
            MapOperation::Remove => {
                self.primary.map = None;
                None
            }
        }
    }
}
