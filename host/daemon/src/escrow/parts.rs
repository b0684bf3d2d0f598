//! Records that are longer than a cell, on their way to the escrow site, and opened on their way back: part by part, each checked first

use zeroize::Zeroizing;

use super::client::{EscrowLine, NoAnswer};
use super::search::{NotOpened, RECORD_BYTES_MAX, SealedRecord};
use super::wire::{FromEscrow, ToEscrow};
use crate::keys::wire::{Reader, Short};
use crate::link::parts::{Coming, OutOfOrder};

/// Bytes of a part in one cell.
pub const PART_BYTES: usize = 15 << 10;
/// Bytes of a sealed record with what stands around its blocks: the longest one, of the smallest blocks, has about half.
pub const SEALED_BYTES_MAX: usize = 4 << 20;

/// These bytes of so many, from there on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    pub of: u32,
    pub from: u32,
    pub bytes: Zeroizing<Vec<u8>>,
}

/// Why a record did not come back opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotBrought {
    #[error(transparent)]
    Line(#[from] NoAnswer),
    #[error(transparent)]
    Refused(#[from] NotOpened),
    #[error("it is longer than the {SEALED_BYTES_MAX} bytes that may go there: ask for its epoch's key")]
    TooLong,
    #[error("the escrow answered something else")]
    Other,
}

impl Part {
    /// From here on, as much as fits a cell.
    #[must_use]
    pub fn at(whole: &[u8], from: usize) -> Self {
        let rest = whole.get(from..).unwrap_or_default();
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        Self { of: number(whole.len()), from: number(from), bytes: rest[..rest.len().min(PART_BYTES)].to_vec().into() }
    }

    /// The last of the parts that it is one of.
    #[must_use]
    pub fn is_last(&self) -> bool {
        wide(self.from) + self.bytes.len() >= wide(self.of)
    }

    /// Adds it to what has come of a record; a first part begins anew. `None`: there is more to come.
    ///
    /// # Errors
    /// [`OutOfOrder`].
    pub(super) fn add_to(&self, coming: &mut Coming) -> Result<Option<Vec<u8>>, OutOfOrder> {
        if self.from == 0 {
            *coming = Coming::default();
        }
        coming.add((self.of, self.from), &self.bytes)
    }

    pub(super) fn write(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.of.to_be_bytes());
        bytes.extend_from_slice(&self.from.to_be_bytes());
        bytes.extend_from_slice(&self.bytes);
    }

    /// `None`: it is empty, longer than a part, or lies outside of what it is a part of, or that is longer than may come.
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Option<Self>, Short> {
        let (of, from) = (reader.u32()?, reader.u32()?);
        let bytes = reader.bytes(reader.rest().len())?;
        let inside = wide(from).checked_add(bytes.len()).is_some_and(|end| end <= wide(of));
        let sound = !bytes.is_empty() && bytes.len() <= PART_BYTES && wide(of) <= SEALED_BYTES_MAX && inside;
        Ok(sound.then(|| Self { of, from, bytes: bytes.to_vec().into() }))
    }
}

