//! `cargo xtask test`: sets up what the tests need, builds the plugins, runs every test, a minute of chaos and the
//! controls of the disguise game, and closes with a summary.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::compiled;
use crate::plugins;
use crate::tools::{self, Tool};
use crate::workspace::{self, Workspace};

/// Kills, power cuts and a troubled link, from a seed of the moment.
const CHAOS_MINUTES: &str = "1";

pub(crate) fn run(workspace: &Workspace, words: &[String]) -> Result<()> {
    if !words.is_empty() {
        bail!("test takes no arguments; for one test use cargo test -p CRATE NAME");
    }
    let begun = Instant::now();
    let missing = tools::install();
    plugins::build_quietly(workspace, &[])?;
    let unbuilt = plugins::build_interpreted(workspace)?;

    let mut cargo = workspace.cargo();
    cargo.args(["test", "--workspace", "--locked", "--no-fail-fast"]);
    cargo.env("INSTA_UPDATE", "no").env("INSTA_WORKSPACE_ROOT", &workspace.root);
    cargo.env("FARSEAL_PLUGINS", workspace.components()).env("FARSEAL_INTERPRETED", workspace.interpreted());
    cargo.env("FARSEAL_COMPILED", compiled::folder(workspace)?);
    let mut child = cargo.stdout(Stdio::piped()).spawn().context("cannot start cargo test")?;
    let mut tally = Tally::default();
    let output = child.stdout.take().context("cargo test has no output")?;
    for line in BufReader::new(output).lines() {
        let line = line?;
        println!("{line}");
        tally.take(&line);
    }
    let status = child.wait()?;
    if !status.success() {
        print_summary(&tally, &missing, &unbuilt, begun.elapsed().as_secs());
        bail!("tests failed: see above");
    }
    // A program of its own: it may leave for a mount namespace. By way of Cargo, as the tests may have built this very
    // program anew.
    let mut chaos = workspace.cargo();
    chaos.args(["run", "--quiet", "--locked", "--package", "xtask", "--", "chaos", "--minutes", CHAOS_MINUTES]);
    workspace::run(&mut chaos)?;
    // Its own controls only: what no disguise hides must be caught. Whatever else the machine does blurs what is captured, and
    // may hide it: that is tried once more.
    let controls = || {
        let mut game = workspace.cargo();
        game.args(["run", "--quiet", "--locked", "--package", "xtask", "--", "disguise-game", "--short"]);
        workspace::run(&mut game)
    };
    if let Err(error) = controls() {
        println!(
            "the controls of the disguise game: {error:#}; once more, as a busy machine blurs what they must show"
        );
        controls()?;
    }
    print_summary(&tally, &missing, &unbuilt, begun.elapsed().as_secs());
    Ok(())
}

fn print_summary(tally: &Tally, missing: &[Tool], unbuilt: &[String], seconds: u64) {
    println!("\n{} tests passed, {} failed, in {seconds} s", tally.passed, tally.failed.len());
    for name in &tally.failed {
        println!("  failed: {name}");
    }
    for tool in missing {
        println!("  not tested, as {} is missing: {} (Debian package {})", tool.program, tool.tests, tool.package);
    }
    for plugin in unbuilt {
        println!("  not tested: {plugin}");
    }
}

/// What the lines of the test programs add up to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    passed: u64,
    failed: Vec<String>,
}

impl Tally {
    fn take(&mut self, line: &str) {
        if let Some(rest) = line.strip_prefix("test result: ") {
            let passed = rest.split_whitespace().nth(1).and_then(|number| number.parse::<u64>().ok());
            self.passed += passed.unwrap_or(0);
        } else if let Some(name) = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED")) {
            self.failed.push(name.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_add_up() {
        let mut tally = Tally::default();
        let lines = "test a::b ... ok\ntest a::c ... FAILED\n\
                     test result: FAILED. 7 passed; 1 failed; 0 ignored; 0 measured\n\
                     test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured";
        lines.lines().for_each(|line| tally.take(line));
        assert_eq!(tally, Tally { passed: 10, failed: vec![String::from("a::c")] });
    }
}
