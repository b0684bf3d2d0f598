//! What another policy would have decided: journalled calls through the old and the new component, side by side.

use serde::{Deserialize, Serialize};

use crate::fault::{CallError, escaped};
use crate::host::Plugin as _;
use crate::rotation::{RotationCall, RotationPolicy};
use crate::wit::rotation::{Action, Decision};

/// A place in the journal where two policies part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Difference {
    /// Which call, from 0.
    pub call: usize,
    /// When, in milliseconds since 1970, by the journal.
    pub at: u64,
    /// What had happened.
    pub event: String,
    /// What the old policy does, or why it does nothing.
    pub old: Vec<String>,
    /// What the new one does.
    pub new: Vec<String>,
}

/// Makes every journalled call with both policies and lists where their actions differ. Reasons and ids do not count.
///
/// The old policy gets the journalled states; the new one starts from the first of them (migrated when its schema is
/// another; afresh, where it cannot take it) and goes on with its own.
#[must_use]
pub fn replay_diff(journal: &[RotationCall], old: &RotationPolicy, new: &RotationPolicy) -> Vec<Difference> {
    let mut own: Option<String> = None;
    let mut differences = Vec::new();
    for (index, call) in journal.iter().enumerate() {
        let context = match call {
            RotationCall::Init { context } | RotationCall::Step { context, .. } => context,
        };
        let mut new_context = context.clone();
        new_context.config.clone_from(&new.facts().config);
        let answer = match call {
            RotationCall::Init { .. } => new.init(&new_context),
            RotationCall::Step { state, event, .. } => match own.take() {
                Some(own) => new.step(&own, event, &new_context),
                None => carry_over(state, old, new)
                    .or_else(|_| new.init(&new_context).map(|called| called.value.state))
                    .and_then(|state| new.step(&state, event, &new_context)),
            },
        };
        let new_words = words(answer.as_ref().map(|called| called.value.decisions.as_slice()));
        let old_answer = old.call(call);
        let old_words = words(old_answer.as_ref().map(|called| called.value.decisions.as_slice()));
        if let Ok(called) = answer {
            own = Some(called.value.state);
        }
        if old_words != new_words {
            let event = match call {
                RotationCall::Init { .. } => "init".into(),
                RotationCall::Step { event, .. } => escaped(&format!("{event:?}")),
            };
            differences.push(Difference { call: index, at: context.now, event, old: old_words, new: new_words });
        }
    }
    differences
}

/// A state of `old` as one of `new`: as it is, or migrated when the schema's version is another.
pub(crate) fn carry_over(state: &str, old: &RotationPolicy, new: &RotationPolicy) -> Result<String, CallError> {
    let from = old.facts().about.state_schema;
    if from == new.facts().about.state_schema && old.facts().about.name == new.facts().about.name {
        return Ok(state.into());
    }
    new.migrate(from, state).map(|called| called.value)
}

fn words(answer: Result<&[Decision], &CallError>) -> Vec<String> {
    match answer {
        Ok(decisions) => decisions.iter().map(|decision| action_words(&decision.action)).collect(),
        Err(error) => vec![error.to_string()],
    }
}

fn action_words(action: &Action) -> String {
    match action {
        Action::Rotate(rotate) => format!("rotate {:?}", rotate.how),
        Action::WakeAt(at) => format!("wake-at {at}"),
        Action::Watch(watch) => format!("watch bytes {:?} blocks {:?}", watch.bytes, watch.blocks),
        Action::Alert(text) => format!("alert {}", escaped(text)),
        Action::Ext(ext) => format!("ext {}", escaped(&ext.name)),
    }
}
