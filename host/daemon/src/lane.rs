//! The primary's driver: one thread owns a [`Primary`] and carries out what it decides.
//!
//! ```text
//!  NBD connections ─┐                         ┌─▶ journal (append here, sync on its own thread)
//!  link paths ──────┼─▶ inbox ─▶ lane thread ─┼─▶ home    (destage and sync on its own thread)
//!  keys, policy ────┘        (seals batches)  └─▶ paths   (each a task that sends frames)
//! ```
//!
//! The thread decides nothing. It turns what comes into inputs, a whole inbox at a time, and carries outputs out in
//! their order. Initiators' writes are copied once, into the record that is sealed in place and then shared by journal
//! and link.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path as FilePath, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use farseal_core::carriage::{Carriage, CarriageNumber};
use farseal_core::frame::{Ack, Differs, HandOver, KeyRefusal, Welcome};
use farseal_core::group::CutName;
use farseal_core::inspect::Inspect;
use farseal_core::limits::COMMIT_BYTES_MAX;
use farseal_core::owed::OwedMap;
use farseal_core::primary::{
    Begun, Command, FlowStatus, Input, Output, Planned, Primary, ReplyError, Room, Settings, Slots, Source, Status,
    StoreFault, What, Wish,
};
use farseal_core::record::Kind;
use farseal_core::rotation::{KeyLimits, KeyUse, Refused};
use farseal_core::schedule;
use farseal_core::units::{BlockCount, CutNumber, Epoch, Extent, Generation, Incarnation, Lba, Path, Sequence, Ticket};
use farseal_core::window::Range;
use farseal_plugin::Digest;
use tokio::sync::watch;

use crate::clock::Clock;
use crate::control::api::RotationWord;
use crate::keyring::Keyring;
use crate::keys::card::PeerCard;
use crate::keys::deposit::Receipt;
use crate::keys::descriptor::Role;
use crate::keys::identity::Identity;
use crate::link::dial::Send;
use crate::link::slots::Told;
use crate::nbd::completion::{Batch, Reply};
use crate::nbd::export::{Answer, Errno};
use crate::plugins::PairPlugins;
use crate::store::StoreError;
use crate::store::home::Home;
use crate::store::journal::{Begins, Journal, JournalReader};

pub mod buffer;
pub mod commit;
pub mod deposits;
pub mod destage;
pub mod intake;
pub mod keybook;
pub mod keywork;
pub mod outbox;
pub mod pacer;
pub mod policy_journal;
pub mod reader;
pub mod recover;
pub mod state;

use buffer::Buffer;
use commit::Committer;
use intake::Intake;
use keybook::KeyBook;
use keywork::{KeyWork, PolicySwap, PolicyWork};
use outbox::Outbox;
use pacer::Pacer;
use state::LaneState;

/// How many events are taken from the inbox before what follows from them is done: a commit's worth, as are
/// [`COMMIT_BYTES_MAX`] of their bytes.
const INBOX_BATCH: usize = 1024;

/// Something for the lane's thread.
pub enum Event {
    Write {
        offset: u64,
        data: Bytes,
        fua: bool,
        reply: Reply,
    },
    /// `what` is zero or trim.
    Zero {
        offset: u64,
        len: u64,
        fua: bool,
        what: What,
        reply: Reply,
    },
    /// A write that has its place in the data buffer, and its answer too unless that waits for durability.
    Placed {
        ticket: Ticket,
        extent: Extent,
        data: Bytes,
        fua: bool,
        reply: Option<Reply>,
    },
    /// What [`Output::ReadForCopy`] asked for; behind every write that the read may have seen.
    CopyRead {
        extent: Extent,
        read: reader::ReadForCopy,
    },
    Flush {
        reply: Reply,
    },
    Synced(Result<Sequence, StoreError>),
    Destaged {
        through: Sequence,
        result: Result<(), StoreError>,
    },
    HomeSynced {
        through: Sequence,
        result: Result<(), StoreError>,
    },
    Attaching {
        path: Path,
    },
    Welcomed {
        path: Path,
        welcome: Welcome,
        /// The components that the secondary keeps.
        components: Vec<Digest>,
        jobs: PathJobs,
    },
    PathLost {
        path: Path,
    },
    /// Where the secondary's base differs.
    Differs(Differs),
    /// The secondary writes now, as it was asked to.
    HandedOver {
        generation: Generation,
    },
    /// Everything that initiators placed before a change of sides has been heard of.
    DoorClosed,
    Acked {
        path: Path,
        ack: Ack,
    },
    KeyRefused {
        key: Sequence,
        why: KeyRefusal,
    },
    /// The secondary was taken over to.
    Fenced {
        generation: Generation,
    },
    EpochPrepared(keywork::Prepared),
    /// The escrow site holds the key.
    EpochEscrowed {
        epoch: Epoch,
        receipt: Receipt,
    },
    /// What [`Output::PlanSlots`] asked for; none: the disguise could not be asked.
    SlotsPlanned(Option<Vec<schedule::Planned>>),
    EpochFailed {
        epoch: Epoch,
    },
    PolicyDecided(Vec<farseal_core::primary::Decision>),
    SwapPolicy(PolicySwap),
    /// A group's cut was opened at the intake; see there.
    OpenCut {
        cut: CutNumber,
        lanes: u16,
    },
    ReleaseCut {
        cut: CutNumber,
    },
    ConfirmCut {
        cut: CutNumber,
        lanes: u16,
        name: Option<CutName>,
    },
    Operator {
        command: Command,
        done: Done,
    },
    /// What a verification must know of a range.
    Compare(Compare),
    /// Have the copy asked, over whichever path is up. Says whether one is.
    Inspect {
        inspect: Inspect,
        done: Box<dyn FnOnce(bool) + std::marker::Send>,
    },
    /// Have the copy asked something else. Says whether a path is up.
    Ask {
        question: Send,
        done: Box<dyn FnOnce(bool) + std::marker::Send>,
    },
    /// What a verification found different is to be copied again.
    OweAgain {
        map: OwedMap,
        done: Box<dyn FnOnce() + std::marker::Send>,
    },
    /// Have what comes begin a segment of the journal, if the newest began before this record. Answers where the oldest and the
    /// newest begin.
    BeginSegment {
        first: Sequence,
        done: Box<dyn FnOnce(Option<Begins>) + std::marker::Send>,
    },
    /// The first copy travels on a disk: kept durably. None: it is given up, and everything is owed.
    Seed {
        seed: Option<state::Seed>,
        done: Box<dyn FnOnce(Result<(), StoreError>) + std::marker::Send>,
    },
    /// What the secondary may lack of an extent.
    Owed {
        within: Extent,
        done: Box<dyn FnOnce(Vec<Extent>) + std::marker::Send>,
    },
    Look {
        done: Box<dyn FnOnce(LaneView) + std::marker::Send>,
    },
    Stop,
}

