//! A lane's epoch keys: their packages on disk, the keys in memory, and opening what they sealed.
//!
//! On disk is only what a key record carries: the signed descriptor and the capsules. A key itself exists in
//! zeroizing memory, unwrapped when the first record of its epoch is opened. The packages are kept beside the records
//! that need them, because a journal is trimmed and a key record may be gone while its epoch still seals. Where the escrow site
//! alone holds the keys, what it released for a recovery lies beside the packages, wrapped for this node.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use farseal_core::ledger::{Entry, Ledger};
use farseal_core::record::{Header, TAG_BYTES};
use farseal_core::retire::{BelowFloor, Floor};
use farseal_core::units::{Epoch, Generation, PairId, Sequence};
use farseal_plugin::Digest;
use farseal_plugin::vault::epoch_key::EpochKey;
use farseal_plugin::vault::guest::GuestLayer;
use farseal_plugin::vault::provider::Provider;
use farseal_plugin::vault::schedule::EpochSchedule;
use farseal_plugin::vault::seal::{OpenError, Opener};
use farseal_plugin::vault::search::SearchKey;
use farseal_plugin::vault::stack::StackIndex;
use farseal_plugin::vault::unit::Unit;

use crate::keys::card::{PeerCard, SIGNATURE_LEN};
use crate::keys::descriptor::Terms;
use crate::keys::fingerprint::Fingerprint;
use crate::keys::identity::Identity;
use crate::keys::package::{Expected, OpenEpochError, PackageError, RefusedEpoch, SealedEpoch, VerifiedEpoch};
use crate::keys::release::{RefusedRelease, Release};
use crate::plugins::{LayerError, PairPlugins};
use crate::retired::Destroyed;
use crate::store::StoreError;
use crate::store::files;

/// The packages of one lane.
pub struct Keyring {
    directory: PathBuf,
    pair: PairId,
    identity: Arc<Identity>,
    signer: PeerCard,
    escrow: Option<PeerCard>,
    encrypted: bool,
    packages: Mutex<BTreeMap<Epoch, Arc<VerifiedEpoch>>>,
    released: Mutex<BTreeMap<Epoch, Arc<Release>>>,
    destroyed: Mutex<Destroyed>,
}

/// Why a package cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{path}: {error}; restore the file from a copy of the node's state directory")]
    Unreadable { path: PathBuf, error: PackageError },
    #[error("{path}: {error}")]
    Refused { path: PathBuf, error: RefusedEpoch },
    #[error("epoch {0} was released, and its package is not here")]
    NoPackage(Epoch),
    #[error(transparent)]
    Release(#[from] RefusedRelease),
    #[error(transparent)]
    BelowFloor(#[from] BelowFloor),
}

/// Why blocks do not open.
#[derive(Debug, thiserror::Error)]
pub enum UnsealError {
    #[error("record {sequence} falls in epoch {epoch}, whose key package is not here")]
    NoPackage { sequence: Sequence, epoch: Epoch },
    #[error(
        "record {sequence} says that it is {}, and the pair is not: it was altered",
        if *encrypted { "encrypted" } else { "not encrypted" }
    )]
    OtherBit { sequence: Sequence, encrypted: bool },
    #[error("record {0} falls in no epoch: its key record is missing")]
    NoEpoch(Sequence),
    #[error(transparent)]
    Key(#[from] OpenEpochError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("record {sequence}: {error}")]
    Layer { sequence: Sequence, error: Box<LayerError> },
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keyring").field("directory", &self.directory).field("pair", &self.pair).finish_non_exhaustive()
    }
}

impl Keyring {
    /// Reads every package in `directory`. Each must be signed by `signer`.
    pub fn open(
        directory: &Path,
        pair: PairId,
        identity: Arc<Identity>,
        signer: PeerCard,
    ) -> Result<Self, KeyringError> {
        files::create_private_dir(directory)?;
        let mut packages = BTreeMap::new();
        for path in files_named(directory, "epoch")? {
            let Some(bytes) = files::read_if_there(&path, PACKAGE_BYTES_MAX)? else { continue };
            let package = SealedEpoch::decode(&bytes)
                .map_err(|error| KeyringError::Unreadable { path: path.clone(), error })?
                .verify(&Expected { pair: pair.0, signer: &signer, newest: None, escrow: None })
                .map_err(|error| KeyringError::Refused { path: path.clone(), error })?;
            packages.insert(Epoch(package.descriptor().terms.epoch), Arc::new(package));
        }
        let mut released = BTreeMap::new();
        for path in files_named(directory, "release")? {
            let Some(bytes) = files::read_if_there(&path, PACKAGE_BYTES_MAX)? else { continue };
            match Release::decode(&bytes) {
                Ok(release) => _ = released.insert(Epoch(release.scope.epoch), Arc::new(release)),
                Err(error) => {
                    tracing::warn!(path = %path.display(), "a released key cannot be read ({error}): fetch it again");
                }
            }
        }
        let (packages, released) = (Mutex::new(packages), Mutex::new(released));
        let (directory, destroyed) = (directory.to_owned(), Mutex::default());
        Ok(Self { directory, pair, identity, signer, escrow: None, encrypted: true, packages, released, destroyed })
    }

