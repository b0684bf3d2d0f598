//! The calls that fail when a disk is full or broken, behind a trait so that a test can make them fail; and the end of
//! a file that grows, from which a failed append leaves no trace.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use super::StoreError;

/// Slices in one call: `IOV_MAX` of Linux.
const SLICES_MAX: usize = 1024;

/// What appending needs of a disk.
pub trait Disk: Send + Sync + fmt::Debug {
    /// Makes a file; there must be none of this name.
    fn create(&self, path: &Path) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)
    }

    /// Reserves room, so that want of it shows here and not in the middle of a write.
    fn allocate(&self, file: &File, offset: u64, len: u64) -> io::Result<()> {
        loop {
            match rustix::fs::fallocate(file, FallocateFlags::empty(), offset, len) {
                Err(Errno::INTR) => {}
                // This file system cannot reserve: want of room shows in the write, and is undone there.
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(()),
                done => return Ok(done?),
            }
        }
    }

    /// Writes some of `slices`, at most [`SLICES_MAX`], and says how many bytes.
    fn write(&self, file: &File, slices: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        Ok(rustix::io::pwritev(file, slices, offset)?)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    /// What is read next is what the disk holds. The cache keeps pages whose writing failed, as if they were written, and says so
    /// once, to the process that was; a restart must not promise what it reads there.
    fn read_anew(&self, file: &File) -> io::Result<()> {
        self.sync(file)?;
        // A hint: a file system that keeps nothing need not know it.
        let _ = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed);
        Ok(())
    }
}

/// The operating system's disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {}

/// Opens a file of which what the disk holds is read, and not what the cache does: [`Disk::read_anew`]. A process that was killed
/// leaves what only the cache holds, so all of it is durable then.
pub(super) fn open_anew(disk: &dyn Disk, path: &Path) -> Result<File, StoreError> {
    let file = File::open(path).map_err(|source| StoreError::io(path, "open the file", source))?;
    disk.read_anew(&file).map_err(|source| StoreError::SyncFailed { path: path.to_owned(), source })?;
    Ok(file)
}

/// A file that grows at its end.
#[derive(Debug)]
pub(super) struct Tail {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) path: PathBuf,
    pub(super) file: Arc<File>,
    /// Where the next byte goes.
    pub(super) end: u64,
    allocated: u64,
    /// A failed append could not be undone.
    broken: bool,
}

impl Tail {
    /// Makes a new file; there must be none of this name.
    pub(super) fn create(disk: Arc<dyn Disk>, path: PathBuf) -> Result<Self, StoreError> {
        let file = disk.create(&path).map_err(|source| StoreError::io(&path, "make the file", source))?;
        Ok(Self { disk, path, file: Arc::new(file), end: 0, allocated: 0, broken: false })
    }

    /// Goes on with a file that ends, or is cut, at `end`.
    pub(super) fn resume(disk: Arc<dyn Disk>, path: PathBuf, file: Arc<File>, end: u64) -> Self {
        Self { disk, path, file, end, allocated: end, broken: false }
    }

    /// Appends all of `slices` or nothing. Reserves room up to `reserve` first, or as far as is needed.
    pub(super) fn append(&mut self, mut slices: &mut [IoSlice<'_>], reserve: u64) -> Result<(), StoreError> {
        if self.broken {
            return Err(self.error("append", io::Error::other("an earlier append failed and could not be undone")));
        }
        let len: u64 = slices.iter().map(|slice| super::wide(slice.len())).sum();
        let goal = self.end + len;
        if goal > self.allocated {
            let until = goal.max(reserve);
            if let Err(source) = self.disk.allocate(&self.file, self.allocated, until - self.allocated) {
                self.cut()?;
                return Err(self.error("reserve room", source));
            }
            self.allocated = until;
        }
        let mut at = self.end;
        while !slices.is_empty() {
            match self.disk.write(&self.file, &slices[..slices.len().min(SLICES_MAX)], at) {
                Ok(0) if slices.iter().all(|slice| slice.is_empty()) => break,
                Ok(0) => return self.undo(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    at += super::wide(written);
                    IoSlice::advance_slices(&mut slices, written);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return self.undo(error),
            }
        }
        self.end = goal;
        Ok(())
    }

    /// Gives back what is reserved past the end, and whatever half of an append stands there.
    pub(super) fn cut(&mut self) -> Result<(), StoreError> {
        if let Err(source) = self.file.set_len(self.end) {
            self.broken = true;
            return Err(self.error("cut off what was reserved", source));
        }
        self.allocated = self.end;
        Ok(())
    }

    fn undo(&mut self, source: io::Error) -> Result<(), StoreError> {
        self.cut()?;
        Err(self.error("append", source))
    }

    fn error(&self, doing: &'static str, source: io::Error) -> StoreError {
        StoreError::io(&self.path, doing, source)
    }
}

/// Cuts a file at `len` and makes that durable.
pub(super) fn truncate_durably(disk: &dyn Disk, path: &Path, file: &File, len: u64) -> Result<(), StoreError> {
    file.set_len(len).map_err(|source| StoreError::io(path, "cut off the torn end", source))?;
    disk.sync(file).map_err(|source| StoreError::SyncFailed { path: path.to_owned(), source })
}
