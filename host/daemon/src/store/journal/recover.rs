//! What a restart makes of a journal's segments: the promised part, checked, and an end that is cut clean.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};

use farseal_core::chain::{Chain, Digest};
use farseal_core::journal::{
    COMMIT_HEADER_BYTES, CommitHeader, Scan, SegmentError, SegmentHeader, Tear, damage, scan_segment,
};
use farseal_core::primary::Logged;
use farseal_core::record::{Header, Kind};
use farseal_core::units::{Generation, PairId, Sequence};

use super::{JournalError, JournalRecovery, Places, Segment};
use crate::store::disk::{Disk, open_anew, truncate_durably};
use crate::store::{StoreError, files};

/// What has been found so far.
struct Found {
    recovery: JournalRecovery,
    segments: BTreeMap<Sequence, Arc<Segment>>,
    /// The greatest mark.
    durable: Sequence,
    /// What the next segment must begin with; none before the first.
    expected: Sequence,
    broken: Option<Broken>,
}

/// Where the valid part of the journal ends.
struct Broken {
    path: PathBuf,
    next: Sequence,
    tear: Tear,
    /// Files to remove, newest last.
    remove: Vec<PathBuf>,
    /// The segment to cut, and where.
    cut: Option<(PathBuf, Arc<File>, u64)>,
}

pub(super) fn recover(
    disk: &dyn Disk,
    dir: &Path,
    pair: PairId,
    known_durable: Sequence,
) -> Result<(BTreeMap<Sequence, Arc<Segment>>, JournalRecovery), JournalError> {
    let mut found = Found {
        recovery: JournalRecovery {
            first: Sequence::NONE,
            last: Sequence::NONE,
            chain: Chain::START,
            chain_before: Chain::START,
            generation: Generation::default(),
            records: Vec::new(),
            cut: None,
        },
        segments: BTreeMap::new(),
        durable: known_durable,
        expected: Sequence::NONE,
        broken: None,
    };
    for (named, path) in files::numbered(dir, 16, "fsj")? {
        found.segment(disk, pair, Sequence(named), path)?;
    }
    found.judge(dir)?;
    found.cut_clean(disk, dir)?;
    Ok((found.segments, found.recovery))
}

impl Found {
    fn segment(&mut self, disk: &dyn Disk, pair: PairId, named: Sequence, path: PathBuf) -> Result<(), JournalError> {
        let mut bytes = Vec::new();
        let read = open_anew(disk, &path)?.read_to_end(&mut bytes);
        read.map_err(|source| StoreError::io(&path, "read the segment", source))?;
        let scan = match scan_segment(pair, &bytes) {
            Ok(scan) => scan,
            Err(SegmentError::Header) => {
                // Not one record of it can be placed. Whether it held promised ones, marks tell.
                self.durable = self.durable.max(greatest_mark(&bytes));
                let next = if self.expected == Sequence::NONE { named } else { self.expected };
                self.break_off(path, next, Tear::CommitHeader, None);
                return Ok(());
            }
            Err(source) => return Err(JournalError::Segment { path, source }),
        };
        drop(bytes);
        self.durable = self.durable.max(scan.durable);
        let first = scan.header.first;
        if first != named {
            return Err(JournalError::Misnamed { path, first });
        }
        if let Some(broken) = &mut self.broken {
            broken.remove.push(path);
            return Ok(());
        }
        let new_run = scan.entries.first().is_some_and(|entry| entry.header.kind == Kind::Gap);
        if self.expected != Sequence::NONE && first < self.expected {
            return Err(JournalError::Overlap { path, before: self.expected.previous(), found: first });
        }
        if self.expected != Sequence::NONE && first > self.expected && !new_run {
            let tear = Tear::OutOfOrder { expected: self.expected, found: first };
            self.break_off(path, self.expected, tear, None);
            return Ok(());
        }
        if self.expected != Sequence::NONE && !new_run && scan.header.chain_before != self.recovery.chain {
            return Err(JournalError::Chain { path });
        }
        self.take(path, &scan)
    }

