//! The remote's log: records verbatim, in the order in which they came, in segments that only grow.
//!
//! ```text
//! <number, 8 hex digits>.fsl   segment header (64 bytes), then records, back to back; a header says where the segment
//!                              before it ended, so that the loss of a whole end does not look like the end
//! log.mark                     how far a sync has reached: two slots of 512 bytes, the newer one counts
//! <number, 8 hex digits>.fsc   what compaction kept of other segments: segment header, then records and slices of them
//! log.manifest                 which of them count, and which segments they replace
//! ```
//!
//! Every sync writes the mark after it, and once a second makes the mark itself durable. A restart scans: what is
//! damaged below the mark was promised, and that is said; what is torn above it was not, and is cut off.

mod compact;
mod manifest;
mod mark;
mod read;
mod recover;
mod slice;
mod walk;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use farseal_core::chain::Digest;
use farseal_core::record::{Header, HeaderError};
use farseal_core::units::{ByteLen, PairId, Sequence};

pub use self::compact::{CompactError, Compacted, Compactor};
use self::manifest::Manifest;
use self::mark::Mark;
use self::read::WINDOW_BYTES;
pub use self::read::{Ahead, LastRead, LogReader, Part, ReadError};
pub(super) use self::read::{Cursor, record_at};
pub use self::slice::{Kept, Run};
pub(super) use self::slice::{entry_at, entry_bytes};
pub use self::walk::Walk;
use super::disk::{Disk, RealDisk, Tail};
use super::files::{self, OpenDir};
use super::{StoreError, exclusive, locked, narrow, shared, wide};

/// Bytes of a segment: 128 MiB, a hundred of the largest records.
pub const LOG_SEGMENT_BYTES: ByteLen = ByteLen(128 << 20);

/// Bytes that are buffered at most before they are written: what stays in a core's cache.
const BUFFER_BYTES: usize = 512 << 10;
/// A record of this size is written at once, with what is buffered before it: copying costs more than the call.
const DIRECT_BYTES: usize = 64 << 10;
/// Room is reserved in steps of this, so that a log never takes much more than it holds.
const RESERVE_BYTES: u64 = 16 << 20;

pub(super) const LOG_HEADER_BYTES: usize = 64;
const MAGIC: [u8; 4] = *b"FSL1";
const VERSION: u8 = 1;
/// Set in the numbers of compacted segments: a series of their own.
const COMPACTED: u32 = 1 << 31;

/// Where a record starts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Location {
    pub segment: u32,
    /// In bytes, from the start of the segment's file.
    pub offset: u32,
}

/// What a log that is not open yet says of the order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Order {
    /// Nothing was ever compacted: it can be counted from its beginning.
    Whole,
    /// Records are gone that cannot be counted again. The state as the newest compaction left it; `None` if the manifest
    /// was damaged.
    Since(Option<Vec<u8>>),
}

/// A record that a restart found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Logged {
    pub header: Header,
    pub body_crc: u32,
    pub digest: Digest,
    pub location: Location,
}

/// What is wrong with bytes that should be a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Flaw {
    #[error("{0}")]
    Header(HeaderError),
    #[error("record {sequence} is cut short")]
    Short { sequence: Sequence },
    #[error("record {sequence} ({blocks} blocks from {lba}): its bytes do not match their checksum")]
    Body { sequence: Sequence, lba: u64, blocks: u32 },
    #[error("a slice of record {sequence} says what no slice can")]
    Slice { sequence: Sequence },
    #[error("no log segment starts here: the header is missing or damaged")]
    Segment,
    #[error("the segment ends here, and the next one says that it ended at byte {expected}")]
    End { expected: u32 },
}

