//! An operator's pause is ended by the operator alone, or after the time that was given with it; and whatever the clock
//! does, no turn of a preset is longer than it may be.

use farseal_core::preset::Act;
use farseal_core::units::WallTime;

use super::{Checker, Failure};
use crate::world::World;

/// The presets have looked at the clock.
pub fn looked(world: &World, now: WallTime, act: Option<Act>) -> Result<(), Failure> {
    let operator = &world.operator;
    if act == Some(Act::Resume) && operator.paused {
        return Err(Failure::new(Checker::Preset, "a pause that an operator asked for is ended by the presets"));
    }
    let latest = WallTime(now.0.saturating_add(operator.longest.0));
    match operator.presets.due() {
        Some(due) if due <= now || due > latest => Err(Failure::new(
            Checker::Preset,
            format!("at {} the presets want to look again at {}, and no turn is longer than {latest:?}", now.0, due.0),
        )),
        Some(_) | None => Ok(()),
    }
}
