//! One record as the vault sees it: an opaque header, a body sealed in place block by block, a tag for each.

use super::stack::StackIndex;

/// Bytes of a record header, authenticated with every block.
pub const HEADER_LEN: usize = 96;
/// Bytes of a block's tag.
pub const TAG_LEN: usize = 16;
/// Bytes of associated data for one block of a record without search tags: header || block index u32be || block length u32be.
pub const AAD_LEN: usize = HEADER_LEN + 8;
/// Most bytes of search tags beside one block: eight of 16.
pub const MAX_BESIDE: usize = 8 * 16;
/// Largest block, in bytes.
pub const MAX_BLOCK: u32 = 64 * 1024;

/// A record, or a run of a record's blocks, to be sealed or opened in place.
#[derive(Debug)]
pub struct Unit<'a> {
    /// The part of the record's header that never changes once sealed. What it says is the caller's business,
    /// including that the count of blocks in it is that of the body.
    pub header: &'a [u8; HEADER_LEN],
    /// The record's place in the order.
    pub seq: u64,
    /// Which of the epoch's stacks.
    pub stack: StackIndex,
    /// Bytes in each block, 1 to 65 536; the last block of the body may be shorter.
    pub block_len: u32,
    /// The index in the record of the body's first block: 0 for a whole record. A single block is opened by naming
    /// its index here.
    pub first_block: u32,
    /// The blocks. An empty body counts as one block of no bytes, so that a record without a body is
    /// authenticated too.
    pub body: &'a mut [u8],
    /// Bytes behind each block's tag that the tag proves with the block: its search tags, which end the associated data. At most 128,
    /// and none where there is no body.
    pub beside: usize,
    /// For each block 16 bytes, and those beside it.
    pub tags: &'a mut [u8],
}

/// How many blocks a body of `body_len` bytes is: at least 1. `None` when the block length is 0 or above 65 536, or
/// the blocks cannot be numbered.
#[must_use]
pub fn block_count(body_len: usize, block_len: u32) -> Option<u32> {
    if block_len == 0 || block_len > MAX_BLOCK {
        return None;
    }
    let block_len = usize::try_from(block_len).ok()?;
    u32::try_from(body_len.div_ceil(block_len).max(1)).ok()
}

/// How many bytes of tags a body of `body_len` bytes needs; `None` as in [`block_count`].
#[must_use]
pub fn tags_len(body_len: usize, block_len: u32) -> Option<usize> {
    usize::try_from(block_count(body_len, block_len)?).ok()?.checked_mul(TAG_LEN)
}

/// The lengths of a unit contradict each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "record {seq}: a body of {body} bytes from block {first_block} in blocks of {block_len} does not go with {tags} bytes of tags"
)]
pub struct BadLength {
    /// The record.
    pub seq: u64,
    /// Bytes in its body.
    pub body: usize,
    /// Bytes in each block.
    pub block_len: u32,
    /// The index of the first block.
    pub first_block: u32,
    /// Bytes of tags.
    pub tags: usize,
}

impl Unit<'_> {
    /// The block length as a size, once every length is found to agree.
    pub(super) fn checked_block_len(&self) -> Result<usize, BadLength> {
        let bad = BadLength {
            seq: self.seq,
            body: self.body.len(),
            block_len: self.block_len,
            first_block: self.first_block,
            tags: self.tags.len(),
        };
        let blocks = block_count(self.body.len(), self.block_len).ok_or(bad)?;
        let numbered = self.first_block.checked_add(blocks).is_some();
        let beside = self.beside <= MAX_BESIDE && (self.beside == 0 || !self.body.is_empty());
        let tags = usize::try_from(blocks).ok().and_then(|blocks| blocks.checked_mul(TAG_LEN + self.beside));
        if !numbered || !beside || tags != Some(self.tags.len()) {
            return Err(bad);
        }
        usize::try_from(self.block_len).map_err(|_| bad)
    }

    /// The blocks with their indices and tags, and what stands beside these. An empty body gives one empty block.
    pub(super) fn blocks(&mut self, block_len: usize) -> impl Iterator<Item = (u32, &mut [u8], Tags<'_>)> {
        // `chunks_mut` of nothing is nothing, but a body of nothing has one tag.
        let nothing: Option<&mut [u8]> = if self.body.is_empty() { Some(&mut []) } else { None };
        let tags = self.tags.chunks_mut(TAG_LEN + self.beside).filter_map(|tags| {
            let (tag, beside) = tags.split_first_chunk_mut::<TAG_LEN>()?;
            Some(Tags { tag, beside })
        });
        (self.first_block..)
            .zip(nothing.into_iter().chain(self.body.chunks_mut(block_len)))
            .zip(tags)
            .map(|((index, block), tags)| (index, block, tags))
    }
}

/// The tag of one block, and what it proves beside the block.
pub(super) struct Tags<'a> {
    pub(super) tag: &'a mut [u8; TAG_LEN],
    pub(super) beside: &'a [u8],
}

/// The associated data of a record's blocks: the header once, what follows for each block.
pub(super) struct BlockAad([u8; AAD_LEN + MAX_BESIDE]);

impl BlockAad {
    pub(super) fn new(header: &[u8; HEADER_LEN]) -> Self {
        let mut bytes = [0; AAD_LEN + MAX_BESIDE];
        for (to, from) in bytes.iter_mut().zip(header) {
            *to = *from;
        }
        Self(bytes)
    }

    /// For the block with this index and length, and what stands beside its tag. A block is at most 64 KiB long, so its length
    /// always fits.
    pub(super) fn of_block(&mut self, index: u32, block: &[u8], beside: &[u8]) -> &[u8] {
        let length = u32::try_from(block.len()).unwrap_or(u32::MAX);
        let place = index.to_be_bytes().into_iter().chain(length.to_be_bytes());
        for (to, from) in self.0.iter_mut().skip(HEADER_LEN).zip(place.chain(beside.iter().copied())) {
            *to = from;
        }
        self.0.get(..AAD_LEN + beside.len()).unwrap_or(&self.0)
    }
}
