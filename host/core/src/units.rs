//! The words of the system as types: places, counts, sequence numbers, epochs, generations and time.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A block's place in its volume, counted in blocks from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Lba(pub u64);

/// How many blocks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct BlockCount(pub u64);

/// How many bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct ByteLen(pub u64);

/// The place of a record in its lane's one order. The first record has 1; 0 means "none yet".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Sequence(pub u64);

/// The span in which one data key is in force. The first has 1; 0 means "none yet".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Epoch(pub u64);

/// Who may write: the fencing number. It only grows; the first side to write has 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Generation(pub u64);

/// The number of a cut over a group's lanes. Given by a site's lead and never again; the first has 1, 0 means "none yet".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct CutNumber(pub u64);

/// Names a pair for ever, on both sites; drawn at random when the pair is made.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct PairId(pub [u8; 16]);

/// Names a volume for ever; drawn at random when the volume is first paired.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct VolumeId(pub [u8; 16]);

/// One life of a sealing process: 128 random bits mixed with a challenge from the peer where there is one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Incarnation(pub [u8; 16]);

/// A path of a link, counted from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Path(pub u16);

/// The driver's name for an initiator's request that waits for an answer. Not reused while it waits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Ticket(pub u64);

/// Milliseconds since the node started. Only moves forward. Every interval is measured with it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Instant(pub u64);

/// Milliseconds since 1970-01-01T00:00:00Z. May jump either way; no order and no safety depends on it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct WallTime(pub u64);

/// Milliseconds between two instants.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Millis(pub u64);

/// Both clocks, read together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Now {
    pub instant: Instant,
    pub wall: WallTime,
}

/// A run of blocks. Never empty, never past the last address that a `u64` can count.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Extent {
    first: Lba,
    blocks: BlockCount,
}

/// Bytes in a seal unit: a power of two from 512 to 65 536.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct BlockBytes(u32);

/// Why a number cannot be the size of a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a block has 512 to 65536 bytes, a power of two; got {0}")]
pub struct BadBlockBytes(pub u32);

impl Sequence {
    pub const NONE: Self = Self(0);

    /// The one after this. Saturates; [`crate::limits::SEQUENCE_MAX`] is refused long before.
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The one before this; none stays none.
    pub fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    /// How many sequence numbers lie above `earlier`, up to and including this.
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// This many further on.
    pub fn plus(self, count: u64) -> Self {
        Self(self.0.saturating_add(count))
    }
}

impl Epoch {
    pub const NONE: Self = Self(0);

    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl CutNumber {
    pub const NONE: Self = Self(0);

    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl Generation {
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl Instant {
    pub fn plus(self, span: Millis) -> Self {
        Self(self.0.saturating_add(span.0))
    }

    /// Milliseconds since `earlier`; zero if that lies ahead.
    pub fn since(self, earlier: Self) -> Millis {
        Millis(self.0.saturating_sub(earlier.0))
    }
}

impl WallTime {
    /// Milliseconds since `earlier`; zero if the clock was set back in between.
    pub fn since(self, earlier: Self) -> Millis {
        Millis(self.0.saturating_sub(earlier.0))
    }
}

impl BlockBytes {
    /// 4 KiB: the page of the machines that write and the sector of the disks that keep.
    pub const DEFAULT: Self = Self(4096);

    pub fn new(bytes: u32) -> Result<Self, BadBlockBytes> {
        if bytes.is_power_of_two() && (512..=65_536).contains(&bytes) {
            Ok(Self(bytes))
        } else {
            Err(BadBlockBytes(bytes))
        }
    }

    pub fn get(self) -> u32 {
        self.0
    }

    pub fn as_u64(self) -> u64 {
        u64::from(self.0)
    }

    /// 512 to 65 536 fits every `usize` that this runs on.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl BlockCount {
    pub fn byte_len(self, block: BlockBytes) -> ByteLen {
        ByteLen(self.0.saturating_mul(block.as_u64()))
    }
}

impl Extent {
    /// `None` for an empty run and for one that ends past the last address.
    pub fn new(first: Lba, blocks: BlockCount) -> Option<Self> {
        let end = first.0.checked_add(blocks.0)?;
        (blocks.0 > 0 && end <= Lba::MAX.0).then_some(Self { first, blocks })
    }

    pub fn first(self) -> Lba {
        self.first
    }

    pub fn blocks(self) -> BlockCount {
        self.blocks
    }

    /// One past the last block.
    pub fn end(self) -> Lba {
        Lba(self.first.0 + self.blocks.0)
    }

    pub fn contains(self, lba: Lba) -> bool {
        self.first <= lba && lba < self.end()
    }

    /// What lies in both.
    pub fn intersection(self, other: Self) -> Option<Self> {
        let first = self.first().max(other.first());
        let end = self.end().min(other.end());
        Self::new(first, BlockCount(end.0.checked_sub(first.0)?))
    }

    pub fn overlaps(self, other: Self) -> bool {
        self.first < other.end() && other.first < self.end()
    }

    /// Cuts the run into pieces of at most `most` blocks, in order.
    pub fn pieces(self, most: BlockCount) -> impl Iterator<Item = Self> {
        let step = most.0.max(1);
        let (first, end) = (self.first.0, self.end().0);
        (first..end)
            .step_by(usize::try_from(step).unwrap_or(usize::MAX))
            .map(move |at| Self { first: Lba(at), blocks: BlockCount(step.min(end - at)) })
    }
}

impl Lba {
    /// Addresses stay below 2^56: room for a block's place beside flags in one index word.
    pub const MAX: Self = Self(1 << 56);
}

impl From<BlockBytes> for u32 {
    fn from(block: BlockBytes) -> Self {
        block.0
    }
}

impl TryFrom<u32> for BlockBytes {
    type Error = BadBlockBytes;

    fn try_from(bytes: u32) -> Result<Self, BadBlockBytes> {
        Self::new(bytes)
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for CutNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for Lba {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.first.0, self.blocks.0)
    }
}

/// Identifiers print in full: they are names, not secrets, and operators compare them.
macro_rules! hex_identity {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
    )*};
}

hex_identity!(PairId, VolumeId, Incarnation);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_a_power_of_two_between_a_sector_and_64_kib() {
        for (bytes, good) in
            [(0, false), (511, false), (512, true), (4096, true), (6000, false), (65_536, true), (131_072, false)]
        {
            assert_eq!(BlockBytes::new(bytes).is_ok(), good, "{bytes}");
        }
    }

    #[test]
    fn an_extent_is_never_empty_and_never_wraps() {
        for (first, blocks, good) in [(0, 0, false), (0, 1, true), (u64::MAX, 1, false), (1 << 56, 1, false)] {
            assert_eq!(Extent::new(Lba(first), BlockCount(blocks)).is_some(), good, "{first}+{blocks}");
        }
    }

    #[test]
    fn pieces_cover_the_extent_in_order() {
        let whole = Extent::new(Lba(7), BlockCount(10)).unwrap();
        let pieces: Vec<String> = whole.pieces(BlockCount(4)).map(|piece| piece.to_string()).collect();
        assert_eq!(pieces, ["7+4", "11+4", "15+2"]);
    }
}
