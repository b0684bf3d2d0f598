//! A site takes over by the witness rule only where neither it nor its witness has heard the main site for the silence, on a fresh
//! statement that is durable.

use farseal_core::limits::{WITNESS_ANSWER_MAX, WITNESS_GAPS};
use farseal_core::units::Millis;

use super::{Checker, Failure};
use crate::world::World;

/// The takeover begins, by the rule. What counts is what really came, not what anybody was told of it.
pub fn takes_over(world: &World) -> Result<(), Failure> {
    let Some((silence, evidence)) = world.witness.takeover() else { return Ok(()) };
    let since = |us: u64| Millis((world.now / 1_000).saturating_sub(us / 1_000));
    let witness = &world.witness;
    let here = since(witness.heard_us.max(witness.began_us));
    if here < silence {
        return fail(format!("the keeper heard the main site, or began, {here:?} ago; the silence is {silence:?}"));
    }
    let Some(said) = evidence else {
        return fail("nothing that the witness said is durable".to_owned());
    };
    if said.of != witness.main() || said.asker != witness.main().other() {
        return fail(format!("the statement is of another site: {said:?}"));
    }
    let age = since(said.at_us);
    if age > WITNESS_ANSWER_MAX {
        return fail(format!("the statement is {age:?} old"));
    }
    let Some(unheard) = said.unheard else {
        return fail(format!("the witness had never heard the main site: {said:?}"));
    };
    let least = silence.max(Millis(witness.beat.0 * WITNESS_GAPS));
    if unheard < least {
        return fail(format!("the witness had heard the main site {unheard:?} before, and {least:?} is the least"));
    }
    Ok(())
}

fn fail(what: String) -> Result<(), Failure> {
    Err(Failure::new(Checker::Witness, what))
}
