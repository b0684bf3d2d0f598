//! Writing past the page cache, for what is written once, in bulk, and is not read soon: it costs less, and leaves in memory what is used.

use std::fs::{File, OpenOptions};
use std::ops::{Deref, DerefMut};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::wide;

/// Of memory and of places in the file. What needs less takes this, too; where more is needed, the system refuses and it goes by way
/// of the cache.
const ALIGNMENT: usize = 4096;

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
            let is_aligned = left.as_ptr().align_offset(ALIGNMENT) == 0
                && left.len().is_multiple_of(ALIGNMENT)
                && at.is_multiple_of(wide(ALIGNMENT));
            if !is_aligned {
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
    fn what_is_not_whole_pages_is_left_to_another_way() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, [1; 3 * ALIGNMENT]).unwrap();
        let direct = Direct::of(&OpenOptions::new().read(true).write(true).open(&path).unwrap());
        let mut bytes = Aligned::zeroed(2 * ALIGNMENT);
        assert_eq!(bytes.len(), 2 * ALIGNMENT);
        bytes.fill(2);
        for (what, offset, bytes) in [
            ("in the middle of a page", 512, &bytes[..ALIGNMENT]),
            ("less than a page", 0, &bytes[..512]),
            ("from the middle of a page", 0, &bytes[1..=ALIGNMENT]),
        ] {
            assert_eq!(direct.write(offset, bytes), Ok(0), "{what}");
            assert_eq!(std::fs::read(&path).unwrap(), [1; 3 * ALIGNMENT], "{what}");
        }
        // Where the file system takes it; elsewhere nothing is written and that is said.
        let written = direct.write(wide(ALIGNMENT), &bytes).unwrap();
        let now = std::fs::read(&path).unwrap();
        assert!(now[ALIGNMENT..ALIGNMENT + written].iter().all(|byte| *byte == 2));
        assert!(now[..ALIGNMENT].iter().chain(&now[ALIGNMENT + written..]).all(|byte| *byte == 1));
    }
}
