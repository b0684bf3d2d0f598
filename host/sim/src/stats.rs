//! What runs have seen: figures that can be recounted, and things that must happen sometimes or the runs prove nothing.

use std::collections::BTreeMap;
use std::fmt;

use crate::faults::Fault;

/// Something that a night of runs must have seen.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Sometimes {
    Resync,
    ResyncEnded,
    JournalOverflow,
    CopyRead,
    CopyDiscarded,
    CopyAll,
    CrashDuringResync,
    CrashDuringRotation,
    TailLost,
    TailTorn,
    NothingLost,
    RotationInBand,
    RotationPause,
    RotationAtOnce,
    KeyEscrowed,
    EscrowLate,
    RotationVoided,
    KeyRefused,
    HeldAtHardLimit,
    PausedByOperator,
    JournalFull,
    SecondaryFull,
    WriteRefusedForRoom,
    FlushFailed,
    OutOfOrderArrival,
    EarlierPointOpened,
    PointWhileCatchingUp,
    WindowMoved,
    GapAccepted,
    PathRefused,
    HomeReplayed,
    DamageNamed,
    RotInLastCommit,
    TakeOver,
    TakeOverWithGapOpen,
    Fenced,
    Rejoined,
    RejoinedUnknown,
    SwappedSides,
    SwapGivenUp,
    TakenBack,
    TakenBackFromAWriter,
    WithoutOrder,
    CrashDuringSwap,
    AnsweredForBothSites,
    AnsweredWithoutTheCopy,
    TransferOrdered,
    TransferScheduled,
    ThrottleChanged,
    Throttled,
    Paced,
    CopyOfZeroes,
    CopyResumed,
    DiskSetBack,
    SetBackWhileBehind,
    SetBackNoticed,
    OnePathHealed,
    CopyReadAtOnce,
    SyncDropped,
    TakeOverOfOwnHistory,
    Adopted,
    AdoptedOverAWholeCopy,
    PausedByPreset,
    ResumedByPreset,
    OperatorTookPauseOver,
    OwedAgain,
    NumberSealedAgainAfterCrash,
    NumberSealedAgainAfterSnapshot,
    NumberSealedAgainAfterTakeover,
    SequenceEnd,
    PolicyNeverRotates,
    PolicyAlwaysRotates,
    PolicyTalksNonsense,
    EncryptionDiffers,
    FlagStripped,
    RefusedToTakeOver,
    SlotCovered,
    KeyInSlot,
    ShamInForce,
    KeyCarried,
    CarriedKeyStands,
    CarriedCoverStands,
    CarriedKeyMissing,
    OrderCameLate,
    OwedAgainToRetire,
    RetirementProved,
    OwnKeysNeededStill,
    OwnKeysDestroyed,
    OrderCameAgain,
    FloorRaised,
    FloorRaisedInACrash,
    FloorLostInACrash,
    FloorSetBack,
    RetirementRefusedLive,
    RetirementRefusedNotOffered,
    RetirementRefusedGeneration,
    RetirementRefusedOwnHistory,
    RetirementRefusedUnapplied,
}

/// Sums over runs.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    pub seeds: u64,
    pub events: u64,
    pub operations: u64,
    pub simulated_us: u64,
    pub nonces: u64,
    pub faults: BTreeMap<Fault, u64>,
    pub sometimes: BTreeMap<Sometimes, u64>,
}

