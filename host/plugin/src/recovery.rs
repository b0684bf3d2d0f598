//! Recovery strategies: pure steps like rotation's; what they ask to open stays inside the volume.

use crate::bindings::recovery_strategy::exports::farseal::plugin::recovery::{Action, Context, Event, Outcome};
use crate::fault::{CallError, Called, FaultClass};
use crate::host::sealed::Assemble;
use crate::host::{Parts, Plugin};
use crate::kind::Kind;
use crate::limits;
use crate::load_error::Problem;
use crate::rotation::{STATE_TOO_LONG, check_state};
use crate::store::fault;
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
    const DATA: bool = false;

    fn assemble(parts: Parts<'_>) -> Result<Self, Problem> {
        let (guest, facts) = parts.guest(limits::DECISION)?;
        Ok(Self { guest, facts })
    }
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
    if outcome.decisions.len() > limits::DECISIONS {
        return Some(format!(
            "{} decisions in one answer; at most {} are allowed",
            outcome.decisions.len(),
            limits::DECISIONS
        ));
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
