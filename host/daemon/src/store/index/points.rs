//! Indexes of other points beside the newest: what they have in common is in memory once, and counted once.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use farseal_core::units::{BlockCount, Extent, Lba, Sequence};

use super::{CHUNK_BLOCKS, DATA, GROUP_CHUNKS, Group, Index, IndexError, Place, Slot};
use crate::store::checkpoint::Checkpoint;
use crate::store::narrow;

impl Index {
    /// Another index that says the same, to be kept in `dir`, in place of whatever is there. Nothing of it is on disk before its first
    /// checkpoint.
    pub fn copy_to(&self, dir: &Path) -> Result<Self, IndexError> {
        let mut copy = Self {
            blocks: self.blocks,
            groups: self.groups.clone(),
            zeroes: self.zeroes.clone(),
            present: self.present,
            live: self.live.clone(),
            touched: Vec::new(),
            checkpoint: Checkpoint::anew(dir, BlockCount(self.blocks))?,
        };
        copy.groups.iter_mut().flatten().for_each(|group| group.touched = [0; 16]);
        for number in self.numbers() {
            copy.touch(number);
        }
        Ok(copy)
    }

    /// Chunks that are there.
    fn numbers(&self) -> Vec<u64> {
        let groups = (0_u64..).zip(&self.groups).filter_map(|(at, group)| Some((at, group.as_deref()?)));
        groups
            .flat_map(|(at, group)| (at * GROUP_CHUNKS..).zip(&group.chunks).filter(|(_, chunk)| chunk.is_some()))
            .map(|(number, _)| number)
            .collect()
    }

    /// Chunks that say the same are in memory once from now on.
    pub fn share_with(&mut self, other: &Self) {
        for (mine, others) in self.groups.iter_mut().zip(&other.groups) {
            let (Some(mine), Some(others)) = (mine, others) else { continue };
            for (mine, other) in mine.chunks.iter_mut().zip(&others.chunks) {
                if let (Some(mine), Some(other)) = (mine, other)
                    && mine.slots == other.slots
                {
                    *mine = Arc::clone(other);
                }
            }
        }
    }

    /// Blocks of data, by segment, that this index reads and `other`, which is of a later point, does not.
    pub fn live_beside(&self, other: &Self) -> BTreeMap<u32, u64> {
        let mut counts = BTreeMap::new();
        self.differing(other, |_, mine, _| {
            if mine.kind() == DATA {
                *counts.entry(mine.segment()).or_default() += 1;
            }
        });
        counts
    }

    /// Shows the record of each block that this index reads and `other` does not.
    pub fn read_beside(&self, other: &Self, mut show: impl FnMut(Sequence)) {
        self.differing(other, |_, mine, _| mine.place().into_iter().for_each(|place| show(place.sequence)));
    }

    /// The newest record that a block is read from, and the first block that is.
    pub fn newest(&self) -> Option<(Lba, Place)> {
        let groups = (0_u64..).zip(&self.groups).filter_map(|(at, group)| Some((at, group.as_deref()?)));
        let chunks = groups.flat_map(|(at, group)| {
            (at * GROUP_CHUNKS..).zip(&group.chunks).filter_map(|(number, chunk)| Some((number, chunk.as_deref()?)))
        });
        let slots = chunks.flat_map(|(number, chunk)| (number * CHUNK_BLOCKS..).zip(&chunk.slots));
        let places = slots.filter_map(|(lba, slot)| Some((Lba(lba), slot.place()?)));
        places.max_by_key(|(lba, place)| (place.sequence, std::cmp::Reverse(*lba)))
    }

    /// Blocks of the volume.
    pub fn volume(&self) -> BlockCount {
        BlockCount(self.blocks)
    }

    /// The blocks that may read differently, in runs, in ascending order.
    pub fn differences(&self, other: &Self) -> Vec<Extent> {
        let mut runs: Vec<(u64, u64)> = Vec::new();
        self.differing(other, |lba, mine, others| {
            if mine.sequence() == others.sequence() && mine.kind() == others.kind() {
                return;
            }
            match runs.last_mut() {
                Some((_, end)) if *end == lba => *end += 1,
                _ => runs.push((lba, lba + 1)),
            }
        });
        runs.into_iter().filter_map(|(first, end)| Extent::new(Lba(first), BlockCount(end - first))).collect()
    }

