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

use crate::chain::{Chain, Digest};
use crate::flow::{Chosen, Flow, Limits, Way};
use crate::frame::{Ack, Differs, HandOver, KeyRefusal, Welcome};
use crate::group::CutName;
use crate::limits::{
    ACK_PATIENCE, ALARMS_MAX, BUFFER_BYTES_MAX, COMMIT_BYTES_MAX, COMMIT_RECORDS_MAX, COMMITS_IN_FLIGHT_MAX,
    COPY_BYTES_IN_FLIGHT_MAX, HOME_DIRTY_BYTES_MAX, HOME_SYNC_INTERVAL, LAZY_SYNC_INTERVAL, OWED_GRANULE_BYTES,
    POLICY_EVENTS_MAX, RECORD_BLOCKS_MAX, RECORD_PAYLOAD_MAX, SEQUENCE_MAX, STALL_PATIENCE, STORE_RETRY_INTERVAL,
    SWAP_HOLD_MAX, WINDOW_BYTES_MAX, WINDOW_RECORDS_MAX, ZEROES_BYTES_MIN, ZEROES_PER_BYTE,
};
use crate::owed::{OwedMap, joined};
use crate::record::{CutMark, HEADER_BYTES, Kind, tag_bytes_each};
use crate::rotation::{Due, Ended, Held, How, KeyLimits, KeyUse, Refused, Rotation, Slot, State as RotationState};
use crate::schedule::Schedule;
use crate::units::{
    BlockBytes, BlockCount, ByteLen, CutNumber, Epoch, Extent, Generation, Instant, Lba, Millis, Now, PairId, Path,
    Sequence, Ticket, VolumeId, WallTime,
};
use crate::window::Range;

mod carry;
mod compare;
mod copy;
mod cut;
mod durable;
mod flow;
mod keys;
mod plan;
mod recover;
mod seed;
mod slots;
mod swap;
mod transfer;
mod unordered;
mod words;

pub use compare::Begun;
pub use copy::CopyState;
pub use flow::{CopyProgress, FlowStatus, JournalFill};
pub use recover::{Differing, Found, Kept, KeptMap, Logged};
pub use swap::SwapState;
pub use transfer::Divergence;
pub use words::*;

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
    /// Granules of a copy, and what they hold: the dirty map is told where they went.
    Copied(What),
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

/// How far one place is with the writes of appended commits.
#[derive(Debug, Default)]
struct Progress {
    reached: Order,
    /// The last record of each commit that is not there yet, and what order is reached when it is.
    expected: VecDeque<(Sequence, Order)>,
}

impl Progress {
    fn expect(&mut self, sequence: Sequence, order: Order) {
        self.expected.push_back((sequence, order));
    }

    /// Everything up to `through` is there.
    fn advance(&mut self, through: Sequence) {
        while let Some((_, order)) = self.expected.pop_front_if(|(sequence, _)| *sequence <= through) {
            self.reached = self.reached.max(order);
        }
    }
}

/// A request that is answered later.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    /// Everything up to here must be where the mode wants it.
    order: Order,
    ticket: Ticket,
    /// FLUSH or FUA.
    durable: bool,
}

/// Since when the secondary acknowledges nothing beyond this record.
#[derive(Clone, Copy, Debug)]
struct AckWait {
    acked: Sequence,
    since: Instant,
}

/// The oldest commit under way could not be stored.
#[derive(Clone, Copy, Debug)]
struct Stall {
    fault: StoreFault,
    since: Instant,
    retry_at: Instant,
}

