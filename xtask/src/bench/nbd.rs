//! The NBD path: without a pair, and sealed and copied to a live remote, against nbdkit's file plugin.

use std::fs::{self, File};
use std::io::Write as _;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::fio::{self, Figures, JOBS, Job};
use super::{Effort, Programs, median};
use crate::site::{PairTerms, Site, Stage, Status, wait_for};

const PAIR: &str = "bench";
/// Who is measured, nbdkit first: the others' ratios are to it.
const SERVERS: [&str; 3] = ["nbdkit", "no pair", "sealed, copied"];

/// Everything that serves.
struct Servers {
    stage: Rc<Stage>,
    nbdkit: Child,
    nbdkit_uri: String,
    plain: Site,
    main: Site,
    /// Held so that it runs.
    _remote: Site,
}

pub(super) fn measure(stage: &Rc<Stage>, programs: &Programs, effort: Effort) -> Result<Value> {
    let servers = Servers::start(stage, programs, effort)?;
    println!("\nNBD over a Unix socket, medians of {} rounds", effort.rounds);
    println!("  {:<26} {:<15} {:>9} {:>9} {:>8} {:>9} {:>7}", "", "", "IO/s", "MiB/s", "p50 us", "p99 us", "ratio");
    let mut jobs = Vec::new();
    for job in JOBS {
        jobs.push(measure_job(&servers, job, effort)?);
    }
    Ok(json!({ "jobs": jobs }))
}

impl Servers {
    fn start(stage: &Rc<Stage>, programs: &Programs, effort: Effort) -> Result<Self> {
        let init = |name| Site::init(stage, &programs.farseal, &programs.plugins, name);
        let (mut plain, mut main, mut remote) = (init("plain")?, init("main")?, init("remote")?);
        let mut config = File::options().append(true).open(plain.config())?;
        let size = effort.mebibytes;
        writeln!(config, "\n[[volume]]\nname = \"{PAIR}\"\npath = \"volume.img\"\nsize = \"{size}MiB\"")?;
        let volume = main.dir.join("volume.img");
        main.pair_with(&remote, &PairTerms { name: PAIR, volume: &volume, mebibytes: size, options: &[] })?;
        for site in [&mut plain, &mut remote, &mut main] {
            site.start()?;
        }
        main.wait_until("a link", |status| status.state() == "copying" && status.epoch() > 0)?;

        let (file, socket) = (stage.dir.join("nbdkit.img"), stage.dir.join("nbdkit.sock"));
        File::create(&file)?.set_len(size << 20)?;
        let mut nbdkit = Command::new("nbdkit");
        nbdkit.arg("-f").arg("-U").arg(&socket).arg("file").arg(&file).stdin(Stdio::null()).stderr(Stdio::null());
        let nbdkit = nbdkit.spawn().context("nbdkit cannot be started")?;
        stage.started(&nbdkit);
        let nbdkit_uri = format!("nbd+unix:///?socket={}", socket.display());
        let servers = Self { stage: Rc::clone(stage), nbdkit, nbdkit_uri, plain, main, _remote: remote };
        wait_for("nbdkit", Duration::from_secs(10), || Ok(socket.exists().then_some(())))?;
        for server in SERVERS {
            fio::fill(&servers.uri(server), size)?;
            servers.settle()?;
        }
        Ok(servers)
    }

    fn uri(&self, server: &str) -> String {
        match server {
            "nbdkit" => self.nbdkit_uri.clone(),
            "no pair" => self.plain.uri(PAIR),
            _ => self.main.uri(PAIR),
        }
    }

    /// Until the remote has everything: what one measurement left to do is not to slow the next one down.
    fn settle(&self) -> Result<()> {
        self.main.wait_until("everything at the remote", Status::is_safe).map(drop)
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        let _ = self.nbdkit.kill();
        let _ = self.nbdkit.wait();
        self.stage.ended(&self.nbdkit);
        let _ = fs::remove_file(self.stage.dir.join("nbdkit.img"));
    }
}

fn measure_job(servers: &Servers, job: Job, effort: Effort) -> Result<Value> {
    let mut runs: [Vec<Figures>; 3] = Default::default();
    for _ in 0..effort.rounds {
        for (server, runs) in SERVERS.into_iter().zip(&mut runs) {
            runs.push(fio::run(job, &servers.uri(server), effort.mebibytes, effort.seconds)?);
            servers.settle()?;
        }
    }
    let [reference, ..] = &runs;
    let mut lines = Vec::new();
    for (at, (server, found)) in SERVERS.into_iter().zip(&runs).enumerate() {
        let ratios: Vec<f64> =
            found.iter().zip(reference).map(|(found, reference)| found.iops / reference.iops).collect();
        let ratio = median(&ratios);
        let of = |what: fn(&Figures) -> f64| median(&found.iter().map(what).collect::<Vec<_>>());
        let figures = [of(|run| run.iops), of(|run| run.mib_per_s), of(|run| run.p50_us), of(|run| run.p99_us)];
        let name = if at == 0 { job.name } else { "" };
        let [iops, rate, p50, p99] = figures;
        println!("  {name:<26} {server:<15} {iops:>9.0} {rate:>9.0} {p50:>8.0} {p99:>9.0} {ratio:>7.2}");
        lines.push(json!({
            "server": server, "iops": iops, "mib-per-s": rate, "p50-us": p50, "p99-us": p99, "ratio": ratio,
        }));
    }
    Ok(json!({ "job": job.name, "servers": lines }))
}
