//! What a flush or FUA covered is on the primary after any crash; what the secondary acknowledged survives its crash.

use farseal_core::units::Sequence;

use super::{Checker, Failure};
use crate::world::World;

/// A flush or FUA over the first `orders` writes of this life was answered.
pub fn promised(world: &mut World, orders: usize) -> Result<(), Failure> {
    let Some(through) = world.model.through(orders) else {
        return Err(Failure::new(
            Checker::Durability,
            "a flush was answered before a write that it covers had its place",
        ));
    };
    let durable = world.primary.durable_on_disk;
    if through > durable {
        return Err(Failure::new(
            Checker::Durability,
            format!("a flush was answered over record {through}; the journal's disk holds {durable}"),
        ));
    }
    world.model.promised = world.model.promised.max(through);
    Ok(())
}

/// A request over the first `orders` writes of this life was answered in a mode that waits for the secondary.
pub fn promised_at_both(world: &mut World, orders: usize) -> Result<(), Failure> {
    if world.rollback.happened() {
        return Ok(());
    }
    let through = world.model.through(orders).unwrap_or_default();
    let acknowledged = world.secondary.acknowledged;
    if through > acknowledged {
        return Err(Failure::new(
            Checker::Durability,
            format!("answered for both sites over record {through}; the secondary acknowledged {acknowledged}"),
        ));
    }
    world.model.promised_at_both = world.model.promised_at_both.max(through);
    Ok(())
}

/// The primary came back with everything up to `last`. `appended` was written before, nothing of it was lost if `whole`.
pub fn primary_restarted(world: &World, last: Sequence, appended: Sequence, whole: bool) -> Result<(), Failure> {
    if world.rollback.happened() {
        return Ok(());
    }
    let promised = world.model.promised.max(world.primary.durable_on_disk);
    if last < promised {
        return Err(Failure::new(
            Checker::Durability,
            format!("promised through {promised}, recovered through {last}"),
        ));
    }
    if whole && last != appended {
        return Err(Failure::new(
            Checker::Durability,
            format!("nothing was lost: {appended} were appended, {last} came back"),
        ));
    }
    Ok(())
}

/// The secondary welcomes a path with everything up to `contiguous`, perhaps after a crash.
pub fn secondary_restarted(world: &World, contiguous: Sequence) -> Result<(), Failure> {
    if world.rollback.happened() {
        return Ok(());
    }
    let acked = world.secondary.acknowledged;
    if contiguous < acked {
        return Err(Failure::new(
            Checker::Durability,
            format!("the secondary acknowledged {acked} and came back with {contiguous}"),
        ));
    }
    Ok(())
}
