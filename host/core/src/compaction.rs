//! Which segments of the remote's log are worth compacting, and when.
//!
//! A segment of which less than half is still read is written anew: each byte that is written then frees at least one
//! other, so that the log stays below twice what the index reads plus what is not full yet, and a byte that lives for ever
//! is moved only as often as half of its neighbours die.

use crate::limits::{COMPACTED_SMALL_BYTES, COMPACTED_SMALL_MAX, COMPACTION_LIVE_BYTES, COMPACTION_SEGMENTS_MAX};
use crate::units::{ByteLen, Sequence};

/// What is known of a segment that no record is added to any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Facts {
    /// Of the file.
    pub bytes: ByteLen,
    /// Of blocks that the index reads, with their tags.
    pub live: ByteLen,
    /// Of blocks when compaction wrote the segment; `None` for one that records were appended to.
    pub written: Option<ByteLen>,
}

/// How long a block read as one record says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Version {
    /// That record.
    pub from: Sequence,
    /// The record that superseded it; `None` while it stands.
    pub until: Option<Sequence>,
}

/// What is to stay readable: everything from one point on, and some points before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Retained<'a> {
    /// The oldest point of the window; the newest point where there is none.
    pub oldest: Sequence,
    /// Pins, and what is being looked at, in any order.
    pub points: &'a [Sequence],
}

/// Does any retained point read this version? All others are dead.
#[must_use]
pub fn is_needed(version: Version, retained: &Retained<'_>) -> bool {
    let Some(until) = version.until else { return true };
    until > retained.oldest || retained.points.iter().any(|point| version.from <= *point && *point < until)
}

/// How much room there is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Room {
    Enough,
    /// The last append failed for want of it: whatever frees some is worth it, and what needs none comes first.
    None,
}

impl Facts {
    /// What the part that is read is compared with. A header or a zeroed range in a compacted segment is there because it
    /// is read, and would be again: only blocks that died since can be gained.
    fn whole(&self) -> u64 {
        self.written.unwrap_or(self.bytes).0
    }

    fn is_worth(&self, room: Room) -> bool {
        let gain = self.whole().saturating_sub(self.live.0);
        match room {
            Room::Enough => gain > 0 && gain >= self.live.0,
            Room::None => gain > self.whole() / 16,
        }
    }

    fn is_small(&self) -> bool {
        self.written.is_some() && self.bytes < COMPACTED_SMALL_BYTES
    }
}

