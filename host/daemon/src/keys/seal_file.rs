//! Secrets at rest, behind one trait: a file sealed under a passphrase, or what systemd hands to the service.
//!
//! ```text
//! file:  "fsks" | version u8 | memory KiB u32 | passes u32 | lanes u32 | salt 16 | check 16 | nonce 12 |
//!        AES-256-GCM(secret) | tag 16
//! key (32) || check (16) = Argon2id(passphrase, salt)        associated data = everything before the ciphertext
//! ```
//!
//! The check tells a wrong passphrase from a damaged file; it costs a guesser as much as the key does.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::wire::{Reader, Short, to_hex};

const MAGIC: &[u8; 4] = b"fsks";
const VERSION: u8 = 1;
const SALT_LEN: usize = 16;
const CHECK_LEN: usize = 16;
const NONCE_LEN: usize = 12;
const TAG_LEN: usize = 16;
const HEADER_LEN: usize = 4 + 1 + 3 * 4 + SALT_LEN + CHECK_LEN + NONCE_LEN;
/// Largest secret that is kept, in bytes.
pub const MAX_SECRET: usize = 64 * 1024;
/// Name of the credential in a systemd credentials directory.
pub const CREDENTIAL: &str = "farseal";

/// Where a node's secret is kept.
pub trait KeyProvider: fmt::Debug {
    /// Reads the secret.
    ///
    /// # Errors
    /// [`KeyFileError`].
    fn load(&self) -> Result<Zeroizing<Vec<u8>>, KeyFileError>;

    /// Keeps a secret, replacing an earlier one at once or not at all. Durable when it returns.
    ///
    /// # Errors
    /// [`KeyFileError`]; of a provider that only reads, [`KeyFileError::ReadOnly`].
    fn store(&self, secret: &[u8]) -> Result<(), KeyFileError>;
}

/// Why a secret was not read or kept.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file system refused.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others can read it.
    #[error("{path} has mode {mode:04o} and others can reach it; run `chmod 600 {path}`", path = path.display())]
    TooOpen {
        /// Which file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// No regular file.
    #[error("{path} is no regular file", path = path.display())]
    NotAFile {
        /// Which.
        path: PathBuf,
    },
    /// Fewer bytes than it needs.
    #[error("{path} is cut short after {have} bytes, in a field of {needed}", path = path.display())]
    CutShort {
        /// Which file.
        path: PathBuf,
        /// Bytes before the field.
        have: usize,
        /// Bytes that the field needs.
        needed: usize,
    },
    /// A secret larger than is kept.
    #[error("{path}: a secret has at most {MAX_SECRET} bytes", path = path.display())]
    TooLong {
        /// Which file.
        path: PathBuf,
    },
    /// Something else, or of a later version.
    #[error("{path} is no sealed secret of version {VERSION}", path = path.display())]
    Format {
        /// Which file.
        path: PathBuf,
    },
    /// It asks for more work or memory than any file of ours does.
    #[error("{path}: {source}", path = path.display())]
    Cost {
        /// Which file.
        path: PathBuf,
        /// What it asks for.
        source: CostError,
    },
    /// The passphrase is not that of the file.
    #[error("{path}: wrong passphrase", path = path.display())]
    WrongPassphrase {
        /// Which file.
        path: PathBuf,
    },
    /// The passphrase is right and the content is not.
    #[error("{path} is damaged: the passphrase is right, the content is not authentic; restore it from a copy", path = path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
    },
    /// The provider only reads.
    #[error("{path} is given by systemd and cannot be written; encrypt the secret with `systemd-creds encrypt --name={CREDENTIAL}`", path = path.display())]
    ReadOnly {
        /// Which file.
        path: PathBuf,
    },
    /// The operating system gave no random bytes.
    #[error("no random bytes from the operating system; nothing was written")]
    NoEntropy(#[from] getrandom::Error),
    /// The cipher refused, which it does for no secret of this size.
    #[error("{path}: the secret could not be sealed", path = path.display())]
    Refused {
        /// Which file.
        path: PathBuf,
    },
}

/// What a guess at the passphrase costs (Argon2id, RFC 9106).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

/// A cost outside its bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a passphrase cost of {memory_kib} KiB, {passes} passes, {lanes} lanes is outside {least} to {most} KiB, 1 to 16 passes, 1 to 16 lanes",
    least = least_kib, most = Cost::MOST_KIB
)]
pub struct CostError {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
    least_kib: u32,
}

impl Cost {
    /// RFC 9106 section 4, second recommendation (64 MiB, 3 passes, 4 lanes).
    pub const RECOMMENDED: Self = Self { memory_kib: 64 * 1024, passes: 3, lanes: 4 };
    /// The least that Argon2 can do: guards nothing, for tests.
    pub const NEXT_TO_NOTHING: Self = Self { memory_kib: 8, passes: 1, lanes: 1 };
    /// Of a passphrase that was drawn from 256 random bits: nobody guesses one at any cost, so that a restart after a
    /// crash need not wait half a second for Argon2.
    pub const OF_A_DRAWN_PASSPHRASE: Self = Self { memory_kib: 8, passes: 1, lanes: 1 };
    /// Least memory of a new file: 19 MiB, with which OWASP's password storage sheet asks for 2 passes.
    const LEAST_KIB: u32 = 19 * 1024;
    const LEAST_PASSES: u32 = 2;
    /// Most memory that a file can make its reader use: 1 GiB.
    const MOST_KIB: u32 = 1024 * 1024;
    const MOST_PASSES: u32 = 16;
    const MOST_LANES: u32 = 16;