impl Sometimes {
    pub const ALL: [Self; 98] = [
        Self::Resync,
        Self::ResyncEnded,
        Self::JournalOverflow,
        Self::CopyRead,
        Self::CopyDiscarded,
        Self::CopyAll,
        Self::CrashDuringResync,
        Self::CrashDuringRotation,
        Self::TailLost,
        Self::TailTorn,
        Self::NothingLost,
        Self::RotationInBand,
        Self::RotationPause,
        Self::RotationAtOnce,
        Self::KeyEscrowed,
        Self::EscrowLate,
        Self::RotationVoided,
        Self::KeyRefused,
        Self::HeldAtHardLimit,
        Self::PausedByOperator,
        Self::JournalFull,
        Self::SecondaryFull,
        Self::WriteRefusedForRoom,
        Self::FlushFailed,
        Self::OutOfOrderArrival,
        Self::EarlierPointOpened,
        Self::PointWhileCatchingUp,
        Self::WindowMoved,
        Self::GapAccepted,
        Self::PathRefused,
        Self::HomeReplayed,
        Self::DamageNamed,
        Self::RotInLastCommit,
        Self::TakeOver,
        Self::TakeOverWithGapOpen,
        Self::Fenced,
        Self::Rejoined,
        Self::RejoinedUnknown,
        Self::SwappedSides,
        Self::SwapGivenUp,
        Self::TakenBack,
        Self::TakenBackFromAWriter,
        Self::WithoutOrder,
        Self::CrashDuringSwap,
        Self::AnsweredForBothSites,
        Self::AnsweredWithoutTheCopy,
        Self::TransferOrdered,
        Self::TransferScheduled,
        Self::ThrottleChanged,
        Self::Throttled,
        Self::Paced,
        Self::CopyOfZeroes,
        Self::CopyResumed,
        Self::DiskSetBack,
        Self::SetBackWhileBehind,
        Self::SetBackNoticed,
        Self::OnePathHealed,
        Self::CopyReadAtOnce,
        Self::SyncDropped,
        Self::TakeOverOfOwnHistory,
        Self::Adopted,
        Self::AdoptedOverAWholeCopy,
        Self::PausedByPreset,
        Self::ResumedByPreset,
        Self::OperatorTookPauseOver,
        Self::OwedAgain,
        Self::NumberSealedAgainAfterCrash,
        Self::NumberSealedAgainAfterSnapshot,
        Self::NumberSealedAgainAfterTakeover,
        Self::SequenceEnd,
        Self::PolicyNeverRotates,
        Self::PolicyAlwaysRotates,
        Self::PolicyTalksNonsense,
        Self::EncryptionDiffers,
        Self::FlagStripped,
        Self::RefusedToTakeOver,
        Self::SlotCovered,
        Self::KeyInSlot,
        Self::ShamInForce,
        Self::KeyCarried,
        Self::CarriedKeyStands,
        Self::CarriedCoverStands,
        Self::CarriedKeyMissing,
        Self::OrderCameLate,
        Self::OwedAgainToRetire,
        Self::RetirementProved,
        Self::OwnKeysNeededStill,
        Self::OwnKeysDestroyed,
        Self::OrderCameAgain,
        Self::FloorRaised,
        Self::FloorRaisedInACrash,
        Self::FloorLostInACrash,
        Self::FloorSetBack,
        Self::RetirementRefusedLive,
        Self::RetirementRefusedNotOffered,
        Self::RetirementRefusedGeneration,
        Self::RetirementRefusedOwnHistory,
        Self::RetirementRefusedUnapplied,
    ];
}

impl Stats {
    pub fn see(&mut self, what: Sometimes) {
        *self.sometimes.entry(what).or_default() += 1;
    }

    pub fn add(&mut self, other: &Self) {
        self.seeds += other.seeds;
        self.events += other.events;
        self.operations += other.operations;
        self.simulated_us += other.simulated_us;
        self.nonces += other.nonces;
        other.faults.iter().for_each(|(fault, count)| *self.faults.entry(*fault).or_default() += count);
        other.sometimes.iter().for_each(|(what, count)| *self.sometimes.entry(*what).or_default() += count);
    }

    pub fn simulated_hours(&self) -> f64 {
        std::time::Duration::from_micros(self.simulated_us).as_secs_f64() / 3600.0
    }

    /// What never happened.
    pub fn never(&self) -> Vec<Sometimes> {
        Sometimes::ALL.into_iter().filter(|what| !self.sometimes.contains_key(what)).collect()
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} seeds, {:.2} simulated hours, {} events, {} operations, {} nonces",
            self.seeds,
            self.simulated_hours(),
            self.events,
            self.operations,
            self.nonces
        )?;
        writeln!(f, "faults:")?;
        self.faults.iter().try_for_each(|(fault, count)| writeln!(f, "  {count:>9}  {fault}"))?;
        writeln!(f, "sometimes:")?;
        self.sometimes.iter().try_for_each(|(what, count)| writeln!(f, "  {count:>9}  {what:?}"))?;
        match self.never().as_slice() {
            [] => Ok(()),
            never => writeln!(f, "never: {never:?}"),
        }
    }
}
