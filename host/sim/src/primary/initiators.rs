//! What initiators of a primary write and flush, and what they are promised.

use farseal_core::primary::{Input, Mode, Primary, Room, What};
use farseal_core::units::{Extent, Ticket};

use super::{Buffered, Waiting};
use crate::check;
use crate::check::{Checker, Failure};
use crate::disk::wide;
use crate::mutation::Mutation;
use crate::seal::Stamp;
use crate::stats::Sometimes;
use crate::world::{Outcome, World, block_bytes};

impl World {
    pub fn room_for_write(&self) -> bool {
        let Some(machine) = &self.primary.machine else { return false };
        machine.room() == Room::Open
    }

    pub fn submit_write(
        &mut self,
        ticket: Ticket,
        what: What,
        extent: Extent,
        fua: bool,
        stamps: Vec<Stamp>,
    ) -> Outcome {
        let order = self.model.accept(extent, &stamps);
        self.primary.buffered_bytes += wide(stamps.len()) * block_bytes().as_u64();
        self.primary.buffer.push_back(Buffered { ticket, extent, stamps, order: Some(order), last: None });
        self.primary.waiting.insert(ticket, Waiting { orders: self.model.orders(), durable: fua });
        self.owed_may_have_changed = true;
        self.tell_primary(Input::Write { ticket, what, extent, fua })
    }

    pub fn submit_flush(&mut self, ticket: Ticket) -> Outcome {
        let orders = self.model.orders();
        self.primary.waiting.insert(ticket, Waiting { orders, durable: true });
        if self.settings.mutation == Some(Mutation::FlushAnsweredEarly) {
            check::durability::promised(self, orders)?;
        }
        if self.settings.mutation == Some(Mutation::SyncAnsweredEarly)
            && let Some(status) = self.primary.machine.as_ref().map(Primary::status)
            && (status.mode, status.mode_kept) == (Mode::Sync, true)
            && status.durable == status.last
        {
            check::durability::promised_at_both(self, orders)?;
        }
        self.tell_primary(Input::Flush { ticket })
    }

    pub(super) fn reply(&mut self, ticket: Ticket, good: bool) -> Outcome {
        let Some(waiting) = self.primary.waiting.remove(&ticket) else {
            return Err(Failure::new(Checker::Panic, format!("{ticket:?} was answered twice or never asked")));
        };
        if !good {
            self.stats.see(Sometimes::FlushFailed);
            return Ok(());
        }
        check::fence::answered_well(self)?;
        self.promised(waiting)
    }

    /// What an answer says.
    fn promised(&mut self, waiting: Waiting) -> Outcome {
        let status = self.primary.machine.as_ref().map(Primary::status);
        let (mode, kept) = status.map_or((Mode::Async, false), |status| (status.mode, status.mode_kept));
        if waiting.durable || mode == Mode::Sync {
            check::durability::promised(self, waiting.orders)?;
        }
        let remote = mode == Mode::Sync || (mode == Mode::SyncFlush && waiting.durable);
        if remote && kept {
            self.stats.see(Sometimes::AnsweredForBothSites);
            check::durability::promised_at_both(self, waiting.orders)?;
        }
        if remote && !kept {
            self.stats.see(Sometimes::AnsweredWithoutTheCopy);
        }
        Ok(())
    }
}
