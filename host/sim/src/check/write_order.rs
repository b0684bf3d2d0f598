//! What the secondary offers, and what a primary recovers, is block for block a prefix of the one order.

use farseal_core::units::Sequence;

use super::{Checker, Failure, difference};
use crate::branch::Branch;
use crate::world::World;

/// The secondary's index stands for everything up to `through`.
pub fn offered(world: &mut World, through: Sequence) -> Result<(), Failure> {
    if world.rollback.happened() {
        world.secondary.offered = world.secondary.offered.max(through);
        return Ok(());
    }
    if through < world.secondary.offered {
        let before = world.secondary.offered;
        return Err(Failure::new(Checker::WriteOrder, format!("offered {before}, then {through}")));
    }
    world.secondary.offered = through;
    if world.model.get(through).is_none() && through != world.model.before {
        return Err(Failure::new(
            Checker::WriteOrder,
            format!("record {through} is offered; the primary has none such"),
        ));
    }
    match difference(&world.secondary.index, &world.model.image(through)) {
        Some(found) => Err(Failure::new(Checker::WriteOrder, format!("the secondary offers {through}, but {found}"))),
        None => Ok(()),
    }
}

/// A takeover over a base that differs opens the own old history that the base is the end of.
pub fn own_history(world: &World, own: &Branch) -> Result<(), Failure> {
    match difference(&world.secondary.index, &world.model.image_of(&own.history)) {
        Some(found) => Err(Failure::new(Checker::WriteOrder, format!("the own history's end is opened, but {found}"))),
        None => Ok(()),
    }
}

/// A record was applied to what the secondary holds durably. No block goes back: what an initiator wrote later is never
/// followed by what was written before. Stamps grow with each write; zeroes, and a base of another history, have none.
pub fn followed(before: &[u64], after: &[u64], sequence: Sequence) -> Result<(), Failure> {
    let stamped = |stamp: u64| stamp != 0 && stamp < u64::MAX / 2;
    let back = before.iter().zip(after).position(|(old, new)| stamped(*old) && stamped(*new) && new < old);
    match back {
        Some(at) => Err(Failure::new(
            Checker::WriteOrder,
            format!("with record {sequence} block {at} goes back from {} to {}", before[at], after[at]),
        )),
        None => Ok(()),
    }
}

/// Home after a restart and replay.
pub fn recovered(world: &World, home: &[u64], last: Sequence) -> Result<(), Failure> {
    match difference(home, &world.model.image(last)) {
        Some(found) => {
            Err(Failure::new(Checker::WriteOrder, format!("home was recovered through {last}, but {found}")))
        }
        None => Ok(()),
    }
}

/// An initiator read the whole volume.
pub fn read(world: &World, found: &[u64]) -> Result<(), Failure> {
    match difference(found, &world.model.accepted) {
        Some(found) => Err(Failure::new(Checker::WriteOrder, format!("an initiator's read: {found}"))),
        None => Ok(()),
    }
}