/// Why a log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error(
        "{}: byte {offset}: {flaw}; everything up to segment {:08x} byte {} was promised: restore the file from a copy, \
         or copy the volume again", path.display(), durable.segment, durable.offset
    )]
    Damaged { path: PathBuf, offset: u64, flaw: Flaw, durable: Location },
    #[error("{}: log format {found}; this version reads format 1", path.display())]
    Version { path: PathBuf, found: u8 },
    #[error("{}: it belongs to pair {found}, not to {expected}", path.display())]
    OtherPair { path: PathBuf, expected: PairId, found: PairId },
    #[error("{}: segment {number:08x} is missing; restore it from a copy, or copy the volume again", dir.display())]
    Missing { dir: PathBuf, number: u32 },
    #[error("{}: this compacted segment is missing or cut short; restore it from a copy, or copy the volume again", path.display())]
    MissingCompacted { path: PathBuf },
    #[error("{}: the log ends before segment {:08x} byte {}, which a checkpoint covers: it is not the newest copy",
        dir.display(), from.segment, from.offset)]
    Behind { dir: PathBuf, from: Location },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The one that appends.
#[derive(Debug)]
pub struct Log {
    pair: PairId,
    segment_bytes: u64,
    disk: Arc<dyn Disk>,
    shared: Arc<Shared>,
    /// The newest segment, if there is one.
    tail: Option<(u32, Tail)>,
    buffer: Vec<u8>,
    buffered: u64,
    manifest: Manifest,
}

/// What a plain segment or a compacted one holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentUse {
    pub number: u32,
    pub bytes: ByteLen,
    /// Blocks of data that compaction put there; `None` in a plain segment.
    pub compacted: Option<u64>,
}

/// Makes flushed records durable.
#[derive(Clone, Debug)]
pub struct LogSyncer {
    disk: Arc<dyn Disk>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    /// Of `dir`.
    entries: OpenDir,
    /// Where each plain segment ends.
    segments: RwLock<BTreeMap<u32, u64>>,
    /// Where each compacted one ends.
    compacted: RwLock<BTreeMap<u32, u64>>,
    /// What the next compacted one is called.
    next_compacted: AtomicU32,
    unsynced: Mutex<Unsynced>,
    /// One sync at a time.
    mark: Mutex<Mark>,
    /// How often segments were taken back or replaced: files that were opened before are not what their names say.
    discards: AtomicU64,
}

#[derive(Debug, Default)]
struct Unsynced {
    /// Records since the log was opened, without those that were discarded.
    flushed: u64,
    synced: u64,
    flushed_end: Location,
    durable_end: Location,
    files: Vec<(PathBuf, Arc<File>)>,
    new_entries: bool,
    lost: bool,
}

impl Location {
    /// Before the first record.
    pub const START: Self = Self { segment: 0, offset: 0 };

    /// In one word that sorts the same way.
    pub fn pack(self) -> u64 {
        u64::from(self.segment) << 32 | u64::from(self.offset)
    }

    pub fn unpack(word: u64) -> Self {
        Self {
            segment: u32::try_from(word >> 32).unwrap_or(u32::MAX),
            offset: u32::try_from(word & u64::from(u32::MAX)).unwrap_or(u32::MAX),
        }
    }

    fn at(segment: u32, offset: u64) -> Self {
        Self { segment, offset: u32::try_from(offset).unwrap_or(u32::MAX) }
    }
}

impl Log {
    /// Recovers what `dir` holds and shows `each` record of plain segments from `from` on, in the order in which they came;
    /// all of them are durable once this is through. A torn end is cut off; damage to what was promised is refused.
    pub fn open(dir: &Path, pair: PairId, from: Location, each: &mut dyn FnMut(Logged)) -> Result<Self, LogError> {
        Self::open_on(Arc::new(RealDisk), dir, pair, from, LOG_SEGMENT_BYTES, each)
    }

