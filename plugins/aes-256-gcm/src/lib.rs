//! Cipher `aes-256-gcm`, the default: every record is sealed with AES-256-GCM by the host, under one key label, and a
//! plan is good for as long as the contract lets it be.

use farseal_sdk::cipher::{Cipher, Stack, Suite, layer};
use farseal_sdk::settings::NoSettings;
use farseal_sdk::{About, Plugin};

/// The cipher.
#[derive(Debug)]
pub struct Aes256Gcm;

impl Plugin for Aes256Gcm {
    const ABOUT: About = farseal_sdk::about!("Seals every record with AES-256-GCM.");
    type Settings = NoSettings;
}

impl Cipher for Aes256Gcm {
    fn stacks(_settings: &NoSettings) -> Vec<Stack> {
        vec![Stack { layers: vec![layer(Suite::Aes256Gcm, "data")] }]
    }
}

farseal_sdk::export_cipher!(Aes256Gcm);

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use farseal_sdk::cipher::{Batch, MOST_AHEAD, describe_stacks, plan_batch};

    use super::*;

    #[test]
    fn one_stack_serves_a_million_records_ahead() {
        let described = describe_stacks::<Aes256Gcm>("{}").unwrap();
        assert_eq!(described.stacks.len(), 1);
        let batch = Batch { epoch: 1, first_sequence: 77, block_bytes: 4096, records: Vec::new() };
        let plan = plan_batch::<Aes256Gcm>(&batch, "{}").unwrap();
        assert_eq!((plan.choices, plan.valid_below), (vec![0], 77 + MOST_AHEAD));
    }

    #[test]
    fn settings_are_refused_as_there_are_none() {
        assert!(describe_stacks::<Aes256Gcm>(r#"{"rounds": 14}"#).is_err());
    }
}
