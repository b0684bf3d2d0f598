//! Rotation policies: pure steps in a fresh instance each, arguments and answers within the contract's bounds.

use crate::bindings::rotation_policy::exports::farseal::plugin::rotation::{
    Action, Context, Decision, Event, How, Outcome, OutcomeOfDecision,
};
use crate::fault::{CallError, Called, FaultClass, escaped};
use crate::host::sealed::Assemble;
use crate::host::{Parts, Plugin};
use crate::kind::Kind;
use crate::limits;
use crate::load_error::Problem;
use crate::scenario::units::{size, span};
use crate::step::{Call, CallOf, StepFunction, Stepped};
use crate::store::fault;
use crate::world::{Facts, Guest, RotationWorld, StateOwner};

/// A loaded rotation policy. Calls may run at the same time; none sees another.
#[derive(Debug)]
pub struct RotationPolicy {
    guest: Guest<RotationWorld>,
    facts: Facts,
}

/// A call of a policy, as the node journals it before it is made.
pub type RotationCall = CallOf<RotationPolicy>;

impl Plugin for RotationPolicy {
    const KIND: Kind = Kind::Rotation;

    fn facts(&self) -> &Facts {
        &self.facts
    }
}

impl Assemble for RotationPolicy {
    fn assemble(parts: Parts<'_>) -> Result<Self, Problem> {
        let (guest, facts) = parts.guest(limits::DECISION)?;
        Ok(Self { guest, facts })
    }
}

/// Why a policy does not go on from a state.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum NotCarried {
    /// Another policy wrote it.
    #[error("it is the state of {policy}, and this is {own}")]
    Foreign {
        /// Who wrote it.
        policy: String,
        /// Who was to go on from it.
        own: String,
    },
    /// An older form of its own, which it does not take.
    #[error(transparent)]
    Migration(#[from] CallError),
}

impl StepFunction for RotationPolicy {
    type Context = Context;
    type Event = Event;
    type Decision = Decision;

    fn make(&self, call: &RotationCall) -> Result<Stepped<Self>, CallError> {
        self.call(call).map(|called| (called.value.state, called.value.decisions))
    }

    /// From its state, migrated when its schema is another; afresh, where it cannot take it.
    fn follow(&self, before: &Self, call: &RotationCall) -> Result<Stepped<Self>, CallError> {
        let Call::Step { state, event, context } = call else { return self.make(call) };
        let carried = self
            .carry_over(&before.facts.owner(), state)
            .or_else(|_| self.init(context).map(|called| called.value.state))?;
        self.step(&carried, event, context).map(|called| (called.value.state, called.value.decisions))
    }

    fn now(context: &Context) -> u64 {
        context.now
    }

    fn config(context: &Context) -> &str {
        &context.config
    }

    fn config_mut(context: &mut Context) -> &mut String {
        &mut context.config
    }

    fn event_words(event: &Event) -> String {
        words(event)
    }

    fn action_words(now: u64, decision: &Decision) -> String {
        action_words(now, &decision.action)
    }
}

impl RotationPolicy {
    /// The first call of the policy's life on a pair. `context.config` is to be [`Facts::config`].
    ///
    /// # Errors
    /// A refusal or a fault of the policy; [`CallError::Input`] when the context passes the contract's bounds.
    pub fn init(&self, context: &Context) -> Result<Called<Outcome>, CallError> {
        const FUNCTION: &str = "rotation.init";
        check_context(FUNCTION, context)?;
        let called =
            self.guest.call(FUNCTION, |exports, store| exports.farseal_plugin_rotation().call_init(store, context))?;
        check_outcome(FUNCTION, called)
    }

    /// What should happen after `event`.
    ///
    /// # Errors
    /// As for [`RotationPolicy::init`].
    pub fn step(&self, state: &str, event: &Event, context: &Context) -> Result<Called<Outcome>, CallError> {
        const FUNCTION: &str = "rotation.step";
        check_context(FUNCTION, context)?;
        check_state(FUNCTION, state)?;
        let state = state.to_owned();
        let called = self.guest.call(FUNCTION, |exports, store| {
            exports.farseal_plugin_rotation().call_step(store, &state, event, context)
        })?;
        check_outcome(FUNCTION, called)
    }

    /// The state of an older schema as one of this component's.
    ///
    /// # Errors
    /// As for [`RotationPolicy::init`].
    pub fn migrate(&self, from_schema: u32, state: &str) -> Result<Called<String>, CallError> {
        const FUNCTION: &str = "rotation.migrate";
        check_state(FUNCTION, state)?;
        let state = state.to_owned();
        let called = self.guest.call(FUNCTION, |exports, store| {
            exports.farseal_plugin_rotation().call_migrate(store, from_schema, &state)
        })?;
        if called.value.len() > limits::STATE_BYTES {
            return Err(fault(called, FaultClass::Protocol, FUNCTION, STATE_TOO_LONG));
        }
        Ok(called)
    }

