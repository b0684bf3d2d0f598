//! The dirty map: which granules the secondary is owed when the journal no longer says so.
//!
//! In steady state what is owed is a range of the journal and this map does not exist. It comes into being for the initial
//! copy, when the journal overflows, and after a takeover. A granule is cleared only by a durable acknowledgement of
//! the record that copied it, and only if nothing marked it again in between: never by inference.

use serde::{Deserialize, Serialize};

use crate::bytes::Fields;
use crate::frame::Differs;
use crate::given_up::GivenUp;
use crate::limits::{DIFFERS_WORDS_MAX, OWED_GRANULE_BYTES};
use crate::units::{BlockBytes, BlockCount, ByteLen, Extent, Lba, Sequence};

/// One bit a granule of 64 KiB, and the copies that are under way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OwedMap {
    block_bytes: BlockBytes,
    volume: BlockCount,
    bits: Vec<u64>,
    owed: u64,
    /// Where the next search for an owed granule begins.
    cursor: u64,
    /// Granules whose content is in a record that waits for its acknowledgement, with that record's sequence number
    /// once it has one.
    copying: std::collections::BTreeMap<u64, Option<Sequence>>,
    account: Option<Account>,
}

/// Why a map is worked off.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CopyKind {
    /// The secondary gets the volume for the first time, or afresh.
    Initial,
    /// The secondary had it and missed something.
    Resync,
}

/// What a map has owed since it came into being.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Account {
    kind: CopyKind,
    /// Granules.
    total: u64,
}

/// Why bytes are not a dirty map of this volume.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OwedError {
    #[error("the dirty map is cut short or damaged; every block counts as owed until it is rebuilt")]
    Damaged,
    #[error("dirty map format {0}; this version reads formats 1 and 2")]
    Version(u8),
    #[error("the dirty map is of a volume of {found} blocks; this one has {expected}")]
    OtherVolume { expected: u64, found: u64 },
}

const MAGIC: [u8; 4] = *b"FSOM";
/// A map alone.
const VERSION: u8 = 1;
/// A map, and what was given up when it took over.
const VERSION_GIVEN_UP: u8 = 2;
const MAP_HEADER_BYTES: usize = 32;

/// Extents in the order of their places, those that touch or overlap joined.
pub fn joined(extents: impl Iterator<Item = Extent>) -> Vec<Extent> {
    let mut runs: Vec<Extent> = Vec::new();
    for extent in extents {
        match runs.last_mut().filter(|last| extent.first() <= last.end()) {
            Some(last) => {
                let end = last.end().max(extent.end());
                let whole = Extent::new(last.first(), BlockCount(end.0 - last.first().0));
                *last = whole.unwrap_or(*last);
            }
            None => runs.push(extent),
        }
    }
    runs
}

impl OwedMap {
    /// Nothing is owed.
    pub fn empty(volume: BlockCount, block_bytes: BlockBytes) -> Self {
        let granules = granules(volume, block_bytes);
        let words = usize::try_from(granules.div_ceil(64)).unwrap_or(usize::MAX);
        Self {
            block_bytes,
            volume,
            bits: vec![0; words],
            owed: 0,
            cursor: 0,
            copying: Default::default(),
            account: None,
        }
    }

    /// Everything is owed: what a map that cannot be read stands for.
    pub fn full(volume: BlockCount, block_bytes: BlockBytes) -> Self {
        let mut map = Self::empty(volume, block_bytes);
        if let Some(extent) = Extent::new(Lba(0), volume) {
            map.mark(extent);
        }
        map
    }

    /// What is owed is counted from here on, unless it is already.
    pub fn begin(&mut self, kind: CopyKind) {
        self.account.get_or_insert(Account { kind, total: self.owed });
    }

    /// Why this map is worked off, how much it owed altogether, and how much of that it owes no more. None where
    /// nobody counts.
    pub fn progress(&self) -> Option<(CopyKind, ByteLen, ByteLen)> {
        let Account { kind, total } = self.account?;
        let bytes = |granules: u64| ByteLen(granules.saturating_mul(OWED_GRANULE_BYTES.0));
        Some((kind, bytes(total), bytes(total.saturating_sub(self.owed))))
    }

