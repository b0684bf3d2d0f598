//! A takeover of a group before it is decided: every copy is asked whether it can be taken over, in numbered rounds, for one reason at a
//! time (R27).
//!
//! ```text
//!   for a word      asked ──all can──▶ decided
//!   for silence     asked ──all can──▶ asked for a last look ──all are still silent──▶ decided
//!                     └──── one cannot, or the statement is too old ────┴──▶ nothing is taken over
//! ```
//!
//! A word goes before silence at once: it does what silence may not. What copies still answer to the earlier round names that
//! round, and is of no weight. Silence goes before nothing but silence whose statement is too old, so a copy that never answers
//! holds nothing up for longer.

use std::collections::BTreeSet;

use crate::units::{Instant, PairId};

/// On what a group is taken over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// An operator's, or the main site's.
    Word,
    /// Nobody's: by the witness rule, on a statement that is good until then.
    Silence { until: Instant },
}

/// A round of questions. Every answer names its own; no two rounds of a lead and of those before it have the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Round(pub u64);

/// What follows from an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// Others have not answered yet, or this was the answer to something else.
    Waits,
    /// Every lane has a last word: [`Taking::look_again`], and ask whether it is silent still.
    LookAgain,
    /// All can: it may be decided now, if nothing else stands against it.
    Decide,
    /// Nothing is taken over: one cannot.
    Refuse,
    /// Nothing is taken over: the statement is too old by now.
    TooOld,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Taking {
    reason: Reason,
    round: Round,
    last_look: bool,
    /// Copies that have not answered.
    waits: BTreeSet<PairId>,
    refused: bool,
}

impl Taking {
    /// These lanes' copies are asked in this round.
    #[must_use]
    pub fn new(reason: Reason, round: Round, lanes: BTreeSet<PairId>) -> Self {
        Self { reason, round, last_look: false, waits: lanes, refused: false }
    }

    #[must_use]
    pub fn reason(&self) -> Reason {
        self.reason
    }

    #[must_use]
    pub fn round(&self) -> Round {
        self.round
    }

    /// It ends without a word where the group is to be taken over for this reason.
    #[must_use]
    pub fn gives_way(&self, now: Instant, to: Reason) -> bool {
        match (self.reason, to) {
            (Reason::Word, _) => false,
            (Reason::Silence { .. }, Reason::Word) => true,
            (Reason::Silence { .. }, Reason::Silence { .. }) => self.is_too_old(now),
        }
    }

    /// The copy of this lane says whether it can be taken over, or is still silent, in answer to this round.
    pub fn answered(&mut self, now: Instant, lane: PairId, round: Round, can: bool) -> Next {
        if round != self.round || !self.waits.remove(&lane) {
            return Next::Waits;
        }
        self.refused |= !can;
        match self.reason {
            _ if !self.waits.is_empty() => Next::Waits,
            _ if self.refused => Next::Refuse,
            Reason::Silence { .. } if self.is_too_old(now) => Next::TooOld,
            Reason::Silence { .. } if !self.last_look => Next::LookAgain,
            Reason::Silence { .. } | Reason::Word => Next::Decide,
        }
    }

    /// The node of this lane's copy is gone: whatever it was asked, it does not answer.
    pub fn gone(&mut self, now: Instant, lane: PairId) -> Next {
        self.answered(now, lane, self.round, false)
    }

    /// The same lanes are asked once more. To find out that all can took time; between this round and the decision is a round trip
    /// in the site, and one write.
    pub fn look_again(&mut self, round: Round, lanes: BTreeSet<PairId>) {
        (self.round, self.waits, self.last_look) = (round, lanes, true);
    }

