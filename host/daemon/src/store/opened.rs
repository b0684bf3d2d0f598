//! A home that opens blocks when they are first needed: the volume of a remote that took over.
//!
//! A block is answered from the image once it is there, by an earlier read, by the sweep or by an initiator's write.
//! Until then it comes from the source, is kept, and never opened again. Which blocks are in the image is remembered
//! in a map ([`bits`]) that is made durable after the image and never before.

mod bits;
mod home;

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use farseal_core::units::{BlockBytes, BlockCount, Epoch, Extent, Lba, Sequence};

use self::bits::Bits;
use super::direct::Aligned;
use super::home::{Home, HomeError, RawHome};
use super::{StoreError, files, locked, narrow};

/// Blocks that are opened at once, and that one lock covers.
const REGION_BLOCKS: u64 = 256;
const STRIPES: usize = 64;
/// Blocks that a sweep opens at once: of 4 KiB, what the image takes past the cache.
const SWEPT_BLOCKS: u64 = 2 * REGION_BLOCKS;
/// Failed blocks that are remembered, and so counted exactly.
const FAILED_MAX: usize = 1 << 16;

/// Where blocks come from before they are in the image.
pub trait BlockSource: Send + Sync {
    /// Opens whole blocks. `into` is as long as they are; it is used only if this succeeds.
    fn open(&self, extent: Extent, into: &mut [u8]) -> Result<(), Unopened>;

    /// Runs that cover `within`: how many blocks, and do they hold data? Those that do not read as zeroes, or as the base.
    fn runs(&self, within: Extent) -> Vec<(BlockCount, bool)>;

    /// These blocks are opened soon: what is to be read for them may be fetched meanwhile.
    fn expect(&self, _extent: Extent) {}

    /// Was there something in the image before anything was opened? Then blocks that this source says nothing of are what
    /// the image holds.
    fn is_based(&self) -> bool {
        false
    }

    /// May other threads open a part of what this one reads?
    fn may_spread(&self) -> bool {
        true
    }
}

impl<S: BlockSource + ?Sized> BlockSource for Arc<S> {
    fn open(&self, extent: Extent, into: &mut [u8]) -> Result<(), Unopened> {
        (**self).open(extent, into)
    }

    fn runs(&self, within: Extent) -> Vec<(BlockCount, bool)> {
        (**self).runs(within)
    }

    fn expect(&self, extent: Extent) {
        (**self).expect(extent);
    }

    fn is_based(&self) -> bool {
        (**self).is_based()
    }

    fn may_spread(&self) -> bool {
        (**self).may_spread()
    }
}

/// Why blocks could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum Unopened {
    #[error("access refused: the recovery plugin does not open this block here")]
    Refused,
    #[error("block {lba}: record {sequence} is not what was sealed")]
    NotAuthentic { lba: Lba, sequence: Sequence },
    #[error("the key of epoch {epoch} is not here")]
    NoKey { epoch: Epoch },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why an opened volume cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenedError {
    #[error("{}: {bytes} bytes are not whole blocks of {block}", dir.display())]
    Size { dir: PathBuf, bytes: u64, block: u32 },
    #[error(
        "{}: the map of what is open in the image is gone; restore it from a copy: without it, older blocks would be opened over newer \
         ones", .0.display()
    )]
    MapGone(PathBuf),
    #[error(transparent)]
    Home(#[from] HomeError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// How far opening is, in blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct OpenedProgress {
    /// That hold data at the source.
    pub present: BlockCount,
    /// Of these, in the image: opened, or overwritten since.
    pub opened: BlockCount,
    /// That could not be opened when last tried; counted up to 65 536.
    pub failed: BlockCount,
}

/// What a sweep did.
#[derive(Debug, Default)]
pub struct SweepResult {
    pub opened: BlockCount,
    pub failed: BlockCount,
    /// At most 16 of those that failed.
    pub first_failed: Vec<Lba>,
    /// Why the first of them did.
    pub why: Option<StoreError>,
    /// The image could not be written: the sweep ended early and may be tried again.
    pub stopped: Option<StoreError>,
}

/// The image, the map, and the source behind them.
pub struct OpenedHome<S: BlockSource> {
    image: Box<dyn Home>,
    map: Box<dyn Home>,
    bits: Bits,
    source: S,
    block: BlockBytes,
    blocks: u64,
    /// One for each region, by its number: opening and overwriting a block exclude each other.
    stripes: Vec<Mutex<()>>,
    syncing: Mutex<()>,
    present: u64,
    opened: AtomicU64,
    failed: Mutex<BTreeSet<u64>>,
}