    /// Owes every granule that the extent touches. A copy that is under way no longer clears them.
    pub fn mark(&mut self, extent: Extent) {
        let per = self.blocks_per_granule();
        for granule in extent.first().0 / per..=(extent.end().0 - 1) / per {
            let (word, bit) = place(granule);
            if let Some(bits) = self.bits.get_mut(word) {
                let new = u64::from(*bits & bit == 0);
                *bits |= bit;
                self.owed += new;
                if let Some(account) = &mut self.account {
                    account.total = account.total.saturating_add(new);
                }
            }
            self.copying.remove(&granule);
        }
    }

    /// Owes what the other site says that its base differs in. Bits beyond the volume mean nothing.
    pub fn mark_differing(&mut self, differs: &Differs) {
        let total = granules(self.volume, self.block_bytes);
        for (at, word) in (differs.first..).zip(&differs.words).filter(|(_, word)| **word != 0) {
            for granule in
                (0..64).filter(|bit| word >> bit & 1 == 1).filter_map(|bit| at.checked_mul(64)?.checked_add(bit))
            {
                if granule < total
                    && let Some(extent) = self.extent_of(granule)
                {
                    self.mark(extent);
                }
            }
        }
    }

    /// The map in frames for the other site, the last one marked as such; runs without a bit take no place.
    pub fn differs(&self) -> Vec<Differs> {
        let mut frames: Vec<Differs> = Vec::new();
        let words = self.bits.chunks(DIFFERS_WORDS_MAX);
        for (first, words) in (0u64..).step_by(DIFFERS_WORDS_MAX).zip(words) {
            let Some(last) = words.iter().rposition(|word| *word != 0) else { continue };
            frames.push(Differs { first, words: words[..=last].to_vec(), last: false });
        }
        match frames.last_mut() {
            Some(frame) => frame.last = true,
            None => frames.push(Differs { first: 0, words: Vec::new(), last: true }),
        }
        frames
    }

    /// Owes what another map of the same volume owes.
    pub fn join(&mut self, other: &Self) {
        other.differs().iter().for_each(|differs| self.mark_differing(differs));
    }

    /// The next run of owed granules that no copy is under way for, at most so many, as an extent; the copy counts as
    /// under way from here.
    pub fn next_copy(&mut self, most: u64) -> Option<Extent> {
        let total = granules(self.volume, self.block_bytes);
        let start = self.cursor;
        let first = self.find(start, total).or_else(|| self.find(0, start))?;
        let mut end = first + 1;
        while end < total && end - first < most && self.is_owed(end) && !self.copying.contains_key(&end) {
            end += 1;
        }
        self.cursor = end;
        self.copying.extend((first..end).map(|granule| (granule, None)));
        let (first, last) = (self.extent_of(first)?, self.extent_of(end - 1)?);
        Extent::new(first.first(), BlockCount(last.end().0 - first.first().0))
    }

    /// The copy of this extent is in the record with this sequence number.
    pub fn copied_in(&mut self, extent: Extent, sequence: Sequence) {
        let granules = self.granules_of(extent);
        self.copying.range_mut(granules).for_each(|(_, slot)| *slot = Some(sequence));
    }

    /// The copy of this extent came to nothing: it is owed still.
    pub fn copy_failed(&mut self, extent: Extent) {
        self.granules_of(extent).for_each(|granule| _ = self.copying.remove(&granule));
    }

    /// The secondary holds everything up to `durable`, durably. Returns how many granules that clears.
    pub fn acknowledged(&mut self, durable: Sequence) -> u64 {
        let done: Vec<u64> = self
            .copying
            .iter()
            .filter(|(_, sequence)| sequence.is_some_and(|sequence| sequence <= durable))
            .map(|(granule, _)| *granule)
            .collect();
        let mut cleared = 0;
        for granule in &done {
            self.copying.remove(granule);
            let (word, bit) = place(*granule);
            if let Some(bits) = self.bits.get_mut(word) {
                cleared += u64::from(*bits & bit != 0);
                *bits &= !bit;
            }
        }
        self.owed -= cleared;
        cleared
    }

    /// Copies under way come to nothing: their records were given up.
    pub fn forget_copies(&mut self) {
        self.copying.clear();
    }

    pub fn is_empty(&self) -> bool {
        self.owed == 0
    }

    /// Is this block in an owed granule?
    pub fn owes(&self, lba: Lba) -> bool {
        self.is_owed(lba.0 / self.blocks_per_granule())
    }

