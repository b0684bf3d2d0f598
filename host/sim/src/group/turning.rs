//! Changes of sides of whole groups: what an operator wants, what lanes and keepers do of it, and what happens in the middle.

use farseal_core::frame::HandOver;
use farseal_core::group::{Command, Input as GroupInput, LaneStanding, OfferLimit, Phase};
use farseal_core::primary::{self, CutCopied, Input, PauseState, SwapState};
use farseal_core::units::{CutNumber, Generation, Ticket};

use super::event::{Event, KeeperEvent, LaneEvent};
use super::figures::Figure;
use super::lead::Group;
use super::{Mutation, World, pair};
use crate::check::group_turn;
use crate::dice::Dice;
use crate::disk::{to_usize, wide};
use crate::world::Outcome;

/// What the world knows of a group's changes of sides, whoever crashed since.
#[derive(Clone, Copy, Debug, Default)]
pub struct Turning {
    /// Who wants the one that is under way; nobody after a crash of the lead.
    pub waits: Option<Ticket>,
    /// Names the last that began.
    pub name: u64,
    /// It was decided, behind this cut.
    pub decided: Option<CutNumber>,
    /// An operator had the rest go on.
    pub given_up: bool,
    /// The writing site was lost meanwhile.
    pub lost: bool,
}

impl Group {
    /// It is under way, decided or not.
    pub fn is_turning(&self) -> bool {
        self.is_decided() || self.turn.waits.is_some()
    }

    pub fn is_decided(&self) -> bool {
        match self.phase {
            Phase::Turning { .. } => true,
            Phase::Running | Phase::Paused { .. } => false,
        }
    }
}

impl World {
    /// Lanes of it have changed sides by their own wish, or are not taken over together any more.
    pub fn has_gone_over(&self, group: &Group) -> bool {
        group.taken.is_none()
            && group.taking_over.is_none()
            && group.lanes.iter().any(|lane| self.keepers[*lane].is_taken())
    }

    pub(super) fn is_turning(&self) -> bool {
        self.groups.iter().any(|group| group.is_turning() && !group.turn.lost)
    }

    // ---- an operator

    /// In a thousand commands. Worlds that are broken elsewhere do without.
    pub(super) fn turn_rate(&self) -> u64 {
        match self.mutation {
            Some(Mutation::TurnedTooEarly | Mutation::TurnedOneByOne | Mutation::DecisionForgotten) => 700,
            Some(
                Mutation::ReleasedEarly
                | Mutation::UnconfirmedOffered
                | Mutation::BoundaryLate
                | Mutation::ReadNotHeld
                | Mutation::TakenOverApart
                | Mutation::TakeoverForgotten
                | Mutation::ResumedAlone
                | Mutation::LimitNotAsked
                | Mutation::WordForOnePair
                | Mutation::CopiesNotAsked
                | Mutation::SaidByTheAnswer
                | Mutation::NamedTooEarly
                | Mutation::SilenceOfOne
                | Mutation::NoLastLook,
            ) => 0,
            None => 250,
        }
    }

    pub(super) fn want_turn(&mut self, group: usize) -> Outcome {
        // Nobody changes sides with a site that takes over.
        if self.groups[group].taking_over.is_some() {
            return Ok(());
        }
        self.figures.count(Figure::TurnsWanted);
        let waits = self.groups[group].turn.waits;
        self.want(group, Command::Turn)?;
        // Refused at once, because of one that is under way.
        self.groups[group].turn.waits = self.groups[group].turn.waits.or(waits);
        Ok(())
    }

    /// Accidents are over: lanes that were paused alone would stay here for ever.
    pub(super) fn let_turns_end(&mut self) -> Outcome {
        for lane in 0..self.lanes.len() {
            let paused = self.lanes[lane].machine.as_ref().is_some_and(|machine| match machine.status().pause {
                PauseState::Pausing | PauseState::Paused => true,
                PauseState::Running => false,
            });
            if paused && self.groups[self.group_of(lane)].is_decided() {
                self.tell_lane(lane, Input::Operator(primary::Command::Resume))?;
            }
        }
        Ok(())
    }

    // ---- the lead

    pub(super) fn turn_begins(&mut self, group: usize) {
        self.groups[group].turn.name = self.next_ticket;
    }

    pub(super) fn turn_answered(&mut self, group: usize, ticket: Ticket, refused: bool) {
        let group = &mut self.groups[group];
        if group.turn.waits == Some(ticket) {
            group.turn.waits = None;
            self.figures.add(Figure::TurnsRefused, u64::from(refused));
        }
    }

