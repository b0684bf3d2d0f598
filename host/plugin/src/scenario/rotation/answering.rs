//! Who answers in a rotation policy's story: a component, or a plainly honest policy that is part of the host. Where that one seems to
//! break a rule, the story does it and not the policy.

use crate::fault::{CallError, Called};
use crate::host::Plugin as _;
use crate::rotation::{RotationCall, RotationPolicy};
use crate::wit::rotation::{Action, Decision, Event, Outcome};
use crate::wit::types::PluginError;

/// See the head of this file.
pub(super) enum Answering {
    Component(Box<RotationPolicy>),
    /// Leaves every key to the host's ceiling and alerts when one may be known to others; its state is the next decision's number.
    Listener,
}

impl Answering {
    pub(super) fn call(&self, call: &RotationCall) -> Result<Called<Outcome>, CallError> {
        match (self, call) {
            (Self::Component(policy), call) => policy.call(call),
            (Self::Listener, RotationCall::Init { .. }) => {
                Ok(native(Outcome { state: "1".into(), decisions: Vec::new() }))
            }
            (Self::Listener, RotationCall::Step { state, event, .. }) => listen(state, event).map(native),
        }
    }

    pub(super) fn migrate(&self, from: u32, state: &str) -> Result<Called<String>, CallError> {
        match self {
            Self::Component(policy) => policy.migrate(from, state),
            Self::Listener => next_in("rotation.migrate", state).map(|next| native(next.to_string())),
        }
    }

    /// Its settings, with the defaults filled in.
    pub(super) fn config(&self) -> &str {
        match self {
            Self::Component(policy) => &policy.facts().config,
            Self::Listener => "{}",
        }
    }

    pub(super) fn understands(&self, extension: &str) -> bool {
        match self {
            Self::Component(policy) => policy.facts().about.understands.iter().any(|name| name == extension),
            Self::Listener => false,
        }
    }
}

fn native<T>(value: T) -> Called<T> {
    Called { value, logs: Vec::new(), fuel: 0 }
}

fn listen(state: &str, event: &Event) -> Result<Outcome, CallError> {
    let id = next_in("rotation.step", state)?;
    let alert = |epoch: &u64| Decision {
        id,
        why: String::new(),
        action: Action::Alert(format!("key {epoch} may be known to others")),
    };
    let decisions: Vec<_> = if let Event::Suspect(epoch) = event { vec![alert(epoch)] } else { Vec::new() };
    let next = id.saturating_add(u64::from(!decisions.is_empty()));
    Ok(Outcome { state: next.to_string(), decisions })
}

/// The next decision's number. A state that somebody else wrote is refused.
fn next_in(function: &'static str, state: &str) -> Result<u64, CallError> {
    state.parse().ok().filter(|next| (1..u64::MAX).contains(next)).ok_or_else(|| CallError::Refused {
        function,
        error: PluginError::InvalidState("not a number".into()),
        logs: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use crate::scenario::{Run, Scenario};

    fn told(story: &str) -> Run {
        let story = format!("{{ about: A story., kind: rotation, {story} }}");
        Scenario::parse("test", &story).unwrap().play_to_listener().unwrap()
    }

    #[test]
    fn what_is_sealed_in_no_time_changes_the_key_once() {
        let host = "host: { min-interval: 0s, delivery: 0s }";
        let run = told(&format!("{host}, timeline: [{{ advance: 0s, sealing: 44TiB }}, {{ advance: 1h }}]"));
        assert!(!run.restless, "{}", run.transcript);
        assert_eq!(run.counts.get("by-host"), Some(&1), "{}", run.transcript);
    }

    #[test]
    fn a_node_that_never_comes_to_rest_is_not_the_policys_fault() {
        let run = told("host: { max-age: 0s, delivery: 0s }, timeline: [{ advance: 1s }]");
        assert!(run.restless, "{}", run.transcript);
    }

    #[test]
    fn it_is_honest_where_a_policy_has_to_answer_and_where_it_has_to_refuse() {
        let run = told("timeline: [{ advance: 2h }, { suspect: current }, { state: nonsense }, { advance: 1h }]");
        assert_eq!(run.counts.get("unheeded-suspicions"), None, "{}", run.transcript);
        assert_eq!(run.counts.get("unread-states"), None, "{}", run.transcript);
        assert!(run.fault.is_none() && run.failures.is_empty(), "{}", run.transcript);
    }
}
