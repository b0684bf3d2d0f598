//! A planned change of sides of a whole group: all of its lanes or none, at one cut that both sites hold.
//!
//! ```text
//!   Asking ──every lane can──▶ Quiescing ──new writes wait everywhere──▶ Cutting ──made──▶ Copying ──every copy has it──▶ decided
//!     │                            │                                        │                 │
//!     └──── one cannot ────────────┴───────── too long, or a lane left ─────┴─────────────────┴──▶ all go on writing here
//! ```
//!
//! Until it is decided nothing has happened that the other site knows of. The decision is durable before the first lane
//! hears of it, and each carries it out, whenever it comes. While a lane is quiesced nothing is written to it, so the cut
//! is the last that any of the copies needs: whatever is lost while some lanes have handed over and others have not, what
//! the other site has of all of them is one state. But for one case, which no protocol without a wait for ever avoids: a
//! lane that goes on by itself after the decision, because it hears nothing of it for so long, writes here until it does.
//!
//! A disaster that the site declares takes the same way without asking, and nothing ends it on the way: lanes stand still for a
//! cut and for the copies to hold it as long as that may take, and then the word goes out, whatever there is by then:
//!
//! ```text
//!   Quiescing ──▶ Cutting ──▶ Copying ──▶ Declared ──every lane is taken over──▶ done
//!       └────────────┴── too long ──┴────────▲ └──── refused, or too long ────▶ all go on writing here
//! ```

use std::collections::BTreeSet;

use super::{Coordinator, Demand, Output, Phase, Refusal, Stage, Then};
use crate::limits::{GROUP_DECLARED_WAIT, GROUP_READY_WAIT, GROUP_STAND_WAIT, GROUP_TURN_AGAIN};
use crate::primary::SwapState;
use crate::units::{CutNumber, Instant, Now, PairId, Ticket};

/// How far a change of sides is that is not decided.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Turn {
    ticket: Ticket,
    step: Step,
    /// The site declares a disaster: what hinders a change of sides does not hinder it.
    disaster: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Step {
    /// An operator wants it.
    Wanted,
    /// Each lane says whether it can.
    Asking {
        waiting: BTreeSet<PairId>,
        until: Instant,
    },
    Quiescing {
        until: Instant,
    },
    /// The cut over all of them is being made.
    Cutting {
        until: Instant,
    },
    Copying {
        cut: CutNumber,
        until: Instant,
    },
    /// The word of a disaster is with these lanes' copies.
    Declared {
        cut: CutNumber,
        waiting: BTreeSet<PairId>,
        refused: Vec<PairId>,
        again: Instant,
        until: Instant,
    },
}

/// Who has carried a decided change of sides out, and who waits for it.
#[derive(Clone, Debug, Default)]
pub(super) struct Turned {
    pub(super) ticket: Option<Ticket>,
    lanes: BTreeSet<PairId>,
    again: Instant,
}

impl Coordinator {
    pub(super) fn want_turn(&mut self, ticket: Ticket) {
        let (missing, not_in_order) = self.waits_for();
        let refusal = if self.turn.is_some() {
            Refusal::Turning
        } else if self.is_to_pause() {
            Refusal::Paused
        } else if !missing.is_empty() {
            Refusal::Missing(missing)
        } else if !not_in_order.is_empty() {
            Refusal::NotInOrder(not_in_order)
        } else {
            self.turn = Some(Turn { ticket, step: Step::Wanted, disaster: false });
            return;
        };
        self.answer(ticket, Err(refusal));
    }

    /// What is missing, behind or paused is declared lost with the rest.
    pub(super) fn want_declared(&mut self, ticket: Ticket) {
        let refusal = match &self.turn {
            Some(turn) if turn.disaster => Refusal::Declaring,
            Some(_) => Refusal::Turning,
            None if matches!(self.phase, Phase::Turning { .. }) => Refusal::Turning,
            None if self.lanes.values().all(Option::is_none) => Refusal::Missing(self.lanes.keys().copied().collect()),
            None => match self.taken_already() {
                Some(refusal) => refusal,
                None => {
                    self.turn = Some(Turn { ticket, step: Step::Wanted, disaster: true });
                    return;
                }
            },
        };
        self.answer(ticket, Err(refusal));
    }

