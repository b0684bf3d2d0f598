//! The writing site's side of a group: makes cuts over its lanes, one at a time, and pauses them all at one.
//!
//! ```text
//!          all there, a beat or an operator           all opened              all held on until told
//!   Idle ───────────────────────────────▶ Opening ────────────▶ Releasing ─────────────────────────▶ Idle: made
//!    ▲                                       │                      │
//!    └──── abandoned: late, or a lane left ──┴── let go by itself ──┘
//! ```

mod turn;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use self::turn::{Turn, Turned};
use super::{CutName, Numbers};
use crate::limits::{CUT_OPEN_WAIT, CUT_RELEASE_WAIT, CUT_TRIES_MAX, CUTS_KEPT_MAX, CUTS_WANTED_MAX};
use crate::primary::{CutCopied, PauseState, SwapState};
use crate::units::{CutNumber, Generation, Instant, Millis, Now, PairId, Ticket, WallTime};

/// What the operator set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Between two cuts; `None`: only when asked for. A group of one lane makes none by itself: every record of it is a
    /// point to recover to.
    pub interval: Option<Millis>,
}

/// One thing that happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Input {
    /// The group has these lanes.
    Lanes(BTreeSet<PairId>),
    /// A lane can be spoken to. Words to it arrive in their order, until it left.
    Joined {
        lane: PairId,
        standing: LaneStanding,
    },
    /// It cannot, and forgot what it was told.
    Left {
        lane: PairId,
    },
    Stands {
        lane: PairId,
        standing: LaneStanding,
    },
    /// From now on the lane withholds answers to what it accepts.
    Opened {
        lane: PairId,
        cut: CutNumber,
    },
    /// It withholds them no longer. `whole`: it did until it was told.
    Released {
        lane: PairId,
        cut: CutNumber,
        whole: bool,
    },
    /// A lane's answer to [`Output::PrepareTurn`].
    Ready {
        lane: PairId,
        ready: bool,
    },
    /// The other site writes this lane, and this one keeps its copy.
    Turned {
        lane: PairId,
    },
    /// A lane's answer to [`Output::Declare`]: is it taken over?
    Declared {
        lane: PairId,
        taken: bool,
    },
    /// What [`Output::Reserve`] asked for is durable.
    Reserved,
    /// It could not be made so.
    NotReserved,
    /// What [`Output::Persist`] asked for is not durable.
    NotPersisted,
    Wanted {
        ticket: Ticket,
        command: Command,
    },
    Tick,
}

/// What an operator wants of the group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    Cut {
        name: Option<CutName>,
    },
    /// All lanes stop at one cut.
    Pause,
    /// Ends a pause; or a change of sides that does not come to its end, for the lanes that write here still.
    Resume,
    /// All lanes change sides at one cut.
    Turn,
    /// This site is lost, or about to be: the other one is to take all lanes over, at a cut that is made for it if there is time.
    Declare,
}

/// How a lane is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LaneStanding {
    /// Its copy follows record by record; else a cut of it would be in no order.
    pub in_order: bool,
    /// Something was written since its last cut.
    pub written: bool,
    pub pause: PauseState,
    /// How far it is in a change of sides.
    #[serde(default)]
    pub swap: Option<SwapState>,
    /// The other site writes it, in this generation: this one was taken over from.
    #[serde(default)]
    pub fenced: Option<Generation>,
    /// The greatest cut number in its order.
    pub newest: CutNumber,
    pub copied: CutCopied,
}

