//! What a tamperer does to a run of records: everything that can be done by who has no key, with checksums that fit
//! afterwards, as anybody can make them.

use farseal_core::frame::PREFIX_BYTES;
use farseal_core::limits::WINDOW_RECORDS_MAX;
use farseal_core::record::{AAD_BYTES, Framed, HEADER_BYTES, Header, Kind, TAG_BYTES};
use farseal_core::units::{Lba, Sequence};

use super::genuine::{Genuine, RECORDS, Whole};
use crate::dice::Dice;
use crate::disk::{to_usize, wide};

/// One way of tampering.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Change {
    /// One bit, wherever it is; nothing is mended.
    FlipBit,
    /// The end of what travels, or of the last record that is stored, is missing.
    Tear,
    /// One bit of what a header says, with checksums that fit.
    FlipHeader,
    FlipTag,
    FlipBlock,
    /// Two blocks of one record, with their tags.
    SwapBlocks,
    /// Two records of the same length exchange their bodies.
    SwapBodies,
    /// Two records exchange their numbers.
    SwapNumbers,
    /// The record says that it is for another address.
    Relocate,
    /// An older record comes once more, as it was.
    Repeat,
    /// An older record takes a newer one's place under its number.
    Replay,
    /// A record under a number that is far ahead.
    FarAhead,
    /// A record is left out.
    Drop,
    /// The last records are missing: the site is rolled back.
    RollBack,
    /// The encrypt bit is cleared.
    StripFlag,
    /// A record of another pair, under its own name and under this pair's.
    OtherPair,
    OtherPairRenamed,
    /// A record of this pair's generation before, under its own number and under this one's.
    OtherGeneration,
    OtherGenerationRenamed,
    /// A key record of another epoch takes a key record's place, as it was and under that one's number.
    OtherKey,
    OtherKeyRenumbered,
    /// A bit of a key's descriptor, capsule or signature.
    FlipKey,
    /// Covers and gaps are not sealed: anybody can make one in the place of a record.
    AsCover,
    AsGap,
    /// A record of data says that it gave its blocks back.
    AsTrim,
}

/// Records from which a tamperer takes others.
#[derive(Debug)]
pub struct Sources<'a> {
    pub genuine: &'a Genuine,
    pub other_pair: &'a Genuine,
    pub before: &'a Genuine,
}

impl Change {
    pub const ALL: [Self; 25] = [
        Self::FlipBit,
        Self::Tear,
        Self::FlipHeader,
        Self::FlipTag,
        Self::FlipBlock,
        Self::SwapBlocks,
        Self::SwapBodies,
        Self::SwapNumbers,
        Self::Relocate,
        Self::Repeat,
        Self::Replay,
        Self::FarAhead,
        Self::Drop,
        Self::RollBack,
        Self::StripFlag,
        Self::OtherPair,
        Self::OtherPairRenamed,
        Self::OtherGeneration,
        Self::OtherGenerationRenamed,
        Self::OtherKey,
        Self::OtherKeyRenumbered,
        Self::FlipKey,
        Self::AsCover,
        Self::AsGap,
        Self::AsTrim,
    ];

