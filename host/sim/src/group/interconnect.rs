//! Between a site's lead and its lanes: words that arrive late and in order, or not at all.

use farseal_core::group::{Input as GroupInput, LaneStanding, Output as GroupOutput};
use farseal_core::primary::{self, Input};
use farseal_core::units::PairId;

use super::event::Event;
use super::{Mutation, World, pair};
use crate::world::Outcome;

/// A lane's node, as the lead of its site has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member {
    pub joined: bool,
    /// Of another connection nothing arrives.
    pub session: u64,
    /// When the last word of each direction arrives: words do not overtake each other.
    order_at: u64,
    report_at: u64,
    /// Something was written since its last cut.
    pub written: bool,
}

impl Member {
    pub(super) fn new() -> Self {
        Self { joined: false, session: 0, order_at: 0, report_at: 0, written: true }
    }
}

impl World {
    pub(super) fn join(&mut self, lane: usize) -> Outcome {
        if self.members[lane].joined || !self.lead.up {
            return Ok(());
        }
        if self.lanes[lane].gone {
            return Ok(());
        }
        let Some(hello) = self.hello(lane) else {
            self.after(20_000, Event::Join(lane));
            return Ok(());
        };
        let now = self.now;
        let member = &mut self.members[lane];
        member.joined = true;
        member.session += 1;
        (member.order_at, member.report_at) = (now, now);
        let session = member.session;
        self.say(lane, hello);
        self.after(50_000, Event::Look { lane, session });
        Ok(())
    }

    /// The connection breaks; the lead hears of it.
    pub(super) fn leave(&mut self, lane: usize) -> Outcome {
        let member = &mut self.members[lane];
        if !std::mem::replace(&mut member.joined, false) {
            return Ok(());
        }
        member.session += 1;
        let delay = self.dice.between(1_000, 100_000);
        self.after(delay, Event::Join(lane));
        self.tell_lead(self.group_of(lane), GroupInput::Left { lane: pair(lane) })
    }

    /// Every so often it says how it stands.
    pub(super) fn look(&mut self, lane: usize, session: u64) -> Outcome {
        self.say_standing(lane);
        self.after(50_000, Event::Look { lane, session });
        Ok(())
    }

    fn say_standing(&mut self, lane: usize) {
        if let Some(standing) = self.standing(lane) {
            self.say(lane, GroupInput::Stands { lane: pair(lane), standing });
        }
    }

    /// What its node says first of a lane.
    fn hello(&self, lane: usize) -> Option<GroupInput> {
        if self.lanes[lane].turned {
            return Some(GroupInput::Turned { lane: pair(lane) });
        }
        Some(GroupInput::Joined { lane: pair(lane), standing: self.standing(lane)? })
    }

    fn standing(&self, lane: usize) -> Option<LaneStanding> {
        let standing = self.lanes[lane].machine.as_ref()?.standing();
        let standing = LaneStanding { written: self.members[lane].written, ..standing };
        Some(self.pretended(lane, standing))
    }

    pub(super) fn way(&mut self) -> u64 {
        match self.dice.below(100) {
            0..4 => self.dice.between(5_000, 60_000),
            _ => self.dice.between(20, 1_500),
        }
    }

    pub(super) fn say(&mut self, lane: usize, report: GroupInput) {
        let at = (self.now + self.way()).max(self.members[lane].report_at + 1);
        self.members[lane].report_at = at;
        let session = self.members[lane].session;
        self.after(at - self.now, Event::Report { lane, session, report });
    }

    pub(super) fn order(&mut self, lane: PairId, order: GroupOutput) {
        let Some(lane) = (0..self.lanes.len()).find(|index| pair(*index) == lane) else { return };
        let at = (self.now + self.way()).max(self.members[lane].order_at + 1);
        self.members[lane].order_at = at;
        let session = self.members[lane].session;
        self.after(at - self.now, Event::Order { lane, session, order });
    }

    pub(super) fn obey(&mut self, lane: usize, order: GroupOutput) -> Outcome {
        if self.lanes[lane].machine.is_none() {
            return Ok(());
        }
        match order {
            GroupOutput::Open { cut, lanes, .. } => {
                self.members[lane].written = false;
                if self.mutation == Some(Mutation::BoundaryLate) {
                    self.say(lane, GroupInput::Opened { lane: pair(lane), cut });
                    let session = self.members[lane].session;
                    let late = GroupOutput::Confirm { lane: pair(lane), cut, lanes: u16::MAX, name: None };
                    self.after(3_000, Event::Order { lane, session, order: late });
                    return Ok(());
                }
                self.tell_lane(lane, Input::OpenCut { cut, lanes })?;
                self.say(lane, GroupInput::Opened { lane: pair(lane), cut });
                if self.mutation == Some(Mutation::ReleasedEarly) {
                    self.tell_lane(lane, Input::ReleaseCut { cut })?;
                }
                Ok(())
            }
            GroupOutput::Release { cut, .. } => {
                let held = self.lanes[lane].machine.as_ref().and_then(|machine| machine.status().hold);
                let hides = matches!(self.mutation, Some(Mutation::ReleasedEarly | Mutation::BoundaryLate));
                let whole = held == Some(cut) || hides;
                self.tell_lane(lane, Input::ReleaseCut { cut })?;
                self.say(lane, GroupInput::Released { lane: pair(lane), cut, whole });
                Ok(())
            }
            // The late boundary of a mutation.
            GroupOutput::Confirm { cut, lanes: u16::MAX, .. } => {
                let lanes = self.groups[self.group_of(lane)].lanes.len();
                let lanes = u16::try_from(lanes).unwrap_or(u16::MAX);
                self.tell_lane(lane, Input::OpenCut { cut, lanes })?;
                self.tell_lane(lane, Input::ReleaseCut { cut })
            }
            GroupOutput::Confirm { cut, lanes, name, .. } => {
                self.tell_lane(lane, Input::ConfirmCut { cut, lanes, name })?;
                // As a node tells what changes: a disaster does not wait for the next look.
                if self.disasters.may_come() {
                    self.say_standing(lane);
                }
                Ok(())
            }
            GroupOutput::Pause { .. } => self.tell_lane(lane, Input::Operator(primary::Command::Pause)),
            GroupOutput::Resume { .. } => self.tell_lane(lane, Input::Operator(primary::Command::Resume)),
            GroupOutput::PrepareTurn { .. } => {
                self.prepare_turn(lane);
                Ok(())
            }
            GroupOutput::Quiesce { .. } => self.stand_still(lane),
            GroupOutput::GoOn { .. } => {
                self.lanes[lane].stood = None;
                self.tell_lane(lane, Input::Operator(primary::Command::GoOn))
            }
            GroupOutput::HandOver { .. } => self.tell_lane(lane, Input::Operator(primary::Command::HandOver)),
            GroupOutput::Declare { .. } => {
                self.say_word(lane);
                Ok(())
            }
            GroupOutput::Reserve { .. }
            | GroupOutput::Persist { .. }
            | GroupOutput::Named { .. }
            | GroupOutput::Answer { .. }
            | GroupOutput::Event(_) => Ok(()),
        }
    }
}
