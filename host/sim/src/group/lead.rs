//! The writing site's lead: each group's coordinator over the lead's one store of cut numbers, what an operator and presets
//! want of a group, and what is durable of it.

use std::collections::BTreeSet;

use farseal_core::group::{
    Command, Common, Coordinator, CutName, Event as GroupEvent, Input as GroupInput, Numbers, Output as GroupOutput,
    Phase, Settings as GroupSettings, Taking,
};
use farseal_core::preset::{Act, Preset, Presets};
use farseal_core::primary::{self, Input};
use farseal_core::units::{CutNumber, Instant, Millis, PairId};

use super::declaring::Disaster;
use super::event::Event;
use super::figures::Figure;
use super::turning::Turning;
use super::{Mutation, World, pair};
use crate::check::group_pause;
use crate::dice::Dice;
use crate::disk::{to_usize, wide};
use crate::world::Outcome;

/// The lead itself.
#[derive(Debug)]
pub struct Lead {
    pub up: bool,
    pub life: u64,
    numbers: Numbers,
    // Durable.
    reserved: CutNumber,
}

/// One group, as the leads of both sites see it.
#[derive(Debug)]
pub struct Group {
    pub lanes: Vec<usize>,
    interval: Option<Millis>,
    coordinator: Option<Coordinator>,
    tick_at: Option<Instant>,
    // Durable at the writing lead.
    pub phase: Phase,
    presets: Presets,
    // At the keeping lead.
    pub common: Common,
    // Durable at the keeping lead.
    pub held: CutNumber,
    pub taking_over: Option<CutNumber>,
    /// All lanes have been taken over, at this cut.
    pub taken: Option<CutNumber>,
    /// Cuts that the writing lead confirmed.
    pub made: BTreeSet<CutNumber>,
    pub turn: Turning,
    pub disaster: Disaster,
    /// At the keeping lead, until it crashes: a takeover that is not decided.
    pub taking: Option<Taking>,
}

impl Lead {
    pub(super) fn new() -> Self {
        Self { up: false, life: 0, numbers: Numbers::after(CutNumber::NONE), reserved: CutNumber::NONE }
    }
}

impl Group {
    pub fn new(dice: &mut Dice, lanes: Vec<usize>) -> Self {
        let interval = if dice.chance(900) { Some(Millis(dice.between(50, 90))) } else { None };
        let mut presets = Presets::default();
        if dice.chance(300) {
            let (every, span) = (dice.between(5_000, 60_000), dice.between(1_000, 4_000));
            let twice = |span| (Millis(span), Millis(2 * span));
            let preset = Preset::Irregular { every: twice(every), span: twice(span) };
            presets.add("by-chance", preset).unwrap_or_default();
        }
        let all = lanes.iter().map(|lane| pair(*lane)).collect();
        Self {
            lanes,
            interval,
            coordinator: None,
            tick_at: None,
            phase: Phase::Running,
            presets,
            common: Common::new(all, CutNumber::NONE, false),
            held: CutNumber::NONE,
            taking_over: None,
            taken: None,
            made: BTreeSet::new(),
            turn: Turning::default(),
            disaster: Disaster::default(),
            taking: None,
        }
    }

    pub fn pairs(&self) -> BTreeSet<PairId> {
        self.lanes.iter().map(|lane| pair(*lane)).collect()
    }

    pub fn is_paused(&self) -> bool {
        match self.phase {
            Phase::Paused { .. } => true,
            Phase::Running | Phase::Turning { .. } => false,
        }
    }
}

impl World {
    pub(super) fn crash_lead(&mut self) {
        if !std::mem::replace(&mut self.lead.up, false) {
            return;
        }
        self.figures.count(Figure::CrashesOfALead);
        self.lead.life += 1;
        for group in 0..self.groups.len() {
            self.count_given_up(group);
            (self.groups[group].coordinator, self.groups[group].tick_at) = (None, None);
            self.groups[group].turn.waits = None;
        }
        self.forget_disasters();
        for member in &mut self.members {
            member.session += 1;
            member.joined = false;
        }
        let delay = self.dice.between(1_000, 500_000);
        self.after(delay, Event::LeadBack);
    }

