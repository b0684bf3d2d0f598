//! Opening the copy: blocks from the log when they are first needed, the rest in the background as the strategy plans.

pub mod account;
mod brought;
mod by_search;
mod crew;
mod released;
mod rule;
pub mod times;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError, RwLockReadGuard};
use std::time::Duration;

use farseal_core::layout::Layout;
use farseal_core::record::Kind;
use farseal_core::units::{BlockBytes, BlockCount, Epoch, Extent, Lba, Sequence};
use farseal_plugin::wit::recovery as wit;
use farseal_plugin::wit::types::Extension;
use farseal_plugin::{Answer, RecoveryCall, written_last};
use serde::{Deserialize, Serialize};

use self::account::{Account, Failure, Stage, Why};
use self::times::Way;
use crate::arrival::Arrived;
use crate::keyring::{Keyring, UnsealError, Unsealer};
use crate::keys::package::OpenEpochError;
use crate::plugins::PairPlugins;
use crate::replica::HandOver;
use crate::replica::points::SharedIndex;
use crate::search::Shelf;
use crate::store::home::Home as _;
use crate::store::index::{Index, Place};
use crate::store::log::{LogReader, ReadError};
use crate::store::opened::{BlockSource, OpenedHome, Unopened};
use crate::store::{StoreError, files};

pub use brought::Bring;
pub use by_search::{SearchOpened, Searched};
pub use rule::{AccessRule, begins_by_refusing};

/// The copy as a source of opened blocks.
pub struct CopySource {
    index: SharedIndex,
    /// There may be something under the copy that a zeroed block hides.
    based: bool,
    reader: LogReader,
    ledger: Arc<farseal_core::ledger::Ledger>,
    keyring: Arc<Keyring>,
    plugins: Arc<PairPlugins>,
    block: BlockBytes,
    rule: Arc<AccessRule>,
    /// Blocks that a key was used on.
    units: AtomicU64,
    /// One for each thread that opens at once.
    unsealers: Mutex<Vec<Unsealer>>,
    accessed: Sender<Sweep>,
    account: Arc<Account>,
    /// What was opened as it arrived.
    arrived: Option<Arrived>,
    /// What the escrow site opened.
    brought: brought::Brought,
    /// Of a test of a copy that is opened by search alone: what searches found.
    released: Option<released::Released>,
}

impl std::fmt::Debug for CopySource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CopySource").field("block", &self.block).finish_non_exhaustive()
    }
}

/// A run of blocks that one record holds.
#[derive(Clone, Copy, Debug)]
struct Run {
    place: Place,
    first: Lba,
    blocks: u64,
}

impl CopySource {
    /// The source, and what its sweeper listens to.
    #[must_use]
    pub fn new(
        hand_over: &HandOver,
        keyring: Arc<Keyring>,
        plugins: Arc<PairPlugins>,
        block: BlockBytes,
        rule: AccessRule,
    ) -> (Self, Receiver<Sweep>) {
        let (accessed, events) = channel();
        let index = (Arc::clone(&hand_over.index), hand_over.based);
        let log = (hand_over.reader.clone(), Arc::clone(&hand_over.ledger));
        let rule = Arc::new(rule);
        let source = Self { rule, accessed, ..Self::at_point(index, log, keyring, plugins, block) };
        (source, events)
    }

    /// An earlier point, beside a copy that goes on. No strategy plans for it.
    #[must_use]
    pub fn at_point(
        (index, based): (SharedIndex, bool),
        (reader, ledger): (LogReader, Arc<farseal_core::ledger::Ledger>),
        keyring: Arc<Keyring>,
        plugins: Arc<PairPlugins>,
        block: BlockBytes,
    ) -> Self {
        Self {
            index,
            based,
            reader,
            ledger,
            keyring,
            plugins,
            block,
            rule: Arc::new(AccessRule::open()),
            units: AtomicU64::new(0),
            unsealers: Mutex::new(Vec::new()),
            accessed: channel().0,
            account: Arc::default(),
            arrived: None,
            brought: brought::Brought::default(),
            released: None,
        }
    }

