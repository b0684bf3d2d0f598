//! What a group's copies offer together holds no write without those that it depends on, and no cut that was given up.

use std::collections::{BTreeMap, BTreeSet};

use farseal_core::units::{CutNumber, Sequence};

use super::{Checker, Failure};
use crate::disk::to_usize;
use crate::group::{World, Write};
use crate::seal::Stamp;

/// The volumes of a group's lanes.
pub(super) type Images = BTreeMap<usize, Vec<Stamp>>;

/// The keeping site's lead has found this cut.
pub fn offered(world: &World, group: usize, cut: CutNumber) -> Result<(), Failure> {
    let group = &world.groups[group];
    if group.lanes.len() > 1 && !group.made.contains(&cut) {
        return Err(Failure::new(Checker::GroupCut, format!("cut {cut} is offered; it was given up")));
    }
    let mut images = Images::new();
    for lane in &group.lanes {
        let keeper = &world.keepers[*lane];
        // A keeper that is down holds the cut all the same; it is judged when it is back.
        let Some(machine) = &keeper.machine else { return Ok(()) };
        let Some(held) = machine.cuts().held().get(&cut) else { return Ok(()) };
        images.insert(*lane, keeper.image(held.sequence));
    }
    match torn(world, &images, &|_| true) {
        Some(torn) => Err(Failure::new(Checker::GroupCut, format!("cut {cut}: {torn}"))),
        None => Ok(()),
    }
}

/// All copies of a group were taken over.
pub fn taken_over(world: &World, group: usize, cut: CutNumber) -> Result<(), Failure> {
    let group = &world.groups[group];
    let mut images = Images::new();
    for lane in &group.lanes {
        let keeper = &world.keepers[*lane];
        let (through, at) = keeper.taken().unwrap_or((Sequence::NONE, CutNumber::NONE));
        if group.lanes.len() > 1 && at != cut {
            return Err(Failure::new(
                Checker::GroupCut,
                format!("lane {lane} is taken over at cut {at}, its group at {cut}"),
            ));
        }
        if let Some(machine) = keeper.machine.as_ref().filter(|machine| machine.offered() > through) {
            let offered = machine.offered();
            return Err(Failure::new(
                Checker::GroupCut,
                format!("lane {lane} was taken over at record {through} and offers {offered}"),
            ));
        }
        images.insert(*lane, keeper.image(through));
    }
    match torn(world, &images, &|_| true) {
        Some(torn) => Err(Failure::new(Checker::GroupCut, format!("the takeover: {torn}"))),
        None => Ok(()),
    }
}

/// A write that is there without what its initiator knew, on whatever lanes of the group. What a crash of the writing site took
/// back is missed there, too; what that depended on is not. Of other groups nothing is promised but this: what a write of
/// theirs followed from in this group comes before what follows from it.
/// `counts`: of which writes it is promised.
pub(super) fn torn(world: &World, images: &Images, counts: &dyn Fn(&Write) -> bool) -> Option<String> {
    let holds = |stamp: &Stamp| {
        let write = &world.writes[stamp];
        images.get(&write.lane).is_some_and(|image| image[to_usize(write.block)] == *stamp)
    };
    let mut seen = BTreeSet::new();
    for (stamp, write) in world.writes.iter().filter(|(stamp, write)| counts(write) && holds(stamp)) {
        let mut due: Vec<Stamp> = write.depends.clone();
        while let Some(earlier) = due.pop() {
            if holds(&earlier) || !seen.insert(earlier) {
                continue;
            }
            let Some(before) = world.writes.get(&earlier) else { continue };
            if !before.lost && images.contains_key(&before.lane) {
                return Some(format!(
                    "write {stamp} of lane {} is there without write {earlier} of lane {}, which it depends on",
                    write.lane, before.lane
                ));
            }
            due.extend(&before.depends);
        }
    }
    None
}
