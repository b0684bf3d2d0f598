//! The secondary's driver: one thread owns a [`Secondary`], its log and its index, and carries out what it decides.
//!
//! Records are appended as they come and acknowledged when the log is durable; the index follows in their order. Keys
//! are checked on a thread of their own, and what is no more read of the log is compacted away on another ([`compact`]).
//! Nothing here opens a block: that begins with a takeover, when log, index and ledger are handed over as they are and
//! nothing is added to them any more.

mod compact;
pub(crate) mod inspect;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use farseal_core::chain::{Chain, Digest};
use farseal_core::compaction::Room;
use farseal_core::frame::{Frame, KeyRefusal};
use farseal_core::group::{KeptCuts, OfferLimit};
use farseal_core::inspect::Inspect;
use farseal_core::ledger::Ledger;
use farseal_core::lineage::Lineage;
use farseal_core::owed::OwedMap;
use farseal_core::primary::StoreFault;
use farseal_core::record::{Framed, HEADER_BYTES, Header, Kind};
use farseal_core::secondary::{Input, KeyFacts, Output, Recovered, Secondary, Settings, Status};
use farseal_core::units::{CutNumber, Epoch, Generation, Path, Sequence};
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::UnboundedSender;

use crate::clock::Clock;
use crate::keyring::Keyring;
use crate::keys::package::SealedEpoch;
use crate::link::listen::{Answer, Came};
use crate::plugins::PairPlugins;
pub use crate::role::Control;
use crate::role::ControlError;
use crate::store::home::Home;
use crate::store::index::{Index, IndexError};
use crate::store::log::{CompactError, Location, Log, LogError, LogReader, Logged};
use crate::store::{StoreError, files};

/// How many events are taken from the inbox before the log is written out.
const INBOX_BATCH: usize = 256;
/// Bytes of log between two checkpoints of the index: what a restart reads again.
const CHECKPOINT_BYTES: u64 = 256 << 20;

/// A bit for each 64 KiB of the largest volume.
const DIFFERS_BYTES_MAX: u64 = 1 << 33;

/// Something for the replica's thread.
pub enum Event {
    Came {
        path: Path,
        came: Came,
    },
    /// Everything stored when the sync was asked for is durable: so many stores.
    Synced(Result<u64, StoreError>),
    KeyChecked {
        key: Sequence,
        result: Result<KeyFacts, KeyRefusal>,
    },
    /// What of these records does anybody still read?
    Judge(compact::Judge),
    Compacted(compact::Pass),
    /// How far the pair's group lets it be offered.
    Limit(OfferLimit),
    TakeOver,
    Look {
        done: Box<dyn FnOnce(Status) + Send>,
    },
    Stop,
}

/// What opening the copy needs. Complete: the log gets no more records.
#[derive(Debug)]
pub struct HandOver {
    pub generation: Generation,
    pub through: Sequence,
    /// Where the new generation's history comes from.
    pub lineage: Lineage,
    /// The other site holds everything up to there and wants it so.
    pub planned: bool,
    /// No epoch up to here is given again.
    pub epoch_floor: Epoch,
    /// This site wrote before: the copy lies over its volume.
    pub based: bool,
    /// Where this site's own history, which goes on, differs from the one that the other site has.
    pub differs: Option<OwedMap>,
    pub index: Arc<Index>,
    pub reader: LogReader,
    pub ledger: Arc<Ledger>,
}