/// What must be done, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// Make cut numbers up to here durably taken, then say [`Input::Reserved`].
    Reserve {
        through: CutNumber,
    },
    Open {
        lane: PairId,
        cut: CutNumber,
        lanes: u16,
    },
    Release {
        lane: PairId,
        cut: CutNumber,
    },
    Confirm {
        lane: PairId,
        cut: CutNumber,
        lanes: u16,
        name: Option<CutName>,
    },
    Pause {
        lane: PairId,
    },
    Resume {
        lane: PairId,
    },
    /// Find out whether the lane can change sides, then say [`Input::Ready`].
    PrepareTurn {
        lane: PairId,
    },
    /// The lane's new writes wait: [`crate::primary::Command::Quiesce`].
    Quiesce {
        lane: PairId,
    },
    /// It was for nothing: [`crate::primary::Command::GoOn`].
    GoOn {
        lane: PairId,
    },
    /// The lane changes sides: [`crate::primary::Command::HandOver`].
    HandOver {
        lane: PairId,
    },
    /// Say to the lane's copy that this site is lost, then say [`Input::Declared`].
    Declare {
        lane: PairId,
    },
    /// Remember this durably before anything that follows.
    Persist {
        phase: Phase,
    },
    /// Remember a named cut.
    Named {
        name: CutName,
        cut: CutNumber,
        wall: WallTime,
    },
    Answer {
        ticket: Ticket,
        result: Result<CutNumber, Refusal>,
    },
    Event(Event),
}

/// Is the group copied on?
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum Phase {
    #[default]
    Running,
    /// Every lane stops, or has stopped, behind this cut; none goes on before resume.
    Paused {
        cut: CutNumber,
        lanes: u16,
        /// Every lane has stopped and the copy held the cut: it is kept until resume, whoever restarts.
        #[serde(default)]
        settled: bool,
    },
    /// It is decided that every lane changes sides, behind this cut, which all copies hold.
    Turning { cut: CutNumber, lanes: u16 },
}

/// Why a command was not carried out.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    #[error("{} of the group's pairs cannot be reached", .0.len())]
    Missing(Vec<PairId>),
    #[error("{} of the group's pairs are not copied in order now", .0.len())]
    NotInOrder(Vec<PairId>),
    #[error("the pairs did not open the cut in time, {CUT_TRIES_MAX} times; last late: {}", .0.len())]
    Abandoned(Vec<PairId>),
    #[error("the group is paused")]
    Paused,
    #[error("the group is not paused")]
    NotPaused,
    #[error("the group is changing sides")]
    Turning,
    #[error("{} of the group's pairs cannot change sides now", .0.len())]
    Unable(Vec<PairId>),
    #[error("the pairs did not all stand still in time; late: {}", .0.len())]
    NotStill(Vec<PairId>),
    #[error("the copies did not all hold the cut in time; late: {}", .0.len())]
    NotCopied(Vec<PairId>),
    #[error("a disaster of the group is being declared")]
    Declaring,
    #[error("the other site has taken all of the group's pairs over already, and writes them in generation {0}")]
    Fenced(Generation),
    #[error("the other site did not take over {} of the group's pairs", .0.len())]
    NotTaken(Vec<PairId>),
    #[error("an operator had the pairs that had not changed sides go on here")]
    GivenUp,
    #[error("the site's control information could not be kept")]
    NotKept,
    #[error("{CUTS_WANTED_MAX} cuts are waited for already")]
    TooMany,
    #[error("the group has no pairs")]
    Empty,
}

/// Something that the operator should know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// Told at the first and then ever more seldom.
    Abandoned {
        cut: CutNumber,
        late: Vec<PairId>,
        in_a_row: u64,
    },
    /// No cut is made until these are there, and in order.
    Waits {
        missing: Vec<PairId>,
        not_in_order: Vec<PairId>,
    },
    Complete,
    /// A restart in the middle of the pause at this cut left it unfinished: the lanes go on and stop at another.
    PausedAnew {
        cut: CutNumber,
    },
}

/// A cut that was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Made {
    pub cut: CutNumber,
    pub wall: WallTime,
}

/// What a console shows.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Status {
    pub phase: Phase,
    /// Paused: every lane has stopped and the copy holds the cut.
    pub settled: bool,
    pub missing: Vec<PairId>,
    pub not_in_order: Vec<PairId>,
    pub last: Option<Made>,
    pub made: u64,
    pub abandoned: u64,
    /// For how long the last cut withheld answers, from the first lane's opening to the last one's release.
    #[serde(default)]
    pub held: Option<Millis>,
    /// The last cut that the copy holds in full, as far as is known here.
    pub copied: Option<CutNumber>,
    /// How old what the copy would give is: since the last cut that it holds was opened. Zero where nothing was written
    /// since; `None` before the first cut.
    pub exposure: Option<Millis>,
}