    /// A cost for new files.
    ///
    /// # Errors
    /// [`CostError`] below 19 MiB or 2 passes, and above 1 GiB, 16 passes or 16 lanes.
    pub fn new(memory_kib: u32, passes: u32, lanes: u32) -> Result<Self, CostError> {
        Self::within(memory_kib, passes, lanes, Self::LEAST_KIB, Self::LEAST_PASSES)
    }

    /// A cost found in a file, which may be low but never so high that reading it hurts.
    fn found(memory_kib: u32, passes: u32, lanes: u32) -> Result<Self, CostError> {
        // RFC 9106 section 3.1: at least 8 KiB for each lane.
        Self::within(memory_kib, passes, lanes, lanes.saturating_mul(8).max(8), 1)
    }

    fn within(memory_kib: u32, passes: u32, lanes: u32, least_kib: u32, least_passes: u32) -> Result<Self, CostError> {
        let fits = (least_kib..=Self::MOST_KIB).contains(&memory_kib)
            && (least_passes..=Self::MOST_PASSES).contains(&passes)
            && (1..=Self::MOST_LANES).contains(&lanes);
        if fits {
            Ok(Self { memory_kib, passes, lanes })
        } else {
            Err(CostError { memory_kib, passes, lanes, least_kib })
        }
    }

    /// Key and check value. `None` when Argon2 refuses the cost, which the bounds rule out.
    fn derive(self, passphrase: &Passphrase, salt: &[u8; SALT_LEN]) -> Option<Zeroizing<[u8; 32 + CHECK_LEN]>> {
        let mut derived = Zeroizing::new([0u8; 32 + CHECK_LEN]);
        let params = Params::new(self.memory_kib, self.passes, self.lanes, Some(derived.len())).ok()?;
        let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        argon.hash_password_into(passphrase.0.as_bytes(), salt, derived.as_mut_slice()).ok()?;
        Some(derived)
    }
}

/// A passphrase, wiped on drop and never printed.
pub struct Passphrase(Zeroizing<String>);

impl Passphrase {
    /// Takes a passphrase over.
    #[must_use]
    pub fn new(text: Zeroizing<String>) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(..)")
    }
}

/// A file sealed under a passphrase.
#[derive(Debug)]
pub struct PassphraseFile {
    path: PathBuf,
    passphrase: Passphrase,
    cost: Cost,
}

impl PassphraseFile {
    /// The file at `path`. `cost` is that of what is written; what is read names its own.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, passphrase: Passphrase, cost: Cost) -> Self {
        Self { path: path.into(), passphrase, cost }
    }

    fn open(&self, bytes: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyFileError> {
        let path = || self.path.clone();
        let short = |short: Short| KeyFileError::CutShort { path: path(), have: short.at, needed: short.needed };
        let mut reader = Reader::new(bytes);
        if reader.array().map_err(short)? != *MAGIC || reader.u8().map_err(short)? != VERSION {
            return Err(KeyFileError::Format { path: path() });
        }
        let (memory_kib, passes) = (reader.u32().map_err(short)?, reader.u32().map_err(short)?);
        let lanes = reader.u32().map_err(short)?;
        let cost =
            Cost::found(memory_kib, passes, lanes).map_err(|source| KeyFileError::Cost { path: path(), source })?;
        let salt = reader.array::<SALT_LEN>().map_err(short)?;
        let check = reader.array::<CHECK_LEN>().map_err(short)?;
        let nonce = reader.array::<NONCE_LEN>().map_err(short)?;
        let (header, _) = bytes.split_at(reader.position());
        let sealed = reader.rest();
        let short_of_tag = KeyFileError::CutShort { path: path(), have: bytes.len(), needed: TAG_LEN };
        let (body, tag) = sealed.split_last_chunk::<TAG_LEN>().ok_or(short_of_tag)?;

        let derived = cost.derive(&self.passphrase, &salt).ok_or_else(|| KeyFileError::Format { path: path() })?;
        let (key, expected) = derived.split_at(32);
        if !bool::from(expected.ct_eq(&check)) {
            return Err(KeyFileError::WrongPassphrase { path: path() });
        }
        let damaged = |_| KeyFileError::Damaged { path: path() };
        let mut secret = Zeroizing::new(body.to_vec());
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).map_err(damaged)?);
        key.open_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(header), tag, &mut secret)
            .map_err(damaged)?;
        Ok(secret)
    }

    fn seal(&self, secret: &[u8]) -> Result<Vec<u8>, KeyFileError> {
        let refused = || KeyFileError::Refused { path: self.path.clone() };
        if secret.len() > MAX_SECRET {
            return Err(KeyFileError::TooLong { path: self.path.clone() });
        }
        // A salt for each writing makes a key for each writing, so that no nonce can repeat under it.
        let (mut salt, mut nonce) = ([0; SALT_LEN], [0; NONCE_LEN]);
        getrandom::fill(&mut salt)?;
        getrandom::fill(&mut nonce)?;
        let derived = self.cost.derive(&self.passphrase, &salt).ok_or_else(refused)?;
        let (key, check) = derived.split_at(32);

        let mut bytes = Vec::with_capacity(HEADER_LEN + secret.len() + TAG_LEN);
        bytes.extend_from_slice(MAGIC);
        bytes.push(VERSION);
        for number in [self.cost.memory_kib, self.cost.passes, self.cost.lanes] {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        bytes.extend_from_slice(&salt);
        bytes.extend_from_slice(check);
        bytes.extend_from_slice(&nonce);
        let mut body = Zeroizing::new(secret.to_vec());
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).map_err(|_| refused())?);
        let tag = key
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(bytes.as_slice()),
                body.as_mut_slice(),
            )
            .map_err(|_| refused())?;
        bytes.extend_from_slice(&body);
        bytes.extend_from_slice(tag.as_ref());
        Ok(bytes)
    }
}

