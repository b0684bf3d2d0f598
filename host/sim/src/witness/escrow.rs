//! The escrow site as a witness: it hears both sites over lines of their own, by a clock of its own, and knows nothing of what was
//! before its start.

use std::collections::BTreeSet;

use farseal_core::units::{Instant, Millis};
use farseal_core::witness::{Heard, Said};

use super::Writer;
use crate::dice::Dice;
use crate::mutation::Mutation;

/// One of the two sites, whatever it does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Place {
    First,
    Second,
}

#[derive(Debug)]
pub struct Escrow {
    pub up: bool,
    /// Of its clock, in a thousandth of the world's.
    rate: u64,
    heard: Heard<Place>,
    lines: [Line; 2],
    // Durable: sites that have written the pair.
    marked: BTreeSet<Place>,
}

/// A site's line to it.
#[derive(Clone, Copy, Debug, Default)]
struct Line {
    cut: bool,
    /// The beat was said on this connection.
    said: bool,
    /// The checker's: when something came over it last.
    word_us: Option<u64>,
}

/// What a witness said once, and what was true then.
#[derive(Clone, Copy, Debug)]
pub struct Statement {
    pub challenge: u64,
    pub of: Place,
    pub asker: Place,
    pub said: Said,
    /// When it was made, by the world's clock.
    pub at_us: u64,
    /// For how long it really had not heard that site, by its own clock; `None`: it never has.
    pub unheard: Option<Millis>,
}

impl Place {
    pub fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }

    fn index(self) -> usize {
        match self {
            Self::First => 0,
            Self::Second => 1,
        }
    }
}

impl Escrow {
    /// Clocks differ by up to a fifth, far more than real ones.
    pub fn draw(dice: &mut Dice) -> Self {
        Self {
            up: true,
            rate: if dice.chance(500) { 1_000 } else { dice.between(800, 1_250) },
            heard: Heard::default(),
            lines: [Line::default(); 2],
            marked: BTreeSet::new(),
        }
    }

    pub fn crash(&mut self) {
        self.up = false;
        self.lines.iter_mut().for_each(|line| (line.said, line.word_us) = (false, None));
    }

    /// It has heard nobody yet.
    pub fn begin(&mut self, mutation: Option<Mutation>) {
        let before = std::mem::take(&mut self.heard);
        self.up = true;
        if mutation == Some(Mutation::WitnessRemembers) {
            self.heard = before;
        }
    }

    fn clock(&self, now_us: u64) -> Instant {
        Instant(now_us * self.rate / 1_000_000)
    }

    pub fn cut(&mut self, place: Place, cut: bool) {
        self.lines[place.index()].cut = cut;
        self.lines[place.index()].said = false;
    }

    pub fn reaches(&self, place: Place) -> bool {
        self.up && !self.lines[place.index()].cut
    }

    /// A cell of a site's line arrives, full or empty.
    pub fn hear(&mut self, place: Place, beat: Millis, writer: Writer, now_us: u64) {
        if !self.reaches(place) {
            return;
        }
        let now = self.clock(now_us);
        self.heard.word(place, now);
        let line = &mut self.lines[place.index()];
        line.word_us = Some(now_us);
        if !std::mem::replace(&mut line.said, true) {
            self.heard.beat(place, beat);
        }
        if writer == Writer::Writes {
            self.marked.insert(place);
        }
    }

    /// Answers a question.
    pub fn state(&self, challenge: u64, of: Place, asker: Place, now_us: u64) -> Statement {
        let now = self.clock(now_us);
        let said = if self.marked.contains(&of) { self.heard.said(&of, now) } else { Said::NeverHeard };
        let word = self.lines[of.index()].word_us;
        let unheard = word.map(|word| now.since(self.clock(word)));
        Statement { challenge, of, asker, said, at_us: now_us, unheard }
    }
}
