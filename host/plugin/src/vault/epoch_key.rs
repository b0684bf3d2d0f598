//! The key of one epoch: 32 bytes that are made here, wiped on drop, and shown to nothing but the two places
//! that need them (derivation, and wrapping for a recipient).

use std::fmt;

use hkdf::Hkdf;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

/// Bytes in an epoch key.
pub const EPOCH_KEY_LEN: usize = 32;

/// The key from which every layer key of one epoch is derived.
///
/// It can be neither cloned, printed nor serialised, and it lives on the heap so that moving the value leaves no
/// copy behind.
///
/// ```compile_fail
/// fn needs_clone<T: Clone>() {}
/// needs_clone::<farseal_plugin::vault::epoch_key::EpochKey>();
/// ```
pub struct EpochKey {
    bytes: Box<[u8; EPOCH_KEY_LEN]>,
}

/// The operating system gave no random bytes, so no key was made.
#[derive(Debug, thiserror::Error)]
#[error("no random bytes from the operating system; no epoch key was made")]
pub struct NoEntropy(#[from] getrandom::Error);

impl EpochKey {
    /// Draws a key from the operating system, hedged with `transcript`: HKDF-Extract(salt = SHA-256(transcript),
    /// input = 32 random bytes).
    ///
    /// The transcript holds what is unique to this moment (pair, generation, epoch, incarnation and above all a
    /// challenge from the peer). It need not be secret: it keeps two keys apart even where a restored snapshot made
    /// two machines draw the same random bytes.
    ///
    /// # Errors
    /// [`NoEntropy`] when the operating system has no random bytes to give.
    pub fn generate(transcript: &[u8]) -> Result<Self, NoEntropy> {
        let mut drawn = Zeroizing::new([0u8; EPOCH_KEY_LEN]);
        getrandom::fill(drawn.as_mut_slice())?;
        Ok(Self::hedged(&drawn, transcript))
    }

    fn hedged(drawn: &[u8; EPOCH_KEY_LEN], transcript: &[u8]) -> Self {
        let (mut extracted, _) = Hkdf::<Sha256>::extract(Some(&Sha256::digest(transcript)), drawn);
        let mut bytes = Box::new([0u8; EPOCH_KEY_LEN]);
        bytes.copy_from_slice(&extracted);
        extracted.zeroize();
        Self { bytes }
    }

    /// Takes over a key that was unwrapped from a capsule. The caller's copy is wiped when its `Zeroizing` drops.
    #[must_use]
    pub fn from_unwrapped(unwrapped: &Zeroizing<[u8; EPOCH_KEY_LEN]>) -> Self {
        let mut bytes = Box::new([0u8; EPOCH_KEY_LEN]);
        bytes.copy_from_slice(unwrapped.as_slice());
        Self { bytes }
    }

    /// The bytes, for wrapping into a capsule and for deriving; never for anything that prints or stores.
    #[must_use]
    pub fn expose(&self) -> &[u8; EPOCH_KEY_LEN] {
        &self.bytes
    }
}

impl Drop for EpochKey {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

/// Prints that there is a key, never which.
impl fmt::Debug for EpochKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EpochKey(..)")
    }
}

/// Compared in constant time.
impl PartialEq for EpochKey {
    fn eq(&self, other: &Self) -> bool {
        self.bytes.ct_eq(&*other.bytes).into()
    }
}
impl Eq for EpochKey {}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn one_draw_with_two_transcripts_gives_two_keys() {
        let drawn = [7u8; EPOCH_KEY_LEN];
        assert!(EpochKey::hedged(&drawn, b"challenge 1") != EpochKey::hedged(&drawn, b"challenge 2"));
        assert!(EpochKey::hedged(&drawn, b"challenge 1") == EpochKey::hedged(&drawn, b"challenge 1"));
    }

    #[test]
    fn two_draws_with_one_transcript_give_two_keys() {
        assert!(EpochKey::generate(b"same").unwrap() != EpochKey::generate(b"same").unwrap());
    }

    #[test]
    fn debug_shows_no_byte_of_the_key() {
        let key = EpochKey::hedged(&[0xAB; EPOCH_KEY_LEN], b"");
        assert_eq!(format!("{key:?}"), "EpochKey(..)");
    }
}
