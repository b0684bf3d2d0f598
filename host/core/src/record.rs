//! The record: one write with its place in the order, in the one form that journal, link and log share.
//!
//! ```text
//! header, 96 bytes                                   body
//!  0  magic "FSR1"        4  version 1               for each block (or once, where there is none) a tag of 16 bytes;
//!  5  kind                6  flags    7  stack         behind each block's tag, so many search tags of 16 bytes
//!                                                    the blocks, sealed in place
//!  8  pair (16)          24  volume (16)
//! 40  generation         48  sequence   56  address
//! 64  blocks (u32)       68  block bytes (u32)
//! 72  wall time, ms      80  aux
//! 88  crc32c of the body 92  crc32c of bytes 0..92
//! ```
//!
//! Flags: bit 0, sealed; bits 4 to 7, search tags of a block; the others are 0.
//!
//! Integers are little-endian. Bytes 0..88 are the associated data of every block, followed by the block's index and
//! length and search tags: they say what the record is and where it stands in the order, never where it lies, so that a log can
//! be compacted and copied verbatim without a key. The epoch is not named: it follows from the sequence number.

use crate::bytes::Fields;
use crate::layout::SearchTags;
use crate::limits::{RECORD_PAYLOAD_MAX, SEQUENCE_MAX};
use crate::units::{BlockBytes, BlockCount, CutNumber, Extent, Generation, Lba, PairId, Sequence, VolumeId, WallTime};

/// Bytes of a header.
pub const HEADER_BYTES: usize = 96;
/// Bytes of the header that every block's tag covers.
pub const AAD_BYTES: usize = 88;
/// Bytes of a tag.
pub const TAG_BYTES: usize = 16;

const MAGIC: [u8; 4] = *b"FSR1";
const VERSION: u8 = 1;
const FLAG_ENCRYPTED: u8 = 1;
/// Where the count of search tags stands in the flags.
const SEARCH_TAGS_SHIFT: u32 = 4;

/// What a record is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, serde::Serialize, serde::Deserialize)]
pub enum Kind {
    /// Blocks that an initiator wrote.
    Data,
    /// Blocks that read as zeroes; no body but a tag.
    Zero,
    /// Blocks that an initiator gave back; they read as zeroes too.
    Trim,
    /// A key on its way: a carrier that a disguise made, not sealed by a data key.
    Key,
    /// Nothing, in the shape of a key or of data.
    Cover,
    /// The epoch in `aux` will not come into force; sealed by the key that goes on.
    Void,
    /// Here the volume is consistent. `aux` says for whom and from when: see [`CutMark`].
    Cut,
    /// The sequence numbers from `aux` up to this record's were given up: what they held comes again as ordinary
    /// records, and the volume is not consistent until the next cut.
    Gap,
}

/// What a record says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    pub kind: Kind,
    /// The control bit (R19): is the body sealed?
    pub encrypted: bool,
    /// Which of its epoch's cipher stacks sealed it.
    pub stack: u8,
    /// Beside each block's tag: what a search of the copy compares. None where the pair declares no record layout.
    pub search_tags: SearchTags,
    pub pair: PairId,
    pub volume: VolumeId,
    pub generation: Generation,
    pub sequence: Sequence,
    /// Address in blocks; 0 where there is none.
    pub lba: Lba,
    /// Blocks that it speaks of; for key and cover, blocks of its body.
    pub blocks: u32,
    pub block_bytes: BlockBytes,
    /// When the primary gave it its place, by the primary's clock.
    pub wall: WallTime,
    /// Epoch (void), [`CutMark`] (cut) or first given-up sequence (gap); else 0.
    pub aux: u64,
}

/// What a cut record says, in `aux`: the tag in the highest byte, then what belongs to it.
///
/// ```text
/// tag 0  the lane's own cut: its count (56 bits). Closes a gap.
/// tag 1  a group's cut: lanes that take part (16 bits), number (40 bits). What stands before it in each of these lanes
///        is one consistent state, if the cut was confirmed.
/// tag 2  confirms a group's cut: lanes (16 bits), number (40 bits). In one lane is enough.
/// tag 3  seven bytes of a name, filled with zeroes; the next confirmation says whose.
/// ```
///
/// A group's cut takes two records because its boundary is fixed before anybody knows whether the others fix theirs in
/// time: a cut that was given up has boundaries and no confirmation, in no lane.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum CutMark {
    Own(u64),
    Boundary { cut: CutNumber, lanes: u16 },
    Confirmed { cut: CutNumber, lanes: u16 },
    Name([u8; 7]),
}

