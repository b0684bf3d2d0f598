//! One rotation at a time: the part that every rotation policy needs and that is easy to get wrong.
//!
//! A policy says what it wants; [`Asking`] turns that into decisions that survive lost and repeated answers, refusals,
//! crashes and a clock that steps. What the keys look like counts for more than what it remembers.

use serde::{Deserialize, Serialize};

use crate::rotation::{Context, Decided, Decisions, Event, KeyState, OutcomeOfDecision};
use crate::units::{Instant, Span};

/// How long a rotation may stay without an answer and without a key on its way before it is asked for again.
const PATIENCE: Span = Span::from_millis(10 * 60 * 1_000);
/// The wait after a first refusal; doubled by each that follows.
const FIRST_RETRY: Span = Span::from_millis(60 * 1_000);
/// The longest wait after a refusal.
const LAST_RETRY: Span = Span::from_millis(60 * 60 * 1_000);

/// How much of a request's text goes into the reason: the text is somebody else's and as long as they like.
const LONGEST_QUOTE: usize = 200;

/// What a policy remembers about the key in force and the rotation under way; part of its state.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Asking {
    /// The epoch in force when last looked; 0 before the first look.
    epoch: u64,
    /// When it came into force; earlier than or equal to every `now` since.
    born: Instant,
    /// Why a new key is wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    want: Option<String>,
    /// A rotation asked for and not refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    asked: Option<Asked>,
    /// The newest epoch said to be known to others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    suspect: Option<u64>,
    /// After a refusal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retry: Option<Retry>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Asked {
    id: u64,
    at: Instant,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Retry {
    at: Instant,
    refusals: u32,
}

impl Asking {
    /// Call first in every step. A suspicion of the key in force and a request for a new one are wanted from here
    /// on. `true` when a key has come into force since the last step.
    pub fn observe<S>(&mut self, event: &Event, cx: &Context<'_, S>) -> bool {
        let new = self.observe_holding(event, cx);
        if let Event::Requested(text) = event {
            let text: String = text.chars().take(LONGEST_QUOTE).collect();
            self.want(&format!("requested: {text}"));
        }
        new
    }

    /// As [`observe`](Self::observe), for a policy that holds requests back: it keeps what was asked for, calls
    /// [`want`](Self::want) when that is to be heeded, and forgets it when this says `true`. A suspicion waits for nothing.
    pub fn observe_holding<S>(&mut self, event: &Event, cx: &Context<'_, S>) -> bool {
        // A number that no key has, or has any more, must not stand before that of the key in force.
        let known = |epoch: &u64| cx.keys.iter().any(|key| key.epoch == *epoch);
        let named = if let Event::Suspect(epoch) = event { Some(*epoch) } else { None };
        self.suspect = self.suspect.filter(known).max(named.filter(known));
        if let Event::Decided(decided) = event {
            self.answered(decided, cx);
        }
        let new = self.look_at_keys(cx);
        if self.is_suspect() {
            self.want(&format!("the key of epoch {} may be known to others", self.epoch));
            // It does not wait for the end of what an earlier wish waits for, where the host's floor allows a key.
            if named == Some(self.epoch) && self.born + cx.floor() <= cx.now {
                self.retry = None;
            }
        }
        new
    }

    /// When the key in force came into force. Never ahead of now.
    #[must_use]
    pub const fn born(&self) -> Instant {
        self.born
    }

    /// May the key in force be known to others?
    #[must_use]
    pub fn is_suspect(&self) -> bool {
        self.suspect == Some(self.epoch)
    }

    /// A new key is wanted. The first reason stands until there is one.
    pub fn want(&mut self, reason: &str) {
        self.want.get_or_insert_with(|| reason.to_owned());
    }

    /// Asks for what is wanted, unless that was done and may still come, or a refusal was too short ago.
    pub fn ask<S>(&mut self, cx: &Context<'_, S>, decisions: &mut Decisions) {
        if let Some(asked) = &self.asked
            && cx.delivering().is_none()
            && cx.now - asked.at >= PATIENCE
        {
            crate::warn!("no answer and no key"; "decision" = asked.id);
            self.asked = None;
        }
        let too_soon = self.retry.as_ref().is_some_and(|retry| cx.now < retry.at);
        if let Some(reason) = &self.want
            && self.asked.is_none()
            && cx.delivering().is_none()
            && !too_soon
        {
            self.asked = Some(Asked { id: decisions.rotate(reason), at: cx.now });
        }
    }

    /// When to be woken: when asking needs it, otherwise at `due`, and never so near that the host would clamp it.
    #[must_use]
    pub fn wake_at<S>(&self, due: Instant, cx: &Context<'_, S>) -> Instant {
        if cx.delivering().is_some() {
            // Its coming into force is told; this is for a telling that was lost.
            return cx.now + LAST_RETRY;
        }
        let next = match (&self.asked, &self.retry) {
            (Some(asked), _) => asked.at + PATIENCE,
            (None, Some(retry)) if self.want.is_some() => retry.at,
            (None, _) => due,
        };
        if next < cx.soonest_wake() { cx.now + PATIENCE } else { next }
    }

    /// Also where a clock that stepped back is noticed: what lies ahead of now is counted from now on.
    fn look_at_keys<S>(&mut self, cx: &Context<'_, S>) -> bool {
        let Some(key) = cx.sealing() else {
            // Before the first key there is nothing to be old.
            self.born = cx.now;
            return false;
        };
        let new = key.epoch != self.epoch;
        if new {
            *self = Self { epoch: key.epoch, born: key.born().min(cx.now), suspect: self.suspect, ..Self::default() };
        }
        if matches!(key.state, KeyState::Suspect) {
            self.suspect = self.suspect.max(Some(key.epoch));
        }
        if cx.now < self.born {
            crate::info!("the clock stepped back"; "by" = self.born - cx.now);
            self.born = cx.now;
        }
        if let Some(asked) = &mut self.asked {
            asked.at = asked.at.min(cx.now);
        }
        if let Some(retry) = &mut self.retry {
            retry.at = retry.at.min(cx.now + LAST_RETRY.max(cx.floor()));
        }
        new
    }

    fn answered<S>(&mut self, decided: &Decided, cx: &Context<'_, S>) {
        let ours = self.asked.as_ref().is_some_and(|asked| asked.id == decided.id);
        if let (true, OutcomeOfDecision::Refused(why)) = (ours, &decided.outcome) {
            crate::info!("refused: {}", why; "decision" = decided.id);
            let refusals = self.retry.as_ref().map_or(0, |retry| retry.refusals);
            let wait = FIRST_RETRY.times(1 << refusals.min(6)).min(LAST_RETRY);
            let floor = self.born + cx.floor();
            let at = if floor > cx.now { floor } else { cx.now + wait };
            self.retry = Some(Retry { at, refusals: refusals.saturating_add(1) });
            self.asked = None;
        }
    }
}
