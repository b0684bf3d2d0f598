//! The world: both sites, the link, the clock, one queue of events, and who does what to them.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{self, AssertUnwindSafe};

use farseal_core::chain::Chain;
use farseal_core::limits::SEQUENCE_MAX;
use farseal_core::lineage::Lineage;
use farseal_core::primary::Mode;
use farseal_core::secondary;
use farseal_core::units::{
    BlockBytes, BlockCount, Instant, Millis, Now, PairId, Path, Sequence, Ticket, VolumeId, WallTime,
};

use crate::check::{self, Checker, Failure, ceiling::Ceilings, liveness, nonce::Nonces};
use crate::dice::Dice;
use crate::disaster::{Disaster, DisasterEvent};
use crate::disguise::Disguise;
use crate::disk::to_usize;
use crate::faults::{Fault, Faults};
use crate::flow;
use crate::link::{Link, Message, Side};
use crate::model::Model;
use crate::mutation::Mutation;
use crate::operator::Operator;
use crate::points::Points;
use crate::policy::Policy;
use crate::primary::{PrimaryEvent, PrimarySite};
use crate::retire::Retirement;
use crate::rollback::Rollback;
use crate::seal::KeyId;
use crate::secondary::{SecondaryEvent, SecondarySite};
use crate::slots::Slots;
use crate::stats::{Sometimes, Stats};
use crate::trace::Trace;
use crate::turn::Sides;
use crate::witness::{self, Witness, WitnessEvent};

mod accident;
mod ending;
mod initiator;
mod paths;

pub type Outcome = Result<(), Failure>;

pub const PAIR: PairId = PairId([0xfa; 16]);
pub const VOLUME: VolumeId = VolumeId([0x5e; 16]);
/// The smallest block: cheap to move.
pub const BLOCK_BYTES: u32 = 512;

/// What a run is a function of, beside the code.
#[derive(Clone, Debug)]
pub struct Settings {
    pub seed: u64,
    /// Operations of initiators and operators before everything heals; the seed draws it where this is `None`.
    pub operations: Option<u64>,
    /// Kinds of fault that are left out.
    pub without: BTreeSet<Fault>,
    /// Kinds that the run has whatever the seed draws, and often.
    pub with: BTreeSet<Fault>,
    pub mutation: Option<Mutation>,
    pub traced: bool,
    /// Every event is told, not only the last ones.
    pub whole: bool,
}

impl Settings {
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            operations: None,
            without: BTreeSet::new(),
            with: BTreeSet::new(),
            mutation: None,
            traced: false,
            whole: false,
        }
    }
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Report {
    pub settings: Settings,
    pub stats: Stats,
    pub failure: Option<Failure>,
    pub trace: Vec<String>,
    /// Of every event of the run, where it was traced.
    pub trace_hash: u64,
}

#[derive(Clone, Debug)]
pub enum Event {
    /// The next thing that an initiator, an operator or a fault does.
    Operation,
    Primary {
        life: u32,
        event: PrimaryEvent,
    },
    Secondary {
        life: u32,
        event: SecondaryEvent,
    },
    Tick {
        side: Side,
        life: u32,
    },
    Restart(Side),
    Connect(Path),
    Deliver {
        path: Path,
        session: u64,
        to: Side,
        message: Message,
    },
    Lost {
        path: Path,
        session: u64,
        side: Side,
    },
    Mend(Path),
    FreeSpace,
    /// Is the pair back?
    Look,
    /// The site that was taken over from, or handed over, becomes the keeper.
    Turn,
    Disaster(DisasterEvent),
    Witness(WitnessEvent),
}

