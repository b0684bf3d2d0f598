//! The group's cuts in this lane's copy, and how far the group lets it be offered.

use super::{Secondary, Stored};
use crate::group::OfferLimit;
use crate::points::{Hole, add_hole};
use crate::record::{CutMark, Kind};
use crate::units::{CutNumber, Sequence};

impl Secondary {
    /// A cut's turn in the order has come. Only the lane's own closes a gap; a group's inside one would say of a state
    /// that is none that it is consistent.
    pub(super) fn pass_cut(&mut self, record: &Stored) {
        debug_assert_eq!(record.header.kind, Kind::Cut);
        match record.header.cut_mark() {
            Some(CutMark::Own(_)) => {
                if let Some(after) = self.gap_open_after.take() {
                    add_hole(&mut self.holes, Hole { after, until: record.header.sequence });
                }
            }
            Some(mark) if self.gap_open_after.is_none() => {
                self.cuts.see(mark, record.header.sequence, record.header.wall);
                // After a restart the lead may have named it before its turn came: a key before it was being checked.
                self.on_limit(self.limit);
            }
            Some(CutMark::Boundary { .. } | CutMark::Confirmed { .. } | CutMark::Name(_)) | None => {}
        }
    }

    /// The site's lead says how far this lane may be offered. A cut that is not held here changes nothing until it is.
    pub(super) fn on_limit(&mut self, limit: OfferLimit) {
        if self.fixed || self.taken_over {
            return;
        }
        if let OfferLimit::Cut(cut) = limit
            && cut > self.group_cut
            && let Some(held) = self.cuts.held().get(&cut).copied()
        {
            self.group_through = held.sequence;
            self.group_cut = cut;
            self.cuts.forget_below(cut);
        }
        self.limit = limit;
    }

    /// The last record that the group lets be offered.
    pub(super) fn limited_to(&self) -> Sequence {
        match self.limit {
            OfferLimit::Everything => Sequence(u64::MAX),
            OfferLimit::Cut(_) => self.group_through,
        }
    }

    /// The group's cut that is offered here; none where the pair is alone in its group, or before the first.
    pub fn group_cut(&self) -> CutNumber {
        self.group_cut
    }
}