    pub(super) fn lead_back(&mut self) -> Outcome {
        if std::mem::replace(&mut self.lead.up, true) {
            return Ok(());
        }
        self.lead.numbers = Numbers::after(self.lead.reserved);
        let now = self.clock();
        for group in &mut self.groups {
            let settings = GroupSettings { interval: group.interval };
            group.coordinator = Some(Coordinator::new(now, settings, group.pairs(), group.phase));
        }
        for lane in 0..self.lanes.len() {
            let delay = self.dice.between(500, 50_000);
            self.after(delay, Event::Join(lane));
        }
        (0..self.groups.len()).try_for_each(|group| self.carry_out_lead(group))
    }

    pub(super) fn count_given_up(&mut self, group: usize) {
        let now = self.clock();
        let given_up = self.groups[group].coordinator.as_ref().map_or(0, |lead| lead.status(now).abandoned);
        self.figures.add(Figure::CutsGivenUp, given_up);
    }

    pub(super) fn reserved(&mut self, group: usize) -> Outcome {
        self.lead.numbers.reserved(self.lead.reserved);
        self.tell_lead(group, GroupInput::Reserved)
    }

    pub(super) fn lead_tick(&mut self, group: usize) -> Outcome {
        self.groups[group].tick_at = None;
        self.tell_lead(group, GroupInput::Tick)
    }

    pub(super) fn tell_lead(&mut self, group: usize, input: GroupInput) -> Outcome {
        let now = self.clock();
        if let Some(coordinator) = &mut self.groups[group].coordinator {
            coordinator.handle(now, &mut self.lead.numbers, input);
        }
        self.carry_out_lead(group)
    }

    fn carry_out_lead(&mut self, group: usize) -> Outcome {
        while let Some(output) = self.groups[group].coordinator.as_mut().and_then(Coordinator::poll_output) {
            self.lead_does(group, output)?;
        }
        let now = self.clock();
        if let Some(at) = self.groups[group].coordinator.as_ref().and_then(Coordinator::poll_timeout)
            && self.groups[group].tick_at.is_none_or(|before| at < before)
        {
            self.groups[group].tick_at = Some(at);
            let (life, delay) = (self.lead.life, at.since(now.instant).0.max(1) * 1_000);
            self.after(delay, Event::LeadTick { group, life });
        }
        Ok(())
    }

    fn lead_does(&mut self, group: usize, output: GroupOutput) -> Outcome {
        let at = self.now;
        self.trace.note(at, || format!("  group {group} -> {output:?}"));
        match &output {
            GroupOutput::Open { lane, .. }
            | GroupOutput::Release { lane, .. }
            | GroupOutput::Pause { lane }
            | GroupOutput::Resume { lane }
            | GroupOutput::Quiesce { lane }
            | GroupOutput::GoOn { lane }
            | GroupOutput::HandOver { lane } => self.order(*lane, output.clone()),
            GroupOutput::Declare { lane } => {
                if let Some(index) = (0..self.lanes.len()).find(|index| pair(*index) == *lane) {
                    self.word_goes_out(group, index)?;
                }
                self.order(*lane, output.clone());
            }
            GroupOutput::PrepareTurn { lane } => {
                self.turn_begins(group);
                self.order(*lane, output.clone());
            }
            GroupOutput::Confirm { lane, cut, .. } => {
                if self.groups[group].made.insert(*cut) {
                    self.figures.count(Figure::CutsMade);
                    if self.groups.iter().any(|other| other.taken.is_some()) {
                        self.figures.count(Figure::CutsMadeAfterATakeover);
                    }
                }
                self.order(*lane, output.clone());
            }
            GroupOutput::Reserve { through } => {
                self.lead.reserved = self.lead.reserved.max(*through);
                let life = self.lead.life;
                self.after(3_000, Event::Reserved { group, life });
            }
            GroupOutput::Persist { phase } => {
                let before = std::mem::replace(&mut self.groups[group].phase, *phase);
                return self.phase_is(group, before, *phase);
            }
            GroupOutput::Named { .. } => self.figures.count(Figure::CutsNamed),
            GroupOutput::Event(event) => match event {
                GroupEvent::PausedAnew { .. } => self.figures.count(Figure::PausedAnew),
                GroupEvent::Abandoned { .. } | GroupEvent::Waits { .. } | GroupEvent::Complete => {}
            },
            GroupOutput::Answer { ticket, result } => {
                self.figures.add(Figure::Refused, u64::from(result.is_err()));
                self.turn_answered(group, *ticket, result.is_err());
                return self.disaster_answered(group, *ticket, result);
            }
        }
        Ok(())
    }

