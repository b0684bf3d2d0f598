//! The keeping site's lead asks every copy before it takes a group over, by a word or by silence: questions, answers and what follows
//! are [`Taking`]'s.

use farseal_core::group::{KeptCuts, Next, Reason, Round, Taking};

use super::event::{Event, Look};
use super::figures::Figure;
use super::{Mutation, World, pair};
use crate::check::group_silence;
use crate::world::Outcome;

impl World {
    /// What is under way does not give way to this.
    pub(super) fn is_being_taken(&self, group: usize, to: Reason) -> bool {
        let now = self.clock().instant;
        self.groups[group].taking.as_ref().is_some_and(|taking| !taking.gives_way(now, to))
    }

    /// Every copy of a group is asked whether it can be taken over.
    pub(super) fn ask_all(&mut self, group: usize, reason: Reason) {
        let look = if reason == Reason::Word { Look::None } else { Look::First };
        let round = self.round();
        self.groups[group].taking = Some(Taking::new(reason, round, self.groups[group].pairs()));
        self.ask_lanes(group, round, look);
    }

    fn ask_lanes(&mut self, group: usize, round: Round, look: Look) {
        for lane in self.groups[group].lanes.clone() {
            let (life, delay) = (self.keepers[lane].life, self.way());
            self.after(delay, Event::CanItBeTaken { lane, life, round, look });
        }
    }

    /// No two are the same, also over a crash of the lead.
    fn round(&mut self) -> Round {
        self.keeping.rounds += 1;
        Round(self.keeping.rounds)
    }

    /// A copy finds out whether it can be taken over.
    pub(super) fn asked_whether_it_can(&mut self, lane: usize, round: Round, look: Look) {
        if self.keepers[lane].machine.is_none() {
            return;
        }
        let silent = match look {
            Look::None => true,
            Look::First => self.is_silent(lane) && self.is_silent_for_witness(lane),
            Look::Last => self.is_silent(lane),
        };
        let can = silent && !self.keepers[lane].is_taken();
        // What the witness said is made durable first.
        match look {
            Look::First => {
                let (life, delay) = (self.keepers[lane].life, self.until_statement_is_kept());
                self.after(delay, Event::SaysIfItCan { lane, life, round, can });
            }
            Look::None | Look::Last => self.says_if_it_can(lane, round, can),
        }
    }

    /// It says so after all that it has said before of what it holds.
    pub(super) fn says_if_it_can(&mut self, lane: usize, round: Round, can: bool) {
        let Some(machine) = self.keepers[lane].machine.as_ref() else { return };
        let cuts = machine.is_recovered().then(|| machine.cuts().clone());
        let life = self.keeping.life;
        let delay = self.way_to_keeping_lead(lane);
        self.after(delay, Event::CanBeTaken { lane, life, cuts, round, can });
    }

    pub(super) fn can_be_taken(&mut self, lane: usize, cuts: Option<KeptCuts>, round: Round, can: bool) -> Outcome {
        if let Some(cuts) = cuts {
            self.hear_cuts(lane, cuts)?;
        }
        let (group, now) = (self.group_of(lane), self.clock().instant);
        let taking = self.groups[group].taking.as_mut();
        let next = taking.map_or(Next::Waits, |taking| taking.answered(now, pair(lane), round, can));
        self.goes_on(group, next)
    }

    /// Its lead hears that a copy's node is gone.
    pub(super) fn copy_is_gone(&mut self, lane: usize) -> Outcome {
        let (group, now) = (self.group_of(lane), self.clock().instant);
        let taking = self.groups[group].taking.as_mut();
        let next = taking.map_or(Next::Waits, |taking| taking.gone(now, pair(lane)));
        self.goes_on(group, next)
    }

    fn goes_on(&mut self, group: usize, next: Next) -> Outcome {
        match next {
            Next::Waits => Ok(()),
            Next::LookAgain if self.mutation == Some(Mutation::NoLastLook) => self.decide(group),
            Next::LookAgain if self.may_take_over(group) => {
                let (round, lanes) = (self.round(), self.groups[group].pairs());
                self.groups[group].taking.iter_mut().for_each(|taking| taking.look_again(round, lanes.clone()));
                self.ask_lanes(group, round, Look::Last);
                Ok(())
            }
            Next::Decide => self.decide(group),
            Next::Refuse => {
                self.figures.count(Figure::TakeoversRefused);
                self.takes_nothing(group)
            }
            Next::TooOld => {
                self.figures.count(Figure::StatementsTooOld);
                self.takes_nothing(group)
            }
            Next::LookAgain => self.takes_nothing(group),
        }
    }

    fn decide(&mut self, group: usize) -> Outcome {
        let taking = self.groups[group].taking.take();
        if taking.is_some_and(|taking| taking.reason() != Reason::Word) {
            return self.decide_by_silence(group);
        }
        if self.want_takeover(group)? {
            self.figures.count(Figure::TakeoversByTheWord);
            return Ok(());
        }
        self.takes_nothing(group)
    }

    pub(super) fn decide_by_silence(&mut self, group: usize) -> Outcome {
        if self.want_takeover(group)? {
            self.figures.count(Figure::TakeoversBySilence);
            return group_silence::decided(self, group);
        }
        self.takes_nothing(group)
    }

    fn takes_nothing(&mut self, group: usize) -> Outcome {
        self.groups[group].taking = None;
        self.groups[group].lanes.clone().into_iter().for_each(|lane| self.refuse_word(lane));
        Ok(())
    }

    /// The keeping site's lead forgets whom it asked.
    pub(super) fn forget_asked(&mut self) {
        self.groups.iter_mut().for_each(|group| group.taking = None);
    }
}
