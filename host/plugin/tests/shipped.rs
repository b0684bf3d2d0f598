//! The shipped plugins, loaded and called as the daemon does.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/components.rs"]
mod components;

use components::{host, shipped};
use farseal_plugin::{Cipher, Digest, Disguise, Grant, Kind, LoadRequest, Plugin, Power, Recovery, RotationPolicy};

fn loads<P: Plugin>(bytes: &[u8]) -> P {
    let config = serde_json::Value::Null;
    let request =
        LoadRequest { slot: "test", bytes, pin: Some(Digest::of(bytes)), grants: &[Grant::Raw], config: &config };
    host().load(&request).unwrap()
}

#[test]
fn every_shipped_plugin_describes_itself_under_its_own_name() {
    for (name, bytes) in shipped() {
        let inspection = host().inspect(name, bytes).unwrap();
        assert_eq!(inspection.about.name, *name);
        assert!(inspection.abi.starts_with("0.1."));
        assert!(inspection.describe_fuel < 1_000_000, "{name}: describe takes {}", inspection.describe_fuel);
        assert!(inspection.bytes < 1 << 20, "{name}");
    }
}

#[test]
fn every_shipped_plugin_works_with_no_settings_at_all() {
    for (name, bytes) in shipped() {
        let kind = host().inspect(name, bytes).unwrap().kind;
        let facts = match kind {
            Kind::Rotation => loads::<RotationPolicy>(bytes).facts().clone(),
            Kind::Disguise => loads::<Disguise>(bytes).facts().clone(),
            Kind::Recovery => loads::<Recovery>(bytes).facts().clone(),
            Kind::Cipher => loads::<Cipher>(bytes).facts().clone(),
        };
        assert_eq!(facts.config, "{}");
    }
}

#[test]
fn only_the_raw_cipher_wants_raw_keys() {
    for (name, bytes) in shipped() {
        let powers = host().inspect(name, bytes).unwrap().powers;
        assert_eq!(powers.contains(&Power::Raw), name == "chacha20-guest", "{name}");
    }
}
