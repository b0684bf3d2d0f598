//! Opening the copy: blocks from the log when they are first needed, the rest in the background as the strategy plans.

pub mod account;
mod brought;
mod by_search;
mod crew;
mod released;
mod rule;
mod sweeper;
pub mod times;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError, RwLockReadGuard};

use farseal_core::layout::Layout;
use farseal_core::record::Kind;
use farseal_core::units::{BlockBytes, BlockCount, Epoch, Extent, Lba, Sequence};

use self::account::{Account, Failure, Why};
use self::times::Way;
use crate::arrival::Arrived;
use crate::keyring::{Keyring, UnsealError, Unsealer};
use crate::keys::package::OpenEpochError;
use crate::plugins::PairPlugins;
use crate::replica::HandOver;
use crate::replica::points::SharedIndex;
use crate::search::Shelf;
use crate::store::index::{Index, Place};
use crate::store::log::{Ahead, LastRead, LogReader, ReadError};
use crate::store::opened::{BlockSource, Unopened};

pub use brought::Bring;
pub use by_search::{SearchOpened, Searched};
pub use rule::{AccessRule, begins_by_refusing};
pub use sweeper::{Sweep, Sweeper};

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
    openings: Mutex<Vec<Opening>>,
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

/// What one thread opens with.
struct Opening {
    unsealer: Unsealer,
    /// The record that it read last: the next blocks may be that one's, too.
    last: Option<LastRead>,
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
            openings: Mutex::new(Vec::new()),
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

    fn open_run(&self, opening: &mut Opening, way: Way, run: &Run, into: &mut [u8]) -> Result<(), Unopened> {
        let lba = run.first;
        let missing = || Unopened::NotAuthentic { lba, sequence: run.place.sequence };
        let extent = Extent::new(run.first, BlockCount(run.blocks)).ok_or_else(missing)?;
        if let Some(arrived) = self.arrived.as_ref().filter(|arrived| arrived.has(extent, run.place.sequence)) {
            match arrived.read(extent, into) {
                Ok(()) => return Ok(()),
                // The record is there as it was sent: a damaged image costs an opening.
                Err(error) => tracing::warn!(%lba, %error, "what was opened as it arrived cannot be read"),
            }
        }
        // For what a search opens now, on this thread: nobody else looks there.
        if way == Way::Search && self.brought.read(extent, run.place.sequence, into) {
            return Ok(());
        }
        if run.place.kind == Kind::Data {
            self.units.fetch_add(run.blocks, Ordering::Relaxed);
        }
        let Opening { unsealer, last } = opening;
        open_place(&self.reader, last, unsealer, &run.place, extent, into)
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

    fn opening(&self) -> Opening {
        let kept = self.openings.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let (keyring, ledger) = (Arc::clone(&self.keyring), Arc::clone(&self.ledger));
        let begun = || Opening { unsealer: Unsealer::new(keyring, ledger, Arc::clone(&self.plugins)), last: None };
        kept.unwrap_or_else(begun)
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
        let mut opening = self.opening();
        let size = self.block.as_usize();
        let (mut result, mut filled) = (Ok(()), 0);
        let index = self.index();
        for run in Self::runs_of(&index, extent) {
            let at = usize::try_from(run.first.0 - extent.first().0).unwrap_or(usize::MAX) * size;
            let len = usize::try_from(run.blocks).unwrap_or(usize::MAX) * size;
            // Blocks of which the copy says nothing read as zeroes.
            into.get_mut(filled..at).unwrap_or_default().fill(0);
            filled = at + len;
            let part = into.get_mut(at..filled).unwrap_or_default();
            result = self.open_run(&mut opening, way, &run, part);
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
        into.get_mut(filled..).unwrap_or_default().fill(0);
        self.account.book().opened(way, &opened, crate::clock::wall_time());
        if !sweeps && result.is_ok() {
            self.account.accessed(extent.blocks());
        }
        self.openings.lock().unwrap_or_else(PoisonError::into_inner).push(opening);
        result
    }

    fn expect(&self, extent: Extent) {
        let mut ahead: Option<Ahead> = None;
        let runs = Self::runs_of(&self.index(), extent);
        for run in runs.into_iter().filter(|run| run.place.kind == Kind::Data) {
            let next = run.place.ahead(run.blocks, self.block);
            match &mut ahead {
                Some(before) if before.joins(&next) => before.until = before.until.max(next.until),
                _ => ahead.replace(next).into_iter().for_each(|whole| self.reader.expect(whole)),
            }
        }
        ahead.into_iter().for_each(|whole| self.reader.expect(whole));
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
    last: &mut Option<LastRead>,
    unsealer: &mut Unsealer,
    place: &Place,
    extent: Extent,
    into: &mut [u8],
) -> Result<(), Unopened> {
    let (lba, sequence) = (extent.first(), place.sequence);
    let missing = || Unopened::NotAuthentic { lba, sequence };
    let part = place.part_after(last, reader, extent).map_err(|error| {
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
