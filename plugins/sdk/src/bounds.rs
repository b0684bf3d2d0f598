//! How much one key may seal before an observer of the pair's whole life learns anything: the multi-key bound for
//! AES-256-GCM of draft-irtf-cfrg-aead-limits-11, in whole numbers.

use crate::units::Size;

/// Bytes of associated data that the host puts beside every seal unit.
const ASSOCIATED_DATA: u128 = 96;
/// Bytes of an AES block.
const AES_BLOCK: u128 = 16;
/// What the draft adds to a key's blocks where they are not far above a hundred; always added here.
const KEY_OVERHEAD: u128 = 97;

/// The traffic that the bound is computed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traffic {
    /// All that the pair will ever seal, under all its keys.
    pub lifetime: Size,
    /// Bytes of one seal unit (a block of the volume). Not zero.
    pub seal_unit: Size,
}

/// Seal units that one key may seal, so that whoever sees all of `traffic` has an advantage of at most `2^-exponent` over
/// guessing. From `advantage <= sigma * B / 2^127` (draft-irtf-cfrg-aead-limits-11, multi-key, nonce randomised), where
/// `sigma` counts the AES blocks of the pair's life and `B` those of one key, associated data among them. Computed as
/// if the epoch's key sealed by itself; the host's subkeys make each key's share smaller, never larger.
#[must_use]
pub fn seal_units_per_key(exponent: u32, traffic: Traffic) -> u64 {
    let unit = traffic.seal_unit.as_bytes().max(1);
    let blocks_per_unit = (u128::from(unit) + ASSOCIATED_DATA).div_ceil(AES_BLOCK);
    let units = u128::from(traffic.lifetime.as_bytes().div_ceil(unit).max(1));
    let sigma = units * blocks_per_unit;
    let advantage = 127_u32.checked_sub(exponent).map_or(0, |bits| 1_u128 << bits);
    let blocks_per_key = (advantage / sigma).saturating_sub(KEY_OVERHEAD);
    u64::try_from(blocks_per_key / blocks_per_unit).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A gigabyte a second for ten years.
    const TEN_YEARS: Traffic =
        Traffic { lifetime: Size::from_bytes(315_576_000_000_000_000), seal_unit: Size::from_bytes(4096) };

    #[test]
    fn a_key_may_seal_what_the_draft_says() {
        let mib = |exponent| seal_units_per_key(exponent, TEN_YEARS) * 4096 / (1 << 20);
        // The draft's formula: 2^(127-50) / 2^54.16 AES blocks, of which 262 make a unit of 4096 bytes; and so on.
        assert_eq!([57, 50, 40, 32].map(mib), [0, 111, 114_293, 29_259_238]);
    }

    #[test]
    fn half_the_traffic_doubles_the_share() {
        let half = Traffic { lifetime: Size::from_bytes(TEN_YEARS.lifetime.as_bytes() / 2), ..TEN_YEARS };
        let (whole, half) = (seal_units_per_key(40, TEN_YEARS), seal_units_per_key(40, half));
        assert!(half.abs_diff(whole * 2) <= 2, "{half} {whole}");
    }

    #[test]
    fn what_cannot_be_met_is_zero_and_nothing_overflows() {
        assert_eq!(seal_units_per_key(127, TEN_YEARS), 0);
        assert_eq!(seal_units_per_key(u32::MAX, TEN_YEARS), 0);
        let most = Size::from_bytes(u64::MAX);
        assert_eq!(seal_units_per_key(90, Traffic { lifetime: most, seal_unit: Size::from_bytes(0) }), 0);
        assert!(seal_units_per_key(0, Traffic { lifetime: Size::from_bytes(0), seal_unit: most }) > 0);
    }
}
