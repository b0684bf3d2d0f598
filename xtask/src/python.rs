//! Virtual environments of Python, for what is installed into folders of their own, and programs that are heard only if they fail.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// The first of them that can make an environment is used.
const PYTHONS: [&str; 2] = ["python3", "/usr/bin/python3"];

/// Makes a virtual environment.
pub(crate) fn environment(environment: &Path) -> Result<()> {
    let mut reasons = Vec::new();
    for python in PYTHONS {
        match quietly(Command::new(python).args(["-m", "venv", "--clear"]).arg(environment)) {
            Ok(()) => return Ok(()),
            Err(reason) => reasons.push(format!("{python}: {reason:#}")),
        }
    }
    bail!("no Python makes a virtual environment (Debian package python3-venv): {}", reasons.join("; "))
}

/// Runs a program to its end; what it says is told only if it fails.
pub(crate) fn quietly(command: &mut Command) -> Result<()> {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("{program} cannot be started"))?;
    if !output.status.success() {
        let said = [output.stderr, output.stdout].concat();
        let said = String::from_utf8_lossy(&said);
        let lines: Vec<&str> = said.trim().lines().collect();
        let last = lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join("\n");
        bail!("{program} failed ({}): {last}", output.status);
    }
    Ok(())
}
