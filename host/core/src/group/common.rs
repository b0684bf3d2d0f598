//! The keeping site's side of a group: the greatest cut that every lane holds in full and that at least one confirms.
//!
//! What a keeper says it holds is durable there, so it stays true while that keeper's node is away; the group's cut only
//! grows. A takeover fixes it, for all lanes or for none.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::kept::{KeptCuts, NamedCut, OfferLimit};
use crate::units::{CutNumber, PairId, WallTime};

/// One group at the site that keeps it.
#[derive(Debug, Default)]
pub struct Common {
    /// What each lane says; none of a lane that was not heard of yet.
    lanes: BTreeMap<PairId, Option<KeptCuts>>,
    cut: CutNumber,
    /// When the writing site placed it.
    wall: Option<WallTime>,
    /// A takeover opens the group here, and nowhere else any more.
    fixed: bool,
}

/// What a console shows.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CommonStatus {
    /// What a takeover would open; 0 where none is held yet, or where the group has one lane.
    pub cut: CutNumber,
    pub wall: Option<WallTime>,
    /// How many lanes the writing site counts, where that is another number than here.
    pub other_lanes: Option<u16>,
    pub named: Vec<NamedCut>,
}

impl Common {
    /// After a restart, with the cut that keepers may have been told of.
    pub fn new(lanes: BTreeSet<PairId>, cut: CutNumber, fixed: bool) -> Self {
        Self { lanes: lanes.into_iter().map(|lane| (lane, None)).collect(), cut, wall: None, fixed }
    }

    /// The group has these lanes.
    pub fn set_lanes(&mut self, lanes: &BTreeSet<PairId>) {
        self.lanes.retain(|lane, _| lanes.contains(lane));
        lanes.iter().for_each(|lane| _ = self.lanes.entry(*lane).or_default());
        self.advance();
    }

    /// What a keeper has, all of it. Says whether the group's cut is another one now.
    pub fn heard(&mut self, lane: PairId, cuts: KeptCuts) -> bool {
        if let Some(known) = self.lanes.get_mut(&lane) {
            *known = Some(cuts);
        }
        self.advance()
    }

    /// A keeper has restarted, and does not know yet what it has.
    pub fn forget(&mut self, lane: PairId) {
        if let Some(known) = self.lanes.get_mut(&lane) {
            *known = None;
        }
    }

    /// Has the keeper of this lane said what it has?
    pub fn knows(&self, lane: PairId) -> bool {
        self.lanes.get(&lane).is_some_and(Option::is_some)
    }

    /// How far each of its lanes may be offered.
    pub fn limit(&self) -> OfferLimit {
        if self.lanes.len() > 1 { OfferLimit::Cut(self.cut) } else { OfferLimit::Everything }
    }

    /// What a takeover would open: none where a lane is not known to hold it. After a restart of this lead or of a keeper
    /// one may have been told of a later cut than is known here yet, and a lane that is new to the group holds none.
    pub fn cut(&self) -> CutNumber {
        let holds = |cuts: &Option<KeptCuts>| cuts.as_ref().is_some_and(|cuts| cuts.held().contains_key(&self.cut));
        if self.fixed || self.lanes.values().all(holds) { self.cut } else { CutNumber::NONE }
    }

    /// From now on the cut stays: it is taken over at.
    pub fn fix(&mut self) {
        self.fixed = true;
    }

    pub fn is_fixed(&self) -> bool {
        self.fixed
    }

    pub fn status(&self) -> CommonStatus {
        let known = || self.lanes.values().flatten();
        let lanes = self.lanes.len();
        let counted = known().filter_map(|cuts| Some(cuts.held().last_key_value()?.1.lanes)).next();
        let mut named: Vec<NamedCut> = Vec::new();
        for each in known().flat_map(KeptCuts::named) {
            if !named.iter().any(|known| known.cut == each.cut) {
                named.push(each.clone());
            }
        }
        named.sort_by_key(|named| named.cut);
        CommonStatus {
            cut: if lanes > 1 { self.cut() } else { CutNumber::NONE },
            wall: self.wall.filter(|_| self.cut() != CutNumber::NONE),
            other_lanes: counted.filter(|counted| usize::from(*counted) != lanes && lanes > 1),
            named,
        }
    }