fn wide(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

impl EscrowLine {
    /// Has a record opened that an approved search found, however long it is. One at a time: its parts follow each other.
    ///
    /// # Errors
    /// [`NotBrought`].
    pub async fn open(&self, record: SealedRecord) -> Result<Vec<u8>, NotBrought> {
        let _one = self.opening().lock().await;
        let mut answer = if record.len() <= RECORD_BYTES_MAX {
            self.answer_to(ToEscrow::Open(record)).await?
        } else {
            self.send(&record).await?
        };
        let mut opened = Coming::default();
        loop {
            let part = match answer {
                Opening::Whole(mut bytes) => return Ok(std::mem::take(&mut *bytes)),
                Opening::Part(part) => part,
                Opening::More => return Err(NotBrought::Other),
            };
            // One that begins anew would never end.
            let added = opened.add((part.of, part.from), &part.bytes);
            if let Some(whole) = added.map_err(|OutOfOrder| NotBrought::Other)? {
                return Ok(whole);
            }
            answer = self.answer_to(ToEscrow::AskOpened { from: opened.next() }).await?;
        }
    }

    /// Part by part; the answer to the last one.
    async fn send(&self, record: &SealedRecord) -> Result<Opening, NotBrought> {
        if record.len() > SEALED_BYTES_MAX {
            return Err(NotBrought::TooLong);
        }
        let bytes = record.encode();
        let mut from = 0;
        loop {
            let part = Part::at(&bytes, from);
            let last = part.is_last();
            from += part.bytes.len();
            let answer = self.answer_to(ToEscrow::OpenPart(part)).await?;
            match (last, answer) {
                (true, answer) => return Ok(answer),
                (false, Opening::More) => {}
                (false, Opening::Whole(_) | Opening::Part(_)) => return Err(NotBrought::Other),
            }
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "three of many kinds")]
    async fn answer_to(&self, message: ToEscrow) -> Result<Opening, NotBrought> {
        for answer in self.ask(message).await? {
            match answer {
                FromEscrow::Opened(opened) => return Ok(Opening::Whole(opened?)),
                FromEscrow::OpenedPart(part) => return Ok(Opening::Part(part)),
                FromEscrow::More => return Ok(Opening::More),
                _ => {}
            }
        }
        Err(NotBrought::Other)
    }
}

/// What the escrow answers to a record, or to a part of one.
enum Opening {
    Whole(Zeroizing<Vec<u8>>),
    Part(Part),
    /// The next part is waited for.
    More,
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn parts(whole: &[u8]) -> Vec<Part> {
        (0..whole.len()).step_by(PART_BYTES).map(|from| Part::at(whole, from)).collect()
    }

    #[test]
    fn what_goes_in_parts_comes_whole_and_in_order_or_not_at_all() {
        let whole: Vec<u8> = (0..=250).cycle().take(2 * PART_BYTES + 9).collect();
        let [first, second, third] = parts(&whole).try_into().unwrap();
        assert!(!second.is_last() && third.is_last());
        let mut coming = Coming::default();
        assert_eq!(second.add_to(&mut coming), Err(OutOfOrder), "the first part is missing");
        assert_eq!(first.add_to(&mut coming), Ok(None));
        assert_eq!(third.add_to(&mut coming), Err(OutOfOrder), "one is left out");
        assert_eq!(second.add_to(&mut coming), Err(OutOfOrder), "what came before is forgotten");
        for part in [&first, &second, &first, &second] {
            assert_eq!(part.add_to(&mut coming), Ok(None), "a first part begins anew");
        }
        assert_eq!(third.add_to(&mut coming).unwrap().unwrap(), whole);
        first.add_to(&mut coming).unwrap();
        let other = Part { of: third.of + 1, ..second.clone() };
        assert_eq!(other.add_to(&mut coming), Err(OutOfOrder), "of something of another length");
        first.add_to(&mut coming).unwrap();
        second.add_to(&mut coming).unwrap();
        let long = Part { bytes: vec![0; 10].into(), ..third };
        assert_eq!(long.add_to(&mut coming), Err(OutOfOrder), "over its end");
    }

    #[test]
    fn a_part_that_is_none_is_not_taken_in() {
        let part = |of: usize, from: usize, length: usize| {
            let number = |count: usize| u32::try_from(count).unwrap();
            let mut bytes = Vec::new();
            Part { of: number(of), from: number(from), bytes: vec![7; length].into() }.write(&mut bytes);
            Part::read(&mut Reader::new(&bytes)).unwrap()
        };
        assert!(part(SEALED_BYTES_MAX, SEALED_BYTES_MAX - 9, 9).is_some());
        for (what, of, from, length) in [
            ("empty", 9, 0, 0),
            ("longer than a part", SEALED_BYTES_MAX, 0, PART_BYTES + 1),
            ("of more than may come", SEALED_BYTES_MAX + 1, 0, 9),
            ("over the end", 9, 1, 9),
        ] {
            assert_eq!(part(of, from, length), None, "{what}");
        }
    }
}
