//! Which blocks are in the image: a bit each, in memory and on disk.
//!
//! On disk each page has two places, written in turn: `counter (u64), crc32c (u32), 0 (u32), 510 words of bits`. A torn
//! write spoils the older one's place and leaves the newer. Bits are only ever set, so that an older page is true too.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::store::home::Home;
use crate::store::{StoreError, narrow, wide};

const PAGE_BYTES: u64 = 4096;
const HEADER_BYTES: usize = 16;
const PAGE_WORDS: usize = 510;
const PAGE_BITS: u64 = 510 * 64;

#[derive(Debug)]
pub(super) struct Bits {
    pages: Vec<OnceLock<Box<Page>>>,
}

#[derive(Debug)]
struct Page {
    words: [AtomicU64; PAGE_WORDS],
    dirty: AtomicBool,
    /// Of the newest copy on disk.
    counter: AtomicU64,
}

/// A page as it stood before the image was synced.
#[derive(Debug)]
pub(super) struct PageCopy {
    page: u64,
    words: Vec<u64>,
}

/// Bytes of the map of a volume with this many blocks.
pub(super) fn map_bytes(blocks: u64) -> u64 {
    blocks.div_ceil(PAGE_BITS) * 2 * PAGE_BYTES
}

impl Bits {
    pub(super) fn load(map: &dyn Home, blocks: u64) -> Result<Self, StoreError> {
        let pages = blocks.div_ceil(PAGE_BITS);
        let bits = Self { pages: (0..pages).map(|_| OnceLock::new()).collect() };
        let mut at = 0;
        for (len, data) in map.allocated(0, pages * 2 * PAGE_BYTES)? {
            if data {
                for page in at / (2 * PAGE_BYTES)..(at + len).div_ceil(2 * PAGE_BYTES) {
                    bits.load_page(map, page)?;
                }
            }
            at += len;
        }
        Ok(bits)
    }

    /// Are all blocks from `first` up to `end` in the image?
    pub(super) fn all(&self, first: u64, end: u64) -> bool {
        self.count(first, end) == end - first
    }

    pub(super) fn count(&self, first: u64, end: u64) -> u64 {
        let mut count = 0;
        self.words(first, end, |page, word, mask| {
            if let Some(page) = page.get() {
                count += u64::from((page.words[word].load(Ordering::Acquire) & mask).count_ones());
            }
        });
        count
    }

    /// Blocks from `first` up to `end` in runs: from, to, in the image?
    pub(super) fn runs(&self, first: u64, end: u64) -> Vec<(u64, u64, bool)> {
        let mut runs: Vec<(u64, u64, bool)> = Vec::new();
        for at in first..end {
            let set = self.pages.get(narrow(at / PAGE_BITS)).and_then(OnceLock::get).is_some_and(|page| {
                let bit = at % PAGE_BITS;
                page.words[narrow(bit / 64)].load(Ordering::Acquire) >> (bit % 64) & 1 == 1
            });
            match runs.last_mut() {
                Some((_, to, same)) if *same == set => *to = at + 1,
                _ => runs.push((at, at + 1, set)),
            }
        }
        runs
    }

    /// Sets the bits of blocks whose bytes stand in the image already.
    pub(super) fn set(&self, first: u64, end: u64) {
        self.words(first, end, |page, word, mask| {
            let page = page.get_or_init(Page::new);
            page.words[word].fetch_or(mask, Ordering::AcqRel);
            page.dirty.store(true, Ordering::Release);
        });
    }

    /// What has changed since it was last written. Taken before the image is synced.
    pub(super) fn take_dirty(&self) -> Vec<PageCopy> {
        let mut copies = Vec::new();
        for (number, page) in self.pages.iter().enumerate() {
            if let Some(page) = page.get()
                && page.dirty.swap(false, Ordering::AcqRel)
            {
                let words = page.words.iter().map(|word| word.load(Ordering::Acquire)).collect();
                copies.push(PageCopy { page: wide(number), words });
            }
        }
        copies
    }