impl KeyProvider for PassphraseFile {
    fn load(&self) -> Result<Zeroizing<Vec<u8>>, KeyFileError> {
        self.open(&read_private(&self.path, HEADER_LEN + MAX_SECRET + TAG_LEN)?)
    }

    fn store(&self, secret: &[u8]) -> Result<(), KeyFileError> {
        replace(&self.path, &self.seal(secret)?)
    }
}

/// The credential `farseal` that systemd decrypted for this service (`LoadCredentialEncrypted=farseal`).
#[derive(Debug)]
pub struct CredentialsDirectory {
    path: PathBuf,
}

impl CredentialsDirectory {
    /// The credential in `directory`.
    #[must_use]
    pub fn new(directory: &Path) -> Self {
        Self { path: directory.join(CREDENTIAL) }
    }

    /// That in `$CREDENTIALS_DIRECTORY`, if systemd set it.
    #[must_use]
    pub fn from_environment() -> Option<Self> {
        std::env::var_os("CREDENTIALS_DIRECTORY").map(|directory| Self::new(Path::new(&directory)))
    }
}

impl KeyProvider for CredentialsDirectory {
    fn load(&self) -> Result<Zeroizing<Vec<u8>>, KeyFileError> {
        // systemd makes it 0400, or 0440 for a service user by way of an ACL, in a directory that is closed to others;
        // the mask is systemd's business, so only the size and the kind of file are ours.
        read_file(&self.path, MAX_SECRET).map(|(secret, _)| secret)
    }

    fn store(&self, _: &[u8]) -> Result<(), KeyFileError> {
        Err(KeyFileError::ReadOnly { path: self.path.clone() })
    }
}

fn at<'a>(path: &'a Path) -> impl Fn(io::Error) -> KeyFileError + 'a {
    move |source| KeyFileError::Io { path: path.to_owned(), source }
}

fn read_private(path: &Path, most: usize) -> Result<Zeroizing<Vec<u8>>, KeyFileError> {
    let (bytes, mode) = read_file(path, most)?;
    if mode & 0o077 == 0 { Ok(bytes) } else { Err(KeyFileError::TooOpen { path: path.to_owned(), mode }) }
}

/// The content and the permissions, both of the file that was opened.
fn read_file(path: &Path, most: usize) -> Result<(Zeroizing<Vec<u8>>, u32), KeyFileError> {
    let file = File::open(path).map_err(at(path))?;
    let found = file.metadata().map_err(at(path))?;
    if !found.is_file() {
        return Err(KeyFileError::NotAFile { path: path.to_owned() });
    }
    let long = || KeyFileError::TooLong { path: path.to_owned() };
    let length = usize::try_from(found.len()).ok().filter(|length| *length <= most).ok_or_else(long)?;
    // Room for one byte more than there should be: a file that grows meanwhile is refused, and nothing moves.
    let mut bytes = Zeroizing::new(Vec::with_capacity(length + 1));
    file.take(found.len().saturating_add(1)).read_to_end(&mut bytes).map_err(at(path))?;
    if bytes.len() > most { Err(long()) } else { Ok((bytes, found.mode() & 0o7777)) }
}

/// Writes a new file of mode 0600 beside `path`, makes it durable and puts it in place.
fn replace(path: &Path, bytes: &[u8]) -> Result<(), KeyFileError> {
    let mut unique = [0u8; 8];
    getrandom::fill(&mut unique)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", to_hex(&unique)));
    let fresh = path.with_file_name(name);

    let written = write_new(&fresh, bytes).and_then(|()| fs::rename(&fresh, path).map_err(at(path)));
    if written.is_err() {
        // Nothing points at it; if it cannot be removed either, the first error is the one to tell.
        let _ = fs::remove_file(&fresh);
        return written;
    }
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        Some(_) | None => Path::new("."),
    };
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(at(directory))
}

fn write_new(path: &Path, bytes: &[u8]) -> Result<(), KeyFileError> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(at(path))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(at(path))
}
