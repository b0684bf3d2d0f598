//! The door between connections and the lane: here a write gets its place among all writes.
//!
//! A write of whole blocks goes into the data buffer on the connection's own thread and, where the mode lets it and
//! without FUA, is answered there: at queue depth 1 nobody waits for another thread. What needs more goes through the
//! lane's inbox alone: writes whose first and last blocks must be read, runs of zeroes, and everything while there is no
//! room.
//!
//! One order for all: the data buffer, the tickets and the inbox agree on it, because whoever writes to them from a
//! connection holds the door, and nothing is placed ahead of what waits in the inbox for its place.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use farseal_core::limits::ACCEPTED_BYTES_MAX;
use farseal_core::primary::What;
use farseal_core::units::{BlockBytes, BlockCount, Extent, Lba, Ticket};

use super::buffer::Buffer;
use super::pacer::Pacer;
use super::reader::ReadForCopy;
use super::{Event, wide};
use crate::nbd::completion::Reply;
use crate::nbd::export::Answer;

/// See the module.
#[derive(Debug)]
pub struct Intake {
    buffer: Arc<Buffer>,
    block_bytes: BlockBytes,
    next_ticket: AtomicU64,
    /// The lane would take another write now.
    room: AtomicBool,
    /// A write without FUA is answered when it is placed.
    answering: AtomicBool,
    /// Bytes in the data buffer that the lane has not heard of yet.
    unheard: AtomicU64,
    /// Requests in the inbox, or held back by the lane, whose writes have no place yet.
    unplaced: AtomicUsize,
    pub(super) pacer: Pacer,
    door: Mutex<Sender<Event>>,
}

impl Intake {
    pub fn new(buffer: Arc<Buffer>, block_bytes: BlockBytes, inbox: Sender<Event>, pacer: Pacer) -> Self {
        Self {
            buffer,
            block_bytes,
            next_ticket: AtomicU64::new(1),
            room: AtomicBool::new(false),
            answering: AtomicBool::new(true),
            unheard: AtomicU64::new(0),
            unplaced: AtomicUsize::new(0),
            pacer,
            door: Mutex::new(inbox),
        }
    }

    /// A write of an initiator.
    pub fn write(&self, offset: u64, data: Bytes, fua: bool, reply: Reply) {
        let reply = self.pacer.paced(reply);
        let door = self.door();
        let whole = self.whole_blocks(offset, &data).filter(|_| self.may_place(wide(data.len())));
        let Some(extent) = whole else {
            return self.send_unplaced(&door, Event::Write { offset, data, fua, reply });
        };
        let ticket = self.ticket();
        self.unheard.fetch_add(wide(data.len()), Ordering::Relaxed);
        self.buffer.write(ticket, extent.first(), &data);
        let at_once = !fua && self.answering.load(Ordering::Relaxed);
        let (now, later) = if at_once { (Some(reply), None) } else { (None, Some(reply)) };
        let sent = door.send(Event::Placed { ticket, extent, data, fua, reply: later });
        drop(door);
        if let (Ok(()), Some(reply)) = (sent, now) {
            reply.done(Ok(Answer::Done));
        }
    }

    /// A run of zeroes of an initiator.
    pub fn zero(&self, offset: u64, len: u64, fua: bool, what: What, reply: Reply) {
        let reply = self.pacer.paced(reply);
        self.send_unplaced(&self.door(), Event::Zero { offset, len, fua, what, reply });
    }

    /// An initiator's FLUSH: it covers everything that was answered before it came.
    pub fn flush(&self, reply: Reply) {
        let _ = self.door().send(Event::Flush { reply });
    }

    /// Something was read for a copy: behind every write that the read may have seen.
    pub(super) fn copy_read(&self, extent: Extent, read: ReadForCopy) {
        let _ = self.door().send(Event::CopyRead { extent, read });
    }

    /// The next ticket. The lane takes tickets for what it places itself while something is unplaced, or nothing that
    /// initiators see depends on them.
    pub(super) fn ticket(&self) -> Ticket {
        Ticket(self.next_ticket.fetch_add(1, Ordering::Relaxed))
    }

    /// The lane has heard of a write that was placed here.
    pub(super) fn heard(&self, bytes: usize) {
        self.unheard.fetch_sub(wide(bytes), Ordering::Relaxed);
    }

    /// A request that was not placed here has its place now, or was refused.
    pub(super) fn placed(&self) {
        self.unplaced.fetch_sub(1, Ordering::Release);
    }

    /// Whether connections may go on placing writes.
    pub(super) fn set_room(&self, room: bool) {
        self.room.store(room, Ordering::Release);
    }

