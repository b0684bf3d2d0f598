//! Exporting a seed: a secondary of its own, in this node, that the lane copies to instead of over the link.
//!
//! Two threads carry what a path would: the lane's records to the replica, the replica's answers to the lane. A third
//! looks whether the first copy is closed; then the replica stops, its files are digested, and the manifest ends it.

use std::path::{Path as FilePath, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use farseal_core::frame::Frame;
use farseal_core::primary::CopyState;
use farseal_core::secondary::Settings as ReplicaSettings;
use farseal_core::units::{Path, Sequence, WallTime};
use farseal_plugin::Digest;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::manifest::{Body, COPY, Manifest};
use crate::clock::Clock;
use crate::keyring::{Keyring, KeyringError};
use crate::keys::identity::Identity;
use crate::lane::{Event as LaneEvent, Lane};
use crate::link::dial::Send;
use crate::link::listen::{Answer, Came};
use crate::link::slots::Told;
use crate::plugins::PairPlugins;
use crate::replica::{self, Event as ReplicaEvent, Replica, StartError};
use crate::retired::Retired;
use crate::role::{Control, ControlError};
use crate::store::{StoreError, files};

/// How often it looks whether the first copy is closed.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Between two attempts after the replica closed the path: its disk was full, or a key was refused.
const ATTACH_AGAIN: Duration = Duration::from_secs(1);
/// Bytes on their way to the replica at most.
const WAITING_BYTES_MAX: u32 = 64 << 20;
/// The one path.
const PATH: Path = Path(0);

/// What an export is made of.
pub struct Parts {
    pub name: String,
    /// The seed's folder.
    pub directory: PathBuf,
    /// Of this seed and no other.
    pub id: String,
    pub lane: Arc<Lane>,
    pub plugins: Arc<PairPlugins>,
    pub identity: Arc<Identity>,
    pub clock: Clock,
    /// Called once, when the seed is whole, with the record up to which it goes.
    pub done: Box<dyn FnOnce(Sequence) + std::marker::Send>,
}

/// An export that runs.
#[derive(Debug)]
pub struct Export {
    stop: Arc<AtomicBool>,
    trouble: Arc<Mutex<Option<String>>>,
    thread: Option<JoinHandle<()>>,
}

/// Why an export cannot begin, or cannot end.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    #[error(transparent)]
    Replica(#[from] StartError),
    #[error("{}: another seed's manifest lies there: name an empty folder", .0.display())]
    OtherSeed(PathBuf),
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("name", &self.name).field("directory", &self.directory).finish_non_exhaustive()
    }
}

impl Export {
    /// Begins an export, or goes on with one that a restart interrupted.
    pub fn start(parts: Parts) -> Result<Self, ExportError> {
        let (stop, trouble): (Arc<AtomicBool>, Arc<Mutex<Option<String>>>) = Default::default();
        let mut export = Self { stop: Arc::clone(&stop), trouble: Arc::clone(&trouble), thread: None };
        match Manifest::load(&parts.directory) {
            // The end of the last run came between the manifest and the lane's word.
            Ok(whole) if whole.seed.id == parts.id => {
                (parts.done)(whole.seed.through);
                return Ok(export);
            }
            Ok(_) => return Err(ExportError::OtherSeed(parts.directory)),
            Err(super::manifest::SeedError::NoManifest(_)) => {}
            Err(_) => return Err(ExportError::OtherSeed(parts.directory)),
        }
        let replica = start_replica(&parts)?;
        export.thread = Some(std::thread::spawn(move || Runner { parts, replica, stop, trouble }.run()));
        Ok(export)
    }

    /// Ends it; what was written stays, and the same export may go on later.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }

    /// Ends it, and waits until the lane has lost its path.
    pub fn end(self) {
        self.stop();
        if let Some(thread) = self.thread {
            let _ = thread.join();
        }
    }

