//! The secondary's driver: one thread owns a [`Secondary`], its log and its index, and carries out what it decides.
//!
//! Records are appended as they come and acknowledged when the log is durable; the index follows what is offered, and what
//! is not waits in the [`backlog`]. Keys are checked on a thread of their own ([`keys`]), and what is no more read of the
//! log is compacted away on another ([`compact`]). Earlier points that are kept are indexes beside the newest ([`points`]).
//! Nothing here opens a block: that begins with a [`takeover`], when log,
//! index and ledger are handed over as they are and nothing is added to them any more.

mod backlog;
mod compact;
pub(crate) mod drill;
pub(crate) mod inspect;
mod keys;
pub(crate) mod newer;
pub(crate) mod points;
mod recover;
pub(crate) mod retire;
mod slots;
mod takeover;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use farseal_core::carriage::Said;
use farseal_core::chain::Digest;
use farseal_core::compaction::Room;
use farseal_core::drill::Live;
use farseal_core::frame::{ComponentPart, Frame, KeyRefusal};
use farseal_core::group::{CutName, KeptCuts, OfferLimit};
use farseal_core::inspect::Inspect;
use farseal_core::ledger::Ledger;
use farseal_core::limits::{BACKLOG_TURN_BYTES, BACKLOG_TURN_RECORDS, STORE_RETRY_INTERVAL};
use farseal_core::lineage::Lineage;
use farseal_core::owed::OwedMap;
use farseal_core::points::Terms;
use farseal_core::primary::StoreFault;
use farseal_core::record::{Framed, HEADER_BYTES, Header};
use farseal_core::secondary::{Input, KeyFacts, Output, Secondary, Settings, Status};
use farseal_core::units::{Epoch, Generation, Instant, Lba, Path, Sequence};
use farseal_plugin::Digest as ComponentDigest;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::UnboundedSender;

use self::backlog::Backlog;
use self::recover::Checkpoint;
use crate::clock::Clock;
use crate::keyring::Keyring;
use crate::link::listen::{Answer, Came};
use crate::plugins::PairPlugins;
use crate::recovery::account::Beginning;
use crate::retired::Retired;
pub use crate::role::Control;
use crate::role::ControlError;
use crate::store::home::Home;
use crate::store::index::{Index, IndexError};
use crate::store::log::{CompactError, Location, Log, LogError, LogReader};
use crate::store::{StoreError, files};

/// How many events are taken from the inbox before the log is written out.
const INBOX_BATCH: usize = 256;
/// Bytes of log between two checkpoints of the index: what a restart reads again.
const CHECKPOINT_BYTES: u64 = 256 << 20;
/// Records between two: a restart collects those that the order has not reached. What 256 MiB hold at 1 KiB each.
const CHECKPOINT_RECORDS: u64 = 1 << 18;

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
    KeyHolders(retire::Holders),
    /// How far the pair's group lets it be offered.
    Limit(OfferLimit),
    TakeOver,
    /// As [`Event::TakeOver`], by the witness rule: only where the main site was not heard after `unheard_since`, and before `until`.
    TakeOverUnheard {
        unheard_since: Instant,
        until: Instant,
    },
    /// The site's lead does not take the group over at the main site's word.
    RefuseWord,
    Look {
        done: Box<dyn FnOnce(Status) + Send>,
    },
    /// A page of the epochs that live blocks need; nothing after a takeover.
    Live {
        from: Lba,
        done: Box<dyn FnOnce(Option<Live>) + Send>,
    },
    /// What became newer in the index than a record; waits until something has.
    Newer(newer::Newer),
    /// Which points there are.
    Points {
        done: Box<dyn FnOnce(points::View) + Send>,
    },
    OpenPoint(points::Open),
    /// Says whether there was such a pin.
    Unpin {
        name: CutName,
        done: Box<dyn FnOnce(Result<bool, StoreError>) + Send>,
    },
    /// Says what was tested.
    EndTest {
        done: Box<dyn FnOnce(Option<Sequence>) + Send>,
    },
    Stop,
}