    /// With the pair's escrow site: every new package must have its receipt.
    #[must_use]
    pub fn with_escrow(self, escrow: Option<PeerCard>) -> Self {
        Self { escrow, ..self }
    }

    /// Of a pair whose records are not sealed, its control information says. Without this word, a record that says so of itself
    /// was altered.
    #[must_use]
    pub fn of_encrypted(self, encrypted: bool) -> Self {
        Self { encrypted, ..self }
    }

    /// Without the keys that are destroyed: what a crash left of them goes now.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn without(self, destroyed: Destroyed) -> Result<Self, StoreError> {
        self.destroy(destroyed)?;
        Ok(self)
    }

    /// The pair's escrow site.
    pub fn escrow(&self) -> Option<&PeerCard> {
        self.escrow.as_ref()
    }

    /// The site that made the packages.
    pub fn signer(&self) -> &PeerCard {
        &self.signer
    }

    /// Keeps a package, durably.
    pub fn keep(&self, package: VerifiedEpoch) -> Result<(), KeyringError> {
        let epoch = Epoch(package.descriptor().terms.epoch);
        self.destroyed().floor.takes(epoch)?;
        files::write_atomically(&self.path(epoch), &package.package().encode())?;
        self.packages().insert(epoch, Arc::new(package));
        Ok(())
    }

    /// Is another package of the same epoch kept, in whose place this one would come?
    pub fn has_another(&self, package: &VerifiedEpoch) -> bool {
        let kept = self.package(Epoch(package.descriptor().terms.epoch));
        kept.is_some_and(|kept| kept.package().encode() != package.package().encode())
    }

    /// Keeps a cover's package as durably as an epoch's, over the one before: nobody reads it.
    pub fn keep_cover(&self, package: &VerifiedEpoch) -> Result<(), KeyringError> {
        Ok(files::write_atomically(&self.directory.join("cover.package"), &package.package().encode())?)
    }

    /// Removes every package and every released key up to the floor, durably, and takes none of them any more.
    ///
    /// # Errors
    /// [`StoreError`]: some of them may be there still.
    pub fn destroy(&self, destroyed: Destroyed) -> Result<(), StoreError> {
        let floor = destroyed.floor;
        *self.destroyed.lock().unwrap_or_else(PoisonError::into_inner) = destroyed;
        if floor == Floor::NONE {
            return Ok(());
        }
        self.packages().retain(|epoch, _| floor.takes(*epoch).is_ok());
        self.released().retain(|epoch, _| floor.takes(*epoch).is_ok());
        // By their names: also what never came into force, and what a crash left.
        for kind in ["epoch", "release", "new"] {
            for path in files_named(&self.directory, kind)? {
                let number = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.split('.').next());
                let epoch = number.and_then(|number| u64::from_str_radix(number, 16).ok()).map(Epoch);
                if epoch.is_some_and(|epoch| floor.takes(epoch).is_err()) {
                    files::remove_durably(&path)?;
                }
            }
        }
        let cover = self.directory.join("cover.package");
        if cover.exists() { files::remove_durably(&cover) } else { Ok(()) }
    }

    /// Which keys are taken no more.
    pub fn destroyed(&self) -> Destroyed {
        *self.destroyed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// With this node's identity.
    pub fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_LEN] {
        self.identity.sign(message)
    }

    /// Forgets an epoch that never came into force.
    pub fn discard(&self, epoch: Epoch) -> Result<(), KeyringError> {
        if self.packages().remove(&epoch).is_some() {
            files::remove_durably(&self.path(epoch))?;
        }
        Ok(())
    }

    /// Checks a package that came from the peer, or that this node just made.
    pub fn verify(&self, package: SealedEpoch, newest: Option<Epoch>) -> Result<VerifiedEpoch, RefusedEpoch> {
        let (newest, escrow) = (newest.map(|epoch| epoch.0), self.escrow.as_ref());
        package.verify(&Expected { pair: self.pair.0, signer: &self.signer, newest, escrow })
    }

    /// Unwraps a package's key for this node: from its own capsule, or from what the escrow site released.
    pub fn unwrap(&self, package: &VerifiedEpoch) -> Result<EpochKey, OpenEpochError> {
        let refused = match package.open(&self.identity) {
            Err(refused @ OpenEpochError::OtherRecipient { .. }) => refused,
            opened => return opened,
        };
        let epoch = package.descriptor().terms.epoch;
        let released = self.released().get(&Epoch(epoch)).cloned();
        match (released, &self.escrow) {
            (Some(release), Some(escrow)) => open_release(&release, package, &self.identity, escrow)
                .map_err(|source| OpenEpochError::Released { epoch, source }),
            (Some(_) | None, _) if package.receipt().is_some() => Err(OpenEpochError::WithEscrow { epoch }),
            _ => Err(refused),
        }
    }

    /// What makes the search tags of a package's epoch, and opens nothing.
    ///
    /// # Errors
    /// [`OpenEpochError`]: this node cannot have the epoch's key.
    pub fn search_key(&self, package: &VerifiedEpoch) -> Result<SearchKey, OpenEpochError> {
        let key = self.unwrap(package)?;
        Ok(EpochSchedule::new(&key, &package.descriptor().terms.scope()).search())
    }

    /// Unwraps every package's key, or says which this node cannot have. A key that only the escrow site holds is not looked
    /// at: its receipt was checked when it came.
    pub fn unwrap_all(&self) -> Result<(), (Epoch, OpenEpochError)> {
        for package in self.kept() {
            match self.unwrap(&package) {
                Ok(_) | Err(OpenEpochError::WithEscrow { .. }) => {}
                Err(error) => return Err((Epoch(package.descriptor().terms.epoch), error)),
            }
        }
        Ok(())
    }

    /// Epochs whose key only the escrow site has.
    #[must_use]
    pub fn missing(&self) -> Vec<Epoch> {
        let (own, released) = (self.identity.card().fingerprint(), self.released());
        let packages = self.packages();
        let missing = packages.iter().filter(|(epoch, package)| is_missing(own, &released, **epoch, package));
        missing.map(|(epoch, _)| *epoch).collect()
    }

    /// Has only the escrow site the key of this epoch, of which this is the package?
    #[must_use]
    pub fn lacks_key_of(&self, epoch: Epoch, package: &VerifiedEpoch) -> bool {
        is_missing(self.identity.card().fingerprint(), &self.released(), epoch, package)
    }

    /// Keeps a key that the escrow site released for this node, durably, if it is the one that the epoch's package names.
    ///
    /// # Errors
    /// [`KeyringError`].
    pub fn keep_release(&self, release: Release) -> Result<(), KeyringError> {
        let epoch = Epoch(release.scope.epoch);
        self.destroyed().floor.takes(epoch)?;
        let package = self.package(epoch).ok_or(KeyringError::NoPackage(epoch))?;
        if let Some(escrow) = &self.escrow {
            open_release(&release, &package, &self.identity, escrow)?;
        }
        files::write_atomically(&self.path(epoch).with_extension("release"), &release.encode())?;
        self.released().insert(epoch, Arc::new(release));
        Ok(())
    }

    /// The ledger that the packages describe, for opening the journal after a restart.
    pub fn ledger(&self) -> Ledger {
        let mut ledger = Ledger::default();
        for package in self.packages().values() {
            let terms = &package.descriptor().terms;
            let entry = Entry {
                epoch: Epoch(terms.epoch),
                generation: Generation(terms.generation),
                key: Sequence(terms.key_seq),
                start: Sequence(terms.start_seq),
            };
            // In the order of the epochs; one that had not begun when its successor was placed gives way to it.
            if let Err(error) = ledger.arm(entry) {
                tracing::warn!(pair = %self.pair, %error, "an epoch's package does not fit the others");
            }
        }
        ledger
    }

    pub fn newest(&self) -> Epoch {
        self.packages().last_key_value().map_or(Epoch::NONE, |(epoch, _)| *epoch)
    }

    /// The hash of the newest epoch's descriptor, for the next one to name.
    pub fn newest_hash(&self) -> [u8; 32] {
        self.packages().last_key_value().map_or([0; 32], |(_, package)| package.descriptor().hash())
    }

    pub fn terms(&self, epoch: Epoch) -> Option<Terms> {
        self.packages().get(&epoch).map(|package| package.descriptor().terms.clone())
    }

    /// Of every package, oldest first.
    pub fn epochs(&self) -> Vec<Epoch> {
        self.packages().keys().copied().collect()
    }

    /// Every package, oldest epoch first.
    #[must_use]
    pub fn kept(&self) -> Vec<Arc<VerifiedEpoch>> {
        self.packages().values().cloned().collect()
    }

    fn released(&self) -> std::sync::MutexGuard<'_, BTreeMap<Epoch, Arc<Release>>> {
        self.released.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn package(&self, epoch: Epoch) -> Option<Arc<VerifiedEpoch>> {
        self.packages().get(&epoch).cloned()
    }

    fn packages(&self) -> std::sync::MutexGuard<'_, BTreeMap<Epoch, Arc<VerifiedEpoch>>> {
        self.packages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, epoch: Epoch) -> PathBuf {
        self.directory.join(format!("{:016x}.epoch", epoch.0))
    }
}

