//! What a seed says of itself: its pair, how far it goes, and every file by length and digest; signed by the main site.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Component, Path, PathBuf};

use farseal_core::units::{BlockBytes, BlockCount, Generation, PairId, Sequence, VolumeId, WallTime};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::keys::card::{SIGNATURE_LEN, SigningPublic};
use crate::keys::identity::Identity;
use crate::keys::wire::{from_hex, to_hex};
use crate::store::{StoreError, files};

/// The manifest's name in a seed's folder.
pub const NAME: &str = "seed.json";
/// The folder with the copy's files.
pub const COPY: &str = "copy";
/// A million segments, by name and digest.
const MANIFEST_BYTES_MAX: u64 = 256 << 20;
/// Bytes read at once.
const PIECE: usize = 1 << 20;
const DOMAIN: &[u8] = b"farseal seed v1\0";

/// What is shipped, for whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Body {
    pub format: u32,
    /// Of this seed and no other: 16 random bytes, in hexadecimal.
    pub id: String,
    pub pair: PairId,
    /// What the main site calls the pair.
    pub name: String,
    pub volume: VolumeId,
    pub blocks: BlockCount,
    pub block_bytes: BlockBytes,
    pub encrypted: bool,
    pub generation: Generation,
    /// It holds everything up to here, or more.
    pub through: Sequence,
    pub made: WallTime,
    /// By path.
    pub files: Vec<Piece>,
}

/// A file of the copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Piece {
    /// Below [`COPY`].
    pub path: String,
    pub bytes: u64,
    pub sha256: String,
}

/// The file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    pub seed: Body,
    /// By the site that exported it, over the rest.
    signature: String,
}

/// Why a folder is no seed that can be used.
#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{}: no seed, or one whose export has not ended: there is no {NAME}", .0.display())]
    NoManifest(PathBuf),
    #[error("{}: {source}; the file was altered or cut: copy it again from the disk, or export anew", path.display())]
    Unreadable { path: PathBuf, source: serde_json::Error },
    #[error("{}: seed format {found}; this version reads format 1", path.display())]
    Format { path: PathBuf, found: u32 },
    #[error("{}: it is not signed by the pair's main site, or was altered since", .0.display())]
    Forged(PathBuf),
    #[error("{}: it is not among the seed's files; take it out of the folder", .0.display())]
    Stranger(PathBuf),
    #[error("{}: the seed names this file, and it is not there", .0.display())]
    Missing(PathBuf),
    #[error("{}: it has {found} bytes and the seed names {expected}: it was cut or added to", path.display())]
    Length { path: PathBuf, expected: u64, found: u64 },
    #[error("{}: its bytes are not those that were exported", .0.display())]
    Altered(PathBuf),
    #[error("{path:?} is no path of a seed's file")]
    Path { path: String },
}

impl Manifest {
    /// Signs what a finished export holds. Every file is durable when this returns.
    pub fn of(mut body: Body, directory: &Path, identity: &Identity) -> Result<Self, StoreError> {
        let copy = directory.join(COPY);
        body.files = Vec::new();
        for path in listed(&copy)? {
            let at = copy.join(&path);
            let failed = |source| StoreError::io(&at, "read the file", source);
            let file = File::open(&at).map_err(failed)?;
            file.sync_all().map_err(|source| StoreError::SyncFailed { path: at.clone(), source })?;
            let (bytes, sha256) = digest(&at, |_| Ok(()))?;
            body.files.push(Piece { path, bytes, sha256 });
        }
        let signature = to_hex(&identity.sign(&signed(&body)));
        Ok(Self { seed: body, signature })
    }

    pub fn save(&self, directory: &Path) -> Result<(), StoreError> {
        files::write_atomically(&directory.join(NAME), &serde_json::to_vec_pretty(self).unwrap_or_default())
    }