/// What opening the copy needs. Complete: the log gets no more records.
#[derive(Debug)]
pub struct HandOver {
    pub generation: Generation,
    pub through: Sequence,
    /// The volume is as it was at this earlier point; the history goes on behind `through` all the same.
    pub opened_at: Option<Sequence>,
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
    pub index: points::SharedIndex,
    pub reader: LogReader,
    pub ledger: Arc<Ledger>,
    /// What is known now; what counts is what was known first.
    pub beginning: Beginning,
}

/// What a replica is made of.
pub struct Parts {
    pub name: String,
    /// The pair's folder, with its control information.
    pub pair_directory: PathBuf,
    /// Where the copy lies.
    pub directory: PathBuf,
    pub control: Control,
    /// What was retired of the pair's keys here.
    pub retired: Retired,
    pub settings: Settings,
    pub keyring: Arc<Keyring>,
    pub plugins: Arc<PairPlugins>,
    pub clock: Clock,
    /// How long points stay that nobody pinned; `None`: only the newest does.
    pub terms: Option<Terms>,
    /// What lies below the copy, at a site that wrote before.
    pub base: Option<Arc<dyn Home>>,
    /// Other pairs may be in its group: nothing new is offered before the site's lead says how far.
    pub grouped: bool,
    /// The pair's keys can be had from an escrow site.
    pub with_escrow: bool,
    /// Tells the site's lead that the main site declares a disaster of the group, if it can be told: it decides.
    pub word: Box<dyn Fn() -> bool + Send>,
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
    pub keyring: Arc<Keyring>,
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
        let (reader, keyring) = (runner.log.reader(), Arc::clone(&runner.keyring));
        let thread = std::thread::Builder::new()
            .name(name)
            .spawn(move || {
                let compaction = runner.run(&events);
                // What it still asks is not answered any more, and then it ends.
                drop(events);
                compaction.end();
            })
            .map_err(|source| StoreError::io(std::path::Path::new("."), "start the replica's thread", source))?;
        Ok(Self { inbox, reader, keyring, thread: Mutex::new(Some(thread)) })
    }

    /// Has the copy's thread answer; `None`: it has stopped.
    pub async fn ask<T: Send + 'static>(&self, event: impl FnOnce(Box<dyn FnOnce(T) + Send>) -> Event) -> Option<T> {
        let (sender, answer) = tokio::sync::oneshot::channel();
        self.inbox.send(event(Box::new(move |answer| drop(sender.send(answer))))).ok()?;
        answer.await.ok()
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
    plugins: Arc<PairPlugins>,
    clock: Clock,
    secondary: Secondary,
    control: Control,
    log: Log,
    index: Option<Index>,
    /// Stored and not in the index yet.
    backlog: Backlog,
    /// The log could not be read for it: when it is tried again.
    read_again_at: Option<Instant>,
    keys: keys::Unchecked,
    /// Stored, or read for the backlog.
    since_checkpoint: Amount,
    /// Stored in this turn.
    in_turn: Amount,
    /// Everything that lies before this is in the index on disk.
    kept: Location,
    compaction: compact::Compaction,
    beside: points::Beside,
    /// The point that a takeover under way is to open.
    opening: Option<Sequence>,
    retire: retire::Retire,
    /// Whoever opens what arrives waits for more.
    waits: Option<newer::Newer>,
    paths: BTreeMap<Path, UnboundedSender<Answer>>,
    slots: slots::Slots,
    /// Every [`Output::Store`] so far, failed ones included.
    stores: u64,
    syncer: Sender<u64>,
    checker: Sender<keys::Question>,
    inspector: Sender<inspect::Question>,
    cuts: Box<dyn Fn(&KeptCuts) + Send>,
    cuts_told: Option<u64>,
    taken_over: Option<Box<dyn FnOnce(HandOver) + Send>>,
    /// It recovers with other pairs, at one point.
    grouped: bool,
    with_escrow: bool,
    word: Box<dyn Fn() -> bool + Send>,
    /// Words of the main site that wait for the lead's decision.
    words: Vec<takeover::Word>,
}

