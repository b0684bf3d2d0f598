//! What runs of groups have seen: figures, each of which must be above zero over many runs, or they prove nothing.

use std::collections::BTreeMap;
use std::fmt;

/// Something that is counted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Figure {
    Runs,
    Lanes,
    Groups,
    /// Of all links.
    Paths,
    Writes,
    /// Writes that follow from one of another group, of which nothing is promised but what lies behind it.
    FollowsFromAnotherGroup,
    WritesLost,
    ReadsHeld,
    CutsMade,
    CutsGivenUp,
    CutsOffered,
    CutsNamed,
    Crashes,
    CrashesOfALead,
    CrashesOfTheKeepingLead,
    CrashesDuringATakeover,
    Pauses,
    /// Every lane had stopped, and the copies held the cut.
    PausesSettled,
    PausedAnew,
    PausedByPreset,
    PausedAlone,
    ClockJumps,
    Refused,
    Takeovers,
    TakeoversInTheMiddle,
    TakeoversOfAPausedGroup,
    LanesFenced,
    CutsMadeAfterATakeover,
    /// Changes of sides of a group.
    TurnsWanted,
    TurnsRefused,
    TurnsDecided,
    TurnsCompleted,
    TurnsGivenUp,
    LanesHandedOver,
    /// A lane's node or its lead crashed between decision and end.
    CrashesDuringATurn,
    /// The writing site was lost in the middle.
    LostDuringATurn,
    /// Some lanes had changed sides by then: copies of others, each taken over by itself.
    TakenOverAlone,
    LostAndBack,
    /// A lane took writes after it had stood still, before it heard of the decision.
    WroteInBetween,
    FloorsRaised,
    RetirementsRefusedLive,
    RetirementsRefusedNotOffered,
    /// Disasters of a group.
    DisastersDeclared,
    AccidentsDuringADisaster,
    LinksCut,
    WordsSaid,
    WordsCameLate,
    WordsRefused,
    TakeoversByTheWord,
    /// The operator was told that the other site takes over: at the cut that was made for it, or at an earlier one.
    DisastersAtACut,
    DisastersWithoutACut,
    /// Lanes went on.
    DisastersInVain,
    /// Main nodes that their copies, their witnesses or both do not hear.
    Outages,
    SilencesToldOf,
    TakeoversBySilence,
    /// A copy that was asked could not, or heard something.
    TakeoversRefused,
    StatementsTooOld,
}

/// Sums over runs.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Figures(BTreeMap<Figure, u64>);

impl Figure {
    pub const ALL: [Self; 57] = [
        Self::Runs,
        Self::Lanes,
        Self::Groups,
        Self::Paths,
        Self::Writes,
        Self::FollowsFromAnotherGroup,
        Self::WritesLost,
        Self::ReadsHeld,
        Self::CutsMade,
        Self::CutsGivenUp,
        Self::CutsOffered,
        Self::CutsNamed,
        Self::Crashes,
        Self::CrashesOfALead,
        Self::CrashesOfTheKeepingLead,
        Self::CrashesDuringATakeover,
        Self::Pauses,
        Self::PausesSettled,
        Self::PausedAnew,
        Self::PausedByPreset,
        Self::PausedAlone,
        Self::ClockJumps,
        Self::Refused,
        Self::Takeovers,
        Self::TakeoversInTheMiddle,
        Self::TakeoversOfAPausedGroup,
        Self::LanesFenced,
        Self::CutsMadeAfterATakeover,
        Self::TurnsWanted,
        Self::TurnsRefused,
        Self::TurnsDecided,
        Self::TurnsCompleted,
        Self::TurnsGivenUp,
        Self::LanesHandedOver,
        Self::CrashesDuringATurn,
        Self::LostDuringATurn,
        Self::TakenOverAlone,
        Self::LostAndBack,
        Self::WroteInBetween,
        Self::FloorsRaised,
        Self::RetirementsRefusedLive,
        Self::RetirementsRefusedNotOffered,
        Self::DisastersDeclared,
        Self::AccidentsDuringADisaster,
        Self::LinksCut,
        Self::WordsSaid,
        Self::WordsCameLate,
        Self::WordsRefused,
        Self::TakeoversByTheWord,
        Self::DisastersAtACut,
        Self::DisastersWithoutACut,
        Self::DisastersInVain,
        Self::Outages,
        Self::SilencesToldOf,
        Self::TakeoversBySilence,
        Self::TakeoversRefused,
        Self::StatementsTooOld,
    ];
}

impl Figures {
    pub fn count(&mut self, what: Figure) {
        self.add(what, 1);
    }

    pub fn add(&mut self, what: Figure, count: u64) {
        *self.0.entry(what).or_default() += count;
    }

    pub fn get(&self, what: Figure) -> u64 {
        self.0.get(&what).copied().unwrap_or(0)
    }

    pub fn add_all(&mut self, other: &Self) {
        other.0.iter().for_each(|(what, count)| self.add(*what, *count));
    }

    /// What never happened.
    pub fn never(&self) -> Vec<Figure> {
        Figure::ALL.into_iter().filter(|what| self.get(*what) == 0).collect()
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "groups:")?;
        self.0.iter().try_for_each(|(what, count)| writeln!(f, "  {count:>9}  {what:?}"))?;
        match self.never().as_slice() {
            [] => Ok(()),
            never => writeln!(f, "never: {never:?}"),
        }
    }
}
