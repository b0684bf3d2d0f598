//! Recovery strategies: pure steps like rotation's; what they ask to open stays inside the volume.

use crate::bindings::recovery_strategy::exports::farseal::plugin::recovery::{
    Action, Context, Decision, Event, Extent, OnAccess, Outcome,
};
use crate::fault::{CallError, Called, FaultClass, escaped};
use crate::host::sealed::Assemble;
use crate::host::{Parts, Plugin};
use crate::kind::Kind;
use crate::limits;
use crate::load_error::Problem;
use crate::rotation::{STATE_TOO_LONG, check_state, wake_words};
use crate::step::{Call, CallOf, StepFunction, Stepped};
use crate::store::fault;
use crate::wit::types::PluginError;
use crate::world::{Facts, Guest, RecoveryWorld};

/// A loaded recovery strategy. Calls may run at the same time; none sees another.
#[derive(Debug)]
pub struct Recovery {
    guest: Guest<RecoveryWorld>,
    facts: Facts,
}

impl Plugin for Recovery {
    const KIND: Kind = Kind::Recovery;

    fn facts(&self) -> &Facts {
        &self.facts
    }
}

impl Assemble for Recovery {
    fn assemble(parts: Parts<'_>) -> Result<Self, Problem> {
        let (guest, facts) = parts.guest(limits::DECISION)?;
        Ok(Self { guest, facts })
    }
}

/// A call of a strategy, as the node journals it.
pub type RecoveryCall = CallOf<Recovery>;

impl StepFunction for Recovery {
    type Context = Context;
    type Event = Event;
    type Decision = Decision;

    fn make(&self, call: &RecoveryCall) -> Result<Stepped<Self>, CallError> {
        let called = match call {
            Call::Init { context } => self.init(context),
            // As the slot does, whose calls are journalled.
            Call::Step { state, event, context } => self.step_or_begin(state, event, context),
        };
        called.map(|called| (called.value.state, called.value.decisions))
    }

    /// From its state; afresh, where that is another's.
    fn follow(&self, before: &Self, call: &RecoveryCall) -> Result<Stepped<Self>, CallError> {
        match call {
            Call::Step { event, context, .. } if before.facts.owner() != self.facts.owner() => {
                self.begin(event, context).map(|called| (called.value.state, called.value.decisions))
            }
            Call::Init { .. } | Call::Step { .. } => self.make(call),
        }
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
        match &decision.action {
            Action::Access(OnAccess::Open) => "accesses open blocks".into(),
            Action::Access(OnAccess::Refuse) => "accesses are refused".into(),
            Action::Open(extent) => format!("open {}", extent_words(extent)),
            Action::WakeAt(at) => wake_words(now, *at),
            Action::Finished => "finished".into(),
            Action::Alert(text) => format!("alert {}", escaped(text)),
            Action::Ext(ext) => format!("ext {}", escaped(&ext.name)),
        }
    }
}

/// What a strategy is told, in words: one line, nothing that moves a cursor.
pub(crate) fn words(event: &Event) -> String {
    match event {
        Event::Begin => "begin".into(),
        Event::Swept(swept) => {
            let failed = if swept.failed > 0 { format!(", {} failed", swept.failed) } else { String::new() };
            format!("swept {}: {} opened{failed}", extent_words(&swept.extent), swept.opened)
        }
        Event::Accessed(extents) => format!("accessed: {} extents", extents.len()),
        Event::Timer => "timer".into(),
        Event::Requested(text) => format!("requested: \"{}\"", escaped(text)),
        Event::Ext(ext) => format!("extension {}: {}", escaped(&ext.name), escaped(&ext.json)),
    }
}

pub(crate) fn extent_words(extent: &Extent) -> String {
    format!("{} blocks from {}", extent.blocks, extent.first)
}

impl Recovery {
    /// The plan's beginning. `context.config` is to be [`Facts::config`].
    ///
    /// # Errors
    /// A refusal or a fault of the strategy; [`CallError::Input`] when the arguments pass the contract's bounds.
    pub fn init(&self, context: &Context) -> Result<Called<Outcome>, CallError> {
        const FUNCTION: &str = "recovery.init";
        check_context(FUNCTION, context)?;
        let called =
            self.guest.call(FUNCTION, |exports, store| exports.farseal_plugin_recovery().call_init(store, context))?;
        check_outcome(FUNCTION, context, called)
    }