    /// As [`Self::open`], on another disk and with segments of another size.
    pub fn open_on(
        disk: Arc<dyn Disk>,
        dir: &Path,
        pair: PairId,
        from: Location,
        segment_bytes: ByteLen,
        each: &mut dyn FnMut(Logged),
    ) -> Result<Self, LogError> {
        files::create_private_dir(dir)?;
        let manifest = Manifest::load(dir, pair)?;
        manifest::check(dir, &manifest)?;
        for stray in manifest::strays(dir, &manifest)? {
            files::remove_durably(&stray)?;
        }
        let mut mark = Mark::open(dir, pair)?;
        let found = recover::recover(&disk, dir, pair, from, mark.durable(), &manifest, each)?;
        let end = found.tail.as_ref().map_or(Location::START, |(number, tail)| Location::at(*number, tail.end));
        mark.advance(end, true)?;
        let unsynced = Unsynced { flushed_end: end, durable_end: end, ..Unsynced::default() };
        let shared = Shared {
            dir: dir.to_owned(),
            entries: OpenDir::open(dir)?,
            segments: RwLock::new(found.segments),
            compacted: RwLock::new(manifest.compacted.iter().map(|(number, known)| (*number, known.bytes)).collect()),
            next_compacted: AtomicU32::new(
                manifest.compacted.last_key_value().map_or(0, |(number, _)| (number & !COMPACTED) + 1),
            ),
            unsynced: Mutex::new(unsynced),
            mark: Mutex::new(mark),
            discards: AtomicU64::new(0),
        };
        Ok(Self {
            pair,
            segment_bytes: segment_bytes.0.min(1 << 31),
            disk,
            shared: Arc::new(shared),
            tail: found.tail,
            buffer: Vec::new(),
            buffered: 0,
            manifest,
        })
    }

    /// What is left of the order in `dir`, before the log there is opened.
    pub fn order(dir: &Path, pair: PairId) -> Result<Order, LogError> {
        let manifest = Manifest::load(dir, pair)?;
        let whole = manifest.gone.is_empty() && manifest.compacted.is_empty();
        Ok(if whole { Order::Whole } else { Order::Since(manifest.state) })
    }

    /// Gives a record its place. Buffered: nobody may count on reading it before [`Self::flush`]. After an error the record has
    /// no place, and what was buffered before it is still there.
    pub fn append(&mut self, record: &[u8], header: &Header) -> Result<Location, StoreError> {
        if record.len() != header.record_bytes() {
            let (said, found) = (wide(header.record_bytes()), wide(record.len()));
            return Err(StoreError::Commit { path: self.shared.dir.clone(), said, found });
        }
        let full = |(_, tail): &(u32, Tail)| {
            let end = tail.end + wide(self.buffer.len());
            end + wide(record.len()) > self.segment_bytes && end > wide(LOG_HEADER_BYTES)
        };
        if self.tail.as_ref().is_none_or(full) {
            self.roll()?;
        } else if self.buffer.len() + record.len() > BUFFER_BYTES {
            self.flush()?;
        }
        let location = self.end();
        if record.len() >= DIRECT_BYTES {
            self.write_out(record, 1)?;
        } else {
            self.buffer.extend_from_slice(record);
            self.buffered += 1;
        }
        Ok(location)
    }

    /// Writes the buffer out: readers see it, and a sync covers it.
    pub fn flush(&mut self) -> Result<(), StoreError> {
        if self.buffer.is_empty() { Ok(()) } else { self.write_out(&[], 0) }
    }

    /// Can everything be read that was appended?
    pub fn is_flushed(&self) -> bool {
        self.buffer.is_empty()
    }

    pub fn syncer(&self) -> LogSyncer {
        LogSyncer { disk: Arc::clone(&self.disk), shared: Arc::clone(&self.shared) }
    }

    /// Takes back everything that is not durable, buffered or written: there was no room for all of it, and nothing of
    /// it was promised.
    pub fn discard_unsynced(&mut self) -> Result<(), StoreError> {
        self.buffer.clear();
        self.buffered = 0;
        let shared = Arc::clone(&self.shared);
        let _one = locked(&shared.mark);
        let mut unsynced = locked(&shared.unsynced);
        let durable = unsynced.durable_end;
        let mut segments = exclusive(&shared.segments);
        while let Some(newest) = segments.last_entry().filter(|newest| Location::at(*newest.key(), 0) >= durable) {
            let path = segment_path(&shared.dir, *newest.key());
            fs::remove_file(&path).map_err(|source| StoreError::io(&path, "remove the segment", source))?;
            newest.remove();
        }
        shared.discards.fetch_add(1, Ordering::AcqRel);
        unsynced.flushed = unsynced.synced;
        unsynced.flushed_end = durable;
        self.tail = match (self.tail.take(), segments.last_entry()) {
            (_, None) => None,
            (tail, Some(mut newest)) => {
                newest.insert(u64::from(durable.offset));
                let number = *newest.key();
                let mut tail = match tail {
                    Some((at, tail)) if at == number => tail,
                    _ => reopen(&self.disk, &shared.dir, number)?,
                };
                tail.end = u64::from(durable.offset);
                let cut = tail.cut();
                unsynced.touch(&tail);
                self.tail = Some((number, tail));
                return cut;
            }
        };
        Ok(())
    }

