//! What a primary asks of the copy's log when it verifies it, and the bytes of the answer.
//!
//! The remote has no key and judges nothing: it sends what its log holds of the blocks that are asked for, sealed as it
//! came, and says of what it cannot read why. The primary opens it with its own keys.
//!
//! ```text
//! answer = everything up to here is in the index (u64), runs in the order of their addresses
//! run    = blocks (u32), what (u8), then
//!          0 no record says      nothing
//!          1 a record            its header (96), tags (of each block 16 and its search tags; one for zeroes), the blocks of a data record
//!          2 unreadable          why (u8)
//!          3 the base's content  a digest (32) a block, under the question's challenge
//! ```

use crate::bytes::Fields;
use crate::limits::{VERIFY_ANSWER_BYTES_MAX, VERIFY_RANGE_BYTES};
use crate::record::{Framed, HEADER_BYTES, Header, Kind};
use crate::units::{BlockBytes, BlockCount, Extent, Lba, PairId, Sequence, VolumeId};

/// What the copy is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Inspect {
    /// Comes back with the answer.
    pub id: u64,
    /// At most [`VERIFY_RANGE_BYTES`].
    pub extent: Extent,
    /// Random: what a base answers with is good for this question alone.
    pub challenge: [u8; 32],
}

/// What the copy holds of the blocks that were asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// The index holds everything up to here, and nothing above it.
    pub through: Sequence,
    /// They cover the extent, in order.
    pub runs: Vec<Run>,
}

/// Blocks of one origin.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Run {
    pub blocks: BlockCount,
    pub held: Held,
}

/// What the copy holds of a run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Held {
    /// No record says what is there: it reads as zeroes.
    Nothing,
    Record(Box<Part>),
    Unreadable(Unreadable),
    /// It lies in the site's own volume, below the copy: a digest of each block.
    Base(Vec<[u8; 32]>),
}

/// Neighbouring blocks of one record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Part {
    pub header: Header,
    /// The index of the first of them in the record; 0 for zeroes, whose one tag speaks for all.
    pub first: u32,
    pub tags: Vec<u8>,
    pub blocks: Vec<u8>,
}

/// Why the copy cannot show what its index says that it holds.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, thiserror::Error, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Unreadable {
    #[error("the header of its record is damaged")]
    Header,
    #[error("what the log holds of its record does not match its checksum")]
    Body,
    #[error("its record is not where the index says")]
    NotThere,
    #[error("another record stands where the index says")]
    OtherRecord,
    #[error("the remote's disk does not read it")]
    Disk,
}

/// Why an answer is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AnswerError {
    #[error("it is cut short, or longer than what it says")]
    Length,
    #[error("it speaks of other blocks than those that were asked for")]
    OtherBlocks,
    #[error("it holds a record that is none")]
    Record,
    #[error("it holds a record of another pair, or one that its index cannot hold")]
    OtherRecord,
    #[error("it says something that this version does not know")]
    Unknown,
}

/// What a record must agree with.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    pub pair: PairId,
    pub volume: VolumeId,
    pub encrypted: bool,
    pub block_bytes: BlockBytes,
}

const NOTHING: u8 = 0;
const RECORD: u8 = 1;
const UNREADABLE: u8 = 2;
const BASE: u8 = 3;

impl Inspect {
    /// Bytes of a question.
    pub const BYTES: usize = 8 + 8 + 4 + 32;

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(Self::BYTES);
        out.extend(self.id.to_le_bytes());
        out.extend(self.extent.first().0.to_le_bytes());
        out.extend(count(self.extent.blocks()).to_le_bytes());
        out.extend(self.challenge);
        out
    }

    pub(crate) fn decode(fields: &mut Fields<'_>) -> Option<Self> {
        let (id, first, blocks, challenge) = (fields.u64(), fields.u64(), fields.u32(), fields.array());
        let extent = Extent::new(Lba(first), BlockCount(u64::from(blocks)))?;
        Some(Self { id, extent, challenge })
    }

    /// Is the question one that is answered: of this volume, and not too long?
    pub fn fits(&self, volume: BlockCount, block_bytes: BlockBytes) -> bool {
        self.extent.end().0 <= volume.0 && self.extent.blocks().byte_len(block_bytes) <= VERIFY_RANGE_BYTES
    }
}