    fn phase_is(&mut self, group: usize, before: Phase, phase: Phase) -> Outcome {
        match phase {
            Phase::Running => {
                self.turn_ended(group, before);
                Ok(())
            }
            Phase::Turning { cut, .. } => {
                self.decided(group, before, cut);
                Ok(())
            }
            Phase::Paused { settled: false, .. } => {
                self.figures.count(Figure::Pauses);
                Ok(())
            }
            Phase::Paused { cut, settled: true, .. } => {
                self.figures.count(Figure::PausesSettled);
                group_pause::settled(self, group, cut)
            }
        }
    }

    // ---- an operator, and presets

    /// Whatever an operator may want of any group, in whatever state it is.
    pub(super) fn command_group(&mut self) -> Outcome {
        let group = self.any_group();
        if self.dice.chance(self.turn_rate()) {
            return self.want_turn(group);
        }
        let command = match self.dice.below(4) {
            0 => Command::Pause,
            1 | 2 => Command::Resume,
            _ => Command::Cut { name: CutName::new("by-hand").ok().filter(|_| self.dice.chance(700)) },
        };
        if command == Command::Resume {
            self.groups[group].presets.resume();
        }
        self.want(group, command)
    }

    /// One lane without the others. As in a node, it is not resumed while its group is paused.
    pub(super) fn command_alone(&mut self, lane: usize) -> Outcome {
        let together = self.groups[self.group_of(lane)].is_paused();
        if self.dice.chance(400) {
            self.figures.count(Figure::PausedAlone);
            return self.tell_lane(lane, Input::Operator(primary::Command::Pause));
        }
        if together && self.mutation != Some(Mutation::ResumedAlone) {
            return Ok(());
        }
        self.tell_lane(lane, Input::Operator(primary::Command::Resume))
    }

    pub(super) fn follow_presets(&mut self, group: usize) -> Outcome {
        if self.healed.is_some() {
            return Ok(());
        }
        self.after(20_000, Event::Presets(group));
        if self.groups[group].is_turning() {
            return Ok(());
        }
        let (wall, entropy) = (self.clock().wall, self.dice.draw());
        let paused = self.groups[group].is_paused();
        match self.groups[group].presets.look(wall, paused, entropy) {
            Some(Act::Pause) => {
                self.figures.count(Figure::PausedByPreset);
                self.want(group, Command::Pause)
            }
            Some(Act::Resume) => self.want(group, Command::Resume),
            None => Ok(()),
        }
    }

    pub(super) fn want(&mut self, group: usize, command: Command) -> Outcome {
        let ticket = self.ticket();
        if command == Command::Turn {
            self.groups[group].turn.waits = Some(ticket);
        }
        self.tell_lead(group, GroupInput::Wanted { ticket, command })
    }

    pub(super) fn any_group(&mut self) -> usize {
        to_usize(self.dice.below(wide(self.groups.len())))
    }

    pub(super) fn any_lane(&mut self) -> usize {
        to_usize(self.dice.below(wide(self.lanes.len())))
    }
}
