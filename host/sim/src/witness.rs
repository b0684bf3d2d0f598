//! The witness rule: the site that keeps the copy looks at its link, asks the escrow site, keeps what that says, and takes over.
//!
//! It is driven as a node drives it: one look a second and none while the witness is asked, a challenge that was never used, a
//! statement that is durable first, and the machine's own last word. Worlds in which it is in force are slow: sites are lost or cut
//! off for a minute at a time ([`outage`]), and what the checkers go by is what really came, and when.

use farseal_core::units::{Instant, Millis};
use farseal_core::witness::Rule;

use crate::dice::Dice;
use crate::mutation::Mutation;
use crate::world::{Event, Outcome, World};

pub mod escrow;
mod keeper;
mod outage;
mod profile;

use escrow::{Escrow, Place, Statement};
pub use outage::Outage;
use profile::Profile;

const STREAM: u64 = 42;
/// Between two operations, on average: an outage of half a minute is no more than some of them.
pub const PACE_US: u64 = 150_000;
/// So many of them are added at least, and what goes wrong otherwise comes so much rarer: a keeper that crashes listens from
/// then on only.
const OPERATIONS: u64 = 300;
pub const RARER: u64 = 20;
/// Between two looks.
const LOOK_US: u64 = 1_000_000;

/// All that has to do with the rule in one world.
#[derive(Debug)]
pub struct Witness {
    dice: Dice,
    profile: Profile,
    /// Nowhere else is the rule in force.
    pub silence: Option<Millis>,
    pub beat: Millis,
    pub escrow: Escrow,
    /// The site that writes.
    main: Place,
    /// An outage lasts until then.
    out_until_us: u64,
    // Until the next crash of the keeper.
    rule: Option<Rule>,
    waits: Option<Waits>,
    /// A statement is being made durable: nobody looks meanwhile.
    keeps: bool,
    asked_for: Wish,
    // Durable at the keeper.
    evidence: Option<Statement>,
    // The checkers' own.
    statements: Vec<Statement>,
    /// When something of the main site's came to the keeper last, and when the keeper began.
    pub heard_us: u64,
    pub began_us: u64,
}

/// Does a site write the pair?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Writer {
    Writes,
    Keeps,
}

/// Who wants the takeover that comes next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wish {
    Nobody,
    Rule,
    /// Somebody else does, too, or alone.
    Other,
}

/// What the keeper waits for.
#[derive(Clone, Copy, Debug)]
struct Waits {
    question: u64,
    challenge: u64,
    asked: Instant,
}

/// Something that happens by itself; what is of an earlier life of the keeper does not count.
#[derive(Clone, Debug)]
pub enum WitnessEvent {
    Look {
        life: u32,
    },
    /// A site's line is due to say something, and it arrives.
    Beat(Place),
    Cell(Place),
    /// A question arrives at the escrow site, its answer at the keeper; or it has been waited for long enough.
    Asked {
        life: u32,
        challenge: u64,
    },
    Answered {
        life: u32,
        statement: Statement,
    },
    NotAnswered {
        life: u32,
        challenge: u64,
    },
    /// The statement is durable, or could not be written.
    Kept {
        life: u32,
        question: u64,
        statement: Statement,
    },
    NotKept {
        life: u32,
        question: u64,
    },
    TakeOver {
        life: u32,
        unheard_since: Instant,
        until: Instant,
    },
    EscrowBack,
    Outage(Outage),
}

impl Witness {
    /// Some seeds have the rule, and no world that is broken elsewhere.
    pub fn draw(seed: u64, mutation: Option<Mutation>) -> Self {
        let mut dice = Dice::new(seed, STREAM);
        let chosen = match mutation {
            None => dice.chance(120),
            Some(mutation) => mutation.is_of_the_witness(),
        };
        let profile = Profile::draw(&mut dice, mutation);
        let silence = Millis(dice.between(10_000, 15_000));
        // Now and then so seldom that three beats are longer than the silence.
        let seldom = dice.chance(300) || mutation == Some(Mutation::BeatNotAsked);
        let beat = Millis(if seldom { dice.between(4_000, 9_000) } else { dice.between(300, 3_000) });
        Self {
            silence: chosen.then_some(silence),
            beat,
            escrow: Escrow::draw(&mut dice),
            main: Place::First,
            out_until_us: 0,
            rule: None,
            waits: None,
            keeps: false,
            asked_for: Wish::Nobody,
            evidence: None,
            statements: Vec::new(),
            heard_us: 0,
            began_us: 0,
            profile,
            dice,
        }
    }

    pub fn is_in_force(&self) -> bool {
        self.silence.is_some()
    }

