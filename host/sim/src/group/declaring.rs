//! A site that declares a disaster of a group: its lanes stand still for a cut, every copy hears the word, and the other site takes all
//! of them over or none, while either site crashes and links are cut.
//!
//! It is driven as nodes drive it: one pair's word is the group's, the keeping site's lead asks every copy before it decides, a
//! copy answers before it raises its generation, and a lane says that it was taken over when it knows by itself, whoever's word
//! it was.

use std::collections::BTreeSet;

use farseal_core::declare::{Answer, Declare, Keeps, Refusal as WordRefused};
use farseal_core::group::{Command, Input as GroupInput, OfferLimit, Reason, Refusal};
use farseal_core::units::{CutNumber, Generation, Path, Ticket};

use super::event::{Event, KeeperEvent, LaneEvent, ToKeeper};
use super::figures::Figure;
use super::turning::any_of;
use super::{Mutation, World, pair};
use crate::check::group_disaster;
use crate::dice::Dice;
use crate::disk::{to_usize, wide};
use crate::world::Outcome;

const STREAM: u64 = 43;
/// Worlds in which a disaster is declared are so much slower: the word may take seconds, and accidents are to come until then.
pub(super) const SLOWER: u64 = 6;
/// How long a lane's node waits for its copy's answer, then for another lane's word to fence it, and for its own to do so, in
/// microseconds.
const ANSWER_US: u64 = 10_000_000;
const OTHERS_WORD_US: u64 = 5_000_000;
const FENCED_US: u64 = 15_000_000;
/// Between two looks at that.
const LOOK_US: u64 = 50_000;

/// The operators at the writing site.
#[derive(Debug)]
pub(super) struct Disasters {
    dice: Dice,
    /// In a thousand operations; 0 where no disaster is declared.
    rate: u64,
    words: u64,
}

/// What is known of the disasters of one group.
#[derive(Clone, Debug, Default)]
pub struct Disaster {
    /// Who waits for the end; nobody after a crash of the lead.
    waits: Option<Ticket>,
    pub wanted_us: u64,
    /// When the word went out.
    pub said_us: Option<u64>,
    /// To these lanes' copies.
    pub said_to: BTreeSet<usize>,
    /// The checker's: what every copy held by then, for good.
    pub held: BTreeSet<CutNumber>,
    /// When the keeping site's lead decided to take the group over.
    pub decided_us: Option<u64>,
}

/// A word that a lane's node waits for.
#[derive(Clone, Copy, Debug)]
pub struct Word {
    id: u64,
    /// It is for nothing then.
    until: u64,
}

impl Disasters {
    /// Some seeds have such an operator, and no world that is broken elsewhere.
    pub(super) fn draw(seed: u64, mutation: Option<Mutation>) -> Self {
        let mut dice = Dice::new(seed, STREAM);
        let rate = match mutation {
            None if dice.chance(300) => dice.between(10, 60),
            Some(mutation) if mutation.is_of_declaring() => 60,
            None | Some(_) => 0,
        };
        Self { dice, rate, words: 0 }
    }

    /// A disaster may be declared in this run.
    pub(super) fn may_come(&self) -> bool {
        self.rate > 0
    }

    pub(super) fn slower(&self) -> u64 {
        if self.may_come() { SLOWER } else { 1 }
    }
}

// ---- the site that writes

impl World {
    /// What an operator wants at this instant.
    pub(super) fn declare(&mut self) -> Outcome {
        if !self.disasters.dice.chance(self.disasters.rate) {
            return Ok(());
        }
        let group = self.any_group();
        let over = self.groups[group].lanes.iter().all(|lane| self.lanes[*lane].is_over());
        if self.groups[group].disaster.waits.is_some() || !self.lead.up || over {
            return Ok(());
        }
        self.figures.count(Figure::DisastersDeclared);
        let (ticket, now) = (self.ticket(), self.now);
        let disaster = &mut self.groups[group].disaster;
        (disaster.waits, disaster.wanted_us, disaster.said_us) = (Some(ticket), now, None);
        disaster.said_to.clear();
        disaster.held.clear();
        for _ in 0..self.disasters.dice.below(4) {
            let most = if self.disasters.dice.chance(500) { 100_000 } else { 8_000_000 };
            let delay = self.disasters.dice.between(1, most);
            self.after(delay, Event::InTheDisaster(group));
        }
        self.tell_lead(group, GroupInput::Wanted { ticket, command: Command::Declare })
    }

    /// A disaster is under way.
    pub fn is_declaring(&self) -> bool {
        self.groups.iter().any(|group| group.disaster.waits.is_some())
            || self.lanes.iter().any(|lane| !lane.words.is_empty())
    }

