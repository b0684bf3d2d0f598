//! The site that initiators write to: order, journal, destage, transfer, rotation and what is owed.
//!
//! The driver hands every event to [`Primary::handle`] and carries out every [`Output`] in order. A write goes
//! accepted → committed (it has a sequence number and is sealed) → appended → durable in the journal → destaged to
//! home, and beside that sent → acknowledged. Rules that everything else leans on:
//!
//! - Sequence numbers are given when a commit is planned, in the order in which writes were accepted.
//! - Only what is durable here is sent. So the secondary is never ahead of a restarted primary, and no sequence number
//!   ever means two things.
//! - Only what is durable in the journal is destaged. So home never holds what the journal lost.
//! - A record leaves the journal when home holds it durably *and* the secondary does, or the durable dirty map owes it.

use std::collections::{BTreeSet, VecDeque};

use serde::Serialize;

use crate::chain::{Chain, Digest};
use crate::frame::{Ack, KeyRefusal, Welcome};
use crate::limits::{
    ALARMS_MAX, BUFFER_BYTES_MAX, COMMIT_BYTES_MAX, COMMIT_RECORDS_MAX, COMMITS_IN_FLIGHT_MAX,
    COPY_BYTES_IN_FLIGHT_MAX, HOME_DIRTY_BYTES_MAX, HOME_SYNC_INTERVAL, LAZY_SYNC_INTERVAL, OWED_GRANULE_BYTES,
    POLICY_EVENTS_MAX, RECORD_BLOCKS_MAX, RECORD_PAYLOAD_MAX, SEQUENCE_MAX, STORE_RETRY_INTERVAL, WINDOW_BYTES_MAX,
    WINDOW_RECORDS_MAX,
};
use crate::owed::OwedMap;
use crate::record::{HEADER_BYTES, Kind, TAG_BYTES};
use crate::rotation::{Due, Ended, Held, How, KeyLimits, KeyUse, Refused, Rotation, Slot, State as RotationState};
use crate::units::{
    BlockBytes, BlockCount, ByteLen, Epoch, Extent, Generation, Instant, Lba, Now, PairId, Path, Sequence, Ticket,
    VolumeId, WallTime,
};
use crate::window::Range;

mod copy;
mod recover;
mod transfer;

pub use copy::CopyState;
pub use recover::{Found, Kept, KeptMap};
pub use transfer::Divergence;

/// What does not change while the machine lives.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub pair: PairId,
    pub volume: VolumeId,
    pub generation: Generation,
    pub encrypted: bool,
    pub block_bytes: BlockBytes,
    pub blocks: BlockCount,
    /// There is a secondary to copy to. Without one nothing is owed.
    pub paired: bool,
    pub key_limits: KeyLimits,
    /// The way a policy's `as-configured` rotations go.
    pub rotate_how: How,
    /// Bytes of the journal before what it holds for the secondary goes to the dirty map.
    pub journal_bytes_max: ByteLen,
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
    /// A pause by the operator was in force.
    pub paused: bool,
    /// The other site has taken over, as this generation.
    pub fenced: Option<Generation>,
    /// The number of the last cut.
    pub cuts: u64,
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
    /// The driver read a granule that [`Output::ReadForCopy`] asked for, and keeps it in the data buffer.
    CopyRead {
        ticket: Ticket,
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
    /// The secondary refused to attach: its generation is newer, it was taken over to.
    Fenced {
        generation: Generation,
    },
    EpochPrepared {
        epoch: Epoch,
        slot: Slot,
    },
    EpochFailed {
        epoch: Epoch,
    },
    PolicyDecided {
        decisions: Vec<Decision>,
    },
    Operator(Command),
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
    /// Owe every block: the secondary is copied to afresh.
    CopyAll,
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

/// What became of a decision.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    Applied,
    Refused(Refused),
    /// The key was not delivered in time; its epoch is void.
    NotDelivered,
    NotPrepared,
    Unknown,
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
    /// Read these blocks, as they are now, for a copy.
    ReadForCopy {
        extent: Extent,
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
    },
    /// Close this path: the peer broke the rules, or the pair is stopped.
    ClosePath {
        path: Path,
    },
    /// Draw a key and make its capsules, then fix a slot.
    PrepareEpoch {
        epoch: Epoch,
        how: How,
    },
    /// Forget this epoch's key: it never comes into force.
    DiscardEpoch {
        epoch: Epoch,
    },
    /// From here on records of this epoch are sealed; older keys may be wiped from memory.
    EpochInForce {
        epoch: Epoch,
    },
    AskPolicy {
        event: PolicyEvent,
    },
    /// Tell the operator that the rotation asked for does not begin.
    RotationRefused(Refused),
    /// Remember, durably, that this site was taken over from.
    PersistFence {
        generation: Generation,
    },
    /// Remember, durably, that the operator paused or resumed.
    PersistPause {
        paused: bool,
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
    /// Nothing but the header.
    Header,
    /// Random bytes.
    Random,
}

/// Something that should not be, for the operator; raised, never panicked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error, Serialize)]
pub enum Alarm {
    #[error("the journal is full: initiators' writes get ENOSPC until space returns")]
    JournalFull,
    #[error("the cipher is not to be had: nothing is sealed until it is; see the pair's plugins")]
    CannotSeal,
    #[error("the journal failed: nothing more is acknowledged; mend the disk and restart the node")]
    JournalFailed,
    #[error("the volume's home is full or fails ({0:?}): the journal keeps what cannot be destaged")]
    Home(StoreFault),
    #[error("the secondary has no room: what it is owed stays here")]
    SecondaryFull,
    #[error("the sites have diverged: {0}; the pair is stopped, nothing was overwritten")]
    Diverged(Divergence),
    #[error("the secondary cannot take the key in record {key}: {why:?}; the old key goes on")]
    KeyRefused { key: Sequence, why: KeyRefusal },
    #[error("epoch {0} was not delivered in time and is void; the old key goes on")]
    EpochVoid(Epoch),
    #[error("epoch {0} could not be prepared")]
    EpochNotPrepared(Epoch),
    #[error("the key has reached the host's hard limit: sealing stops until there is a new one")]
    HardLimit,
    #[error("sequence numbers are used up: take over to start a new generation")]
    SequenceEnd,
    #[error("the journal is larger than its limit: what the secondary is owed went to the dirty map")]
    Behind,
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
    pub copy: CopyState,
    pub pause: PauseState,
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

/// Is the transfer paused by an operator?
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub enum PauseState {
    Running,
    /// What came before the pause is still on its way.
    Pausing,
    /// Both sites hold the state of the pause; the secondary keeps it until resume.
    Paused,
}

/// The place of a write among all accepted writes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
struct Order(u64);

#[derive(Clone, Copy, Debug)]
struct Accepted {
    order: Order,
    ticket: Ticket,
    content: Content,
    rest: Extent,
    skip: BlockCount,
}

/// What an accepted entry of the queue is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Content {
    Written(What),
    /// A granule of a copy: the dirty map is told where it went.
    Copied,
}

/// An operator's pause. Records up to the cut still go; `None` until the cut has its place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Pause {
    /// The cut stands after every write up to here.
    after: Order,
    cut: Option<Sequence>,
}