    /// With what was opened as it arrived, which no key is used on again.
    #[must_use]
    pub fn with_arrived(self, arrived: Option<Arrived>) -> Self {
        Self { arrived, ..self }
    }

    /// Nothing is opened but what searches find.
    #[must_use]
    pub fn by_search_alone(self) -> Self {
        Self { released: Some(released::Released::default()), ..self }
    }

    /// What searches found, where nothing else is opened.
    #[must_use]
    pub fn released(&self) -> Option<&released::Released> {
        self.released.as_ref()
    }

    /// What sweeping listens to.
    #[must_use]
    pub fn sweeper(&self) -> Sender<Sweep> {
        self.accessed.clone()
    }

    /// What a lane after this one may begin with: no epoch of the copy comes again.
    #[must_use]
    pub fn newest_epoch(&self) -> Epoch {
        self.keyring.newest()
    }

    /// How far opening is.
    #[must_use]
    pub fn account(&self) -> &Arc<Account> {
        &self.account
    }

    /// The records that hold an extent's blocks, in runs, and the epoch that sealed each.
    #[must_use]
    pub fn epochs(&self, extent: Extent) -> Vec<(BlockCount, Option<Epoch>)> {
        let epoch = |place: Place| self.ledger.epoch_of(place.sequence).map_or(Epoch::NONE, |entry| entry.epoch);
        let counts = |place: &Place| self.based || place.kind == Kind::Data;
        let runs = self.index().places(extent).into_iter();
        runs.map(|(blocks, place)| (blocks, place.filter(counts).map(epoch))).collect()
    }

    /// The epoch that sealed a record.
    #[must_use]
    pub fn epoch_of(&self, sequence: Sequence) -> Option<Epoch> {
        self.ledger.epoch_of(sequence).map(|entry| entry.epoch)
    }

    /// The rule for accesses.
    #[must_use]
    pub fn rule(&self) -> Arc<AccessRule> {
        Arc::clone(&self.rule)
    }

    /// Blocks that were opened with a key, or tried with one, since this process began.
    #[must_use]
    pub fn units(&self) -> u64 {
        self.units.load(Ordering::Relaxed)
    }

    /// The copy, to be searched by its tags.
    #[must_use]
    pub fn shelf<'a>(&'a self, layout: &'a Layout, blocks: BlockCount) -> Shelf<'a> {
        Shelf { index: &self.index, reader: &self.reader, ledger: &self.ledger, keyring: &self.keyring, layout, blocks }
    }

    fn open_run(&self, unsealer: &mut Unsealer, way: Way, run: &Run, into: &mut [u8]) -> Result<(), Unopened> {
        let lba = run.first;
        let missing = || Unopened::NotAuthentic { lba, sequence: run.place.sequence };
        let extent = Extent::new(run.first, BlockCount(run.blocks)).ok_or_else(missing)?;
        if let Some(arrived) = self.arrived.as_ref().filter(|arrived| arrived.has(extent, run.place.sequence)) {
            return Ok(arrived.read(extent, into)?);
        }
        // For what a search opens now, on this thread: nobody else looks there.
        if way == Way::Search && self.brought.read(extent, run.place.sequence, into) {
            return Ok(());
        }
        if run.place.kind == Kind::Data {
            self.units.fetch_add(run.blocks, Ordering::Relaxed);
        }
        open_place(&self.reader, unsealer, &run.place, extent, into)
    }

    fn note(&self, run: &Run, error: &Unopened) {
        let why = match error {
            Unopened::NotAuthentic { .. } => Why::NotAuthentic,
            Unopened::NoKey { .. } => Why::NoKey,
            Unopened::Store(_) => Why::Unreadable,
            Unopened::Refused => return,
        };
        let (blocks, sequence) = (BlockCount(run.blocks), run.place.sequence);
        self.account.failed(run.first, Failure { blocks, sequence, why });
    }

    fn unsealer(&self) -> Unsealer {
        let kept = self.unsealers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let (keyring, ledger) = (Arc::clone(&self.keyring), Arc::clone(&self.ledger));
        kept.unwrap_or_else(|| Unsealer::new(keyring, ledger, Arc::clone(&self.plugins)))
    }

