//! Search of the copy: tags for the key fields of what is sealed, and the records of which a tag says that they hold a value
//!
//! A search compares tags and opens nothing: it needs the epochs' search keys, and never a data key. What a tag says is proven when its
//! block is opened. Who keeps the log could hide matches by spoiling tags, and cannot make any.

pub mod audit;
pub mod key_file;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::{PoisonError, RwLock};

use farseal_core::layout::{Canonical, Field, Layout, SEARCH_TAG_BYTES};
use farseal_core::ledger::Ledger;
use farseal_core::record::{Header, Kind, TAG_BYTES};
use farseal_core::units::{BlockCount, Epoch, Extent, Lba};
use farseal_plugin::vault::search::{SearchKey, TagPlace, ValueKey};

use crate::keyring::Keyring;
use crate::store::index::{Index, Place};
use crate::store::log::LogReader;

/// Records after which a page of a search ends: they are opened before the search goes on. With a step's more it is what a search
/// holds in memory, below 400 KiB.
pub const PAGE_RECORDS: usize = 4_096;
/// Blocks that are looked at while the index is held: whoever moves records waits so long.
const STEP_BLOCKS: BlockCount = BlockCount(16_384);

/// What is looked for.
#[derive(Debug)]
pub struct Wanted {
    /// The field's number in the layout.
    pub slot: u8,
    pub field: Field,
    /// Not known where a search key stands for it.
    pub value: Option<Canonical>,
    pub epochs: RangeInclusive<Epoch>,
    /// Of the volume.
    pub within: Extent,
    /// Keys that somebody gave, before those that follow from the epochs' keys; without a value they are all that counts.
    pub given: Option<BTreeMap<Epoch, ValueKey>>,
}

/// What the tags say.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Found {
    /// In the order of the volume.
    pub records: Vec<Extent>,
    /// Tags that were compared.
    pub compared: u64,
    /// Blocks of epochs whose key is not here, by epoch.
    pub closed: BTreeMap<Epoch, u64>,
    /// Blocks of epochs that were not to be searched.
    pub outside: u64,
    /// Blocks of records that cannot be read, or that do not look as the layout says.
    pub unreadable: u64,
    /// Where the next page begins.
    pub next: Option<Lba>,
}

/// What is searched.
#[derive(Debug)]
pub struct Shelf<'a> {
    pub index: &'a RwLock<Index>,
    pub reader: &'a LogReader,
    pub ledger: &'a Ledger,
    pub keyring: &'a Keyring,
    pub layout: &'a Layout,
    pub blocks: BlockCount,
}

/// Puts the search tags of a data record in its body, behind the place of each block's own tag. The blocks are still open.
pub fn write_tags(layout: &Layout, key: &SearchKey, header: &Header, body: &mut [u8]) {
    let Some((tags, blocks)) = body.split_at_mut_checked(header.tag_bytes()) else { return };
    let each = tags.chunks_exact_mut(header.tag_bytes_each());
    for (block, (tags, bytes)) in (0_u32..).zip(each.zip(blocks.chunks(header.block_bytes.as_usize()))) {
        let lba = Lba(header.lba.0 + u64::from(block));
        let places = tags.chunks_exact_mut(SEARCH_TAG_BYTES).skip(1);
        for (slot, (tag, (field, value))) in (0..).zip(places.zip(layout.values(lba, bytes))) {
            let place = TagPlace { seq: header.sequence.0, block, slot };
            tag.copy_from_slice(&match value {
                Some(value) => key.value_key(&field.name, field.form.code(), value.as_bytes()).tag(place),
                None => key.filler(place),
            });
        }
    }
}