    /// The other site writes every lane that can be asked. Of those that are away nobody knows.
    fn taken_already(&self) -> Option<Refusal> {
        let known = self.lanes.values().flatten();
        let newest = known.map(|lane| lane.fenced).collect::<Option<Vec<_>>>()?.into_iter().max()?;
        let away: Vec<PairId> = self.lanes.iter().filter(|(_, lane)| lane.is_none()).map(|(lane, _)| *lane).collect();
        Some(if away.is_empty() { Refusal::Fenced(newest) } else { Refusal::Missing(away) })
    }

    /// The site is declaring a disaster.
    pub(super) fn is_declared(&self) -> bool {
        self.turn.as_ref().is_some_and(|turn| turn.disaster)
    }

    /// What became of the word at a lane's copy.
    pub(super) fn on_declared(&mut self, lane: PairId, taken: bool) {
        let Some(Turn { step: Step::Declared { waiting, refused, .. }, .. }) = &mut self.turn else { return };
        if waiting.remove(&lane) && !taken {
            refused.push(lane);
        }
    }

    /// A lane was asked whether it can change sides.
    pub(super) fn on_ready(&mut self, lane: PairId, ready: bool) {
        let Some(Turn { step: Step::Asking { waiting, .. }, .. }) = &mut self.turn else { return };
        if ready {
            waiting.remove(&lane);
        } else {
            self.end_turn(Refusal::Unable(vec![lane]));
        }
    }

    /// The other site writes this lane.
    pub(super) fn on_turned(&mut self, lane: PairId) {
        if let Some(known) = self.lanes.get_mut(&lane) {
            *known = None;
            self.abandon(vec![lane]);
            self.end_turn(Refusal::Missing(vec![lane]));
        }
        if matches!(self.phase, Phase::Turning { .. }) {
            self.turned.lanes.insert(lane);
            self.end_turned();
        }
    }

    /// A lane that comes back while its group changes sides is told again. One that stands still for a change of sides
    /// that came to nothing while it was away goes on; while a disaster is declared it is to stand still.
    pub(super) fn tell_turning(&mut self, lane: PairId, swap: Option<SwapState>) {
        self.turned.lanes.remove(&lane);
        if matches!(self.phase, Phase::Turning { .. }) {
            if !hands_over(swap) {
                self.outputs.push_back(Output::HandOver { lane });
            }
        } else if self.is_declared() {
            self.outputs.push_back(Output::Quiesce { lane });
        } else if swap == Some(SwapState::Quiesced) {
            self.outputs.push_back(Output::GoOn { lane });
        }
    }

    /// An operator wants a pause, and its cut is not made yet.
    fn is_to_pause(&self) -> bool {
        let under_way = match &self.stage {
            Stage::Idle => None,
            Stage::Opening { demand, .. } | Stage::Releasing { demand, .. } => demand.as_ref(),
        };
        self.wanted.iter().chain(under_way).any(|demand| demand.then == Then::Pause)
    }

    pub(super) fn turn_timeout(&self) -> Option<Instant> {
        if matches!(self.phase, Phase::Turning { .. }) {
            return Some(self.turned.again);
        }
        match self.turn.as_ref()?.step {
            Step::Wanted => None,
            Step::Asking { until, .. }
            | Step::Quiescing { until }
            | Step::Cutting { until }
            | Step::Copying { until, .. } => Some(until),
            Step::Declared { again, until, .. } => Some(again.min(until)),
        }
    }

