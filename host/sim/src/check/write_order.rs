//! What the secondary offers, and what a primary recovers, is block for block a prefix of the one order.

use farseal_core::units::Sequence;

use super::{Checker, Failure, difference};
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
    if world.model.get(through).is_none() && through != Sequence::NONE {
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
