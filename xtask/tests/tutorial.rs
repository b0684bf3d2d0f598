//! The tutorial for authors of plugins is true: its files are written and its commands run, in its order, in a copy of the
//! repository, up to the policy on a pair of two running nodes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/copy.rs"]
#[expect(dead_code, reason = "what the tests of scaffolds need is there, too")]
mod copy;

use std::fmt::Write as _;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use copy::{Copy, succeeded};

/// A step of the tutorial.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// A block that says `file=PATH` is that file.
    File { path: String, text: String },
    /// A block of `sh`.
    Commands(String),
}

/// `cargo` for the copy: commands that need the host take the one that is built here already.
const CARGO: &str = r#"#!/bin/sh
case "$1 $2" in
"xtask snapshot" | "xtask conform")
    command=$2 name=$3
    shift 3
    cd "$HERE" && FARSEAL_FIXTURES="$COPY/fixtures" exec "$XTASK" "$command" "$COPY/target/plugins/$name.wasm" "$@" ;;
"xtask "*)
    shift
    CARGO_MANIFEST_DIR="$COPY/xtask" CARGO_TARGET_DIR="$COPY/target" CARGO="$REAL_CARGO" exec "$XTASK" "$@" ;;
*) CARGO_TARGET_DIR="$COPY/target" exec "$REAL_CARGO" "$@" ;;
esac
"#;

/// However it ends, no node is left running.
const PROLOGUE: &str =
    "set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT\ntrap 'exit 143' TERM\n";

#[test]
fn every_command_of_the_tutorial_does_what_it_says() {
    let copy = Copy::building_in("scaffold");
    let root = &copy.root;
    let steps = steps(&fs::read_to_string(root.join("plugins/TUTORIAL.md")).unwrap());
    assert!(steps.len() > 8, "the tutorial has files and commands");
    succeeded(
        &Command::new(env!("CARGO"))
            .current_dir(root)
            .args(["build", "--quiet", "--locked", "--workspace", "--bin", "farseal"])
            .output()
            .unwrap(),
    );

    let place = copy.place.path();
    let programs = place.join("programs");
    fs::create_dir_all(place.join("tmp")).unwrap();
    fs::create_dir_all(&programs).unwrap();
    symlink(&copy.target, place.join("target")).unwrap();
    fs::write(programs.join("cargo"), CARGO).unwrap();
    fs::set_permissions(programs.join("cargo"), fs::Permissions::from_mode(0o755)).unwrap();
    let xtask = Path::new(env!("CARGO_BIN_EXE_xtask"));
    symlink(xtask.with_file_name("farseal"), programs.join("farseal")).unwrap();
    fs::write(place.join("tutorial.sh"), script(&steps)).unwrap();

    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let path = std::env::join_paths(
        std::iter::once(programs).chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())),
    );
    // Far more than it takes: for nodes that never come up.
    let mut bash = Command::new("timeout");
    bash.args(["--kill-after=30", "600", "bash", "tutorial.sh"]).current_dir(place).env("PATH", path.unwrap());
    bash.env("TMPDIR", place.join("tmp")).env("PORT", port.to_string()).env("COPY", place).env("HERE", root);
    bash.env("XTASK", xtask).env("REAL_CARGO", env!("CARGO")).env_remove("CARGO_TARGET_DIR");
    let said = succeeded(&bash.output().unwrap());
    let reason = "the policy: after a backup: full backup of today";
    assert!(said.contains(reason), "the key's history says why it changed: {said}");
    assert!(
        said.contains("it begins afresh") && said.contains("are not the policy's, and stay"),
        "what a rollback begins with is said: {said}"
    );
}

/// The tutorial's steps as one script: variables live from one block to the next.
fn script(steps: &[Step]) -> String {
    let mut script = String::from(PROLOGUE);
    for step in steps {
        match step {
            Step::File { path, text } => {
                write!(script, "mkdir -p \"$(dirname {path})\"\ncat > {path} <<'END OF FILE'\n{text}END OF FILE\n")
                    .unwrap();
            }
            Step::Commands(commands) => script.push_str(commands),
        }
    }
    script
}

/// Blocks of a page between lines of three backquotes.
fn steps(page: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let Some(kind) = line.strip_prefix("```") else { continue };
        let text: String = lines.by_ref().take_while(|line| *line != "```").flat_map(|line| [line, "\n"]).collect();
        if let Some((_, path)) = kind.split_once(" file=") {
            steps.push(Step::File { path: path.to_owned(), text });
        } else if kind == "sh" {
            steps.push(Step::Commands(text));
        }
    }
    steps
}

#[test]
fn a_page_is_read_as_files_and_commands_in_order() {
    let page = "Text.\n\n```sh\none\ntwo\n```\n\n```rust\nshown only\n```\n```yaml file=a/b.yaml\nx: 1\n```\n";
    let file = Step::File { path: String::from("a/b.yaml"), text: String::from("x: 1\n") };
    assert_eq!(steps(page), [Step::Commands(String::from("one\ntwo\n")), file]);
}
