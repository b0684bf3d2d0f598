//! Rotation policies: pure steps in a fresh instance each, arguments and answers within the contract's bounds.

use serde::{Deserialize, Serialize};

use crate::bindings::rotation_policy::exports::farseal::plugin::rotation::{Action, Context, Event, Outcome};
use crate::fault::{CallError, Called, FaultClass};
use crate::host::sealed::Assemble;
use crate::host::{Parts, Plugin};
use crate::kind::Kind;
use crate::limits;
use crate::load_error::Problem;
use crate::store::fault;
use crate::world::{Facts, Guest, RotationWorld};

/// A loaded rotation policy. Calls may run at the same time; none sees another.
#[derive(Debug)]
pub struct RotationPolicy {
    guest: Guest<RotationWorld>,
    facts: Facts,
}

/// A call as the node journals it, before it is made: all that the answer depends on besides the component.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RotationCall {
    /// The first call of the policy's life.
    Init {
        /// What the policy is shown.
        context: Context,
    },
    /// Any later one.
    Step {
        /// What the policy returned last.
        state: String,
        /// What happened.
        event: Event,
        /// What the policy is shown.
        context: Context,
    },
}

impl Plugin for RotationPolicy {
    const KIND: Kind = Kind::Rotation;

    fn facts(&self) -> &Facts {
        &self.facts
    }
}

impl Assemble for RotationPolicy {
    const DATA: bool = false;

    fn assemble(parts: Parts<'_>) -> Result<Self, Problem> {
        let (guest, facts) = parts.guest(limits::DECISION)?;
        Ok(Self { guest, facts })
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

pub(crate) const STATE_TOO_LONG: &str = "the state is longer than 64 KiB";

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
