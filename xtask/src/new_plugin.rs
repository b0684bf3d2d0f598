//! `cargo xtask new-plugin`: a folder with a plugin that builds, passes its scenario and loads, to start from.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::workspace::{Workspace, run as run_program};

/// The files of a new rotation policy: where they go and what they say.
const ROTATION: [(&str, &str); 4] = [
    ("Cargo.toml", include_str!("../templates/rotation/Cargo.toml.in")),
    ("src/lib.rs", include_str!("../templates/rotation/lib.rs.in")),
    ("README.md", include_str!("../templates/rotation/README.md.in")),
    (SCENARIO, include_str!("../templates/rotation/scenario.yaml.in")),
];
/// Goes to the fixtures and not into the plugin's folder.
const SCENARIO: &str = "scenario";
/// Longer names make unreadable tables.
const LONGEST_NAME: usize = 40;

pub(crate) fn run(workspace: &Workspace, words: &[String]) -> Result<()> {
    let (kind, name, parent) = match words {
        [kind, name] => (kind, name, workspace.root.join("plugins")),
        [kind, name, option, dir] if option == "--dir" => (kind, name, std::env::current_dir()?.join(dir)),
        _ => bail!("use: cargo xtask new-plugin rotation NAME [--dir DIR]"),
    };
    ensure!(
        kind == "rotation",
        "there is a template for rotation only; for {kind} copy the nearest plugin in plugins/"
    );
    check_name(name)?;
    let place = parent.join(name);
    let scenario = workspace.root.join(format!("fixtures/rotation/{name}.yaml"));
    let taken = workspace.plugins()?.iter().any(|plugin| plugin.name == *name);
    ensure!(!taken, "there is a plugin {name} already; choose another name");
    for path in [&place, &scenario] {
        ensure!(!path.exists(), "{} exists already; choose another name", path.display());
    }
    let names = Names::of(name, &workspace.root, &parent);
    for (file, template) in ROTATION {
        let path = if file == SCENARIO { scenario.clone() } else { place.join(file) };
        write(&path, &names.fill(template))?;
        println!("wrote {}", workspace.shown(&path));
    }
    if parent == workspace.root.join("plugins") {
        // The lock file names every member; builds are --locked.
        run_program(workspace.cargo().args(["update", "--workspace", "--offline", "--quiet"]))?;
    } else {
        println!("add \"{}\" to the members in Cargo.toml, then run cargo update --workspace", place.display());
    }
    println!(
        "\nnext:\n  cargo test -p plugin-{name}            its unit tests, natively\n  \
         cargo xtask plugins {name}             builds the component into target/plugins\n  \
         cargo xtask snapshot {name} --review   plays the scenarios to it and shows what it did\n\
         then change {}",
        workspace.shown(&place.join("src/lib.rs")),
    );
    Ok(())
}

/// What a plugin may be called: as `about.name` in the contract.
fn check_name(name: &str) -> Result<()> {
    let words = || name.split('-');
    let good = |word: &str| !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    ensure!(
        name.len() <= LONGEST_NAME && name.starts_with(|c: char| c.is_ascii_lowercase()) && words().all(good),
        "{name:?} is no name for a plugin: lower-case words joined by hyphens, at most {LONGEST_NAME} characters, \
         for example quarter-end",
    );
    ensure!(name != "sdk", "sdk is the folder of what plugins import; choose another name");
    Ok(())
}

/// One name, as each file spells it.
struct Names {
    plain: String,
    /// `QuarterEnd`
    rust_type: String,
    /// From the plugin's folder to the root, where that is a matter of `..`.
    up: String,
}

impl Names {
    fn of(name: &str, root: &Path, parent: &Path) -> Self {
        let capital = |word: &str| {
            let (first, rest) = word.split_at(1);
            first.to_uppercase() + rest
        };
        let up = match parent.strip_prefix(root) {
            Ok(below) => vec![".."; below.components().count() + 1].join("/"),
            Err(_) => root.display().to_string(),
        };
        Self { plain: name.to_owned(), rust_type: name.split('-').map(capital).collect(), up }
    }

    fn fill(&self, template: &str) -> String {
        template.replace("{name}", &self.plain).replace("{Name}", &self.rust_type).replace("{up}", &self.up)
    }
}

fn write(path: &PathBuf, text: &str) -> Result<()> {
    let folder = path.parent().context("a file without a folder")?;
    fs::create_dir_all(folder)?;
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_lower_case_words_joined_by_hyphens() {
        for good in ["quarter-end", "a", "sha3-based"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "a--b", "Quarter", "quarter_end", "3d", "../up", "sdk", "a b", &"a".repeat(41)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_name_is_spelled_as_each_file_needs_it() {
        let names = Names::of("quarter-end", Path::new("/repo"), Path::new("/repo/plugins"));
        assert_eq!(names.fill("{name} {Name} {up}/wit"), "quarter-end QuarterEnd ../../wit");
    }
}
