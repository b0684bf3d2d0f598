//! Two sites of one or more nodes each, with one group over all their pairs.

use std::fs;
use std::rc::Rc;
use std::time::Duration;

use serde_json::Value;

use crate::built::{farseal, plugins};
use crate::chains::Export;
use crate::nbd_client::Client;
use crate::site::{Site, Stage, free_port, wait_for};

const PATIENCE: Duration = Duration::from_secs(90);
const MEBIBYTES: usize = 1;

/// `nodes` nodes a site with `pairs` pairs each; the first node of a site leads it.
#[derive(Debug)]
pub(crate) struct Rig {
    mains: Vec<Site>,
    remotes: Vec<Site>,
    /// The node that has each pair.
    lanes: Vec<usize>,
    _stage: Rc<Stage>,
}

impl Rig {
    pub(crate) fn new(purpose: &str, nodes: usize, pairs: usize) -> Self {
        let stage = Stage::new(purpose).unwrap();
        let site = |name: &str| -> Vec<Site> {
            let make = |at| Site::init(&stage, farseal(), plugins(), &format!("{name}-{at}")).unwrap();
            (0..nodes).map(make).collect()
        };
        let (mains, remotes) = (site("main"), site("remote"));
        let mut rig = Self { mains, remotes, lanes: Vec::new(), _stage: stage };
        for node in 0..nodes {
            let port = free_port().unwrap();
            for _ in 0..pairs {
                rig.pair(node, port);
            }
        }
        if nodes > 1 {
            interconnect(&rig.mains);
            interconnect(&rig.remotes);
        }
        rig
    }

    fn pair(&mut self, node: usize, port: u16) {
        let (main, remote) = (&self.mains[node], &self.remotes[node]);
        let name = format!("lane-{}", self.lanes.len());
        let (card, invitation) = (remote.dir.join("card"), main.dir.join(format!("{name}.invitation")));
        fs::write(&card, remote.farseal(&["pair", "card"]).unwrap()).unwrap();
        let (size, address) = (format!("{MEBIBYTES}MiB"), format!("127.0.0.1:{port}"));
        let volume = main.dir.join(format!("{name}.img"));
        let paths = [&volume, &card, &invitation].map(|path| path.display().to_string());
        let said = main
            .farseal(&[
                "pair",
                "create",
                &name,
                "--volume",
                &paths[0],
                "--size",
                &size,
                "--peer-card",
                &paths[1],
                "--peer-address",
                &address,
                "--invitation",
                &paths[2],
            ])
            .unwrap();
        let fingerprint = said.lines().find_map(|line| line.rsplit_once("fingerprint: ")).unwrap().1;
        let words = ["pair", "accept", &paths[2], "--listen", &address, "--fingerprint", fingerprint];
        remote.farseal(&words).unwrap();
        self.lanes.push(node);
    }

    pub(crate) fn main(&self, node: usize) -> &Site {
        &self.mains[node]
    }

    pub(crate) fn remote(&self, node: usize) -> &Site {
        &self.remotes[node]
    }

    pub(crate) fn start(&mut self) {
        for site in self.remotes.iter_mut().chain(&mut self.mains) {
            site.start().unwrap();
        }
    }

    pub(crate) fn kill_mains(&mut self) {
        self.mains.iter_mut().for_each(|main| main.kill().unwrap());
    }

    pub(crate) fn kill_main(&mut self, node: usize) {
        self.mains[node].kill().unwrap();
    }

    pub(crate) fn kill_remote(&mut self, node: usize) {
        self.remotes[node].kill().unwrap();
    }

    pub(crate) fn start_remote(&mut self, node: usize) {
        self.remotes[node].start().unwrap();
    }

    pub(crate) fn restart_main(&mut self, node: usize) {
        self.mains[node].kill().unwrap();
        self.mains[node].start().unwrap();
    }

    pub(crate) fn exports(&self) -> Vec<Export> {
        let export = |(lane, node): (usize, &usize)| (self.mains[*node].socket(), format!("lane-{lane}"));
        self.lanes.iter().enumerate().map(export).collect()
    }

    /// What a node knows of its site.
    pub(crate) fn site_of(&self, node: &Site) -> Value {
        let status: Value = serde_json::from_str(&node.farseal(&["status", "--json"]).unwrap()).unwrap();
        status["site"].clone()
    }

    pub(crate) fn wait_for_site(&self, node: &Site, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let found = wait_for(what, PATIENCE, || Ok(Some(self.site_of(node)).filter(|site| wanted(site))));
        found.unwrap_or_else(|error| {
            panic!("{error:#}\n{:#}\n{}", self.site_of(node), node.last_lines(30).join("\n"));
        })
    }

    /// So many more cuts reach the copies.
    pub(crate) fn wait_for_copied_cuts(&self, count: u64) {
        let copied = |site: &Value| site["groups"][0]["writes"]["copied"].as_u64().unwrap_or(0);
        let before = copied(&self.site_of(self.main(0)));
        self.wait_for_site(self.main(0), "cuts that the copies hold", |site| copied(site) >= before + count);
    }

    /// What the volumes hold after a takeover.
    pub(crate) fn images(&self) -> Vec<Vec<u8>> {
        let read = |(lane, node): (usize, &usize)| {
            let mut client = Client::connect(&self.remotes[*node].socket(), &format!("lane-{lane}")).unwrap();
            let mut image = vec![0; MEBIBYTES << 20];
            client.read(0, &mut image).unwrap();
            image
        };
        self.lanes.iter().enumerate().map(read).collect()
    }
}

/// The first leads, the others connect to it.
fn interconnect(nodes: &[Site]) {
    let (lead, members) = nodes.split_first().unwrap();
    let address = format!("127.0.0.1:{}", free_port().unwrap());
    let names: Vec<String> = members.iter().map(|member| format!("{:?}", member.name)).collect();
    lead.edit("#lead = true", &format!("lead = true\nlisten = \"{address}\"\nmembers = [{}]", names.join(", ")))
        .unwrap();
    for member in members {
        member.edit("#lead = true", &format!("lead = {:?}", lead.name)).unwrap();
        let card = fs::read_to_string(lead.state().join("card.toml")).unwrap();
        let peer = format!("\n[[peer]]\nname = {:?}\naddresses = [{address:?}]\ncard = '''\n{}'''\n", lead.name, card);
        append(member, &peer);
        let card = fs::read_to_string(member.state().join("card.toml")).unwrap();
        append(lead, &format!("\n[[peer]]\nname = {:?}\ncard = '''\n{card}'''\n", member.name));
    }
}

fn append(site: &Site, text: &str) {
    let mut all = fs::read_to_string(site.config()).unwrap();
    all.push_str(text);
    fs::write(site.config(), all).unwrap();
}
