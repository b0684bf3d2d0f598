//! Initiators' requests that find their place here: the write as whole blocks, runs of zeroes, and what waits for room.

use bytes::Bytes;
use farseal_core::primary::{Input, Room, What};
use farseal_core::units::{BlockCount, Extent, Lba, Ticket};

use super::Runner;
use crate::lane::{Request, errno_of};
use crate::nbd::export::{Answer, Errno};
use crate::store::{StoreError, wide};

impl Runner {
    /// Behind others that wait, so that the order of arrival stays.
    pub(super) fn take_request(&mut self, request: Request, inputs: &mut Vec<Input>) {
        let waits = match request {
            Request::Flush { .. } => !self.backlog.is_empty(),
            Request::Write { .. } | Request::Zero { .. } => {
                !self.backlog.is_empty() || self.primary.room() != Room::Open
            }
        };
        if waits {
            self.backlog.push_back(request);
        } else {
            self.serve(request, inputs);
        }
    }

    /// Places a write that there is room for, or refuses it.
    fn serve(&mut self, request: Request, inputs: &mut Vec<Input>) {
        let request = self.without_ragged_zeroes(request);
        let ticket = self.ticket();
        match request {
            Request::Flush { reply } => {
                self.replies.insert(ticket, reply);
                return inputs.push(Input::Flush { ticket });
            }
            Request::Write { offset, data, fua, reply } => match self.whole_blocks(offset, data) {
                Ok((extent, data)) => {
                    self.withhold(extent);
                    self.buffer.write(ticket, extent.first(), &data);
                    self.writes.insert(ticket, data);
                    self.replies.insert(ticket, reply);
                    self.hear(ticket, What::Data, extent, fua, inputs);
                }
                Err(error) => reply.done(Err(errno_of(&error))),
            },
            Request::Zero { offset, len, fua, what, reply } => match self.zero_extent(offset, len, what, inputs) {
                Ok(Some(extent)) => {
                    self.withhold(extent);
                    self.buffer.zero(ticket, extent);
                    self.replies.insert(ticket, reply);
                    self.hear(ticket, what, extent, fua, inputs);
                }
                Ok(None) => reply.done(Ok(Answer::Done)),
                Err(error) => reply.done(Err(errno_of(&error))),
            },
        }
        self.intake.placed();
    }

    /// Before readers can see it.
    fn withhold(&self, extent: Extent) {
        if self.holding {
            self.intake.withhold(extent);
        }
    }

    /// Core is told of a write that has its place in the data buffer.
    pub(super) fn hear(&mut self, ticket: Ticket, what: What, extent: Extent, fua: bool, inputs: &mut Vec<Input>) {
        self.heard = self.heard.max(ticket);
        inputs.push(Input::Write { ticket, what, extent, fua });
    }

    /// What waited for room, as far as there is some; where there will be none, it is refused.
    pub(super) fn serve_backlog(&mut self) {
        while let Some(request) = self.backlog.pop_front() {
            let (errno, reply) = match (request, self.primary.room()) {
                (request @ (Request::Write { .. } | Request::Zero { .. }), Room::Wait) => {
                    return self.backlog.push_front(request);
                }
                (Request::Write { reply, .. } | Request::Zero { reply, .. }, Room::Full) => (Errno::NoSpc, reply),
                (Request::Write { reply, .. } | Request::Zero { reply, .. }, Room::Failed) => (Errno::Io, reply),
                (Request::Write { reply, .. } | Request::Zero { reply, .. }, Room::Fenced) => (Errno::Shutdown, reply),
                (request, _) => {
                    let mut inputs = Vec::new();
                    self.serve(request, &mut inputs);
                    self.primary.handle_all(self.clock.now(), inputs);
                    self.carry_out();
                    continue;
                }
            };
            reply.done(Err(errno));
            self.intake.placed();
        }
    }

    /// The write as whole blocks: the rest of its first and last block is read and put around it.
    fn whole_blocks(&self, offset: u64, data: Bytes) -> Result<(Extent, Bytes), StoreError> {
        let block = self.settings.block_bytes.as_u64();
        let (first, end) = (offset / block, (offset + wide(data.len())).div_ceil(block));
        let extent = self.extent(first, end)?;
        if offset.is_multiple_of(block) && wide(data.len()).is_multiple_of(block) {
            return Ok((extent, data));
        }
        let mut whole = self.read_blocks(extent)?;
        let at = usize::try_from(offset - first * block).unwrap_or(usize::MAX);
        if let Some(part) = whole.get_mut(at..at + data.len()) {
            part.copy_from_slice(&data);
        }
        Ok((extent, Bytes::from(whole)))
    }

    /// Zeroes that cover no whole block are an ordinary write: its answer waits for what it did.
    fn without_ragged_zeroes(&self, request: Request) -> Request {
        if let Request::Zero { offset, len, fua, what: What::Data | What::Zero, reply } = request {
            if self.has_no_whole_block(offset, len) {
                let data = Bytes::from(vec![0; usize::try_from(len).unwrap_or(0)]);
                return Request::Write { offset, data, fua, reply };
            }
            return Request::Zero { offset, len, fua, what: What::Zero, reply };
        }
        request
    }

    fn has_no_whole_block(&self, offset: u64, len: u64) -> bool {
        let block = self.settings.block_bytes.as_u64();
        len > 0 && offset.div_ceil(block) >= (offset + len) / block
    }

    /// The whole blocks of a run of zeroes. Its ragged ends become ordinary writes; a trim's are left alone, as it
    /// promises nothing.
    fn zero_extent(
        &mut self,
        offset: u64,
        len: u64,
        what: What,
        inputs: &mut Vec<Input>,
    ) -> Result<Option<Extent>, StoreError> {
        let block = self.settings.block_bytes.as_u64();
        let end = offset + len;
        let (first_whole, end_whole) = (offset.div_ceil(block), end / block);
        if what != What::Trim {
            let ends = if first_whole > end_whole {
                vec![(offset, len)]
            } else {
                vec![(offset, first_whole * block - offset), (end_whole * block, end - end_whole * block)]
            };
            for (at, len) in ends.into_iter().filter(|(_, len)| *len > 0) {
                let zeroes = Bytes::from(vec![0; usize::try_from(len).unwrap_or(0)]);
                let (extent, data) = self.whole_blocks(at, zeroes)?;
                let ticket = self.ticket();
                self.withhold(extent);
                self.buffer.write(ticket, extent.first(), &data);
                self.writes.insert(ticket, data);
                self.hear(ticket, What::Data, extent, false, inputs);
            }
        }
        (first_whole < end_whole).then(|| self.extent(first_whole, end_whole)).transpose()
    }

    fn extent(&self, first: u64, end: u64) -> Result<Extent, StoreError> {
        Extent::new(Lba(first), BlockCount(end - first)).ok_or_else(|| {
            StoreError::io(&self.directory, "place a request", std::io::Error::from(std::io::ErrorKind::InvalidInput))
        })
    }

    /// The blocks as an initiator would read them now.
    pub(super) fn read_blocks(&self, extent: Extent) -> Result<Vec<u8>, StoreError> {
        let size = usize::try_from(extent.blocks().byte_len(self.settings.block_bytes).0).unwrap_or(usize::MAX);
        let mut whole = vec![0; size];
        crate::volume::read_through(&self.buffer, &*self.home, self.settings.block_bytes, extent, &mut whole)?;
        Ok(whole)
    }
}