    pub(super) fn decided(&mut self, group: usize, before: Phase, cut: CutNumber) {
        self.figures.count(Figure::TurnsDecided);
        let turn = &mut self.groups[group].turn;
        (turn.decided, turn.given_up) = (Some(cut), false);
        if self.mutation == Some(Mutation::DecisionForgotten) {
            self.groups[group].phase = before;
        }
        for _ in 0..self.dice.below(3) {
            let delay = self.dice.between(1, 150_000);
            self.after(delay, Event::InTheMiddle(group));
        }
    }

    pub(super) fn turn_ended(&mut self, group: usize, before: Phase) {
        match before {
            Phase::Turning { .. } if self.groups[group].lanes.iter().all(|lane| self.lanes[*lane].turned) => {
                self.figures.count(Figure::TurnsCompleted);
            }
            Phase::Turning { .. } => {
                self.figures.count(Figure::TurnsGivenUp);
                self.groups[group].turn.given_up = true;
            }
            Phase::Running | Phase::Paused { .. } => {}
        }
    }

    // ---- lanes

    /// Blocks of an earlier takeover may have to be opened first.
    pub(super) fn prepare_turn(&mut self, lane: usize) {
        let most = if self.dice.chance(100) { 300_000 } else { 2_000 };
        let (session, delay) = (self.members[lane].session, self.dice.between(10, most));
        self.after(delay, Event::Prepared { lane, session });
    }

    pub(super) fn prepared_turn(&mut self, lane: usize) {
        let ready = !self.dice.chance(20);
        self.say(lane, GroupInput::Ready { lane: pair(lane), ready });
    }

    pub(super) fn stand_still(&mut self, lane: usize) -> Outcome {
        if self.mutation == Some(Mutation::TurnedOneByOne) {
            return Ok(());
        }
        self.tell_lane(lane, Input::Operator(primary::Command::Quiesce))?;
        if self.swap_of(lane) == Some(SwapState::Quiesced) {
            self.lanes[lane].stood = Some(self.groups[self.group_of(lane)].turn.name);
        }
        Ok(())
    }

    /// What a lane says of itself where its world is broken.
    pub(super) fn pretended(&self, lane: usize, standing: LaneStanding) -> LaneStanding {
        let quiesced = Some(SwapState::Quiesced);
        match self.mutation {
            Some(Mutation::TurnedOneByOne) if self.groups[self.group_of(lane)].is_turning() => {
                LaneStanding { swap: standing.swap.or(quiesced), ..standing }
            }
            Some(Mutation::TurnedTooEarly | Mutation::NamedTooEarly) if standing.swap == quiesced => {
                let copied = CutCopied { boundary: standing.newest, confirmed: standing.newest };
                LaneStanding { copied, ..standing }
            }
            Some(
                Mutation::ReleasedEarly
                | Mutation::UnconfirmedOffered
                | Mutation::BoundaryLate
                | Mutation::ReadNotHeld
                | Mutation::TakenOverApart
                | Mutation::TakeoverForgotten
                | Mutation::ResumedAlone
                | Mutation::TurnedTooEarly
                | Mutation::TurnedOneByOne
                | Mutation::DecisionForgotten
                | Mutation::LimitNotAsked
                | Mutation::WordForOnePair
                | Mutation::CopiesNotAsked
                | Mutation::SaidByTheAnswer
                | Mutation::NamedTooEarly
                | Mutation::SilenceOfOne
                | Mutation::NoLastLook,
            )
            | None => standing,
        }
    }

    /// The change of sides for which a lane stood still and does not any more, where a write is taken now.
    pub(super) fn in_between(&mut self, lane: usize) -> Option<u64> {
        let stood = self.lanes[lane].stood;
        let group = &self.groups[self.group_of(lane)];
        let counts = stood.is_some_and(|stood| group.is_decided() && stood == group.turn.name);
        self.figures.add(Figure::WroteInBetween, u64::from(counts));
        stood
    }

    pub(super) fn swap_of(&self, lane: usize) -> Option<SwapState> {
        self.lanes[lane].machine.as_ref()?.status().swap
    }

    /// It is made durable that a lane hands over.
    pub(super) fn hand_over_is_kept(&mut self, lane: usize, hand_over: HandOver) -> Outcome {
        group_turn::hands_over(self, lane)?;
        self.lanes[lane].handing = Some(hand_over);
        let delay = self.dice.between(100, 15_000);
        self.lane_later(lane, delay, LaneEvent::HandOverKept);
        if self.dice.chance(300) {
            let group = self.group_of(lane);
            let delay = self.dice.between(100, 60_000);
            self.after(delay, Event::InTheMiddle(group));
        }
        Ok(())
    }