    /// While this is held, compaction moves nothing that was looked up.
    fn index(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The blocks of an extent as runs of one record each; absent blocks make no run.
    fn runs_of(index: &Index, extent: Extent) -> Vec<Run> {
        let mut first = extent.first();
        let mut runs = Vec::new();
        for (blocks, place) in index.places(extent) {
            runs.extend(place.map(|place| Run { place, first, blocks: blocks.0 }));
            first.0 += blocks.0;
        }
        runs
    }
}

impl BlockSource for CopySource {
    fn open(&self, extent: Extent, into: &mut [u8]) -> Result<(), Unopened> {
        let (way, mut opened) = (crew::way(), Vec::new());
        let sweeps = way != Way::Access;
        if !sweeps {
            let closed = self.released.as_ref().is_some_and(|released| !released.has(extent));
            if closed || self.rule.refuses() {
                return Err(Unopened::Refused);
            }
            let _ = self.accessed.send(Sweep::Accessed(extent));
        }
        into.fill(0);
        let mut unsealer = self.unsealer();
        let size = self.block.as_usize();
        let mut result = Ok(());
        let index = self.index();
        for run in Self::runs_of(&index, extent) {
            let at = usize::try_from(run.first.0 - extent.first().0).unwrap_or(usize::MAX) * size;
            let len = usize::try_from(run.blocks).unwrap_or(usize::MAX) * size;
            let part = into.get_mut(at..at + len).unwrap_or_default();
            result = self.open_run(&mut unsealer, way, &run, part);
            if let Err(error) = &result {
                self.note(&run, error);
                break;
            }
            self.account.opened(run.first, BlockCount(run.blocks));
            if run.place.kind == Kind::Data || self.based {
                let epoch = self.epoch_of(run.place.sequence).unwrap_or(Epoch::NONE);
                match opened.last_mut() {
                    Some((last, blocks)) if *last == epoch => *blocks += run.blocks,
                    _ => opened.push((epoch, run.blocks)),
                }
            }
        }
        self.account.book().opened(way, &opened, crate::clock::wall_time());
        if !sweeps && result.is_ok() {
            self.account.accessed(extent.blocks());
        }
        self.unsealers.lock().unwrap_or_else(PoisonError::into_inner).push(unsealer);
        result
    }

    fn runs(&self, within: Extent) -> Vec<(BlockCount, bool)> {
        if self.based { self.index().held(within) } else { self.index().runs(within) }
    }

    fn is_based(&self) -> bool {
        self.based
    }

