//! What goes into the primary's machine and what comes out of it: settings, inputs, outputs, and what a console shows.

use serde::{Deserialize, Serialize};

use super::*;
use crate::carriage::CarriageNumber;
use crate::frame::Attach;
use crate::given_up::GivenUp;
use crate::layout::{LayoutMark, SearchTags};
use crate::schedule;

/// What does not change while the machine lives.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub pair: PairId,
    pub volume: VolumeId,
    pub generation: Generation,
    pub encrypted: bool,
    pub block_bytes: BlockBytes,
    pub blocks: BlockCount,
    /// The record layout that both sites declare, if they do.
    pub layout: Option<LayoutMark>,
    /// Until an operator chooses another.
    pub mode: Mode,
    /// There is a secondary to copy to. Without one nothing is owed.
    pub paired: bool,
    pub key_limits: KeyLimits,
    /// Keys are deposited at an escrow site: none is placed in the order before that site's receipt is here.
    pub escrowed: bool,
    /// The pair's disguise carries in-band keys in the slots of other records.
    pub in_slots: bool,
    /// The way a policy's `as-configured` rotations go.
    pub rotate_how: How,
    /// A pause rotation does not show on the link, or nobody minds: it is refused otherwise.
    pub pause_hidden: bool,
    /// What goes over the link has a shape that no pause changes: a pause shows where a disguise keeps a schedule, and this is not so.
    pub shaped: bool,
    /// Bytes of the journal before what it holds for the secondary goes to the dirty map.
    pub journal_bytes_max: ByteLen,
    /// The order of writes need not be kept: how long places are remembered before each is sent. Only in mode `Async`.
    pub unordered: Option<Millis>,
    /// Until an operator chooses otherwise, but for the pacing.
    pub flow: Flow,
}

impl Settings {
    /// How path number `path` of `paths` names this pair and its volume to the secondary.
    pub fn attach(&self, path: u16, paths: u16) -> Attach {
        Attach {
            pair: self.pair,
            volume: self.volume,
            generation: self.generation,
            encrypted: self.encrypted,
            block_bytes: self.block_bytes,
            blocks: self.blocks,
            path,
            paths,
            layout: self.layout.map(|layout| layout.id),
        }
    }

    /// Search tags of each block.
    pub fn search_tags(&self) -> SearchTags {
        self.layout.map_or(SearchTags::NONE, |layout| layout.tags)
    }
}

/// When an initiator's request is answered. Where the secondary cannot be waited for (no link, paused, behind, no room
/// there), `SyncFlush` and `Sync` answer when the journal is durable, and [`Status::mode_kept`] says so.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// WRITE: it has its place in the buffer. FLUSH and FUA: the journal is durable.
    #[default]
    Async,
    /// WRITE: the same. FLUSH and FUA: the secondary is durable up to there, too.
    SyncFlush,
    /// WRITE, FLUSH and FUA: the secondary is durable up to there.
    Sync,
}

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Async => "async",
            Self::SyncFlush => "sync-flush",
            Self::Sync => "sync",
        })
    }
}

/// What a restart found. [`Recovered::fresh`] for a new lane.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// The last record in the journal, and the running hash after it.
    pub last: Sequence,
    pub chain: Chain,
    /// The secondary is known to hold everything up to here, and the running hash there.
    pub acked: Sequence,
    pub acked_chain: Chain,
    /// The journal's records above `acked`, in order, with their running hashes.
    pub unacked: Vec<Unacked>,
    /// Everything up to here is durable at home.
    pub homed: Sequence,
    /// The newest epoch that was ever used.
    pub newest_epoch: Epoch,
    /// The dirty map, if one was kept.
    pub owed: Option<OwedMap>,
    /// With a map: where the secondary may be above `acked`. `None`: an older version did not keep it.
    pub given_up: Option<GivenUp>,
    /// A pause by the operator was in force.
    pub paused: bool,
    /// The other site has taken over, as this generation.
    pub fenced: Option<Generation>,
    /// The mode that an operator chose last; none: as in the settings.
    pub mode: Option<Mode>,
    /// What else an operator chose.
    pub chosen: Chosen,
    /// The number of the last cut of its own.
    pub cuts: u64,
    /// The greatest number of a group's cut in the journal.
    pub group_cut: CutNumber,
    /// This site was handing over to the other, durably: whether it did, the other knows.
    pub handing_over: Option<HandOver>,
}

