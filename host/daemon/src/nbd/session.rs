//! The transmission phase of one connection: one task, both directions.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_rustls::server::TlsStream;

use crate::nbd::completion::{Outcome, Queue, SlotId};
use crate::nbd::counters::Counters;
use crate::nbd::export::Export;
use crate::nbd::inbox::Inbox;
use crate::nbd::limits::{
    BACKLOG_BYTES, BURST_BYTES, CLOSE_DEADLINE, CLOSE_LINGER, DIRECT_READ, INBOX_BYTES, TLS_RECORD, WRITE_SLICES,
};
use crate::nbd::negotiate::Agreed;
use crate::nbd::outbox::Outbox;
use crate::nbd::pool::Pool;
use crate::nbd::room::{Room, Share};
use crate::nbd::session::requests::{Incoming, Step};
use crate::nbd::session::table::Table;
use crate::nbd::wire::Malformed;

mod answers;
mod requests;
mod table;

/// A stream that a session can run on.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Unpin + Send {
    /// Changes the keys of the sending side, if there are any. Says whether it did.
    fn refresh_keys(&mut self) -> bool {
        false
    }
}

impl Transport for TcpStream {}
impl Transport for UnixStream {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Transport for Box<TlsStream<S>> {
    fn refresh_keys(&mut self) -> bool {
        self.get_mut().1.refresh_traffic_keys().is_ok()
    }
}

/// What a session shares with its server.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    pub(crate) counters: Arc<Counters>,
    pub(crate) pool: Pool,
    pub(crate) room: Arc<Room>,
    /// How long a client may leave a reply unread or a payload half sent while others wait for its room.
    pub(crate) patience: Duration,
    /// Records after which keys are changed at a quiet moment.
    pub(crate) rekey_records: u64,
}

