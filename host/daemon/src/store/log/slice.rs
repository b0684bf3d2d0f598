//! Entries of a segment: whole records, and slices, which are what compaction keeps of a record of which other blocks were
//! overwritten.
//!
//! ```text
//! slice:   0  magic "FSS1"    4  crc32c of everything after this field
//!          8  the record's header, verbatim (96)
//!        104  runs (u32)    108  runs: first block in the record, blocks (u32 each)
//!             the tags (and search tags) of the blocks that are kept, then these blocks, in the record's order
//! ```
//!
//! A block's tag covers the header and the block's index in its record, and neither changes: a slice is made, checked
//! and copied without a key.

use bytes::Bytes;
use farseal_core::limits::RECORD_PAYLOAD_MAX;
use farseal_core::record::{Framed, HEADER_BYTES, Header, Kind};

use super::read::Cursor;
use super::{Flaw, record_at};
use crate::store::{StoreError, narrow, wide};

pub(super) const SLICE_MAGIC: [u8; 4] = *b"FSS1";
/// Before the runs.
pub(super) const SLICE_HEAD_BYTES: usize = 108;
const RUN_BYTES: usize = 8;
/// The smallest block of a volume.
const BLOCK_BYTES_MIN: usize = 512;

/// Neighbouring blocks of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run {
    /// Index in the record.
    pub first: u32,
    pub count: u32,
}

/// Which blocks of a record an entry holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Kept {
    Whole,
    /// In order, without overlap.
    Runs(Vec<Run>),
}

/// What stands at one place of a segment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::store) struct Entry {
    pub(in crate::store) framed: Framed,
    pub(in crate::store) kept: Kept,
    /// Bytes before the tags.
    head: usize,
}

impl Kept {
    /// How many blocks of a record with this header.
    pub(in crate::store) fn blocks(&self, header: &Header) -> u32 {
        match self {
            Self::Whole => header.blocks,
            Self::Runs(runs) => runs.iter().map(|run| run.count).sum(),
        }
    }

    /// What either of two readers reads of one record with this header.
    pub fn both(self, other: Self, header: &Header) -> Self {
        let (Self::Runs(one), Self::Runs(two)) = (self, other) else { return Self::Whole };
        let mut all: Vec<Run> = one.into_iter().chain(two).collect();
        all.sort_unstable_by_key(|run| run.first);
        let mut runs: Vec<Run> = Vec::new();
        for run in all {
            match runs.last_mut() {
                Some(last) if run.first <= last.first + last.count => {
                    last.count = last.count.max(run.first + run.count - last.first);
                }
                _ => runs.push(run),
            }
        }
        match runs.as_slice() {
            [run] if run.count == header.blocks => Self::Whole,
            _ => Self::Runs(runs),
        }
    }

    /// Where among the kept blocks those from `first` on stand, if all `count` are kept.
    fn position(&self, header: &Header, first: u32, count: u32) -> Option<usize> {
        let whole = [Run { first: 0, count: header.tags() }];
        let runs = match self {
            Self::Whole => whole.as_slice(),
            Self::Runs(runs) => runs,
        };
        let mut before = 0;
        for run in runs {
            if (run.first..run.first + run.count).contains(&first) {
                return (count <= run.first + run.count - first).then(|| narrow(u64::from(before + first - run.first)));
            }
            before += run.count;
        }
        None
    }
}

