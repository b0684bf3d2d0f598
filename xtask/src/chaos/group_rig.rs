//! Two sites of one or more nodes each, with one group over all their pairs.

use std::fs;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::chains::Export;
use crate::nbd_client::Client;
use crate::site::{PairTerms, Site, Stage, free_port, wait_for};

/// The group that every pair is in unless told otherwise.
pub(crate) const GROUP: &str = "default";
const PATIENCE: Duration = Duration::from_secs(90);
const MEBIBYTES: usize = 1;

/// Ports of a line: where one side connects and where the other listens. Somebody else may carry what is between.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wire {
    pub(crate) connects: u16,
    pub(crate) listens: u16,
}

/// Every line of two sites.
#[derive(Debug, Clone)]
pub(crate) struct Wires {
    /// From each main node to its remote node.
    pub(crate) links: Vec<Wire>,
    /// From the members of a site to its lead: at main, at the remote.
    pub(crate) sites: [Wire; 2],
    /// Where each main node listens when it keeps a copy; empty where sides do not change.
    pub(crate) back: Vec<u16>,
}

/// The first node of a site leads it.
#[derive(Debug)]
pub(crate) struct Rig {
    pub(crate) mains: Vec<Site>,
    pub(crate) remotes: Vec<Site>,
    /// The node that has each pair.
    lanes: Vec<usize>,
    wires: Wires,
    copies: u64,
}

impl Rig {
    /// A main node and a remote node for each link, with so many pairs each.
    pub(crate) fn new(stage: &Rc<Stage>, [binary, plugins]: [&Path; 2], wires: Wires, pairs: usize) -> Result<Self> {
        let nodes = wires.links.len();
        let site = |name: &str| -> Result<Vec<Site>> {
            (0..nodes).map(|at| Site::init(stage, binary, plugins, &format!("{name}-{at}"))).collect()
        };
        let mut rig = Self { mains: site("main")?, remotes: site("remote")?, lanes: Vec::new(), wires, copies: 0 };
        for node in 0..nodes {
            for _ in 0..pairs {
                rig.pair(node)?;
            }
        }
        if nodes > 1 {
            let [main, remote] = rig.wires.sites;
            interconnect(&rig.mains, main)?;
            interconnect(&rig.remotes, remote)?;
        }
        Ok(rig)
    }

    fn pair(&mut self, node: usize) -> Result<()> {
        let (main, remote) = (&self.mains[node], &self.remotes[node]);
        let name = format!("lane-{}", self.lanes.len());
        let volume = main.dir.join(format!("{name}.img"));
        let listen = self.wires.back.get(node).copied().map(address);
        let options: Vec<&str> = listen.iter().flat_map(|listen| ["--listen", listen]).collect();
        let terms = PairTerms { name: &name, volume: &volume, mebibytes: MEBIBYTES as u64, options: &options };
        let Wire { connects, listens } = self.wires.links[node];
        main.pair_over(remote, &terms, connects, listens)?;
        self.lanes.push(node);
        Ok(())
    }

    pub(crate) fn start(&mut self) -> Result<()> {
        self.remotes.iter_mut().chain(&mut self.mains).try_for_each(|site| site.start().map(drop))
    }

    pub(crate) fn kill_mains(&mut self) -> Result<()> {
        self.mains.iter_mut().try_for_each(Site::kill)
    }

    /// Where initiators write, whichever site does.
    pub(crate) fn exports(&self) -> Vec<Export> {
        let sides = if self.wires.back.is_empty() { vec![&self.mains] } else { vec![&self.mains, &self.remotes] };
        let export = |(lane, node): (usize, &usize)| Export {
            sockets: sides.iter().map(|side| side[*node].socket()).collect(),
            name: format!("lane-{lane}"),
        };
        self.lanes.iter().enumerate().map(export).collect()
    }

    /// What main's lead says of the group.
    pub(crate) fn group(&self) -> Result<Value> {
        Ok(site_of(&self.mains[0])?["groups"][0].clone())
    }