#[derive(Clone, Debug)]
struct Demand {
    /// None: nobody waits for the answer.
    ticket: Option<Ticket>,
    name: Option<CutName>,
    then: Then,
    tries: u32,
}

/// What follows once the cut is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Then {
    GoOn,
    Pause,
    Turn,
}

#[derive(Clone, Debug)]
enum Stage {
    Idle,
    Opening { cut: CutNumber, waiting: BTreeSet<PairId>, since: Now, demand: Option<Demand> },
    Releasing { cut: CutNumber, waiting: BTreeSet<PairId>, since: Now, opened: Now, demand: Option<Demand> },
}

/// One group at the site that writes it.
#[derive(Debug)]
pub struct Coordinator {
    settings: Settings,
    /// Every lane of the group; how it is, if it can be spoken to.
    lanes: BTreeMap<PairId, Option<LaneStanding>>,
    phase: Phase,
    stage: Stage,
    wanted: VecDeque<Demand>,
    turn: Option<Turn>,
    turned: Turned,
    next_beat: Instant,
    reserving: bool,
    /// The last reservation failed: none is asked for before the next beat.
    unreserved: bool,
    made: u64,
    abandoned: u64,
    in_a_row: u64,
    held: Option<Millis>,
    last: Option<Made>,
    /// Made cuts, and when they were opened, from the last that the copy holds on.
    history: VecDeque<(CutNumber, Instant)>,
    /// What the last event said of who is waited for.
    told: (Vec<PairId>, Vec<PairId>),
    outputs: VecDeque<Output>,
}

impl Coordinator {
    pub fn new(now: Now, settings: Settings, lanes: BTreeSet<PairId>, phase: Phase) -> Self {
        Self {
            settings,
            lanes: lanes.into_iter().map(|lane| (lane, None)).collect(),
            phase,
            stage: Stage::Idle,
            wanted: VecDeque::new(),
            turn: None,
            turned: Turned::default(),
            next_beat: now.instant,
            reserving: false,
            unreserved: false,
            made: 0,
            abandoned: 0,
            in_a_row: 0,
            held: None,
            last: None,
            history: VecDeque::new(),
            told: (Vec::new(), Vec::new()),
            outputs: VecDeque::new(),
        }
    }

