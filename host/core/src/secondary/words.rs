//! What goes into the secondary's machine and what comes out of it: settings, what a restart found, inputs, outputs, and what a console shows.

use serde::Serialize;

use super::*;
use crate::ledger::LedgerError;

/// What does not change while the machine lives.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub pair: PairId,
    pub volume: VolumeId,
    /// What the operator at this site set: are records sealed?
    pub encrypted: bool,
    pub block_bytes: BlockBytes,
    pub blocks: BlockCount,
    /// The record layout that the operator at this site declared, if any.
    pub layout: Option<LayoutMark>,
}

/// What a restart found.
#[derive(Clone, Debug)]
pub struct Recovered {
    pub generation: Generation,
    pub taken_over: bool,
    /// Everything up to here is in the log, durably, and the running hash there.
    pub contiguous: Sequence,
    pub chain: Chain,
    /// Durable records above it.
    pub above: Vec<(Header, Digest)>,
    pub ledger: Ledger,
    /// The offered prefix, if a gap was open, and the running hash there.
    pub gap_open_after: Option<Sequence>,
    /// What was offered, where that is known; it is never less afterwards. Else all that is consistent.
    pub offered: Option<Sequence>,
    /// How far the group let it be offered, and where that is in the order.
    pub limit: OfferLimit,
    pub group_through: Sequence,
    pub group_cut: CutNumber,
    /// The group's cuts up to `contiguous`.
    pub cuts: KeptCuts,
    pub gap_chain: Chain,
    /// The base is a state of another history, and the gap after this record is the one that it leaves open.
    pub differs_after: Option<Sequence>,
    /// Where the copy was no state of the volume, as far as it is remembered.
    pub holes: Vec<Hole>,
}

impl Recovered {
    pub fn fresh() -> Self {
        Self {
            generation: Generation(0),
            taken_over: false,
            contiguous: Sequence::NONE,
            chain: Chain::START,
            above: Vec::new(),
            ledger: Ledger::default(),
            gap_open_after: None,
            offered: None,
            limit: OfferLimit::Everything,
            group_through: Sequence::NONE,
            group_cut: CutNumber::NONE,
            cuts: KeptCuts::default(),
            gap_chain: Chain::START,
            differs_after: None,
            holes: Vec::new(),
        }
    }

    /// A site that becomes the keeper of another's history, from its start on. `differs`: its base is the end of a
    /// history of its own; else it holds what the history held there.
    pub fn keeper_of(lineage: &Lineage, differs: bool) -> Self {
        let gap = differs.then_some(lineage.start);
        Self {
            generation: lineage.generation,
            contiguous: lineage.start,
            chain: lineage.start_chain,
            gap_open_after: gap,
            gap_chain: lineage.start_chain,
            differs_after: gap,
            ..Self::fresh()
        }
    }
}

/// One thing that happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// The primary attaches on a path; the driver has checked who it is.
    Attach {
        path: Path,
        attach: Attach,
    },
    PathLost {
        path: Path,
    },
    /// A whole record came, and its checksum fits.
    Record {
        path: Path,
        header: Header,
        digest: Digest,
    },
    /// Something came that is no record.
    Nonsense {
        path: Path,
    },
    /// Records up to the n-th [`Output::Store`] of this machine's life, failed ones counted, are durable.
    LogSynced {
        stored: u64,
    },
    LogFailed {
        fault: StoreFault,
    },
    /// The capsule of the key record at `key` was checked.
    KeyChecked {
        key: Sequence,
        result: Result<KeyFacts, KeyRefusal>,
    },
    /// How far the group lets this lane be offered. Only grows; a takeover opens what is offered then.
    Limit(OfferLimit),
    TakeOver,
    /// As [`Input::TakeOver`], by silence: only where the main site was not heard after `unheard_since`, and before `until`.
    TakeOverUnheard {
        unheard_since: Instant,
        until: Instant,
    },
    /// The primary stops writing at this record, and this site is to go on from there.
    HandOver {
        path: Path,
        hand_over: HandOver,
    },
    GenerationPersisted {
        generation: Generation,
    },
    /// It could not be made durable, and is asked for again after a while.
    GenerationNotPersisted {
        generation: Generation,
    },
    Tick,
}

impl Input {
    /// It came over the link.
    pub(super) fn is_of_the_primary(&self) -> bool {
        match self {
            Self::Attach { .. } | Self::Record { .. } | Self::Nonsense { .. } | Self::HandOver { .. } => true,
            Self::PathLost { .. }
            | Self::LogSynced { .. }
            | Self::LogFailed { .. }
            | Self::KeyChecked { .. }
            | Self::Limit(_)
            | Self::TakeOver
            | Self::TakeOverUnheard { .. }
            | Self::GenerationPersisted { .. }
            | Self::GenerationNotPersisted { .. }
            | Self::Tick => false,
        }
    }
}

