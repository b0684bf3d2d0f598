//! A main site that declares a disaster: its word is lost, late, comes twice or is of an old generation, and either site crashes
//! around each step that is durable.

use farseal_core::declare::{Answer, Declare, Keeps, Refusal};
use farseal_core::primary::{Divergence, Primary};
use farseal_core::secondary::{Input, Secondary};
use farseal_core::units::{Generation, Path};

use crate::check::fence;
use crate::dice::Dice;
use crate::disk::{to_usize, wide};
use crate::link::{Message, Side};
use crate::mutation::Mutation;
use crate::stats::Sometimes;
use crate::world::{Event, Outcome, World};

const STREAM: u64 = 41;
/// How long the operator waits for the answer, and then for this site to be fenced, in microseconds: less than at a node, as all is
/// faster here.
const ANSWER_US: u64 = 3_000_000;
const FENCED_US: u64 = 2_000_000;

/// The operator at the site that writes.
#[derive(Debug)]
pub struct Disaster {
    dice: Dice,
    /// In a thousand operations; 0 where no disaster is declared.
    rate: u64,
    asked: Option<Asked>,
    /// Every word that was ever said: any of them may come at any time.
    words: Vec<Declare>,
    /// The operator was told that this site is fenced.
    pub told: bool,
}

/// What the operator waits for.
#[derive(Clone, Copy, Debug)]
struct Asked {
    id: u64,
    /// Of the process that asked.
    life: u32,
    until: u64,
    /// The keeper has said that it takes over.
    answered: bool,
}

/// Something that happens by itself.
#[derive(Clone, Debug)]
pub enum DisasterEvent {
    /// The answer left before the takeover closed its path.
    Answered {
        life: u32,
        id: u64,
        answer: Vec<u8>,
    },
    /// The keeper carries the word out, unless it crashed since.
    TakeOver {
        life: u32,
    },
    Crash(Side),
}

impl Disaster {
    /// Some seeds have such an operator, and no world that is broken elsewhere.
    pub fn draw(seed: u64, mutation: Option<Mutation>) -> Self {
        let mut dice = Dice::new(seed, STREAM);
        let rate = match mutation {
            None if dice.chance(200) => dice.between(3, 30),
            Some(mutation) if mutation.is_of_declaring() => 60,
            None | Some(_) => 0,
        };
        Self { dice, rate, asked: None, words: Vec::new(), told: false }
    }

    /// No disaster is declared in this run.
    pub fn keep(&mut self) {
        self.rate = 0;
    }

    pub fn may_be_declared(&self) -> bool {
        self.rate > 0
    }

    /// The sites have changed places: what was said is over.
    pub fn turned(&mut self) {
        (self.asked, self.told) = (None, false);
    }
}

// ---- the site that writes

impl World {
    /// What the operator wants at this instant, and hears of what was wanted before.
    pub fn declare(&mut self) -> Outcome {
        if !self.disaster.may_be_declared() {
            return Ok(());
        }
        self.hear_of_the_word();
        if self.disaster.dice.chance(20) && !self.disaster.words.is_empty() {
            let any = self.disaster.dice.below(wide(self.disaster.words.len()));
            let word = self.disaster.words[to_usize(any)];
            self.stats.see(Sometimes::WordCameLate);
            self.word_comes(None, word)?;
        }
        if self.disaster.asked.is_some() || !self.disaster.dice.chance(self.disaster.rate) {
            return Ok(());
        }
        let Some(status) = self.primary.machine.as_ref().map(Primary::status) else { return Ok(()) };
        // As a node: where the other site writes already, there is nothing to declare.
        if status.diverged.is_some() {
            return Ok(());
        }
        let dice = &mut self.disaster.dice;
        let (id, old) = (dice.draw() | 1, dice.chance(100));
        let own = self.primary.settings.generation;
        let generation = if old { Generation(own.0.saturating_sub(1)) } else { own };
        let word = Declare { id, generation };
        let times = [0, 1, 1, 1, 1, 2][to_usize(self.disaster.dice.below(6))];
        self.stats.see([Sometimes::WordLost, Sometimes::DisasterDeclared, Sometimes::WordSaidTwice][times]);
        self.disaster.words.push(word);
        self.disaster.asked = Some(Asked { id, life: self.primary.life, until: self.now + ANSWER_US, answered: false });
        for _ in 0..times {
            let Some(path) = self.path_for_a_word() else { break };
            self.send(path, Side::Secondary, Message::Declare(word));
        }
        if self.disaster.dice.chance(150) {
            // The site is lost in earnest.
            let delay = self.disaster.dice.between(10, 20_000);
            self.after(delay, Event::Disaster(DisasterEvent::Crash(Side::Primary)));
        }
        Ok(())
    }

    fn path_for_a_word(&mut self) -> Option<Path> {
        let open: Vec<Path> = self.link.paths().filter(|path| self.link.lines[usize::from(path.0)].open).collect();
        let at = self.disaster.dice.below(wide(open.len()));
        open.get(to_usize(at)).copied()
    }

    fn hear_of_the_word(&mut self) {
        let Some(asked) = self.disaster.asked else { return };
        if asked.life != self.primary.life {
            // Who asked is gone.
            self.disaster.asked = None;
            return;
        }
        let status = self.primary.machine.as_ref().map(Primary::status);
        let diverged = status.is_some_and(|status| matches!(status.diverged, Some(Divergence::Fenced(_))));
        // A node shows nothing before it is durable.
        let fenced = diverged && self.primary.fenced.is_some();
        if asked.answered && fenced {
            self.stats.see(Sometimes::ToldThatItIsFenced);
            (self.disaster.asked, self.disaster.told) = (None, true);
        } else if self.now >= asked.until {
            self.stats.see(if asked.answered { Sometimes::NotFencedYet } else { Sometimes::WordNotAnswered });
            self.disaster.asked = None;
        }
    }

