//! A disk that is as small, as slow to fill or as broken as a test wants it.

use std::fs::File;
use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use farseal::store::disk::{Disk, RealDisk};

/// Writes until `room` bytes are used up, and tears the write that does not fit.
#[derive(Debug)]
pub(crate) struct Faulty {
    pub(crate) room: AtomicU64,
    /// Want of room shows when it is reserved, as on most file systems; else in the middle of a write.
    pub(crate) reserves: AtomicBool,
    pub(crate) sync_fails: AtomicBool,
}

impl Faulty {
    pub(crate) fn with_room(room: u64) -> Self {
        Self { room: AtomicU64::new(room), reserves: AtomicBool::new(false), sync_fails: AtomicBool::new(false) }
    }
}

impl Disk for Faulty {
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
        if self.sync_fails.swap(false, Ordering::SeqCst) {
            Err(io::Error::from_raw_os_error(5))
        } else {
            RealDisk.sync(file)
        }
    }
}
