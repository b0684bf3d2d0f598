//! Opening in the background with every core: a run of blocks in pieces, each by whichever thread is free.

use std::cell::Cell;
use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};

use farseal_core::units::{BlockCount, Extent};

use super::times::Way;
use crate::store::opened::{BlockSource, OpenedHome, SweepResult};

/// Threads at most: beyond that the disk is what is waited for.
const THREADS_MAX: usize = 8;
/// Pieces for each thread that the disk is asked for ahead.
const AHEAD: usize = 2;
/// Blocks of a piece: 4 MiB of 4 KiB blocks, whole regions of the image's locks.
const PIECE_BLOCKS: BlockCount = BlockCount(1024);

thread_local! {
    static WAY: Cell<Way> = const { Cell::new(Way::Access) };
}

/// What this thread opens from here on is the strategy's plan, not an initiator's access.
pub(super) fn join() {
    WAY.set(Way::Sweep);
}

/// What this thread opens from here on a search found, or no longer.
pub(super) fn search(searches: bool) {
    WAY.set(if searches { Way::Search } else { Way::Sweep });
}

/// By what this thread opens.
pub(super) fn way() -> Way {
    WAY.get()
}

/// As [`OpenedHome::sweep`]. Ends when every piece is done, or the image could not be written. `then` is what comes after it: while a
/// piece is opened, the disk fetches those that come next.
pub(super) fn sweep<S: BlockSource>(
    home: &OpenedHome<S>,
    whole: Extent,
    then: impl Iterator<Item = Extent>,
) -> SweepResult {
    let mut pieces: Vec<Extent> = whole.pieces(PIECE_BLOCKS).collect();
    let count = pieces.len();
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get).min(THREADS_MAX);
    pieces.extend(then.flat_map(|extent| extent.pieces(PIECE_BLOCKS)).take(AHEAD * cores));
    let threads = cores.min(count);
    let next = AtomicUsize::new(0);
    let turn = || {
        join();
        let mut result = SweepResult::default();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(piece) = pieces.get(at).filter(|_| at < count) else { return result };
            if let Some(ahead) = pieces.get(at + AHEAD * cores) {
                home.expect(*ahead);
            }
            add(&mut result, home.sweep(*piece));
            if result.stopped.is_some() {
                return result;
            }
        }
    };
    if threads < 2 {
        return turn();
    }
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(turn)).collect();
        let mut result = turn();
        for other in others {
            // A thread that panicked opened less; what it left is closed and is opened on access.
            if let Ok(found) = other.join() {
                add(&mut result, found);
            }
        }
        result
    })
}

fn add(sum: &mut SweepResult, more: SweepResult) {
    let SweepResult { opened, failed, first_failed, why, stopped } = more;
    sum.opened.0 += opened.0;
    sum.failed.0 += failed.0;
    sum.first_failed.extend(first_failed);
    sum.first_failed.sort_unstable();
    sum.first_failed.truncate(SweepResult::NAMED_MAX);
    sum.why = sum.why.take().or(why);
    sum.stopped = sum.stopped.take().or(stopped);
}
