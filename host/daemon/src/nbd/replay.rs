//! One connection from bytes in memory: what an initiator sent, played without a socket, and what it would have got.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::Builder;

use crate::nbd::completion::Queue;
use crate::nbd::handshake::{Negotiated, Setting, negotiate};
use crate::nbd::limits::{PAYLOAD_BYTES, REKEY_RECORDS, STUCK_DEADLINE};
use crate::nbd::pool::Pool;
use crate::nbd::registry::Registry;
use crate::nbd::room::Room;
use crate::nbd::session::{self, End, Shared, Transport};
use crate::nbd::tls::TlsMode;

/// A connection that reached transmission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replayed {
    /// What the server sent before transmission.
    pub negotiation: Vec<u8>,
    /// Bytes of the initiator that negotiation took.
    pub entered_at: usize,
    /// What the server sent in transmission.
    pub replies: Vec<u8>,
    /// The connection was ended because what came is not NBD.
    pub malformed: bool,
}

/// Plays `sent` to the exports of `registry`, in pieces of at most `piece` bytes. The initiator vanishes at its end.
/// `None` where negotiation led to no transmission.
///
/// # Errors
/// No runtime could be made.
pub fn replay(registry: &Registry, sent: &[u8], piece: usize) -> io::Result<Option<Replayed>> {
    let runtime = Builder::new_current_thread().enable_time().build()?;
    let tape = Tape { sent: sent.to_vec(), at: 0, got: Vec::new(), piece: piece.max(1) };
    Ok(runtime.block_on(play(registry, tape)))
}

async fn play(registry: &Registry, tape: Tape) -> Option<Replayed> {
    let setting = Setting { registry, tls: &TlsMode::Off, stopping: &|| false };
    let Ok(Negotiated::Plain(mut tape, agreed)) = negotiate(tape, &setting).await else { return None };
    let (negotiation, entered_at) = (std::mem::take(&mut tape.got), tape.at);
    let queue = Arc::new(Queue::default());
    agreed.entry.join(&queue);
    let shared = Shared {
        counters: Arc::default(),
        pool: Pool::default(),
        room: Room::new(PAYLOAD_BYTES),
        patience: STUCK_DEADLINE,
        rekey_records: REKEY_RECORDS,
    };
    let end = session::run(&mut tape, agreed, queue, shared).await;
    Some(Replayed { negotiation, entered_at, replies: tape.got, malformed: matches!(end, End::Malformed(_)) })
}

/// A stream whose other end has said everything already.
#[derive(Debug)]
struct Tape {
    sent: Vec<u8>,
    at: usize,
    got: Vec<u8>,
    piece: usize,
}

impl Transport for &mut Tape {}

impl AsyncRead for Tape {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let len = into.remaining().min(self.piece).min(self.sent.len() - self.at);
        into.put_slice(&self.sent[self.at..self.at + len]);
        self.at += len;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tape {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let len = bytes.len().min(self.piece);
        self.got.extend_from_slice(&bytes[..len]);
        Poll::Ready(Ok(len))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