#[derive(Debug)]
pub struct World {
    pub settings: Settings,
    pub model: Model,
    pub primary: PrimarySite,
    pub secondary: SecondarySite,
    pub link: Link,
    pub faults: Faults,
    pub nonces: Nonces,
    pub ceilings: Ceilings,
    pub policy: Policy,
    /// The primary has said that there are no more sequence numbers.
    pub order_ended: bool,
    pub stats: Stats,
    pub sides: Sides,
    pub trace: Trace,
    /// Keys that the secondary cannot open, for good.
    pub unopenable: BTreeSet<KeyId>,
    pub in_flight_bytes: u64,
    pub owed_may_have_changed: bool,
    pub rollback: Rollback,
    pub retirement: Retirement,
    pub disaster: Disaster,
    pub witness: Witness,
    pub points: Points,
    pub operator: Operator,
    pub disguise: Disguise,
    pub slots: Slots,
    /// Microseconds since the world began.
    pub now: u64,
    queue: BTreeMap<(u64, u64), Event>,
    tie: u64,
    wall_offset: u64,
    operations_left: u64,
    pace_us: u64,
    healed_at: Option<u64>,
    /// Nothing else is left to do since then.
    settling_since: Option<u64>,
    ends_in_takeover: bool,
    /// It does so now: nothing more happens to the keeper.
    pub closing: bool,
    /// The run is over, and that is right so.
    pub over: bool,
    next_ticket: u64,
    next_stamp: u64,
    pub dice_disk: Dice,
    pub dice_life: Dice,
    dice_net: Dice,
    dice_initiator: Dice,
    pub dice_flow: Dice,
}

/// One run, from the first event to the last check.
pub fn run(settings: &Settings) -> Report {
    let mut world = World::new(settings.clone());
    let failure = panic::catch_unwind(AssertUnwindSafe(|| world.run().err())).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        Some(Failure::new(Checker::Panic, text.unwrap_or("no message")))
    });
    world.stats.simulated_us += world.now;
    world.stats.nonces += world.nonces.len();
    for (fault, count) in &world.faults.injected {
        *world.stats.faults.entry(*fault).or_default() += count;
    }
    let trace_hash = world.trace.hash();
    Report { settings: settings.clone(), stats: world.stats, failure, trace: world.trace.lines(), trace_hash }
}

