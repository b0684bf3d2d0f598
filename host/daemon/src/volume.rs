//! A volume as initiators see it: NBD requests on one side, a lane on the other.
//!
//! Writes go through the lane's intake, which gives them their order. Reads take what the data buffer has and the rest
//! from home, on the connection's own thread.

use std::path::Path;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use farseal_core::primary::What;
use farseal_core::units::{BlockBytes, BlockCount, Extent, Lba};

use crate::lane::buffer::{Buffer, Found};
use crate::lane::{Event, Lane, errno_of};
use crate::nbd::completion::Reply;
use crate::nbd::export::{
    Answer, BASE_ALLOCATION, ContextId, Errno, Export, ExportInfo, Extent as Status, FARSEAL_OWED, Request, STATE_HOLE,
    STATE_OWED, STATE_ZERO,
};
use crate::store::StoreError;
use crate::store::home::Home;

/// Runs in one answer on what is owed; a client asks again from the end of the last.
const OWED_RUNS_MAX: usize = 8192;

/// An export over a lane.
#[derive(Debug)]
pub struct Volume {
    lane: Arc<Lane>,
    description: String,
}

impl Volume {
    #[must_use]
    pub fn new(lane: Arc<Lane>, description: String) -> Self {
        Self { lane, description }
    }

    fn read(&self, offset: u64, len: u32) -> Result<Bytes, StoreError> {
        let block = self.lane.settings.block_bytes;
        let extent = covering(block, offset, u64::from(len))?;
        let size = usize::try_from(extent.blocks().byte_len(block).0).unwrap_or(usize::MAX);
        let mut whole = BytesMut::zeroed(size);
        read_through(&self.lane.buffer, &*self.lane.home, block, extent, &mut whole)?;
        let from = usize::try_from(offset - extent.first().0 * block.as_u64()).unwrap_or(usize::MAX);
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        Ok(whole.freeze().slice(from..from + len))
    }

    /// Runs of `base:allocation`. What is in the buffer counts as allocated.
    fn allocation(&self, offset: u64, len: u32, one_only: bool) -> Result<Vec<Status>, StoreError> {
        let block = self.lane.settings.block_bytes;
        let extent = covering(block, offset, u64::from(len))?;
        let mut runs: Vec<(u64, bool)> = Vec::new();
        let mut at = extent.first().0 * block.as_u64();
        for found in self.lane.buffer.read(extent) {
            match found {
                Found::Data(bytes) => add(&mut runs, u64::try_from(bytes.len()).unwrap_or(0), true),
                Found::Zeroes(blocks) => add(&mut runs, blocks.byte_len(block).0, false),
                Found::Home(blocks) => {
                    for (len, data) in self.lane.home.allocated(at, blocks.byte_len(block).0)? {
                        add(&mut runs, len, data);
                    }
                }
            }
            at = extent.first().0 * block.as_u64() + runs.iter().map(|(len, _)| len).sum::<u64>();
        }
        let flags = |data| if data { 0 } else { STATE_HOLE | STATE_ZERO };
        let statuses = clip(&runs, offset - extent.first().0 * block.as_u64(), u64::from(len), flags);
        Ok(if one_only { statuses.into_iter().take(1).collect() } else { statuses })
    }

    /// Runs of `farseal:owed`, as the lane knows them when the question comes to it.
    fn owed(&self, offset: u64, len: u32, one_only: bool, reply: Reply) {
        let block = self.lane.settings.block_bytes;
        let within = match covering(block, offset, u64::from(len)) {
            Ok(within) => within,
            Err(error) => return reply.done(Err(errno_of(&error))),
        };
        let done = move |owed: Vec<Extent>| {
            let mut runs: Vec<(u64, bool)> = Vec::new();
            let mut at = within.first();
            for extent in owed {
                add(&mut runs, BlockCount(extent.first().0 - at.0).byte_len(block).0, false);
                add(&mut runs, extent.blocks().byte_len(block).0, true);
                at = extent.end();
            }
            add(&mut runs, BlockCount(within.end().0 - at.0).byte_len(block).0, false);
            let flags = |owed| if owed { STATE_OWED } else { 0 };
            let mut statuses = clip(&runs, offset - within.first().0 * block.as_u64(), u64::from(len), flags);
            statuses.truncate(if one_only { 1 } else { OWED_RUNS_MAX });
            reply.done(Ok(Answer::Extents(statuses)));
        };
        // An event that cannot be sent takes the reply with it, which answers EIO.
        let _ = self.lane.inbox.send(Event::Owed { within, done: Box::new(done) });
    }
}

