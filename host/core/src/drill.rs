//! What a primary asks of its keeper to prove that it can open what it keeps, and the bytes of the answers.
//!
//! The keeper opens one block in memory and answers with a digest of it that is good for the question's challenge alone; the
//! primary opens the same sealed block with its own keys and compares. Plaintext never crosses the link.
//!
//! ```text
//! live answer  = everything up to here is in the index (u64), where to go on (u64), entries (u32), then for each
//!                its epoch (u64), blocks that only it opens (u64), the first of them (u64)
//! drill answer = the record that was opened (u64), outcome (u8), SHA-256(challenge, block) (32)
//! ```

use crate::bytes::Fields;
use crate::units::{BlockCount, Epoch, Lba, Sequence};

/// Blocks that one question about live epochs looks at: some milliseconds of the keeper's thread.
pub const LIVE_SCAN_BLOCKS: u64 = 1 << 18;
/// Epochs in one answer: a page ends where there would be more.
pub const LIVE_EPOCHS_MAX: usize = 1024;

/// Which epochs do live blocks need, from this block on?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AskLive {
    /// Comes back with the answer.
    pub id: u64,
    pub from: Lba,
}

/// Can you open this block?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AskDrill {
    /// Comes back with the answer.
    pub id: u64,
    pub lba: Lba,
    /// Random, and used once.
    pub challenge: [u8; 32],
}

/// The live blocks of an epoch within a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LiveEpoch {
    pub epoch: Epoch,
    pub blocks: BlockCount,
    pub first: Lba,
}

/// A page of live epochs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Live {
    /// The index holds everything up to here; none while it is no state of the volume.
    pub through: Sequence,
    /// Where the next page begins; the volume's end after the last.
    pub next: Lba,
    pub epochs: Vec<LiveEpoch>,
}

/// What came of opening a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Drilled {
    /// The record that holds the block.
    pub sequence: Sequence,
    pub outcome: Outcome,
    /// Zeroes unless it was opened.
    pub proof: [u8; 32],
}

/// See [`Drilled`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Outcome {
    #[error("opened")]
    Opened,
    #[error("no record holds that block now")]
    Nothing,
    #[error("its log does not give the record back")]
    Unreadable,
    #[error("its key is not for that site: an escrow site would have to release it")]
    NotRecipient,
    #[error("it has no key for that epoch")]
    NoKey,
    #[error("its key does not open the record, or the cipher that sealed it is not there")]
    NotOpened,
}

impl Outcome {
    const ALL: [Self; 6] =
        [Self::Opened, Self::Nothing, Self::Unreadable, Self::NotRecipient, Self::NoKey, Self::NotOpened];

    fn code(self) -> u8 {
        match self {
            Self::Opened => 0,
            Self::Nothing => 1,
            Self::Unreadable => 2,
            Self::NotRecipient => 3,
            Self::NoKey => 4,
            Self::NotOpened => 5,
        }
    }
}

impl AskLive {
    pub(crate) fn encode(&self) -> Vec<u8> {
        [self.id.to_le_bytes(), self.from.0.to_le_bytes()].concat()
    }

    pub(crate) fn decode(fields: &mut Fields<'_>) -> Self {
        Self { id: fields.u64(), from: Lba(fields.u64()) }
    }
}

impl AskDrill {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let head = [self.id.to_le_bytes(), self.lba.0.to_le_bytes()].concat();
        [head.as_slice(), &self.challenge].concat()
    }

    pub(crate) fn decode(fields: &mut Fields<'_>) -> Self {
        Self { id: fields.u64(), lba: Lba(fields.u64()), challenge: fields.array() }
    }
}

impl Live {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = [self.through.0.to_le_bytes(), self.next.0.to_le_bytes()].concat();
        out.extend(u32::try_from(self.epochs.len()).unwrap_or(u32::MAX).to_le_bytes());
        for LiveEpoch { epoch, blocks, first } in &self.epochs {
            [epoch.0, blocks.0, first.0].iter().for_each(|number| out.extend(number.to_le_bytes()));
        }
        out
    }

    /// Reads an answer to a question from `from` on; `None` if it is none.
    pub fn decode(bytes: &[u8], from: Lba) -> Option<Self> {
        let mut fields = Fields::new(bytes);
        let (through, next, count) = (Sequence(fields.u64()), Lba(fields.u64()), fields.u32());
        let count = usize::try_from(count).ok().filter(|count| *count <= LIVE_EPOCHS_MAX)?;
        let epochs = (0..count).map(|_| LiveEpoch {
            epoch: Epoch(fields.u64()),
            blocks: BlockCount(fields.u64()),
            first: Lba(fields.u64()),
        });
        let epochs = epochs.collect();
        // A page that goes nowhere would be asked for again and again.
        let goes_on = next > from || through == Sequence::NONE;
        (fields.done() && goes_on).then_some(Self { through, next, epochs })
    }
}

impl Drilled {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.sequence.0.to_le_bytes().to_vec();
        out.push(self.outcome.code());
        out.extend(self.proof);
        out
    }

    /// `None` if it is no answer.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields::new(bytes);
        let (sequence, code, proof) = (Sequence(fields.u64()), fields.u8(), fields.array());
        let outcome = Outcome::ALL.into_iter().find(|outcome| outcome.code() == code)?;
        fields.done().then_some(Self { sequence, outcome, proof })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn answers_come_back_as_they_went() {
        let one = LiveEpoch { epoch: Epoch(3), blocks: BlockCount(9), first: Lba(7) };
        let live =
            Live { through: Sequence(40), next: Lba(512), epochs: vec![one, LiveEpoch { epoch: Epoch(4), ..one }] };
        assert_eq!(Live::decode(&live.encode(), Lba(0)), Some(live.clone()));
        assert_eq!(Live::decode(&live.encode(), Lba(512)), None, "a page that goes nowhere");
        for outcome in Outcome::ALL {
            let drilled = Drilled { sequence: Sequence(5), outcome, proof: [8; 32] };
            assert_eq!(Drilled::decode(&drilled.encode()), Some(drilled));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = (Live::decode(&bytes, Lba(0)), Drilled::decode(&bytes));
        }
    }
}