#[derive(Clone, Debug)]
struct Commit {
    records: Vec<Planned>,
    bytes: ByteLen,
    /// For a commit that begins with a gap: the running hash before it.
    restart: Option<Chain>,
    /// Every write up to here is in this commit or an earlier one.
    order: Order,
}

#[derive(Debug)]
pub struct Primary {
    settings: Settings,
    rotation: Rotation,
    outputs: VecDeque<Output>,
    /// When time was last told.
    told: Instant,
    // Order.
    next: Sequence,
    chain: Chain,
    accepted: Order,
    planned: Order,
    queue: VecDeque<Accepted>,
    queued_bytes: u64,
    commits: VecDeque<Commit>,
    commit_stalled_until: Option<Instant>,
    // Durability.
    appended: Sequence,
    appended_bytes_unsynced: u64,
    synced: Sequence,
    sync_under_way: bool,
    last_sync: Instant,
    /// What order each appended commit reached, until it is durable.
    order_marks: VecDeque<(Sequence, Order)>,
    durable_order: Order,
    waiting: VecDeque<(Order, Ticket)>,
    journal_failed: bool,
    journal_full: bool,
    journal_bytes: ByteLen,
    // Home.
    destaged: Sequence,
    destage_under_way: bool,
    home_stalled_until: Option<Instant>,
    home_failed: bool,
    homed: Sequence,
    home_sync_under_way: bool,
    last_home_sync: Instant,
    /// Bytes of each committed record above `destaged`, to know what the buffer still holds.
    buffered: VecDeque<(Sequence, u64)>,
    buffered_bytes: u64,
    home_dirty_bytes: u64,
    trimmed: Sequence,
    // Copying.
    transfer: transfer::Transfer,
    copying: copy::Copying,
    cuts: u64,
    /// Key records above the acknowledged mark whose epochs were voided.
    voided: BTreeSet<Sequence>,
    /// Epochs whose void is in the commit that is being planned.
    discard_after_commit: Vec<Epoch>,
    // Policy and operator.
    pause: Option<Pause>,
    policy_busy: bool,
    policy_events: VecDeque<PolicyEvent>,
    rotation_by: Option<u64>,
    wake_at: Option<WallTime>,
    watch: Option<(Option<u64>, Option<u64>)>,
    held: Option<Held>,
    fenced: Option<Generation>,
    alarms: VecDeque<(WallTime, Alarm)>,
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
            paused: false,
            fenced: None,
            cuts: 0,
        }
    }
}

