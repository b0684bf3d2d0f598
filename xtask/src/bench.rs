//! `cargo xtask bench`: what Farseal costs, as ratios to other programs in the same run on the same machine.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::site::Stage;
use crate::workspace::Workspace;
use crate::{plugins, tools};

mod fio;
mod goals;
mod nbd;
mod rotation;
mod takeover;

/// How much is measured.
#[derive(Debug, Clone, Copy)]
struct Effort {
    rounds: usize,
    /// One measurement's length in seconds.
    seconds: u32,
    /// Of each volume.
    mebibytes: u64,
    quick: bool,
}

/// What is measured by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Ciphers,
    Nbd,
    Rotation,
    Takeover,
}

impl Part {
    const ALL: [Self; 4] = [Self::Ciphers, Self::Nbd, Self::Rotation, Self::Takeover];

    const fn name(self) -> &'static str {
        match self {
            Self::Ciphers => "ciphers",
            Self::Nbd => "nbd",
            Self::Rotation => "rotation",
            Self::Takeover => "takeover",
        }
    }
}

/// Whose cost is measured.
#[derive(Debug)]
struct Programs {
    farseal: PathBuf,
    plugins: PathBuf,
    cipher_bench: PathBuf,
}

/// What the command line asks for.
#[derive(Debug)]
struct Options {
    effort: Effort,
    parts: Vec<Part>,
    json_file: Option<PathBuf>,
}

pub(crate) fn run(workspace: &Workspace, words: &[String]) -> Result<()> {
    let Options { effort, parts, json_file } = options(words)?;
    tools::install_for(&["fio", "nbdkit"]);
    let programs = build(workspace)?;
    let stage = Stage::new("bench")?;
    println!("measuring in {}; set TMPDIR to measure on another file system", stage.dir.display());

    let missing = fio::missing();
    let mut report = json!({});
    for part in parts {
        if let (Part::Nbd | Part::Rotation, Some(program)) = (part, missing) {
            println!("\n{} was not measured: {program} is missing", part.name());
            continue;
        }
        report[part.name()] = match part {
            Part::Ciphers => ciphers(&programs, effort)?,
            Part::Nbd => nbd::measure(&stage, &programs, effort)?,
            Part::Rotation => rotation::measure(&stage, &programs, effort)?,
            Part::Takeover => takeover::measure(&stage, &programs)?,
        };
    }
    println!("\ngoals, and what was measured");
    report["goals"] = goals::judge(&report);
    if let Some(file) = json_file {
        std::fs::write(&file, serde_json::to_string_pretty(&report)?)
            .with_context(|| format!("cannot write {}", file.display()))?;
        println!("\nall figures are in {}", file.display());
    }
    Ok(())
}

fn options(words: &[String]) -> Result<Options> {
    let effort = Effort { rounds: 5, seconds: 3, mebibytes: 512, quick: false };
    let mut options = Options { effort, parts: Vec::new(), json_file: None };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--quick" => options.effort = Effort { rounds: 3, seconds: 1, mebibytes: 128, quick: true },
            "--json" => options.json_file = Some(PathBuf::from(words.next().context("--json needs a file")?)),
            "--only" => {
                let name = words.next().context("--only needs a part")?;
                let part = Part::ALL.into_iter().find(|part| part.name() == name);
                let part = part.context("--only takes ciphers, nbd, rotation or takeover")?;
                if !options.parts.contains(&part) {
                    options.parts.push(part);
                }
            }
            other => bail!("bench takes --quick, --only PART (as often as wanted) and --json FILE, not {other}"),
        }
    }
    if options.parts.is_empty() {
        options.parts = Part::ALL.to_vec();
    }
    Ok(options)
}

fn build(workspace: &Workspace) -> Result<Programs> {
    println!("building plugins, daemon and measuring program for release");
    plugins::build_quietly(workspace, &[])?;
    workspace.build(&["--release", "--bin", "farseal", "--example", "cipher_bench"])?;
    let place = workspace.target.join("release");
    Ok(Programs {
        farseal: place.join("farseal"),
        plugins: workspace.components(),
        cipher_bench: place.join("examples/cipher_bench"),
    })
}

fn ciphers(programs: &Programs, effort: Effort) -> Result<Value> {
    let mut command = Command::new(&programs.cipher_bench);
    command.arg(&programs.plugins).args(effort.quick.then_some("--quick"));
    let output = command.output()?;
    if !output.status.success() {
        bail!("cipher_bench: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let report: Value = serde_json::from_slice(&output.stdout)?;
    println!("\nsealing in place, GB/s on one core (ratio to native aws-lc)");
    println!("  {:<12} {:>14} {:>14} {:>16} {:>16}", "", "aws-lc", "aes-gcm", "plugin by plan", "plugin, raw");
    for load in report["ciphers"].as_array().into_iter().flatten() {
        let ways = load["ways"].as_array().into_iter().flatten();
        let cells = ways.map(|way| {
            let number = |name: &str| way[name].as_f64().unwrap_or(0.0);
            format!("{:.2} ({:.2})", number("gb-per-s"), number("ratio"))
        });
        let cells: Vec<String> = cells.collect();
        let cell = |at: usize| cells.get(at).map_or("", String::as_str);
        let name = load["load"].as_str().unwrap_or("");
        println!("  {name:<12} {:>14} {:>14} {:>16} {:>16}", cell(0), cell(1), cell(2), cell(3));
    }
    println!("\nplugin calls");
    for call in report["calls"].as_array().into_iter().flatten() {
        println!("  {:<50} {:>8.1} us", call["call"].as_str().unwrap_or(""), call["us"].as_f64().unwrap_or(0.0));
    }
    Ok(json!({ "loads": report["ciphers"], "calls": report["calls"] }))
}

/// The middle of the values, the upper one of two.
fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// As people read it.
fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}