/// What a verification must know of the range that it compares.
pub enum Compare {
    /// It begins now.
    Begin { within: Extent, done: Box<dyn FnOnce(Begun) + std::marker::Send> },
    /// Where initiators wrote since; behind every write that a read before it may have seen.
    End { within: Extent, done: Box<dyn FnOnce(Vec<Extent>) + std::marker::Send> },
}

/// Answers an operator.
pub type Done = Box<dyn FnOnce(Result<(), Refused>) + std::marker::Send>;

/// What the lane gives a path to do. Bounded by the window: what was sent and not acknowledged.
pub type PathJobs = tokio::sync::mpsc::UnboundedSender<Send>;

/// What a console shows of a lane.
#[derive(Clone, Debug)]
pub struct LaneView {
    pub status: Status,
    pub keys: Vec<KeyUse>,
    pub limits: KeyLimits,
    pub journal_bytes: u64,
    pub flow: FlowStatus,
    pub last_seal_fault: Option<String>,
    pub rotation_due: Option<farseal_core::units::WallTime>,
    /// The first copy travels on a disk.
    pub seed: Option<state::Seed>,
}

/// What a lane is made of.
pub struct Parts {
    pub name: String,
    pub directory: PathBuf,
    pub settings: Settings,
    pub home: Arc<dyn Home>,
    pub keyring: Arc<Keyring>,
    pub keywork: KeyWork,
    pub plugins: Arc<PairPlugins>,
    pub clock: Clock,
    pub incarnation: Incarnation,
    pub identity: Arc<Identity>,
    /// Who can open each epoch: this node, and the secondary unless the escrow site alone can.
    pub recipients: Vec<(Role, PeerCard)>,
    /// Called when the secondary writes in this lane's place; the lane does nothing more.
    pub handed_over: Arc<dyn Fn(HandOver) + std::marker::Send + Sync>,
}

impl std::fmt::Debug for Compare {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Compare")
    }
}

impl std::fmt::Debug for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Event")
    }
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("name", &self.name).field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// A running lane.
pub struct Lane {
    pub inbox: Sender<Event>,
    pub intake: Arc<Intake>,
    pub buffer: Arc<Buffer>,
    pub home: Arc<dyn Home>,
    pub journal: JournalReader,
    pub keyring: Arc<Keyring>,
    pub keybook: Arc<KeyBook>,
    pub settings: Settings,
    /// How many paths the link should have.
    pub paths: watch::Sender<u16>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl std::fmt::Debug for Lane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lane").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Lane {
    /// Recovers what the directory holds, then starts the lane's threads.
    pub fn start(parts: Parts) -> Result<Self, recover::RecoverError> {
        let found = recover::recover(&parts)?;
        let (inbox, events) = channel();
        let buffer = Arc::new(Buffer::new(parts.settings.block_bytes));
        let (home, settings) = (Arc::clone(&parts.home), parts.settings);
        let keyring = Arc::clone(&parts.keyring);
        let keybook = Arc::new(KeyBook::open(&parts.directory)?);
        let threads = |source| StoreError::io(FilePath::new("."), "start the lane's threads", source);
        let pacer = Pacer::start().map_err(threads)?;
        let intake = Intake::new(Arc::clone(&buffer), settings.block_bytes, parts.clock, inbox.clone(), pacer);
        let intake = Arc::new(intake);
        let reader = reader::start(&home, &buffer, settings.block_bytes, &intake).map_err(threads)?;
        let journal = found.journal.reader();
        let way = found.recovered.chosen.way.unwrap_or(settings.flow.way);
        let paths = watch::Sender::new(way.paths);
        let thread = {
            let (inbox, buffer, intake) = (inbox.clone(), Arc::clone(&buffer), Arc::clone(&intake));
            let (paths, keybook) = (paths.clone(), Arc::clone(&keybook));
            let name = format!("lane-{}", parts.name);
            std::thread::Builder::new()
                .name(name)
                .spawn(move || Runner::new(parts, found, &inbox, buffer, intake, reader, paths, keybook).run(&events))
                .map_err(threads)?
        };
        let thread = Mutex::new(Some(thread));
        Ok(Self { inbox, intake, buffer, home, journal, keyring, keybook, settings, paths, thread })
    }

    /// Has the lane's thread answer, and waits for it; `None`: it has stopped. Not on that thread.
    pub(crate) fn ask<T>(&self, event: impl FnOnce(Sender<T>) -> Event) -> Option<T> {
        let (done, answer) = channel();
        self.inbox.send(event(done)).ok()?;
        answer.recv().ok()
    }

