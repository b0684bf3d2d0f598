//! What the policy of a story is asked, and what the node does with its answers.

use super::super::journalled::OWN;
use super::super::quoted;
use super::super::units::{clock_time, size, span, story_time};
use super::{Crash, Entropy, Key, Link, Node, Told, foreign_state};
use crate::fault::{CallError, FaultClass};
use crate::rotation::RotationCall;
use crate::wit::rotation::{
    Action, Context, Decided, Decision, Event, HostLimits, How, KeyInfo, KeyState, Outcome, OutcomeOfDecision,
};

/// Calls in a row without time passing; more, and the policy talks to itself.
const CHAIN: u32 = 32;

impl Node<'_> {
    /// Tells the policy (`None`: its first call) and everything that follows from it at this moment.
    pub(super) fn happens(&mut self, event: Option<Event>) {
        self.tell(event);
        while let Some(event) = self.queue.pop_front() {
            if self.ended {
                return;
            }
            self.tell(Some(event));
        }
        // Marks that are passed already, and keys that arrive at once.
        if !self.ended {
            self.settle();
        }
    }

    /// What the node tells of its own accord it may tell twice: after a crash between the call and the journal.
    fn tell(&mut self, event: Option<Event>) {
        let again = event.clone().filter(|event| {
            let own =
                matches!(event, Event::Started | Event::Timer | Event::Usage | Event::Rotated(_) | Event::Decided(_));
            own && self.story.told == Told::Twice
        });
        self.call(event);
        if !self.ended && again.is_some() {
            self.call(again);
        }
    }

    pub(super) fn call(&mut self, event: Option<Event>) {
        if self.story.calls.is_some_and(|most| self.calls >= most) {
            self.script.listen();
            self.head("the story ends here: enough calls");
            self.script.count("cut", 1);
            self.ended = true;
            return;
        }
        if self.story.calls.is_none() && self.script.most.is_some_and(|most| self.calls >= most) {
            return self.stop();
        }
        self.script.heard.note(event_name(event.as_ref()), self.now);
        self.chain += 1;
        if self.chain == 1 {
            self.script.in_a_row.clear();
        }
        let title = event.as_ref().map_or_else(|| "first call".into(), |event| self.event_words(event));
        let most = if self.story.told == Told::Twice { 2 * CHAIN } else { CHAIN };
        if self.chain > most {
            self.script.hear();
            self.script
                .line(&format!("  host      {most} calls in a row and no time passes: the policy talks to itself"));
            self.script.talks_to_itself(&story_time(self.now), &title);
            self.script.fault = Some(FaultClass::Protocol);
            self.ended = true;
            return;
        }
        self.is_own_time = matches!(event, Some(Event::Timer | Event::Usage));
        let context = self.context();
        self.script.blank();
        self.script.line(&format!("{:<18}{title:<43} entropy {}", story_time(self.now), context.entropy));
        self.script.asked = format!("{title} at {}", story_time(self.now));
        let call = match event {
            None => RotationCall::Init { context },
            Some(event) => RotationCall::Step { state: self.state.clone().unwrap_or_default(), event, context },
        };
        let crash = self.crash.take();
        let first = self.policy.call(&call);
        self.script.spend(&first);
        let answer = if crash == Some(Crash::BeforeAck) {
            self.script
                .line("  crash     before the answer is in the journal; the node starts and makes the same call again");
            let again = self.policy.call(&call);
            if again != first {
                self.script.impure("the same call has another answer (R-1)");
            }
            again
        } else {
            first
        };
        match answer {
            Ok(called) => {
                self.show(&called.value, &called.logs);
                if crash == Some(Crash::AfterAck) {
                    self.script.line(
                        "  crash     after the answer is in the journal; the node starts and carries it out from there",
                    );
                }
                self.carry_out(called.value);
            }
            Err(error @ CallError::Refused { .. }) if foreign_state(&error) => {
                self.script.count_if("unread-states", self.is_own);
                return self.begin_afresh(&error);
            }
            Err(error) => self.die(&error),
        }
        if crash.is_some() && !self.ended {
            self.queue.push_back(Event::Started);
        }
    }

    /// More calls than a person would ever read.
    fn stop(&mut self) {
        // What is left of a round that is repeated calls once more.
        if self.ended {
            return;
        }
        let words = self.script.heard.words();
        self.head("the story stops here");
        self.script.fail(format!("stopped after {} calls: {words} (`calls` lets a scenario have more)", self.calls));
        self.ended = true;
    }

    pub(super) fn context(&mut self) -> Context {
        let entropy = match &self.story.entropy {
            Entropy::One(one) => *one,
            Entropy::Many(many) => self.calls.checked_rem(many.len()).and_then(|at| many.get(at)).copied().unwrap_or(0),
        };
        self.calls += 1;
        let info = |key: &Key| KeyInfo {
            epoch: key.epoch,
            state: key.state,
            since: key.since,
            bytes_sealed: key.bytes,
            blocks_sealed: key.blocks,
            records_sealed: key.records,
        };
        let limits = &self.story.host;
        Context {
            now: self.clock(),
            pair: self.story.pair.clone(),
            entropy,
            config: self.policy.config().to_owned(),
            keys: self.keys.iter().rev().take(crate::limits::KEYS).map(info).collect(),
            limits: HostLimits {
                min_interval: limits.min_interval.0,
                max_age: limits.max_age.0,
                max_bytes: limits.max_bytes.0,
            },
            link_up: self.link == Link::Up,
        }
    }

    /// A newer component takes over the state of an older one. Refused, it begins afresh.
    pub(super) fn migrate(&mut self, from: u32) {
        self.head(&format!("the state is handed over as one of schema {from}"));
        let state = self.state.clone().unwrap_or_default();
        let migrated = self.policy.migrate(from, &state);
        self.script.spend(&migrated);
        match migrated {
            Ok(called) => {
                self.script.line(&format!("  state     {}", crate::fault::escaped(&called.value)));
                self.script.logs(&called.logs);
                self.state = Some(called.value);
                self.is_own = true;
                self.happens(Some(Event::Started));
            }
            Err(error @ CallError::Refused { .. }) => self.begin_afresh(&error),
            Err(error) => self.die(&error),
        }
    }

    /// A state that the policy does not take: a node forgets it, says so, and makes the first call again.
    fn begin_afresh(&mut self, error: &CallError) {
        self.script.line(&format!("  refuses   {error}"));
        self.script.logs(error.logs());
        self.script.line("  host      the policy begins afresh");
        self.state = None;
        self.last_id = 0;
        self.happens(None);
    }

    /// A call as it stands, twice: the answers must be one. `own` is the state so far.
    pub(super) fn make(&mut self, call: &RotationCall) {
        let mut call = call.clone();
        if let RotationCall::Step { state, .. } = &mut call
            && state == OWN
        {
            *state = self.state.clone().unwrap_or_default();
        }
        let (RotationCall::Init { context } | RotationCall::Step { context, .. }) = &mut call;
        self.policy.config().clone_into(&mut context.config);
        let what = match &call {
            RotationCall::Init { .. } => "init".into(),
            RotationCall::Step { event, .. } => self.event_words(event),
        };
        self.head(&format!("called as it stands: {what}"));
        let answer = self.policy.call(&call);
        self.script.spend(&answer);
        if self.policy.call(&call) != answer {
            self.script.impure("the same call has another answer (R-1)");
        }
        match answer {
            Ok(called) => self.show(&called.value, &called.logs),
            Err(error @ CallError::Refused { .. }) => self.script.line(&format!("  refuses   {error}")),
            Err(error) => self.die(&error),
        }
    }

    pub(super) fn die(&mut self, error: &CallError) {
        self.script.error(error);
        self.ended = true;
    }

    pub(super) fn show(&mut self, outcome: &Outcome, logs: &[crate::fault::LogLine]) {
        for decision in &outcome.decisions {
            let action = self.action_words(&decision.action);
            self.script.line(&format!("  plugin    #{} {action}", decision.id));
            if !decision.why.is_empty() {
                self.script.line(&format!("            because {}", crate::fault::escaped(&decision.why)));
            }
        }
        if self.state.as_ref() != Some(&outcome.state) {
            self.script.line(&format!("  state     {}", crate::fault::escaped(&outcome.state)));
        }
        self.script.logs(logs);
    }

    fn carry_out(&mut self, outcome: Outcome) {
        self.script.keep(&outcome.state);
        self.state = Some(outcome.state);
        self.is_own = true;
        let longest = self.script.counts.get("state-bytes").copied().unwrap_or(0).max(self.state_bytes());
        self.script.counts.insert("state-bytes", longest);
        self.judge_wakes(&outcome.decisions);
        for decision in outcome.decisions {
            let id = decision.id;
            if id <= self.last_id {
                self.script.line(&format!("  host      #{id} was seen before; not carried out again"));
                continue;
            }
            self.last_id = id;
            self.heeds += u64::from(matches!(decision.action, Action::Rotate(_) | Action::Alert(_)));
            let always_told = matches!(decision.action, Action::Rotate(_) | Action::Ext(_));
            let action = self.action_words(&decision.action);
            let outcome = self.decide(decision);
            let words = match &outcome {
                OutcomeOfDecision::Applied => None,
                OutcomeOfDecision::Clamped(text) => Some(format!("clamped: {text}")),
                OutcomeOfDecision::Refused(text) => {
                    self.script.count("refused-decisions", 1);
                    Some(format!("refused: {text}"))
                }
            };
            if let Some(words) = &words {
                self.script.line(&format!("  host      #{id} {words}"));
            }
            let told = always_told || words.is_some();
            self.script.in_a_row.push((action, told.then_some(outcome_word(&outcome))));
            if told {
                self.queue.push_back(Event::Decided(Decided { id, outcome }));
            }
        }
    }

    ///
    fn judge_wakes(&mut self, decisions: &[Decision]) {
        let now = self.clock();
        let wakes = || {
            decisions.iter().filter_map(|decision| match decision.action {
                Action::WakeAt(at) => Some(at),
                Action::Rotate(_) | Action::Watch(_) | Action::Alert(_) | Action::Ext(_) => None,
            })
        };
        self.script.count_if("late-wakes", wakes().any(|at| at <= now));
        self.script.count_if("many-wakes", wakes().count() > 1);
    }

    fn decide(&mut self, decision: Decision) -> OutcomeOfDecision {
        let id = decision.id;
        match decision.action {
            Action::Rotate(_) => {
                if let Some(key) = self.delivering() {
                    return OutcomeOfDecision::Refused(format!("key {} is on its way already", key.epoch));
                }
                if !self.may_begin() {
                    self.below_floor += 1;
                    self.note_begging();
                    let wait = span(self.soonest().saturating_sub(self.now));
                    return OutcomeOfDecision::Refused(format!(
                        "sooner than the host's limit allows; {wait} from here it does"
                    ));
                }
                let epoch = self.begin();
                let way = self.way();
                self.script.line(&format!("  host      #{id} applied: key {epoch} is drawn and {way}"));
                OutcomeOfDecision::Applied
            }
            Action::WakeAt(at) => {
                let soonest = self.clock() + 1_000;
                self.wake_at = Some(at.max(soonest));
                if at < soonest {
                    return OutcomeOfDecision::Clamped("not sooner than 1 s from the call".into());
                }
                OutcomeOfDecision::Applied
            }
            Action::Watch(watch) => {
                self.marks = watch;
                OutcomeOfDecision::Applied
            }
            Action::Alert(_) => {
                self.script.count("alerts", 1);
                self.alerts += 1;
                self.put_off = None;
                OutcomeOfDecision::Applied
            }
            Action::Ext(_) => OutcomeOfDecision::Refused("unknown extension".into()),
        }
    }

    /// A request or a suspicion is no reason to wait; a timer of its own that it set too early again and again is.
    fn note_begging(&mut self) {
        self.begged += u64::from(self.is_own_time);
        let most = self.script.counts.entry("begged").or_default();
        *most = self.begged.max(*most);
    }

    pub(super) fn event_words(&self, event: &Event) -> String {
        let words = crate::rotation::words(event);
        if matches!(event, Event::Usage) {
            let sealed = self.keys.iter().rev().find(|key| key.state == KeyState::Active).map_or(0, |key| key.bytes);
            return format!("{words}: {} sealed", size(sealed));
        }
        words
    }

    fn action_words(&self, action: &Action) -> String {
        match action {
            Action::Rotate(rotate) => {
                let how = match rotate.how {
                    How::AsConfigured => "",
                    How::InBand => " in-band",
                    How::Pause => " with a pause",
                };
                format!("rotate{how}: {}", quoted(&rotate.reason))
            }
            Action::WakeAt(at) => format!("wake-at {}", clock_time(self.story.start.0, *at)),
            Action::Watch(watch) => {
                let bytes = watch.bytes.map(size);
                let blocks = watch.blocks.map(|blocks| format!("{blocks} blocks"));
                let marks: Vec<_> = bytes.into_iter().chain(blocks).collect();
                if marks.is_empty() { "watch nothing".into() } else { format!("watch {}", marks.join(", ")) }
            }
            Action::Alert(text) => format!("alert {}", quoted(text)),
            Action::Ext(ext) => {
                format!("extension {} {}", crate::fault::escaped(&ext.name), crate::fault::escaped(&ext.json))
            }
        }
    }
}

/// As the contract has it.
const fn event_name(event: Option<&Event>) -> &'static str {
    match event {
        None => "first call",
        Some(Event::Started) => "started",
        Some(Event::Timer) => "timer",
        Some(Event::Usage) => "usage",
        Some(Event::Requested(_)) => "requested",
        Some(Event::Suspect(_)) => "suspect",
        Some(Event::Rotated(_)) => "rotated",
        Some(Event::Decided(_)) => "decided",
        Some(Event::Ext(_)) => "ext",
    }
}

const fn outcome_word(outcome: &OutcomeOfDecision) -> &'static str {
    match outcome {
        OutcomeOfDecision::Applied => "applied",
        OutcomeOfDecision::Clamped(_) => "clamped",
        OutcomeOfDecision::Refused(_) => "refused",
    }
}
