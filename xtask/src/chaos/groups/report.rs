//! What a run with groups did and saw, and the table at its end.

use std::time::Duration;

use serde_json::Value;

use super::super::spread;
use super::blow::Blow;

/// What was done and seen.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) cycles: u64,
    pub(super) kills: usize,
    pub(super) power_cuts: usize,
    lossy_power_cuts: usize,
    pub(super) disks_cut: usize,
    pub(super) frozen: usize,
    pub(super) troubles: usize,
    pub(super) pauses: usize,
    pub(super) named: usize,
    made: Tally,
    given_up: Tally,
    /// The number of the last cut that the copies held.
    copied: u64,
    pub(super) takeovers: usize,
    pub(super) paused_takeovers: usize,
    pub(super) interrupted: usize,
    pub(super) links_written: u64,
    pub(super) links_recovered: u64,
    pub(super) links_lost: u64,
    pub(super) violations: usize,
    pub(super) starts: Vec<Duration>,
    /// From the end of a fault to a cut that the copies hold.
    pub(super) well_again: Vec<Duration>,
    /// From the command to every byte of every volume.
    pub(super) takeover_times: Vec<Duration>,
}

/// A count that begins anew with its process.
#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    seen: u64,
    total: u64,
}

impl Tally {
    fn see(&mut self, now: u64) {
        self.total += if now >= self.seen { now - self.seen } else { now };
        self.seen = now;
    }
}

impl Counts {
    /// As main's lead counts the cuts.
    pub(super) fn cuts(&mut self, writes: &Value) {
        self.made.see(writes["made"].as_u64().unwrap_or(0));
        self.given_up.see(writes["abandoned"].as_u64().unwrap_or(0));
        self.copied = self.copied.max(writes["copied"].as_u64().unwrap_or(0));
    }

    /// So many volumes were found to lack something that had been answered without a flush.
    pub(super) fn note_loss(&mut self, blow: &Blow, volumes: u64) {
        match blow {
            Blow::PowerCut(_) => self.lossy_power_cuts += usize::from(volumes > 0),
            Blow::Kill(_)
            | Blow::Freeze(_)
            | Blow::Link(..)
            | Blow::Interconnect(..)
            | Blow::Pause(_)
            | Blow::NamedCut(_) => {}
        }
    }

    pub(super) fn print(&mut self, took: Duration, nodes: usize) {
        println!("\ngroups: {} cycles in {:.0} s, {nodes} nodes a site", self.cycles, took.as_secs_f64());
        println!("  processes killed        {}", self.kills);
        println!(
            "  power cuts              {} of {} disks ({} of them lossy)",
            self.power_cuts, self.disks_cut, self.lossy_power_cuts
        );
        println!("  nodes frozen            {}", self.frozen);
        println!("  lines troubled          {}", self.troubles);
        println!("  pauses, named cuts      {}, {}", self.pauses, self.named);
        println!(
            "  cuts                    {} made, {} given up, copied to number {}",
            self.made.total, self.given_up.total, self.copied
        );
        println!(
            "  takeovers judged        {} ({} of them of a paused group, {} with nodes that died in the middle)",
            self.takeovers, self.paused_takeovers, self.interrupted
        );
        println!(
            "  links                   {} written; over all takeovers {} recovered, {} lost as they may be",
            self.links_written, self.links_recovered, self.links_lost
        );
        println!("  restart to answering    {}", spread(&mut self.starts));
        println!("  until a cut is copied   {}", spread(&mut self.well_again));
        println!("  takeover and read-out   {}", spread(&mut self.takeover_times));
        println!("  VIOLATIONS              {}", self.violations);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_that_begins_anew_goes_on() {
        let mut tally = Tally::default();
        [3, 5, 0, 2].into_iter().for_each(|now| tally.see(now));
        assert_eq!(tally.total, 7);
    }
}