    /// The writing site's lead forgets who asked.
    pub(super) fn forget_disasters(&mut self) {
        self.groups.iter_mut().for_each(|group| group.disaster.waits = None);
    }

    /// The word is to go to a lane's copy.
    pub(super) fn word_goes_out(&mut self, group: usize, lane: usize) -> Outcome {
        if self.groups[group].disaster.said_us.is_none() {
            group_disaster::said(self, group)?;
            let lanes = self.groups[group].lanes.clone();
            let held = lanes.into_iter().map(|lane| self.keepers[lane].held()).reduce(|all, held| &all & &held);
            let now = self.now;
            let disaster = &mut self.groups[group].disaster;
            (disaster.said_us, disaster.held) = (Some(now), held.unwrap_or_default());
        }
        self.groups[group].disaster.said_to.insert(lane);
        Ok(())
    }

    pub(super) fn disaster_answered(
        &mut self,
        group: usize,
        ticket: Ticket,
        result: &Result<CutNumber, Refusal>,
    ) -> Outcome {
        if self.groups[group].disaster.waits != Some(ticket) {
            return Ok(());
        }
        self.groups[group].disaster.waits = None;
        match result {
            Ok(cut) => {
                self.figures.count(if *cut == CutNumber::NONE {
                    Figure::DisastersWithoutACut
                } else {
                    Figure::DisastersAtACut
                });
                group_disaster::declared(self, group, *cut)
            }
            Err(_) => {
                self.figures.count(Figure::DisastersInVain);
                Ok(())
            }
        }
    }

    /// A lane's node says the word, over whichever path is up.
    pub(super) fn say_word(&mut self, lane: usize) {
        if self.lanes[lane].fenced.is_some() {
            return self.say_declared(lane, true);
        }
        self.disasters.words += 1;
        let (id, now) = (self.disasters.words, self.now);
        let word = Declare { id, generation: Generation(1) };
        let up: Vec<Path> = self.paths(lane).filter(|path| self.is_up(lane, *path)).collect();
        let path = up.get(to_usize(self.disasters.dice.below(wide(up.len())))).copied();
        let span = match path {
            Some(path) => {
                self.figures.count(Figure::WordsSaid);
                self.send_keeper(lane, path, ToKeeper::Declare(word));
                ANSWER_US + OTHERS_WORD_US
            }
            None => OTHERS_WORD_US,
        };
        if self.disasters.dice.chance(100) {
            let delay = self.disasters.dice.between(1_000, 25_000_000);
            self.after(delay, Event::LateWord { lane, word });
        }
        self.lanes[lane].words.push(Word { id, until: now + span });
        self.lane_later(lane, LOOK_US, LaneEvent::LookForFence { id });
    }

    fn say_declared(&mut self, lane: usize, taken: bool) {
        if self.members[lane].joined {
            self.say(lane, GroupInput::Declared { lane: pair(lane), taken });
        }
    }

    /// The copy has answered.
    pub(super) fn word_is_answered(&mut self, lane: usize, id: u64, taken: bool) {
        let now = self.now;
        let Some(word) = self.lanes[lane].words.iter_mut().find(|word| word.id == id) else { return };
        word.until = now + if taken { FENCED_US } else { OTHERS_WORD_US };
        if taken && self.mutation == Some(Mutation::SaidByTheAnswer) {
            self.say_declared(lane, true);
        }
    }

    /// Is this lane fenced by now, by whatever word?
    pub(super) fn look_for_fence(&mut self, lane: usize, id: u64) {
        let Some(at) = self.lanes[lane].words.iter().position(|word| word.id == id) else { return };
        let fenced = self.lanes[lane].fenced.is_some();
        if !fenced && self.now < self.lanes[lane].words[at].until {
            return self.lane_later(lane, LOOK_US, LaneEvent::LookForFence { id });
        }
        self.lanes[lane].words.remove(at);
        self.say_declared(lane, fenced);
    }

    pub(super) fn in_the_disaster(&mut self, group: usize) -> Outcome {
        if self.healed.is_some() || self.groups[group].disaster.waits.is_none() {
            return Ok(());
        }
        self.figures.count(Figure::AccidentsDuringADisaster);
        let lane = any_of(&mut self.disasters.dice, &self.groups[group].lanes);
        match self.disasters.dice.below(10) {
            0 => self.crash_lane(lane),
            1 => {
                self.crash_lead();
                Ok(())
            }
            2 => self.crash_keeper(lane),
            3 => {
                self.crash_keeping_lead();
                Ok(())
            }
            4 | 5 => self.leave(lane),
            6 => self.paths(lane).try_for_each(|path| self.unlink(lane, path)),
            _ => self.cut_link(lane),
        }
    }

