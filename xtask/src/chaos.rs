//! `cargo xtask chaos`: two sites as real processes, killed, cut from power and filled to the last byte under
//! load, and every image judged.
//!
//! A seed draws what is written and which fault comes when; how the processes run is the machine's affair, so a seed
//! names a mixture of faults and no exact run.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::plugins;
use crate::site::{Stage, free_port};
use crate::workspace::Workspace;

pub(crate) mod chains;
pub(crate) mod disk;
pub(crate) mod group_rig;
mod groups;
pub(crate) mod history;
mod inject;
pub(crate) mod load;
mod mix;
mod proxy;
pub(crate) mod rig;

use disk::Disk;
use history::Random;
use mix::Mix;
use proxy::Proxy;
use rig::{Burst, Counts, Hit, MayFail, Rig};

/// Cycles between two rehearsed takeovers.
const TAKEOVER_EVERY: u64 = 10;
/// How long a run with groups takes unless told.
const GROUPS_SPAN: Duration = Duration::from_secs(300);
/// Nodes of each site then.
const GROUPS_NODES: usize = 4;
/// Lines of each log that a failure shows.
const LOG_LINES: usize = 15;
/// Tells a program that it is in a mount namespace of its own.
const INSIDE: &str = "FARSEAL_CHAOS_INSIDE";

/// What befalls the sites.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Kill,
    PowerCut,
    FullDisk,
}

impl Fault {
    const ALL: [Self; 3] = [Self::Kill, Self::PowerCut, Self::FullDisk];

    fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill -9",
            Self::PowerCut => "power cut",
            Self::FullDisk => "full disk",
        }
    }

    fn option(self) -> &'static str {
        match self {
            Self::Kill => "--kills",
            Self::PowerCut => "--power-cuts",
            Self::FullDisk => "--full-disks",
        }
    }

    /// Each site has a file system of its own.
    fn needs_disks(self) -> bool {
        self != Self::Kill
    }
}

#[derive(Debug, Clone)]
struct Wanted {
    /// How often each fault strikes.
    cycles: [(Fault, u64); 3],
    /// Every kind of fault, for so long.
    mix: Option<Duration>,
    /// One group over so many nodes a site, for so long, and nothing else.
    groups: Option<(usize, Duration)>,
    seed: u64,
    /// The daemon to judge; the workspace's own is built first.
    farseal: Option<PathBuf>,
}

/// What is judged.
struct Programs {
    farseal: PathBuf,
    plugins: PathBuf,
}

pub(crate) fn run(workspace: &Workspace, words: &[String]) -> Result<()> {
    let mut wanted = parse(words)?;
    let needs_disks = wanted.groups.is_some()
        || wanted.mix.is_some()
        || wanted.cycles.iter().any(|(fault, cycles)| fault.needs_disks() && *cycles > 0);
    let mut has_disks = needs_disks;
    if needs_disks {
        match disk::obstacle() {
            Some(why) => {
                println!("power cuts and full disks were NOT tested: {why}");
                has_disks = false;
                wanted.cycles.iter_mut().filter(|(fault, _)| fault.needs_disks()).for_each(|(_, cycles)| *cycles = 0);
            }
            None if std::env::var_os(INSIDE).is_none() => return enter_namespace(),
            None => {}
        }
    }
    let farseal = if let Some(farseal) = &wanted.farseal {
        farseal.clone()
    } else {
        plugins::build_quietly(workspace, &[])?;
        workspace.build(&["--bin", "farseal"])?;
        workspace.target.join("debug/farseal")
    };
    println!("seed {}", wanted.seed);
    let programs = Programs { farseal, plugins: workspace.components() };
    let mut violations = 0;
    if let Some((nodes, span)) = wanted.groups {
        let terms = groups::Terms { nodes, span, has_disks, seed: wanted.seed };
        violations += groups::run(&programs, terms)?;
    }
    if let Some(span) = wanted.mix {
        violations += mixed(&programs, span, has_disks, wanted.seed)?;
    }
    for (seed, (fault, cycles)) in (wanted.seed..).zip(wanted.cycles) {
        if cycles > 0 {
            violations += campaign(&programs, fault, cycles, seed)?;
        }
    }
    if violations > 0 {
        bail!("{violations} images or answers cannot have come from what was written");
    }
    Ok(())
}

