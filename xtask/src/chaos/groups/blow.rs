//! What befalls the nodes of two sites in one cycle, as the seed draws it.

use std::time::Duration;

use anyhow::{Context, Result};

use super::super::mix::signal;
use super::super::proxy::Trouble;
use super::{GROUP, Named, World};

/// One cycle's fault. Nodes are numbers, those of main first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Blow {
    Kill(Vec<usize>),
    PowerCut(Vec<usize>),
    Freeze(Vec<usize>),
    /// Between a main node and its remote node.
    Link(usize, Trouble),
    /// Between the members of a site and its lead: of main, or of the remote.
    Interconnect(usize, Trouble),
    /// The group is paused and goes on; a node may die in between.
    Pause(Option<usize>),
    /// A cut with a name; whoever is among these dies the moment it is made.
    NamedCut(Vec<usize>),
}

impl World {
    pub(super) fn draw(&mut self) -> Blow {
        let struck = self.draw_nodes();
        let one = self.draw_below(2 * self.nodes());
        match self.order.below(100) {
            0..30 => Blow::Kill(struck),
            30..58 if !self.disks.is_empty() => Blow::PowerCut(struck),
            30..58 => Blow::Kill(struck),
            58..66 => Blow::Freeze(struck),
            66..73 => Blow::Link(self.draw_below(self.nodes()), Trouble::draw(&mut self.order)),
            73..80 => Blow::Interconnect(self.draw_below(2), Trouble::draw(&mut self.order)),
            80..92 => Blow::Pause(self.order.one_in(2).then_some(one)),
            _ => Blow::NamedCut(if self.order.one_in(2) { struck } else { Vec::new() }),
        }
    }

    /// A member, a lead, some of both sites, a whole site, everything.
    fn draw_nodes(&mut self) -> Vec<usize> {
        let nodes = self.nodes();
        match self.order.below(10) {
            0..3 => vec![self.draw_below(nodes)],
            3 => vec![0],
            4 => vec![nodes],
            5 => vec![nodes + self.draw_below(nodes)],
            6 | 7 => {
                let sure = self.draw_below(2 * nodes);
                (0..2 * nodes).filter(|at| *at == sure || self.order.one_in(3)).collect()
            }
            8 => (0..nodes).collect(),
            _ => (0..2 * nodes).collect(),
        }
    }

    pub(super) fn draw_below(&mut self, limit: usize) -> usize {
        let drawn = self.order.below(u64::try_from(limit).unwrap_or(u64::MAX));
        usize::try_from(drawn).unwrap_or(0)
    }

    pub(super) fn strike(&mut self, blow: &Blow) -> Result<()> {
        self.let_run(50, 800);
        self.listen()?;
        match blow {
            Blow::Kill(struck) => {
                self.kill(struck)?;
                self.restart(struck)
            }
            Blow::PowerCut(struck) => self.cut_power(struck),
            Blow::Freeze(struck) => self.freeze(struck),
            Blow::Link(node, trouble) => {
                self.lines.links[*node].set(*trouble);
                self.let_run(100, 3_000);
                self.lines.links[*node].set(Trouble::None);
                self.counts.troubles += 1;
                Ok(())
            }
            Blow::Interconnect(site, trouble) => {
                self.lines.sites[*site].set(*trouble);
                self.let_run(100, 3_000);
                self.lines.sites[*site].set(Trouble::None);
                self.counts.troubles += 1;
                Ok(())
            }
            Blow::Pause(dies) => self.pause(*dies),
            Blow::NamedCut(struck) => self.name_a_cut(struck),
        }
    }

    /// A moment of the seed's choice, in milliseconds.
    pub(super) fn let_run(&mut self, least: u64, most: u64) {
        std::thread::sleep(Duration::from_millis(least + self.order.below(most - least)));
    }

    pub(super) fn kill(&mut self, struck: &[usize]) -> Result<()> {
        for at in struck {
            self.node(*at).kill()?;
            self.counts.kills += 1;
        }
        Ok(())
    }

    /// In an order of the seed's choice, now and then with one more kill in the middle of a recovery.
    pub(super) fn restart(&mut self, struck: &[usize]) -> Result<()> {
        let mut waiting = struck.to_vec();
        while !waiting.is_empty() {
            let next = self.draw_below(waiting.len());
            let at = waiting.swap_remove(next);
            let took = self.node(at).start()?;
            self.counts.starts.push(took);
            if self.order.one_in(6) {
                self.let_run(0, 60);
                self.kill(&[at])?;
                let took = self.node(at).start()?;
                self.counts.starts.push(took);
            }
        }
        Ok(())
    }

    /// Nothing of these nodes is written from one moment on, though they run a little longer.
    fn cut_power(&mut self, struck: &[usize]) -> Result<()> {
        struck.iter().try_for_each(|at| self.disks[*at].cut())?;
        self.kill(struck)?;
        struck.iter().try_for_each(|at| self.disks[*at].restore())?;
        self.counts.power_cuts += 1;
        self.counts.disks_cut += struck.len();
        self.restart(struck)
    }

    /// SIGSTOP for longer than a cut is waited for, now and then for longer than a link is.
    fn freeze(&mut self, struck: &[usize]) -> Result<()> {
        let pids: Vec<u32> = struck.iter().filter_map(|at| self.node(*at).pid()).collect();
        signal("STOP", &pids)?;
        if self.order.one_in(8) {
            self.let_run(8_000, 15_000)
        } else {
            self.let_run(50, 1_500)
        }
        signal("CONT", &pids)?;
        self.counts.frozen += pids.len();
        Ok(())
    }

    fn pause(&mut self, dies: Option<usize>) -> Result<()> {
        self.tell_group(&["pause", "--group", GROUP, "--wait"])?;
        self.counts.pauses += 1;
        self.listen()?;
        self.let_run(50, 500);
        if let Some(at) = dies {
            self.kill(&[at])?;
            self.restart(&[at])?;
        }
        if self.order.one_in(2) {
            self.rehearse_paused_takeover()?;
        }
        self.tell_group(&["resume", "--group", GROUP]).map(drop)
    }

    fn name_a_cut(&mut self, struck: &[usize]) -> Result<()> {
        let name = format!("cut-of-cycle-{}", self.counts.cycles);
        let said = self.tell_group(&["cut", GROUP, &name])?;
        self.kill(struck)?;
        self.counts.named += 1;
        let number = said.strip_prefix("cut ").and_then(|rest| rest.split_whitespace().next());
        let cut = number.and_then(|number| number.parse().ok());
        let cut = cut.with_context(|| format!("no cut is named: {said}"))?;
        // The name travels with the confirmation, which a node that died at once may not have sent.
        if struck.is_empty() {
            self.named = Some(Named { name, cut });
        }
        self.restart(struck)
    }
}
