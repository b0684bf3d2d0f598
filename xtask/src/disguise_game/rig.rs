//! Lanes of the game: each two nodes with one pair and a load, told to change their key, or told nothing, as a coin falls.

use std::fs;
use std::io::{ErrorKind, Read as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::capture::{self, Tcpdump, Way};
use super::load::{Load, TURN, Workload, exponential};
use super::{How, Terms};
use crate::chaos::history::Random;
use crate::site::{PairTerms, Site, Stage, begin_nothing, begin_rotation, changes_key, free_port};

/// How often a change of key that is under way is looked at before the next toss.
const LOOK_EVERY: Duration = Duration::from_millis(100);

const MEBIBYTES: u64 = 64;
/// The mean time between two events, beyond the window that an event has for itself.
const BETWEEN: Duration = Duration::from_millis(250);
/// Before the first event and after the last: what the start does is over, and the last window is whole.
const MARGIN: Duration = Duration::from_secs(3);

/// A node that has not said no this long after the window has begun.
const REFUSAL_MAX: Duration = Duration::from_millis(100);

/// Tosses that fall while a key is under way are left out; more than one in so many, and the window is too short.
const REFUSED_SHARE: usize = 6;

/// What is played.
#[derive(Debug, Clone, Copy)]
pub(super) struct Phase<'a> {
    pub(super) name: &'a str,
    pub(super) disguise: &'a str,
    /// The player's, with the settings and the shape that were asked for; a control has none of them.
    pub(super) own: bool,
    pub(super) how: How,
    pub(super) workloads: &'a [Workload],
    /// Of all lanes together.
    pub(super) events: usize,
}

/// Two nodes, and a third that keeps keys where one is wanted.
struct Lane {
    pair: String,
    main: Site,
    remote: Site,
    escrow: Option<Escrow>,
    /// Where main connects: the captured port.
    port: u16,
    /// The relay's notes.
    notes: Option<PathBuf>,
}

/// Keeps a lane's keys. The line between it and main is captured, too.
struct Escrow {
    site: Site,
    port: u16,
}

/// One toss.
#[derive(Debug, Clone, Copy)]
struct Event {
    at: SystemTime,
    real: bool,
    /// The node said no, as another change was under way.
    refused: bool,
}

/// How many tosses fit into so many minutes.
pub(super) fn events_in(minutes: f64, terms: &Terms) -> usize {
    let each = (terms.window + BETWEEN).as_secs_f64() / f64::from(u32::try_from(terms.lanes).unwrap_or(1));
    Duration::try_from_secs_f64(minutes * 60.0 / each)
        .map_or(1, |count| usize::try_from(count.as_secs()).unwrap_or(1))
        .max(1)
}

/// Plays a phase; what was seen lies in `dir` afterwards, with a `game.json` that says what it is.
pub(super) fn play(terms: &Terms, phase: &Phase<'_>, way: Way, dir: &Path) -> Result<()> {
    let stage = Stage::new("game")?;
    let mut lanes = Vec::new();
    for number in 0..terms.lanes {
        lanes.push(Lane::start(&stage, terms, phase, way, dir, number)?);
    }
    let ports: Vec<u16> = lanes.iter().flat_map(Lane::ports).collect();
    let file = dir.join("lo.pcap");
    let tcpdump = if way == Way::Tcpdump { Some(Tcpdump::start(&stage, &ports, &file)?) } else { None };
    let begun = SystemTime::now();
    let events = toss(terms, phase, &lanes)?;
    let dropped = tcpdump.map(Tcpdump::stop).transpose()?;
    let mut told = Vec::new();
    for (number, (lane, events)) in lanes.iter_mut().zip(events).enumerate() {
        let refused = events.iter().filter(|event| event.refused).count();
        if refused * REFUSED_SHARE > events.len() {
            bail!("{refused} of {} tosses fell while a key was under way; give --window more time", events.len());
        }
        told.push(lane.tell(phase, number, &events)?);
    }
    let game = json!({
        "phase": phase.name, "disguise": phase.disguise, "how": phase.how.name(), "capture": way.name(),
        "window": terms.window.as_secs_f64(), "turn": TURN.as_secs_f64(), "begun": nanos(begun), "dropped": dropped,
        "pcap": (way == Way::Tcpdump).then_some("lo.pcap"), "lanes": told,
    });
    fs::write(dir.join("game.json"), serde_json::to_string_pretty(&game)?)?;
    Ok(())
}

