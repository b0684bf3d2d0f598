//! The remote site is taken over to: as copies of its nodes, while the true ones wait, and at the end for good.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::Value;

use super::super::group_rig::{GROUP, cut_in, site_of, wait_for_site};
use super::World;
use crate::site::{Site, wait_for};

/// How long nodes that were restarted may take to say what they hold.
const FOLLOW_MAX: Duration = Duration::from_secs(30);

/// What is known of the moment at which the remote nodes ended.
#[derive(Debug, Clone, Copy)]
struct Due {
    /// A cut that they offer at least.
    cut: u64,
    /// Links that were answered until then.
    written: u64,
    /// All of these must be there: nothing was under way.
    whole: bool,
}

impl World {
    /// All remote nodes are killed under load, now and then after all of main. Copies of them become a site of their
    /// own, take over and are judged; then the nodes themselves go on.
    pub(super) fn rehearse_takeover(&mut self) -> Result<()> {
        self.let_run(100, 1_500);
        self.listen()?;
        let nodes = self.nodes();
        let (mains, remotes): (Vec<usize>, Vec<usize>) = ((0..nodes).collect(), (nodes..2 * nodes).collect());
        let all_die = self.order.one_in(2);
        let due = Due { cut: self.told, written: self.chains.written(), whole: false };
        if all_die {
            self.kill(&mains)?;
        }
        self.kill(&remotes)?;
        let due = Due { written: self.chains.written(), ..due };
        self.take_copies_over(due)?;
        self.restart(&if all_die { (0..2 * nodes).collect() } else { remotes })?;
        self.wait_until_well()
    }

    /// As [`Self::rehearse_takeover`] while the group is paused: what is offered is the cut of the pause.
    pub(super) fn rehearse_paused_takeover(&mut self) -> Result<()> {
        let site = wait_for_site(&self.rig.mains[0], "the pause of all", |site| {
            site["groups"][0]["writes"]["settled"] == true
        })?;
        let cut = site["groups"][0]["writes"]["phase"]["cut"].as_u64().unwrap_or(0);
        let remotes: Vec<usize> = (self.nodes()..2 * self.nodes()).collect();
        self.kill(&remotes)?;
        let due = Due { cut, written: self.chains.written(), whole: false };
        let offered = self.take_copies_over(due)?;
        if offered != cut {
            let text = format!("the group was paused at cut {cut}, and a takeover opens cut {offered}");
            self.violation("a takeover while paused", &[text]);
        }
        self.counts.paused_takeovers += 1;
        self.restart(&remotes)
    }

    /// The true end: nothing is written any more, the group is paused, and the remote site has every link.
    pub(super) fn take_over_for_good(&mut self) -> Result<()> {
        let written = self.chains.stop()?;
        self.tell_group(&["pause", "--group", GROUP, "--wait"])?;
        self.listen()?;
        self.rig.kill_mains()?;
        self.counts.kills += self.nodes();
        let due = Due { cut: self.told, written, whole: true };
        let remotes = std::mem::take(&mut self.rig.remotes);
        let taken = self.take_over(&remotes, due, false, "the remote site");
        self.rig.remotes = remotes;
        taken.map(drop)
    }

    /// Says which cut was opened.
    fn take_copies_over(&mut self, due: Due) -> Result<u64> {
        let mut copies = self.rig.copy_remotes()?;
        copies.iter_mut().try_for_each(|copy| copy.start().map(drop))?;
        let interrupted = self.order.one_in(3);
        if interrupted {
            self.interrupt_takeover(&mut copies)?;
        }
        let offered = self.take_over(&copies, due, interrupted, "a copy of the remote site")?;
        for mut copy in copies {
            copy.kill()?;
            if self.counts.violations == 0 {
                std::fs::remove_dir_all(&copy.dir)?;
            }
        }
        Ok(offered)
    }

