//! A copy that is opened as it arrives, as initiators see it: read-only, a second or so behind what may be read of the copy.
//!
//! Blocks change under whoever reads, one by one: it is no point in time. Whoever needs one has it tested.

use std::sync::{Arc, PoisonError};

use bytes::BytesMut;
use farseal_core::units::BlockBytes;

use super::Closed;
use crate::lane::errno_of;
use crate::nbd::completion::Reply;
use crate::nbd::export::{Answer, Errno, Export, ExportInfo, Extent as Status, Request, STATE_HOLE, STATE_ZERO};
use crate::store::StoreError;
use crate::store::home::{Home as _, RawHome};

/// The image, to read.
#[derive(Debug)]
pub struct FollowedVolume {
    home: Arc<RawHome>,
    closed: Closed,
    description: String,
    block: BlockBytes,
}

/// Why a read has no answer.
#[derive(Debug, thiserror::Error)]
enum Unread {
    #[error("block {0} of the copy did not open")]
    Closed(u64),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl FollowedVolume {
    pub(super) fn new(home: Arc<RawHome>, closed: Closed, description: String, block: BlockBytes) -> Self {
        Self { home, closed, description, block }
    }

    /// Nothing of a block that did not open: the image holds what it was before.
    fn read(&self, offset: u64, len: u32) -> Result<Answer, Unread> {
        let (block, end) = (self.block.as_u64(), offset.saturating_add(u64::from(len)));
        let blocks = offset / block..end.div_ceil(block);
        let closed = self.closed.read().unwrap_or_else(PoisonError::into_inner).range(blocks).next().copied();
        if let Some(lba) = closed {
            return Err(Unread::Closed(lba));
        }
        let mut bytes = BytesMut::zeroed(usize::try_from(len).unwrap_or(usize::MAX));
        self.home.read(offset, &mut bytes)?;
        Ok(Answer::Data(bytes.freeze()))
    }

    fn statuses(&self, offset: u64, len: u32, one_only: bool) -> Result<Answer, Unread> {
        let runs = self.home.allocated(offset, u64::from(len))?.into_iter();
        let statuses = runs.map(|(bytes, data)| Status {
            len: u32::try_from(bytes).unwrap_or(u32::MAX),
            flags: if data { 0 } else { STATE_HOLE | STATE_ZERO },
        });
        Ok(Answer::Extents(statuses.take(if one_only { 1 } else { usize::MAX }).collect()))
    }
}

impl Export for FollowedVolume {
    fn info(&self) -> ExportInfo {
        ExportInfo {
            description: self.description.clone(),
            size: self.home.bytes(),
            read_only: true,
            preferred_block: self.block.get(),
        }
    }

    fn submit(&self, request: Request, reply: Reply) {
        let answer = match request {
            Request::Read { offset, len } => self.read(offset, len),
            Request::BlockStatus { offset, len, one_only, .. } => self.statuses(offset, len, one_only),
            Request::Flush | Request::Cache { .. } => Ok(Answer::Done),
            Request::Write { .. } | Request::Trim { .. } | Request::WriteZeroes { .. } => {
                return reply.done(Err(Errno::Perm));
            }
        };
        reply.done(answer.map_err(|error| {
            tracing::error!(%error, "what was opened as it arrived could not be read");
            match &error {
                Unread::Closed(_) => Errno::Io,
                Unread::Store(error) => errno_of(error),
            }
        }));
    }
}
