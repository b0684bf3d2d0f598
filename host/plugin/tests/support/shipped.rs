//! The shipped plugins, built once in a test run.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::environment::root;

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

/// Every component in a folder by its file's name.
pub(crate) fn read_components(place: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = std::fs::read_dir(place).unwrap().map(|entry| entry.unwrap().path());
    let components = files.filter(|path| path.extension().is_some_and(|extension| extension == "wasm"));
    components
        .map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), std::fs::read(&path).unwrap()))
        .collect()
}
