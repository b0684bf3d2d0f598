//! The life of each epoch of a lane, for its operator: who wished for it, when it was in force, what it sealed.
//!
//! What opens a record is in the signed packages; nothing here is needed for that. `keys.journal` beside the lane's journal has
//! a line of JSON for each change, written by a thread of its own, so that no write waits for it; what a crash loses of it is a
//! line of history. A line costs the machine the same however many epochs there are, and a cover's start costs as much as a
//! key's: neither shows on the line. A start writes it anew without what later lines replaced.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use farseal_core::rotation::{How, KeyUse};
use farseal_core::units::{ByteLen, Epoch, Sequence, WallTime};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::looks::{Heard, KeyRequest};
use crate::control::api::RotationWord;
use crate::store::{StoreError, files};

/// Epochs that are remembered one by one: ten years of one a week and more; of the others only the bytes are.
pub const EPOCHS_MAX: usize = 1024;
/// Of lines, before they are written anew: some two thousand keys'.
const GROWTH_BYTES_MAX: u64 = 1 << 20;
/// A line of some 600 bytes for each that is remembered, and what may grow on them.
const JOURNAL_BYTES_MAX: u64 = 8 << 20;
/// Of a reason.
const REASON_CHARS_MAX: usize = 200;
/// Requests that wait for a policy; it is asked within the second.
const REQUESTS_MAX: usize = 16;

/// What is known of an epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Entry {
    pub epoch: Epoch,
    pub how: How,
    pub by: RotationWord,
    /// In the words of whoever wished for it.
    pub reason: Option<String>,
    /// When it began to be drawn.
    pub begun: WallTime,
    pub in_force: Option<WallTime>,
    /// The first record that it seals.
    pub start: Option<Sequence>,
    /// When the next one came into force, and the last record that this one sealed.
    pub retired: Option<WallTime>,
    pub last: Option<Sequence>,
    pub void: Option<WallTime>,
    pub destroyed: Option<WallTime>,
    /// Payload that it sealed, as far as it was counted.
    pub sealed: ByteLen,
    pub blocks: u64,
}

/// A line of the journal.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Line {
    /// The first one.
    Format(u32),
    /// Instead of what was said of that epoch before.
    Entry(Entry),
    /// Epochs up to this one are not remembered any more, and sealed so much.
    Forgotten { through: Epoch, sealed: ByteLen },
}

/// Of [`Line::Format`].
const FORMAT: u32 = 2;

#[derive(Clone, Debug, Default)]
struct Book {
    /// Under epochs that are not remembered any more.
    sealed_before: ByteLen,
    forgotten: Option<Epoch>,
    entries: Vec<Entry>,
}

/// What the thread is to do, with lines.
#[derive(Debug)]
enum Job {
    Append(Vec<u8>),
    /// A key is in force.
    InForce(Vec<u8>),
    /// The same for nothing.
    Rehearse(Vec<u8>),
}

/// The book of a lane.
#[derive(Debug)]
pub struct KeyBook {
    book: Arc<Mutex<Book>>,
    /// What an operator said who asks for a key.
    wished: Mutex<Option<String>>,
    /// What those said who asked the policy for a key, until it is asked.
    requests: Mutex<VecDeque<KeyRequest>>,
    jobs: Sender<Job>,
}

impl KeyBook {
    /// With what is on disk. Lines that cannot be read are passed over: it is history, and opens nothing.
    pub fn open(pair: String, directory: &Path) -> Result<Self, StoreError> {
        let path = directory.join("keys.journal");
        let bytes = files::read_if_there(&path, JOURNAL_BYTES_MAX)?.unwrap_or_default();
        let book = Arc::new(Mutex::new(Book::read(&bytes)));
        let mut writer = Writer { pair, path, book: Arc::clone(&book), open: None };
        let (jobs, queue) = channel::<Job>();
        std::thread::spawn(move || {
            for job in queue {
                if let Err(error) = writer.work(&job) {
                    tracing::warn!(path = %writer.path.display(), %error, "the history of the keys could not be kept");
                }
            }
        });
        Ok(Self { book, wished: Mutex::new(None), requests: Mutex::default(), jobs })
    }

