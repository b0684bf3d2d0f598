//! A strategy's calls that a node journalled, made again in a story: whether each is decided as it was then.

use super::super::journalled::{JournalledOf, Told, deeds, made_now, words};
use super::super::units::{instant, span, story_time};
use super::{Node, VOLUME_BLOCKS};
use crate::recovery::Recovery;
use crate::step::{Call, StepFunction as _};
use crate::wit::recovery::{Action, Context, Decision, Event, OnAccess};

impl Told for Recovery {
    fn deed(decision: &Decision) -> String {
        match &decision.action {
            Action::Access(OnAccess::Open) => "access open".into(),
            Action::Access(OnAccess::Refuse) => "access refuse".into(),
            Action::Open(extent) => format!("open {} from {}", extent.blocks, extent.first),
            Action::WakeAt(at) => format!("wake-at {at}"),
            Action::Finished => "finished".into(),
            Action::Alert(_) => "alert".into(),
            Action::Ext(ext) => format!("ext {}", ext.name),
        }
    }

    fn named(context: &mut Context) -> &mut String {
        &mut context.volume
    }

    fn written(event: &mut Event) -> Option<&mut String> {
        if let Event::Requested(text) = event { Some(text) } else { None }
    }

    fn said(event: &mut Event) -> Option<&mut String> {
        // What the host answers and what a search found.
        if let Event::Ext(ext) = event { Some(&mut ext.json) } else { None }
    }

    fn node(first: &Context) -> String {
        format!(
            "start: {}\nvolume-blocks: {}\n",
            instant(first.now / 1_000 * 1_000),
            first.volume_blocks.min(VOLUME_BLOCKS)
        )
    }
}

impl Node<'_> {
    /// Makes the call again. What the host did with the answer is in the calls that follow.
    pub(super) fn relive(&mut self, journalled: &JournalledOf<Recovery>) {
        self.script.count("journalled", 1);
        let call = made_now(journalled, &self.strategy, self.state.as_ref());
        let context = call.context().clone();
        self.now = context.now.saturating_sub(self.story.start.0);
        let (title, answer) = match &call {
            Call::Init { context } => ("first call".into(), self.strategy.init(context)),
            Call::Step { state, event, context } => {
                (crate::recovery::words(event), self.strategy.step_or_begin(state, event, context))
            }
        };
        let (opened, present) = (context.progress.opened, context.progress.present);
        self.script.blank();
        self.script.line(&format!("{:<18}{title:<47} open {opened} of {present}", story_time(self.now)));
        let called = match answer {
            Ok(called) => called,
            Err(error) => return self.die(&error),
        };
        for decision in &called.value.decisions {
            self.tell(&Recovery::action_words(context.now, decision), &decision.why);
        }
        self.take_state(called.value.state);
        self.script.logs(&called.logs);
        if deeds::<Recovery>(&called.value.decisions) != journalled.did {
            self.script.count("differences", 1);
            self.script.line(&format!("  journal   otherwise: {}", words(&journalled.did)));
        }
        self.script.finished |= called.value.decisions.iter().any(|each| matches!(each.action, Action::Finished));
        self.script.counts.insert("opened", opened);
    }

    /// The end of a story that has journalled calls.
    pub(super) fn close_journal(&mut self) {
        let count = |what| self.script.counts.get(what).copied().unwrap_or(0);
        let (calls, otherwise, opened) = (count("journalled"), count("differences"), count("opened"));
        self.head(&format!(
            "end: {calls} journalled calls, {otherwise} decided otherwise; {opened} blocks were open after {}",
            span(self.now)
        ));
    }
}
