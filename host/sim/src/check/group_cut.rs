//! What a group's copies offer together holds no write without those that it depends on, and no cut that was given up.

use farseal_core::units::{CutNumber, Sequence};

use super::{Checker, Failure};
use crate::disk::to_usize;
use crate::group::World;
use crate::seal::Stamp;

/// The keeping site's lead has found this cut.
pub fn offered(world: &World, cut: CutNumber) -> Result<(), Failure> {
    if world.lanes.len() > 1 && !world.made.contains(&cut) {
        return Err(Failure::new(Checker::GroupCut, format!("cut {cut} is offered; it was given up")));
    }
    let mut images = Vec::new();
    for keeper in &world.keepers {
        // A keeper that is down holds the cut all the same; it is judged when it is back.
        let Some(machine) = &keeper.machine else { return Ok(()) };
        let Some(held) = machine.cuts().held().get(&cut) else { return Ok(()) };
        images.push(keeper.image(held.sequence));
    }
    consistent(world, &images, &format!("cut {cut}"))
}

/// All copies were taken over.
pub fn taken_over(world: &World, cut: CutNumber) -> Result<(), Failure> {
    let mut images = Vec::new();
    for keeper in &world.keepers {
        let Some(machine) = &keeper.machine else { return Ok(()) };
        if machine.group_cut() != cut {
            let text =
                format!("lane {} is taken over at cut {}, the group at {cut}", keeper.index, machine.group_cut());
            return Err(Failure::new(Checker::GroupCut, text));
        }
        let through = if cut == CutNumber::NONE { Sequence::NONE } else { machine.offered() };
        images.push(keeper.image(through));
    }
    consistent(world, &images, "the takeover")
}

/// No write is there without what its initiator knew. What a crash of the writing site took back is missed there, too;
/// what that depended on is not.
fn consistent(world: &World, images: &[Vec<Stamp>], what: &str) -> Result<(), Failure> {
    let holds = |stamp: &Stamp| {
        let write = &world.writes[stamp];
        images[write.lane][to_usize(write.block)] == *stamp
    };
    for (stamp, write) in world.writes.iter().filter(|(stamp, _)| holds(stamp)) {
        let mut due: Vec<Stamp> = write.depends.clone();
        while let Some(earlier) = due.pop() {
            if holds(&earlier) {
                continue;
            }
            let Some(before) = world.writes.get(&earlier) else { continue };
            if !before.lost {
                let text = format!(
                    "{what}: write {stamp} of lane {} is there without write {earlier} of lane {}, which it depends on",
                    write.lane, before.lane
                );
                return Err(Failure::new(Checker::GroupCut, text));
            }
            due.extend(&before.depends);
        }
    }
    Ok(())
}