    pub(super) fn run_turn(&mut self, now: Now) {
        if matches!(self.phase, Phase::Turning { .. }) {
            return self.remind(now);
        }
        let Some(turn) = &self.turn else { return };
        let disaster = turn.disaster;
        match &turn.step {
            Step::Wanted if disaster => {
                self.tell_all(|lane| Output::Quiesce { lane });
                self.step(Step::Quiescing { until: now.instant.plus(GROUP_STAND_WAIT) });
            }
            Step::Wanted => {
                let waiting = self.lanes.keys().copied().collect();
                self.tell_all(|lane| Output::PrepareTurn { lane });
                self.step(Step::Asking { waiting, until: now.instant.plus(GROUP_READY_WAIT) });
            }
            Step::Asking { waiting, .. } if waiting.is_empty() => {
                self.tell_all(|lane| Output::Quiesce { lane });
                self.step(Step::Quiescing { until: now.instant.plus(GROUP_STAND_WAIT) });
            }
            Step::Asking { waiting, until } if now.instant >= *until => {
                let late = waiting.iter().copied().collect();
                self.end_turn(Refusal::Unable(late));
            }
            Step::Quiescing { until } => {
                let (until, late) = (*until, self.not_quiesced());
                if late.is_empty() {
                    self.wanted.push_front(Demand { ticket: None, name: None, then: Then::Turn, tries: 0 });
                    self.step(Step::Cutting { until });
                } else if now.instant >= until && disaster {
                    self.declare(now, CutNumber::NONE);
                } else if now.instant >= until {
                    self.end_turn(Refusal::NotStill(late));
                }
            }
            Step::Copying { cut, until } if disaster => {
                let (held, until) = (self.held_by_all().filter(|held| held >= cut), *until);
                if held.is_some() || now.instant >= until {
                    // What some copies lack is not promised: they may be taken over at an earlier one.
                    self.declare(now, held.unwrap_or(CutNumber::NONE));
                }
            }
            Step::Copying { cut, until } => {
                let (cut, until, late) = (*cut, *until, self.not_quiesced());
                if !late.is_empty() {
                    self.end_turn(Refusal::NotStill(late));
                } else if self.copied() >= Some(cut) {
                    self.decide(now, cut);
                } else if now.instant >= until {
                    let behind =
                        self.lanes.iter().filter(|(_, lane)| lane.is_none_or(|lane| lane.copied.boundary < cut));
                    self.end_turn(Refusal::NotCopied(behind.map(|(lane, _)| *lane).collect()));
                }
            }
            Step::Cutting { until } if disaster => {
                if now.instant >= *until {
                    self.declare(now, CutNumber::NONE);
                }
            }
            Step::Declared { cut, waiting, refused, again, until } => {
                let (cut, again, until) = (*cut, *again, *until);
                let (over, late) =
                    (waiting.is_empty(), [refused.as_slice(), &Vec::from_iter(waiting.clone())].concat());
                if over && late.is_empty() {
                    let ticket = self.turn.take().map(|turn| turn.ticket);
                    self.answer(ticket, Ok(cut));
                } else if over || now.instant >= until {
                    self.give_disaster_up(Refusal::NotTaken(late));
                } else if now.instant >= again {
                    self.stand_still_again(now);
                }
            }
            Step::Cutting { until } => {
                let (until, late) = (*until, self.not_quiesced());
                if !late.is_empty() || now.instant >= until {
                    self.end_turn(Refusal::NotStill(late));
                }
            }
            Step::Asking { .. } => {}
        }
    }

    /// The cut over quiesced lanes was made.
    pub(super) fn turn_cut_made(&mut self, cut: CutNumber) {
        if let Some(Turn { step: Step::Cutting { until }, .. }) = self.turn {
            self.step(Step::Copying { cut, until });
        }
    }

    /// The word goes to every copy that can be spoken to. Without a cut of its own the group is taken over at an earlier one.
    fn declare(&mut self, now: Now, cut: CutNumber) {
        self.drop_turn_cut();
        let waiting: BTreeSet<PairId> =
            self.lanes.iter().filter(|(_, lane)| lane.is_some()).map(|(lane, _)| *lane).collect();
        if waiting.is_empty() {
            // Nobody says it.
            return self.give_disaster_up(Refusal::Missing(self.lanes.keys().copied().collect()));
        }
        self.outputs.extend(waiting.iter().map(|lane| Output::Declare { lane: *lane }));
        let (again, until) = (now.instant.plus(GROUP_TURN_AGAIN), now.instant.plus(GROUP_DECLARED_WAIT));
        self.step(Step::Declared { cut, waiting, refused: Vec::new(), again, until });
    }

    /// The cut that is the last of every copy. Of lanes that did not stand still all the while one may have given an earlier one up,
    /// whatever it holds by now.
    fn held_by_all(&self) -> Option<CutNumber> {
        let copied: Option<Vec<_>> = self.lanes.values().map(|lane| lane.map(|lane| lane.copied)).collect();
        let copied = copied?;
        let last = copied.first()?.boundary;
        let held = copied.iter().all(|copied| copied.boundary == last);
        (held && copied.iter().any(|copied| copied.confirmed == last)).then_some(last)
    }

    /// Initiators wait until it is known who goes on.
    fn stand_still_again(&mut self, now: Now) {
        self.tell_all(|lane| Output::Quiesce { lane });
        if let Some(Turn { step: Step::Declared { again, .. }, .. }) = &mut self.turn {
            *again = now.instant.plus(GROUP_TURN_AGAIN);
        }
    }

