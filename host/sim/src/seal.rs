//! Records whose "ciphertext" says which key sealed what: real headers and lengths, bodies that the checkers can judge.
//!
//! A tag is `mix(key, incarnation, sequence, block, stamp)` and the key's number; a block holds key, incarnation and
//! the stamp of the write that it stands for. Opening checks the tag, as an AEAD would.

use farseal_core::record::{HEADER_BYTES, Header, Kind, TAG_BYTES};
use farseal_core::units::{Epoch, Sequence};

use crate::dice::mix;

/// What a block reads as: the number of a write's block; 0 is zeroes.
pub type Stamp = u64;

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
    pub key: KeyId,
}

/// What came out of a record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Opened {
    pub sealer: Sealer,
    pub stamps: Vec<Stamp>,
    pub facts: Option<Facts>,
}

/// The record's bytes. `stamps` has one entry for each block of a data record.
pub fn seal(header: &Header, sealer: Sealer, stamps: &[Stamp], facts: Option<Facts>) -> Vec<u8> {
    let sealer = if header.kind.is_sealed() { sealer } else { Sealer::default() };
    let mut body = Vec::with_capacity(header.body_bytes());
    for index in 0..header.tags() {
        let stamp = stamp_at(stamps, index);
        body.extend(tag(sealer, header.sequence, index, stamp).to_le_bytes());
        body.extend(sealer.key.0.to_le_bytes());
    }
    if header.kind.has_blocks() {
        for index in 0..header.blocks {
            let at = body.len();
            let words = match facts.filter(|_| index == 0) {
                Some(facts) => [facts.epoch.0, facts.start.0, facts.key.0],
                None => [sealer.key.0, sealer.incarnation, stamp_at(stamps, index)],
            };
            words.iter().for_each(|word| body.extend(word.to_le_bytes()));
            body.resize(at + header.block_bytes.as_usize(), 0);
        }
    } else {
        // The tag of a record without blocks is all that is left of its sealer.
        body[8..16].copy_from_slice(&(sealer.key.0 ^ sealer.incarnation.rotate_left(32)).to_le_bytes());
        body[0..8].copy_from_slice(&sealer.key.0.to_le_bytes());
    }
    let mut record = header.encode(crc32c::crc32c(&body)).to_vec();
    record.extend(body);
    record
}

/// Reads a whole record back; `None` where a tag does not fit.
pub fn open(header: &Header, record: &[u8]) -> Option<Opened> {
    let body = record.get(HEADER_BYTES..HEADER_BYTES + header.body_bytes())?;
    let word = |at: usize| body.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes);
    if !header.kind.has_blocks() {
        let key = KeyId(word(0)?);
        let incarnation = (word(8)? ^ key.0).rotate_right(32);
        return Some(Opened { sealer: Sealer { key, incarnation }, stamps: Vec::new(), facts: None });
    }
    let blocks = header.tag_bytes();
    let block = header.block_bytes.as_usize();
    if header.kind == Kind::Key {
        let facts =
            Facts { epoch: Epoch(word(blocks)?), start: Sequence(word(blocks + 8)?), key: KeyId(word(blocks + 16)?) };
        return Some(Opened { sealer: Sealer::default(), stamps: Vec::new(), facts: Some(facts) });
    }
    let sealer = Sealer { key: KeyId(word(blocks)?), incarnation: word(blocks + 8)? };
    let mut stamps = Vec::new();
    for index in 0..header.blocks {
        let place = usize::try_from(index).ok()?;
        let stamp = word(blocks + place * block + 16)?;
        if word(place * TAG_BYTES)? != tag(sealer, header.sequence, index, stamp) {
            return None;
        }
        stamps.push(stamp);
    }
    Some(Opened { sealer, stamps, facts: None })
}

fn tag(sealer: Sealer, sequence: Sequence, index: u32, stamp: Stamp) -> u64 {
    let place = mix(sequence.0 ^ u64::from(index).rotate_left(48));
    mix(mix(sealer.key.0) ^ mix(sealer.incarnation.wrapping_add(1)) ^ place ^ mix(stamp.wrapping_add(2)))
}

fn stamp_at(stamps: &[Stamp], index: u32) -> Stamp {
    usize::try_from(index).ok().and_then(|index| stamps.get(index)).copied().unwrap_or(0)
}
