//! Cipher `cascade`: ChaCha20 inside, AES-256-GCM around it, each under a key of its own: what was sealed stays
//! secret as long as either of the two ciphers stands.

use farseal_sdk::cipher::{Cipher, Stack, Suite, layer};
use farseal_sdk::settings::NoSettings;
use farseal_sdk::{About, Plugin};

/// The cipher.
#[derive(Debug)]
pub struct Cascade;

impl Plugin for Cascade {
    const ABOUT: About = farseal_sdk::about!("Seals every record twice, with two ciphers and two keys.");
    type Settings = NoSettings;
}

impl Cipher for Cascade {
    fn stacks(_settings: &NoSettings) -> Vec<Stack> {
        vec![Stack { layers: vec![layer(Suite::Chacha20, "inner"), layer(Suite::Aes256Gcm, "outer")] }]
    }
}

farseal_sdk::export_cipher!(Cascade);

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use farseal_sdk::cipher::describe_stacks;

    use super::*;

    #[test]
    fn two_ciphers_of_two_families_lie_around_each_other() {
        let described = describe_stacks::<Cascade>("{}").unwrap();
        let suites: Vec<Suite> = described.stacks[0].layers.iter().map(|layer| layer.suite).collect();
        assert_eq!(suites, [Suite::Chacha20, Suite::Aes256Gcm]);
    }
}
