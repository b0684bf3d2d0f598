//! A world of several lanes: one group over them at both sites, initiators whose writes depend on each other across
//! lanes, nodes that crash, leads too, and an interconnect that is slow and breaks.
//!
//! A world of its own beside [`crate::world`]: there one lane meets every fault of disk, key and link; here many lanes
//! meet what could set them apart.

use std::collections::{BTreeMap, BTreeSet};

use farseal_core::frame::{Ack, Attach, KeyRefusal, Welcome};
use farseal_core::group::{
    Command, Common, Coordinator, CutName, Input as GroupInput, KeptCuts, Numbers, OfferLimit, Output as GroupOutput,
    Phase, Settings as GroupSettings,
};
use farseal_core::primary::{self, Input};
use farseal_core::secondary;
use farseal_core::units::{
    ByteLen, CutNumber, Extent, Instant, Lba, Millis, Now, PairId, Path, Sequence, Ticket, WallTime,
};

use crate::check::{Checker, Failure, group_cut};
use crate::dice::Dice;
use crate::disk::{to_usize, wide};
use crate::seal::Stamp;
use crate::world::Outcome;

mod drive;
mod interconnect;
pub mod keeper;
pub mod lane;

use keeper::Keeper;
use lane::{Lane, Rec};

/// Blocks of each volume; a write has one of its own, so that an image says which writes it holds.
pub const BLOCKS: u64 = 2048;
const INITIATORS: usize = 3;
/// How long the sites have to settle when nothing happens to them any more.
const SETTLE_US: u64 = 1_500_000;
/// A link's one path.
const PATH: Path = Path(0);

/// How the world is broken on purpose; the checker must notice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mutation {
    /// Answers go out before every lane has opened the cut.
    ReleasedEarly,
    /// A cut that nobody confirms is offered.
    UnconfirmedOffered,
    /// A lane says that it has opened a cut, and fixes its boundary later.
    BoundaryLate,
    /// A read shows a write whose answer is withheld.
    ReadNotHeld,
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Report {
    pub seed: u64,
    pub failure: Option<Failure>,
    pub lanes: usize,
    pub writes: u64,
    pub made: u64,
    pub abandoned: u64,
    /// Cuts that the keeping site offered.
    pub offered: u64,
    pub crashes: u64,
    pub paused: u64,
    pub reads_held: u64,
    pub lost: u64,
}

#[derive(Clone, Debug)]
enum Event {
    Operation,
    Initiator(usize),
    Appended {
        lane: usize,
        life: u64,
    },
    Synced {
        lane: usize,
        life: u64,
        end: usize,
        through: Sequence,
    },
    CopyRead {
        lane: usize,
        life: u64,
        extent: Extent,
        stamps: Vec<Stamp>,
    },
    LaneTick {
        lane: usize,
        life: u64,
    },
    LogSynced {
        lane: usize,
        life: u64,
        end: usize,
        stored: u64,
    },
    LaneBack(usize),
    KeeperBack(usize),
    Connect(usize),
    ToKeeper {
        lane: usize,
        session: u64,
        message: Box<ToKeeper>,
    },
    ToLane {
        lane: usize,
        session: u64,
        message: ToLane,
    },
    /// Over the interconnect of the writing site.
    Order {
        lane: usize,
        session: u64,
        order: GroupOutput,
    },
    Report {
        lane: usize,
        session: u64,
        report: GroupInput,
    },
    Join(usize),
    Look {
        lane: usize,
        session: u64,
    },
    LeadTick {
        life: u64,
    },
    LeadBack,
    Reserved {
        life: u64,
    },
    /// Over the interconnect of the keeping site.
    Cuts {
        lane: usize,
        cuts: KeptCuts,
    },
    Limit {
        lane: usize,
        life: u64,
        limit: OfferLimit,
    },
}

#[derive(Clone, Debug)]
enum ToKeeper {
    Attach(Attach),
    Records(Vec<Rec>),
}

#[derive(Clone, Debug)]
enum ToLane {
    Welcome(Welcome),
    Ack(Ack),
    KeyRefused(Sequence, KeyRefusal),
}

/// A write, and what its initiator knew when it issued it.
#[derive(Clone, Debug)]
pub struct Write {
    pub lane: usize,
    pub block: u64,
    pub depends: Vec<Stamp>,
    /// A crash at the writing site took it back.
    pub lost: bool,
}