impl SweepResult {
    /// Failed blocks that it names.
    pub const NAMED_MAX: usize = 16;
}

impl<S: BlockSource> OpenedHome<S> {
    /// Opens the image and the map in `dir`; makes them where they are not.
    pub fn open(dir: &Path, bytes: u64, block: BlockBytes, source: S) -> Result<Self, OpenedError> {
        if !bytes.is_multiple_of(block.as_u64()) || bytes == 0 {
            return Err(OpenedError::Size { dir: dir.to_owned(), bytes, block: block.get() });
        }
        files::create_private_dir(dir)?;
        let image = RawHome::open(&dir.join("opened.image"), Some(bytes))?;
        let map = RawHome::open(&dir.join("opened.map"), Some(bits::map_bytes(bytes / block.as_u64())))?;
        Ok(Self::open_on(Box::new(image), Box::new(map), block, source)?)
    }

    /// As [`Self::open`], over the base of a site that wrote before; the map is made in `dir`, unless this has `begun`: then it must be
    /// there.
    pub fn over(
        image: Arc<dyn Home>,
        dir: &Path,
        block: BlockBytes,
        source: S,
        begun: bool,
    ) -> Result<Self, OpenedError> {
        let bytes = image.bytes();
        if !bytes.is_multiple_of(block.as_u64()) || bytes == 0 {
            return Err(OpenedError::Size { dir: dir.to_owned(), bytes, block: block.get() });
        }
        files::create_private_dir(dir)?;
        let place = dir.join("opened.map");
        if begun && !place.exists() {
            return Err(OpenedError::MapGone(place));
        }
        let map = RawHome::open(&place, Some(bits::map_bytes(bytes / block.as_u64())))?;
        Ok(Self::open_on(Box::new(image), Box::new(map), block, source)?)
    }

    /// As [`Self::open`], over an image and a map that are open already.
    pub fn open_on(image: Box<dyn Home>, map: Box<dyn Home>, block: BlockBytes, source: S) -> Result<Self, StoreError> {
        let blocks = image.bytes() / block.as_u64();
        let bits = Bits::load(map.as_ref(), blocks)?;
        let (mut present, mut opened) = (0, 0);
        let mut at = 0;
        for (count, data) in whole(blocks).map(|extent| source.runs(extent)).unwrap_or_default() {
            if data {
                present += count.0;
                opened += bits.count(at, at + count.0);
            }
            at += count.0;
        }
        Ok(Self {
            image,
            map,
            bits,
            source,
            block,
            blocks,
            stripes: (0..STRIPES).map(|_| Mutex::new(())).collect(),
            syncing: Mutex::new(()),
            present,
            opened: AtomicU64::new(opened),
            failed: Mutex::new(BTreeSet::new()),
        })
    }

    /// Where closed blocks come from.
    pub fn source(&self) -> &S {
        &self.source
    }

    /// Opens every block of `extent` that holds data and is not in the image. One that fails does not keep others.
    pub fn sweep(&self, extent: Extent) -> SweepResult {
        let mut result = SweepResult::default();
        let mut buffer = Aligned::zeroed(self.len(SWEPT_BLOCKS.min(extent.blocks().0)));
        let cut = pieces(extent.first().0.min(self.blocks), extent.end().0.min(self.blocks), SWEPT_BLOCKS);
        for (first, end) in cut {
            // In their order, and never around the end of the stripes: nobody who waits for one holds a later one.
            let _regions: Vec<_> = regions(first, end).map(|(first, _)| self.region(first)).collect();
            for (from, to) in self.closed_data(first, end) {
                if let Err(error) = self.open_run(from, to, &mut buffer, &mut result) {
                    result.stopped = Some(error);
                    return result;
                }
            }
        }
        result
    }

    /// This extent is swept soon: what is to be read for it may be fetched meanwhile.
    pub fn expect(&self, extent: Extent) {
        if !self.bits.all(extent.first().0.min(self.blocks), extent.end().0.min(self.blocks)) {
            self.source.expect(extent);
        }
    }

    /// Blocks of the extent that are in the image.
    pub fn in_image(&self, extent: Extent) -> BlockCount {
        BlockCount(self.bits.count(extent.first().0.min(self.blocks), extent.end().0.min(self.blocks)))
    }

    /// How far opening is.
    pub fn progress(&self) -> OpenedProgress {
        OpenedProgress {
            present: BlockCount(self.present),
            opened: BlockCount(self.opened.load(Ordering::Relaxed)),
            failed: BlockCount(super::wide(locked(&self.failed).len())),
        }
    }

