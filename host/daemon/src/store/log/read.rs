//! Reading the log: one record, one block of a record, or everything in order.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::num::NonZero;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use farseal_core::chain::Digest;
use farseal_core::journal::is_blank;
use farseal_core::record::{Framed, HEADER_BYTES, Header, HeaderError};
use rustix::buffer::spare_capacity;
use rustix::io::Errno;

use super::slice::{Entry, Kept, SLICE_HEAD_BYTES, SLICE_MAGIC};
use super::{COMPACTED, Flaw, LOG_HEADER_BYTES, Location, Shared, segment_path};
use crate::store::{StoreError, locked, narrow, shared, wide};

/// Files kept open for reading: a large log has thousands of segments.
const OPEN_MAX: usize = 64;
/// Bytes that a walk through the log reads at once.
pub(super) const WINDOW_BYTES: u64 = 4 << 20;
/// The first read of a record: a header, and so much for each block, as if blocks had 4 KiB.
const FIRST_READ_BLOCK_BYTES: u64 = 16 + 4096;
/// Blocks at most of which the first read may be: a record of more is read in two parts.
const FIRST_READ_BLOCKS_MAX: u64 = 256;

/// Why a record cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("segment {:08x} byte {}: the log has nothing there", .0.segment, .0.offset)]
    NotThere(Location),
    #[error("segment {:08x} byte {}: {flaw}", location.segment, location.offset)]
    Damaged { location: Location, flaw: Flaw },
    #[error("block {index} is asked for of a record of which {blocks} blocks are here")]
    NoSuchBlock { index: u32, blocks: u32 },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Some blocks of a record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Part {
    /// The whole record's.
    pub header: Header,
    /// For each block 16 bytes and its search tags; one tag where the record has no blocks.
    pub tags: Bytes,
    pub blocks: Bytes,
}

/// A record that was read and checked.
#[derive(Debug)]
pub struct LastRead {
    location: Location,
    entry: Entry,
    bytes: Bytes,
    /// [`Shared::discards`] before it was read: its place may be another's when there were more.
    discards: u64,
}

/// Bytes of a segment that are read soon.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ahead {
    pub segment: u32,
    pub from: u64,
    pub until: u64,
}

impl Ahead {
    /// What is read with one call, as it costs less than a second one.
    const GAP_BYTES_MAX: u64 = 64 << 10;

    /// Does `next` follow, with at most a little between?
    pub fn joins(&self, next: &Self) -> bool {
        let near = self.from..=self.until + Self::GAP_BYTES_MAX;
        self.segment == next.segment && near.contains(&next.from)
    }
}

/// Reads records by location, beside the one that appends.
#[derive(Clone, Debug)]
pub struct LogReader {
    shared: Arc<Shared>,
    /// The segments read last, newest first.
    open: Arc<Mutex<OpenFiles>>,
}

#[derive(Debug, Default)]
struct OpenFiles {
    files: VecDeque<(u32, Arc<File>)>,
    /// [`Shared::discards`] when they were opened.
    discards: u64,
}

