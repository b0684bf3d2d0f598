//! A scaffolded plugin builds, passes its own unit tests and scenario, and loads, at the first try.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A copy of the repository to scaffold in: nothing is left behind in this one.
struct Copy {
    place: tempfile::TempDir,
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
        let copy_of = Self { place: tempfile::tempdir().unwrap(), target: target.join("scaffold") };
        let place = copy_of.place.path();
        for name in ["Cargo.lock", "Cargo.toml", "rust-toolchain.toml", "host", "plugins", "wit", "xtask"] {
            copy(&root.join(name), &place.join(name));
        }
        fs::create_dir_all(place.join("fixtures/rotation")).unwrap();
        fs::create_dir_all(place.join(".cargo")).unwrap();
        fs::write(place.join(".cargo/config.toml"), UNOPTIMISED).unwrap();
        copy_of
    }

    fn xtask(&self, words: &[&str]) -> Output {
        self.run(Command::new(env!("CARGO_BIN_EXE_xtask")).args(words))
    }

    fn cargo(&self, words: &[&str]) -> Output {
        self.run(Command::new(env!("CARGO")).args(words))
    }

    fn run(&self, command: &mut Command) -> Output {
        command
            .current_dir(self.place.path())
            .env("CARGO_MANIFEST_DIR", self.place.path().join("xtask"))
            .env("CARGO_TARGET_DIR", &self.target)
            .env_remove("FARSEAL_PLUGINS")
            .output()
            .unwrap()
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
    succeeded(&copy.xtask(&["snapshot", "first-try", "--accept"]));
    succeeded(&copy.xtask(&["snapshot", "first-try", "--check"]));
    let transcript = copy.place.path().join("fixtures/snapshots/rotation/first-try@first-try.snap");
    assert!(fs::read_to_string(transcript).unwrap().contains("requested: before the audit"));

    let again = copy.xtask(&["new-plugin", "rotation", "first-try"]);
    assert!(!again.status.success(), "a name is used once");
}
