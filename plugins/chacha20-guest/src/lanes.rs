//! Four 32-bit words side by side: one SIMD register in the component, an array in a native test.

#[cfg(target_arch = "wasm32")]
use core::arch::wasm32::{i32x4_add, i32x4_shl, u32x4, u32x4_extract_lane, u32x4_shr, v128, v128_or, v128_xor};

/// The same word of four blocks.
#[derive(Debug, Clone, Copy)]
#[cfg(target_arch = "wasm32")]
pub(crate) struct Lanes(v128);

#[cfg(target_arch = "wasm32")]
impl Lanes {
    pub(crate) fn new(words: [u32; 4]) -> Self {
        Self(u32x4(words[0], words[1], words[2], words[3]))
    }

    pub(crate) fn words(self) -> [u32; 4] {
        [
            u32x4_extract_lane::<0>(self.0),
            u32x4_extract_lane::<1>(self.0),
            u32x4_extract_lane::<2>(self.0),
            u32x4_extract_lane::<3>(self.0),
        ]
    }

    pub(crate) fn add(self, other: Self) -> Self {
        Self(i32x4_add(self.0, other.0))
    }

    /// Exclusive or, then every word rotated left.
    pub(crate) fn xor_rotate<const LEFT: u32>(self, other: Self) -> Self {
        let mixed = v128_xor(self.0, other.0);
        Self(v128_or(i32x4_shl(mixed, LEFT), u32x4_shr(mixed, 32 - LEFT)))
    }
}

/// The same word of four blocks.
#[derive(Debug, Clone, Copy)]
#[cfg(not(target_arch = "wasm32"))]
pub(crate) struct Lanes([u32; 4]);

#[cfg(not(target_arch = "wasm32"))]
impl Lanes {
    pub(crate) const fn new(words: [u32; 4]) -> Self {
        Self(words)
    }

    pub(crate) const fn words(self) -> [u32; 4] {
        self.0
    }

    pub(crate) fn add(self, other: Self) -> Self {
        Self(std::array::from_fn(|lane| self.0[lane].wrapping_add(other.0[lane])))
    }

    /// Exclusive or, then every word rotated left.
    pub(crate) fn xor_rotate<const LEFT: u32>(self, other: Self) -> Self {
        Self(std::array::from_fn(|lane| (self.0[lane] ^ other.0[lane]).rotate_left(LEFT)))
    }
}