impl Unreadable {
    const ALL: [Self; 5] = [Self::Header, Self::Body, Self::NotThere, Self::OtherRecord, Self::Disk];

    fn code(self) -> u8 {
        match self {
            Self::Header => 1,
            Self::Body => 2,
            Self::NotThere => 3,
            Self::OtherRecord => 4,
            Self::Disk => 5,
        }
    }
}

impl Answer {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.through.0.to_le_bytes().to_vec();
        for run in &self.runs {
            out.extend(count(run.blocks).to_le_bytes());
            match &run.held {
                Held::Nothing => out.push(NOTHING),
                Held::Record(part) => {
                    out.push(RECORD);
                    // The checksum covers the whole body, of which this may be a part: the tags are what proves the blocks.
                    out.extend(part.header.encode(0));
                    out.extend(&part.tags);
                    out.extend(&part.blocks);
                }
                Held::Unreadable(why) => out.extend([UNREADABLE, why.code()]),
                Held::Base(digests) => {
                    out.push(BASE);
                    digests.iter().for_each(|digest| out.extend(digest));
                }
            }
        }
        out
    }

    /// Reads an answer to a question about `extent`. What comes back covers it exactly, and every part has the lengths
    /// that its header says.
    pub fn decode(bytes: &[u8], extent: Extent, terms: &Terms) -> Result<Self, AnswerError> {
        if bytes.len() > VERIFY_ANSWER_BYTES_MAX {
            return Err(AnswerError::Length);
        }
        let mut fields = Fields::new(bytes);
        let through = Sequence(fields.u64());
        let (mut runs, mut at) = (Vec::new(), extent.first());
        while fields.ok() && at < extent.end() {
            let blocks = BlockCount(u64::from(fields.u32()));
            let within = Extent::new(at, blocks).filter(|run| run.end() <= extent.end());
            let what = fields.u8();
            if !fields.ok() {
                break;
            }
            let within = within.ok_or(AnswerError::OtherBlocks)?;
            let held = match what {
                NOTHING => Held::Nothing,
                RECORD => Held::Record(Box::new(decode_part(&mut fields, within, through, terms)?)),
                UNREADABLE => {
                    let code = fields.u8();
                    let why = Unreadable::ALL.into_iter().find(|why| why.code() == code);
                    Held::Unreadable(why.ok_or(AnswerError::Unknown)?)
                }
                BASE => Held::Base((0..blocks.0).map(|_| fields.array()).collect()),
                _ => return Err(AnswerError::Unknown),
            };
            runs.push(Run { blocks, held });
            at = within.end();
        }
        if fields.done() { Ok(Self { through, runs }) } else { Err(AnswerError::Length) }
    }
}

fn decode_part(fields: &mut Fields<'_>, within: Extent, through: Sequence, terms: &Terms) -> Result<Part, AnswerError> {
    let bytes = fields.take(HEADER_BYTES);
    if !fields.ok() {
        return Err(AnswerError::Length);
    }
    let header = Framed::decode(bytes).map_err(|_| AnswerError::Record)?.header;
    let ours = header.pair == terms.pair
        && header.volume == terms.volume
        && header.encrypted == terms.encrypted
        && header.block_bytes == terms.block_bytes
        && header.sequence <= through;
    let extent = header.extent().filter(|extent| ours && extent.intersection(within) == Some(within));
    let skip = within.first().0 - extent.ok_or(AnswerError::OtherRecord)?.first().0;
    let blocks = usize::try_from(within.blocks().0).map_err(|_| AnswerError::OtherRecord)?;
    let (first, tags, size) = match header.kind {
        Kind::Data => (u32::try_from(skip).map_err(|_| AnswerError::OtherRecord)?, blocks, blocks),
        Kind::Zero | Kind::Trim => (0, 1, 0),
        Kind::Key | Kind::Cover | Kind::Void | Kind::Cut | Kind::Gap => return Err(AnswerError::OtherRecord),
    };
    let tags = fields.take(tags * header.tag_bytes_each()).to_vec();
    let blocks = fields.take(size * header.block_bytes.as_usize()).to_vec();
    if fields.ok() { Ok(Part { header, first, tags, blocks }) } else { Err(AnswerError::Length) }
}