impl Entry {
    /// Reads the head of an entry from its first bytes: `Ok(Err(bytes))` if so many are needed.
    pub(super) fn head(bytes: &[u8]) -> Result<Result<Self, usize>, Flaw> {
        if !bytes.starts_with(&SLICE_MAGIC) {
            return match Framed::decode(bytes) {
                Ok(framed) => Ok(Ok(Self { framed, kept: Kept::Whole, head: HEADER_BYTES })),
                Err(error) => Err(Flaw::Header(error)),
            };
        }
        let Some((head, rest)) = bytes.split_at_checked(SLICE_HEAD_BYTES) else {
            return Ok(Err(SLICE_HEAD_BYTES));
        };
        let framed = Framed::decode(&head[8..8 + HEADER_BYTES]).map_err(Flaw::Header)?;
        let header = framed.header;
        let bad = Flaw::Slice { sequence: header.sequence };
        let count = u32::from_le_bytes(head[104..].try_into().unwrap_or_default());
        if header.kind != Kind::Data || count == 0 || count > header.blocks {
            return Err(bad);
        }
        let bytes = narrow(u64::from(count)) * RUN_BYTES;
        let Some(words) = rest.get(..bytes) else {
            return Ok(Err(SLICE_HEAD_BYTES + bytes));
        };
        let (mut runs, mut next) = (Vec::with_capacity(bytes / RUN_BYTES), 0);
        for word in words.chunks_exact(RUN_BYTES) {
            let (first, count) = word.split_at(4);
            let first = u32::from_le_bytes(first.try_into().unwrap_or_default());
            let count = u32::from_le_bytes(count.try_into().unwrap_or_default());
            let end = first.checked_add(count).filter(|end| *end <= header.blocks).ok_or(bad)?;
            if count == 0 || first < next {
                return Err(bad);
            }
            next = end;
            runs.push(Run { first, count });
        }
        Ok(Ok(Self { framed, kept: Kept::Runs(runs), head: SLICE_HEAD_BYTES + bytes }))
    }

    /// Bytes of the whole entry.
    pub(in crate::store) fn bytes(&self) -> usize {
        match &self.kept {
            Kept::Whole => self.framed.header.record_bytes(),
            kept @ Kept::Runs(_) => {
                let header = &self.framed.header;
                let each = header.tag_bytes_each() + header.block_bytes.as_usize();
                self.head + narrow(u64::from(kept.blocks(&self.framed.header))) * each
            }
        }
    }

    /// Are these, which are [`Self::bytes`] long, what was written?
    pub(super) fn check(&self, bytes: &[u8]) -> Result<(), Flaw> {
        let header = &self.framed.header;
        let good = match self.kept {
            Kept::Whole => self.framed.body_matches(&bytes[HEADER_BYTES..]),
            Kept::Runs(_) => bytes[4..8] == crc32c::crc32c(&bytes[8..]).to_le_bytes(),
        };
        let flaw = Flaw::Body { sequence: header.sequence, lba: header.lba.0, blocks: header.blocks };
        if good { Ok(()) } else { Err(flaw) }
    }

    /// Tags and blocks from `first` on, by their index in the record, out of this entry's bytes; `None` if not all of
    /// them are here. For a record without blocks the one tag is tag 0.
    pub(super) fn part(&self, bytes: &Bytes, first: u32, count: u32) -> Option<(Bytes, Bytes)> {
        let header = &self.framed.header;
        let at = self.kept.position(header, first, count)?;
        let size = if header.kind.has_blocks() { header.block_bytes.as_usize() } else { 0 };
        let tags = narrow(u64::from(match &self.kept {
            Kept::Whole => header.tags(),
            kept @ Kept::Runs(_) => kept.blocks(header),
        }));
        let count = narrow(u64::from(count));
        let each_tag = header.tag_bytes_each();
        let blocks = self.head + tags * each_tag;
        let cut = |from: usize, each: usize| bytes.slice(from + at * each..from + (at + count) * each);
        Some((cut(self.head, each_tag), cut(blocks, size)))
    }

    /// Where this entry holds the tags of blocks from `first` on, by their index in the record: bytes before them, and their length;
    /// `None` if not all of them are here.
    pub(super) fn tags_at(&self, first: u32, count: u32) -> Option<(u64, usize)> {
        let header = &self.framed.header;
        let (at, each) = (self.kept.position(header, first, count)?, header.tag_bytes_each());
        Some((wide(self.head + at * each), narrow(u64::from(count)) * each))
    }

