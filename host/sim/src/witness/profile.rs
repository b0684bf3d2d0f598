//! What a world of the witness rule has more of than others: each part of the rule is there for something that is rare elsewhere.

use crate::dice::Dice;
use crate::mutation::Mutation;

/// What is dense in a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Profile {
    /// Everything is as rare as it is.
    Mixed,
    /// The link comes and goes between two looks, while the witness is asked.
    LinkFlickers,
    /// A statement is long on its way, and kept long before it is used.
    StatementsLate,
    /// The witness is asked again and again, and what it said before arrives instead of its answer.
    StatementsReplayed,
    /// The main site comes back between the statement and the takeover.
    MainComesBack,
}

impl Profile {
    /// Half of the worlds have one; a world that is broken elsewhere has that in which the break tells.
    pub(super) fn draw(dice: &mut Dice, mutation: Option<Mutation>) -> Self {
        let drawn = match dice.below(8) {
            0 => Self::LinkFlickers,
            1 => Self::StatementsLate,
            2 => Self::StatementsReplayed,
            3 => Self::MainComesBack,
            _ => Self::Mixed,
        };
        match mutation {
            None => drawn,
            Some(Mutation::LinkLookedAtAlone) => Self::LinkFlickers,
            Some(Mutation::StatementNeverOld) => Self::StatementsLate,
            Some(Mutation::OldStatementTaken) => Self::StatementsReplayed,
            Some(Mutation::MachineNotAsked) => Self::MainComesBack,
            Some(_) => Self::Mixed,
        }
    }

    /// How many times the operations that the rule needs are added.
    pub(super) fn longer(self) -> u64 {
        match self {
            Self::Mixed => 1,
            Self::LinkFlickers | Self::MainComesBack => 2,
            Self::StatementsLate | Self::StatementsReplayed => 4,
        }
    }

    /// In a thousand questions: the main site is back for a moment before the answer.
    pub(super) fn back_while_asked(self) -> u64 {
        if self == Self::LinkFlickers { 600 } else { 20 }
    }

    /// In a thousand takeovers: it is back for a moment before the machine is told.
    pub(super) fn back_before_the_takeover(self) -> u64 {
        if self == Self::MainComesBack { 800 } else { 20 }
    }

    /// In a thousand words to the witness or from it, and in a thousand statements: it takes seconds.
    pub(super) fn slow_ways(self) -> u64 {
        if self == Self::StatementsLate { 600 } else { 250 }
    }

    /// In a thousand takeovers: it takes seconds until the machine is told.
    pub(super) fn slow_takeovers(self) -> u64 {
        if self == Self::MainComesBack { 800 } else { 200 }
    }

    /// In a thousand answers: an earlier one arrives instead.
    pub(super) fn replayed(self) -> u64 {
        if self == Self::StatementsReplayed { 700 } else { 150 }
    }

    /// In a thousand answers: none arrives.
    pub(super) fn unanswered(self) -> u64 {
        if self == Self::StatementsReplayed { 500 } else { 125 }
    }

    /// In a thousand outages: the main site is back for a moment, whatever the keeper does just then.
    pub(super) fn back_for_a_moment(self) -> u64 {
        if self == Self::Mixed { 600 } else { 100 }
    }

    /// How long an outage lasts, in microseconds: in the middle more than two silences and an answer.
    pub(super) fn outage_us(self) -> (u64, u64) {
        match self {
            Self::Mixed => (4_000_000, 40_000_000),
            Self::LinkFlickers | Self::MainComesBack => (15_000_000, 45_000_000),
            Self::StatementsLate => (25_000_000, 60_000_000),
            Self::StatementsReplayed => (45_000_000, 90_000_000),
        }
    }

    /// Of the twelve sorts of outage the one that comes instead of the one that was drawn, where both hear nothing of the main site.
    pub(super) fn sort(self, drawn: u64, dice: &mut Dice) -> u64 {
        match self {
            Self::Mixed => drawn,
            // A main site that is lost does not come back for a moment.
            Self::LinkFlickers | Self::MainComesBack if dice.chance(700) => 2,
            Self::StatementsLate | Self::StatementsReplayed if dice.chance(700) => dice.below(6),
            Self::LinkFlickers | Self::MainComesBack | Self::StatementsLate | Self::StatementsReplayed => drawn,
        }
    }
}
