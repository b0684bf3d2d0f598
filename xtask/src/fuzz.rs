//! `cargo xtask fuzz`: builds the targets and feeds them mutated inputs; libFuzzer does the same with a nightly compiler.

use std::process::Command;

use anyhow::Result;

use crate::workspace::{self, Workspace};

/// How coverage is brought in, where there is a compiler that can.
const LIBFUZZER: &str = "with coverage, on a machine with nightly Rust and cargo-fuzz:\n  \
    FARSEAL_FUZZ=TARGET cargo +nightly fuzz run --fuzz-dir host/fuzz/libfuzzer target fixtures/corpus/TARGET";

/// Every word goes on to the program.
pub(crate) fn run(workspace: &Workspace, words: &[String]) -> Result<()> {
    workspace.build(&["--bin", "farseal-fuzz"])?;
    println!("{LIBFUZZER}");
    let mut fuzz = Command::new(workspace.target.join("debug/farseal-fuzz"));
    let corpus = workspace.fixtures().join("corpus");
    fuzz.current_dir(&workspace.root).arg("--corpus").arg(corpus).arg("--keep").arg(workspace.target.join("fuzz"));
    workspace::run(fuzz.args(words))
}