    /// What to open next after `event`.
    ///
    /// # Errors
    /// As for [`Recovery::init`].
    pub fn step(&self, state: &str, event: &Event, context: &Context) -> Result<Called<Outcome>, CallError> {
        const FUNCTION: &str = "recovery.step";
        check_context(FUNCTION, context)?;
        check_state(FUNCTION, state)?;
        if matches!(event, Event::Accessed(extents) if extents.len() > limits::ACCESSED) {
            return Err(CallError::Input { function: FUNCTION, what: "more than 64 accessed extents" });
        }
        let state = state.to_owned();
        let called = self.guest.call(FUNCTION, |exports, store| {
            exports.farseal_plugin_recovery().call_step(store, &state, event, context)
        })?;
        check_outcome(FUNCTION, context, called)
    }
}

impl Recovery {
    /// As [`Recovery::step`]; but where the state is not its own the plan begins afresh, as a restart begins it, and is
    /// then told what happened.
    ///
    /// # Errors
    /// As for [`Recovery::init`].
    pub fn step_or_begin(&self, state: &str, event: &Event, context: &Context) -> Result<Called<Outcome>, CallError> {
        match self.step(state, event, context) {
            Err(CallError::Refused { error: PluginError::InvalidState(_), .. }) => {}
            other => return other,
        }
        self.begin(event, context)
    }

    /// Afresh, and then what happened. The answers are carried out as one, which has no more decisions than one may have; of
    /// `open` each may have its own number: what is under way at once is the strategy's plan.
    fn begin(&self, event: &Event, context: &Context) -> Result<Called<Outcome>, CallError> {
        let mut all = self.init(context)?;
        let missed = if matches!(event, Event::Begin) { None } else { Some(event) };
        for event in [&Event::Begin].into_iter().chain(missed) {
            let next = self.step(&all.value.state, event, context)?;
            all.value.state = next.value.state;
            all.value.decisions.extend(next.value.decisions);
            all.logs.extend(next.logs);
            all.fuel += next.fuel;
        }
        match too_many(all.value.decisions.len()) {
            Some(rule) => Err(fault(all, FaultClass::Protocol, "recovery.step", format!("begun afresh: {rule}"))),
            None => Ok(all),
        }
    }
}

fn too_many(decisions: usize) -> Option<String> {
    (decisions > limits::DECISIONS)
        .then(|| format!("{decisions} decisions in one answer; at most {} are allowed", limits::DECISIONS))
}

fn check_context(function: &'static str, context: &Context) -> Result<(), CallError> {
    if context.config.len() > limits::CONFIG_BYTES {
        return Err(CallError::Input { function, what: "the settings are longer than 64 KiB" });
    }
    Ok(())
}

fn check_outcome(
    function: &'static str,
    context: &Context,
    called: Called<Outcome>,
) -> Result<Called<Outcome>, CallError> {
    match broken_rule(&called.value, context.volume_blocks) {
        Some(rule) => Err(fault(called, FaultClass::Protocol, function, rule)),
        None => Ok(called),
    }
}

fn broken_rule(outcome: &Outcome, volume_blocks: u64) -> Option<String> {
    if outcome.state.len() > limits::STATE_BYTES {
        return Some(STATE_TOO_LONG.into());
    }
    if let Some(rule) = too_many(outcome.decisions.len()) {
        return Some(rule);
    }
    let opens = outcome.decisions.iter().filter(|decision| matches!(decision.action, Action::Open(_))).count();
    if opens > limits::OPENS {
        return Some(format!("{opens} `open` in one answer; at most {} are allowed", limits::OPENS));
    }
    outcome.decisions.iter().find_map(|decision| {
        let texts = match &decision.action {
            Action::Open(extent) => {
                let inside = extent.first.checked_add(extent.blocks).is_some_and(|end| end <= volume_blocks);
                if extent.blocks == 0 || extent.blocks > limits::OPEN_BLOCKS || !inside {
                    return Some(format!(
                        "`open` of {} blocks from {} of a volume of {volume_blocks}; 1 to {} blocks inside the volume are allowed",
                        extent.blocks, extent.first, limits::OPEN_BLOCKS
                    ));
                }
                0
            }
            Action::Alert(text) => text.len(),
            Action::Ext(ext) => ext.name.len().max(ext.json.len()),
            Action::Access(_) | Action::WakeAt(_) | Action::Finished => 0,
        };
        (texts.max(decision.why.len()) > limits::TEXT_BYTES).then(|| "a text in a decision is longer than 4 KiB".into())
    })
}
