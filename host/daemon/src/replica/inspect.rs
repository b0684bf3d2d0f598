//! Answers what a primary asks when it verifies the copy: what the log holds of some blocks, sealed as it came.
//!
//! The replica's thread looks the places up, which is quick; the bytes are read here, so that a slow disk holds no
//! acknowledgement back. Nothing is judged but what needs no key: is there a record where the index says, is it the one,
//! can it be read.

use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

use farseal_core::inspect::{Answer as Found, Held, Inspect, Part, Run, Unreadable};
use farseal_core::units::{BlockBytes, BlockCount, Extent, Lba, Sequence};
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::UnboundedSender;

use crate::link::listen::Answer;
use crate::store::home::Home;
use crate::store::index::Place;
use crate::store::log::{Flaw, LogReader, ReadError};

/// A question, and where the index says that the answer lies.
pub(super) struct Question {
    pub inspect: Inspect,
    pub through: Sequence,
    /// They cover the extent, in order.
    pub places: Vec<(BlockCount, Option<Place>)>,
    pub answers: UnboundedSender<Answer>,
    /// Bounds what a path may have under way.
    pub permit: OwnedSemaphorePermit,
}

struct Inspector {
    reader: LogReader,
    /// What lies below the copy, at a site that wrote before.
    base: Option<Arc<dyn Home>>,
    block: BlockBytes,
}

/// Starts the thread that reads; it ends when the sender is dropped.
pub(super) fn start(reader: LogReader, base: Option<Arc<dyn Home>>, block: BlockBytes) -> Sender<Question> {
    let (questions, queue) = channel::<Question>();
    let inspector = Inspector { reader, base, block };
    std::thread::spawn(move || {
        for Question { inspect, through, places, answers, permit } in queue {
            let answer = Found { through, runs: inspector.runs(&inspect, places) }.encode();
            let _ = answers.send(Answer::Held { id: inspect.id, answer, permit });
        }
    });
    questions
}

impl Inspector {
    fn runs(&self, inspect: &Inspect, places: Vec<(BlockCount, Option<Place>)>) -> Vec<Run> {
        let mut at = inspect.extent.first();
        let mut runs = Vec::with_capacity(places.len());
        for (blocks, place) in places {
            let held = match (place, Extent::new(at, blocks)) {
                (Some(place), Some(extent)) => self.part(place, extent).unwrap_or_else(Held::Unreadable),
                (None, Some(extent)) => self.below(inspect, extent).unwrap_or_else(Held::Unreadable),
                (_, None) => Held::Nothing,
            };
            runs.push(Run { blocks, held });
            at = Lba(at.0 + blocks.0);
        }
        runs
    }

    /// Its checksum covers what stands there as a whole: of a record that was altered anywhere nothing could be opened after
    /// a takeover either, so all of it that is asked for counts.
    fn part(&self, place: Place, extent: Extent) -> Result<Held, Unreadable> {
        let part = place.part(&self.reader, extent).map_err(unreadable)?.ok_or(Unreadable::OtherRecord)?;
        let (tags, blocks) = (part.tags.to_vec(), part.blocks.to_vec());
        Ok(Held::Record(Box::new(Part { header: part.header, first: place.block, tags, blocks })))
    }

    /// Blocks that no record speaks of.
    fn below(&self, inspect: &Inspect, extent: Extent) -> Result<Held, Unreadable> {
        let Some(base) = &self.base else { return Ok(Held::Nothing) };
        let size = self.block.as_usize();
        let len = usize::try_from(extent.blocks().byte_len(self.block).0).map_err(|_| Unreadable::Disk)?;
        let mut bytes = vec![0; len];
        base.read(extent.first().0 * self.block.as_u64(), &mut bytes).map_err(|error| {
            tracing::error!(%error, "the copy's base cannot be read for a verification");
            Unreadable::Disk
        })?;
        Ok(Held::Base(bytes.chunks(size).map(|block| digest(&inspect.challenge, block)).collect()))
    }
}

/// A block's digest that is good for one question alone.
pub(crate) fn digest(challenge: &[u8; 32], block: &[u8]) -> [u8; 32] {
    *blake3::keyed_hash(challenge, block).as_bytes()
}

fn unreadable(error: ReadError) -> Unreadable {
    tracing::warn!(%error, "a record of the copy cannot be shown to a verification");
    match error {
        ReadError::NotThere(_) | ReadError::NoSuchBlock { .. } => Unreadable::NotThere,
        ReadError::Damaged { flaw: Flaw::Body { .. } | Flaw::Slice { .. } | Flaw::Short { .. }, .. } => {
            Unreadable::Body
        }
        ReadError::Damaged { flaw: Flaw::Header(_) | Flaw::Segment | Flaw::End { .. }, .. } => Unreadable::Header,
        ReadError::Store(_) => Unreadable::Disk,
    }
}
