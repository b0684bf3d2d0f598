//! Records whose "ciphertext" says which key sealed what: real headers and lengths, bodies that the checkers can judge.
//!
//! A block's tag is a hash of the associated data as the vault has it (the header's first 88 bytes, the block's index and
//! length), of key and incarnation, and of the block's bytes. So a block opens under exactly that key, in exactly that
//! place, with not a bit changed: all that is taken for granted of an AEAD. What a block hides (which key, which write)
//! stands in it plainly, for the checkers; who opens a record is given the key by its ledger, never by the record.
//!
//! A key record carries what its descriptor says, and a hash that only the writing site can make: its signature.

use farseal_core::chain::Digest;
use farseal_core::frame::KeyRefusal;
use farseal_core::record::{AAD_BYTES, HEADER_BYTES, Header, Kind, TAG_BYTES};
use farseal_core::units::{Epoch, Generation, PairId, Sequence};

/// What a block reads as: the number of a write's block; 0 is zeroes.
pub type Stamp = u64;

/// Bytes of a block that say something; the others are zeroes, and must be.
const SAYS_BYTES: usize = 24;
/// Bytes of a descriptor, its signature among them.
const DESCRIPTOR_BYTES: usize = 16 + 6 * 8 + TAG_BYTES;
/// Stands where the key stands in a tag: what only the writing site can make.
const SIGNATURE: Sealer = Sealer { key: KeyId(u64::MAX), incarnation: u64::MAX };

/// Names a data key for ever; 0 is none.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct KeyId(pub u64);

/// Whom a record was sealed by.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Sealer {
    pub key: KeyId,
    /// The life of the process.
    pub incarnation: u64,
}

/// What a key record carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Facts {
    pub epoch: Epoch,
    pub start: Sequence,
    pub sealer: Sealer,
}

/// Why a block is not served.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Unopened {
    /// The control bit says otherwise than the pair's.
    EncryptionDiffers,
    /// The body is shorter than the header says.
    Short,
    /// The tag is not that of this key over this block in this place.
    Tag,
}

/// The record's bytes. `stamps` has one entry for each block of a data record.
pub fn seal(header: &Header, sealer: Sealer, stamps: &[Stamp], facts: Option<Facts>) -> Vec<u8> {
    let sealed = header.kind.is_sealed() && header.encrypted;
    let sealer = if sealed { sealer } else { Sealer::default() };
    let mut blocks = vec![0; header.payload_bytes()];
    for (index, block) in (0..).zip(blocks.chunks_mut(header.block_bytes.as_usize())) {
        let words = [sealer.key.0, sealer.incarnation, stamp_at(stamps, index)];
        words.iter().zip(block.chunks_mut(8)).for_each(|(word, place)| place.copy_from_slice(&word.to_le_bytes()));
    }
    if let (Some(facts), Some(place)) = (facts, blocks.get_mut(..DESCRIPTOR_BYTES)) {
        place.copy_from_slice(&descriptor(header, &facts));
    }
    let mut body = Vec::with_capacity(header.body_bytes());
    for index in 0..header.tags() {
        body.extend(if sealed { tag(header, sealer, index, block_at(header, &blocks, index)) } else { [0; TAG_BYTES] });
    }
    body.extend(blocks);
    let mut record = header.encode(crc32c::crc32c(&body)).to_vec();
    record.extend(body);
    record
}

/// Opens a whole record of a pair with this control bit, for whoever holds its key.
pub fn open(header: &Header, record: &[u8], encrypted: bool, sealer: Sealer) -> Result<Vec<Stamp>, Unopened> {
    if header.encrypted != encrypted {
        return Err(Unopened::EncryptionDiffers);
    }
    let body = record.get(HEADER_BYTES..HEADER_BYTES + header.body_bytes()).ok_or(Unopened::Short)?;
    let (tags, blocks) = body.split_at(header.tag_bytes());
    let mut stamps = Vec::new();
    for index in 0..header.tags() {
        let block = block_at(header, blocks, index);
        let from = usize::try_from(index).unwrap_or(usize::MAX).saturating_mul(TAG_BYTES);
        let found = tags.get(from..from + TAG_BYTES).ok_or(Unopened::Short)?;
        if header.encrypted && header.kind.is_sealed() {
            opens(header, sealer, index, found, block)?;
        }
        if header.kind == Kind::Data {
            stamps.push(word(block, 16).unwrap_or(0));
        }
    }
    Ok(stamps)
}

