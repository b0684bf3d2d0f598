//! Cipher `chacha20-poly1305`: every record is sealed with ChaCha20-Poly1305 (RFC 8439) by the host: for machines
//! without AES instructions, and for whoever wants no AES.

use farseal_sdk::cipher::{Cipher, Stack, Suite, layer};
use farseal_sdk::settings::NoSettings;
use farseal_sdk::{About, Plugin};

/// The cipher.
#[derive(Debug)]
pub struct ChaCha20Poly1305;

impl Plugin for ChaCha20Poly1305 {
    const ABOUT: About = farseal_sdk::about!("Seals every record with ChaCha20-Poly1305.");
    type Settings = NoSettings;
}

impl Cipher for ChaCha20Poly1305 {
    fn stacks(_settings: &NoSettings) -> Vec<Stack> {
        vec![Stack { layers: vec![layer(Suite::Chacha20Poly1305, "data")] }]
    }
}

farseal_sdk::export_cipher!(ChaCha20Poly1305);

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use farseal_sdk::cipher::describe_stacks;

    use super::*;

    #[test]
    fn every_record_has_the_one_authenticating_layer() {
        let described = describe_stacks::<ChaCha20Poly1305>("{}").unwrap();
        let suites: Vec<Suite> = described.stacks[0].layers.iter().map(|layer| layer.suite).collect();
        assert_eq!(suites, [Suite::Chacha20Poly1305]);
    }
}
