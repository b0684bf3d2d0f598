//! Hostile components: the guest of `fixtures/hostile`, built once in a test run, and its texts.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Mutex;

use farseal_plugin::{Digest, Grant, LoadError, LoadRequest, Plugin};

use crate::environment::{host, root};

/// Loads with every grant and the right pin.
pub(crate) fn load<P: Plugin>(bytes: &[u8], config: serde_json::Value) -> Result<P, LoadError> {
    host().load(&LoadRequest {
        slot: "test.slot",
        bytes,
        pin: Some(Digest::of(bytes)),
        grants: &[Grant::Raw],
        config: &config,
    })
}

/// The hostile guest as a component with these features.
pub(crate) fn hostile(features: &'static str) -> Vec<u8> {
    static BUILT: Mutex<BTreeMap<&str, Vec<u8>>> = Mutex::new(BTreeMap::new());
    // One build at a time: they write to the same file.
    let mut built = BUILT.lock().unwrap();
    built.entry(features).or_insert_with(|| build_hostile(features)).clone()
}

fn build_hostile(features: &str) -> Vec<u8> {
    let place = root().join("target");
    let status = Command::new(env!("CARGO"))
        .current_dir(root().join("fixtures/hostile/guest"))
        .env("CARGO_TARGET_DIR", &place)
        .args(["build", "--quiet", "--locked", "--profile", "plugin", "--target", "wasm32-unknown-unknown"])
        .args(["--features", features])
        .status()
        .unwrap();
    assert!(status.success(), "the hostile guest does not build; needs the target wasm32-unknown-unknown");
    let module = std::fs::read(place.join("wasm32-unknown-unknown/plugin/hostile_guest.wasm")).unwrap();
    wit_component::ComponentEncoder::default().module(&module).unwrap().validate(true).encode().unwrap()
}

/// A component written as text in `fixtures/hostile`.
pub(crate) fn text(name: &str) -> Vec<u8> {
    wat::parse_file(root().join("fixtures/hostile").join(name).with_extension("wat")).unwrap()
}
