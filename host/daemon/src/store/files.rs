//! Whole files: replaced at once or not at all, in directories that are private and have one owner.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::StoreError;

const LOCK_NAME: &str = "lock";

/// Why a state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error("{}: another node uses this directory; stop it or choose another directory", .0.display())]
    InUse(PathBuf),
    #[error("{}: could not lock: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

/// Ownership of a state directory, until this is dropped or the process ends.
#[derive(Debug)]
pub struct DirLock {
    _file: File,
}

impl DirLock {
    /// Takes the lock file in `dir`, or says who must go first. Never waits.
    pub fn take(dir: &Path) -> Result<Self, LockError> {
        let path = dir.join(LOCK_NAME);
        let failed = |source| LockError::Io { path: path.clone(), source };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _file: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(LockError::InUse(dir.to_owned())),
            Err(errno) => Err(failed(errno.into())),
        }
    }
}

/// Puts `bytes` at `path`, durably: after a crash the file is the old one or the new one, whole.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let temporary = path.with_file_name(name);
    let done = replace(path, &temporary, bytes);
    if done.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    done.map_err(|source| StoreError::io(path, "replace the file", source))?;
    sync_dir(path.parent().unwrap_or(Path::new(".")))
}

fn replace(path: &Path, temporary: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(temporary, path)
}

/// The file's bytes; `None` if there is no such file. A file longer than `most` is not read.
pub fn read_if_there(path: &Path, most: u64) -> Result<Option<Vec<u8>>, StoreError> {
    let failed = |source| StoreError::io(path, "read the file", source);
    let len = match fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    if len > most {
        return Err(StoreError::Damaged { path: path.to_owned(), offset: most, what: "it is longer than it can be" });
    }
    fs::read(path).map(Some).map_err(failed)
}

/// Makes the directory's entries durable: files that were made, renamed or removed.
pub fn sync_dir(dir: &Path) -> Result<(), StoreError> {
    OpenDir::open(dir)?.sync()
}

/// A directory that stays open: its entries are made durable also when there is no free descriptor.
#[derive(Debug)]
pub(super) struct OpenDir {
    path: PathBuf,
    handle: File,
}

impl OpenDir {
    pub(super) fn open(dir: &Path) -> Result<Self, StoreError> {
        let path = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
        let handle = File::open(path).map_err(|source| StoreError::io(path, "open the directory", source))?;
        Ok(Self { path: path.to_owned(), handle })
    }

    /// As [`sync_dir`].
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        self.handle.sync_all().map_err(|source| StoreError::SyncFailed { path: self.path.clone(), source })
    }
}

/// Lets this process open as many files as its hard limit allows, and says how many. The soft limit is often 1024, for programs
/// that know no more; segments, connections and plugins of some pairs together come near it.
///
/// # Errors
/// The system refuses.
pub fn raise_descriptor_limit() -> io::Result<Option<u64>> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?;
    }
    Ok(limit.maximum)
}

/// Makes a directory that only its owner enters, with its parents; one that is there stays as it is.
pub fn create_private_dir(dir: &Path) -> Result<(), StoreError> {
    if dir.is_dir() {
        return Ok(());
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|source| StoreError::io(dir, "make the directory", source))?;
    match dir.parent() {
        Some(parent) => sync_dir(parent),
        None => Ok(()),
    }
}

/// Removes a file, durably; one that is not there is fine.
pub fn remove_durably(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Ok(()) => sync_dir(path.parent().unwrap_or(Path::new("."))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(StoreError::io(path, "remove the file", error)),
    }
}

/// Files in `dir` named `<digits hex digits>.<extension>`, by number. Other names are left alone.
pub(super) fn numbered(dir: &Path, digits: usize, extension: &str) -> Result<Vec<(u64, PathBuf)>, StoreError> {
    let failed = |source| StoreError::io(dir, "list the directory", source);
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        if path.extension().and_then(|e| e.to_str()) == Some(extension)
            && stem.len() == digits
            && let Ok(number) = u64::from_str_radix(stem, 16)
        {
            found.push((number, path));
        }
    }
    found.sort();
    Ok(found)
}
