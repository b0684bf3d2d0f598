//! Blocks that say which write they come from: written one after the other, so that what a copy holds tells exactly
//! which writes it holds, and whether they are the first ones without a hole.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use anyhow::{Result, bail};

use crate::nbd_client::Client;

/// Bytes of a block.
pub(super) const BLOCK: usize = 4096;
/// Blocks that are written again and again.
pub(super) const PLACES: u64 = 4096;
/// A FLUSH after so many writes, as a database would.
const FLUSH_EVERY: u64 = 64;
/// Odd, so that consecutive stamps visit every place once before they come back.
const STRIDE: u64 = 2_654_435_761;

/// Bytes of the region.
pub(super) const BYTES: u64 = PLACES * 4096;

/// How far the writer is; stamps count from 1.
#[derive(Debug, Default)]
pub(super) struct Progress {
    pub(super) answered: AtomicU64,
    pub(super) flushed: AtomicU64,
    stop: AtomicBool,
}

/// Writes until the server goes away or it is stopped.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) progress: Arc<Progress>,
    thread: JoinHandle<()>,
}

impl Writer {
    pub(super) fn start(socket: PathBuf, export: &'static str, region: u64) -> Result<Self> {
        let mut client = Client::connect(&socket, export)?;
        let progress = Arc::new(Progress::default());
        let shared = Arc::clone(&progress);
        let thread = std::thread::spawn(move || {
            let mut block = vec![0; BLOCK];
            for stamp in 1.. {
                if shared.stop.load(Ordering::Relaxed) {
                    break;
                }
                fill(&mut block, stamp);
                // The end of the server is the end of the writer, wherever it strikes.
                if client.write(region + place(stamp) * 4096, &block).is_err() {
                    break;
                }
                shared.answered.store(stamp, Ordering::Release);
                if stamp.is_multiple_of(FLUSH_EVERY) {
                    if client.flush().is_err() {
                        break;
                    }
                    shared.flushed.store(stamp, Ordering::Release);
                }
            }
        });
        Ok(Self { progress, thread })
    }

    /// After the server's end: the last stamp that was answered, and the last that a FLUSH covered.
    pub(super) fn join(self) -> (u64, u64) {
        self.progress.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.join();
        (self.progress.answered.load(Ordering::Acquire), self.progress.flushed.load(Ordering::Acquire))
    }
}

fn place(stamp: u64) -> u64 {
    stamp.wrapping_mul(STRIDE) % PLACES
}

/// The stamp, then bytes that follow from it (splitmix64), so that a torn or foreign block shows.
fn fill(block: &mut [u8], stamp: u64) {
    let (words, _) = block.as_chunks_mut::<8>();
    let mut state = stamp;
    for (index, word) in words.iter_mut().enumerate() {
        if index == 0 {
            *word = stamp.to_be_bytes();
            continue;
        }
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        *word = (mixed ^ (mixed >> 31)).to_le_bytes();
    }
}

/// Which write the region was at: it must hold writes 1 to that one, all of them, and none later.
pub(super) fn check_prefix(region: &[u8]) -> Result<u64> {
    let (blocks, _) = region.as_chunks::<BLOCK>();
    let stamps: Vec<u64> = blocks.iter().map(stamp_of).collect();
    let last = stamps.iter().copied().max().unwrap_or(0);
    let mut expected = vec![0; stamps.len()];
    for stamp in last.saturating_sub(PLACES - 1).max(1)..=last {
        if let Some(slot) = usize::try_from(place(stamp)).ok().and_then(|place| expected.get_mut(place)) {
            *slot = stamp;
        }
    }
    let mut block = vec![0; BLOCK];
    for (place, ((found, expected), bytes)) in stamps.iter().zip(&expected).zip(blocks).enumerate() {
        if found != expected {
            bail!("place {place} holds write {found}, and after write {last} it should hold {expected}");
        }
        if *found != 0 {
            fill(&mut block, *found);
        } else {
            block.fill(0);
        }
        if bytes[..] != block[..] {
            bail!("place {place} does not hold what write {found} wrote");
        }
    }
    Ok(last)
}

fn stamp_of(block: &[u8; BLOCK]) -> u64 {
    block.first_chunk().map_or(0, |stamp| u64::from_be_bytes(*stamp))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn region(stamps: impl IntoIterator<Item = u64>) -> Vec<u8> {
        let mut region = vec![0; usize::try_from(BYTES).unwrap()];
        for stamp in stamps {
            let at = usize::try_from(place(stamp)).unwrap() * BLOCK;
            fill(&mut region[at..at + BLOCK], stamp);
        }
        region
    }

    #[test]
    fn every_prefix_is_known_by_its_last_write() {
        for last in [0, 1, 63, 4096, 4097, 10_000] {
            assert_eq!(check_prefix(&region(1..=last)).unwrap(), last);
        }
    }

    #[test]
    fn a_hole_an_old_block_and_a_torn_block_are_found() {
        assert!(check_prefix(&region((1..=100).filter(|stamp| *stamp != 50))).is_err());
        assert!(check_prefix(&region((1..=5000).filter(|stamp| *stamp != 4500))).is_err());
        let mut torn = region(1..=100);
        let at = usize::try_from(place(7)).unwrap() * BLOCK + BLOCK - 1;
        torn[at] ^= 1;
        assert!(check_prefix(&torn).is_err());
    }
}
