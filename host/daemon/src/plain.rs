//! A volume that no pair copies, served as it is.

use std::sync::Arc;

use bytes::BytesMut;

use crate::lane::errno_of;
use crate::nbd::completion::Reply;
use crate::nbd::export::{Answer, Errno, Export, ExportInfo, Extent, Request, STATE_HOLE, STATE_ZERO};
use crate::store::StoreError;
use crate::store::home::Home;

/// An export straight over a home.
#[derive(Debug)]
pub struct PlainVolume {
    home: Arc<dyn Home>,
    description: String,
}

impl PlainVolume {
    #[must_use]
    pub fn new(home: Arc<dyn Home>, description: String) -> Self {
        Self { home, description }
    }

    fn carry_out(&self, request: &Request) -> Result<Answer, StoreError> {
        let durable = |fua: bool| if fua { self.home.sync() } else { Ok(()) };
        match request {
            Request::Read { offset, len } => {
                let mut bytes = BytesMut::zeroed(usize::try_from(*len).unwrap_or(usize::MAX));
                self.home.read(*offset, &mut bytes)?;
                return Ok(Answer::Data(bytes.freeze()));
            }
            Request::Write { offset, data, fua } => {
                self.home.write(*offset, data)?;
                durable(*fua)?;
            }
            Request::Flush => self.home.sync()?,
            Request::Trim { offset, len, fua } => {
                self.home.zero(*offset, u64::from(*len), true)?;
                durable(*fua)?;
            }
            Request::WriteZeroes { offset, len, fua, no_hole, .. } => {
                self.home.zero(*offset, u64::from(*len), !no_hole)?;
                durable(*fua)?;
            }
            Request::Cache { .. } => {}
            Request::BlockStatus { offset, len, one_only, .. } => {
                let runs = self.home.allocated(*offset, u64::from(*len))?;
                let most = if *one_only { 1 } else { runs.len() };
                let extents = runs.into_iter().take(most).map(|(len, data)| Extent {
                    len: u32::try_from(len).unwrap_or(u32::MAX),
                    flags: if data { 0 } else { STATE_HOLE | STATE_ZERO },
                });
                return Ok(Answer::Extents(extents.collect()));
            }
        }
        Ok(Answer::Done)
    }
}

impl Export for PlainVolume {
    fn info(&self) -> ExportInfo {
        ExportInfo {
            description: self.description.clone(),
            size: self.home.bytes(),
            read_only: false,
            preferred_block: 4096,
        }
    }

    fn submit(&self, request: Request, reply: Reply) {
        let result: Result<Answer, Errno> = self.carry_out(&request).map_err(|error| {
            tracing::error!(%error, "a request failed");
            errno_of(&error)
        });
        reply.done(result);
    }
}