    /// Blocks owed, counted in whole granules.
    pub fn owed(&self) -> BlockCount {
        BlockCount(self.owed.saturating_mul(self.blocks_per_granule()).min(self.volume.0))
    }

    /// Granules being copied.
    pub fn copies_under_way(&self) -> usize {
        self.copying.len()
    }

    /// The map on disk: a superset of what is owed stays true however old it is.
    pub fn encode(&self) -> Vec<u8> {
        self.encoded(VERSION, &GivenUp::default())
    }

    /// The map on disk, with where the secondary may be.
    pub fn encode_with(&self, given_up: &GivenUp) -> Vec<u8> {
        self.encoded(VERSION_GIVEN_UP, given_up)
    }

    fn encoded(&self, version: u8, given_up: &GivenUp) -> Vec<u8> {
        let mut out = Vec::with_capacity(MAP_HEADER_BYTES + self.bits.len() * 8);
        out.extend(MAGIC);
        let (kind, total) = match self.account {
            None => (0, 0),
            Some(Account { kind: CopyKind::Initial, total }) => (1, total),
            Some(Account { kind: CopyKind::Resync, total }) => (2, total),
        };
        out.extend([version, kind, 0, 0]);
        out.extend(self.volume.0.to_le_bytes());
        out.extend(self.block_bytes.get().to_le_bytes());
        out.extend(total.to_le_bytes());
        let mut rest: Vec<u8> = self.bits.iter().flat_map(|word| word.to_le_bytes()).collect();
        given_up.encode(&mut rest);
        let crc = crc32c::crc32c_append(crc32c::crc32c(&out), &rest);
        out.extend(crc.to_le_bytes());
        out.extend(rest);
        out
    }

    /// The map alone.
    pub fn decode(bytes: &[u8], volume: BlockCount, block_bytes: BlockBytes) -> Result<Self, OwedError> {
        Self::decode_with(bytes, volume, block_bytes).map(|(map, _)| map)
    }

    /// The map, and what was given up when it took over; none where the file is of a version that did not keep it.
    pub fn decode_with(
        bytes: &[u8],
        volume: BlockCount,
        block_bytes: BlockBytes,
    ) -> Result<(Self, Option<GivenUp>), OwedError> {
        let mut fields = Fields::new(bytes);
        let (magic, version, kind, reserved) = (fields.array::<4>(), fields.u8(), fields.u8(), fields.array::<2>());
        let (blocks, size, total, crc) = (fields.u64(), fields.u32(), fields.u64(), fields.u32());
        if !fields.ok() || magic != MAGIC {
            return Err(OwedError::Damaged);
        }
        let (head, rest) = (&bytes[..MAP_HEADER_BYTES - 4], &bytes[MAP_HEADER_BYTES..]);
        if crc != crc32c::crc32c_append(crc32c::crc32c(head), rest) {
            return Err(OwedError::Damaged);
        }
        if version != VERSION && version != VERSION_GIVEN_UP {
            return Err(OwedError::Version(version));
        }
        let mut map = Self::empty(volume, block_bytes);
        if blocks != volume.0 || size != block_bytes.get() {
            return Err(OwedError::OtherVolume { expected: volume.0, found: blocks });
        }
        let Some((bits, points)) = rest.split_at_checked(map.bits.len() * 8) else {
            return Err(OwedError::Damaged);
        };
        let given_up = match version {
            VERSION if points.is_empty() => None,
            VERSION_GIVEN_UP => Some(GivenUp::decode(points).ok_or(OwedError::Damaged)?),
            _ => return Err(OwedError::Damaged),
        };
        for (word, bytes) in map.bits.iter_mut().zip(bits.chunks_exact(8)) {
            *word = u64::from_le_bytes(bytes.try_into().unwrap_or_default());
        }
        // A granule past the end could never be copied, and the map never be empty again.
        let past_the_end = (granules(volume, block_bytes)..u64::try_from(map.bits.len()).unwrap_or(u64::MAX) * 64)
            .any(|granule| map.is_owed(granule));
        if past_the_end || reserved != [0; 2] {
            return Err(OwedError::Damaged);
        }
        map.owed = map.bits.iter().map(|word| u64::from(word.count_ones())).sum();
        map.account = match kind {
            0 if total == 0 => None,
            1 if total >= map.owed => Some(Account { kind: CopyKind::Initial, total }),
            2 if total >= map.owed => Some(Account { kind: CopyKind::Resync, total }),
            _ => return Err(OwedError::Damaged),
        };
        Ok((map, given_up))
    }

