//! An initiator that writes without end: random places, several lengths, a FLUSH now and then, and a new connection when
//! the node went away.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::nbd_client::Client;

const BLOCK: u64 = 4096;
/// Bytes of the longest write.
const LONGEST: usize = 64 << 10;
/// A FLUSH after so many writes, as a database would.
const FLUSH_EVERY: u64 = 64;
/// Between two tries to connect.
const AGAIN: Duration = Duration::from_millis(50);

/// Xorshift (Marsaglia, 2003): bytes that do not compress, fast.
#[derive(Debug, Clone, Copy)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(super) fn fill(&mut self, bytes: &mut [u8]) {
        bytes.chunks_exact_mut(8).for_each(|word| word.copy_from_slice(&self.next().to_le_bytes()));
    }
}

/// Writes until it is stopped.
#[derive(Debug)]
pub(super) struct Load {
    counts: Arc<Counts>,
    thread: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Counts {
    stop: AtomicBool,
    answered: AtomicU64,
    connections: AtomicU64,
}

impl Load {
    /// As fast as it is answered.
    pub(super) fn start(socket: PathBuf, export: &'static str, bytes: u64) -> Self {
        Self::paced(socket, export, bytes, u64::MAX)
    }

    /// So many bytes a second at most.
    pub(super) fn paced(socket: PathBuf, export: &'static str, bytes: u64, rate: u64) -> Self {
        let counts = Arc::new(Counts::default());
        let shared = Arc::clone(&counts);
        let thread = std::thread::spawn(move || {
            let mut random = Random(0x2545_f491_4f6c_dd1d);
            while !shared.stop.load(Ordering::Relaxed) {
                match Client::connect(&socket, export) {
                    Ok(client) => {
                        shared.connections.fetch_add(1, Ordering::Relaxed);
                        write(client, &shared, &mut random, (bytes, rate));
                    }
                    Err(_) => std::thread::sleep(AGAIN),
                }
            }
        });
        Self { counts, thread }
    }

    pub(super) fn answered(&self) -> u64 {
        self.counts.answered.load(Ordering::Relaxed)
    }

    /// Writes that were answered, and how often a new connection was needed.
    pub(super) fn stop(self) -> (u64, u64) {
        self.counts.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.join();
        let connections = self.counts.connections.load(Ordering::Relaxed);
        (self.counts.answered.load(Ordering::Relaxed), connections.saturating_sub(1))
    }
}

/// Until the node goes away or the load is stopped; what was written last is flushed then.
fn write(mut client: Client, counts: &Counts, random: &mut Random, (bytes, rate): (u64, u64)) {
    let mut buffer = vec![0; LONGEST];
    let (begun, mut written) = (Instant::now(), 0_u64);
    for turn in 1_u64.. {
        if counts.stop.load(Ordering::Relaxed) {
            let _ = client.flush();
            return;
        }
        let len = BLOCK << (random.next() % 5);
        let at = random.next() % (bytes / BLOCK) * BLOCK;
        let len = len.min(bytes - at);
        let Ok(whole) = usize::try_from(len) else { return };
        random.fill(&mut buffer[..whole]);
        if client.write(at, &buffer[..whole]).is_err() {
            return;
        }
        counts.answered.fetch_add(1, Ordering::Relaxed);
        written += len;
        let due = begun + Duration::from_millis(written.saturating_mul(1000) / rate);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        if turn.is_multiple_of(FLUSH_EVERY) && client.flush().is_err() {
            return;
        }
    }
}