impl Primary {
    /// A machine over what a restart found. The caller has replayed the journal's records above `homed` to home, so
    /// that the data buffer is empty.
    pub fn new(now: Now, settings: Settings, recovered: Recovered) -> Self {
        let rotation = Rotation::new(settings.key_limits, recovered.newest_epoch);
        let last = recovered.last;
        let copying = copy::Copying::new(&settings, recovered.owed, &recovered.unacked);
        let unacked = if copying.sends() { recovered.unacked } else { Vec::new() };
        let transfer = transfer::Transfer::new(recovered.acked, recovered.acked_chain, unacked);
        let mut primary = Self {
            settings,
            rotation,
            outputs: VecDeque::new(),
            told: now.instant,
            next: last.next(),
            chain: recovered.chain,
            accepted: Order(0),
            planned: Order(0),
            queue: VecDeque::new(),
            queued_bytes: 0,
            commits: VecDeque::new(),
            commit_stalled_until: None,
            appended: last,
            appended_bytes_unsynced: 0,
            synced: last,
            sync_under_way: false,
            last_sync: now.instant,
            order_marks: VecDeque::new(),
            durable_order: Order(0),
            waiting: VecDeque::new(),
            journal_failed: false,
            journal_full: false,
            journal_bytes: ByteLen(0),
            destaged: last,
            destage_under_way: false,
            home_stalled_until: None,
            home_failed: false,
            homed: recovered.homed,
            home_sync_under_way: false,
            last_home_sync: now.instant,
            buffered: VecDeque::new(),
            buffered_bytes: 0,
            home_dirty_bytes: 0,
            trimmed: Sequence::NONE,
            transfer,
            copying,
            cuts: recovered.cuts,
            voided: BTreeSet::new(),
            discard_after_commit: Vec::new(),
            pause: recovered.paused.then_some(Pause { after: Order(0), cut: Some(recovered.acked) }),
            policy_busy: false,
            policy_events: VecDeque::from([PolicyEvent::Started]),
            rotation_by: None,
            wake_at: None,
            watch: None,
            held: None,
            fenced: None,
            alarms: VecDeque::new(),
        };
        if let Some(generation) = recovered.fenced {
            primary.fence(now, generation);
        }
        primary.proceed(now);
        primary
    }

    /// Takes in one event. Outputs that follow from it wait in [`Primary::poll_output`].
    pub fn handle(&mut self, now: Now, input: Input) {
        self.handle_all(now, [input]);
    }

    /// Takes in events that came together: what follows from them is planned once, in larger commits.
    pub fn handle_all(&mut self, now: Now, inputs: impl IntoIterator<Item = Input>) {
        inputs.into_iter().for_each(|input| self.take(now, input));
        self.proceed(now);
        self.assert_invariants();
    }

    /// Nothing waits in [`Primary::poll_output`].
    pub fn is_drained(&self) -> bool {
        self.outputs.is_empty()
    }

    /// The next thing to do; `None` when the machine waits for an input.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to send [`Input::Tick`], and why.
    pub fn poll_timeout(&self, now: Now) -> Option<(Instant, &'static str)> {
        let wall = self.wake_at.map(|at| (now.instant.plus(at.since(now.wall)), "the policy's timer"));
        let lazy = (self.synced < self.appended && !self.sync_under_way && !self.journal_failed)
            .then(|| (self.last_sync.plus(LAZY_SYNC_INTERVAL), "sync the journal"));
        let home = (self.homed < self.destaged && !self.home_sync_under_way && !self.home_failed)
            .then(|| (self.last_home_sync.plus(HOME_SYNC_INTERVAL), "sync home"));
        let retries = [
            self.commit_stalled_until.map(|at| (at, "append again")),
            self.home_stalled_until.map(|at| (at, "destage again")),
        ];
        let resync = self.copying.timeout().map(|at| (at, "begin the resync again"));
        [wall, lazy, home, resync]
            .into_iter()
            .chain(retries)
            .flatten()
            .chain(self.rotation.timeouts())
            // What was due when time was last told has been done, or waits for something that comes as an input.
            .filter(|(at, _)| *at > self.told)
            .min_by_key(|(at, _)| *at)
    }

    /// Asked by the driver before it takes another write from an initiator.
    pub fn room(&self) -> Room {
        if self.fenced.is_some() {
            Room::Fenced
        } else if self.journal_failed {
            Room::Failed
        } else if self.journal_full {
            Room::Full
        } else if self.queued_bytes + self.buffered_bytes < BUFFER_BYTES_MAX.0 {
            Room::Open
        } else if self.home_stalled_until.is_some() || self.home_failed {
            Room::Full
        } else {
            Room::Wait
        }
    }

    pub fn status(&self) -> Status {
        let (lag_records, lag_bytes, lag_since) = self.transfer.lag();
        Status {
            copy: self.copying.state(),
            pause: self.pause_state(),
            link_paths: self.transfer.paths(),
            last: self.next.previous(),
            durable: self.synced,
            acked: self.transfer.acked(),
            destaged: self.destaged,
            homed: self.homed,
            lag_records,
            lag_bytes: ByteLen(lag_bytes),
            lag_since,
            owed_blocks: self.copying.owed(),
            buffered_bytes: ByteLen(self.queued_bytes + self.buffered_bytes),
            rotation: self.rotation.state().clone(),
            held: self.held,
            key: self.rotation.active(),
            diverged: self.transfer.diverged(),
            wake_at: self.wake_at,
            alarms: self.alarms.iter().copied().collect(),
        }
    }

    /// What the policy's context says of keys, newest first.
    pub fn keys(&self) -> Vec<KeyUse> {
        self.rotation.keys()
    }

    pub fn key_limits(&self) -> KeyLimits {
        self.rotation.limits()
    }

    pub fn link_up(&self) -> bool {
        self.transfer.paths() > 0
    }