/// The segments to compact next, by their place in `segments`; none if nothing is worth it.
#[must_use]
pub fn choose(segments: &[Facts], room: Room) -> Vec<usize> {
    let mut chosen: Vec<usize> = (0..segments.len()).filter(|at| segments[*at].is_worth(room)).collect();
    if chosen.is_empty() && room == Room::Enough {
        chosen = (0..segments.len()).filter(|at| segments[*at].is_small()).collect();
        if chosen.len() <= COMPACTED_SMALL_MAX {
            return Vec::new();
        }
    }
    chosen.sort_by_key(|at| segments[*at].live);
    let mut live = 0;
    let mut within = |at: &usize| {
        live += segments[*at].live.0;
        match room {
            Room::Enough => live <= COMPACTION_LIVE_BYTES.0,
            Room::None => live == 0,
        }
    };
    let count = chosen.iter().take(COMPACTION_SEGMENTS_MAX).take_while(|at| within(at)).count();
    // One that needs more than that is still worth it by itself.
    chosen.truncate(count.max(1));
    chosen
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn plain(bytes: u64, live: u64) -> Facts {
        Facts { bytes: ByteLen(bytes * MIB), live: ByteLen(live * MIB), written: None }
    }

    fn compacted(bytes: u64, live: u64) -> Facts {
        Facts { written: Some(ByteLen(bytes * MIB)), ..plain(bytes, live) }
    }

    #[test]
    fn a_version_is_needed_by_the_points_between_its_record_and_the_next() {
        let points = [Sequence(10), Sequence(30)];
        let retained = Retained { oldest: Sequence(50), points: &points };
        for (from, until, needed) in [
            (1, Some(10), false),
            (1, Some(11), true),
            (10, Some(11), true),
            (11, Some(30), false),
            (11, Some(31), true),
            (31, Some(50), false),
            (31, Some(51), true),
            (60, Some(61), true),
            (1, None, true),
        ] {
            let version = Version { from: Sequence(from), until: until.map(Sequence) };
            assert_eq!(is_needed(version, &retained), needed, "{version:?}");
        }
    }

    proptest! {
        /// Of each block exactly the versions are kept that some retained point reads.
        #[test]
        fn what_is_kept_is_what_retained_points_read(
            writes in proptest::collection::vec(0_usize..8, 1..80),
            oldest in 0_usize..100, points in proptest::collection::vec(0_usize..100, 0..4)
        ) {
            let last = writes.len();
            let oldest = oldest.min(last);
            let points: Vec<usize> = points.iter().map(|point| point % (oldest + 1)).collect();
            // What stands in each block after so many writes: the number of the write.
            let image = |through: usize| {
                let mut image = [0; 8];
                writes.iter().take(through).enumerate().for_each(|(at, block)| image[*block] = at + 1);
                image
            };
            let read: std::collections::BTreeSet<usize> =
                (oldest..=last).chain(points.iter().copied()).flat_map(image).collect();
            let sequence = |number: usize| Sequence(u64::try_from(number).unwrap());
            let kept: Vec<Sequence> = points.iter().copied().map(sequence).collect();
            let retained = Retained { oldest: sequence(oldest), points: &kept };
            for (at, block) in writes.iter().enumerate() {
                let next = writes.iter().skip(at + 1).position(|other| other == block).map(|skip| at + 1 + skip + 1);
                let version = Version { from: sequence(at + 1), until: next.map(sequence) };
                prop_assert_eq!(is_needed(version, &retained), read.contains(&(at + 1)));
            }
        }
    }

    #[test]
    fn half_dead_segments_are_chosen_and_others_are_not() {
        for (name, segments, expected) in [
            ("nothing", vec![], vec![]),
            ("all alive", vec![plain(128, 128), plain(128, 65)], vec![]),
            ("half", vec![plain(128, 128), plain(128, 64)], vec![1]),
            ("least first", vec![plain(128, 60), plain(128, 0), plain(128, 20)], vec![1, 2, 0]),
            ("compacted, half", vec![compacted(100, 50), compacted(100, 51)], vec![0]),
            ("as much as one pass moves", vec![plain(128, 60); 9], vec![0, 1, 2, 3]),
        ] {
            assert_eq!(choose(&segments, Room::Enough), expected, "{name}");
        }
    }

    #[test]
    fn what_is_dead_as_a_whole_needs_no_room_and_goes_first() {
        let segments = [plain(128, 100), plain(128, 0), plain(128, 127), plain(128, 0)];
        assert_eq!(choose(&segments, Room::None), [1, 3]);
        assert_eq!(choose(&segments[..1], Room::None), [0], "then what frees anything");
        assert_eq!(choose(&segments[2..3], Room::None), [] as [usize; 0]);
    }

    #[test]
    fn what_only_headers_and_zeroes_are_left_of_is_not_moved_for_ever() {
        let zeroes = Facts { bytes: ByteLen(128 * MIB), live: ByteLen(0), written: Some(ByteLen(0)) };
        assert_eq!(choose(&[zeroes], Room::Enough), [] as [usize; 0]);
        assert_eq!(choose(&[zeroes], Room::None), [] as [usize; 0]);
    }

    #[test]
    fn many_small_segments_become_few() {
        assert_eq!(choose(&[compacted(4, 4); 8], Room::Enough), [] as [usize; 0]);
        assert_eq!(choose(&[compacted(4, 4); 9], Room::Enough).len(), 9);
    }

    proptest! {
        /// What is chosen again and again until nothing is leaves less than twice what is read, and it ends.
        #[test]
        fn compaction_ends_and_leaves_less_than_twice_what_is_read(
            lives in proptest::collection::vec(0_u64..=128, 0..40)
        ) {
            let mut segments: Vec<Facts> = lives.iter().map(|live| plain(128, *live)).collect();
            let live: u64 = lives.iter().sum::<u64>() * MIB;
            let mut passes = 0;
            loop {
                let chosen = choose(&segments, Room::Enough);
                if chosen.is_empty() {
                    break;
                }
                let mut kept: u64 = chosen.iter().map(|at| segments[*at].live.0).sum();
                let mut at = 0;
                segments.retain(|_| { at += 1; !chosen.contains(&(at - 1)) });
                while kept > 0 {
                    let bytes = kept.min(128 * MIB);
                    segments.push(Facts { bytes: ByteLen(bytes), live: ByteLen(bytes), written: Some(ByteLen(bytes)) });
                    kept -= bytes;
                }
                passes += 1;
                prop_assert!(passes < 100);
            }
            let bytes: u64 = segments.iter().map(|segment| segment.bytes.0).sum();
            prop_assert!(bytes <= live * 2, "{bytes} of {live}");
        }
    }
}