    /// An entry of the blocks of `keep` alone, out of this one's bytes; `None` if some of them are not here.
    pub(super) fn cut(&self, bytes: &Bytes, keep: &Kept) -> Option<Vec<u8>> {
        let runs = match keep {
            Kept::Whole => return (self.kept == Kept::Whole).then(|| bytes.to_vec()),
            kept if *kept == self.kept => return Some(bytes.to_vec()),
            Kept::Runs(runs) => runs,
        };
        let parts: Option<Vec<_>> = runs.iter().map(|run| self.part(bytes, run.first, run.count)).collect();
        let parts = parts?;
        let mut out = Vec::with_capacity(bytes.len());
        out.extend(SLICE_MAGIC);
        out.extend([0; 4]);
        out.extend(self.framed.header.encode(self.framed.body_crc));
        out.extend(u32::try_from(runs.len()).unwrap_or(u32::MAX).to_le_bytes());
        for run in runs {
            out.extend(run.first.to_le_bytes());
            out.extend(run.count.to_le_bytes());
        }
        parts.iter().for_each(|(tags, _)| out.extend_from_slice(tags));
        parts.iter().for_each(|(_, blocks)| out.extend_from_slice(blocks));
        let crc = crc32c::crc32c(&out[8..]);
        out[4..8].copy_from_slice(&crc.to_le_bytes());
        Some(out)
    }
}

/// The whole entry at `at`, checked; or what is wrong with it.
pub(in crate::store) fn entry_at(cursor: &mut Cursor, at: u64) -> Result<Result<Entry, Flaw>, StoreError> {
    if !cursor.bytes(at, wide(SLICE_MAGIC.len()))?.starts_with(&SLICE_MAGIC) {
        let record = record_at(cursor, at)?;
        return Ok(record.map(|(framed, _)| Entry { framed, kept: Kept::Whole, head: HEADER_BYTES }));
    }
    let mut want = SLICE_HEAD_BYTES;
    loop {
        let bytes = cursor.bytes(at, wide(want))?;
        let more = match Entry::head(bytes) {
            Ok(Ok(entry)) if bytes.len() >= entry.bytes() => {
                let checked = entry.check(&bytes[..entry.bytes()]);
                return Ok(checked.map(|()| entry));
            }
            Ok(Ok(entry)) => entry.bytes(),
            Ok(Err(more)) => more,
            Err(flaw) => return Ok(Err(flaw)),
        };
        if bytes.len() < want {
            return Ok(Err(Flaw::Segment));
        }
        want = more;
    }
}