    /// How a block came to be opened is noted by the thread: the strategy's and a search's stay with theirs.
    fn may_spread(&self) -> bool {
        crew::way() == Way::Access
    }
}

/// Opens the blocks of an extent that one record holds. `into` is used only if this succeeds.
///
/// # Errors
/// [`Unopened`]: none of them can be used.
pub(crate) fn open_place(
    reader: &LogReader,
    unsealer: &mut Unsealer,
    place: &Place,
    extent: Extent,
    into: &mut [u8],
) -> Result<(), Unopened> {
    let (lba, sequence) = (extent.first(), place.sequence);
    let missing = || Unopened::NotAuthentic { lba, sequence };
    let part = place.part(reader, extent).map_err(|error| {
        tracing::error!(%lba, %sequence, %error, "a record of the copy cannot be read");
        match error {
            ReadError::Store(error) => Unopened::Store(error),
            ReadError::NotThere(_) | ReadError::Damaged { .. } | ReadError::NoSuchBlock { .. } => missing(),
        }
    })?;
    let part = part.ok_or_else(missing)?;
    let mut tags = Vec::from(part.tags);
    if part.header.kind != Kind::Data {
        // Zeroes are believed only when their tag is right: a forged one would hide data.
        unsealer.open(&part.header, 0, &mut [], &mut tags).map_err(|error| unopened(lba, sequence, &error))?;
        into.fill(0);
        return Ok(());
    }
    if part.blocks.len() != into.len() {
        return Err(missing());
    }
    into.copy_from_slice(&part.blocks);
    unsealer.open(&part.header, place.block, into, &mut tags).map_err(|error| unopened(lba, sequence, &error))
}

fn unopened(lba: Lba, sequence: Sequence, error: &UnsealError) -> Unopened {
    tracing::error!(%lba, %sequence, %error, "a block does not open");
    match error {
        UnsealError::NoPackage { epoch, .. } => Unopened::NoKey { epoch: *epoch },
        UnsealError::Key(OpenEpochError::WithEscrow { epoch }) => Unopened::NoKey { epoch: Epoch(*epoch) },
        UnsealError::NoEpoch(_)
        | UnsealError::OtherBit { .. }
        | UnsealError::Key(_)
        | UnsealError::Open(_)
        | UnsealError::Layer { .. } => Unopened::NotAuthentic { lba, sequence },
    }
}

/// Something for the sweeper.
#[derive(Debug)]
pub enum Sweep {
    Accessed(Extent),
    Requested(String),
    Search(Box<Searched>),
    /// Another strategy is in force.
    Changed,
    Stop,
}

/// The background part of a recovery, on a thread of its own.
pub struct Sweeper {
    pub name: String,
    pub home: Arc<OpenedHome<CopySource>>,
    pub plugins: Arc<PairPlugins>,
    pub blocks: BlockCount,
    pub rule: Arc<AccessRule>,
    /// The pair declares a record layout: while the strategy refuses accesses, nothing is opened but what a search found, and
    /// the host opens nothing in the place of a strategy that does not answer.
    pub by_search: bool,
    pub path: PathBuf,
}

#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    format: u32,
    state: String,
}

impl std::fmt::Debug for Sweeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sweeper").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A state text of 64 KiB, escaped, and what stands around it.
const KEPT_BYTES_MAX: u64 = 512 << 10;

/// Blocks opened between two syncs of the image: 256 MiB of 4 KiB blocks.
const SYNC_BLOCKS: u64 = 65_536;
/// An image that could not be written is tried again after so many milliseconds.
const WRITE_RETRY_MS: u64 = 5_000;
/// Hints that are given to the strategy at once.
const ACCESSED_MAX: usize = 64;

impl Sweeper {
    /// Runs until the strategy has finished and nothing more is asked, or until stopped.
    pub fn start(self, events: Receiver<Sweep>) {
        let name = format!("sweep-{}", self.name);
        let spawned = std::thread::Builder::new().name(name).spawn(move || self.run(&events));
        if let Err(error) = spawned {
            tracing::error!(%error, "the sweep could not be started: blocks are opened on access only");
        }
    }

