//! Opening the copy: blocks from the log when they are first needed, the rest in the background as the strategy plans.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::ThreadId;
use std::time::Duration;

use farseal_core::record::Kind;
use farseal_core::units::{BlockBytes, BlockCount, Epoch, Extent, Lba, Sequence};
use farseal_plugin::Plugin as _;
use farseal_plugin::wit::recovery as wit;
use farseal_plugin::wit::types::Extension;
use farseal_plugin::written_last;
use serde::{Deserialize, Serialize};

use crate::keyring::{Keyring, UnsealError, Unsealer};
use crate::keys::package::OpenEpochError;
use crate::plugins::PairPlugins;
use crate::replica::HandOver;
use crate::store::files;
use crate::store::home::Home as _;
use crate::store::index::{Index, Place};
use crate::store::log::{LogReader, ReadError};
use crate::store::opened::{BlockSource, OpenedHome, Unopened};

/// The copy as a source of opened blocks.
pub struct CopySource {
    index: Arc<Index>,
    /// There may be something under the copy that a zeroed block hides.
    based: bool,
    reader: LogReader,
    ledger: Arc<farseal_core::ledger::Ledger>,
    keyring: Arc<Keyring>,
    plugins: Arc<PairPlugins>,
    block: BlockBytes,
    /// The strategy's rule for accesses: refuse instead of open.
    refuse: Arc<AtomicBool>,
    /// One for each thread that opens at once.
    unsealers: Mutex<Vec<Unsealer>>,
    accessed: Sender<Sweep>,
    /// What this thread opens is the strategy's plan, not an initiator's access.
    sweeper_thread: OnceLock<ThreadId>,
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
    ) -> (Self, Receiver<Sweep>) {
        let (accessed, events) = channel();
        let source = Self {
            index: Arc::clone(&hand_over.index),
            based: hand_over.based,
            reader: hand_over.reader.clone(),
            ledger: Arc::clone(&hand_over.ledger),
            keyring,
            plugins,
            block,
            refuse: Arc::new(AtomicBool::new(false)),
            unsealers: Mutex::new(Vec::new()),
            accessed,
            sweeper_thread: OnceLock::new(),
        };
        (source, events)
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

    /// The switch for accesses.
    #[must_use]
    pub fn refuse(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.refuse)
    }

    fn open_run(&self, unsealer: &mut Unsealer, run: &Run, into: &mut [u8]) -> Result<(), Unopened> {
        let sequence = run.place.sequence;
        let lba = run.first;
        let missing = || Unopened::NotAuthentic { lba, sequence };
        let extent = Extent::new(run.first, BlockCount(run.blocks)).ok_or_else(missing)?;
        let part = run.place.part(&self.reader, extent).map_err(|error| {
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
        unsealer.open(&part.header, run.place.block, into, &mut tags).map_err(|error| unopened(lba, sequence, &error))
    }

    fn unsealer(&self) -> Unsealer {
        let kept = self.unsealers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let (keyring, ledger) = (Arc::clone(&self.keyring), Arc::clone(&self.ledger));
        kept.unwrap_or_else(|| Unsealer::new(keyring, ledger, Arc::clone(&self.plugins)))
    }

    /// The blocks of an extent as runs of one record each; absent blocks make no run.
    fn runs_of(&self, extent: Extent) -> Vec<Run> {
        let mut first = extent.first();
        let mut runs = Vec::new();
        for (blocks, place) in self.index.places(extent) {
            runs.extend(place.map(|place| Run { place, first, blocks: blocks.0 }));
            first.0 += blocks.0;
        }
        runs
    }
}

impl BlockSource for CopySource {
    fn open(&self, extent: Extent, into: &mut [u8]) -> Result<(), Unopened> {
        let sweeps = self.sweeper_thread.get() == Some(&std::thread::current().id());
        if !sweeps {
            if self.refuse.load(Ordering::Acquire) {
                return Err(Unopened::Refused);
            }
            let _ = self.accessed.send(Sweep::Accessed(extent));
        }
        into.fill(0);
        let mut unsealer = self.unsealer();
        let size = self.block.as_usize();
        let mut result = Ok(());
        for run in self.runs_of(extent) {
            let at = usize::try_from(run.first.0 - extent.first().0).unwrap_or(usize::MAX) * size;
            let len = usize::try_from(run.blocks).unwrap_or(usize::MAX) * size;
            let part = into.get_mut(at..at + len).unwrap_or_default();
            result = self.open_run(&mut unsealer, &run, part);
            if result.is_err() {
                break;
            }
        }
        self.unsealers.lock().unwrap_or_else(PoisonError::into_inner).push(unsealer);
        result
    }

    fn runs(&self, within: Extent) -> Vec<(BlockCount, bool)> {
        if self.based { self.index.held(within) } else { self.index.runs(within) }
    }

    fn is_based(&self) -> bool {
        self.based
    }
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
    Stop,
}

/// The background part of a recovery, on a thread of its own.
pub struct Sweeper {
    pub name: String,
    pub home: Arc<OpenedHome<CopySource>>,
    pub plugins: Arc<PairPlugins>,
    pub blocks: BlockCount,
    pub refuse: Arc<AtomicBool>,
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
        let _ = self.home.source().sweeper_thread.set(std::thread::current().id());
        let kept = files::read_if_there(&self.path, KEPT_BYTES_MAX).ok().flatten();
        let kept = kept.and_then(|bytes| serde_json::from_slice::<Kept>(&bytes).ok());
        let mut state = kept.map(|kept| kept.state);
        let mut wake: Option<u64> = None;
        let mut opened_since_sync = 0;
        let mut work = vec![wit::Event::Begin];
        loop {
            let mut finished = false;
            for event in std::mem::take(&mut work) {
                let Some(outcome) = self.ask(&mut state, &event) else { return };
                for decision in outcome {
                    match decision.action {
                        wit::Action::Access(rule) => {
                            self.refuse.store(rule == wit::OnAccess::Refuse, Ordering::Release);
                        }
                        wit::Action::Open(extent) => {
                            let swept = self.open(extent);
                            opened_since_sync += swept.map_or(0, |swept| swept.opened);
                            work.extend(swept.map(wit::Event::Swept));
                        }
                        wit::Action::WakeAt(at) => wake = Some(at),
                        wit::Action::Finished => finished = true,
                        wit::Action::Alert(text) => {
                            tracing::warn!(pair = self.name, "the strategy says: {}", farseal_plugin::escaped(&text));
                        }
                        wit::Action::Ext(ext) => work.extend(self.answer(&ext)),
                    }
                }
                if self.pending_stop(events, &mut work) {
                    return;
                }
            }
            // What the strategy believes to be open must be so after a crash: the image first, then the state.
            if opened_since_sync >= SYNC_BLOCKS || work.is_empty() {
                if let Err(error) = self.home.sync() {
                    tracing::error!(pair = self.name, %error, "the opened image could not be synced: the sweep stops");
                    return;
                }
                opened_since_sync = 0;
                self.keep(state.as_deref());
                if finished {
                    tracing::info!(pair = self.name, "the whole copy is open");
                }
            }
            if work.is_empty() {
                match self.wait(events, wake) {
                    Waited::Event(event) => work.push(event),
                    Waited::Timer => {
                        wake = None;
                        work.push(wit::Event::Timer);
                    }
                    Waited::Stop => return,
                }
            }
        }
    }

    /// Takes what has come meanwhile. Says whether to stop.
    fn pending_stop(&self, events: &Receiver<Sweep>, work: &mut Vec<wit::Event>) -> bool {
        let mut accessed = Vec::new();
        while let Ok(event) = events.try_recv() {
            match event {
                Sweep::Accessed(extent) if accessed.len() < ACCESSED_MAX => accessed.push(wit_extent(extent)),
                Sweep::Accessed(_) => {}
                Sweep::Requested(text) => work.push(wit::Event::Requested(text)),
                Sweep::Stop => return true,
            }
        }
        if !accessed.is_empty() {
            work.push(wit::Event::Accessed(accessed));
        }
        false
    }

    fn wait(&self, events: &Receiver<Sweep>, wake: Option<u64>) -> Waited {
        let now = crate::clock::wall_time().0;
        let span = wake.map_or(Duration::from_secs(3600), |at| Duration::from_millis(at.saturating_sub(now).max(1)));
        match events.recv_timeout(span) {
            Ok(Sweep::Accessed(extent)) => Waited::Event(wit::Event::Accessed(vec![wit_extent(extent)])),
            Ok(Sweep::Requested(text)) => Waited::Event(wit::Event::Requested(text)),
            Ok(Sweep::Stop) | Err(RecvTimeoutError::Disconnected) => Waited::Stop,
            Err(RecvTimeoutError::Timeout) => Waited::Timer,
        }
    }

    /// What the strategy wants to know and this host does.
    fn answer(&self, ext: &Extension) -> Option<wit::Event> {
        let blocks = written_last::asked(ext)?;
        let firsts = self.home.source().index.written_last(blocks, written_last::WRITTEN_LAST_PARTS);
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
                let outcome = self.plugins.recovery.init(now, &context).value;
                decisions.extend(outcome.decisions);
                outcome.state
            }
        };
        let outcome = self.plugins.recovery.step(now, &current, event, &context).value;
        decisions.extend(outcome.decisions);
        *state = Some(outcome.state);
        Some(decisions)
    }

    fn keep(&self, state: Option<&str>) {
        let Some(state) = state else { return };
        let kept = Kept { format: 1, state: state.to_owned() };
        if let Err(error) = files::write_atomically(&self.path, &serde_json::to_vec(&kept).unwrap_or_default()) {
            tracing::warn!(pair = self.name, %error, "the strategy's state could not be kept: a restart sweeps again");
        }
    }

    fn context(&self) -> Option<wit::Context> {
        let mut entropy = [0; 8];
        getrandom::fill(&mut entropy).ok()?;
        let progress = self.home.progress();
        Some(wit::Context {
            now: crate::clock::wall_time().0,
            volume: self.name.clone(),
            config: self.plugins.recovery.current().map_or_else(String::new, |plugin| plugin.facts().config.clone()),
            volume_blocks: self.blocks.0,
            progress: wit::Progress {
                present: progress.present.0,
                opened: progress.opened.0,
                failed: progress.failed.0,
            },
            entropy: u64::from_le_bytes(entropy),
        })
    }

    fn open(&self, extent: wit::Extent) -> Option<wit::Swept> {
        let inside = self.blocks.0.saturating_sub(extent.first).min(extent.blocks);
        let whole = Extent::new(Lba(extent.first), BlockCount(inside))?;
        let swept = self.home.sweep(whole);
        for lba in &swept.first_failed {
            tracing::error!(pair = self.name, %lba, "a block of the copy does not open");
        }
        Some(wit::Swept { extent, opened: swept.opened.0, failed: swept.failed.0 })
    }
}

enum Waited {
    Event(wit::Event),
    Timer,
    Stop,
}

fn wit_extent(extent: Extent) -> wit::Extent {
    wit::Extent { first: extent.first().0, blocks: extent.blocks().0 }
}