/// What goes through the thread's hands.
#[derive(Clone, Copy, Default)]
struct Amount {
    records: u64,
    bytes: u64,
}

impl Runner {
    fn run(mut self, events: &Receiver<Event>) -> compact::Compaction {
        self.carry_out(&[]);
        self.tell_cuts();
        self.hand_over_when_recovered();
        self.sweep();
        self.compact(Room::Enough);
        loop {
            self.in_turn = Amount::default();
            let mut next = match events.recv_timeout(self.patience()) {
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
                if taken < INBOX_BATCH && !self.read_is_due() {
                    next = events.try_recv().ok();
                }
            }
            self.write_out();
            self.read_on();
            self.scan_on();
            self.points_on();
            self.newer_on();
            self.tell_cuts();
            self.hand_over_when_recovered();
            let Amount { records, bytes } = self.since_checkpoint;
            if bytes >= CHECKPOINT_BYTES || records >= CHECKPOINT_RECORDS {
                self.checkpoint();
                self.compact(Room::Enough);
            }
        }
        self.compaction
    }

    /// How long the thread may wait for an event.
    fn patience(&self) -> Duration {
        let now = self.clock.now().instant;
        let retry = self.secondary.poll_timeout().map(|(at, _)| at);
        if (self.scans() || self.beside.is_busy()) && self.read_again_at.is_none() {
            return Duration::ZERO;
        }
        let at = match (self.backlog.is_reading(), self.read_again_at) {
            (true, None) => return Duration::ZERO,
            (true, Some(again)) => Some(retry.map_or(again, |retry| retry.min(again))),
            (false, _) => retry,
        };
        let wait = at.map_or(Duration::from_secs(3600), |at| Duration::from_millis(at.since(now).0.max(1)));
        self.beside.patience().map_or(wait, |patience| wait.min(Duration::from_millis(patience.0)))
    }

    /// As much has come as one step of the backlog's makes up for.
    fn read_is_due(&self) -> bool {
        let Amount { records, bytes } = self.in_turn;
        self.backlog.is_reading() && (records >= BACKLOG_TURN_RECORDS || bytes >= BACKLOG_TURN_BYTES.0)
    }