#[derive(Clone, Debug, Default)]
struct Initiator {
    /// Writes that it was answered, or read, since its last own write.
    knows: Vec<Stamp>,
    /// What it waits for.
    ticket: Option<Ticket>,
}

#[derive(Debug)]
pub struct World {
    mutation: Option<Mutation>,
    dice: Dice,
    now: u64,
    queue: BTreeMap<(u64, u64), Event>,
    tie: u64,
    pub lanes: Vec<Lane>,
    pub keepers: Vec<Keeper>,
    /// Of each lane's link, and of its interconnect.
    links: Vec<u64>,
    linked: Vec<bool>,
    sessions: Vec<u64>,
    joined: Vec<bool>,
    /// When the last word of each direction arrives: words do not overtake each other.
    order_at: Vec<u64>,
    report_at: Vec<u64>,
    written: Vec<bool>,
    lead: Option<Coordinator>,
    lead_life: u64,
    numbers: Numbers,
    // Durable at the lead.
    reserved: CutNumber,
    phase: Phase,
    common: Common,
    pub writes: BTreeMap<Stamp, Write>,
    /// Cuts that the lead confirmed.
    pub made: BTreeSet<CutNumber>,
    tickets: BTreeMap<Ticket, (usize, usize, Stamp)>,
    next_ticket: u64,
    initiators: Vec<Initiator>,
    /// Reads that wait for a release: initiator, lane, block, what they show.
    reads: Vec<(usize, usize, Extent, Stamp)>,
    operations: u64,
    /// When initiators and accidents stopped.
    healed: Option<u64>,
    report: Report,
}

/// Names a lane's pair.
#[must_use]
pub fn pair(index: usize) -> PairId {
    PairId([u8::try_from(index + 1).unwrap_or(u8::MAX); 16])
}

/// One run, from the first event to the takeover at the end.
#[must_use]
pub fn run(seed: u64, mutation: Option<Mutation>) -> Report {
    let mut world = World::new(seed, mutation);
    let failure =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.run().err())).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
            Some(Failure::new(Checker::Panic, text.unwrap_or("no message")))
        });
    Report { failure, ..world.report }
}

impl World {
    fn new(seed: u64, mutation: Option<Mutation>) -> Self {
        let mut dice = Dice::new(seed, 11);
        let count = to_usize(dice.between(if mutation.is_some() { 2 } else { 1 }, 5));
        let operations = dice.between(100, 500);
        let all: BTreeSet<PairId> = (0..count).map(pair).collect();
        let report = Report {
            seed,
            failure: None,
            lanes: count,
            writes: 0,
            made: 0,
            abandoned: 0,
            offered: 0,
            crashes: 0,
            paused: 0,
            reads_held: 0,
            lost: 0,
        };
        Self {
            mutation,
            dice,
            now: 0,
            queue: BTreeMap::new(),
            tie: 0,
            lanes: (0..count).map(Lane::new).collect(),
            keepers: (0..count).map(Keeper::new).collect(),
            links: vec![0; count],
            linked: vec![false; count],
            sessions: vec![0; count],
            joined: vec![false; count],
            order_at: vec![0; count],
            report_at: vec![0; count],
            written: vec![true; count],
            lead: None,
            lead_life: 0,
            numbers: Numbers::after(CutNumber::NONE),
            reserved: CutNumber::NONE,
            phase: Phase::Running,
            common: Common::new(all, CutNumber::NONE, false),
            writes: BTreeMap::new(),
            made: BTreeSet::new(),
            tickets: BTreeMap::new(),
            next_ticket: 0,
            initiators: vec![Initiator::default(); INITIATORS],
            reads: Vec::new(),
            operations,
            healed: None,
            report,
        }
    }

    fn run(&mut self) -> Outcome {
        self.lead_back();
        for lane in 0..self.lanes.len() {
            self.lane_back(lane)?;
            self.keeper_back(lane)?;
            self.after(0, Event::Connect(lane));
            self.after(0, Event::Join(lane));
        }
        for initiator in 0..INITIATORS {
            self.after(0, Event::Initiator(initiator));
        }
        self.after(0, Event::Operation);
        while let Some(((at, _), event)) = self.queue.pop_first() {
            self.now = at;
            // What is left then are ticks and looks; a paused lane copies nothing more.
            if self.healed.is_some_and(|healed| self.is_quiet() || at > healed + SETTLE_US) {
                break;
            }
            self.happen(event)?;
        }
        self.take_over()
    }