    /// A state as one of its own: as it is, or migrated when the schema's version is another. Only what a policy of this name wrote is
    /// its own: another's may read well and mean something else.
    ///
    /// # Errors
    /// [`NotCarried`]: it has to begin afresh.
    pub fn carry_over(&self, owner: &StateOwner, state: &str) -> Result<String, NotCarried> {
        let own = self.facts.owner();
        if owner.plugin != own.plugin {
            return Err(NotCarried::Foreign { policy: owner.plugin.clone(), own: own.plugin });
        }
        if owner.schema == own.schema {
            return Ok(state.into());
        }
        Ok(self.migrate(owner.schema, state).map(|called| called.value)?)
    }

    /// Makes a journalled call.
    ///
    /// # Errors
    /// As for [`RotationPolicy::init`].
    pub fn call(&self, call: &RotationCall) -> Result<Called<Outcome>, CallError> {
        match call {
            RotationCall::Init { context } => self.init(context),
            RotationCall::Step { state, event, context } => self.step(state, event, context),
        }
    }
}

/// What a policy is told, in words: one line, nothing that moves a cursor.
pub(crate) fn words(event: &Event) -> String {
    match event {
        Event::Started => "started".into(),
        Event::Timer => "timer".into(),
        Event::Usage => "usage".into(),
        Event::Requested(text) => format!("requested: \"{}\"", escaped(text)),
        Event::Suspect(epoch) => format!("suspect: key {epoch}"),
        Event::Rotated(epoch) => format!("rotated: key {epoch} is in force"),
        Event::Decided(decided) => {
            let outcome = match &decided.outcome {
                OutcomeOfDecision::Applied => "applied",
                OutcomeOfDecision::Clamped(_) => "clamped",
                OutcomeOfDecision::Refused(_) => "refused",
            };
            format!("decided: #{} {outcome}", decided.id)
        }
        Event::Ext(ext) => format!("extension \"{}\"", escaped(&ext.name)),
    }
}

fn action_words(now: u64, action: &Action) -> String {
    match action {
        Action::Rotate(rotate) => match rotate.how {
            How::AsConfigured => "rotate".into(),
            How::InBand => "rotate in-band".into(),
            How::Pause => "rotate with a pause".into(),
        },
        Action::WakeAt(at) => wake_words(now, *at),
        Action::Watch(watch) => {
            let bytes = watch.bytes.map(|bytes| format!(" {}", size(bytes)));
            let blocks = watch.blocks.map(|blocks| format!(" {blocks} blocks"));
            format!("watch{}{}", bytes.unwrap_or_default(), blocks.unwrap_or_default())
        }
        Action::Alert(text) => format!("alert {}", escaped(text)),
        Action::Ext(ext) => format!("ext {}", escaped(&ext.name)),
    }
}

pub(crate) fn wake_words(now: u64, at: u64) -> String {
    match at.checked_sub(now) {
        Some(ahead) => format!("wake in {}", span(ahead)),
        None => format!("wake {} ago", span(now - at)),
    }
}

pub(crate) const STATE_TOO_LONG: &str =
    "the state is longer than 64 KiB; forget what is old, or keep a count in place of a list";

pub(crate) fn check_state(function: &'static str, state: &str) -> Result<(), CallError> {
    if state.len() > limits::STATE_BYTES {
        return Err(CallError::Input { function, what: STATE_TOO_LONG });
    }
    Ok(())
}

fn check_context(function: &'static str, context: &Context) -> Result<(), CallError> {
    if context.keys.len() > limits::KEYS {
        return Err(CallError::Input { function, what: "the context shows more than 16 keys" });
    }
    if context.config.len() > limits::CONFIG_BYTES {
        return Err(CallError::Input { function, what: "the settings are longer than 64 KiB" });
    }
    Ok(())
}

fn check_outcome(function: &'static str, called: Called<Outcome>) -> Result<Called<Outcome>, CallError> {
    match broken_rule(&called.value) {
        Some(rule) => Err(fault(called, FaultClass::Protocol, function, rule)),
        None => Ok(called),
    }
}

fn broken_rule(outcome: &Outcome) -> Option<String> {
    if outcome.state.len() > limits::STATE_BYTES {
        return Some(STATE_TOO_LONG.into());
    }
    if outcome.decisions.len() > limits::DECISIONS {
        return Some(format!(
            "{} decisions in one answer; at most {} are allowed",
            outcome.decisions.len(),
            limits::DECISIONS
        ));
    }
    let mut last = 0;
    for decision in &outcome.decisions {
        if decision.id <= last {
            return Some(format!(
                "decision {} comes after decision {last}; ids start at 1 and grow (R-5)",
                decision.id
            ));
        }
        last = decision.id;
        let texts = match &decision.action {
            Action::Rotate(rotate) => rotate.reason.len(),
            Action::Alert(text) => text.len(),
            Action::Ext(ext) => ext.name.len().max(ext.json.len()),
            Action::WakeAt(_) | Action::Watch(_) => 0,
        };
        if texts.max(decision.why.len()) > limits::TEXT_BYTES {
            return Some(format!("a text in decision {} is longer than 4 KiB", decision.id));
        }
    }
    None
}