    /// Carries it out on a run of genuine records that begins at `first`. `None` where the run has nothing to do it to.
    pub fn make(self, run: &mut Vec<Vec<u8>>, first: Sequence, from: &Sources<'_>, dice: &mut Dice) -> Option<()> {
        let genuine = from.genuine;
        let at = to_usize(dice.below(wide(run.len())));
        let number = first.plus(wide(at));
        match self {
            Self::FlipBit => flip(run.get_mut(at)?, 0, dice),
            Self::Tear => {
                let last = run.last_mut()?;
                let len = to_usize(dice.below(wide(last.len())));
                last.truncate(len);
            }
            Self::FlipHeader => {
                // What no header says is for `FlipBit`.
                let record = run.get_mut(at)?;
                let before = record.clone();
                flip_within(record, 0, AAD_BYTES, dice);
                mend(record);
                if Framed::decode(record).is_err_and(|_| dice.chance(900)) {
                    *record = before;
                    return None;
                }
            }
            Self::FlipTag => {
                let record = run.get_mut(at)?;
                let tags = header(record)?.tag_bytes();
                flip_within(record, HEADER_BYTES, tags, dice);
                mend(record);
            }
            Self::FlipBlock => {
                let record = sealed_data(run, at)?;
                let tags = header(record)?.tag_bytes();
                flip(record, HEADER_BYTES + tags, dice);
                mend(record);
            }
            Self::SwapBlocks => {
                let record = sealed_data(run, at)?;
                let said = header(record).filter(|said| said.blocks > 1)?;
                let blocks = HEADER_BYTES + said.tag_bytes();
                swap(record, HEADER_BYTES, TAG_BYTES);
                swap(record, blocks, said.block_bytes.as_usize());
                mend(record);
            }
            Self::SwapBodies | Self::SwapNumbers => {
                let mine = header(sealed_data(run, at)?)?;
                let with = (0..run.len()).find(|with| {
                    let other = header(&run[*with]).filter(|other| other.kind == Kind::Data);
                    *with != at && other.is_some_and(|other| other.blocks == mine.blocks)
                })?;
                let other = header(&run[with])?;
                if self == Self::SwapBodies {
                    run.swap(at, with);
                    write(&mut run[at], &mine);
                    write(&mut run[with], &other);
                } else {
                    write(&mut run[at], &Header { sequence: other.sequence, ..mine });
                    write(&mut run[with], &Header { sequence: mine.sequence, ..other });
                    run.swap(at, with);
                }
            }
            Self::Relocate => {
                let record = sealed_data(run, at)?;
                let said = header(record)?;
                let lba = Lba((said.lba.0 + 1) % (super::genuine::BLOCKS - u64::from(said.blocks)));
                write(record, &Header { lba, ..said });
            }
            Self::Repeat => run.insert(at, older(genuine, first, dice, |_| true)?.bytes.clone()),
            Self::Replay => {
                let said = header(run.get(at)?)?;
                let old =
                    older(genuine, first, dice, |whole| whole.header.kind == said.kind && said.kind == Kind::Data)?;
                *run.get_mut(at)? = renamed(old, &Header { sequence: number, ..old.header });
            }
            Self::FarAhead => {
                let said = header(run.get(at)?)?;
                let sequence = said.sequence.plus(WINDOW_RECORDS_MAX + dice.between(10, 1 << 40));
                write(run.get_mut(at)?, &Header { sequence, ..said });
            }
            Self::Drop => {
                // The last one is for `RollBack`.
                let at = at.checked_sub(1)?;
                run.remove(at);
            }
            Self::RollBack => run.truncate(at),
            Self::StripFlag => {
                let said = header(run.get(at)?)?;
                write(run.get_mut(at)?, &Header { encrypted: false, ..said });
            }
            Self::OtherPair => *run.get_mut(at)? = from.other_pair.get(number)?.bytes.clone(),
            Self::OtherGeneration => *run.get_mut(at)? = from.before.get(number)?.bytes.clone(),
            Self::OtherPairRenamed | Self::OtherGenerationRenamed => {
                let said = header(run.get(at)?)?;
                let source = if self == Self::OtherPairRenamed { from.other_pair } else { from.before };
                let other = any(source, dice, |whole| whole.header.kind.is_sealed() && whole.header.kind == said.kind)?;
                let Header { pair, generation, .. } = said;
                *run.get_mut(at)? = renamed(other, &Header { pair, generation, sequence: number, ..other.header });
            }
            Self::OtherKey | Self::OtherKeyRenumbered => {
                let place = key_place(run, dice)?;
                let number = header(&run[place])?.sequence;
                // As it was, it is one that was seen: nobody has a key record of what is still to come.
                let other = any(genuine, dice, |Whole { header, .. }| {
                    let seen = self == Self::OtherKeyRenumbered || header.sequence < first;
                    header.kind == Kind::Key && header.sequence != number && seen
                })?;
                run[place] = if self == Self::OtherKey {
                    other.bytes.clone()
                } else {
                    renamed(other, &Header { sequence: number, ..other.header })
                };
            }
            Self::FlipKey => {
                let place = key_place(run, dice)?;
                let from = HEADER_BYTES + header(&run[place])?.tag_bytes();
                flip_within(&mut run[place], from, 80, dice);
                mend(&mut run[place]);
            }
            Self::AsCover | Self::AsGap | Self::AsTrim => {
                let said = header(sealed_data(run, at)?)?;
                let sequence = said.sequence;
                let header = if self == Self::AsGap {
                    Header { kind: Kind::Gap, lba: Lba(0), blocks: 0, aux: first.0.min(sequence.0), ..said }
                } else {
                    Header { kind: if self == Self::AsCover { Kind::Cover } else { Kind::Trim }, ..said }
                };
                let body = header.body_bytes();
                let record = run.get_mut(at)?;
                record.resize(HEADER_BYTES + body, 0);
                write(record, &header);
            }
        }
        Some(())
    }
}