/// A header as it stands before a body: with the body's checksum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Framed {
    pub header: Header,
    pub body_crc: u32,
}

/// Why bytes are not a record header.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HeaderError {
    #[error("{0} bytes are too few for a record header of 96")]
    Short(usize),
    #[error("no record starts here: the magic is missing")]
    Magic,
    #[error("the header's checksum does not match: damaged or torn")]
    Checksum,
    #[error("record format {0}; this version reads format 1")]
    Version(u8),
    #[error("record kind {0} is not known to format 1")]
    Kind(u8),
    #[error("flags {0:#04x} are not known to format 1")]
    Flags(u8),
    #[error("sequence number {0} is outside 1..2^48")]
    Sequence(u64),
    #[error("a block of {0} bytes")]
    BlockBytes(u32),
    #[error("{blocks} blocks at address {lba} are no extent that a record can hold")]
    Extent { lba: u64, blocks: u32 },
}

impl Kind {
    const ALL: [Self; 8] =
        [Self::Data, Self::Zero, Self::Trim, Self::Key, Self::Cover, Self::Void, Self::Cut, Self::Gap];

    fn code(self) -> u8 {
        match self {
            Self::Data => 1,
            Self::Zero => 2,
            Self::Trim => 3,
            Self::Key => 4,
            Self::Cover => 5,
            Self::Void => 6,
            Self::Cut => 7,
            Self::Gap => 8,
        }
    }

    /// Changes what a block reads as.
    pub fn touches_volume(self) -> bool {
        match self {
            Self::Data | Self::Zero | Self::Trim => true,
            Self::Key | Self::Cover | Self::Void | Self::Cut | Self::Gap => false,
        }
    }

    /// Carries blocks in its body.
    pub fn has_blocks(self) -> bool {
        match self {
            Self::Data | Self::Key | Self::Cover => true,
            Self::Zero | Self::Trim | Self::Void | Self::Cut | Self::Gap => false,
        }
    }

    /// Its body is sealed by a data key (where the pair is encrypted). A key cannot be: it opens nothing yet. Nor can a
    /// gap: the secondary lacks the keys of what was given up, and the signed key that must follow a gap stands for
    /// it. Cover is random bytes.
    pub fn is_sealed(self) -> bool {
        !matches!(self, Self::Key | Self::Cover | Self::Gap)
    }
}

impl CutMark {
    /// The greatest number that a mark holds: at four cuts a second, 8 000 years.
    pub const CUT_MAX: CutNumber = CutNumber((1 << 40) - 1);

    pub fn encode(self) -> u64 {
        let numbered =
            |tag: u64, cut: CutNumber, lanes: u16| tag << 56 | u64::from(lanes) << 40 | cut.min(Self::CUT_MAX).0;
        match self {
            Self::Own(count) => count & ((1 << 56) - 1),
            Self::Boundary { cut, lanes } => numbered(1, cut, lanes),
            Self::Confirmed { cut, lanes } => numbered(2, cut, lanes),
            Self::Name(bytes) => {
                let mut all = [0; 8];
                all[..7].copy_from_slice(&bytes);
                all[7] = 3;
                u64::from_le_bytes(all)
            }
        }
    }

    /// `None` for a tag that this version does not know: such a cut means nothing to it.
    pub fn decode(aux: u64) -> Option<Self> {
        let cut = CutNumber(aux & Self::CUT_MAX.0);
        let lanes = u16::try_from(aux >> 40 & 0xffff).ok()?;
        match aux >> 56 {
            0 => Some(Self::Own(aux)),
            1 => Some(Self::Boundary { cut, lanes }),
            2 => Some(Self::Confirmed { cut, lanes }),
            3 => {
                let mut bytes = [0; 7];
                bytes.copy_from_slice(&aux.to_le_bytes()[..7]);
                Some(Self::Name(bytes))
            }
            _ => None,
        }
    }
}

impl Header {
    /// What a cut record says; `None` for other kinds and unknown marks.
    pub fn cut_mark(&self) -> Option<CutMark> {
        if self.kind == Kind::Cut { CutMark::decode(self.aux) } else { None }
    }

    /// Tags at the start of the body.
    pub fn tags(&self) -> u32 {
        if self.kind.has_blocks() { self.blocks } else { 1 }
    }

    /// Bytes of one block's tags: the one that proves it, and its search tags.
    pub fn tag_bytes_each(&self) -> usize {
        tag_bytes_each(self.kind, self.search_tags)
    }

    /// Bytes of tags.
    pub fn tag_bytes(&self) -> usize {
        to_usize(self.tags()) * self.tag_bytes_each()
    }

