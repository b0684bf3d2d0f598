//! Native code of components, kept in the target folder from one run of a tool to the next: an author waits for the compiler
//! once for each component, which takes a minute for one with an interpreter in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context as _, Result};

use crate::workspace::Workspace;

/// Every shipped plugin with room to spare, and a few dozen changes of an interpreted one (40 MiB each).
const BYTES: u64 = 1 << 30;

/// Where it is kept. What was compiled longest ago goes before there is too much of it.
pub(crate) fn folder(workspace: &Workspace) -> Result<PathBuf> {
    let folder = workspace.target.join("compiled");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    keep(&folder, BYTES)?;
    Ok(folder)
}

/// Removes the oldest files until the others have no more than so many bytes.
fn keep(folder: &Path, bytes: u64) -> Result<()> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        // Another run may have removed it.
        let entry = entry?;
        if let Ok(metadata) = entry.metadata() {
            files.push((metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH), metadata.len(), entry.path()));
        }
    }
    files.sort();
    let mut kept = 0_u64;
    for (_, length, path) in files.iter().rev() {
        kept = kept.saturating_add(*length);
        if kept > bytes {
            let _gone = fs::remove_file(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::time::Duration;

    use super::*;

    #[test]
    fn the_oldest_goes_first() {
        let place = tempfile::tempdir().unwrap();
        for (name, age) in [("new", 1), ("old", 3), ("between", 2)] {
            let file = fs::File::create(place.path().join(name)).unwrap();
            file.set_len(100).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
        }
        keep(place.path(), 250).unwrap();
        let there = |name: &str| place.path().join(name).exists();
        assert!(there("new") && there("between") && !there("old"));
    }
}
