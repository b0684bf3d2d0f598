//! Two sites under load that lose processes at any moment, and what is asked of them afterwards.

use std::path::Path;
use std::process::Child;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::disk::Disk;
use super::history::{Due, History, Judged, Random, Seen, Tick, Violations};
use super::load::{Load, Shared, locked, read_image};
use crate::nbd_client::Client;
use crate::site::{PairTerms, Site, Stage, free_port, wait_for};

/// What the pair and its export are called.
pub(crate) const PAIR: &str = "chaos";
/// Small, so that most blocks are written again and again.
const MEBIBYTES: u64 = 16;
/// `NBD_ENOSPC`.
const NO_SPACE: u32 = 28;
/// How long a disk may take to be as full as one wants, and what is said of it.
const FILL_PATIENCE: Duration = Duration::from_secs(60);
/// A burst of load, from and to.
const BURST: (u64, u64) = (30, 400);

/// Which sites a fault hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hit {
    Main,
    Remote,
    Both,
}

impl Hit {
    pub(crate) fn draw(random: &mut Random) -> Self {
        match random.below(5) {
            0 | 1 => Self::Main,
            2 => Self::Remote,
            _ => Self::Both,
        }
    }

    pub(crate) fn main(self) -> bool {
        self != Self::Remote
    }

    pub(crate) fn remote(self) -> bool {
        self != Self::Main
    }
}

/// How initiators are answered in a burst of load, and how often they flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Burst {
    /// As in the last burst or, now and then, in the other mode.
    Drawn,
    /// Asynchronously and with hardly a flush: a crash finds much that is answered and not promised to outlive it.
    Careless,
    /// When the remote is durable.
    Synchronous,
}

impl Burst {
    fn flush_every(self) -> [u64; 3] {
        match self {
            Self::Drawn | Self::Synchronous => [12, 40, 400],
            Self::Careless => [400, 4_000, 40_000],
        }
    }
}

/// Which errors initiators may be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MayFail {
    No,
    NoSpace,
    Any,
}

/// What was done and seen.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) kills: usize,
    pub(crate) takeovers: usize,
    /// Of these, after synchronous answers to the last moment.
    pub(crate) sync_takeovers: usize,
    pub(crate) judgements: usize,
    pub(crate) judged: Judged,
    pub(crate) violations: usize,
    pub(crate) rotations: u64,
    /// From a start to answering, and from there to a copy that lacks nothing.
    pub(crate) starts: Vec<Duration>,
    pub(crate) safe_again: Vec<Duration>,
    pub(crate) takeover_times: Vec<Duration>,
    /// From the first free byte to an answered flush.
    pub(crate) room_again: Vec<Duration>,
}

/// The two sites, what was written, and the seed's next draw.
#[derive(Debug)]
pub(crate) struct Rig {
    pub(crate) main: Site,
    pub(crate) remote: Site,
    pub(crate) counts: Counts,
    pub(crate) random: Random,
    history: Shared,
    load: Option<Load>,
    rotating: Vec<Child>,
    copies: u64,
    /// The link shows nothing: keys may come by pause.
    shaped: bool,
    /// Initiators are answered when the remote is durable.
    sync: bool,
    /// What the remote was last known to hold durably: it never becomes less.
    safe: u64,
}

/// A moment before which everything answered has at most this sequence number.
#[derive(Debug, Clone, Copy)]
struct Sample {
    asked: Tick,
    last: u64,
    safe: u64,
}

impl Rig {
    /// Makes and pairs two nodes, and starts them.
    pub(crate) fn new(stage: &Rc<Stage>, binary: &Path, plugins: &Path, seed: u64, options: &[&str]) -> Result<Self> {
        let port = free_port()?;
        Self::over(stage, [binary, plugins], seed, options, [port, port])
    }

