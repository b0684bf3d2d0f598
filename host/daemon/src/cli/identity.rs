//! A node's identity and card on disk.

use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::config::{Config, Node, Secrets};
use crate::keys::card::{CardError, PeerCard};
use crate::keys::identity::{Identity, StoredIdentityError};
use crate::keys::seal_file::{Cost, CredentialsDirectory, KeyFileError, KeyProvider, Passphrase, PassphraseFile};

/// Bytes of a passphrase file at most.
const PASSPHRASE_MAX: u64 = 4096;

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file could not be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Others can read the passphrase.
    #[error("{} has mode {mode:04o} and others can reach it; run `chmod 600 {}`", path.display(), path.display())]
    TooOpen {
        /// Which.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// No passphrase in the file.
    #[error("{}: a passphrase is one line of text, at most {PASSPHRASE_MAX} bytes", path.display())]
    NoPassphrase {
        /// Which.
        path: PathBuf,
    },
    /// systemd gave none.
    #[error(
        "[secrets] credential = true, and systemd gave none; set LoadCredentialEncrypted=farseal in the service's unit"
    )]
    NoCredential,
    /// The sealed file.
    #[error(transparent)]
    Sealed(#[from] KeyFileError),
    /// What was sealed.
    #[error(transparent)]
    Stored(#[from] StoredIdentityError),
    /// The card.
    #[error("{}: {source}", path.display())]
    Card {
        /// Which.
        path: PathBuf,
        /// Why.
        source: CardError,
    },
}

/// The node's identity, opened.
///
/// # Errors
/// [`IdentityError`].
pub fn load(config: &Config) -> Result<Identity, IdentityError> {
    Ok(Identity::from_stored(&provider(config)?.load()?)?)
}

/// Where the identity is kept.
///
/// # Errors
/// [`IdentityError`].
pub fn provider(config: &Config) -> Result<Box<dyn KeyProvider>, IdentityError> {
    match &config.secrets {
        Secrets::PassphraseFile(file) => Ok(Box::new(sealed(&config.node.identity_file(), file, Cost::RECOMMENDED)?)),
        Secrets::Credential => {
            let directory = CredentialsDirectory::from_environment().ok_or(IdentityError::NoCredential)?;
            Ok(Box::new(directory))
        }
    }
}

/// `cost` is that of what is written.
pub(super) fn sealed(identity: &Path, passphrase: &Path, cost: Cost) -> Result<PassphraseFile, IdentityError> {
    Ok(PassphraseFile::new(identity, read_passphrase(passphrase)?, cost))
}

/// The file's one line.
fn read_passphrase(path: &Path) -> Result<Passphrase, IdentityError> {
    let failed = |source| IdentityError::Io { path: path.to_owned(), source };
    let file = fs::File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(IdentityError::TooOpen { path: path.to_owned(), mode });
    }
    let mut text = Zeroizing::new(String::with_capacity(4097));
    file.take(PASSPHRASE_MAX + 1).read_to_string(&mut text).map_err(failed)?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    let sound = !line.is_empty() && !line.contains('\n') && text.len() <= 4096;
    if sound {
        Ok(Passphrase::new(Zeroizing::new(line.to_owned())))
    } else {
        Err(IdentityError::NoPassphrase { path: path.to_owned() })
    }
}

/// Where `farseal init` leaves the card: public, so that showing it needs no secret.
#[must_use]
pub fn card_file(node: &Node) -> PathBuf {
    node.state_dir.join("card.toml")
}

/// The node's card.
///
/// # Errors
/// [`IdentityError`].
pub fn card(config: &Config) -> Result<PeerCard, IdentityError> {
    let path = card_file(&config.node);
    match fs::read_to_string(&path) {
        Ok(text) => text.parse().map_err(|source| IdentityError::Card { path, source }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(load(config)?.card().clone()),
        Err(source) => Err(IdentityError::Io { path, source }),
    }
}
