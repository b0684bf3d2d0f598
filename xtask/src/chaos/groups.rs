//! `cargo xtask chaos --groups`: two sites of several nodes each, one group over all of them, and writes that depend on each
//! other across the nodes, whichever of them die; a copy that holds one without those before it is a violation.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::Value;

use super::Programs;
use super::chains::Chains;
use super::disk::Disk;
use super::group_rig::{GROUP, Rig, Wire, Wires, site_of, wait_for_site};
use super::history::Random;
use super::proxy::Proxy;
use crate::site::{Site, Stage, free_port, wait_for};

mod blow;
mod report;
mod takeover;

use report::Counts;

/// Cycles between two rehearsed takeovers.
const TAKEOVER_EVERY: u64 = 4;
/// Lines of each log that a failure shows.
const LOG_LINES: usize = 12;
/// How long a group may take to make cuts again when nothing ails it any more.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two words on how far it is.
const TELL_EVERY: Duration = Duration::from_secs(30);

/// What is asked of a run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    /// Of each site.
    pub(super) nodes: usize,
    pub(super) span: Duration,
    pub(super) has_disks: bool,
    pub(super) seed: u64,
}

/// Two sites under load. The nodes of main come first, then those of the remote, each in the order of their pairs.
struct World {
    rig: Rig,
    chains: Chains,
    lines: Lines,
    /// One for each node, or none at all. Not one for each site: a power cut that takes all nodes of a site back to one
    /// moment is the easy case. It is one node that goes back, and others that do not, of which a group can go wrong.
    disks: Vec<Disk>,
    order: Random,
    counts: Counts,
    /// The greatest cut of which main's lead has said that the copies hold it: they may never offer less.
    told: u64,
    named: Option<Named>,
}

/// Everything that nodes say to each other goes through here.
struct Lines {
    links: Vec<Proxy>,
    sites: Vec<Proxy>,
}

/// The newest cut that was given a name.
#[derive(Debug, Clone)]
struct Named {
    name: String,
    cut: u64,
}

/// Until the time is over. Says how many violations there were.
pub(super) fn run(programs: &Programs, terms: Terms) -> Result<usize> {
    let stage = Stage::new("chaos")?;
    let begun = Instant::now();
    let mut world = World::new(&stage, programs, terms)?;
    println!("{:7.1} s  {} nodes a site write and make cuts", begun.elapsed().as_secs_f64(), terms.nodes);
    let result = world.cycles(terms.span);
    let result = result.and_then(|()| world.take_over_for_good().context("the last takeover"));
    world.counts.links_written = world.chains.written();
    world.counts.print(begun.elapsed(), terms.nodes);
    let violations = world.counts.violations;
    if result.is_err() || violations > 0 {
        stage.keep();
        world.tell_logs();
        println!("every file is left in {}", stage.dir.display());
        if terms.has_disks {
            println!("those of a node are in its .xfs file there: mount -o loop");
        }
    }
    drop(world);
    result.map(|()| violations)
}

impl World {
    fn new(stage: &std::rc::Rc<Stage>, programs: &Programs, terms: Terms) -> Result<Self> {
        let names = ["main", "remote"].iter().flat_map(|side| (0..terms.nodes).map(move |at| format!("{side}-{at}")));
        let disk = |name: String| Disk::new(stage.dir.join(format!("{name}.xfs")), stage.dir.join(name));
        let disks = if terms.has_disks { names.map(disk).collect::<Result<_>>()? } else { Vec::new() };
        let (lines, wires) = Lines::lay(terms.nodes)?;
        let mut rig = Rig::new(stage, [&programs.farseal, &programs.plugins], wires, 1)?;
        rig.start()?;
        rig.wait_for_copied_cuts(1)?;
        // Durable, as a link that its own node lost would be missed at main, too.
        let chains = Chains::start(&rig.exports(), true)?;
        let (order, counts) = (Random(terms.seed), Counts::default());
        Ok(Self { rig, chains, lines, disks, order, counts, told: 0, named: None })
    }

