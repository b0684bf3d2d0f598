//! Cipher `aes-256-gcm-siv`: every record is sealed with AES-256-GCM-SIV (RFC 8452) by the host, which gives away
//! no more than that two blocks are equal even if a nonce were to come twice.

use farseal_sdk::cipher::{Cipher, Stack, Suite, layer};
use farseal_sdk::settings::NoSettings;
use farseal_sdk::{About, Plugin};

/// The cipher.
#[derive(Debug)]
pub struct Aes256GcmSiv;

impl Plugin for Aes256GcmSiv {
    const ABOUT: About = farseal_sdk::about!("Seals every record with AES-256-GCM-SIV.");
    type Settings = NoSettings;
}

impl Cipher for Aes256GcmSiv {
    fn stacks(_settings: &NoSettings) -> Vec<Stack> {
        vec![Stack { layers: vec![layer(Suite::Aes256GcmSiv, "data")] }]
    }
}

farseal_sdk::export_cipher!(Aes256GcmSiv);

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use farseal_sdk::cipher::describe_stacks;

    use super::*;

    #[test]
    fn every_record_has_the_one_authenticating_layer() {
        let described = describe_stacks::<Aes256GcmSiv>("{}").unwrap();
        let suites: Vec<Suite> = described.stacks[0].layers.iter().map(|layer| layer.suite).collect();
        assert_eq!(suites, [Suite::Aes256GcmSiv]);
    }
}