    /// Does anything here say that the secondary may lack this block's content?
    pub fn owes(&self, lba: Lba) -> bool {
        let planned = self.commits.iter().flat_map(|commit| &commit.records).filter_map(|record| record.extent);
        let queued = self.queue.iter().map(|accepted| accepted.rest);
        let unacked = self.transfer.unacked().filter_map(|record| record.extent);
        self.copying.map().is_some_and(|map| map.owes(lba))
            || queued.chain(planned).chain(unacked).any(|extent| extent.contains(lba))
    }

    /// The dirty map, to be made durable or shown.
    pub fn owed_map(&self) -> Option<&OwedMap> {
        self.copying.map()
    }

    fn take(&mut self, now: Now, input: Input) {
        match input {
            Input::Write { ticket, what, extent, fua } => self.on_write(ticket, what, extent, fua),
            Input::Flush { ticket } => self.on_flush(ticket),
            Input::CopyRead { ticket, extent } => self.on_copy_read(ticket, extent),
            Input::CopyReadFailed { extent } => self.copying.read_failed(extent),
            Input::Committed { digests } => self.on_committed(&digests),
            Input::CommitFailed { fault } => self.on_commit_failed(now, fault),
            Input::JournalSynced { through } => self.on_journal_synced(through),
            Input::JournalSyncFailed => self.fail_journal(now),
            Input::Destaged { through } => self.on_destaged(through),
            Input::DestageFailed { fault } => self.on_destage_failed(now, fault),
            Input::HomeSynced { through } => self.on_home_synced(through),
            Input::HomeSyncFailed => {
                self.home_sync_under_way = false;
                self.home_failed = true;
                self.alarm(now, Alarm::Home(StoreFault::Failed));
            }
            Input::JournalBytes { bytes } => self.journal_bytes = bytes,
            Input::OwedPersisted { stamp } => self.copying.persisted(stamp),
            Input::OwedPersistFailed { stamp } => self.copying.persist_failed(now, stamp),
            Input::Attaching { path } => self.transfer.attaching(path),
            Input::Welcomed { path, welcome } => self.on_welcomed(now, path, &welcome),
            Input::PathLost { path } => self.transfer.path_lost(path),
            Input::Acked { path, ack } => self.on_acked(now, path, &ack),
            Input::KeyRefused { key, why } => {
                self.on_key_refused(now, key);
                self.alarm(now, Alarm::KeyRefused { key, why });
            }
            Input::Fenced { generation } => self.fence(now, generation),
            Input::EpochPrepared { epoch, slot } => {
                if !self.rotation.prepared(epoch, slot) {
                    self.outputs.push_back(Output::DiscardEpoch { epoch });
                }
            }
            Input::EpochFailed { epoch } => {
                if self.rotation.failed(now, epoch) {
                    self.alarm(now, Alarm::EpochNotPrepared(epoch));
                    self.answer_decision(Outcome::NotPrepared);
                }
            }
            Input::PolicyDecided { decisions } => self.on_policy(now, &decisions),
            Input::Operator(command) => self.on_command(now, command),
            Input::Tick => {}
        }
    }

    /// Everything that may go on, goes on. Runs after each input.
    fn proceed(&mut self, now: Now) {
        self.told = now.instant;
        self.run_resync(now);
        self.run_copy();
        self.plan_commits(now);
        // After the sealing that may have used a key up: no other event need follow that would ask.
        self.run_host_rotation(now);
        self.run_policy(now);
        self.retry_stalled(now);
        self.run_journal_sync(now);
        self.run_home(now);
        self.run_overflow(now);
        self.run_trim();
        self.run_transfer();
    }

    fn on_write(&mut self, ticket: Ticket, what: What, extent: Extent, fua: bool) {
        if self.journal_failed {
            self.outputs.push_back(Output::Reply { ticket, result: Err(ReplyError::Io) });
            return;
        }
        self.copying.written(extent);
        self.accept(ticket, Content::Written(what), extent);
        if fua {
            self.waiting.push_back((self.accepted, ticket));
        } else {
            self.outputs.push_back(Output::Reply { ticket, result: Ok(()) });
        }
        self.answer_durable();
    }

    fn accept(&mut self, ticket: Ticket, content: Content, extent: Extent) {
        self.accepted.0 += 1;
        self.queued_bytes += self.payload_bytes(content, extent.blocks());
        self.queue.push_back(Accepted { order: self.accepted, ticket, content, rest: extent, skip: BlockCount(0) });
    }

    /// Bytes that the data buffer holds for these blocks.
    fn payload_bytes(&self, content: Content, blocks: BlockCount) -> u64 {
        match content {
            Content::Written(What::Data) | Content::Copied => blocks.byte_len(self.settings.block_bytes).0,
            Content::Written(What::Zero | What::Trim) => 0,
        }
    }

    fn on_flush(&mut self, ticket: Ticket) {
        self.waiting.push_back((self.accepted, ticket));
        self.answer_durable();
    }

    /// Answers what waits for durability, in order.
    fn answer_durable(&mut self) {
        while let Some((order, ticket)) = self.waiting.front().copied() {
            let result = if self.fenced.is_some() {
                Err(ReplyError::Fenced)
            } else if self.journal_failed {
                Err(ReplyError::Io)
            } else if order <= self.durable_order {
                Ok(())
            } else {
                break;
            };
            self.waiting.pop_front();
            self.outputs.push_back(Output::Reply { ticket, result });
        }
    }