/// One bit of what travels, frames and all.
pub fn flip_stream(stream: &mut [u8], dice: &mut Dice) {
    let from = if dice.chance(100) { 0 } else { PREFIX_BYTES };
    flip(stream, from, dice);
}

fn header(record: &[u8]) -> Option<Header> {
    Some(Framed::decode(record).ok()?.header)
}

fn sealed_data(run: &mut [Vec<u8>], at: usize) -> Option<&mut Vec<u8>> {
    run.get_mut(at).filter(|record| header(record).is_some_and(|header| header.kind == Kind::Data))
}

fn key_place(run: &[Vec<u8>], dice: &mut Dice) -> Option<usize> {
    let keys: Vec<usize> =
        (0..run.len()).filter(|at| header(&run[*at]).is_some_and(|header| header.kind == Kind::Key)).collect();
    keys.get(to_usize(dice.below(wide(keys.len())))).copied()
}

fn any<'a>(genuine: &'a Genuine, dice: &mut Dice, fits: impl Fn(&Whole) -> bool) -> Option<&'a Whole> {
    let from = dice.below(RECORDS);
    (0..RECORDS).find_map(|step| genuine.get(Sequence((from + step) % RECORDS + 1)).filter(|whole| fits(whole)))
}

fn older<'a>(
    genuine: &'a Genuine,
    first: Sequence,
    dice: &mut Dice,
    fits: impl Fn(&Whole) -> bool,
) -> Option<&'a Whole> {
    any(genuine, dice, |whole| whole.header.sequence < first && fits(whole))
}

fn renamed(whole: &Whole, header: &Header) -> Vec<u8> {
    let mut bytes = whole.bytes.clone();
    write(&mut bytes, header);
    bytes
}

/// The record under this header.
fn write(record: &mut [u8], header: &Header) {
    let crc = crc32c::crc32c(record.get(HEADER_BYTES..).unwrap_or_default());
    if let Some(place) = record.get_mut(..HEADER_BYTES) {
        place.copy_from_slice(&header.encode(crc));
    }
}

/// Both checksums, whatever the header says.
fn mend(record: &mut [u8]) {
    let body = crc32c::crc32c(record.get(HEADER_BYTES..).unwrap_or_default());
    record[AAD_BYTES..AAD_BYTES + 4].copy_from_slice(&body.to_le_bytes());
    let own = crc32c::crc32c(&record[..92]);
    record[92..HEADER_BYTES].copy_from_slice(&own.to_le_bytes());
}

fn flip(bytes: &mut [u8], from: usize, dice: &mut Dice) {
    let len = bytes.len().saturating_sub(from);
    flip_within(bytes, from, len, dice);
}

fn flip_within(bytes: &mut [u8], from: usize, len: usize, dice: &mut Dice) {
    let at = from + to_usize(dice.below(wide(len)));
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= 1 << dice.below(8);
    }
}

/// The first two pieces of this size change places.
fn swap(bytes: &mut [u8], from: usize, size: usize) {
    let (front, back) = bytes.split_at_mut(from + size);
    if let (Some(one), Some(other)) = (front.get_mut(from..), back.get_mut(..size)) {
        one.swap_with_slice(other);
    }
}
