//! ChaCha20 (RFC 8439, section 2.4), four blocks of key stream at a time.

use crate::lanes::Lanes;

/// "expand 32-byte k" (RFC 8439, section 2.3).
const CONSTANTS: [u32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];
/// Bytes of key stream that one block gives.
const BLOCK: usize = 64;

/// The vector of RFC 8439, section 2.3.2: key 0, 1, 2 .., the nonce below, block 1.
const VECTOR_NONCE: [u8; 12] = [0, 0, 0, 9, 0, 0, 0, 0x4a, 0, 0, 0, 0];
const VECTOR: [u8; BLOCK] = [
    0x10, 0xf1, 0xe7, 0xe4, 0xd1, 0x3b, 0x59, 0x15, 0x50, 0x0f, 0xdd, 0x1f, 0xa3, 0x20, 0x71, 0xc4, //
    0xc7, 0xd1, 0xf4, 0xc7, 0x33, 0xc0, 0x68, 0x03, 0x04, 0x22, 0xaa, 0x9a, 0xc3, 0xd4, 0x6c, 0x4e, //
    0xd2, 0x82, 0x64, 0x46, 0x07, 0x9f, 0xaa, 0x09, 0x14, 0xc2, 0xd7, 0x05, 0xd9, 0x8b, 0x02, 0xa2, //
    0xb5, 0x12, 0x9c, 0xd1, 0xde, 0x16, 0x4e, 0xb9, 0xcb, 0xd0, 0x83, 0xe8, 0xa2, 0x50, 0x3c, 0x4e,
];

/// Computes the RFC's vector with the very code that seals, registers and all.
///
/// # Errors
/// The key stream is not the RFC's.
pub fn known_answer() -> Result<(), String> {
    let key = std::array::from_fn(|place| u8::try_from(place).unwrap_or(0));
    // Blocks 0 to 3 are computed together; block 1 is the second of them.
    let mut stream = [0; 2 * BLOCK];
    apply(&key, &VECTOR_NONCE, 0, &mut stream);
    if stream[BLOCK..] == VECTOR { Ok(()) } else { Err(String::from("ChaCha20 does not give the vector of RFC 8439")) }
}

/// Xors `data` with the key stream that starts at block `counter`. The same call undoes it.
///
/// The counter has 32 bits, which serves 256 GiB; a block of a volume has 64 KiB at most.
pub fn apply(key: &[u8; 32], nonce: &[u8; 12], counter: u32, data: &mut [u8]) {
    let mut counter = counter;
    for part in data.chunks_mut(4 * BLOCK) {
        let stream = four_blocks(key, nonce, counter);
        for (bytes, block) in part.chunks_mut(BLOCK).zip(&stream) {
            xor(bytes, block);
        }
        counter = counter.wrapping_add(4);
    }
}

fn xor(bytes: &mut [u8], block: &[u32; 16]) {
    let (words, rest) = bytes.as_chunks_mut::<4>();
    let whole = words.len();
    for (bytes, key) in words.iter_mut().zip(block) {
        *bytes = (u32::from_le_bytes(*bytes) ^ key).to_le_bytes();
    }
    if let Some(key) = block.get(whole) {
        for (byte, key) in rest.iter_mut().zip(key.to_le_bytes()) {
            *byte ^= key;
        }
    }
}

/// Blocks `counter` to `counter + 3`.
fn four_blocks(key: &[u8; 32], nonce: &[u8; 12], counter: u32) -> [[u32; 16]; 4] {
    let start = initial(key, nonce, counter);
    let mut state = start;
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
    let mut blocks = [[0; 16]; 4];
    for (place, (mixed, start)) in state.iter().zip(start).enumerate() {
        for (block, word) in blocks.iter_mut().zip(mixed.add(start).words()) {
            block[place] = word;
        }
    }
    blocks
}

/// RFC 8439, section 2.3: constants, key, counter, nonce.
fn initial(key: &[u8; 32], nonce: &[u8; 12], counter: u32) -> [Lanes; 16] {
    let mut words = [0_u32; 16];
    words[..4].copy_from_slice(&CONSTANTS);
    for (word, bytes) in words[4..12].iter_mut().zip(key.as_chunks().0) {
        *word = u32::from_le_bytes(*bytes);
    }
    for (word, bytes) in words[13..].iter_mut().zip(nonce.as_chunks().0) {
        *word = u32::from_le_bytes(*bytes);
    }
    let mut state = words.map(|word| Lanes::new([word; 4]));
    state[12] = Lanes::new([0, 1, 2, 3].map(|ahead| counter.wrapping_add(ahead)));
    state
}

/// RFC 8439, section 2.1.
fn quarter_round(state: &mut [Lanes; 16], a: usize, b: usize, c: usize, d: usize) {
    state[a] = state[a].add(state[b]);
    state[d] = state[d].xor_rotate::<16>(state[a]);
    state[c] = state[c].add(state[d]);
    state[b] = state[b].xor_rotate::<12>(state[c]);
    state[a] = state[a].add(state[b]);
    state[d] = state[d].xor_rotate::<8>(state[a]);
    state[c] = state[c].add(state[d]);
    state[b] = state[b].xor_rotate::<7>(state[c]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unhex(text: &str) -> Vec<u8> {
        let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
        digits.chunks(2).filter_map(|pair| u8::try_from(pair[0] * 16 + pair[1]).ok()).collect()
    }

    fn key_from_zero() -> [u8; 32] {
        std::array::from_fn(|place| u8::try_from(place).unwrap_or(0))
    }

    #[test]
    fn block_function_gives_the_vector_of_the_rfc() {
        assert_eq!(known_answer(), Ok(()));
    }

    /// RFC 8439, section 2.4.2.
    #[test]
    fn encryption_gives_the_vector_of_the_rfc() {
        let nonce = [0, 0, 0, 0, 0, 0, 0, 0x4a, 0, 0, 0, 0];
        let mut text = *b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the \
                          future, sunscreen would be it.";
        apply(&key_from_zero(), &nonce, 1, &mut text);
        let expected = unhex(
            "6e2e359a2568f98041ba0728dd0d6981e97e7aec1d4360c20a27afccfd9fae0b\
             f91b65c5524733ab8f593dabcd62b3571639d624e65152ab8f530c359f0861d8\
             07ca0dbf500d6a6156a38e088a22b65e52bc514d16ccf806818ce91ab7793736\
             5af90bbf74a35be6b40b8eedf2785e42874d",
        );
        assert_eq!(text.as_slice(), expected);
    }

    #[test]
    fn the_stream_is_one_whatever_the_pieces() {
        let (key, nonce) = (key_from_zero(), [3; 12]);
        let mut whole = [0; 1000];
        apply(&key, &nonce, 0, &mut whole);
        for length in [0, 1, 3, 4, 63, 64, 65, 255, 256, 257, 999] {
            let mut part = vec![0; length];
            apply(&key, &nonce, 0, &mut part);
            assert_eq!(part, whole[..length], "{length} bytes");
        }
        let mut later = [0; 64];
        apply(&key, &nonce, 5, &mut later);
        assert_eq!(later, whole[320..384]);
    }
}