/// What a key record's descriptor says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeyFacts {
    pub epoch: Epoch,
    pub start: Sequence,
}

/// What the driver must do, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// Tell the primary in which granules the base differs; the welcome follows.
    Differs {
        path: Path,
    },
    Welcome {
        path: Path,
        welcome: Welcome,
    },
    Refuse {
        path: Path,
        refusal: Refusal,
    },
    ClosePath {
        path: Path,
    },
    /// Store the record that just came, as the next; [`Input::LogSynced`] counts these.
    Store {
        sequence: Sequence,
    },
    /// Make everything stored durable.
    SyncLog,
    /// Check the capsule in this record, which is durable.
    CheckKey {
        key: Sequence,
    },
    Ack {
        path: Path,
        ack: Ack,
    },
    KeyRefused {
        path: Path,
        key: Sequence,
        why: KeyRefusal,
    },
    /// The index may take in every record up to here.
    Offer {
        through: Sequence,
    },
    /// Tell the primary that this site writes now.
    HandedOver {
        path: Path,
        generation: Generation,
    },
    /// Make the generation durable: nobody is welcomed or fenced under it before. With `taken_over`, where its history comes
    /// from too: [`Secondary::fork`].
    PersistGeneration {
        generation: Generation,
        taken_over: bool,
    },
    /// The generation is durable: this site is the one that may write.
    TakenOver {
        generation: Generation,
        through: Sequence,
    },
    Alarm(Alarm),
}

/// Something that an honest peer does not do, or that an operator must know.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error, Serialize)]
pub enum Alarm {
    #[error(
        "a record, a peer or this site's own log disagrees with the pair's encrypt bit: refused, and nothing is offered; \
         check `encrypted` of the pair at both sites"
    )]
    EncryptionDiffers,
    #[error(
        "a record or a peer disagrees with the pair's record layout: refused; check `layout` of the pair at both sites"
    )]
    LayoutDiffers,
    #[error("a record of another pair, volume or generation came: refused")]
    Misplaced,
    #[error("the peer sends what is no record, or what is far out of order: dropped")]
    Nonsense,
    #[error("the log's disk is full: nothing more is acknowledged until space returns")]
    LogFull,
    #[error("the log failed: nothing more is acknowledged; mend the disk and restart the node")]
    LogFailed,
    #[error("record {key}: the key is refused ({why:?})")]
    KeyRefused { key: Sequence, why: KeyRefusal },
    #[error("record {key}: {error}")]
    Ledger { key: Sequence, error: LedgerErrorKind },
    #[error("a primary of generation {0} tried to attach: it was taken over from")]
    Fenced(Generation),
    #[error("the primary wants to hand over at a record that this site is not at: refused")]
    OtherPlace,
}

/// [`LedgerError`] without its numbers, for alarms.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error, Serialize)]
pub enum LedgerErrorKind {
    #[error("the epoch is not newer than the last: a replayed key")]
    NotNewer,
    #[error("the epoch would start before its own key record")]
    StartsTooEarly,
    #[error("a void names an epoch that is not waiting")]
    UnknownVoid,
}

impl From<LedgerError> for LedgerErrorKind {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::NotNewer { .. } => Self::NotNewer,
            LedgerError::StartsTooEarly { .. } => Self::StartsTooEarly,
        }
    }
}

/// The numbers that a console shows.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    pub generation: Generation,
    pub taken_over: bool,
    pub paths: usize,
    /// A path is up, or waits to be welcomed.
    #[serde(skip)]
    pub linked: bool,
    /// When something came from the primary last, a refused attach included, or the last path to it was lost; this machine's
    /// start, if nothing came since.
    #[serde(skip)]
    pub heard: Instant,
    /// Durable here without a hole.
    pub durable: Sequence,
    /// What a takeover would open.
    pub offered: Sequence,
    /// When the primary gave the last durable record its place.
    pub durable_wall: Option<WallTime>,
    pub gap_open: bool,
    /// The group's cut that is offered; 0 where the pair is alone in its group.
    pub group_cut: CutNumber,
    /// What is offered is this site's own old history: the new one is not whole here yet.
    pub base_differs: bool,
    pub epoch: Option<Epoch>,
    pub full: bool,
    /// The running hash up to `durable`.
    pub chain: Chain,
    pub alarms: Vec<(WallTime, Alarm)>,
}

impl Status {
    /// There is a state of the primary's history that a takeover opens: not before the first copy is whole, nor while the base is a state
    /// of another one.
    pub fn has_point(&self) -> bool {
        self.offered > Sequence::NONE && !self.base_differs
    }
}