#[derive(Debug)]
pub struct Primary {
    settings: Settings,
    rotation: Rotation,
    schedule: Schedule,
    /// Keys that were carried in slots, whether they arrived or not.
    carriages: u8,
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
    stall: Option<Stall>,
    /// Since when nothing can be sealed for want of a key.
    keyless_since: Option<Instant>,
    // Durability.
    appended: Sequence,
    appended_bytes_unsynced: u64,
    synced: Sequence,
    sync_under_way: bool,
    last_sync: Instant,
    /// Writes that are durable in the journal.
    in_journal: Progress,
    waiting: VecDeque<Waiting>,
    mode: Mode,
    /// What [`Status::mode_kept`] says, as of the last input.
    mode_kept: bool,
    /// Records are on their way, and the mode waits for them.
    ack_wait: Option<AckWait>,
    /// Writes that the secondary holds durably.
    at_remote: Progress,
    journal_failed: bool,
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
    flow: flow::Flowing,
    cuts: u64,
    group: cut::GroupCuts,
    /// Key records above the acknowledged mark whose epochs were voided.
    voided: BTreeSet<Sequence>,
    /// Epochs whose void is in the commit that is being planned.
    discard_after_commit: Vec<Epoch>,
    // Policy and operator.
    pause: Option<Pause>,
    swap: Option<swap::Stage>,
    policy_busy: bool,
    policy_events: VecDeque<PolicyEvent>,
    rotation_by: Option<u64>,
    /// A key that was begun, and is drawn beside what the standing schedule does next.
    to_prepare: Option<(Epoch, Wish)>,
    /// What it was asked last is what became of a decision of its own.
    policy_hears_outcome: bool,
    policy_called: WallTime,
    wake_at: Option<WallTime>,
    watch: Option<(Option<u64>, Option<u64>)>,
    held: Option<Held>,
    fenced: Option<Generation>,
    /// What a verification compares now.
    comparison: Option<compare::Comparison>,
    /// A seed on its way, which goes up to here.
    seed: Option<Sequence>,
    alarms: VecDeque<(WallTime, Alarm)>,
}

