//! Results of the conformance kit where the configuration demands one: read beside the component or where the
//! configuration says, and kept by the component's digest, so that what an operator put in stays proven after a restart.

use std::path::{Path, PathBuf};

use farseal_plugin::Digest;
use farseal_plugin::conform::demand::{RESULT_BYTES_MAX, Unproven, demand};

use crate::store::{StoreError, files};

/// Why a component is not taken without a result, or with this one.
#[derive(Debug, thiserror::Error)]
pub enum ProvenError {
    #[error("plugin {slot}: {}: a result of the conformance kit is demanded, and there is none; {}", path.display(), fix(component.as_deref(), path))]
    Missing { slot: String, path: PathBuf, component: Option<PathBuf> },
    #[error("plugin {slot}: {}: {source}; {}", path.display(), fix(component.as_deref(), path))]
    Unproven { slot: String, path: PathBuf, component: Option<PathBuf>, source: Box<Unproven> },
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn fix(component: Option<&Path>, path: &Path) -> String {
    let component = component.map_or_else(|| "COMPONENT".into(), |component| component.display().to_string());
    format!("make one with `farseal plugin conform {component} --json {}`", path.display())
}

/// Where the result of a component is, unless the configuration says otherwise: `interval.conformance.json` beside
/// `interval.wasm`.
#[must_use]
pub fn beside(component: &Path) -> PathBuf {
    component.with_extension("conformance.json")
}

/// The result in this file, if it speaks for the component with this digest; `component` is for the message.
pub fn read(slot: &str, path: &Path, component: Option<&Path>, digest: Digest) -> Result<Vec<u8>, ProvenError> {
    let (slot, component) = (slot.to_owned(), component.map(Path::to_owned));
    let path = path.to_owned();
    let Some(result) = files::read_if_there(&path, RESULT_BYTES_MAX)? else {
        return Err(ProvenError::Missing { slot, path, component });
    };
    match demand(&result, digest) {
        Ok(()) => Ok(result),
        Err(source) => Err(ProvenError::Unproven { slot, path, component, source: Box::new(source) }),
    }
}

/// Results that were good once, by the digest of their component.
#[derive(Debug, Clone)]
pub struct Proofs {
    directory: PathBuf,
}

impl Proofs {
    /// Those of the pair with this folder.
    pub fn open(pair_directory: &Path) -> Result<Self, StoreError> {
        let directory = pair_directory.join("conformance");
        files::create_private_dir(&directory)?;
        Ok(Self { directory })
    }

    /// Keeps a result, durably.
    pub fn keep(&self, digest: Digest, result: &[u8]) -> Result<(), StoreError> {
        files::write_atomically(&self.path(digest), result)
    }

    /// The kept result speaks for the component.
    pub fn check(&self, slot: &str, digest: Digest) -> Result<(), ProvenError> {
        read(slot, &self.path(digest), None, digest).map(drop)
    }

    fn path(&self, digest: Digest) -> PathBuf {
        self.directory.join(format!("{digest}.json"))
    }
}
