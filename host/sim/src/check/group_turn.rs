//! A group that changes sides does so whole: at every instant since it was decided, what the other site has is one state, and it ends.

use farseal_core::frame::HandOver;
use farseal_core::group::{Common, Phase};
use farseal_core::primary::SwapState;
use farseal_core::units::{CutNumber, Sequence};

use super::group_cut::{Images, torn};
use super::{Checker, Failure};
use crate::disk::to_usize;
use crate::group::{World, Write, pair};

/// A copy has changed, or what is done with it. Of the lanes that have handed over the other site has everything; of the
/// others what their group lets it offer, or, one by one, whatever they hold.
pub fn instant(world: &World, group: usize) -> Result<(), Failure> {
    let turn = &world.groups[group].turn;
    let Some(cut) = turn.decided.filter(|_| !turn.given_up) else { return Ok(()) };
    let lanes = &world.groups[group].lanes;
    // One that is down, or that checks its keys again, holds the same, and is judged when it is back.
    let back = |lane: &usize| world.keepers[*lane].machine.as_ref().is_some_and(|machine| machine.is_recovered());
    if !lanes.iter().all(back) {
        return Ok(());
    }
    let together = common(world, group);
    if lanes.len() > 1 && together < cut && world.groups[group].taken.is_none() {
        return Err(Failure::new(
            Checker::GroupTurn,
            format!("group {group} changes sides behind cut {cut}, and its copies have {together} in common"),
        ));
    }
    let stood = |write: &Write| write.between != Some(turn.name);
    for (what, alone) in [("together", false), ("each alone", true)] {
        let image = |lane: &usize| (*lane, world.keepers[*lane].image(reaches(world, *lane, together, alone)));
        let images: Images = lanes.iter().map(image).collect();
        if let Some(torn) = torn(world, &images, &stood) {
            return Err(Failure::new(Checker::GroupTurn, format!("in the middle, {what}: {torn}")));
        }
    }
    Ok(())
}

/// It is made durable that a lane hands over.
pub fn hands_over(world: &World, lane: usize) -> Result<(), Failure> {
    let group = world.group_of(lane);
    match world.groups[group].turn.decided {
        Some(_) => Ok(()),
        None => Err(Failure::new(
            Checker::GroupTurn,
            format!("lane {lane} hands over, and it is not decided that its group does"),
        )),
    }
}

/// A lane's copy has taken over by its wish.
pub fn handed_over(world: &World, lane: usize) -> Result<(), Failure> {
    let keeper = &world.keepers[lane];
    let through = keeper.taken().map_or(Sequence::NONE, |(through, _)| through);
    let image = keeper.image(through);
    let missing = world.writes.iter().find(|(stamp, write)| {
        write.lane == lane && write.answered && !write.lost && image[to_usize(write.block)] != **stamp
    });
    match missing {
        Some((stamp, _)) => Err(Failure::new(
            Checker::GroupTurn,
            format!("lane {lane} has handed over without write {stamp}, which was answered"),
        )),
        None => Ok(()),
    }
}

/// A lane is told that the other site goes on from here.
pub fn heard(world: &World, lane: usize, hand_over: &HandOver) -> Result<(), Failure> {
    let through = world.keepers[lane].taken().map_or(Sequence::NONE, |(through, _)| through);
    if through == hand_over.at {
        return Ok(());
    }
    Err(Failure::new(
        Checker::GroupTurn,
        format!(
            "lane {lane} takes itself for handed over at record {}; the other site goes on from {through}",
            hand_over.at
        ),
    ))
}

/// Faults have stopped for longer than it may take.
pub fn at_the_end(world: &World, index: usize) -> Result<(), Failure> {
    let group = &world.groups[index];
    if group.turn.lost || group.turn.given_up || group.taken.is_some() {
        return Ok(());
    }
    let decided = group.turn.decided.is_some();
    if let Some(lane) = group.lanes.iter().find(|lane| world.lanes[**lane].turned != decided) {
        let is = if decided { "was decided, and lane" } else { "was never decided, and without the others lane" };
        let does = if decided { "writes here" } else { "has changed sides" };
        return Err(Failure::new(Checker::GroupTurn, format!("a change of sides of group {index} {is} {lane} {does}")));
    }
    let ended = match group.phase {
        Phase::Turning { .. } => false,
        Phase::Running | Phase::Paused { .. } => true,
    };
    let waits = group.lanes.iter().find(|lane| {
        world.lanes[**lane].machine.as_ref().is_some_and(|machine| match machine.status().swap {
            None => false,
            Some(SwapState::Quiesced | SwapState::Draining | SwapState::Keeping | SwapState::Asking) => true,
        })
    });
    match waits {
        _ if !ended => {
            Err(Failure::new(Checker::GroupTurn, format!("the change of sides of group {index} does not end")))
        }
        Some(lane) => {
            Err(Failure::new(Checker::GroupTurn, format!("lane {lane} takes no writes, and nobody changes sides")))
        }
        None => Ok(()),
    }
}

/// The group's point: the greatest cut that every copy holds and one confirms.
fn common(world: &World, group: usize) -> CutNumber {
    let group = &world.groups[group];
    let mut common = Common::new(group.pairs(), CutNumber::NONE, false);
    for lane in &group.lanes {
        if let Some(machine) = &world.keepers[*lane].machine {
            common.heard(pair(*lane), machine.cuts().clone());
        }
    }
    common.cut()
}

/// The last record of a copy that counts.
fn reaches(world: &World, lane: usize, together: CutNumber, alone: bool) -> Sequence {
    let keeper = &world.keepers[lane];
    let Some(machine) = &keeper.machine else { return Sequence::NONE };
    let held = || machine.cuts().held().get(&together).map(|held| held.sequence);
    let single = world.groups[world.group_of(lane)].lanes.len() == 1;
    let whole = || machine.gap_open_after().unwrap_or(machine.durable().0);
    match keeper.taken() {
        Some((through, _)) => through,
        None if alone || single => whole(),
        None => held().unwrap_or_else(whole),
    }
}