    /// So many operations are added.
    pub fn operations(&self) -> u64 {
        self.profile.longer() * OPERATIONS
    }

    /// The rule is in force nowhere in this run.
    pub fn keep(&mut self) {
        self.silence = None;
    }

    /// The sites change places.
    pub fn turned(&mut self) {
        self.main = self.main.other();
        self.evidence = None;
    }

    pub fn keeper_crashes(&mut self) {
        (self.rule, self.waits, self.asked_for) = (None, None, Wish::Nobody);
        self.keeps = false;
    }

    /// The machine is to take over by somebody's word.
    pub fn other_wish(&mut self) {
        self.asked_for = Wish::Other;
    }

    /// The takeover that begins is the rule's: this is what it stands on.
    pub fn takeover(&self) -> Option<(Millis, Option<&Statement>)> {
        let silence = self.silence.filter(|_| self.asked_for == Wish::Rule)?;
        Some((silence, self.evidence.as_ref()))
    }

    pub fn main(&self) -> Place {
        self.main
    }
}

impl World {
    /// The lines to the escrow site begin.
    pub fn begin_witness(&mut self) {
        if self.witness.is_in_force() {
            for place in [Place::First, Place::Second] {
                let delay = self.witness.dice.below(1_000_000);
                self.after(delay, Event::Witness(WitnessEvent::Beat(place)));
            }
        }
    }

    /// The keeper's process begins: before it nobody listened.
    pub fn keeper_follows_witness(&mut self) {
        self.witness.began_us = self.now;
        if self.witness.is_in_force() {
            self.begin_rule();
            let life = self.secondary.life;
            self.after(LOOK_US, Event::Witness(WitnessEvent::Look { life }));
        }
    }

    fn begin_rule(&mut self) {
        let now = self.clock().instant;
        self.witness.rule = self.witness.silence.map(|silence| Rule::new(now, silence));
    }

    pub fn witness_event(&mut self, event: WitnessEvent) -> Outcome {
        let here = self.secondary.life;
        match event {
            WitnessEvent::Look { life } if life == here => self.look_for_main(life),
            WitnessEvent::Asked { life, challenge } if life == here => {
                self.witness_is_asked(challenge);
                Ok(())
            }
            WitnessEvent::Answered { life, statement } if life == here => self.witness_answers(&statement),
            WitnessEvent::NotAnswered { life, challenge } if life == here => {
                let waits = self.witness.waits.filter(|waits| waits.challenge == challenge);
                waits.map_or(Ok(()), |waits| self.no_answer(waits))
            }
            WitnessEvent::Kept { life, question, statement } if life == here => self.kept(question, statement),
            WitnessEvent::NotKept { life, question } if life == here => {
                self.not_kept(question);
                Ok(())
            }
            WitnessEvent::TakeOver { life, unheard_since, until } if life == here => {
                self.rule_takes_over(unheard_since, until)
            }
            WitnessEvent::Beat(place) => {
                self.beat(place);
                Ok(())
            }
            WitnessEvent::Cell(place) => {
                let writer = if place == self.witness.main { Writer::Writes } else { Writer::Keeps };
                let (beat, now) = (self.witness.beat, self.now);
                self.witness.escrow.hear(place, beat, writer, now);
                Ok(())
            }
            WitnessEvent::EscrowBack => {
                self.witness.escrow.begin(self.settings.mutation);
                Ok(())
            }
            WitnessEvent::Outage(outage) => self.outage(outage),
            // Of an earlier life.
            WitnessEvent::Look { .. }
            | WitnessEvent::Asked { .. }
            | WitnessEvent::Answered { .. }
            | WitnessEvent::NotAnswered { .. }
            | WitnessEvent::Kept { .. }
            | WitnessEvent::NotKept { .. }
            | WitnessEvent::TakeOver { .. } => Ok(()),
        }
    }

    /// A site that is up says something, whatever it does.
    fn beat(&mut self, place: Place) {
        let (every, slow) = (self.witness.beat.0 * 1_000, self.witness.dice.chance(30));
        // Its clock is not the escrow site's.
        let drift = self.witness.dice.between(950, 1_050);
        self.after(every * drift / 1_000, Event::Witness(WitnessEvent::Beat(place)));
        let up =
            if place == self.witness.main { self.primary.machine.is_some() } else { self.secondary.machine.is_some() };
        if up && self.witness.escrow.reaches(place) {
            let most = if slow { 3_000_000 } else { 30_000 };
            let delay = self.witness.dice.between(20, most);
            self.after(delay, Event::Witness(WitnessEvent::Cell(place)));
        }
    }
}