fn parse(words: &[String]) -> Result<Wanted> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis();
    let cycles = [(Fault::Kill, 100), (Fault::PowerCut, 20), (Fault::FullDisk, 6)];
    let mut wanted = Wanted { cycles, mix: None, groups: None, seed: u64::try_from(now)?, farseal: None };
    let (mut with_groups, mut nodes) = (false, None);
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if word == "--groups" {
            with_groups = true;
            continue;
        }
        let value = words.next().with_context(|| format!("{word}: what follows?"))?;
        if let Some((_, cycles)) = wanted.cycles.iter_mut().find(|(fault, _)| fault.option() == word) {
            *cycles = value.parse()?;
            continue;
        }
        match word.as_str() {
            "--minutes" => {
                wanted.mix = Some(Duration::from_secs_f64(value.parse::<f64>()? * 60.0));
                wanted.cycles.iter_mut().for_each(|(_, cycles)| *cycles = 0);
            }
            "--nodes" => nodes = Some(value.parse::<usize>()?),
            "--seed" => wanted.seed = value.parse()?,
            "--farseal" => wanted.farseal = Some(Path::new(value).canonicalize()?),
            _ => {
                let counts = Fault::ALL.map(|fault| format!("{} N", fault.option()));
                let counts = counts.join(", ");
                bail!("chaos takes --groups, --nodes N, --minutes N, {counts}, --seed N and --farseal FILE, not {word}")
            }
        }
    }
    if !with_groups && nodes.is_some() {
        bail!("--nodes goes with --groups");
    }
    if with_groups {
        let nodes = nodes.unwrap_or(GROUPS_NODES);
        if nodes < 2 {
            bail!("--nodes {nodes}: a group goes over at least two nodes");
        }
        wanted.groups = Some((nodes, wanted.mix.take().unwrap_or(GROUPS_SPAN)));
        wanted.cycles.iter_mut().for_each(|(_, cycles)| *cycles = 0);
    }
    Ok(wanted)
}

/// The same program again where its mounts are its own: they go when it goes, however it ends.
fn enter_namespace() -> Result<()> {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "--"]).arg(std::env::current_exe()?);
    command.args(std::env::args_os().skip(1)).env(INSIDE, "1");
    Err(command.exec()).context("unshare")
}

/// So many cycles of load, fault, restart and judgement. Says how many images were wrong.
fn campaign(programs: &Programs, fault: Fault, cycles: u64, seed: u64) -> Result<usize> {
    let stage = Stage::new("chaos")?;
    let disks = if fault.needs_disks() { disks(&stage)? } else { Vec::new() };
    let what = fault.name();
    let begun = Instant::now();
    let mut rig = Rig::new(&stage, &programs.farseal, &programs.plugins, seed, &[])?;
    let mut order = Random(seed.rotate_left(32));
    let result = (1..=cycles).try_for_each(|cycle| {
        let told = match (fault, disks.as_slice()) {
            (Fault::FullDisk, [main, remote]) => {
                if order.one_in(3) {
                    rig.fill_remote(remote).map(|()| "Remote".to_owned())
                } else {
                    rig.fill_main(main).map(|()| "Main".to_owned())
                }
            }
            _ if cycle % TAKEOVER_EVERY == 0 => rig.rehearse_takeover().map(|()| "a takeover by a copy".to_owned()),
            _ => {
                let hit = Hit::draw(&mut order);
                one_cycle(&mut rig, hit, Burst::Drawn, &disks).map(|()| format!("{hit:?}"))
            }
        };
        let told = told.with_context(|| format!("cycle {cycle}"))?;
        if cycle % 10 == 0 || fault == Fault::FullDisk {
            println!("{:7.1} s  {what} {cycle} of {cycles}: {told}", begun.elapsed().as_secs_f64());
        }
        anyhow::Ok(())
    });
    let result = result.and_then(|()| rig.take_over_for_good().context("the last takeover"));
    report(what, cycles, &mut rig.counts, begun.elapsed());
    tell_failure(&stage, &rig, result.is_err() || rig.counts.violations > 0);
    let violations = rig.counts.violations;
    drop(rig);
    drop(disks);
    result.map(|()| violations)
}

