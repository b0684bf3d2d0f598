//! Every queue, window and buffer stays within its limit in `limits.rs`.

use farseal_core::limits::{
    ALARMS_MAX, BUFFER_BYTES_MAX, COMMIT_BYTES_MAX, COMMIT_RECORDS_MAX, COMMITS_IN_FLIGHT_MAX, RECORD_BYTES_MAX,
    RECORD_PAYLOAD_MAX, WINDOW_BYTES_MAX,
};

use super::{Checker, Failure};
use crate::world::World;

pub fn check(world: &World) -> Result<(), Failure> {
    if world.primary.commits.len() > COMMITS_IN_FLIGHT_MAX {
        return Err(Failure::new(Checker::Bounds, format!("{} commits in flight", world.primary.commits.len())));
    }
    if world.primary.buffered_bytes > BUFFER_BYTES_MAX.0 + 2 * u64::from(RECORD_PAYLOAD_MAX) {
        return Err(Failure::new(
            Checker::Bounds,
            format!("{} bytes in the data buffer", world.primary.buffered_bytes),
        ));
    }
    if world.in_flight_bytes > WINDOW_BYTES_MAX.0 + u64::from(RECORD_BYTES_MAX) {
        return Err(Failure::new(
            Checker::Bounds,
            format!("{} bytes sent and not acknowledged", world.in_flight_bytes),
        ));
    }
    Ok(())
}

/// A commit was planned.
pub fn commit(records: usize, bytes: u64) -> Result<(), Failure> {
    if records > COMMIT_RECORDS_MAX || bytes > COMMIT_BYTES_MAX + u64::from(RECORD_BYTES_MAX) {
        return Err(Failure::new(Checker::Bounds, format!("a commit of {records} records, {bytes} bytes")));
    }
    Ok(())
}

/// Looked at now and then: lists that a console shows.
pub fn lists(world: &World) -> Result<(), Failure> {
    let ours = world.primary.machine.as_ref().map_or(0, |machine| machine.status().alarms.len());
    let theirs = world.secondary.machine.as_ref().map_or(0, |machine| machine.status().alarms.len());
    if ours > ALARMS_MAX || theirs > ALARMS_MAX {
        return Err(Failure::new(Checker::Bounds, format!("{ours} and {theirs} alarms kept")));
    }
    Ok(())
}

/// Nothing is under way: nothing may be held for it.
pub fn at_rest(world: &World) -> Result<(), Failure> {
    let theirs = world.primary.machine.as_ref().map_or(0, |machine| machine.status().buffered_bytes.0);
    let ours = world.primary.buffered_bytes;
    if ours != 0 || theirs != 0 {
        return Err(Failure::new(Checker::Bounds, format!("at rest the data buffer holds {ours} bytes, or {theirs}")));
    }
    Ok(())
}
