//! A short name for public keys that two people can compare over the telephone.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

/// SHA-256 of what it names. Shown as its first 128 bits in eight groups of four hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub [u8; 32]);

/// Bytes that are shown: a second set of keys with the same 128 bits is out of reach.
const SHOWN: usize = 16;

impl Fingerprint {
    /// SHA-256(domain || part lengths u32be and parts), so that no two lists of parts read alike.
    pub(super) fn of(domain: &[u8], parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new().chain_update(domain);
        for part in parts {
            // Keys and names are far below 4 GiB; should a part ever not be, its length says so all the same.
            hash.update(u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
            hash.update(part);
        }
        Self(hash.finalize().into())
    }

    /// Does `shown`, as printed by `Display`, name this?
    #[must_use]
    pub fn is_shown_as(&self, shown: &ShownFingerprint) -> bool {
        self.0.starts_with(&shown.0)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, pair) in self.0.chunks_exact(2).take(SHOWN / 2).enumerate() {
            let joint = if at == 0 { "" } else { "-" };
            write!(f, "{joint}")?;
            for byte in pair {
                write!(f, "{byte:02x}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The shown part of a fingerprint, as a person types it: 32 hexadecimal digits, hyphens and blanks anywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShownFingerprint([u8; SHOWN]);

/// Not a fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a fingerprint is eight groups of four hexadecimal digits, as in 0123-4567-89ab-cdef-0123-4567-89ab-cdef")]
pub struct NotAFingerprint;

impl FromStr for ShownFingerprint {
    type Err = NotAFingerprint;

    fn from_str(text: &str) -> Result<Self, NotAFingerprint> {
        let digits: String = text.chars().filter(|c| *c != '-' && !c.is_whitespace()).collect();
        let bytes = super::wire::from_hex(&digits.to_ascii_lowercase()).ok_or(NotAFingerprint)?;
        bytes.try_into().map(Self).map_err(|_| NotAFingerprint)
    }
}