    fn is_too_old(&self, now: Instant) -> bool {
        matches!(self.reason, Reason::Silence { until } if now >= until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNTIL: Reason = Reason::Silence { until: Instant(1_000) };

    fn lane(number: u8) -> PairId {
        PairId([number; 16])
    }

    fn lanes() -> BTreeSet<PairId> {
        (1..=3).map(lane).collect()
    }

    fn asked(reason: Reason) -> Taking {
        Taking::new(reason, Round(7), lanes())
    }

    /// All of them, the last of which decides.
    fn all(taking: &mut Taking, now: u64, round: u64, can: [bool; 3]) -> Next {
        let answers =
            (1..).zip(can).map(|(number, can)| taking.answered(Instant(now), lane(number), Round(round), can));
        let answers: Vec<Next> = answers.collect();
        assert_eq!(answers[..2], [Next::Waits; 2], "nothing is decided before all have answered");
        answers[2]
    }

    #[test]
    fn by_a_word_it_is_decided_when_every_copy_has_said_that_it_can() {
        assert_eq!(all(&mut asked(Reason::Word), 5_000, 7, [true; 3]), Next::Decide);
        for refusing in 0..3 {
            let can = std::array::from_fn(|index| index != refusing);
            assert_eq!(all(&mut asked(Reason::Word), 0, 7, can), Next::Refuse);
        }
    }

    #[test]
    fn by_silence_every_copy_is_asked_twice_and_either_time_one_that_hears_something_ends_it() {
        let mut taking = asked(UNTIL);
        assert_eq!(all(&mut taking, 10, 7, [true, false, true]), Next::Refuse);
        let mut taking = asked(UNTIL);
        assert_eq!(all(&mut taking, 10, 7, [true; 3]), Next::LookAgain);
        taking.look_again(Round(8), lanes());
        assert_eq!(all(&mut taking, 20, 8, [false, true, true]), Next::Refuse);
        let mut taking = asked(UNTIL);
        assert_eq!(all(&mut taking, 10, 7, [true; 3]), Next::LookAgain);
        taking.look_again(Round(8), lanes());
        assert_eq!(all(&mut taking, 999, 8, [true; 3]), Next::Decide);
    }

    #[test]
    fn nothing_is_decided_on_a_statement_that_is_too_old() {
        assert_eq!(all(&mut asked(UNTIL), 1_000, 7, [true; 3]), Next::TooOld);
        let mut taking = asked(UNTIL);
        assert_eq!(all(&mut taking, 10, 7, [true; 3]), Next::LookAgain);
        taking.look_again(Round(8), lanes());
        assert_eq!(all(&mut taking, 1_000, 8, [true; 3]), Next::TooOld);
    }

    #[test]
    fn an_answer_to_an_earlier_round_a_second_one_and_a_strangers_are_of_no_weight() {
        let mut taking = asked(UNTIL);
        assert_eq!(all(&mut taking, 10, 7, [true; 3]), Next::LookAgain);
        taking.look_again(Round(8), lanes());
        let now = Instant(20);
        for (number, round) in [(1, 7), (2, 7), (3, 7), (1, 9), (4, 8)] {
            assert_eq!(taking.answered(now, lane(number), Round(round), false), Next::Waits);
        }
        assert_eq!(taking.answered(now, lane(1), Round(8), true), Next::Waits);
        assert_eq!(taking.answered(now, lane(1), Round(8), false), Next::Waits, "it has answered");
        assert_eq!(taking.answered(now, lane(2), Round(8), true), Next::Waits);
        assert_eq!(taking.answered(now, lane(3), Round(8), true), Next::Decide, "none of them counted");
    }

    #[test]
    fn a_node_that_is_gone_cannot_be_taken_over() {
        let mut taking = asked(Reason::Word);
        assert_eq!(taking.gone(Instant(0), lane(2)), Next::Waits);
        assert_eq!(taking.answered(Instant(0), lane(1), Round(7), true), Next::Waits);
        assert_eq!(taking.answered(Instant(0), lane(3), Round(7), true), Next::Refuse);
    }

    #[test]
    fn silence_gives_way_to_a_word_and_to_silence_only_when_its_statement_is_too_old() {
        let later = Reason::Silence { until: Instant(9_000) };
        for (under_way, now, to, expected) in [
            (Reason::Word, 5_000, Reason::Word, false),
            (Reason::Word, 5_000, later, false),
            (UNTIL, 0, Reason::Word, true),
            (UNTIL, 999, later, false),
            (UNTIL, 1_000, later, true),
        ] {
            assert_eq!(asked(under_way).gives_way(Instant(now), to), expected, "{under_way:?} at {now} to {to:?}");
        }
    }
}
