//! Nothing is offered under an epoch whose key the secondary does not hold, durably and opened; and each point that is kept opens as the volume was.

use farseal_core::units::{Epoch, Sequence};

use super::{Checker, Failure, difference};
use crate::seal::Stamp;
use crate::world::World;

/// A key gets its place in the order.
pub fn placed(world: &World, epoch: Epoch) -> Result<(), Failure> {
    let site = &world.primary;
    if !site.settings.escrowed || site.receipts.contains(&epoch) {
        return Ok(());
    }
    Err(Failure::new(
        Checker::Recoverable,
        format!("the key of epoch {epoch} is placed without the escrow site's receipt"),
    ))
}

/// An earlier point was opened.
pub fn at_point(world: &World, point: Sequence, found: &[Stamp]) -> Result<(), Failure> {
    match difference(found, &world.model.image(point)) {
        None => Ok(()),
        Some(what) => Err(Failure::new(Checker::Recoverable, format!("point {point}: {what}"))),
    }
}

/// The secondary offers the records from after `before` to `through`.
pub fn offered(world: &World, records: &[Sequence]) -> Result<(), Failure> {
    let Some(machine) = world.secondary.machine.as_ref().filter(|_| !world.rollback.happened()) else { return Ok(()) };
    for sequence in records.iter().copied() {
        if !world.model.get(sequence).is_some_and(|rec| rec.header.kind.is_sealed()) {
            continue;
        }
        let Some(entry) = machine.ledger().epoch_of(sequence) else {
            return Err(Failure::new(Checker::Recoverable, format!("record {sequence} is offered in no epoch")));
        };
        let facts = world.secondary.records.get(&entry.key).and_then(|place| world.secondary.key_at(*place));
        match facts {
            Some(facts) if !world.unopenable.contains(&facts.sealer.key) => {}
            Some(_) => {
                return Err(Failure::new(
                    Checker::Recoverable,
                    format!("record {sequence} is offered under epoch {}, whose key does not open there", entry.epoch),
                ));
            }
            None => {
                return Err(Failure::new(
                    Checker::Recoverable,
                    format!("record {sequence} is offered under epoch {}, whose key record is not there", entry.epoch),
                ));
            }
        }
    }
    Ok(())
}