    fn plan_commits(&mut self, now: Now) {
        while self.commits.len() < COMMITS_IN_FLIGHT_MAX && !self.journal_failed && self.commit_stalled_until.is_none()
        {
            let records = self.plan_records(now);
            let discarded = std::mem::take(&mut self.discard_after_commit);
            let discarded = discarded.into_iter().map(|epoch| Output::DiscardEpoch { epoch });
            let Some(first) = records.first() else {
                self.outputs.extend(discarded);
                return;
            };
            let restart = (first.kind == Kind::Gap).then_some(self.transfer.acked_chain());
            let bytes = records.iter().map(|record| self.record_bytes(record)).sum();
            self.outputs.push_back(Output::Commit { records: records.clone(), durable: self.synced, restart });
            self.outputs.extend(discarded);
            self.commits.push_back(Commit { records, bytes: ByteLen(bytes), restart, order: self.planned });
        }
    }

    /// The records of one commit: what rotation and copying demand, then initiators' writes.
    fn plan_records(&mut self, now: Now) -> Vec<Planned> {
        let (mut records, mut bytes) = (Vec::new(), 0);
        self.held = None;
        while records.len() < COMMIT_RECORDS_MAX && bytes < COMMIT_BYTES_MAX {
            // A commit has one key to seal it, and a gap begins a segment.
            let boundary = self.copying.gap_due() || self.rotation.starts(self.next);
            if self.copying.awaits_map() || (boundary && !records.is_empty()) {
                break;
            }
            if self.next.0 > SEQUENCE_MAX {
                self.alarm(now, Alarm::SequenceEnd);
                self.fail_journal(now);
                break;
            }
            if let Some(Ended::InForce(epoch)) = self.rotation.reached(now, self.next) {
                self.outputs.push_back(Output::EpochInForce { epoch });
                self.tell_policy(PolicyEvent::Rotated(epoch));
                self.answer_decision(Outcome::Applied);
            }
            if self.copying.gap_due() {
                self.copying.gap_placed(self.next);
                records.push(self.plan_marker(now, Epoch::NONE, Kind::Gap));
                continue;
            }
            let due = self.rotation.due(now, self.next, self.transfer.acked());
            if let Due::Drop { epoch } = due {
                self.give_up_key(now, epoch);
                continue;
            }
            let Some(planned) = self.plan_due(now, due) else {
                break;
            };
            bytes += self.record_bytes(&planned);
            records.push(planned);
        }
        records
    }

    fn plan_due(&mut self, now: Now, due: Due) -> Option<Planned> {
        let epoch = self.rotation.active().map_or(Epoch::NONE, |key| key.epoch);
        match due {
            Due::Ordinary { epoch } => self.plan_ordinary(now, epoch),
            Due::Key { epoch, blocks, how: _ } => {
                let in_flight = self.next.since(self.transfer.acked().next());
                let in_flight = if self.link_up() { in_flight } else { 0 };
                let key = self.next;
                let start = self.rotation.placed(now, key, in_flight);
                let how = match self.rotation.state() {
                    RotationState::Delivering { how, .. } | RotationState::Armed { how, .. } => *how,
                    RotationState::Idle
                    | RotationState::Preparing { .. }
                    | RotationState::Waiting { .. }
                    | RotationState::Draining { .. } => How::AtOnce,
                };
                Some(Planned {
                    body_blocks: blocks,
                    ..self.place(now, Kind::Key, epoch, Source::Capsules { start, how })
                })
            }
            Due::LastPlace { .. } if !self.ordinary_waits() => None,
            Due::Drop { .. } => None,
            Due::Void { epoch: void } | Due::LastPlace { epoch: void } => {
                if let RotationState::Delivering { key, .. } = self.rotation.state() {
                    self.voided.insert(*key);
                }
                self.rotation.voided();
                self.give_up_key(now, void);
                Some(Planned { aux: void.0, ..self.place(now, Kind::Void, epoch, Source::Header) })
            }
            // A cut would close the gap that is open; what stands between key and start need only be something.
            Due::PauseCut if self.copying.gap_open() => {
                Some(Planned { body_blocks: 1, ..self.place(now, Kind::Cover, epoch, Source::Random) })
            }
            Due::PauseCut => {
                self.cuts += 1;
                Some(Planned { aux: self.cuts, ..self.place(now, Kind::Cut, epoch, Source::Header) })
            }
            Due::Hold(held) => {
                if held == Held::HardLimit {
                    self.alarm(now, Alarm::HardLimit);
                }
                self.held = Some(held);
                None
            }
        }
    }