/// A range's blocks fit the field; a longer run is cut, and not decoded.
fn count(blocks: BlockCount) -> u32 {
    u32::try_from(blocks.0).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::TAG_BYTES;
    use crate::record::tests::sample;

    fn terms() -> Terms {
        let header = sample(Kind::Data, 9, 8);
        let Header { pair, volume, encrypted, block_bytes, .. } = header;
        Terms { pair, volume, encrypted, block_bytes }
    }

    fn extent(first: u64, blocks: u64) -> Extent {
        Extent::new(Lba(first), BlockCount(blocks)).unwrap()
    }

    /// Of the blocks 4..12; the records begin at 5.
    fn answer() -> Answer {
        let data = sample(Kind::Data, 9, 4);
        let part = |header: Header, first, tags: usize, blocks: usize| {
            let blocks = vec![7; blocks * header.block_bytes.as_usize()];
            Held::Record(Box::new(Part { header, first, tags: vec![3; tags * TAG_BYTES], blocks }))
        };
        let run = |blocks, held| Run { blocks: BlockCount(blocks), held };
        let runs = vec![
            run(1, Held::Nothing),
            run(1, part(sample(Kind::Zero, 8, 4), 0, 1, 0)),
            run(3, part(data, 1, 3, 3)),
            run(2, Held::Unreadable(Unreadable::Body)),
            run(1, Held::Base(vec![[4; 32]])),
        ];
        Answer { through: Sequence(9), runs }
    }

    #[test]
    fn an_answer_comes_back_as_it_went_and_no_other() {
        let bytes = answer().encode();
        assert_eq!(Answer::decode(&bytes, extent(4, 8), &terms()), Ok(answer()));
        for cut in 0..bytes.len() {
            assert!(Answer::decode(&bytes[..cut], extent(4, 8), &terms()).is_err(), "cut at {cut}");
        }
        let longer = [bytes.as_slice(), &[0]].concat();
        assert_eq!(Answer::decode(&longer, extent(4, 8), &terms()), Err(AnswerError::Length));
        assert_eq!(Answer::decode(&bytes, extent(5, 8), &terms()), Err(AnswerError::OtherRecord));
        assert_eq!(Answer::decode(&bytes, extent(4, 7), &terms()), Err(AnswerError::Length));
        assert_eq!(Answer::decode(&bytes, extent(4, 9), &terms()), Err(AnswerError::Length));
        let other = Terms { pair: PairId([9; 16]), ..terms() };
        assert_eq!(Answer::decode(&bytes, extent(4, 8), &other), Err(AnswerError::OtherRecord));
        let early = Answer { through: Sequence(8), ..answer() }.encode();
        assert_eq!(Answer::decode(&early, extent(4, 8), &terms()), Err(AnswerError::OtherRecord));
    }

    #[test]
    fn a_question_is_answered_only_about_the_volume_and_one_range() {
        let fits = |first, blocks| {
            let inspect = Inspect { id: 1, extent: extent(first, blocks), challenge: [0; 32] };
            inspect.fits(BlockCount(1000), BlockBytes::DEFAULT)
        };
        assert!(fits(0, 256) && fits(999, 1));
        assert!(!fits(0, 257) && !fits(999, 2));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), at in 0..300usize, byte: u8) {
            let _ = Answer::decode(&bytes, extent(4, 8), &terms());
            bytes = answer().encode();
            let at = at * bytes.len() / 300;
            bytes[at] = byte;
            if let Ok(read) = Answer::decode(&bytes, extent(4, 8), &terms()) {
                prop_assert_eq!(Answer::decode(&read.encode(), extent(4, 8), &terms()), Ok(read));
            }
        }
    }
}
