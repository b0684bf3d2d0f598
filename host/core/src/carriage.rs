//! A key record that travels in the slots of other records: cut into pieces, put together again, and told to stand.
//!
//! ```text
//! slot = mask XOR (six zero bytes, carriage (u8), index (u16), 23 bytes of a piece)       an idle slot: 32 random bytes
//! piece 0, and the slot of index 0xffff that says that the record stands: its length (u32), 19 bytes of its BLAKE3
//! ```
//!
//! The mask follows from what both ends of one connection know and from how many slots went over it before: no two slots
//! have the same one, also where a record is sent again.
//! An idle slot is taken for a piece once in 2^48; what comes of it is a record that does not fit its digest, and a key
//! that goes as it is after the connection was made anew.
//!
//! The pieces come first, in any order, while the key has no place in the journal: the remote keeps them in memory alone,
//! and can try the key as soon as it has all of them, long before an acknowledgement waits for it.
//! The record that they make stands in the order when a slot says so, right before the record that this slot goes with.

use std::collections::BTreeMap;

use crate::limits::CARRIAGE_BYTES_MAX;

/// Bytes of a slot.
pub const SLOT_BYTES: usize = 32;
/// Bytes of a piece of the record.
pub const PIECE_BYTES: usize = SLOT_BYTES - HEAD_BYTES;

const CHECK_BYTES: usize = 6;
const HEAD_BYTES: usize = CHECK_BYTES + 1 + 2;
/// The index that says that the record stands.
const STANDS: u16 = u16::MAX;
const LENGTH_BYTES: usize = 4;

/// What goes with one record.
pub type Slot = [u8; SLOT_BYTES];

/// What makes slots of one connection look like chance.
#[derive(Clone)]
pub struct Mask([u8; 32]);

/// Slots that went over a connection before this one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Nth(pub u64);

/// Tells the carriages of one primary's life apart: a key that came too late is carried again under another number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CarriageNumber(pub u8);

/// A whole record on its way, at the site that writes.
#[derive(Clone, Debug)]
pub struct Carriage {
    number: CarriageNumber,
    record: Vec<u8>,
    /// Length and digest.
    standing: [u8; PIECE_BYTES],
}

/// Why a record is not carried.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a key record of {len} bytes; slots carry at most {CARRIAGE_BYTES_MAX}: let the disguise plan shorter slots")]
pub struct TooLong {
    pub len: usize,
}

/// What a slot was found to say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Said {
    /// Nothing, or a piece, or one that came before.
    Nothing,
    /// All pieces of this record are here. It has no place yet.
    Whole(Vec<u8>),
    /// This whole record stands right before the one that the slot went with.
    Stands(Vec<u8>),
    /// A record stands that was not carried here in full: the connection cannot go on.
    Missing,
}

/// Pieces as they come, at the site that keeps the copy. One carriage at a time; a newer one takes its place.
#[derive(Clone, Debug, Default)]
pub struct Pieces {
    number: Option<CarriageNumber>,
    /// Its pieces may still come, on another path.
    before: Option<CarriageNumber>,
    pieces: BTreeMap<u16, [u8; PIECE_BYTES]>,
}

impl Mask {
    /// Of the connection on which these were said.
    pub fn new(primary: &[u8; 32], secondary: &[u8; 32]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("farseal 2026 mask of slots v1");
        hasher.update(primary);
        hasher.update(secondary);
        Self(*hasher.finalize().as_bytes())
    }

    /// Puts the mask on, or takes it off.
    fn apply(&self, nth: Nth, slot: Slot) -> Slot {
        let stream = blake3::keyed_hash(&self.0, &nth.0.to_le_bytes());
        let mut out = slot;
        out.iter_mut().zip(stream.as_bytes()).for_each(|(byte, mask)| *byte ^= mask);
        out
    }
}

impl std::fmt::Debug for Mask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Mask")
    }
}

impl Carriage {
    pub fn new(number: CarriageNumber, record: Vec<u8>) -> Result<Self, TooLong> {
        let len = record.len();
        if len > CARRIAGE_BYTES_MAX {
            return Err(TooLong { len });
        }
        let standing = standing(&record);
        Ok(Self { number, record, standing })
    }

    pub fn number(&self) -> CarriageNumber {
        self.number
    }

    pub fn record(&self) -> &[u8] {
        &self.record
    }