/// A record that the secondary has not acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unacked {
    pub sequence: Sequence,
    pub kind: Kind,
    pub bytes: ByteLen,
    pub chain: Chain,
    pub extent: Option<Extent>,
    pub wall: WallTime,
}

/// One thing that happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// An initiator wrote whole blocks; the driver keeps them in the data buffer under this ticket.
    Write {
        ticket: Ticket,
        what: What,
        extent: Extent,
        fua: bool,
    },
    Flush {
        ticket: Ticket,
    },
    /// The driver read what [`Output::ReadForCopy`] asked for, and keeps it in the data buffer. Every write that it may have
    /// seen stands before this among the inputs. `what` is zero where all of it reads as zeroes: nothing is kept then.
    CopyRead {
        ticket: Ticket,
        what: What,
        extent: Extent,
    },
    CopyReadFailed {
        extent: Extent,
    },
    /// The oldest commit under way is sealed and appended; one entry for each of its records.
    Committed {
        digests: Vec<Digest>,
    },
    /// It could not be appended; nothing of it is lost, it is tried again after a while.
    CommitFailed {
        fault: StoreFault,
    },
    JournalSynced {
        through: Sequence,
    },
    /// The journal could not be synced: nothing that it holds can be promised any more.
    JournalSyncFailed,
    Destaged {
        through: Sequence,
    },
    DestageFailed {
        fault: StoreFault,
    },
    HomeSynced {
        through: Sequence,
    },
    HomeSyncFailed,
    /// The journal's bytes on disk.
    JournalBytes {
        bytes: ByteLen,
    },
    OwedPersisted {
        stamp: u64,
    },
    OwedPersistFailed {
        stamp: u64,
    },
    /// The driver asks the secondary to attach on this path; a welcome follows, or [`Input::PathLost`].
    Attaching {
        path: Path,
    },
    Welcomed {
        path: Path,
        welcome: Welcome,
    },
    PathLost {
        path: Path,
    },
    Acked {
        path: Path,
        ack: Ack,
    },
    KeyRefused {
        key: Sequence,
        why: KeyRefusal,
    },
    /// The secondary's base is the end of another history; this part of it may differ. Comes before the welcome.
    Differs {
        differs: Differs,
    },
    /// [`Output::PersistHandOver`] is done.
    HandOverPersisted,
    HandOverPersistFailed,
    /// The secondary writes from now on: what it was asked to.
    HandedOver {
        generation: Generation,
    },
    /// The secondary refused to attach: its generation is newer, it was taken over to.
    Fenced {
        generation: Generation,
    },
    EpochPrepared {
        epoch: Epoch,
        slot: Slot,
    },
    /// The escrow site's receipt for this key is here and was checked.
    EpochEscrowed {
        epoch: Epoch,
    },
    /// The key could not be drawn, or the escrow site does not take it.
    EpochFailed {
        epoch: Epoch,
    },
    /// The answer to [`Output::PlanSlots`]. None at all: the disguise keeps no schedule, and a key goes at once.
    SlotsPlanned {
        slots: Vec<schedule::Planned>,
    },
    /// The disguise could not be asked; it is asked again.
    SlotsNotPlanned,
    PolicyDecided {
        decisions: Vec<Decision>,
    },
    /// The group's cut begins here: what was accepted before is below it, and answers to what comes after are withheld.
    OpenCut {
        cut: CutNumber,
        lanes: u16,
    },
    /// Answers are no longer withheld for this cut.
    ReleaseCut {
        cut: CutNumber,
    },
    /// Every lane held its answers back until all had opened the cut: what stands below it everywhere is consistent.
    ConfirmCut {
        cut: CutNumber,
        lanes: u16,
        name: Option<CutName>,
    },
    Operator(Command),
    /// A verification found these granules different at the secondary.
    OweAgain {
        map: OwedMap,
    },
    /// A seed is given up: what a disk acknowledged counts for nothing.
    SeedLost,
    /// Time passed.
    Tick,
}

