//! The primary's journal in a directory: segments in the byte format of [`farseal_core::journal`], appended with one
//! vectored write a commit, synced by another thread, read verbatim for the link.
//!
//! A segment is named `<first sequence, 16 hex digits>.fsj`. The newest segment that is known to hold a durable record
//! is never removed: it says where the lane stands.

mod read;
mod recover;

use std::collections::BTreeMap;
use std::fs;
use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock};

use bytes::Bytes;
use farseal_core::chain::Chain;
use farseal_core::journal::{
    COMMIT_HEADER_BYTES, CommitHeader, Damage, SEGMENT_HEADER_BYTES, SegmentError, SegmentHeader, Tear,
};
use farseal_core::limits::JOURNAL_SEGMENT_BYTES;
use farseal_core::primary::Logged;
use farseal_core::record::Framed;
use farseal_core::units::{ByteLen, Generation, Incarnation, PairId, Sequence, WallTime};

pub use self::read::JournalReader;
use super::disk::{Disk, RealDisk, Tail};
use super::files::{self, OpenDir};
use super::{StoreError, exclusive, locked, shared, wide};

/// What a restart found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JournalRecovery {
    /// Of the oldest record; none in an empty journal.
    pub first: Sequence,
    pub last: Sequence,
    /// After `last`.
    pub chain: Chain,
    /// Before `first`.
    pub chain_before: Chain,
    /// Of the newest segment.
    pub generation: Generation,
    pub records: Vec<Logged>,
    /// Where a torn end was cut off, and what was wrong there. Nothing of it was ever promised.
    pub cut: Option<(PathBuf, Tear)>,
}

/// Why a journal cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("{}: {damage}; restore the file from a copy, or have the secondary take over", path.display())]
    Damaged { path: PathBuf, damage: Damage },
    #[error("{}: {source}", path.display())]
    Segment { path: PathBuf, source: SegmentError },
    #[error("{}: its first record is {first}, which is not what it is named for", path.display())]
    Misnamed { path: PathBuf, first: Sequence },
    #[error("{}: record {found} comes after record {before} again; remove the copy that does not belong", path.display())]
    Overlap { path: PathBuf, before: Sequence, found: Sequence },
    #[error("{}: it does not follow from the segment before it; one of them is from another history", path.display())]
    Chain { path: PathBuf },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Room is reserved in steps of this: a restart reads what is reserved and finds it blank, so that all of a segment at
/// once would cost every start 64 MiB of reading.
const RESERVE_BYTES: u64 = 8 << 20;

/// The one that appends.
#[derive(Debug)]
pub struct Journal {
    pair: PairId,
    segment_bytes: u64,
    disk: Arc<dyn Disk>,
    shared: Arc<Shared>,
    under: Option<(Generation, Incarnation)>,
    /// The segment that grows, and its tail.
    open: Option<(Arc<Segment>, Tail)>,
}

/// Where the oldest and the newest segment begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Begins {
    pub oldest: Sequence,
    pub newest: Sequence,
}

/// Makes appended records durable.
#[derive(Clone, Debug)]
pub struct Syncer {
    disk: Arc<dyn Disk>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    /// Of `dir`.
    entries: OpenDir,
    /// By first sequence number.
    segments: RwLock<BTreeMap<Sequence, Arc<Segment>>>,
    unsynced: Mutex<Unsynced>,
    /// One sync at a time.
    syncing: Mutex<()>,
}

#[derive(Debug)]
struct Segment {
    path: PathBuf,
    file: Arc<fs::File>,
    first: Sequence,
    places: RwLock<Places>,
}

/// Where a segment's records stand: offset and length of each, from `first` on.
#[derive(Debug, Default)]
struct Places {
    records: Vec<(u32, u32)>,
    end: u64,
}

#[derive(Debug, Default)]
struct Unsynced {
    appended: Sequence,
    synced: Sequence,
    segments: Vec<Arc<Segment>>,
    new_entries: bool,
    lost: bool,
}

impl Journal {
    /// Recovers what `dir` holds. `known_durable` is the greatest mark that anything else knows: a checkpoint, or the
    /// peer's acknowledgement. Everything that comes back is durable.
    ///
    /// A torn end is cut off. Damage below any mark is refused, with what it covers: nothing promised is passed over.
    pub fn open(dir: &Path, pair: PairId, known_durable: Sequence) -> Result<(Self, JournalRecovery), JournalError> {
        Self::open_on(Arc::new(RealDisk), dir, pair, known_durable, JOURNAL_SEGMENT_BYTES)
    }

    /// As [`Self::open`], on another disk and with segments of another size.
    pub fn open_on(
        disk: Arc<dyn Disk>,
        dir: &Path,
        pair: PairId,
        known_durable: Sequence,
        segment_bytes: ByteLen,
    ) -> Result<(Self, JournalRecovery), JournalError> {
        files::create_private_dir(dir)?;
        let (segments, recovery) = recover::recover(disk.as_ref(), dir, pair, known_durable)?;
        let unsynced = Unsynced { appended: recovery.last, synced: recovery.last, ..Unsynced::default() };
        let shared = Shared {
            dir: dir.to_owned(),
            entries: OpenDir::open(dir)?,
            segments: RwLock::new(segments),
            unsynced: Mutex::new(unsynced),
            syncing: Mutex::new(()),
        };
        let journal =
            Self { pair, segment_bytes: segment_bytes.0, disk, shared: Arc::new(shared), under: None, open: None };
        Ok((journal, recovery))
    }

