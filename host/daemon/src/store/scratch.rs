//! What a tester writes over an earlier point of the copy: kept apart, sealed under a key in memory alone, and gone with it.
//!
//! A block that was not written is opened from the copy each time it is read, and is never kept. One that was written lies in the
//! scratch file at its own place, sealed under a key that is drawn when the test begins and never leaves this process. Nonces
//! are counted, and stand in memory with the tags: nobody can read the file after a restart, this node included.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use farseal_core::units::{BlockBytes, BlockCount, Extent, Lba};
use zeroize::Zeroizing;

use super::home::{Home as _, HomeError, RawHome};
use super::opened::{BlockSource, Unopened};
use super::{StoreError, narrow, wide};

const TAG_BYTES: usize = 16;

/// Why there is no scratch file.
#[derive(Debug, thiserror::Error)]
pub enum ScratchError {
    #[error(transparent)]
    Home(#[from] HomeError),
    #[error("no key could be drawn for what the tester writes: the system gives no random bytes")]
    NoKey,
}

/// A block that was written.
#[derive(Clone, Copy, Debug)]
enum Written {
    Zero,
    Sealed { nonce: u64, tag: [u8; TAG_BYTES] },
}

#[derive(Debug, Default)]
struct Book {
    blocks: BTreeMap<u64, Written>,
    /// The last nonce that was used.
    nonce: u64,
}

/// A volume that is a point of the copy and what was written since.
pub struct Scratch<S: BlockSource> {
    file: RawHome,
    key: LessSafeKey,
    book: RwLock<Book>,
    source: S,
    /// What lies below the copy, at a site that wrote before.
    base: Option<Arc<dyn super::home::Home>>,
    block: BlockBytes,
    blocks: BlockCount,
}

impl<S: BlockSource> std::fmt::Debug for Scratch<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scratch").field("file", &self.file).finish_non_exhaustive()
    }
}

impl<S: BlockSource> Scratch<S> {
    /// Over `source`, in a file that is made here.
    pub fn create(
        path: &Path,
        blocks: BlockCount,
        block: BlockBytes,
        source: S,
        base: Option<Arc<dyn super::home::Home>>,
    ) -> Result<Self, ScratchError> {
        let mut bytes = Zeroizing::new([0; 32]);
        getrandom::fill(bytes.as_mut_slice()).map_err(|_| ScratchError::NoKey)?;
        let key = UnboundKey::new(&AES_256_GCM, bytes.as_slice()).map_err(|_| ScratchError::NoKey)?;
        let file = RawHome::open(path, Some(blocks.byte_len(block).0))?;
        Ok(Self { file, key: LessSafeKey::new(key), book: RwLock::default(), source, base, block, blocks })
    }

    pub fn blocks(&self) -> BlockCount {
        self.blocks
    }

    pub fn block_bytes(&self) -> BlockBytes {
        self.block
    }

    /// Reads whole blocks.
    pub fn read(&self, extent: Extent, into: &mut [u8]) -> Result<(), StoreError> {
        let book = self.book.read().unwrap_or_else(PoisonError::into_inner);
        self.read_in(&book, extent, into)
    }