    /// Stops the lane: what is accepted is committed and durable before this returns.
    pub fn stop(&self) {
        let _ = self.inbox.send(Event::Stop);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

/// A commit on its way to the journal.
enum Commit {
    Planned(commit::Plan),
    Sealed(commit::Sealed),
}

struct Runner {
    clock: Clock,
    settings: Settings,
    primary: Primary,
    journal: Journal,
    journal_reader: JournalReader,
    committer: Committer,
    /// Commits under way, oldest first: one that cannot be sealed or appended holds those behind it back.
    commits: VecDeque<Commit>,
    stalled: bool,
    buffer: Arc<Buffer>,
    intake: Arc<Intake>,
    /// A group's cut is open, as far as the inbox says: what is placed here is withheld.
    holding: bool,
    home: Arc<dyn Home>,
    writes: BTreeMap<Ticket, Bytes>,
    /// Writes that are copies of what home holds already, or gets from an earlier write.
    copies: BTreeSet<Ticket>,
    reader: Sender<Extent>,
    /// The newest write that core has been told of.
    heard: Ticket,
    /// Reads at once that found a write which core has not been told of: read again when it has.
    early_copies: Vec<Extent>,
    replies: BTreeMap<Ticket, Reply>,
    /// Requests that wait for room.
    backlog: VecDeque<Event>,
    syncer: Sender<()>,
    destager: Sender<destage::Job>,
    destage_queue: VecDeque<destage::Write>,
    outbox: Outbox,
    /// The key record whose pieces go in slots, or went.
    carriage: Option<Arc<Carriage>>,
    paths: BTreeMap<Path, PathJobs>,
    /// The components that need not be sent over a path.
    shipped: BTreeMap<Path, BTreeSet<Digest>>,
    wanted_paths: watch::Sender<u16>,
    keyring: Arc<Keyring>,
    keybook: Arc<KeyBook>,
    plugins: Arc<PairPlugins>,
    keywork: KeyWork,
    policy: PolicyWork,
    operators: VecDeque<Done>,
    /// What a verification asks, answered when core has heard everything before it.
    comparisons: Vec<Compare>,
    /// What the lane tells itself.
    inbox: Sender<Event>,
    /// Who asked for a change of sides that waits for the door.
    swaps: Vec<(Command, Done)>,
    handed_over: Arc<dyn Fn(HandOver) + std::marker::Send + Sync>,
    state: LaneState,
    directory: PathBuf,
    last_seal_fault: Option<String>,
    name: String,
}

impl Runner {
    #[expect(clippy::too_many_arguments, reason = "what the lane was started with, and what it started")]
    fn new(
        parts: Parts,
        found: recover::Found,
        inbox: &Sender<Event>,
        buffer: Arc<Buffer>,
        intake: Arc<Intake>,
        reader: Sender<Extent>,
        wanted_paths: watch::Sender<u16>,
        keybook: Arc<KeyBook>,
    ) -> Self {
        let recover::Found { mut journal, recovered, chain, state } = found;
        journal.begin(parts.settings.generation, parts.incarnation);
        let syncer = destage::start_syncer(journal.syncer(), inbox.clone());
        let destager = destage::start(Arc::clone(&parts.home), Arc::clone(&buffer), inbox.clone());
        let policy = PolicyWork::start(&parts, inbox.clone());
        let keywork = parts.keywork.clone().with_inbox(inbox.clone());
        let committer = Committer::new(&parts, chain);
        let mut primary = Primary::new(parts.clock.now(), parts.settings, recovered);
        primary.handle(parts.clock.now(), Input::JournalBytes { bytes: journal.bytes() });
        if let Some(through) = state.seed.as_ref().and_then(|seed| seed.shipped) {
            primary.await_seed(through);
        }
        Self {
            clock: parts.clock,
            settings: parts.settings,
            primary,
            journal_reader: journal.reader(),
            journal,
            committer,
            commits: VecDeque::new(),
            stalled: false,
            buffer,
            intake,
            holding: false,
            home: parts.home,
            writes: BTreeMap::new(),
            copies: BTreeSet::new(),
            reader,
            heard: Ticket(0),
            early_copies: Vec::new(),
            replies: BTreeMap::new(),
            backlog: VecDeque::new(),
            syncer,
            destager,
            destage_queue: VecDeque::new(),
            outbox: Outbox::default(),
            carriage: None,
            paths: BTreeMap::new(),
            shipped: BTreeMap::new(),
            wanted_paths,
            keyring: parts.keyring,
            keybook,
            plugins: parts.plugins,
            keywork,
            policy,
            operators: VecDeque::new(),
            comparisons: Vec::new(),
            inbox: inbox.clone(),
            swaps: Vec::new(),
            handed_over: parts.handed_over,
            state,
            directory: parts.directory,
            last_seal_fault: None,
            name: parts.name,
        }
    }

    fn run(mut self, events: &Receiver<Event>) {
        self.carry_out();
        // Before there is room for the first write; from then on when the mode changes.
        self.intake.set_answering(self.primary.answers_at_once());
        loop {
            self.intake.pacer.set_delay(self.primary.pace_us());
            let open = self.backlog.is_empty() && self.swaps.is_empty() && self.primary.room() == Room::Open;
            self.intake.set_room(open);
            self.intake.set_standing(self.primary.standing());
            let first = match self.wait(events) {
                Ok(event) => Some(event),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            let mut inputs = Vec::new();
            let mut stop = false;
            let mut bytes = 0;
            let mut next = first;
            while let Some(event) = next.take() {
                stop |= matches!(event, Event::Stop);
                if let Event::Write { data, .. }
                | Event::Placed { data, .. }
                | Event::CopyRead { read: Ok(Some(data)), .. } = &event
                {
                    bytes += wide(data.len());
                }
                self.take_in(event, &mut inputs);
                if inputs.len() < INBOX_BATCH && bytes < COMMIT_BYTES_MAX {
                    next = events.try_recv().ok();
                }
            }
            inputs.push(Input::Tick);
            self.primary.handle_all(self.clock.now(), inputs);
            self.serve_comparisons();
            std::mem::take(&mut self.early_copies).into_iter().for_each(|extent| self.read_at_once(extent));
            self.carry_out();
            self.serve_backlog();
            if stop {
                break;
            }
        }
        self.finish(events);
    }

    fn wait(&self, events: &Receiver<Event>) -> Result<Event, RecvTimeoutError> {
        let now = self.clock.now();
        let timeout = match self.primary.poll_timeout(now) {
            Some((at, _)) => Duration::from_millis(at.since(now.instant).0.max(1)),
            None => Duration::from_secs(3600),
        };
        events.recv_timeout(timeout)
    }

    /// What is accepted becomes durable, so that a clean stop leaves nothing to lose.
    fn finish(mut self, events: &Receiver<Event>) {
        self.intake.close();
        let mut inputs = Vec::new();
        while let Ok(event) = events.try_recv() {
            self.take_in(event, &mut inputs);
        }
        self.primary.handle_all(self.clock.now(), inputs);
        self.carry_out();
        let ticket = self.ticket();
        let (sender, flushed) = channel();
        self.replies.insert(
            ticket,
            Reply::calling(move |outcome| {
                let _ = sender.send(outcome.is_ok());
            }),
        );
        self.primary.handle(self.clock.now(), Input::Flush { ticket });
        self.carry_out();
        while flushed.try_recv().is_err() {
            let Ok(event) = events.recv_timeout(Duration::from_secs(5)) else { break };
            let mut inputs = Vec::new();
            self.take_in(event, &mut inputs);
            inputs.push(Input::Tick);
            self.primary.handle_all(self.clock.now(), inputs);
            self.carry_out();
        }
        for jobs in self.paths.values() {
            let _ = jobs.send(Send::Close);
        }
    }

    fn take_in(&mut self, event: Event, inputs: &mut Vec<Input>) {
        match event {
            Event::Write { .. } | Event::Zero { .. } => {
                // Behind others that wait, so that the order of arrival stays.
                if self.backlog.is_empty() && self.primary.room() == Room::Open {
                    self.take_write(event, inputs);
                } else {
                    self.backlog.push_back(event);
                }
            }
            Event::Placed { ticket, extent, data, fua, reply } => {
                self.intake.heard(data.len());
                self.writes.insert(ticket, data);
                self.replies.extend(reply.map(|reply| (ticket, reply)));
                self.hear(ticket, What::Data, extent, fua, inputs);
            }
            Event::CopyRead { extent, read } => {
                let input = self.copy_read(extent, read);
                inputs.push(input);
            }
            Event::Flush { reply } => {
                if self.backlog.is_empty() {
                    let ticket = self.ticket();
                    self.replies.insert(ticket, reply);
                    inputs.push(Input::Flush { ticket });
                } else {
                    self.backlog.push_back(Event::Flush { reply });
                }
            }
            Event::Synced(Ok(through)) => inputs.push(Input::JournalSynced { through }),
            Event::Synced(Err(error)) => {
                self.note_fault("sync the journal", &error);
                inputs.push(Input::JournalSyncFailed);
            }
            Event::Destaged { through, result } => inputs.push(match result {
                Ok(()) => Input::Destaged { through },
                Err(error) => {
                    self.note_fault("destage", &error);
                    Input::DestageFailed { fault: error.fault() }
                }
            }),
            Event::HomeSynced { through, result } => match result {
                Ok(()) => {
                    self.state.homed = through;
                    self.save_state();
                    inputs.push(Input::HomeSynced { through });
                }
                Err(error) => {
                    self.note_fault("sync home", &error);
                    inputs.push(Input::HomeSyncFailed);
                }
            },
            Event::Attaching { path } => inputs.push(Input::Attaching { path }),
            Event::Welcomed { path, welcome, components, jobs } => {
                self.paths.insert(path, jobs);
                self.shipped.insert(path, components.into_iter().collect());
                let sealed = self.keyring.kept();
                let raw = sealed.iter().map(|package| &package.descriptor().terms).filter(|terms| terms.needs_layer());
                raw.for_each(|terms| self.ship(path, Digest(terms.component)));
                inputs.push(Input::Welcomed { path, welcome });
            }
            Event::PathLost { path } => {
                self.paths.remove(&path);
                self.shipped.remove(&path);
                inputs.push(Input::PathLost { path });
            }
            Event::Acked { path, ack } => {
                self.outbox.acknowledged(ack.durable);
                inputs.push(Input::Acked { path, ack });
            }
            Event::KeyRefused { key, why } => inputs.push(Input::KeyRefused { key, why }),
            Event::Fenced { generation } => inputs.push(Input::Fenced { generation }),
            Event::EpochPrepared(prepared) => {
                let (epoch, slot) = (prepared.epoch, prepared.slot);
                self.committer.prepared(prepared);
                inputs.push(Input::EpochPrepared { epoch, slot });
            }
            Event::EpochEscrowed { epoch, receipt } => {
                self.committer.escrowed(epoch, receipt);
                inputs.push(Input::EpochEscrowed { epoch });
            }
            Event::SlotsPlanned(Some(slots)) => inputs.push(Input::SlotsPlanned { slots }),
            Event::SlotsPlanned(None) => inputs.push(Input::SlotsNotPlanned),
            Event::EpochFailed { epoch } => {
                self.keybook.void(epoch, self.clock.now().wall);
                inputs.push(Input::EpochFailed { epoch });
            }
            Event::PolicyDecided(decisions) => inputs.push(Input::PolicyDecided { decisions }),
            Event::SwapPolicy(swap) => self.policy.swap(swap),
            Event::Differs(differs) => inputs.push(Input::Differs { differs }),
            Event::HandedOver { generation } => inputs.push(Input::HandedOver { generation }),
            // Not before what it ends.
            Event::Operator { command: Command::GoOn, done } if !self.swaps.is_empty() => {
                self.swaps.push((Command::GoOn, done));
            }
            Event::Operator { command: command @ (Command::HandOver | Command::Quiesce), done } => {
                // Whatever connections have placed by now is in the inbox before the event that is sent here.
                self.intake.close();
                self.swaps.push((command, done));
                let _ = self.inbox.send(Event::DoorClosed);
            }
            Event::DoorClosed => {
                for (command, done) in self.swaps.drain(..) {
                    self.operators.push_back(done);
                    inputs.push(Input::Operator(command));
                }
            }
            Event::OpenCut { cut, lanes } => {
                self.holding = lanes > 1;
                inputs.push(Input::OpenCut { cut, lanes });
            }
            Event::ReleaseCut { cut } => {
                self.holding = false;
                inputs.push(Input::ReleaseCut { cut });
            }
            Event::ConfirmCut { cut, lanes, name } => inputs.push(Input::ConfirmCut { cut, lanes, name }),
            Event::Operator { command, done } => {
                self.operators.push_back(done);
                inputs.push(Input::Operator(command));
            }
            Event::Compare(compare) => self.comparisons.push(compare),
            Event::Inspect { inspect, done } => {
                let path = self.paths.values().next();
                done(path.is_some_and(|jobs| jobs.send(Send::Inspect(inspect)).is_ok()));
            }
            Event::Ask { question, done } => {
                let path = self.paths.values().next();
                done(path.is_some_and(|jobs| jobs.send(question).is_ok()));
            }
            Event::OweAgain { map, done } => {
                inputs.push(Input::OweAgain { map });
                done();
            }
            Event::BeginSegment { first, done } => done(self.journal.begin_segment(first)),
            Event::Seed { seed, done } => self.take_seed(seed, inputs, done),
            Event::Owed { within, done } => done(self.primary.owed_runs(within)),
            Event::Look { done } => done(self.view()),
            Event::Stop => {}
        }
    }

    fn take_seed(
        &mut self,
        seed: Option<state::Seed>,
        inputs: &mut Vec<Input>,
        done: Box<dyn FnOnce(Result<(), StoreError>) + std::marker::Send>,
    ) {
        let before = std::mem::replace(&mut self.state.seed, seed);
        if let Err(error) = self.state.save(&self.directory) {
            self.state.seed = before;
            return done(Err(error));
        }
        match self.state.seed.as_ref().map(|seed| seed.shipped) {
            None => inputs.push(Input::SeedLost),
            Some(Some(through)) => self.primary.await_seed(through),
            Some(None) => {}
        }
        done(Ok(()));
    }

    fn serve_comparisons(&mut self) {
        for compare in std::mem::take(&mut self.comparisons) {
            match compare {
                Compare::Begin { within, done } => done(self.primary.begin_comparison(within)),
                Compare::End { within, done } => done(self.primary.end_comparison(within)),
            }
        }
    }

    /// Takes a request that there is room for, or refuses it.
    fn take_write(&mut self, event: Event, inputs: &mut Vec<Input>) {
        self.place(event, inputs);
        self.intake.placed();
    }

    fn place(&mut self, event: Event, inputs: &mut Vec<Input>) {
        let event = self.without_ragged_zeroes(event);
        let ticket = self.ticket();
        let (what, extent, fua, reply) = match event {
            Event::Write { offset, data, fua, reply } => match self.whole_blocks(offset, data) {
                Ok((extent, data)) => {
                    self.withhold(extent);
                    self.buffer.write(ticket, extent.first(), &data);
                    self.writes.insert(ticket, data);
                    (What::Data, extent, fua, reply)
                }
                Err(error) => return reply.done(Err(errno_of(&error))),
            },
            Event::Zero { offset, len, fua, what, reply } => match self.zero_extent(offset, len, what, inputs) {
                Ok(Some(extent)) => {
                    self.withhold(extent);
                    self.buffer.zero(ticket, extent);
                    (what, extent, fua, reply)
                }
                Ok(None) => return reply.done(Ok(Answer::Done)),
                Err(error) => return reply.done(Err(errno_of(&error))),
            },
            Event::Placed { .. }
            | Event::CopyRead { .. }
            | Event::Flush { .. }
            | Event::Synced(_)
            | Event::Destaged { .. }
            | Event::HomeSynced { .. }
            | Event::Attaching { .. }
            | Event::Welcomed { .. }
            | Event::PathLost { .. }
            | Event::Differs(_)
            | Event::HandedOver { .. }
            | Event::DoorClosed
            | Event::Acked { .. }
            | Event::KeyRefused { .. }
            | Event::Fenced { .. }
            | Event::EpochPrepared(_)
            | Event::EpochEscrowed { .. }
            | Event::SlotsPlanned(_)
            | Event::EpochFailed { .. }
            | Event::PolicyDecided(_)
            | Event::SwapPolicy(_)
            | Event::OpenCut { .. }
            | Event::ReleaseCut { .. }
            | Event::ConfirmCut { .. }
            | Event::Operator { .. }
            | Event::Compare(_)
            | Event::Inspect { .. }
            | Event::Ask { .. }
            | Event::OweAgain { .. }
            | Event::BeginSegment { .. }
            | Event::Seed { .. }
            | Event::Owed { .. }
            | Event::Look { .. }
            | Event::Stop => return,
        };
        self.replies.insert(ticket, reply);
        self.hear(ticket, what, extent, fua, inputs);
    }

    /// Before readers can see it.
    fn withhold(&self, extent: Extent) {
        if self.holding {
            self.intake.withhold(extent);
        }
    }

    /// Core is told of a write that has its place in the data buffer.
    fn hear(&mut self, ticket: Ticket, what: What, extent: Extent, fua: bool, inputs: &mut Vec<Input>) {
        self.heard = self.heard.max(ticket);
        inputs.push(Input::Write { ticket, what, extent, fua });
    }

    fn serve_backlog(&mut self) {
        let mut inputs = Vec::new();
        loop {
            match (self.backlog.front(), self.primary.room()) {
                (None, _) | (Some(Event::Write { .. } | Event::Zero { .. }), Room::Wait) => break,
                (Some(Event::Write { .. } | Event::Zero { .. }), room @ (Room::Full | Room::Failed | Room::Fenced)) => {
                    let errno = match room {
                        Room::Full => Errno::NoSpc,
                        Room::Fenced => Errno::Shutdown,
                        Room::Open | Room::Wait | Room::Failed => Errno::Io,
                    };
                    if let Some(Event::Write { reply, .. } | Event::Zero { reply, .. }) = self.backlog.pop_front() {
                        reply.done(Err(errno));
                        self.intake.placed();
                    }
                    continue;
                }
                (Some(_), _) => {}
            }
            let Some(event) = self.backlog.pop_front() else { break };
            if let Event::Flush { reply } = event {
                let ticket = self.ticket();
                self.replies.insert(ticket, reply);
                inputs.push(Input::Flush { ticket });
            } else {
                self.take_write(event, &mut inputs);
            }
            self.primary.handle_all(self.clock.now(), std::mem::take(&mut inputs));
            self.carry_out();
        }
    }

    /// The write as whole blocks: the rest of its first and last block is read and put around it.
    fn whole_blocks(&self, offset: u64, data: Bytes) -> Result<(Extent, Bytes), StoreError> {
        let block = self.settings.block_bytes.as_u64();
        let (first, end) = (offset / block, (offset + wide(data.len())).div_ceil(block));
        let extent = self.extent(first, end)?;
        if offset.is_multiple_of(block) && wide(data.len()).is_multiple_of(block) {
            return Ok((extent, data));
        }
        let mut whole = self.read_blocks(extent)?;
        let at = usize::try_from(offset - first * block).unwrap_or(usize::MAX);
        if let Some(part) = whole.get_mut(at..at + data.len()) {
            part.copy_from_slice(&data);
        }
        Ok((extent, Bytes::from(whole)))
    }

    /// Zeroes that cover no whole block are an ordinary write: its answer waits for what it did.
    fn without_ragged_zeroes(&self, event: Event) -> Event {
        if let Event::Zero { offset, len, fua, what: What::Data | What::Zero, reply } = event {
            if self.has_no_whole_block(offset, len) {
                let data = Bytes::from(vec![0; usize::try_from(len).unwrap_or(0)]);
                return Event::Write { offset, data, fua, reply };
            }
            return Event::Zero { offset, len, fua, what: What::Zero, reply };
        }
        event
    }

    fn has_no_whole_block(&self, offset: u64, len: u64) -> bool {
        let block = self.settings.block_bytes.as_u64();
        len > 0 && offset.div_ceil(block) >= (offset + len) / block
    }

    /// The whole blocks of a run of zeroes. Its ragged ends become ordinary writes; a trim's are left alone, as it
    /// promises nothing.
    fn zero_extent(
        &mut self,
        offset: u64,
        len: u64,
        what: What,
        inputs: &mut Vec<Input>,
    ) -> Result<Option<Extent>, StoreError> {
        let block = self.settings.block_bytes.as_u64();
        let end = offset + len;
        let (first_whole, end_whole) = (offset.div_ceil(block), end / block);
        if what != What::Trim {
            let ends = if first_whole > end_whole {
                vec![(offset, len)]
            } else {
                vec![(offset, first_whole * block - offset), (end_whole * block, end - end_whole * block)]
            };
            for (at, len) in ends.into_iter().filter(|(_, len)| *len > 0) {
                let zeroes = Bytes::from(vec![0; usize::try_from(len).unwrap_or(0)]);
                let (extent, data) = self.whole_blocks(at, zeroes)?;
                let ticket = self.ticket();
                self.withhold(extent);
                self.buffer.write(ticket, extent.first(), &data);
                self.writes.insert(ticket, data);
                self.hear(ticket, What::Data, extent, false, inputs);
            }
        }
        (first_whole < end_whole).then(|| self.extent(first_whole, end_whole)).transpose()
    }

    fn extent(&self, first: u64, end: u64) -> Result<Extent, StoreError> {
        Extent::new(Lba(first), BlockCount(end - first)).ok_or_else(|| {
            StoreError::io(&self.directory, "place a request", std::io::Error::from(std::io::ErrorKind::InvalidInput))
        })
    }

    /// The blocks as an initiator would read them now.
    fn read_blocks(&self, extent: Extent) -> Result<Vec<u8>, StoreError> {
        let size = usize::try_from(extent.blocks().byte_len(self.settings.block_bytes).0).unwrap_or(usize::MAX);
        let mut whole = vec![0; size];
        crate::volume::read_through(&self.buffer, &*self.home, self.settings.block_bytes, extent, &mut whole)?;
        Ok(whole)
    }

    fn carry_out(&mut self) {
        let mut batch = Batch::default();
        while let Some(output) = self.primary.poll_output() {
            self.carry_out_one(output, &mut batch);
        }
    }

    fn carry_out_one(&mut self, output: Output, batch: &mut Batch) {
        match output {
            Output::Reply { ticket, result } => {
                if let Some(reply) = self.replies.remove(&ticket) {
                    reply.done_in(
                        batch,
                        result.map(|()| Answer::Done).map_err(|error| match error {
                            ReplyError::NoSpace => Errno::NoSpc,
                            ReplyError::Io => Errno::Io,
                            ReplyError::Fenced => Errno::Shutdown,
                        }),
                    );
                }
            }
            Output::Commit { records, durable, restart } => {
                // Initiators that were answered need not wait for the sealing.
                drop(std::mem::take(batch));
                self.commits.push_back(Commit::Planned(commit::Plan { records, durable, restart }));
                if !self.stalled {
                    self.run_commits();
                }
            }
            Output::RetryCommit => self.run_commits(),
            Output::SyncJournal => drop(self.syncer.send(())),
            Output::Destage { through } => {
                let ready = self.destage_queue.partition_point(|write| write.sequence <= through);
                let writes = self.destage_queue.drain(..ready).collect();
                let _ = self.destager.send(destage::Job::Destage { writes, through });
            }
            Output::SyncHome => {
                let through = self.primary.status().destaged;
                let _ = self.destager.send(destage::Job::Sync { through });
            }
            Output::TrimJournal { through } => {
                let trimmed = self.journal.trim(through);
                if let Err(error) = trimmed {
                    self.note_fault("trim the journal", &error);
                }
                let bytes = self.journal.bytes();
                self.primary.handle(self.clock.now(), Input::JournalBytes { bytes });
            }
            Output::ReadForCopy { extent, at_once: false } => drop(self.reader.send(extent)),
            Output::ReadForCopy { extent, at_once: true } => self.read_at_once(extent),
            Output::DiscardCopy { ticket } => {
                self.copies.remove(&ticket);
                self.writes.remove(&ticket);
            }
            Output::PersistOwed { stamp, acked, acked_chain } => {
                self.state.acked = acked;
                self.state.acked_chain = acked_chain;
                let saved = self
                    .primary
                    .encode_owed()
                    .map_or(Ok(()), |bytes| state::save_owed(&self.directory, &bytes))
                    .and_then(|()| self.state.save(&self.directory));
                let input = match saved {
                    Ok(()) => Input::OwedPersisted { stamp },
                    Err(error) => {
                        self.note_fault("save the dirty map", &error);
                        Input::OwedPersistFailed { stamp }
                    }
                };
                self.primary.handle(self.clock.now(), input);
            }
            Output::DropOwed => {
                if let Err(error) = state::drop_owed(&self.directory) {
                    self.note_fault("remove the dirty map", &error);
                }
            }
            Output::Send { path, range, slots } => self.send(path, range, slots),
            Output::CarryKey { number, planned } => self.carry(number, &planned),
            Output::ClosePath { path } => {
                if let Some(jobs) = self.paths.remove(&path) {
                    let _ = jobs.send(Send::Close);
                }
            }
            Output::PrepareEpoch { epoch, how, by } => {
                let (word, reason) = match by {
                    Wish::Policy(id) => (RotationWord::Policy, self.plugins.journal.reason(id)),
                    Wish::Operator => (RotationWord::Operator, self.keybook.take_wish()),
                    Wish::FirstKey => (RotationWord::FirstKey, None),
                    Wish::HostLimit => (RotationWord::HostLimit, None),
                    Wish::CatchUp => (RotationWord::CatchUp, None),
                };
                self.keybook.begun(epoch, how, word, reason, self.clock.now().wall);
                let recent = self.outbox.recent();
                self.keywork.prepare(epoch, how, recent, self.clock.now().instant);
            }
            Output::DiscardEpoch { epoch } => {
                self.keybook.void(epoch, self.clock.now().wall);
                self.committer.discard(epoch);
                if let Err(error) = self.keyring.discard(epoch) {
                    tracing::warn!(pair = self.name, %error, "an epoch's package could not be removed");
                }
            }
            Output::EpochInForce { epoch } => {
                let start = self.keyring.terms(epoch).map_or(Sequence::NONE, |terms| Sequence(terms.start_seq));
                self.keybook.in_force(epoch, start, &self.primary.keys(), self.clock.now().wall);
                self.committer.in_force(epoch);
                tracing::info!(pair = self.name, "the key has changed");
            }
            Output::PlanSlots => self.keywork.plan_slots(self.outbox.recent()),
            Output::ShamInForce => {
                self.committer.as_in_force();
                let (keys, limits) = (self.primary.keys(), self.primary.key_limits());
                self.policy.rehearse(self.clock.now(), keys, limits, self.primary.link_up());
            }
            Output::AskPolicy { event } => self.policy.ask(
                self.clock.now(),
                event,
                self.primary.keys(),
                self.primary.key_limits(),
                self.primary.link_up(),
            ),
            Output::RotationRefused(refused) => {
                if let Some(done) = self.operators.pop_front() {
                    done(Err(refused));
                }
            }
            Output::PersistFence { generation } => {
                self.state.fenced = Some(generation);
                self.save_state();
            }
            Output::PersistHandOver { hand_over } => {
                self.state.handing_over = Some(hand_over);
                let input = match self.state.save(&self.directory) {
                    Ok(()) => Input::HandOverPersisted,
                    Err(error) => {
                        self.note_fault("keep that this site hands over", &error);
                        self.state.handing_over = None;
                        self.save_state();
                        Input::HandOverPersistFailed
                    }
                };
                self.primary.handle(self.clock.now(), input);
            }
            Output::SendHandOver { path, hand_over } => {
                if let Some(jobs) = self.paths.get(&path) {
                    let _ = jobs.send(Send::HandOver(hand_over));
                }
            }
            Output::HandedOver { hand_over } => (self.handed_over)(hand_over),
            Output::SeedArrived => {
                self.state.seed = None;
                self.save_state();
                tracing::info!(pair = self.name, "the remote has the seed");
            }
            Output::PersistMode { mode } => {
                // Before the operator hears of it.
                self.intake.set_answering(self.primary.answers_at_once());
                self.state.chosen = Some(state::ChosenMode { mode, instead_of: self.settings.mode });
                self.save_state();
            }
            Output::PersistWay { way } => {
                self.state.way = Some(state::Instead { chosen: way, instead_of: self.settings.flow.way });
                self.save_state();
                self.wanted_paths.send_replace(way.paths);
            }
            Output::PersistLimits { limits } => {
                self.state.limits = Some(state::Instead { chosen: limits, instead_of: self.settings.flow.limits });
                self.save_state();
            }
            Output::PersistPause { paused } => {
                self.state.paused = paused;
                self.save_state();
            }
            Output::Alarm(alarm) => tracing::warn!(pair = self.name, "{alarm}"),
        }
        // An operator's command that was not refused is under way.
        if self.primary.is_drained() {
            for done in self.operators.drain(..) {
                done(Ok(()));
            }
        }
    }

    /// Seals and appends commits in their order; the first that fails holds the others back, and is tried again as it
    /// is: what was sealed once is never sealed again.
    fn run_commits(&mut self) {
        while let Some(commit) = self.commits.pop_front() {
            let sealed = match commit {
                Commit::Sealed(sealed) => sealed,
                Commit::Planned(plan) => match self.committer.seal(&self.clock, &plan, &self.writes) {
                    Ok(sealed) => sealed,
                    Err(fault) => {
                        tracing::error!(pair = self.name, %fault, "nothing can be sealed");
                        self.last_seal_fault = Some(fault.to_string());
                        return self.stall(Commit::Planned(plan), StoreFault::Unsealed);
                    }
                },
            };
            let (chain, restart, wall) = (sealed.chain_before, sealed.restart, self.clock.now().wall);
            if let Err(error) = self.journal.append(sealed.header, &sealed.records, chain, restart, wall) {
                self.note_fault("append to the journal", &error);
                return self.stall(Commit::Sealed(sealed), error.fault());
            }
            self.stalled = false;
            self.last_seal_fault = None;
            for (planned, record) in sealed.planned.iter().zip(&sealed.records) {
                self.outbox.push(planned.sequence, record.clone(), self.clock.now().instant);
                let copied = matches!(planned.source, Source::Buffer { ticket, .. } if self.copies.contains(&ticket));
                if let (Kind::Zero, Source::Buffer { ticket, .. }) = (planned.kind, planned.source) {
                    // Of zeroes nothing is kept that could be finished.
                    self.copies.remove(&ticket);
                }
                if !copied {
                    self.destage_queue.extend(destage::Write::of(planned, &self.writes, self.settings.block_bytes));
                }
            }
            for ticket in sealed.finished {
                self.writes.remove(&ticket);
                self.copies.remove(&ticket);
            }
            self.primary.handle(self.clock.now(), Input::Committed { digests: sealed.digests });
        }
    }

    fn stall(&mut self, commit: Commit, fault: StoreFault) {
        self.stalled = true;
        self.commits.push_front(commit);
        self.primary.handle(self.clock.now(), Input::CommitFailed { fault });
    }

    /// Sends a component once over a path, before the records that need it.
    fn ship(&mut self, path: Path, digest: Digest) {
        let (Some(jobs), Some(shipped)) = (self.paths.get(&path), self.shipped.get_mut(&path)) else { return };
        if !shipped.insert(digest) {
            return;
        }
        match self.plugins.components.load(digest) {
            Ok(bytes) => drop(jobs.send(Send::Component(digest, bytes))),
            Err(error) => tracing::error!(pair = self.name, %error, "a component cannot be sent to the other site"),
        }
    }

    /// Builds a key record that goes in the slots of others. Without it, it goes as it is when it stands.
    fn carry(&mut self, number: CarriageNumber, planned: &Planned) {
        self.carriage = None;
        match self.committer.carry(&self.clock, planned) {
            Ok(record) => match Carriage::new(number, record) {
                Ok(carriage) => self.carriage = Some(Arc::new(carriage)),
                Err(error) => tracing::error!(pair = self.name, %error, "a key cannot be carried"),
            },
            Err(error) => tracing::error!(pair = self.name, %error, "a key cannot be carried"),
        }
    }

    /// Sends a run with what its slots say.
    fn send(&mut self, path: Path, range: Range, slots: Slots) {
        let carriage = |number| self.carriage.as_ref().filter(|carriage| carriage.number() == number).map(Arc::clone);
        let told = match slots {
            Slots::Idle => Told::Nothing,
            Slots::Pieces { number, first } => {
                carriage(number).map_or(Told::Nothing, |carriage| Told::Pieces(carriage, first))
            }
            Slots::Stands { number, key } => match carriage(number) {
                Some(carriage) => Told::Stands(carriage),
                None => {
                    self.send_run(path, Range { first: key, last: key }, Told::Nothing);
                    Told::Nothing
                }
            },
        };
        self.send_run(path, range, told);
    }

    /// From memory where the records are there still, else from the journal.
    fn send_run(&mut self, path: Path, range: Range, told: Told) {
        for digest in self.plugins.for_the_other_site().into_iter().flatten() {
            self.ship(path, digest);
        }
        let Some(jobs) = self.paths.get(&path) else { return };
        let records = match self.outbox.records(range) {
            Some(records) => Ok(records),
            None => self.journal_reader.read(range),
        };
        match records {
            Ok(records) => drop(jobs.send(Send::Records(records, told))),
            Err(error) => {
                self.note_fault("read the journal for the link", &error);
                let _ = jobs.send(Send::Close);
            }
        }
    }

    /// Before the next write is taken in. What a connection has placed meanwhile must not be in the copy, which has its
    /// place in front of it.
    fn read_at_once(&mut self, extent: Extent) {
        let read = self.read_blocks(extent).map(|bytes| Some(Bytes::from(bytes)));
        if self.buffer.newest(extent) > Some(self.heard) {
            return self.early_copies.push(extent);
        }
        let input = self.copy_read(extent, read);
        self.primary.handle(self.clock.now(), input);
    }

    fn copy_read(&mut self, extent: Extent, read: reader::ReadForCopy) -> Input {
        match read {
            Ok(bytes) => {
                let ticket = self.ticket();
                let what = if bytes.is_some() { What::Data } else { What::Zero };
                self.writes.extend(bytes.map(|bytes| (ticket, bytes)));
                self.copies.insert(ticket);
                Input::CopyRead { ticket, what, extent }
            }
            Err(error) => {
                self.note_fault("read for the copy", &error);
                Input::CopyReadFailed { extent }
            }
        }
    }

    fn save_state(&mut self) {
        if let Err(error) = self.state.save(&self.directory) {
            self.note_fault("save the lane's state", &error);
        }
    }

    fn view(&self) -> LaneView {
        let status = self.primary.status();
        LaneView {
            rotation_due: status.wake_at,
            status,
            keys: self.primary.keys(),
            limits: self.primary.key_limits(),
            journal_bytes: self.journal.bytes().0,
            flow: self.primary.flow(self.clock.now()),
            last_seal_fault: self.last_seal_fault.clone(),
            seed: self.state.seed.clone(),
        }
    }

    fn note_fault(&self, doing: &str, error: &StoreError) {
        tracing::error!(pair = self.name, %error, "could not {doing}");
    }

    fn ticket(&self) -> Ticket {
        self.intake.ticket()
    }
}

/// What an initiator is told of a store's failure.
pub(crate) fn errno_of(error: &StoreError) -> Errno {
    match (error, error.fault()) {
        (StoreError::Refused, _) => Errno::Perm,
        (_, StoreFault::Full) => Errno::NoSpc,
        (_, StoreFault::Failed | StoreFault::Unsealed) => Errno::Io,
    }
}

fn wide(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}
