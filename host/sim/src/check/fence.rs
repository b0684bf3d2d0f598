//! One writable side per generation: a site that was taken over from neither answers well once it knows nor is believed,
//! and a planned change of sides has both at the same record.

use farseal_core::declare::Declare;
use farseal_core::frame::HandOver;
use farseal_core::lineage::Lineage;
use farseal_core::primary::{Primary, Room};
use farseal_core::units::Sequence;

use super::{Checker, Failure};
use crate::world::World;

/// The primary answers an initiator well.
pub fn answered_well(world: &World) -> Result<(), Failure> {
    if world.sides.knows {
        return Err(Failure::new(Checker::Fence, "a site that knows that it was taken over from answers well"));
    }
    Ok(())
}

/// The primary's journal has a record more.
pub fn appended(world: &World, last: Sequence) -> Result<(), Failure> {
    let own = world.primary.settings.generation;
    match world.sides.forked {
        Some(lineage) if lineage.generation == own => Err(Failure::new(
            Checker::Fence,
            format!("record {last} is of generation {own}, as which both sites write"),
        )),
        // After an unplanned takeover it cannot know at once; what it writes until then is its branch.
        Some(lineage) if world.sides.planned && last > lineage.fork => Err(Failure::new(
            Checker::Fence,
            format!("record {last} follows {}, at which this site had handed over", lineage.fork),
        )),
        Some(_) | None => Ok(()),
    }
}

/// The secondary stores what a primary sent.
pub fn believed(world: &World, sequence: Sequence) -> Result<(), Failure> {
    if world.sides.forked.is_some() {
        return Err(Failure::new(Checker::Fence, format!("record {sequence} of a stale primary is believed")));
    }
    Ok(())
}

/// The secondary lets a primary attach.
pub fn welcomed(world: &World) -> Result<(), Failure> {
    if world.sides.forked.is_some() {
        return Err(Failure::new(Checker::Fence, "a stale primary is welcomed"));
    }
    Ok(())
}

/// The keeper takes over by the main site's word.
pub fn word(world: &World, word: Declare) -> Result<(), Failure> {
    let here = world.secondary.generation.max(Lineage::FIRST.generation);
    if word.generation.max(Lineage::FIRST.generation) != here {
        return Err(Failure::new(
            Checker::Fence,
            format!("the word of generation {} has the keeper of generation {here} take over", word.generation),
        ));
    }
    Ok(())
}

/// The operator who declared a disaster was told that this site is fenced: it takes no writes any more, not even after a crash.
pub fn told(world: &World) -> Result<(), Failure> {
    let room = world.primary.machine.as_ref().filter(|_| world.disaster.told).map(Primary::room);
    match room {
        Some(Room::Fenced) | None => Ok(()),
        Some(room) => Err(Failure::new(
            Checker::Fence,
            format!("the operator was told that this site is fenced, and it takes writes: {room:?}"),
        )),
    }
}

/// The old primary hears that the other site goes on.
pub fn handed_over(world: &World, hand_over: &HandOver) -> Result<(), Failure> {
    let durable = world.secondary.taken_at;
    let last = world.model.last();
    if durable != Some(hand_over.at) || last != hand_over.at {
        return Err(Failure::new(
            Checker::Fence,
            format!("handed over at {}; this site is at {last}, the other took over at {durable:?}", hand_over.at),
        ));
    }
    Ok(())
}

/// The sites change places. What was answered for both sites is in the history that goes on.
pub fn turned(world: &World, lineage: &Lineage, last: Sequence, handed: bool) -> Result<(), Failure> {
    if handed && last != lineage.fork {
        return Err(Failure::new(
            Checker::Fence,
            format!("handed over at {}, and the journal ends at {last}", lineage.fork),
        ));
    }
    let promised = world.model.promised_at_both;
    if lineage.fork < promised {
        return Err(Failure::new(
            Checker::Durability,
            format!("answered for both sites through {promised}; the takeover goes on from {}", lineage.fork),
        ));
    }
    Ok(())
}
