//! Writes that depend on each other: each is issued when the one before it, at another pair, was answered or read.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};

use crate::nbd_client::Client;

const BLOCK: usize = 4096;
const BLOCK_BYTES: u64 = 4096;
/// Blocks of a chain on each volume; the chain comes round.
const SLOTS: u64 = 16;
pub(crate) const CHAINS: u64 = 3;
/// Beside the chains: pairs of blocks of which the second follows a read of the first.
const READ_CHAIN: u64 = CHAINS * SLOTS;
/// And on each volume a block that is written without a flush, from which one sees whether a crash took something.
const UNFLUSHED: u64 = READ_CHAIN + 2;
/// Between two such writes: they are to be there, not to be the load.
const UNFLUSHED_EVERY: Duration = Duration::from_millis(5);
/// Between two tries to connect.
const AGAIN: Duration = Duration::from_millis(20);

/// Where a volume is exported.
#[derive(Debug, Clone)]
pub(crate) struct Export {
    /// Of the node that writes it, or of each that may: one of them has the export.
    pub(crate) sockets: Vec<PathBuf>,
    pub(crate) name: String,
}

/// Initiators that write until they are told to stop.
#[derive(Debug)]
pub(crate) struct Chains {
    lanes: u64,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Result<()>>>,
}

/// What the initiators are told, and what they say.
#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    /// Links that were answered.
    written: AtomicU64,
    /// How often something was gone that had been answered and not flushed.
    lossy: AtomicU64,
}

/// What images hold.
#[derive(Debug, Default)]
pub(crate) struct Judgement {
    /// Links of chains that are there.
    pub(crate) recovered: u64,
    pub(crate) violations: Vec<String>,
}

impl Chains {
    /// With `durable`, each link is flushed before the next is written: it outlives the node that has it.
    pub(crate) fn start(exports: &[Export], durable: bool) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let lanes = u64::try_from(exports.len())?;
        let mut threads = Vec::new();
        for chain in 0..CHAINS {
            let line = Line { exports: exports.to_vec(), durable, shared: Arc::clone(&shared) };
            threads.push(std::thread::spawn(move || line.follow(chain)));
        }
        for reads in [false, true] {
            let line = Line { exports: exports.to_vec(), durable, shared: Arc::clone(&shared) };
            threads.push(std::thread::spawn(move || if reads { line.read_and_follow() } else { line.lead() }));
        }
        for lane in 0..exports.len() {
            let line = Line { exports: exports.to_vec(), durable: false, shared: Arc::clone(&shared) };
            threads.push(std::thread::spawn(move || line.count_unflushed(lane)));
        }
        Ok(Self { lanes, shared, threads })
    }

    /// How many links were answered so far.
    pub(crate) fn written(&self) -> u64 {
        self.shared.written.load(Ordering::Relaxed)
    }

    /// How often something was gone so far that had been answered and not flushed: a crash took it, as it may.
    pub(crate) fn lossy(&self) -> u64 {
        self.shared.lossy.load(Ordering::Relaxed)
    }

    /// Says how many links were answered.
    pub(crate) fn stop(&mut self) -> Result<u64> {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in std::mem::take(&mut self.threads) {
            thread.join().map_err(|_| anyhow!("an initiator panicked"))??;
        }
        Ok(self.written())
    }

    /// No image may hold a link without those before it.
    pub(crate) fn judge(&self, images: &[Vec<u8>]) -> Judgement {
        let mut judgement = Judgement::default();
        let value = |lane: u64, block: u64| {
            let image = usize::try_from(lane).ok().and_then(|lane| images.get(lane));
            image.map_or(0, |image| number_at(image, block))
        };
        for chain in 0..CHAINS {
            let places = || (0..self.lanes).flat_map(|lane| (0..SLOTS).map(move |slot| (lane, slot)));
            let last = places().map(|(lane, slot)| value(lane, chain * SLOTS + slot)).max().unwrap_or(0);
            judgement.recovered += last;
            for (lane, slot) in places() {
                // The last link up to `last` that went here.
                let first = slot * self.lanes + lane;
                let round = SLOTS * self.lanes;
                let due = if last < first { 0 } else { last - (last - first) % round };
                let found = value(lane, chain * SLOTS + slot);
                if found != due {
                    let text =
                        format!("chain {chain} ends at {last}, but lane {lane} slot {slot} holds {found}, not {due}");
                    judgement.violations.push(text);
                }
            }
        }
        let (first, second) = (value(0, READ_CHAIN), value(self.lanes - 1, READ_CHAIN + 1));
        if second > first {
            judgement
                .violations
                .push(format!("{second} was written after it was read at the other lane, which has {first}"));
        }
        judgement
    }
}

