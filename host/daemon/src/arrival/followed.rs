//! A copy that is opened as it arrives, as initiators see it: read-only, a second or so behind what may be read of the copy.
//!
//! Blocks change under whoever reads, one by one: it is no point in time. Whoever needs one has it tested.

use std::sync::Arc;

use bytes::BytesMut;
use farseal_core::units::BlockBytes;

use crate::lane::errno_of;
use crate::nbd::completion::Reply;
use crate::nbd::export::{Answer, Errno, Export, ExportInfo, Extent as Status, Request, STATE_HOLE, STATE_ZERO};
use crate::store::StoreError;
use crate::store::home::{Home as _, RawHome};

/// The image, to read.
#[derive(Debug)]
pub struct FollowedVolume {
    home: Arc<RawHome>,
    description: String,
    block: BlockBytes,
}

impl FollowedVolume {
    pub(super) fn new(home: Arc<RawHome>, description: String, block: BlockBytes) -> Self {
        Self { home, description, block }
    }

    fn read(&self, offset: u64, len: u32) -> Result<Answer, StoreError> {
        let mut bytes = BytesMut::zeroed(usize::try_from(len).unwrap_or(usize::MAX));
        self.home.read(offset, &mut bytes)?;
        Ok(Answer::Data(bytes.freeze()))
    }

    fn statuses(&self, offset: u64, len: u32, one_only: bool) -> Result<Answer, StoreError> {
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
            errno_of(&error)
        }));
    }
}