    pub fn reader(&self) -> LogReader {
        LogReader::new(Arc::clone(&self.shared))
    }

    /// Where the next record goes, unless it does not fit the segment any more.
    pub fn end(&self) -> Location {
        match &self.tail {
            Some((number, tail)) => Location::at(*number, tail.end + wide(self.buffer.len())),
            None => Location::START,
        }
    }

    /// Where what is durable ends.
    pub fn durable_end(&self) -> Location {
        locked(&self.shared.unsynced).durable_end
    }

    /// Bytes of all segments, as far as they are written.
    pub fn bytes(&self) -> ByteLen {
        let plain: u64 = shared(&self.shared.segments).values().sum();
        ByteLen(plain + shared(&self.shared.compacted).values().sum::<u64>())
    }

    /// Bytes of plain segments from a place on.
    pub fn bytes_from(&self, from: Location) -> ByteLen {
        let segments = shared(&self.shared.segments);
        let all: u64 = segments.range(from.segment..).map(|(_, end)| end).sum();
        ByteLen(all.saturating_sub(u64::from(from.offset)))
    }

    /// Writes the buffer and what follows it; after an error, neither.
    fn write_out(&mut self, more: &[u8], records: u64) -> Result<(), StoreError> {
        let Some((number, tail)) = &mut self.tail else {
            return Ok(());
        };
        let goal = tail.end + wide(self.buffer.len() + more.len());
        let reserve = goal.next_multiple_of(RESERVE_BYTES).min(self.segment_bytes);
        tail.append(&mut [IoSlice::new(&self.buffer), IoSlice::new(more)], reserve)?;
        self.buffer.clear();
        exclusive(&self.shared.segments).insert(*number, tail.end);
        let mut unsynced = locked(&self.shared.unsynced);
        unsynced.flushed += std::mem::take(&mut self.buffered) + records;
        unsynced.flushed_end = Location::at(*number, tail.end);
        unsynced.touch(tail);
        Ok(())
    }

    /// Begins a segment, if the newest has any record: it holds all that comes from here on. What is durable ends in it once this is.
    pub fn begin_segment(&mut self) -> Result<(), StoreError> {
        let begun = wide(LOG_HEADER_BYTES);
        if self.tail.as_ref().is_none_or(|(_, tail)| tail.end + wide(self.buffer.len()) <= begun) {
            return Ok(());
        }
        self.roll()?;
        locked(&self.shared.unsynced).flushed_end = self.end();
        Ok(())
    }

