//! The account of a recovery: how far opening is and how fast it goes, what did not open, and what the takeover began with.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use farseal_core::units::{BlockCount, CutNumber, Lba, Sequence, WallTime};
use serde::{Deserialize, Serialize};

use super::times::Book;
use crate::store::{StoreError, files};

/// Runs of blocks that did not open and are named; the others are counted.
const FAILURES_MAX: usize = 1024;
/// The rate is that of the last so many moments, each at least [`BETWEEN`] after the one before: ten seconds of a sweep.
const MOMENTS_MAX: usize = 40;
const BETWEEN: Duration = Duration::from_millis(250);
/// A few numbers.
const BEGINNING_BYTES_MAX: u64 = 4 << 10;

/// What a takeover began with, as it was known then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Beginning {
    pub format: u32,
    /// When this site took over.
    pub at: WallTime,
    /// The last record that is opened, and when the other site gave it its place, where that is known.
    pub through: Sequence,
    pub written: Option<WallTime>,
    /// The earlier point that an operator chose instead, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub point: Option<Sequence>,
    /// The last record that lay here without a hole before it, and the running hash up to it.
    pub held: Sequence,
    pub chain: String,
    /// A catch-up was under way: what lay behind its gap is not opened.
    pub catching_up: bool,
    /// The group's cut; 0 outside a group.
    pub cut: CutNumber,
}

impl Beginning {
    /// Keeps it in a lane's folder, if a start before this one has not: what counts is what was known at the takeover.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn keep(&self, folder: &Path) -> Result<(), StoreError> {
        let path = file(folder);
        if files::read_if_there(&path, BEGINNING_BYTES_MAX)?.is_some() {
            return Ok(());
        }
        files::write_atomically(&path, &serde_json::to_vec_pretty(self).unwrap_or_default())
    }

    /// None where an earlier version took over, or the file cannot be read: it is evidence, and opens nothing.
    #[must_use]
    pub fn load(folder: &Path) -> Option<Self> {
        let bytes = files::read_if_there(&file(folder), BEGINNING_BYTES_MAX).ok().flatten()?;
        serde_json::from_slice(&bytes).ok()
    }
}

fn file(folder: &Path) -> PathBuf {
    folder.join("takeover.json")
}

/// What the background part of a recovery is at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// It opens blocks.
    #[default]
    Opening,
    /// The strategy waits: for a time, or for an access.
    Waiting,
    /// Everything that the strategy is to open is open.
    Finished,
    /// The image cannot be written; the log says why. It is tried again, and after a failed sync with a restart of the node.
    Stopped,
}

/// Why blocks did not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// They are not what was sealed: altered, or moved from another place.
    NotAuthentic,
    /// Their epoch's key is not here.
    NoKey,
    /// The log could not be read.
    Unreadable,
}

/// Blocks of one record that did not open when they were tried last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    pub blocks: BlockCount,
    pub sequence: Sequence,
    pub why: Why,
}

/// See the module. Shared by whoever opens blocks and whoever is asked.
#[derive(Debug, Default)]
pub struct Account {
    inner: Mutex<Inner>,
    /// Something failed: only then is there anything to take back.
    any_failed: AtomicBool,
    /// Blocks that an access, not the sweep, had opened since the node's start.
    on_access: AtomicU64,
    book: Book,
}

#[derive(Debug, Default)]
struct Inner {
    stage: Stage,
    /// Moments and how many blocks the sweep had opened by then, since the node's start.
    moments: VecDeque<(Instant, u64)>,
    swept: u64,
    failures: BTreeMap<Lba, Failure>,
}

impl Account {
    /// When what was opened.
    #[must_use]
    pub fn book(&self) -> &Book {
        &self.book
    }