    fn cut_link(&mut self, lane: usize) -> Outcome {
        self.figures.count(Figure::LinksCut);
        let span = self.disasters.dice.between(10_000, 12_000_000);
        for path in self.paths(lane) {
            self.cut_path(lane, path, span);
            self.unlink(lane, path)?;
        }
        Ok(())
    }
}

// ---- the site that keeps the copies

impl World {
    /// The word comes to a copy, over a path or much later.
    pub(super) fn word_comes(&mut self, lane: usize, word: Declare) -> Outcome {
        let Some(machine) = &self.keepers[lane].machine else { return Ok(()) };
        let (generation, offered) = (machine.generation(), machine.offered());
        let has_point = machine.status().has_point();
        let keeps = Keeps { generation, offered, has_point, keys_missing: 0, escrowed: false };
        let said = word.judge(&keeps);
        let at = self.now;
        self.trace.note(at, || format!("  keeper {lane}: {word:?}: {said:?}"));
        match said {
            Answer::Refused(refusal) => {
                self.answer_word(lane, word.id, Answer::Refused(refusal));
                Ok(())
            }
            Answer::TakesOver { .. } if self.mutation == Some(Mutation::WordForOnePair) => {
                self.answer_word(lane, word.id, said);
                self.tell_keeper(lane, farseal_core::secondary::Input::Limit(OfferLimit::Everything))?;
                self.tell_keeper(lane, farseal_core::secondary::Input::TakeOver)
            }
            Answer::TakesOver { .. } => {
                self.keepers[lane].words.push(word.id);
                if !self.keeping.up {
                    self.answer_words(lane, false);
                    return Ok(());
                }
                let life = self.keeping.life;
                let delay = self.way_to_keeping_lead(lane);
                self.after(delay, Event::Word { lane, life });
                Ok(())
            }
        }
    }

    /// The group is taken over, or is not.
    pub(super) fn answer_words(&mut self, lane: usize, taken: bool) {
        let through = self.keepers[lane].machine.as_ref().map(farseal_core::secondary::Secondary::offered);
        let Some(through) = through else { return };
        let said = if taken { Answer::TakesOver { through } } else { Answer::Refused(WordRefused::Grouped) };
        for id in std::mem::take(&mut self.keepers[lane].words) {
            self.answer_word(lane, id, said);
        }
    }

    /// It leaves before the takeover closes its path, and may be lost with that.
    fn answer_word(&mut self, lane: usize, id: u64, said: Answer) {
        let taken = matches!(said, Answer::TakesOver { .. });
        if !taken {
            self.figures.count(Figure::WordsRefused);
        }
        if self.paths(lane).any(|path| self.is_up(lane, path)) && self.disasters.dice.chance(800) {
            let delay = self.disasters.dice.between(50, 8_000);
            self.lane_later(lane, delay, LaneEvent::WordAnswered { id, taken });
        }
    }

    /// One pair's word is its group's. What is under way already answers it when it is decided.
    pub(super) fn hear_word(&mut self, lane: usize) -> Outcome {
        let group = self.group_of(lane);
        if self.is_being_taken(group, Reason::Word) {
            return Ok(());
        }
        if self.mutation == Some(Mutation::CopiesNotAsked) {
            if self.want_takeover(group)? {
                self.figures.count(Figure::TakeoversByTheWord);
            } else {
                self.groups[group].lanes.clone().into_iter().for_each(|lane| self.refuse_word(lane));
            }
            return Ok(());
        }
        if !self.may_take_over(group) {
            self.refuse_word(lane);
            return Ok(());
        }
        self.ask_all(group, Reason::Word);
        Ok(())
    }

    pub(super) fn refuse_word(&mut self, lane: usize) {
        let (life, delay) = (self.keepers[lane].life, self.way());
        self.after(delay, Event::Keeper { lane, life, event: KeeperEvent::RefuseWord });
    }

    /// Whatever is said of the same copy arrives in its order.
    pub(super) fn way_to_keeping_lead(&mut self, lane: usize) -> u64 {
        let busy = self.disasters.may_come() && self.disasters.dice.chance(60);
        let busy = if busy { self.disasters.dice.between(20_000, 300_000) } else { 0 };
        let at = (self.now + self.way() + busy).max(self.keepers[lane].said_at + 1);
        self.keepers[lane].said_at = at;
        at - self.now
    }
}
