//! Components by what their bytes are: those that sealed or disguised an epoch outlive the configuration that named them.
//!
//! One file each, `components/<sha256>.wasm` in the pair's folder. What is read again has the digest that it is asked for
//! by, or is refused: a component opens nothing in another's name.

use std::path::{Path, PathBuf};

use farseal_core::limits::COMPONENT_BYTES_MAX;
use farseal_plugin::Digest;

use crate::store::{StoreError, files};

/// Most components of one pair: an operator swaps rarely, and a peer's word must not fill the disk.
pub const COMPONENTS_MAX: usize = 64;

/// A pair's kept components.
#[derive(Debug, Clone)]
pub struct Components {
    directory: PathBuf,
}

/// Why a component cannot be kept, or had.
#[derive(Debug, thiserror::Error)]
pub enum ComponentError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("a component of {0} bytes; at most {COMPONENT_BYTES_MAX} are kept")]
    TooLong(usize),
    #[error("{}: {COMPONENTS_MAX} components are kept already; remove those that no epoch needs", .0.display())]
    TooMany(PathBuf),
    #[error("{}: no component with this digest is kept; restore the file from the other site or from where it was built", .0.display())]
    Missing(PathBuf),
    #[error("{}: its bytes are {found}; restore the file from the other site or from where it was built", path.display())]
    Altered { path: PathBuf, found: Digest },
}

impl Components {
    /// Those of the pair with this folder.
    pub fn open(pair_directory: &Path) -> Result<Self, StoreError> {
        let directory = pair_directory.join("components");
        files::create_private_dir(&directory)?;
        Ok(Self { directory })
    }

    /// Keeps a component, durably. Says what it is asked for by.
    pub fn keep(&self, bytes: &[u8]) -> Result<Digest, ComponentError> {
        if u64::try_from(bytes.len()).is_ok_and(|len| len > COMPONENT_BYTES_MAX) {
            return Err(ComponentError::TooLong(bytes.len()));
        }
        let digest = Digest::of(bytes);
        match self.load(digest) {
            Ok(_) => return Ok(digest),
            Err(ComponentError::Missing(_)) if self.kept()?.len() >= COMPONENTS_MAX => {
                return Err(ComponentError::TooMany(self.directory.clone()));
            }
            // One that was damaged is mended.
            Err(ComponentError::Missing(_) | ComponentError::Altered { .. }) => {}
            Err(error) => return Err(error),
        }
        files::write_atomically(&self.path(digest), bytes)?;
        Ok(digest)
    }

    /// The component with this digest.
    pub fn load(&self, digest: Digest) -> Result<Vec<u8>, ComponentError> {
        let path = self.path(digest);
        let Some(bytes) = files::read_if_there(&path, COMPONENT_BYTES_MAX)? else {
            return Err(ComponentError::Missing(path));
        };
        let found = Digest::of(&bytes);
        if found == digest { Ok(bytes) } else { Err(ComponentError::Altered { path, found }) }
    }

    /// Whether there is a file for it; [`Self::load`] judges it.
    #[must_use]
    pub fn holds(&self, digest: Digest) -> bool {
        self.path(digest).exists()
    }

    /// What is kept, in the order of the digests. Other names are left alone.
    pub fn kept(&self) -> Result<Vec<Digest>, StoreError> {
        let failed = |source| StoreError::io(&self.directory, "list the components", source);
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.directory).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let stem = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse::<Digest>().ok());
            found.extend(stem.filter(|_| path.extension().is_some_and(|extension| extension == "wasm")));
        }
        found.sort();
        Ok(found)
    }

    fn path(&self, digest: Digest) -> PathBuf {
        self.directory.join(format!("{digest}.wasm"))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn what_is_kept_comes_back_by_its_digest_and_nothing_else_does() {
        let folder = tempfile::tempdir().unwrap();
        let components = Components::open(folder.path()).unwrap();
        let digest = components.keep(b"one").unwrap();
        assert_eq!(components.load(digest).unwrap(), b"one");
        let other = Digest::of(b"two");
        assert!(matches!(components.load(other), Err(ComponentError::Missing(_))));
        std::fs::write(components.path(digest), b"two").unwrap();
        assert!(matches!(components.load(digest), Err(ComponentError::Altered { found, .. }) if found == other));
        assert_eq!(components.keep(b"one").unwrap(), digest);
        assert_eq!(components.load(digest).unwrap(), b"one");
        assert_eq!(components.kept().unwrap(), [digest]);
    }

    #[test]
    fn no_more_are_kept_than_the_limit() {
        let folder = tempfile::tempdir().unwrap();
        let components = Components::open(folder.path()).unwrap();
        for number in 0..COMPONENTS_MAX {
            components.keep(&number.to_le_bytes()).unwrap();
        }
        assert!(matches!(components.keep(b"more"), Err(ComponentError::TooMany(_))));
        components.keep(&0_usize.to_le_bytes()).unwrap();
    }
}
