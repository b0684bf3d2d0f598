//! How far a copy was seen to be durable, as the escrow keeps it, and what that says of a copy whose keys are asked for.

use farseal_core::chain::Chain;
use farseal_core::units::{Generation, Sequence, WallTime};
use serde::{Deserialize, Serialize};

/// A record that the other site acknowledged as durable, with everything before it, and the running hash up to there. Of a
/// copy: the last that it holds so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Mark {
    pub generation: Generation,
    pub through: Sequence,
    pub chain: Chain,
}

/// What an older mark says of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Freshness {
    /// The writing site never said how far its copy is.
    Unknown,
    /// It holds everything that was seen to be durable.
    Fresh,
    /// It lacks what was durable there once, by then: it was put back to an older state, or lost data.
    Behind { generation: Generation, through: Sequence, at: WallTime },
    /// It goes as far and is another one: its history is not what the writing site sent.
    Other { at: WallTime },
}

impl Mark {
    /// Does a copy go further?
    #[must_use]
    pub fn is_after(&self, other: &Self) -> bool {
        (self.generation, self.through) > (other.generation, other.through)
    }

    /// What this mark, seen `at` a time, says of a copy.
    #[must_use]
    pub fn judge(&self, at: WallTime, copy: &Self) -> Freshness {
        if self.is_after(copy) {
            return Freshness::Behind { generation: self.generation, through: self.through, at };
        }
        let same_place = (self.generation, self.through) == (copy.generation, copy.through);
        if same_place && self.chain != copy.chain { Freshness::Other { at } } else { Freshness::Fresh }
    }
}

impl Freshness {
    /// May keys be released without a word about it?
    #[must_use]
    pub const fn is_stale(&self) -> bool {
        matches!(self, Self::Behind { .. } | Self::Other { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: WallTime = WallTime(7);

    fn mark(generation: u64, through: u64, chain: u8) -> Mark {
        Mark { generation: Generation(generation), through: Sequence(through), chain: Chain([chain; 32]) }
    }

    #[test]
    fn a_copy_that_lacks_what_was_durable_or_is_another_is_stale() {
        let seen = mark(2, 50, 1);
        let behind = Freshness::Behind { generation: Generation(2), through: Sequence(50), at: AT };
        for (copy, expected) in [
            (mark(2, 50, 1), Freshness::Fresh),
            (mark(2, 51, 9), Freshness::Fresh),
            (mark(3, 40, 9), Freshness::Fresh),
            (mark(2, 49, 1), behind),
            (mark(1, 90, 1), behind),
            (mark(2, 50, 2), Freshness::Other { at: AT }),
        ] {
            assert_eq!(seen.judge(AT, &copy), expected, "{copy:?}");
        }
    }
}
