//! When faults stop, the pair copies in order again and the secondary holds everything, within a bound.

use farseal_core::primary::{CopyState, PauseState};
use farseal_core::record::Kind;

use super::{Checker, Failure};
use crate::mutation::Mutation;
use crate::world::World;

/// Simulated milliseconds from the last fault to the pair's return.
pub const BOUND_MS: u64 = 120_000;

/// Is the pair back?
pub fn recovered(world: &World) -> bool {
    let (Some(primary), Some(secondary)) = (&world.primary.machine, &world.secondary.machine) else { return false };
    let status = primary.status();
    // The covers of a standing schedule never rest.
    let rests = |record: &&crate::model::Rec| record.header.kind != Kind::Cover;
    let last = match world.model.history.iter().rfind(rests) {
        Some(record) if world.disguise.stands => record.header.sequence,
        _ => status.last,
    };
    status.copy == CopyState::InOrder
        && status.pause == PauseState::Running
        && status.acked >= last
        && status.homed >= last
        && (status.buffered_bytes.0 == 0 || world.settings.mutation == Some(Mutation::BufferLeaked))
        && secondary.offered() >= last
        && status.diverged.is_none()
}

/// The bound is over.
pub fn failed(world: &World) -> Failure {
    let primary = world.primary.machine.as_ref().map(farseal_core::primary::Primary::status);
    let secondary = world.secondary.machine.as_ref().map(farseal_core::secondary::Secondary::status);
    Failure::new(Checker::Liveness, format!("not back after {BOUND_MS} ms: {primary:?} {secondary:?}"))
}
