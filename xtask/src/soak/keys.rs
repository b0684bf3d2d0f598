//! Three sites, an hour of writes, and a new key as soon as a second is over and the last one is in force, in both ways: cipher and policy are swapped in the middle, the
//! escrow is killed and comes back, then the main site is lost and the copy is opened with keys from the escrow alone. Every
//! key that was ever used is looked for in what the remote and the escrow have on disk.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::load::Load;
use super::{PAIR, Story, hash, wait};
use crate::nbd_client::Client;
use crate::site::{PairTerms, Site, Stage, Status, free_port, wait_for};

/// Between the beginnings of two rotations at least: a command waits until its key is in force.
const EVERY: Duration = Duration::from_secs(1);
/// What is written a second: a pause for a key has to drain what is on its way, within the shape of the link.
const RATE: u64 = 8 << 20;
/// How long the escrow is away.
const AWAY: Duration = Duration::from_secs(30);

/// What it takes besides two sites.
#[derive(Debug)]
pub(super) struct Third<'a> {
    pub(super) stage: &'a std::rc::Rc<Stage>,
    pub(super) farseal: &'a Path,
    pub(super) search_for_keys: &'a Path,
    pub(super) components: &'a Path,
}

/// Runs for such a time, then loses the main site.
pub(super) fn run(
    story: &mut Story,
    third: &Third<'_>,
    [main, remote]: &mut [Site; 2],
    mebibytes: u64,
    length: Duration,
) -> Result<()> {
    let mut escrow = Site::init(third.stage, third.farseal, third.components, "escrow")?;
    pair(main, remote, &escrow, mebibytes)?;
    escrow.start()?;
    remote.start()?;
    main.start()?;
    wait(main, "copying", |status| status.is_safe() && status.epoch() > 0)?;
    story.say("main, remote and escrow run; keys are with the escrow alone");
    let load = Load::paced(main.socket(), PAIR, mebibytes << 20, RATE);
    let keys = Rotations::start(main.config(), third.farseal.to_owned());

    std::thread::sleep(length / 3);
    for (slot, component) in [("cipher", "chacha20-poly1305"), ("policy", "irregular")] {
        let file = third.components.join(format!("{component}.wasm"));
        let said =
            main.farseal(&["plugin", "swap", PAIR, slot, &file.display().to_string(), "--settings", "{}", "--yes"])?;
        story.say(&format!("{slot} swapped under load: {}", said.lines().next().unwrap_or_default()));
    }
    std::thread::sleep(length / 3);
    let before = main.status()?.epoch();
    escrow.kill()?;
    std::thread::sleep(AWAY.min(length / 6));
    let meanwhile = main.status()?.epoch().saturating_sub(before);
    let answered = load.answered();
    escrow.start()?;
    story.say(&format!("the escrow was away; {meanwhile} keys that it had already came into force meanwhile"));
    std::thread::sleep(length / 3);
    if load.answered() <= answered {
        bail!("no write was answered after the escrow was away");
    }
    let told = keys.stop()?;
    report(story, &told);
    let (answered, lost) = load.stop();
    story.say(&format!("{answered} writes were answered; the initiator had to connect again {lost} times"));
    wait(main, "everything at the remote", Status::is_safe)?;
    let epochs = main.status()?.epoch();
    let ours = hash(&main.socket())?;
    main.kill()?;
    story.say(&format!("the main site is lost in epoch {epochs}"));
    recover(story, remote, &escrow, ours)?;
    search(story, third, remote, &escrow)
}

/// A pair that rotates in both ways, hidden in cells, with its keys at the escrow alone.
fn pair(main: &Site, remote: &Site, escrow: &Site, mebibytes: u64) -> Result<()> {
    main.add_escrow(escrow, remote)?;
    let (volume, listen) = (main.dir.join("volume.img"), format!("127.0.0.1:{}", free_port()?));
    let options = ["--listen", &listen, "--escrow", "escrow", "--shape", "64MiB/s", "--policy", "on-command"];
    main.pair_with(remote, &PairTerms { name: PAIR, volume: &volume, mebibytes, options: &options })?;
    // A slot every tenth of a second, so that no key waits long for one.
    main.edit("disguise = { component = \"cover\"", "disguise = { config = { gap = \"100ms\" }, component = \"cover\"")
}

/// What became of the rotations that were asked for.
#[derive(Debug, Default)]
struct Told {
    in_band: Way,
    pause: Way,
}

#[derive(Debug, Default)]
struct Way {
    seconds: Vec<f64>,
    refused: Vec<String>,
}

/// Asks for one new key after the other, at most one a second, in both ways in turn.
#[derive(Debug)]
struct Rotations {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Told>>,
}