    /// Why it does not get on.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn start_replica(parts: &Parts) -> Result<Arc<Replica>, ExportError> {
    let copy = parts.directory.join(COPY);
    files::create_private_dir(&copy)?;
    let settings = &parts.lane.settings;
    let own = parts.identity.card().clone();
    let keyring = Keyring::open(&copy.join("epochs"), settings.pair, Arc::clone(&parts.identity), own)?;
    let replica = Replica::start(replica::Parts {
        name: format!("{} (seed)", parts.name),
        pair_directory: copy.clone(),
        control: Control::load(&copy)?,
        retired: Retired::default(),
        directory: copy,
        settings: ReplicaSettings {
            layout: settings.layout,
            pair: settings.pair,
            volume: settings.volume,
            encrypted: settings.encrypted,
            block_bytes: settings.block_bytes,
            blocks: settings.blocks,
        },
        keyring: Arc::new(keyring),
        plugins: Arc::clone(&parts.plugins),
        clock: parts.clock,
        terms: None,
        base: None,
        grouped: false,
        with_escrow: false,
        word: Box::new(|| false),
        cuts: Box::new(|_| {}),
        // Nobody asks this replica to take over.
        taken_over: Box::new(|_| {}),
    })?;
    Ok(Arc::new(replica))
}

struct Runner {
    parts: Parts,
    replica: Arc<Replica>,
    stop: Arc<AtomicBool>,
    trouble: Arc<Mutex<Option<String>>>,
}

impl Runner {
    fn run(self) {
        while !self.stop.load(Ordering::Acquire) {
            match self.serve() {
                Served::Whole(through) => return self.finish(through),
                Served::Closed(why) => {
                    *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
                    std::thread::sleep(ATTACH_AGAIN);
                }
                Served::Over => break,
            }
        }
        self.replica.stop();
    }

    /// Carries records and answers until the copy is closed, or the path is.
    fn serve(&self) -> Served {
        let (lane, replica) = (&self.parts.lane, &self.replica);
        let (answers, answered) = unbounded_channel();
        let _ = lane.inbox.send(LaneEvent::Attaching { path: PATH });
        let came = Came::Attach(lane.settings.attach(PATH.0, 1), None, None, answers);
        let _ = replica.inbox.send(ReplicaEvent::Came { path: PATH, came });
        let (ended, end) = channel();
        let carrier = Carrier { lane: Arc::clone(lane), replica: Arc::clone(replica) };
        std::thread::spawn(move || _ = ended.send(carrier.answers(answered)));
        let served = loop {
            if let Ok(why) = end.recv_timeout(LOOK_EVERY) {
                break Served::Closed(why);
            }
            if self.stop.load(Ordering::Acquire) {
                break Served::Over;
            }
            match self.whole() {
                Ok(Some(through)) => break Served::Whole(through),
                Ok(None) => {}
                Err(Gone) => break Served::Over,
            }
        };
        let _ = lane.inbox.send(LaneEvent::PathLost { path: PATH });
        let _ = replica.inbox.send(ReplicaEvent::Came { path: PATH, came: Came::Lost });
        served
    }

    /// The last record that the folder holds durably, once the first copy is closed.
    fn whole(&self) -> Result<Option<Sequence>, Gone> {
        let (done, view) = channel();
        let look = LaneEvent::Look { done: Box::new(move |view| _ = done.send(view)) };
        self.parts.lane.inbox.send(look).map_err(|_| Gone)?;
        let status = view.recv().map_err(|_| Gone)?.status;
        let whole = status.copy == CopyState::InOrder && status.link_paths > 0 && status.acked > Sequence::NONE;
        Ok(whole.then_some(status.acked))
    }

    fn finish(self, through: Sequence) {
        self.replica.stop();
        let Self { parts, trouble, .. } = self;
        let made = parts.clock.now().wall;
        match close(&parts, through, made) {
            Ok(()) => {
                *trouble.lock().unwrap_or_else(PoisonError::into_inner) = None;
                tracing::info!(pair = parts.name, directory = %parts.directory.display(), "the seed is whole");
                (parts.done)(through);
            }
            Err(error) => {
                tracing::error!(pair = parts.name, %error, "the seed could not be closed");
                let text = format!("the seed could not be closed: {error}; mend the cause and restart the node");
                *trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
            }
        }
    }
}

