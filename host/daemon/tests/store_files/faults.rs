//! A disk that is as small, as slow to fill or as broken as a test wants it.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use farseal::store::disk::{Disk, RealDisk};

/// Writes until `room` bytes are used up, and tears the write that does not fit.
#[derive(Debug)]
pub(crate) struct Faulty {
    pub(crate) room: AtomicU64,
    /// Want of room shows when it is reserved, as on most file systems; else in the middle of a write.
    pub(crate) reserves: AtomicBool,
    pub(crate) sync_fails: AtomicBool,
    /// The next file cannot be made: every descriptor is in use.
    pub(crate) no_descriptor: AtomicBool,
    /// What files were when they were last synced, and a sync of them has failed since: by inode.
    synced: Mutex<BTreeMap<u64, (Vec<u8>, bool)>>,
}

impl Faulty {
    pub(crate) fn with_room(room: u64) -> Self {
        Self {
            room: AtomicU64::new(room),
            reserves: AtomicBool::new(false),
            sync_fails: AtomicBool::new(false),
            no_descriptor: AtomicBool::new(false),
            synced: Mutex::default(),
        }
    }
}

impl Disk for Faulty {
    fn create(&self, path: &Path) -> io::Result<File> {
        if self.no_descriptor.swap(false, Ordering::SeqCst) {
            return Err(io::Error::from_raw_os_error(24));
        }
        RealDisk.create(path)
    }

    fn allocate(&self, file: &File, offset: u64, len: u64) -> io::Result<()> {
        if !self.reserves.load(Ordering::SeqCst) {
            return Ok(());
        }
        if self.room.load(Ordering::SeqCst) < len {
            return Err(io::Error::from_raw_os_error(28));
        }
        RealDisk.allocate(file, offset, len)
    }

    fn write(&self, file: &File, slices: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        let room = self.room.load(Ordering::SeqCst);
        if room == 0 {
            return Err(io::Error::from_raw_os_error(28));
        }
        let all: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        let some = all.len().min(usize::try_from(room).unwrap());
        let written = RealDisk.write(file, &[IoSlice::new(&all[..some])], offset)?;
        self.room.fetch_sub(u64::try_from(written).unwrap(), Ordering::SeqCst);
        Ok(written)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        let mut synced = self.synced.lock().unwrap();
        let (bytes, failed) = synced.entry(file.metadata()?.ino()).or_default();
        if self.sync_fails.swap(false, Ordering::SeqCst) {
            *failed = true;
            return Err(io::Error::from_raw_os_error(5));
        }
        // The system takes pages whose writing failed for written: another sync says nothing of them.
        if !*failed {
            *bytes = std::fs::read(again(file))?;
        }
        RealDisk.sync(file)
    }

    fn read_anew(&self, file: &File) -> io::Result<()> {
        self.sync(file)?;
        let mut synced = self.synced.lock().unwrap();
        if let Some((bytes, failed)) = synced.get_mut(&file.metadata()?.ino())
            && std::mem::take(failed)
        {
            let len = file.metadata()?.len();
            bytes.resize(usize::try_from(len).unwrap(), 0);
            OpenOptions::new().write(true).open(again(file))?.write_all_at(bytes, 0)?;
        }
        Ok(())
    }
}

/// The same file, to be read or written whatever it was opened for.
fn again(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}