    fn plan_ordinary(&mut self, now: Now, epoch: Epoch) -> Option<Planned> {
        if self.copying.cut_due(self.next) {
            return Some(self.plan_marker(now, epoch, Kind::Cut));
        }
        if let Some(pause) = &mut self.pause
            && pause.cut.is_none()
            && self.planned >= pause.after
            && self.copying.gap_open()
        {
            // No cut may stand in an open gap: the secondary keeps the state before it.
            pause.cut = Some(self.next.previous());
        }
        if let Some(pause) = &mut self.pause
            && pause.cut.is_none()
            && self.planned >= pause.after
        {
            pause.cut = Some(self.next);
            return Some(self.plan_marker(now, epoch, Kind::Cut));
        }
        let Some(accepted) = self.queue.front().copied() else {
            return self.plan_filler(now, epoch);
        };
        let most = match accepted.content {
            Content::Written(What::Data) | Content::Copied => self.record_blocks_max(),
            Content::Written(What::Zero | What::Trim) => u64::from(u32::MAX),
        };
        let blocks = BlockCount(accepted.rest.blocks().0.min(most));
        let extent = Extent::new(accepted.rest.first(), blocks)?;
        match Extent::new(extent.end(), BlockCount(accepted.rest.blocks().0 - blocks.0)) {
            Some(rest) => {
                if let Some(front) = self.queue.front_mut() {
                    front.rest = rest;
                    front.skip.0 += blocks.0;
                }
            }
            None => {
                self.queue.pop_front();
                self.planned = accepted.order;
            }
        }
        let kind = match accepted.content {
            Content::Written(What::Data) | Content::Copied => Kind::Data,
            Content::Written(What::Zero) => Kind::Zero,
            Content::Written(What::Trim) => Kind::Trim,
        };
        let bytes = self.payload_bytes(accepted.content, blocks);
        self.queued_bytes -= bytes;
        self.buffered_bytes += bytes;
        self.buffered.push_back((self.next, bytes));
        self.rotation.sealed(ByteLen(bytes), blocks.0);
        if accepted.content == Content::Copied {
            self.copying.copied_in(extent, self.next);
        }
        let source = Source::Buffer { ticket: accepted.ticket, skip: accepted.skip };
        Some(Planned { extent: Some(extent), ..self.place(now, kind, epoch, source) })
    }

    fn record_blocks_max(&self) -> u64 {
        u64::from(RECORD_BLOCKS_MAX).min(u64::from(RECORD_PAYLOAD_MAX) / self.settings.block_bytes.as_u64())
    }

    /// A gap opens a resync, a cut closes it.
    fn plan_marker(&mut self, now: Now, epoch: Epoch, kind: Kind) -> Planned {
        let aux = if kind == Kind::Gap {
            self.transfer.acked().next().0
        } else {
            self.cuts += 1;
            self.cuts
        };
        Planned { aux, ..self.place(now, kind, epoch, Source::Header) }
    }

    /// With nothing else to seal, cover records walk the order up to a delivered key's start.
    fn plan_filler(&mut self, now: Now, epoch: Epoch) -> Option<Planned> {
        let RotationState::Armed { start, how: How::InBand, .. } = self.rotation.state() else { return None };
        (self.next < *start).then(|| Planned { body_blocks: 1, ..self.place(now, Kind::Cover, epoch, Source::Random) })
    }

    fn place(&mut self, now: Now, kind: Kind, epoch: Epoch, source: Source) -> Planned {
        let sequence = self.next;
        self.next = sequence.next();
        Planned { sequence, kind, epoch, extent: None, body_blocks: 0, wall: now.wall, aux: 0, source }
    }

    fn record_bytes(&self, planned: &Planned) -> u64 {
        let blocks = match planned.kind {
            Kind::Data => planned.extent.map_or(0, |extent| extent.blocks().0),
            Kind::Key | Kind::Cover => u64::from(planned.body_blocks),
            Kind::Zero | Kind::Trim | Kind::Void | Kind::Cut | Kind::Gap => 0,
        };
        let (header, tag) = (wide(HEADER_BYTES), wide(TAG_BYTES));
        header + blocks.max(1) * tag + BlockCount(blocks).byte_len(self.settings.block_bytes).0
    }

    fn on_committed(&mut self, digests: &[Digest]) {
        let Some(commit) = self.commits.pop_front() else {
            return;
        };
        assert_eq!(commit.records.len(), digests.len(), "the driver reports each record of its oldest commit");
        self.commit_stalled_until = None;
        self.journal_full = false;
        for (record, digest) in commit.records.iter().zip(digests) {
            let before = commit.restart.filter(|_| record.kind == Kind::Gap).unwrap_or(self.chain);
            self.chain = before.after(*digest);
            if record.kind == Kind::Gap && self.copying.gap_opened(record.sequence) {
                self.transfer.give_up();
            }
            if self.copying.sends() {
                let bytes = ByteLen(self.record_bytes(record));
                self.transfer.push(Unacked {
                    sequence: record.sequence,
                    kind: record.kind,
                    bytes,
                    chain: self.chain,
                    extent: record.extent,
                    wall: record.wall,
                });
            }
            self.appended = record.sequence;
        }
        self.appended_bytes_unsynced += commit.bytes.0;
        self.journal_bytes.0 += commit.bytes.0;
        self.order_marks.push_back((self.appended, commit.order));
    }

    fn on_commit_failed(&mut self, now: Now, fault: StoreFault) {
        match fault {
            StoreFault::Full => {
                self.journal_full = true;
                self.commit_stalled_until = Some(now.instant.plus(STORE_RETRY_INTERVAL));
                self.alarm(now, Alarm::JournalFull);
            }
            StoreFault::Unsealed => {
                self.commit_stalled_until = Some(now.instant.plus(STORE_RETRY_INTERVAL));
                self.alarm(now, Alarm::CannotSeal);
            }
            StoreFault::Failed => self.fail_journal(now),
        }
    }

