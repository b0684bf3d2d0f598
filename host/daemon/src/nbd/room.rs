//! Room for the payload of all connections of a server together
//!
//! What a connection may hold by itself is bounded by its table; many that do not read their replies must not hold
//! that much each. Whoever finds no room waits in line, and holds nothing more for it meanwhile, so nobody waits in a circle.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use crate::nbd::limits::{ALWAYS_BYTES, MAX_PAYLOAD};

/// See the file.
#[derive(Debug)]
pub struct Room(Mutex<Held>);

#[derive(Debug)]
struct Held {
    most: usize,
    bytes: usize,
    next: u64,
    /// Who comes first, and how he hears of it.
    line: VecDeque<(u64, Waker)>,
}

/// What one connection holds of it, until it is dropped.
#[derive(Debug)]
pub struct Share {
    of: Arc<Room>,
    bytes: usize,
    /// Its number in the line.
    waits: Option<u64>,
}

impl Room {
    /// Room for `most` bytes; never less than for the largest request.
    #[must_use]
    pub fn new(most: usize) -> Arc<Self> {
        let most = most.max(usize::try_from(MAX_PAYLOAD).unwrap_or(usize::MAX));
        Arc::new(Self(Mutex::new(Held { most, bytes: 0, next: 0, line: VecDeque::new() })))
    }

    /// For a connection.
    #[must_use]
    pub fn share(self: &Arc<Self>) -> Share {
        Share { of: Arc::clone(self), bytes: 0, waits: None }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn leave(&mut self, number: u64) {
        self.line.retain(|(waiting, _)| *waiting != number);
    }

    /// Room was made, or the first went: whoever is first now looks again.
    fn call(&self) {
        if let Some((_, waker)) = self.line.front() {
            waker.wake_by_ref();
        }
    }
}

impl Share {
    /// Takes so many bytes, or a place in the line, of which `waker` hears when it is worth asking again. A connection that
    /// holds nothing gets a few at once.
    pub fn take(&mut self, bytes: usize, waker: &Waker) -> bool {
        if bytes == 0 {
            return true;
        }
        let mut held = self.of.lock();
        let fits = held.bytes + bytes <= held.most;
        let is_first = held.line.front().map(|(first, _)| *first) == self.waits;
        let is_little = self.bytes == 0 && bytes <= ALWAYS_BYTES;
        if !(is_little || fits && is_first) {
            self.waits = Some(Self::queue(&mut held, self.waits, waker));
            return false;
        }
        held.bytes += bytes;
        self.bytes += bytes;
        if let Some(number) = self.waits.take() {
            held.leave(number);
            held.call();
        }
        true
    }

    fn queue(held: &mut Held, number: Option<u64>, waker: &Waker) -> u64 {
        if let Some(number) = number {
            if let Some((_, old)) = held.line.iter_mut().find(|(waiting, _)| *waiting == number) {
                old.clone_from(waker);
            }
            return number;
        }
        let number = held.next;
        held.next += 1;
        held.line.push_back((number, waker.clone()));
        number
    }

    /// Whether somebody waits for room.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        !self.of.lock().line.is_empty()
    }

    /// Gives up its place in the line.
    pub fn leave(&mut self) {
        if let Some(number) = self.waits.take() {
            let mut held = self.of.lock();
            held.leave(number);
            held.call();
        }
    }

    /// Gives back what was taken.
    pub fn give(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        if bytes > 0 {
            self.bytes -= bytes;
            let mut held = self.of.lock();
            held.bytes -= bytes;
            held.call();
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.give(self.bytes);
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = MAX_PAYLOAD as usize;

    #[test]
    fn whoever_waits_is_served_in_line_and_whoever_leaves_holds_nobody_up() {
        let room = Room::new(0);
        let (mut first, mut second, mut third) = (room.share(), room.share(), room.share());
        assert!(first.take(MOST, Waker::noop()), "the largest request fits by itself");
        assert!(!second.take(MOST, Waker::noop()) && !third.take(1 << 20, Waker::noop()));
        first.give(MOST / 2);
        assert!(!third.take(1 << 20, Waker::noop()), "it would keep the second waiting for ever");
        first.give(MOST / 2);
        assert!(second.take(MOST, Waker::noop()));
        assert!(!third.take(1 << 20, Waker::noop()));
        second.leave();
        drop(second);
        assert!(third.take(1 << 20, Waker::noop()));
        assert!(!first.take(MOST, Waker::noop()));
        drop(first);
        assert!(third.take(1 << 20, Waker::noop()), "the line is empty");
        drop(third);
        let held = room.lock();
        assert_eq!((held.bytes, held.line.len()), (0, 0));
    }

    #[test]
    fn whoever_holds_nothing_has_room_for_a_little() {
        let room = Room::new(0);
        let (mut greedy, mut small) = (room.share(), room.share());
        assert!(greedy.take(MOST, Waker::noop()));
        assert!(small.take(ALWAYS_BYTES, Waker::noop()));
        assert!(!small.take(1, Waker::noop()), "but once");
        small.give(ALWAYS_BYTES);
        assert!(small.take(1, Waker::noop()));
        assert!(!room.share().take(ALWAYS_BYTES + 1, Waker::noop()));
    }
}
