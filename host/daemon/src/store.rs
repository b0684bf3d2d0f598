//! What fsync means here: journal, log, index and homes on local files and block devices.
//!
//! Everything blocks. It is called from threads that exist for it, never from a task.
//!
//! Reading order: the words of failure (this file), whole files ([`files`]), the few calls that can fail for want of
//! room ([`disk`]), the primary's [`journal`], a volume's [`home`], the remote's [`log`] and [`index`], where its [`image`] lies, and the home
//! that [`opened`] makes of these two after a takeover, or [`scratch`] of a point that is tested.

pub mod files;

mod direct;
pub mod disk;

pub mod journal;

pub mod home;

pub mod image;

pub mod log;

pub mod scrub;

pub mod index;

pub mod opened;

pub mod scratch;

pub mod part;

mod checkpoint;
pub mod database;
mod words;
mod zeroes;

use std::io;
use std::path::{Path, PathBuf};

use farseal_core::primary::StoreFault;
use farseal_core::units::{Epoch, Lba, Sequence};
use rustix::io::Errno;

/// Why a store did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{}: no room to {doing}; free space there, it is tried again by itself", path.display())]
    Full { path: PathBuf, doing: &'static str },
    /// Nothing was lost, and others give theirs back.
    #[error(
        "{}: no free file descriptor to {doing}; it is tried again by itself. Raise the limit of open files: `LimitNOFILE=` of the service, or the system's fs.file-max",
        path.display()
    )]
    NoDescriptor { path: PathBuf, doing: &'static str },
    #[error("{}: could not {doing}: {source}", path.display())]
    Io { path: PathBuf, doing: &'static str, source: io::Error },
    /// Nothing that was written since the last sync is promised, and a later success would say nothing about it.
    #[error("{}: sync failed ({source}); nothing more is promised until a restart", path.display())]
    SyncFailed { path: PathBuf, source: io::Error },
    #[error("{}: an earlier sync failed; nothing more is promised until a restart", path.display())]
    SyncLost { path: PathBuf },
    #[error("{}: damaged at byte {offset}: {what}", path.display())]
    Damaged { path: PathBuf, offset: u64, what: &'static str },
    #[error("{}: record {sequence} is not in the journal", path.display())]
    NotInJournal { path: PathBuf, sequence: Sequence },
    #[error("{}: {len} bytes at {offset} lie outside the volume's {bytes}", path.display())]
    OutOfBounds { path: PathBuf, offset: u64, len: u64, bytes: u64 },
    #[error("{}: nothing was begun: no generation and incarnation to write under", path.display())]
    NotBegun { path: PathBuf },
    #[error("{}: the commit's header says {said} records or bytes and {found} came", path.display())]
    Commit { path: PathBuf, said: u64, found: u64 },
    /// The recovery plugin does not open this block for this reader.
    #[error("access refused: the recovery plugin does not open this block here")]
    Refused,
    #[error("block {lba}: record {sequence} is not what was sealed: nothing of it is served")]
    NotAuthentic { lba: Lba, sequence: Sequence },
    #[error("the key of epoch {epoch} is not here: recover it, then read again")]
    NoKey { epoch: Epoch },
}

impl StoreError {
    /// What the state machines make of it: worth trying again, or not.
    pub fn fault(&self) -> StoreFault {
        match self {
            Self::Full { .. } | Self::NoDescriptor { .. } => StoreFault::Full,
            Self::Io { .. }
            | Self::SyncFailed { .. }
            | Self::SyncLost { .. }
            | Self::Damaged { .. }
            | Self::NotInJournal { .. }
            | Self::OutOfBounds { .. }
            | Self::NotBegun { .. }
            | Self::Commit { .. }
            | Self::Refused
            | Self::NotAuthentic { .. }
            | Self::NoKey { .. } => StoreFault::Failed,
        }
    }

    /// Sorts an error of the operating system: no room, no descriptor, or broken.
    pub fn io(path: &Path, doing: &'static str, source: io::Error) -> Self {
        if no_room(&source) {
            Self::Full { path: path.to_owned(), doing }
        } else if is_any(&source, &[Errno::MFILE, Errno::NFILE]) {
            Self::NoDescriptor { path: path.to_owned(), doing }
        } else {
            Self::Io { path: path.to_owned(), doing, source }
        }
    }
}

/// No space, a quota, or a limit on the size of files.
fn no_room(error: &io::Error) -> bool {
    is_any(error, &[Errno::NOSPC, Errno::DQUOT, Errno::FBIG])
}

fn is_any(error: &io::Error, of: &[Errno]) -> bool {
    of.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// Lengths in memory always fit.
pub(crate) fn wide(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

/// Counts that are bounded by a record's or a chunk's size.
fn narrow(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

/// A lock whose holder never leaves half a change behind, so that a panic elsewhere does not matter here.
fn locked<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn shared<T>(lock: &std::sync::RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn exclusive<T>(lock: &std::sync::RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(std::sync::PoisonError::into_inner)
}