    fn clock(&self) -> Now {
        let ms = self.now / 1_000;
        Now { instant: Instant(ms), wall: WallTime(1_700_000_000_000 + ms) }
    }

    fn after(&mut self, delay_us: u64, event: Event) {
        self.tie += 1;
        self.queue.insert((self.now + delay_us, self.tie), event);
    }

    fn happen(&mut self, event: Event) -> Outcome {
        match event {
            Event::Operation => self.operate(),
            Event::Initiator(initiator) => self.initiate(initiator),
            Event::Appended { lane, life } if life == self.lanes[lane].life => {
                let Some(digests) = self.lanes[lane].append() else { return Ok(()) };
                self.tell_lane(lane, Input::Committed { digests })
            }
            Event::Synced { lane, life, end, through } if life == self.lanes[lane].life => {
                self.lanes[lane].synced(end);
                self.tell_lane(lane, Input::JournalSynced { through })
            }
            Event::CopyRead { lane, life, extent, stamps } if life == self.lanes[lane].life => {
                let ticket = self.ticket();
                self.lanes[lane].writes.insert(ticket, stamps);
                self.tell_lane(lane, Input::CopyRead { ticket, what: primary::What::Data, extent })
            }
            Event::LaneTick { lane, life } if life == self.lanes[lane].life => {
                self.lanes[lane].tick_at = None;
                self.tell_lane(lane, Input::Tick)
            }
            Event::LogSynced { lane, life, end, stored } if life == self.keepers[lane].life => {
                self.keepers[lane].synced(end);
                self.tell_keeper(lane, secondary::Input::LogSynced { stored })
            }
            Event::LaneBack(lane) => self.lane_back(lane),
            Event::KeeperBack(lane) => self.keeper_back(lane),
            Event::Connect(lane) => self.connect(lane),
            Event::ToKeeper { lane, session, message } if session == self.links[lane] => {
                self.keeper_receives(lane, *message)
            }
            Event::ToLane { lane, session, message } if session == self.links[lane] => match message {
                ToLane::Welcome(welcome) => self.tell_lane(lane, Input::Welcomed { path: PATH, welcome }),
                ToLane::Ack(ack) => self.tell_lane(lane, Input::Acked { path: PATH, ack }),
                ToLane::KeyRefused(key, why) => self.tell_lane(lane, Input::KeyRefused { key, why }),
            },
            Event::Order { lane, session, order } if session == self.sessions[lane] => self.obey(lane, order),
            Event::Report { lane, session, report } if session == self.sessions[lane] => {
                self.tell_lead(report);
                Ok(())
            }
            Event::Join(lane) => self.join(lane),
            Event::Look { lane, session } if session == self.sessions[lane] => {
                let standing = self.standing(lane);
                if let Some(standing) = standing {
                    self.say(lane, GroupInput::Stands { lane: pair(lane), standing });
                }
                self.after(50_000, Event::Look { lane, session });
                Ok(())
            }
            Event::LeadTick { life } if life == self.lead_life => {
                self.tell_lead(GroupInput::Tick);
                Ok(())
            }
            Event::LeadBack => {
                self.lead_back();
                Ok(())
            }
            Event::Reserved { life } if life == self.lead_life => {
                self.numbers.reserved(self.reserved);
                self.tell_lead(GroupInput::Reserved);
                Ok(())
            }
            Event::Cuts { lane, cuts } => self.hear_cuts(lane, cuts),
            Event::Limit { lane, life, limit } if life == self.keepers[lane].life => {
                self.tell_keeper(lane, secondary::Input::Limit(limit))
            }
            // Of a life or a connection that is over.
            Event::Appended { .. }
            | Event::Synced { .. }
            | Event::CopyRead { .. }
            | Event::LaneTick { .. }
            | Event::LogSynced { .. }
            | Event::ToKeeper { .. }
            | Event::ToLane { .. }
            | Event::Order { .. }
            | Event::Report { .. }
            | Event::Look { .. }
            | Event::LeadTick { .. }
            | Event::Reserved { .. }
            | Event::Limit { .. } => Ok(()),
        }
    }

    // ---- initiators and accidents