    /// Slots that carry it.
    pub fn pieces(&self) -> u16 {
        u16::try_from(pieces_of(self.record.len())).unwrap_or(STANDS - 1)
    }

    /// The slot that carries this piece; `None` beyond the last.
    pub fn piece(&self, mask: &Mask, nth: Nth, index: u16) -> Option<Slot> {
        let piece = match usize::from(index).checked_sub(1) {
            None => &self.standing[..],
            Some(place) => self.record.chunks(PIECE_BYTES).nth(place)?,
        };
        Some(mask.apply(nth, self.slot(index, piece)))
    }

    /// The slot that says that the carried record stands before the one that it goes with.
    pub fn stands(&self, mask: &Mask, nth: Nth) -> Slot {
        mask.apply(nth, self.slot(STANDS, &self.standing))
    }

    fn slot(&self, index: u16, content: &[u8]) -> Slot {
        let mut slot = [0; SLOT_BYTES];
        slot[CHECK_BYTES] = self.number.0;
        slot[CHECK_BYTES + 1..HEAD_BYTES].copy_from_slice(&index.to_le_bytes());
        slot[HEAD_BYTES..].iter_mut().zip(content).for_each(|(place, byte)| *place = *byte);
        slot
    }
}

impl Pieces {
    /// Takes in a slot as it came.
    pub fn take(&mut self, mask: &Mask, nth: Nth, slot: Slot) -> Said {
        let slot = mask.apply(nth, slot);
        let (check, rest) = slot.split_at(CHECK_BYTES);
        let [number, low, high, content @ ..] = rest else { return Said::Nothing };
        if check.iter().any(|byte| *byte != 0) {
            return Said::Nothing;
        }
        let (number, index) = (CarriageNumber(*number), u16::from_le_bytes([*low, *high]));
        let mut piece = [0; PIECE_BYTES];
        piece.iter_mut().zip(content).for_each(|(place, byte)| *place = *byte);
        if index == STANDS {
            return self.stand(number, &piece);
        }
        if self.before == Some(number) || usize::from(index) >= pieces_of(CARRIAGE_BYTES_MAX) {
            return Said::Nothing;
        }
        if self.number != Some(number) {
            self.before = self.number.replace(number);
            self.pieces.clear();
        }
        if self.pieces.insert(index, piece).is_some() {
            return Said::Nothing;
        }
        self.whole().map_or(Said::Nothing, Said::Whole)
    }

    /// Every connection of the primary has ended: what it carries next begins anew.
    pub fn forget(&mut self) {
        *self = Self::default();
    }

    fn stand(&mut self, number: CarriageNumber, said: &[u8; PIECE_BYTES]) -> Said {
        if self.number != Some(number) {
            return Said::Missing;
        }
        let record = self.whole().filter(|record| standing(record) == *said);
        self.pieces.clear();
        record.map_or(Said::Missing, Said::Stands)
    }

    /// The record, if all of its pieces are here and make what the first one says.
    fn whole(&self) -> Option<Vec<u8>> {
        let said = self.pieces.get(&0)?;
        let len = usize::try_from(u32::from_le_bytes(*said.first_chunk::<LENGTH_BYTES>()?)).ok()?;
        if len > CARRIAGE_BYTES_MAX || self.pieces.len() != pieces_of(len) {
            return None;
        }
        let mut record: Vec<u8> = self.pieces.values().skip(1).flatten().copied().collect();
        record.truncate(len);
        (record.len() == len && standing(&record) == *said).then_some(record)
    }
}

/// The record's own, and the one that says what they make.
fn pieces_of(bytes: usize) -> usize {
    bytes.div_ceil(PIECE_BYTES) + 1
}

/// Length and digest of a whole record.
fn standing(record: &[u8]) -> [u8; PIECE_BYTES] {
    let len = u32::try_from(record.len()).unwrap_or(u32::MAX).to_le_bytes();
    let digest = blake3::hash(record);
    let mut said = [0; PIECE_BYTES];
    said.iter_mut().zip(len.iter().chain(digest.as_bytes())).for_each(|(place, byte)| *place = *byte);
    said
}

const _: () =
    assert!(CARRIAGE_BYTES_MAX.div_ceil(PIECE_BYTES) + 1 < STANDS as usize, "an index for each piece, and one more");