/// What an initiator did to blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    Data,
    Zero,
    Trim,
}

/// Why a store took nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub enum StoreFault {
    /// No room: tried again when there may be some.
    Full,
    /// It failed: nothing is promised until a restart.
    Failed,
    /// The cipher could not be had: tried again; nothing is stored unsealed.
    Unsealed,
}

/// What an operator, or an initiator's program in the operator's place, wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command {
    Pause,
    Resume,
    /// Ask the policy for a new key; without a policy's answer nothing changes.
    RequestRotation,
    /// Change the key whatever the policy says.
    Rotate(How),
    Suspect(Epoch),
    /// Another policy is in force: what the one before wanted to be told of counts no more, and this one is asked.
    PolicyChanged,
    /// Owe every block: the secondary is copied to afresh.
    CopyAll,
    SetMode(Mode),
    /// Send over other paths, or in another order.
    SetWay(Way),
    /// Copy no faster than this.
    SetLimits(Limits),
    /// Change sides: stop at one record that both sites hold, and have the secondary go on from there. The driver takes
    /// no new writes from before this command on, until the swap is over.
    HandOver,
    /// As [`Command::HandOver`], up to where the other lanes of the group are waited for: new writes wait, for
    /// [`SWAP_HOLD_MAX`] at most.
    Quiesce,
    /// Ends [`Command::Quiesce`], and [`Command::HandOver`] as long as the other site knows nothing of it.
    GoOn,
}

/// What the rotation policy decided.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Decision {
    pub id: u64,
    pub action: Action,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// `None`: the way that the pair is configured.
    Rotate(Option<How>),
    WakeAt(WallTime),
    Watch {
        bytes: Option<u64>,
        blocks: Option<u64>,
    },
    /// Something that this version of the host does not know.
    Unknown,
}

/// What the policy is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PolicyEvent {
    Started,
    Timer,
    Usage,
    Requested,
    Suspect(Epoch),
    Rotated(Epoch),
    Decided { id: u64, outcome: Outcome },
}

/// On whose word a key is drawn.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wish {
    /// The policy's decision of this number.
    Policy(u64),
    Operator,
    /// A node seals under no key of an earlier start.
    FirstKey,
    /// The host's limits, before the key reaches them.
    HostLimit,
    /// The copy catches up: the secondary lacks the keys of what is given up.
    CatchUp,
}

/// What became of a decision.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    Applied,
    /// It asked to be woken sooner than it can be.
    Clamped,
    Refused(Refused),
    /// The key was not delivered in time; its epoch is void.
    NotDelivered,
    NotPrepared,
    Unknown,
}

/// What the slots of sent records say, where the pair's disguise has any. The driver fills the others at random.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Slots {
    #[default]
    Idle,
    /// The pieces of this carriage from `first` on, one with each record, as far as there are any.
    Pieces { number: CarriageNumber, first: u16 },
    /// With the first record: the carried key record stands at `key`, right before it.
    Stands { number: CarriageNumber, key: Sequence },
}