/// How a session ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum End {
    #[error("the client disconnected")]
    Disconnected,
    #[error("the export or the server was closed")]
    Closed,
    #[error("the client vanished")]
    Vanished,
    #[error("connection lost: {0}")]
    Lost(#[from] io::Error),
    #[error("the client left a reply unread, or a payload half sent, for too long")]
    Stuck,
    #[error("not NBD: {0}")]
    Malformed(#[from] Malformed),
}

/// Serves a negotiated connection to its end. `queue` may be closed by others to end it.
pub(crate) async fn run<S: Transport>(stream: S, agreed: Agreed, queue: Arc<Queue>, shared: Shared) -> End {
    let mut session = Session::new(stream, agreed, queue, shared);
    poll_fn(|cx| session.poll(cx)).await
}

struct Session<S> {
    stream: S,
    agreed: Agreed,
    export: Arc<dyn Export>,
    shared: Shared,
    queue: Arc<Queue>,
    inbox: Inbox,
    outbox: Outbox,
    table: Table,
    share: Share,
    /// Of this task, for whoever makes room.
    waker: Waker,
    unread: Patience,
    unsent: Patience,
    /// A payload on its way in.
    incoming: Option<Incoming>,
    /// Answers taken from the queue; kept for its allocation.
    answered: Vec<(SlotId, Outcome)>,
    phase: Phase,
    /// The last burst ended before the inbox did.
    burst_over: bool,
    /// How many bytes to read where no payload is expected.
    read_ahead: usize,
    /// Whether the queue was seen closed.
    closing: bool,
    /// The next request waits for room in flight.
    full: bool,
    unflushed: bool,
    records: u64,
}

enum Phase {
    Serving,
    /// DISC came: finish what is in flight, then end.
    Disconnecting,
    /// The export or the server goes away: refuse what comes, then end.
    Closing {
        timer: Pin<Box<Sleep>>,
        lingering: bool,
    },
}

impl<S: Transport> Session<S> {
    fn new(stream: S, agreed: Agreed, queue: Arc<Queue>, shared: Shared) -> Self {
        Self {
            stream,
            export: Arc::clone(&agreed.entry.export),
            agreed,
            share: shared.room.share(),
            waker: Waker::noop().clone(),
            unread: Patience::new(shared.patience),
            unsent: Patience::new(shared.patience),
            shared,
            queue,
            inbox: Inbox::default(),
            outbox: Outbox::default(),
            table: Table::default(),
            incoming: None,
            answered: Vec::new(),
            phase: Phase::Serving,
            burst_over: false,
            read_ahead: INBOX_BYTES,
            closing: false,
            full: false,
            unflushed: false,
            records: 0,
        }
    }

    /// Runs until nothing moves any more: read, gather answers, submit, write, and around again.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        match self.poll_all(cx) {
            Poll::Ready(Err(end) | Ok(end)) => Poll::Ready(end),
            Poll::Pending => Poll::Pending,
        }
    }

    fn poll_all(&mut self, cx: &mut Context<'_>) -> Poll<Result<End, End>> {
        self.waker.clone_from(cx.waker());
        loop {
            let mut moved = self.poll_fill(cx)?;
            // Before requests are taken, so that what came after a close is refused.
            moved |= self.take_answers();
            moved |= self.take_requests()?;
            // What the export answered at once leaves at once.
            moved |= self.take_answers();
            moved |= self.poll_drain(cx)?;
            if moved {
                continue;
            }
            if let Poll::Ready(end) = self.poll_end(cx) {
                return Poll::Ready(end);
            }
            if self.is_stuck(cx) {
                return Poll::Ready(Err(End::Stuck));
            }
            self.refresh_keys_when_quiet();
            if !self.unflushed_now(cx)? && self.queue.park(cx.waker(), self.closing) {
                return Poll::Pending;
            }
        }
    }

    /// Reads once, into a payload or ahead.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let waiting = self.full || self.burst_over || self.is_backed_up();
        if matches!(self.phase, Phase::Disconnecting) || (waiting && self.incoming.is_none()) {
            return Ok(false);
        }
        let inbox_empty = self.inbox.unread().is_empty();
        let direct =
            self.incoming.as_mut().and_then(Incoming::room).filter(|room| inbox_empty && room.len() >= DIRECT_READ);
        let is_direct = direct.is_some();
        let mut buffer = ReadBuf::new(match direct {
            Some(room) => room,
            None => self.inbox.room(self.read_ahead),
        });
        if buffer.capacity() == 0 {
            return Ok(false);
        }
        match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
            Poll::Pending => Ok(false),
            Poll::Ready(Err(lost)) => Err(End::Lost(lost)),
            Poll::Ready(Ok(())) => {
                let count = buffer.filled().len();
                self.unsent.moved();
                match (count, is_direct, &mut self.incoming) {
                    (0, _, _) => return Err(End::Vanished),
                    (_, true, Some(incoming)) => incoming.filled(count),
                    (_, _, _) => self.inbox.filled(count),
                }
                Ok(true)
            }
        }
    }

    /// Submits the requests that are here in full and have room in flight; at most a burst, so that the
    /// first answers leave while the next requests are carried out.
    fn take_requests(&mut self) -> Result<bool, End> {
        // While a burst is over the socket is not asked, and nothing would wake this task for what comes on it: that it
        // may be asked again is a move.
        let (mut moved, mut submitted, mut burst) = (mem::take(&mut self.burst_over), false, 0);
        while !self.burst_over {
            match self.next_request()? {
                Step::Stop => break,
                Step::Moved => moved = true,
                Step::Submitted { held } => {
                    moved = true;
                    submitted = true;
                    burst += held;
                    self.burst_over = burst >= BURST_BYTES;
                }
            }
        }
        if submitted {
            self.export.submitted();
        }
        Ok(moved)
    }

    /// Whether the client must take replies before it gets more.
    fn is_backed_up(&self) -> bool {
        self.outbox.unsent() >= BACKLOG_BYTES
    }

    fn take_answers(&mut self) -> bool {
        let mut answered = mem::take(&mut self.answered);
        self.closing = self.queue.take(&mut answered);
        if self.closing && matches!(self.phase, Phase::Serving) {
            let timer = Box::pin(sleep_until(Instant::now() + CLOSE_DEADLINE));
            self.phase = Phase::Closing { timer, lingering: false };
        }
        let moved = !answered.is_empty();
        for (slot, outcome) in answered.drain(..) {
            self.answer(slot, outcome);
        }
        self.answered = answered;
        moved
    }

    /// Writes until all is written or the socket is full.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let mut moved = false;
        while !self.outbox.is_empty() {
            let mut slices = [IoSlice::new(&[]); WRITE_SLICES];
            let used = self.outbox.slices(&mut slices);
            match Pin::new(&mut self.stream).poll_write_vectored(cx, &slices[..used]) {
                Poll::Pending => break,
                Poll::Ready(Ok(0)) => return Err(End::Lost(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Err(lost)) => return Err(End::Lost(lost)),
                Poll::Ready(Ok(count)) => {
                    let released = self.outbox.advance(count);
                    self.table.release(released.replies, released.bytes);
                    self.share.give(released.bytes);
                    self.unread.moved();
                    self.records += u64::try_from(count.div_ceil(TLS_RECORD)).unwrap_or(u64::MAX);
                    self.full = false;
                    self.unflushed = true;
                    moved = true;
                }
            }
        }
        Ok(moved)
    }

    /// Pushes out what TLS holds back. Says whether a flush completed, after which there may be more to do.
    fn unflushed_now(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        if !self.unflushed {
            return Ok(false);
        }
        match Pin::new(&mut self.stream).poll_flush(cx) {
            Poll::Pending => Ok(false),
            Poll::Ready(flushed) => {
                flushed?;
                self.unflushed = false;
                Ok(true)
            }
        }
    }

    /// Whether the session is over.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Result<End, End>> {
        let idle = self.table.is_empty() && self.outbox.is_empty();
        match &mut self.phase {
            Phase::Serving => Poll::Pending,
            Phase::Disconnecting if idle => {
                ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
                Poll::Ready(Ok(End::Disconnected))
            }
            Phase::Disconnecting => Poll::Pending,
            Phase::Closing { timer, lingering } => {
                if idle && !*lingering {
                    *lingering = true;
                    timer.as_mut().reset(Instant::now() + CLOSE_LINGER);
                }
                ready!(timer.as_mut().poll(cx));
                Poll::Ready(Ok(End::Closed))
            }
        }
    }

    /// Whether the client holds room that others wait for, and does nothing about it. An initiator that is stopped for hours, as a
    /// machine that sleeps, keeps its connection where nobody does.
    fn is_stuck(&mut self, cx: &mut Context<'_>) -> bool {
        let share = &self.share;
        let unread = self.unread.is_over(!self.outbox.is_empty(), || share.is_wanted(), cx);
        unread || self.unsent.is_over(self.incoming.is_some(), || share.is_wanted(), cx)
    }

    /// Changes TLS keys where nothing is on its way in either direction (see [`crate::nbd::tls`]).
    fn refresh_keys_when_quiet(&mut self) {
        let quiet = self.table.is_empty()
            && self.outbox.is_empty()
            && self.incoming.is_none()
            && self.inbox.unread().is_empty();
        if quiet && self.records >= self.shared.rekey_records {
            self.records = 0;
            if self.stream.refresh_keys() {
                Counters::count(&self.shared.counters.rekeys);
                self.unflushed = true;
            }
        }
    }
}

