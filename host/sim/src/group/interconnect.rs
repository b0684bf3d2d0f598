//! Between a site's lead and its lanes: words that arrive late and in order, or not at all.

use farseal_core::group::{Coordinator, Input as GroupInput, KeptCuts, LaneStanding, Output as GroupOutput, Phase};
use farseal_core::primary::{self, Input};
use farseal_core::record::CutMark;
use farseal_core::units::{PairId, Sequence, WallTime};

use super::{Event, Mutation, World, pair};
use crate::check::group_cut;
use crate::world::Outcome;

impl World {
    pub(super) fn join(&mut self, lane: usize) -> Outcome {
        if self.joined[lane] || self.lead.is_none() {
            return Ok(());
        }
        let Some(standing) = self.standing(lane) else {
            self.after(20_000, Event::Join(lane));
            return Ok(());
        };
        self.joined[lane] = true;
        self.sessions[lane] += 1;
        (self.order_at[lane], self.report_at[lane]) = (self.now, self.now);
        let session = self.sessions[lane];
        self.say(lane, GroupInput::Joined { lane: pair(lane), standing });
        self.after(50_000, Event::Look { lane, session });
        Ok(())
    }

    /// The connection breaks; the lead hears of it later.
    pub(super) fn leave(&mut self, lane: usize) {
        if std::mem::replace(&mut self.joined[lane], false) {
            self.sessions[lane] += 1;
            self.tell_lead(GroupInput::Left { lane: pair(lane) });
            let delay = self.dice.between(1_000, 100_000);
            self.after(delay, Event::Join(lane));
        }
    }

    pub(super) fn standing(&self, lane: usize) -> Option<LaneStanding> {
        let standing = self.lanes[lane].machine.as_ref()?.standing();
        Some(LaneStanding { written: self.written[lane], ..standing })
    }

    pub(super) fn way(&mut self) -> u64 {
        match self.dice.below(100) {
            0..4 => self.dice.between(5_000, 60_000),
            _ => self.dice.between(20, 1_500),
        }
    }

    pub(super) fn say(&mut self, lane: usize, report: GroupInput) {
        let at = (self.now + self.way()).max(self.report_at[lane] + 1);
        self.report_at[lane] = at;
        let session = self.sessions[lane];
        self.after(at - self.now, Event::Report { lane, session, report });
    }

    pub(super) fn obey(&mut self, lane: usize, order: GroupOutput) -> Outcome {
        match order {
            GroupOutput::Open { cut, lanes, .. } => {
                self.written[lane] = false;
                if self.mutation == Some(Mutation::BoundaryLate) {
                    self.say(lane, GroupInput::Opened { lane: pair(lane), cut });
                    let session = self.sessions[lane];
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
                let whole = held == Some(cut) || self.mutation.is_some();
                self.tell_lane(lane, Input::ReleaseCut { cut })?;
                self.say(lane, GroupInput::Released { lane: pair(lane), cut, whole });
                Ok(())
            }
            // The late boundary of a mutation.
            GroupOutput::Confirm { cut, lanes: u16::MAX, .. } => {
                let lanes = u16::try_from(self.lanes.len()).unwrap_or(u16::MAX);
                self.tell_lane(lane, Input::OpenCut { cut, lanes })?;
                self.tell_lane(lane, Input::ReleaseCut { cut })
            }
            GroupOutput::Confirm { cut, lanes, name, .. } => {
                self.tell_lane(lane, Input::ConfirmCut { cut, lanes, name })
            }
            GroupOutput::Pause { .. } => self.tell_lane(lane, Input::Operator(primary::Command::Pause)),
            GroupOutput::Resume { .. } => self.tell_lane(lane, Input::Operator(primary::Command::Resume)),
            GroupOutput::Reserve { .. }
            | GroupOutput::Persist { .. }
            | GroupOutput::Named { .. }
            | GroupOutput::Answer { .. }
            | GroupOutput::Event(_) => Ok(()),
        }
    }

    pub(super) fn tell_lead(&mut self, input: GroupInput) {
        let now = self.clock();
        if let Some(lead) = &mut self.lead {
            lead.handle(now, &mut self.numbers, input);
        }
        self.carry_out_lead();
    }

    pub(super) fn carry_out_lead(&mut self) {
        while let Some(output) = self.lead.as_mut().and_then(Coordinator::poll_output) {
            match &output {
                GroupOutput::Open { lane, .. }
                | GroupOutput::Release { lane, .. }
                | GroupOutput::Pause { lane }
                | GroupOutput::Resume { lane } => self.order(*lane, output.clone()),
                GroupOutput::Confirm { lane, cut, .. } => {
                    self.made.insert(*cut);
                    self.order(*lane, output.clone());
                }
                GroupOutput::Reserve { through } => {
                    self.reserved = self.reserved.max(*through);
                    let life = self.lead_life;
                    self.after(3_000, Event::Reserved { life });
                }
                GroupOutput::Persist { phase } => {
                    self.report.paused += u64::from(*phase != Phase::Running);
                    self.phase = *phase;
                }
                GroupOutput::Named { .. } | GroupOutput::Answer { .. } | GroupOutput::Event(_) => {}
            }
        }
        let now = self.clock();
        if let Some(lead) = &self.lead {
            let status = lead.status(now);
            (self.report.made, self.report.abandoned) =
                (self.report.made.max(status.made), self.report.abandoned.max(status.abandoned));
            if let Some(at) = lead.poll_timeout() {
                let (life, delay) = (self.lead_life, at.since(now.instant).0.max(1) * 1_000);
                self.after(delay, Event::LeadTick { life });
            }
        }
    }

    pub(super) fn order(&mut self, lane: PairId, order: GroupOutput) {
        let Some(lane) = (0..self.lanes.len()).find(|index| pair(*index) == lane) else { return };
        let at = (self.now + self.way()).max(self.order_at[lane] + 1);
        self.order_at[lane] = at;
        let session = self.sessions[lane];
        self.after(at - self.now, Event::Order { lane, session, order });
    }

    /// The keeping site's lead hears what a copy holds.
    pub(super) fn hear_cuts(&mut self, lane: usize, mut cuts: KeptCuts) -> Outcome {
        if self.mutation == Some(Mutation::UnconfirmedOffered) {
            for cut in cuts.held().keys().copied().collect::<Vec<_>>() {
                cuts.see(CutMark::Confirmed { cut, lanes: 0 }, Sequence::NONE, WallTime(0));
            }
        }
        if !self.common.heard(pair(lane), cuts) {
            return Ok(());
        }
        self.report.offered += 1;
        let limit = self.common.limit();
        group_cut::offered(self, self.common.cut())?;
        for lane in 0..self.keepers.len() {
            let (life, delay) = (self.keepers[lane].life, self.way());
            self.after(delay, Event::Limit { lane, life, limit });
        }
        Ok(())
    }
}