    /// Bytes of blocks in the body.
    pub fn payload_bytes(&self) -> usize {
        if self.kind.has_blocks() { to_usize(self.blocks) * self.block_bytes.as_usize() } else { 0 }
    }

    /// Bytes after the header.
    pub fn body_bytes(&self) -> usize {
        self.tag_bytes() + self.payload_bytes()
    }

    /// Bytes of the whole record.
    pub fn record_bytes(&self) -> usize {
        HEADER_BYTES + self.body_bytes()
    }

    /// The blocks whose content it changes.
    pub fn extent(&self) -> Option<Extent> {
        if self.kind.touches_volume() { Extent::new(self.lba, BlockCount(u64::from(self.blocks))) } else { None }
    }

    /// The associated data of its blocks, without block index and length.
    pub fn aad(&self) -> [u8; AAD_BYTES] {
        let mut bytes = [0; AAD_BYTES];
        bytes.copy_from_slice(&self.encode(0)[..AAD_BYTES]);
        bytes
    }

    /// The header's bytes before a body with this checksum.
    pub fn encode(&self, body_crc: u32) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[0..4].copy_from_slice(&MAGIC);
        out[4] = VERSION;
        out[5] = self.kind.code();
        let sealed = if self.encrypted { FLAG_ENCRYPTED } else { 0 };
        out[6] = sealed | (self.search_tags.get() << SEARCH_TAGS_SHIFT);
        out[7] = self.stack;
        out[8..24].copy_from_slice(&self.pair.0);
        out[24..40].copy_from_slice(&self.volume.0);
        out[40..48].copy_from_slice(&self.generation.0.to_le_bytes());
        out[48..56].copy_from_slice(&self.sequence.0.to_le_bytes());
        out[56..64].copy_from_slice(&self.lba.0.to_le_bytes());
        out[64..68].copy_from_slice(&self.blocks.to_le_bytes());
        out[68..72].copy_from_slice(&self.block_bytes.get().to_le_bytes());
        out[72..80].copy_from_slice(&self.wall.0.to_le_bytes());
        out[80..88].copy_from_slice(&self.aux.to_le_bytes());
        out[88..92].copy_from_slice(&body_crc.to_le_bytes());
        let crc = crc32c::crc32c(&out[..92]);
        out[92..96].copy_from_slice(&crc.to_le_bytes());
        out
    }
}

impl Framed {
    /// Parses the 96 bytes at the start of `bytes`. What comes back is a header that a record can have: every length
    /// derived from it is within [`crate::limits::RECORD_BYTES_MAX`].
    pub fn decode(bytes: &[u8]) -> Result<Self, HeaderError> {
        let Some(bytes) = bytes.get(..HEADER_BYTES) else {
            return Err(HeaderError::Short(bytes.len()));
        };
        let mut fields = Fields::new(bytes);
        if fields.array::<4>() != MAGIC {
            return Err(HeaderError::Magic);
        }
        let (version, kind, flags, stack) = (fields.u8(), fields.u8(), fields.u8(), fields.u8());
        let (pair, volume) = (PairId(fields.array()), VolumeId(fields.array()));
        let (generation, sequence, lba) = (fields.u64(), fields.u64(), fields.u64());
        let (blocks, block_bytes) = (fields.u32(), fields.u32());
        let (wall, aux, body_crc, crc) = (fields.u64(), fields.u64(), fields.u32(), fields.u32());
        if crc != crc32c::crc32c(&bytes[..92]) {
            return Err(HeaderError::Checksum);
        }
        if version != VERSION {
            return Err(HeaderError::Version(version));
        }
        let kind = Kind::ALL.into_iter().find(|known| known.code() == kind).ok_or(HeaderError::Kind(kind))?;
        let search_tags = SearchTags::new(flags >> SEARCH_TAGS_SHIFT).map_err(|_| HeaderError::Flags(flags))?;
        if flags & !FLAG_ENCRYPTED & 0x0f != 0 {
            return Err(HeaderError::Flags(flags));
        }
        if sequence == 0 || sequence > SEQUENCE_MAX {
            return Err(HeaderError::Sequence(sequence));
        }
        let block_bytes = BlockBytes::new(block_bytes).map_err(|_| HeaderError::BlockBytes(block_bytes))?;
        let header = Header {
            kind,
            encrypted: flags & FLAG_ENCRYPTED != 0,
            stack,
            search_tags,
            pair,
            volume,
            generation: Generation(generation),
            sequence: Sequence(sequence),
            lba: Lba(lba),
            blocks,
            block_bytes,
            wall: WallTime(wall),
            aux,
        };
        let whole = Extent::new(Lba(lba), BlockCount(u64::from(blocks))).is_some();
        let payload = u64::from(blocks) * block_bytes.as_u64();
        let fits = if kind.has_blocks() {
            whole && payload <= u64::from(RECORD_PAYLOAD_MAX)
        } else if kind.touches_volume() {
            whole
        } else {
            lba == 0 && blocks == 0
        };
        if fits { Ok(Self { header, body_crc }) } else { Err(HeaderError::Extent { lba, blocks }) }
    }