    fn take(&mut self, path: PathBuf, scan: &Scan) -> Result<(), JournalError> {
        if scan.entries.is_empty() {
            self.break_off(path, scan.header.first, scan.torn.unwrap_or(Tear::CommitShort), None);
            return Ok(());
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .map_err(|source| StoreError::io(&path, "open the segment", source))?;
        let file = Arc::new(file);
        self.keep(&scan.header, scan.entries.iter().map(|entry| (entry.header, entry.digest)));
        let records = scan
            .entries
            .iter()
            .map(|entry| {
                let len = u32::try_from(entry.header.record_bytes()).unwrap_or(u32::MAX);
                (u32::try_from(entry.offset).unwrap_or(u32::MAX), len)
            })
            .collect();
        let segment = Segment {
            path: path.clone(),
            file: Arc::clone(&file),
            first: scan.header.first,
            places: RwLock::new(Places { records, end: scan.valid_bytes }),
        };
        self.segments.insert(scan.header.first, Arc::new(segment));
        if let Some(tear) = scan.torn {
            self.break_off(path.clone(), self.expected, tear, Some((path, file, scan.valid_bytes)));
        }
        Ok(())
    }

    /// Folds a segment's records into the running hash.
    fn keep(&mut self, header: &SegmentHeader, entries: impl Iterator<Item = (Header, Digest)>) {
        let recovery = &mut self.recovery;
        if recovery.records.is_empty() {
            recovery.first = header.first;
            recovery.chain_before = header.chain_before;
        }
        recovery.generation = header.generation;
        recovery.chain = header.chain_before;
        for (record, digest) in entries {
            let logged = Logged::after(recovery.chain, header.chain_before, record, digest);
            (recovery.last, recovery.chain) = (record.sequence, logged.chain);
            recovery.records.push(logged);
        }
        self.expected = recovery.last.next();
    }

    /// The valid part ends before `next`. A file that has none of it is to be removed.
    fn break_off(&mut self, path: PathBuf, next: Sequence, tear: Tear, cut: Option<(PathBuf, Arc<File>, u64)>) {
        match &mut self.broken {
            Some(broken) => broken.remove.push(path),
            None => {
                let remove = if cut.is_some() { Vec::new() } else { vec![path.clone()] };
                self.broken = Some(Broken { path, next, tear, remove, cut });
            }
        }
    }

    /// Was anything promised that is not here?
    fn judge(&self, dir: &Path) -> Result<(), JournalError> {
        let (path, next, tear) = match &self.broken {
            Some(broken) => (broken.path.clone(), broken.next, Some(broken.tear)),
            None => match self.segments.values().next_back() {
                Some(newest) => (newest.path.clone(), self.expected, None),
                None => (dir.to_owned(), Sequence(1), None),
            },
        };
        match damage(next, self.durable, tear) {
            Some(damage) => Err(JournalError::Damaged { path, damage }),
            None => Ok(()),
        }
    }

    fn cut_clean(&mut self, disk: &dyn Disk, dir: &Path) -> Result<(), JournalError> {
        let Some(broken) = self.broken.take() else {
            return Ok(());
        };
        for path in broken.remove.iter().rev() {
            fs::remove_file(path).map_err(|source| StoreError::io(path, "remove the torn segment", source))?;
        }
        files::sync_dir(dir)?;
        if let Some((path, file, end)) = &broken.cut {
            truncate_durably(disk, path, file, *end)?;
        }
        tracing::warn!(path = %broken.path.display(), tear = %broken.tear, "cut off a torn end that was never promised");
        self.recovery.cut = Some((broken.path, broken.tear));
        Ok(())
    }
}

/// The greatest mark of the commit headers in bytes that do not even begin with a segment's header.
fn greatest_mark(bytes: &[u8]) -> Sequence {
    bytes
        .windows(COMMIT_HEADER_BYTES)
        .filter(|window| window.starts_with(b"FSC1"))
        .filter_map(CommitHeader::decode)
        .map(|commit| commit.durable)
        .max()
        .unwrap_or_default()
}