/// What a replica is made of.
pub struct Parts {
    pub name: String,
    /// The pair's folder, with its control information.
    pub pair_directory: PathBuf,
    /// Where the copy lies.
    pub directory: PathBuf,
    pub control: Control,
    pub settings: Settings,
    pub keyring: Arc<Keyring>,
    pub plugins: Arc<PairPlugins>,
    pub clock: Clock,
    /// What lies below the copy, at a site that wrote before.
    pub base: Option<Arc<dyn Home>>,
    /// Other pairs may be in its group: nothing new is offered before the site's lead says how far.
    pub grouped: bool,
    /// Told of the group's cuts that the copy holds, each time that they are others.
    pub cuts: Box<dyn Fn(&KeptCuts) + Send>,
    /// Called once, when this site has become the one that writes, also after a restart.
    pub taken_over: Box<dyn FnOnce(HandOver) + Send>,
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

/// A running replica.
pub struct Replica {
    pub inbox: Sender<Event>,
    pub reader: LogReader,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Why a replica cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error("the log's compacted segments: {0}")]
    Compacted(#[from] CompactError),
    #[error(
        "{}: the index is damaged, and so is the log's manifest, which says what was before the records that are left: \
         restore one of them from a copy, or copy the volume again", .0.display()
    )]
    NoState(PathBuf),
}

/// What the index's checkpoint says of the order.
#[derive(Debug, Serialize, Deserialize)]
struct Checkpoint {
    contiguous: Sequence,
    chain: Chain,
    /// Everything up to here is in the index.
    indexed: Sequence,
    ledger: Ledger,
    gap_open_after: Option<Sequence>,
    /// How far the group let it be offered.
    #[serde(default)]
    group_through: Sequence,
    #[serde(default)]
    group_cut: CutNumber,
    #[serde(default)]
    group_cuts: KeptCuts,
    /// The running hash there.
    #[serde(default)]
    gap_chain: Option<Chain>,
    /// Every record that is not in the index lies here or later; packed.
    scan_from: u64,
}

impl Checkpoint {
    /// Before the first record.
    fn of(begin: &Recovered) -> Self {
        Self {
            contiguous: begin.contiguous,
            chain: begin.chain,
            indexed: begin.contiguous,
            ledger: Ledger::default(),
            group_through: Sequence::NONE,
            group_cut: CutNumber::NONE,
            group_cuts: KeptCuts::default(),
            gap_open_after: begin.gap_open_after,
            gap_chain: Some(begin.gap_chain),
            scan_from: Location::START.pack(),
        }
    }
}

impl std::fmt::Debug for Replica {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replica").finish_non_exhaustive()
    }
}

impl Replica {
    pub fn start(parts: Parts) -> Result<Self, StartError> {
        let (inbox, events) = channel();
        let name = format!("replica-{}", parts.name);
        let runner = Runner::recover(parts, inbox.clone())?;
        let reader = runner.log.reader();
        let thread = std::thread::Builder::new()
            .name(name)
            .spawn(move || {
                let compaction = runner.run(&events);
                // What it still asks is not answered any more, and then it ends.
                drop(events);
                compaction.end();
            })
            .map_err(|source| StoreError::io(std::path::Path::new("."), "start the replica's thread", source))?;
        Ok(Self { inbox, reader, thread: Mutex::new(Some(thread)) })
    }