    fn fail_journal(&mut self, now: Now) {
        if !self.journal_failed {
            self.journal_failed = true;
            self.alarm(now, Alarm::JournalFailed);
        }
        self.answer_durable();
    }

    fn retry_stalled(&mut self, now: Now) {
        if self.commit_stalled_until.is_some_and(|at| now.instant >= at) && !self.commits.is_empty() {
            self.commit_stalled_until = Some(now.instant.plus(STORE_RETRY_INTERVAL));
            self.outputs.push_back(Output::RetryCommit);
        }
        if self.home_stalled_until.is_some_and(|at| now.instant >= at) {
            self.home_stalled_until = None;
        }
    }

    /// Somebody waits for durability, the secondary waits for records, or the lazy interval is over.
    fn run_journal_sync(&mut self, now: Now) {
        if self.sync_under_way || self.journal_failed || self.synced >= self.appended {
            return;
        }
        let wanted = !self.waiting.is_empty()
            || (self.link_up() && self.copying.sends())
            || self.appended_bytes_unsynced >= COMMIT_BYTES_MAX
            || self.rotation_waits()
            || now.instant >= self.last_sync.plus(LAZY_SYNC_INTERVAL);
        if wanted {
            self.sync_under_way = true;
            self.last_sync = now.instant;
            self.appended_bytes_unsynced = 0;
            self.outputs.push_back(Output::SyncJournal);
        }
    }

    fn rotation_waits(&self) -> bool {
        matches!(self.rotation.state(), RotationState::Delivering { .. } | RotationState::Draining { .. })
    }

    fn on_journal_synced(&mut self, through: Sequence) {
        self.sync_under_way = false;
        self.synced = self.synced.max(through.min(self.appended));
        while let Some((sequence, order)) = self.order_marks.front().copied() {
            if sequence > self.synced {
                break;
            }
            self.order_marks.pop_front();
            self.durable_order = self.durable_order.max(order);
        }
        self.answer_durable();
    }

    fn run_home(&mut self, now: Now) {
        if self.home_failed {
            return;
        }
        if !self.destage_under_way && self.home_stalled_until.is_none() && self.destaged < self.synced {
            self.destage_under_way = true;
            self.outputs.push_back(Output::Destage { through: self.synced });
        }
        let due = self.home_dirty_bytes >= HOME_DIRTY_BYTES_MAX.0
            || now.instant >= self.last_home_sync.plus(HOME_SYNC_INTERVAL)
            || self.journal_full
            || self.journal_bytes.0 >= self.settings.journal_bytes_max.0 / 2;
        if due && !self.home_sync_under_way && self.homed < self.destaged {
            self.home_sync_under_way = true;
            self.last_home_sync = now.instant;
            self.home_dirty_bytes = 0;
            self.outputs.push_back(Output::SyncHome);
        }
    }

    fn on_destaged(&mut self, through: Sequence) {
        self.destage_under_way = false;
        self.destaged = self.destaged.max(through.min(self.synced));
        while let Some((sequence, bytes)) = self.buffered.front().copied() {
            if sequence > self.destaged {
                break;
            }
            self.buffered.pop_front();
            self.buffered_bytes -= bytes;
            self.home_dirty_bytes += bytes + 1;
        }
    }

    fn on_destage_failed(&mut self, now: Now, fault: StoreFault) {
        self.destage_under_way = false;
        match fault {
            StoreFault::Full | StoreFault::Unsealed => {
                self.home_stalled_until = Some(now.instant.plus(STORE_RETRY_INTERVAL))
            }
            StoreFault::Failed => self.home_failed = true,
        }
        self.alarm(now, Alarm::Home(fault));
    }

    fn on_home_synced(&mut self, through: Sequence) {
        self.home_sync_under_way = false;
        self.homed = self.homed.max(through.min(self.destaged));
    }

    fn run_trim(&mut self) {
        let released = if self.settings.paired {
            self.transfer.acked().max(self.copying.covered_through())
        } else {
            Sequence(u64::MAX)
        };
        let through = self.homed.min(released);
        if through > self.trimmed {
            self.trimmed = through;
            self.outputs.push_back(Output::TrimJournal { through });
        }
    }

    fn on_command(&mut self, now: Now, command: Command) {
        match command {
            Command::Pause => {
                if self.pause.is_none() {
                    self.pause = Some(Pause { after: self.accepted, cut: None });
                    self.outputs.push_back(Output::PersistPause { paused: true });
                }
            }
            Command::Resume => {
                if self.pause.take().is_some() {
                    self.outputs.push_back(Output::PersistPause { paused: false });
                }
            }
            Command::RequestRotation => self.tell_policy(PolicyEvent::Requested),
            Command::Rotate(how) => match self.rotation.begin(now, how, self.deliverable()) {
                Ok(epoch) => self.prepare(epoch, how),
                Err(refused) => self.outputs.push_back(Output::RotationRefused(refused)),
            },
            Command::Suspect(epoch) => {
                self.rotation.suspect(epoch);
                self.tell_policy(PolicyEvent::Suspect(epoch));
            }
            Command::CopyAll => {
                if self.settings.paired {
                    self.owe_everything();
                }
            }
        }
    }