    fn cycles(&mut self, span: Duration) -> Result<()> {
        let (begun, mut told) = (Instant::now(), Instant::now());
        while begun.elapsed() < span {
            self.counts.cycles += 1;
            let cycle = self.counts.cycles;
            let what = if cycle.is_multiple_of(TAKEOVER_EVERY) {
                self.rehearse_takeover().with_context(|| format!("cycle {cycle}: a takeover by copies"))?;
                "a takeover by copies".to_owned()
            } else {
                let blow = self.draw();
                let lossy = self.chains.lossy();
                self.strike(&blow).with_context(|| format!("cycle {cycle}: {blow:?}"))?;
                let healed = Instant::now();
                self.wait_until_well().with_context(|| format!("cycle {cycle}, after {blow:?}"))?;
                self.counts.well_again.push(healed.elapsed());
                self.counts.note_loss(&blow, self.chains.lossy() - lossy);
                format!("{blow:?}")
            };
            if told.elapsed() > TELL_EVERY {
                told = Instant::now();
                println!("{:7.1} s  {cycle} cycles, last {what}", begun.elapsed().as_secs_f64());
            }
        }
        Ok(())
    }

    /// Links are answered, and a cut reaches the copies that no copy had before.
    fn wait_until_well(&mut self) -> Result<()> {
        let (written, before) = (self.chains.written(), self.told);
        wait_for("a link that is answered", PATIENCE, || Ok((self.chains.written() > written).then_some(())))?;
        let lead = &self.rig.mains[0];
        let copied = |site: &Value| site["groups"][0]["writes"]["copied"].as_u64().unwrap_or(0);
        wait_for_site(lead, "a cut that the copies hold", |site| copied(site) > before)?;
        self.listen()
    }

    /// Takes down what main's lead says of the group.
    fn listen(&mut self) -> Result<()> {
        let group = self.rig.group()?;
        self.counts.cuts(&group["writes"]);
        self.told = self.told.max(group["writes"]["copied"].as_u64().unwrap_or(0));
        Ok(())
    }

    /// What is told to the group, again as long as some node is only late.
    fn tell_group(&self, words: &[&str]) -> Result<String> {
        let late = ["did not open the cut in time", "cannot be reached", "not copied in order now"];
        wait_for(&format!("farseal {}", words.join(" ")), PATIENCE, || match self.rig.mains[0].farseal(words) {
            Ok(said) => Ok(Some(said)),
            Err(error) if late.iter().any(|words| error.to_string().contains(words)) => Ok(None),
            Err(error) => Err(error),
        })
    }

    fn nodes(&self) -> usize {
        self.rig.mains.len()
    }

    fn node(&mut self, at: usize) -> &mut Site {
        let nodes = self.nodes();
        if at < nodes { &mut self.rig.mains[at] } else { &mut self.rig.remotes[at - nodes] }
    }

    fn violation(&mut self, what: &str, lines: &[String]) {
        self.counts.violations += 1;
        println!("VIOLATION ({what}):");
        lines.iter().take(8).for_each(|line| println!("  {line}"));
    }

    fn tell_logs(&self) {
        for site in self.rig.mains.iter().chain(&self.rig.remotes) {
            println!("\nthe last lines of {}:", site.log().display());
            site.last_lines(LOG_LINES).iter().for_each(|line| println!("  {line}"));
        }
        match site_of(&self.rig.mains[0]) {
            Ok(site) => println!("\nmain's lead says {site:#}"),
            Err(error) => println!("\nmain's lead says nothing: {error:#}"),
        }
    }
}

impl Lines {
    fn lay(nodes: usize) -> Result<(Self, Wires)> {
        let lay = || -> Result<(Proxy, Wire)> {
            let listens = free_port()?;
            let proxy = Proxy::start(listens)?;
            let wire = Wire { connects: proxy.port, listens };
            Ok((proxy, wire))
        };
        let (links, link_wires) = (0..nodes).map(|_| lay()).collect::<Result<(Vec<_>, Vec<_>)>>()?;
        let ((main, at_main), (remote, at_remote)) = (lay()?, lay()?);
        Ok((
            Self { links, sites: vec![main, remote] },
            Wires { links: link_wires, sites: [at_main, at_remote], back: Vec::new() },
        ))
    }
}
