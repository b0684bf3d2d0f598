//! Cipher `chacha20-guest`: ChaCha20 computed inside the component as the inner layer, AES-256-GCM by the host around
//! it. It shows how an algorithm that the host does not have gets in; where the host's own will do, it is faster.

pub mod chacha;
mod lanes;

use farseal_sdk::cipher::{Cipher, NONCE_BYTES, RawCipher, SUBKEY_BYTES, Stack, Suite, layer};
use farseal_sdk::settings::NoSettings;
use farseal_sdk::{About, Plugin};

/// The cipher.
#[derive(Debug)]
pub struct Chacha20Guest;

impl Plugin for Chacha20Guest {
    const ABOUT: About = farseal_sdk::about!("ChaCha20 in the component, AES-256-GCM by the host around it.");
    type Settings = NoSettings;
}

impl Cipher for Chacha20Guest {
    fn stacks(_settings: &NoSettings) -> Vec<Stack> {
        vec![Stack { layers: vec![layer(Suite::Own, "inner"), layer(Suite::Aes256Gcm, "outer")] }]
    }
}

impl RawCipher for Chacha20Guest {
    fn known_answer() -> Result<(), String> {
        chacha::known_answer()
    }

    fn seal_block(key: &[u8; SUBKEY_BYTES], nonce: &[u8; NONCE_BYTES], block: &mut [u8]) {
        chacha::apply(key, nonce, 0, block);
    }

    fn open_block(key: &[u8; SUBKEY_BYTES], nonce: &[u8; NONCE_BYTES], block: &mut [u8]) {
        chacha::apply(key, nonce, 0, block);
    }
}

farseal_sdk::export_cipher_raw!(Chacha20Guest);

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use farseal_sdk::cipher::{Unit, apply_to_units};

    use super::*;

    #[test]
    fn opening_undoes_sealing_block_by_block() {
        let unit = || Unit { nonces: (0..36).collect(), block_bytes: 512, bytes: vec![7; 3 * 512] };
        let key = [9; 32];
        let sealed =
            apply_to_units(vec![unit()], |nonce, block| Chacha20Guest::seal_block(&key, nonce, block)).unwrap();
        assert_ne!(sealed[0][..512], sealed[0][512..1024], "each block has a nonce of its own");
        let again = Unit { bytes: sealed[0].clone(), ..unit() };
        let opened = apply_to_units(vec![again], |nonce, block| Chacha20Guest::open_block(&key, nonce, block)).unwrap();
        assert_eq!(opened, [unit().bytes]);
    }

    #[test]
    fn lengths_that_do_not_fit_are_refused() {
        for (nonces, block_bytes, bytes) in [(11, 512, 512), (12, 0, 0), (12, 512, 511), (24, 512, 512)] {
            let unit = Unit { nonces: vec![0; nonces], block_bytes, bytes: vec![0; bytes] };
            assert!(apply_to_units(vec![unit], |_, _| ()).is_err());
        }
    }
}