    fn run(self, events: &Receiver<Sweep>) {
        crew::join();
        let kept = files::read_if_there(&self.path, KEPT_BYTES_MAX).ok().flatten();
        let kept = kept.and_then(|bytes| serde_json::from_slice::<Kept>(&bytes).ok());
        let mut state = kept.map(|kept| kept.state);
        // By a clock that only moves forward: a wait is as long as it was to be, whatever happens to the time of day.
        let clock = crate::clock::Clock::start();
        let mut wake: Option<u64> = None;
        let (mut opened_since_sync, mut is_finished) = (0, false);
        let account = Arc::clone(self.home.source().account());
        let mut work = vec![wit::Event::Begin];
        let mut searches = VecDeque::new();
        loop {
            let mut finished = false;
            for event in std::mem::take(&mut work) {
                let Some(outcome) = self.ask(&mut state, &event) else { return };
                for decision in outcome {
                    match decision.action {
                        wit::Action::Open(extent) if self.only_by_search() => self.not_found_by_search(extent),
                        wit::Action::Open(extent) => {
                            let Ok(swept) = self.open_on(extent, events, &mut work, &mut searches) else { return };
                            opened_since_sync += swept.map_or(0, |swept| swept.opened);
                            work.extend(swept.map(wit::Event::Swept));
                        }
                        wit::Action::WakeAt(at) => {
                            let now = clock.now();
                            wake = Some(now.instant.0.saturating_add(at.saturating_sub(now.wall.0)));
                        }
                        wit::Action::Finished => finished = true,
                        wit::Action::Ext(ext) => work.extend(self.answer(&ext)),
                        other @ (wit::Action::Access(_) | wit::Action::Alert(_)) => self.obey(&other),
                    }
                }
                self.rule.set_if_unsaid(wit::OnAccess::Open);
                if self.pending_stop(events, &mut work, &mut searches) {
                    return;
                }
            }
            if let Some(search) = searches.pop_front() {
                self.search(&mut state, search);
            }
            // What the strategy believes to be open must be so after a crash: the image first, then the state.
            if opened_since_sync >= SYNC_BLOCKS || work.is_empty() {
                if let Err(error) = self.home.sync() {
                    tracing::error!(pair = self.name, %error, "the opened image could not be synced: the sweep stops");
                    return account.set_stage(Stage::Stopped);
                }
                opened_since_sync = 0;
                self.keep(state.as_deref());
                if finished {
                    tracing::info!(pair = self.name, "the strategy has nothing more to open by itself");
                    is_finished = true;
                }
            }
            if work.is_empty() && searches.is_empty() {
                account.set_stage(if is_finished { Stage::Finished } else { Stage::Waiting });
                let left = wake.map(|at| at.saturating_sub(clock.now().instant.0));
                match self.wait(events, left) {
                    Waited::Event(event) => work.push(event),
                    Waited::Timer => {
                        wake = None;
                        work.push(wit::Event::Timer);
                    }
                    Waited::Search(search) => searches.push_back(search),
                    Waited::Stop => return,
                }
            }
        }
    }

    /// Takes what has come meanwhile. Says whether to stop.
    fn pending_stop(
        &self,
        events: &Receiver<Sweep>,
        work: &mut Vec<wit::Event>,
        searches: &mut VecDeque<Box<Searched>>,
    ) -> bool {
        let mut accessed = Vec::new();
        while let Ok(event) = events.try_recv() {
            match event {
                Sweep::Accessed(extent) if accessed.len() < ACCESSED_MAX => accessed.push(wit_extent(extent)),
                Sweep::Accessed(_) => {}
                Sweep::Requested(text) => work.push(wit::Event::Requested(text)),
                Sweep::Changed => work.push(wit::Event::Begin),
                Sweep::Search(search) => searches.push_back(search),
                Sweep::Stop => return true,
            }
        }
        if !accessed.is_empty() {
            work.push(wit::Event::Accessed(accessed));
        }
        false
    }

    /// For so many milliseconds; without a number, for a while.
    fn wait(&self, events: &Receiver<Sweep>, left: Option<u64>) -> Waited {
        let span = left.map_or(Duration::from_secs(3600), |left| Duration::from_millis(left.max(1)));
        match events.recv_timeout(span) {
            Ok(Sweep::Accessed(extent)) => Waited::Event(wit::Event::Accessed(vec![wit_extent(extent)])),
            Ok(Sweep::Requested(text)) => Waited::Event(wit::Event::Requested(text)),
            Ok(Sweep::Changed) => Waited::Event(wit::Event::Begin),
            Ok(Sweep::Search(search)) => Waited::Search(search),
            Ok(Sweep::Stop) | Err(RecvTimeoutError::Disconnected) => Waited::Stop,
            Err(RecvTimeoutError::Timeout) => Waited::Timer,
        }
    }

    /// What the strategy wants to know and this host does.
    fn answer(&self, ext: &Extension) -> Option<wit::Event> {
        let blocks = written_last::asked(ext)?;
        let firsts = self.home.source().index().written_last(blocks, written_last::WRITTEN_LAST_PARTS);
        Some(wit::Event::Ext(written_last::answer(blocks, firsts)))
    }

