//! What a pair's policy was asked, read by an operator: why a key changed, and what the host made of each decision.

use farseal_plugin::wit::rotation::{Action, Decision, Event, OutcomeOfDecision};
use farseal_plugin::{RotationCall, RotationPolicy};

use crate::plugins::journal::{EntryOf, StepJournal};

/// A call of the policy and its answer.
pub type Entry = EntryOf<RotationPolicy>;

/// What the host made of a decision: of one to rotate, what the policy was told; the others are carried out as they come.
#[must_use]
pub fn answer_to(entries: &[Entry], at: usize, decision: &Decision) -> String {
    match decision.action {
        Action::Rotate(_) | Action::Ext(_) => {}
        Action::WakeAt(_) | Action::Watch(_) | Action::Alert(_) => return "applied".into(),
    }
    let told = entries.iter().skip(at + 1).find_map(|entry| match &entry.call {
        RotationCall::Step { event: Event::Decided(decided), .. } if decided.id == decision.id => {
            Some(decided.outcome.clone())
        }
        RotationCall::Init { .. } | RotationCall::Step { .. } => None,
    });
    match told {
        None => "under way, or not heard of before a restart".into(),
        Some(OutcomeOfDecision::Refused(why)) => format!("refused: {}", farseal_plugin::escaped(&why)),
        Some(OutcomeOfDecision::Clamped(how)) => format!("clamped: {}", farseal_plugin::escaped(&how)),
        Some(OutcomeOfDecision::Applied) => "applied".into(),
    }
}

/// Why the policy made its last decision of this number.
#[must_use]
pub fn reason(journal: &StepJournal<RotationPolicy>, id: u64) -> Option<String> {
    let decision =
        journal.last_decision(|decision| decision.id == id && matches!(decision.action, Action::Rotate(_)))?;
    let reason = match &decision.action {
        Action::Rotate(rotate) if !rotate.reason.is_empty() => &rotate.reason,
        Action::Rotate(_) | Action::WakeAt(_) | Action::Watch(_) | Action::Alert(_) | Action::Ext(_) => &decision.why,
    };
    Some(farseal_plugin::escaped(reason))
}
