//! Initiators of the game: four workloads that take turns, at moments and places that follow from a seed alone.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::chaos::history::Random;
use crate::nbd_client::Client;

/// How long a workload runs before the next one takes over.
pub(super) const TURN: Duration = Duration::from_secs(10);
const BLOCK: u64 = 4096;
/// A load that fell behind makes up for so much, not for more.
const CATCH_UP: Duration = Duration::from_millis(20);
/// The longest request.
const LONGEST: usize = 64 << 10;

/// What an initiator does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Workload {
    /// 4 KiB at random places, some 500 a second, a FLUSH after every 64.
    Random,
    /// 64 KiB one after the other, some 90 a second.
    Sequential,
    /// Transactions: two reads of 8 KiB, one to four writes of 8 KiB, 4 KiB at the end of a log, FLUSH.
    Transactions,
    /// A write of 4 KiB now and then.
    Idle,
}

impl Workload {
    pub(super) const ALL: [Self; 4] = [Self::Random, Self::Sequential, Self::Transactions, Self::Idle];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::Sequential => "sequential",
            Self::Transactions => "transactions",
            Self::Idle => "idle",
        }
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|workload| workload.name() == name)
    }

    /// The mean pause between two steps.
    fn pause(self) -> Duration {
        Duration::from_millis(match self {
            Self::Random => 2,
            Self::Sequential => 10,
            Self::Transactions => 12,
            Self::Idle => 250,
        })
    }
}

/// A time drawn from the exponential law, as between events that know nothing of each other.
pub(super) fn exponential(mean: Duration, random: &mut Random) -> Duration {
    // Never zero.
    let drawn = f64::from(u32::try_from(random.next() >> 32).unwrap_or(u32::MAX)) + 0.5;
    mean.mul_f64(-(drawn / (f64::from(u32::MAX) + 1.0)).ln())
}

/// Writes until it is stopped.
#[derive(Debug)]
pub(super) struct Load {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<()>>,
}

impl Load {
    /// Takes `turns` one after the other, [`TURN`] each, beginning with the one at `first`.
    pub(super) fn start(socket: PathBuf, export: &str, turns: Vec<Workload>, first: usize, seed: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (shared, export) = (Arc::clone(&stop), export.to_owned());
        let thread = std::thread::spawn(move || write(&socket, &export, &turns, first, Random(seed), &shared));
        Self { stop, thread }
    }

    pub(super) fn stop(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow::anyhow!("the load's thread failed"))?.context("the load")
    }
}

fn write(
    socket: &Path,
    export: &str,
    turns: &[Workload],
    first: usize,
    random: Random,
    stop: &AtomicBool,
) -> Result<()> {
    let client = Client::connect(socket, export)?;
    let blocks = client.size / BLOCK;
    let mut initiator = Initiator { client, random, blocks, at: 0, steps: 0, data: vec![0; LONGEST] };
    let begun = Instant::now();
    // Moments are fixed before they come: a slow answer does not shift those that follow.
    let mut next = begun;
    while !stop.load(Ordering::Relaxed) {
        let turn = usize::try_from(begun.elapsed().as_secs() / TURN.as_secs())?;
        let workload = turns[(first + turn) % turns.len()];
        initiator.step(workload)?;
        next = (next + exponential(workload.pause(), &mut initiator.random)).max(Instant::now() - CATCH_UP);
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    Ok(())
}

struct Initiator {
    client: Client,
    random: Random,
    blocks: u64,
    /// Where the sequential writes are.
    at: u64,
    steps: u64,
    data: Vec<u8>,
}

impl Initiator {
    fn step(&mut self, workload: Workload) -> Result<()> {
        self.steps += 1;
        match workload {
            Workload::Random => {
                self.write_somewhere(1)?;
                if self.steps.is_multiple_of(64) { self.client.flush() } else { Ok(()) }
            }
            Workload::Sequential => {
                self.at = if self.at + 16 <= self.blocks { self.at } else { 0 };
                self.write_at(self.at, 16)?;
                self.at += 16;
                Ok(())
            }
            Workload::Transactions => {
                for _ in 0..2 {
                    let place = self.random.below(self.blocks - 1) * BLOCK;
                    self.client.read(place, &mut [0; 8192])?;
                }
                for _ in 0..1 + self.random.below(4) {
                    self.write_somewhere(2)?;
                }
                self.write_at(self.steps % self.blocks, 1)?;
                self.client.flush()
            }
            Workload::Idle => self.write_somewhere(1),
        }
    }

    fn write_somewhere(&mut self, blocks: u64) -> Result<()> {
        let place = self.random.below(self.blocks + 1 - blocks);
        self.write_at(place, blocks)
    }

    fn write_at(&mut self, block: u64, blocks: u64) -> Result<()> {
        let length = usize::try_from(blocks * BLOCK)?;
        // Sealed before it is seen: what it holds matters to nobody, but for not being zeroes.
        self.data[..8].copy_from_slice(&(self.random.next() | 1).to_le_bytes());
        self.client.write(block * BLOCK, &self.data[..length])
    }
}
