//! Groups that pause and resume by themselves: the lead looks at the clock, asks the coordinator, and keeps durably
//! whose pause it is.

use farseal_core::group::{Command, Phase};
use farseal_core::preset::{Act, By};
use farseal_core::units::{Instant, Millis, Ticket, WallTime};

use super::super::words::GroupCommand;
use super::{Lead, MemberId, Waiting, refused};
use crate::control::api::{CommandReply, ErrorReply};
use crate::node::preset;
use crate::site::words::Reply;

/// A wall clock may jump: it is looked at this often, whatever is due. What could not be done is tried again as often.
const LOOK_AT_LEAST: Millis = Millis(2_000);

/// What a group's presets want of its coordinator.
#[derive(Debug, Default)]
pub(super) struct Due {
    act: Option<Act>,
    /// It was asked, and has not answered.
    asked: Option<Ticket>,
    look_at: Instant,
}

impl Lead {
    /// When a group is to be looked at next.
    pub(super) fn presets_due(&self) -> Option<Instant> {
        self.groups.values().map(|group| group.due.look_at).min()
    }

    /// Follows every group's presets, where this site writes.
    pub(super) fn follow_presets(&mut self) {
        let now = self.clock.now();
        let due = self.groups.iter().filter(|(_, group)| group.due.look_at <= now.instant);
        let names: Vec<String> = due.map(|(name, _)| name.clone()).collect();
        for name in names {
            self.look_at_presets(&name, now.wall);
            if let Some(group) = self.groups.get_mut(&name) {
                let next = group.record.presets.due().map_or(LOOK_AT_LEAST, |due| Millis(due.since(now.wall).0.max(1)));
                group.due.look_at = now.instant.plus(next.min(LOOK_AT_LEAST));
            }
        }
    }

    fn look_at_presets(&mut self, name: &str, wall: WallTime) {
        let Some(group) = self.groups.get_mut(name) else { return };
        if !group.writes.values().any(|writes| *writes) {
            return;
        }
        let phase = group.coordinator.status(self.clock.now()).phase;
        let mut presets = group.record.presets.clone();
        let act = presets.look(wall, phase != Phase::Running, preset::entropy());
        // A pause that was kept and not carried out, because the node ended in between.
        let kept = || presets.hold().is_some() && phase == Phase::Running;
        group.due.act = act.or(group.due.act).or_else(|| kept().then_some(Act::Pause));
        if presets != group.record.presets {
            self.record(name, |record| record.presets = presets);
        }
        self.ask_what_is_due(name, phase);
    }

    fn ask_what_is_due(&mut self, name: &str, phase: Phase) {
        let Some(group) = self.groups.get_mut(name) else { return };
        let command = match (group.due.act, phase) {
            (Some(Act::Pause), Phase::Running) => Command::Pause,
            (Some(Act::Resume), Phase::Paused { .. }) => Command::Resume,
            // Done, or to be asked when the group has changed sides.
            (Some(Act::Pause), Phase::Paused { .. }) | (Some(Act::Resume), Phase::Running) => {
                group.due.act = None;
                return;
            }
            (Some(_), Phase::Turning { .. }) | (None, _) => return,
        };
        if group.due.asked.is_some() {
            return;
        }
        tracing::info!(group = name, ?command, "by the presets, or because a pause is over");
        let ticket = self.ticket();
        if let Some(group) = self.groups.get_mut(name) {
            group.due.asked = Some(ticket);
        }
        self.tell(name, farseal_core::group::Input::Wanted { ticket, command });
    }

    /// The coordinator's answer, where the presets had asked. What is refused is tried again.
    pub(super) fn heard_for_presets(
        &mut self,
        name: &str,
        ticket: Ticket,
        result: &Result<farseal_core::units::CutNumber, farseal_core::group::Refusal>,
    ) -> bool {
        let Some(group) = self.groups.get_mut(name).filter(|group| group.due.asked == Some(ticket)) else {
            return false;
        };
        group.due.asked = None;
        match result {
            Ok(_) => group.due.act = None,
            Err(refusal) => {
                tracing::warn!(group = name, %refusal, "what is due by the presets could not be done; it is tried again");
            }
        }
        true
    }

