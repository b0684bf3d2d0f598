//! An initiator that runs one qemu-io after the other: patterns at random places, each process closed by a FLUSH, and what the
//! volume must hold then.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::load::Random;
use crate::nbd_client::Client;
use crate::site::Site;

/// What requests are aligned to: less than the pair's block.
pub(super) const SECTOR: u64 = 512;
/// Sectors of the longest write.
const LONGEST: u64 = 512;
/// Writes of one process, at most.
const WRITES: u64 = 4;
/// Between two tries.
const AGAIN: Duration = Duration::from_millis(20);
/// A process that takes longer hangs.
const HANGS: Duration = Duration::from_secs(60);

/// Where the volume is exported, whenever the node is the one that writes.
#[derive(Debug, Clone)]
struct Side {
    uri: String,
    socket: std::path::PathBuf,
}

/// Who connects and writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Initiator {
    QemuIo,
    /// Where there is no qemu-io.
    Own,
}

impl Initiator {
    pub(super) fn find() -> Self {
        let mut probe = Command::new("qemu-io");
        probe.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if probe.status().is_ok_and(|status| status.success()) { Self::QemuIo } else { Self::Own }
    }
}

/// Writes until it is stopped, at whichever of two nodes takes it.
#[derive(Debug)]
pub(super) struct Writer {
    shared: Arc<Shared>,
    thread: JoinHandle<Result<()>>,
}

#[derive(Debug)]
struct Shared {
    stop: AtomicBool,
    answered: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The pattern of each sector.
    model: Vec<u8>,
    /// When each side first answered since somebody asked.
    first: [Option<Instant>; 2],
    /// Why commands were tried again, and how often.
    refusals: BTreeMap<String, u64>,
}

/// What the volume must hold, and what it took to get it there.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) model: Vec<u8>,
    pub(super) answered: u64,
    pub(super) refusals: BTreeMap<String, u64>,
}

/// One write of a pattern, in sectors.
#[derive(Debug, Clone, Copy)]
struct Patch {
    pattern: u8,
    first: u64,
    count: u64,
}

impl Writer {
    pub(super) fn start(initiator: Initiator, sites: &[Site; 2], export: &'static str, bytes: u64) -> Result<Self> {
        let sides = [0, 1].map(|at: usize| Side { uri: sites[at].uri(export), socket: sites[at].socket() });
        let model = vec![0; usize::try_from(bytes / SECTOR)?];
        let state = State { model, first: [None, None], refusals: BTreeMap::new() };
        let shared = Shared { stop: AtomicBool::new(false), answered: AtomicU64::new(0), state: Mutex::new(state) };
        let shared = Arc::new(shared);
        let writes = Arc::clone(&shared);
        let thread = std::thread::spawn(move || writes.write(initiator, &sides, export));
        Ok(Self { shared, thread })
    }

    pub(super) fn answered(&self) -> u64 {
        self.shared.answered.load(Ordering::Relaxed)
    }

    /// It ended by itself: what it could not do is said by [`Self::stop`].
    pub(super) fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// When this side first answered since it was last forgotten.
    pub(super) fn first_answer(&self, side: usize) -> Option<Instant> {
        self.shared.locked().first[side]
    }

    pub(super) fn forget_answers(&self, side: usize) {
        self.shared.locked().first[side] = None;
    }

    /// After the command that is under way was answered.
    pub(super) fn stop(self) -> Result<Written> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.join();
        ended.ok().context("the initiator panicked")??;
        let mut state = self.shared.locked();
        let (model, refusals) = (std::mem::take(&mut state.model), std::mem::take(&mut state.refusals));
        Ok(Written { model, answered: self.shared.answered.load(Ordering::Relaxed), refusals })
    }
}

impl Shared {
    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The side that answered last is asked first; what failed is done again from its first write, as nobody can say how
    /// far it came.
    fn write(&self, initiator: Initiator, sides: &[Side; 2], export: &str) -> Result<()> {
        let mut random = Random(0x2545_f491_4f6c_dd1d);
        let (mut side, sectors) = (0, u64::try_from(self.locked().model.len())?);
        while !self.stop.load(Ordering::Relaxed) {
            let patches: Vec<Patch> = (0..=random.next() % WRITES).map(|_| Patch::draw(&mut random, sectors)).collect();
            let begun = Instant::now();
            while let Err(refused) = initiator.carry_out(&sides[side], export, &patches) {
                *self.locked().refusals.entry(format!("{refused:#}")).or_default() += 1;
                if begun.elapsed() > 2 * HANGS {
                    bail!("no node took a write for {} s; the last one said: {refused:#}", begun.elapsed().as_secs());
                }
                side = 1 - side;
                std::thread::sleep(AGAIN);
            }
            let mut state = self.locked();
            state.first[side].get_or_insert_with(Instant::now);
            for patch in patches {
                let (first, count) = (usize::try_from(patch.first)?, usize::try_from(patch.count)?);
                state.model[first..first + count].fill(patch.pattern);
            }
            self.answered.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}

impl Patch {
    fn draw(random: &mut Random, sectors: u64) -> Self {
        let longest = if random.next().is_multiple_of(4) { LONGEST } else { 16 };
        let count = (1 + random.next() % longest).min(sectors);
        let first = random.next() % (sectors - count + 1);
        Self { pattern: random.next().to_le_bytes()[0], first, count }
    }
}

impl Initiator {
    fn carry_out(self, side: &Side, export: &str, patches: &[Patch]) -> Result<()> {
        match self {
            Self::QemuIo => qemu_io(side, patches),
            Self::Own => own(side, export, patches),
        }
    }
}

/// One process. All of its commands must have been answered well.
fn qemu_io(side: &Side, patches: &[Patch]) -> Result<()> {
    let mut command = Command::new("qemu-io");
    command.args(["-f", "raw"]);
    for Patch { pattern, first, count } in patches {
        let mut write = String::new();
        write!(write, "write -P {pattern} {} {}", first * SECTOR, count * SECTOR)?;
        command.args(["-c", &write]);
    }
    command.args(["-c", "flush", &side.uri]);
    let child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("qemu-io")?;
    let output = wait_for_end(child)?;
    let said = String::from_utf8_lossy(&output.stdout);
    let done = said.lines().filter(|line| line.starts_with("wrote ")).count();
    if output.status.success() && done == patches.len() {
        return Ok(());
    }
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned() + &said;
    let last = complaint.lines().rfind(|line| !line.starts_with("wrote ") && line.contains(": ")).unwrap_or("nothing");
    // The same words for both sides, as they are counted.
    bail!("{}", last.split_once(&format!("{}: ", side.uri)).map_or(last, |(_, why)| why))
}

/// What a process of a few lines says fits into its pipes, so that it need not be read before its end.
fn wait_for_end(mut child: Child) -> Result<std::process::Output> {
    let begun = Instant::now();
    while child.try_wait()?.is_none() {
        if begun.elapsed() > HANGS {
            child.kill()?;
            child.wait()?;
            bail!("qemu-io hung for {} s", HANGS.as_secs());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(child.wait_with_output()?)
}

fn own(side: &Side, export: &str, patches: &[Patch]) -> Result<()> {
    let mut client = Client::connect(&side.socket, export)?;
    for Patch { pattern, first, count } in patches {
        client.write(first * SECTOR, &vec![*pattern; usize::try_from(count * SECTOR)?])?;
    }
    client.flush()
}