    /// The image could not be synced, or the map not be written: these are to be written yet.
    pub(super) fn put_back(&self, copies: &[PageCopy]) {
        for copy in copies {
            if let Some(page) = self.pages.get(narrow(copy.page)).and_then(OnceLock::get) {
                page.dirty.store(true, Ordering::Release);
            }
        }
    }

    /// Writes pages over their older copies. Called after the image was synced, one sync at a time.
    pub(super) fn write(&self, map: &dyn Home, copies: &[PageCopy]) -> Result<(), StoreError> {
        for copy in copies {
            let Some(page) = self.pages.get(narrow(copy.page)).and_then(OnceLock::get) else {
                continue;
            };
            let counter = page.counter.load(Ordering::Acquire) + 1;
            map.write((copy.page * 2 + counter % 2) * PAGE_BYTES, &encode(counter, &copy.words))?;
        }
        map.sync()?;
        for copy in copies {
            if let Some(page) = self.pages.get(narrow(copy.page)).and_then(OnceLock::get) {
                page.counter.fetch_add(1, Ordering::AcqRel);
            }
        }
        Ok(())
    }

    fn load_page(&self, map: &dyn Home, number: u64) -> Result<(), StoreError> {
        let mut bytes = vec![0; narrow(2 * PAGE_BYTES)];
        map.read(number * 2 * PAGE_BYTES, &mut bytes)?;
        let copies = bytes.chunks_exact(narrow(PAGE_BYTES));
        let newest = copies.clone().filter_map(decode).max_by_key(|(counter, _)| *counter);
        let Some((counter, words)) = newest else {
            // A first write that was torn beside a place never used: nothing of it was promised.
            if copies.clone().any(|copy| copy.iter().all(|byte| *byte == 0)) {
                return Ok(());
            }
            return Err(StoreError::Damaged {
                path: "opened.map".into(),
                offset: number * 2 * PAGE_BYTES,
                what: "neither copy of a page matches its checksum",
            });
        };
        if let Some(page) = self.pages.get(narrow(number)) {
            let page = page.get_or_init(Page::new);
            page.counter.store(counter, Ordering::Release);
            for (word, value) in page.words.iter().zip(words) {
                word.store(value, Ordering::Release);
            }
        }
        Ok(())
    }

    /// Goes through the words that hold the bits from `first` up to `end`.
    fn words(&self, first: u64, end: u64, mut each: impl FnMut(&OnceLock<Box<Page>>, usize, u64)) {
        let mut at = first;
        while at < end {
            let (page, bit) = (at / PAGE_BITS, at % PAGE_BITS);
            let until = (at - bit % 64 + 64).min(end);
            let count = until - at;
            let mask = (u64::MAX >> (64 - count)) << (bit % 64);
            if let Some(page) = self.pages.get(narrow(page)) {
                each(page, narrow(bit / 64), mask);
            }
            at = until;
        }
    }
}

impl Page {
    fn new() -> Box<Self> {
        Box::new(Self {
            words: [const { AtomicU64::new(0) }; PAGE_WORDS],
            dirty: AtomicBool::new(false),
            counter: AtomicU64::new(0),
        })
    }
}

fn encode(counter: u64, words: &[u64]) -> Vec<u8> {
    let mut out = Vec::with_capacity(narrow(PAGE_BYTES));
    out.extend(counter.to_le_bytes());
    out.extend([0; 8]);
    out.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    let crc = crc32c::crc32c(&out);
    out[8..12].copy_from_slice(&crc.to_le_bytes());
    out
}

fn decode(bytes: &[u8]) -> Option<(u64, Vec<u64>)> {
    let counter = u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?);
    let words: Vec<u64> = bytes
        .get(HEADER_BYTES..)?
        .chunks_exact(8)
        .map(|word| u64::from_le_bytes(word.try_into().unwrap_or_default()))
        .collect();
    (counter > 0 && encode(counter, &words) == bytes).then_some((counter, words))
}