    pub fn body_matches(&self, body: &[u8]) -> bool {
        body.len() == self.header.body_bytes() && crc32c::crc32c(body) == self.body_crc
    }
}

/// Bytes of tags beside each block of a record of this kind, or beside none: what has no block has no search tags.
pub fn tag_bytes_each(kind: Kind, search_tags: SearchTags) -> usize {
    TAG_BYTES + if kind.has_blocks() { search_tags.bytes() } else { 0 }
}

/// Records hold at most 1 MiB of blocks, so their counts fit every `usize` that this runs on.
fn to_usize(count: u32) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn sample(kind: Kind, sequence: u64, blocks: u32) -> Header {
        let speaks = kind.has_blocks() || kind.touches_volume();
        Header {
            kind,
            encrypted: true,
            stack: 0,
            search_tags: SearchTags::NONE,
            pair: PairId([1; 16]),
            volume: VolumeId([2; 16]),
            generation: Generation(3),
            sequence: Sequence(sequence),
            lba: Lba(if speaks { 5 } else { 0 }),
            blocks: if speaks { blocks } else { 0 },
            block_bytes: BlockBytes::DEFAULT,
            wall: WallTime(1_700_000_000_000),
            aux: 0,
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes(kind in 0..8usize, sequence in 1..SEQUENCE_MAX, blocks in 1..=256u32, crc: u32, aux: u64, tags in 0..=8u8) {
            let search_tags = SearchTags::new(tags).unwrap();
            let header = Header { aux, search_tags, ..sample(Kind::ALL[kind], sequence, blocks) };
            prop_assert_eq!(Framed::decode(&header.encode(crc)), Ok(Framed { header, body_crc: crc }));
        }

        #[test]
        fn every_single_bit_matters(bit in 0..HEADER_BYTES * 8) {
            let mut bytes = sample(Kind::Data, 9, 4).encode(7);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(Framed::decode(&bytes).is_err());
        }

        #[test]
        fn a_cut_mark_comes_back_whatever_it_says(tag in 0..4u8, cut in 0..=CutMark::CUT_MAX.0, lanes: u16, name: [u8; 7]) {
            let cut = CutNumber(cut);
            let mark = match tag {
                0 => CutMark::Own(cut.0),
                1 => CutMark::Boundary { cut, lanes },
                2 => CutMark::Confirmed { cut, lanes },
                _ => CutMark::Name(name),
            };
            prop_assert_eq!(CutMark::decode(mark.encode()), Some(mark));
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Framed::decode(&bytes);
        }
    }

    #[test]
    fn a_header_that_claims_too_much_is_refused() {
        let good = sample(Kind::Data, 1, 256);
        assert!(Framed::decode(&good.encode(0)).is_ok());
        for (what, bad) in [
            ("more than a record holds", Header { blocks: 257, ..good }),
            ("no blocks", Header { blocks: 0, ..good }),
            ("past the last address", Header { lba: Lba(u64::MAX), ..good }),
            ("a cut with an address", Header { kind: Kind::Cut, ..good }),
        ] {
            assert!(matches!(Framed::decode(&bad.encode(0)), Err(HeaderError::Extent { .. })), "{what}");
        }
        let numberless = Header { sequence: Sequence(0), ..good };
        assert_eq!(Framed::decode(&numberless.encode(0)), Err(HeaderError::Sequence(0)));
    }

    #[test]
    fn bytes_of_format_1_never_change() {
        let hex: String =
            sample(Kind::Data, 0x0102, 2).encode(0xdead_beef).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, include_str!("../../../fixtures/golden/record-1.hex").trim());
        let header = Header { search_tags: SearchTags::new(2).unwrap(), ..sample(Kind::Data, 0x0102, 2) };
        let hex: String = header.encode(0xdead_beef).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, include_str!("../../../fixtures/golden/record-1-search-tags.hex").trim());
        assert_eq!(header.record_bytes(), HEADER_BYTES + 2 * (16 + 2 * 16 + 4096));
    }
}