    /// Nodes die in the middle of a takeover: it ends all the same, or has not begun.
    fn interrupt_takeover(&mut self, copies: &mut [Site]) -> Result<()> {
        wait_for_site(&copies[0], "all copies", |site| all_there(site, copies.len()))?;
        let mut asked = copies[0].begin(&["takeover", "--group", GROUP, "--yes"])?;
        self.let_run(0, 400);
        let sure = self.draw_below(copies.len());
        for (at, copy) in copies.iter_mut().enumerate() {
            if at == sure || self.order.one_in(3) {
                copy.kill()?;
                self.counts.kills += 1;
            }
        }
        asked.kill()?;
        asked.wait()?;
        copies.iter_mut().filter(|copy| copy.pid().is_none()).try_for_each(|copy| copy.start().map(drop))?;
        self.counts.interrupted += 1;
        Ok(())
    }

    /// Takes over what these nodes hold, unless they have begun to, and judges what they show.
    fn take_over(&mut self, nodes: &[Site], due: Due, interrupted: bool, what: &str) -> Result<u64> {
        let site = wait_for_site(&nodes[0], "all nodes of the site", |site| all_there(site, nodes.len()))?;
        let group = &site["groups"][0];
        let begun = Instant::now();
        let mut opened = group["taking-over"].as_u64();
        if opened.is_none() && group["writes"].is_null() {
            opened = ask(&nodes[0], interrupted)?;
            let offered = group["keeps"]["cut"].as_u64();
            if opened.is_some() && offered > opened {
                self.violation(what, &[format!("cut {offered:?} was offered, and {opened:?} was opened")]);
            }
        }
        wait_for_site(&nodes[0], "the end of the takeover", |site| {
            let group = &site["groups"][0];
            group["taking-over"].is_null() && group["keeps"].is_null() && !group["writes"].is_null()
        })?;
        let images = self.rig.images(nodes)?;
        self.counts.takeover_times.push(begun.elapsed());
        self.judge(nodes, &images, due, opened, what)?;
        Ok(opened.unwrap_or(due.cut))
    }

    fn judge(&mut self, nodes: &[Site], images: &[Vec<u8>], due: Due, offered: Option<u64>, what: &str) -> Result<()> {
        let judged = self.chains.judge(images);
        let mut wrong = judged.violations;
        if let Some(offered) = offered.filter(|offered| *offered < due.cut) {
            wrong.push(format!("main was told that the copies hold cut {}, and they offer {offered}", due.cut));
        }
        if judged.recovered == 0 {
            wrong.push("not one link was recovered".into());
        }
        if due.whole && judged.recovered < due.written {
            wrong.push(format!("{} links were answered, and {} are there", due.written, judged.recovered));
        }
        if let (Some(named), Some(offered)) = (&self.named, offered) {
            let known = site_of(&nodes[0])?["groups"][0]["named"].to_string();
            if named.cut <= offered && !known.contains(&named.name) {
                wrong
                    .push(format!("cut {} lies before {offered}, and {} is not known: {known}", named.cut, named.name));
            }
        }
        self.counts.takeovers += 1;
        self.counts.links_recovered += judged.recovered;
        self.counts.links_lost += due.written.saturating_sub(judged.recovered);
        if !wrong.is_empty() {
            self.violation(what, &wrong);
        }
        Ok(())
    }
}

/// Says which cut is opened. After an interruption it may have been decided before, which a status that is a moment old
/// does not show; by which cut is not said then. Nor does it show that a node has restarted since: that is waited for.
fn ask(lead: &Site, interrupted: bool) -> Result<Option<u64>> {
    let says = |error: &anyhow::Error, words: [&str; 2]| {
        interrupted && words.iter().any(|words| error.to_string().contains(words))
    };
    wait_for("a takeover of all copies", FOLLOW_MAX, || match lead.farseal(&["takeover", "--group", GROUP, "--yes"]) {
        Ok(said) => Ok(Some(Some(cut_in(&said)?))),
        Err(error) if says(&error, ["is under way", "initiators write here to"]) => Ok(Some(None)),
        Err(error) if says(&error, ["is not known yet", "cannot be reached"]) => Ok(None),
        Err(error) => Err(error),
    })
}

fn all_there(site: &Value, count: usize) -> bool {
    let pairs = site["groups"][0]["pairs"].as_array();
    pairs.is_some_and(|pairs| pairs.len() == count && pairs.iter().all(|pair| pair["there"] == true))
}