impl LogReader {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, open: Arc::default() }
    }

    /// The record at `location`, its body checked against its checksum. A slice is not a record: see [`Self::part`].
    pub fn read(&self, location: Location) -> Result<(Framed, Bytes), ReadError> {
        let (entry, bytes) = self.entry(location, 1)?;
        let header = entry.framed.header;
        match entry.kept {
            Kept::Whole => Ok((entry.framed, bytes.slice(HEADER_BYTES..))),
            Kept::Runs(_) => Err(ReadError::NoSuchBlock { index: header.blocks, blocks: entry.kept.blocks(&header) }),
        }
    }

    /// `count` blocks of the record at `location` from its block `first` on, with their tags, whether the whole record is
    /// there or a slice that holds them. What stands there is checked against its checksum, all of it: for a
    /// pair that does not encrypt nothing else proves a block. A record without blocks has one tag, number 0.
    pub fn part(&self, location: Location, first: u32, count: u32) -> Result<Part, ReadError> {
        self.part_after(&mut None, location, first, count)
    }

    /// As [`Self::part`]. `last` is the record that was read last: it is not read and checked again where more of its blocks are
    /// wanted.
    pub fn part_after(
        &self,
        last: &mut Option<LastRead>,
        location: Location,
        first: u32,
        count: u32,
    ) -> Result<Part, ReadError> {
        let discards = self.shared.discards.load(Ordering::Acquire);
        let stands = |last: &LastRead| last.location == location && last.discards == discards;
        let (entry, bytes) = match last.take().filter(stands) {
            Some(LastRead { entry, bytes, .. }) => (entry, bytes),
            None => self.entry(location, u64::from(first) + u64::from(count))?,
        };
        let header = entry.framed.header;
        let missing = ReadError::NoSuchBlock { index: first, blocks: entry.kept.blocks(&header) };
        let (tags, blocks) = entry.part(&bytes, first, count).ok_or(missing)?;
        *last = Some(LastRead { location, entry, bytes, discards });
        Ok(Part { header, tags, blocks })
    }

    /// Tells the system what is read soon: it may fetch it meanwhile. Nothing follows if it does not.
    pub fn expect(&self, ahead: Ahead) {
        let len = NonZero::new(ahead.until.saturating_sub(ahead.from));
        if let (Some(_), Ok(file)) = (len, self.file(ahead.segment)) {
            let _ = rustix::fs::fadvise(&*file, ahead.from, len, rustix::fs::Advice::WillNeed);
        }
    }

    /// The record's header, and the tags of `count` of its blocks from `first` on, without the blocks: what a search compares. They
    /// are not checked here; whoever opens a block checks its tags.
    pub fn tags(&self, location: Location, first: u32, count: u32) -> Result<(Header, Bytes), ReadError> {
        let left = self.end_of(location)?.saturating_sub(u64::from(location.offset));
        let entry = self.head(location, narrow(left.min(wide(SLICE_HEAD_BYTES))), &mut Vec::new())?;
        let header = entry.framed.header;
        let missing = ReadError::NoSuchBlock { index: first, blocks: entry.kept.blocks(&header) };
        let (at, len) = entry.tags_at(first, count).ok_or(missing)?;
        let mut tags = vec![0; len];
        self.fill(location, at, &mut tags)?;
        Ok((header, tags.into()))
    }

    /// What stands at `location`, without its body.
    pub fn header(&self, location: Location) -> Result<Framed, ReadError> {
        let mut bytes = [0; SLICE_HEAD_BYTES];
        self.fill(location, 0, &mut bytes)?;
        let at = if bytes.starts_with(&SLICE_MAGIC) { 8 } else { 0 };
        Framed::decode(&bytes[at..]).map_err(|error| header_flaw(location, error))
    }

    /// Segments as they are, with where each ends.
    pub(in crate::store) fn segments(&self) -> Vec<(u32, u64)> {
        let plain = shared(&self.shared.segments);
        let compacted = shared(&self.shared.compacted);
        plain.iter().chain(compacted.iter()).map(|(number, end)| (*number, *end)).collect()
    }

    /// Where a segment ends; `None` if it is not there any more, because compaction put another in its place.
    pub(in crate::store) fn end(&self, number: u32) -> Option<u64> {
        let segments = if number & COMPACTED == 0 { &self.shared.segments } else { &self.shared.compacted };
        shared(segments).get(&number).copied()
    }

    /// The plain segment in which the first record at `at` or later lies, and where it ends.
    pub(super) fn segment_from(&self, at: Location) -> Option<(u32, u64)> {
        let segments = shared(&self.shared.segments);
        let mut later = segments.range(at.segment..COMPACTED).map(|(number, end)| (*number, *end));
        later.find(|(number, end)| {
            let begin = if *number == at.segment { u64::from(at.offset) } else { 0 };
            *end > begin.max(wide(LOG_HEADER_BYTES))
        })
    }

    pub(in crate::store) fn cursor(&self, number: u32, end: u64) -> Result<Cursor, StoreError> {
        Ok(Cursor::new(segment_path(&self.shared.dir, number), self.file(number)?, end))
    }

    /// The entry at `location` and its bytes, checked. It is expected to have so many blocks.
    fn entry(&self, location: Location, blocks: u64) -> Result<(Entry, Bytes), ReadError> {
        let end = self.end_of(location)?;
        let left = end.saturating_sub(u64::from(location.offset));
        if left < wide(HEADER_BYTES) {
            return Err(ReadError::NotThere(location));
        }
        let expected = wide(HEADER_BYTES) + blocks.clamp(1, FIRST_READ_BLOCKS_MAX) * FIRST_READ_BLOCK_BYTES;
        let mut bytes = Vec::new();
        let entry = self.head(location, narrow(left.min(expected)), &mut bytes)?;
        let want = entry.bytes();
        if wide(want) > left {
            return Err(ReadError::NotThere(location));
        }
        // A head says at most what a record can hold, so this allocates no more than that.
        self.read_up_to(location, want, &mut bytes)?;
        bytes.truncate(want);
        entry.check(&bytes).map_err(|flaw| ReadError::Damaged { location, flaw })?;
        Ok((entry, bytes.into()))
    }

    /// What the entry at `location` says of itself. At least `first` bytes of it are read into `bytes`, and more if its head is longer.
    fn head(&self, location: Location, first: usize, bytes: &mut Vec<u8>) -> Result<Entry, ReadError> {
        let mut want = first;
        loop {
            self.read_up_to(location, want, bytes)?;
            match Entry::head(bytes).map_err(|flaw| ReadError::Damaged { location, flaw })? {
                Ok(entry) => return Ok(entry),
                Err(more) => want = more,
            }
        }
    }

    fn end_of(&self, location: Location) -> Result<u64, ReadError> {
        self.end(location.segment).ok_or(ReadError::NotThere(location))
    }

    /// Reads on until `bytes` are the first `want` bytes at `location`, or more, if they are more already.
    fn read_up_to(&self, location: Location, want: usize, bytes: &mut Vec<u8>) -> Result<(), ReadError> {
        if bytes.len() >= want {
            return Ok(());
        }
        if u64::from(location.offset) + wide(want) > self.end_of(location)? {
            return Err(ReadError::NotThere(location));
        }
        bytes.reserve_exact(want - bytes.len());
        let file = self.file(location.segment)?;
        while bytes.len() < want {
            let at = u64::from(location.offset) + wide(bytes.len());
            // What is read may be more than wanted: the allocator gives room as it likes.
            match rustix::io::pread(&*file, spare_capacity(bytes), at) {
                Ok(0) => return Err(self.unread(location, io::ErrorKind::UnexpectedEof.into())),
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(self.unread(location, errno.into())),
            }
        }
        Ok(())
    }

    fn unread(&self, location: Location, source: io::Error) -> ReadError {
        StoreError::io(&segment_path(&self.shared.dir, location.segment), "read a record", source).into()
    }

    /// Reads `into` from `skip` bytes after `location`, all of it or an error.
    fn fill(&self, location: Location, skip: u64, into: &mut [u8]) -> Result<(), ReadError> {
        if into.is_empty() {
            return Ok(());
        }
        let at = u64::from(location.offset) + skip;
        if at + wide(into.len()) > self.end_of(location)? {
            return Err(ReadError::NotThere(location));
        }
        self.file(location.segment)?.read_exact_at(into, at).map_err(|source| self.unread(location, source))
    }

    fn file(&self, number: u32) -> Result<Arc<File>, StoreError> {
        let mut open = locked(&self.open);
        let discards = self.shared.discards.load(Ordering::Acquire);
        if open.discards != discards {
            *open = OpenFiles { files: VecDeque::new(), discards };
        }
        let files = &mut open.files;
        if let Some(at) = files.iter().position(|(known, _)| *known == number)
            && let Some(found) = files.remove(at)
        {
            let file = Arc::clone(&found.1);
            files.push_front(found);
            return Ok(file);
        }
        let path = segment_path(&self.shared.dir, number);
        let file = Arc::new(File::open(&path).map_err(|source| StoreError::io(&path, "open the segment", source))?);
        files.push_front((number, Arc::clone(&file)));
        files.truncate(OPEN_MAX);
        Ok(file)
    }
}

