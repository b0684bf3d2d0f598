//! The running hash over a lane: two sites that hold the same records in the same order hold the same 32 bytes.
//!
//! `chain(n) = BLAKE3(chain(n-1) || digest(n))`, `digest(n) = BLAKE3(header || tags)`. Tags stand for the blocks:
//! hashing these as well would halve the speed of the path and prove nothing more. Where a pair is not encrypted, tags
//! are zero and the header's checksum of the body stands for the blocks, against mishap only.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::record::HEADER_BYTES;

/// The hash of everything up to a record.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain(pub [u8; 32]);

/// The hash of one record's header and tags.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest(pub [u8; 32]);

impl Chain {
    /// Before the first record of a pair.
    pub const START: Self = Self([0; 32]);
    /// Not known: no record leads to it.
    pub const UNKNOWN: Self = Self([0xff; 32]);

    /// The chain after the record with this digest.
    #[must_use]
    pub fn after(self, digest: Digest) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.0);
        hasher.update(&digest.0);
        Self(*hasher.finalize().as_bytes())
    }
}

impl Digest {
    pub fn of(header: &[u8; HEADER_BYTES], tags: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(header);
        hasher.update(tags);
        Self(*hasher.finalize().as_bytes())
    }
}

/// The first eight bytes in hex: enough to compare by eye.
impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(8).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chain({self})")
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest(")?;
        self.0.iter().take(8).try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str(")")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_content_both_count() {
        let (a, b) = (Digest([1; 32]), Digest([2; 32]));
        assert_ne!(Chain::START.after(a).after(b), Chain::START.after(b).after(a));
        assert_ne!(Chain::START.after(a), Chain::START.after(b));
        assert_ne!(Digest::of(&[0; HEADER_BYTES], b"x"), Digest::of(&[0; HEADER_BYTES], b"y"));
    }
}
