//! fio as the load: one job against one NBD export.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// What is done to a server.
#[derive(Debug, Clone, Copy)]
pub(super) struct Job {
    pub(super) name: &'static str,
    pub(super) pattern: &'static str,
    pub(super) block: &'static str,
    pub(super) depth: u32,
}

pub(super) const WRITE_QD1: Job = Job { name: "4 KiB random write, qd 1", pattern: "randwrite", block: "4k", depth: 1 };
pub(super) const WRITE_QD32: Job =
    Job { name: "4 KiB random write, qd 32", pattern: "randwrite", block: "4k", depth: 32 };

pub(super) const JOBS: [Job; 6] = [
    WRITE_QD1,
    WRITE_QD32,
    Job { name: "4 KiB random read, qd 1", pattern: "randread", block: "4k", depth: 1 },
    Job { name: "4 KiB random read, qd 32", pattern: "randread", block: "4k", depth: 32 },
    Job { name: "1 MiB write, qd 16", pattern: "write", block: "1m", depth: 16 },
    Job { name: "1 MiB read, qd 16", pattern: "read", block: "1m", depth: 16 },
];

/// What one run gave.
#[derive(Debug, Clone, Copy)]
pub(super) struct Figures {
    pub(super) iops: f64,
    pub(super) mib_per_s: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
}

/// The first program that is needed and not there.
pub(super) fn missing() -> Option<&'static str> {
    ["fio", "nbdkit"].into_iter().find(|program| {
        let mut command = Command::new(program);
        command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        !command.status().is_ok_and(|status| status.success())
    })
}

/// Runs a job for some seconds.
pub(super) fn run(job: Job, uri: &str, mebibytes: u64, seconds: u32) -> Result<Figures> {
    let mut fio = command(job, uri, mebibytes);
    fio.arg(format!("--runtime={seconds}")).arg("--time_based");
    figures(&mut fio, job)
}

/// Writes every block of the volume once.
pub(super) fn fill(uri: &str, mebibytes: u64) -> Result<()> {
    let job = Job { name: "fill", pattern: "write", block: "1m", depth: 8 };
    figures(command(job, uri, mebibytes).arg("--end_fsync=1"), job).map(drop)
}

fn command(job: Job, uri: &str, mebibytes: u64) -> Command {
    let mut fio = Command::new("fio");
    // The nbd engine's completion latency leaves out what waits in submission; total latency has all.
    fio.args(["--name=bench", "--ioengine=nbd", "--randrepeat=0", "--lat_percentiles=1", "--output-format=json"]);
    fio.args([format!("--uri={uri}"), format!("--rw={}", job.pattern), format!("--bs={}", job.block)]);
    fio.args([format!("--iodepth={}", job.depth), format!("--size={mebibytes}m")]);
    fio
}

fn figures(fio: &mut Command, job: Job) -> Result<Figures> {
    let output = fio.stdin(Stdio::null()).output().context("fio cannot be started")?;
    let said = String::from_utf8_lossy(&output.stdout);
    // fio says other things before its JSON.
    let json = said.find('{').map(|at| &said[at..]).unwrap_or_default();
    let report: Value = serde_json::from_str(json).unwrap_or_default();
    let way = if job.pattern.contains("read") { "read" } else { "write" };
    let figures = &report["jobs"][0][way];
    let errors = report["jobs"][0]["error"].as_i64().unwrap_or(1);
    if !output.status.success() || errors != 0 {
        bail!("fio, {}: {said}{}", job.name, String::from_utf8_lossy(&output.stderr));
    }
    let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
    let percentile = |name: &str| number(&figures["lat_ns"]["percentile"][name]) / 1_000.0;
    Ok(Figures {
        iops: number(&figures["iops"]),
        mib_per_s: number(&figures["bw"]) / 1_024.0,
        p50_us: percentile("50.000000"),
        p99_us: percentile("99.000000"),
    })
}
