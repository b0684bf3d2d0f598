//! `cargo xtask conform`: tries the contract's rules on a plugin of the repository or a component in a file.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::plugins;
use crate::workspace::{Workspace, run as run_program};

pub(crate) fn run(workspace: &Workspace, words: &[String]) -> Result<()> {
    let (what, options) = words.split_first().context("conform needs a plugin's name or a component's file")?;
    if what.starts_with('-') {
        bail!("conform needs a plugin's name or a component's file before {what}");
    }
    let component = if Path::new(what).extension().is_some_and(|extension| extension == "wasm") {
        std::env::current_dir()?.join(what)
    } else {
        plugins::build_quietly(workspace, &[what])?;
        workspace.components().join(what).with_extension("wasm")
    };
    workspace.build(&["--bin", "farseal"])?;
    let farseal = workspace.target.join("debug/farseal");
    run_program(Command::new(farseal).args(["plugin", "conform"]).arg(component).args(options))
}