    fn operate(&mut self) -> Outcome {
        if self.operations == 0 {
            self.healed = Some(self.now);
            return Ok(());
        }
        self.operations -= 1;
        let pace = self.dice.between(500, 20_000);
        self.after(pace, Event::Operation);
        let lane = to_usize(self.dice.below(wide(self.lanes.len())));
        match self.dice.below(1_000) {
            0..15 => self.crash_lane(lane)?,
            15..30 => self.crash_keeper(lane),
            30..40 => self.crash_lead(),
            40..60 => self.leave(lane),
            60..80 => self.unlink(lane)?,
            80..95 => self.overflow(lane)?,
            95..125 => {
                let command = match self.dice.below(4) {
                    0 => Command::Pause,
                    1 | 2 => Command::Resume,
                    _ => Command::Cut { name: CutName::new("by-hand").ok() },
                };
                let ticket = self.ticket();
                self.tell_lead(GroupInput::Wanted { ticket, command });
            }
            _ => {}
        }
        Ok(())
    }

    fn initiate(&mut self, index: usize) -> Outcome {
        if self.healed.is_some() || self.initiators[index].ticket.is_some() {
            return Ok(());
        }
        let lane = to_usize(self.dice.below(wide(self.lanes.len())));
        if self.lanes[lane].machine.is_none() || self.lanes[lane].next_block >= BLOCKS {
            return self.think(index);
        }
        if self.dice.chance(350) {
            return self.read(index, lane);
        }
        let block = self.lanes[lane].next_block;
        self.lanes[lane].next_block += 1;
        let Some(extent) = Extent::new(Lba(block), farseal_core::units::BlockCount(1)) else { return Ok(()) };
        self.report.writes += 1;
        let stamp = self.report.writes;
        let depends = std::mem::take(&mut self.initiators[index].knows);
        self.writes.insert(stamp, Write { lane, block, depends, lost: false });
        let ticket = self.ticket();
        self.tickets.insert(ticket, (index, lane, stamp));
        self.initiators[index].ticket = Some(ticket);
        self.lanes[lane].content[to_usize(block)] = stamp;
        self.lanes[lane].writes.insert(ticket, vec![stamp]);
        self.written[lane] = true;
        let fua = self.dice.chance(300);
        self.tell_lane(lane, Input::Write { ticket, what: primary::What::Data, extent, fua })
    }

    /// Somewhere among the last writes, answered or not.
    fn read(&mut self, index: usize, lane: usize) -> Outcome {
        let newest = self.lanes[lane].next_block;
        let block = newest.saturating_sub(1 + self.dice.below(3));
        let stamp = self.lanes[lane].content[to_usize(block)];
        let Some(extent) = Extent::new(Lba(block), farseal_core::units::BlockCount(1)) else { return Ok(()) };
        let withheld = self.lanes[lane].machine.as_ref().is_some_and(|machine| machine.withholds(extent));
        if withheld && self.mutation != Some(Mutation::ReadNotHeld) {
            self.report.reads_held += 1;
            self.reads.push((index, lane, extent, stamp));
            return Ok(());
        }
        self.shown(index, stamp)
    }

    fn shown(&mut self, index: usize, stamp: Stamp) -> Outcome {
        if stamp != 0 {
            self.initiators[index].knows.push(stamp);
        }
        self.think(index)
    }

    fn think(&mut self, index: usize) -> Outcome {
        // Often at once: what comes between an answer and what follows from it is where a cut goes wrong.
        let pause = if self.dice.chance(600) { self.dice.between(1, 200) } else { self.dice.between(200, 15_000) };
        self.after(pause, Event::Initiator(index));
        Ok(())
    }

