//! Slows initiators down while the journal is nearly full: answers to their writes come a little later.
//!
//! Nobody sleeps on a connection's thread or holds a lock meanwhile: a write that is slowed is placed as ever, and its
//! answer waits with a thread of its own. An answer is late by the delay that was in force when its write came, at most.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use crate::nbd::completion::Reply;
use crate::nbd::export::{Answer, Errno};

/// See the module.
#[derive(Debug)]
pub struct Pacer {
    /// Microseconds; 0 while nobody is slowed.
    delay: AtomicU64,
    late: Sender<Late>,
}

/// An answer that waits.
#[derive(Debug)]
struct Late {
    due: Instant,
    reply: Reply,
    outcome: Result<Answer, Errno>,
}

impl Pacer {
    /// Starts its thread, which ends with it.
    pub fn start() -> std::io::Result<Self> {
        let (late, answers) = channel();
        std::thread::Builder::new().name("pacer".into()).spawn(move || answer(&answers))?;
        Ok(Self { delay: AtomicU64::new(0), late })
    }

    /// From now on writes are slowed by this much, in microseconds.
    pub fn set_delay(&self, delay: u64) {
        self.delay.store(delay, Ordering::Relaxed);
    }

    /// The reply of a write that just came. Costs one load while nobody is slowed.
    pub fn paced(&self, reply: Reply) -> Reply {
        match self.delay.load(Ordering::Relaxed) {
            0 => reply,
            delay => {
                let (due, late) = (Instant::now() + Duration::from_micros(delay), self.late.clone());
                // A thread that is gone takes the reply with it, which answers EIO.
                Reply::calling(move |outcome| drop(late.send(Late { due, reply, outcome })))
            }
        }
    }
}

/// In the order in which they were ready: each came before the next, so that none waits longer than the greatest delay.
fn answer(answers: &Receiver<Late>) {
    while let Ok(Late { due, reply, outcome }) = answers.recv() {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        reply.done(outcome);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn an_answer_is_late_while_writes_are_slowed_and_otherwise_comes_at_once() {
        let pacer = Pacer::start().unwrap();
        let (sender, answered) = channel();
        let reply = |sender: &Sender<bool>| {
            let sender = sender.clone();
            Reply::calling(move |outcome| sender.send(outcome.is_ok()).unwrap())
        };
        pacer.paced(reply(&sender)).done(Ok(Answer::Done));
        assert_eq!(answered.try_recv(), Ok(true), "at once");
        pacer.set_delay(20_000);
        let begun = Instant::now();
        for _ in 0..3 {
            pacer.paced(reply(&sender)).done(Ok(Answer::Done));
        }
        for _ in 0..3 {
            assert!(answered.recv().unwrap());
        }
        assert!(begun.elapsed() >= Duration::from_micros(20_000), "never before it is due");
        pacer.paced(reply(&sender)).done(Err(Errno::Io));
        assert_eq!(answered.recv(), Ok(false), "what failed fails");
    }
}
