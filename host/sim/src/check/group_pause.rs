//! Once every lane of a paused group has stopped, the copies hold the cut that it is paused at, and nothing more comes
//! until resume.

use farseal_core::group::Phase;
use farseal_core::units::{CutNumber, Sequence};

use super::{Checker, Failure};
use crate::group::World;

/// The writing lead says that the pause is complete.
pub fn settled(world: &World, group: usize, cut: CutNumber) -> Result<(), Failure> {
    let lacks = world.groups[group].lanes.iter().find(|lane| !world.keepers[**lane].holds(cut));
    match lacks {
        Some(lane) => {
            Err(Failure::new(Checker::GroupPause, format!("paused at cut {cut}, which the copy of lane {lane} lacks")))
        }
        None => Ok(()),
    }
}

/// A copy takes in a record that it did not have.
pub fn stored(world: &World, lane: usize, sequence: Sequence) -> Result<(), Failure> {
    match world.groups[world.group_of(lane)].phase {
        Phase::Paused { cut, settled: true, .. } => Err(Failure::new(
            Checker::GroupPause,
            format!("record {sequence} of lane {lane} comes while its group is paused at cut {cut}"),
        )),
        Phase::Paused { settled: false, .. } | Phase::Running | Phase::Turning { .. } => Ok(()),
    }
}

/// The keeping lead offers a cut.
pub fn offered(world: &World, group: usize, cut: CutNumber) -> Result<(), Failure> {
    match world.groups[group].phase {
        Phase::Paused { cut: at, settled: true, .. } if cut > at => {
            Err(Failure::new(Checker::GroupPause, format!("cut {cut} is offered while the group is paused at {at}")))
        }
        Phase::Paused { .. } | Phase::Running | Phase::Turning { .. } => Ok(()),
    }
}
