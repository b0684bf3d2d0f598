//! Ranges of a volume's bytes: how they are written down, and which part of a request falls into which.
//!
//! A pair copies the ranges that its configuration names, one after the other, as a volume of their own: what the other
//! site keeps, exports and resyncs is exactly what is copied, and it neither has nor needs room for the rest.

use std::fmt;
use std::str::FromStr;

use farseal_core::units::ByteLen;
use serde::{Deserialize, Serialize};

use crate::config::units::{UnitError, parse_size, size_text};

/// What a range may look like, for messages.
pub const RANGE_FORM: &str = "FROM..TO in bytes of the volume, TO not included, as in 0..10GiB or 4KiB..1MiB";

/// Bytes from `start` up to, not including, `end`. Never empty, where it was read from a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ByteRange {
    pub start: u64,
    pub end: u64,
}

/// Why a text is no range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    #[error("there is no .. between its ends")]
    NoDots,
    #[error(transparent)]
    Unit(#[from] UnitError),
    #[error("it ends where it begins, or before")]
    Empty,
}

impl ByteRange {
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.end - self.start
    }

    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.start < other.end && other.start < self.end
    }
}

impl FromStr for ByteRange {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        let (start, end) = text.split_once("..").ok_or(RangeError::NoDots)?;
        let place = |text: &str| if text.trim() == "0" { Ok(ByteLen(0)) } else { parse_size(text) };
        let (start, end) = (place(start)?.0, place(end)?.0);
        if start < end { Ok(Self { start, end }) } else { Err(RangeError::Empty) }
    }
}

impl fmt::Display for ByteRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = |at: u64| if at == 0 { "0".to_owned() } else { size_text(ByteLen(at)) };
        write!(f, "{}..{}", place(self.start), place(self.end))
    }
}

/// Bytes of all ranges.
#[must_use]
pub fn bytes(ranges: &[ByteRange]) -> ByteLen {
    ByteLen(ranges.iter().map(ByteRange::bytes).sum())
}

/// As `--range` and messages have them.
#[must_use]
pub fn text(ranges: &[ByteRange]) -> String {
    ranges.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Who has the bytes of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// In the order of the volume, without holes, from 0 to its end.
    stretches: Vec<Stretch>,
}

/// Bytes of a volume that one pair copies, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stretch {
    range: ByteRange,
    /// The pair's place in the list that the layout was made of; none: the volume itself has them.
    pair: Option<usize>,
    /// Where the stretch begins in the pair's own volume, or in the volume itself.
    at: u64,
}

/// The part of a request that falls into one stretch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    pub pair: Option<usize>,
    /// Where it begins there.
    pub at: u64,
    /// Where it begins in the request.
    pub from: u64,
    pub len: u64,
}

impl Layout {
    /// A volume of so many bytes, and for each pair its ranges in order. All are disjoint, and inside of the volume.
    #[must_use]
    pub fn new(volume: u64, pairs: &[Vec<ByteRange>]) -> Self {
        let mut taken: Vec<Stretch> = Vec::new();
        for (pair, ranges) in pairs.iter().enumerate() {
            let mut at = 0;
            for range in ranges {
                taken.push(Stretch { range: *range, pair: Some(pair), at });
                at += range.bytes();
            }
        }
        taken.sort_by_key(|stretch| stretch.range);
        let mut stretches = Vec::new();
        let mut at = 0;
        let rest = |start, end| Stretch { range: ByteRange { start, end }, pair: None, at: start };
        for stretch in taken {
            if stretch.range.start > at {
                stretches.push(rest(at, stretch.range.start));
            }
            at = stretch.range.end;
            stretches.push(stretch);
        }
        if at < volume {
            stretches.push(rest(at, volume));
        }
        Self { stretches }
    }

    /// The shares of a request, in its order; together they are all of it.
    pub fn shares(&self, offset: u64, len: u64) -> impl Iterator<Item = Share> {
        let end = offset + len;
        let first = self.stretches.partition_point(|stretch| stretch.range.end <= offset);
        let touched = self.stretches.iter().skip(first).take_while(move |stretch| stretch.range.start < end);
        touched.map(move |stretch| {
            let (start, stop) = (stretch.range.start.max(offset), stretch.range.end.min(end));
            let at = stretch.at + (start - stretch.range.start);
            Share { pair: stretch.pair, at, from: start - offset, len: stop - start }
        })
    }

