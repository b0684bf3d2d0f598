//! The audit log of searches: who asked for what and which records were opened for it, in a file that is only added to
//!
//! A line of JSON each. A line is durable before what it tells of is done, so the log may name a record that a crash kept closed, and
//! never leaves one out that was opened. Each holds the hash of the line before.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use farseal_core::units::{Epoch, WallTime};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::chained::{Chained, LineHash};
use crate::store::StoreError;

/// The file's name in the pair's folder.
const NAME: &str = "search-audit.log";
/// Bytes of a line that counts: a batch of records and what stands around it.
const LINE_BYTES_MAX: u64 = 64 << 10;
/// Lines that are read again at most, the newest.
pub const LINES_MAX: usize = 10_000;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Logged {
    pub at: WallTime,
    /// The search's number, from 1 in the order in which they were asked.
    pub search: u64,
    #[serde(flatten)]
    pub what: What,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum What {
    /// Somebody looks for this value, as it was typed, in these epochs, and in this range if one was given.
    Asked {
        field: String,
        value: String,
        from_epoch: Epoch,
        to_epoch: Epoch,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        range: Option<String>,
    },
    /// The tags say that so many records hold it; of a search of many, one page of them.
    Found { records: u64, compared: u64 },
    /// These are about to be opened: first block and number of blocks of each.
    Opens { records: Vec<(u64, u64)> },
    /// So many blocks were opened, and so many did not open.
    Ended { opened: u64, failed: u64 },
}

/// The log, to be added to.
#[derive(Debug)]
pub struct Audit {
    path: PathBuf,
    file: File,
    next: u64,
    last: LineHash,
}

/// A log that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// The newest lines, oldest of them first.
    pub lines: Vec<Logged>,
    /// Lines that are none: a crash may have cut one off.
    pub unreadable: u64,
    /// Lines that do not follow on the one before them as it is now.
    pub altered: u64,
    /// Of the last line.
    pub end: LineHash,
}

impl Audit {
    /// Opens the log in a pair's folder, or begins it.
    ///
    /// # Errors
    /// [`StoreError`]: without the log nothing may be searched.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        let path = directory.join(NAME);
        let read = read(directory, 1)?;
        let next = read.lines.last().map_or(0, |line| line.search) + 1;
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).mode(0o600);
        let mut file = options.open(&path).map_err(|source| StoreError::io(&path, "open the audit log", source))?;
        mend(&mut file).map_err(|source| StoreError::io(&path, "read the audit log", source))?;
        if let Ok(folder) = File::open(directory) {
            folder.sync_all().map_err(|source| StoreError::io(directory, "sync the folder", source))?;
        }
        Ok(Self { path, file, next, last: read.end })
    }

    /// The number of the search that is asked for now.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Adds a line, durably.
    ///
    /// # Errors
    /// [`StoreError`]: what it tells of must not be done.
    pub fn add(&mut self, line: &Logged) -> Result<(), StoreError> {
        let mut bytes = serde_json::to_vec(&Chained { before: self.last, line }).unwrap_or_default();
        let hash = LineHash::of(&bytes);
        bytes.push(b'\n');
        let added = self.file.write_all(&bytes).and_then(|()| self.file.sync_data());
        added.map_err(|source| StoreError::io(&self.path, "add to the audit log", source))?;
        self.last = hash;
        Ok(())
    }
}

