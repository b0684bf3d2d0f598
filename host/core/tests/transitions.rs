//! Every event in every state of the rotation, of the copying, of a change of sides and of the secondary, as tables,
//! and the diagrams that follow from them.
//!
//! A state is reached by events, as in life. The tables are what a reviewer reads when a rule changes; the diagrams
//! in `ARCHITECTURE.md` are generated from them.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fmt::Write as _;

#[path = "transitions/copying.rs"]
mod copying;
#[path = "support/pair.rs"]
mod pair;
#[path = "transitions/rotation.rs"]
mod rotation;
#[path = "transitions/secondary.rs"]
mod secondary;
#[path = "transitions/swap.rs"]
mod swap;

/// One event in one state: what it made of the state, and what it led to.
struct Step {
    state: String,
    event: &'static str,
    after: String,
    does: String,
}

fn snapshot(name: &str, text: &str) {
    insta::with_settings!({ snapshot_path => "snapshots", prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!(name, text);
    });
}

/// A line for each step that does something; the events that do nothing in a state are named together.
fn table(steps: &[Step]) -> String {
    let mut out = String::new();
    let mut states: Vec<&str> = steps.iter().map(|step| step.state.as_str()).collect();
    states.dedup();
    for state in states {
        let _ = writeln!(out, "{state}");
        let mut idle = Vec::new();
        for step in steps.iter().filter(|step| step.state == state) {
            if step.after == step.state && step.does.is_empty() {
                idle.push(step.event);
                continue;
            }
            let after = if step.after == step.state { "(stays)" } else { step.after.as_str() };
            let _ = writeln!(out, "  {:<34} {:<24} {}", step.event, after, step.does);
        }
        if !idle.is_empty() {
            let _ = writeln!(out, "  nothing: {}", idle.join(", "));
        }
        out.push('\n');
    }
    out.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

/// The steps that change the state, as a diagram.
fn diagram(steps: &[Step]) -> String {
    let mut out = String::from("stateDiagram-v2\n");
    let mut seen = BTreeSet::new();
    for step in steps.iter().filter(|step| step.after != step.state) {
        let edge = format!("    {} --> {}: {}", name(&step.state), name(&step.after), step.event);
        if seen.insert(edge.clone()) {
            let _ = writeln!(out, "{edge}");
        }
    }
    out
}

fn name(state: &str) -> String {
    state.split(|letter: char| !letter.is_alphanumeric()).filter(|word| !word.is_empty()).collect::<Vec<_>>().join("_")
}
