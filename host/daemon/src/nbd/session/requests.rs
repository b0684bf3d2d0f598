//! From bytes to submitted requests.

use std::sync::Arc;

use crate::nbd::admit::{Command, Refusal, admit};
use crate::nbd::completion::{Reply, SlotId};
use crate::nbd::counters::Counters;
use crate::nbd::export::{Errno, Request};
use crate::nbd::limits::{DIRECT_READ, INBOX_BYTES, MAX_PAYLOAD};
use crate::nbd::pool::Buffer;
use crate::nbd::session::table::Slot;
use crate::nbd::session::{End, Phase, Session, Transport};
use crate::nbd::wire::{REQUEST_BYTES, RequestHeader, cmd};

/// A payload on its way in.
pub(super) enum Incoming {
    /// Of a write that will be submitted when it is complete.
    Keep { header: RequestHeader, fua: bool, buffer: Buffer, filled: usize },
    /// Of a write that is refused when all of it is gone: a client may not expect the reply before.
    Skip { header: RequestHeader, refusal: Refusal, left: usize },
}

/// What became of one attempt to take a request.
pub(super) enum Step {
    /// More bytes or more room are needed.
    Stop,
    /// Bytes were consumed.
    Moved,
    /// A request went to the export, which holds so many bytes of payload.
    Submitted { held: usize },
}

impl Incoming {
    /// Where the rest of a kept payload belongs.
    pub(super) fn room(&mut self) -> Option<&mut [u8]> {
        match self {
            Self::Keep { buffer, filled, .. } => Some(&mut buffer[*filled..]),
            Self::Skip { .. } => None,
        }
    }

    /// Says that `count` bytes were put into [`room`](Self::room).
    pub(super) fn filled(&mut self, count: usize) {
        if let Self::Keep { filled, .. } = self {
            *filled += count;
        }
    }
}

impl<S: Transport> Session<S> {
    /// Takes the next thing out of the inbox.
    pub(super) fn next_request(&mut self) -> Result<Step, End> {
        if matches!(self.phase, Phase::Disconnecting) {
            return Ok(Step::Stop);
        }
        match self.incoming.take() {
            None => self.next_header(),
            Some(incoming) => Ok(self.next_payload(incoming)),
        }
    }

    fn next_header(&mut self) -> Result<Step, End> {
        if self.is_backed_up() {
            // Others need not wait until its client reads.
            self.share.leave();
            return Ok(Step::Stop);
        }
        let Some(bytes) = self.inbox.peek::<REQUEST_BYTES>() else {
            return Ok(Step::Stop);
        };
        let header = RequestHeader::decode(bytes)?;
        let held = held(&header);
        self.full = !self.table.has_room(held) || !self.share.take(held, &self.waker);
        if self.full {
            return Ok(Step::Stop);
        }
        self.inbox.consume(REQUEST_BYTES);
        let closing = matches!(self.phase, Phase::Closing { .. }) && header.command != cmd::DISC;
        let verdict = if closing { Err(CLOSING) } else { admit(&header, &self.agreed.terms) };
        match verdict {
            Ok(Command::Disconnect) => self.phase = Phase::Disconnecting,
            Ok(Command::Write { fua }) => {
                self.table.occupy(held);
                let buffer = self.shared.pool.take(held);
                // After a large payload another one is likely: what is read ahead of it would be copied.
                self.read_ahead = if held > INBOX_BYTES { DIRECT_READ } else { INBOX_BYTES };
                self.incoming = Some(Incoming::Keep { header, fua, buffer, filled: 0 });
            }
            Ok(command) => {
                self.table.occupy(held);
                self.submit(&header, command, held);
                return Ok(Step::Submitted { held });
            }
            Err(refusal) => {
                self.share.give(held);
                self.table.occupy(0);
                let left = usize::try_from(header.payload()).unwrap_or(usize::MAX);
                self.incoming = Some(Incoming::Skip { header, refusal, left });
            }
        }
        Ok(Step::Moved)
    }