/// Reads the newest lines, and looks whether each that there is follows on the one before.
///
/// # Errors
/// [`StoreError`].
pub fn read(directory: &Path, most: usize) -> Result<Read, StoreError> {
    let path = directory.join(NAME);
    let failed = |source| StoreError::io(&path, "read the audit log", source);
    let mut found = Read { lines: Vec::new(), unreadable: 0, altered: 0, end: LineHash::NONE };
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(found),
        Err(error) => return Err(failed(error)),
    };
    let mut lines = std::collections::VecDeque::new();
    let mut reader = BufReader::new(file);
    let mut part = Vec::new();
    // A line that is too long is read in parts, none of which is a line.
    let (mut hash, mut is_whole) = (Sha256::new(), true);
    loop {
        part.clear();
        let read = reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut part).map_err(failed)?;
        let ends = part.pop_if(|last| *last == b'\n').is_some();
        hash.update(&part);
        if !ends && read > 0 {
            is_whole = false;
            continue;
        }
        if ends || !is_whole {
            let this = LineHash::from(std::mem::take(&mut hash));
            match serde_json::from_slice::<Chained<Logged>>(&part) {
                Ok(Chained { before, line }) if is_whole => {
                    found.altered += u64::from(before != found.end);
                    lines.push_back(line);
                    if lines.len() > most {
                        lines.pop_front();
                    }
                }
                _ => found.unreadable += 1,
            }
            (found.end, is_whole) = (this, true);
        }
        if read == 0 {
            found.lines = lines.into();
            return Ok(found);
        }
    }
}

/// What a crash cut off stays, as a line that cannot be read.
fn mend(file: &mut File) -> std::io::Result<()> {
    if file.seek(SeekFrom::End(0))? == 0 {
        return Ok(());
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    if last == [b'\n'] { Ok(()) } else { file.write_all(b"\n") }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn asked(search: u64) -> Logged {
        let what = What::Asked {
            field: "id".into(),
            value: "7".into(),
            from_epoch: Epoch(1),
            to_epoch: Epoch(4),
            range: None,
        };
        Logged { at: WallTime(5), search, what }
    }

    #[test]
    fn what_was_added_is_read_again_and_numbers_go_on_after_a_line_that_was_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let mut audit = Audit::open(folder.path()).unwrap();
        assert_eq!(audit.next(), 1);
        let lines = [
            asked(1),
            Logged { what: What::Found { records: 2, compared: 9 }, ..asked(1) },
            Logged { what: What::Opens { records: vec![(3, 1), (8, 1)] }, ..asked(1) },
            Logged { what: What::Ended { opened: 2, failed: 0 }, ..asked(1) },
        ];
        lines.iter().for_each(|line| audit.add(line).unwrap());
        drop(audit);
        let all = read(folder.path(), 10).unwrap();
        assert_eq!((all.lines, all.unreadable, all.altered), (lines.to_vec(), 0, 0));
        assert_eq!(read(folder.path(), 2).unwrap().lines, lines[2..]);
        let path = folder.path().join(NAME);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 9]).unwrap();
        let mut audit = Audit::open(folder.path()).unwrap();
        assert_eq!(audit.next(), 2);
        audit.add(&asked(2)).unwrap();
        let expected = [&lines[..3], &[asked(2)]].concat();
        let all = read(folder.path(), 10).unwrap();
        assert_eq!((all.lines, all.unreadable, all.altered), (expected, 1, 0), "a crash alters nothing");
    }

    #[test]
    fn a_line_that_was_changed_taken_out_or_put_in_shows_and_so_does_an_end_that_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let mut audit = Audit::open(folder.path()).unwrap();
        (1..=4).for_each(|search| audit.add(&asked(search)).unwrap());
        let path = folder.path().join(NAME);
        let whole = std::fs::read_to_string(&path).unwrap();
        let end = read(folder.path(), 10).unwrap().end;
        let lines: Vec<&str> = whole.lines().collect();
        let changed = lines[1].replace("\"7\"", "\"8\"");
        for (what, kept, altered) in [
            ("as it is", lines.clone(), 0),
            ("changed", vec![lines[0], &changed, lines[2], lines[3]], 1),
            ("taken out", vec![lines[0], lines[2], lines[3]], 1),
            ("put in", vec![lines[0], lines[0], lines[1], lines[2], lines[3]], 1),
            ("without its beginning", lines[1..].to_vec(), 1),
            ("without its end", lines[..3].to_vec(), 0),
        ] {
            std::fs::write(&path, kept.join("\n") + "\n").unwrap();
            let found = read(folder.path(), 10).unwrap();
            assert_eq!(found.altered, altered, "{what}");
            assert_eq!(found.end == end, what != "without its end", "{what}");
        }
    }
}