    /// So many more cuts reach the copies.
    pub(crate) fn wait_for_copied_cuts(&self, count: u64) -> Result<()> {
        let copied = |site: &Value| site["groups"][0]["writes"]["copied"].as_u64().unwrap_or(0);
        let before = copied(&site_of(&self.mains[0])?);
        let what = "cuts that the copies hold";
        wait_for_site(&self.mains[0], what, |site| copied(site) >= before + count).map(drop)
    }

    /// A site of its own with everything that the remote nodes have on disk: they must not run. It listens elsewhere.
    pub(crate) fn copy_remotes(&mut self) -> Result<Vec<Site>> {
        self.copies += 1;
        let [_, site] = self.wires.sites;
        let site_port = free_port()?;
        let mut copies = Vec::new();
        for (remote, link) in self.remotes.iter().zip(&self.wires.links) {
            let copy = remote.copy(&format!("copy{}-{}", self.copies, remote.name))?;
            let mut text = fs::read_to_string(copy.config())?;
            let link_port = free_port()?;
            for (old, new) in [(link.listens, link_port), (site.listens, site_port), (site.connects, site_port)] {
                text = text.replace(&address(old), &address(new));
            }
            fs::write(copy.config(), text)?;
            copies.push(copy);
        }
        Ok(copies)
    }

    /// What the volumes hold after a takeover by the remote nodes or by copies of them.
    pub(crate) fn images(&self, nodes: &[Site]) -> Result<Vec<Vec<u8>>> {
        let read = |(lane, node): (usize, &usize)| {
            let (socket, name) = (nodes[*node].socket(), format!("lane-{lane}"));
            let mut client =
                wait_for("an export that was taken over", PATIENCE, || Ok(Client::connect(&socket, &name).ok()))?;
            let mut image = vec![0; MEBIBYTES << 20];
            client.read(0, &mut image)?;
            Ok(image)
        };
        self.lanes.iter().enumerate().map(read).collect()
    }
}

/// What a node knows of its site.
pub(crate) fn site_of(node: &Site) -> Result<Value> {
    let status: Value = serde_json::from_str(&node.farseal(&["status", "--json"])?)?;
    Ok(status["site"].clone())
}

/// Asks a node for its site until it is as wanted.
pub(crate) fn wait_for_site(node: &Site, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
    let found = wait_for(what, PATIENCE, || Ok(Some(site_of(node)?).filter(|site| wanted(site))));
    match found {
        Ok(site) => Ok(site),
        Err(error) => {
            let last = site_of(node).map_or_else(|error| format!("{error:#}"), |site| format!("{site:#}"));
            bail!("{}: {error:#}\n{last}\n{}", node.name, node.last_lines(30).join("\n"))
        }
    }
}

/// The cut that the answer to a takeover of the group names.
pub(crate) fn cut_in(said: &str) -> Result<u64> {
    let number = said.split("at cut ").nth(1).and_then(|rest| rest.split_whitespace().next());
    number.and_then(|number| number.parse().ok()).with_context(|| format!("no cut is named: {said}"))
}

fn address(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

/// The first leads, the others connect to it.
fn interconnect(nodes: &[Site], wire: Wire) -> Result<()> {
    let (lead, members) = nodes.split_first().context("a site without nodes")?;
    let (connects, listens) = (address(wire.connects), address(wire.listens));
    let names: Vec<String> = members.iter().map(|member| format!("{:?}", member.name)).collect();
    lead.edit("#lead = true", &format!("lead = true\nlisten = \"{listens}\"\nmembers = [{}]", names.join(", ")))?;
    for member in members {
        member.edit("#lead = true", &format!("lead = {:?}", lead.name))?;
        let card = fs::read_to_string(lead.state().join("card.toml"))?;
        let peer = format!("\n[[peer]]\nname = {:?}\naddresses = [{connects:?}]\ncard = '''\n{card}'''\n", lead.name);
        append(member, &peer)?;
        let card = fs::read_to_string(member.state().join("card.toml"))?;
        append(lead, &format!("\n[[peer]]\nname = {:?}\ncard = '''\n{card}'''\n", member.name))?;
    }
    Ok(())
}

fn append(site: &Site, text: &str) -> Result<()> {
    let mut all = fs::read_to_string(site.config())?;
    all.push_str(text);
    Ok(fs::write(site.config(), all)?)
}