    fn take_in(&mut self, event: Event) {
        match event {
            Event::Came { path, came: Came::Attach(attach, _, mask, answers) } => {
                self.slots.attached(path, mask, self.paths.is_empty());
                self.paths.insert(path, answers);
                self.give(Input::Attach { path, attach });
            }
            Event::Came { path, came: Came::Records(bytes, permit) } => {
                if self.slots.are_on(path) {
                    self.take_slotted(path, &bytes);
                } else {
                    self.take_records(path, &bytes);
                }
                drop(permit);
            }
            Event::Came { path, came: Came::Component(digest, bytes, permit) } => {
                self.keep_component(path, digest, &bytes);
                drop(permit);
            }
            Event::Came { path, came: Came::HandOver(hand_over, permit) } => {
                self.give(Input::HandOver { path, hand_over });
                drop(permit);
            }
            Event::Came { path, came: Came::Inspect(inspect, permit) } => self.inspect(path, inspect, permit),
            Event::Came { path, came: Came::AskLive(ask, permit) } => self.show_live(path, ask, permit),
            Event::Came { path, came: Came::AskDrill(ask, permit) } => self.drill(path, ask, permit),
            Event::Came { path, came: Came::AskOld(ask, permit) } => self.show_old(path, ask, permit),
            Event::Came { path, came: Came::AskRetire(ask, permit) } => self.retire(path, &ask, permit),
            Event::Came { path, came: Came::Declare(declare, permit) } => self.declared(path, declare, permit),
            Event::Came { path, came: Came::Lost } => {
                self.paths.remove(&path);
                self.slots.lost(path, self.paths.is_empty());
                self.give(Input::PathLost { path });
            }
            Event::Synced(Ok(stored)) => self.give(Input::LogSynced { stored }),
            Event::Synced(Err(error)) => self.log_failed("sync the log", &error),
            Event::KeyChecked { key, result } => self.give(Input::KeyChecked { key, result }),
            Event::Judge(judge) => self.judge(judge),
            Event::Compacted(pass) => self.compacted(pass),
            Event::KeyHolders(found) => self.key_holders(found),
            Event::Limit(limit) => self.give(Input::Limit(limit)),
            Event::TakeOver => {
                // Whatever an earlier takeover was to open: that one came to nothing.
                self.opening = None;
                self.answer_words(true);
                self.give(Input::TakeOver);
            }
            Event::TakeOverUnheard { unheard_since, until } => {
                self.opening = None;
                self.give(Input::TakeOverUnheard { unheard_since, until });
            }
            Event::RefuseWord => self.answer_words(false),
            Event::Look { done } => done(self.secondary.status()),
            Event::Live { from, done } => done(self.live(from)),
            Event::Newer(asked) => self.newer_asked(asked),
            Event::Points { done } => done(self.points()),
            Event::OpenPoint(open) => self.open_point(open),
            Event::Unpin { name, done } => done(self.unpin(&name)),
            Event::EndTest { done } => done(self.end_test()),
            Event::Stop => {}
        }
    }

    /// Before the epochs that need it. One that cannot be kept is asked for by their keys, which are refused then.
    fn keep_component(&mut self, path: Path, digest: ComponentDigest, bytes: &[u8]) {
        if ComponentDigest::of(bytes) != digest {
            return self.give(Input::Nonsense { path });
        }
        match self.plugins.components.keep(bytes) {
            Ok(_) => tracing::info!(pair = self.name, %digest, "a component of the primary's is kept"),
            Err(error) => tracing::error!(pair = self.name, %error, "a component of the primary's could not be kept"),
        }
    }

    /// So that the primary need not send them again.
    fn name_components(&mut self, path: Path) {
        for digest in self.plugins.components.kept().unwrap_or_default() {
            let part = ComponentPart::none(digest.0);
            self.answer(path, Answer::Frame(Frame::Component(part)));
        }
    }

