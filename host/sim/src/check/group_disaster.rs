//! A declared disaster of a group: the word goes out in time, the operator is told what is so, all copies are taken over or none, and a lane
//! that knows it answers no write any more.

use farseal_core::limits::GROUP_STAND_WAIT;
use farseal_core::units::CutNumber;

use super::{Checker, Failure};
use crate::group::World;

/// A clock counts in milliseconds.
const TICK_US: u64 = 2_000;

/// The word goes out.
pub fn said(world: &World, group: usize) -> Result<(), Failure> {
    let waited = world.now() - world.groups[group].disaster.wanted_us;
    if waited > GROUP_STAND_WAIT.0 * 1_000 + TICK_US {
        return fail(format!("the word of group {group} goes out after {waited} us"));
    }
    Ok(())
}

/// The operator is told that the other site takes all of the group over, at this cut or a later one.
pub fn declared(world: &World, index: usize, cut: CutNumber) -> Result<(), Failure> {
    let (group, disaster) = (&world.groups[index], &world.groups[index].disaster);
    let at = group.taking_over.or(group.taken);
    let all = group.lanes.iter().all(|lane| world.keepers[*lane].is_taken());
    if at.is_none() && !all {
        return fail(format!("the operator is told that the other site takes group {index} over, and it does not"));
    }
    let writes = |lane: &&usize| world.lanes[**lane].fenced.is_none() && !world.lanes[**lane].turned;
    if let Some(lane) = disaster.said_to.iter().find(writes) {
        return fail(format!("the operator is told that group {index} is fenced, and lane {lane} does not know it"));
    }
    if cut == CutNumber::NONE {
        return Ok(());
    }
    if !disaster.held.contains(&cut) {
        return fail(format!("cut {cut} of group {index} was named; some copy lacked it when the word went out"));
    }
    // One that was decided before, by whatever wish, may be of an earlier cut.
    let followed = disaster.decided_us > disaster.said_us;
    if followed && group.lanes.len() > 1 && at.is_some_and(|at| at < cut) {
        return fail(format!("cut {cut} of group {index} was named, and the group is taken over at {at:?}"));
    }
    Ok(())
}

/// Faults have stopped for longer than it may take.
pub fn at_the_end(world: &World) -> Result<(), Failure> {
    if world.is_declaring() {
        return fail("a disaster that is declared does not end".to_owned());
    }
    Ok(())
}

/// A lane's copy is taken over by itself.
pub fn taken_alone(world: &World, lane: usize) -> Result<(), Failure> {
    let group = world.group_of(lane);
    match world.groups[group].turn.decided {
        // Of a change of sides that was under way when the site was lost.
        Some(_) => Ok(()),
        None => fail(format!("lane {lane} is taken over, and group {group} is not")),
    }
}

/// A write is answered well.
pub fn answered_well(world: &World, lane: usize) -> Result<(), Failure> {
    if world.lanes[lane].fenced.is_some() {
        return fail(format!("lane {lane} knows that it was taken over from, and answers well"));
    }
    Ok(())
}

fn fail(what: String) -> Result<(), Failure> {
    Err(Failure::new(Checker::GroupDisaster, what))
}