impl Lane {
    fn start(stage: &Rc<Stage>, terms: &Terms, phase: &Phase<'_>, way: Way, dir: &Path, number: usize) -> Result<Self> {
        let init = |side| Site::init(stage, &terms.farseal, &terms.plugins, &format!("{side}{number}"));
        let (mut main, mut remote) = (init("main")?, init("remote")?);
        let listens = free_port()?;
        let notes = (way == Way::Relay).then(|| dir.join(format!("lane-{number}.txt")));
        let port = notes.as_deref().map_or(Ok(listens), |notes| capture::relay(listens, notes))?;
        let pair = format!("game{number}");
        let volume = main.dir.join("volume.img");
        let (disguise, how, link) = (phase.disguise, phase.how.name(), terms.link.as_str());
        let mut options = vec!["--policy", "on-command", "--disguise", disguise, "--rotate", how, "--link", link];
        let escrow_name = format!("escrow{number}");
        let mut escrow = None;
        if terms.escrow {
            let mut site = Site::init(stage, &terms.farseal, &terms.plugins, &escrow_name)?;
            let port = main.add_escrow(&site, &remote)?;
            site.start()?;
            options.extend(["--escrow", &escrow_name]);
            escrow = Some(Escrow { site, port });
        }
        let own = phase.own;
        if let Some(rate) = terms.shape.as_ref().filter(|_| own) {
            options.extend(["--shape", rate]);
        }
        let pair_terms = PairTerms { name: &pair, volume: &volume, mebibytes: MEBIBYTES, options: &options };
        main.pair_over(&remote, &pair_terms, port, listens)?;
        if let Some(settings) = terms.settings.as_ref().filter(|_| own) {
            let begins = format!("disguise = {{ component = \"{}\"", phase.disguise);
            main.edit(&begins, &format!("{begins}, config = {settings}"))?;
        }
        // The invitation does not say which disguise is used; both sites must use the same.
        remote.edit(&line(&remote, "disguise = ")?, &line(&main, "disguise = ")?)?;
        if let Some(word) = terms.pair_line.as_ref().filter(|_| own) {
            for site in [&main, &remote] {
                site.edit("\n[[pair]]\n", &format!("\n[[pair]]\n{word}\n"))?;
            }
        }
        // When the start of a cover comes, which a key's is compared with.
        main.edit("#log-filter = \"info\"", "log-filter = \"info,farseal::lane::keybook=debug\"")?;
        remote.start()?;
        main.start()?;
        main.wait_until("a link", |status| status.state() == "copying" && status.epoch() > 0)?;
        Ok(Self { pair, main, remote, escrow, port, notes })
    }

    /// What is captured.
    fn ports(&self) -> impl Iterator<Item = u16> {
        std::iter::once(self.port).chain(self.escrow.as_ref().map(|escrow| escrow.port))
    }

    /// Ends the nodes and says what happened, for the judge.
    fn tell(&mut self, phase: &Phase<'_>, number: usize, events: &[Event]) -> Result<Value> {
        self.main.kill()?;
        self.remote.kill()?;
        self.escrow.as_mut().map(|escrow| escrow.site.kill()).transpose()?;
        let log = String::from_utf8_lossy(&fs::read(self.main.log())?).into_owned();
        let saying = |words| log.lines().filter(|line| line.contains(words)).collect::<Vec<&str>>();
        let (changed, covers) = (saying("the key has changed"), saying("a cover's start"));
        let events =
            events.iter().map(|event| json!({ "at": nanos(event.at), "real": event.real, "refused": event.refused }));
        let turns: Vec<&str> = (0..phase.workloads.len())
            .map(|turn| phase.workloads[(number + turn) % phase.workloads.len()].name())
            .collect();
        Ok(json!({
            "port": self.port, "escrow": self.escrow.as_ref().map(|escrow| escrow.port), "notes": self.notes.as_ref().and_then(|notes| notes.file_name()?.to_str()),
            "turns": turns, "changed": changed, "covers": covers, "events": events.collect::<Vec<_>>(),
        }))
    }
}