/// What the driver must do, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// Answer an initiator's request.
    Reply {
        ticket: Ticket,
        result: Result<(), ReplyError>,
    },
    /// Seal these records and append them to the journal, after the commit before. `durable` goes in the header. After
    /// a failed commit the driver holds later ones back until [`Output::RetryCommit`]. With `restart`, a new segment
    /// begins here, whose running hash starts from that.
    Commit {
        records: Vec<Planned>,
        durable: Sequence,
        restart: Option<Chain>,
    },
    /// Append the oldest commit under way again.
    RetryCommit,
    SyncJournal,
    /// Write the data buffer's blocks of records up to here to their home.
    Destage {
        through: Sequence,
    },
    SyncHome,
    /// Records up to here may leave the journal.
    TrimJournal {
        through: Sequence,
    },
    /// Read these blocks, as they are now, for a copy. `at_once`: initiators keep writing here, so that a read beside them
    /// comes to nothing again and again; read before any other input.
    ReadForCopy {
        extent: Extent,
        at_once: bool,
    },
    /// Forget what was read under this ticket: it is not what the blocks hold any more, or no longer wanted.
    DiscardCopy {
        ticket: Ticket,
    },
    /// Make the dirty map durable, with how far the secondary is known to be.
    PersistOwed {
        stamp: u64,
        acked: Sequence,
        acked_chain: Chain,
    },
    /// Nothing is owed but what the journal says: remove the dirty map.
    DropOwed,
    /// Send these records of the journal, verbatim.
    Send {
        path: Path,
        range: Range,
        slots: Slots,
    },
    /// Build this key record, or the cover in its stead, exactly as it will be committed, and keep it: it goes in the slots of other records before
    /// it is committed, if it ever is. Its bytes do not change any more. No word of the one before follows.
    CarryKey {
        number: CarriageNumber,
        planned: Planned,
    },
    /// Close this path: the peer broke the rules, or the pair is stopped.
    ClosePath {
        path: Path,
    },
    /// Draw a key and make its capsules, then fix a slot.
    PrepareEpoch {
        epoch: Epoch,
        how: How,
        by: Wish,
    },
    /// Forget this epoch's key: it never comes into force.
    DiscardEpoch {
        epoch: Epoch,
    },
    /// From here on records of this epoch are sealed; older keys may be wiped from memory.
    EpochInForce {
        epoch: Epoch,
    },
    /// Ask the disguise for its coming slots, whether a key is due or not.
    PlanSlots,
    /// Do, for nothing, what [`Output::EpochInForce`] leads to: a cover's sham start has come.
    ShamInForce,
    AskPolicy {
        event: PolicyEvent,
    },
    /// What became of an operator's command: one for each [`Input::Operator`], in their order.
    CommandAnswered(Result<(), Refused>),
    /// Remember, durably, that this site was taken over from.
    PersistFence {
        generation: Generation,
    },
    /// Remember, durably, that this site hands over, before the other one is asked: it never writes after that record.
    PersistHandOver {
        hand_over: HandOver,
    },
    /// Ask the secondary to go on from here.
    SendHandOver {
        path: Path,
        hand_over: HandOver,
    },
    /// The secondary writes now. This lane is done: nothing follows.
    HandedOver {
        hand_over: HandOver,
    },
    /// The secondary has the seed that was awaited.
    SeedArrived,
    /// Remember, durably, that the operator paused or resumed.
    PersistPause {
        paused: bool,
    },
    /// Remember, durably, which mode the operator chose.
    PersistMode {
        mode: Mode,
    },
    /// Remember, durably, over what the operator has records go.
    PersistWay {
        way: Way,
    },
    /// Remember, durably, how fast the operator lets copying be.
    PersistLimits {
        limits: Limits,
    },
    Alarm(Alarm),
}

/// Why an initiator's request failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReplyError {
    #[error("no space left in the journal")]
    NoSpace,
    #[error("the journal or the volume's home failed")]
    Io,
    #[error("the other site has taken over")]
    Fenced,
}

/// A record that a commit places.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Planned {
    pub sequence: Sequence,
    pub kind: Kind,
    /// The epoch that seals it; for a key record, the one that it carries.
    pub epoch: Epoch,
    pub extent: Option<Extent>,
    /// Blocks of its body for key and cover.
    pub body_blocks: u32,
    pub wall: WallTime,
    pub aux: u64,
    pub source: Source,
}

/// Where a planned record's content comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// The data buffer, this many blocks into the ticket's write.
    Buffer { ticket: Ticket, skip: BlockCount },
    /// The epoch's capsules, for the epoch that starts here.
    Capsules { start: Sequence, how: How },
    /// A key that is thrown away, made and wrapped as one that starts here would be.
    Sham { start: Sequence },
    /// Nothing but the header.
    Header,
    /// Random bytes.
    Random,
}

