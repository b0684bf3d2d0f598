//! `cargo xtask tidy`: what the repository's structure promises, checked. Each message says what to do.

mod contract;
mod layout;
mod manifests;
mod map;
mod modules;
mod sources;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::workspace::Workspace;

/// Something to put right, and where.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Problem {
    pub(crate) place: String,
    pub(crate) message: String,
}

impl Problem {
    pub(crate) fn new(place: &str, message: impl Into<String>) -> Self {
        Self { place: place.to_owned(), message: message.into() }
    }
}

/// A text file: its path from the root, with `/`, and what it says.
#[derive(Debug, Clone)]
pub(crate) struct File {
    pub(crate) path: String,
    pub(crate) text: String,
}

pub(crate) fn run(workspace: &Workspace, words: &[String]) -> Result<()> {
    if !words.is_empty() {
        bail!("tidy takes no arguments");
    }
    let problems = check(&workspace.root)?;
    for Problem { place, message } in &problems {
        println!("{place}: {message}");
    }
    if problems.is_empty() { Ok(()) } else { bail!("{} things to put right", problems.len()) }
}

/// Accepted transcripts that nothing is compared with any more.
pub(crate) fn unused_snapshots(root: &Path) -> Result<Vec<Problem>> {
    let files = files(root)?;
    Ok(files.iter().filter_map(|file| layout::unused_snapshot(&file.path, &files)).collect())
}

/// Everything that is wrong, by place.
fn check(root: &Path) -> Result<Vec<Problem>> {
    let files = files(root)?;
    let map = fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap_or_default();
    let mut problems = layout::check(&names_in(root)?, &files);
    problems.extend(sources::check(&files));
    problems.extend(manifests::check(&files));
    problems.extend(modules::check(&files));
    problems.extend(map::check(&map, &files));
    problems.extend(contract::check(root)?);
    problems.sort();
    Ok(problems)
}

/// Text files under the folders that hold the product, but not what is built.
fn files(root: &Path) -> Result<Vec<File>> {
    let mut files = Vec::new();
    for top in ["host", "plugins", "xtask", "wit", "fixtures"] {
        collect(root, top, &mut files)?;
    }
    files.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(files)
}

fn collect(root: &Path, folder: &str, files: &mut Vec<File>) -> Result<()> {
    let place = root.join(folder);
    if !place.is_dir() {
        return Ok(());
    }
    for name in names_in(&place)? {
        let path = format!("{folder}/{name}");
        if name.starts_with('.') || name == "target" {
            continue;
        }
        if place.join(&name).is_dir() {
            collect(root, &path, files)?;
        } else if [".rs", ".toml", ".wit", ".yaml", ".snap", ".md", ".in", ".json"]
            .iter()
            .any(|end| name.ends_with(end))
        {
            let text = fs::read_to_string(root.join(&path)).with_context(|| format!("{path} cannot be read"))?;
            files.push(File { path, text });
        }
    }
    Ok(())
}

fn names_in(place: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(place).with_context(|| format!("{} cannot be read", place.display()))?;
    let mut names =
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect::<Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn the_repository_is_tidy() {
        let workspace = Workspace::find().unwrap();
        let problems = check(&workspace.root).unwrap();
        let listed: Vec<String> =
            problems.iter().map(|problem| format!("{}: {}", problem.place, problem.message)).collect();
        assert!(listed.is_empty(), "\n{}", listed.join("\n"));
    }
}
