//! The remote's index: for each block, the newest record that says what it holds.
//!
//! Sparse and exact. Blocks are kept in chunks of 256, 16 bytes each, made when a record first names one of them; runs of
//! whole chunks that read as zeroes are kept as runs. The newest sequence number wins, in whatever order and however
//! often records are applied.

mod live;
mod points;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::path::Path;
use std::sync::Arc;

use farseal_core::record::{HEADER_BYTES, Header, Kind, TAG_BYTES};
use farseal_core::units::{BlockBytes, BlockCount, Extent, Lba, Sequence};

use self::live::{Live, Tally};
use super::checkpoint::{Checkpoint, Loaded};
use super::log::{Ahead, LastRead, Location, LogReader, Part, ReadError};
use super::zeroes::Zeroes;
use super::{StoreError, narrow, wide};

/// Blocks in a chunk: its image on disk is one page.
pub(super) const CHUNK_BLOCKS: u64 = 256;
const CHUNK_SLOTS: usize = 256;
/// Chunks in a group: a group's table is made when one of them is.
const GROUP_CHUNKS: u64 = 1024;

const DATA: u64 = 1;
const ZERO: u64 = 2;
const TRIM: u64 = 3;

/// What one block reads as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    pub sequence: Sequence,
    pub location: Location,
    /// Its index in the record; 0 for zero and trim, whose one tag speaks for all.
    pub block: u32,
    /// Data, zero or trim.
    pub kind: Kind,
}

impl Place {
    /// What the log holds of the blocks of `extent`, which this is the place of; `None` if another record stands there.
    /// Zero and trim have no blocks: one tag speaks for all that they cover.
    pub fn part(&self, reader: &LogReader, extent: Extent) -> Result<Option<Part>, ReadError> {
        self.part_after(&mut None, reader, extent)
    }

    /// As [`Self::part`], by somebody who may have read the record for blocks before these.
    pub fn part_after(
        &self,
        last: &mut Option<LastRead>,
        reader: &LogReader,
        extent: Extent,
    ) -> Result<Option<Part>, ReadError> {
        let blocks = u32::try_from(extent.blocks().0).unwrap_or(u32::MAX);
        let count = if self.kind == Kind::Data { blocks } else { 1 };
        let part = reader.part_after(last, self.location, self.block, count)?;
        let header = &part.header;
        let whole = header.extent().filter(|_| header.sequence == self.sequence && header.kind == self.kind);
        let meant = whole.is_some_and(|whole| {
            let skip = extent.first().0.saturating_sub(whole.first().0);
            whole.intersection(extent) == Some(extent) && (self.kind != Kind::Data || skip == u64::from(self.block))
        });
        Ok(meant.then_some(part))
    }

    /// Where `blocks` blocks from this one on stand in the log, with what is read and checked before them.
    pub fn ahead(&self, blocks: u64, block: BlockBytes) -> Ahead {
        let Location { segment, offset } = self.location;
        let read = (u64::from(self.block) + blocks) * (wide(TAG_BYTES) + block.as_u64());
        Ahead { segment, from: u64::from(offset), until: u64::from(offset) + wide(HEADER_BYTES) + read }
    }
}

