//! A world of several lanes: one to three groups over them at both sites, initiators whose writes depend on each other across
//! lanes and groups, nodes that crash, leads too, takeovers in the middle, disasters that are declared, and an interconnect that is slow
//! and breaks.
//!
//! A world of its own beside [`crate::world`]: there one lane meets every fault of disk, key and link; here many lanes
//! meet what could set them apart.

use std::collections::BTreeMap;
use std::panic::{self, AssertUnwindSafe};

use farseal_core::units::{Instant, Now, PairId, Ticket, WallTime};

use crate::check::{Checker, Failure, group_cut, group_disaster, group_turn};
use crate::dice::Dice;
use crate::disk::{to_usize, wide};
use crate::seal::Stamp;
use crate::trace::Trace;
use crate::world::Outcome;

mod accident;
pub mod declaring;
mod drive;
pub mod event;
pub mod figures;
mod initiator;
mod interconnect;
pub mod keeper;
mod keeping;
pub mod lane;
pub mod lead;
mod line;
mod retire;
pub mod silence;
mod taking;
pub mod turning;

use declaring::Disasters;
use event::Event;
use figures::{Figure, Figures};
pub use initiator::Write;
use initiator::{Initiator, Withheld};
use interconnect::Member;
use keeper::Keeper;
use keeping::KeepingLead;
use lane::Lane;
use lead::{Group, Lead};
use line::Line;
use retire::Retirement;
use silence::Silences;

/// Blocks of each volume; a write has one of its own, so that an image says which writes it holds.
pub const BLOCKS: u64 = 2048;
const INITIATORS: usize = 3;
/// How long the sites have to settle when nothing happens to them any more.
const SETTLE_US: u64 = 1_500_000;
/// How long a change of sides may take to end then: what a lane stands still for by itself, and twice what it is told again
/// after.
const TURN_US: u64 = 8_000_000;
/// How long lanes may take to hear that one came to nothing.
const GO_ON_US: u64 = 300_000;
/// How long a takeover may take when nothing happens to the sites any more.
const TAKEOVER_US: u64 = 2_000_000;
/// How long a disaster may take to end then: what lanes stand still for before the word and after it.
const DECLARE_US: u64 = 30_000_000;

/// How the world is broken on purpose; a checker must notice.
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
    /// Each lane is taken over at what it holds itself.
    TakenOverApart,
    /// The keeping lead goes on to later cuts in the middle of a takeover, and over a restart forgets it.
    TakeoverForgotten,
    /// A lane is resumed while its group is paused.
    ResumedAlone,
    /// Sides are changed before every copy has the cut.
    TurnedTooEarly,
    /// Lanes change sides without having stood still together.
    TurnedOneByOne,
    /// That sides are changed is not kept over a crash of the lead.
    DecisionForgotten,
    /// A keeper judges an order by what it holds, not by what its group lets it offer.
    LimitNotAsked,
    /// A disaster's word has one copy taken over, not its group.
    WordForOnePair,
    /// The keeping lead does not ask the copies before it takes the group over by the word.
    CopiesNotAsked,
    /// A lane says that it is taken over when its copy has said that it will be.
    SaidByTheAnswer,
    /// A disaster's cut is named before every copy has it.
    NamedTooEarly,
    /// The silence of one copy's main node counts for the group's.
    SilenceOfOne,
    /// A group is taken over by silence as soon as every copy has found that it can be.
    NoLastLook,
}

impl Mutation {
    /// These break how a disaster of a group is declared.
    pub const OF_DECLARING: [Self; 4] =
        [Self::WordForOnePair, Self::CopiesNotAsked, Self::SaidByTheAnswer, Self::NamedTooEarly];

    /// These break how a group is taken over by silence.
    pub const OF_SILENCE: [Self; 2] = [Self::SilenceOfOne, Self::NoLastLook];

    #[must_use]
    pub fn is_of_silence(self) -> bool {
        Self::OF_SILENCE.contains(&self)
    }

