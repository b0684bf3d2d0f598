//! The door between connections and the lane: here a write gets its place among all writes.
//!
//! A write of whole blocks goes into the data buffer on the connection's own thread and, where the mode lets it and
//! without FUA, is answered there: at queue depth 1 nobody waits for another thread. What needs more goes through the
//! lane's inbox alone: writes whose first and last blocks must be read, runs of zeroes, and everything while there is no
//! room.
//!
//! One order for all: the data buffer, the tickets and the inbox agree on it, because whoever writes to them from a
//! connection holds the door, and nothing is placed ahead of what waits in the inbox for its place.
//!
//! A group's cut is opened here too: what had its place before is below the cut, and what is placed after is not answered
//! before the release, nor shown to readers. That is one look at what the door guards anyway; a read looks at one flag,
//! after it has read: a read that found a withheld write finds the flag up.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use farseal_core::group::{Hold, LaneStanding};
use farseal_core::limits::{ACCEPTED_BYTES_MAX, CUT_HOLD_MAX};
use farseal_core::primary::{CutCopied, PauseState, What};
use farseal_core::units::{BlockBytes, BlockCount, CutNumber, Extent, Instant, Lba, Millis, Ticket};

use super::buffer::Buffer;
use super::pacer::Pacer;
use super::reader::ReadForCopy;
use super::{Compare, Event, Request};
use crate::clock::Clock;
use crate::nbd::completion::{Batch, Outcome, Reply};
use crate::nbd::export::Answer;
use crate::store::wide;

/// A hold that is older than this may have ended in the lane already, whose clock counts whole milliseconds.
const SURELY_HELD: Millis = Millis(CUT_HOLD_MAX.0 - 3);

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
    /// Answers are withheld for a cut.
    holding: AtomicBool,
    /// The next ticket when the last cut was opened.
    tickets_at_cut: AtomicU64,
    standing: Mutex<LaneStanding>,
    clock: Clock,
    door: Mutex<Door>,
}

/// What the door guards.
#[derive(Debug)]
struct Door {
    inbox: Sender<Event>,
    held: Option<Held>,
}

/// Answers that are withheld.
#[derive(Debug)]
struct Held {
    hold: Hold,
    since: Instant,
    answers: Vec<(Reply, Outcome)>,
}

impl Intake {
    #[must_use]
    pub fn new(buffer: Arc<Buffer>, block_bytes: BlockBytes, clock: Clock, inbox: Sender<Event>, pacer: Pacer) -> Self {
        let standing = LaneStanding {
            in_order: false,
            written: true,
            swap: None,
            fenced: None,
            pause: PauseState::Running,
            newest: CutNumber::NONE,
            copied: CutCopied::default(),
        };
        Self {
            buffer,
            block_bytes,
            clock,
            holding: AtomicBool::new(false),
            tickets_at_cut: AtomicU64::new(0),
            standing: Mutex::new(standing),
            next_ticket: AtomicU64::new(1),
            room: AtomicBool::new(false),
            answering: AtomicBool::new(true),
            unheard: AtomicU64::new(0),
            unplaced: AtomicUsize::new(0),
            pacer,
            door: Mutex::new(Door { inbox, held: None }),
        }
    }

    /// A write of an initiator.
    pub fn write(&self, offset: u64, data: Bytes, fua: bool, reply: Reply) {
        let reply = self.pacer.paced(reply);
        let mut door = self.door();
        let whole = self.whole_blocks(offset, &data).filter(|_| self.may_place(wide(data.len())));
        let Some(extent) = whole else {
            return self.send_unplaced(&door, Request::Write { offset, data, fua, reply });
        };
        let ticket = self.ticket();
        self.unheard.fetch_add(wide(data.len()), Ordering::Relaxed);
        if let Some(held) = &mut door.held {
            held.hold.add(extent);
        }
        self.buffer.write(ticket, extent.first(), &data);
        let at_once = !fua && self.answering.load(Ordering::Relaxed);
        let (now, later) = if at_once { (Some(reply), None) } else { (None, Some(reply)) };
        let sent = door.inbox.send(Event::Placed { ticket, extent, data, fua, reply: later });
        let Door { held: Some(held), .. } = &mut *door else {
            drop(door);
            if let (Ok(()), Some(reply)) = (sent, now) {
                reply.done(Ok(Answer::Done));
            }
            return;
        };
        if let (Ok(()), Some(reply)) = (sent, now) {
            held.answers.push((reply, Ok(Answer::Done)));
        }
    }

    /// A run of zeroes of an initiator.
    pub fn zero(&self, offset: u64, len: u64, fua: bool, what: What, reply: Reply) {
        let reply = self.pacer.paced(reply);
        self.send_unplaced(&self.door(), Request::Zero { offset, len, fua, what, reply });
    }

    /// An initiator's FLUSH: it covers everything that was answered before it came.
    pub fn flush(&self, reply: Reply) {
        let _ = self.door().inbox.send(Event::Request(Request::Flush { reply }));
    }

    /// An initiator's READ has been done. Its answer waits where it would show a write above an open cut.
    pub fn read(&self, extent: Extent, reply: Reply, outcome: Outcome) {
        if self.holding.load(Ordering::Acquire)
            && let Some(held) = self.door().held.as_mut().filter(|held| held.hold.overlaps(extent))
        {
            return held.answers.push((reply, outcome));
        }
        reply.done(outcome);
    }