    fn give_disaster_up(&mut self, refusal: Refusal) {
        let Some(turn) = self.turn.take() else { return };
        self.drop_turn_cut();
        self.tell_all(|lane| Output::GoOn { lane });
        self.answer(turn.ticket, Err(refusal));
    }

    /// Nothing was decided: every lane goes on. A disaster that is declared is not ended by what ends a change of sides.
    pub(super) fn end_turn(&mut self, refusal: Refusal) {
        if self.is_declared() {
            return;
        }
        let Some(turn) = self.turn.take() else { return };
        self.drop_turn_cut();
        self.tell_all(|lane| Output::GoOn { lane });
        self.answer(turn.ticket, Err(refusal));
    }

    fn drop_turn_cut(&mut self) {
        self.wanted.retain(|demand| demand.then != Then::Turn);
        if let Stage::Opening { demand, .. } | Stage::Releasing { demand, .. } = &mut self.stage {
            demand.take_if(|demand| demand.then == Then::Turn);
        }
    }
    /// Only what is durable is decided: no lane has been told.
    pub(super) fn on_turn_not_persisted(&mut self) {
        if !matches!(self.phase, Phase::Turning { .. }) {
            return;
        }
        self.outputs.retain(|output| !matches!(output, Output::HandOver { .. }));
        self.phase = Phase::Running;
        self.outputs.push_back(Output::Persist { phase: self.phase });
        self.tell_all(|lane| Output::GoOn { lane });
        let waits = std::mem::take(&mut self.turned).ticket;
        self.answer(waits, Err(Refusal::NotKept));
    }

    /// An operator ends a decided change of sides that does not come to its end: the lanes that write here go on.
    pub(super) fn give_turned_up(&mut self, ticket: Ticket, cut: CutNumber) {
        self.phase = Phase::Running;
        self.outputs.push_back(Output::Persist { phase: self.phase });
        self.tell_all(|lane| Output::GoOn { lane });
        let waits = std::mem::take(&mut self.turned).ticket;
        self.answer(waits, Err(Refusal::GivenUp));
        self.answer(ticket, Ok(cut));
    }

    /// Every lane that the group has now is written at the other site.
    pub(super) fn end_turned(&mut self) {
        let Phase::Turning { cut, .. } = self.phase else { return };
        if !self.lanes.keys().all(|lane| self.turned.lanes.contains(lane)) {
            return;
        }
        self.phase = Phase::Running;
        self.outputs.push_back(Output::Persist { phase: self.phase });
        let waits = std::mem::take(&mut self.turned).ticket;
        self.answer(waits, Ok(cut));
    }

    fn decide(&mut self, now: Now, cut: CutNumber) {
        let ticket = self.turn.take().map(|turn| turn.ticket);
        self.turned = Turned { ticket, lanes: BTreeSet::new(), again: now.instant.plus(GROUP_TURN_AGAIN) };
        self.phase = Phase::Turning { cut, lanes: self.count() };
        self.outputs.push_back(Output::Persist { phase: self.phase });
        self.tell_all(|lane| Output::HandOver { lane });
    }

    /// A lane went on by itself before it heard, or its link was down: it is told until it hands over.
    fn remind(&mut self, now: Now) {
        if now.instant < self.turned.again {
            return;
        }
        self.turned.again = now.instant.plus(GROUP_TURN_AGAIN);
        let waits = self.lanes.iter().filter(|(_, lane)| lane.is_some_and(|lane| !hands_over(lane.swap)));
        let waits: Vec<PairId> = waits.map(|(lane, _)| *lane).collect();
        self.outputs.extend(waits.into_iter().map(|lane| Output::HandOver { lane }));
    }

    fn not_quiesced(&self) -> Vec<PairId> {
        let stands = |standing: &Option<super::LaneStanding>| {
            standing.is_some_and(|lane| lane.swap == Some(SwapState::Quiesced))
        };
        self.lanes.iter().filter(|(_, standing)| !stands(standing)).map(|(lane, _)| *lane).collect()
    }

    fn step(&mut self, step: Step) {
        if let Some(turn) = &mut self.turn {
            turn.step = step;
        }
    }
}

/// It is on its way to the other site by itself.
fn hands_over(swap: Option<SwapState>) -> bool {
    match swap {
        None | Some(SwapState::Quiesced) => false,
        Some(SwapState::Draining | SwapState::Keeping | SwapState::Asking) => true,
    }
}
