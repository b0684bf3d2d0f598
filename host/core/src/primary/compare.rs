//! What a verification must know of the range that it compares: what of it is owed, and where initiators write meanwhile.

use super::*;

/// A range that is being compared with the copy.
#[derive(Debug)]
pub(super) struct Comparison {
    within: Extent,
    /// Where initiators wrote since it began, in no order.
    written: Vec<Extent>,
}

/// What is so when a comparison begins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Begun {
    /// What of the range the secondary may lack.
    pub owed: Vec<Extent>,
    /// Everything up to here is at the secondary, durably.
    pub acked: Sequence,
}

/// Writes that are remembered one by one; with more of them the whole range counts as written.
const WRITTEN_MAX: usize = 256;

impl Comparison {
    fn note(&mut self, extent: Extent) {
        let Some(part) = self.within.intersection(extent) else { return };
        if self.written.len() < WRITTEN_MAX {
            self.written.push(part);
        } else {
            self.written = vec![self.within; WRITTEN_MAX];
        }
    }
}

impl Primary {
    /// Begins to note where initiators write in a range, in place of another one.
    pub fn begin_comparison(&mut self, within: Extent) -> Begun {
        self.comparison = Some(Comparison { within, written: Vec::new() });
        Begun { owed: self.owed_runs(within), acked: self.transfer.acked() }
    }

    /// Where initiators wrote in the range since; everywhere, if it is another one that is compared.
    pub fn end_comparison(&mut self, within: Extent) -> Vec<Extent> {
        let mut written = match self.comparison.take() {
            Some(comparison) if comparison.within == within => comparison.written,
            Some(_) | None => vec![within],
        };
        written.sort_by_key(|extent| extent.first());
        joined(written.into_iter())
    }

    pub(super) fn note_compared(&mut self, extent: Extent) {
        if let Some(comparison) = &mut self.comparison {
            comparison.note(extent);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(first: u64, blocks: u64) -> Extent {
        Extent::new(Lba(first), BlockCount(blocks)).unwrap()
    }

    #[test]
    fn more_writes_than_are_remembered_make_all_of_the_range_written() {
        let mut comparison = Comparison { within: extent(8, 8), written: Vec::new() };
        comparison.note(extent(0, 8));
        assert_eq!(comparison.written, []);
        comparison.note(extent(0, 9));
        assert_eq!(comparison.written, [extent(8, 1)]);
        (0..WRITTEN_MAX).for_each(|_| comparison.note(extent(9, 1)));
        assert_eq!(joined(comparison.written.into_iter()), [extent(8, 8)]);
    }
}
