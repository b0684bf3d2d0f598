//! A volume's home: a file or a block device that holds its blocks in plaintext.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Seek as _, SeekFrom};
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{FallocateFlags, FlockOperation, OFlags};
use rustix::io::Errno;

use super::direct::Direct;
use super::{StoreError, files, narrow, wide};

/// Zeroes written at once where a file system cannot zero by itself.
static ZEROES: [u8; 64 << 10] = [0; 64 << 10];

/// Where a volume's bytes live. Reads and writes are positioned and may run side by side.
pub trait Home: Send + Sync + fmt::Debug {
    /// Its size.
    fn bytes(&self) -> u64;

    fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), StoreError>;

    fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), StoreError>;

    /// As [`Self::write`], of bytes that nobody is about to read: they need not stay in memory.
    fn write_in_bulk(&self, offset: u64, bytes: &[u8]) -> Result<(), StoreError> {
        self.write(offset, bytes)
    }

    /// Makes a range read as zeroes; with `punch` its room is given back as well.
    fn zero(&self, offset: u64, len: u64, punch: bool) -> Result<(), StoreError>;

    /// Makes everything written before it durable.
    fn sync(&self) -> Result<(), StoreError>;

    /// Runs from `offset` on that cover `len` bytes: how long, and may it hold data?
    fn allocated(&self, offset: u64, len: u64) -> Result<Vec<(u64, bool)>, StoreError>;
}

/// One home that several hold: a site's image outlives the lanes over it.
impl Home for std::sync::Arc<dyn Home> {
    fn bytes(&self) -> u64 {
        (**self).bytes()
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), StoreError> {
        (**self).read(offset, into)
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), StoreError> {
        (**self).write(offset, bytes)
    }

    fn write_in_bulk(&self, offset: u64, bytes: &[u8]) -> Result<(), StoreError> {
        (**self).write_in_bulk(offset, bytes)
    }

    fn zero(&self, offset: u64, len: u64, punch: bool) -> Result<(), StoreError> {
        (**self).zero(offset, len, punch)
    }

    fn sync(&self) -> Result<(), StoreError> {
        (**self).sync()
    }

    fn allocated(&self, offset: u64, len: u64) -> Result<Vec<(u64, bool)>, StoreError> {
        (**self).allocated(offset, len)
    }
}