impl Drop for Chains {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

/// One initiator.
struct Line {
    exports: Vec<Export>,
    durable: bool,
    shared: Arc<Shared>,
}

impl Line {
    /// One chain: link by link over all volumes.
    fn follow(&self, chain: u64) -> Result<()> {
        let lanes = u64::try_from(self.exports.len())?;
        let mut clients: Vec<Option<Client>> = self.exports.iter().map(|_| None).collect();
        for link in 1.. {
            let lane = usize::try_from(link % lanes)?;
            let place = chain * SLOTS + link / lanes % SLOTS;
            if !self.write(lane, &mut clients[lane], place, link, self.durable) {
                break;
            }
            self.shared.written.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The first of each pair of blocks.
    fn lead(&self) -> Result<()> {
        let mut client = None;
        for value in 1.. {
            if !self.write(0, &mut client, READ_CHAIN, value, self.durable) {
                break;
            }
        }
        Ok(())
    }

    /// The second: what a read of the first has shown, whether its writer was answered or not.
    fn read_and_follow(&self) -> Result<()> {
        let (mut reader, mut writer): (Option<Client>, Option<Client>) = (None, None);
        let last = self.exports.len() - 1;
        while !self.ends() {
            let connected = reader.take().map_or_else(|| self.connect(0), Ok);
            let mut found = vec![0; BLOCK];
            let read = connected.and_then(|mut client| {
                client.read(READ_CHAIN * BLOCK_BYTES, &mut found)?;
                // What was read and lost with its node would be missed at the main site, too.
                if self.durable {
                    client.flush()?;
                }
                Ok(client)
            });
            let Ok(connected) = read else {
                std::thread::sleep(AGAIN);
                continue;
            };
            reader = Some(connected);
            if !self.write(last, &mut writer, READ_CHAIN + 1, number_at(&found, 0), false) {
                break;
            }
        }
        Ok(())
    }

    /// Counts up in one block without a flush, and looks after each crash how far the count is back.
    fn count_unflushed(&self, lane: usize) -> Result<()> {
        let (mut answered, mut found) = (0, vec![0; BLOCK]);
        while !self.ends() {
            let read = self.connect(lane).and_then(|mut client| {
                client.read(UNFLUSHED * BLOCK_BYTES, &mut found)?;
                Ok(client)
            });
            let Ok(mut client) = read else {
                std::thread::sleep(AGAIN);
                continue;
            };
            if number_at(&found, 0) < answered {
                self.shared.lossy.fetch_add(1, Ordering::Relaxed);
            }
            while !self.ends() && client.write(UNFLUSHED * BLOCK_BYTES, &block(answered + 1)).is_ok() {
                answered += 1;
                std::thread::sleep(UNFLUSHED_EVERY);
            }
        }
        Ok(())
    }

    /// Writes until it is answered, whatever happens to the node meanwhile. False when it is time to stop.
    fn write(&self, lane: usize, client: &mut Option<Client>, place: u64, value: u64, durable: bool) -> bool {
        while !self.ends() {
            let connected = client.take().map_or_else(|| self.connect(lane), Ok);
            let done = connected.and_then(|mut client| {
                client.write(place * BLOCK_BYTES, &block(value))?;
                if durable {
                    client.flush()?;
                }
                Ok(client)
            });
            match done {
                Ok(connected) => {
                    *client = Some(connected);
                    return true;
                }
                Err(_) => std::thread::sleep(AGAIN),
            }
        }
        false
    }

    fn connect(&self, lane: usize) -> Result<Client> {
        let Export { sockets, name } = &self.exports[lane];
        let found = sockets.iter().find_map(|socket| Client::connect(socket, name).ok());
        found.with_context(|| format!("nobody exports {name}"))
    }

    fn ends(&self) -> bool {
        self.shared.stop.load(Ordering::Relaxed)
    }
}

fn block(value: u64) -> Vec<u8> {
    let mut block = vec![0; BLOCK];
    block[..8].copy_from_slice(&value.to_le_bytes());
    block
}

/// What [`block`] put into a block of an image; 0 where nothing was written.
fn number_at(image: &[u8], block: u64) -> u64 {
    let rest = usize::try_from(block * BLOCK_BYTES).ok().and_then(|at| image.get(at..));
    rest.and_then(|rest| rest.first_chunk()).map_or(0, |word| u64::from_le_bytes(*word))
}