impl World {
    fn new(settings: Settings) -> Self {
        let seed = settings.seed;
        let mut dice = Dice::new(seed, 1);
        let mut faults = Faults::draw(seed, &settings.without);
        settings.with.iter().for_each(|fault| faults.insist(*fault, 100));
        if settings.mutation == Some(Mutation::DamageIgnored) {
            faults.insist(Fault::JournalRot, 1000);
            faults.insist(Fault::CrashPrimary, 50);
        }
        let retried = match settings.mutation {
            Some(Mutation::JournalSyncRetried) => Some((Fault::JournalSyncFails, Fault::CrashPrimary)),
            Some(Mutation::HomeSyncRetried) => Some((Fault::HomeSyncFails, Fault::CrashPrimary)),
            Some(Mutation::LogSyncRetried) => Some((Fault::LogFails, Fault::CrashSecondary)),
            _ => None,
        };
        for fault in retried.into_iter().flat_map(|(fails, crash)| [fails, crash]) {
            faults.insist(fault, 50);
        }
        if settings.mutation == Some(Mutation::GivenUpForgotten) {
            faults.insist(Fault::SnapshotPrimary, 100);
            faults.insist(Fault::SmallJournal, 1000);
        }
        if [Mutation::HandOverNotKept, Mutation::IncarnationReused].map(Some).contains(&settings.mutation) {
            faults.insist(Fault::CrashPrimary, 100);
        }
        match settings.mutation {
            Some(Mutation::KeyOfTheSnapshot) => faults.insist(Fault::SnapshotPrimary, 100),
            Some(Mutation::SealedAgain) => faults.insist(Fault::JournalFull, 100),
            Some(Mutation::FlagNotShown) => faults.insist(Fault::FlagStripped, 100),
            Some(Mutation::FloorForgotten | Mutation::CheckpointForgotten) => faults.insist(Fault::CrashSecondary, 50),
            _ => {}
        }
        let often = [
            Mutation::HandOverNotKept,
            Mutation::TakenBackAsAsked,
            Mutation::OwnHistoryNotOwed,
            Mutation::StaleKeySealsOn,
            Mutation::OwnHistoryNotAsked,
        ];
        let often = settings.mutation.is_some_and(|mutation| often.contains(&mutation));
        let operator = Operator::draw(seed, &settings, &mut faults);
        let blocks = dice.between(40, 420);
        let paths = u16::try_from(dice.between(1, 5)).unwrap_or(1);
        let operations = settings.operations.unwrap_or_else(|| dice.between(50, 500));
        let pace_us = [300, 2_000, 10_000, 60_000][to_usize(dice.below(4))];
        let small = faults.has(Fault::SmallJournal);
        let flow = flow::draw(seed, paths);
        let mut primary = PrimarySite::new(&mut dice, blocks, small, flow);
        let mut without_order = Dice::new(seed, 12);
        if without_order.chance(120) {
            primary.settings.mode = Mode::Async;
            primary.settings.unordered = Some(Millis(without_order.between(200, 8_000)));
        }
        let disguise = Disguise::draw(seed);
        primary.settings.pause_hidden = disguise.pause_hidden;
        primary.settings.in_slots = disguise.in_slots;
        // A key needs a hundred records that somebody writes.
        let operations = if disguise.in_slots && settings.operations.is_none() { operations * 2 } else { operations };
        let secondary_settings = secondary::Settings {
            layout: None,
            pair: PAIR,
            volume: VOLUME,
            encrypted: true,
            block_bytes: block_bytes(),
            blocks: BlockCount(blocks),
        };
        let mut sides = Sides::draw(seed, often);
        let (mut disaster, mut witness) =
            (Disaster::draw(seed, settings.mutation), Witness::draw(seed, settings.mutation));
        let before = near_the_end(seed, &settings);
        let mut secondary = SecondarySite::new(secondary_settings);
        if before > Sequence::NONE {
            let lineage = Lineage::at(primary.settings.generation, before, Chain::START);
            secondary = SecondarySite::keeper(&secondary, lineage, vec![0; to_usize(blocks)], None, None);
            primary.begins_behind(before);
            sides.keep();
            disaster.keep();
            witness.keep();
        }
        let slow = witness.is_in_force();
        let pace_us = if slow { witness::PACE_US } else { pace_us };
        let operations =
            if slow && settings.operations.is_none() { operations + witness.operations() } else { operations };
        faults.rarer = if slow { witness::RARER } else { 1 };
        let policy = Policy::draw(seed, &mut primary.settings.key_limits, settings.mutation);
        Self {
            model: Model::new(to_usize(blocks), before),
            primary,
            secondary,
            link: Link::new(paths),
            faults,
            nonces: Nonces::default(),
            ceilings: Ceilings::default(),
            policy,
            order_ended: false,
            stats: Stats { seeds: 1, ..Stats::default() },
            sides,
            trace: Trace::new(settings.traced, settings.whole),
            unopenable: BTreeSet::new(),
            in_flight_bytes: 0,
            owed_may_have_changed: true,
            rollback: Rollback::draw(seed, settings.mutation == Some(Mutation::GivenUpForgotten)),
            retirement: Retirement::draw(seed, settings.mutation),
            disaster,
            witness,
            points: Points::draw(seed),
            operator,
            disguise,
            slots: Slots::default(),
            now: 0,
            queue: BTreeMap::new(),
            tie: 0,
            wall_offset: 1_700_000_000_000,
            operations_left: operations,
            pace_us,
            healed_at: None,
            settling_since: None,
            ends_in_takeover: dice.chance(120),
            closing: false,
            over: false,
            next_ticket: 0,
            next_stamp: 0,
            dice_disk: Dice::new(seed, 4),
            dice_life: Dice::new(seed, 5),
            dice_net: Dice::new(seed, 6),
            dice_initiator: Dice::new(seed, 7),
            dice_flow: Dice::new(seed, flow::STREAM),
            settings,
        }
    }

    fn run(&mut self) -> Outcome {
        if self.primary.settings.unordered.is_some() {
            self.stats.see(Sometimes::WithoutOrder);
        }
        self.stats.sometimes.extend(self.policy.seen().map(|seen| (seen, 1)));
        if self.model.before > Sequence::NONE {
            self.begin_segment(self.model.before.next());
        }
        self.restart_primary()?;
        self.restart_secondary()?;
        self.begin_witness();
        for path in self.link.paths() {
            self.dial(path);
        }
        self.after(0, Event::Operation);
        while !self.over {
            let Some(((at, _), event)) = self.queue.pop_first() else { break };
            self.now = at.max(self.now);
            self.stats.events += 1;
            let now = self.now;
            self.trace.note(now, || format!("{event:?}"));
            self.happen(event)?;
            check::instant(self)?;
            self.owed_may_have_changed = false;
            self.retirement.changed = false;
            if let Some(healed_at) = self.healed_at
                && self.now > healed_at + liveness::BOUND_MS * 1000
            {
                return Err(liveness::failed(self));
            }
        }
        self.retirement.changed = true;
        check::retired::check(self)?;
        check::bounds::lists(self)
    }

