//! Every block that the secondary's durable content may lack is in the journal's unacknowledged part, on its way, or in
//! the dirty map.

use farseal_core::units::{Lba, Sequence};

use super::{Checker, Failure};
use crate::disk::wide;
use crate::world::World;

pub fn check(world: &World) -> Result<(), Failure> {
    let Some(primary) = &world.primary.machine else { return Ok(()) };
    if world.secondary.taken_over || !world.owed_may_have_changed {
        return Ok(());
    }
    for (at, (theirs, ours)) in world.secondary.live.iter().zip(&world.model.accepted).enumerate() {
        let lba = Lba(wide(at));
        // Until the resync over it has ended, the keeper itself says with each attach where its base differs.
        let told = world.secondary.base_differs && world.secondary.differs.as_ref().is_some_and(|map| map.owes(lba));
        if theirs != ours && !primary.owes(lba) && !told {
            let status = primary.status();
            return Err(Failure::new(
                Checker::Owed,
                format!(
                    "block {at} is {theirs} at the secondary and {ours} here, and nothing owes it \
                     ({:?}, acknowledged {}, last {}, theirs {})",
                    status.copy, status.acked, status.last, world.secondary.live_through
                ),
            ));
        }
    }
    Ok(())
}

/// Does the journal still hold what is to be sent?
pub fn sendable(world: &World, first: Sequence) -> Result<(), Failure> {
    let held = world.primary.journal_first();
    if first < held {
        return Err(Failure::new(Checker::Owed, format!("record {first} is to be sent; the journal begins at {held}")));
    }
    Ok(())
}