impl Primary {
    /// A machine over what a restart found. The caller has replayed the journal's records above `homed` to home, so
    /// that the data buffer is empty.
    pub fn new(now: Now, settings: Settings, recovered: Recovered) -> Self {
        let rotation = Rotation::new(settings.key_limits, recovered.newest_epoch).with_escrow(settings.escrowed);
        let rotation = rotation.with_slots(settings.paired && settings.in_slots);
        let last = recovered.last;
        let copying = copy::Copying::new(&settings, recovered.owed, &recovered.unacked);
        let unacked = if copying.sends() { recovered.unacked } else { Vec::new() };
        let transfer = transfer::Transfer::new(recovered.acked, recovered.acked_chain, unacked, recovered.given_up);
        let mut primary = Self {
            settings,
            rotation,
            schedule: Schedule::new(settings.paired),
            carriages: 0,
            outputs: VecDeque::new(),
            told: now.instant,
            next: last.next(),
            chain: recovered.chain,
            accepted: Order(0),
            planned: Order(0),
            queue: VecDeque::new(),
            queued_bytes: 0,
            commits: VecDeque::new(),
            stall: None,
            keyless_since: None,
            appended: last,
            appended_bytes_unsynced: 0,
            synced: last,
            sync_under_way: false,
            last_sync: now.instant,
            in_journal: Progress::default(),
            waiting: VecDeque::new(),
            mode: recovered.mode.unwrap_or(settings.mode),
            mode_kept: false,
            ack_wait: None,
            at_remote: Progress::default(),
            journal_failed: false,
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
            flow: flow::Flowing::new(now.instant, settings.flow, recovered.chosen),
            cuts: recovered.cuts,
            group: cut::GroupCuts::new(recovered.group_cut),
            voided: BTreeSet::new(),
            discard_after_commit: Vec::new(),
            pause: recovered.paused.then_some(Pause { after: Order(0), cut: Some(recovered.acked) }),
            swap: recovered.handing_over.map(swap::Stage::again),
            policy_busy: false,
            policy_events: VecDeque::from([PolicyEvent::Started]),
            rotation_by: None,
            to_prepare: None,
            policy_hears_outcome: false,
            policy_called: WallTime(0),
            wake_at: None,
            watch: None,
            held: None,
            fenced: None,
            comparison: None,
            seed: None,
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

    /// An initiator's WRITE is answered as soon as it is accepted.
    pub fn answers_at_once(&self) -> bool {
        self.mode != Mode::Sync
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
            self.stall.map(|stall| (stall.retry_at, "append again")),
            self.home_stalled_until.map(|at| (at, "destage again")),
            self.keyless_since.map(|since| (since.plus(STALL_PATIENCE), "tell those who wait that there is no key")),
            self.ack_wait.map(|wait| (wait.since.plus(ACK_PATIENCE), "wait for the secondary no longer")),
        ];
        let resync = self.copying.timeout().map(|at| (at, "begin the resync again"));
        let hold = self.group.timeout().map(|at| (at, "go on without the group's cut"));
        let swap = self.swap_timeout().map(|at| (at, "give the change of sides up"));
        [wall, lazy, home, resync, hold, swap]
            .into_iter()
            .chain(retries)
            .flatten()
            .chain(self.flow.timeouts())
            .chain(self.rotation.timeouts())
            .chain(self.schedule.timeouts())
            // What was due when time was last told has been done, or waits for something that comes as an input.
            .filter(|(at, _)| *at > self.told)
            .min_by_key(|(at, _)| *at)
    }

    /// Asked by the driver before it takes another write from an initiator.
    pub fn room(&self) -> Room {
        if self.fenced.is_some() || self.swap_hangs() {
            Room::Fenced
        } else if self.swap.is_some() {
            Room::Wait
        } else if self.journal_failed || self.hopeless() == Some(ReplyError::Io) {
            Room::Failed
        } else if self.journal_full() {
            Room::Full
        } else if self.queued_bytes + self.buffered_bytes < BUFFER_BYTES_MAX.0 {
            Room::Open
        } else if self.home_stalled_until.is_some() || self.home_failed {
            Room::Full
        } else {
            Room::Wait
        }
    }

    /// The last record that the secondary acknowledged as durable with everything before it, and the running hash there.
    pub fn acked(&self) -> (Sequence, Chain) {
        (self.transfer.acked(), self.transfer.acked_chain())
    }

    pub fn status(&self) -> Status {
        let (lag_records, lag_bytes, lag_since) = self.transfer.lag();
        Status {
            mode: self.mode,
            mode_kept: self.mode_kept,
            copy: self.copying.state(),
            pause: self.pause_state(),
            hold: self.group.held(),
            group_cut: self.group.newest(),
            cut_copied: self.group.copied(),
            swap: self.swap.as_ref().map(swap::Stage::state),
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
        self.copying.map().is_some_and(|map| map.owes(lba)) || self.under_way().any(|extent| extent.contains(lba))
    }

    /// The blocks of an extent that the secondary may lack, in order. Empty without a secondary.
    pub fn owed_runs(&self, within: Extent) -> Vec<Extent> {
        if !self.settings.paired {
            return Vec::new();
        }
        let mapped = self.copying.map().map(|map| map.runs(within)).unwrap_or_default();
        let mut all: Vec<Extent> =
            self.under_way().filter_map(|extent| extent.intersection(within)).chain(mapped).collect();
        all.sort_by_key(|extent| extent.first());
        joined(all.into_iter())
    }

    /// An answer to a read of these blocks waits: it would show a write whose own answer is withheld for a group's cut.
    pub fn withholds(&self, extent: Extent) -> bool {
        self.group.overlaps(extent)
    }

    /// What was written and not acknowledged, but for what the dirty map remembers.
    fn under_way(&self) -> impl Iterator<Item = Extent> {
        let planned = self.commits.iter().flat_map(|commit| &commit.records).filter_map(|record| record.extent);
        let queued = self.queue.iter().map(|accepted| accepted.rest);
        let unacked = self.transfer.unacked().filter_map(|record| record.extent);
        queued.chain(planned).chain(unacked)
    }

    /// The dirty map as [`Output::PersistOwed`] makes it durable, with where the secondary may be.
    pub fn encode_owed(&self) -> Option<Vec<u8>> {
        let map = self.copying.map()?;
        Some(self.transfer.may_be_at().map_or_else(|| map.encode(), |given_up| map.encode_with(&given_up)))
    }

    /// The dirty map, to be shown.
    pub fn owed_map(&self) -> Option<&OwedMap> {
        self.copying.map()
    }

    fn take(&mut self, now: Now, input: Input) {
        match input {
            Input::Write { ticket, what, extent, fua } => self.on_write(ticket, what, extent, fua),
            Input::Flush { ticket } => self.on_flush(ticket),
            Input::CopyRead { ticket, what, extent } => self.on_copy_read(ticket, what, extent),
            Input::CopyReadFailed { extent } => self.copying.read_failed(extent),
            Input::Committed { digests } => self.on_committed(now, &digests),
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
            Input::PathLost { path } => {
                self.transfer.path_lost(path);
                self.swap_path_lost(path);
            }
            Input::Acked { path, ack } => self.on_acked(now, path, &ack),
            Input::KeyRefused { key, why } => {
                self.on_key_refused(now, key);
                self.alarm(now, Alarm::KeyRefused { key, why });
            }
            Input::Differs { differs } => self.on_differs(&differs),
            Input::HandOverPersisted => self.on_hand_over_persisted(now),
            Input::HandOverPersistFailed => self.on_hand_over_not_persisted(now),
            Input::HandedOver { generation } => self.on_newer_generation(now, generation),
            Input::Fenced { generation } => self.on_newer_generation(now, generation),
            Input::EpochPrepared { epoch, slot } => {
                if self.is_too_long(slot) && self.rotation.failed(now, epoch) {
                    self.outputs.push_back(Output::DiscardEpoch { epoch });
                    self.alarm(now, Alarm::EpochNotPrepared(epoch));
                    self.answer_decision(Outcome::NotPrepared);
                } else if !self.rotation.prepared(epoch, slot) {
                    self.outputs.push_back(Output::DiscardEpoch { epoch });
                }
            }
            Input::EpochEscrowed { epoch } => _ = self.rotation.escrowed(epoch),
            Input::EpochFailed { epoch } => {
                if self.rotation.failed(now, epoch) {
                    self.alarm(now, Alarm::EpochNotPrepared(epoch));
                    self.answer_decision(Outcome::NotPrepared);
                }
            }
            Input::SlotsPlanned { slots } => self.on_slots_planned(now, &slots),
            Input::SlotsNotPlanned => self.schedule.not_planned(now.instant.plus(STORE_RETRY_INTERVAL)),
            Input::PolicyDecided { decisions } => self.on_policy(now, &decisions),
            Input::OpenCut { cut, lanes } => self.on_open_cut(now, cut, lanes),
            Input::ReleaseCut { cut } => self.on_release_cut(cut),
            Input::ConfirmCut { cut, lanes, name } => self.on_confirm_cut(cut, lanes, name),
            Input::Operator(command) => {
                let answer = self.on_command(now, command);
                self.outputs.push_back(Output::CommandAnswered(answer));
            }
            Input::OweAgain { map } => self.owe_again(&map),
            Input::SeedLost => self.lose_seed(),
            Input::Tick => {}
        }
    }

    /// Everything that may go on, goes on. Runs after each input.
    fn proceed(&mut self, now: Now) {
        self.told = now.instant;
        self.group.go_on(now);
        // Before anything is planned, whose sealing they would wait for.
        self.answer_durable();
        self.run_resync(now);
        self.run_copy(now);
        self.run_shrink();
        self.run_schedule(now);
        self.run_carriage(now);
        self.plan_commits(now);
        // After the sealing that may have used a key up: no other event need follow that would ask.
        if let Some(epoch) = self.rotation.escrow_late(now) {
            self.alarm(now, Alarm::EscrowSilent(epoch));
        }
        self.run_host_rotation(now);
        self.prepare_in_the_open(now);
        self.run_policy(now);
        self.retry_stalled(now);
        self.run_journal_sync(now);
        self.run_home(now);
        self.run_overflow(now);
        self.run_trim();
        self.run_transfer(now);
        self.run_swap(now);
        self.run_high_water(now);
        self.run_mode(now);
    }

    fn on_write(&mut self, ticket: Ticket, what: What, extent: Extent, fua: bool) {
        if self.journal_failed {
            self.outputs.push_back(Output::Reply { ticket, result: Err(ReplyError::Io) });
            return;
        }
        if !self.takes_writes() {
            self.outputs.push_back(Output::Reply { ticket, result: Err(ReplyError::Fenced) });
            return;
        }
        self.give_up_order();
        self.copying.written(extent);
        self.note_compared(extent);
        self.accept(ticket, Content::Written(what), extent);
        let withheld = self.group.withhold(extent);
        if fua || self.mode == Mode::Sync || withheld {
            self.waiting.push_back(Waiting { order: self.accepted, ticket, durable: fua });
        } else {
            self.outputs.push_back(Output::Reply { ticket, result: Ok(()) });
        }
    }

    fn accept(&mut self, ticket: Ticket, content: Content, extent: Extent) {
        self.accepted.0 += 1;
        self.queued_bytes += self.weight(content, extent.blocks());
        self.queue.push_back(Accepted { order: self.accepted, ticket, content, rest: extent, skip: BlockCount(0) });
    }

    /// What these blocks count for in the data buffer. Zeroes are no bytes there, and take the home time.
    fn weight(&self, content: Content, blocks: BlockCount) -> u64 {
        let bytes = blocks.byte_len(self.settings.block_bytes).0;
        if bytes == 0 {
            return 0;
        }
        match content {
            Content::Written(What::Data) | Content::Copied(What::Data) => bytes,
            Content::Written(What::Zero | What::Trim) | Content::Copied(What::Zero | What::Trim) => {
                (bytes / ZEROES_PER_BYTE).clamp(ZEROES_BYTES_MIN.0, BUFFER_BYTES_MAX.0)
            }
        }
    }

    /// Bytes that a record of these blocks seals.
    fn payload_bytes(&self, content: Content, blocks: BlockCount) -> u64 {
        match content {
            Content::Written(What::Data) | Content::Copied(What::Data) => blocks.byte_len(self.settings.block_bytes).0,
            Content::Written(_) | Content::Copied(_) => 0,
        }
    }

    fn on_flush(&mut self, ticket: Ticket) {
        self.waiting.push_back(Waiting { order: self.accepted, ticket, durable: true });
    }

    /// Says whether it is under way.
    fn on_command(&mut self, now: Now, command: Command) -> Result<(), Refused> {
        if !self.swap_allows(command) {
            return Ok(());
        }
        match command {
            Command::Pause => {
                if self.pause.is_none() {
                    self.pause = Some(Pause { after: self.accepted, cut: None });
                    self.catch_up_at_once(now);
                    self.outputs.push_back(Output::PersistPause { paused: true });
                }
            }
            Command::Resume => {
                if self.pause.take().is_some() {
                    self.outputs.push_back(Output::PersistPause { paused: false });
                }
            }
            Command::RequestRotation => self.tell_policy(PolicyEvent::Requested),
            Command::Rotate(how) => self.begin_for_operator(now, how)?,
            Command::Suspect(epoch) => {
                self.rotation.suspect(epoch);
                self.tell_policy(PolicyEvent::Suspect(epoch));
            }
            Command::PolicyChanged => {
                (self.wake_at, self.watch) = (None, None);
                self.tell_policy(PolicyEvent::Started);
            }
            Command::SetMode(mode) => {
                if self.mode != mode {
                    self.mode = mode;
                    self.mode_kept = false;
                    self.outputs.push_back(Output::PersistMode { mode });
                }
            }
            Command::SetWay(way) => self.set_way(way),
            Command::SetLimits(limits) => self.set_limits(now, limits),
            Command::HandOver => self.begin_swap(now),
            Command::Quiesce => self.quiesce(now),
            Command::GoOn => self.end_quiesce(),
            Command::CopyAll => {
                if self.settings.paired {
                    self.owe_everything();
                }
            }
        }
        Ok(())
    }

    fn pause_state(&self) -> PauseState {
        match self.pause {
            None => PauseState::Running,
            Some(Pause { cut: Some(cut), .. }) if cut <= self.transfer.acked() => PauseState::Paused,
            Some(_) => PauseState::Pausing,
        }
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
        assert!(
            self.at_remote.reached <= self.in_journal.reached,
            "the secondary holds nothing that is not durable here"
        );
        assert!(self.destaged <= self.synced, "home never holds what the journal could lose");
        assert!(self.homed <= self.destaged, "only what was destaged can be durable at home");
        assert!(self.transfer.sent() <= self.synced, "only what is durable here is sent");
        assert!(self.trimmed <= self.homed, "the journal keeps what home does not hold");
        assert!(self.in_journal.reached <= self.planned && self.planned <= self.accepted, "orders follow each other");
    }
}

fn wide(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}
