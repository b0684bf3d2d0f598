//! Which sequence numbers have come: one contiguous run, and what lies above it out of order.

use std::collections::BTreeMap;

use crate::limits::{ACK_RANGES_MAX, WINDOW_RECORDS_MAX};
use crate::units::Sequence;

/// What an arriving sequence number is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arrival {
    New,
    /// Seen before; harmless.
    Duplicate,
    /// So far ahead that no honest peer has sent it: see [`WINDOW_RECORDS_MAX`].
    TooFar,
}

/// A set of sequence numbers that is dense at the bottom. Each number above the run carries a value until the run
/// reaches it.
#[derive(Clone, Debug, Default)]
pub struct Window<T> {
    contiguous: Sequence,
    above: BTreeMap<Sequence, T>,
}

/// Sequence numbers from `first` to `last`, both included.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Range {
    pub first: Sequence,
    pub last: Sequence,
}

impl<T> Window<T> {
    /// Everything up to `contiguous` has come.
    pub fn from(contiguous: Sequence) -> Self {
        Self { contiguous, above: BTreeMap::new() }
    }

    /// The last number below which none is missing.
    pub fn contiguous(&self) -> Sequence {
        self.contiguous
    }

    pub fn judge(&self, sequence: Sequence) -> Arrival {
        if sequence <= self.contiguous || self.above.contains_key(&sequence) {
            Arrival::Duplicate
        } else if sequence.since(self.contiguous) > WINDOW_RECORDS_MAX {
            Arrival::TooFar
        } else {
            Arrival::New
        }
    }

    /// Keeps `value` for a number that is [`Arrival::New`].
    pub fn insert(&mut self, sequence: Sequence, value: T) -> Arrival {
        let arrival = self.judge(sequence);
        if arrival == Arrival::New {
            self.above.insert(sequence, value);
        }
        arrival
    }

    /// Keeps `value` for a number above the run however far it is: what is durable already was let in once.
    pub fn restore(&mut self, sequence: Sequence, value: T) {
        if sequence > self.contiguous {
            self.above.insert(sequence, value);
        }
    }

    /// Takes the number that the run needs next, if it has come.
    pub fn advance(&mut self) -> Option<(Sequence, T)> {
        let next = self.contiguous.next();
        let value = self.above.remove(&next)?;
        self.contiguous = next;
        Some((next, value))
    }

    /// Moves the run up to `sequence`, dropping what lies below: a gap was declared.
    pub fn skip_to(&mut self, sequence: Sequence) {
        if sequence > self.contiguous {
            self.contiguous = sequence;
            self.above = self.above.split_off(&sequence.next());
        }
    }

    /// Numbers above the run from `first` up to but not including `end` are as if they had not come.
    pub fn forget(&mut self, first: Sequence, end: Sequence) {
        self.above.retain(|sequence, _| *sequence < first || *sequence >= end);
    }

    /// The numbers above the run that have come.
    pub fn above(&self) -> impl Iterator<Item = Sequence> {
        self.above.keys().copied()
    }

    /// The value kept for a number above the run.
    pub fn peek(&self, sequence: Sequence) -> Option<&T> {
        self.above.get(&sequence)
    }

    /// What has come above the run, lowest first, at most [`ACK_RANGES_MAX`] ranges.
    pub fn ranges(&self) -> Vec<Range> {
        let mut ranges: Vec<Range> = Vec::new();
        for sequence in self.above.keys().copied() {
            if let Some(range) = ranges.last_mut()
                && range.last.next() == sequence
            {
                range.last = sequence;
            } else if ranges.len() < ACK_RANGES_MAX {
                ranges.push(Range { first: sequence, last: sequence });
            } else {
                break;
            }
        }
        ranges
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(arrivals: &[u64], contiguous: u64, ranges: &[(u64, u64)]) {
        let mut window = Window::from(Sequence(10));
        for sequence in arrivals {
            window.insert(Sequence(*sequence), ());
            while window.advance().is_some() {}
        }
        assert_eq!(window.contiguous(), Sequence(contiguous), "{arrivals:?}");
        let found: Vec<(u64, u64)> = window.ranges().iter().map(|range| (range.first.0, range.last.0)).collect();
        assert_eq!(found, ranges, "{arrivals:?}");
    }

    #[test]
    fn the_run_grows_only_without_holes() {
        check(&[11, 12], 12, &[]);
        check(&[12, 13, 15], 10, &[(12, 13), (15, 15)]);
        check(&[12, 13, 11], 13, &[]);
        check(&[9, 10, 11, 11], 11, &[]);
    }

    #[test]
    fn what_is_too_far_or_known_is_told_apart() {
        let mut window = Window::from(Sequence(10));
        assert_eq!(window.insert(Sequence(12), 'a'), Arrival::New);
        assert_eq!(window.insert(Sequence(12), 'b'), Arrival::Duplicate);
        assert_eq!(window.peek(Sequence(12)), Some(&'a'));
        assert_eq!(window.judge(Sequence(10 + WINDOW_RECORDS_MAX)), Arrival::New);
        assert_eq!(window.judge(Sequence(11 + WINDOW_RECORDS_MAX)), Arrival::TooFar);
    }

    #[test]
    fn a_gap_moves_the_run_and_keeps_what_lies_above() {
        let mut window = Window::from(Sequence(10));
        for sequence in [12, 20, 21] {
            window.insert(Sequence(sequence), ());
        }
        window.skip_to(Sequence(19));
        assert_eq!(window.advance().map(|(sequence, ())| sequence), Some(Sequence(20)));
        assert_eq!(window.advance().map(|(sequence, ())| sequence), Some(Sequence(21)));
        assert_eq!(window.advance(), None);
    }
}
