//! Runs the checkers: those that judge an event at that event, those that hold at every instant after each event.

pub mod bounds;
pub mod ceiling;
pub mod durability;
pub mod epoch;
pub mod fence;
pub mod group_cut;
pub mod group_disaster;
pub mod group_pause;
pub mod group_silence;
pub mod group_turn;
pub mod liveness;
pub mod nonce;
pub mod owed;
pub mod preset;
pub mod recoverable;
pub mod retired;
pub mod tamper;
pub mod witness;
pub mod write_order;

use std::fmt;

use crate::world::World;

/// Which promise was broken.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Checker {
    Durability,
    WriteOrder,
    Owed,
    Epoch,
    Fence,
    Nonce,
    Recoverable,
    Ceiling,
    Tamper,
    Bounds,
    Liveness,
    /// A site whose disk was set back was not noticed, or has overwritten something.
    Rollback,
    GroupCut,
    GroupPause,
    Preset,
    GroupTurn,
    GroupDisaster,
    GroupSilence,
    Retired,
    Witness,
    /// A machine or the driver met what it calls impossible.
    Panic,
}

/// What a checker found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    pub checker: Checker,
    pub what: String,
}

impl Failure {
    pub fn new(checker: Checker, what: impl Into<String>) -> Self {
        Self { checker, what: what.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.checker, self.what)
    }
}

/// What holds at every instant.
pub fn instant(world: &World) -> Result<(), Failure> {
    if !world.rollback.happened() {
        owed::check(world)?;
    }
    retired::check(world)?;
    fence::told(world)?;
    bounds::check(world)
}

/// The first block at which two images differ, for messages.
pub fn difference(found: &[u64], expected: &[u64]) -> Option<String> {
    let at = found.iter().zip(expected).position(|(one, other)| one != other)?;
    Some(format!("block {at} is {} and should be {}", found[at], expected[at]))
}
