//! Lines that hold the hash of the line before: one that is changed, taken out or put in afterwards shows, and whoever wrote the last
//! hash down elsewhere can tell that none is missing at the end

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

/// SHA-256 of a line as it is kept, without its line break; zeroes before the first.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct LineHash([u8; 32]);

impl LineHash {
    /// What the first line holds.
    pub const NONE: Self = Self([0; 32]);

    /// Of a line's bytes.
    pub fn of(line: &[u8]) -> Self {
        Self(Sha256::digest(line).into())
    }
}

impl From<Sha256> for LineHash {
    fn from(line: Sha256) -> Self {
        Self(line.finalize().into())
    }
}

impl fmt::Display for LineHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for LineHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for LineHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for LineHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let wrong = || D::Error::custom("a hash has 64 hexadecimal digits");
        let digits = text.as_bytes().as_chunks::<2>().0;
        let mut hash = [0; 32];
        if text.len() != 64 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        for (byte, pair) in hash.iter_mut().zip(digits) {
            let pair = std::str::from_utf8(pair).map_err(|_| wrong())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
        }
        Ok(Self(hash))
    }
}

/// A line with the hash of the one before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chained<T> {
    pub before: LineHash,
    #[serde(flatten)]
    pub line: T,
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn a_hash_is_read_as_it_was_written_and_nothing_else_is_one() {
        let hash = LineHash::of(b"a line");
        let text = serde_json::to_string(&hash).unwrap();
        assert_eq!(serde_json::from_str::<LineHash>(&text).unwrap(), hash);
        for wrong in ["\"\"", "\"00\"", &format!("\"{}\"", "x".repeat(64)), &format!("\"+{}\"", "0".repeat(63)), "7"] {
            assert!(serde_json::from_str::<LineHash>(wrong).is_err(), "{wrong}");
        }
    }
}
