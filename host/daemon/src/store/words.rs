//! Little-endian words one after the other, out of a file that is in memory and whose checksum was right.

/// The bytes end before the word does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct TooShort;

pub(super) struct Words<'a>(pub(super) &'a [u8]);

impl Words<'_> {
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], TooShort> {
        let (word, rest) = self.0.split_first_chunk::<N>().ok_or(TooShort)?;
        self.0 = rest;
        Ok(*word)
    }

    pub(super) fn u32(&mut self) -> Result<u32, TooShort> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, TooShort> {
        Ok(u64::from_le_bytes(self.array()?))
    }
}