    /// The next append opens a new segment under these.
    pub fn begin(&mut self, generation: Generation, incarnation: Incarnation) {
        self.under = Some((generation, incarnation));
        self.close();
    }

    /// Appends a commit with one write. `chain_before` is the running hash before its first record, which goes in the
    /// header of a new segment; with `restart`, one begins here. After an error nothing of the commit is in the
    /// journal, and the same append may be tried again.
    pub fn append(
        &mut self,
        commit: CommitHeader,
        records: &[Bytes],
        chain_before: Chain,
        restart: bool,
        wall: WallTime,
    ) -> Result<(), StoreError> {
        let places = places(&self.shared.dir, &commit, records)?;
        if locked(&self.shared.unsynced).lost {
            return Err(StoreError::SyncLost { path: self.shared.dir.clone() });
        }
        let commit_bytes = wide(COMMIT_HEADER_BYTES) + u64::from(commit.bytes);
        if restart || self.open.as_ref().is_some_and(|(_, tail)| tail.end + commit_bytes > self.segment_bytes) {
            self.close();
        }
        match self.open.take() {
            Some((segment, mut tail)) => {
                let at = tail.end;
                let done = write_commit(&mut tail, None, &commit, records, self.segment_bytes);
                if done.is_ok() {
                    self.publish(&segment, &commit, places, at, &tail, false);
                }
                self.open = Some((segment, tail));
                done
            }
            None => self.append_first(&commit, records, places, chain_before, wall),
        }
    }

    pub fn syncer(&self) -> Syncer {
        Syncer { disk: Arc::clone(&self.disk), shared: Arc::clone(&self.shared) }
    }

    pub fn reader(&self) -> JournalReader {
        JournalReader::new(Arc::clone(&self.shared))
    }

    /// Removes whole segments whose records are all at or below `through`. Never the newest that is durable.
    pub fn trim(&mut self, through: Sequence) -> Result<(), StoreError> {
        let synced = locked(&self.shared.unsynced).synced;
        loop {
            let oldest = {
                let segments = shared(&self.shared.segments);
                let mut by_age = segments.values();
                let (Some(oldest), Some(next)) = (by_age.next(), by_age.next()) else {
                    return Ok(());
                };
                if next.first > synced || oldest.last() > through {
                    return Ok(());
                }
                Arc::clone(oldest)
            };
            fs::remove_file(&oldest.path)
                .map_err(|source| StoreError::io(&oldest.path, "remove the segment", source))?;
            exclusive(&self.shared.segments).remove(&oldest.first);
            // One by one, so that no crash leaves a hole between segments.
            self.shared.entries.sync()?;
        }
    }

    /// Where the records end up that are not in a segment yet: a new one, unless the newest begins at `first` or later. Says where
    /// the oldest and the newest segment begin; nothing if there is none.
    pub fn begin_segment(&mut self, first: Sequence) -> Option<Begins> {
        if self.open.as_ref().is_some_and(|(segment, _)| segment.first < first) {
            self.close();
        }
        let segments = shared(&self.shared.segments);
        let (oldest, newest) = (segments.keys().next()?, segments.keys().next_back()?);
        Some(Begins { oldest: *oldest, newest: *newest })
    }

    /// Bytes of headers and records. The segment that grows has up to one segment's room reserved on top.
    pub fn bytes(&self) -> ByteLen {
        ByteLen(shared(&self.shared.segments).values().map(|segment| shared(&segment.places).end).sum())
    }