    fn on_key_refused(&mut self, now: Now, key: Sequence) {
        let waits = self.rotation.refused(key);
        if !waits && key > self.transfer.acked() && !self.voided.contains(&key) {
            self.key_in_force_refused(now);
        }
    }

    /// This epoch never comes into force.
    fn give_up_key(&mut self, now: Now, epoch: Epoch) {
        self.alarm(now, Alarm::EpochVoid(epoch));
        self.answer_decision(Outcome::NotDelivered);
        self.discard_after_commit.push(epoch);
    }

    fn ordinary_waits(&self) -> bool {
        let pausing = self.pause.is_some_and(|pause| pause.cut.is_none() && self.planned >= pause.after);
        !self.queue.is_empty() || pausing || self.copying.closes()
    }

    fn on_policy(&mut self, now: Now, decisions: &[Decision]) {
        self.policy_busy = false;
        for decision in decisions {
            match decision.action {
                Action::Rotate(how) => {
                    let how = how.unwrap_or(self.settings.rotate_how);
                    match self.rotation.begin(now, how, self.deliverable()) {
                        Ok(epoch) => {
                            self.rotation_by = Some(decision.id);
                            self.prepare(epoch, how);
                        }
                        Err(refused) => {
                            self.tell_policy(PolicyEvent::Decided {
                                id: decision.id,
                                outcome: Outcome::Refused(refused),
                            });
                        }
                    }
                }
                Action::WakeAt(at) => self.wake_at = Some(at),
                Action::Watch { bytes, blocks } => self.watch = Some((bytes, blocks)),
                Action::Unknown => {
                    self.tell_policy(PolicyEvent::Decided { id: decision.id, outcome: Outcome::Unknown });
                }
            }
        }
    }

    fn run_policy(&mut self, now: Now) {
        if self.wake_at.is_some_and(|at| now.wall >= at) {
            self.wake_at = None;
            self.tell_policy(PolicyEvent::Timer);
        }
        if let (Some((bytes, blocks)), Some(key)) = (self.watch, self.rotation.active())
            && (bytes.is_some_and(|mark| key.bytes.0 >= mark) || blocks.is_some_and(|mark| key.blocks >= mark))
        {
            self.watch = None;
            self.tell_policy(PolicyEvent::Usage);
        }
        // The first key comes from the host; a policy is asked once there is something to decide about.
        if !self.policy_busy
            && self.rotation.active().is_some()
            && let Some(event) = self.policy_events.pop_front()
        {
            self.policy_busy = true;
            self.outputs.push_back(Output::AskPolicy { event });
        }
    }

    fn tell_policy(&mut self, event: PolicyEvent) {
        if !self.policy_events.contains(&event) && self.policy_events.len() < POLICY_EVENTS_MAX {
            self.policy_events.push_back(event);
        }
    }

    fn answer_decision(&mut self, outcome: Outcome) {
        if let Some(id) = self.rotation_by.take() {
            self.tell_policy(PolicyEvent::Decided { id, outcome });
        }
    }

    /// The first key, and the one at the hard limit, need nobody's leave.
    fn run_host_rotation(&mut self, now: Now) {
        if self.journal_failed || !self.rotation.host_demands(now) {
            return;
        }
        // At the limit itself no interval and no delivery is waited for.
        let in_time = self.rotation.active().is_some() && !self.rotation.hard_limit_reached(now);
        let how = if in_time && self.deliverable() { self.settings.rotate_how } else { How::AtOnce };
        if let Ok(epoch) = self.rotation.begin(now, how, self.deliverable()) {
            self.prepare(epoch, how);
        }
    }

    /// Without a secondary a key is delivered when it is durable here: nothing is down that could be waited for.
    fn deliverable(&self) -> bool {
        !self.settings.paired || (self.link_up() && self.pause.is_none() && self.copying.sends())
    }

    fn pause_state(&self) -> PauseState {
        match self.pause {
            None => PauseState::Running,
            Some(Pause { cut: Some(cut), .. }) if cut <= self.transfer.acked() => PauseState::Paused,
            Some(_) => PauseState::Pausing,
        }
    }

    fn prepare(&mut self, epoch: Epoch, how: How) {
        let how = if self.rotation.active().is_some() { how } else { How::AtOnce };
        self.outputs.push_back(Output::PrepareEpoch { epoch, how });
    }

    fn alarm(&mut self, now: Now, alarm: Alarm) {
        if self.alarms.back().is_some_and(|(_, last)| *last == alarm) {
            return;
        }
        if self.alarms.len() == ALARMS_MAX {
            self.alarms.pop_front();
        }
        self.alarms.push_back((now.wall, alarm));
        self.outputs.push_back(Output::Alarm(alarm));
    }

    /// What this machine promises at every rest.
    fn assert_invariants(&self) {
        assert!(self.synced <= self.appended && self.appended < self.next, "durable <= appended < next");
        assert!(self.destaged <= self.synced, "home never holds what the journal could lose");
        assert!(self.homed <= self.destaged, "only what was destaged can be durable at home");
        assert!(self.transfer.sent() <= self.synced, "only what is durable here is sent");
        assert!(self.trimmed <= self.homed, "the journal keeps what home does not hold");
        assert!(self.durable_order <= self.planned && self.planned <= self.accepted, "orders follow each other");
    }
}

fn wide(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}