    fn next_payload(&mut self, incoming: Incoming) -> Step {
        match incoming {
            Incoming::Keep { header, fua, mut buffer, mut filled } => {
                let moved = self.inbox.move_into(&mut buffer[filled..]);
                filled += moved;
                if filled < buffer.len() {
                    self.incoming = Some(Incoming::Keep { header, fua, buffer, filled });
                    return if moved > 0 { Step::Moved } else { Step::Stop };
                }
                self.write(&header, fua, buffer);
                Step::Submitted { held: filled }
            }
            Incoming::Skip { header, refusal, left } => {
                let count = left.min(self.inbox.unread().len());
                self.inbox.consume(count);
                if count < left {
                    self.incoming = Some(Incoming::Skip { header, refusal, left: left - count });
                    return if count > 0 { Step::Moved } else { Step::Stop };
                }
                Counters::count(&self.shared.counters.refused);
                self.refuse(header.cookie, refusal);
                Step::Moved
            }
        }
    }

    fn write(&mut self, header: &RequestHeader, fua: bool, buffer: Buffer) {
        let counters = &self.shared.counters;
        Counters::count(&counters.writes);
        Counters::add(&counters.bytes_written, buffer.len());
        let reply = self.reply(header, Command::Write { fua }, buffer.len(), 1);
        self.export.submit(Request::Write { offset: header.offset, data: buffer.freeze(), fua }, reply);
    }

    /// Submits anything but a write.
    fn submit(&mut self, header: &RequestHeader, command: Command, held: usize) {
        let (offset, len) = (header.offset, header.len);
        let counters = Arc::clone(&self.shared.counters);
        let (counter, request) = match command {
            Command::Read { .. } => (&counters.reads, Request::Read { offset, len }),
            Command::Flush => (&counters.flushes, Request::Flush),
            Command::Trim { fua } => (&counters.trims, Request::Trim { offset, len, fua }),
            Command::Cache => (&counters.caches, Request::Cache { offset, len }),
            Command::WriteZeroes { fua, no_hole, fast } => {
                (&counters.zeroes, Request::WriteZeroes { offset, len, fua, no_hole, fast })
            }
            Command::BlockStatus { one_only } => {
                Counters::count(&counters.block_statuses);
                self.submit_block_status(header, command, one_only);
                return;
            }
            // Handled by the callers.
            Command::Write { .. } | Command::Disconnect => return,
        };
        Counters::count(counter);
        let reply = self.reply(header, command, held, 1);
        self.export.submit(request, reply);
    }

    /// One request a context; their answers are chunks of one reply.
    fn submit_block_status(&mut self, header: &RequestHeader, command: Command, one_only: bool) {
        let contexts = self.agreed.terms.contexts.clone();
        let slot = self.insert(header, command, 0, contexts.len());
        for context in contexts {
            let reply = Reply::queued(Arc::clone(&self.queue), SlotId { part: context.0, ..slot });
            let request = Request::BlockStatus { context, offset: header.offset, len: header.len, one_only };
            self.export.submit(request, reply);
        }
    }

    fn reply(&mut self, header: &RequestHeader, command: Command, held: usize, parts: usize) -> Reply {
        let slot = self.insert(header, command, held, parts);
        Reply::queued(Arc::clone(&self.queue), slot)
    }

    fn insert(&mut self, header: &RequestHeader, command: Command, held: usize, parts: usize) -> SlotId {
        let RequestHeader { cookie, offset, len, .. } = *header;
        self.table.insert(Slot { cookie, command, offset, len, parts, held })
    }
}

/// Payload bytes that a request holds while it is in flight.
fn held(header: &RequestHeader) -> usize {
    let carries = matches!(header.command, cmd::READ | cmd::WRITE) && header.len <= MAX_PAYLOAD;
    if carries { usize::try_from(header.len).unwrap_or(usize::MAX) } else { 0 }
}

const CLOSING: Refusal = Refusal { errno: Errno::Shutdown, text: Errno::Shutdown.text() };