    /// Asks the strategy. Its plans only open what can be opened again, so its state is kept after them.
    fn ask(&self, state: &mut Option<String>, event: &wit::Event) -> Option<Vec<wit::Decision>> {
        let context = self.context()?;
        let now = context.now;
        let mut decisions = Vec::new();
        let current = match state.take() {
            Some(state) => state,
            None => {
                let answer = self.plugins.recovery.init(now, &context);
                self.journal(RecoveryCall::Init { context: context.clone() }, &answer);
                if !self.is_the_strategys(&answer.by) {
                    return Some(Vec::new());
                }
                decisions.extend(answer.value.decisions);
                answer.value.state
            }
        };
        let answer = self.plugins.recovery.step(now, &current, event, &context);
        self.journal(RecoveryCall::Step { state: current.clone(), event: event.clone(), context }, &answer);
        if !self.is_the_strategys(&answer.by) {
            *state = Some(current);
            return Some(Vec::new());
        }
        let outcome = answer.value;
        decisions.extend(outcome.decisions);
        *state = Some(outcome.state);
        Some(decisions)
    }

    fn journal(&self, call: RecoveryCall, answer: &Answer<wit::Outcome>) {
        let decisions = answer.value.decisions.clone();
        self.plugins.recovery_journal.add_answer(&self.plugins.recovery, call, answer, decisions);
    }

    fn keep(&self, state: Option<&str>) {
        let book = self.home.source().account().book();
        if let Err(error) = self.path.parent().map_or(Ok(()), |folder| book.keep(folder)) {
            tracing::warn!(pair = self.name, %error, "when what was opened could not be kept");
        }
        let Some(state) = state else { return };
        let kept = Kept { format: 1, state: state.to_owned() };
        if let Err(error) = files::write_atomically(&self.path, &serde_json::to_vec(&kept).unwrap_or_default()) {
            tracing::warn!(pair = self.name, %error, "the strategy's state could not be kept: a restart sweeps again");
        }
    }

    fn context(&self) -> Option<wit::Context> {
        let progress = self.home.progress();
        let progress =
            wit::Progress { present: progress.present.0, opened: progress.opened.0, failed: progress.failed.0 };
        rule::context(&self.plugins, &self.name, self.blocks, progress)
    }

    /// Opens what the strategy wants. Where the image has no room it is tried again until it has, or until stopped.
    fn open_on(
        &self,
        extent: wit::Extent,
        events: &Receiver<Sweep>,
        work: &mut Vec<wit::Event>,
        searches: &mut VecDeque<Box<Searched>>,
    ) -> Result<Option<wit::Swept>, Stopped> {
        let inside = self.blocks.0.saturating_sub(extent.first).min(extent.blocks);
        let Some(whole) = Extent::new(Lba(extent.first), BlockCount(inside)) else { return Ok(None) };
        let account = self.home.source().account();
        let (mut opened, mut said) = (0, false);
        loop {
            account.set_stage(Stage::Opening);
            let swept = crew::sweep(&self.home, whole);
            account.swept(swept.opened, std::time::Instant::now());
            opened += swept.opened.0;
            let Some(error) = swept.stopped else {
                for lba in &swept.first_failed {
                    tracing::error!(pair = self.name, %lba, "a block of the copy does not open");
                }
                return Ok(Some(wit::Swept { extent, opened, failed: swept.failed.0 }));
            };
            // The rule changed meanwhile: what it keeps closed is not waited for.
            if let StoreError::Refused = error {
                return Ok(Some(wit::Swept { extent, opened, failed: swept.failed.0 }));
            }
            if !std::mem::replace(&mut said, true) {
                tracing::error!(pair = self.name, %error, "the opened image cannot be written: the sweep waits");
            }
            account.set_stage(Stage::Stopped);
            match self.wait(events, Some(crate::clock::wall_time().0 + WRITE_RETRY_MS)) {
                Waited::Event(event) if work.len() < ACCESSED_MAX => work.push(event),
                Waited::Search(search) => searches.push_back(search),
                Waited::Event(_) | Waited::Timer => {}
                Waited::Stop => return Err(Stopped),
            }
        }
    }
}

/// The node ends.
struct Stopped;

enum Waited {
    Event(wit::Event),
    Search(Box<Searched>),
    Timer,
    Stop,
}

fn wit_extent(extent: Extent) -> wit::Extent {
    wit::Extent { first: extent.first().0, blocks: extent.blocks().0 }
}
