//! What a lane withholds while a cut is open: the blocks whose new content no initiator may be shown.

use crate::limits::HELD_EXTENTS_MAX;
use crate::units::{CutNumber, Extent};

/// Writes whose answers are withheld for a cut.
#[derive(Clone, Debug)]
pub struct Hold {
    cut: CutNumber,
    extents: Vec<Extent>,
    /// There were too many to tell apart: every read waits.
    all: bool,
}

impl Hold {
    pub fn new(cut: CutNumber) -> Self {
        Self { cut, extents: Vec::new(), all: false }
    }

    pub fn cut(&self) -> CutNumber {
        self.cut
    }

    /// A write above the cut.
    pub fn add(&mut self, extent: Extent) {
        if self.extents.len() < HELD_EXTENTS_MAX {
            self.extents.push(extent);
        } else {
            self.all = true;
        }
    }

    /// Would a read of these blocks show a write above the cut?
    pub fn overlaps(&self, extent: Extent) -> bool {
        self.all || self.extents.iter().any(|held| held.overlaps(extent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::{BlockCount, Lba};

    #[test]
    fn a_read_waits_for_what_it_overlaps_and_for_everything_once_there_is_too_much() {
        let extent = |first, blocks| Extent::new(Lba(first), BlockCount(blocks)).unwrap();
        let mut hold = Hold::new(CutNumber(1));
        hold.add(extent(10, 5));
        assert!(hold.overlaps(extent(14, 1)));
        assert!(!hold.overlaps(extent(15, 1)));
        for _ in 0..HELD_EXTENTS_MAX {
            hold.add(extent(0, 1));
        }
        assert!(hold.overlaps(extent(99, 1)));
    }
}
