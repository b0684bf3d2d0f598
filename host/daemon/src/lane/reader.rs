//! Reads for copies, off the lane's thread: blocks as an initiator would read them now.
//!
//! What was read goes into the lane's inbox through the intake's door. Whoever places a write holds that door from before
//! the data buffer has it until the inbox does, so every write that a read may have seen stands before it in the inbox:
//! core hears of the write first, and takes a read that such a write makes stale for nothing.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use farseal_core::units::{BlockBytes, Extent};

use super::buffer::{Buffer, Found};
use super::intake::Intake;
use crate::store::StoreError;
use crate::store::home::Home;

/// Threads that read: enough that a disk always has the next request while one is being taken over.
const READERS: usize = 2;

/// What was read; none where all of it reads as zeroes.
pub type ReadForCopy = Result<Option<Bytes>, StoreError>;

#[derive(Clone, Debug)]
struct Reader {
    home: Arc<dyn Home>,
    buffer: Arc<Buffer>,
    block_bytes: BlockBytes,
}

/// Starts the readers; they end when the sender is dropped.
pub fn start(
    home: &Arc<dyn Home>,
    buffer: &Arc<Buffer>,
    block_bytes: BlockBytes,
    intake: &Arc<Intake>,
) -> std::io::Result<Sender<Extent>> {
    let (jobs, queue) = channel();
    let queue = Arc::new(Mutex::new(queue));
    for _ in 0..READERS {
        let reader = Reader { home: Arc::clone(home), buffer: Arc::clone(buffer), block_bytes };
        let (queue, intake) = (Arc::clone(&queue), Arc::clone(intake));
        std::thread::Builder::new().name("copy-reader".into()).spawn(move || reader.run(&queue, &intake))?;
    }
    Ok(jobs)
}

impl Reader {
    fn run(&self, queue: &Mutex<Receiver<Extent>>, intake: &Intake) {
        loop {
            let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(extent) = job else { return };
            intake.copy_read(extent, self.read(extent));
        }
    }

    fn read(&self, extent: Extent) -> ReadForCopy {
        if self.is_hole(extent)? {
            return Ok(None);
        }
        let size = usize::try_from(extent.blocks().byte_len(self.block_bytes).0).unwrap_or(usize::MAX);
        let mut bytes = vec![0; size];
        crate::volume::read_through(&self.buffer, &*self.home, self.block_bytes, extent, &mut bytes)?;
        let empty = bytes.iter().all(|byte| *byte == 0);
        Ok((!empty).then(|| Bytes::from(bytes)))
    }

    /// Nothing was ever written here, or all of it was given back.
    fn is_hole(&self, extent: Extent) -> Result<bool, StoreError> {
        if !self.buffer.read(extent).iter().all(|found| matches!(found, Found::Home(_))) {
            return Ok(false);
        }
        let block = self.block_bytes.as_u64();
        let runs = self.home.allocated(extent.first().0 * block, extent.blocks().0 * block)?;
        Ok(!runs.iter().any(|(_, data)| *data))
    }
}
