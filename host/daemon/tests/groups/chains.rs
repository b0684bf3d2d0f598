//! Writes that depend on each other: each is issued when the one before it, at another pair, was answered or read.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::nbd_client::Client;

const BLOCK: usize = 4096;
const BLOCK_BYTES: u64 = 4096;
/// Blocks of a chain on each volume; the chain comes round.
const SLOTS: u64 = 16;
const CHAINS: u64 = 3;
/// Beside the chains: pairs of blocks of which the second follows a read of the first.
const READ_CHAIN: u64 = CHAINS * SLOTS;

/// Where a volume is exported: socket and name.
pub(crate) type Export = (PathBuf, String);

/// Initiators that write until they are told to stop.
#[derive(Debug)]
pub(crate) struct Chains {
    lanes: u64,
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    threads: std::sync::Mutex<Vec<JoinHandle<()>>>,
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
    pub(crate) fn start(exports: Vec<Export>, durable: bool) -> Self {
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let lanes = u64::try_from(exports.len()).unwrap();
        let mut threads = Vec::new();
        for chain in 0..CHAINS {
            let (exports, stop, written) = (exports.clone(), Arc::clone(&stop), Arc::clone(&written));
            threads.push(std::thread::spawn(move || follow(&exports, chain, durable, &stop, &written)));
        }
        for reads in [false, true] {
            let (exports, stop) = (exports.clone(), Arc::clone(&stop));
            threads.push(std::thread::spawn(move || {
                if reads { read_and_follow(&exports, &stop, durable) } else { lead(&exports, &stop, durable) }
            }));
        }
        Self { lanes, stop, written, threads: std::sync::Mutex::new(threads) }
    }

    /// Says how many links were answered.
    pub(crate) fn stop(&self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        for thread in std::mem::take(&mut *self.threads.lock().unwrap()) {
            thread.join().unwrap();
        }
        self.written.load(Ordering::Relaxed)
    }

    /// No image may hold a link without those before it.
    pub(crate) fn judge(&self, images: &[Vec<u8>]) -> Judgement {
        let mut judgement = Judgement::default();
        let value = |lane: u64, block: u64| {
            let at = usize::try_from(block * BLOCK_BYTES).unwrap();
            u64::from_le_bytes(images[usize::try_from(lane).unwrap()][at..at + 8].try_into().unwrap())
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

fn block(value: u64) -> Vec<u8> {
    let mut block = vec![0; BLOCK];
    block[..8].copy_from_slice(&value.to_le_bytes());
    block
}

/// Writes until it is answered, whatever happens to the node meanwhile.
fn write(
    export: &Export,
    client: &mut Option<Client>,
    place: u64,
    value: u64,
    durable: bool,
    stop: &AtomicBool,
) -> bool {
    while !stop.load(Ordering::Relaxed) {
        let connected = client.take().map_or_else(|| Client::connect(&export.0, &export.1), Ok);
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
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
    false
}

fn follow(exports: &[Export], chain: u64, durable: bool, stop: &AtomicBool, written: &AtomicU64) {
    let lanes = u64::try_from(exports.len()).unwrap();
    let mut clients: Vec<Option<Client>> = exports.iter().map(|_| None).collect();
    for link in 1.. {
        let lane = usize::try_from(link % lanes).unwrap();
        let place = chain * SLOTS + link / lanes % SLOTS;
        if !write(&exports[lane], &mut clients[lane], place, link, durable, stop) {
            return;
        }
        written.fetch_add(1, Ordering::Relaxed);
    }
}

/// The first of each pair of blocks.
fn lead(exports: &[Export], stop: &AtomicBool, durable: bool) {
    let mut client = None;
    for value in 1.. {
        if !write(&exports[0], &mut client, READ_CHAIN, value, durable, stop) {
            return;
        }
    }
}

/// The second: what a read of the first has shown, whether its writer was answered or not.
fn read_and_follow(exports: &[Export], stop: &AtomicBool, durable: bool) {
    let (mut reader, mut writer): (Option<Client>, Option<Client>) = (None, None);
    let last = exports.len() - 1;
    while !stop.load(Ordering::Relaxed) {
        let connected = reader.take().map_or_else(|| Client::connect(&exports[0].0, &exports[0].1), Ok);
        let mut found = vec![0; BLOCK];
        let read = connected.and_then(|mut client| {
            client.read(READ_CHAIN * BLOCK_BYTES, &mut found)?;
            // What was read and lost with its node would be missed at the main site, too.
            if durable {
                client.flush()?;
            }
            Ok(client)
        });
        let Ok(connected) = read else {
            std::thread::sleep(Duration::from_millis(20));
            continue;
        };
        reader = Some(connected);
        let value = u64::from_le_bytes(found[..8].try_into().unwrap());
        if !write(&exports[last], &mut writer, READ_CHAIN + 1, value, false, stop) {
            return;
        }
    }
}
