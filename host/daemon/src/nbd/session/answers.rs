//! From answers to replies.

use bytes::Bytes;

use crate::nbd::admit::{Command, Refusal};
use crate::nbd::completion::{Outcome, SlotId};
use crate::nbd::counters::Counters;
use crate::nbd::export::{Answer, Errno, Extent, Piece};
use crate::nbd::limits::MAX_EXTENTS;
use crate::nbd::session::table::Slot;
use crate::nbd::session::{Session, Transport};
use crate::nbd::wire::{put_data_chunk, put_error_chunk, put_hole_chunk, put_simple_reply, put_status_chunk};

impl<S: Transport> Session<S> {
    /// Queues the reply to a request, or the part of it that is answered.
    pub(super) fn answer(&mut self, id: SlotId, outcome: Outcome) {
        let Some(slot) = self.table.answered(id) else {
            return;
        };
        if let Err(errno) = self.encode(id, &slot, outcome) {
            Counters::count(&self.shared.counters.errors);
            self.error(slot.cookie, slot.parts == 0, errno, errno.text());
        }
        if slot.parts == 0 {
            self.outbox.end_reply(slot.held);
        }
    }

    /// Queues the reply to a request that was not submitted.
    pub(super) fn refuse(&mut self, cookie: u64, refusal: Refusal) {
        self.error(cookie, true, refusal.errno, refusal.text);
        self.outbox.end_reply(0);
    }

    /// An answer that does not fit its request is the export's failure: EIO.
    fn encode(&mut self, id: SlotId, slot: &Slot, outcome: Outcome) -> Result<(), Errno> {
        match (slot.command, outcome?) {
            (Command::Read { .. }, Answer::Data(bytes)) => self.data(slot, bytes),
            (Command::Read { whole }, Answer::Pieces(pieces)) => self.pieces(slot, whole, pieces),
            (Command::BlockStatus { one_only }, Answer::Extents(extents)) => {
                self.extents(id, slot, one_only, extents);
                Ok(())
            }
            (Command::Read { .. } | Command::BlockStatus { .. }, _) => Err(Errno::Io),
            (_, Answer::Done) => {
                // A simple reply is allowed wherever there is no payload, and is the shorter one.
                self.outbox.head(|out| put_simple_reply(out, slot.cookie, 0));
                Ok(())
            }
            (_, Answer::Data(_) | Answer::Pieces(_) | Answer::Extents(_)) => Err(Errno::Io),
        }
    }

    fn data(&mut self, slot: &Slot, bytes: Bytes) -> Result<(), Errno> {
        if u32::try_from(bytes.len()) != Ok(slot.len) {
            return Err(Errno::Io);
        }
        Counters::add(&self.shared.counters.bytes_read, bytes.len());
        self.data_head(slot);
        self.outbox.body(bytes);
        Ok(())
    }

    /// What precedes the whole range as data.
    fn data_head(&mut self, slot: &Slot) {
        let structured = self.agreed.terms.structured;
        self.outbox.head(|out| {
            if structured {
                put_data_chunk(out, slot.cookie, true, slot.offset, slot.len);
            } else {
                put_simple_reply(out, slot.cookie, 0);
            }
        });
    }

    fn pieces(&mut self, slot: &Slot, whole: bool, pieces: Vec<Piece>) -> Result<(), Errno> {
        let total = pieces.iter().map(Piece::len).try_fold(0_u32, u32::checked_add);
        if total != Some(slot.len) {
            return Err(Errno::Io);
        }
        Counters::add(&self.shared.counters.bytes_read, usize::try_from(slot.len).unwrap_or(0));
        if whole || !self.agreed.terms.structured {
            self.data_head(slot);
            for piece in pieces {
                match piece {
                    Piece::Data(bytes) => self.outbox.body(bytes),
                    Piece::Zero(len) => self.outbox.zeroes(usize::try_from(len).unwrap_or(0)),
                }
            }
        } else {
            self.chunks(slot, pieces);
        }
        Ok(())
    }

