//! The judge: scikit-learn in a virtual environment of its own below the target folder, and the script that is run in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::python::{self, quietly};
use crate::workspace::Workspace;

const SCRIPT: &str = include_str!("judge.py");
/// From PyPI, with what they need.
const PACKAGES: [&str; 2] = ["numpy>=1.26,<3", "scikit-learn>=1.4,<2"];

/// A Python that has what the script needs.
#[derive(Debug)]
pub(super) struct Judge {
    python: PathBuf,
    script: PathBuf,
}

impl Judge {
    /// Makes the environment if it is not there, and says so.
    pub(super) fn prepare(workspace: &Workspace) -> Result<Self> {
        let dir = workspace.target.join("disguise-game");
        fs::create_dir_all(&dir)?;
        let environment = dir.join("python");
        let (python, script) = (environment.join("bin/python"), dir.join("judge.py"));
        fs::write(&script, SCRIPT).with_context(|| format!("cannot write {}", script.display()))?;
        let judge = Self { python, script };
        if judge.is_ready() {
            return Ok(judge);
        }
        println!("installing {} from PyPI into {}", PACKAGES.join(", "), workspace.shown(&environment));
        python::environment(&environment)?;
        let mut pip = Command::new(&judge.python);
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(PACKAGES);
        quietly(&mut pip).context("scikit-learn cannot be had from PyPI")?;
        if !judge.is_ready() {
            bail!("scikit-learn was installed and cannot be imported");
        }
        Ok(judge)
    }

    fn is_ready(&self) -> bool {
        let mut probe = Command::new(&self.python);
        probe.args(["-c", "import numpy, scipy, sklearn"]);
        quietly(&mut probe).is_ok()
    }

    /// What the script says of the captures in a folder.
    pub(super) fn judge(&self, dir: &Path) -> Result<Value> {
        let mut command = Command::new(&self.python);
        // Several threads gain nothing on tables of this size, and on a busy machine they wait for each other for minutes.
        command.env("OMP_NUM_THREADS", "1").env("OPENBLAS_NUM_THREADS", "1");
        let output = command.arg(&self.script).arg(dir).stdin(Stdio::null()).output()?;
        if !output.status.success() {
            bail!("the judge of {}: {}", dir.display(), String::from_utf8_lossy(&output.stderr).trim());
        }
        serde_json::from_slice(&output.stdout).context("the judge's words are no JSON")
    }
}
