//! A record's header as a script chooses it: what the journal's and the log's targets write before they harm it.

use farseal_core::record::{Header, Kind};
use farseal_core::units::{BlockBytes, Generation, Lba, PairId, Sequence, VolumeId, WallTime};

use crate::script::Script;

/// A header of this kind, with one to so many blocks where it has any.
pub(crate) fn header(script: &mut Script<'_>, kind: Kind, blocks_max: u8, pair: PairId, sequence: u64) -> Header {
    let blocks = 1 + u32::from(script.below(blocks_max));
    Header {
        kind,
        encrypted: true,
        stack: 0,
        search_tags: farseal_core::layout::SearchTags::NONE,
        pair,
        volume: VolumeId([2; 16]),
        generation: Generation(3),
        sequence: Sequence(sequence),
        lba: Lba(if kind.touches_volume() { u64::from(script.byte()) } else { 0 }),
        blocks: if kind.has_blocks() || kind.touches_volume() { blocks } else { 0 },
        block_bytes: BlockBytes::new(512).unwrap_or(BlockBytes::DEFAULT),
        wall: WallTime(7),
        aux: 0,
    }
}
