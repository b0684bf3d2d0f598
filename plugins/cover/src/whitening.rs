//! A keyed check by which a carrier knows its own payload.

use farseal_sdk::disguise::chance::Stream;

/// 16 bytes that depend on every byte of `parts` and on `key`.
///
/// Each 32 bytes are mixed into the key of the next block function: a chain of pseudorandom functions over input of
/// which the length comes first, so that no input is the beginning of another.
pub(crate) fn check(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 16] {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut chain: [u8; 32] = Stream::new(key, b"check begins").take();
    let mut place = 0;
    for byte in length.to_le_bytes().iter().chain(parts.iter().copied().flatten()) {
        chain[place] ^= byte;
        place += 1;
        if place == chain.len() {
            chain = Stream::new(&chain, b"check chains").take();
            place = 0;
        }
    }
    Stream::new(&chain, b"check closes").take()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_sees_every_byte_the_length_and_the_key() {
        let key = [1; 32];
        let plain = check(&key, &[&[0; 100]]);
        for place in 0..100 {
            let mut other = [0; 100];
            other[place] = 1;
            assert_ne!(check(&key, &[&other]), plain);
        }
        assert_ne!(check(&key, &[&[0; 101]]), plain);
        assert_ne!(check(&[2; 32], &[&[0; 100]]), plain);
        assert_eq!(check(&key, &[&[0; 40], &[0; 60]]), plain, "parts are one input");
    }
}