/// Why a home cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    #[error("{}: it has {found} bytes and the volume has {expected}; name the right file, or resize it", path.display())]
    Size { path: PathBuf, expected: u64, found: u64 },
    #[error("{}: there is no such file, and no size to make one with", .0.display())]
    Absent(PathBuf),
    #[error(
        "{}: it is gone, and there was a volume in it; mount its file system, or put the file back: an empty one would answer with zeroes",
        .0.display()
    )]
    Gone(PathBuf),
    #[error("{}: it is neither a file nor a block device", .0.display())]
    Unfit(PathBuf),
    #[error("{}: something else uses it", .0.display())]
    InUse(PathBuf),
    #[error("{}: could not {doing}: {source}", path.display())]
    Io { path: PathBuf, doing: &'static str, source: io::Error },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A regular file, sparse where nothing was written, or a block device.
#[derive(Debug)]
pub struct RawHome {
    path: PathBuf,
    file: File,
    /// Once something is written in bulk: most homes never are.
    direct: OnceLock<Direct>,
    bytes: u64,
    device: bool,
    sync_lost: AtomicBool,
}

impl RawHome {
    /// Opens it for this process alone. A file that is not there is made, sparse, if a size is given; one that is
    /// there must have that size. A block device may be larger than the volume.
    pub fn open(path: &Path, bytes: Option<u64>) -> Result<Self, HomeError> {
        let failed = |doing, source| HomeError::Io { path: path.to_owned(), doing, source };
        let kind = match std::fs::metadata(path) {
            Ok(metadata) => Some(metadata.file_type()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed("look at it", error)),
        };
        match kind {
            None => create(path, bytes.ok_or(HomeError::Absent(path.to_owned()))?)?,
            Some(kind) if kind.is_file() || kind.is_block_device() => {}
            Some(_) => return Err(HomeError::Unfit(path.to_owned())),
        }
        let device = kind.is_some_and(|kind| kind.is_block_device());
        // On a block device, exclusive means: not mounted, and not part of another device.
        let flags = if device { OFlags::EXCL } else { OFlags::empty() };
        let flags = i32::try_from(flags.bits()).unwrap_or_default();
        let mut file = match OpenOptions::new().read(true).write(true).custom_flags(flags).open(path) {
            Ok(file) => file,
            Err(error) if error.raw_os_error() == Some(Errno::BUSY.raw_os_error()) => {
                return Err(HomeError::InUse(path.to_owned()));
            }
            Err(error) => return Err(failed("open it", error)),
        };
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(HomeError::InUse(path.to_owned())),
            Err(errno) => return Err(failed("lock it", errno.into())),
        }
        let found = file.seek(SeekFrom::End(0)).map_err(|source| failed("find its size", source))?;
        let expected = bytes.unwrap_or(found);
        if found < expected || (found != expected && !device) {
            return Err(HomeError::Size { path: path.to_owned(), expected, found });
        }
        Ok(Self {
            path: path.to_owned(),
            file,
            direct: OnceLock::new(),
            bytes: expected,
            device,
            sync_lost: AtomicBool::new(false),
        })
    }

    /// As [`Self::open`]; where it has `begun`, a file that is not there is not made, whatever size is given.
    pub fn open_known(path: &Path, bytes: Option<u64>, begun: bool) -> Result<Self, HomeError> {
        if begun && !path.exists() {
            return Err(HomeError::Gone(path.to_owned()));
        }
        Self::open(path, bytes)
    }

    /// Writes neighbours with one call.
    pub fn write_vectored(&self, offset: u64, mut slices: &mut [IoSlice<'_>]) -> Result<(), StoreError> {
        self.within(offset, slices.iter().map(|slice| wide(slice.len())).sum())?;
        let mut at = offset;
        while slices.iter().any(|slice| !slice.is_empty()) {
            match rustix::io::pwritev(&self.file, &slices[..slices.len().min(1024)], at) {
                Ok(0) => return Err(self.failed("write", io::ErrorKind::WriteZero.into())),
                Ok(written) => {
                    at += wide(written);
                    IoSlice::advance_slices(&mut slices, written);
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(self.failed("write", errno.into())),
            }
        }
        Ok(())
    }

    fn within(&self, offset: u64, len: u64) -> Result<(), StoreError> {
        match offset.checked_add(len) {
            Some(end) if end <= self.bytes => Ok(()),
            _ => Err(StoreError::OutOfBounds { path: self.path.clone(), offset, len, bytes: self.bytes }),
        }
    }

    fn failed(&self, doing: &'static str, source: io::Error) -> StoreError {
        StoreError::io(&self.path, doing, source)
    }

    fn write_zeroes(&self, offset: u64, len: u64) -> Result<(), StoreError> {
        let mut done = 0;
        while done < len {
            let step = (len - done).min(wide(ZEROES.len()));
            self.write(offset + done, &ZEROES[..narrow(step)])?;
            done += step;
        }
        Ok(())
    }

    /// The first offset at or after `at` that `seek` finds, if there is one.
    fn seek(&self, seek: rustix::fs::SeekFrom) -> Result<Option<u64>, StoreError> {
        match rustix::fs::seek(&self.file, seek) {
            Ok(offset) => Ok(Some(offset)),
            Err(Errno::NXIO) => Ok(None),
            Err(errno) => Err(self.failed("ask what is allocated", errno.into())),
        }
    }
}

impl Home for RawHome {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), StoreError> {
        self.within(offset, wide(into.len()))?;
        self.file.read_exact_at(into, offset).map_err(|source| self.failed("read", source))
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), StoreError> {
        self.within(offset, wide(bytes.len()))?;
        self.file.write_all_at(bytes, offset).map_err(|source| self.failed("write", source))
    }

    fn write_in_bulk(&self, offset: u64, bytes: &[u8]) -> Result<(), StoreError> {
        self.within(offset, wide(bytes.len()))?;
        let done = self
            .direct
            .get_or_init(|| Direct::of(&self.file))
            .write(offset, bytes)
            .map_err(|errno| self.failed("write", errno.into()))?;
        match bytes.get(done..) {
            Some(left) if !left.is_empty() => self.write(offset + wide(done), left),
            _ => Ok(()),
        }
    }

    fn zero(&self, offset: u64, len: u64, punch: bool) -> Result<(), StoreError> {
        self.within(offset, len)?;
        if len == 0 {
            return Ok(());
        }
        let mode = if punch { FallocateFlags::PUNCH_HOLE } else { FallocateFlags::ZERO_RANGE };
        match rustix::fs::fallocate(&self.file, mode | FallocateFlags::KEEP_SIZE, offset, len) {
            Ok(()) => Ok(()),
            // The file system does not know how, or the range is not whole sectors of the device.
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::INTR) => self.write_zeroes(offset, len),
            Err(errno) => Err(self.failed("zero", errno.into())),
        }
    }

    fn sync(&self) -> Result<(), StoreError> {
        if self.sync_lost.load(Ordering::Acquire) {
            return Err(StoreError::SyncLost { path: self.path.clone() });
        }
        self.file.sync_data().map_err(|source| {
            self.sync_lost.store(true, Ordering::Release);
            StoreError::SyncFailed { path: self.path.clone(), source }
        })
    }

    fn allocated(&self, offset: u64, len: u64) -> Result<Vec<(u64, bool)>, StoreError> {
        self.within(offset, len)?;
        if self.device {
            return Ok(if len == 0 { Vec::new() } else { vec![(len, true)] });
        }
        let end = offset + len;
        let (mut runs, mut at) = (Vec::new(), offset);
        while at < end {
            let data = self.seek(rustix::fs::SeekFrom::Data(at))?.unwrap_or(end).clamp(at, end);
            if data > at {
                runs.push((data - at, false));
            }
            if data == end {
                break;
            }
            let hole = self.seek(rustix::fs::SeekFrom::Hole(data))?.unwrap_or(end).clamp(data, end);
            // Another writer may have filled the hole in between: then what follows is data to the end of the range.
            let hole = if hole == data { end } else { hole };
            runs.push((hole - data, true));
            at = hole;
        }
        Ok(runs)
    }
}

fn create(path: &Path, bytes: u64) -> Result<(), HomeError> {
    let make = || {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.set_len(bytes)?;
        file.sync_all()
    };
    if let Err(source) = make() {
        return Err(HomeError::Io { path: path.to_owned(), doing: "make it", source });
    }
    Ok(files::sync_dir(path.parent().unwrap_or(Path::new(".")))?)
}
