//! The witness rule of a whole group: one copy and its witness hear nothing of the main site, and the keeping site's lead asks all of
//! them, while links and the main nodes' lines to the witness are cut and come back one by one.

use farseal_core::group::Reason;
use farseal_core::units::{Instant, Millis};
use farseal_core::witness::{Listened, Said, is_silent_for_witness};

use super::event::Event;
use super::figures::Figure;
use super::turning::any_of;
use super::{Mutation, World};
use crate::dice::Dice;
use crate::world::Outcome;

const STREAM: u64 = 44;
/// Worlds in which the rule is in force are so much slower: what is cut off stays so for seconds.
const SLOWER: u64 = 6;
/// Between two words of a main node to its witness.
const BEAT: Millis = Millis(100);
/// How long a witness's statement is good for.
const GOOD_FOR: Millis = Millis(5_000);

/// What is silent, and where the rule is in force.
#[derive(Debug)]
pub struct Silences {
    dice: Dice,
    /// Nowhere else is the rule in force.
    pub silence: Option<Millis>,
    /// When each lane's witness heard its main node last, in microseconds, and until when it cannot.
    witness_heard_us: Vec<u64>,
    deaf_until_us: Vec<u64>,
    /// The checker's: when something of its main node's came to each copy last.
    pub heard_us: Vec<u64>,
}

impl Silences {
    /// Some seeds have the rule, and no world that is broken elsewhere.
    pub(super) fn draw(seed: u64, mutation: Option<Mutation>, lanes: usize) -> Self {
        let mut dice = Dice::new(seed, STREAM);
        let chosen = match mutation {
            None => dice.chance(200),
            Some(mutation) => mutation.is_of_silence(),
        };
        let silence = Millis(dice.between(2_000, 3_000));
        let none = || vec![0; lanes];
        Self {
            dice,
            silence: chosen.then_some(silence),
            witness_heard_us: none(),
            deaf_until_us: none(),
            heard_us: none(),
        }
    }

    pub(super) fn slower(&self) -> u64 {
        if self.silence.is_some() { SLOWER } else { 1 }
    }
}

impl World {
    /// Main nodes begin to speak to their witnesses, and copies to listen.
    pub(super) fn begin_silences(&mut self) {
        if self.silences.silence.is_some() {
            (0..self.lanes.len()).for_each(|lane| self.after(0, Event::Beat(lane)));
        }
    }

    /// A node that is up says something, if its line is not cut.
    pub(super) fn beat(&mut self, lane: usize) {
        if self.healed.is_some() {
            return;
        }
        self.after(BEAT.0 * 1_000, Event::Beat(lane));
        if self.lanes[lane].machine.is_some() && self.now >= self.silences.deaf_until_us[lane] {
            self.silences.witness_heard_us[lane] = self.now;
        }
    }

    /// A copy's node looks at its own lane now and then, from its start on.
    pub(super) fn listens_later(&mut self, lane: usize) {
        if self.silences.silence.is_some() && self.healed.is_none() {
            let (life, delay) = (self.keepers[lane].life, self.silences.dice.between(100_000, 600_000));
            self.after(delay, Event::Listen { lane, life });
        }
    }

    pub(super) fn listen(&mut self, lane: usize) {
        self.listens_later(lane);
        if self.healed.is_none() && self.is_silent(lane) && self.is_silent_for_witness(lane) && self.keeping.up {
            let (life, delay) = (self.keeping.life, self.way());
            self.after(delay, Event::Unheard { lane, life });
        }
    }

    /// The lead hears that one copy and its witness hear nothing.
    pub(super) fn hear_unheard(&mut self, lane: usize) -> Outcome {
        let group = self.group_of(lane);
        let until = self.clock().instant.plus(GOOD_FOR);
        let reason = Reason::Silence { until };
        if self.is_being_taken(group, reason) || !self.may_take_over(group) {
            return Ok(());
        }
        self.figures.count(Figure::SilencesToldOf);
        if self.groups[group].taking.is_some() {
            self.figures.count(Figure::StatementsTooOld);
        }
        if self.mutation == Some(Mutation::SilenceOfOne) {
            return self.decide_by_silence(group);
        }
        self.ask_all(group, reason);
        Ok(())
    }

    /// By what a copy heard itself.
    pub(super) fn is_silent(&self, lane: usize) -> bool {
        let (Some(silence), Some(machine)) = (self.silences.silence, &self.keepers[lane].machine) else { return false };
        let status = machine.status();
        let listened = Listened { linked: status.linked, heard: status.heard };
        !self.keepers[lane].is_taken() && listened.is_silent(self.clock().instant, silence).is_ok()
    }

    pub(super) fn is_silent_for_witness(&self, lane: usize) -> bool {
        let ago = Instant(self.now / 1_000).since(Instant(self.silences.witness_heard_us[lane] / 1_000));
        let silence = self.silences.silence.unwrap_or(Millis(u64::MAX));
        is_silent_for_witness(Said::Heard { ago, gap: BEAT }, silence).is_ok()
    }

    /// Most are quick; one that is not leaves time for the main site to come back.
    pub(super) fn until_statement_is_kept(&mut self) -> u64 {
        match self.silences.dice.below(10) {
            0..3 => self.silences.dice.between(200_000, 3_000_000),
            3..5 => self.silences.dice.between(4_000_000, 8_000_000),
            _ => self.silences.dice.between(500, 20_000),
        }
    }

    /// What makes a main site silent, if anything does at this instant.
    pub(super) fn fall_silent(&mut self) -> Outcome {
        let Some(silence) = self.silences.silence.filter(|_| self.silences.dice.chance(12)) else { return Ok(()) };
        self.figures.count(Figure::Outages);
        let group = self.any_group();
        let lanes = self.groups[group].lanes.clone();
        let spared = any_of(&mut self.silences.dice, &lanes);
        // All of it, all but one lane, or the links alone, which the witness hears.
        let kind = self.silences.dice.below(10);
        for lane in lanes {
            if kind < 3 && lane == spared {
                continue;
            }
            let least = silence.0 * 1_000 / 2;
            let span = self.silences.dice.between(least, least * 7);
            for path in self.paths(lane) {
                self.cut_path(lane, path, span);
                self.unlink(lane, path)?;
            }
            if kind < 9 {
                self.silences.deaf_until_us[lane] = self.now + span;
            }
        }
        Ok(())
    }
}