    /// Takes in one event. Outputs that follow from it wait in [`Coordinator::poll_output`].
    pub fn handle(&mut self, now: Now, numbers: &mut Numbers, input: Input) {
        self.take(numbers, input);
        self.proceed(now, numbers);
    }

    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to send [`Input::Tick`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.cut_timeout(), self.turn_timeout()].into_iter().flatten().min()
    }

    fn cut_timeout(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Idle if self.reserving => None,
            Stage::Idle if !self.wanted.is_empty() => Some(self.next_beat),
            Stage::Idle => self.beats().then_some(self.next_beat),
            Stage::Opening { since, .. } => Some(since.instant.plus(CUT_OPEN_WAIT)),
            Stage::Releasing { since, .. } => Some(since.instant.plus(CUT_RELEASE_WAIT)),
        }
    }

    pub fn status(&self, now: Now) -> Status {
        let (missing, not_in_order) = self.waits_for();
        let copied = self.copied();
        Status {
            phase: self.phase,
            settled: self.settled(),
            missing,
            not_in_order,
            last: self.last,
            made: self.made,
            abandoned: self.abandoned,
            held: self.held,
            copied,
            exposure: self.exposure(now, copied),
        }
    }

    pub fn lanes(&self) -> impl Iterator<Item = PairId> {
        self.lanes.keys().copied()
    }

    fn take(&mut self, numbers: &mut Numbers, input: Input) {
        match input {
            Input::Lanes(lanes) => {
                // A cut that is under way has counted them as they were.
                if lanes.iter().ne(self.lanes.keys()) {
                    self.abandon(Vec::new());
                    self.end_turn(Refusal::NotStill(Vec::new()));
                }
                self.lanes.retain(|lane, _| lanes.contains(lane));
                lanes.into_iter().for_each(|lane| _ = self.lanes.entry(lane).or_default());
                self.end_turned();
            }
            Input::Joined { lane, standing } => self.on_joined(numbers, lane, standing),
            Input::Left { lane } => {
                if let Some(known) = self.lanes.get_mut(&lane) {
                    *known = None;
                    self.abandon(vec![lane]);
                    self.end_turn(Refusal::Missing(vec![lane]));
                    // Its answer left with it.
                    self.on_declared(lane, false);
                }
            }
            Input::Declared { lane, taken } => self.on_declared(lane, taken),
            Input::Ready { lane, ready } => self.on_ready(lane, ready),
            Input::Turned { lane } => self.on_turned(lane),
            Input::Stands { lane, standing } => {
                numbers.seen(standing.newest);
                if let Some(Some(known)) = self.lanes.get_mut(&lane) {
                    *known = standing;
                }
            }
            Input::Opened { lane, cut } => {
                if let Stage::Opening { cut: open, waiting, .. } = &mut self.stage
                    && *open == cut
                {
                    waiting.remove(&lane);
                }
            }
            Input::Released { lane, cut, whole } => self.on_released(lane, cut, whole),
            Input::Reserved => self.reserving = false,
            Input::NotReserved => self.on_not_reserved(),
            Input::NotPersisted => self.on_turn_not_persisted(),
            Input::Wanted { ticket, command } => self.on_wanted(ticket, command),
            Input::Tick => {}
        }
    }

    /// A lane that comes back while the group is paused is told again: the cut's confirmation may have been lost with
    /// it, and it must not go on.
    fn on_joined(&mut self, numbers: &mut Numbers, lane: PairId, standing: LaneStanding) {
        numbers.seen(standing.newest);
        let Some(known) = self.lanes.get_mut(&lane) else { return };
        if known.is_some() {
            self.abandon(vec![lane]);
            self.end_turn(Refusal::Missing(vec![lane]));
            // What it was fenced by is the word, whether or not its answer came.
            self.on_declared(lane, standing.fenced.is_some());
        }
        self.lanes.insert(lane, Some(standing));
        self.tell_turning(lane, standing.swap);
        if let Phase::Paused { cut, lanes, .. } = self.phase {
            self.outputs.push_back(Output::Confirm { lane, cut, lanes, name: None });
            if standing.pause == PauseState::Running {
                self.outputs.push_back(Output::Pause { lane });
            }
        }
    }

    fn on_released(&mut self, lane: PairId, cut: CutNumber, whole: bool) {
        let Stage::Releasing { cut: released, waiting, .. } = &mut self.stage else { return };
        if *released != cut || !waiting.remove(&lane) {
            return;
        }
        // A lane that is alone has nobody to wait for, and withheld nothing.
        if !whole && self.lanes.len() > 1 {
            self.abandon(vec![lane]);
        }
    }

    fn on_wanted(&mut self, ticket: Ticket, command: Command) {
        let (name, then) = match command {
            Command::Cut { name } => (name, Then::GoOn),
            Command::Pause => (None, Then::Pause),
            Command::Turn => (None, Then::Turn),
            Command::Resume => return self.resume(ticket),
            Command::Declare => return self.want_declared(ticket),
        };
        let refusal = if let Some(refusal) = self.stopped_by() {
            refusal
        } else if self.is_declared() {
            Refusal::Declaring
        } else if self.turn.is_some() && then != Then::GoOn {
            Refusal::Turning
        } else if self.lanes.is_empty() {
            Refusal::Empty
        } else if self.wanted.len() >= CUTS_WANTED_MAX {
            Refusal::TooMany
        } else if then == Then::Turn {
            return self.want_turn(ticket);
        } else {
            return self.wanted.push_back(Demand { ticket: Some(ticket), name, then, tries: 0 });
        };
        self.answer(ticket, Err(refusal));
    }

    /// Without a number there is no cut: who waits for one is told, and the next beat tries again.
    fn on_not_reserved(&mut self) {
        (self.reserving, self.unreserved) = (false, true);
        while let Some(demand) = self.wanted.pop_front() {
            self.answer(demand.ticket, Err(Refusal::NotKept));
        }
        self.end_turn(Refusal::NotKept);
    }

    /// Why nothing but a resume can be wanted.
    fn stopped_by(&self) -> Option<Refusal> {
        match self.phase {
            Phase::Running => None,
            Phase::Paused { .. } => Some(Refusal::Paused),
            Phase::Turning { .. } => Some(Refusal::Turning),
        }
    }

    fn resume(&mut self, ticket: Ticket) {
        let cut = match self.phase {
            Phase::Paused { cut, .. } => cut,
            Phase::Turning { cut, .. } => return self.give_turned_up(ticket, cut),
            Phase::Running if self.is_declared() => return self.answer(ticket, Err(Refusal::Declaring)),
            Phase::Running if self.turn.is_some() => {
                self.end_turn(Refusal::GivenUp);
                return self.answer(ticket, Ok(CutNumber::NONE));
            }
            Phase::Running => return self.answer(ticket, Err(Refusal::NotPaused)),
        };
        let (missing, _) = self.waits_for();
        if !missing.is_empty() {
            // One that did not hear of it would stay behind, and nothing here would say why.
            return self.answer(ticket, Err(Refusal::Missing(missing)));
        }
        self.phase = Phase::Running;
        self.outputs.push_back(Output::Persist { phase: self.phase });
        self.tell_all(|lane| Output::Resume { lane });
        self.answer(ticket, Ok(cut));
    }

    fn proceed(&mut self, now: Now, numbers: &mut Numbers) {
        self.settle();
        self.run_turn(now);
        match &self.stage {
            Stage::Idle => self.begin(now, numbers),
            Stage::Opening { waiting, .. } if waiting.is_empty() => self.release(now),
            Stage::Opening { since, waiting, .. } if now.instant >= since.instant.plus(CUT_OPEN_WAIT) => {
                let late = waiting.iter().copied().collect();
                self.abandon(late);
            }
            Stage::Releasing { waiting, .. } if waiting.is_empty() => self.finish(now),
            Stage::Releasing { since, waiting, .. } if now.instant >= since.instant.plus(CUT_RELEASE_WAIT) => {
                let late = waiting.iter().copied().collect();
                self.abandon(late);
            }
            Stage::Opening { .. } | Stage::Releasing { .. } => {}
        }
        self.tell_who_is_waited_for();
        self.forget_history();
    }

    /// A beat, or an operator's wish.
    fn begin(&mut self, now: Now, numbers: &mut Numbers) {
        if let Some(refusal) = self.stopped_by() {
            while let Some(demand) = self.wanted.pop_front() {
                self.answer(demand.ticket, Err(refusal.clone()));
            }
            return;
        }
        let due = now.instant >= self.next_beat;
        if std::mem::take(&mut self.unreserved) {
            self.set_beat(now);
            return;
        }
        let fresh = self.wanted.front().is_some_and(|demand| demand.tries == 0);
        let written = self.lanes.values().flatten().any(|standing| standing.written);
        if !(fresh || due && (!self.wanted.is_empty() || self.beats() && written)) {
            if due {
                self.set_beat(now);
            }
            return;
        }
        let (missing, not_in_order) = self.waits_for();
        if !missing.is_empty() || !not_in_order.is_empty() {
            self.set_beat(now);
            let refusal =
                if missing.is_empty() { Refusal::NotInOrder(not_in_order) } else { Refusal::Missing(missing) };
            match self.wanted.pop_front() {
                Some(Demand { then: Then::Turn, .. }) => self.end_turn(refusal),
                Some(demand) => self.answer(demand.ticket, Err(refusal)),
                None => {}
            }
            return;
        }
        let cut = match numbers.give() {
            Ok(cut) => cut,
            Err(through) => {
                if !std::mem::replace(&mut self.reserving, true) {
                    self.outputs.push_back(Output::Reserve { through });
                }
                return;
            }
        };
        self.set_beat(now);
        for standing in self.lanes.values_mut().flatten() {
            standing.written = false;
        }
        let lanes = self.count();
        let waiting = self.lanes.keys().copied().collect();
        self.stage = Stage::Opening { cut, waiting, since: now, demand: self.wanted.pop_front() };
        self.tell_all(|lane| Output::Open { lane, cut, lanes });
    }

    /// Every lane withholds answers: what is answered from now on is above the cut everywhere.
    fn release(&mut self, now: Now) {
        let Stage::Opening { cut, since: opened, demand, .. } = std::mem::replace(&mut self.stage, Stage::Idle) else {
            return;
        };
        let waiting = self.lanes.keys().copied().collect();
        self.stage = Stage::Releasing { cut, waiting, since: now, opened, demand };
        self.tell_all(|lane| Output::Release { lane, cut });
    }

    /// Every lane held on until it was told: the cut is one.
    fn finish(&mut self, now: Now) {
        let Stage::Releasing { cut, opened, demand, .. } = std::mem::replace(&mut self.stage, Stage::Idle) else {
            return;
        };
        self.made += 1;
        self.in_a_row = 0;
        self.held = Some(now.instant.since(opened.instant));
        self.last = Some(Made { cut, wall: opened.wall });
        self.history.push_back((cut, opened.instant));
        let lanes = self.count();
        let name = demand.as_ref().and_then(|demand| demand.name.clone());
        if let Some(name) = &name {
            self.outputs.push_back(Output::Named { name: name.clone(), cut, wall: opened.wall });
        }
        let then = demand.as_ref().map_or(Then::GoOn, |demand| demand.then);
        if then == Then::Pause {
            self.phase = Phase::Paused { cut, lanes, settled: false };
            self.outputs.push_back(Output::Persist { phase: self.phase });
        }
        self.tell_all(|lane| Output::Confirm { lane, cut, lanes, name: name.clone() });
        match then {
            Then::GoOn => {}
            Then::Pause => self.tell_all(|lane| Output::Pause { lane }),
            Then::Turn => self.turn_cut_made(cut),
        }
        if let Some(demand) = demand {
            self.answer(demand.ticket, Ok(cut));
        }
        // What is wanted next begins at once.
        self.next_beat = if self.wanted.is_empty() { self.next_beat } else { now.instant };
    }

    /// The cut that is under way is none: nobody confirms it. Everybody lets go at once.
    fn abandon(&mut self, late: Vec<PairId>) {
        let (cut, demand) = match std::mem::replace(&mut self.stage, Stage::Idle) {
            Stage::Idle => return,
            Stage::Opening { cut, demand, .. } | Stage::Releasing { cut, demand, .. } => (cut, demand),
        };
        self.abandoned += 1;
        self.in_a_row += 1;
        self.tell_all(|lane| Output::Release { lane, cut });
        // The next beat tries again, whatever is written.
        for standing in self.lanes.values_mut().flatten() {
            standing.written = true;
        }
        if self.in_a_row.is_power_of_two() {
            let in_a_row = self.in_a_row;
            self.outputs.push_back(Output::Event(Event::Abandoned { cut, late: late.clone(), in_a_row }));
        }
        if let Some(mut demand) = demand {
            demand.tries += 1;
            if demand.tries < CUT_TRIES_MAX {
                self.wanted.push_front(demand);
            } else if demand.then == Then::Turn {
                self.end_turn(Refusal::Abandoned(late));
            } else {
                self.answer(demand.ticket, Err(Refusal::Abandoned(late)));
            }
        }
    }

    fn beats(&self) -> bool {
        self.settings.interval.is_some() && self.lanes.len() > 1 && self.phase == Phase::Running
    }

    fn set_beat(&mut self, now: Now) {
        if now.instant < self.next_beat {
            return;
        }
        let interval = self.settings.interval.unwrap_or(crate::limits::CUT_INTERVAL);
        // In step with the beats before, but not with those that were missed.
        let next = self.next_beat.plus(interval);
        self.next_beat = if next > now.instant { next } else { now.instant.plus(interval) };
    }

    fn count(&self) -> u16 {
        u16::try_from(self.lanes.len()).unwrap_or(u16::MAX)
    }

    /// Words go to lanes that can be spoken to.
    fn tell_all(&mut self, word: impl Fn(PairId) -> Output) {
        let there = self.lanes.iter().filter(|(_, standing)| standing.is_some());
        self.outputs.extend(there.map(|(lane, _)| word(*lane)));
    }

    fn answer(&mut self, ticket: impl Into<Option<Ticket>>, result: Result<CutNumber, Refusal>) {
        self.outputs.extend(ticket.into().map(|ticket| Output::Answer { ticket, result }));
    }

    /// Who cannot be spoken to, and who is not in order.
    fn waits_for(&self) -> (Vec<PairId>, Vec<PairId>) {
        let missing = self.lanes.iter().filter(|(_, standing)| standing.is_none());
        let lagging = self.lanes.iter().filter(|(_, standing)| standing.is_some_and(|standing| !standing.in_order));
        (missing.map(|(lane, _)| *lane).collect(), lagging.map(|(lane, _)| *lane).collect())
    }

    fn tell_who_is_waited_for(&mut self) {
        let waits = self.waits_for();
        // Lanes that change sides leave, as they should.
        if waits == self.told || matches!(self.phase, Phase::Turning { .. }) {
            return;
        }
        self.told = waits.clone();
        let (missing, not_in_order) = waits;
        let complete = missing.is_empty() && not_in_order.is_empty();
        self.outputs.push_back(Output::Event(if complete {
            Event::Complete
        } else {
            Event::Waits { missing, not_in_order }
        }));
    }

    /// The last made cut that every lane's copy holds, with a confirmation in one.
    fn copied(&self) -> Option<CutNumber> {
        let standings: Option<Vec<&LaneStanding>> = self.lanes.values().map(Option::as_ref).collect();
        let standings = standings?;
        let boundary = standings.iter().map(|standing| standing.copied.boundary).min()?;
        let confirmed = standings.iter().map(|standing| standing.copied.confirmed).max()?;
        let through = boundary.min(confirmed);
        self.history.iter().map(|(cut, _)| *cut).filter(|cut| *cut <= through).max()
    }

    fn exposure(&self, now: Now, copied: Option<CutNumber>) -> Option<Millis> {
        let copied = copied?;
        let idle = matches!(self.stage, Stage::Idle) && !self.lanes.values().flatten().any(|standing| standing.written);
        if idle && self.last.is_some_and(|last| last.cut == copied) {
            return Some(Millis(0));
        }
        let (_, opened) = self.history.iter().find(|(cut, _)| *cut == copied)?;
        Some(now.instant.since(*opened))
    }

    fn settled(&self) -> bool {
        matches!(self.phase, Phase::Paused { settled: true, .. }) && self.stopped()
    }

    fn stopped(&self) -> bool {
        let stopped = |standing: &Option<LaneStanding>| standing.is_some_and(|lane| lane.pause == PauseState::Paused);
        self.lanes.values().all(stopped)
    }

    /// Every lane has stopped. Either the copy holds the cut; or a restart in the middle of the pause took the cut from a
    /// lane, or from what is known of it, and as nothing is sent any more it never comes: all go on, and stop anew.
    fn settle(&mut self) {
        let Phase::Paused { cut, lanes, settled: false } = self.phase else { return };
        if !self.stopped() {
            return;
        }
        if self.lanes.values().flatten().all(|lane| lane.copied.boundary >= cut) {
            self.phase = Phase::Paused { cut, lanes, settled: true };
            self.outputs.push_back(Output::Persist { phase: self.phase });
            return;
        }
        self.phase = Phase::Running;
        self.outputs.push_back(Output::Persist { phase: self.phase });
        self.outputs.push_back(Output::Event(Event::PausedAnew { cut }));
        self.tell_all(|lane| Output::Resume { lane });
        self.lanes.values_mut().flatten().for_each(|lane| lane.pause = PauseState::Running);
        self.wanted.push_front(Demand { ticket: None, name: None, then: Then::Pause, tries: 0 });
    }

    fn forget_history(&mut self) {
        if let Some(copied) = self.copied() {
            while self.history.pop_front_if(|(cut, _)| *cut < copied).is_some() {}
        }
        if self.history.len() > CUTS_KEPT_MAX {
            // The first is the one that the copy holds; of the others the newest count.
            self.history.remove(1);
        }
    }
}
