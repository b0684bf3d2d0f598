//! A policy's calls that a node journalled, made again in a story: whether each is decided as it was then.

use super::super::journalled::{JournalledOf, Told, deeds, made_now, words};
use super::super::units::{instant, span, story_time};
use super::answering::Answering;
use super::{Key, Node};
use crate::fault::CallError;
use crate::rotation::{RotationCall, RotationPolicy};
use crate::wit::rotation::{
    Action, Context, Decided, Decision, Event, How, KeyInfo, KeyState, Outcome, OutcomeOfDecision,
};

impl Told for RotationPolicy {
    fn deed(decision: &Decision) -> String {
        match &decision.action {
            Action::Rotate(rotate) => match rotate.how {
                How::AsConfigured => "rotate".into(),
                How::InBand => "rotate in-band".into(),
                How::Pause => "rotate pause".into(),
            },
            Action::WakeAt(at) => format!("wake-at {at}"),
            Action::Watch(watch) => {
                let bytes = watch.bytes.map(|bytes| format!(" {bytes} bytes"));
                let blocks = watch.blocks.map(|blocks| format!(" {blocks} blocks"));
                format!("watch{}{}", bytes.unwrap_or_default(), blocks.unwrap_or_default())
            }
            Action::Alert(_) => "alert".into(),
            Action::Ext(ext) => format!("ext {}", ext.name),
        }
    }

    fn named(context: &mut Context) -> &mut String {
        &mut context.pair
    }

    fn written(event: &mut Event) -> Option<&mut String> {
        if let Event::Requested(text) = event { Some(text) } else { None }
    }

    fn said(event: &mut Event) -> Option<&mut String> {
        match event {
            Event::Decided(Decided {
                outcome: OutcomeOfDecision::Clamped(text) | OutcomeOfDecision::Refused(text),
                ..
            }) => Some(text),
            Event::Started
            | Event::Timer
            | Event::Usage
            | Event::Requested(_)
            | Event::Suspect(_)
            | Event::Rotated(_)
            | Event::Decided(Decided { outcome: OutcomeOfDecision::Applied, .. })
            | Event::Ext(_) => None,
        }
    }

    fn node(first: &Context) -> String {
        let limits = &first.limits;
        format!(
            "start: {}\nhost: {{ min-interval: {}, max-age: {}, max-bytes: {} }}\n",
            instant(first.now / 1_000 * 1_000),
            span(limits.min_interval),
            span(limits.max_age),
            limits.max_bytes
        )
    }
}

impl Node<'_> {
    /// Makes the call again. What the host did with the answer is in the calls that follow.
    pub(super) fn relive(&mut self, journalled: &JournalledOf<RotationPolicy>) {
        // Only a component has a journal of its own.
        let Answering::Component(policy) = &self.policy else { return };
        self.script.count("journalled", 1);
        let call = made_now(journalled, &**policy, self.state.as_ref());
        let context = call.context().clone();
        self.see(&context);
        let title = match &call {
            RotationCall::Init { .. } => "first call".into(),
            RotationCall::Step { event, .. } => self.event_words(event),
        };
        if matches!(&call, RotationCall::Step { event: Event::Rotated(_), .. }) {
            self.script.count("rotations", 1);
        }
        self.script.blank();
        self.script.line(&format!("{:<18}{title:<43} entropy {}", story_time(self.now), context.entropy));
        match self.answer_now(&call, &context) {
            Ok(outcome) => {
                let now = deeds::<RotationPolicy>(&outcome.decisions);
                if now != journalled.did {
                    self.script.count("differences", 1);
                    self.script.line(&format!("  journal   otherwise: {}", words(&journalled.did)));
                }
                self.state = Some(outcome.state);
            }
            Err(error) => self.die(&error),
        }
    }

    /// A state that is not this policy's begins it afresh, as a swap in a node does.
    fn answer_now(&mut self, call: &RotationCall, context: &Context) -> Result<Outcome, CallError> {
        let called = match (self.policy.call(call), call) {
            (Err(error), RotationCall::Step { event, .. }) if super::foreign_state(&error) => {
                self.script.line(&format!("  refuses   {error}"));
                self.script.line("  host      the policy begins afresh");
                let first = self.policy.call(&RotationCall::Init { context: context.clone() })?;
                let (state, event, context) = (first.value.state, event.clone(), context.clone());
                self.policy.call(&RotationCall::Step { state, event, context })?
            }
            (answer, RotationCall::Init { .. } | RotationCall::Step { .. }) => answer?,
        };
        self.show(&called.value, &called.logs);
        Ok(called.value)
    }

    /// The clock and the keys are what the journal says.
    fn see(&mut self, context: &Context) {
        let start = self.story.start.0;
        self.now = context.now.saturating_sub(start);
        self.note_age();
        let key = |info: &KeyInfo| Key {
            epoch: info.epoch,
            state: info.state,
            since: info.since,
            from: info.since.saturating_sub(start).min(self.now),
            due: None,
            bytes: info.bytes_sealed,
            blocks: info.blocks_sealed,
            records: info.records_sealed,
        };
        self.keys = context.keys.iter().rev().map(key).collect();
        self.link = if context.link_up { super::Link::Up } else { super::Link::Down };
    }

    /// The end of a story that has journalled calls.
    pub(super) fn close_journal(&mut self) {
        let count = |what| self.script.counts.get(what).copied().unwrap_or(0);
        let (calls, otherwise, rotations) = (count("journalled"), count("differences"), count("rotations"));
        let sealing = self.keys.iter().rev().find(|key| key.state == KeyState::Active);
        if let Some(epoch) = sealing.map(|key| key.epoch) {
            self.script.counts.insert("final-epoch", epoch);
        }
        let oldest = span(self.script.counts.get("max-age").copied().unwrap_or(0));
        self.script.blank();
        self.script.line(&format!(
            "{:<18}end: {calls} journalled calls, {otherwise} decided otherwise; {rotations} new keys, the longest sealed for {oldest}",
            story_time(self.now)
        ));
    }
}