    /// Does no pair copy some of it?
    #[must_use]
    pub fn has_rest(&self) -> bool {
        self.stretches.iter().any(|stretch| stretch.pair.is_none())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use proptest::prelude::*;

    use super::*;

    fn range(text: &str) -> ByteRange {
        text.parse().unwrap()
    }

    #[test]
    fn a_range_reads_back_as_it_is_written() {
        for (text, expected) in [
            ("0..10GiB", Ok((0, 10 << 30))),
            ("4KiB..1MiB", Ok((4096, 1 << 20))),
            (" 0 .. 512B ", Ok((0, 512))),
            ("10GiB", Err(RangeError::NoDots)),
            ("0..0", Err(RangeError::Empty)),
            ("2MiB..1MiB", Err(RangeError::Empty)),
            ("0..10", Err(RangeError::Unit(UnitError::NoUnit))),
            ("..10GiB", Err(RangeError::Unit(UnitError::NoNumber))),
        ] {
            let found = text.parse::<ByteRange>();
            assert_eq!(found.map(|range| (range.start, range.end)), expected, "{text}");
            if let Ok(found) = found {
                assert_eq!(found.to_string().parse(), Ok(found), "{text}");
            }
        }
    }

    #[test]
    fn a_request_is_split_where_ranges_end() {
        // Pair 0 has two ranges, which are 0..100 of its own volume; pair 1 one that touches the second of them.
        let layout = Layout::new(
            1000,
            &[
                vec![ByteRange { start: 100, end: 160 }, ByteRange { start: 400, end: 440 }],
                vec![ByteRange { start: 440, end: 500 }],
            ],
        );
        type Told = (Option<usize>, u64, u64, u64);
        let cases: [(u64, u64, &[Told]); 7] = [
            (0, 100, &[(None, 0, 0, 100)]),
            (100, 60, &[(Some(0), 0, 0, 60)]),
            (90, 20, &[(None, 90, 0, 10), (Some(0), 0, 10, 10)]),
            (150, 20, &[(Some(0), 50, 0, 10), (None, 160, 10, 10)]),
            (430, 20, &[(Some(0), 90, 0, 10), (Some(1), 0, 10, 10)]),
            (499, 501, &[(Some(1), 59, 0, 1), (None, 500, 1, 500)]),
            (
                0,
                1000,
                &[
                    (None, 0, 0, 100),
                    (Some(0), 0, 100, 60),
                    (None, 160, 160, 240),
                    (Some(0), 60, 400, 40),
                    (Some(1), 0, 440, 60),
                    (None, 500, 500, 500),
                ],
            ),
        ];
        for (offset, len, expected) in cases {
            let found: Vec<Told> =
                layout.shares(offset, len).map(|share| (share.pair, share.at, share.from, share.len)).collect();
            assert_eq!(found, expected, "{len} bytes at {offset}");
        }
        assert!(layout.has_rest());
        assert!(!Layout::new(10, &[vec![range("0..10B")]]).has_rest());
    }

    proptest! {
        /// Ends in ascending order, and who has what lies between them; each byte of a write lands exactly once, where a
        /// volume cut up by hand has it.
        #[test]
        fn every_byte_of_a_write_lands_exactly_once(
            ends in proptest::collection::btree_set(1_u64..400, 1..12),
            owners in proptest::collection::vec(proptest::option::of(0_usize..3), 12),
            offset in 0_u64..399,
            len in 1_u64..400,
        ) {
            let volume = *ends.last().unwrap();
            let (offset, len) = (offset % volume, len.min(volume - offset % volume));
            let mut pairs = vec![Vec::new(); 3];
            let mut by_hand = Vec::new();
            let (mut start, mut lengths) = (0, [0_u64; 3]);
            for (end, owner) in ends.iter().zip(owners) {
                for byte in start..*end {
                    by_hand.push(match owner {
                        None => (None, byte),
                        Some(owner) => (Some(owner), lengths[owner] + byte - start),
                    });
                }
                if let Some(owner) = owner {
                    pairs[owner].push(ByteRange { start, end: *end });
                    lengths[owner] += end - start;
                }
                start = *end;
            }
            let layout = Layout::new(volume, &pairs);
            let landed: Vec<_> = layout
                .shares(offset, len)
                .flat_map(|share| (0..share.len).map(move |byte| (share.from + byte, (share.pair, share.at + byte))))
                .collect();
            let expected: Vec<_> = (0..len)
                .map(|byte| (byte, by_hand[usize::try_from(offset + byte).unwrap()]))
                .collect();
            prop_assert_eq!(landed, expected);
        }
    }
}
