//! Importing a seed: everything is checked while it is copied, and one file's replacement takes all of it, or nothing.
//!
//! ```text
//!   copy and digest ─▶ fsync ─▶ unwrap every capsule ─▶ rename the folder ─▶ control.json names it
//! ```
//!
//! A crash before the last step leaves a folder that nothing names, and the next import clears it away.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use farseal_core::secondary::Settings;
use farseal_core::units::{Epoch, PairId};

use super::manifest::{Body, Manifest, SeedError};
use crate::keyring::{Keyring, KeyringError};
use crate::keys::card::PeerCard;
use crate::keys::identity::Identity;
use crate::keys::package::OpenEpochError;
use crate::retired::{Retired, RetiredError};
use crate::role::{Control, ControlError};
use crate::store::{StoreError, files};

/// What a seed must fit.
#[derive(Debug)]
pub struct Terms {
    pub settings: Settings,
    pub main: PeerCard,
    pub identity: Arc<Identity>,
    /// The pair's folder.
    pub directory: PathBuf,
}

/// A seed that lies in the pair's folder, checked, and that nothing names yet.
#[derive(Debug)]
pub struct Staged {
    pub seed: Body,
    pub bytes: u64,
    folder: String,
    control: Control,
}

/// Why a seed is not taken. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error(transparent)]
    Seed(#[from] SeedError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    #[error("it is a seed of pair {found}, and this pair is {expected}")]
    OtherPair { expected: PairId, found: PairId },
    #[error("its volume has another size, block size, identity or encrypt bit than the pair's here")]
    OtherVolume,
    #[error("this seed was imported here already")]
    Again,
    #[error("the key of epoch {epoch} on it cannot be had by this node: {source}; export it anew")]
    Key { epoch: Epoch, source: OpenEpochError },
    #[error("it needs the key of epoch {epoch}, which was retired and is destroyed: export it anew")]
    Destroyed { epoch: Epoch },
    #[error(transparent)]
    Retired(#[from] RetiredError),
}

/// Copies a seed into the pair's folder and checks all of it.
pub fn stage(directory: &Path, terms: &Terms) -> Result<Staged, ImportError> {
    let manifest = Manifest::load(directory)?;
    let (seed, settings) = (&manifest.seed, &terms.settings);
    if seed.pair != settings.pair {
        return Err(ImportError::OtherPair { expected: settings.pair, found: seed.pair });
    }
    manifest.verify(directory, &terms.main.signing)?;
    let same = seed.volume == settings.volume
        && seed.blocks == settings.blocks
        && seed.block_bytes == settings.block_bytes
        && seed.encrypted == settings.encrypted;
    if !same {
        return Err(ImportError::OtherVolume);
    }
    if Control::load(&terms.directory)?.seeded.as_deref() == Some(&seed.id) {
        return Err(ImportError::Again);
    }
    let folder = format!("copy-seed-{}", seed.id);
    let (place, new) = (terms.directory.join(&folder), terms.directory.join("seed.new"));
    for left in [&place, &new] {
        if left.exists() {
            fs::remove_dir_all(left).map_err(|source| StoreError::io(left, "clear an import away", source))?;
        }
    }
    let bytes = copy(&manifest, directory, &new)?;
    let keyring = Keyring::open(&new.join("epochs"), seed.pair, Arc::clone(&terms.identity), terms.main.clone())?;
    let floor = Retired::load(&terms.directory)?.destroyed.floor;
    if let Some(epoch) = keyring.epochs().into_iter().find(|epoch| floor.takes(*epoch).is_err()) {
        return Err(ImportError::Destroyed { epoch });
    }
    keyring.unwrap_all().map_err(|(epoch, source)| ImportError::Key { epoch, source })?;
    let control = Control::load(&new)?;
    fs::rename(&new, &place).map_err(|source| StoreError::io(&place, "take the seed's folder", source))?;
    files::sync_dir(&terms.directory)?;
    Ok(Staged { seed: manifest.seed, bytes, folder, control })
}

impl Staged {
    /// The pair's copy is the seed from here on, durably. The pair's own must hold nothing, and not run.
    pub fn take(&self, directory: &Path) -> Result<Control, ImportError> {
        let control = Control {
            generation: self.control.generation,
            copy: Some(self.folder.clone()),
            seeded: Some(self.seed.id.clone()),
            ..Control::load(directory)?
        };
        control.save(directory)?;
        Ok(control)
    }
}

/// What is copied is what was digested. Durable when this returns.
fn copy(manifest: &Manifest, directory: &Path, to: &Path) -> Result<u64, ImportError> {
    files::create_private_dir(to)?;
    for folder in ["log", "index", "epochs"] {
        files::create_private_dir(&to.join(folder))?;
    }
    let mut open: Option<(String, PathBuf, File)> = None;
    let bytes = manifest.check(directory, |name, piece| {
        if open.as_ref().is_none_or(|(now, ..)| now != name) {
            close(open.take())?;
            let path = to.join(name);
            if let Some(parent) = path.parent() {
                files::create_private_dir(parent)?;
            }
            let file = create(&path)?;
            open = Some((name.to_owned(), path, file));
        }
        match &mut open {
            Some((_, path, file)) => {
                file.write_all(piece).map_err(|source| StoreError::io(path, "write the file", source))
            }
            None => Ok(()),
        }
    })?;
    close(open.take())?;
    for piece in manifest.seed.files.iter().filter(|piece| piece.bytes == 0) {
        let path = to.join(&piece.path);
        let file = create(&path)?;
        close(Some((piece.path.clone(), path, file)))?;
    }
    for folder in ["log", "index", "epochs", ""] {
        files::sync_dir(&to.join(folder))?;
    }
    Ok(bytes)
}

fn create(path: &Path) -> Result<File, StoreError> {
    let created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    created.map_err(|source| StoreError::io(path, "make the file", source))
}

fn close(open: Option<(String, PathBuf, File)>) -> Result<(), StoreError> {
    match open {
        Some((_, path, file)) => file.sync_all().map_err(|source| StoreError::SyncFailed { path, source }),
        None => Ok(()),
    }
}