    /// An operator's word: whose pause it becomes, or that it ends. What presets wanted is over.
    pub(super) fn word_on_pause(&mut self, name: &str, command: &GroupCommand) -> Result<(), ErrorReply> {
        let now = self.clock.now().wall;
        let Some(group) = self.groups.get_mut(name) else { return Ok(()) };
        let mut presets = group.record.presets.clone();
        match command {
            GroupCommand::Pause { by, span, .. } => {
                let by = by.as_deref().map(|by| farseal_plugin::escaped(by).to_string());
                presets.pause(now, by, *span);
            }
            GroupCommand::Resume => presets.resume(),
            GroupCommand::Cut { .. }
            | GroupCommand::SwapSides
            | GroupCommand::AddPreset(_)
            | GroupCommand::RemovePreset(_)
            | GroupCommand::TakeOver
            | GroupCommand::Forget { .. } => return Ok(()),
        }
        group.due.act = None;
        self.keep_presets(name, presets)
    }

    pub(super) fn is_held_by_preset(&self, name: &str) -> bool {
        let hold = self.groups.get(name).and_then(|group| group.record.presets.hold());
        hold.is_some_and(|hold| matches!(hold.by, By::Preset(_)))
    }

    /// A pause that was refused is nobody's.
    pub(super) fn not_paused(&mut self, name: &str) {
        let Some(group) = self.groups.get(name) else { return };
        let mut presets = group.record.presets.clone();
        presets.resume();
        if let Err(error) = self.keep_presets(name, presets) {
            tracing::error!(group = name, error = error.message, "the presets cannot be kept");
        }
    }

    pub(super) fn change_presets(
        &mut self,
        member: MemberId,
        ask: u64,
        name: &str,
        command: GroupCommand,
    ) -> Option<ErrorReply> {
        let now = self.clock.now();
        let mut presets = self.groups.get(name)?.record.presets.clone();
        let changed = match &command {
            GroupCommand::AddPreset(add) => preset::add(&mut presets, add, now.wall),
            GroupCommand::RemovePreset(remove) => {
                preset::remove(&mut presets, remove, &format!("group {name}"), &format!("--group {name}"))
            }
            GroupCommand::Cut { .. }
            | GroupCommand::Pause { .. }
            | GroupCommand::Resume
            | GroupCommand::SwapSides
            | GroupCommand::TakeOver
            | GroupCommand::Forget { .. } => return None,
        };
        let message = match changed {
            Ok(message) => message,
            Err(error) => return Some(error.reply()),
        };
        if let Err(refusal) = self.keep_presets(name, presets) {
            return Some(refusal);
        }
        if let Some(group) = self.groups.get_mut(name) {
            group.due.look_at = now.instant;
        }
        self.reply(member, ask, Reply::Done(CommandReply::new(message)));
        None
    }

    /// Only what is kept counts.
    fn keep_presets(&mut self, name: &str, presets: farseal_core::preset::Presets) -> Result<(), ErrorReply> {
        let Some(group) = self.groups.get_mut(name) else { return Ok(()) };
        let record = super::GroupRecord { presets, ..group.record.clone() };
        if record == group.record {
            return Ok(());
        }
        match self.store.put_group(name, &record) {
            Ok(()) => {
                group.record = record;
                Ok(())
            }
            Err(error) => {
                let next = "mend the disk of the lead's state folder, then try again".to_owned();
                Err(refused(error.to_string(), Some(next)))
            }
        }
    }

    fn ticket(&mut self) -> Ticket {
        self.next_ticket += 1;
        Ticket(self.next_ticket)
    }

    /// Who waits for what the group's coordinator answers to this ticket.
    pub(super) fn waits(&mut self, waiting: Waiting) -> Ticket {
        let ticket = self.ticket();
        self.waiting.insert(ticket, waiting);
        ticket
    }
}