impl Rotations {
    fn start(config: std::path::PathBuf, farseal: std::path::PathBuf) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let (mut told, mut next) = (Told::default(), Instant::now());
            for turn in 0_u64.. {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let (how, way) =
                    if turn % 2 == 0 { ("in-band", &mut told.in_band) } else { ("pause", &mut told.pause) };
                let begun = Instant::now();
                let mut rotate = Command::new(&farseal);
                rotate.arg("--config").arg(&config).args(["rotate", PAIR, "--force", "--how", how]);
                let output = rotate.output().context("farseal rotate")?;
                if output.status.success() {
                    way.seconds.push(begun.elapsed().as_secs_f64());
                } else {
                    let said = String::from_utf8_lossy(&output.stderr);
                    way.refused.push(said.lines().next().unwrap_or_default().to_owned());
                }
                next += EVERY;
                std::thread::sleep(next.saturating_duration_since(Instant::now()));
                next = next.max(Instant::now());
            }
            Ok(told)
        });
        Self { stop, thread }
    }

    fn stop(self) -> Result<Told> {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.join() {
            Ok(told) => told,
            Err(_) => bail!("the thread that rotates ended in a panic"),
        }
    }
}

fn report(story: &Story, told: &Told) {
    for (name, way) in [("in-band", &told.in_band), ("pause", &told.pause)] {
        let mut seconds = way.seconds.clone();
        seconds.sort_by(f64::total_cmp);
        let at = |part: usize| seconds.get(seconds.len().saturating_sub(1) * part / 100).copied().unwrap_or_default();
        story.say(&format!(
            "{name}: {} keys, the command took {:.2} s in the median and {:.2} s in 99 of 100; {} refused",
            seconds.len(),
            at(50),
            at(99),
            way.refused.len()
        ));
        let mut kinds = way.refused.clone();
        kinds.sort();
        kinds.dedup();
        kinds.iter().take(6).for_each(|why| println!("              {why}"));
    }
}

/// The remote asks, the escrow approves, the copy opens and is what the volume was.
fn recover(story: &mut Story, remote: &Site, escrow: &Site, ours: [u8; 32]) -> Result<()> {
    if remote.farseal(&["takeover", PAIR, "--yes"]).is_ok() {
        bail!("the remote took over without a single key");
    }
    remote.farseal(&["escrow", "request", PAIR, "--reason", "the main site is lost"])?;
    escrow.farseal(&["escrow", "approve", "1", "--yes"])?;
    let begun = Instant::now();
    let said = remote.farseal(&["escrow", "fetch", PAIR])?;
    let took = begun.elapsed().as_secs_f64();
    story.say(&format!("{} in {took:.1} s", said.lines().next().unwrap_or_default()));
    let begun = Instant::now();
    remote.farseal(&["takeover", PAIR, "--yes"])?;
    let socket = remote.socket();
    let mut client = wait_for("the opened copy", Duration::from_secs(60), || Ok(Client::connect(&socket, PAIR).ok()))?;
    client.read(0, &mut vec![0; 4096])?;
    story.say(&format!("the first block was open {:.2} s after the takeover's command", begun.elapsed().as_secs_f64()));
    if hash(&socket)? != ours {
        bail!("the copy differs from the volume");
    }
    story.say("the copy is identical to the last byte");
    Ok(())
}

/// Every key that the remote can have now, and every key of a layer, in all that lies at the remote and at the escrow.
fn search(story: &mut Story, third: &Third<'_>, remote: &Site, escrow: &Site) -> Result<()> {
    let mut search = Command::new(third.search_for_keys);
    search
        .arg(remote.config())
        .arg(PAIR)
        .arg(remote.state())
        .arg(escrow.state())
        .arg(third.stage.dir.join("main/state"));
    let output = search.output().context("search_for_keys")?;
    if !output.status.success() {
        bail!("search_for_keys: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let found: Value = serde_json::from_slice(&output.stdout)?;
    let number = |name: &str| found[name].as_u64().unwrap_or(u64::MAX);
    if number("control-hits") != 1 {
        bail!("the search does not find what is there: {found}");
    }
    story.say(&format!(
        "{} keys of {} epochs looked for in {} files of {} MiB at remote, escrow and main: {} found",
        number("keys"),
        number("epochs"),
        number("files"),
        number("bytes") >> 20,
        number("hits")
    ));
    if number("hits") > 0 {
        bail!("keys lie in files");
    }
    let swaps = std::fs::read_to_string("/proc/swaps").unwrap_or_default();
    if swaps.lines().count() > 1 {
        story.say("this machine swaps; its swap was NOT searched");
    }
    for site in [remote, escrow] {
        no_core(site)?;
    }
    story.say("killed with SIGABRT, neither remote nor escrow left a core file");
    Ok(())
}

/// A node that is told to abort leaves nothing of its memory.
fn no_core(site: &Site) -> Result<()> {
    let Some(pid) = site.pid() else { bail!("{} does not run", site.name) };
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap_or_default();
    let may = limits.lines().any(|line| line.starts_with("Max core file size") && !line.contains(" 0 "));
    Command::new("kill").args(["-ABRT", &pid.to_string()]).status()?;
    wait_for("the end of an aborted node", Duration::from_secs(20), || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let ended = status.is_empty() || status.contains("State:\tZ");
        Ok(ended.then_some(()))
    })?;
    for folder in [Path::new("."), &site.dir] {
        for entry in std::fs::read_dir(folder)? {
            let name = entry?.file_name();
            if name.to_string_lossy().starts_with("core") {
                bail!("{} left {} in {}", site.name, name.to_string_lossy(), folder.display());
            }
        }
    }
    if !may {
        println!("              (its limit on core files was 0 anyway)");
    }
    Ok(())
}