    fn word_answered(&mut self, id: u64, answer: &[u8]) {
        let Some(asked) = self.disaster.asked.as_mut().filter(|asked| asked.id == id) else { return };
        match Answer::decode(answer) {
            Some(Answer::TakesOver { .. }) => {
                (asked.answered, asked.until) = (true, self.now + FENCED_US);
                if self.settings.mutation == Some(Mutation::ToldByTheAnswer) {
                    self.disaster.told = true;
                }
            }
            Some(Answer::Refused(_)) | None => self.disaster.asked = None,
        }
    }

    /// It is being made durable that the other site writes: a crash may come before that is, and after.
    pub fn crash_around_the_fence(&mut self) -> bool {
        if !self.disaster.may_be_declared() || self.disaster.told || !self.disaster.dice.chance(150) {
            return false;
        }
        let before = self.disaster.dice.chance(500);
        self.stats.see(if before { Sometimes::CrashBeforeTheFence } else { Sometimes::CrashAfterTheFence });
        self.after(0, Event::Disaster(DisasterEvent::Crash(Side::Primary)));
        before
    }
}

// ---- the site that keeps the copy

impl World {
    /// The word comes, over a path or much later.
    pub fn word_comes(&mut self, path: Option<Path>, word: Declare) -> Outcome {
        let Some(machine) = &self.secondary.machine else { return Ok(()) };
        // The model knows no history that such a takeover would go on with.
        if machine.base_differs() && self.secondary.own.is_none() {
            return Ok(());
        }
        let keys_missing = if self.disaster.dice.chance(80) { self.disaster.dice.between(1, 4) } else { 0 };
        let here = match self.settings.mutation {
            Some(Mutation::OldWordTaken) => word.generation,
            _ => machine.generation(),
        };
        let keeps = Keeps {
            generation: here,
            offered: machine.offered(),
            has_point: machine.status().has_point(),
            keys_missing,
            escrowed: self.disaster.dice.chance(500),
        };
        let answer = word.judge(&keeps);
        self.trace.note(self.now, || format!("  {word:?}: {answer:?}"));
        if let Some(path) = path {
            self.answer_word(path, word.id, answer);
        }
        match answer {
            Answer::TakesOver { .. } => {
                fence::word(self, word)?;
                if machine_lacks(self) {
                    self.stats.see(Sometimes::WordLeavesSomethingBehind);
                }
                let (life, delay) = (self.secondary.life, self.disaster.dice.below(300));
                self.after(delay, Event::Disaster(DisasterEvent::TakeOver { life }));
                self.crash_around_the_takeover(delay);
            }
            Answer::Refused(Refusal::OtherGeneration { .. }) => self.stats.see(Sometimes::WordOfAnotherGeneration),
            Answer::Refused(Refusal::NoKeys { .. }) => self.stats.see(Sometimes::WordRefusedForKeys),
            Answer::Refused(Refusal::Grouped | Refusal::NotWhole) => {}
        }
        Ok(())
    }

    /// The answer leaves before the takeover closes its path; it may be lost with that.
    fn answer_word(&mut self, path: Path, id: u64, answer: Answer) {
        let line = self.link.line(path);
        if line.open && !line.cut[Side::Primary.direction()] && self.disaster.dice.chance(800) {
            let (life, delay) = (self.primary.life, self.disaster.dice.between(20, 4_000));
            let event = DisasterEvent::Answered { life, id, answer: answer.encode() };
            self.after(delay, Event::Disaster(event));
        }
    }

    fn crash_around_the_takeover(&mut self, delay: u64) {
        let (before, after) = (self.disaster.dice.chance(100), self.disaster.dice.chance(100));
        if before || after {
            self.stats.see(if before { Sometimes::CrashBeforeTheTakeover } else { Sometimes::CrashAfterTheTakeover });
            let delay = if before { delay.saturating_sub(1) } else { delay + 1 };
            self.after(delay, Event::Disaster(DisasterEvent::Crash(Side::Secondary)));
        }
    }

    pub fn disaster_event(&mut self, event: DisasterEvent) -> Outcome {
        match event {
            DisasterEvent::Answered { life, id, answer } if life == self.primary.life => {
                self.word_answered(id, &answer);
                Ok(())
            }
            DisasterEvent::TakeOver { life } if life == self.secondary.life && self.may_take_over_by_word() => {
                self.stats.see(Sometimes::TakeOverByTheWord);
                self.witness.other_wish();
                self.tell_secondary(Input::TakeOver)
            }
            DisasterEvent::Crash(side) if !self.closing => {
                self.crash(side);
                Ok(())
            }
            DisasterEvent::Answered { .. } | DisasterEvent::TakeOver { .. } | DisasterEvent::Crash(_) => Ok(()),
        }
    }

    /// Nobody has taken over since, and there is something that the model can compare it with.
    fn may_take_over_by_word(&self) -> bool {
        let keeps = self.secondary.machine.as_ref().is_some_and(|machine| !machine.status().taken_over);
        keeps && !self.sides.is_changing() && self.may_be_taken_over()
    }
}

/// The main site has written what is not offered here.
fn machine_lacks(world: &World) -> bool {
    let offered = world.secondary.machine.as_ref().map(Secondary::offered);
    offered.is_some_and(|offered| offered < world.model.last())
}
