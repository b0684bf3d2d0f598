//! What an observer of all that a pair ever sealed may gain: the multi-key bound for AES-256-GCM of
//! draft-irtf-cfrg-aead-limits-11, in whole numbers.
//!
//! `advantage <= sigma * B / 2^127` (multi-key, nonce randomised): `sigma` counts the AES blocks of the pair's life,
//! `B` those of the key that sealed most, associated data among them. Computed as if an epoch's key sealed by itself;
//! the subkeys that are derived of it make each key's share smaller, never larger.

use crate::units::{BlockBytes, ByteLen};

/// Bytes of associated data beside every seal unit.
const ASSOCIATED_DATA: u128 = 96;
/// Bytes of an AES block.
const AES_BLOCK: u128 = 16;
/// What the draft adds to a key's blocks where they are not far above a hundred; always added here.
const KEY_OVERHEAD: u128 = 97;
/// The draft's exponent.
const EXPONENT: u32 = 127;

/// What was sealed, in payload bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sealed {
    /// Under all keys of the pair.
    pub life: ByteLen,
    /// Under the one key.
    pub key: ByteLen,
    /// Of one seal unit.
    pub unit: BlockBytes,
}

impl Sealed {
    /// The greatest `n` so that the advantage is at most `2^-n`; 0 where the bound says nothing any more.
    pub fn exponent(&self) -> u32 {
        let product = self.aes_blocks(self.life.max(self.key)).saturating_mul(self.aes_blocks(self.key) + KEY_OVERHEAD);
        // The smallest power of two that is not below the product.
        let bits = u128::BITS - product.max(1).saturating_sub(1).leading_zeros();
        EXPONENT.saturating_sub(bits)
    }

    /// Payload bytes that the key may seal, in all, so that the advantage stays at most `2^-exponent`.
    pub fn key_bytes_max(&self, exponent: u32) -> ByteLen {
        let allowed = EXPONENT.checked_sub(exponent).map_or(0, |bits| 1_u128 << bits);
        let sigma = self.aes_blocks(self.life.max(self.key)).max(1);
        let blocks = (allowed / sigma).saturating_sub(KEY_OVERHEAD);
        let units = blocks / self.unit_blocks();
        ByteLen(u64::try_from(units.saturating_mul(u128::from(self.unit.as_u64()))).unwrap_or(u64::MAX))
    }

    fn unit_blocks(&self) -> u128 {
        (u128::from(self.unit.as_u64()) + ASSOCIATED_DATA).div_ceil(AES_BLOCK)
    }

    fn aes_blocks(&self, bytes: ByteLen) -> u128 {
        u128::from(bytes.0.div_ceil(self.unit.as_u64())) * self.unit_blocks()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A gigabyte a second for ten years.
    const LIFE: ByteLen = ByteLen(315_576_000_000_000_000);

    #[test]
    fn a_key_may_seal_what_the_draft_says() {
        let sealed = Sealed { life: LIFE, key: ByteLen(0), unit: BlockBytes::DEFAULT };
        let mib = |exponent| sealed.key_bytes_max(exponent).0 >> 20;
        // 2^(127-50) / 2^54.16 AES blocks, of which 262 make a unit of 4096 bytes; and so on.
        assert_eq!([57, 50, 40, 32].map(mib), [0, 111, 114_293, 29_259_238]);
    }

    #[test]
    fn the_exponent_is_the_one_that_a_full_key_was_allowed_for() {
        for exponent in [1, 20, 32, 40, 50] {
            let fresh = Sealed { life: LIFE, key: ByteLen(0), unit: BlockBytes::DEFAULT };
            let key = fresh.key_bytes_max(exponent).min(LIFE);
            let full = Sealed { key, ..fresh };
            assert!(full.exponent() >= exponent, "{exponent}: {}", full.exponent());
        }
        let all = ByteLen(u64::MAX);
        assert_eq!(Sealed { life: all, key: all, unit: BlockBytes::DEFAULT }.exponent(), 6);
        let none = Sealed { life: ByteLen(0), key: ByteLen(0), unit: BlockBytes::DEFAULT };
        assert_eq!((none.exponent(), none.key_bytes_max(200)), (127, ByteLen(0)));
    }
}