    #[must_use]
    pub fn is_of_declaring(self) -> bool {
        Self::OF_DECLARING.contains(&self)
    }
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Report {
    pub seed: u64,
    pub failure: Option<Failure>,
    pub figures: Figures,
    pub trace: Vec<String>,
    /// Of every event of the run, where it was traced.
    pub trace_hash: u64,
}

#[derive(Debug)]
pub struct World {
    mutation: Option<Mutation>,
    dice: Dice,
    now: u64,
    wall_offset: u64,
    queue: BTreeMap<(u64, u64), Event>,
    tie: u64,
    pub lanes: Vec<Lane>,
    pub keepers: Vec<Keeper>,
    /// The paths of each lane's link.
    lines: Vec<Vec<Line>>,
    members: Vec<Member>,
    pub groups: Vec<Group>,
    lead: Lead,
    keeping: KeepingLead,
    pub writes: BTreeMap<Stamp, Write>,
    tickets: BTreeMap<Ticket, (usize, usize, Stamp)>,
    next_ticket: u64,
    initiators: Vec<Initiator>,
    reads: Vec<Withheld>,
    operations: u64,
    /// When initiators and accidents stopped.
    healed: Option<u64>,
    /// When a group was last seen to change sides, or a lane to be out of the lead's reach.
    turning_at: u64,
    /// Since when every group is to be taken over.
    ending: Option<u64>,
    figures: Figures,
    retirement: Retirement,
    disasters: Disasters,
    pub silences: Silences,
    trace: Trace,
}

/// Names a lane's pair.
#[must_use]
pub fn pair(index: usize) -> PairId {
    PairId([u8::try_from(index + 1).unwrap_or(u8::MAX); 16])
}

/// One run, from the first event to the takeover at the end.
#[must_use]
pub fn run(seed: u64, mutation: Option<Mutation>) -> Report {
    run_with(seed, mutation, Trace::new(false, false))
}

/// The same, with its last events.
#[must_use]
pub fn run_traced(seed: u64, mutation: Option<Mutation>) -> Report {
    run_with(seed, mutation, Trace::new(true, false))
}

fn run_with(seed: u64, mutation: Option<Mutation>, trace: Trace) -> Report {
    let mut world = World::new(seed, mutation, trace);
    let failure = panic::catch_unwind(AssertUnwindSafe(|| world.run().err())).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        Some(Failure::new(Checker::Panic, text.unwrap_or("no message")))
    });
    (0..world.groups.len()).for_each(|group| world.count_given_up(group));
    let trace_hash = world.trace.hash();
    Report { seed, failure, figures: world.figures, trace: world.trace.lines(), trace_hash }
}

impl World {
    fn new(seed: u64, mutation: Option<Mutation>, trace: Trace) -> Self {
        let mut dice = Dice::new(seed, 11);
        let count = to_usize(dice.between(if mutation.is_some() { 2 } else { 1 }, 5));
        let operations = dice.between(100, 500);
        let mut lanes_of = vec![Vec::new(); to_usize(dice.between(1, 4)).min(count)];
        for lane in 0..count {
            let any = to_usize(dice.below(wide(lanes_of.len())));
            let group = if lane < lanes_of.len() { lane } else { any };
            lanes_of[group].push(lane);
        }
        let groups: Vec<Group> = lanes_of.into_iter().map(|lanes| Group::new(&mut dice, lanes)).collect();
        let of = |lane: usize| groups.iter().position(|group| group.lanes.contains(&lane)).unwrap_or(0);
        let lines: Vec<Vec<Line>> = (0..count).map(|_| vec![Line::default(); to_usize(dice.between(1, 5))]).collect();
        let lanes = lines.iter().enumerate().map(|(lane, paths)| Lane::new(&mut dice, lane, of(lane), paths.len()));
        let lanes = lanes.collect();
        let mut figures = Figures::default();
        figures.count(Figure::Runs);
        figures.add(Figure::Lanes, wide(count));
        figures.add(Figure::Groups, wide(groups.len()));
        figures.add(Figure::Paths, wide(lines.iter().map(Vec::len).sum()));
        Self {
            mutation,
            dice,
            now: 0,
            wall_offset: 1_700_000_000_000,
            queue: BTreeMap::new(),
            tie: 0,
            lanes,
            keepers: (0..count).map(Keeper::new).collect(),
            lines,
            members: vec![Member::new(); count],
            groups,
            lead: Lead::new(),
            keeping: KeepingLead::default(),
            writes: BTreeMap::new(),
            tickets: BTreeMap::new(),
            next_ticket: 0,
            initiators: vec![Initiator::default(); INITIATORS],
            reads: Vec::new(),
            operations,
            healed: None,
            turning_at: 0,
            ending: None,
            figures,
            retirement: Retirement::draw(seed, mutation),
            disasters: Disasters::draw(seed, mutation),
            silences: Silences::draw(seed, mutation, count),
            trace,
        }
    }

