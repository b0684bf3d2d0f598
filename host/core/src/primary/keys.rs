//! Keys: what the policy is asked and told, and the rotations that nobody need ask for.

use super::*;
use crate::limits::POLICY_WAKE_MIN;

impl Primary {
    pub(super) fn on_key_refused(&mut self, now: Now, key: Sequence) {
        let waits = self.rotation.refused(key);
        if !waits && key > self.transfer.acked() && !self.voided.contains(&key) {
            self.key_in_force_refused(now);
        }
    }

    /// This epoch never comes into force.
    pub(super) fn give_up_key(&mut self, now: Now, epoch: Epoch) {
        self.alarm(now, Alarm::EpochVoid(epoch));
        self.answer_decision(Outcome::NotDelivered);
        self.discard_after_commit.push(epoch);
    }

    pub(super) fn on_policy(&mut self, now: Now, decisions: &[Decision]) {
        self.policy_busy = false;
        for decision in decisions {
            match decision.action {
                // Not a policy's to ask: what nobody waits for is the operator's and the host's.
                Action::Unknown | Action::Rotate(Some(How::AtOnce)) => {
                    self.tell_policy(PolicyEvent::Decided { id: decision.id, outcome: Outcome::Unknown });
                }
                Action::Rotate(how) => {
                    let how = how.unwrap_or(self.settings.rotate_how);
                    match self.begin_rotation(now, how) {
                        Ok(epoch) => {
                            self.rotation_by = Some(decision.id);
                            self.prepare(epoch, Wish::Policy(decision.id));
                        }
                        Err(refused) => {
                            self.tell_policy(PolicyEvent::Decided {
                                id: decision.id,
                                outcome: Outcome::Refused(refused),
                            });
                        }
                    }
                }
                Action::WakeAt(at) => self.wake_policy_at(now, decision.id, at),
                Action::Watch { bytes, blocks } => self.watch = Some((bytes, blocks)),
            }
        }
    }

    /// No sooner than a second from the call: a policy that answers each call with the next moment would be asked without end, and each
    /// call is written down. It is told so, unless that is what it was told just now.
    fn wake_policy_at(&mut self, now: Now, id: u64, at: WallTime) {
        // A clock that was set back meanwhile does not put it off.
        let called = self.policy_called.min(now.wall);
        let soonest = WallTime(called.0.saturating_add(POLICY_WAKE_MIN.0));
        self.wake_at = Some(at.max(soonest));
        if at < soonest && !self.policy_hears_outcome {
            self.tell_policy(PolicyEvent::Decided { id, outcome: Outcome::Clamped });
        }
    }

    pub(super) fn run_policy(&mut self, now: Now) {
        if self.wake_at.is_some_and(|at| now.wall >= at) {
            self.wake_at = None;
            self.tell_policy(PolicyEvent::Timer);
        }
        if let (Some((bytes, blocks)), Some(key)) = (self.watch, self.rotation.active())
            && (bytes.is_some_and(|mark| key.bytes.0 >= mark) || blocks.is_some_and(|mark| key.blocks >= mark))
        {
            self.watch = None;
            self.tell_policy(PolicyEvent::Usage);
        }
        // The first key comes from the host; a policy is asked once there is something to decide about.
        if !self.policy_busy
            && self.rotation.active().is_some()
            && let Some(event) = self.policy_events.pop_front()
        {
            self.policy_busy = true;
            self.policy_hears_outcome = matches!(event, PolicyEvent::Decided { .. });
            self.policy_called = now.wall;
            self.outputs.push_back(Output::AskPolicy { event });
        }
    }

    pub(super) fn tell_policy(&mut self, event: PolicyEvent) {
        if !self.policy_events.contains(&event) && self.policy_events.len() < POLICY_EVENTS_MAX {
            self.policy_events.push_back(event);
        }
    }

    pub(super) fn answer_decision(&mut self, outcome: Outcome) {
        if let Some(id) = self.rotation_by.take() {
            self.tell_policy(PolicyEvent::Decided { id, outcome });
        }
    }

    /// The first key, and the one at the hard limit, need nobody's leave.
    pub(super) fn run_host_rotation(&mut self, now: Now) {
        let ended = self.fenced.is_some() || self.swap_is_cut();
        if self.journal_failed || ended || !self.rotation.host_demands(now) {
            return;
        }
        // At the limit itself no interval and no delivery is waited for.
        let in_time = self.rotation.active().is_some() && !self.rotation.hard_limit_reached(now);
        let configured = if self.pause_shows() { How::InBand } else { self.settings.rotate_how };
        let how = if in_time && self.deliverable() { configured } else { How::AtOnce };
        let by = if self.rotation.active().is_some() { Wish::HostLimit } else { Wish::FirstKey };
        if let Ok(epoch) = self.begin_rotation(now, how) {
            self.prepare(epoch, by);
            // Age and bytes foretell this moment: there is nothing to hide, and a limit that comes nearer.
            self.prepare_beside(now);
        }
    }

    /// Also where another disguise came into force since the start.
    fn pause_shows(&self) -> bool {
        !self.settings.pause_hidden || (self.schedule.is_standing() && !self.settings.shaped)
    }

    /// What nobody waits for goes before a key that has no place yet: that one was drawn before, and may be known as well.
    pub(super) fn begin_for_operator(&mut self, now: Now, how: How) -> Result<(), Refused> {
        if how == How::AtOnce
            && let Some(epoch) = self.rotation.give_up_unplaced()
        {
            self.to_prepare = None;
            self.outputs.push_back(Output::DiscardEpoch { epoch });
            self.answer_decision(Outcome::NotDelivered);
        }
        let begun = self.begin_rotation(now, how);
        begun.map(|epoch| self.prepare(epoch, Wish::Operator))
    }

    /// A pause that would show is no way to hide a key.
    pub(super) fn begin_rotation(&mut self, now: Now, how: How) -> Result<Epoch, Refused> {
        if how == How::Pause && self.pause_shows() {
            return Err(Refused::Visible);
        }
        self.rotation.begin(now, how, self.deliverable())
    }

    /// Without a secondary a key is delivered when it is durable here: nothing is down that could be waited for.
    pub(super) fn deliverable(&self) -> bool {
        !self.settings.paired || (self.link_up() && self.pause.is_none() && self.copying.sends())
    }

    /// Has the key drawn. With a standing schedule that is done beside its next doing, so that no work begins at the moment
    /// at which somebody asks for a key.
    pub(super) fn prepare(&mut self, epoch: Epoch, by: Wish) {
        self.schedule.ask_again(self.settings.paired);
        self.to_prepare = Some((epoch, by));
    }

    /// The standing schedule does something: with a cover, as with a key.
    pub(super) fn prepare_beside(&mut self, now: Now) {
        let Some((begun, by)) = self.to_prepare.take() else { return };
        if let RotationState::Preparing { epoch, how } = *self.rotation.state()
            && epoch == begun
        {
            self.rotation.begins(now);
            self.outputs.push_back(Output::PrepareEpoch { epoch, how, by });
        }
    }

    /// Without a schedule, or where a key is not waited for, it is drawn at once; nor is anything hidden while nothing can
    /// be delivered.
    pub(super) fn prepare_in_the_open(&mut self, now: Now) {
        // Asked after every input, and hardly ever is there a key to draw.
        if self.to_prepare.is_none() {
            return;
        }
        let waits = self.schedule.is_standing() && self.deliverable() && self.fenced.is_none();
        if !waits || matches!(self.rotation.state(), RotationState::Preparing { how: How::AtOnce, .. }) {
            self.prepare_beside(now);
        }
    }
}
