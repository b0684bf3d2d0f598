//! A group that is taken over by silence: none of its copies has heard its main node in that time, but for what may come while the last
//! answers travel.

use super::{Checker, Failure};
use crate::group::World;

/// From a copy's last look to the decision: two ways in the site, the longest that they may be, behind what the copy said before.
const SLACK_US: u64 = 900_000;

/// The keeping site's lead has decided.
pub fn decided(world: &World, group: usize) -> Result<(), Failure> {
    let Some(silence) = world.silences.silence else {
        return fail(format!("group {group} is taken over by silence, and no rule is in force"));
    };
    for lane in &world.groups[group].lanes {
        let ago = world.now() - world.silences.heard_us[*lane];
        if ago + SLACK_US < silence.0 * 1_000 {
            return fail(format!(
                "group {group} is taken over by silence, and lane {lane} heard its main node {} ms ago",
                ago / 1_000
            ));
        }
    }
    Ok(())
}

fn fail(what: String) -> Result<(), Failure> {
    Err(Failure::new(Checker::GroupSilence, what))
}
