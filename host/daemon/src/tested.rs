//! An earlier point of the copy as initiators see it while somebody tests it: NBD requests on one side, the scratch file on the other.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use farseal_core::units::{BlockCount, Extent, Lba};

use crate::lane::errno_of;
use crate::nbd::completion::Reply;
use crate::nbd::export::{Answer, Errno, Export, ExportInfo, Extent as Status, Request, STATE_HOLE, STATE_ZERO};
use crate::store::StoreError;
use crate::store::opened::BlockSource;
use crate::store::scratch::Scratch;

/// An export over a scratch file. A FLUSH makes nothing durable: what is written ends with the test.
#[derive(Debug)]
pub struct TestedVolume<S: BlockSource> {
    scratch: Arc<Scratch<S>>,
    description: String,
}

impl<S: BlockSource> TestedVolume<S> {
    #[must_use]
    pub fn new(scratch: Arc<Scratch<S>>, description: String) -> Self {
        Self { scratch, description }
    }

    /// The blocks that a range of bytes touches, and where in them it begins.
    fn covering(&self, offset: u64, len: u64) -> Result<(Extent, u64), Errno> {
        let size = self.scratch.block_bytes().as_u64();
        let (first, end) = (offset / size, (offset + len).div_ceil(size));
        let extent = Extent::new(Lba(first), BlockCount(end - first)).ok_or(Errno::Inval)?;
        Ok((extent, offset - first * size))
    }

    fn read(&self, offset: u64, len: u32) -> Result<Bytes, Errno> {
        let (extent, skip) = self.covering(offset, u64::from(len))?;
        let size = extent.blocks().byte_len(self.scratch.block_bytes()).0;
        let mut whole = BytesMut::zeroed(usize::try_from(size).map_err(|_| Errno::Overflow)?);
        told(self.scratch.read(extent, &mut whole))?;
        let (from, len) = (usize::try_from(skip), usize::try_from(len));
        let (Ok(from), Ok(len)) = (from, len) else { return Err(Errno::Overflow) };
        Ok(whole.freeze().slice(from..from + len))
    }

    fn statuses(&self, offset: u64, len: u32, one_only: bool) -> Result<Vec<Status>, Errno> {
        let (extent, mut skip) = self.covering(offset, u64::from(len))?;
        let (mut statuses, mut left) = (Vec::new(), u64::from(len));
        for (run, data) in told(self.scratch.runs(extent))? {
            let bytes = run.byte_len(self.scratch.block_bytes()).0;
            let part = bytes.saturating_sub(skip).min(left);
            skip = skip.saturating_sub(bytes);
            if part > 0 {
                let flags = if data { 0 } else { STATE_HOLE | STATE_ZERO };
                statuses.push(Status { len: u32::try_from(part).unwrap_or(u32::MAX), flags });
                left -= part;
            }
        }
        statuses.truncate(if one_only { 1 } else { usize::MAX });
        Ok(statuses)
    }
}

impl<S: BlockSource + 'static> Export for TestedVolume<S> {
    fn info(&self) -> ExportInfo {
        ExportInfo {
            description: self.description.clone(),
            size: self.scratch.blocks().byte_len(self.scratch.block_bytes()).0,
            read_only: false,
            preferred_block: self.scratch.block_bytes().get(),
        }
    }

    fn submit(&self, request: Request, reply: Reply) {
        let done = |result: Result<(), StoreError>| told(result).map(|()| Answer::Done);
        reply.done(match request {
            Request::Read { offset, len } => self.read(offset, len).map(Answer::Data),
            Request::Write { offset, data, .. } => done(self.scratch.write(offset, &data)),
            Request::Trim { offset, len, .. } | Request::WriteZeroes { offset, len, .. } => {
                done(self.scratch.zero(offset, u64::from(len)))
            }
            Request::Flush | Request::Cache { .. } => Ok(Answer::Done),
            Request::BlockStatus { offset, len, one_only, .. } => {
                self.statuses(offset, len, one_only).map(Answer::Extents)
            }
        });
    }
}

fn told<T>(result: Result<T, StoreError>) -> Result<T, Errno> {
    result.map_err(|error| {
        tracing::error!(%error, "a test could not carry out a request");
        errno_of(&error)
    })
}