    /// One chunk for each run of data and of zeroes.
    fn chunks(&mut self, slot: &Slot, pieces: Vec<Piece>) {
        let mut offset = slot.offset;
        let end = slot.offset + u64::from(slot.len);
        let mut pieces = pieces.into_iter().filter(|piece| piece.len() > 0).peekable();
        while let Some(first) = pieces.next() {
            let mut len = first.len();
            let mut bodies = Vec::new();
            let zero = matches!(first, Piece::Zero(_));
            bodies.extend(first.into_data());
            while let Some(next) = pieces.next_if(|next| matches!(next, Piece::Zero(_)) == zero) {
                len += next.len();
                bodies.extend(next.into_data());
            }
            let last = offset + u64::from(len) == end;
            self.outbox.head(|out| {
                let put = if zero { put_hole_chunk } else { put_data_chunk };
                put(out, slot.cookie, last, offset, len);
            });
            bodies.into_iter().for_each(|bytes| self.outbox.body(bytes));
            offset += u64::from(len);
        }
    }

    fn extents(&mut self, id: SlotId, slot: &Slot, one_only: bool, extents: Vec<Extent>) {
        let extents = fit(extents, slot.len, if one_only { 1 } else { MAX_EXTENTS });
        self.outbox.head(|out| put_status_chunk(out, slot.cookie, slot.parts == 0, id.part, &extents));
    }

    fn error(&mut self, cookie: u64, last: bool, errno: Errno, text: &str) {
        let structured = self.agreed.terms.structured;
        self.outbox.head(|out| {
            if structured {
                put_error_chunk(out, cookie, last, errno, text);
            } else {
                put_simple_reply(out, cookie, errno.code());
            }
        });
    }
}

impl Piece {
    fn len(&self) -> u32 {
        match self {
            Self::Data(bytes) => u32::try_from(bytes.len()).unwrap_or(u32::MAX),
            Self::Zero(len) => *len,
        }
    }

    fn into_data(self) -> Option<Bytes> {
        match self {
            Self::Data(bytes) => Some(bytes),
            Self::Zero(_) => None,
        }
    }
}

/// What the protocol allows of the export's extents: none empty, none beyond the request, equal
/// neighbours joined, at most `most`, at least one. A status of 0 is always safe to report.
fn fit(extents: Vec<Extent>, len: u32, most: usize) -> Vec<Extent> {
    let mut left = len;
    let mut fitted: Vec<Extent> = Vec::with_capacity(extents.len().min(most));
    for Extent { len, flags } in extents {
        let len = len.min(left);
        left -= len;
        let full = fitted.len() == most;
        match fitted.last_mut() {
            _ if len == 0 => {}
            Some(last) if last.flags == flags => last.len += len,
            _ if full => break,
            _ => fitted.push(Extent { len, flags }),
        }
    }
    if fitted.is_empty() {
        fitted.push(Extent { len, flags: 0 });
    }
    fitted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extents_are_fitted_to_what_the_protocol_allows() {
        let make =
            |list: &[(u32, u32)]| -> Vec<Extent> { list.iter().map(|&(len, flags)| Extent { len, flags }).collect() };
        for (case, given, most, expected) in [
            ("nothing", &[][..], 9, &[(100, 0)][..]),
            ("too long", &[(300, 3)], 9, &[(100, 3)]),
            ("joined", &[(10, 1), (20, 1), (5, 0)], 9, &[(30, 1), (5, 0)]),
            ("empty ones", &[(0, 1), (10, 2), (0, 3)], 9, &[(10, 2)]),
            ("one only, joined first", &[(10, 1), (20, 1), (5, 0)], 1, &[(30, 1)]),
            ("sum overflows", &[(60, 1), (u32::MAX, 2)], 9, &[(60, 1), (40, 2)]),
        ] {
            assert_eq!(fit(make(given), 100, most), make(expected), "{case}");
        }
    }
}
