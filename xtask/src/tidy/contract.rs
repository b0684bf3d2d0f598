//! The contract as it was released: kept byte for byte under `fixtures/abi`, and what is written today only adds to it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use wit_parser::{Resolve, SourceMap};

use super::{Problem, names_in};
use crate::component::worlds;

/// Where each release has a folder with its name: its components, its `wit` and `SHA256SUMS` over all of them.
const RELEASES: &str = "fixtures/abi";
const SUMS: &str = "SHA256SUMS";

pub(super) fn check(root: &Path) -> Result<Vec<Problem>> {
    let mut problems = Vec::new();
    let releases = root.join(RELEASES);
    if !releases.is_dir() {
        return Ok(problems);
    }
    for release in names_in(&releases)? {
        let place = releases.join(&release);
        if place.is_dir() {
            problems.extend(frozen(root, &place)?);
            problems.extend(added(root, &release, &place)?);
        }
    }
    Ok(problems)
}

/// Every file of a release is in its sums, and is what they say.
fn frozen(root: &Path, place: &Path) -> Result<Vec<Problem>> {
    let shown = |path: &Path| path.strip_prefix(root).unwrap_or(path).display().to_string();
    let sums = fs::read_to_string(place.join(SUMS)).unwrap_or_default();
    let mut known: BTreeMap<&str, &str> =
        sums.lines().filter_map(|line| line.split_once("  ")).map(|(sum, name)| (name, sum)).collect();
    let mut problems = Vec::new();
    for path in files(place)? {
        let name = path.strip_prefix(place).unwrap_or(&path).display().to_string();
        let found = hex(&Sha256::digest(fs::read(&path)?));
        match known.remove(name.as_str()) {
            Some(sum) if sum == found => {}
            Some(_) => problems.push(Problem::new(&shown(&path), "was released and is frozen; put it back as it was")),
            None => {
                let message = format!("is in no sums; `sha256sum` its release's files into {SUMS}");
                problems.push(Problem::new(&shown(&path), message));
            }
        }
    }
    for gone in known.keys() {
        problems.push(Problem::new(&shown(&place.join(gone)), "was released and is gone; put it back"));
    }
    Ok(problems)
}

fn files(place: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for name in names_in(place)? {
        let path = place.join(&name);
        if path.is_dir() {
            found.extend(files(&path)?);
        } else if name != SUMS {
            found.push(path);
        }
    }
    Ok(found)
}

/// A component of the release fits each world of its minor version as it is written today.
fn added(root: &Path, release: &str, place: &Path) -> Result<Vec<Problem>> {
    let Some((minor, _)) = release.rsplit_once('.') else {
        return Ok(vec![Problem::new(&format!("{RELEASES}/{release}"), "name it by its version, as 0.1.0")]);
    };
    let today = root.join(format!("wit/v{minor}"));
    let mut problems = Vec::new();
    for world in worlds() {
        if let Err(reason) = fits(&place.join("wit"), &today, world) {
            let place = format!("wit/v{minor}");
            let message =
                format!("world {world} does more than add to release {release}: {reason:#}; see wit/README.md");
            problems.push(Problem::new(&place, message));
        }
    }
    Ok(problems)
}

/// Worlds of two packages of one name cannot be read at once: the earlier one gets a version that nobody uses.
fn fits(released: &Path, today: &Path, world: &str) -> Result<()> {
    let mut resolve = Resolve::default();
    let (now, _) = resolve.push_dir(today)?;
    let mut earlier = SourceMap::new();
    for path in files(released)? {
        let text = fs::read_to_string(&path)?;
        let declared = text.lines().find(|line| line.starts_with("package ")).context("a file names no package")?;
        let name = declared.split_once('@').context("the package has no version")?.0;
        earlier.push(&path, text.replacen(declared, &format!("{name}@0.0.0;"), 1));
    }
    let group = earlier.parse().map_err(|(_, error)| anyhow::anyhow!("{error:?}"))?;
    let then = resolve.push_group(group)?;
    let (then, now) = (resolve.select_world(&[then], Some(world))?, resolve.select_world(&[now], Some(world))?);
    wit_component::semver_check(resolve, then, now)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    const PACKAGE: &str = "package farseal:plugin@0.1.0;\n";

    fn judged(then: &str, now: &str) -> Result<()> {
        let place = tempfile::tempdir().unwrap();
        for (folder, text) in [("then", then), ("now", now)] {
            fs::create_dir(place.path().join(folder)).unwrap();
            fs::write(place.path().join(folder).join("a.wit"), format!("{PACKAGE}{text}")).unwrap();
        }
        fits(&place.path().join("then"), &place.path().join("now"), "w")
    }

    const THEN: &str = "interface log { emit: func(text: string); }\n\
                        interface rule { record seen { at: u64 } variant event { begin } step: func(seen: seen, event: event); }\n\
                        world w { import log; export rule; }\n";

    #[test]
    fn a_comment_and_a_function_of_the_hosts_may_be_added() {
        judged(THEN, &format!("/// Said better.\n{THEN}")).unwrap();
        judged(THEN, &THEN.replace("emit:", "more: func(); emit:")).unwrap();
    }

    #[test]
    fn a_field_a_case_and_a_function_of_the_plugins_may_not() {
        for now in [
            THEN.replace("at: u64", "at: u64, by: u64"),
            THEN.replace("{ begin }", "{ begin, end }"),
            THEN.replace("step:", "explain: func(); step:"),
            THEN.replace("emit: func(text: string)", "emit: func(text: string, level: u8)"),
        ] {
            assert!(judged(THEN, &now).is_err(), "{now}");
        }
    }

    #[test]
    fn a_released_file_that_changes_is_named() {
        let place = tempfile::tempdir().unwrap();
        let release = place.path().join("0.1.0");
        fs::create_dir(&release).unwrap();
        fs::write(release.join("a.wasm"), "a").unwrap();
        let said = || frozen(place.path(), &release).unwrap().into_iter().map(|one| one.message).collect::<Vec<_>>();
        assert!(said()[0].contains("is in no sums"));
        fs::write(release.join(SUMS), format!("{}  a.wasm\n", hex(&Sha256::digest("a")))).unwrap();
        assert_eq!(said(), Vec::<String>::new());
        fs::write(release.join("a.wasm"), "b").unwrap();
        assert!(said()[0].contains("frozen"));
    }
}
