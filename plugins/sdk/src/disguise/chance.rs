//! Chance that follows from a seed, and gaps drawn from it: what a disguise plans and hides with.
//!
//! The stream is ChaCha20 (RFC 8439) used as a pseudorandom function: nobody tells it from chance without the seed. It
//! hides structure; secrecy is not its business, as the payload is sealed already.

/// "expand 32-byte k" (RFC 8439, section 2.3).
const CONSTANTS: [u32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];

/// Bytes that follow from a key and a purpose.
#[derive(Debug, Clone)]
pub struct Stream {
    state: [u32; 16],
    block: [u8; 64],
    used: usize,
}

impl Stream {
    /// `purpose` sets streams under the same key apart.
    #[must_use]
    pub fn new(key: &[u8; 32], purpose: &[u8; 12]) -> Self {
        let mut state = [0; 16];
        state[..4].copy_from_slice(&CONSTANTS);
        for (word, bytes) in state[4..12].iter_mut().zip(key.as_chunks().0) {
            *word = u32::from_le_bytes(*bytes);
        }
        for (word, bytes) in state[13..].iter_mut().zip(purpose.as_chunks().0) {
            *word = u32::from_le_bytes(*bytes);
        }
        Self { state, block: [0; 64], used: 64 }
    }

    /// The next bytes.
    #[inline]
    pub fn take<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.byte())
    }

    /// A number below `end`; 0 when `end` is 0. The bias is below `end` / 2^64.
    #[inline]
    pub fn below(&mut self, end: u64) -> u64 {
        u64::from_le_bytes(self.take()).checked_rem(end).unwrap_or(0)
    }

    /// Xors the stream onto `bytes`. A second stream of the same key and purpose takes it off again.
    #[inline]
    pub fn mask(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            *byte ^= self.byte();
        }
    }

    #[inline]
    fn byte(&mut self) -> u8 {
        if self.used == self.block.len() {
            self.block = block(&self.state);
            self.state[12] = self.state[12].wrapping_add(1);
            self.used = 0;
        }
        let byte = self.block[self.used];
        self.used += 1;
        byte
    }
}

/// A gap of a Poisson process, in whole numbers so that every machine draws the same: the natural logarithm is summed
/// as the expected number of coin tosses, `-ln u = ln 2 * (zeros + fraction)`, with the fraction linear between powers
/// of two (at most 9 % of one halving off).
#[must_use]
pub fn exponential(mean: u64, chance: &mut Stream) -> u64 {
    let drawn = u64::from_le_bytes(chance.take()) | 1;
    let zeros = u64::from(drawn.leading_zeros());
    let mantissa = ((drawn << zeros) >> 32) & 0x7fff_ffff;
    let halvings = (zeros << 31) + (0x7fff_ffff - mantissa);
    // 2^31 steps are one halving, worth ln 2 = 0.693.
    let gap = (u128::from(mean) * u128::from(halvings) * 693 / 1_000) >> 31;
    u64::try_from(gap).unwrap_or(u64::MAX)
}

/// RFC 8439, section 2.3.
#[inline]
fn block(start: &[u32; 16]) -> [u8; 64] {
    let mut state = *start;
    for _ in 0..10 {
        quarter_round(&mut state, 0, 4, 8, 12);
        quarter_round(&mut state, 1, 5, 9, 13);
        quarter_round(&mut state, 2, 6, 10, 14);
        quarter_round(&mut state, 3, 7, 11, 15);
        quarter_round(&mut state, 0, 5, 10, 15);
        quarter_round(&mut state, 1, 6, 11, 12);
        quarter_round(&mut state, 2, 7, 8, 13);
        quarter_round(&mut state, 3, 4, 9, 14);
    }
    let mut bytes = [0; 64];
    for (out, (word, start)) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(state.iter().zip(start)) {
        *out = word.wrapping_add(*start).to_le_bytes();
    }
    bytes
}

/// RFC 8439, section 2.1.
#[inline]
fn quarter_round(state: &mut [u32; 16], a: usize, b: usize, c: usize, d: usize) {
    state[a] = state[a].wrapping_add(state[b]);
    state[d] = (state[d] ^ state[a]).rotate_left(16);
    state[c] = state[c].wrapping_add(state[d]);
    state[b] = (state[b] ^ state[c]).rotate_left(12);
    state[a] = state[a].wrapping_add(state[b]);
    state[d] = (state[d] ^ state[a]).rotate_left(8);
    state[c] = state[c].wrapping_add(state[d]);
    state[b] = (state[b] ^ state[c]).rotate_left(7);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8439, section 2.3.2, at block 1.
    #[test]
    fn the_stream_is_chacha20() {
        let key = std::array::from_fn(|place| u8::try_from(place).unwrap_or(0));
        let mut stream = Stream::new(&key, &[0, 0, 0, 9, 0, 0, 0, 0x4a, 0, 0, 0, 0]);
        let _block_0: [u8; 64] = stream.take();
        assert_eq!(stream.take(), [0x10, 0xf1, 0xe7, 0xe4, 0xd1, 0x3b, 0x59, 0x15]);
    }

    #[test]
    fn exponential_gaps_have_their_mean_and_are_less_than_it_as_often_as_those_of_a_poisson_process() {
        let mut stream = Stream::new(&[7; 32], b"gaps: a test");
        let gaps: Vec<u64> = (0..10_000).map(|_| exponential(1_000, &mut stream)).collect();
        let mean = gaps.iter().sum::<u64>() / 10_000;
        assert!((950..1_050).contains(&mean), "{mean}");
        // 1 - 1/e = 0.632.
        let shorter = gaps.iter().filter(|gap| **gap < 1_000).count();
        assert!((6_000..6_600).contains(&shorter), "{shorter}");
    }
}
