//! Every kind of fault in one run, as the seed draws them: kills, power cuts, frozen processes, a troubled link,
//! failing calls, changes of mode and key and pauses in the middle; and every image judged.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::disk::Disk;
use super::history::Random;
use super::inject::{Failing, Injection, possible};
use super::proxy::{Proxy, Trouble};
use super::rig::{Burst, Hit, MayFail, Rig};

/// What befalls the sites in one cycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blow {
    Kill(Hit),
    PowerCut(Hit, Burst),
    Freeze(Hit),
    Link,
    Call(Hit),
    Pause,
    Takeover,
    Proof,
}

/// What a run may use, and what it has done so far.
pub(super) struct Mix<'a> {
    pub(super) rig: &'a mut Rig,
    pub(super) disks: &'a [Disk],
    pub(super) proxy: &'a Proxy,
    pub(super) order: Random,
    pub(super) injected: BTreeMap<String, u64>,
}

impl Mix<'_> {
    /// Cycles until the time is over. Says how many there were.
    pub(super) fn run(&mut self, span: Duration) -> Result<u64> {
        let begun = Instant::now();
        let (mut cycles, mut told) = (0, Instant::now());
        while begun.elapsed() < span {
            cycles += 1;
            let blow = self.draw();
            self.strike(blow).with_context(|| format!("cycle {cycles}: {blow:?}"))?;
            if told.elapsed() > Duration::from_secs(30) {
                told = Instant::now();
                println!("{:7.1} s  {cycles} cycles, last {blow:?}", begun.elapsed().as_secs_f64());
            }
        }
        Ok(cycles)
    }

    fn draw(&mut self) -> Blow {
        let hit = Hit::draw(&mut self.order);
        match self.order.below(100) {
            0..36 => Blow::Kill(hit),
            36..76 if !self.disks.is_empty() => self.draw_power_cut(),
            36..76 => Blow::Kill(Hit::Both),
            76..83 => Blow::Link,
            83..87 => Blow::Freeze(hit),
            87..91 if possible() => Blow::Call(if self.order.one_in(2) { Hit::Main } else { Hit::Remote }),
            87..95 => Blow::Pause,
            95..97 => Blow::Takeover,
            _ => Blow::Proof,
        }
    }

    /// Most take something that was answered: a cut that takes nothing proves no more than a kill.
    fn draw_power_cut(&mut self) -> Blow {
        let hit = match self.order.below(10) {
            0 => Hit::Remote,
            1..6 => Hit::Both,
            _ => Hit::Main,
        };
        let burst = match self.order.below(10) {
            0 => Burst::Synchronous,
            1 | 2 => Burst::Drawn,
            _ => Burst::Careless,
        };
        Blow::PowerCut(hit, burst)
    }

    fn count(&mut self, what: &str) {
        *self.injected.entry(what.to_owned()).or_default() += 1;
    }

    fn strike(&mut self, blow: Blow) -> Result<()> {
        match blow {
            Blow::Kill(hit) => {
                self.count("kill -9");
                super::one_cycle(self.rig, hit, Burst::Drawn, &[])
            }
            Blow::PowerCut(hit, burst) => {
                let lost = self.rig.counts.judged.lost;
                super::one_cycle(self.rig, hit, burst, self.disks)?;
                self.count("power cut");
                if self.rig.counts.judged.lost > lost {
                    self.count("power cut, lossy");
                }
                Ok(())
            }
            Blow::Freeze(hit) => self.freeze(hit),
            Blow::Link => self.trouble(),
            Blow::Call(hit) => self.fail_a_call(hit),
            Blow::Pause => self.pause(),
            Blow::Takeover => {
                self.count("takeover by a copy");
                self.rig.rehearse_takeover()
            }
            Blow::Proof => {
                self.count("copy compared");
                self.rig.begin()?;
                self.rig.let_run()?;
                self.rig.end_load(MayFail::No)?;
                self.rig.prove_copy()
            }
        }
    }

    /// SIGSTOP for a moment of the seed's choice; longer than the link's patience now and then.
    fn freeze(&mut self, hit: Hit) -> Result<()> {
        self.count("frozen (SIGSTOP)");
        self.rig.begin()?;
        self.rig.let_run()?;
        let sites = [(hit.main(), self.rig.main.pid()), (hit.remote(), self.rig.remote.pid())];
        let pids: Vec<u32> = sites.into_iter().filter(|(hit, _)| *hit).filter_map(|(_, pid)| pid).collect();
        signal("STOP", &pids)?;
        let millis = match self.order.below(20) {
            0 => 10_000 + self.order.below(15_000),
            1..4 => 2_000 + self.order.below(3_000),
            _ => 100 + self.order.below(900),
        };
        std::thread::sleep(Duration::from_millis(millis));
        signal("CONT", &pids)?;
        self.rig.let_run()?;
        self.rig.end_load(MayFail::No)?;
        self.rig.judge_main(Hit::Remote)
    }

    /// The link is troubled under load, sometimes while a site dies; when it is well again, nothing is lacking.
    fn trouble(&mut self) -> Result<()> {
        let trouble = Trouble::draw(&mut self.order);
        self.count(trouble.name());
        self.rig.begin()?;
        self.rig.let_run()?;
        self.proxy.set(trouble);
        let millis = if self.order.one_in(10) { 12_000 } else { 100 + self.order.below(1_500) };
        std::thread::sleep(Duration::from_millis(millis));
        let hit = Hit::draw(&mut self.order);
        let dies = self.order.one_in(3);
        if dies {
            self.count("kill -9 with the link in trouble");
            self.rig.kill(hit)?;
        }
        self.rig.end_load(MayFail::No)?;
        self.proxy.set(Trouble::None);
        if dies {
            self.rig.restart(hit)?;
        }
        self.rig.judge_main(if dies { hit } else { Hit::Remote })?;
        if self.order.one_in(3) { self.rig.prove_copy() } else { Ok(()) }
    }

    /// The n-th sync or write of one site fails; then it is killed, and what it had promised is there.
    fn fail_a_call(&mut self, hit: Hit) -> Result<()> {
        let failing = Failing::draw(&mut self.order);
        let pid = if hit == Hit::Main { self.rig.main.pid() } else { self.rig.remote.pid() };
        let log = self.rig.main.dir.with_file_name("strace.log");
        let _ = std::fs::remove_file(&log);
        self.rig.begin()?;
        let injection = Injection::begin(pid.context("a site that runs")?, failing, 1 + self.order.below(12), &log)?;
        self.rig.let_run()?;
        self.rig.let_run()?;
        self.rig.kill(hit)?;
        let struck = injection.end()?;
        if struck > 0 {
            self.count(failing.name());
        }
        let may_fail = if hit == Hit::Main { MayFail::Any } else { MayFail::No };
        self.rig.end_load(may_fail)?;
        self.rig.restart(hit)?;
        self.rig.judge_main(hit)
    }

    /// Paused under load, and resumed by a process that may have died in between.
    fn pause(&mut self) -> Result<()> {
        self.count("paused and resumed");
        self.rig.begin()?;
        self.rig.let_run()?;
        let pause = self.rig.main.farseal(&["pause", super::rig::PAIR]);
        if let Err(refused) = pause {
            bail!("pause: {refused:#}");
        }
        self.rig.let_run()?;
        let dies = self.order.one_in(3);
        if dies {
            self.rig.kill(Hit::Main)?;
        }
        self.rig.end_load(MayFail::No)?;
        if dies {
            self.rig.restart(Hit::Main)?;
        }
        self.rig.main.farseal(&["resume", super::rig::PAIR])?;
        self.rig.judge_main(if dies { Hit::Main } else { Hit::Remote })
    }
}

pub(super) fn signal(name: &str, pids: &[u32]) -> Result<()> {
    for pid in pids {
        let status = Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status()?;
        if !status.success() {
            bail!("kill -{name} {pid}: {status}");
        }
    }
    Ok(())
}
