//! When a recovery opened what: the first and the last time of each epoch, and of sweep, accesses and searches; not of each block

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use farseal_core::units::{Epoch, WallTime};
use serde::{Deserialize, Serialize};

use crate::store::{StoreError, files};

/// Some 100 bytes an epoch: more than the 65 536 epochs of a long pair would make is no such file.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// By what a block is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// An initiator read it.
    Access,
    /// The strategy's plan.
    Sweep,
    /// A search found it.
    Search,
}

/// Blocks that were opened from then to then, by this site's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Span {
    pub first: WallTime,
    pub last: WallTime,
    pub blocks: u64,
}

/// What is known of a recovery's times. What a crash took from it since it was kept last is missing: it is kept with the image's syncs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Times {
    pub epochs: Vec<(Epoch, Span)>,
    pub ways: Vec<(Way, Span)>,
}

/// The book of it, shared by whoever opens.
#[derive(Debug, Default)]
pub struct Book {
    inner: Mutex<Inner>,
    changed: AtomicBool,
}

#[derive(Debug, Default)]
struct Inner {
    epochs: BTreeMap<Epoch, Span>,
    ways: BTreeMap<Way, Span>,
}

impl Book {
    /// Blocks of these epochs were opened now.
    pub fn opened(&self, way: Way, epochs: &[(Epoch, u64)], now: WallTime) {
        if epochs.is_empty() {
            return;
        }
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = Span { first: now, last: now, blocks: 0 };
        for (epoch, blocks) in epochs {
            add(inner.epochs.entry(*epoch).or_insert(begin), now, *blocks);
            add(inner.ways.entry(way).or_insert(begin), now, *blocks);
        }
        self.changed.store(true, Ordering::Release);
    }

    #[must_use]
    pub fn times(&self) -> Times {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        Times {
            epochs: inner.epochs.iter().map(|(epoch, span)| (*epoch, *span)).collect(),
            ways: inner.ways.iter().map(|(way, span)| (*way, *span)).collect(),
        }
    }

    /// Goes on with what was kept in a lane's folder. What cannot be read is left out: it is evidence, and opens nothing.
    pub fn load(&self, folder: &Path) {
        let kept = files::read_if_there(&file(folder), FILE_BYTES_MAX).ok().flatten();
        let Some(times) = kept.and_then(|bytes| serde_json::from_slice::<Times>(&bytes).ok()) else { return };
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.epochs = times.epochs.into_iter().collect();
        inner.ways = times.ways.into_iter().collect();
    }

    /// Keeps it, if it is another than was kept last.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn keep(&self, folder: &Path) -> Result<(), StoreError> {
        if !self.changed.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        let kept = files::write_atomically(&file(folder), &serde_json::to_vec(&self.times()).unwrap_or_default());
        if kept.is_err() {
            self.changed.store(true, Ordering::Release);
        }
        kept
    }
}

fn add(span: &mut Span, now: WallTime, blocks: u64) {
    // A clock that was put back does not make the end come before the beginning.
    span.last = span.last.max(now);
    span.blocks = span.blocks.saturating_add(blocks);
}

fn file(folder: &Path) -> PathBuf {
    folder.join("recovery-times.json")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn the_first_and_the_last_time_of_each_part_outlive_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let book = Book::default();
        book.load(folder.path());
        book.opened(Way::Sweep, &[(Epoch(1), 5), (Epoch(2), 1)], WallTime(100));
        book.opened(Way::Sweep, &[(Epoch(2), 2)], WallTime(90));
        book.keep(folder.path()).unwrap();
        let again = Book::default();
        again.load(folder.path());
        again.opened(Way::Access, &[(Epoch(1), 1)], WallTime(300));
        again.opened(Way::Search, &[], WallTime(400));
        let span = |first, last, blocks| Span { first: WallTime(first), last: WallTime(last), blocks };
        let expected = Times {
            epochs: vec![(Epoch(1), span(100, 300, 6)), (Epoch(2), span(100, 100, 3))],
            ways: vec![(Way::Access, span(300, 300, 1)), (Way::Sweep, span(100, 100, 8))],
        };
        assert_eq!(again.times(), expected);
        again.keep(folder.path()).unwrap();
        std::fs::write(file(folder.path()), b"{").unwrap();
        let damaged = Book::default();
        damaged.load(folder.path());
        assert_eq!(damaged.times(), Times::default());
    }
}
