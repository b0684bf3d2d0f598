//! A lane's epoch keys: their packages on disk, the keys in memory, and opening what they sealed.
//!
//! On disk is only what a key record carries: the signed descriptor and the capsules. A key itself exists in
//! zeroizing memory, unwrapped when the first record of its epoch is opened. The packages are kept beside the records
//! that need them, because a journal is trimmed and a key record may be gone while its epoch still seals.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use farseal_core::ledger::{Entry, Ledger};
use farseal_core::record::Header;
use farseal_core::units::{Epoch, Generation, PairId, Sequence};
use farseal_plugin::Digest;
use farseal_plugin::vault::epoch_key::EpochKey;
use farseal_plugin::vault::guest::GuestLayer;
use farseal_plugin::vault::provider::Provider;
use farseal_plugin::vault::seal::{OpenError, Opener};
use farseal_plugin::vault::stack::StackIndex;
use farseal_plugin::vault::unit::Unit;

use crate::keys::card::PeerCard;
use crate::keys::descriptor::Terms;
use crate::keys::identity::Identity;
use crate::keys::package::{Expected, OpenEpochError, PackageError, RefusedEpoch, SealedEpoch, VerifiedEpoch};
use crate::plugins::{LayerError, PairPlugins};
use crate::store::StoreError;
use crate::store::files;

/// The packages of one lane.
pub struct Keyring {
    directory: PathBuf,
    pair: PairId,
    identity: Arc<Identity>,
    signer: PeerCard,
    packages: Mutex<BTreeMap<Epoch, Arc<VerifiedEpoch>>>,
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
}

/// Why blocks do not open.
#[derive(Debug, thiserror::Error)]
pub enum UnsealError {
    #[error("record {sequence} falls in epoch {epoch}, whose key package is not here")]
    NoPackage { sequence: Sequence, epoch: Epoch },
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
        for path in package_files(directory)? {
            let Some(bytes) = files::read_if_there(&path, PACKAGE_BYTES_MAX)? else { continue };
            let package = SealedEpoch::decode(&bytes)
                .map_err(|error| KeyringError::Unreadable { path: path.clone(), error })?
                .verify(&Expected { pair: pair.0, signer: &signer, newest: None })
                .map_err(|error| KeyringError::Refused { path: path.clone(), error })?;
            packages.insert(Epoch(package.descriptor().terms.epoch), Arc::new(package));
        }
        Ok(Self { directory: directory.to_owned(), pair, identity, signer, packages: Mutex::new(packages) })
    }

    /// Keeps a package, durably.
    pub fn keep(&self, package: VerifiedEpoch) -> Result<(), KeyringError> {
        let epoch = Epoch(package.descriptor().terms.epoch);
        files::write_atomically(&self.path(epoch), &package.package().encode())?;
        self.packages().insert(epoch, Arc::new(package));
        Ok(())
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
        package.verify(&Expected { pair: self.pair.0, signer: &self.signer, newest: newest.map(|epoch| epoch.0) })
    }

    /// Unwraps a package's key for this node.
    pub fn unwrap(&self, package: &VerifiedEpoch) -> Result<EpochKey, OpenEpochError> {
        package.open(&self.identity)
    }

    /// Unwraps every package's key, or says which this node cannot have.
    pub fn unwrap_all(&self) -> Result<(), (Epoch, OpenEpochError)> {
        let packages: Vec<_> = self.packages().iter().map(|(epoch, package)| (*epoch, Arc::clone(package))).collect();
        packages.iter().try_for_each(|(epoch, package)| self.unwrap(package).map(drop).map_err(|error| (*epoch, error)))
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

    /// Every package, oldest epoch first.
    pub fn kept(&self) -> Vec<Arc<VerifiedEpoch>> {
        self.packages().values().cloned().collect()
    }

    fn package(&self, epoch: Epoch) -> Option<Arc<VerifiedEpoch>> {
        self.packages().get(&epoch).cloned()
    }

    fn packages(&self) -> std::sync::MutexGuard<'_, BTreeMap<Epoch, Arc<VerifiedEpoch>>> {
        self.packages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, epoch: Epoch) -> PathBuf {
        self.directory.join(format!("{:016x}.epoch", epoch.0))
    }
}

/// A file that holds more is no package.
const PACKAGE_BYTES_MAX: u64 = 64 << 10;

fn package_files(directory: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let failed = |source| StoreError::io(directory, "list the epochs", source);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "epoch") {
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

    /// Opens a run of a record's blocks in place, from its `first_block` on. Of a record that is not encrypted,
    /// nothing is changed.
    pub fn open(
        &mut self,
        header: &Header,
        first_block: u32,
        body: &mut [u8],
        tags: &mut [u8],
    ) -> Result<(), UnsealError> {
        if !header.encrypted {
            return Ok(());
        }
        let sequence = header.sequence;
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