/// Digests what the replica left, and signs it.
fn close(parts: &Parts, through: Sequence, made: WallTime) -> Result<(), ExportError> {
    let settings = &parts.lane.settings;
    let body = Body {
        format: 1,
        id: parts.id.clone(),
        pair: settings.pair,
        name: parts.name.clone(),
        volume: settings.volume,
        blocks: settings.blocks,
        block_bytes: settings.block_bytes,
        encrypted: settings.encrypted,
        generation: settings.generation,
        through,
        made,
        files: Vec::new(),
    };
    let manifest = Manifest::of(body, &parts.directory, &parts.identity)?;
    sync_folders(&parts.directory.join(COPY))?;
    Ok(manifest.save(&parts.directory)?)
}

fn sync_folders(directory: &FilePath) -> Result<(), StoreError> {
    let failed = |source| StoreError::io(directory, "list the folder", source);
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_type().map_err(failed)?.is_dir() {
            sync_folders(&entry.path())?;
        }
    }
    files::sync_dir(directory)
}

enum Served {
    Whole(Sequence),
    Closed(String),
    /// It was stopped, or the lane was.
    Over,
}

/// The lane has stopped.
struct Gone;

/// What a path of the link does, between two threads of one node.
struct Carrier {
    lane: Arc<Lane>,
    replica: Arc<Replica>,
}

impl Carrier {
    /// Hands the replica's answers to the lane, until there are no more; says why.
    fn answers(self, mut answers: UnboundedReceiver<Answer>) -> String {
        let tell = |event| _ = self.lane.inbox.send(event);
        let mut components = Vec::new();
        while let Some(answer) = answers.blocking_recv() {
            match answer {
                // Both are this node, which keeps them once; the remote gets them when the link is up.
                Answer::Frame(Frame::Component(part)) => components.push(Digest(part.digest)),
                Answer::Frame(Frame::Welcome(welcome)) => {
                    let (jobs, components) = (self.records(), std::mem::take(&mut components));
                    tell(LaneEvent::Welcomed { path: PATH, welcome, components, jobs });
                }
                Answer::Frame(Frame::Ack(ack)) => tell(LaneEvent::Acked { path: PATH, ack }),
                Answer::Frame(Frame::KeyRefused { key, why }) => tell(LaneEvent::KeyRefused { key, why }),
                Answer::Refuse(refusal) => return format!("the seed's folder refused the pair: {refusal}"),
                Answer::Frame(_) | Answer::Held { .. } | Answer::Close => break,
            }
        }
        "the seed's folder takes nothing now: see the node's log".into()
    }

    /// Hands the lane's records to the replica, no more at once than fits memory.
    fn records(&self) -> UnboundedSender<Send> {
        let (jobs, mut queue) = unbounded_channel();
        let replica = Arc::clone(&self.replica);
        let waiting = Arc::new(Semaphore::new(usize::try_from(WAITING_BYTES_MAX).unwrap_or(usize::MAX)));
        std::thread::spawn(move || {
            // Outside of any runtime; the window bounds how long a wait for room takes.
            let Ok(runtime) = tokio::runtime::Builder::new_current_thread().build() else { return };
            while let Some(job) = queue.blocking_recv() {
                let bytes = match job {
                    // There are no slots in a folder.
                    Send::Records(records, Told::Stands(key)) => [key.record(), &records.concat()].concat(),
                    Send::Records(records, Told::Nothing | Told::Pieces(..)) => records.concat(),
                    Send::Component(..) => continue,
                    Send::HandOver(_)
                    | Send::Inspect(_)
                    | Send::AskLive(_)
                    | Send::AskDrill(_)
                    | Send::AskOld(_)
                    | Send::AskRetire(_)
                    | Send::Declare(_)
                    | Send::Close => break,
                };
                let size = u32::try_from(bytes.len()).unwrap_or(WAITING_BYTES_MAX).min(WAITING_BYTES_MAX);
                let Ok(permit) = runtime.block_on(Arc::clone(&waiting).acquire_many_owned(size)) else { break };
                let came = Came::Records(bytes, permit);
                if replica.inbox.send(ReplicaEvent::Came { path: PATH, came }).is_err() {
                    break;
                }
            }
        });
        jobs
    }
}