/// The record as what stands in it says that it was sealed: for checkers, which know no ledger.
pub fn read(header: &Header, record: &[u8]) -> Option<Vec<Stamp>> {
    let body = record.get(HEADER_BYTES..)?;
    if header.kind != Kind::Data {
        return Some(Vec::new());
    }
    let block = body.get(header.tag_bytes()..)?;
    let sealer = Sealer { key: KeyId(word(block, 0)?), incarnation: word(block, 8)? };
    open(header, record, header.encrypted, sealer).ok()
}

/// What a key record says, if it is the writing site's and meant for this place in the order.
pub fn facts(header: &Header, record: &[u8]) -> Result<Facts, KeyRefusal> {
    let from = HEADER_BYTES + header.tag_bytes();
    let found = record.get(from..from + DESCRIPTOR_BYTES).filter(|_| header.kind == Kind::Key);
    let found = found.ok_or(KeyRefusal::NoCapsule)?;
    let field = |index: usize| word(found, 16 + 8 * index).ok_or(KeyRefusal::NoCapsule);
    let (generation, key) = (Generation(field(0)?), Sequence(field(1)?));
    let facts = Facts {
        epoch: Epoch(field(2)?),
        start: Sequence(field(3)?),
        sealer: Sealer { key: KeyId(field(4)?), incarnation: field(5)? },
    };
    if facts.epoch == Epoch::NONE {
        return Err(KeyRefusal::NoCapsule);
    }
    let mut pair = PairId([0; 16]);
    pair.0.copy_from_slice(&found[..16]);
    let said = Header { pair, generation, sequence: key, ..*header };
    if descriptor(&said, &facts) != *found {
        return Err(KeyRefusal::Forged);
    }
    if (said.pair, generation, key) != (header.pair, header.generation, header.sequence) {
        return Err(KeyRefusal::Misplaced);
    }
    Ok(facts)
}

/// Pair, generation, the key record's place, epoch, start, key, incarnation, and the signature over all of it.
fn descriptor(header: &Header, facts: &Facts) -> [u8; DESCRIPTOR_BYTES] {
    let mut out = [0; DESCRIPTOR_BYTES];
    let (Facts { epoch, start, sealer }, Header { generation, sequence, .. }) = (facts, header);
    out[..16].copy_from_slice(&header.pair.0);
    let words = [generation.0, sequence.0, epoch.0, start.0, sealer.key.0, sealer.incarnation];
    let places = out[16..].chunks_mut(8);
    words.iter().zip(places).for_each(|(word, place)| place.copy_from_slice(&word.to_le_bytes()));
    let signed = hash(&[0; HEADER_BYTES], SIGNATURE, &out[..DESCRIPTOR_BYTES - TAG_BYTES]);
    out[DESCRIPTOR_BYTES - TAG_BYTES..].copy_from_slice(&signed);
    out
}

fn opens(header: &Header, sealer: Sealer, index: u32, found: &[u8], block: &[u8]) -> Result<(), Unopened> {
    let padded = block.get(SAYS_BYTES..).unwrap_or_default().iter().all(|byte| *byte == 0);
    if padded && tag(header, sealer, index, block) == found { Ok(()) } else { Err(Unopened::Tag) }
}

/// The tag of one block; of a record without blocks, of nothing.
fn tag(header: &Header, sealer: Sealer, index: u32, block: &[u8]) -> [u8; TAG_BYTES] {
    let mut covered = [0; HEADER_BYTES];
    covered[..AAD_BYTES].copy_from_slice(&header.aad());
    covered[AAD_BYTES..AAD_BYTES + 4].copy_from_slice(&index.to_le_bytes());
    let length = u32::try_from(block.len()).unwrap_or(u32::MAX);
    covered[AAD_BYTES + 4..].copy_from_slice(&length.to_le_bytes());
    hash(&covered, sealer, block.get(..SAYS_BYTES).unwrap_or_default())
}

fn hash(covered: &[u8; HEADER_BYTES], sealer: Sealer, bytes: &[u8]) -> [u8; TAG_BYTES] {
    let mut secret = [0; 16 + DESCRIPTOR_BYTES];
    secret[..8].copy_from_slice(&sealer.key.0.to_le_bytes());
    secret[8..16].copy_from_slice(&sealer.incarnation.to_le_bytes());
    secret[16..16 + bytes.len()].copy_from_slice(bytes);
    let mut tag = [0; TAG_BYTES];
    tag.copy_from_slice(&Digest::of(covered, &secret[..16 + bytes.len()]).0[..TAG_BYTES]);
    tag
}

