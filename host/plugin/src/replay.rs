//! What another policy or strategy would have decided: journalled calls through the old and the new component, side by side.

use serde::{Deserialize, Serialize};

use crate::fault::CallError;
use crate::step::{Call, CallOf, StepFunction, Stepped};

/// A place in the journal where two plugins part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Difference {
    /// Which call, from 0.
    pub call: usize,
    /// When, in milliseconds since 1970, by the journal.
    pub at: u64,
    /// What had happened.
    pub event: String,
    /// What the old one does, or why it does nothing.
    pub old: Vec<String>,
    /// What the new one does.
    pub new: Vec<String>,
}

/// Makes every journalled call with both components and lists where their actions differ. Reasons and ids do not count.
///
/// The old one gets the journalled states; the new one begins as it would after a swap at the first of them, and goes on
/// with its own.
#[must_use]
pub fn replay_diff<P: StepFunction>(journal: &[CallOf<P>], old: &P, new: &P) -> Vec<Difference> {
    let mut own: Option<String> = None;
    let mut differences = Vec::new();
    for (index, call) in journal.iter().enumerate() {
        let mut asked = call.clone();
        P::config_mut(asked.context_mut()).clone_from(&new.facts().config);
        let answer = match (&mut asked, own.take()) {
            (Call::Step { state, .. }, Some(own)) => {
                *state = own;
                new.make(&asked)
            }
            (Call::Step { .. }, None) => new.follow(old, &asked),
            (Call::Init { .. }, _) => new.make(&asked),
        };
        let now = P::now(call.context());
        let (new_words, old_words) = (words::<P>(now, &answer), words::<P>(now, &old.make(call)));
        own = answer.ok().map(|(state, _)| state);
        if old_words != new_words {
            let event = match call {
                Call::Init { .. } => "init".into(),
                Call::Step { event, .. } => P::event_words(event),
            };
            differences.push(Difference { call: index, at: now, event, old: old_words, new: new_words });
        }
    }
    differences
}

fn words<P: StepFunction>(now: u64, answer: &Result<Stepped<P>, CallError>) -> Vec<String> {
    match answer {
        Ok((_, decisions)) => decisions.iter().map(|decision| P::action_words(now, decision)).collect(),
        Err(error) => vec![error.to_string()],
    }
}