    /// Reads that nothing withholds any more.
    fn answer_reads(&mut self, lane: usize) -> Outcome {
        let machine = self.lanes[lane].machine.as_ref();
        let waits = |extent: Extent| machine.is_some_and(|machine| machine.withholds(extent));
        let (waiting, ready): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.reads).into_iter().partition(|(_, at, extent, _)| *at != lane || waits(*extent));
        self.reads = waiting;
        let there = machine.is_some();
        for (index, _, _, stamp) in ready {
            self.shown(index, if there { stamp } else { 0 })?;
        }
        Ok(())
    }

    fn ticket(&mut self) -> Ticket {
        self.next_ticket += 1;
        Ticket(self.next_ticket)
    }

    fn crash_lane(&mut self, lane: usize) -> Outcome {
        if self.lanes[lane].machine.is_none() {
            return Ok(());
        }
        self.report.crashes += 1;
        for stamp in self.lanes[lane].crash(&mut self.dice) {
            if let Some(write) = self.writes.get_mut(&stamp) {
                self.report.lost += u64::from(!write.lost);
                write.lost = true;
            }
        }
        // Initiators hear that the node is gone.
        let waiting: Vec<Ticket> =
            self.tickets.iter().filter(|(_, (_, at, _))| *at == lane).map(|(ticket, _)| *ticket).collect();
        for ticket in waiting {
            if let Some((index, _, _)) = self.tickets.remove(&ticket) {
                self.initiators[index].ticket = None;
                self.think(index)?;
            }
        }
        self.answer_reads(lane)?;
        self.leave(lane);
        self.unlink(lane)?;
        let delay = self.dice.between(1_000, 400_000);
        self.after(delay, Event::LaneBack(lane));
        Ok(())
    }

    fn lane_back(&mut self, lane: usize) -> Outcome {
        if self.lanes[lane].machine.is_some() {
            return Ok(());
        }
        let now = self.clock();
        self.lanes[lane].restart(now);
        self.written[lane] = true;
        self.carry_out_lane(lane)
    }

    fn crash_keeper(&mut self, lane: usize) {
        if self.keepers[lane].machine.is_some() {
            self.report.crashes += 1;
            self.keepers[lane].crash(&mut self.dice);
            self.break_link(lane);
            let delay = self.dice.between(1_000, 400_000);
            self.after(delay, Event::KeeperBack(lane));
        }
    }

    fn keeper_back(&mut self, lane: usize) -> Outcome {
        if self.keepers[lane].machine.is_some() {
            return Ok(());
        }
        let now = self.clock();
        self.keepers[lane].restart(now);
        self.carry_out_keeper(lane)?;
        // Its lead tells it again how far it may offer.
        let (life, limit) = (self.keepers[lane].life, self.common.limit());
        self.after(2_000, Event::Limit { lane, life, limit });
        Ok(())
    }

    fn crash_lead(&mut self) {
        if self.lead.take().is_some() {
            self.report.crashes += 1;
            self.lead_life += 1;
            for lane in 0..self.lanes.len() {
                self.sessions[lane] += 1;
                self.joined[lane] = false;
            }
            let delay = self.dice.between(1_000, 500_000);
            self.after(delay, Event::LeadBack);
        }
    }

    fn lead_back(&mut self) {
        let settings = GroupSettings { interval: Some(Millis(60)) };
        let all = (0..self.lanes.len()).map(pair).collect();
        self.numbers = Numbers::after(self.reserved);
        self.lead = Some(Coordinator::new(self.clock(), settings, all, self.phase));
        for lane in 0..self.lanes.len() {
            let delay = self.dice.between(500, 50_000);
            self.after(delay, Event::Join(lane));
        }
        self.carry_out_lead();
    }

    /// Fills the journal past its limit, so that the copy has to be brought up to date beside the order.
    fn overflow(&mut self, lane: usize) -> Outcome {
        self.tell_lane(lane, Input::JournalBytes { bytes: ByteLen(1 << 30) })?;
        self.tell_lane(lane, Input::JournalBytes { bytes: ByteLen(0) })
    }

    // ---- the end

    /// Every copy holds what its lane wrote, or will not any more.
    fn is_quiet(&self) -> bool {
        let everyone = self.lead.is_some() && self.joined.iter().all(|joined| *joined);
        let nothing_open = self.tickets.is_empty() && self.reads.is_empty();
        let copied = self.lanes.iter().all(|lane| {
            lane.machine.as_ref().is_some_and(|machine| {
                let status = machine.status();
                status.acked == status.last || status.pause != primary::PauseState::Running
            })
        });
        everyone && nothing_open && copied && !self.written.iter().any(|written| *written)
    }

    /// All copies are taken over at the group's cut, and judged together.
    fn take_over(&mut self) -> Outcome {
        self.common.fix();
        let limit = self.common.limit();
        for lane in 0..self.keepers.len() {
            self.keeper_back(lane)?;
            self.tell_keeper(lane, secondary::Input::Limit(limit))?;
            self.tell_keeper(lane, secondary::Input::TakeOver)?;
        }
        if self.lanes.len() > 1 {
            group_cut::taken_over(self, self.common.cut())?;
        }
        Ok(())
    }
}