    fn advance(&mut self) -> bool {
        let known: Option<Vec<&KeptCuts>> = self.lanes.values().map(Option::as_ref).collect();
        let Some(known) = known.filter(|known| !known.is_empty()) else { return false };
        let Some((first, others)) = known.split_first() else { return false };
        let held = |cut: &CutNumber| others.iter().all(|cuts| cuts.held().contains_key(cut));
        let confirmed = |cut: &CutNumber| known.iter().any(|cuts| cuts.confirmed().contains(cut));
        let common = first.held().iter().rev().find(|(cut, _)| held(cut) && confirmed(cut));
        let Some((cut, place)) = common else { return false };
        if *cut < self.cut || self.fixed {
            return false;
        }
        let grown = *cut > self.cut;
        (self.cut, self.wall) = (*cut, Some(place.wall));
        grown
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::CutMark;
    use crate::units::Sequence;

    /// `b3` a boundary of cut 3, `c3` a confirmation.
    fn kept(marks: &str) -> KeptCuts {
        let mut cuts = KeptCuts::default();
        for (at, word) in marks.split_whitespace().enumerate() {
            let cut = CutNumber(word[1..].parse().unwrap_or(0));
            let mark = match &word[..1] {
                "b" => CutMark::Boundary { cut, lanes: 2 },
                _ => CutMark::Confirmed { cut, lanes: 2 },
            };
            cuts.see(mark, Sequence(u64::try_from(at).unwrap_or(0) + 1), WallTime(0));
        }
        cuts
    }

    fn group(lanes: &[&str]) -> Common {
        let id = |at: usize| PairId([u8::try_from(at).unwrap_or(0); 16]);
        let mut group = Common::new((0..lanes.len()).map(id).collect(), CutNumber::NONE, false);
        for (at, marks) in lanes.iter().enumerate() {
            group.heard(id(at), kept(marks));
        }
        group
    }

    #[test]
    fn the_groups_cut_is_held_by_all_and_confirmed_by_one() {
        for (lanes, cut) in [
            (&["b1 c1 b2 c2", "b1 c1 b2"][..], 2),
            (&["b1 c1 b2", "b1 c1 b2"], 1),
            (&["b1 c1 b2 c2", "b1 c1"], 1),
            (&["b1 c1", ""], 0),
            (&["b1 b3 c3", "b1 b2 b3"], 3),
            (&["b1 c1 b2", "b1 b2 c2", "b1"], 1),
            (&["b1 b2 c2", "c1 b2"], 2),
        ] {
            assert_eq!(group(lanes).cut(), CutNumber(cut), "{lanes:?}");
        }
    }

    #[test]
    fn a_lane_that_was_not_heard_of_stops_the_cut_and_one_that_is_away_does_not_take_it_back() {
        let mut group = group(&["b1 c1", "b1"]);
        assert_eq!(group.cut(), CutNumber(1));
        group.set_lanes(&(0..3).map(|at| PairId([at; 16])).collect());
        assert!(!group.heard(PairId([0; 16]), kept("b1 c1 b2 c2")));
        assert_eq!((group.cut(), group.limit()), (CutNumber::NONE, OfferLimit::Cut(CutNumber(1))));
        group.set_lanes(&(0..2).map(|at| PairId([at; 16])).collect());
        assert!(group.heard(PairId([1; 16]), kept("b1 b2")));
        group.fix();
        group.heard(PairId([0; 16]), kept("b3 c3"));
        group.heard(PairId([1; 16]), kept("b3 c3"));
        assert_eq!(group.cut(), CutNumber(2), "a takeover has fixed it");
    }

    #[test]
    fn after_a_restart_a_cut_is_taken_over_at_once_every_lane_is_known_to_hold_it() {
        let id = |at| PairId([at; 16]);
        let mut told = kept("b1 c1 b2 c2");
        told.forget_below(CutNumber(2));
        let mut group = Common::new((0..2).map(id).collect(), CutNumber(1), false);
        assert!(!group.knows(id(0)));
        group.heard(id(0), told);
        // Its keys are being checked again: what it holds behind them is not known yet.
        group.heard(id(1), kept("b1"));
        assert_eq!((group.cut(), group.limit()), (CutNumber::NONE, OfferLimit::Cut(CutNumber(1))));
        assert!(group.heard(id(1), kept("b1 b2")));
        assert_eq!(group.cut(), CutNumber(2));
        group.forget(id(1));
        assert_eq!((group.cut(), group.knows(id(1))), (CutNumber::NONE, false), "its node restarts");
        assert_eq!(Common::new((0..2).map(id).collect(), CutNumber(1), true).cut(), CutNumber(1), "decided already");
    }

    #[test]
    fn a_pair_that_is_alone_is_offered_as_far_as_it_is_consistent() {
        assert_eq!(group(&["b1"]).limit(), OfferLimit::Everything);
    }

    #[test]
    fn lanes_that_lag_by_many_cuts_still_have_some_in_common() {
        let marks = |from: u64, to: u64| (from..to).map(|cut| format!("b{cut} c{cut} ")).collect::<String>();
        let group = group(&[&marks(1, 5_000), &marks(1, 700)]);
        assert!(group.cut().0 > 500, "{}", group.cut());
    }

    #[test]
    fn a_name_reaches_the_keeper_with_its_cut() -> Result<(), super::super::BadCutName> {
        let name = CutName::new("before-the-upgrade_2026.11")?;
        let mut cuts = kept("b1");
        for part in name.parts() {
            cuts.see(CutMark::Name(part), Sequence(2), WallTime(0));
        }
        cuts.see(CutMark::Confirmed { cut: CutNumber(1), lanes: 2 }, Sequence(3), WallTime(0));
        let found: Vec<_> = cuts.named().iter().map(|named| (named.name.clone(), named.sequence)).collect();
        assert_eq!(found, [(name, Some(Sequence(1)))]);
        Ok(())
    }

    use super::super::CutName;
}
