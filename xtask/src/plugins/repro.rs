//! `cargo xtask plugins --repro`: the same source, built twice in two places, gives the same bytes.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::{Built, build_all, choose, is_native};
use crate::workspace::{Plugin, Workspace};

/// Below the target folder. Names of different lengths, so that a path that got into a component shows in its length, too.
const PLACES: [&str; 2] = ["repro/a", "repro/another-place/with a longer name"];
/// What is not source.
const LEFT_OUT: [&str; 2] = ["target", ".git"];

pub(super) fn run(workspace: &Workspace, names: &[&String]) -> Result<()> {
    let [first, second] = PLACES.map(|place| build_in(workspace, &workspace.target.join(place), names));
    let (first, second) = (first?, second?);
    let mut differing = 0;
    for (one, other) in first.iter().zip(&second) {
        let same = one.bytes == other.bytes;
        differing += usize::from(!same);
        let digest = if same { one.digest() } else { format!("{} and {}", one.digest(), other.digest()) };
        println!("{:<20} {} {digest}", one.plugin.name, if same { "same" } else { "DIFFERS" });
    }
    fs::remove_dir_all(workspace.target.join("repro")).context("the two places cannot be removed")?;
    if differing > 0 {
        bail!("{differing} of {} plugins depend on where they are built", first.len());
    }
    println!("{} plugins, built in two places: the same bytes", first.len());
    Ok(())
}

/// A copy of the source, and what is built of it there.
fn build_in(workspace: &Workspace, place: &Path, names: &[&String]) -> Result<Vec<Built>> {
    println!("building in {}", workspace.shown(place));
    if place.exists() {
        fs::remove_dir_all(place)?;
    }
    copy(&workspace.root, place, &workspace.target)?;
    let there = Workspace { root: place.to_owned(), target: place.join("target") };
    let all = there.plugins()?;
    // What an interpreter runs carries that interpreter, whose bytes are its makers' business.
    let native: Vec<&Plugin> = choose(&all, names)?.into_iter().filter(|plugin| is_native(plugin)).collect();
    build_all(&there, &native)
}

fn copy(from: &Path, to: &Path, target: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (path, name): (PathBuf, _) = (entry.path(), entry.file_name());
        let is_left_out = path == target || LEFT_OUT.iter().any(|left_out| name == *left_out);
        if is_left_out || path.join("CACHEDIR.TAG").exists() {
            continue;
        }
        if entry.file_type()?.is_dir() {
            copy(&path, &to.join(&name), target)?;
        } else {
            fs::copy(&path, to.join(&name)).with_context(|| format!("cannot copy {}", path.display()))?;
        }
    }
    Ok(())
}