impl Export for Volume {
    fn info(&self) -> ExportInfo {
        let settings = &self.lane.settings;
        ExportInfo {
            description: self.description.clone(),
            size: settings.blocks.byte_len(settings.block_bytes).0,
            read_only: false,
            preferred_block: settings.block_bytes.get(),
        }
    }

    fn contexts(&self) -> Vec<String> {
        let owed = self.lane.settings.paired.then_some(FARSEAL_OWED);
        [BASE_ALLOCATION].into_iter().chain(owed).map(str::to_owned).collect()
    }

    fn submit(&self, request: Request, reply: Reply) {
        match request {
            Request::Read { offset, len } => {
                let outcome = answer(self.read(offset, len).map(Answer::Data));
                match covering(self.lane.settings.block_bytes, offset, u64::from(len)) {
                    Ok(extent) => self.lane.intake.read(extent, reply, outcome),
                    Err(_) => reply.done(outcome),
                }
            }
            Request::Write { offset, data, fua } => self.lane.intake.write(offset, data, fua, reply),
            Request::Flush => self.lane.intake.flush(reply),
            Request::Trim { offset, len, fua } => {
                self.lane.intake.zero(offset, u64::from(len), fua, What::Trim, reply);
            }
            Request::WriteZeroes { offset, len, fua, .. } => {
                self.lane.intake.zero(offset, u64::from(len), fua, What::Zero, reply);
            }
            Request::Cache { .. } => reply.done(Ok(Answer::Done)),
            Request::BlockStatus { context: ContextId(0), offset, len, one_only } => {
                reply.done(answer(self.allocation(offset, len, one_only).map(Answer::Extents)));
            }
            Request::BlockStatus { offset, len, one_only, .. } => self.owed(offset, len, one_only, reply),
        }
    }
}

/// Fills `into` with the blocks of an extent as they read now: buffer first, then home.
pub fn read_through(
    buffer: &Buffer,
    home: &dyn Home,
    block: BlockBytes,
    extent: Extent,
    into: &mut [u8],
) -> Result<(), StoreError> {
    let mut at = 0;
    for found in buffer.read(extent) {
        let len = match &found {
            Found::Data(bytes) => bytes.len(),
            Found::Zeroes(blocks) | Found::Home(blocks) => {
                usize::try_from(blocks.byte_len(block).0).unwrap_or(usize::MAX)
            }
        };
        let end = at + len;
        let Some(part) = into.get_mut(at..end) else { break };
        match found {
            Found::Data(bytes) => part.copy_from_slice(&bytes),
            Found::Zeroes(_) => part.fill(0),
            Found::Home(_) => {
                let offset = extent.first().0 * block.as_u64() + u64::try_from(at).unwrap_or(u64::MAX);
                home.read(offset, part)?;
            }
        }
        at = end;
    }
    Ok(())
}

fn answer(result: Result<Answer, StoreError>) -> Result<Answer, Errno> {
    result.map_err(|error| {
        if !matches!(error, StoreError::Refused) {
            tracing::error!(%error, "a read failed");
        }
        errno_of(&error)
    })
}

/// The whole blocks that a range of bytes touches.
fn covering(block: BlockBytes, offset: u64, len: u64) -> Result<Extent, StoreError> {
    let first = offset / block.as_u64();
    let end = (offset + len).div_ceil(block.as_u64());
    Extent::new(Lba(first), BlockCount(end - first))
        .ok_or_else(|| StoreError::io(Path::new("."), "place a request", std::io::ErrorKind::InvalidInput.into()))
}

fn add(runs: &mut Vec<(u64, bool)>, len: u64, data: bool) {
    match runs.last_mut() {
        Some((last, same)) if *same == data => *last += len,
        Some(_) | None if len > 0 => runs.push((len, data)),
        Some(_) | None => {}
    }
}

/// The part of the runs that starts `skip` bytes in and is `len` bytes long.
fn clip(runs: &[(u64, bool)], mut skip: u64, mut len: u64, flags: impl Fn(bool) -> u32) -> Vec<Status> {
    let mut statuses = Vec::new();
    for (run, state) in runs {
        let left = run.saturating_sub(skip);
        skip = skip.saturating_sub(*run);
        let part = left.min(len);
        if part > 0 {
            statuses.push(Status { len: u32::try_from(part).unwrap_or(u32::MAX), flags: flags(*state) });
            len -= part;
        }
    }
    statuses
}