    pub fn stop(&self) {
        let _ = self.inbox.send(Event::Stop);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

struct Runner {
    name: String,
    pair_directory: PathBuf,
    directory: PathBuf,
    settings: Settings,
    keyring: Arc<Keyring>,
    clock: Clock,
    secondary: Secondary,
    control: Control,
    log: Log,
    index: Option<Index>,
    /// Stored and not in the index yet.
    pending: BTreeMap<Sequence, (Header, Location)>,
    indexed: Sequence,
    bytes_since_checkpoint: u64,
    /// Everything that lies before this is in the index on disk.
    kept: Location,
    compaction: compact::Compaction,
    paths: BTreeMap<Path, UnboundedSender<Answer>>,
    /// Every [`Output::Store`] so far, failed ones included.
    stores: u64,
    syncer: Sender<u64>,
    checker: Sender<(Sequence, Header, Location)>,
    inspector: Sender<inspect::Question>,
    cuts: Box<dyn Fn(&KeptCuts) + Send>,
    cuts_told: Option<u64>,
    taken_over: Option<Box<dyn FnOnce(HandOver) + Send>>,
}

impl Runner {
    fn recover(parts: Parts, inbox: Sender<Event>) -> Result<Self, StartError> {
        let directory = parts.directory;
        files::create_private_dir(&directory)?;
        let control = parts.control;
        let settings = parts.settings;
        let from_base = control.keeps.as_ref().map(|keeps| Recovered::keeper_of(&control.history(), keeps.differs));
        let begin = from_base.unwrap_or_else(Recovered::fresh);
        let (mut index, blob) = open_index(&directory, &parts.name, settings)?;
        let known = blob.and_then(|blob| serde_json::from_slice::<Checkpoint>(&blob).ok());
        let from = known.as_ref().map_or(Location::START, |known| Location::unpack(known.scan_from));
        let (log, scanned) = Log::open(&directory.join("log"), settings.pair, from)?;
        let checkpoint = match known {
            Some(known) => {
                compact::finish(&log, &mut index)?;
                known
            }
            None if log.was_compacted() => compact::index_again(&log, &scanned, &mut index, &directory)?,
            None => Checkpoint::of(&begin),
        };
        let last = control.taken_over_at.unwrap_or(Sequence(u64::MAX));
        let kept = |logged: &&Logged| logged.header.sequence <= last;
        let pending = scanned
            .iter()
            .filter(kept)
            .filter(|logged| logged.header.sequence > checkpoint.indexed)
            .map(|logged| (logged.header.sequence, (logged.header, logged.location)))
            .collect();
        let above = scanned
            .iter()
            .filter(kept)
            .filter(|logged| logged.header.sequence > checkpoint.contiguous)
            .map(|logged| (logged.header, logged.digest))
            .collect();
        // What a takeover opened is opened again, and no more.
        let (limit, group_through) = match (control.taken_over_at, parts.grouped) {
            (Some(at), _) => (OfferLimit::Cut(checkpoint.group_cut), at),
            (None, true) => (OfferLimit::Cut(checkpoint.group_cut), checkpoint.group_through),
            (None, false) => (OfferLimit::Everything, checkpoint.group_through),
        };
        let recovered = Recovered {
            generation: control.generation,
            taken_over: control.taken_over_at.is_some(),
            contiguous: checkpoint.contiguous,
            chain: checkpoint.chain,
            above,
            ledger: checkpoint.ledger,
            gap_open_after: checkpoint.gap_open_after,
            offered: Some(checkpoint.indexed),
            limit,
            group_through,
            group_cut: checkpoint.group_cut,
            cuts: checkpoint.group_cuts,
            gap_chain: checkpoint.gap_chain.unwrap_or(begin.gap_chain),
            differs_after: begin.differs_after,
        };
        let syncer = start_syncer(&log, inbox.clone());
        let compaction = compact::Compaction::new(inbox.clone());
        let inspector = inspect::start(log.reader(), parts.base, settings.block_bytes);
        let checker = start_checker(parts.name.clone(), log.reader(), Arc::clone(&parts.keyring), parts.plugins, inbox);
        Ok(Self {
            name: parts.name,
            pair_directory: parts.pair_directory,
            directory,
            settings,
            keyring: parts.keyring,
            secondary: Secondary::new(parts.clock.now(), settings, recovered),
            clock: parts.clock,
            control,
            log,
            index: Some(index),
            pending,
            indexed: checkpoint.indexed,
            bytes_since_checkpoint: 0,
            kept: from,
            compaction,
            paths: BTreeMap::new(),
            stores: 0,
            syncer,
            checker,
            inspector,
            cuts: parts.cuts,
            cuts_told: None,
            taken_over: Some(parts.taken_over),
        })
    }

    fn run(mut self, events: &Receiver<Event>) -> compact::Compaction {
        self.carry_out(&[]);
        self.tell_cuts();
        self.hand_over_when_recovered();
        self.compact(Room::Enough);
        loop {
            let timeout = self.secondary.poll_timeout().map_or(Duration::from_secs(3600), |(at, _)| {
                Duration::from_millis(at.since(self.clock.now().instant).0.max(1))
            });
            let mut next = match events.recv_timeout(timeout) {
                Ok(event) => Some(event),
                Err(RecvTimeoutError::Timeout) => {
                    self.give(Input::Tick);
                    None
                }
                Err(RecvTimeoutError::Disconnected) => break,
            };
            let mut taken = 0;
            while let Some(event) = next.take() {
                if matches!(event, Event::Stop) {
                    self.checkpoint();
                    return self.compaction;
                }
                self.take_in(event);
                taken += 1;
                if taken < INBOX_BATCH {
                    next = events.try_recv().ok();
                }
            }
            self.write_out();
            self.tell_cuts();
            self.hand_over_when_recovered();
            if self.bytes_since_checkpoint >= CHECKPOINT_BYTES {
                self.checkpoint();
                self.compact(Room::Enough);
            }
        }
        self.compaction
    }

    fn take_in(&mut self, event: Event) {
        match event {
            Event::Came { path, came: Came::Attach(attach, _, answers) } => {
                self.paths.insert(path, answers);
                self.give(Input::Attach { path, attach });
            }
            Event::Came { path, came: Came::Records(bytes, permit) } => {
                self.take_records(path, &bytes);
                drop(permit);
            }
            Event::Came { path, came: Came::HandOver(hand_over) } => {
                self.give(Input::HandOver { path, hand_over });
            }
            Event::Came { path, came: Came::Inspect(inspect, permit) } => self.inspect(path, inspect, permit),
            Event::Came { path, came: Came::Lost } => {
                self.paths.remove(&path);
                self.give(Input::PathLost { path });
            }
            Event::Synced(Ok(stored)) => self.give(Input::LogSynced { stored }),
            Event::Synced(Err(error)) => self.log_failed("sync the log", &error),
            Event::KeyChecked { key, result } => self.give(Input::KeyChecked { key, result }),
            Event::Judge(judge) => self.judge(judge),
            Event::Compacted(pass) => self.compacted(pass),
            Event::Limit(limit) => self.give(Input::Limit(limit)),
            Event::TakeOver => self.give(Input::TakeOver),
            Event::Look { done } => done(self.secondary.status()),
            Event::Stop => {}
        }
    }

    /// A question that is none of this volume, or comes before the attach, ends the path.
    fn inspect(&mut self, path: Path, inspect: Inspect, permit: OwnedSemaphorePermit) {
        let fits = inspect.fits(self.settings.blocks, self.settings.block_bytes);
        let (Some(answers), Some(index), true) = (self.paths.get(&path), &self.index, fits) else {
            return self.give(Input::Nonsense { path });
        };
        let (answers, places) = (answers.clone(), index.places(inspect.extent));
        let _ = self.inspector.send(inspect::Question { inspect, through: self.indexed, places, answers, permit });
    }

    /// Not before all of them are known: a group could be taken over at an older one than its copies hold.
    fn tell_cuts(&mut self) {
        let cuts = self.secondary.cuts();
        if self.secondary.is_recovered() && self.cuts_told != Some(cuts.revision()) {
            self.cuts_told = Some(cuts.revision());
            (self.cuts)(cuts);
        }
    }

    /// Cuts a frame into its records. What is no record ends the path; what came before it counts.
    fn take_records(&mut self, path: Path, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let Ok(framed) = Framed::decode(bytes) else { return self.give(Input::Nonsense { path }) };
            let header = framed.header;
            let Some((record, rest)) = bytes.split_at_checked(header.record_bytes()) else {
                return self.give(Input::Nonsense { path });
            };
            let body = &record[HEADER_BYTES..];
            if !framed.body_matches(body) {
                return self.give(Input::Nonsense { path });
            }
            let digest = Digest::of(&header.encode(framed.body_crc), &body[..header.tag_bytes()]);
            self.secondary.handle(self.clock.now(), Input::Record { path, header, digest });
            self.carry_out(&[(&header, record)]);
            bytes = rest;
        }
    }

    fn give(&mut self, input: Input) {
        self.secondary.handle(self.clock.now(), input);
        self.carry_out(&[]);
    }

    /// Carries outputs out in order. `came` is the record that a [`Output::Store`] speaks of.
    fn carry_out(&mut self, came: &[(&Header, &[u8])]) {
        while let Some(output) = self.secondary.poll_output() {
            match output {
                Output::Differs { path } => {
                    for differs in self.differs().differs() {
                        self.answer(path, Answer::Frame(Frame::Differs(differs)));
                    }
                }
                Output::HandedOver { path, generation } => {
                    self.answer(path, Answer::Frame(Frame::HandedOver { generation }));
                }
                Output::Welcome { path, welcome } => self.answer(path, Answer::Frame(Frame::Welcome(welcome))),
                Output::Refuse { path, refusal } => self.answer(path, Answer::Refuse(refusal)),
                Output::ClosePath { path } => self.answer(path, Answer::Close),
                Output::Ack { path, ack } => self.answer(path, Answer::Frame(Frame::Ack(ack))),
                Output::KeyRefused { path, key, why } => {
                    self.answer(path, Answer::Frame(Frame::KeyRefused { key, why }));
                }
                Output::Store { sequence } => {
                    if let Some((header, record)) = came.iter().find(|(header, _)| header.sequence == sequence) {
                        self.store(header, record);
                    }
                }
                Output::SyncLog => {
                    self.write_out();
                    let _ = self.syncer.send(self.stores);
                }
                Output::CheckKey { key } => {
                    if let Some((header, location)) = self.pending.get(&key) {
                        let _ = self.checker.send((key, *header, *location));
                    }
                }
                Output::Offer { through } => self.offer(through),
                Output::PersistGeneration { generation, taken_over } => self.persist(generation, taken_over),
                Output::TakenOver { .. } => {}
                Output::Alarm(alarm) => tracing::warn!(pair = self.name, "{alarm}"),
            }
        }
    }

    fn store(&mut self, header: &Header, record: &[u8]) {
        self.stores += 1;
        match self.log.append(record, header) {
            Ok(location) => {
                self.pending.insert(header.sequence, (*header, location));
                self.bytes_since_checkpoint += u64::try_from(record.len()).unwrap_or(0);
            }
            Err(error) => self.log_failed("append to the log", &error),
        }
    }

    /// Where the base may differ; everywhere, if that cannot be read.
    fn differs(&self) -> OwedMap {
        let (blocks, size) = (self.settings.blocks, self.settings.block_bytes);
        let bytes = files::read_if_there(&differs_path(&self.directory), DIFFERS_BYTES_MAX).ok().flatten();
        let map = bytes.and_then(|bytes| OwedMap::decode(&bytes, blocks, size).ok());
        map.unwrap_or_else(|| {
            tracing::warn!(pair = self.name, "where the base differs cannot be read: the whole volume does");
            OwedMap::full(blocks, size)
        })
    }

    fn write_out(&mut self) {
        if let Err(error) = self.log.flush() {
            self.log_failed("write the log", &error);
        }
    }

    fn log_failed(&mut self, doing: &str, error: &StoreError) {
        tracing::error!(pair = self.name, %error, "could not {doing}");
        let fault = match self.log.discard_unsynced() {
            Ok(()) => error.fault(),
            Err(_) => StoreFault::Failed,
        };
        let end = self.log.end();
        self.pending.retain(|_, (_, location)| *location < end);
        if fault == StoreFault::Full {
            self.compact(Room::None);
        }
        self.secondary.handle(self.clock.now(), Input::LogFailed { fault });
        self.carry_out(&[]);
    }

    /// The index takes in what may be offered, in order.
    fn offer(&mut self, through: Sequence) {
        let later = self.pending.split_off(&through.next());
        let ready = std::mem::replace(&mut self.pending, later);
        let Some(index) = &mut self.index else { return };
        for (header, location) in ready.values() {
            index.apply(header, *location);
        }
        self.indexed = through;
    }

    fn persist(&mut self, generation: Generation, taken_over: bool) {
        let (through, chain) = self.secondary.fork();
        let mut control = Control { generation, ..self.control.clone() };
        if taken_over {
            let base = control.keeps.as_ref().filter(|_| self.secondary.base_differs());
            // Over a base that differs the copy is not whole: what goes on is this site's own history.
            control.lineage = Some(match base {
                Some(keeps) => {
                    let kept = self.control.history();
                    Lineage { generation, start: keeps.base, start_chain: keeps.base_chain, ..kept }
                }
                None => Lineage::at(generation, through, chain),
            });
            control.taken_over_at = Some(through);
            control.planned = self.secondary.was_handed_over();
            control.epoch_floor = control.epoch_floor.max(self.keyring.newest());
        }
        match control.save(&self.pair_directory) {
            Ok(()) => {
                self.control = control;
                self.secondary.handle(self.clock.now(), Input::GenerationPersisted { generation });
            }
            Err(error) => tracing::error!(pair = self.name, %error, "the generation could not be kept"),
        }
    }

    /// After a takeover, once every key that was on its way is checked and everything offered is indexed.
    fn hand_over_when_recovered(&mut self) {
        let Some(through) = self.control.taken_over_at else { return };
        if self.indexed < through || self.taken_over.is_none() {
            return;
        }
        self.checkpoint();
        let (Some(index), Some(taken_over)) = (self.index.take(), self.taken_over.take()) else { return };
        let own_history = self.secondary.base_differs();
        taken_over(HandOver {
            generation: self.control.generation,
            through,
            lineage: self.control.history(),
            planned: self.control.planned,
            epoch_floor: self.control.epoch_floor,
            based: self.control.keeps.is_some(),
            differs: own_history.then(|| self.differs()),
            index: Arc::new(index),
            reader: self.log.reader(),
            ledger: Arc::new(self.secondary.ledger().clone()),
        });
    }

    fn checkpoint(&mut self) {
        self.write_out();
        let frontier = self.frontier();
        let blob = self.state(frontier);
        let Some(index) = &mut self.index else { return };
        match index.checkpoint(&blob) {
            Ok(()) => {
                self.bytes_since_checkpoint = 0;
                self.kept = frontier;
            }
            Err(error) => {
                tracing::error!(pair = self.name, %error, "the index could not be kept: a restart reads more of the log");
                return;
            }
        }
        self.drop_replaced(&blob);
    }

    /// The state of the order, as it is kept beside the index; what lies before `scan_from` is in the index.
    fn state(&self, scan_from: Location) -> Vec<u8> {
        let (contiguous, chain) = self.secondary.durable();
        let (_, group_through) = self.secondary.limit();
        let checkpoint = Checkpoint {
            contiguous,
            chain,
            indexed: self.indexed,
            ledger: self.secondary.ledger().clone(),
            gap_open_after: self.secondary.gap_open_after(),
            group_through,
            group_cut: self.secondary.group_cut(),
            group_cuts: self.secondary.cuts().clone(),
            gap_chain: Some(self.secondary.gap_chain()),
            scan_from: scan_from.pack(),
        };
        serde_json::to_vec(&checkpoint).unwrap_or_default()
    }

    /// Everything that lies before this is in the index.
    fn frontier(&self) -> Location {
        self.pending.values().map(|(_, location)| *location).min().unwrap_or_else(|| self.log.end())
    }

    fn answer(&mut self, path: Path, answer: Answer) {
        let last = matches!(answer, Answer::Refuse(_) | Answer::Close);
        if let Some(answers) = self.paths.get(&path) {
            let _ = answers.send(answer);
        }
        if last {
            self.paths.remove(&path);
        }
    }
}

/// The map of where the base differs from the history that is kept in a folder.
pub fn differs_path(directory: &std::path::Path) -> PathBuf {
    directory.join("differs.map")
}

/// A damaged index is built again from the log.
fn open_index(
    directory: &std::path::Path,
    name: &str,
    settings: Settings,
) -> Result<(Index, Option<Vec<u8>>), StartError> {
    let place = directory.join("index");
    match Index::open(&place, settings.blocks) {
        Ok(opened) => Ok(opened),
        Err(error) if error.rebuild() => {
            tracing::warn!(pair = name, %error, "the index is built again from the log");
            Ok((Index::anew(&place, settings.blocks)?, None))
        }
        Err(error) => Err(error.into()),
    }
}

fn start_syncer(log: &Log, inbox: Sender<Event>) -> Sender<u64> {
    let (requests, queue) = channel::<u64>();
    let syncer = log.syncer();
    std::thread::spawn(move || {
        for stores in queue {
            if inbox.send(Event::Synced(syncer.sync().map(|_| stores))).is_err() {
                break;
            }
        }
    });
    requests
}

/// Starts the thread that checks keys: extract, verify, unwrap, keep.
fn start_checker(
    name: String,
    reader: LogReader,
    keyring: Arc<Keyring>,
    plugins: Arc<PairPlugins>,
    inbox: Sender<Event>,
) -> Sender<(Sequence, Header, Location)> {
    let (requests, queue) = channel::<(Sequence, Header, Location)>();
    std::thread::spawn(move || {
        for (key, header, location) in queue {
            let result = check_key(&reader, &keyring, &plugins, &header, location);
            if let Err(why) = &result {
                tracing::warn!(pair = name, "the key in record {key} is refused: {why}");
            }
            if inbox.send(Event::KeyChecked { key, result }).is_err() {
                break;
            }
        }
    });
    requests
}

fn check_key(
    reader: &LogReader,
    keyring: &Keyring,
    plugins: &PairPlugins,
    header: &Header,
    location: Location,
) -> Result<KeyFacts, KeyRefusal> {
    let (_, carrier) = reader.read(location).map_err(|_| KeyRefusal::NoCapsule)?;
    let now = crate::clock::wall_time().0;
    let payload = plugins.disguise.extract(now, &carrier).ok().and_then(|answer| answer.value);
    // A primary whose disguise failed sends a plain carrier; what it holds is signed either way.
    let payload = payload.or_else(|| farseal_plugin::fallback::disguise_extract(&carrier));
    let payload = payload.ok_or(KeyRefusal::NoCapsule)?;
    let package = SealedEpoch::decode(&payload).map_err(|_| KeyRefusal::NoCapsule)?;
    let verified = keyring.verify(package, None).map_err(|refused| match refused {
        crate::keys::package::RefusedEpoch::OtherPair { .. } => KeyRefusal::Misplaced,
        crate::keys::package::RefusedEpoch::Forged { .. }
        | crate::keys::package::RefusedEpoch::Replayed { .. }
        | crate::keys::package::RefusedEpoch::CapsuleChanged { .. } => KeyRefusal::Forged,
    })?;
    let terms = &verified.descriptor().terms;
    let facts = KeyFacts { epoch: Epoch(terms.epoch), start: Sequence(terms.start_seq) };
    if terms.key_seq != header.sequence.0 || terms.generation != header.generation.0 || header.kind != Kind::Key {
        return Err(KeyRefusal::Misplaced);
    }
    keyring.unwrap(&verified).map_err(|error| match error {
        crate::keys::package::OpenEpochError::OtherRecipient { .. } => KeyRefusal::OtherRecipient,
        crate::keys::package::OpenEpochError::Capsule { .. }
        | crate::keys::package::OpenEpochError::OtherKey { .. } => KeyRefusal::Unopenable,
    })?;
    // Without its package on disk the key could not be had again: the record is not acknowledged then.
    keyring.keep(verified).map_err(|_| KeyRefusal::Unopenable)?;
    Ok(facts)
}
