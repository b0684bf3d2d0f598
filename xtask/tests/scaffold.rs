//! A scaffolded plugin builds, passes its own unit tests and every scenario of its kind, and loads, at the first try.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// What a plugin is built from, copied: nothing is left behind in this repository.
struct Copy {
    place: tempfile::TempDir,
    root: PathBuf,
    /// Kept from one run to the next, so that dependencies are built once. Not the repository's own: Cargo would take
    /// the copy's crates for the repository's.
    target: PathBuf,
}

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
    fn new() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().canonicalize().unwrap();
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |dir| root.join(dir));
        let made = Self { place: tempfile::tempdir().unwrap(), root, target: target.join("scaffold") };
        let place = made.place.path();
        for name in ["Cargo.lock", "Cargo.toml", "rust-toolchain.toml", "host", "plugins", "wit", "xtask"] {
            copy(&made.root.join(name), &place.join(name));
        }
        // Not the transcripts: those are of the shipped plugins.
        copy(&made.root.join("fixtures/rotation"), &place.join("fixtures/rotation"));
        fs::create_dir_all(place.join(".cargo")).unwrap();
        fs::write(place.join(".cargo/config.toml"), UNOPTIMISED).unwrap();
        made
    }

    /// `cargo xtask` in the copy.
    fn xtask(&self, words: &[&str]) -> Output {
        self.there(Command::new(env!("CARGO_BIN_EXE_xtask")).args(words))
    }

    fn cargo(&self, words: &[&str]) -> Output {
        self.there(Command::new(env!("CARGO")).args(words))
    }

    fn there(&self, command: &mut Command) -> Output {
        let command = command.current_dir(self.place.path()).env("CARGO_MANIFEST_DIR", self.place.path().join("xtask"));
        command.env("CARGO_TARGET_DIR", &self.target).output().unwrap()
    }

    /// `cargo xtask snapshot` with the copy's scenarios and component, but with the host that is built here already.
    fn snapshot(&self, mode: &str) -> Output {
        let mut xtask = Command::new(env!("CARGO_BIN_EXE_xtask"));
        xtask.current_dir(&self.root).env("FARSEAL_FIXTURES", self.place.path().join("fixtures"));
        xtask.arg("snapshot").arg(self.target.join("plugins/first-try.wasm")).arg(mode).output().unwrap()
    }
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

fn succeeded(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let all = text(&output.stdout) + &text(&output.stderr);
    assert!(output.status.success(), "{all}");
    all
}

#[test]
fn a_new_plugin_works_at_the_first_try() {
    let copy = Copy::new();
    let said = succeeded(&copy.xtask(&["new-plugin", "rotation", "first-try"]));
    assert!(said.contains("cargo xtask snapshot first-try --review"), "it says what comes next: {said}");

    succeeded(&copy.cargo(&["test", "--quiet", "--locked", "--package", "plugin-first-try"]));
    assert!(succeeded(&copy.xtask(&["plugins", "first-try"])).contains("imports log types"));
    succeeded(&copy.xtask(&["plugins", "first-try", "--check"]));
    succeeded(&copy.snapshot("--accept"));
    succeeded(&copy.snapshot("--check"));
    let transcript = copy.place.path().join("fixtures/snapshots/rotation/first-try@first-try.snap");
    assert!(fs::read_to_string(transcript).unwrap().contains("requested: before the audit"));

    let again = copy.xtask(&["new-plugin", "rotation", "first-try"]);
    assert!(!again.status.success(), "a name is used once");
}
