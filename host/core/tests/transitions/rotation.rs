//! Every event in every state of a key rotation.

use farseal_core::rotation::{How, KeyLimits, Rotation, Slot, State};
use farseal_core::units::{ByteLen, Epoch, Instant, Millis, Now, Sequence, WallTime};

use super::{Step, diagram, snapshot, table};

const LIMITS: KeyLimits =
    KeyLimits { interval_min: Millis(100), age_max: Millis(1_000_000), bytes_max: ByteLen(1 << 30) };
const SLOT: Slot = Slot { at: Instant(1_500), blocks: 1, chance: 0 };
/// The key record of the rotation that a state is in.
const KEY: Sequence = Sequence(10);

type Event = (&'static str, fn(&mut Rotation) -> String);

fn at(ms: u64) -> Now {
    Now { instant: Instant(ms), wall: WallTime(ms) }
}

/// A lane whose first key is in force since record 2.
fn idle() -> Rotation {
    let mut rotation = Rotation::new(LIMITS, Epoch::NONE);
    let epoch = rotation.begin(at(0), How::AtOnce, false).unwrap();
    rotation.prepared(epoch, Slot { at: Instant(0), blocks: 1, chance: 0 });
    rotation.placed(at(0), Sequence(1), 0, 0);
    rotation.reached(at(0), Sequence(2));
    rotation
}

/// Before the first key: nothing is sealed yet.
fn first(prepared: bool) -> Rotation {
    let mut rotation = Rotation::new(LIMITS, Epoch(1));
    let epoch = rotation.begin(at(0), How::AtOnce, false).unwrap();
    if prepared {
        rotation.prepared(epoch, SLOT);
    }
    rotation
}

fn preparing(how: How) -> Rotation {
    let mut rotation = idle();
    rotation.begin(at(1_000), how, true).unwrap();
    rotation
}

/// With an escrow site that has not answered.
fn escrowing(how: How) -> Rotation {
    let mut rotation = preparing(how).with_escrow(true);
    rotation.prepared(Epoch(2), SLOT);
    rotation
}

fn waiting(how: How) -> Rotation {
    let mut rotation = preparing(how);
    rotation.prepared(Epoch(2), SLOT);
    rotation
}

/// In the slots of other records.
fn carrying() -> Rotation {
    let mut rotation = waiting(How::InBand).with_slots(true);
    rotation.carry(KEY, Sequence(20));
    rotation
}

fn carried() -> Rotation {
    let mut rotation = carrying();
    rotation.carried();
    rotation
}

fn draining() -> Rotation {
    let mut rotation = waiting(How::Pause);
    rotation.due(at(2_000), KEY, Sequence(5));
    rotation
}

fn delivering(how: How) -> Rotation {
    let mut rotation = if how == How::Pause { draining() } else { waiting(how) };
    rotation.placed(at(2_000), KEY, 8, 0);
    rotation
}

/// The one before has reached the hard limit.
fn armed_at_once() -> Rotation {
    let mut rotation = waiting(How::AtOnce);
    rotation.placed(at(2_000), KEY, 8, 0);
    rotation
}

fn armed(how: How) -> Rotation {
    let mut rotation = delivering(how);
    rotation.acknowledged(KEY);
    rotation
}

fn describe(rotation: &Rotation) -> String {
    let key = rotation.active().map_or(0, |key| key.epoch.0);
    let state = match rotation.state() {
        State::Idle => "Idle".to_owned(),
        State::Preparing { how, .. } => format!("Preparing {how:?}"),
        State::Escrowing { how, late_at: Some(_), .. } => format!("Escrowing {how:?}"),
        State::Escrowing { how, late_at: None, .. } => format!("Escrowing {how:?} late"),
        State::Waiting { how, .. } => format!("Waiting {how:?}"),
        State::Carrying { carried: false, .. } => "Carrying InBand".to_owned(),
        State::Carrying { carried: true, .. } => "Carrying InBand all there".to_owned(),
        State::Draining { .. } => "Draining Pause".to_owned(),
        State::Delivering { how, deadline: Some(Instant(0)), .. } => format!("Delivering {how:?} void due"),
        State::Delivering { how, .. } => format!("Delivering {how:?}"),
        State::Armed { how, .. } => format!("Armed {how:?}"),
    };
    if key == 1 { state } else { format!("{state} key {key}") }
}

fn events() -> Vec<Event> {
    vec![
        ("begin in-band", |rotation| format!("{:?}", rotation.begin(at(2_000), How::InBand, true))),
        ("begin pause, link down", |rotation| format!("{:?}", rotation.begin(at(2_000), How::Pause, false))),
        ("begin at once", |rotation| format!("{:?}", rotation.begin(at(2_000), How::AtOnce, false))),
        ("begin at once for an operator", |rotation| {
            let given_up = rotation.give_up_unplaced().map_or_else(String::new, |epoch| format!("gives {epoch} up, "));
            format!("{given_up}{:?}", rotation.begin(at(2_000), How::AtOnce, false))
        }),
        ("drawn only now", |rotation| {
            rotation.begins(at(2_000));
            String::new()
        }),
        ("key suspected", |rotation| {
            rotation.suspect(Epoch(1));
            rotation.active().map_or_else(String::new, |key| format!("{:?}", key.state))
        }),
        ("prepared", |rotation| told(rotation.prepared(Epoch(2), SLOT), "awaited")),
        ("receipt", |rotation| told(rotation.escrowed(Epoch(2)), "awaited")),
        ("receipt of another key", |rotation| told(rotation.escrowed(Epoch(1)), "awaited")),
        ("receipt late", |rotation| {
            rotation.escrow_late(at(9_000)).map_or_else(String::new, |epoch| format!("alarm for {epoch}"))
        }),
        ("preparation failed", |rotation| told(rotation.failed(at(2_000), Epoch(2)), "awaited")),
        ("record due, all acknowledged", |rotation| due(rotation, 2_000, 11, 10)),
        ("record due, link slow", |rotation| due(rotation, 2_000, 11, 5)),
        ("slot due in a standing schedule", |rotation| {
            rotation.schedule(true);
            let due = due(rotation, 2_000, 11, 5);
            rotation.take_slot(at(2_000), Sequence(11)).map_or(due, |epoch| format!("takes key {epoch}"))
        }),
        ("record due at the last place", |rotation| due(rotation, 2_000, 19, 5)),
        ("record due at the carried key's place", |rotation| due(rotation, 2_000, KEY.0, 5)),
        ("record due, too late", |rotation| due(rotation, 9_000, 11, 5)),
        ("record due at the hard limit", |rotation| due(rotation, 1_000_000, 11, 5)),
        ("all pieces acknowledged", |rotation| {
            rotation.carried();
            String::new()
        }),
        ("pieces lost", |rotation| {
            rotation.uncarry();
            String::new()
        }),
        ("carried key placed", |rotation| {
            let start = rotation.is_carrying().then(|| rotation.placed(at(2_000), KEY, 8, 8));
            start.map_or_else(String::new, |start| format!("starts at {start}"))
        }),
        ("key acknowledged", |rotation| {
            rotation.acknowledged(KEY).map_or_else(String::new, |epoch| format!("delivers {epoch}"))
        }),
        ("key refused", |rotation| told(rotation.refused(KEY), "void due")),
        ("void placed", |rotation| rotation.voided().map_or_else(String::new, |ended| format!("{ended:?}"))),
        ("start reached", |rotation| {
            rotation.reached(at(2_000), Sequence(20)).map_or_else(String::new, |ended| format!("{ended:?}"))
        }),
        ("gap to be placed", |rotation| {
            let asked = rotation.renew(at(2_000)).map(|epoch| format!("prepare {epoch}"));
            asked.or(rotation.is_ready_at_once().then(|| "ready".to_owned())).unwrap_or_default()
        }),
    ]
}

fn due(rotation: &mut Rotation, ms: u64, next: u64, acked: u64) -> String {
    format!("{:?}", rotation.due(at(ms), Sequence(next), Sequence(acked)))
}

fn told(yes: bool, what: &str) -> String {
    if yes { what.to_owned() } else { String::new() }
}

fn steps() -> Vec<Step> {
    let states: [fn() -> Rotation; 20] = [
        idle,
        || preparing(How::InBand),
        || preparing(How::Pause),
        || preparing(How::AtOnce),
        || escrowing(How::InBand),
        || escrowing(How::Pause),
        || escrowing(How::AtOnce),
        || waiting(How::InBand),
        || waiting(How::Pause),
        || waiting(How::AtOnce),
        carrying,
        carried,
        draining,
        || delivering(How::InBand),
        || delivering(How::Pause),
        || armed(How::InBand),
        || armed(How::Pause),
        armed_at_once,
        || first(false),
        || first(true),
    ];
    let mut steps = Vec::new();
    for state in states {
        for (event, apply) in events() {
            let mut rotation = state();
            let before = describe(&rotation);
            let does = apply(&mut rotation);
            steps.push(Step { state: before, event, after: describe(&rotation), does });
        }
    }
    steps
}

#[test]
fn every_event_in_every_state_of_a_rotation() {
    snapshot("rotation", &table(&steps()));
}

#[test]
fn the_rotations_diagram_follows_from_its_table() {
    snapshot("rotation_diagram", &diagram(&steps()));
}