/// Something that should not be, for the operator; raised, never panicked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error, Serialize)]
pub enum Alarm {
    #[error("the journal's disk is full: initiators' writes get ENOSPC until there is room again; free space there")]
    JournalFull,
    #[error("the secondary has not got the seed: import it there, or give it up here with `farseal seed abandon`")]
    SeedAwaited,
    #[error("the cipher is not to be had: nothing is sealed until it is; see the pair's plugins")]
    CannotSeal,
    #[error("the journal failed: nothing more is acknowledged; mend the disk and restart the node")]
    JournalFailed,
    #[error("the volume's home is full or fails ({0:?}): the journal keeps what cannot be destaged")]
    Home(StoreFault),
    #[error("requests are answered without the copy ({0} is not kept) until the secondary follows again")]
    ModeNotKept(Mode),
    #[error("the secondary has no room: free space there; until then what it is owed stays here")]
    SecondaryFull,
    #[error("the sites have diverged: {0}; the pair is stopped, nothing was overwritten")]
    Diverged(Divergence),
    #[error("the secondary cannot take the key in record {key}: {why:?}; the old key goes on")]
    KeyRefused { key: Sequence, why: KeyRefusal },
    #[error("epoch {0} was not delivered in time and is void; the old key goes on")]
    EpochVoid(Epoch),
    #[error("epoch {0} could not be prepared")]
    EpochNotPrepared(Epoch),
    #[error(
        "the escrow site has not taken the key of epoch {0} yet: the old key goes on to its hard limit; see `farseal key status`"
    )]
    EscrowSilent(Epoch),
    #[error("the key has reached the host's hard limit: sealing stops until there is a new one")]
    HardLimit,
    #[error("sequence numbers are used up: take over to start a new generation")]
    SequenceEnd,
    #[error("the journal is larger than its limit: what the secondary is owed went to the dirty map")]
    Behind,
    #[error("the journal is filling up because the secondary does not follow: writes are slowed down; see the link")]
    HighWater,
    #[error("the change of sides was given up ({0}): this site goes on writing")]
    SwapEnded(SwapState),
}

/// Can more writes be taken?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Room {
    Open,
    /// Not before something is destaged; the driver leaves requests where they are.
    Wait,
    /// The disk is full: new writes are refused with ENOSPC.
    Full,
    /// The journal failed: everything is refused with EIO.
    Failed,
    /// The other site has taken over: nothing is written here any more.
    Fenced,
}

/// The numbers that a console shows.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    pub mode: Mode,
    /// The secondary is waited for as the mode says. Always so in `Async`, which waits for nothing.
    pub mode_kept: bool,
    pub copy: CopyState,
    pub pause: PauseState,
    /// Answers are withheld for this cut of the group.
    pub hold: Option<CutNumber>,
    /// The greatest number of a group's cut in this lane, held by the secondary or not.
    pub group_cut: CutNumber,
    /// What the secondary holds of the group's cuts.
    pub cut_copied: CutCopied,
    /// A planned change of sides that is under way.
    pub swap: Option<SwapState>,
    pub link_paths: usize,
    pub last: Sequence,
    pub durable: Sequence,
    pub acked: Sequence,
    pub destaged: Sequence,
    pub homed: Sequence,
    pub lag_records: u64,
    pub lag_bytes: ByteLen,
    /// When the oldest record that the secondary lacks was given its place.
    pub lag_since: Option<WallTime>,
    pub owed_blocks: BlockCount,
    pub buffered_bytes: ByteLen,
    pub rotation: RotationState,
    pub held: Option<Held>,
    pub key: Option<KeyUse>,
    pub diverged: Option<Divergence>,
    pub wake_at: Option<WallTime>,
    pub alarms: Vec<(WallTime, Alarm)>,
}

/// The last cut of the group that the secondary holds of this lane, and the last whose confirmation it holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct CutCopied {
    pub boundary: CutNumber,
    pub confirmed: CutNumber,
}

/// Is the transfer paused by an operator?
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum PauseState {
    Running,
    /// What came before the pause is still on its way.
    Pausing,
    /// Both sites hold the state of the pause; the secondary keeps it until resume.
    Paused,
}
impl Recovered {
    pub fn fresh() -> Self {
        Self {
            last: Sequence::NONE,
            chain: Chain::START,
            acked: Sequence::NONE,
            acked_chain: Chain::START,
            unacked: Vec::new(),
            homed: Sequence::NONE,
            newest_epoch: Epoch::NONE,
            owed: None,
            given_up: Some(GivenUp::default()),
            paused: false,
            fenced: None,
            mode: None,
            chosen: Chosen::default(),
            cuts: 0,
            group_cut: CutNumber::NONE,
            handing_over: None,
        }
    }
}
