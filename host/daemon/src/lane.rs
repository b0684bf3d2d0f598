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

use std::path::{Path as FilePath, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use bytes::Bytes;
use farseal_core::frame::{Ack, Differs, HandOver, KeyRefusal, Welcome};
use farseal_core::group::CutName;
use farseal_core::inspect::Inspect;
use farseal_core::layout::Layout;
use farseal_core::owed::OwedMap;
use farseal_core::primary::{Begun, Command, FlowStatus, Settings, Status, StoreFault, What};
use farseal_core::rotation::{KeyLimits, KeyUse, Refused};
use farseal_core::schedule;
use farseal_core::units::{CutNumber, Epoch, Extent, Generation, Incarnation, Path, Sequence, Ticket};
use farseal_plugin::Digest;
use tokio::sync::{OwnedSemaphorePermit, watch};

use crate::clock::Clock;
use crate::keyring::Keyring;
use crate::keys::card::PeerCard;
use crate::keys::deposit::Receipt;
use crate::keys::descriptor::Role;
use crate::keys::identity::Identity;
use crate::link::dial::Send;
use crate::nbd::completion::Reply;
use crate::nbd::export::Errno;
use crate::plugins::PairPlugins;
use crate::store::StoreError;
use crate::store::home::Home;
use crate::store::journal::{Begins, JournalReader};

pub mod buffer;
pub mod commit;
pub mod deposits;
pub mod destage;
pub mod intake;
pub mod keybook;
pub mod keywork;
pub mod looks;
pub mod outbox;
pub mod pacer;
pub mod policy_journal;
pub mod policywork;
pub mod reader;
pub mod recover;
mod runner;
pub mod state;

use buffer::Buffer;
use intake::Intake;
use keybook::KeyBook;
use keywork::KeyWork;
use pacer::Pacer;
use policywork::PolicySwap;
use runner::Runner;

/// Something for the lane's thread.
pub enum Event {
    Request(Request),
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
    /// What the peer said; the permit bounds how much of it waits.
    Said(Box<Self>, OwnedSemaphorePermit),
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

/// What an initiator asks for and the lane's thread does.
pub enum Request {
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
    Flush {
        reply: Reply,
    },
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
    /// Of which `settings.layout` is the mark.
    pub layout: Option<Layout>,
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

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Request")
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
        let keybook = Arc::new(KeyBook::open(parts.name.clone(), &parts.directory)?);
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

/// What an initiator is told of a store's failure.
pub(crate) fn errno_of(error: &StoreError) -> Errno {
    match (error, error.fault()) {
        (StoreError::Refused, _) => Errno::Perm,
        (_, StoreFault::Full) => Errno::NoSpc,
        (_, StoreFault::Failed | StoreFault::Unsealed) => Errno::Io,
    }
}
