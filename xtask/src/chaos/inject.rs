//! One call of a running process fails: strace puts an error in the place of the n-th.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use super::history::Random;
use crate::site::wait_for;

/// Which call fails, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failing {
    Sync,
    Write,
}

impl Failing {
    pub(crate) fn draw(random: &mut Random) -> Self {
        if random.one_in(2) { Self::Sync } else { Self::Write }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sync => "fdatasync fails (EIO)",
            Self::Write => "write fails (ENOSPC)",
        }
    }

    fn calls(self) -> (&'static str, &'static str) {
        match self {
            Self::Sync => ("fdatasync,fsync", "EIO"),
            Self::Write => ("pwrite64,pwritev,pwritev2,fallocate", "ENOSPC"),
        }
    }
}

/// Is there a strace that may attach?
pub(crate) fn possible() -> bool {
    Command::new("strace").arg("-V").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// An strace that is attached.
#[derive(Debug)]
pub(crate) struct Injection {
    strace: Child,
    log: PathBuf,
}

impl Injection {
    /// Attaches to a process and all its threads; the n-th such call of each thread fails.
    pub(crate) fn begin(pid: u32, failing: Failing, nth: u64, log: &Path) -> Result<Self> {
        let (calls, error) = failing.calls();
        let mut command = Command::new("strace");
        command.args(["-f", "-p", &pid.to_string(), "-e", &format!("trace={calls}")]);
        command.args(["-e", &format!("inject={calls}:error={error}:when={nth}"), "-o"]).arg(log);
        let strace =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().context("strace")?;
        let attached = || {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
            Ok(status.lines().any(|line| line.starts_with("TracerPid:") && !line.ends_with("\t0")).then_some(()))
        };
        wait_for("strace's attaching", Duration::from_secs(10), attached)?;
        Ok(Self { strace, log: log.to_owned() })
    }

    /// How many calls have failed so far.
    pub(crate) fn struck(&self) -> usize {
        let text = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&text).matches("(INJECTED)").count()
    }

    /// Detaches. Says how many calls failed.
    pub(crate) fn end(mut self) -> Result<usize> {
        self.detach();
        Ok(self.struck())
    }

    /// It lets its process go on SIGTERM; killed, it would take it along. It may have ended with its process.
    fn detach(&mut self) {
        let mut kill = Command::new("kill");
        let _ = kill.args(["-TERM", &self.strace.id().to_string()]).stderr(Stdio::null()).status();
        let _ = self.strace.wait();
    }
}

impl Drop for Injection {
    fn drop(&mut self) {
        self.detach();
    }
}
