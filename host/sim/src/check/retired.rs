//! No key is destroyed that a takeover of the copy would open a block with, now or later, or the writing site its journal; and none that was destroyed is taken again

use std::collections::BTreeSet;

use farseal_core::units::{Epoch, Sequence};

use super::{Checker, Failure};
use crate::group;
use crate::seal::KeyId;
use crate::world::World;

/// Holds at every instant.
pub fn check(world: &World) -> Result<(), Failure> {
    if !world.retirement.may_retire() {
        return Ok(());
    }
    let needed = needed_by_the_journal(world).filter(|epoch| world.primary.floor.takes(*epoch).is_err());
    if let Some(epoch) = needed {
        return fail(format!("the journal needs epoch {epoch} after a crash, and its key is destroyed"));
    }
    if world.retirement.changed {
        indexed(world)?;
        own_history(world)?;
    }
    not_offered(world)
}

/// The epoch of the first record that a restart of the writing site opens; those that follow are no older.
pub fn needed_by_the_journal(world: &World) -> Option<Epoch> {
    first_sealed(world, world.primary.homed)
}

/// The keeper takes a key.
pub fn taken(world: &World, epoch: Epoch) -> Result<(), Failure> {
    world.secondary.kept.destroyed.takes(epoch).or_else(|below| fail(below.to_string()))
}

/// The writing site gives home again what its journal holds.
pub fn replayed(world: &World, sequence: Sequence) -> Result<(), Failure> {
    let Some(rec) = world.model.get(sequence).filter(|rec| rec.header.kind.is_sealed()) else { return Ok(()) };
    if world.primary.floor.takes(rec.epoch).is_ok() {
        return Ok(());
    }
    fail(format!("record {sequence} is replayed, and the key of its epoch {} is destroyed", rec.epoch))
}

/// What a takeover would open now.
fn indexed(world: &World) -> Result<(), Failure> {
    let keys: BTreeSet<KeyId> = world.secondary.kept.keyring.values().copied().collect();
    for (lba, source) in world.secondary.sources.iter().enumerate() {
        let Some((source, key)) = source.and_then(|source| Some((source, source.key?))) else { continue };
        if !keys.contains(&key) {
            let (sequence, floor) = (source.sequence, world.secondary.kept.floor.epoch());
            return fail(format!("block {lba} is of record {sequence}, whose key is not there: {floor} is the floor"));
        }
    }
    Ok(())
}

/// What it would open later: the next record in the order is of an epoch that stays, and those that follow are no older.
fn not_offered(world: &World) -> Result<(), Failure> {
    if world.rollback.happened() || world.sides.is_changing() {
        return Ok(());
    }
    let indexed = world.secondary.indexed;
    match first_sealed(world, indexed).map(|epoch| world.secondary.kept.floor.takes(epoch)) {
        Some(Err(below)) => fail(format!("what follows record {indexed} is not offered yet: {below}")),
        Some(Ok(())) | None => Ok(()),
    }
}

/// A branch stays sealed as it was.
fn own_history(world: &World) -> Result<(), Failure> {
    let (Some(own), Some(kept)) = (&world.secondary.own, &world.secondary.keeps) else { return Ok(()) };
    let above = own.history.iter().filter(|rec| rec.header.sequence > kept.fork);
    match above.filter(|rec| rec.header.kind.is_sealed()).map(|rec| world.secondary.kept.floor.takes(rec.epoch)).next()
    {
        Some(Err(below)) => fail(format!("this site's own history needs it: {below}")),
        Some(Ok(())) | None => Ok(()),
    }
}

/// A keeper of a group's lane: what it offers, or was taken over at, and what it may offer later.
pub fn kept_by_group(world: &group::World, lane: usize) -> Result<(), Failure> {
    let keeper = &world.keepers[lane];
    let through = keeper.taken().map_or(keeper.was_offered, |(through, _)| through);
    for (block, (sequence, epoch)) in keeper.sources(through) {
        if let Err(below) = keeper.floor.takes(epoch) {
            return fail(format!("lane {lane}: block {block} is of record {sequence} at {through}: {below}"));
        }
    }
    let next = world.lanes[lane].first_sealed(through).filter(|_| !keeper.is_taken());
    match next.map(|rec| keeper.floor.takes(rec.epoch)) {
        Some(Err(below)) => fail(format!("lane {lane}: what follows record {through} is not offered yet: {below}")),
        Some(Ok(())) | None => Ok(()),
    }
}

fn first_sealed(world: &World, after: Sequence) -> Option<Epoch> {
    let mut records = (after.0 + 1..).map_while(|sequence| world.model.get(Sequence(sequence)));
    records.find(|rec| rec.header.kind.is_sealed()).map(|rec| rec.epoch)
}

fn fail(what: String) -> Result<(), Failure> {
    Err(Failure::new(Checker::Retired, what))
}