/// Every kind of fault, drawn from the seed, until the time is over. Says how many images were wrong.
fn mixed(programs: &Programs, span: Duration, has_disks: bool, seed: u64) -> Result<usize> {
    let stage = Stage::new("chaos")?;
    let disks = if has_disks { disks(&stage)? } else { Vec::new() };
    let listens = free_port()?;
    let proxy = Proxy::start(listens)?;
    let begun = Instant::now();
    let mut rig = Rig::over(&stage, [&programs.farseal, &programs.plugins], seed, &[], [proxy.port, listens])?;
    let order = Random(seed.rotate_left(32));
    let mut mix = Mix { rig: &mut rig, disks: &disks, proxy: &proxy, order, injected: BTreeMap::new() };
    let result = mix.run(span);
    let injected = std::mem::take(&mut mix.injected);
    let cycles = result.as_ref().copied().unwrap_or_default();
    let result = result.and_then(|_| rig.take_over_for_good().context("the last takeover"));
    report("mixed", cycles, &mut rig.counts, begun.elapsed());
    injected.iter().for_each(|(what, count)| println!("  {count:>6}  {what}"));
    tell_failure(&stage, &rig, result.is_err() || rig.counts.violations > 0);
    let violations = rig.counts.violations;
    drop(rig);
    drop(disks);
    result.map(|()| violations)
}

/// A file system for each site.
fn disks(stage: &Stage) -> Result<Vec<Disk>> {
    let make = |name: &&str| Disk::new(stage.dir.join(format!("{name}.xfs")), stage.dir.join(name));
    ["main", "remote"].iter().map(make).collect()
}

fn tell_failure(stage: &Stage, rig: &Rig, failed: bool) {
    if failed {
        stage.keep();
        for site in [&rig.main, &rig.remote] {
            println!("\nthe last lines of {}:", site.log().display());
            site.last_lines(LOG_LINES).iter().for_each(|line| println!("  {line}"));
        }
        println!("every file is left in {}", stage.dir.display());
    }
}

fn one_cycle(rig: &mut Rig, hit: Hit, burst: Burst, disks: &[Disk]) -> Result<()> {
    rig.begin_as(burst)?;
    rig.let_run()?;
    let hits = [hit.main(), hit.remote()];
    for (disk, _) in disks.iter().zip(hits).filter(|(_, hit)| *hit) {
        disk.cut()?;
    }
    rig.kill(hit)?;
    rig.end_load(if disks.is_empty() { MayFail::No } else { MayFail::Any })?;
    for (disk, _) in disks.iter().zip(hits).filter(|(_, hit)| *hit) {
        disk.restore()?;
    }
    rig.restart(hit)?;
    rig.judge_main(hit)
}

fn report(what: &str, cycles: u64, counts: &mut Counts, took: Duration) {
    println!("\n{what}: {cycles} cycles in {:.0} s", took.as_secs_f64());
    println!("  processes killed        {}", counts.kills);
    println!(
        "  images judged           {} ({} of them after takeovers, {} after synchronous answers)",
        counts.judgements, counts.takeovers, counts.sync_takeovers
    );
    let judged = counts.judged;
    println!(
        "  writes judged           {} ({} had to be there, {} unanswered, {} lost as they may be)",
        judged.writes, judged.due, judged.unanswered, judged.lost
    );
    println!("  flushes, reads judged   {}, {}", judged.flushes, judged.reads);
    println!("  keys                    {}", counts.rotations);
    println!("  restart to answering    {}", spread(&mut counts.starts));
    println!("  until nothing is owed   {}", spread(&mut counts.safe_again));
    println!("  room again to a flush   {}", spread(&mut counts.room_again));
    println!("  takeover and read-out   {}", spread(&mut counts.takeover_times));
    println!("  VIOLATIONS              {}", counts.violations);
}

fn spread(times: &mut [Duration]) -> String {
    times.sort();
    let at = |index: usize| times.get(index).map_or(0, Duration::as_millis);
    format!("median {} ms, longest {} ms", at(times.len() / 2), at(times.len().saturating_sub(1)))
}