    /// Reads a seed's manifest. Nothing is believed of it yet.
    pub fn load(directory: &Path) -> Result<Self, SeedError> {
        let path = directory.join(NAME);
        let bytes = files::read_if_there(&path, MANIFEST_BYTES_MAX)?;
        let bytes = bytes.ok_or_else(|| SeedError::NoManifest(directory.to_owned()))?;
        let read: Self =
            serde_json::from_slice(&bytes).map_err(|source| SeedError::Unreadable { path: path.clone(), source })?;
        if read.seed.format != 1 {
            return Err(SeedError::Format { path, found: read.seed.format });
        }
        match read.seed.files.iter().find(|piece| !is_below(&piece.path)) {
            Some(piece) => Err(SeedError::Path { path: piece.path.clone() }),
            None => Ok(read),
        }
    }

    /// Is it this site's word?
    pub fn verify(&self, directory: &Path, signer: &SigningPublic) -> Result<(), SeedError> {
        let forged = || SeedError::Forged(directory.join(NAME));
        let signature: [u8; SIGNATURE_LEN] =
            from_hex(&self.signature).and_then(|bytes| bytes.try_into().ok()).ok_or_else(forged)?;
        signer.verify(&signed(&self.seed), &signature).map_err(|_| forged())
    }

    /// Holds every file against its length and digest, and gives each to `take` as it is read, with its path. Needs no key.
    pub fn check(
        &self,
        directory: &Path,
        mut take: impl FnMut(&str, &[u8]) -> Result<(), StoreError>,
    ) -> Result<u64, SeedError> {
        let copy = directory.join(COPY);
        let there = listed(&copy)?;
        let named: BTreeSet<&str> = self.seed.files.iter().map(|piece| piece.path.as_str()).collect();
        if let Some(stranger) = there.iter().find(|path| !named.contains(path.as_str())) {
            return Err(SeedError::Stranger(copy.join(stranger)));
        }
        let mut all = 0;
        for piece in &self.seed.files {
            let path = copy.join(&piece.path);
            if there.binary_search(&piece.path).is_err() {
                return Err(SeedError::Missing(path));
            }
            let found = fs::metadata(&path).map_err(|source| StoreError::io(&path, "find its size", source))?.len();
            if found != piece.bytes {
                return Err(SeedError::Length { path, expected: piece.bytes, found });
            }
            let (bytes, sha256) = digest(&path, |bytes| take(&piece.path, bytes))?;
            if bytes != piece.bytes || sha256 != piece.sha256 {
                return Err(SeedError::Altered(path));
            }
            all += bytes;
        }
        Ok(all)
    }
}

fn signed(body: &Body) -> Vec<u8> {
    [DOMAIN, &serde_json::to_vec(body).unwrap_or_default()].concat()
}

/// A name, or names below each other, and nothing that leads elsewhere.
fn is_below(path: &str) -> bool {
    !path.is_empty() && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)))
}

/// Length and SHA-256 of a file, each piece given to `take` as it is read.
fn digest(path: &Path, mut take: impl FnMut(&[u8]) -> Result<(), StoreError>) -> Result<(u64, String), StoreError> {
    let failed = |source| StoreError::io(path, "read the file", source);
    let mut file = File::open(path).map_err(failed)?;
    let (mut hash, mut all, mut piece) = (Sha256::new(), 0, vec![0; PIECE]);
    loop {
        let read = file.read(&mut piece).map_err(failed)?;
        let bytes = piece.get(..read).unwrap_or_default();
        if bytes.is_empty() {
            return Ok((all, to_hex(&hash.finalize())));
        }
        take(bytes)?;
        hash.update(bytes);
        all += u64::try_from(read).unwrap_or(0);
    }
}

