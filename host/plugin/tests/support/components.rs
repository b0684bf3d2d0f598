//! Components for tests: the shipped plugins and the hostile guest, each built once in a test run.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};

use farseal_plugin::{Digest, Grant, HostOptions, LoadError, LoadRequest, Plugin, PluginHost};

/// The repository's root.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// A host without a cache; one for a whole test program.
pub(crate) fn host() -> &'static PluginHost {
    static HOST: OnceLock<PluginHost> = OnceLock::new();
    HOST.get_or_init(|| PluginHost::new(HostOptions::uncached()).unwrap())
}

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

/// The shipped plugins by name: those in `FARSEAL_PLUGINS`, else built by `cargo xtask plugins`.
pub(crate) fn shipped() -> &'static BTreeMap<String, Vec<u8>> {
    static SHIPPED: OnceLock<BTreeMap<String, Vec<u8>>> = OnceLock::new();
    SHIPPED.get_or_init(|| {
        let place = std::env::var_os("FARSEAL_PLUGINS").map_or_else(build_shipped, PathBuf::from);
        read_components(&place)
    })
}

fn build_shipped() -> PathBuf {
    let status = Command::new(env!("CARGO")).current_dir(root()).args(["xtask", "plugins"]).status().unwrap();
    assert!(status.success(), "`cargo xtask plugins` failed: run it by hand to see why");
    root().join("target/plugins")
}

fn read_components(place: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = std::fs::read_dir(place).unwrap().map(|entry| entry.unwrap().path());
    let components = files.filter(|path| path.extension().is_some_and(|extension| extension == "wasm"));
    components
        .map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), std::fs::read(&path).unwrap()))
        .collect()
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
