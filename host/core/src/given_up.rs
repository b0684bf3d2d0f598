//! Records that were given up when they may have been sent: the running hash at each, so that where the secondary says
//! that it is can still be judged when the journal no longer says so.
//!
//! ```text
//!   sent, not acknowledged ──the order is given up──▶ kept here, and beside the dirty map ──acknowledged above──▶ forgotten
//! ```
//!
//! Without it a site whose disk was set back while it was behind would believe any mark below its own last record, and
//! go on over what the other site holds of a time that this one has forgotten.

use std::collections::VecDeque;

use crate::bytes::Fields;
use crate::chain::Chain;
use crate::limits::GIVEN_UP_MAX;
use crate::units::Sequence;

/// Places in the order with their running hashes, lowest first. Where there are too many the middle is forgotten: a
/// secondary that was close behind when the order was given up is near the end, one that had been away for long near
/// the beginning.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct GivenUp {
    oldest: VecDeque<(Sequence, Chain)>,
    newest: VecDeque<(Sequence, Chain)>,
}

const HALF: usize = GIVEN_UP_MAX / 2;

impl GivenUp {
    pub(crate) const POINT_BYTES: usize = 8 + 32;

    /// Takes in what follows; a place that is not above the last is known already.
    pub fn push(&mut self, sequence: Sequence, chain: Chain) {
        let last = self.newest.back().or(self.oldest.back());
        if last.is_some_and(|(last, _)| *last >= sequence) {
            return;
        }
        if self.newest.is_empty() && self.oldest.len() < HALF {
            self.oldest.push_back((sequence, chain));
            return;
        }
        if self.newest.len() == HALF {
            self.newest.pop_front();
        }
        self.newest.push_back((sequence, chain));
    }

    /// These, and what follows of others.
    #[must_use]
    pub(crate) fn and(mut self, others: &Self) -> Self {
        others.points().for_each(|(sequence, chain)| self.push(*sequence, *chain));
        self
    }

    /// The running hash at this place, if it is among those that were kept.
    pub fn at(&self, sequence: Sequence) -> Option<Chain> {
        let within = |points: &VecDeque<(Sequence, Chain)>| {
            let place = points.binary_search_by_key(&sequence, |(known, _)| *known).ok()?;
            points.get(place).map(|(_, chain)| *chain)
        };
        within(&self.oldest).or_else(|| within(&self.newest))
    }

    /// The secondary is at or above this: it does not go back.
    pub fn forget_through(&mut self, acked: Sequence) {
        for points in [&mut self.oldest, &mut self.newest] {
            points.drain(..points.partition_point(|(sequence, _)| *sequence <= acked));
        }
        if self.oldest.is_empty() {
            std::mem::swap(&mut self.oldest, &mut self.newest);
        }
    }

    /// Places that are kept.
    pub fn len(&self) -> usize {
        self.oldest.len() + self.newest.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn points(&self) -> impl Iterator<Item = &(Sequence, Chain)> {
        self.oldest.iter().chain(&self.newest)
    }

    /// 40 bytes a place: sequence number, running hash.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        for (sequence, chain) in self.points() {
            out.extend(sequence.0.to_le_bytes());
            out.extend(chain.0);
        }
    }

    /// All of the bytes, and no more places than a writer keeps, in their order.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let count = bytes.len() / Self::POINT_BYTES;
        if !bytes.len().is_multiple_of(Self::POINT_BYTES) || count > GIVEN_UP_MAX {
            return None;
        }
        let (mut fields, mut points) = (Fields::new(bytes), Self::default());
        for known in 0..count {
            points.push(Sequence(fields.u64()), Chain(fields.array()));
            if points.len() != known + 1 {
                return None;
            }
        }
        Some(points)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(sequence: u64) -> Chain {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&sequence.to_le_bytes());
        Chain(bytes)
    }

    fn points(sequences: impl IntoIterator<Item = u64>) -> GivenUp {
        let mut points = GivenUp::default();
        sequences.into_iter().for_each(|sequence| points.push(Sequence(sequence), chain(sequence)));
        points
    }

    fn wide(len: usize) -> u64 {
        u64::try_from(len).unwrap_or(u64::MAX)
    }

    #[test]
    fn a_place_is_known_until_the_secondary_is_above_it() {
        let mut points = points([3, 4, 9, 9, 2, 12]);
        assert_eq!(points.len(), 4, "none twice and none below");
        assert_eq!([3, 5, 9, 12].map(|at| points.at(Sequence(at)).is_some()), [true, false, true, true]);
        points.forget_through(Sequence(9));
        assert_eq!((points.at(Sequence(9)), points.at(Sequence(12))), (None, Some(chain(12))));
    }

    #[test]
    fn where_there_are_too_many_both_ends_stay() {
        let (most, half) = (wide(GIVEN_UP_MAX), wide(HALF));
        let mut points = points(1..=2 * most);
        assert_eq!(points.len(), GIVEN_UP_MAX);
        let known = |points: &GivenUp, at| points.at(Sequence(at)) == Some(chain(at));
        assert!(known(&points, 1) && known(&points, half) && known(&points, 2 * most));
        assert!(!known(&points, half + 1) && !known(&points, 2 * most - half) && known(&points, 2 * most - half + 1));
        points.forget_through(Sequence(half));
        assert_eq!(points.len(), HALF);
        (2 * most + 1..=3 * most).for_each(|at| points.push(Sequence(at), chain(at)));
        assert_eq!(points.len(), GIVEN_UP_MAX, "there is room for as many again");
    }

    #[test]
    fn bytes_that_no_writer_writes_are_refused() {
        let (mut good, mut bytes) = (points([5, 6, 1 << 40]), Vec::new());
        good.encode(&mut bytes);
        assert_eq!(GivenUp::decode(&bytes), Some(good.clone()));
        assert_eq!(GivenUp::decode(&[]), Some(GivenUp::default()));
        assert_eq!(GivenUp::decode(&bytes[1..]), None);
        let (head, tail) = bytes.split_at(GivenUp::POINT_BYTES);
        assert_eq!(GivenUp::decode(&[tail, head].concat()), None, "out of order");
        good.forget_through(Sequence(1 << 40));
        assert!(good.is_empty());
    }
}