fn is_missing(
    own: Fingerprint,
    released: &BTreeMap<Epoch, Arc<Release>>,
    epoch: Epoch,
    package: &VerifiedEpoch,
) -> bool {
    package.receipt().is_some() && package.capsule_for(own).is_none() && !released.contains_key(&epoch)
}

fn open_release(
    release: &Release,
    package: &VerifiedEpoch,
    identity: &Identity,
    escrow: &PeerCard,
) -> Result<EpochKey, RefusedRelease> {
    let descriptor = package.descriptor();
    release.open(identity, escrow, (&descriptor.terms.scope(), &descriptor.key_check))
}

/// A file that holds more is no package.
const PACKAGE_BYTES_MAX: u64 = 64 << 10;

fn files_named(directory: &Path, wanted: &str) -> Result<Vec<PathBuf>, StoreError> {
    let failed = |source| StoreError::io(directory, "list the epochs", source);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == wanted) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Opens blocks of any epoch of a lane; one for each worker.
pub struct Unsealer {
    keyring: Arc<Keyring>,
    ledger: Arc<Ledger>,
    openers: BTreeMap<Epoch, EpochOpener>,
    plugins: Arc<PairPlugins>,
    /// One for each component that sealed with an algorithm of its own.
    layers: BTreeMap<Digest, Box<dyn GuestLayer + Send>>,
}