    /// The sweep opened so many blocks.
    pub fn swept(&self, opened: BlockCount, now: Instant) {
        let mut inner = self.lock();
        inner.swept = inner.swept.saturating_add(opened.0);
        let swept = inner.swept;
        if inner.moments.back().is_some_and(|(at, _)| now.saturating_duration_since(*at) < BETWEEN) {
            return;
        }
        if inner.moments.len() == MOMENTS_MAX {
            inner.moments.pop_front();
        }
        inner.moments.push_back((now, swept));
    }

    /// An access had so many blocks opened.
    pub fn accessed(&self, opened: BlockCount) {
        self.on_access.fetch_add(opened.0, Ordering::Relaxed);
    }

    /// Blocks that accesses had opened since the node's start.
    #[must_use]
    pub fn on_access(&self) -> BlockCount {
        BlockCount(self.on_access.load(Ordering::Relaxed))
    }

    /// Blocks did not open.
    pub fn failed(&self, first: Lba, failure: Failure) {
        let mut inner = self.lock();
        if inner.failures.len() < FAILURES_MAX || inner.failures.contains_key(&first) {
            inner.failures.insert(first, failure);
            self.any_failed.store(true, Ordering::Release);
        }
    }

    /// These blocks opened: what failed before, of them, counts no more.
    pub fn opened(&self, first: Lba, blocks: BlockCount) {
        if !self.any_failed.load(Ordering::Acquire) {
            return;
        }
        let mut inner = self.lock();
        inner.failures.retain(|lba, _| *lba < first || lba.0 >= first.0.saturating_add(blocks.0));
        self.any_failed.store(!inner.failures.is_empty(), Ordering::Release);
    }

    /// Those that are named, by their first block.
    #[must_use]
    pub fn failures(&self) -> Vec<(Lba, Failure)> {
        self.lock().failures.iter().map(|(lba, failure)| (*lba, *failure)).collect()
    }

    pub fn set_stage(&self, stage: Stage) {
        self.lock().stage = stage;
    }

    #[must_use]
    pub fn stage(&self) -> Stage {
        self.lock().stage
    }

    /// Blocks a second that the sweep opens, over the last ten seconds of its work; none before it can be told.
    #[must_use]
    pub fn rate(&self, now: Instant) -> Option<f64> {
        let inner = self.lock();
        let (from, swept) = inner.moments.front()?;
        let span = now.saturating_duration_since(*from);
        #[expect(clippy::cast_precision_loss, reason = "a rate is a rough number")]
        (span >= BETWEEN).then(|| (inner.swept - swept) as f64 / span.as_secs_f64())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    const FAILURE: Failure = Failure { blocks: BlockCount(1), sequence: Sequence(7), why: Why::NotAuthentic };

    #[test]
    fn the_rate_is_that_of_the_last_moments() {
        let (account, begun) = (Account::default(), Instant::now());
        assert_eq!(account.rate(begun), None);
        for step in 0..100u32 {
            // The first half at a tenth of the speed.
            let opened = if step < 50 { 10 } else { 100 };
            account.swept(BlockCount(opened), begun + BETWEEN * step);
        }
        let rate = account.rate(begun + BETWEEN * 99).unwrap();
        assert!((399.0..401.0).contains(&rate), "{rate}");
    }

    #[test]
    fn what_opens_later_has_not_failed() {
        let account = Account::default();
        account.failed(Lba(5), FAILURE);
        account.failed(Lba(9), FAILURE);
        account.opened(Lba(4), BlockCount(5));
        assert_eq!(account.failures(), [(Lba(9), FAILURE)]);
    }

    #[test]
    fn the_beginning_is_what_the_first_start_said() {
        let folder = tempfile::tempdir().unwrap();
        let first = Beginning {
            format: 1,
            at: WallTime(10),
            through: Sequence(4),
            point: None,
            written: Some(WallTime(9)),
            held: Sequence(6),
            chain: "ab".into(),
            catching_up: true,
            cut: CutNumber(0),
        };
        first.keep(folder.path()).unwrap();
        Beginning { at: WallTime(99), ..first.clone() }.keep(folder.path()).unwrap();
        assert_eq!(Beginning::load(folder.path()), Some(first));
    }
}