impl Shelf<'_> {
    /// Compares the tags of the live blocks from here on, until a page is full.
    pub fn find(&self, wanted: &Wanted, from: Lba) -> Found {
        let (mut found, mut keys) = (Found::default(), BTreeMap::new());
        let left = Extent::new(from, BlockCount(wanted.within.end().0.saturating_sub(from.0)));
        for piece in left.into_iter().flat_map(|left| left.pieces(STEP_BLOCKS)) {
            if found.records.len() >= PAGE_RECORDS {
                found.next = Some(piece.first());
                break;
            }
            let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
            let mut at = piece.first();
            for (count, data) in index.runs(piece) {
                if let Some(run) = Extent::new(at, count).filter(|_| data) {
                    self.find_within(&index, run, wanted, &mut keys, &mut found);
                }
                at.0 += count.0;
            }
        }
        found
    }

    fn find_within(&self, index: &Index, within: Extent, wanted: &Wanted, keys: &mut Keys, found: &mut Found) {
        let mut first = within.first();
        for (blocks, place) in index.places(within) {
            if let (Some(place), Some(run)) =
                (place.filter(|place| place.kind == Kind::Data), Extent::new(first, blocks))
            {
                self.compare(&place, run, wanted, keys, found);
            }
            first.0 += blocks.0;
        }
    }

    /// The tags of a run of one record's blocks.
    fn compare(&self, place: &Place, run: Extent, wanted: &Wanted, keys: &mut Keys, found: &mut Found) {
        let blocks = run.blocks().0;
        let Some(epoch) = self.ledger.epoch_of(place.sequence).map(|entry| entry.epoch) else {
            found.unreadable += blocks;
            return;
        };
        if !wanted.epochs.contains(&epoch) {
            found.outside += blocks;
            return;
        }
        let given = wanted.given.as_ref().and_then(|given| given.get(&epoch));
        let key = given.or_else(|| keys.entry(epoch).or_insert_with(|| self.value_key(epoch, wanted)).as_ref());
        let Some(key) = key else {
            *found.closed.entry(epoch).or_default() += blocks;
            return;
        };
        let count = u32::try_from(blocks).unwrap_or(u32::MAX);
        let read = self.reader.tags(place.location, place.block, count);
        let as_declared = |header: &Header| {
            header.sequence == place.sequence && header.search_tags == self.layout.tags() && header.kind == Kind::Data
        };
        let Some((_, tags)) = read.ok().filter(|(header, _)| as_declared(header)) else {
            found.unreadable += blocks;
            return;
        };
        let each = TAG_BYTES + self.layout.tags().bytes();
        let skip = TAG_BYTES + usize::from(wanted.slot) * SEARCH_TAG_BYTES;
        for ((lba, block), tags) in (run.first().0..).map(Lba).zip(place.block..).zip(tags.chunks_exact(each)) {
            if !self.layout.is_in(wanted.slot, lba) {
                continue;
            }
            found.compared += 1;
            let at = TagPlace { seq: place.sequence.0, block, slot: wanted.slot };
            let tag = tags.get(skip..skip + SEARCH_TAG_BYTES).unwrap_or_default();
            if key.matches(at, tag) {
                found.records.extend(self.layout.record_of(lba, self.blocks));
            }
        }
    }

    fn value_key(&self, epoch: Epoch, wanted: &Wanted) -> Option<ValueKey> {
        value_key(self.keyring, epoch, &wanted.field, wanted.value.as_ref()?)
    }
}

/// What finds this value of this field in an epoch; nothing where the epoch's key is not here.
#[must_use]
pub fn value_key(keyring: &Keyring, epoch: Epoch, field: &Field, value: &Canonical) -> Option<ValueKey> {
    let key = keyring.search_key(&*keyring.package(epoch)?).ok()?;
    Some(key.value_key(&field.name, field.form.code(), value.as_bytes()))
}

/// Of each epoch that was met; nothing where its key is not here.
type Keys = BTreeMap<Epoch, Option<ValueKey>>;

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use farseal_core::layout::{Form, SearchTags};
    use farseal_core::units::{BlockBytes, Generation, PairId, Sequence, VolumeId, WallTime};
    use farseal_plugin::vault::epoch_key::EpochKey;
    use farseal_plugin::vault::schedule::{EpochSchedule, KeyScope};
    use zeroize::Zeroizing;

    use super::*;

    #[test]
    fn each_tag_stands_for_the_field_of_its_block_and_the_blocks_are_left_alone() {
        let block_bytes = BlockBytes::new(512).unwrap();
        let field = |name: &str, offset| Field { name: name.into(), offset, length: 4, form: Form::Raw };
        let layout = Layout::new(1024, block_bytes, vec![field("a", 8), field("b", 520)]).unwrap();
        let header = Header {
            kind: Kind::Data,
            encrypted: true,
            stack: 0,
            search_tags: SearchTags::new(2).unwrap(),
            pair: PairId([1; 16]),
            volume: VolumeId([2; 16]),
            generation: Generation(1),
            sequence: Sequence(77),
            lba: Lba(11),
            blocks: 3,
            block_bytes,
            wall: WallTime(0),
            aux: 0,
        };
        let scope = KeyScope { pair: [1; 16], generation: 1, epoch: 1, incarnation: [3; 16] };
        let key = EpochSchedule::new(&EpochKey::from_unwrapped(&Zeroizing::new([5; 32])), &scope).search();
        let mut body: Vec<u8> = vec![0; header.tag_bytes()];
        body.extend((0..3 * 512_usize).map(|at| u8::try_from(at / 512 + 1).unwrap()));
        let before = body.clone();
        write_tags(&layout, &key, &header, &mut body);
        assert_eq!(body[3 * 48..], before[3 * 48..]);
        // Blocks 11 and 13 are the second of their records and hold `b`, block 12 is a first one and holds `a`.
        for (block, holds) in [(0_u32, 1_u8), (1, 0), (2, 1)] {
            let tags = &body[48 * usize::try_from(block).unwrap()..][..48];
            assert_eq!(tags[..16], [0; 16], "the place of the block's own tag");
            let value = [u8::try_from(block + 1).unwrap(); 4];
            for slot in 0..2 {
                let place = TagPlace { seq: 77, block, slot };
                let tag = &tags[16 + 16 * usize::from(slot)..][..16];
                let name = if slot == 0 { "a" } else { "b" };
                assert_eq!(key.value_key(name, 1, &value).matches(place, tag), slot == holds, "block {block}, {name}");
                assert_eq!(key.filler(place) == *tag, slot != holds);
            }
        }
    }
}