    /// Writes bytes anywhere; what else is in their blocks stays.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), StoreError> {
        self.change(offset, wide(bytes.len()), |at, part| {
            part.copy_from_slice(&bytes[narrow(at)..narrow(at) + part.len()]);
        })
    }

    /// Makes bytes read as zeroes.
    pub fn zero(&self, offset: u64, len: u64) -> Result<(), StoreError> {
        self.change(offset, len, |_, part| part.fill(0))
    }

    /// Blocks in runs: how many, and may they hold data?
    pub fn runs(&self, within: Extent) -> Result<Vec<(BlockCount, bool)>, StoreError> {
        let book = self.book.read().unwrap_or_else(PoisonError::into_inner);
        let mut runs: Vec<(BlockCount, bool)> = Vec::new();
        let mut push = |count: u64, data: bool| match runs.last_mut() {
            Some((last, same)) if *same == data => last.0 += count,
            _ if count > 0 => runs.push((BlockCount(count), data)),
            _ => {}
        };
        let mut at = within.first().0;
        let unwritten = |from: u64, until: u64, push: &mut dyn FnMut(u64, bool)| -> Result<(), StoreError> {
            let Some(extent) = Extent::new(Lba(from), BlockCount(until.saturating_sub(from))) else { return Ok(()) };
            let mut first = from;
            for (count, held) in self.source.runs(extent) {
                match &self.base {
                    Some(base) if !held => {
                        let size = self.block.as_u64();
                        for (len, data) in base.allocated(first * size, count.0 * size)? {
                            push(len.div_ceil(size), data);
                        }
                    }
                    Some(_) | None => push(count.0, held),
                }
                first += count.0;
            }
            Ok(())
        };
        for (lba, written) in book.blocks.range(within.first().0..within.end().0) {
            unwritten(at, *lba, &mut push)?;
            push(1, matches!(written, Written::Sealed { .. }));
            at = lba + 1;
        }
        unwritten(at, within.end().0, &mut push)?;
        Ok(runs)
    }

    fn read_in(&self, book: &Book, extent: Extent, into: &mut [u8]) -> Result<(), StoreError> {
        let size = self.block.as_usize();
        let (first, end) = (extent.first().0, extent.end().0);
        let mut at = first;
        for (lba, written) in book.blocks.range(first..end) {
            self.read_below(at, *lba, slice(into, at - first, lba - at, size))?;
            self.open(*lba, *written, slice(into, lba - first, 1, size))?;
            at = lba + 1;
        }
        self.read_below(at, end, slice(into, at - first, end - at, size))
    }

    /// Blocks that were not written.
    fn read_below(&self, first: u64, end: u64, into: &mut [u8]) -> Result<(), StoreError> {
        let Some(extent) = Extent::new(Lba(first), BlockCount(end.saturating_sub(first))) else { return Ok(()) };
        let size = self.block.as_usize();
        let mut at = first;
        for (count, held) in self.source.runs(extent) {
            let part = slice(into, at - first, count.0, size);
            match (held, Extent::new(Lba(at), count), &self.base) {
                (true, Some(extent), _) => self.source.open(extent, part).map_err(unopened)?,
                (false, _, Some(base)) => base.read(at * self.block.as_u64(), part)?,
                (true | false, _, _) => part.fill(0),
            }
            at += count.0;
        }
        Ok(())
    }

    /// Gives `set` each block's part of a range of bytes, with where in the range it begins, and keeps what it made of it.
    fn change(&self, offset: u64, len: u64, set: impl Fn(u64, &mut [u8])) -> Result<(), StoreError> {
        let size = self.block.as_u64();
        let end = offset.saturating_add(len);
        let mut book = self.book.write().unwrap_or_else(PoisonError::into_inner);
        for lba in offset / size..end.div_ceil(size) {
            let Some(extent) = Extent::new(Lba(lba), BlockCount(1)) else { continue };
            let (from, until) = ((lba * size).max(offset), ((lba + 1) * size).min(end));
            let mut bytes = Zeroizing::new(vec![0; self.block.as_usize()]);
            if until - from < size {
                self.read_in(&book, extent, &mut bytes)?;
            }
            set(from - offset, &mut bytes[narrow(from - lba * size)..narrow(until - lba * size)]);
            let written = self.seal(&mut book, lba, &mut bytes)?;
            book.blocks.insert(lba, written);
        }
        Ok(())
    }

    fn seal(&self, book: &mut Book, lba: u64, bytes: &mut [u8]) -> Result<Written, StoreError> {
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(Written::Zero);
        }
        book.nonce += 1;
        let nonce = book.nonce;
        let sealed = self.key.seal_in_place_separate_tag(nonce_of(nonce), Aad::from(lba.to_le_bytes()), bytes);
        let mut tag = [0; TAG_BYTES];
        match sealed {
            Ok(sealed) => tag.copy_from_slice(sealed.as_ref()),
            Err(_) => return Err(self.damaged(lba, "a block could not be sealed")),
        }
        self.file.write(lba * self.block.as_u64(), bytes)?;
        Ok(Written::Sealed { nonce, tag })
    }

    fn open(&self, lba: u64, written: Written, into: &mut [u8]) -> Result<(), StoreError> {
        let Written::Sealed { nonce, tag } = written else {
            into.fill(0);
            return Ok(());
        };
        let mut sealed = Zeroizing::new(vec![0; into.len() + TAG_BYTES]);
        let (body, end) = sealed.split_at_mut(into.len());
        self.file.read(lba * self.block.as_u64(), body)?;
        end.copy_from_slice(&tag);
        let aad = Aad::from(lba.to_le_bytes());
        let opened = self.key.open_in_place(nonce_of(nonce), aad, &mut sealed);
        let opened = opened.map_err(|_| self.damaged(lba, "a block is not what was written"))?;
        into.copy_from_slice(opened);
        Ok(())
    }

    fn damaged(&self, lba: u64, what: &'static str) -> StoreError {
        StoreError::Damaged { path: "scratch".into(), offset: lba * self.block.as_u64(), what }
    }
}

