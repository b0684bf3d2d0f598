//! What a keeper of one lane has seen of its group's cuts, in the lane's own order.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::CutName;
use crate::limits::{CUT_NAME_MAX, CUTS_KEPT_MAX, CUTS_NAMED_MAX};
use crate::record::CutMark;
use crate::units::{CutNumber, Sequence, WallTime};

/// How far a keeper may offer its lane.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum OfferLimit {
    /// Everything that is consistent in itself: the pair is alone in its group.
    #[default]
    Everything,
    /// Up to this cut of the group, as its site's lead said last; at first what was offered before.
    Cut(CutNumber),
}

/// Where a cut stands in this lane.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HeldCut {
    pub sequence: Sequence,
    /// Lanes that took part, as the writing site counts them.
    pub lanes: u16,
    pub wall: WallTime,
}

/// A cut that an operator named.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NamedCut {
    pub name: CutName,
    pub cut: CutNumber,
    /// `None`: this lane does not hold it.
    pub sequence: Option<Sequence>,
    pub wall: WallTime,
}

/// Cuts that this lane holds in full, from the group's on, and those that it confirms.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct KeptCuts {
    held: BTreeMap<CutNumber, HeldCut>,
    confirmed: BTreeSet<CutNumber>,
    named: Vec<NamedCut>,
    /// The name that is coming.
    name: Vec<u8>,
    /// Grows with every change.
    #[serde(skip)]
    revision: u64,
}

impl KeptCuts {
    pub fn held(&self) -> &BTreeMap<CutNumber, HeldCut> {
        &self.held
    }

    pub fn confirmed(&self) -> &BTreeSet<CutNumber> {
        &self.confirmed
    }

    /// The named cuts, oldest first.
    pub fn named(&self) -> &[NamedCut] {
        &self.named
    }

    /// Another number for other content.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// A mark stands next in the order, outside of any gap.
    pub fn see(&mut self, mark: CutMark, sequence: Sequence, wall: WallTime) {
        match mark {
            CutMark::Own(_) => return,
            CutMark::Name(part) => {
                let bytes = part.iter().copied().take_while(|byte| *byte != 0);
                self.name.extend(bytes.take(CUT_NAME_MAX.saturating_sub(self.name.len())));
                return;
            }
            CutMark::Boundary { cut, lanes } => {
                self.name.clear();
                self.held.insert(cut, HeldCut { sequence, lanes, wall });
                self.thin();
            }
            CutMark::Confirmed { cut, .. } => {
                self.confirmed.insert(cut);
                let name = String::from_utf8(std::mem::take(&mut self.name)).unwrap_or_default();
                if let Ok(name) = CutName::new(&name) {
                    if self.named.len() == CUTS_NAMED_MAX {
                        self.named.remove(0);
                    }
                    let held = self.held.get(&cut).copied();
                    let (sequence, wall) = (held.map(|held| held.sequence), held.map_or(wall, |held| held.wall));
                    self.named.push(NamedCut { name, cut, sequence, wall });
                }
                self.thin();
            }
        }
        self.revision += 1;
    }

    /// The group's cut is this one now: older ones are of no use.
    pub fn forget_below(&mut self, cut: CutNumber) {
        self.held = self.held.split_off(&cut);
        self.confirmed = self.confirmed.split_off(&cut);
        self.revision += 1;
    }

    /// Drops every second number when there are too many: the same ones in every lane, so that what is left is left in
    /// all of them. The first, which may be the group's cut, and the newest stay.
    fn thin(&mut self) {
        fn most<T>(count: usize, first_last: (Option<T>, Option<T>)) -> Option<(T, T)> {
            if count <= CUTS_KEPT_MAX { None } else { Some((first_last.0?, first_last.1?)) }
        }
        let mut stride = 2;
        while let Some((first, last)) =
            most(self.held.len(), (self.held.keys().next().copied(), self.held.keys().next_back().copied()))
        {
            self.held.retain(|cut, _| *cut == first || *cut == last || cut.0 % stride == 0);
            stride *= 2;
        }
        let mut stride = 2;
        while let Some((first, last)) =
            most(self.confirmed.len(), (self.confirmed.first().copied(), self.confirmed.last().copied()))
        {
            self.confirmed.retain(|cut| *cut == first || *cut == last || cut.0 % stride == 0);
            stride *= 2;
        }
    }
}