/// The line of a site's configuration that begins so.
fn line(site: &Site, begins: &str) -> Result<String> {
    let text = fs::read_to_string(site.config())?;
    let line = text.lines().find(|line| line.starts_with(begins));
    line.map(str::to_owned).with_context(|| format!("{} has no {begins}", site.config().display()))
}

/// Runs all lanes side by side; each has its own load, moments and coins.
fn toss(terms: &Terms, phase: &Phase<'_>, lanes: &[Lane]) -> Result<Vec<Vec<Event>>> {
    let each = phase.events.div_ceil(lanes.len());
    let mut order = Random(terms.seed);
    let mut running = Vec::new();
    for (number, lane) in lanes.iter().enumerate() {
        let turns: Vec<Workload> = phase.workloads.to_vec();
        let load = Load::start(lane.main.socket(), &lane.pair, turns, number % phase.workloads.len(), order.next());
        let (control, window, how) = (lane.main.state().join("control.sock"), terms.window, phase.how);
        // The coins come from elsewhere than the moments and the load.
        let pair = lane.pair.clone();
        let (moments, coins) = (Random(order.next()), Random(order.next().rotate_left(17)));
        let thread = std::thread::spawn(move || toss_lane(&control, &pair, how, window, each, moments, coins));
        running.push((load, thread));
    }
    let mut events = Vec::new();
    for (load, thread) in running {
        let tossed = thread.join().map_err(|_| anyhow::anyhow!("a thread of the game failed"))?;
        load.stop()?;
        events.push(tossed?);
    }
    Ok(events)
}

fn toss_lane(
    control: &Path,
    pair: &str,
    how: How,
    window: Duration,
    count: usize,
    mut moments: Random,
    mut coins: Random,
) -> Result<Vec<Event>> {
    std::thread::sleep(MARGIN);
    let mut events: Vec<Event> = Vec::with_capacity(count);
    let mut next = Instant::now();
    let mut asked: Option<UnixStream> = None;
    loop {
        next += window;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        if let (Some(stream), Some(event)) = (asked.take(), events.last_mut()) {
            event.refused = !agreed(stream)? && event.real;
        }
        if events.len() == count {
            break;
        }
        // Whatever the coin will say: it is not known yet, so nothing of it is in how long this takes.
        while changes_key(control, pair)? {
            std::thread::sleep(LOOK_EVERY);
        }
        next = next.max(Instant::now()) + exponential(BETWEEN, &mut moments);
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        let (at, real) = (SystemTime::now(), coins.one_in(2));
        // The node is asked something in either case: what a command takes from the machine shall not tell.
        // Nor shall what is done with the answer: it is read when the window is over.
        asked = Some(if real { begin_rotation(control, pair, how.name())? } else { begin_nothing(control, pair)? });
        events.push(Event { at, real, refused: false });
    }
    std::thread::sleep(MARGIN);
    Ok(events)
}

/// Says whether the node agreed: a refusal has come by now, and the end of what goes on is not waited for.
fn agreed(mut stream: UnixStream) -> Result<bool> {
    stream.set_read_timeout(Some(REFUSAL_MAX))?;
    let mut head = [0; 64];
    let length = match stream.read(&mut head) {
        Ok(length) => length,
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return Ok(true),
        Err(error) => return Err(error.into()),
    };
    let reply = String::from_utf8_lossy(&head[..length]);
    match reply.split(' ').nth(1) {
        Some("200") => Ok(true),
        Some("409") => Ok(false),
        _ => bail!("the node answers with {reply}"),
    }
}

fn nanos(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}