fn nonce_of(count: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[..8].copy_from_slice(&count.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}

fn slice(bytes: &mut [u8], first: u64, blocks: u64, size: usize) -> &mut [u8] {
    bytes.get_mut(narrow(first) * size..narrow(first + blocks) * size).unwrap_or_default()
}

fn unopened(why: Unopened) -> StoreError {
    match why {
        Unopened::Refused => StoreError::Refused,
        Unopened::NotAuthentic { lba, sequence } => StoreError::NotAuthentic { lba, sequence },
        Unopened::NoKey { epoch } => StoreError::NoKey { epoch },
        Unopened::Store(error) => error,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::fs;

    use super::*;

    /// Blocks 4 to 7 hold 0x77; the rest nothing.
    struct Point;

    impl BlockSource for Point {
        fn open(&self, _: Extent, into: &mut [u8]) -> Result<(), Unopened> {
            into.fill(0x77);
            Ok(())
        }

        fn runs(&self, within: Extent) -> Vec<(BlockCount, bool)> {
            (within.first().0..within.end().0).map(|lba| (BlockCount(1), (4..8).contains(&lba))).collect()
        }
    }

    #[test]
    fn what_is_written_is_read_back_and_lies_sealed_and_nothing_else_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("scratch");
        let block = BlockBytes::new(512).unwrap();
        let scratch = Scratch::create(&path, BlockCount(16), block, Point, None).unwrap();
        let all = Extent::new(Lba(0), BlockCount(16)).unwrap();
        let mut expected = vec![0; 16 * 512];
        expected[4 * 512..8 * 512].fill(0x77);
        let check = |expected: &[u8]| {
            let mut read = vec![0xff; 16 * 512];
            scratch.read(all, &mut read).unwrap();
            assert_eq!(read, expected);
        };
        check(&expected);
        assert_eq!(fs::metadata(&path).unwrap().len(), 16 * 512);
        assert!(fs::read(&path).unwrap().iter().all(|byte| *byte == 0), "nothing that was read is kept");
        for (offset, len, byte) in [(5 * 512 + 100, 600, 0x11), (0, 512, 0x22), (5 * 512 + 90, 20, 0x33)] {
            scratch.write(offset, &vec![byte; len]).unwrap();
            expected[narrow(offset)..narrow(offset) + len].fill(byte);
            check(&expected);
        }
        scratch.zero(6 * 512 + 1, 1023).unwrap();
        expected[6 * 512 + 1..8 * 512].fill(0);
        check(&expected);
        let runs: Vec<(u64, bool)> = scratch.runs(all).unwrap().iter().map(|(run, data)| (run.0, *data)).collect();
        assert_eq!(runs, [(1, true), (3, false), (3, true), (9, false)]);
        let file = fs::read(&path).unwrap();
        for byte in [0x11, 0x22, 0x33, 0x77] {
            assert!(!file.windows(16).any(|window| window == [byte; 16]), "{byte:x} lies in clear");
        }
    }

    #[test]
    fn a_block_that_was_changed_on_disk_is_not_served() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("scratch");
        let scratch = Scratch::create(&path, BlockCount(4), BlockBytes::new(512).unwrap(), Point, None).unwrap();
        scratch.write(0, &[9; 1024]).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        bytes[7] ^= 1;
        fs::write(&path, bytes).unwrap();
        let first = Extent::new(Lba(0), BlockCount(1)).unwrap();
        assert!(matches!(scratch.read(first, &mut [0; 512]), Err(StoreError::Damaged { .. })));
        let second = Extent::new(Lba(1), BlockCount(1)).unwrap();
        scratch.read(second, &mut [0; 512]).unwrap();
    }
}
