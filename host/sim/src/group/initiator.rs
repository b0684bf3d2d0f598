//! Initiators whose writes follow from what they were answered and from what they read, on whatever lane of whatever group.

use farseal_core::primary::{self, Input, Room};
use farseal_core::units::{BlockCount, Extent, Lba, Ticket};

use super::event::Event;
use super::figures::Figure;
use super::{BLOCKS, Mutation, World};
use crate::disk::{to_usize, wide};
use crate::seal::Stamp;
use crate::world::Outcome;

/// A write, and what its initiator knew when it issued it.
#[derive(Clone, Debug)]
pub struct Write {
    pub lane: usize,
    pub block: u64,
    pub depends: Vec<Stamp>,
    /// A crash at the writing site took it back.
    pub lost: bool,
    pub answered: bool,
    /// Its lane had stood still for this change of sides, and had gone on by itself.
    pub between: Option<u64>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Initiator {
    /// Writes that it was answered, or read, since its last own write.
    knows: Vec<Stamp>,
    /// What it waits for.
    ticket: Option<Ticket>,
}

/// A read that waits for a release.
#[derive(Clone, Copy, Debug)]
pub(super) struct Withheld {
    initiator: usize,
    lane: usize,
    extent: Extent,
    shows: Stamp,
}

impl World {
    pub(super) fn initiate(&mut self, index: usize) -> Outcome {
        if self.healed.is_some() || self.initiators[index].ticket.is_some() {
            return Ok(());
        }
        let lane = self.any_lane();
        let site = &self.lanes[lane];
        if site.machine.is_none() || site.is_over() || site.next_block >= BLOCKS {
            return self.think(index);
        }
        if self.dice.chance(350) {
            return self.read(index, lane);
        }
        if !self.has_room(lane) {
            return self.think(index);
        }
        let block = self.lanes[lane].next_block;
        self.lanes[lane].next_block += 1;
        let Some(extent) = Extent::new(Lba(block), BlockCount(1)) else { return Ok(()) };
        let stamp = wide(self.writes.len()) + 1;
        self.figures.count(Figure::Writes);
        let depends = std::mem::take(&mut self.initiators[index].knows);
        if depends.iter().any(|known| self.group_of(self.writes[known].lane) != self.group_of(lane)) {
            self.figures.count(Figure::FollowsFromAnotherGroup);
        }
        let between = self.in_between(lane);
        self.writes.insert(stamp, Write { lane, block, depends, lost: false, answered: false, between });
        let ticket = self.ticket();
        self.tickets.insert(ticket, (index, lane, stamp));
        self.initiators[index].ticket = Some(ticket);
        self.lanes[lane].content[to_usize(block)] = stamp;
        self.lanes[lane].writes.insert(ticket, vec![stamp]);
        self.members[lane].written = true;
        let fua = self.dice.chance(300);
        self.tell_lane(lane, Input::Write { ticket, what: primary::What::Data, extent, fua })
    }

    /// As a node's intake has it: while a lane stands still, writes wait.
    fn has_room(&self, lane: usize) -> bool {
        let Some(machine) = &self.lanes[lane].machine else { return false };
        match machine.room() {
            Room::Open => true,
            Room::Wait | Room::Full | Room::Failed | Room::Fenced => false,
        }
    }

    /// Somewhere among the last writes, answered or not.
    fn read(&mut self, initiator: usize, lane: usize) -> Outcome {
        let newest = self.lanes[lane].next_block;
        let block = newest.saturating_sub(1 + self.dice.below(3));
        let shows = self.lanes[lane].content[to_usize(block)];
        let Some(extent) = Extent::new(Lba(block), BlockCount(1)) else { return Ok(()) };
        let withheld = self.lanes[lane].machine.as_ref().is_some_and(|machine| machine.withholds(extent));
        if withheld && self.mutation != Some(Mutation::ReadNotHeld) {
            self.figures.count(Figure::ReadsHeld);
            self.reads.push(Withheld { initiator, lane, extent, shows });
            return Ok(());
        }
        self.shown(initiator, shows)
    }

    fn shown(&mut self, index: usize, stamp: Stamp) -> Outcome {
        if stamp != 0 {
            self.initiators[index].knows.push(stamp);
        }
        self.think(index)
    }

    fn think(&mut self, index: usize) -> Outcome {
        // Often at once: what comes between an answer and what follows from it is where a cut goes wrong.
        let pause = if self.dice.chance(600) { self.dice.between(1, 200) } else { self.dice.between(200, 15_000) };
        let pause = pause * self.disasters.slower();
        self.after(pause, Event::Initiator(index));
        Ok(())
    }

    pub(super) fn answered(&mut self, ticket: Ticket, good: bool) -> Outcome {
        let Some((index, _, stamp)) = self.tickets.remove(&ticket) else { return Ok(()) };
        self.initiators[index].ticket = None;
        if let Some(write) = self.writes.get_mut(&stamp).filter(|_| good) {
            write.answered = true;
        }
        self.shown(index, if good { stamp } else { 0 })
    }

    /// Reads that nothing withholds any more.
    pub(super) fn answer_reads(&mut self, lane: usize) -> Outcome {
        let machine = self.lanes[lane].machine.as_ref();
        let waits = |extent: Extent| machine.is_some_and(|machine| machine.withholds(extent));
        let (waiting, ready): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.reads).into_iter().partition(|read| read.lane != lane || waits(read.extent));
        self.reads = waiting;
        let there = machine.is_some();
        for read in ready {
            self.shown(read.initiator, if there { read.shows } else { 0 })?;
        }
        Ok(())
    }

    /// Initiators hear that the node is gone; what it had not synced may be gone, too.
    pub(super) fn hear_of_crash(&mut self, lane: usize, gone: Vec<Stamp>) -> Outcome {
        for stamp in gone {
            if let Some(write) = self.writes.get_mut(&stamp).filter(|write| !write.lost) {
                write.lost = true;
                self.figures.count(Figure::WritesLost);
            }
        }
        let waiting: Vec<Ticket> =
            self.tickets.iter().filter(|(_, (_, at, _))| *at == lane).map(|(ticket, _)| *ticket).collect();
        for ticket in waiting {
            self.answered(ticket, false)?;
        }
        self.answer_reads(lane)
    }
}
