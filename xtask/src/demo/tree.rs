//! Real input: the repository's own sources, and files whose bytes carry markers that no other file has.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use sha2::{Digest as _, Sha256};

/// Files with markers, and how many kibibytes each has.
const GENERATED: [(usize, usize); 3] = [(400, 16), (60, 256), (6, 12 << 10)];

/// What was laid out.
#[derive(Debug)]
pub(super) struct Tree {
    pub(super) root: PathBuf,
    /// By path below the root.
    pub(super) hashes: BTreeMap<PathBuf, [u8; 32]>,
    pub(super) bytes: u64,
    /// What is in every generated file, many times over.
    pub(super) marker: String,
}

impl Tree {
    /// Copies the sources and generates the rest below `root`.
    pub(super) fn lay_out(root: PathBuf, sources: &Path) -> Result<Self> {
        // Drawn for this run, and never printed, so that nothing else on the disk can have it.
        let mut drawn = [0; 16];
        File::open("/dev/urandom")?.read_exact(&mut drawn)?;
        let hex: String = drawn.iter().map(|byte| format!("{byte:02x}")).collect();
        let marker = format!("PLAINTEXT-MARKER-{hex}");
        fs::create_dir(&root)?;
        copy_sources(sources, &root.join("sources"))?;
        generate(&root.join("records"), &marker)?;
        let hashes = hash_all(&root)?;
        let mut bytes = 0;
        for path in hashes.keys() {
            bytes += fs::metadata(root.join(path))?.len();
        }
        Ok(Self { root, hashes, bytes, marker })
    }
}

/// What Git knows, or every Rust and WIT file where there is no Git.
fn copy_sources(from: &Path, to: &Path) -> Result<()> {
    let listed = Command::new("git").current_dir(from).args(["ls-files", "-z"]).output();
    let mut files: Vec<PathBuf> = match listed {
        Ok(output) if output.status.success() => output
            .stdout
            .split(|byte| *byte == 0)
            .map(|name| PathBuf::from(String::from_utf8_lossy(name).as_ref()))
            .collect(),
        Ok(_) | Err(_) => {
            let below = ["host", "plugins", "wit", "fixtures", "xtask"];
            let found: Result<Vec<_>> = below.iter().map(|part| files_below(&from.join(part))).collect();
            found?.concat().iter().filter_map(|path| path.strip_prefix(from).ok().map(Path::to_path_buf)).collect()
        }
    };
    files.retain(|file| from.join(file).is_file());
    for file in files {
        let target = to.join(&file);
        fs::create_dir_all(target.parent().unwrap_or(to))?;
        fs::copy(from.join(&file), &target).with_context(|| format!("cannot copy {}", file.display()))?;
    }
    Ok(())
}

fn generate(dir: &Path, marker: &str) -> Result<()> {
    fs::create_dir(dir)?;
    let mut seed = 0x5DEE_CE66_u64;
    for (class, (count, kibibytes)) in GENERATED.into_iter().enumerate() {
        for number in 0..count {
            let mut file = BufWriter::new(File::create(dir.join(format!("class{class}-{number:04}.dat")))?);
            for line in 0..kibibytes * 8 {
                // 128 bytes: half of it a marker, half of it bytes that no compression removes.
                let mut record = format!("{marker} {class} {number:04} {line:06}\n").into_bytes();
                while record.len() < 128 {
                    seed ^= seed << 13;
                    seed ^= seed >> 7;
                    seed ^= seed << 17;
                    record.extend(seed.to_le_bytes());
                }
                record.truncate(128);
                file.write_all(&record)?;
            }
            file.flush()?;
        }
    }
    Ok(())
}

/// Every file's SHA-256 by its path below `root`.
pub(super) fn hash_all(root: &Path) -> Result<BTreeMap<PathBuf, [u8; 32]>> {
    let mut hashes = BTreeMap::new();
    for path in files_below(root)? {
        let hash = Sha256::digest(fs::read(&path)?).into();
        hashes.insert(path.strip_prefix(root)?.to_path_buf(), hash);
    }
    Ok(hashes)
}

/// Every ordinary file in a folder and the folders in it.
pub(super) fn files_below(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![dir.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                // mkfs.ext4 makes it; it is nobody's file.
                if entry.file_name() != "lost+found" {
                    folders.push(entry.path());
                }
            } else if kind.is_file() {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    Ok(found)
}

/// The first file that differs, is missing, or is too much.
pub(super) fn compare(original: &BTreeMap<PathBuf, [u8; 32]>, found: &BTreeMap<PathBuf, [u8; 32]>) -> Result<()> {
    for (path, hash) in original {
        match found.get(path) {
            Some(same) if same == hash => {}
            Some(_) => bail!("{} came back with other bytes", path.display()),
            None => bail!("{} did not come back", path.display()),
        }
    }
    match found.keys().find(|path| !original.contains_key(*path)) {
        Some(path) => bail!("{} came back and was never there", path.display()),
        None => Ok(()),
    }
}
