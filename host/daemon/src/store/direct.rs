//! Writing past the page cache, for what is written once, in bulk, and is not read soon: it costs less, and leaves in memory what is used.

use std::fs::{File, OpenOptions};
use std::ops::{Deref, DerefMut};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::wide;

/// Of memory. What needs less takes this, too; where more is needed, the system refuses and it goes by way of the cache.
const ALIGNMENT: usize = 4096;
/// What is written past the cache begins and ends at multiples of this in the file. The cache may hold up to so much as one piece (a
/// folio of the order of a huge page), which is dropped as a whole or not at all: if somebody writes to a part of one, what was written
/// past it beside that part is not seen, and the next sync fails.
const STRETCH_BYTES: usize = 2 << 20;

/// Bytes that begin where a disk can take them from.
#[derive(Debug)]
pub(super) struct Aligned {
    bytes: Vec<u8>,
    from: usize,
}

impl Aligned {
    /// So many zeroes.
    pub(super) fn zeroed(len: usize) -> Self {
        let mut bytes = vec![0; len + ALIGNMENT];
        let from = bytes.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        bytes.truncate(from + len);
        Self { bytes, from }
    }
}

impl Deref for Aligned {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.from..]
    }
}

impl DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.from..]
    }
}

/// A file once more, past the page cache, where its file system allows it.
#[derive(Debug)]
pub(super) struct Direct {
    file: Option<File>,
    refused: AtomicBool,
}

impl Direct {
    /// The very file that is open, whatever its name has become since.
    pub(super) fn of(file: &File) -> Self {
        let flags = i32::try_from(OFlags::DIRECT.bits()).unwrap_or_default();
        let again = format!("/proc/self/fd/{}", file.as_raw_fd());
        let file = OpenOptions::new().write(true).custom_flags(flags).open(again).ok();
        Self { file, refused: AtomicBool::new(false) }
    }

    /// Writes the first of these bytes, as many as can be written so; the others are to be written another way.
    ///
    /// # Errors
    /// The disk's.
    pub(super) fn write(&self, offset: u64, bytes: &[u8]) -> Result<usize, Errno> {
        let Some(file) = self.file.as_ref().filter(|_| !self.refused.load(Ordering::Relaxed)) else { return Ok(0) };
        let mut done = 0;
        while let Some(left) = bytes.get(done..).filter(|left| !left.is_empty()) {
            let at = offset + wide(done);
            // After a part of it only, the rest goes by way of the cache.
            let is_whole = left.as_ptr().align_offset(ALIGNMENT) == 0
                && left.len().is_multiple_of(STRETCH_BYTES)
                && at.is_multiple_of(wide(STRETCH_BYTES));
            if !is_whole {
                break;
            }
            match rustix::io::pwrite(file, left, at) {
                Ok(0) => break,
                Ok(written) => done += written,
                Err(Errno::INTR) => {}
                Err(Errno::INVAL | Errno::OPNOTSUPP) => {
                    self.refused.store(true, Ordering::Relaxed);
                    break;
                }
                Err(errno) => return Err(errno),
            }
        }
        Ok(done)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn what_is_not_whole_stretches_is_left_to_another_way() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let before = vec![1; 3 * STRETCH_BYTES];
        std::fs::write(&path, &before).unwrap();
        let direct = Direct::of(&OpenOptions::new().read(true).write(true).open(&path).unwrap());
        let mut bytes = Aligned::zeroed(STRETCH_BYTES + ALIGNMENT);
        assert_eq!(bytes.len(), STRETCH_BYTES + ALIGNMENT);
        bytes.fill(2);
        for (what, offset, bytes) in [
            ("in the middle of one", ALIGNMENT, &bytes[..STRETCH_BYTES]),
            ("less than one", 0, &bytes[..ALIGNMENT]),
            ("more than one", 0, &bytes[..]),
            ("from where no disk takes it", 0, &bytes[1..=STRETCH_BYTES]),
        ] {
            assert_eq!(direct.write(wide(offset), bytes), Ok(0), "{what}");
            assert!(std::fs::read(&path).unwrap() == before, "{what}");
        }
        // Where the file system takes it; elsewhere nothing is written and that is said.
        let written = direct.write(wide(STRETCH_BYTES), &bytes[..STRETCH_BYTES]).unwrap();
        let now = std::fs::read(&path).unwrap();
        let end = STRETCH_BYTES + written;
        assert!(now[STRETCH_BYTES..end].iter().all(|byte| *byte == 2));
        assert!(now[..STRETCH_BYTES].iter().chain(&now[end..]).all(|byte| *byte == 1));
    }
}