/// How long something waits that does not move.
struct Patience {
    most: Duration,
    since: Option<Instant>,
    /// Fires no earlier than it has to; set anew once in that time, and not with each move.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Patience {
    fn new(most: Duration) -> Self {
        Self { most, since: None, timer: None }
    }

    fn moved(&mut self) {
        self.since = None;
    }

    /// Whether it waits too long, as of now, and that is too much.
    fn is_over(&mut self, waits: bool, is_too_much: impl FnOnce() -> bool, cx: &mut Context<'_>) -> bool {
        if !waits {
            self.since = None;
            return false;
        }
        let until = *self.since.get_or_insert_with(Instant::now) + self.most;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(until)));
        while timer.as_mut().poll(cx).is_ready() {
            if timer.deadline() < until {
                timer.as_mut().reset(until);
                continue;
            }
            if is_too_much() {
                return true;
            }
            let now = Instant::now();
            self.since = Some(now);
            timer.as_mut().reset(now + self.most);
            if timer.as_mut().poll(cx).is_ready() {
                cx.waker().wake_by_ref();
            }
            return false;
        }
        false
    }
}

impl<S> Drop for Session<S> {
    fn drop(&mut self) {
        self.queue.abandon();
        Counters::add(&self.shared.counters.abandoned, self.table.in_flight());
    }
}