    /// Opens a run of closed blocks into the image by way of the buffer; one by one where that fails together.
    fn open_run(&self, first: u64, end: u64, buffer: &mut [u8], result: &mut SweepResult) -> Result<(), StoreError> {
        let bytes = &mut buffer[..self.len(end - first)];
        match self.open_into(first, end, bytes) {
            Ok(()) => {
                // Whole stretches of nothing but closed blocks, where it goes past the cache: nobody writes there meanwhile.
                self.image.write_in_bulk(first * self.block.as_u64(), bytes)?;
                self.mark(first, end);
                result.opened.0 += end - first;
                return Ok(());
            }
            // A rule, not a fault: nothing failed, and no other block would open either.
            Err(StoreError::Refused) => return Err(StoreError::Refused),
            Err(error) if end - first == 1 => {
                self.note_failed(first);
                result.failed.0 += 1;
                if result.first_failed.len() < SweepResult::NAMED_MAX {
                    result.first_failed.push(Lba(first));
                }
                result.why.get_or_insert(error);
                return Ok(());
            }
            Err(_) => {}
        }
        (first..end).try_for_each(|lba| self.open_run(lba, lba + 1, buffer, result))
    }

    fn open_into(&self, first: u64, end: u64, into: &mut [u8]) -> Result<(), StoreError> {
        let Some(extent) = Extent::new(Lba(first), BlockCount(end - first)) else {
            return Ok(());
        };
        Ok(self.source.open(extent, into)?)
    }

    /// Puts opened blocks in the image. The caller holds their region.
    fn keep(&self, first: u64, end: u64, bytes: &[u8]) -> Result<(), StoreError> {
        self.image.write(first * self.block.as_u64(), bytes)?;
        self.mark(first, end);
        Ok(())
    }

    /// Notes that these blocks are in the image. The caller holds their region.
    fn mark(&self, first: u64, end: u64) {
        let newly: u64 = self.closed_data(first, end).iter().map(|(from, to)| to - from).sum();
        self.bits.set(first, end);
        self.opened.fetch_add(newly, Ordering::Relaxed);
        let mut failed = locked(&self.failed);
        if !failed.is_empty() {
            failed.retain(|lba| !(first..end).contains(lba));
        }
    }

    /// Runs of blocks that hold data at the source and are not in the image.
    fn closed_data(&self, first: u64, end: u64) -> Vec<(u64, u64)> {
        let mut closed = Vec::new();
        for (from, to, opened) in self.bits.runs(first, end) {
            if !opened && let Some(extent) = Extent::new(Lba(from), BlockCount(to - from)) {
                let mut at = from;
                for (count, data) in self.source.runs(extent) {
                    if data {
                        closed.push((at, at + count.0));
                    }
                    at += count.0;
                }
            }
        }
        closed
    }

    fn note_failed(&self, lba: u64) {
        let mut failed = locked(&self.failed);
        if failed.len() < FAILED_MAX {
            failed.insert(lba);
        }
    }

    fn region(&self, lba: u64) -> MutexGuard<'_, ()> {
        locked(&self.stripes[narrow(lba / REGION_BLOCKS) % STRIPES])
    }

    fn len(&self, blocks: u64) -> usize {
        narrow(blocks * self.block.as_u64())
    }
}

/// Cuts blocks from `first` up to `end` at the borders of regions.
fn regions(first: u64, end: u64) -> impl Iterator<Item = (u64, u64)> {
    pieces(first, end, REGION_BLOCKS)
}

/// Cuts blocks from `first` up to `end` at multiples of `size`.
fn pieces(first: u64, end: u64, size: u64) -> impl Iterator<Item = (u64, u64)> {
    (first / size..end.div_ceil(size))
        .map(move |piece| ((piece * size).max(first), ((piece + 1) * size).min(end)))
        .filter(|(from, to)| from < to)
}

fn whole(blocks: u64) -> Option<Extent> {
    Extent::new(Lba(0), BlockCount(blocks))
}

/// Without the source, which may hold keys.
impl<S: BlockSource> fmt::Debug for OpenedHome<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenedHome")
            .field("image", &self.image)
            .field("progress", &self.progress())
            .finish_non_exhaustive()
    }
}

impl From<Unopened> for StoreError {
    fn from(unopened: Unopened) -> Self {
        match unopened {
            Unopened::Refused => Self::Refused,
            Unopened::NotAuthentic { lba, sequence } => Self::NotAuthentic { lba, sequence },
            Unopened::NoKey { epoch } => Self::NoKey { epoch },
            Unopened::Store(error) => error,
        }
    }
}