    /// The other site has said that it writes.
    pub(super) fn handed_over(&mut self, lane: usize, hand_over: HandOver) -> Outcome {
        group_turn::heard(self, lane, &hand_over)?;
        let delay = self.dice.between(100, 60_000);
        self.lane_later(lane, delay, LaneEvent::Turned);
        Ok(())
    }

    /// The site that wrote keeps the copy now, durably. Its lead is told, and again whenever one of the two comes back.
    pub(super) fn lane_turned(&mut self, lane: usize) -> Outcome {
        self.lanes[lane].turned = true;
        self.lanes[lane].stop();
        self.hear_of_crash(lane, Vec::new())?;
        for path in self.paths(lane) {
            self.unlink(lane, path)?;
        }
        if self.members[lane].joined {
            self.say(lane, GroupInput::Turned { lane: pair(lane) });
        }
        Ok(())
    }

    /// The path is closed behind it: it may be lost with that.
    pub(super) fn answer_hand_over(&mut self, lane: usize, generation: Generation) {
        if self.dice.chance(700) {
            let delay = self.dice.between(50, 8_000);
            self.lane_later(lane, delay, LaneEvent::HandedOver { generation });
        }
    }

    // ---- in the middle of it

    pub(super) fn in_the_middle(&mut self, group: usize) -> Outcome {
        if self.healed.is_some() || !self.groups[group].is_turning() {
            return Ok(());
        }
        let lane = any_of(&mut self.dice, &self.groups[group].lanes);
        match self.dice.below(13) {
            0 | 1 => {
                self.figures.count(Figure::CrashesDuringATurn);
                self.crash_lane(lane)
            }
            2 | 3 => {
                self.figures.count(Figure::CrashesDuringATurn);
                self.crash_lead();
                Ok(())
            }
            4 => self.crash_keeper(lane),
            5 => self.leave(lane),
            6 | 7 => self.paths(lane).try_for_each(|path| self.unlink(lane, path)),
            8 | 9 => self.lose_site(group),
            10 => self.want(group, Command::Resume),
            11 => {
                self.crash_keeping_lead();
                Ok(())
            }
            _ => self.command_alone(lane),
        }
    }

    /// All of a group's lanes are lost at once, with what was on its way; its copies are taken over as they are.
    pub(super) fn lose_site(&mut self, group: usize) -> Outcome {
        if self.groups[group].turn.lost || self.groups[group].taking_over.is_some() {
            return Ok(());
        }
        self.figures.count(Figure::LostDuringATurn);
        self.groups[group].turn.lost = true;
        for lane in self.groups[group].lanes.clone() {
            self.lanes[lane].gone = !self.lanes[lane].turned;
            self.stop_lane(lane)?;
        }
        let delay = self.dice.between(1_000, 100_000);
        self.after(delay, Event::TakeWhatIsLeft(group));
        Ok(())
    }

    /// Where none has changed sides, all of them together; else each of the others by itself.
    pub(super) fn take_what_is_left(&mut self, group: usize) -> Outcome {
        let lanes = self.groups[group].lanes.clone();
        if lanes.iter().all(|lane| self.keepers[*lane].is_taken()) {
            self.site_back(group);
            return Ok(());
        }
        self.after(50_000, Event::TakeWhatIsLeft(group));
        if !self.has_gone_over(&self.groups[group]) {
            return self.want_takeover(group).map(drop);
        }
        for lane in lanes.into_iter().filter(|lane| !self.keepers[*lane].is_taken()).collect::<Vec<_>>() {
            let (life, delay) = (self.keepers[lane].life, self.dice.between(10, 30_000));
            self.after(delay, Event::Keeper { lane, life, event: KeeperEvent::TakeOver(OfferLimit::Everything) });
        }
        Ok(())
    }

    /// What was lost is found again: each lane learns that its copy was taken over, and by whose wish.
    fn site_back(&mut self, group: usize) {
        self.figures.count(Figure::LostAndBack);
        for lane in self.groups[group].lanes.clone() {
            if std::mem::take(&mut self.lanes[lane].gone) {
                let delay = self.dice.between(1_000, 200_000);
                self.after(delay, Event::LaneBack(lane));
                self.after(delay + 1, Event::Join(lane));
                self.paths(lane).for_each(|path| self.after(delay + 1, Event::Connect { lane, path }));
            }
        }
    }
}

pub(super) fn any_of(dice: &mut Dice, lanes: &[usize]) -> usize {
    lanes.get(to_usize(dice.below(wide(lanes.len())))).copied().unwrap_or(0)
}