    /// Begins the next segment.
    fn roll(&mut self) -> Result<(), StoreError> {
        self.flush()?;
        let (number, before) = match &mut self.tail {
            Some((number, tail)) => {
                if let Err(error) = tail.cut() {
                    tracing::warn!(path = %tail.path.display(), %error, "the reserve of a full segment stays");
                }
                (*number + 1, Location::at(*number, tail.end).offset)
            }
            None => (0, 0),
        };
        let path = segment_path(&self.shared.dir, number);
        // A file of this name is what an attempt left behind that could not be undone.
        let _ = fs::remove_file(&path);
        let mut tail = Tail::create(Arc::clone(&self.disk), path.clone())?;
        let header = encode_header(self.pair, number, before);
        if let Err(error) = tail.append(&mut [IoSlice::new(&header)], RESERVE_BYTES.min(self.segment_bytes)) {
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        exclusive(&self.shared.segments).insert(number, tail.end);
        let mut unsynced = locked(&self.shared.unsynced);
        unsynced.new_entries = true;
        unsynced.touch(&tail);
        self.tail = Some((number, tail));
        Ok(())
    }
}

impl LogSyncer {
    /// Makes everything flushed so far durable, and says how many records since the log was opened are. After one
    /// failure it fails for ever.
    pub fn sync(&self) -> Result<u64, StoreError> {
        let mut mark = locked(&self.shared.mark);
        let (flushed, end, files, new_entries) = {
            let mut unsynced = locked(&self.shared.unsynced);
            if unsynced.lost {
                return Err(StoreError::SyncLost { path: self.shared.dir.clone() });
            }
            let files = std::mem::take(&mut unsynced.files);
            (unsynced.flushed, unsynced.flushed_end, files, std::mem::take(&mut unsynced.new_entries))
        };
        if let Err(error) = self.sync_all(&files, new_entries) {
            locked(&self.shared.unsynced).lost = true;
            return Err(error);
        }
        if let Err(error) = mark.advance(end, false) {
            tracing::warn!(%error, "the log's mark stays behind: a restart takes more for torn than was");
        }
        let mut unsynced = locked(&self.shared.unsynced);
        unsynced.synced = flushed;
        unsynced.durable_end = end;
        Ok(flushed)
    }

    fn sync_all(&self, files: &[(PathBuf, Arc<File>)], new_entries: bool) -> Result<(), StoreError> {
        for (path, file) in files {
            self.disk.sync(file).map_err(|source| StoreError::SyncFailed { path: path.clone(), source })?;
        }
        if new_entries { self.shared.entries.sync() } else { Ok(()) }
    }
}

impl Unsynced {
    fn touch(&mut self, tail: &Tail) {
        if !self.files.iter().any(|(_, file)| Arc::ptr_eq(file, &tail.file)) {
            self.files.push((tail.path.clone(), Arc::clone(&tail.file)));
        }
    }
}

pub(super) fn segment_path(dir: &Path, number: u32) -> PathBuf {
    if number & COMPACTED == 0 {
        dir.join(format!("{number:08x}.fsl"))
    } else {
        dir.join(format!("{:08x}.fsc", number & !COMPACTED))
    }
}

fn reopen(disk: &Arc<dyn Disk>, dir: &Path, number: u32) -> Result<Tail, StoreError> {
    let path = segment_path(dir, number);
    let file = File::options()
        .read(true)
        .write(true)
        .open(&path)
        .map_err(|source| StoreError::io(&path, "open the segment", source))?;
    let end = file.metadata().map_err(|source| StoreError::io(&path, "find its size", source))?.len();
    Ok(Tail::resume(Arc::clone(disk), path, Arc::new(file), end))
}

fn encode_header(pair: PairId, number: u32, before: u32) -> [u8; LOG_HEADER_BYTES] {
    let mut out = [0; LOG_HEADER_BYTES];
    out[0..4].copy_from_slice(&MAGIC);
    out[4] = VERSION;
    out[8..24].copy_from_slice(&pair.0);
    out[24..28].copy_from_slice(&number.to_le_bytes());
    out[28..32].copy_from_slice(&before.to_le_bytes());
    let crc = crc32c::crc32c(&out[..60]);
    out[60..].copy_from_slice(&crc.to_le_bytes());
    out
}

/// The pair of a segment's header, and where the segment before it ended; `None` if that is no header of this segment.
/// Or the version that is not ours.
pub(super) fn decode_header(bytes: &[u8], number: u32) -> Option<Result<(PairId, u32), u8>> {
    let bytes = bytes.get(..LOG_HEADER_BYTES)?;
    let (body, crc) = bytes.split_at(narrow(60));
    let whole = crc == crc32c::crc32c(body).to_le_bytes().as_slice() && body.starts_with(&MAGIC);
    if !whole || body[24..28] != number.to_le_bytes() {
        return None;
    }
    let mut pair = PairId::default();
    pair.0.copy_from_slice(&body[8..24]);
    let before = u32::from_le_bytes(body[28..32].try_into().ok()?);
    Some(if body[4] == VERSION { Ok((pair, before)) } else { Err(body[4]) })
}
