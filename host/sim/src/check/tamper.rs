//! No record whose control bit is not the pair's is stored or opened, whichever site or record says otherwise (R19).
//!
//! What else may be done to a copy is judged by [`crate::tamper`], one tampering at a time.

use farseal_core::record::Header;
use farseal_core::units::Generation;

use super::{Checker, Failure};
use crate::world::World;

/// The secondary stores a record. Pairs of this world are encrypted.
pub fn stored(header: &Header) -> Result<(), Failure> {
    if header.encrypted {
        return Ok(());
    }
    Err(Failure::new(Checker::Tamper, format!("record {} is stored with its encrypt bit cleared", header.sequence)))
}

/// An operator wanted to take over a copy whose records are sealed otherwise than this site's setting says.
pub fn not_taken_over(world: &World, before: Generation) -> Result<(), Failure> {
    match &world.secondary.machine {
        Some(machine) if machine.generation() != before => {
            Err(Failure::new(Checker::Tamper, "a site whose encrypt bit is not its log's has taken over"))
        }
        Some(_) | None => Ok(()),
    }
}
