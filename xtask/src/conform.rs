//! `cargo xtask conform`: tries the contract's rules on plugins of the repository or components in files.

use std::env;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::compiled;
use crate::plugins;
use crate::workspace::{Workspace, run as run_program};

pub(crate) fn run(workspace: &Workspace, words: &[String]) -> Result<()> {
    let named = words.iter().take_while(|word| !word.starts_with('-')).count();
    let (plugins, options) = words.split_at(named);
    if plugins.is_empty() {
        bail!("conform needs plugins' names or components' files, and options after them");
    }
    // Tests have built it, with features of their own: Cargo would build it all a second time.
    let farseal = match env::var_os("FARSEAL_PROGRAM") {
        Some(program) => program.into(),
        None => {
            eprintln!(
                "taking target/debug/farseal, which is built anew where a source is newer; FARSEAL_PROGRAM=FILE takes another"
            );
            workspace.build(&["--bin", "farseal"])?;
            workspace.target.join("debug/farseal")
        }
    };
    let compiled = compiled::folder(workspace)?;
    for plugin in plugins {
        let component = if Path::new(plugin).extension().is_some_and(|extension| extension == "wasm") {
            env::current_dir()?.join(plugin)
        } else {
            plugins::build_quietly(workspace, &[plugin])?.pop().context("a plugin was built that lies nowhere")?
        };
        let mut conform = Command::new(&farseal);
        conform.args(["plugin", "conform"]).arg(component).arg("--compiled").arg(&compiled).args(options);
        run_program(&mut conform)?;
    }
    Ok(())
}
