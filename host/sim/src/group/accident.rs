//! What goes wrong in a world of groups: nodes and leads crash and come back, links and interconnects break, clocks jump,
//! journals run over; and what an operator does in the midst of it.

use farseal_core::primary::Input;
use farseal_core::units::ByteLen;

use super::event::Event;
use super::figures::Figure;
use super::{World, pair};
use crate::disk::{to_usize, wide};
use crate::world::Outcome;

impl World {
    pub(super) fn operate(&mut self) -> Outcome {
        if self.operations == 0 {
            self.healed = Some(self.now);
            return Ok(());
        }
        self.operations -= 1;
        let slower = self.disasters.slower().max(self.silences.slower());
        let pace = self.dice.between(500, 20_000) * slower;
        self.after(pace, Event::Operation);
        self.retire()?;
        self.declare()?;
        self.fall_silent()?;
        let lane = self.any_lane();
        match self.dice.below(1_000) {
            0..15 => self.crash_lane(lane)?,
            15..30 => self.crash_keeper(lane)?,
            30..40 => self.crash_lead(),
            40..60 => self.leave(lane)?,
            60..80 => {
                let path = to_usize(self.dice.below(wide(self.lines[lane].len())));
                let path = self.paths(lane).nth(path);
                path.map_or(Ok(()), |path| self.unlink(lane, path))?;
            }
            80..95 => self.overflow(lane)?,
            95..125 => self.command_group()?,
            125..132 => self.crash_keeping_lead(),
            132..140 => self.jump(),
            140..146 => self.command_alone(lane)?,
            146..150 => {
                let group = self.any_group();
                if self.groups[group].is_turning() {
                    return self.lose_site(group);
                }
                if self.want_takeover(group)? && self.dice.chance(400) {
                    // In the midst of it.
                    self.crash_keeper(lane)?;
                    self.crash_keeping_lead();
                }
            }
            _ => {}
        }
        Ok(())
    }

    pub(super) fn crash_lane(&mut self, lane: usize) -> Outcome {
        if self.lanes[lane].machine.is_none() {
            return Ok(());
        }
        self.figures.count(Figure::Crashes);
        self.stop_lane(lane)?;
        let delay = self.dice.between(1_000, 400_000);
        self.after(delay, Event::LaneBack(lane));
        Ok(())
    }

    pub(super) fn stop_lane(&mut self, lane: usize) -> Outcome {
        let gone = self.lanes[lane].crash(&mut self.dice);
        self.hear_of_crash(lane, gone)?;
        self.leave(lane)?;
        for path in self.paths(lane) {
            self.unlink(lane, path)?;
        }
        Ok(())
    }

    pub(super) fn lane_back(&mut self, lane: usize) -> Outcome {
        if self.lanes[lane].machine.is_some() || self.lanes[lane].turned || self.lanes[lane].gone {
            return Ok(());
        }
        let now = self.clock();
        self.lanes[lane].restart(now);
        self.members[lane].written = true;
        self.carry_out_lane(lane)
    }

    pub(super) fn crash_keeper(&mut self, lane: usize) -> Outcome {
        if self.keepers[lane].machine.is_none() {
            return Ok(());
        }
        self.figures.count(Figure::Crashes);
        if self.groups[self.group_of(lane)].taking_over.is_some() {
            self.figures.count(Figure::CrashesDuringATakeover);
        }
        self.keepers[lane].crash(&mut self.dice);
        // Its lead hears that its node is gone.
        self.copy_is_gone(lane)?;
        for path in self.paths(lane) {
            self.unlink(lane, path)?;
        }
        let delay = self.dice.between(1_000, 400_000);
        self.after(delay, Event::KeeperBack(lane));
        Ok(())
    }

    pub(super) fn keeper_back(&mut self, lane: usize) -> Outcome {
        if self.keepers[lane].machine.is_some() {
            return Ok(());
        }
        let now = self.clock();
        self.keepers[lane].restart(now);
        // It joins anew, and what it holds is not known until it says so.
        let group = self.group_of(lane);
        self.groups[group].common.forget(pair(lane));
        self.carry_out_keeper(lane)?;
        self.listens_later(lane);
        // Its lead tells it again how far it may offer.
        self.tell_limit(lane);
        Ok(())
    }

    /// Fills the journal past its limit, so that the copy has to be brought up to date beside the order.
    fn overflow(&mut self, lane: usize) -> Outcome {
        self.tell_lane(lane, Input::JournalBytes { bytes: ByteLen(1 << 30) })?;
        self.tell_lane(lane, Input::JournalBytes { bytes: ByteLen(0) })
    }

    fn jump(&mut self) {
        self.figures.count(Figure::ClockJumps);
        self.wall_offset = self.dice.between(1_699_999_900_000, 1_700_000_100_000);
    }
}