    fn run(&mut self) -> Outcome {
        self.lead_back()?;
        self.keeping_lead_back();
        for lane in 0..self.lanes.len() {
            self.lane_back(lane)?;
            self.keeper_back(lane)?;
            self.paths(lane).for_each(|path| self.after(0, Event::Connect { lane, path }));
            self.after(0, Event::Join(lane));
        }
        self.begin_silences();
        (0..INITIATORS).for_each(|initiator| self.after(0, Event::Initiator(initiator)));
        (0..self.groups.len()).for_each(|group| self.after(0, Event::Presets(group)));
        self.after(0, Event::Operation);
        while let Some(((at, _), event)) = self.queue.pop_first() {
            self.now = at;
            let now = self.now;
            self.trace.note(now, || format!("{event:?}"));
            self.happen(event)?;
            if self.is_over()? {
                break;
            }
        }
        // A copy that was taken over stays as it was, whoever crashed since.
        for group in 0..self.groups.len() {
            if let Some(cut) = self.groups[group].taken {
                group_cut::taken_over(self, group, cut)?;
            }
        }
        Ok(())
    }

    /// Microseconds since the world began.
    pub fn now(&self) -> u64 {
        self.now
    }

    fn clock(&self) -> Now {
        let ms = self.now / 1_000;
        Now { instant: Instant(ms), wall: WallTime(self.wall_offset + ms) }
    }

    fn after(&mut self, delay_us: u64, event: Event) {
        self.tie += 1;
        self.queue.insert((self.now + delay_us, self.tie), event);
    }

    fn ticket(&mut self) -> Ticket {
        self.next_ticket += 1;
        Ticket(self.next_ticket)
    }

    /// The group that a lane is in.
    pub fn group_of(&self, lane: usize) -> usize {
        self.lanes[lane].group
    }

    fn happen(&mut self, event: Event) -> Outcome {
        match event {
            Event::Operation => self.operate(),
            Event::Initiator(initiator) => self.initiate(initiator),
            Event::Presets(group) => self.follow_presets(group),
            Event::Lane { lane, life, event } if life == self.lanes[lane].life => self.lane_event(lane, event),
            Event::Keeper { lane, life, event } if life == self.keepers[lane].life => self.keeper_event(lane, event),
            Event::LaneBack(lane) => self.lane_back(lane),
            Event::KeeperBack(lane) => self.keeper_back(lane),
            Event::Connect { lane, path } => self.connect(lane, path),
            Event::ToKeeper { lane, path, session, message } if self.is_of(lane, path, session) => {
                self.keeper_receives(lane, path, *message)
            }
            Event::ToLane { lane, path, session, message } if self.is_of(lane, path, session) => {
                self.lane_receives(lane, path, message)
            }
            Event::Order { lane, session, order } if session == self.members[lane].session => self.obey(lane, order),
            Event::Report { lane, session, report } if session == self.members[lane].session => {
                self.tell_lead(self.group_of(lane), report)
            }
            Event::Join(lane) => self.join(lane),
            Event::Look { lane, session } if session == self.members[lane].session => self.look(lane, session),
            Event::Prepared { lane, session } if session == self.members[lane].session => {
                self.prepared_turn(lane);
                Ok(())
            }
            Event::InTheMiddle(group) => self.in_the_middle(group),
            Event::InTheDisaster(group) => self.in_the_disaster(group),
            Event::LateWord { lane, word } => {
                self.figures.count(Figure::WordsCameLate);
                self.word_comes(lane, word)
            }
            Event::Word { lane, life } if life == self.keeping.life && self.keeping.up => self.hear_word(lane),
            Event::CanItBeTaken { lane, life, round, look } if life == self.keepers[lane].life => {
                self.asked_whether_it_can(lane, round, look);
                Ok(())
            }
            Event::SaysIfItCan { lane, life, round, can } if life == self.keepers[lane].life => {
                self.says_if_it_can(lane, round, can);
                Ok(())
            }
            Event::CanBeTaken { lane, life, cuts, round, can } if life == self.keeping.life && self.keeping.up => {
                self.can_be_taken(lane, cuts, round, can)
            }
            Event::Beat(lane) => {
                self.beat(lane);
                Ok(())
            }
            Event::Listen { lane, life } if life == self.keepers[lane].life => {
                self.listen(lane);
                Ok(())
            }
            Event::Unheard { lane, life } if life == self.keeping.life && self.keeping.up => self.hear_unheard(lane),
            Event::TakeWhatIsLeft(group) => self.take_what_is_left(group),
            Event::LeadTick { group, life } if life == self.lead.life => self.lead_tick(group),
            Event::LeadBack => self.lead_back(),
            Event::Reserved { group, life } if life == self.lead.life => self.reserved(group),
            Event::Cuts { lane, life, cuts } if life == self.keeping.life && self.keeping.up => {
                self.hear_cuts(lane, cuts)
            }
            Event::KeepingLeadBack => {
                self.keeping_lead_back();
                Ok(())
            }
            // Of a life or a connection that is over.
            Event::Lane { .. }
            | Event::Keeper { .. }
            | Event::ToKeeper { .. }
            | Event::ToLane { .. }
            | Event::Order { .. }
            | Event::Report { .. }
            | Event::Look { .. }
            | Event::Prepared { .. }
            | Event::LeadTick { .. }
            | Event::Reserved { .. }
            | Event::Word { .. }
            | Event::CanItBeTaken { .. }
            | Event::SaysIfItCan { .. }
            | Event::CanBeTaken { .. }
            | Event::Listen { .. }
            | Event::Unheard { .. }
            | Event::Cuts { .. } => Ok(()),
        }
    }