struct EpochOpener {
    opener: Opener,
    /// The component whose layer its records need.
    layer: Option<Digest>,
}

impl std::fmt::Debug for Unsealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unsealer").field("epochs", &self.openers.len()).finish_non_exhaustive()
    }
}

impl Unsealer {
    #[must_use]
    pub fn new(keyring: Arc<Keyring>, ledger: Arc<Ledger>, plugins: Arc<PairPlugins>) -> Self {
        Self { keyring, ledger, openers: BTreeMap::new(), plugins, layers: BTreeMap::new() }
    }

    /// Opens a run of a record's blocks in place, from its `first_block` on. Of a pair that is not encrypted, nothing is
    /// changed. What the record says of itself does not count: whoever altered it may have altered that, too (R19).
    pub fn open(
        &mut self,
        header: &Header,
        first_block: u32,
        body: &mut [u8],
        tags: &mut [u8],
    ) -> Result<(), UnsealError> {
        let (sequence, encrypted) = (header.sequence, header.encrypted);
        if encrypted != self.keyring.encrypted {
            return Err(UnsealError::OtherBit { sequence, encrypted });
        }
        if !encrypted {
            return Ok(());
        }
        let epoch = self.ledger.epoch_of(sequence).ok_or(UnsealError::NoEpoch(sequence))?.epoch;
        if !self.openers.contains_key(&epoch) {
            let opener = self.opener(sequence, epoch)?;
            self.openers.insert(epoch, opener);
        }
        let Some(known) = self.openers.get_mut(&epoch) else { return Err(UnsealError::NoEpoch(sequence)) };
        let mut units = [Unit {
            header: &header.encode(0),
            seq: sequence.0,
            stack: StackIndex(header.stack),
            block_len: header.block_bytes.get(),
            first_block,
            body,
            beside: header.tag_bytes_each() - TAG_BYTES,
            tags,
        }];
        let guest = known.layer.and_then(|digest| self.layers.get_mut(&digest));
        let guest = guest.map(|guest| &mut **guest as &mut dyn GuestLayer);
        Ok(known.opener.open_batch(&mut units, guest)?)
    }

    fn opener(&mut self, sequence: Sequence, epoch: Epoch) -> Result<EpochOpener, UnsealError> {
        let package = self.keyring.package(epoch).ok_or(UnsealError::NoPackage { sequence, epoch })?;
        let key = self.keyring.unwrap(&package)?;
        let terms = &package.descriptor().terms;
        let digest = Digest(terms.component);
        let layer = terms.needs_layer().then_some(digest);
        if layer.is_some() && !self.layers.contains_key(&digest) {
            let failed = |error| UnsealError::Layer { sequence, error: Box::new(error) };
            let layer = self.plugins.layer_of(digest).map_err(failed)?;
            self.layers.extend(layer.map(|layer| (digest, layer)));
        }
        let opener = Opener::new(&key, &terms.scope(), terms.stacks.clone(), Provider::AwsLc);
        Ok(EpochOpener { opener, layer })
    }
}
