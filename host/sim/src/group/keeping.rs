//! The keeping site's lead: what all of a group's copies hold, how far each may be offered, and takeovers of all at one cut.

use farseal_core::group::{Common, KeptCuts, OfferLimit};
use farseal_core::record::CutMark;
use farseal_core::units::{CutNumber, Sequence, WallTime};

use super::event::{Event, KeeperEvent};
use super::figures::Figure;
use super::{Mutation, World, pair};
use crate::check::{Failure, group_cut, group_disaster, group_pause, group_turn};
use crate::world::Outcome;

/// The lead itself; what it must not forget is in its groups.
#[derive(Debug, Default)]
pub(super) struct KeepingLead {
    pub up: bool,
    pub life: u64,
    /// Of questions, whichever life they were of.
    pub rounds: u64,
}

impl World {
    pub(super) fn crash_keeping_lead(&mut self) {
        if std::mem::replace(&mut self.keeping.up, false) {
            self.figures.count(Figure::CrashesOfTheKeepingLead);
            self.keeping.life += 1;
            self.forget_asked();
            let delay = self.dice.between(1_000, 300_000);
            self.after(delay, Event::KeepingLeadBack);
        }
    }

    /// It knows what it kept, and hears the rest from each keeper anew.
    pub(super) fn keeping_lead_back(&mut self) {
        if std::mem::replace(&mut self.keeping.up, true) {
            return;
        }
        let forgets = self.mutation == Some(Mutation::TakeoverForgotten);
        for group in &mut self.groups {
            let taking_over = group.taking_over.or(group.taken).filter(|_| !forgets);
            group.common = Common::new(group.pairs(), taking_over.unwrap_or(group.held), taking_over.is_some());
        }
        for lane in 0..self.keepers.len() {
            self.say_cuts(lane);
            self.tell_limit(lane);
        }
    }

    /// A keeper says what it holds.
    pub(super) fn say_cuts(&mut self, lane: usize) {
        let Some(machine) = self.keepers[lane].machine.as_ref().filter(|machine| machine.is_recovered()) else {
            return;
        };
        let cuts = machine.cuts().clone();
        let (life, delay) = (self.keeping.life, self.way_to_keeping_lead(lane));
        self.after(delay, Event::Cuts { lane, life, cuts });
    }

    /// The keeping site's lead hears what a copy holds.
    pub(super) fn hear_cuts(&mut self, lane: usize, mut cuts: KeptCuts) -> Outcome {
        if self.mutation == Some(Mutation::UnconfirmedOffered) {
            for cut in cuts.held().keys().copied().collect::<Vec<_>>() {
                cuts.see(CutMark::Confirmed { cut, lanes: 0 }, Sequence::NONE, WallTime(0));
            }
        }
        let at = self.group_of(lane);
        let group = &mut self.groups[at];
        if !group.common.heard(pair(lane), cuts) {
            if self.mutation == Some(Mutation::TakeoverForgotten) && self.dice.chance(100) {
                // What another copy says of a later cut may be on its way: a lead that forgets goes on to that one.
                self.want_takeover(at)?;
            }
            return Ok(());
        }
        if self.dice.chance(200) {
            group.held = group.common.cut();
        }
        self.figures.count(Figure::CutsOffered);
        let cut = group.common.cut();
        group_cut::offered(self, at, cut)?;
        group_pause::offered(self, at, cut)?;
        self.groups[at].lanes.clone().into_iter().for_each(|lane| self.tell_limit(lane));
        Ok(())
    }

    /// How far it may offer; in the middle of a takeover, that it is taken over there.
    pub(super) fn tell_limit(&mut self, lane: usize) {
        if !self.keeping.up {
            return;
        }
        let group = &self.groups[self.group_of(lane)];
        let limit = group.common.limit();
        let event = match (group.taking_over, self.mutation) {
            (None, _) => KeeperEvent::Limit(limit),
            (Some(_), Some(Mutation::TakenOverApart)) => KeeperEvent::TakeOver(OfferLimit::Everything),
            (Some(_), Some(_) | None) => KeeperEvent::TakeOver(limit),
        };
        let (life, delay) = (self.keepers[lane].life, self.way());
        self.after(delay, Event::Keeper { lane, life, event });
    }

    /// As in a node, all of a group's copies must be there and hold a cut.
    pub(super) fn may_take_over(&self, at: usize) -> bool {
        let group = &self.groups[at];
        let there = |lane: &usize| self.keepers[*lane].machine.is_some();
        let cut = group.common.cut();
        let known = group.lanes.iter().all(|lane| group.common.knows(pair(*lane)));
        let none = (cut == CutNumber::NONE || !known) && group.lanes.len() > 1;
        // And not where initiators write at this site already.
        !self.has_gone_over(group)
            && self.keeping.up
            && group.taking_over.or(group.taken).is_none()
            && !none
            && group.lanes.iter().all(there)
    }

    /// All copies of a group at one cut, or none: decided, durably, before the first is told.
    pub(super) fn want_takeover(&mut self, at: usize) -> Result<bool, Failure> {
        if !self.may_take_over(at) {
            return Ok(false);
        }
        self.ask_copies(at)?;
        if !self.may_take_over(at) {
            return Ok(false);
        }
        let (group, now) = (&self.groups[at], self.now);
        let cut = group.common.cut();
        if group.is_paused() {
            self.figures.count(Figure::TakeoversOfAPausedGroup);
        }
        let group = &mut self.groups[at];
        if self.mutation != Some(Mutation::TakeoverForgotten) {
            group.common.fix();
        }
        (group.taking_over, group.held) = (Some(cut), cut);
        group.disaster.decided_us = Some(now);
        let lanes = group.lanes.clone();
        lanes.iter().for_each(|lane| self.tell_limit(*lane));
        if self.mutation == Some(Mutation::TakeoverForgotten) {
            // What is kept matters to a keeper that has not heard, and asks a lead that does not remember.
            self.crash_keeper(lanes[0])?;
            self.crash_keeping_lead();
        }
        Ok(true)
    }

    /// As in a node, each is asked whether it can, and says first what it holds: what all of them have by now is not known otherwise.
    fn ask_copies(&mut self, at: usize) -> Outcome {
        if matches!(self.mutation, Some(Mutation::TakeoverForgotten | Mutation::CopiesNotAsked)) {
            return Ok(());
        }
        for lane in self.groups[at].lanes.clone() {
            let machine = self.keepers[lane].machine.as_ref().filter(|machine| machine.is_recovered());
            if let Some(cuts) = machine.map(|machine| machine.cuts().clone()) {
                self.hear_cuts(lane, cuts)?;
            }
        }
        Ok(())
    }

    /// A keeper's new generation is durable.
    pub(super) fn taken_over(&mut self, lane: usize) -> Outcome {
        let at = self.group_of(lane);
        if self.keepers[lane].is_handed_over() {
            self.figures.count(Figure::LanesHandedOver);
            return group_turn::handed_over(self, lane);
        }
        if self.has_gone_over(&self.groups[at]) {
            self.figures.count(Figure::TakenOverAlone);
            return group_disaster::taken_alone(self, lane);
        }
        let group = &self.groups[at];
        let (Some(cut), true) = (group.taking_over, group.lanes.iter().all(|lane| self.keepers[*lane].is_taken()))
        else {
            return Ok(());
        };
        self.groups[at].taking_over = None;
        self.groups[at].taken = Some(cut);
        self.figures.count(Figure::Takeovers);
        if self.healed.is_none() {
            self.figures.count(Figure::TakeoversInTheMiddle);
        }
        group_cut::taken_over(self, at, cut)
    }
}