    /// As [`Self::new`]; main connects to the first port and the remote listens on the second: somebody else may carry
    /// the link.
    pub(crate) fn over(
        stage: &Rc<Stage>,
        [binary, plugins]: [&Path; 2],
        seed: u64,
        options: &[&str],
        [connects, listens]: [u16; 2],
    ) -> Result<Self> {
        let main = Site::init(stage, binary, plugins, "main")?;
        let remote = Site::init(stage, binary, plugins, "remote")?;
        let volume = main.dir.join("volume.img");
        let shaped = seed.is_multiple_of(3);
        let line: &[&str] = match seed % 3 {
            0 => &["--shape", "32MiB/s"],
            1 => &["--link", "san"],
            _ => &[],
        };
        let options = [options, line].concat();
        let terms = PairTerms { name: PAIR, volume: &volume, mebibytes: MEBIBYTES, options: &options };
        main.pair_over(&remote, &terms, connects, listens)?;
        let blocks = usize::try_from(MEBIBYTES << 20)? / super::history::BLOCK;
        let mut random = Random(seed);
        let history = Arc::new(std::sync::Mutex::new(History::new(random.next(), blocks)));
        let counts = Counts::default();
        let mut rig = Self {
            main,
            remote,
            counts,
            random,
            history,
            load: None,
            rotating: Vec::new(),
            copies: 0,
            shaped,
            sync: false,
            safe: 0,
        };
        rig.remote.start()?;
        rig.main.start()?;
        rig.wait_until_safe()?;
        Ok(rig)
    }

    /// Begins a burst of load, now and then in another mode than the last.
    pub(crate) fn begin(&mut self) -> Result<()> {
        self.begin_as(Burst::Drawn)
    }

    pub(crate) fn begin_as(&mut self, burst: Burst) -> Result<()> {
        let sync = match burst {
            Burst::Drawn => self.sync != self.random.one_in(3),
            Burst::Careless => false,
            Burst::Synchronous => true,
        };
        if self.sync != sync {
            self.sync = sync;
            self.main.farseal(&["mode", PAIR, if self.sync { "sync" } else { "async" }])?;
        }
        let flush_every = burst.flush_every();
        self.load = Some(Load::start(&self.main.socket(), PAIR, &self.history, &mut self.random, flush_every)?);
        Ok(())
    }

    /// Lets the load run for a moment of the seed's choice; keys change meanwhile, now and then.
    pub(crate) fn let_run(&mut self) -> Result<()> {
        let span = Duration::from_millis(BURST.0 + self.random.below(BURST.1 - BURST.0));
        if self.random.one_in(2) {
            let how = if self.random.one_in(2) && self.shaped { "pause" } else { "in-band" };
            std::thread::sleep(span.mul_f64(0.5));
            self.rotating.push(self.main.begin(&["rotate", PAIR, "--how", how, "--force"])?);
            std::thread::sleep(span.mul_f64(0.5));
        } else {
            std::thread::sleep(span);
        }
        Ok(())
    }

    pub(crate) fn kill(&mut self, hit: Hit) -> Result<()> {
        if hit.main() {
            self.main.kill()?;
            self.counts.kills += 1;
        }
        if hit.remote() {
            self.remote.kill()?;
            self.counts.kills += 1;
        }
        Ok(())
    }

