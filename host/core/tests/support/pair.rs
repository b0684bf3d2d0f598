//! A small pair's settings and a clock that both sides read: what the stories and tables of the primary begin with.

use farseal_core::flow::Flow;
use farseal_core::primary::{Mode, Settings};
use farseal_core::rotation::{How, KeyLimits};
use farseal_core::units::{
    BlockBytes, BlockCount, ByteLen, Generation, Instant, Millis, Now, PairId, VolumeId, WallTime,
};

/// This many milliseconds after the beginning, on either clock.
pub(crate) const fn at(ms: u64) -> Now {
    Now { instant: Instant(ms), wall: WallTime(ms) }
}

/// A pair with a secondary, a journal that never fills and limits that no test reaches.
pub(crate) fn settings(blocks: BlockCount) -> Settings {
    Settings {
        layout: None,
        pair: PairId([1; 16]),
        volume: VolumeId([2; 16]),
        generation: Generation(1),
        encrypted: true,
        block_bytes: BlockBytes::DEFAULT,
        blocks,
        mode: Mode::Async,
        paired: true,
        key_limits: KeyLimits { interval_min: Millis(100), age_max: Millis(1 << 40), bytes_max: ByteLen(1 << 40) },
        escrowed: false,
        in_slots: false,
        rotate_how: How::InBand,
        pause_hidden: true,
        shaped: true,
        journal_bytes_max: ByteLen(1 << 30),
        unordered: None,
        flow: Flow::default(),
    }
}