/// Every file below a folder, by path, sorted.
fn listed(directory: &Path) -> Result<Vec<String>, StoreError> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let place = directory.join(&folder);
        let failed = |source| StoreError::io(&place, "list the folder", source);
        for entry in fs::read_dir(&place).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let path = folder.join(entry.file_name());
            if entry.file_type().map_err(failed)?.is_dir() {
                folders.push(path);
            } else {
                found.push(path.to_string_lossy().into_owned());
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::keys::capsule::KemId;
    use crate::keys::card::NodeName;

    struct Seed {
        dir: PathBuf,
        identity: Identity,
    }

    impl Drop for Seed {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }

    fn seed(purpose: &str) -> Seed {
        let dir = std::env::temp_dir().join(format!("farseal-manifest-{purpose}-{}", std::process::id()));
        fs::create_dir_all(dir.join(COPY).join("log")).unwrap();
        fs::write(dir.join(COPY).join("control.json"), "{}").unwrap();
        fs::write(dir.join(COPY).join("log/00000000.fsl"), vec![7; 3 * PIECE / 2]).unwrap();
        let identity = Identity::generate(NodeName::new("main").unwrap(), KemId::DhP256).unwrap();
        let body = Body {
            format: 1,
            id: "00".repeat(16),
            pair: PairId([1; 16]),
            name: "vault".into(),
            volume: VolumeId([2; 16]),
            blocks: BlockCount(16),
            block_bytes: BlockBytes::DEFAULT,
            encrypted: true,
            generation: Generation(1),
            through: Sequence(9),
            made: WallTime(1),
            files: Vec::new(),
        };
        Manifest::of(body, &dir, &identity).unwrap().save(&dir).unwrap();
        Seed { dir, identity }
    }

    /// What is wrong with a seed after something was done to it.
    fn judged(purpose: &str, harm: impl FnOnce(&Path)) -> String {
        let seed = seed(purpose);
        harm(&seed.dir);
        let judged = Manifest::load(&seed.dir).and_then(|manifest| {
            manifest.verify(&seed.dir, &seed.identity.card().signing)?;
            manifest.check(&seed.dir, |_, _| Ok(()))
        });
        match judged {
            Ok(bytes) => format!("{bytes} bytes are sound"),
            Err(error) => error.to_string().replace(&seed.dir.display().to_string(), "SEED"),
        }
    }

    #[test]
    fn a_seed_that_is_foreign_cut_or_altered_is_named() {
        let log = "copy/log/00000000.fsl";
        let manifest = |from: &'static str, to: &'static str| {
            move |dir: &Path| {
                let text = fs::read_to_string(dir.join(NAME)).unwrap();
                assert!(text.contains(from));
                fs::write(dir.join(NAME), text.replacen(from, to, 1)).unwrap();
            }
        };
        assert_eq!(judged("sound", |_| {}), "1572866 bytes are sound");
        let altered = judged("flip", |dir| {
            let mut bytes = fs::read(dir.join(log)).unwrap();
            bytes[PIECE + 5] ^= 1;
            fs::write(dir.join(log), bytes).unwrap();
        });
        assert_eq!(altered, "SEED/copy/log/00000000.fsl: its bytes are not those that were exported");
        let cut = judged("cut", |dir| fs::write(dir.join(log), [7]).unwrap());
        assert!(cut.contains("has 1 bytes and the seed names 1572864"), "{cut}");
        let gone = judged("gone", |dir| fs::remove_file(dir.join(log)).unwrap());
        assert!(gone.contains("it is not there"), "{gone}");
        let more = judged("more", |dir| fs::write(dir.join("copy/log/x"), "").unwrap());
        assert!(more.contains("not among the seed's files"), "{more}");
        let open = judged("open", |dir| fs::remove_file(dir.join(NAME)).unwrap());
        assert!(open.contains("whose export has not ended"), "{open}");
        let forged = judged("forged", manifest("\"through\": 9", "\"through\": 8"));
        assert!(forged.contains("is not signed by the pair's main site"), "{forged}");
        let elsewhere = judged("path", manifest("\"control.json\"", "\"../x\""));
        assert_eq!(elsewhere, "\"../x\" is no path of a seed's file");
        let newer = judged("newer", manifest("\"format\": 1", "\"format\": 2"));
        assert!(newer.contains("seed format 2"), "{newer}");
    }
}