    fn find(&self, from: u64, to: u64) -> Option<u64> {
        let mut granule = from;
        while granule < to {
            let (word, bit) = place(granule);
            let bits = *self.bits.get(word)?;
            if bits == 0 {
                granule = (granule / 64 + 1) * 64;
                continue;
            }
            if bits & bit != 0 && !self.copying.contains_key(&granule) {
                return Some(granule);
            }
            granule += 1;
        }
        None
    }

    /// What is owed of an extent, in order; runs that touch are one.
    pub fn runs(&self, within: Extent) -> Vec<Extent> {
        let per = self.blocks_per_granule();
        let granules = within.first().0 / per..within.end().0.div_ceil(per);
        let owed = granules.filter(|granule| self.is_owed(*granule)).filter_map(|granule| self.extent_of(granule));
        joined(owed.filter_map(|extent| extent.intersection(within)))
    }

    fn is_owed(&self, granule: u64) -> bool {
        let (word, bit) = place(granule);
        self.bits.get(word).is_some_and(|bits| bits & bit != 0)
    }

    fn extent_of(&self, granule: u64) -> Option<Extent> {
        let per = self.blocks_per_granule();
        let first = granule * per;
        Extent::new(Lba(first), BlockCount(per.min(self.volume.0.saturating_sub(first))))
    }

    fn granules_of(&self, extent: Extent) -> std::ops::Range<u64> {
        let per = self.blocks_per_granule();
        extent.first().0 / per..extent.end().0.div_ceil(per)
    }

    fn blocks_per_granule(&self) -> u64 {
        OWED_GRANULE_BYTES.0 / self.block_bytes.as_u64()
    }
}

fn granules(volume: BlockCount, block_bytes: BlockBytes) -> u64 {
    volume.byte_len(block_bytes).0.div_ceil(OWED_GRANULE_BYTES.0)
}

