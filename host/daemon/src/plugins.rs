//! A pair's plugins: loaded by the configuration's word or an operator's, each in its slot, swappable while the pair runs.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use farseal_plugin::vault::guest::GuestLayer;
use farseal_plugin::{
    Because, Breaker, By, Cipher, CipherInstances, CodeCache, Digest, Disguise, Facts, HostOptions, LoadError,
    LoadRequest, Plugin, PluginHost, Recovery, RotationPolicy, Slot, StoodIn,
};
use zeroize::Zeroizing;

use crate::components::{ComponentError, Components};
use crate::config::{Pair, PluginChoice};
use crate::control::api::PluginSlot;
use crate::keys::memory::KeysInSwap;
use crate::store::{StoreError, files};

pub mod chosen;
pub mod journal;
pub mod proven;
pub mod quarantine;

use chosen::{Chosen, ChosenError, Place, Put};
use journal::StepJournal;
use proven::{Proofs, ProvenError};

/// The four slots of a pair, and what is kept of them.
pub struct PairPlugins {
    pub cipher: Slot<Cipher>,
    pub policy: Slot<RotationPolicy>,
    pub disguise: Slot<Disguise>,
    pub recovery: Slot<Recovery>,
    pub breaker: Arc<Breaker>,
    pub components: Components,
    pub proofs: Proofs,
    pub policy_journal: StepJournal<RotationPolicy>,
    pub recovery_journal: StepJournal<Recovery>,
    host: Arc<PluginHost>,
    directory: PathBuf,
    chosen: Mutex<Chosen>,
    /// Disguises that are not in force here, loaded once; the one that fitted last is first.
    others: Mutex<Vec<Other>>,
    /// One swap at a time.
    pub swapping: tokio::sync::Mutex<()>,
}

/// A component that was tried as a disguise.
struct Other {
    digest: Digest,
    /// `None`: it is none.
    disguise: Option<Disguise>,
}

/// How many of them stay in memory: loading one takes a second or so.
const OTHERS_MAX: usize = 16;

impl std::fmt::Debug for PairPlugins {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PairPlugins").field("directory", &self.directory).finish_non_exhaustive()
    }
}