    fn happen(&mut self, event: Event) -> Outcome {
        match event {
            Event::Operation => self.operate(),
            Event::Primary { life, event } if life == self.primary.life => self.primary_event(event),
            Event::Secondary { life, event } if life == self.secondary.life => self.secondary_event(event),
            Event::Primary { .. } | Event::Secondary { .. } => Ok(()),
            Event::Tick { side, life } => self.tick(side, life),
            Event::Restart(Side::Primary) => self.restart_primary(),
            Event::Restart(Side::Secondary) => self.restart_secondary(),
            Event::Connect(path) => self.connect(path),
            Event::Deliver { path, session, to, message } => self.deliver(path, session, to, message),
            Event::Lost { path, session, side } => self.path_lost(path, session, side),
            Event::Mend(path) => {
                if self.healed_at.is_some() {
                    return Ok(());
                }
                self.link.line(path).cut = [false; 2];
                Ok(())
            }
            Event::FreeSpace => {
                self.free_space();
                Ok(())
            }
            Event::Look => self.look(),
            Event::Turn => self.turn(),
            Event::Disaster(event) => self.disaster_event(event),
            Event::Witness(event) => self.witness_event(event),
        }
    }

    // ---- time

    pub fn after(&mut self, delay_us: u64, event: Event) {
        self.tie += 1;
        self.queue.insert((self.now + delay_us, self.tie), event);
    }

    pub fn clock(&self) -> Now {
        let ms = self.now / 1000;
        Now { instant: Instant(ms), wall: WallTime(self.wall_offset.saturating_add(ms)) }
    }

    fn tick(&mut self, side: Side, life: u32) -> Outcome {
        match side {
            Side::Primary if life == self.primary.life => {
                self.primary.tick_at = None;
                self.tell_primary(farseal_core::primary::Input::Tick)
            }
            Side::Secondary if life == self.secondary.life => {
                self.secondary.tick_at = None;
                self.tell_secondary(secondary::Input::Tick)
            }
            Side::Primary | Side::Secondary => Ok(()),
        }
    }

    /// A disk takes this long, in microseconds.
    pub fn disk_delay(&mut self, most: u64) -> u64 {
        let slow = if self.faults.strikes(Fault::SlowDisk) { 200 } else { 1 };
        self.dice_disk.between(10, most) * slow
    }

    /// As [`World::disk_delay`], for a sync; now and then one takes seconds.
    pub fn sync_delay(&mut self, most: u64) -> u64 {
        let slow = if self.faults.strikes(Fault::SlowSync) { self.dice_disk.between(1_000_000, 15_000_000) } else { 0 };
        self.disk_delay(most) + slow
    }

    /// Does a sync that fails drop what it was to write?
    pub fn drops(&mut self) -> bool {
        let drops = self.dice_disk.chance(700);
        if drops {
            self.stats.see(Sometimes::SyncDropped);
        }
        drops
    }

    // ---- initiators, operators, accidents

    fn operate(&mut self) -> Outcome {
        if self.operations_left == 0 && !self.one_more() {
            return self.heal();
        }
        self.operations_left = self.operations_left.saturating_sub(1);
        let pace = self.dice_initiator.between(1, 2 * self.pace_us) + self.paced();
        self.after(pace, Event::Operation);
        self.stats.operations += 1;
        self.accidents()?;
        self.change_sides()?;
        self.declare()?;
        self.follow_presets()?;
        self.retire()?;
        if self.primary.machine.is_none() {
            return Ok(());
        }
        match self.dice_initiator.below(100) {
            0..70 => {
                let burst = if self.dice_initiator.chance(60) { self.dice_initiator.between(2, 30) } else { 1 };
                for _ in 0..burst {
                    self.write()?;
                }
                Ok(())
            }
            70..80 => self.flush(),
            80..94 => self.read(),
            _ => self.command(),
        }
    }

    pub fn ticket(&mut self) -> Ticket {
        self.next_ticket += 1;
        Ticket(self.next_ticket)
    }
}

/// Some seeds begin so near the last sequence number that they reach it.
fn near_the_end(seed: u64, settings: &Settings) -> Sequence {
    let mut dice = Dice::new(seed, 20);
    let chosen = dice.chance(15) && settings.mutation.is_none();
    if chosen { Sequence(SEQUENCE_MAX - dice.between(20, 3_000)) } else { Sequence::NONE }
}

pub fn block_bytes() -> BlockBytes {
    BlockBytes::new(BLOCK_BYTES).unwrap_or(BlockBytes::DEFAULT)
}
