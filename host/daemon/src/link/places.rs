//! Who has a place at a listener: handshakes, which anybody may begin, and the paths of each pair
//!
//! A handshake tells nothing of whose it is before it is over, so whoever opens many must not keep others out: where all
//! places are taken, the oldest handshake of the address that has the most gives way to the next one.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use farseal_core::limits::PATHS_MAX;
use farseal_core::units::PairId;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Handshakes at once: all paths of four pairs whose link comes back.
pub const HANDSHAKES_MAX: usize = 64;
/// Paths of one pair at once: all that a link may have, and as many that broke and were not noticed yet.
pub const LIVE_MAX: u16 = 2 * PATHS_MAX;
/// A line about handshakes that failed is written no more often.
const SAID_EVERY: Duration = Duration::from_secs(60);

/// The handshakes of a listener.
#[derive(Debug, Default)]
pub struct Handshakes(Mutex<UnderWay>);

#[derive(Debug, Default)]
struct UnderWay {
    next: u64,
    /// Oldest first.
    all: VecDeque<Begun>,
}

#[derive(Debug)]
struct Begun {
    number: u64,
    from: IpAddr,
    /// Its end is what the handshake waits for.
    _place: oneshot::Sender<Infallible>,
}

/// A place among the handshakes, until it is dropped.
#[derive(Debug)]
pub struct Handshake {
    of: Arc<Handshakes>,
    number: u64,
    place: oneshot::Receiver<Infallible>,
}

impl Handshakes {
    /// Gives a place to the next one.
    pub fn begin(self: &Arc<Self>, from: IpAddr) -> Handshake {
        let (kept, place) = oneshot::channel();
        let mut under_way = self.lock();
        if under_way.all.len() >= HANDSHAKES_MAX {
            let oldest = under_way.oldest_of_the_most();
            under_way.all.remove(oldest);
        }
        let number = under_way.next;
        under_way.next += 1;
        under_way.all.push_back(Begun { number, from, _place: kept });
        Handshake { of: Arc::clone(self), number, place }
    }

    fn lock(&self) -> MutexGuard<'_, UnderWay> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl UnderWay {
    /// Where the oldest handshake is of the address that has the most; of the oldest such address.
    fn oldest_of_the_most(&self) -> usize {
        let mut counts: BTreeMap<IpAddr, usize> = BTreeMap::new();
        self.all.iter().for_each(|begun| *counts.entry(begun.from).or_default() += 1);
        let most = counts.values().max().copied().unwrap_or(0);
        self.all.iter().position(|begun| counts.get(&begun.from) == Some(&most)).unwrap_or(0)
    }
}

impl Handshake {
    /// Is ready when it has to give way.
    pub async fn gives_way(&mut self) {
        // Nothing is ever sent.
        let Err(_) = (&mut self.place).await;
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        self.of.lock().all.retain(|begun| begun.number != self.number);
    }
}

/// The paths that are up, by pair.
#[derive(Debug, Default)]
pub struct Live(Mutex<BTreeMap<PairId, u16>>);

/// A path's place, until it is dropped.
#[derive(Debug)]
pub struct LivePath {
    of: Arc<Live>,
    pair: PairId,
}

impl Live {
    /// A place for one more path of a pair, if it has not all of its own already.
    pub fn take(self: &Arc<Self>, pair: PairId) -> Option<LivePath> {
        let mut paths = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = paths.entry(pair).or_default();
        if *taken >= LIVE_MAX {
            return None;
        }
        *taken += 1;
        Some(LivePath { of: Arc::clone(self), pair })
    }
}

impl Drop for LivePath {
    fn drop(&mut self) {
        let mut paths = self.of.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(taken) = paths.get_mut(&self.pair) {
            *taken -= 1;
            if *taken == 0 {
                paths.remove(&self.pair);
            }
        }
    }
}

/// Which of the handshakes that failed are worth a line: the first, and one now and then with how many there were since.
#[derive(Debug, Default)]
pub struct Failures(Mutex<(Option<Instant>, u64)>);

impl Failures {
    /// One failed. If it is to be said: how many were not since the last that was.
    pub fn count(&self, now: Instant) -> Option<u64> {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (said, unsaid) = &mut *failures;
        if said.is_some_and(|said| now.saturating_duration_since(said) < SAID_EVERY) {
            *unsaid += 1;
            return None;
        }
        *said = Some(now);
        Some(std::mem::take(unsaid))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn address(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    #[test]
    fn whoever_begins_the_most_handshakes_gives_way_and_nobody_else() {
        let handshakes = Arc::<Handshakes>::default();
        let mut quiet: Vec<_> = (0..16).map(|_| handshakes.begin(address(1))).collect();
        let mut many: Vec<_> = (0..1000).map(|_| handshakes.begin(address(2))).collect();
        quiet.push(handshakes.begin(address(1)));
        assert!(quiet.iter_mut().all(|one| one.place.try_recv() == Err(oneshot::error::TryRecvError::Empty)));
        let kept: Vec<_> = many.iter_mut().map(|one| one.place.try_recv().is_err_and(is_empty)).collect();
        assert_eq!(kept.iter().filter(|kept| **kept).count(), HANDSHAKES_MAX - quiet.len());
        assert!(kept.is_sorted(), "the oldest went first");
    }

    fn is_empty(error: oneshot::error::TryRecvError) -> bool {
        error == oneshot::error::TryRecvError::Empty
    }

    #[test]
    fn a_handshake_that_is_over_makes_room() {
        let handshakes = Arc::<Handshakes>::default();
        let mut kept = handshakes.begin(address(1));
        for _ in 0..2 * HANDSHAKES_MAX {
            drop(handshakes.begin(address(1)));
        }
        assert!(kept.place.try_recv().is_err_and(is_empty));
    }

    #[test]
    fn one_pair_takes_no_place_of_another() {
        let live = Arc::<Live>::default();
        let (first, second) = (PairId([1; 16]), PairId([2; 16]));
        let mut paths: Vec<_> = (0..LIVE_MAX).map(|_| live.take(first).unwrap()).collect();
        assert!(live.take(first).is_none());
        let other = live.take(second).unwrap();
        paths.pop();
        paths.push(live.take(first).unwrap());
        drop((paths, other));
        assert!(live.0.lock().unwrap().is_empty());
    }

    #[test]
    fn failures_are_said_once_in_a_while_with_how_many_there_were() {
        let (failures, start) = (Failures::default(), Instant::now());
        assert_eq!(failures.count(start), Some(0));
        for _ in 0..500 {
            assert_eq!(failures.count(start + SAID_EVERY / 2), None);
        }
        assert_eq!(failures.count(start + SAID_EVERY), Some(500));
        assert_eq!(failures.count(start + SAID_EVERY), None);
    }
}