    /// A question that is none of this volume, or comes before the attach, ends the path.
    fn inspect(&mut self, path: Path, inspect: Inspect, permit: OwnedSemaphorePermit) {
        let fits = inspect.fits(self.settings.blocks, self.settings.block_bytes);
        let (Some(answers), Some(index), true) = (self.paths.get(&path), &self.index, fits) else {
            return self.give(Input::Nonsense { path });
        };
        // In the middle of a pass the index is no state of the volume: the primary asks again until it is one.
        let (through, places) = if self.backlog.is_reading() {
            (Sequence::NONE, vec![(inspect.extent.blocks(), None)])
        } else {
            (self.backlog.indexed(), index.places(inspect.extent))
        };
        let question = inspect::Question { inspect, through, places, answers: answers.clone(), permit };
        let _ = self.inspector.send(question);
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

    /// The same where each record stands behind its slot.
    fn take_slotted(&mut self, path: Path, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let Some((slot, record, rest)) = slots::next(bytes) else { return self.give(Input::Nonsense { path }) };
            match self.slots.take(path, slot) {
                Said::Nothing => {}
                // Long before an acknowledgement waits for it.
                Said::Whole(key) => {
                    tracing::debug!(pair = self.name, "all pieces of a key are here");
                    let _ = self.checker.send(keys::Question::Ahead(key));
                }
                Said::Stands(key) => {
                    tracing::debug!(pair = self.name, "a key that came in slots has its place");
                    self.take_records(path, &key);
                }
                Said::Missing => return self.give(Input::Nonsense { path }),
            }
            self.take_records(path, record);
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
                Output::Welcome { path, welcome } => {
                    self.name_components(path);
                    self.answer(path, Answer::Frame(Frame::Welcome(welcome)));
                }
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
                    let armed = self.secondary.ledger().newest().map_or(Epoch::NONE, |entry| entry.epoch);
                    if let Some(question) = self.keys.take(key, armed) {
                        let _ = self.checker.send(question);
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
                self.backlog.add(header, location);
                self.keys.stored(header, location);
                for amount in [&mut self.since_checkpoint, &mut self.in_turn] {
                    amount.records += 1;
                    amount.bytes += u64::try_from(record.len()).unwrap_or(0);
                }
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
        self.backlog.discard(end);
        self.keys.discard(end);
        // What gives way frees room, and no descriptors.
        if fault == StoreFault::Full && !matches!(error, StoreError::NoDescriptor { .. }) {
            self.points_give_way();
            self.compact(Room::None);
        }
        self.secondary.handle(self.clock.now(), Input::LogFailed { fault });
        self.carry_out(&[]);
    }

    /// The index takes in what may be offered.
    fn offer(&mut self, through: Sequence) {
        if let Some(index) = &mut self.index {
            self.backlog.offer(through, index);
        }
    }

    /// One step through what was offered and is not remembered. A place that cannot be read is not passed over: nothing more
    /// is offered until it can be, as after a restart.
    fn read_on(&mut self) {
        let now = self.clock.now().instant;
        let Some(index) = &mut self.index else { return };
        if self.read_again_at.is_some_and(|at| now < at) {
            return;
        }
        match self.backlog.read_on(&self.log, index) {
            Ok(records) => {
                self.since_checkpoint.records += records;
                self.read_again_at = None;
            }
            Err(error) => {
                if self.read_again_at.replace(now.plus(STORE_RETRY_INTERVAL)).is_none() {
                    tracing::error!(pair = self.name, %error, "the log cannot be read: the copy offers nothing more until it can");
                }
            }
        }
    }

    /// Says whether it is durable.
    fn checkpoint(&mut self) -> bool {
        self.write_out();
        let frontier = self.frontier();
        let blob = self.state(frontier);
        let Some(index) = &mut self.index else { return false };
        match index.checkpoint(&blob) {
            Ok(()) => {
                self.since_checkpoint = Amount::default();
                self.kept = frontier;
            }
            Err(error) => {
                tracing::error!(pair = self.name, %error, "the index could not be kept: a restart reads more of the log");
                return false;
            }
        }
        if !self.keep_points() {
            return false;
        }
        self.drop_replaced(&blob);
        true
    }

    /// The state of the order, as it is kept beside the index; what lies before `scan_from` is in the index.
    fn state(&self, scan_from: Location) -> Vec<u8> {
        let (contiguous, chain) = self.secondary.durable();
        let (_, group_through) = self.secondary.limit();
        let checkpoint = Checkpoint {
            contiguous,
            chain,
            indexed: self.backlog.indexed(),
            offered: self.backlog.target(),
            ledger: self.secondary.ledger().clone(),
            gap_open_after: self.secondary.gap_open_after(),
            group_through,
            group_cut: self.secondary.group_cut(),
            group_cuts: self.secondary.cuts().clone(),
            gap_chain: Some(self.secondary.gap_chain()),
            holes: self.secondary.holes().to_vec(),
            scan_from: scan_from.pack(),
        };
        serde_json::to_vec(&checkpoint).unwrap_or_default()
    }

    /// Everything that lies before this is in the index.
    fn frontier(&self) -> Location {
        self.backlog.frontier(self.log.durable_end())
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