    fn append_first(
        &mut self,
        commit: &CommitHeader,
        records: &[Bytes],
        places: Vec<(u32, u32)>,
        chain_before: Chain,
        wall: WallTime,
    ) -> Result<(), StoreError> {
        let path = self.shared.dir.join(format!("{:016x}.fsj", commit.first.0));
        let Some((generation, incarnation)) = self.under else {
            return Err(StoreError::NotBegun { path });
        };
        let header = SegmentHeader {
            pair: self.pair,
            generation,
            incarnation,
            first: commit.first,
            chain_before,
            created: wall,
        };
        // A file of this name is what an attempt left behind that could not be undone.
        let _ = fs::remove_file(&path);
        let mut tail = Tail::create(Arc::clone(&self.disk), path.clone())?;
        if let Err(error) = write_commit(&mut tail, Some(&header), commit, records, self.segment_bytes) {
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        let segment = Arc::new(Segment {
            path,
            file: Arc::clone(&tail.file),
            first: commit.first,
            places: RwLock::new(Places::default()),
        });
        self.publish(&segment, commit, places, wide(SEGMENT_HEADER_BYTES), &tail, true);
        exclusive(&self.shared.segments).insert(commit.first, Arc::clone(&segment));
        self.open = Some((segment, tail));
        Ok(())
    }

    /// Shows what was appended to readers and to the syncer.
    fn publish(
        &self,
        segment: &Arc<Segment>,
        commit: &CommitHeader,
        places: Vec<(u32, u32)>,
        at: u64,
        tail: &Tail,
        new: bool,
    ) {
        {
            let base = u32::try_from(at).unwrap_or(u32::MAX);
            let mut all = exclusive(&segment.places);
            all.records.extend(places.into_iter().map(|(offset, len)| (base.saturating_add(offset), len)));
            all.end = tail.end;
        }
        let mut unsynced = locked(&self.shared.unsynced);
        unsynced.appended = commit.first.plus(u64::from(commit.records)).previous();
        unsynced.new_entries |= new;
        if !unsynced.segments.iter().any(|known| Arc::ptr_eq(known, segment)) {
            unsynced.segments.push(Arc::clone(segment));
        }
    }

    /// The open segment grows no more: its reserve goes back.
    fn close(&mut self) {
        if let Some((segment, mut tail)) = self.open.take()
            && let Err(error) = tail.cut()
        {
            tracing::warn!(path = %segment.path.display(), %error, "the reserve of a full segment stays");
        }
    }
}

/// Gives the reserve back when the node stops in order.
impl Drop for Journal {
    fn drop(&mut self) {
        self.close();
    }
}

impl Syncer {
    /// Makes everything appended so far durable, and says up to where. After one failure it fails for ever: the
    /// kernel reports a lost write once, and a later success would promise what is gone.
    pub fn sync(&self) -> Result<Sequence, StoreError> {
        let _one = locked(&self.shared.syncing);
        let (appended, segments, new_entries) = {
            let mut unsynced = locked(&self.shared.unsynced);
            if unsynced.lost {
                return Err(StoreError::SyncLost { path: self.shared.dir.clone() });
            }
            let segments = std::mem::take(&mut unsynced.segments);
            (unsynced.appended, segments, std::mem::take(&mut unsynced.new_entries))
        };
        let done = self.sync_all(&segments, new_entries);
        let mut unsynced = locked(&self.shared.unsynced);
        match done {
            Ok(()) => {
                unsynced.synced = unsynced.synced.max(appended);
                Ok(unsynced.synced)
            }
            Err(error) => {
                unsynced.lost = true;
                Err(error)
            }
        }
    }

    fn sync_all(&self, segments: &[Arc<Segment>], new_entries: bool) -> Result<(), StoreError> {
        for segment in segments {
            self.disk
                .sync(&segment.file)
                .map_err(|source| StoreError::SyncFailed { path: segment.path.clone(), source })?;
        }
        if new_entries { self.shared.entries.sync() } else { Ok(()) }
    }
}

impl Segment {
    fn last(&self) -> Sequence {
        self.first.plus(wide(shared(&self.places).records.len())).previous()
    }
}

/// Where each record will stand after the start of its commit, if the commit's header tells the truth.
fn places(dir: &Path, commit: &CommitHeader, records: &[Bytes]) -> Result<Vec<(u32, u32)>, StoreError> {
    let wrong = |said: u32, found: u64| StoreError::Commit { path: dir.to_owned(), said: u64::from(said), found };
    let bytes: u64 = records.iter().map(|record| wide(record.len())).sum();
    if bytes != u64::from(commit.bytes) || bytes > u64::from(u32::MAX / 2) {
        return Err(wrong(commit.bytes, bytes));
    }
    if wide(records.len()) != u64::from(commit.records) || records.is_empty() {
        return Err(wrong(commit.records, wide(records.len())));
    }
    let mut at = u32::try_from(COMMIT_HEADER_BYTES).unwrap_or(u32::MAX);
    let mut places = Vec::with_capacity(records.len());
    for record in records {
        let len = u32::try_from(record.len()).unwrap_or(u32::MAX);
        places.push((at, len));
        at += len;
    }
    Ok(places)
}

fn write_commit(
    tail: &mut Tail,
    header: Option<&SegmentHeader>,
    commit: &CommitHeader,
    records: &[Bytes],
    segment_bytes: u64,
) -> Result<(), StoreError> {
    let header = header.map(SegmentHeader::encode);
    let commit = commit.encode();
    let mut slices: Vec<IoSlice<'_>> = header
        .iter()
        .map(|bytes| IoSlice::new(bytes))
        .chain([IoSlice::new(&commit)])
        .chain(records.iter().map(|record| IoSlice::new(record)))
        .collect();
    let bytes: usize = slices.iter().map(|slice| slice.len()).sum();
    let reserve = (tail.end + wide(bytes)).next_multiple_of(RESERVE_BYTES).min(segment_bytes);
    tail.append(&mut slices, reserve)
}

/// The sequence number in a record's header, if it is whole.
fn sequence_of(record: &[u8]) -> Option<Sequence> {
    Framed::decode(record).ok().map(|framed| framed.header.sequence)
}