/// How long the entry at `at` is, by its head alone; `None` where no head stands.
pub(in crate::store) fn entry_bytes(cursor: &mut Cursor, at: u64) -> Result<Option<u64>, StoreError> {
    let most = SLICE_HEAD_BYTES + narrow(u64::from(RECORD_PAYLOAD_MAX)) / BLOCK_BYTES_MIN * RUN_BYTES;
    let head = Entry::head(cursor.bytes(at, wide(most))?);
    Ok(head.ok().and_then(Result::ok).map(|entry| wide(entry.bytes())))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use farseal_core::layout::SearchTags;
    use farseal_core::units::{BlockBytes, Generation, Lba, PairId, Sequence, VolumeId, WallTime};

    use super::*;

    fn record(blocks: u32) -> (Entry, Bytes) {
        tagged(blocks, 0)
    }

    /// With so many search tags a block.
    fn tagged(blocks: u32, search_tags: u8) -> (Entry, Bytes) {
        let header = Header {
            kind: Kind::Data,
            encrypted: true,
            stack: 0,
            search_tags: SearchTags::new(search_tags).unwrap(),
            pair: PairId([1; 16]),
            volume: VolumeId([2; 16]),
            generation: Generation(1),
            sequence: Sequence(7),
            lba: Lba(100),
            blocks,
            block_bytes: BlockBytes::new(512).unwrap(),
            wall: WallTime(0),
            aux: 0,
        };
        let body: Vec<u8> = (0..header.body_bytes()).map(|at| u8::try_from(at * 7 % 251).unwrap()).collect();
        let framed = Framed { header, body_crc: crc32c::crc32c(&body) };
        let mut bytes = Vec::from(header.encode(framed.body_crc));
        bytes.extend(body);
        (Entry::head(&bytes).unwrap().unwrap(), bytes.into())
    }

    fn runs(list: &[(u32, u32)]) -> Kept {
        Kept::Runs(list.iter().map(|(first, count)| Run { first: *first, count: *count }).collect())
    }

    #[test]
    fn a_slice_gives_the_blocks_it_keeps_and_no_others() {
        let (whole, bytes) = record(8);
        let cut = Bytes::from(whole.cut(&bytes, &runs(&[(1, 2), (6, 1)])).unwrap());
        let slice = Entry::head(&cut).unwrap().unwrap();
        assert_eq!((slice.bytes(), slice.check(&cut)), (cut.len(), Ok(())));
        for (first, count, there) in
            [(0, 1, false), (1, 2, true), (2, 1, true), (2, 2, false), (3, 1, false), (6, 1, true), (7, 1, false)]
        {
            let expected = there.then(|| whole.part(&bytes, first, count).unwrap());
            assert_eq!(slice.part(&cut, first, count), expected, "{count} from {first}");
        }
    }

    #[test]
    fn what_two_readers_read_is_kept_for_both() {
        let header = record(8).0.framed.header;
        for (one, two, both) in [
            (runs(&[(1, 2)]), runs(&[(3, 1), (6, 1)]), runs(&[(1, 3), (6, 1)])),
            (runs(&[(0, 4)]), runs(&[(2, 6)]), Kept::Whole),
            (runs(&[(0, 1)]), Kept::Whole, Kept::Whole),
            (runs(&[(5, 1)]), runs(&[(1, 1)]), runs(&[(1, 1), (5, 1)])),
        ] {
            assert_eq!(one.clone().both(two.clone(), &header), both);
            assert_eq!(two.both(one, &header), both);
        }
    }

    #[test]
    fn a_slice_keeps_the_search_tags_of_the_blocks_it_keeps() {
        let (whole, bytes) = tagged(8, 2);
        let cut = Bytes::from(whole.cut(&bytes, &runs(&[(1, 2), (6, 1)])).unwrap());
        let slice = Entry::head(&cut).unwrap().unwrap();
        assert_eq!((slice.bytes(), slice.check(&cut)), (cut.len(), Ok(())));
        for (first, count) in [(1, 2), (2, 1), (6, 1)] {
            let (tags, blocks) = whole.part(&bytes, first, count).unwrap();
            assert_eq!((tags.len(), blocks.len()), (narrow(u64::from(count)) * 48, narrow(u64::from(count)) * 512));
            for (entry, bytes) in [(&whole, &bytes), (&slice, &cut)] {
                assert_eq!(entry.part(bytes, first, count).unwrap(), (tags.clone(), blocks.clone()));
                let (at, len) = entry.tags_at(first, count).unwrap();
                assert_eq!(bytes[narrow(at)..narrow(at) + len], tags, "tags alone, at the same place");
            }
        }
        assert_eq!(slice.tags_at(3, 1), None);
    }

    #[test]
    fn a_slice_of_a_slice_is_the_slice_of_the_record() {
        let (whole, bytes) = record(8);
        let first = Bytes::from(whole.cut(&bytes, &runs(&[(0, 5), (7, 1)])).unwrap());
        let slice = Entry::head(&first).unwrap().unwrap();
        let keep = runs(&[(3, 1), (7, 1)]);
        assert_eq!(slice.cut(&first, &keep), whole.cut(&bytes, &keep));
        assert_eq!(slice.cut(&first, &runs(&[(5, 1)])), None, "what is not there is not made up");
        assert_eq!(slice.cut(&first, &Kept::Whole), None);
    }

    #[test]
    fn every_changed_bit_of_a_slice_is_found() {
        let (whole, bytes) = record(4);
        let cut = whole.cut(&bytes, &runs(&[(1, 1), (3, 1)])).unwrap();
        for bit in 0..cut.len() * 8 {
            let mut changed = cut.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let found = match Entry::head(&changed) {
                Ok(Ok(entry)) if entry.bytes() == changed.len() => entry.check(&changed).is_err(),
                Ok(_) | Err(_) => true,
            };
            assert!(found, "bit {bit}");
        }
    }
}