/// Why an index cannot be used. Unless it is an error of the disk, the log still holds everything: begin again with
/// [`Index::anew`] and apply it from its start.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    #[error("{}: damaged: {what}; it is rebuilt from the log", path.display())]
    Damaged { path: std::path::PathBuf, what: &'static str },
    #[error("{}: it counts {found} blocks and the volume has {expected}; it is rebuilt from the log", path.display())]
    OtherSize { path: std::path::PathBuf, expected: u64, found: u64 },
    #[error("{}: index format {found}; this version reads format 1; it is rebuilt from the log", path.display())]
    Version { path: std::path::PathBuf, found: u32 },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The newest record for each block.
#[derive(Debug)]
pub struct Index {
    blocks: u64,
    groups: Vec<Option<Box<Group>>>,
    zeroes: Zeroes,
    present: u64,
    live: Live,
    /// Chunks that changed since the last checkpoint; some may be named twice.
    touched: Vec<u32>,
    checkpoint: Checkpoint,
}

/// Chunks, which indexes of several points share until one of them changes, and which of them changed since the last
/// checkpoint.
#[derive(Clone, Debug)]
struct Group {
    chunks: [Option<Arc<Chunk>>; 1024],
    touched: [u64; 16],
}

/// `order` is the sequence number, then two bits of kind, then the index in the record; zero where nothing was said.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Slot {
    pub(super) order: u64,
    pub(super) location: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Chunk {
    pub(super) slots: [Slot; CHUNK_SLOTS],
    newest: u64,
    data: u64,
}

impl IndexError {
    /// The log can make a new one.
    pub fn rebuild(&self) -> bool {
        match self {
            Self::Damaged { .. } | Self::OtherSize { .. } | Self::Version { .. } => true,
            Self::Store(_) => false,
        }
    }
}

impl Slot {
    fn new(sequence: Sequence, kind: u64, block: u64, location: Location) -> Self {
        Self { order: sequence.0 << 16 | kind << 14 | block, location: location.pack() }
    }

    pub(super) fn sequence(self) -> u64 {
        self.order >> 16
    }

    fn kind(self) -> u64 {
        self.order >> 14 & 3
    }

    fn segment(self) -> u32 {
        Location::unpack(self.location).segment
    }

    fn place(self) -> Option<Place> {
        let kind = match self.kind() {
            DATA => Kind::Data,
            ZERO => Kind::Zero,
            TRIM => Kind::Trim,
            _ => return None,
        };
        Some(Place {
            sequence: Sequence(self.sequence()),
            location: Location::unpack(self.location),
            block: u32::try_from(self.order & 0x3fff).unwrap_or_default(),
            kind,
        })
    }
}

impl Chunk {
    pub(super) fn filled(slot: Slot) -> Self {
        Self { slots: [slot; CHUNK_SLOTS], newest: slot.sequence(), data: 0 }
    }

    /// From an image on disk.
    pub(super) fn of(slots: [Slot; CHUNK_SLOTS]) -> Self {
        let newest = slots.iter().map(|slot| slot.sequence()).max().unwrap_or_default();
        let data = wide(slots.iter().filter(|slot| slot.kind() == DATA).count());
        Self { slots, newest, data }
    }

    /// Puts a slot in its place, unless what is there is newer. Says what was there before.
    fn put(&mut self, at: usize, slot: Slot) -> Option<Slot> {
        let old = self.slots.get_mut(at).filter(|old| old.sequence() <= slot.sequence())?;
        self.data += u64::from(slot.kind() == DATA);
        self.data -= u64::from(old.kind() == DATA);
        self.newest = self.newest.max(slot.sequence());
        Some(std::mem::replace(old, slot))
    }
}

impl Index {
    /// Opens the last checkpoint, with the state that was given to it; an empty index where there is none.
    pub fn open(dir: &Path, blocks: BlockCount) -> Result<(Self, Option<Vec<u8>>), IndexError> {
        let (checkpoint, loaded) = Checkpoint::open(dir, blocks)?;
        let mut index = Self::over(checkpoint, blocks);
        let Some(Loaded { chunks, zeroes, state }) = loaded else {
            return Ok((index, None));
        };
        for (number, slots) in chunks {
            let chunk = Chunk::of(slots);
            index.present += chunk.data;
            index.live.add_chunk(&chunk);
            let group = index.group(u64::from(number));
            group.chunks[narrow(u64::from(number) % GROUP_CHUNKS)] = Some(Arc::new(chunk));
        }
        index.zeroes = zeroes;
        Ok((index, Some(state)))
    }

    /// An empty index in place of whatever `dir` holds: the log is applied to it from its start.
    pub fn anew(dir: &Path, blocks: BlockCount) -> Result<Self, IndexError> {
        Ok(Self::over(Checkpoint::anew(dir, blocks)?, blocks))
    }

    fn over(checkpoint: Checkpoint, blocks: BlockCount) -> Self {
        let groups = blocks.0.div_ceil(CHUNK_BLOCKS * GROUP_CHUNKS);
        Self {
            blocks: blocks.0,
            groups: (0..groups).map(|_| None).collect(),
            zeroes: Zeroes::default(),
            present: 0,
            live: Live::default(),
            touched: Vec::new(),
            checkpoint,
        }
    }

    /// Takes in a record that stands at `location`. What it says of blocks past the volume's end is passed over.
    pub fn apply(&mut self, header: &Header, location: Location) {
        let Some(extent) = header.extent() else {
            return;
        };
        let (first, end) = (extent.first().0.min(self.blocks), extent.end().0.min(self.blocks));
        let sequence = header.sequence;
        match header.kind {
            Kind::Data => self.cover(first, end, Slot::new(sequence, DATA, 0, location), 1),
            Kind::Zero => self.zero(first, end, Slot::new(sequence, ZERO, 0, location)),
            Kind::Trim => self.zero(first, end, Slot::new(sequence, TRIM, 0, location)),
            Kind::Key | Kind::Cover | Kind::Void | Kind::Cut | Kind::Gap => {}
        }
    }

    /// What `lba` reads as; `None` where no record ever said. Zero and trim read as zeroes, as does `None`.
    pub fn lookup(&self, lba: Lba) -> Option<Place> {
        (lba.0 < self.blocks).then(|| self.slot(lba.0)).and_then(Slot::place)
    }

    /// What the blocks of `within` read as, in runs: neighbours in one record, or neighbours that read as zeroes
    /// because of one record, are one run. A run's place is that of its first block.
    pub fn places(&self, within: Extent) -> Vec<(BlockCount, Option<Place>)> {
        let mut runs: Vec<(BlockCount, Option<Place>)> = Vec::new();
        let mut next = None;
        self.stretches(within, |count, slot| {
            match runs.last_mut() {
                Some((last, _)) if next == Some(slot) => last.0 += count,
                _ => runs.push((BlockCount(count), slot.place())),
            }
            // Only blocks of data lie one after the other in a record, and these come one by one.
            next = Some(Slot { order: slot.order + u64::from(slot.kind() == DATA), location: slot.location });
        });
        runs
    }

    /// Runs of one record each, of blocks whose record is newer than `after`, from `from` on: `most` of them and a chunk's more,
    /// and where to go on.
    pub fn newer(&self, after: Sequence, from: Lba, most: usize) -> (Vec<(Extent, Place)>, Option<Lba>) {
        let mut runs = Vec::new();
        let mut at = from.0;
        while at < self.blocks {
            if runs.len() >= most {
                return (runs, Some(Lba(at)));
            }
            let number = at / CHUNK_BLOCKS;
            let group_end = (number / GROUP_CHUNKS + 1) * GROUP_CHUNKS;
            let bare = !matches!(self.groups.get(narrow(number / GROUP_CHUNKS)), Some(Some(_)));
            if bare && self.zeroes.within(number, group_end).next().is_none() {
                at = group_end * CHUNK_BLOCKS;
                continue;
            }
            let until = ((number + 1) * CHUNK_BLOCKS).min(self.blocks);
            let zeroes = || self.zeroes.get(number).unwrap_or_default().sequence();
            if self.chunk(number).map_or_else(zeroes, |chunk| chunk.newest) > after.0
                && let Some(within) = Extent::new(Lba(at), BlockCount(until - at))
            {
                let mut first = at;
                for (count, place) in self.places(within) {
                    let newer = place.filter(|place| place.sequence > after);
                    runs.extend(newer.and_then(|place| Some((Extent::new(Lba(first), count)?, place))));
                    first += count.0;
                }
            }
            at = until;
        }
        (runs, None)
    }

    /// The blocks of `within` in runs: how many, and do they hold data?
    pub fn runs(&self, within: Extent) -> Vec<(BlockCount, bool)> {
        self.runs_where(within, |slot| slot.kind() == DATA)
    }

    /// The blocks of `within` in runs: how many, and does any record say what they hold? Zeroed blocks count, too: over a
    /// base they hide what lies there.
    pub fn held(&self, within: Extent) -> Vec<(BlockCount, bool)> {
        self.runs_where(within, |slot| slot.place().is_some())
    }

    /// The first blocks of the parts, of so many blocks each, that hold data: at most `most` of them, the one with the newest record
    /// first; of one record's, in their order.
    pub fn written_last(&self, part_blocks: u64, most: usize) -> Vec<u64> {
        let part_blocks = part_blocks.max(1);
        // The oldest of those that are kept comes out first.
        let mut kept: BinaryHeap<Reverse<(u64, Reverse<u64>)>> = BinaryHeap::new();
        let mut keep = |newest: u64, part: u64| {
            if newest > 0 {
                kept.push(Reverse((newest, Reverse(part))));
                if kept.len() > most {
                    kept.pop();
                }
            }
        };
        let (mut part, mut newest) = (0, 0);
        let groups = (0_u64..).zip(&self.groups).filter_map(|(at, group)| Some((at, group.as_deref()?)));
        let chunks = groups.flat_map(|(at, group)| {
            (at * GROUP_CHUNKS..).zip(&group.chunks).filter_map(|(number, chunk)| Some((number, chunk.as_deref()?)))
        });
        for (number, chunk) in chunks {
            for (lba, slot) in (number * CHUNK_BLOCKS..).zip(&chunk.slots).filter(|(_, slot)| slot.kind() == DATA) {
                if lba / part_blocks != part {
                    keep(newest, part);
                    (part, newest) = (lba / part_blocks, 0);
                }
                newest = newest.max(slot.sequence());
            }
        }
        keep(newest, part);
        let mut newest_first = kept.into_vec();
        newest_first.sort_unstable();
        newest_first.into_iter().map(|Reverse((_, Reverse(part)))| part * part_blocks).collect()
    }

    /// Runs of blocks of which `is` says the same.
    fn runs_where(&self, within: Extent, is: impl Fn(Slot) -> bool) -> Vec<(BlockCount, bool)> {
        let mut runs: Vec<(BlockCount, bool)> = Vec::new();
        self.stretches(within, |count, slot| match (is(slot), runs.last_mut()) {
            (yes, Some((last, same))) if *same == yes => last.0 += count,
            (yes, _) => runs.push((BlockCount(count), yes)),
        });
        runs
    }

    /// Every block of `within` in turn, as stretches of blocks with one slot. A chunk without slots of its own is one stretch, and
    /// so is a group that nothing was ever said of: most of a sparse volume.
    fn stretches(&self, within: Extent, mut each: impl FnMut(u64, Slot)) {
        let end = within.end().0.min(self.blocks);
        let mut at = within.first().0.min(end);
        while at < end {
            let number = at / CHUNK_BLOCKS;
            let group_end = (number / GROUP_CHUNKS + 1) * GROUP_CHUNKS;
            let bare = !matches!(self.groups.get(narrow(number / GROUP_CHUNKS)), Some(Some(_)));
            let is_unsaid = bare && self.zeroes.within(number, group_end).next().is_none();
            let until = (if is_unsaid { group_end } else { number + 1 } * CHUNK_BLOCKS).min(end);
            match self.chunk(number) {
                Some(chunk) => (at..until).for_each(|lba| each(1, chunk.slots[narrow(lba % CHUNK_BLOCKS)])),
                None => each(until - at, self.zeroes.get(number).unwrap_or_default()),
            }
            at = until;
        }
        let beyond = within.end().0.saturating_sub(within.first().0.max(end));
        if beyond > 0 {
            each(beyond, Slot::default());
        }
    }

    /// Blocks of data that the index reads from this segment of the log.
    pub fn live(&self, segment: u32) -> BlockCount {
        BlockCount(self.live.of(segment))
    }

    /// Blocks that hold data.
    pub fn present(&self) -> BlockCount {
        BlockCount(self.present)
    }

    /// Makes the index as it stands durable, with `state`. After a crash in the middle the checkpoint before counts.
    pub fn checkpoint(&mut self, state: &[u8]) -> Result<(), IndexError> {
        self.touched.sort_unstable();
        self.touched.dedup();
        let changed = self.touched.iter().map(|number| {
            let group = self.groups.get(narrow(u64::from(*number) / GROUP_CHUNKS)).and_then(Option::as_deref);
            (*number, group.and_then(|group| group.chunks[narrow(u64::from(*number) % GROUP_CHUNKS)].as_deref()))
        });
        self.checkpoint.write(changed, &self.zeroes, state)?;
        self.touched.clear();
        self.groups.iter_mut().flatten().for_each(|group| group.touched = [0; 16]);
        Ok(())
    }

    /// Sets the blocks from `first` up to `end`; each further block is `step` further into the record.
    fn cover(&mut self, first: u64, end: u64, slot: Slot, step: u64) {
        let (mut at, mut slot) = (first, slot);
        while at < end {
            let until = ((at / CHUNK_BLOCKS + 1) * CHUNK_BLOCKS).min(end);
            let number = at / CHUNK_BLOCKS;
            let zeroes = &self.zeroes;
            let group = self.groups[narrow(number / GROUP_CHUNKS)].get_or_insert_with(empty_group);
            let chunk = group.chunks[narrow(number % GROUP_CHUNKS)]
                .get_or_insert_with(|| Arc::new(Chunk::filled(zeroes.get(number).unwrap_or_default())));
            let chunk = Arc::make_mut(chunk);
            let (before, mut tally) = (chunk.data, Tally::default());
            for lba in at..until {
                if let Some(old) = chunk.put(narrow(lba % CHUNK_BLOCKS), slot) {
                    tally.replaced(&mut self.live, old, slot);
                }
                slot.order += step;
            }
            tally.end(&mut self.live);
            self.present = self.present + chunk.data - before;
            self.touch(number);
            at = until;
        }
    }

    fn zero(&mut self, first: u64, end: u64, slot: Slot) {
        if first >= end {
            return;
        }
        let whole = first.div_ceil(CHUNK_BLOCKS);
        // The volume's end may cut its last chunk short.
        let until = if end == self.blocks { end.div_ceil(CHUNK_BLOCKS) } else { end / CHUNK_BLOCKS };
        if whole >= until {
            self.zero_part(first, end, slot);
            return;
        }
        self.zero_part(first, whole * CHUNK_BLOCKS, slot);
        self.zero_part(until * CHUNK_BLOCKS, end, slot);
        self.zeroes.overlay(whole, until, slot);
        let mut number = whole;
        while number < until {
            let group_end = ((number / GROUP_CHUNKS + 1) * GROUP_CHUNKS).min(until);
            if self.groups[narrow(number / GROUP_CHUNKS)].is_none() {
                number = group_end;
                continue;
            }
            self.zero_chunk(number, slot);
            number += 1;
        }
    }

    /// Gives a chunk back, unless something in it is newer.
    fn zero_chunk(&mut self, number: u64, slot: Slot) {
        let Some(Some(group)) = self.groups.get_mut(narrow(number / GROUP_CHUNKS)) else {
            return;
        };
        let place = &mut group.chunks[narrow(number % GROUP_CHUNKS)];
        match place {
            None => {}
            Some(chunk) if chunk.newest <= slot.sequence() => {
                self.present -= chunk.data;
                self.live.drop_chunk(chunk);
                *place = None;
                self.touch(number);
            }
            Some(_) => self.cover(number * CHUNK_BLOCKS, ((number + 1) * CHUNK_BLOCKS).min(self.blocks), slot, 0),
        }
    }

    /// Zeroes part of one or two chunks.
    fn zero_part(&mut self, first: u64, end: u64, slot: Slot) {
        let mut at = first;
        while at < end {
            let until = ((at / CHUNK_BLOCKS + 1) * CHUNK_BLOCKS).min(end);
            let number = at / CHUNK_BLOCKS;
            let newer = self.zeroes.get(number).is_some_and(|zeroed| zeroed.sequence() > slot.sequence());
            if self.chunk(number).is_some() || !newer {
                self.cover(at, until, slot, 0);
            }
            at = until;
        }
    }

    fn slot(&self, lba: u64) -> Slot {
        let number = lba / CHUNK_BLOCKS;
        match self.chunk(number) {
            Some(chunk) => chunk.slots[narrow(lba % CHUNK_BLOCKS)],
            None => self.zeroes.get(number).unwrap_or_default(),
        }
    }

    fn chunk(&self, number: u64) -> Option<&Chunk> {
        let group = self.groups.get(narrow(number / GROUP_CHUNKS))?.as_deref()?;
        group.chunks[narrow(number % GROUP_CHUNKS)].as_deref()
    }

    fn group(&mut self, number: u64) -> &mut Group {
        self.groups[narrow(number / GROUP_CHUNKS)].get_or_insert_with(empty_group)
    }

    /// Chunk numbers fit 32 bits: a volume has at most 2^40 blocks.
    fn touch(&mut self, number: u64) {
        let (word, bit) = (narrow(number % GROUP_CHUNKS / 64), 1 << (number % 64));
        let Some(Some(group)) = self.groups.get_mut(narrow(number / GROUP_CHUNKS)) else { return };
        let touched = &mut group.touched[word];
        if std::mem::replace(touched, *touched | bit) & bit == 0 {
            self.touched.extend(u32::try_from(number));
        }
    }
}

fn empty_group() -> Box<Group> {
    Box::new(Group { chunks: [const { None }; 1024], touched: [0; 16] })
}