impl From<ReadError> for StoreError {
    fn from(error: ReadError) -> Self {
        let damaged = |location: Location, what| Self::Damaged {
            path: PathBuf::from(format!("{:08x}.fsl", location.segment)),
            offset: u64::from(location.offset),
            what,
        };
        match error {
            ReadError::NotThere(location) => damaged(location, "the log has nothing there"),
            ReadError::Damaged { location, flaw: Flaw::Body { .. } } => {
                damaged(location, "the record's bytes do not match their checksum")
            }
            ReadError::Damaged { location, .. } => damaged(location, "no whole record starts there"),
            ReadError::NoSuchBlock { .. } => damaged(Location::START, "the record does not carry this block"),
            ReadError::Store(error) => error,
        }
    }
}

/// A walk through a file, with one large read at a time.
#[derive(Debug)]
pub(in crate::store) struct Cursor {
    path: PathBuf,
    file: Arc<File>,
    end: u64,
    base: u64,
    window: Vec<u8>,
    /// Bytes that are read at once.
    ahead: u64,
    read: u64,
}

impl Cursor {
    pub(in crate::store) fn new(path: PathBuf, file: Arc<File>, end: u64) -> Self {
        Self { path, file, end, base: 0, window: Vec::new(), ahead: WINDOW_BYTES, read: 0 }
    }

