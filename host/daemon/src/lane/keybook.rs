//! The life of each epoch of a lane, for its operator: who wished for it, when it was in force, what it sealed.
//!
//! What opens a record is in the signed packages; nothing here is needed for that. `keys.json` beside the lane's journal is
//! replaced as a whole by a thread of its own, so that no write waits for it; what a crash loses of it is a line of history.

use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use farseal_core::rotation::{How, KeyUse};
use farseal_core::units::{ByteLen, Epoch, Sequence, WallTime};
use serde::{Deserialize, Serialize};

use crate::control::api::RotationWord;
use crate::store::{StoreError, files};

/// Epochs that are remembered one by one: ten years of one a week and more; of the others only the bytes are.
pub const EPOCHS_MAX: usize = 1024;
/// A line of some 600 bytes for each.
const BOOK_BYTES_MAX: u64 = 2 << 20;
/// Of a reason.
const REASON_CHARS_MAX: usize = 200;

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

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Book {
    format: u32,
    /// Under epochs that are not remembered any more.
    sealed_before: ByteLen,
    entries: Vec<Entry>,
}

/// The book of a lane.
#[derive(Debug)]
pub struct KeyBook {
    book: Arc<Mutex<Book>>,
    /// What an operator said who asks for a key.
    wished: Mutex<Option<String>>,
    changed: Sender<()>,
}

impl KeyBook {
    /// With what is on disk. A book that cannot be read begins afresh: it is history, and opens nothing.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        let path = directory.join("keys.json");
        let bytes = files::read_if_there(&path, BOOK_BYTES_MAX)?;
        let book = bytes.map(|bytes| serde_json::from_slice::<Book>(&bytes));
        let book = match book {
            Some(Ok(book)) if book.format == 1 => book,
            Some(Ok(_) | Err(_)) => {
                tracing::warn!(path = %path.display(), "the history of the keys cannot be read: it begins afresh");
                Book { format: 1, ..Book::default() }
            }
            None => Book { format: 1, ..Book::default() },
        };
        let book = Arc::new(Mutex::new(book));
        let (changed, changes) = channel::<()>();
        let kept = Arc::clone(&book);
        std::thread::spawn(move || {
            while changes.recv().is_ok() {
                while changes.try_recv().is_ok() {}
                save(&path, &kept);
            }
        });
        Ok(Self { book, wished: Mutex::new(None), changed })
    }

    /// An operator is about to ask for a key, for this reason.
    pub fn wish(&self, reason: Option<String>) {
        *self.wished.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }

    /// What the operator said whose key begins.
    pub fn take_wish(&self) -> Option<String> {
        self.wished.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// A key begins to be drawn.
    pub fn begun(&self, epoch: Epoch, how: How, by: RotationWord, reason: Option<String>, now: WallTime) {
        let reason = reason.map(|reason| farseal_plugin::escaped(&reason).chars().take(REASON_CHARS_MAX).collect());
        let entry = Entry {
            epoch,
            how,
            by,
            reason,
            begun: now,
            in_force: None,
            start: None,
            retired: None,
            last: None,
            void: None,
            destroyed: None,
            sealed: ByteLen(0),
            blocks: 0,
        };
        self.change(|book| {
            book.entries.retain(|known| known.epoch != epoch);
            book.entries.push(entry);
            let over = book.entries.len().saturating_sub(EPOCHS_MAX);
            for old in book.entries.drain(..over) {
                book.sealed_before.0 += old.sealed.0;
            }
        });
    }

    /// From its start on it seals.
    pub fn in_force(&self, epoch: Epoch, start: Sequence, uses: &[KeyUse], now: WallTime) {
        self.change(|book| {
            count(book, uses);
            for entry in &mut book.entries {
                if entry.epoch == epoch {
                    (entry.in_force, entry.start) = (Some(now), Some(start));
                } else if entry.in_force.is_some() && entry.retired.is_none() {
                    (entry.retired, entry.last) = (Some(now), Some(start.previous()));
                }
            }
        });
    }

    /// It never comes into force.
    pub fn void(&self, epoch: Epoch, now: WallTime) {
        self.change(|book| {
            let entry = book.entries.iter_mut().find(|entry| entry.epoch == epoch && entry.in_force.is_none());
            if let Some(entry) = entry {
                entry.void = Some(now);
            }
        });
    }

    /// Its key is gone at both sites.
    pub fn destroyed(&self, before: Epoch, now: WallTime) {
        self.change(|book| {
            let entries = book.entries.iter_mut().filter(|entry| entry.epoch < before && entry.destroyed.is_none());
            entries.for_each(|entry| entry.destroyed = Some(now));
        });
    }

    /// Every epoch, oldest first, with what these keys sealed until now.
    #[must_use]
    pub fn entries(&self, uses: &[KeyUse]) -> Vec<Entry> {
        let mut book = self.lock().clone();
        count(&mut book, uses);
        book.entries
    }

    /// Payload that was sealed under every key of the lane, as far as it was counted.
    #[must_use]
    pub fn life(&self, uses: &[KeyUse]) -> ByteLen {
        let before = self.lock().sealed_before.0;
        ByteLen(self.entries(uses).iter().fold(before, |sum, entry| sum.saturating_add(entry.sealed.0)))
    }

    fn change(&self, change: impl FnOnce(&mut Book)) {
        change(&mut self.lock());
        let _ = self.changed.send(());
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
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

fn save(path: &Path, book: &Mutex<Book>) {
    let text = serde_json::to_vec_pretty(&*book.lock().unwrap_or_else(PoisonError::into_inner)).unwrap_or_default();
    if let Err(error) = files::write_atomically(path, &text) {
        tracing::warn!(%error, "the history of the keys could not be kept");
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn an_epoch_ends_where_the_next_begins_and_a_void_one_never_began() {
        let folder = tempfile::tempdir().unwrap();
        let book = KeyBook::open(folder.path()).unwrap();
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
    fn the_oldest_epochs_are_forgotten_but_not_what_they_sealed() {
        let folder = tempfile::tempdir().unwrap();
        let book = KeyBook::open(folder.path()).unwrap();
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
