//! How an export answers: one-shot replies that any thread may complete, gathered per connection.

use std::fmt;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use crate::nbd::export::{Answer, Errno};

/// How a request ended.
pub type Outcome = Result<Answer, Errno>;

/// The right and duty to answer one request. Dropping it unanswered answers [`Errno::Io`].
#[must_use = "dropping a reply answers EIO"]
pub struct Reply {
    route: Option<Route>,
}

enum Route {
    Connection { queue: Arc<Queue>, slot: SlotId },
    Call(Box<dyn FnOnce(Outcome) + Send>),
}

impl Reply {
    /// A reply that gives its outcome to `call`, for exports driven without a connection.
    pub fn calling(call: impl FnOnce(Outcome) + Send + 'static) -> Self {
        Self { route: Some(Route::Call(Box::new(call))) }
    }

    /// A reply that lands in a connection's queue.
    pub(crate) fn queued(queue: Arc<Queue>, slot: SlotId) -> Self {
        Self { route: Some(Route::Connection { queue, slot }) }
    }

    /// Answers. If the connection sleeps it is woken.
    pub fn done(self, outcome: Outcome) {
        let mut batch = Batch::default();
        self.done_in(&mut batch, outcome);
    }

    /// Answers, and leaves the wake-up to `batch`, so that many answers cost one.
    pub fn done_in(mut self, batch: &mut Batch, outcome: Outcome) {
        self.complete(batch, outcome);
    }

    fn complete(&mut self, batch: &mut Batch, outcome: Outcome) {
        match self.route.take() {
            None => {}
            Some(Route::Call(call)) => call(outcome),
            Some(Route::Connection { queue, slot }) => {
                batch.wakers.extend(queue.push(slot, outcome));
            }
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        self.complete(&mut Batch::default(), Err(Errno::Io));
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.route {
            Some(Route::Connection { slot, .. }) => write!(f, "Reply({slot:?})"),
            Some(Route::Call(_)) => f.write_str("Reply(call)"),
            None => f.write_str("Reply(answered)"),
        }
    }
}

/// Wake-ups held back while many replies are answered. Dropping it wakes each connection once.
#[derive(Debug, Default)]
pub struct Batch {
    wakers: Vec<Waker>,
}

impl Drop for Batch {
    fn drop(&mut self) {
        for waker in self.wakers.drain(..) {
            waker.wake();
        }
    }
}

/// Where an answer belongs in its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SlotId {
    /// Place of the request in the table of requests in flight.
    pub(crate) place: u32,
    /// For a block status, the metadata context that this answers; otherwise 0.
    pub(crate) part: u32,
}

/// A connection's answered requests, and the bell that wakes its task.
///
/// Bounded by the connection: it admits [`crate::nbd::limits::MAX_IN_FLIGHT`] requests, and each
/// answers at most once per context.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    ready: Vec<(SlotId, Outcome)>,
    /// Present only while the task sleeps.
    sleeper: Option<Waker>,
    closing: bool,
    /// The connection is gone; answers are dropped.
    abandoned: bool,
}

impl Queue {
    /// Adds an answer; returns the waker to ring if the task sleeps.
    fn push(&self, slot: SlotId, outcome: Outcome) -> Option<Waker> {
        let mut state = self.lock();
        if state.abandoned {
            return None;
        }
        state.ready.push((slot, outcome));
        state.sleeper.take()
    }

    /// Moves all answers into the empty `into`, keeping both allocations in use, and marks the task awake.
    pub(crate) fn take(&self, into: &mut Vec<(SlotId, Outcome)>) -> bool {
        let mut state = self.lock();
        state.sleeper = None;
        mem::swap(&mut state.ready, into);
        state.closing
    }

    /// Marks the task asleep, unless an answer came meanwhile or `closing` is news to it.
    pub(crate) fn park(&self, waker: &Waker, knows_closing: bool) -> bool {
        let mut state = self.lock();
        if !state.ready.is_empty() || state.closing != knows_closing {
            return false;
        }
        state.sleeper = Some(waker.clone());
        true
    }

    /// Asks the session to end, and wakes it.
    pub(crate) fn close(&self) {
        let sleeper = {
            let mut state = self.lock();
            state.closing = true;
            state.sleeper.take()
        };
        if let Some(waker) = sleeper {
            waker.wake();
        }
    }

    /// The connection is gone: what is queued and what comes is dropped.
    pub(crate) fn abandon(&self) {
        let dropped = {
            let mut state = self.lock();
            state.abandoned = true;
            state.sleeper = None;
            mem::take(&mut state.ready)
        };
        drop(dropped);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    fn slot(place: u32) -> SlotId {
        SlotId { place, part: 0 }
    }

    #[derive(Default)]
    struct Rings(AtomicUsize);

    impl Wake for Rings {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_dropped_reply_answers_eio() {
        let queue = Arc::new(Queue::default());
        drop(Reply::queued(Arc::clone(&queue), slot(3)));
        let mut got = Vec::new();
        queue.take(&mut got);
        assert_eq!(got, [(slot(3), Err(Errno::Io))]);
    }

    #[test]
    fn an_answered_reply_answers_once() {
        let queue = Arc::new(Queue::default());
        Reply::queued(Arc::clone(&queue), slot(0)).done(Ok(Answer::Done));
        let mut got = Vec::new();
        queue.take(&mut got);
        assert_eq!(got, [(slot(0), Ok(Answer::Done))]);
    }

    #[test]
    fn a_sleeping_connection_is_woken_once_for_a_batch() {
        let (queue, rings) = (Arc::new(Queue::default()), Arc::new(Rings::default()));
        assert!(queue.park(&Waker::from(Arc::clone(&rings)), false));
        let mut batch = Batch::default();
        for place in 0..5 {
            Reply::queued(Arc::clone(&queue), slot(place)).done_in(&mut batch, Ok(Answer::Done));
        }
        assert_eq!(rings.0.load(Ordering::Relaxed), 0);
        drop(batch);
        assert_eq!(rings.0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_connection_does_not_sleep_on_an_answer_or_on_news_of_closing() {
        let queue = Arc::new(Queue::default());
        Reply::queued(Arc::clone(&queue), slot(0)).done(Ok(Answer::Done));
        assert!(!queue.park(Waker::noop(), false));
        queue.take(&mut Vec::new());
        assert!(queue.park(Waker::noop(), false));
        queue.close();
        assert!(!queue.park(Waker::noop(), false));
        assert!(queue.park(Waker::noop(), true));
    }

    #[test]
    fn an_abandoned_queue_keeps_nothing() {
        let queue = Arc::new(Queue::default());
        queue.abandon();
        Reply::queued(Arc::clone(&queue), slot(0)).done(Ok(Answer::Done));
        let mut got = Vec::new();
        queue.take(&mut got);
        assert!(got.is_empty());
    }

    #[test]
    fn a_calling_reply_hands_over_its_outcome() {
        let (sender, receiver) = std::sync::mpsc::channel();
        Reply::calling(move |outcome| sender.send(outcome).unwrap()).done(Err(Errno::NoSpc));
        assert_eq!(receiver.recv().unwrap(), Err(Errno::NoSpc));
    }
}
