//! What goes wrong, drawn from the seed: which kinds of fault a run has, and how often each comes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::dice::Dice;

/// A kind of fault.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Fault {
    CrashPrimary,
    CrashSecondary,
    CrashBoth,
    PathLost,
    PathCut,
    OneWay,
    Duplicate,
    Nonsense,
    SlowLink,
    SlowDisk,
    JournalFull,
    HomeFull,
    LogFull,
    JournalSyncFails,
    HomeSyncFails,
    LogFails,
    MapFails,
    SmallJournal,
    EpochFails,
    EpochSlow,
    EscrowSilent,
    EscrowRefuses,
    KeyRefused,
    KeySlow,
    CopyReadFails,
    ClockJump,
    JournalRot,
    LogRot,
    SnapshotPrimary,
    SnapshotSecondary,
    SlowSync,
    /// The operator at the secondary sets the pair's encrypt bit otherwise, for some time.
    OtherBit,
    /// A record's encrypt bit is cleared on its way.
    FlagStripped,
    /// A generation cannot be written at the secondary, or what was written is not known to be.
    GenerationFails,
}

impl Fault {
    pub const ALL: [Self; 34] = [
        Self::CrashPrimary,
        Self::CrashSecondary,
        Self::CrashBoth,
        Self::PathLost,
        Self::PathCut,
        Self::OneWay,
        Self::Duplicate,
        Self::Nonsense,
        Self::SlowLink,
        Self::SlowDisk,
        Self::JournalFull,
        Self::HomeFull,
        Self::LogFull,
        Self::JournalSyncFails,
        Self::HomeSyncFails,
        Self::LogFails,
        Self::MapFails,
        Self::SmallJournal,
        Self::EpochFails,
        Self::EpochSlow,
        Self::EscrowSilent,
        Self::EscrowRefuses,
        Self::KeyRefused,
        Self::KeySlow,
        Self::CopyReadFails,
        Self::ClockJump,
        Self::JournalRot,
        Self::LogRot,
        Self::SnapshotPrimary,
        Self::SnapshotSecondary,
        Self::SlowSync,
        Self::OtherBit,
        Self::FlagStripped,
        Self::GenerationFails,
    ];

    /// Ends the run early by design: what was promised is damaged, and the node says so.
    fn is_terminal(self) -> bool {
        matches!(self, Self::JournalRot | Self::LogRot | Self::SnapshotPrimary | Self::SnapshotSecondary)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// The faults of one run, each with how often it comes in a thousand chances.
#[derive(Clone, Debug)]
pub struct Faults {
    rates: BTreeMap<Fault, u64>,
    dice: Dice,
    /// Faults stop here: everything heals.
    pub healed: bool,
    /// All of them come this many times rarer: where an operation takes long.
    pub rarer: u64,
    pub injected: BTreeMap<Fault, u64>,
}

impl Faults {
    /// Some seeds have no fault, some one at a high rate, most a handful.
    pub fn draw(seed: u64, without: &BTreeSet<Fault>) -> Self {
        let mut dice = Dice::new(seed, 2);
        let mut rates = BTreeMap::new();
        let share = [0, 80, 200, 400, 600][usize::try_from(dice.below(5)).unwrap_or(0)];
        for fault in Fault::ALL {
            let rate = [5, 20, 60, 200][usize::try_from(dice.below(4)).unwrap_or(0)];
            let chosen = dice.chance(if fault.is_terminal() { share / 10 } else { share });
            if chosen && !without.contains(&fault) {
                rates.insert(fault, rate);
            }
        }
        Self { rates, dice: Dice::new(seed, 3), healed: false, rarer: 1, injected: BTreeMap::new() }
    }

    pub fn has(&self, fault: Fault) -> bool {
        !self.healed && self.rates.contains_key(&fault)
    }

    /// This run has this fault, whatever the seed drew.
    pub fn insist(&mut self, fault: Fault, rate: u64) {
        self.rates.insert(fault, rate);
    }

    /// Does it strike now?
    pub fn strikes(&mut self, fault: Fault) -> bool {
        self.strikes_at(fault, 1)
    }

    /// Does it strike now, this many times rarer than usual?
    pub fn strikes_at(&mut self, fault: Fault, rarer: u64) -> bool {
        if self.healed {
            return false;
        }
        let Some(rate) = self.rates.get(&fault).copied() else { return false };
        let strikes = self.dice.below(1000 * rarer * self.rarer) < rate;
        if strikes {
            *self.injected.entry(fault).or_default() += 1;
        }
        strikes
    }

    pub fn kinds(&self) -> impl Iterator<Item = Fault> {
        self.rates.keys().copied()
    }
}