    // ---- the end

    /// First all settles, then every group that can be is taken over, if it was not before.
    fn is_over(&mut self) -> Result<bool, Failure> {
        let Some(healed) = self.healed else { return Ok(false) };
        let Some(since) = self.ending else {
            // What is left then are ticks and looks; a paused lane copies nothing more.
            self.let_turns_end()?;
            let declaring = self.is_declaring();
            if self.is_turning() || declaring || !self.is_joined() {
                self.turning_at = self.now;
            }
            let still = self.now > self.turning_at + GO_ON_US;
            let settled = self.is_quiet() || self.now > healed + SETTLE_US && still;
            let slow = self.disasters.may_come() || self.silences.silence.is_some();
            let longest = if slow { DECLARE_US } else { TURN_US };
            if settled || self.now > healed + longest {
                group_disaster::at_the_end(self)?;
                self.ending = Some(self.now);
                (0..self.groups.len()).try_for_each(|group| group_turn::at_the_end(self, group))?;
                self.keeping_lead_back();
                (0..self.keepers.len()).try_for_each(|lane| self.keeper_back(lane))?;
                (0..self.groups.len()).try_for_each(|group| self.want_takeover(group).map(drop))?;
            }
            return Ok(false);
        };
        (0..self.groups.len()).try_for_each(|group| self.want_takeover(group).map(drop))?;
        if self.now > since + TAKEOVER_US {
            return match self.groups.iter().position(|group| group.taking_over.is_some()) {
                Some(group) => {
                    Err(Failure::new(Checker::Liveness, format!("the takeover of group {group} does not end")))
                }
                None => Ok(true),
            };
        }
        // One that has no cut yet may find that it has when a keeper has checked its keys.
        let open = |group: &Group| {
            group.taken.is_none()
                && !self.has_gone_over(group)
                && (group.taking_over.is_some() || !group.made.is_empty())
        };
        Ok(!self.groups.iter().any(open))
    }

    /// Every lane that is there speaks to the lead.
    fn is_joined(&self) -> bool {
        self.lead.up && (0..self.lanes.len()).all(|lane| self.members[lane].joined || self.lanes[lane].gone)
    }

    /// Every copy holds what its lane wrote, or will not any more.
    fn is_quiet(&self) -> bool {
        let everyone = self.is_joined() && self.now > self.turning_at + GO_ON_US;
        let nothing_open = self.tickets.is_empty() && self.reads.is_empty();
        let copied = (0..self.lanes.len()).all(|lane| self.is_copied(lane));
        let no_cut_due = (0..self.lanes.len()).all(|lane| {
            let group = &self.groups[self.group_of(lane)];
            !self.members[lane].written || group.taken.is_some() || self.has_gone_over(group)
        });
        everyone && nothing_open && copied && no_cut_due
    }
}
