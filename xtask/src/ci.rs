//! `cargo xtask ci`: everything that must hold before a change is merged, the quick checks first.

use anyhow::{Result, bail};

use crate::workspace::{Workspace, run as run_program};
use crate::{plugins, test, tidy};

/// Built twice; all of them would take as long as the tests.
const REPRODUCED: [&str; 3] = ["interval", "slot", "sweep"];

pub(crate) fn run(workspace: &Workspace, words: &[String]) -> Result<()> {
    if !words.is_empty() {
        bail!("ci takes no arguments");
    }
    println!("format");
    run_program(workspace.cargo().args(["fmt", "--all", "--check"]))?;
    println!("lints");
    run_program(workspace.cargo().args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--locked",
        "--",
        "-D",
        "warnings",
    ]))?;
    println!("tidy");
    tidy::run(workspace, &[])?;
    println!("test");
    test::run(workspace, &[])?;
    println!("reproducible bytes");
    let words = REPRODUCED.iter().copied().chain(["--repro"]).map(String::from).collect::<Vec<_>>();
    plugins::run(workspace, &words)
}
