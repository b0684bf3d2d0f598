//! `cargo xtask sim`: builds the simulator optimised, with overflow checks on, and runs it.

use anyhow::Result;

use crate::workspace::{self, Workspace};

/// Every word goes on to the simulator; without any it runs for a minute.
pub(crate) fn run(workspace: &Workspace, words: &[String]) -> Result<()> {
    let mut cargo = workspace.cargo();
    cargo.args(["run", "--quiet", "--locked", "--release", "--package", "farseal-sim", "--"]);
    // A release would drop them; the simulator wants every assertion that there is.
    cargo.env("CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS", "true").env("CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS", "true");
    if words.is_empty() {
        cargo.args(["--seconds", "60"]);
    }
    cargo.args(words);
    workspace::run(&mut cargo)
}