fn block_at<'a>(header: &Header, blocks: &'a [u8], index: u32) -> &'a [u8] {
    let size = header.block_bytes.as_usize();
    let from = usize::try_from(index).unwrap_or(usize::MAX).saturating_mul(size);
    blocks.get(from..from.saturating_add(size)).unwrap_or_default()
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

fn stamp_at(stamps: &[Stamp], index: u32) -> Stamp {
    usize::try_from(index).ok().and_then(|index| stamps.get(index)).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use farseal_core::record::Framed;
    use farseal_core::units::{BlockBytes, Lba, VolumeId, WallTime};

    use super::*;

    const SEALER: Sealer = Sealer { key: KeyId(7), incarnation: 9 };

    fn header(kind: Kind) -> Header {
        let speaks = kind.has_blocks() || kind.touches_volume();
        Header {
            kind,
            encrypted: true,
            stack: 0,
            search_tags: farseal_core::layout::SearchTags::NONE,
            pair: PairId([1; 16]),
            volume: VolumeId([2; 16]),
            generation: Generation(3),
            sequence: Sequence(40),
            lba: Lba(if speaks { 5 } else { 0 }),
            blocks: if speaks { 2 } else { 0 },
            block_bytes: BlockBytes::new(512).unwrap_or(BlockBytes::DEFAULT),
            wall: WallTime(11),
            aux: 0,
        }
    }

    #[test]
    fn a_record_opens_under_its_key_in_its_place_and_no_other() {
        for kind in [Kind::Data, Kind::Zero, Kind::Trim, Kind::Cut, Kind::Void] {
            let header = header(kind);
            let stamps: &[Stamp] = if kind == Kind::Data { &[21, 22] } else { &[] };
            let record = seal(&header, SEALER, stamps, None);
            assert_eq!(open(&header, &record, true, SEALER).as_deref(), Ok(stamps));
            let others = [Sealer { key: KeyId(8), ..SEALER }, Sealer { incarnation: 8, ..SEALER }];
            others.iter().for_each(|sealer| assert_eq!(open(&header, &record, true, *sealer), Err(Unopened::Tag)));
            for other in [
                Header { sequence: Sequence(41), ..header },
                Header { generation: Generation(4), ..header },
                Header { pair: PairId([9; 16]), ..header },
                Header { wall: WallTime(12), ..header },
                Header { stack: 1, ..header },
            ] {
                assert_eq!(open(&other, &record, true, SEALER), Err(Unopened::Tag), "{kind:?}");
            }
            let stripped = Header { encrypted: false, ..header };
            assert_eq!(open(&stripped, &record, true, SEALER), Err(Unopened::EncryptionDiffers));
        }
    }

    #[test]
    fn no_bit_of_a_sealed_body_may_change() {
        let header = header(Kind::Data);
        let record = seal(&header, SEALER, &[21, 22], None);
        for bit in HEADER_BYTES * 8..record.len() * 8 {
            let mut changed = record.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(open(&header, &changed, true, SEALER), Err(Unopened::Tag), "bit {bit}");
        }
    }

    #[test]
    fn a_key_record_is_believed_in_its_own_place_and_unchanged_alone() {
        let header = header(Kind::Key);
        let said = Facts { epoch: Epoch(4), start: Sequence(44), sealer: SEALER };
        let record = seal(&header, SEALER, &[], Some(said));
        assert!(Framed::decode(&record).is_ok());
        assert_eq!(facts(&header, &record), Ok(said));
        let from = HEADER_BYTES + header.tag_bytes();
        for at in from..from + DESCRIPTOR_BYTES {
            let mut changed = record.clone();
            changed[at] ^= 1;
            assert!(facts(&header, &changed).is_err(), "byte {at}");
        }
        let moved = Header { sequence: Sequence(41), ..header };
        assert_eq!(facts(&moved, &record), Err(KeyRefusal::Misplaced));
        let elsewhere = Header { pair: PairId([9; 16]), ..header };
        assert_eq!(facts(&elsewhere, &record), Err(KeyRefusal::Misplaced));
    }
}