    /// One that reads less at once, for whoever passes most over.
    pub(super) fn reading(self, ahead: u64) -> Self {
        Self { ahead, ..self }
    }

    pub(in crate::store) fn path(&self) -> &Path {
        &self.path
    }

    pub(in crate::store) fn end(&self) -> u64 {
        self.end
    }

    /// Bytes that were read from the file so far.
    pub(super) fn read(&self) -> u64 {
        self.read
    }

    /// `len` bytes at `at`, fewer where the file ends.
    pub(in crate::store) fn bytes(&mut self, at: u64, len: u64) -> Result<&[u8], StoreError> {
        let until = at.saturating_add(len).min(self.end);
        let at = at.min(until);
        if at < self.base || until > self.base + wide(self.window.len()) {
            let goal = until.max(at.saturating_add(self.ahead).min(self.end));
            self.window.resize(narrow(goal - at), 0);
            (self.base, self.read) = (at, self.read + goal - at);
            self.file
                .read_exact_at(&mut self.window, at)
                .map_err(|source| StoreError::io(&self.path, "read the segment", source))?;
        }
        Ok(&self.window[narrow(at - self.base)..narrow(until - self.base)])
    }

    /// Is there nothing but zeroes from `at` on: room that was reserved and not used?
    pub(in crate::store) fn blank_from(&mut self, mut at: u64) -> Result<bool, StoreError> {
        while at < self.end {
            let piece = self.bytes(at, WINDOW_BYTES)?;
            if !is_blank(piece) {
                return Ok(false);
            }
            at += wide(piece.len());
        }
        Ok(true)
    }
}

/// The head of the record at `at`, all of which is there, its body unread; or what is wrong with it.
pub(super) fn head_at(cursor: &mut Cursor, at: u64) -> Result<Result<Framed, Flaw>, StoreError> {
    let framed = Framed::decode(cursor.bytes(at, wide(HEADER_BYTES))?).map_err(Flaw::Header);
    Ok(framed.and_then(|framed| {
        let short = at + wide(framed.header.record_bytes()) > cursor.end();
        if short { Err(Flaw::Short { sequence: framed.header.sequence }) } else { Ok(framed) }
    }))
}

/// The whole record at `at`, checked, and its digest; or what is wrong with it.
pub(in crate::store) fn record_at(cursor: &mut Cursor, at: u64) -> Result<Result<(Framed, Digest), Flaw>, StoreError> {
    let framed = match head_at(cursor, at)? {
        Ok(framed) => framed,
        Err(flaw) => return Ok(Err(flaw)),
    };
    let header = framed.header;
    let body = &cursor.bytes(at, wide(header.record_bytes()))?[HEADER_BYTES..];
    if !framed.body_matches(body) {
        return Ok(Err(body_flaw(&header)));
    }
    Ok(Ok((framed, Digest::of(&header.encode(framed.body_crc), &body[..header.tag_bytes()]))))
}

fn body_flaw(header: &Header) -> Flaw {
    Flaw::Body { sequence: header.sequence, lba: header.lba.0, blocks: header.blocks }
}

fn header_flaw(location: Location, error: HeaderError) -> ReadError {
    ReadError::Damaged { location, flaw: Flaw::Header(error) }
}