    /// An operator is about to ask for a key, for this reason. Gives back the one before, of a key that may not have begun yet.
    pub fn wish(&self, reason: Option<String>) -> Option<String> {
        std::mem::replace(&mut *self.wished.lock().unwrap_or_else(PoisonError::into_inner), reason)
    }

    /// What the operator said whose key begins.
    pub fn take_wish(&self) -> Option<String> {
        self.wished.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The policy is to be asked for a key, in these words. What it makes of that; None where too many wait for its answer.
    pub fn request(&self, text: Option<&str>) -> Option<oneshot::Receiver<Heard>> {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        if requests.len() >= REQUESTS_MAX {
            return None;
        }
        let (heard, receiver) = oneshot::channel();
        let text = text.unwrap_or("operator").chars().take(REASON_CHARS_MAX).collect();
        requests.push_back(KeyRequest { text, heard });
        Some(receiver)
    }

    /// What is to be told to the policy, each once. None where one question for all took those of another, too.
    pub fn take_requests(&self) -> Vec<KeyRequest> {
        std::mem::take(&mut *self.requests.lock().unwrap_or_else(PoisonError::into_inner)).into()
    }

    /// A key begins to be drawn. Nothing is written before something came of it.
    pub fn begun(&self, epoch: Epoch, how: How, by: RotationWord, reason: Option<String>, now: WallTime) {
        let reason = reason.map(|reason| farseal_plugin::escaped(&reason).chars().take(REASON_CHARS_MAX).collect());
        let entry = entry(epoch, how, by, reason, now);
        let mut book = self.lock();
        book.entries.retain(|known| known.epoch != epoch);
        book.entries.push(entry);
        let over = book.entries.len().saturating_sub(EPOCHS_MAX);
        let forgotten: Vec<Entry> = book.entries.drain(..over).collect();
        let Some(through) = forgotten.last().map(|last| last.epoch) else { return };
        book.sealed_before.0 += forgotten.iter().map(|old| old.sealed.0).sum::<u64>();
        book.forgotten = Some(through);
        let sealed = book.sealed_before;
        drop(book);
        let _ = self.jobs.send(Job::Append(line(&Line::Forgotten { through, sealed })));
    }

    /// From its start on it seals.
    pub fn in_force(&self, epoch: Epoch, start: Sequence, uses: &[KeyUse], now: WallTime) {
        self.change(Job::InForce, |book| {
            count(book, uses);
            let mut changed = Vec::new();
            for entry in &mut book.entries {
                if entry.epoch == epoch {
                    (entry.in_force, entry.start) = (Some(now), Some(start));
                } else if entry.in_force.is_some() && entry.retired.is_none() {
                    (entry.retired, entry.last) = (Some(now), Some(start.previous()));
                } else {
                    continue;
                }
                changed.push(entry.clone());
            }
            changed
        });
    }

    /// The work of [`KeyBook::in_force`], for nothing.
    pub fn as_in_force(&self, uses: &[KeyUse]) {
        let mut book = self.lock();
        count(&mut book, uses);
        let newest = book.entries.iter().rev().take(2).cloned().collect();
        drop(book);
        let _ = self.jobs.send(Job::Rehearse(lines(newest)));
    }

    /// It never comes into force.
    pub fn void(&self, epoch: Epoch, now: WallTime) {
        self.change(Job::Append, |book| {
            let void = |entry: &&mut Entry| entry.epoch == epoch && entry.in_force.is_none();
            let entry = book.entries.iter_mut().find(void).map(|entry| {
                entry.void = Some(now);
                entry.clone()
            });
            entry.into_iter().collect()
        });
    }

    /// Its key is gone at both sites.
    pub fn destroyed(&self, before: Epoch, now: WallTime) {
        self.change(Job::Append, |book| {
            let entries = book.entries.iter_mut().filter(|entry| entry.epoch < before && entry.destroyed.is_none());
            entries
                .map(|entry| {
                    entry.destroyed = Some(now);
                    entry.clone()
                })
                .collect()
        });
    }

    /// Every epoch, oldest first, with what these keys sealed until now.
    #[must_use]
    pub fn entries(&self, uses: &[KeyUse]) -> Vec<Entry> {
        let mut book = self.lock().clone();
        count(&mut book, uses);
        book.entries
    }

    /// The newest key that came into force. Known without asking the lane, which nobody shall see wake for it.
    #[must_use]
    pub fn in_force_now(&self) -> Option<Epoch> {
        self.lock().entries.iter().filter(|entry| entry.in_force.is_some()).map(|entry| entry.epoch).max()
    }

    /// The newest key, if it was given up.
    #[must_use]
    pub fn void_now(&self) -> Option<Epoch> {
        self.lock().entries.last().filter(|newest| newest.void.is_some()).map(|newest| newest.epoch)
    }

    /// Payload that was sealed under every key of the lane, as far as it was counted.
    #[must_use]
    pub fn life(&self, uses: &[KeyUse]) -> ByteLen {
        let before = self.lock().sealed_before.0;
        ByteLen(self.entries(uses).iter().fold(before, |sum, entry| sum.saturating_add(entry.sealed.0)))
    }

    /// Keeps the entries that `change` says it changed.
    fn change(&self, job: fn(Vec<u8>) -> Job, change: impl FnOnce(&mut Book) -> Vec<Entry>) {
        let changed = change(&mut self.lock());
        if !changed.is_empty() {
            let _ = self.jobs.send(job(lines(changed)));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn entry(epoch: Epoch, how: How, by: RotationWord, reason: Option<String>, begun: WallTime) -> Entry {
    Entry {
        epoch,
        how,
        by,
        reason,
        begun,
        in_force: None,
        start: None,
        retired: None,
        last: None,
        void: None,
        destroyed: None,
        sealed: ByteLen(0),
        blocks: 0,
    }
}

fn count(book: &mut Book, uses: &[KeyUse]) {
    for uses in uses {
        if let Some(entry) = book.entries.iter_mut().find(|entry| entry.epoch == uses.epoch) {
            entry.sealed = entry.sealed.max(uses.bytes);
            entry.blocks = entry.blocks.max(uses.blocks);
        }
    }
}

impl Book {
    fn read(bytes: &[u8]) -> Self {
        let mut book = Self::default();
        for line in bytes.split(|byte| *byte == b'\n') {
            match serde_json::from_slice(line) {
                Ok(Line::Entry(entry)) => {
                    book.entries.retain(|known| known.epoch != entry.epoch);
                    book.entries.push(entry);
                }
                Ok(Line::Forgotten { through, sealed }) => {
                    book.entries.retain(|entry| entry.epoch > through);
                    (book.forgotten, book.sealed_before) = (Some(through), sealed);
                }
                Ok(Line::Format(_)) | Err(_) => {}
            }
        }
        book
    }

    fn written(&self) -> Vec<u8> {
        let forgotten = self.forgotten.map(|through| Line::Forgotten { through, sealed: self.sealed_before });
        let entries = self.entries.iter().cloned().map(Line::Entry);
        [Line::Format(FORMAT)].into_iter().chain(forgotten).chain(entries).flat_map(|each| line(&each)).collect()
    }
}

fn line(line: &Line) -> Vec<u8> {
    let mut text = serde_json::to_vec(line).unwrap_or_default();
    text.push(b'\n');
    text
}

fn lines(entries: Vec<Entry>) -> Vec<u8> {
    entries.into_iter().flat_map(|entry| line(&Line::Entry(entry))).collect()
}

/// What the thread holds.
#[derive(Debug)]
struct Writer {
    pair: String,
    path: PathBuf,
    book: Arc<Mutex<Book>>,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    journal: File,
    /// Written over by what is for nothing.
    rehearsal: File,
    /// Since it was written anew.
    grown: u64,
}

impl Writer {
    fn work(&mut self, job: &Job) -> Result<(), StoreError> {
        if self.open.as_ref().is_none_or(|open| open.grown > GROWTH_BYTES_MAX) {
            self.begin_anew()?;
        }
        let Some(open) = &mut self.open else { return Ok(()) };
        match job {
            Job::InForce(_) => tracing::info!(pair = self.pair, "the key has changed"),
            Job::Rehearse(_) => tracing::debug!(pair = self.pair, "a cover's start"),
            Job::Append(_) => {}
        }
        let written = match job {
            Job::Append(lines) | Job::InForce(lines) => {
                open.grown += u64::try_from(lines.len()).unwrap_or(GROWTH_BYTES_MAX);
                open.journal.write_all(lines)
            }
            Job::Rehearse(lines) => open.rehearsal.write_all_at(lines, 0),
        };
        written.map_err(|source| StoreError::Io { path: self.path.clone(), doing: "add a line", source })
    }

    /// What the job would append is in the book already; once more does no harm.
    fn begin_anew(&mut self) -> Result<(), StoreError> {
        let text = self.book.lock().unwrap_or_else(PoisonError::into_inner).written();
        self.open = None;
        files::write_atomically(&self.path, &text)?;
        let open = |path: &Path, options: &mut OpenOptions| -> Result<File, StoreError> {
            let file: io::Result<File> = options.create(true).mode(0o600).open(path);
            file.map_err(|source| StoreError::Io { path: path.to_owned(), doing: "open it", source })
        };
        let journal = open(&self.path, OpenOptions::new().append(true))?;
        let rehearsal = open(&self.path.with_extension("cover"), OpenOptions::new().write(true))?;
        self.open = Some(Open { journal, rehearsal, grown: 0 });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn an_epoch_ends_where_the_next_begins_and_a_void_one_never_began() {
        let folder = tempfile::tempdir().unwrap();
        let book = KeyBook::open("vault".into(), folder.path()).unwrap();
        let begun = |epoch, at| book.begun(Epoch(epoch), How::InBand, RotationWord::Policy, None, WallTime(at));
        begun(1, 10);
        book.in_force(Epoch(1), Sequence(2), &[], WallTime(11));
        begun(2, 20);
        book.void(Epoch(2), WallTime(21));
        begun(3, 30);
        let state = farseal_core::rotation::KeyState::Retired;
        let one = KeyUse { epoch: Epoch(1), state, since: WallTime(11), bytes: ByteLen(8192), blocks: 2, records: 2 };
        book.in_force(Epoch(3), Sequence(40), &[one], WallTime(31));
        let entries = book.entries(&[]);
        let ends: Vec<_> = entries.iter().map(|entry| (entry.start, entry.last, entry.void)).collect();
        let expected = [
            (Some(Sequence(2)), Some(Sequence(39)), None),
            (None, None, Some(WallTime(21))),
            (Some(Sequence(40)), None, None),
        ];
        assert_eq!(ends, expected);
        assert_eq!((entries[0].sealed, book.life(&[])), (ByteLen(8192), ByteLen(8192)));
    }

    #[test]
    fn what_became_of_each_epoch_is_read_again_and_a_torn_line_is_passed_over() {
        let mut book = Book::default();
        let entry = |epoch: u64, sealed| Entry {
            sealed: ByteLen(sealed),
            ..entry(Epoch(epoch), How::InBand, RotationWord::Policy, None, WallTime(epoch))
        };
        book.entries = (1..=4).map(|epoch| entry(epoch, 10)).collect();
        let mut text = book.written();
        text.extend(line(&Line::Forgotten { through: Epoch(2), sealed: ByteLen(20) }));
        text.extend(lines(vec![entry(4, 15)]));
        text.extend_from_slice(b"{\"entry\":{\"epoch\":");
        let read = Book::read(&text);
        assert_eq!((read.sealed_before, read.entries), (ByteLen(20), vec![entry(3, 10), entry(4, 15)]));
    }

    #[test]
    fn the_oldest_epochs_are_forgotten_but_not_what_they_sealed() {
        let folder = tempfile::tempdir().unwrap();
        let book = KeyBook::open("vault".into(), folder.path()).unwrap();
        let state = farseal_core::rotation::KeyState::Active;
        for number in 1..=u64::try_from(EPOCHS_MAX).unwrap() + 1 {
            let epoch = Epoch(number);
            book.begun(epoch, How::InBand, RotationWord::Policy, None, WallTime(number));
            let uses = KeyUse { epoch, state, since: WallTime(0), bytes: ByteLen(10), blocks: 1, records: 1 };
            book.in_force(epoch, Sequence(number), &[uses], WallTime(number));
        }
        assert_eq!(book.entries(&[]).len(), EPOCHS_MAX);
        assert_eq!(book.life(&[]).0, 10 * (u64::try_from(EPOCHS_MAX).unwrap() + 1));
    }
}