fn place(granule: u64) -> (usize, u64) {
    (usize::try_from(granule / 64).unwrap_or(usize::MAX), 1 << (granule % 64))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn extent(first: u64, blocks: u64) -> Extent {
        Extent::new(Lba(first), BlockCount(blocks)).unwrap()
    }

    fn map() -> OwedMap {
        OwedMap::empty(BlockCount(1000), BlockBytes::DEFAULT)
    }

    fn at_block(block: u64) -> usize {
        usize::try_from(block).unwrap()
    }

    #[test]
    fn runs_are_clipped_joined_and_in_order() {
        let mut map = OwedMap::empty(BlockCount(1000), BlockBytes::DEFAULT);
        map.mark(extent(20, 1));
        map.mark(extent(32, 1));
        map.mark(extent(990, 10));
        assert_eq!(map.runs(extent(0, 1000)), [extent(16, 32), extent(976, 24)]);
        assert_eq!(map.runs(extent(40, 1)), [extent(40, 1)]);
        assert_eq!(map.runs(extent(48, 900)), []);
    }

    #[test]
    fn a_granule_is_cleared_only_by_an_acknowledgement_of_its_copy() {
        let mut map = map();
        map.mark(extent(20, 1));
        let copy = map.next_copy(1).unwrap();
        assert_eq!(copy, extent(16, 16));
        assert_eq!(map.next_copy(1), None, "one copy at a time");
        assert_eq!(map.acknowledged(Sequence(100)), 0, "the copy has no place yet");
        map.copied_in(copy, Sequence(7));
        assert_eq!(map.acknowledged(Sequence(6)), 0);
        assert_eq!(map.acknowledged(Sequence(7)), 1);
        assert!(map.is_empty());
    }

    #[test]
    fn a_mark_during_a_copy_outlives_its_acknowledgement() {
        let mut map = map();
        map.mark(extent(0, 1));
        let copy = map.next_copy(1).unwrap();
        map.copied_in(copy, Sequence(7));
        map.mark(extent(3, 1));
        assert_eq!(map.acknowledged(Sequence(7)), 0);
        assert_eq!(map.next_copy(1), Some(copy));
    }

    #[test]
    fn a_run_of_owed_granules_is_one_copy_and_is_cleared_as_one() {
        let mut map = map();
        map.mark(extent(0, 64));
        map.mark(extent(80, 16));
        assert_eq!(map.next_copy(3), Some(extent(0, 48)), "no more than asked for");
        assert_eq!(map.next_copy(3), Some(extent(48, 16)), "it ends where nothing is owed");
        assert_eq!(map.next_copy(3), Some(extent(80, 16)));
        map.copied_in(extent(0, 48), Sequence(5));
        map.mark(extent(20, 1));
        assert_eq!(map.acknowledged(Sequence(5)), 2, "the one that was written again stays");
        map.copy_failed(extent(48, 16));
        assert_eq!(map.next_copy(9), Some(extent(16, 16)));
        assert_eq!(map.next_copy(9), Some(extent(48, 16)));
    }

    #[test]
    fn progress_is_counted_from_the_beginning_and_survives_the_disk() {
        let mut map = map();
        let granules = |granules: u64| ByteLen(granules * OWED_GRANULE_BYTES.0);
        map.mark(extent(0, 64));
        assert_eq!(map.progress(), None);
        map.begin(CopyKind::Initial);
        map.begin(CopyKind::Resync);
        assert_eq!(map.progress(), Some((CopyKind::Initial, granules(4), granules(0))), "the first word counts");
        let copy = map.next_copy(2).unwrap();
        map.copied_in(copy, Sequence(1));
        map.acknowledged(Sequence(1));
        map.mark(extent(0, 1));
        let progress = Some((CopyKind::Initial, granules(5), granules(2)));
        assert_eq!(map.progress(), progress, "what is owed again is more to do, not less done");
        let read = OwedMap::decode(&map.encode(), BlockCount(1000), BlockBytes::DEFAULT).unwrap();
        assert_eq!(read.progress(), progress);
    }

    #[test]
    fn the_last_granule_ends_with_the_volume() {
        let mut map = map();
        map.mark(extent(999, 1));
        assert_eq!(map.next_copy(1), Some(extent(992, 8)));
    }

    #[test]
    fn a_damaged_map_is_never_half_believed() {
        let mut map = map();
        map.mark(extent(100, 200));
        let bytes = map.encode();
        assert_eq!(OwedMap::decode(&bytes, BlockCount(1000), BlockBytes::DEFAULT).unwrap(), map);
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 0x10;
            assert!(OwedMap::decode(&bad, BlockCount(1000), BlockBytes::DEFAULT).is_err(), "byte {at}");
            assert!(OwedMap::decode(&bytes[..at], BlockCount(1000), BlockBytes::DEFAULT).is_err(), "cut at {at}");
        }
        assert!(OwedMap::decode(&bytes, BlockCount(2000), BlockBytes::DEFAULT).is_err());
    }

    proptest! {
        /// Versions instead of bits: whatever differs between the sites must be owed.
        #[test]
        fn the_map_never_under_reports(steps in proptest::collection::vec((0..4u8, 0..1000u64, 1..40u64), 1..80)) {
            let mut map = map();
            let (mut primary, mut secondary) = (vec![0u32; 1000], vec![0u32; 1000]);
            let (mut sequence, mut sent) = (0u64, Vec::new());
            for (what, at, len) in steps {
                match what {
                    0 | 1 => {
                        let written = extent(at, len.min(1000 - at).max(1));
                        map.mark(written);
                        (written.first().0..written.end().0).for_each(|block| primary[at_block(block)] += 1);
                    }
                    2 => if let Some(copy) = map.next_copy(len % 4 + 1) {
                        sequence += 1;
                        map.copied_in(copy, Sequence(sequence));
                        let blocks = (copy.first().0..copy.end().0).map(|block| (block, primary[at_block(block)]));
                        sent.push((sequence, blocks.collect::<Vec<_>>()));
                    },
                    _ => {
                        let durable = Sequence(at.min(sequence));
                        for (_, blocks) in sent.iter().filter(|(sequence, _)| *sequence <= durable.0) {
                            blocks.iter().for_each(|(block, version)| {
                                let newest = secondary[at_block(*block)].max(*version);
                                secondary[at_block(*block)] = newest;
                            });
                        }
                        map.acknowledged(durable);
                    }
                }
                let owed = map.runs(extent(0, 1000));
                for block in 0..1000 {
                    let owed = owed.iter().any(|run| run.contains(Lba(block)));
                    let block = at_block(block);
                    prop_assert!(owed || primary[block] == secondary[block], "block {block}");
                }
            }
        }
    }
}