    /// Shows each block of which the two say different things. Whole groups and chunks that are shared are passed over.
    fn differing(&self, other: &Self, mut show: impl FnMut(u64, Slot, Slot)) {
        let group_blocks = GROUP_CHUNKS * CHUNK_BLOCKS;
        for (at, (mine, others)) in (0_u64..).zip(self.groups.iter().zip(&other.groups)) {
            let bare = mine.is_none() && others.is_none();
            if bare && self.zeroes_alike(other, at * GROUP_CHUNKS, (at + 1) * GROUP_CHUNKS) {
                continue;
            }
            for chunk in at * GROUP_CHUNKS..(at + 1) * GROUP_CHUNKS {
                let first = chunk * CHUNK_BLOCKS;
                if first >= self.blocks {
                    break;
                }
                let (here, there) = (chunk_of(mine.as_deref(), chunk), chunk_of(others.as_deref(), chunk));
                match (here, there) {
                    (Some(here), Some(there)) if Arc::ptr_eq(here, there) => continue,
                    (None, None) if self.zeroes.get(chunk) == other.zeroes.get(chunk) => continue,
                    _ => {}
                }
                for lba in first..(first + CHUNK_BLOCKS).min(self.blocks).min((at + 1) * group_blocks) {
                    let (mine, others) = (self.slot(lba), other.slot(lba));
                    if mine != others {
                        show(lba, mine, others);
                    }
                }
            }
        }
    }

    fn zeroes_alike(&self, other: &Self, first: u64, end: u64) -> bool {
        self.zeroes.within(first, end).eq(other.zeroes.within(first, end))
            && self.zeroes.within(first, end).next().is_none()
    }
}

fn chunk_of(group: Option<&Group>, number: u64) -> Option<&Arc<super::Chunk>> {
    group?.chunks[narrow(number % GROUP_CHUNKS)].as_ref()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use farseal_core::layout::SearchTags;
    use farseal_core::record::{Header, Kind};
    use farseal_core::units::{BlockBytes, Generation, PairId, VolumeId, WallTime};

    use super::*;
    use crate::store::log::Location;

    fn header(kind: Kind, sequence: u64, lba: u64, blocks: u32) -> Header {
        Header {
            kind,
            encrypted: true,
            stack: 0,
            search_tags: SearchTags::NONE,
            pair: PairId([1; 16]),
            volume: VolumeId([2; 16]),
            generation: Generation(1),
            sequence: Sequence(sequence),
            lba: Lba(lba),
            blocks,
            block_bytes: BlockBytes::DEFAULT,
            wall: WallTime(0),
            aux: 0,
        }
    }

    #[test]
    fn an_index_of_a_point_stays_as_it_is_while_the_newest_goes_on_and_only_the_difference_counts() {
        let folder = tempfile::tempdir().unwrap();
        let blocks = BlockCount(1 << 20);
        let mut newest = Index::anew(&folder.path().join("newest"), blocks).unwrap();
        newest.apply(&header(Kind::Data, 1, 0, 200), Location { segment: 0, offset: 64 });
        newest.apply(&header(Kind::Data, 2, 300_000, 10), Location { segment: 0, offset: 9000 });
        let place = folder.path().join("point");
        let mut point = newest.copy_to(&place).unwrap();
        newest.apply(&header(Kind::Data, 3, 100, 10), Location { segment: 1, offset: 64 });
        newest.apply(&header(Kind::Zero, 4, 300_000, 1000), Location { segment: 1, offset: 9000 });
        assert_eq!(point.lookup(Lba(105)).unwrap().sequence, Sequence(1));
        assert_eq!(newest.lookup(Lba(105)).unwrap().sequence, Sequence(3));
        assert_eq!(point.live_beside(&newest), BTreeMap::from([(0, 20)]));
        let differ: Vec<(u64, u64)> =
            point.differences(&newest).iter().map(|extent| (extent.first().0, extent.blocks().0)).collect();
        assert_eq!(differ, [(100, 10), (300_000, 1000)]);
        // A move of what both read changes neither what they read nor what differs.
        for index in [&mut point, &mut newest] {
            index
                .moved(&header(Kind::Data, 1, 0, 200), Location { segment: 1 << 31, offset: 64 }, |number| number == 0);
        }
        assert_eq!(point.live_beside(&newest), BTreeMap::from([(0, 10), (1 << 31, 10)]));
        point.checkpoint(b"state").unwrap();
        drop(point);
        let (mut again, state) = Index::open(&place, blocks).unwrap();
        assert_eq!(state.unwrap(), b"state");
        assert_eq!(again.differences(&newest).len(), 2);
        again.share_with(&newest);
        assert_eq!(again.differences(&newest).len(), 2);
        assert_eq!(again.lookup(Lba(0)).unwrap().location, Location { segment: 1 << 31, offset: 64 });
    }
}