    /// The load's end: by itself where main is gone, else with every answer. Errors are answered only by disks that
    /// lost power, and by those that are full.
    pub(crate) fn end_load(&mut self, may_fail: MayFail) -> Result<()> {
        if let Some(load) = self.load.take() {
            let (errors, overdue) = load.stop();
            if overdue > 0 {
                bail!("{overdue} requests were never answered by a living server");
            }
            let expected = match may_fail {
                MayFail::No => errors.is_empty(),
                MayFail::NoSpace => errors.keys().all(|error| *error == NO_SPACE),
                MayFail::Any => true,
            };
            if !expected {
                bail!("initiators were answered with errors: {errors:?}");
            }
        }
        // Without a remote, the command would wait for the key's delivery.
        for mut child in self.rotating.drain(..) {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Starts what was hit, now and then with one more kill in the middle of its recovery.
    pub(crate) fn restart(&mut self, hit: Hit) -> Result<()> {
        if hit.remote() && self.random.one_in(2) {
            self.start_remote()?;
        }
        if hit.main() {
            self.counts.starts.push(self.main.start()?);
            if self.random.one_in(4) {
                std::thread::sleep(Duration::from_millis(self.random.below(60)));
                self.main.kill()?;
                self.counts.kills += 1;
                self.counts.starts.push(self.main.start()?);
            }
        }
        self.start_remote()
    }

    fn start_remote(&mut self) -> Result<()> {
        if self.remote.pid().is_none() {
            self.counts.starts.push(self.remote.start()?);
        }
        Ok(())
    }

    /// Main's disk is full until initiators are told so. Then there is room again, for a process that lived on or for
    /// the next.
    pub(crate) fn fill_main(&mut self, disk: &Disk) -> Result<()> {
        self.begin()?;
        wait_for("ENOSPC for an initiator", FILL_PATIENCE, || {
            disk.fill()?;
            let refused = self.load.as_ref().is_some_and(|load| load.errors().contains_key(&NO_SPACE));
            Ok(refused.then_some(()))
        })?;
        let hit = if self.random.one_in(2) { Hit::Main } else { Hit::Remote };
        if hit == Hit::Main {
            self.kill(hit)?;
            self.end_load(MayFail::NoSpace)?;
        }
        disk.relieve()?;
        if hit == Hit::Main {
            self.counts.starts.push(self.main.start()?);
        } else {
            let begun = Instant::now();
            wait_for("room for an initiator's write", FILL_PATIENCE, || {
                let mut client = Client::connect(&self.main.socket(), PAIR)?;
                Ok(client.flush().ok())
            })?;
            self.counts.room_again.push(begun.elapsed());
            self.end_load(MayFail::NoSpace)?;
        }
        self.judge_main(hit)
    }

    /// The remote's disk is full until main says so; initiators notice nothing.
    pub(crate) fn fill_remote(&mut self, disk: &Disk) -> Result<()> {
        self.begin()?;
        wait_for("word of the secondary's full disk", FILL_PATIENCE, || {
            disk.fill()?;
            Ok(self.main.status()?.last_error().filter(|error| error.contains("secondary has no room")).map(drop))
        })?;
        disk.relieve()?;
        self.end_load(MayFail::No)?;
        self.judge_main(Hit::Remote)
    }

    /// Reads everything from main and judges it; what it shows is the start of what follows. Then the copy must come
    /// to lack nothing.
    pub(crate) fn judge_main(&mut self, hit: Hit) -> Result<()> {
        let image = read_image(&self.main.socket(), PAIR, &self.history).context("reading main back")?;
        // A main that was not hit forgets nothing, and a synchronous one answers nothing that it could forget.
        let all = !hit.main() || self.sync;
        let due = if all { Due::AnsweredBefore(Tick(u64::MAX)) } else { Due::Flushed };
        let verdict = locked(&self.history).judge(&image, due);
        self.note(&format!("main after {hit:?}"), verdict);
        Client::connect(&self.main.socket(), PAIR)?.flush()?;
        locked(&self.history).settle(&image);
        let begun = Instant::now();
        self.wait_until_safe()?;
        self.counts.safe_again.push(begun.elapsed());
        Ok(())
    }

    fn note(&mut self, what: &str, verdict: Result<Judged, Violations>) {
        self.counts.judgements += 1;
        let total = &mut self.counts.judged;
        match verdict {
            Ok(judged) => {
                total.writes += judged.writes;
                total.unanswered += judged.unanswered;
                total.due += judged.due;
                total.lost += judged.lost;
                total.flushes += judged.flushes;
                total.reads += judged.reads;
            }
            Err(violations) => {
                self.counts.violations += 1;
                println!("VIOLATION ({what}): {violations}");
            }
        }
    }

    pub(crate) fn wait_until_safe(&mut self) -> Result<()> {
        let status =
            self.main.wait_until("copying, with nothing owed", |status| status.is_safe() && status.epoch() > 0)?;
        self.counts.rotations = status.epoch();
        let safe = status.mark("safe");
        if safe < self.safe {
            bail!("the remote had acknowledged record {} as durable, and now {safe}", self.safe);
        }
        self.safe = safe;
        Ok(())
    }

    /// Nothing is written any more: what a copy of the remote shows when it is taken over to is all that was answered.
    pub(crate) fn prove_copy(&mut self) -> Result<()> {
        self.wait_until_safe()?;
        let safe = self.safe;
        self.remote.kill()?;
        let mut copy = self.copy_of_remote()?;
        copy.start()?;
        let begun = Instant::now();
        let image = take_over(&copy, &self.history, safe)?;
        self.took_over(begun);
        let verdict = locked(&self.history).judge(&image, Due::AnsweredBefore(Tick(u64::MAX)));
        self.note("a copy of the remote with nothing owed", verdict);
        copy.kill()?;
        std::fs::remove_dir_all(&copy.dir)?;
        self.start_remote()?;
        self.judge_main(Hit::Remote)
    }

    /// The remote must not run. The copy listens elsewhere.
    fn copy_of_remote(&mut self) -> Result<Site> {
        self.copies += 1;
        let copy = self.remote.copy(&format!("copy{}", self.copies))?;
        let text = std::fs::read_to_string(copy.config())?;
        let listen =
            text.lines().find(|line| line.starts_with("listen = \"127.")).context("the remote listens nowhere")?;
        copy.edit(listen, &format!("listen = \"127.0.0.1:{}\"", free_port()?))?;
        Ok(copy)
    }

    /// Both sites are killed under load. A copy of the remote is taken over to and judged; the pair goes on as it was.
    pub(crate) fn rehearse_takeover(&mut self) -> Result<()> {
        self.begin()?;
        let mut samples = Vec::new();
        let begun = Instant::now();
        let span = Duration::from_millis(300 + self.random.below(500));
        while begun.elapsed() < span {
            let asked = locked(&self.history).tick();
            let status = self.main.status()?;
            samples.push(Sample { asked, last: status.mark("last"), safe: status.mark("safe") });
        }
        // In either order.
        let first = if self.random.one_in(2) { Hit::Main } else { Hit::Remote };
        self.kill(first)?;
        self.kill(if first == Hit::Main { Hit::Remote } else { Hit::Main })?;
        self.end_load(MayFail::No)?;
        let safe = samples.iter().map(|sample| sample.safe).max().unwrap_or(0);
        let sampled =
            samples.iter().filter(|sample| sample.last <= safe).map(|sample| sample.asked).max().unwrap_or_default();
        // With the link up to the end, what was answered synchronously is at the remote.
        let due = if self.sync && first == Hit::Main { Tick(u64::MAX) } else { sampled };
        self.counts.sync_takeovers += usize::from(due > sampled);
        let mut copy = self.copy_of_remote()?;
        copy.start()?;
        let begun = Instant::now();
        let image = take_over(&copy, &self.history, safe)?;
        self.took_over(begun);
        let verdict = locked(&self.history).judge(&image, Due::AnsweredBefore(due));
        self.note("a copy of the remote, taken over to", verdict);
        // What was offered once is offered after a crash, too.
        copy.kill()?;
        self.counts.kills += 1;
        copy.start()?;
        if read_when_open(&copy, &self.history)? != image {
            bail!("the copy shows something else after a crash");
        }
        copy.kill()?;
        std::fs::remove_dir_all(&copy.dir)?;
        self.restart(Hit::Both)?;
        self.judge_main(Hit::Both)
    }

    /// The true end: main is killed for good, the remote is taken over to and must show everything; main stays fenced.
    pub(crate) fn take_over_for_good(&mut self) -> Result<()> {
        self.begin()?;
        self.let_run()?;
        self.end_load(MayFail::No)?;
        self.wait_until_safe()?;
        let safe = self.main.status()?.mark("safe");
        self.main.kill()?;
        self.counts.kills += 1;
        let begun = Instant::now();
        let image = take_over(&self.remote, &self.history, safe)?;
        self.took_over(begun);
        let verdict = locked(&self.history).judge(&image, Due::AnsweredBefore(Tick(u64::MAX)));
        self.note("the remote, taken over to", verdict);
        self.main.start()?;
        self.main.wait_until("the fence", |status| status.last_error().is_some_and(|text| text.contains("fenced")))?;
        Ok(())
    }

    fn took_over(&mut self, begun: Instant) {
        self.counts.takeover_times.push(begun.elapsed());
        self.counts.takeovers += 1;
    }
}

/// Takes over, and reads everything that is offered.
fn take_over(site: &Site, history: &Shared, safe: u64) -> Result<Vec<Seen>> {
    site.farseal(&["takeover", PAIR, "--yes"])?;
    let image = read_when_open(site, history)?;
    // The marks of the status count what initiators write here after it.
    let control = std::fs::read(site.state().join("pairs").join(PAIR).join("control.json"))?;
    let control: serde_json::Value = serde_json::from_slice(&control)?;
    let offered = control["taken_over_at"].as_u64().context("the takeover is not kept")?;
    if offered < safe {
        bail!("record {safe} was acknowledged as durable, and the remote offers {offered}");
    }
    Ok(image)
}

fn read_when_open(site: &Site, history: &Shared) -> Result<Vec<Seen>> {
    wait_for("the volume that was taken over", Duration::from_secs(30), || {
        Ok(Client::connect(&site.socket(), PAIR).ok())
    })?;
    read_image(&site.socket(), PAIR, history).context("reading the copy")
}
