//! The rules that the kit tries: their numbers, their words, the kinds they are for and what of the contract they try.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::kind::Kind;
use crate::scenario::Run;

/// A rule that the kit tries. What each says in full is in `wit/README.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Rule {
    /// Equal arguments, equal answers: each story is told twice, to two instances.
    #[serde(rename = "C-1")]
    Pure,
    /// No trap, no loop, no hoard, on any input that the types allow.
    #[serde(rename = "C-2")]
    NeverDies,
    /// Answers are within the contract's bounds.
    #[serde(rename = "C-3")]
    WithinBounds,
    /// Wrong settings are refused with their place; none is a fault.
    #[serde(rename = "C-4")]
    SettingsChecked,
    /// State of another plugin, or its own with something changed, is refused or survived, and the next step is sound.
    #[serde(rename = "C-5")]
    ForeignState,
    /// It comes to rest: 32 calls without time passing are too many.
    #[serde(rename = "C-6")]
    ComesToRest,
    /// Wake-ups that are asked for lie ahead, one an answer.
    #[serde(rename = "C-7")]
    WakesAhead,
    /// Rotation: its state does not grow for as long as it is asked.
    #[serde(rename = "C-8")]
    StaysSmall,
    /// Rotation: a suspicion of the key in force is heeded.
    #[serde(rename = "C-9")]
    Heeds,
    /// Rotation: what the node tells twice brings no more keys than told once.
    #[serde(rename = "C-10")]
    ToldTwice,
    /// Rotation: its own state, handed over as one of its own schema, goes on.
    #[serde(rename = "C-11")]
    Migrates,
    /// Rotation: it does not ask again and again for a key that the host's floor forbids.
    #[serde(rename = "C-12")]
    NeverBegs,
    /// Recovery: left alone with a volume, the plan comes to its end, restarts and damage notwithstanding.
    #[serde(rename = "C-20")]
    Finishes,
    /// Disguise: round trips and exact capacity.
    #[serde(rename = "C-30")]
    RoundTrips,
    /// Disguise: nothing in plain covers, nothing false in carriers with one bit changed.
    #[serde(rename = "C-31")]
    NeverGuesses,
    /// Cipher: plans that a fresh instance repeats.
    #[serde(rename = "C-40")]
    PlansRepeat,
    /// Cipher: of an own algorithm each block opens to what it was, alone and beside a damaged one.
    #[serde(rename = "C-41")]
    Opens,
    /// Cipher: of an own algorithm a block does not open under another's nonce or key.
    #[serde(rename = "C-42")]
    Depends,
}

impl Rule {
    /// Every rule, in the order of their numbers.
    pub const ALL: [Self; 18] = [
        Self::Pure,
        Self::NeverDies,
        Self::WithinBounds,
        Self::SettingsChecked,
        Self::ForeignState,
        Self::ComesToRest,
        Self::WakesAhead,
        Self::StaysSmall,
        Self::Heeds,
        Self::ToldTwice,
        Self::Migrates,
        Self::NeverBegs,
        Self::Finishes,
        Self::RoundTrips,
        Self::NeverGuesses,
        Self::PlansRepeat,
        Self::Opens,
        Self::Depends,
    ];

    /// The rules of a kind.
    #[must_use]
    pub fn of(kind: Kind) -> Vec<Self> {
        Self::ALL.into_iter().filter(|rule| rule.kinds().contains(&kind)).collect()
    }

    /// The kinds that it is tried on.
    #[must_use]
    pub const fn kinds(self) -> &'static [Kind] {
        match self {
            Self::Pure | Self::NeverDies | Self::WithinBounds | Self::SettingsChecked => &Kind::ALL,
            Self::ForeignState | Self::ComesToRest | Self::WakesAhead => &[Kind::Rotation, Kind::Recovery],
            Self::StaysSmall | Self::Heeds | Self::ToldTwice | Self::Migrates | Self::NeverBegs => &[Kind::Rotation],
            Self::Finishes => &[Kind::Recovery],
            Self::RoundTrips | Self::NeverGuesses => &[Kind::Disguise],
            Self::PlansRepeat | Self::Opens | Self::Depends => &[Kind::Cipher],
        }
    }

    /// The rules of the contract that it tries, as `wit/README.md` numbers them; the bounds of answers have no number.
    #[must_use]
    pub const fn contract(self) -> &'static [&'static str] {
        match self {
            Self::Pure => &["R-1", "R-20"],
            Self::NeverDies => &["R-2", "R-3"],
            Self::WithinBounds => &["R-5", "R-30"],
            Self::SettingsChecked | Self::ForeignState | Self::Migrates | Self::Finishes => &[],
            Self::NeverBegs => &["R-4"],
            Self::ComesToRest => &["R-6"],
            Self::WakesAhead => &["R-8"],
            Self::StaysSmall => &["R-10"],
            Self::Heeds => &["R-9"],
            Self::ToldTwice => &["R-5"],
            Self::RoundTrips => &["R-21", "R-22"],
            Self::NeverGuesses => &["R-23"],
            Self::PlansRepeat => &["R-31", "R-32"],
            Self::Opens => &["R-40"],
            Self::Depends => &["R-41"],
        }
    }

    /// Its number, as `wit/README.md` has it.
    #[must_use]
    pub const fn number(self) -> &'static str {
        match self {
            Self::Pure => "C-1",
            Self::NeverDies => "C-2",
            Self::WithinBounds => "C-3",
            Self::SettingsChecked => "C-4",
            Self::ForeignState => "C-5",
            Self::ComesToRest => "C-6",
            Self::WakesAhead => "C-7",
            Self::StaysSmall => "C-8",
            Self::Heeds => "C-9",
            Self::ToldTwice => "C-10",
            Self::Migrates => "C-11",
            Self::NeverBegs => "C-12",
            Self::Finishes => "C-20",
            Self::RoundTrips => "C-30",
            Self::NeverGuesses => "C-31",
            Self::PlansRepeat => "C-40",
            Self::Opens => "C-41",
            Self::Depends => "C-42",
        }
    }

    /// In a few words.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Pure => "equal arguments give equal answers",
            Self::NeverDies => "no input that the types allow ends in a fault",
            Self::WithinBounds => "answers are within the contract's bounds",
            Self::SettingsChecked => "wrong settings are refused, with their place",
            Self::ForeignState => "foreign or altered state is refused or survived",
            Self::ComesToRest => "it comes to rest when no time passes",
            Self::WakesAhead => "wake-ups lie ahead, one an answer",
            Self::StaysSmall => "its state does not grow with each call",
            Self::Heeds => "a suspicion of the key in force is heeded",
            Self::ToldTwice => "what is told twice brings no more keys",
            Self::Migrates => "its own state goes on under its own schema",
            Self::NeverBegs => "what the host's floor forbids is not begged for",
            Self::Finishes => "the plan comes to its end",
            Self::RoundTrips => "what is hidden is found again",
            Self::NeverGuesses => "nothing is found that was not hidden",
            Self::PlansRepeat => "a fresh instance plans the same",
            Self::Opens => "what was sealed opens, block by block",
            Self::Depends => "no block opens under another's nonce or key",
        }
    }

    /// The first failure of a story that is this rule's: each names its rule of the contract.
    pub(super) fn failure(self, run: &Run) -> Option<String> {
        let names = |failure: &String, rule: &&str| failure.split(['(', ')', ',', ' ']).any(|word| word == *rule);
        run.failures.iter().find(|failure| self.contract().iter().any(|rule| names(failure, rule))).cloned()
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<5} {}", self.number(), self.words())
    }
}