    /// A cut over this many lanes begins: what is placed from now on is above it, and withheld until the release. A cut
    /// of one lane withholds nothing.
    pub fn open_cut(&self, cut: CutNumber, lanes: u16) {
        let mut door = self.door();
        let over = door.held.take();
        if lanes > 1 {
            let since = self.clock.now().instant;
            door.held = Some(Held { hold: Hold::new(cut), since, answers: Vec::new() });
        }
        self.holding.store(door.held.is_some(), Ordering::Release);
        self.tickets_at_cut.store(self.next_ticket.load(Ordering::Relaxed), Ordering::Relaxed);
        let _ = door.inbox.send(Event::OpenCut { cut, lanes });
        drop(door);
        over.into_iter().for_each(Held::answer);
    }

    /// Answers what was withheld for this cut. Says whether it was withheld until now.
    pub fn release_cut(&self, cut: CutNumber) -> bool {
        let mut door = self.door();
        let held = door.held.take_if(|held| held.hold.cut() == cut);
        if held.is_some() {
            self.holding.store(false, Ordering::Release);
            let _ = door.inbox.send(Event::ReleaseCut { cut });
        }
        drop(door);
        let now = self.clock.now().instant;
        let whole = held.as_ref().is_some_and(|held| now.since(held.since) <= SURELY_HELD);
        held.into_iter().for_each(Held::answer);
        whole
    }

    /// The lane places a write itself while it knows of an open cut. To be called before readers can see it.
    pub(super) fn withhold(&self, extent: Extent) {
        if let Some(held) = &mut self.door().held {
            held.hold.add(extent);
        }
    }

    /// How the lane is, for its group's coordinator.
    #[must_use]
    pub fn standing(&self) -> LaneStanding {
        let standing = *self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        let written = self.next_ticket.load(Ordering::Relaxed) != self.tickets_at_cut.load(Ordering::Relaxed);
        LaneStanding { written, ..standing }
    }

    pub(super) fn set_standing(&self, standing: LaneStanding) {
        *self.standing.lock().unwrap_or_else(PoisonError::into_inner) = standing;
    }

    /// Something was read for a copy: behind every write that the read may have seen.
    pub(super) fn copy_read(&self, extent: Extent, read: ReadForCopy) {
        let _ = self.door().inbox.send(Event::CopyRead { extent, read });
    }

    /// Something was read to be compared with the copy: behind every write that the read may have seen.
    pub fn end_comparison(&self, within: Extent, done: Box<dyn FnOnce(Vec<Extent>) + Send>) {
        let _ = self.door().inbox.send(Event::Compare(Compare::End { within, done }));
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
        let mut door = self.door();
        self.set_room(false);
        self.holding.store(false, Ordering::Release);
        let held = door.held.take();
        drop(door);
        held.into_iter().for_each(Held::answer);
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

    /// A request that cannot be sent takes its reply with it, which answers EIO.
    fn send_unplaced(&self, door: &Door, request: Request) {
        self.unplaced.fetch_add(1, Ordering::Relaxed);
        let _ = door.inbox.send(Event::Request(request));
    }

    fn door(&self) -> MutexGuard<'_, Door> {
        self.door.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn answer(self) {
        let mut batch = Batch::default();
        for (reply, outcome) in self.answers {
            reply.done_in(&mut batch, outcome);
        }
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
        let intake = Intake::new(Arc::clone(&buffer), block, Clock::start(), inbox, Pacer::start().unwrap());
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
            if matches!(event, Event::OpenCut { .. }) {
                return "cut";
            }
            if matches!(event, Event::ReleaseCut { .. }) {
                return "released";
            }
            if matches!(event, Event::Request(Request::Write { .. } | Request::Zero { .. })) { "W!" } else { "?" }
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

    /// Reads blocks; whether it was answered yet.
    fn read(intake: &Intake, first: u64) -> Arc<AtomicBool> {
        let answered = Arc::new(AtomicBool::new(false));
        let heard = Arc::clone(&answered);
        let reply = Reply::calling(move |outcome| heard.store(outcome.is_ok(), Ordering::Relaxed));
        intake.read(Extent::new(Lba(first), BlockCount(1)).unwrap(), reply, Ok(Answer::Done));
        answered
    }

    #[test]
    fn a_cut_is_at_one_place_for_answers_readers_and_the_lane() {
        let (intake, _, events) = intake();
        let cut = CutNumber(1);
        assert!(write(&intake, 0, 4096, false));
        assert!(intake.standing().written);
        intake.open_cut(cut, 2);
        assert!(!intake.standing().written);
        assert!(!write(&intake, 4096, 4096, false), "it is above the cut");
        let (below, above) = (read(&intake, 0), read(&intake, 1));
        assert!(below.load(Ordering::Relaxed) && !above.load(Ordering::Relaxed));
        assert!(intake.standing().written);
        assert!(intake.release_cut(cut), "it was held until now");
        assert!(above.load(Ordering::Relaxed));
        assert!(!intake.release_cut(cut), "nothing is held any more");
        assert!(write(&intake, 0, 4096, false));
        assert_eq!(in_the_inbox(&events), "P cut P released P");
    }

    #[test]
    fn a_cut_of_one_lane_withholds_nothing() {
        let (intake, _, events) = intake();
        intake.open_cut(CutNumber(1), 1);
        assert!(write(&intake, 0, 4096, false));
        assert_eq!(in_the_inbox(&events), "cut P");
    }

    #[test]
    fn a_lane_that_stops_leaves_no_initiator_waiting() {
        let (intake, _, _events) = intake();
        intake.open_cut(CutNumber(1), 2);
        let waits = read(&intake, 0);
        assert!(waits.load(Ordering::Relaxed));
        write(&intake, 0, 4096, false);
        let waits = read(&intake, 0);
        intake.close();
        assert!(waits.load(Ordering::Relaxed));
    }

    #[test]
    fn a_lane_that_is_gone_answers_with_an_error() {
        let (intake, _, events) = intake();
        drop(events);
        assert!(!write(&intake, 0, 4096, false));
    }
}
