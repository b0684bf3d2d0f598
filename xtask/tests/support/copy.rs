//! A copy of what plugins are built from, in which a test may write what it likes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// What a plugin is built from, copied: nothing is left behind in this repository.
pub(crate) struct Copy {
    pub(crate) place: tempfile::TempDir,
    pub(crate) root: PathBuf,
    /// Kept from one run to the next, so that dependencies are built once. Not the repository's own: Cargo would take
    /// the copy's crates for the repository's.
    pub(crate) target: PathBuf,
}

pub(crate) const KINDS: [&str; 4] = ["rotation", "recovery", "disguise", "cipher"];

/// What matters here is how soon it is built.
const UNOPTIMISED: &str = "
[profile.dev]
opt-level = 0
debug = false
[profile.dev.package.\"*\"]
opt-level = 0
[profile.plugin]
lto = false
codegen-units = 16
";

impl Copy {
    /// What is built goes into this folder of the target folder.
    pub(crate) fn building_in(folder: &str) -> Self {
        let made = Self { place: tempfile::tempdir().unwrap(), root: root(), target: target().join(folder) };
        let place = made.place.path();
        for name in ["Cargo.lock", "Cargo.toml", "rust-toolchain.toml", "host", "plugins", "wit", "xtask"] {
            copy(&made.root.join(name), &place.join(name));
        }
        // Not the transcripts: those are of the shipped plugins.
        for kind in KINDS {
            copy(&made.root.join("fixtures").join(kind), &place.join("fixtures").join(kind));
        }
        // What builds plugins in other languages is installed once.
        fs::create_dir_all(&made.target).unwrap();
        let _ = symlink(target().join("tools"), made.target.join("tools"));
        fs::create_dir_all(place.join(".cargo")).unwrap();
        fs::write(place.join(".cargo/config.toml"), UNOPTIMISED).unwrap();
        made
    }

    /// `cargo xtask` in the copy.
    pub(crate) fn xtask(&self, words: &[&str]) -> Output {
        self.there(Command::new(env!("CARGO_BIN_EXE_xtask")).args(words))
    }

    pub(crate) fn cargo(&self, words: &[&str]) -> Output {
        self.there(Command::new(env!("CARGO")).args(words))
    }

    fn there(&self, command: &mut Command) -> Output {
        let command = command.current_dir(self.place.path()).env("CARGO_MANIFEST_DIR", self.place.path().join("xtask"));
        command.env("CARGO_TARGET_DIR", &self.target).output().unwrap()
    }

    pub(crate) fn component(&self, name: &str) -> PathBuf {
        let plain = self.target.join(format!("plugins/{name}.wasm"));
        if plain.exists() { plain } else { self.target.join(format!("plugins/interpreted/{name}.wasm")) }
    }

    /// A command of `cargo xtask` over the copy's scenarios and components, but with the host that is built here already.
    pub(crate) fn with_host_from_here(&self, command: &str, names: &[&str], words: &[&str]) -> Output {
        let mut xtask = Command::new(env!("CARGO_BIN_EXE_xtask"));
        xtask.current_dir(&self.root).env("FARSEAL_FIXTURES", self.place.path().join("fixtures"));
        let farseal = Path::new(env!("CARGO_BIN_EXE_xtask")).with_file_name("farseal");
        xtask.envs(farseal.is_file().then_some(("FARSEAL_PROGRAM", farseal)));
        xtask.arg(command).args(names.iter().map(|name| self.component(name))).args(words).output().unwrap()
    }
}

/// The repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().canonicalize().unwrap()
}

fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// Are the tools there that build plugins in this language? Nothing but `cargo xtask` installs any.
pub(crate) fn builds(language: &str) -> bool {
    target().join("tools").join(language).join("installed").is_file()
}

fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap().map(Result::unwrap).filter(|entry| entry.file_name() != "target") {
            copy(&entry.path(), &to.join(entry.file_name()));
        }
    } else {
        fs::copy(from, to).unwrap();
    }
}

pub(crate) fn succeeded(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let all = text(&output.stdout) + &text(&output.stderr);
    assert!(output.status.success(), "{all}");
    all
}
