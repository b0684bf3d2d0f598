//! What the tests with real processes start: this build's `farseal`, and the shipped plugins.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

pub(crate) fn farseal() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_farseal"))
}

/// The shipped plugins: those in `FARSEAL_PLUGINS`, else built by `cargo xtask plugins`.
pub(crate) fn plugins() -> &'static Path {
    static PLUGINS: OnceLock<PathBuf> = OnceLock::new();
    PLUGINS.get_or_init(|| {
        if let Some(place) = std::env::var_os("FARSEAL_PLUGINS") {
            return place.into();
        }
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
        let status = Command::new(env!("CARGO")).current_dir(&root).args(["xtask", "plugins"]).status().unwrap();
        assert!(status.success(), "`cargo xtask plugins` failed: run it by hand to see why");
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |dir| root.join(dir));
        target.join("plugins")
    })
}
