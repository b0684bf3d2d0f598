//! The world: both sites, the link, the clock, one queue of events, and who does what to them.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{self, AssertUnwindSafe};

use farseal_core::primary::{Command, Mode};
use farseal_core::secondary;
use farseal_core::units::{
    BlockBytes, BlockCount, Extent, Instant, Lba, Millis, Now, PairId, Path, Ticket, VolumeId, WallTime,
};

use crate::check::{self, Checker, Failure, liveness, nonce::Nonces};
use crate::dice::Dice;
use crate::disk::to_usize;
use crate::faults::{Fault, Faults};
use crate::flow;
use crate::link::{Link, Message, Side};
use crate::model::Model;
use crate::mutation::Mutation;
use crate::operator::Operator;
use crate::primary::{PrimaryEvent, PrimarySite};
use crate::rollback::Rollback;
use crate::seal::KeyId;
use crate::secondary::{SecondaryEvent, SecondarySite};
use crate::stats::{Sometimes, Stats};
use crate::trace::Trace;
use crate::turn::Sides;

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
    pub stats: Stats,
    pub sides: Sides,
    pub trace: Trace,
    /// Keys that the secondary cannot open, for good.
    pub unopenable: BTreeSet<KeyId>,
    pub in_flight_bytes: u64,
    pub owed_may_have_changed: bool,
    pub rollback: Rollback,
    pub operator: Operator,
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
    world.stats.nonces += crate::disk::wide(world.nonces.len());
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
        if settings.mutation == Some(Mutation::HandOverNotKept) {
            faults.insist(Fault::CrashPrimary, 100);
        }
        let often = [Mutation::HandOverNotKept, Mutation::TakenBackAsAsked, Mutation::OwnHistoryNotOwed];
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
        let secondary_settings = secondary::Settings {
            pair: PAIR,
            volume: VOLUME,
            encrypted: true,
            block_bytes: block_bytes(),
            blocks: BlockCount(blocks),
        };
        Self {
            model: Model::new(to_usize(blocks)),
            primary,
            secondary: SecondarySite::new(secondary_settings),
            link: Link::new(paths),
            faults,
            nonces: Nonces::default(),
            stats: Stats { seeds: 1, ..Stats::default() },
            sides: Sides::draw(seed, often),
            trace: Trace::new(settings.traced, settings.whole),
            unopenable: BTreeSet::new(),
            in_flight_bytes: 0,
            owed_may_have_changed: true,
            rollback: Rollback::draw(seed, settings.mutation == Some(Mutation::GivenUpForgotten)),
            operator,
            now: 0,
            queue: BTreeMap::new(),
            tie: 0,
            wall_offset: 1_700_000_000_000,
            operations_left: operations,
            pace_us,
            healed_at: None,
            settling_since: None,
            ends_in_takeover: dice.chance(120),
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
        self.restart_primary()?;
        self.restart_secondary()?;
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
            if let Some(healed_at) = self.healed_at
                && self.now > healed_at + liveness::BOUND_MS * 1000
            {
                return Err(liveness::failed(self));
            }
        }
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
        self.follow_presets()?;
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

    fn write(&mut self) -> Outcome {
        if !self.room_for_write() {
            self.stats.see(Sometimes::WriteRefusedForRoom);
            return Ok(());
        }
        let blocks = crate::disk::wide(self.model.accepted.len());
        let dice = &mut self.dice_initiator;
        let most = if dice.chance(20) { blocks } else { 12.min(blocks) };
        // A hot spot makes overlaps likely.
        let first = if dice.chance(400) { dice.below(8) } else { dice.below(blocks) };
        let len = dice.between(1, most + 1).min(blocks - first);
        let what = match dice.below(12) {
            0 => farseal_core::primary::What::Zero,
            1 => farseal_core::primary::What::Trim,
            _ => farseal_core::primary::What::Data,
        };
        let fua = dice.chance(100);
        let Some(extent) = Extent::new(Lba(first), BlockCount(len)) else { return Ok(()) };
        let stamps = match what {
            farseal_core::primary::What::Data => {
                self.next_stamp += len;
                (self.next_stamp - len + 1..=self.next_stamp).collect()
            }
            farseal_core::primary::What::Zero | farseal_core::primary::What::Trim => Vec::new(),
        };
        let ticket = self.ticket();
        self.submit_write(ticket, what, extent, fua, stamps)
    }

    fn flush(&mut self) -> Outcome {
        let ticket = self.ticket();
        self.submit_flush(ticket)
    }

    fn read(&mut self) -> Outcome {
        let found = self.primary.read_all();
        check::write_order::read(self, &found)
    }

    pub fn ticket(&mut self) -> Ticket {
        self.next_ticket += 1;
        Ticket(self.next_ticket)
    }

    fn accidents(&mut self) -> Outcome {
        if self.faults.strikes(Fault::CrashBoth) {
            self.crash(Side::Primary);
            self.crash(Side::Secondary);
        }
        if self.faults.strikes(Fault::CrashPrimary) {
            self.crash(Side::Primary);
        }
        if self.faults.strikes(Fault::CrashSecondary) {
            self.crash(Side::Secondary);
        }
        for path in self.link.paths() {
            if self.faults.strikes(Fault::PathLost) {
                self.break_path(path);
            }
            for (fault, cut) in [
                (Fault::PathCut, [true, true]),
                (Fault::OneWay, [self.dice_net.chance(500), self.dice_net.chance(500)]),
            ] {
                if self.faults.strikes_at(fault, 4) {
                    self.link.line(path).cut = cut;
                    let span = self.dice_net.between(1_000, 3_000_000);
                    self.after(span, Event::Mend(path));
                }
            }
            if self.faults.strikes(Fault::Nonsense) {
                self.send(path, Side::Secondary, Message::Nonsense);
            }
        }
        for (fault, full) in [(Fault::JournalFull, 0), (Fault::HomeFull, 1), (Fault::LogFull, 2)] {
            if self.faults.strikes_at(fault, 4) {
                self.fill(full);
                let span = self.dice_disk.between(1_000, 5_000_000);
                self.after(span, Event::FreeSpace);
            }
        }
        self.snapshots();
        if self.faults.strikes(Fault::ClockJump) {
            self.wall_offset = self.dice_life.between(1_600_000_000_000, 1_800_000_000_000);
        }
        Ok(())
    }

    fn fill(&mut self, disk: u8) {
        match disk {
            0 => self.primary.journal_disk_full = true,
            1 => self.primary.home_disk_full = true,
            _ => self.secondary.disk_full = true,
        }
    }

    fn free_space(&mut self) {
        self.primary.journal_disk_full = false;
        self.primary.home_disk_full = false;
        self.secondary.disk_full = false;
    }

    pub fn crash(&mut self, side: Side) {
        let lines = self.link.paths();
        match side {
            Side::Primary if self.primary.machine.is_some() => self.crash_primary(),
            Side::Secondary if self.secondary.machine.is_some() => self.crash_secondary(),
            Side::Primary | Side::Secondary => return,
        }
        for path in lines {
            self.break_path(path);
        }
        let down = self.dice_life.between(100, 2_000_000);
        self.after(down, Event::Restart(side));
    }

    /// Faults stop; the operator mends what is broken, or takes over what there is.
    fn heal(&mut self) -> Outcome {
        if self.healed_at.is_some() {
            return Ok(());
        }
        if self.sides.is_changing() {
            // First who writes is settled.
            let since = *self.settling_since.get_or_insert(self.now);
            if self.now > since + liveness::BOUND_MS * 1000 {
                return Err(liveness::failed(self));
            }
            self.after(100_000, Event::Operation);
            return Ok(());
        }
        if self.ends_in_takeover && self.may_be_taken_over() {
            self.stats.see(Sometimes::TakeOver);
            self.ends_in_takeover = false;
            self.take_over()?;
            return self.judge_takeover();
        }
        self.faults.healed = true;
        self.healed_at = Some(self.now);
        self.free_space();
        // Of several paths now and then one alone comes back: it must do.
        let wanted = self.wanted_paths().min(self.link.lines.len());
        let alone = (self.link.lines.len() > 1 && self.dice_net.chance(250))
            .then(|| to_usize(self.dice_net.below(crate::disk::wide(wanted))));
        for (at, line) in self.link.lines.iter_mut().enumerate() {
            line.cut = [alone.is_some_and(|alone| alone != at); 2];
        }
        if alone.is_some() {
            self.stats.see(Sometimes::OnePathHealed);
        }
        if self.primary.broken {
            self.crash(Side::Primary);
        }
        if self.secondary.broken {
            self.crash(Side::Secondary);
        }
        self.after(1000, Event::Look);
        self.let_flow()?;
        self.no_presets();
        if self.primary.machine.is_some() {
            self.tell_primary(farseal_core::primary::Input::Operator(Command::Resume))?;
        }
        Ok(())
    }

    fn look(&mut self) -> Outcome {
        if let Some(healed_at) = self.healed_at
            && self.rollback.happened()
        {
            self.judge_rollback(healed_at)?;
            if self.over {
                return Ok(());
            }
        } else if self.rollback.happened() {
            // A takeover of whatever the secondary has: nothing to compare it with.
            self.over = true;
            return Ok(());
        }
        if self.healed_at.is_none() {
            return self.judge_takeover();
        }
        if liveness::recovered(self) && !self.rollback.happened() {
            self.over = true;
            check::bounds::at_rest(self)?;
            let found = self.primary.read_all();
            return check::write_order::read(self, &found);
        }
        self.after(50_000, Event::Look);
        // A resume that came while the node was down, and a disk that failed in the last moment.
        if self.primary.broken && self.primary.machine.is_some() {
            self.crash(Side::Primary);
        } else if self.secondary.broken && self.secondary.machine.is_some() {
            self.crash(Side::Secondary);
        } else if self.primary.machine.is_some() && self.primary.paused {
            return self.tell_primary(farseal_core::primary::Input::Operator(Command::Resume));
        }
        Ok(())
    }

    /// What a takeover opens is what was offered, and the old primary is not believed any more.
    fn judge_takeover(&mut self) -> Outcome {
        let through = self.secondary.offered;
        if self.rollback.happened() {
            self.over = true;
            return Ok(());
        }
        if self.secondary.machine.as_ref().is_some_and(|machine| machine.status().taken_over) {
            self.over = true;
            return self.judge_opened(through);
        }
        self.after(1000, Event::Look);
        Ok(())
    }

    // ---- link

    fn net_delay(&mut self) -> u64 {
        let slow = if self.faults.strikes(Fault::SlowLink) { 100 } else { 1 };
        self.dice_net.between(20, 2_000) * slow
    }

    pub fn dial(&mut self, path: Path) {
        if !self.link.line(path).dialling {
            self.link.line(path).dialling = true;
            let delay = self.dice_net.between(1_000, 400_000);
            self.after(delay, Event::Connect(path));
        }
    }

    fn connect(&mut self, path: Path) -> Outcome {
        let up = self.primary.machine.is_some() && self.secondary.machine.is_some();
        let parted = self.healed_at.is_none() && self.is_parted();
        let line = self.link.line(path);
        line.dialling = false;
        if line.open {
            return Ok(());
        }
        if !up || parted || line.cut != [false; 2] || line.primary_up {
            self.dial(path);
            return Ok(());
        }
        line.session += 1;
        line.open = true;
        line.primary_up = true;
        self.attach(path)
    }

    pub fn send(&mut self, path: Path, to: Side, message: Message) {
        let delay = self.net_delay();
        let now = self.now;
        let line = self.link.line(path);
        if !line.open {
            return;
        }
        let at = (now + delay).max(line.busy_until[to.direction()]);
        line.busy_until[to.direction()] = at;
        let session = line.session;
        self.after(at - now, Event::Deliver { path, session, to, message });
    }

    fn deliver(&mut self, path: Path, session: u64, to: Side, message: Message) -> Outcome {
        let line = self.link.line(path);
        if line.session != session || !line.open {
            return Ok(());
        }
        if line.cut[to.direction()] {
            // Nothing arrives any more; both ends notice after their timeouts.
            self.break_path(path);
            return Ok(());
        }
        match to {
            Side::Primary => self.primary_receives(path, message),
            Side::Secondary => {
                if !line.secondary_up {
                    line.secondary_up = true;
                    // The same path came anew before the old connection's end was noticed.
                    self.tell_secondary(secondary::Input::PathLost { path })?;
                }
                self.secondary_receives(path, message)
            }
        }
    }

    /// The connection is dead; each side that is up learns of it in its own time.
    pub fn break_path(&mut self, path: Path) {
        let line = self.link.line(path);
        if !line.open {
            return;
        }
        line.open = false;
        let session = line.session;
        for side in [Side::Primary, Side::Secondary] {
            let delay = self.dice_net.between(10, 600_000);
            self.after(delay, Event::Lost { path, session, side });
        }
    }

    /// This side ends the connection and knows it at once.
    pub fn close_path(&mut self, path: Path, side: Side) {
        match side {
            Side::Primary => self.link.line(path).primary_up = false,
            Side::Secondary => self.link.line(path).secondary_up = false,
        }
        self.break_path(path);
    }

    fn path_lost(&mut self, path: Path, session: u64, side: Side) -> Outcome {
        let line = self.link.line(path);
        if line.session != session {
            return Ok(());
        }
        match side {
            Side::Primary => {
                let was_up = std::mem::take(&mut line.primary_up);
                self.primary.carrier = self.primary.carrier.filter(|carrier| *carrier != path);
                self.dial(path);
                if was_up && self.primary.machine.is_some() {
                    return self.tell_primary(farseal_core::primary::Input::PathLost { path });
                }
            }
            Side::Secondary => {
                let was_up = std::mem::take(&mut line.secondary_up);
                if was_up && self.secondary.machine.is_some() {
                    return self.tell_secondary(secondary::Input::PathLost { path });
                }
            }
        }
        Ok(())
    }
}

pub fn block_bytes() -> BlockBytes {
    BlockBytes::new(BLOCK_BYTES).unwrap_or(BlockBytes::DEFAULT)
}
