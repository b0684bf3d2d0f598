//! Groups that pause and resume by themselves: the lead looks at the clock, asks the coordinator, and keeps durably
//! whose pause it is.
//!
//! What an operator wants changes whose pause it is when it was done, not when it was asked for: what is refused changes
//! nothing. What presets want is kept before it is asked for, and asked for until it is done, also after a restart.

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

/// What an operator says of a group's pause.
#[derive(Clone, Debug)]
pub(super) enum Word {
    Pause { by: Option<String>, span: Option<Millis> },
    Resume,
}

/// What a group's presets have asked of its coordinator.
#[derive(Debug, Default)]
pub(super) struct Due {
    /// It has not answered.
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
            let looked = self.look_at_presets(&name, now.wall);
            if let Some(group) = self.groups.get_mut(&name) {
                let next = group.record.presets.due().filter(|due| looked && *due > now.wall);
                let next = next.map_or(LOOK_AT_LEAST, |due| due.since(now.wall).min(LOOK_AT_LEAST));
                group.due.look_at = now.instant.plus(next);
            }
        }
    }

    /// Says whether this site writes the group.
    fn look_at_presets(&mut self, name: &str, wall: WallTime) -> bool {
        let now = self.clock.now();
        let Some(group) = self.groups.get_mut(name) else { return false };
        if !group.writes.values().any(|writes| *writes) {
            return false;
        }
        let phase = group.coordinator.status(now).phase;
        let mut record = group.record.clone();
        match record.presets.look(wall, phase != Phase::Running, preset::entropy()) {
            Some(Act::Resume) => record.resume_due = true,
            Some(Act::Pause) => record.resume_due = false,
            None => {}
        }
        record.resume_due &= phase != Phase::Running || group.due.asked.is_some();
        if record != group.record && !self.keep(name, record) {
            return true;
        }
        self.ask_what_is_due(name, phase);
        true
    }

    fn ask_what_is_due(&mut self, name: &str, phase: Phase) {
        let Some(group) = self.groups.get(name) else { return };
        let held = group.record.presets.hold().is_some();
        let command = match phase {
            Phase::Running if held => Command::Pause,
            Phase::Paused { .. } if group.record.resume_due => Command::Resume,
            // As it should be, or to be asked when the group has changed sides.
            Phase::Running | Phase::Paused { .. } | Phase::Turning { .. } => return,
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
        if let Err(refusal) = result {
            tracing::warn!(group = name, %refusal, "what is due by the presets could not be done; it is tried again");
        }
        true
    }

    /// An operator's word has been carried out: whose pause it is from now on.
    pub(super) fn word_on_pause(&mut self, name: &str, word: &Word) {
        let now = self.clock.now().wall;
        let Some(group) = self.groups.get(name) else { return };
        let mut record = super::GroupRecord { resume_due: false, ..group.record.clone() };
        match word {
            Word::Pause { by, span } => {
                let by = by.as_deref().map(|by| farseal_plugin::escaped(by).to_string());
                record.presets.pause(now, by, *span);
            }
            Word::Resume => record.presets.resume(),
        }
        self.keep(name, record);
    }

    pub(super) fn is_paused_by_preset(&self, name: &str) -> bool {
        let Some(group) = self.groups.get(name) else { return false };
        let paused = matches!(group.coordinator.status(self.clock.now()).phase, Phase::Paused { .. });
        paused && group.record.presets.hold().is_some_and(|hold| matches!(hold.by, By::Preset(_)))
    }

    /// A preset's pause becomes an operator's.
    pub(super) fn take_pause_over(&mut self, member: MemberId, ask: u64, name: &str, word: &Word) {
        self.word_on_pause(name, word);
        let message =
            format!("group {name} is paused already, by a preset; the preset does not end this pause any more");
        self.reply(member, ask, Reply::Done(CommandReply::new(message)));
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
            | GroupCommand::Declare
            | GroupCommand::TakeOver { .. }
            | GroupCommand::Forget { .. } => return None,
        };
        let message = match changed {
            Ok(message) => message,
            Err(error) => return Some(error.reply()),
        };
        let record = super::GroupRecord { presets, ..self.groups.get(name)?.record.clone() };
        if !self.keep(name, record) {
            let next = "mend the disk of the lead's state folder, then try again; its log says more".to_owned();
            return Some(refused("the preset could not be kept: nothing was changed".into(), Some(next)));
        }
        if let Some(group) = self.groups.get_mut(name) {
            group.due.look_at = now.instant;
        }
        self.reply(member, ask, Reply::Done(CommandReply::new(message)));
        None
    }

    /// Only what is kept counts.
    fn keep(&mut self, name: &str, record: super::GroupRecord) -> bool {
        match (self.store.put_group(name, &record), self.groups.get_mut(name)) {
            (Ok(()), Some(group)) => group.record = record,
            (Ok(()), None) => {}
            (Err(error), _) => {
                tracing::error!(group = name, %error, "the site's control information could not be kept");
                return false;
            }
        }
        true
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