/// Why a pair's plugins cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PluginsError {
    #[error("plugin {slot}: {path}: {source}; run `farseal plugin check` on the file, or correct `component`")]
    Unreadable { slot: String, path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Chosen(#[from] ChosenError),
    #[error(transparent)]
    Standings(#[from] quarantine::StandingsError),
    #[error("{source}; or remove {} to go back to the configuration's plugins", chosen.display())]
    Kept { chosen: PathBuf, source: ComponentError },
    #[error(transparent)]
    Proven(#[from] ProvenError),
    #[error("plugin {slot} could not be kept by its digest: {source}")]
    NotKept { slot: String, source: ComponentError },
}

/// Why a record of an epoch that a component of the raw world sealed cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    #[error("the cipher that sealed it is not to be had: {0}")]
    Component(#[from] ComponentError),
    #[error("the cipher that sealed it cannot be used: {0}")]
    Load(#[from] LoadError),
}

/// The largest component that is read; the contract's own limit is checked after that.
const COMPONENT_BYTES_MAX: u64 = farseal_core::limits::COMPONENT_BYTES_MAX;

impl PairPlugins {
    /// Loads what the configuration chose, or an operator since. Nothing of any component runs before its pin, names and
    /// grants are right. Each is kept by its digest.
    pub fn load(host: &Arc<PluginHost>, pair: &Pair, directory: &Path) -> Result<Self, PluginsError> {
        let breaker = quarantine::breaker(directory)?;
        let components = Components::open(directory)?;
        let chosen = Chosen::load(directory)?;
        let proofs = Proofs::open(directory)?;
        let from = Filling {
            host,
            pair,
            directory,
            components: &components,
            proofs: &proofs,
            chosen: &chosen,
            breaker: &breaker,
        };
        Ok(Self {
            cipher: from.slot(PluginSlot::Cipher)?,
            policy: from.slot(PluginSlot::Policy)?,
            disguise: from.slot(PluginSlot::Disguise)?,
            recovery: from.slot(PluginSlot::Recovery)?,
            policy_journal: StepJournal::of_policy(directory)?,
            recovery_journal: StepJournal::of_recovery(directory)?,
            host: Arc::clone(host),
            directory: directory.to_owned(),
            breaker,
            components,
            proofs,
            chosen: Mutex::new(chosen),
            others: Mutex::default(),
            swapping: tokio::sync::Mutex::default(),
        })
    }

    /// Empty slots, for tests: the host's own code answers.
    #[cfg(test)]
    #[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    pub fn none(directory: &Path) -> Self {
        let breaker = Arc::new(Breaker::default());
        Self {
            cipher: Slot::new("cipher", Arc::clone(&breaker)),
            policy: Slot::new("policy", Arc::clone(&breaker)),
            disguise: Slot::new("disguise", Arc::clone(&breaker)),
            recovery: Slot::new("recovery", Arc::clone(&breaker)),
            policy_journal: StepJournal::of_policy(directory).unwrap(),
            recovery_journal: StepJournal::of_recovery(directory).unwrap(),
            host: Arc::new(PluginHost::new(HostOptions::uncached()).unwrap()),
            directory: directory.to_owned(),
            breaker,
            components: Components::open(directory).unwrap(),
            proofs: Proofs::open(directory).unwrap(),
            chosen: Mutex::default(),
            others: Mutex::default(),
            swapping: tokio::sync::Mutex::default(),
        }
    }

    /// The layer of the component that sealed an epoch, whatever is in force now.
    pub fn layer_of(&self, digest: Digest) -> Result<Option<Box<dyn GuestLayer + Send>>, LayerError> {
        let bytes = self.components.load(digest)?;
        let cipher = self.host.opening_cipher("an earlier cipher", &bytes, digest)?;
        Ok(cipher.map(|cipher| cipher.layer()))
    }

    /// What a carrier holds, in the form that `read` knows: by the disguise in force here, as a plain carrier, which a
    /// primary sends whose disguise failed, or by another that is kept. What it holds is signed whichever it is.
    pub fn revealed<T>(&self, carrier: &[u8], read: impl Fn(&[u8]) -> Option<T>) -> Option<T> {
        let now = crate::clock::wall_time().0;
        let current = self.disguise.extract(now, carrier).ok().and_then(|answer| answer.value);
        let plain = || farseal_plugin::fallback::disguise_extract(carrier);
        let first = current.and_then(|payload| read(&payload)).or_else(|| read(&plain()?));
        first.or_else(|| self.revealed_by_another(carrier, read))
    }

    /// By one of those that were sent by the other site or put in here, with no settings of their own: extracting needs none.
    fn revealed_by_another<T>(&self, carrier: &[u8], read: impl Fn(&[u8]) -> Option<T>) -> Option<T> {
        let in_force = self.disguise.current().map(|disguise| disguise.facts().digest);
        let by = |other: &Other| read(&other.disguise.as_ref()?.extract(carrier).ok()?.value?);
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        let found = (0..others.len()).find_map(|at| Some((at, by(others.get(at)?)?)));
        if let Some((at, found)) = found {
            others[..=at].rotate_right(1);
            return Some(found);
        }
        for digest in self.components.kept().unwrap_or_default() {
            if Some(digest) == in_force || others.iter().any(|other| other.digest == digest) {
                continue;
            }
            let Ok(bytes) = self.components.load(digest) else { continue };
            let put = Put { digest, grants: Vec::new(), config: serde_json::Value::Null };
            let disguise = load_bytes::<Disguise>(&self.host, "an earlier disguise", &bytes, &put).ok();
            let other = Other { digest, disguise };
            let found = by(&other);
            others.truncate(OTHERS_MAX - 1);
            let place = if found.is_some() { 0 } else { others.len() };
            others.insert(place, other);
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// Whether the host had to answer in place of what is in force there. A cipher has nobody who answers for it.
    #[must_use]
    pub fn stood_in(&self, slot: PluginSlot) -> Option<StoodIn> {
        match slot {
            PluginSlot::Cipher => None,
            PluginSlot::Policy => self.policy.stood_in(),
            PluginSlot::Disguise => self.disguise.stood_in(),
            PluginSlot::Recovery => self.recovery.stood_in(),
        }
    }

    /// For the log, where the host answered in a plugin's place: at the first time, and ever more rarely.
    pub fn say_who_answered(&self, slot: PluginSlot, by: &By, instead: &str) {
        let By::Fallback(Because::Failed { .. }) = by else { return };
        if let Some(StoodIn { times, last, .. }) =
            self.stood_in(slot).filter(|stood_in| stood_in.times.is_power_of_two())
        {
            tracing::warn!(%slot, times, "{instead}: the plugin in its place did not answer: {last}");
        }
    }

    /// What the other site must hold for the epochs that are made now.
    #[must_use]
    pub fn for_the_other_site(&self) -> [Option<Digest>; 2] {
        let cipher = self.cipher.current().map(|cipher| cipher.facts().digest);
        [cipher, self.disguise.current().map(|disguise| disguise.facts().digest)]
    }

    /// What an operator put in a place, if the configuration still says what it said then.
    #[must_use]
    pub fn put_by_operator(&self, slot: PluginSlot, configured: &PluginChoice) -> Option<Place> {
        self.chosen().of(slot, configured).cloned()
    }

    /// Keeps, durably, what is in a place from now on.
    pub fn keep_choice(&self, slot: PluginSlot, place: Place) -> Result<(), StoreError> {
        self.chosen().put(&self.directory, slot, place)
    }

    fn chosen(&self) -> MutexGuard<'_, Chosen> {
        self.chosen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of every plugin, cipher first.
    #[must_use]
    pub fn facts(&self) -> Vec<Facts> {
        PluginSlot::ALL.into_iter().filter_map(|slot| self.facts_of(slot)).collect()
    }

    /// What is known of the plugin in a place.
    #[must_use]
    pub fn facts_of(&self, slot: PluginSlot) -> Option<Facts> {
        match slot {
            PluginSlot::Cipher => self.cipher.current().map(|plugin| plugin.facts().clone()),
            PluginSlot::Policy => self.policy.current().map(|plugin| plugin.facts().clone()),
            PluginSlot::Disguise => self.disguise.current().map(|plugin| plugin.facts().clone()),
            PluginSlot::Recovery => self.recovery.current().map(|plugin| plugin.facts().clone()),
        }
    }
}

/// What a pair's slots are filled from.
struct Filling<'a> {
    host: &'a PluginHost,
    pair: &'a Pair,
    directory: &'a Path,
    components: &'a Components,
    proofs: &'a Proofs,
    chosen: &'a Chosen,
    breaker: &'a Arc<Breaker>,
}

impl Filling<'_> {
    fn slot<P: Plugin>(&self, slot: PluginSlot) -> Result<Slot<P>, PluginsError> {
        let (name, configured) = (format!("{}.{slot}", self.pair.name), self.pair.plugin(slot));
        let plugin = match self.chosen.of(slot, configured) {
            None => self.configured(&name, configured)?,
            Some(Place { now, .. }) => {
                if configured.conformance.is_some() {
                    self.proofs.check(&name, now.digest)?;
                }
                self.kept(&name, now)?
            }
        };
        let slot = Slot::new(name, Arc::clone(self.breaker));
        slot.install(Some(Arc::new(plugin)));
        Ok(slot)
    }

    /// Reads, loads and keeps what the configuration chose, with its result where one is demanded.
    fn configured<P: Plugin>(&self, slot: &str, choice: &PluginChoice) -> Result<P, PluginsError> {
        let bytes = read(slot, choice)?;
        if let Some(path) = &choice.conformance {
            let digest = Digest::of(&bytes);
            let result = proven::read(slot, path, Some(&choice.path), digest)?;
            self.proofs.keep(digest, &result)?;
        }
        let request =
            LoadRequest { slot, bytes: &bytes, pin: choice.sha256, grants: &choice.grants, config: &choice.config };
        let plugin = self.host.load(&request)?;
        self.components.keep(&bytes).map_err(|source| PluginsError::NotKept { slot: slot.into(), source })?;
        Ok(plugin)
    }

    fn kept<P: Plugin>(&self, name: &str, put: &Put) -> Result<P, PluginsError> {
        let chosen = self.directory.join("plugins.json");
        let bytes = self.components.load(put.digest).map_err(|source| PluginsError::Kept { chosen, source })?;
        load_bytes(self.host, name, &bytes, put)
    }
}

/// Loads a component that is in memory.
pub fn load_bytes<P: Plugin>(host: &PluginHost, slot: &str, bytes: &[u8], put: &Put) -> Result<P, PluginsError> {
    let request = LoadRequest { slot, bytes, pin: Some(put.digest), grants: &put.grants, config: &put.config };
    Ok(host.load(&request)?)
}

/// A component's bytes, as long as they are no more than any has.
pub fn read(slot: &str, choice: &PluginChoice) -> Result<Vec<u8>, PluginsError> {
    let unreadable = |source| PluginsError::Unreadable { slot: slot.into(), path: choice.path.clone(), source };
    let metadata = std::fs::metadata(&choice.path).map_err(unreadable)?;
    if metadata.len() > COMPONENT_BYTES_MAX {
        return Err(unreadable(std::io::Error::from(std::io::ErrorKind::FileTooLarge)));
    }
    std::fs::read(&choice.path).map_err(unreadable)
}

/// Native code is a few times as large as the component that it is made of.
const CODE_BYTES_MAX: u64 = 8 * COMPONENT_BYTES_MAX;

/// The compile cache: one file an entry, private to the node. Its content is guarded by the runtime's MAC.
#[derive(Debug)]
pub struct FileCache {
    directory: PathBuf,
}

impl FileCache {
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        files::create_private_dir(directory)?;
        Ok(Self { directory: directory.to_owned() })
    }
}

impl CodeCache for FileCache {
    fn get(&self, key: &str) -> Option<Vec<u8>> {
        files::read_if_there(&self.directory.join(key), CODE_BYTES_MAX).ok().flatten()
    }

    fn put(&self, key: &str, bytes: &[u8]) {
        if let Err(error) = files::write_atomically(&self.directory.join(key), bytes) {
            tracing::debug!(%error, "compiled code could not be kept: the next start compiles again");
        }
    }
}

/// How the node's plugin host is made.
#[must_use]
pub fn host_options(cache: FileCache, mac_key: Zeroizing<[u8; 32]>, keys: &KeysInSwap) -> HostOptions {
    let uncached = HostOptions::uncached();
    let cipher_instances = match keys {
        KeysInSwap::Locked => CipherInstances::Unpooled,
        KeysInSwap::Unswapped | KeysInSwap::Possible { .. } => uncached.cipher_instances,
    };
    HostOptions { code_cache: Some(Arc::new(cache)), cache_mac_key: mac_key, cipher_instances }
}