    /// Whether a write is answered when it is placed, as the mode says.
    pub(super) fn set_answering(&self, answering: bool) {
        self.answering.store(answering, Ordering::Relaxed);
    }

    /// Nothing is placed here any more: whatever was, is in the inbox when this returns.
    pub(super) fn close(&self) {
        let _door = self.door();
        self.set_room(false);
    }

    /// The blocks of a write that covers each of them whole.
    fn whole_blocks(&self, offset: u64, data: &Bytes) -> Option<Extent> {
        let (block, len) = (self.block_bytes.as_u64(), wide(data.len()));
        let whole = offset.is_multiple_of(block) && len.is_multiple_of(block);
        whole.then(|| Extent::new(Lba(offset / block), BlockCount(len / block))).flatten()
    }

    fn may_place(&self, bytes: u64) -> bool {
        self.room.load(Ordering::Acquire)
            && self.unplaced.load(Ordering::Acquire) == 0
            && self.unheard.load(Ordering::Relaxed) + bytes <= ACCEPTED_BYTES_MAX.0
    }

    /// An event that cannot be sent takes its reply with it, which answers EIO.
    fn send_unplaced(&self, door: &Sender<Event>, event: Event) {
        self.unplaced.fetch_add(1, Ordering::Relaxed);
        let _ = door.send(event);
    }

    fn door(&self) -> MutexGuard<'_, Sender<Event>> {
        self.door.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::sync::mpsc::{Receiver, channel};

    use super::*;

    fn intake() -> (Intake, Arc<Buffer>, Receiver<Event>) {
        let block = BlockBytes::DEFAULT;
        let buffer = Arc::new(Buffer::new(block));
        let (inbox, events) = channel();
        let intake = Intake::new(Arc::clone(&buffer), block, inbox, Pacer::start().unwrap());
        intake.set_room(true);
        (intake, buffer, events)
    }

    /// Writes blocks; whether it was answered at once.
    fn write(intake: &Intake, offset: u64, len: usize, fua: bool) -> bool {
        let answered = Arc::new(AtomicBool::new(false));
        let heard = Arc::clone(&answered);
        let reply = Reply::calling(move |outcome| heard.store(outcome.is_ok(), Ordering::Relaxed));
        intake.write(offset, Bytes::from(vec![1; len]), fua, reply);
        answered.load(Ordering::Relaxed)
    }

    /// P: placed in the buffer, W: waits for its place; with ! its answer is still due.
    fn in_the_inbox(events: &Receiver<Event>) -> String {
        let shown = events.try_iter().map(|event| {
            if let Event::Placed { reply, .. } = event {
                return if reply.is_some() { "P!" } else { "P" };
            }
            if matches!(event, Event::Write { .. } | Event::Zero { .. }) { "W!" } else { "?" }
        });
        shown.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn whole_blocks_are_answered_where_they_arrive_and_fua_when_it_is_durable() {
        let (intake, buffer, events) = intake();
        assert!(write(&intake, 0, 8192, false));
        assert!(!write(&intake, 4096, 4096, true));
        assert_eq!(in_the_inbox(&events), "P P!");
        let extent = Extent::new(Lba(0), BlockCount(2)).unwrap();
        assert_eq!(buffer.newest(extent), Some(Ticket(2)), "both can be read");
    }

    #[test]
    fn nothing_is_placed_ahead_of_what_waits_for_its_place() {
        let (intake, buffer, events) = intake();
        assert!(!write(&intake, 100, 200, false), "the rest of its block must be read first");
        assert!(!write(&intake, 0, 4096, false));
        assert_eq!(buffer.newest(Extent::new(Lba(0), BlockCount(1)).unwrap()), None);
        assert_eq!(in_the_inbox(&events), "W! W!");
        intake.placed();
        assert!(!write(&intake, 0, 4096, false), "one waits still");
        intake.placed();
        intake.placed();
        assert!(write(&intake, 0, 4096, false));
        assert_eq!(in_the_inbox(&events), "W! P");
    }

    #[test]
    fn no_more_is_placed_than_the_lane_can_take_and_nothing_without_room() {
        let (intake, _, events) = intake();
        let most = usize::try_from(ACCEPTED_BYTES_MAX.0).unwrap();
        assert!(write(&intake, 0, most, false));
        assert!(!write(&intake, 0, 4096, false), "it is full");
        intake.heard(most);
        intake.placed();
        assert!(write(&intake, 0, 4096, false));
        intake.close();
        assert!(!write(&intake, 0, 4096, false));
        assert_eq!(in_the_inbox(&events), "P W! P W!");
    }

    #[test]
    fn a_lane_that_is_gone_answers_with_an_error() {
        let (intake, _, events) = intake();
        drop(events);
        assert!(!write(&intake, 0, 4096, false));
    }
}
