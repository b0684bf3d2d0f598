//! A pair's plugins: loaded by the configuration's word, each in its slot, swappable while the pair runs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use farseal_plugin::vault::guest::GuestLayer;
use farseal_plugin::vault::stack::{KeyLabel, Layer, Stack, StackError, StackList, Suite};
use farseal_plugin::{
    Breaker, Cipher, CipherUnavailable, CodeCache, Disguise, Facts, HostOptions, LoadError, LoadRequest, Plugin,
    PluginHost, Recovery, RotationPolicy, Slot, wit,
};
use zeroize::Zeroizing;

use crate::config::{Pair, PluginChoice};
use crate::store::{StoreError, files};

/// The four slots of a pair.
#[derive(Debug)]
pub struct PairPlugins {
    pub cipher: Slot<Cipher>,
    pub policy: Slot<RotationPolicy>,
    pub policy_config: String,
    pub disguise: Slot<Disguise>,
    pub recovery: Slot<Recovery>,
    pub recovery_config: String,
    pub breaker: Arc<Breaker>,
}

/// Why a pair's plugins cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PluginsError {
    #[error("plugin {slot}: {path}: {source}; run `farseal plugin check` on the file, or correct `component`")]
    Unreadable { slot: String, path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Load(#[from] LoadError),
}

/// The largest component that is read; the contract's own limit is checked after that.
const COMPONENT_BYTES_MAX: u64 = farseal_core::limits::COMPONENT_BYTES_MAX;

impl PairPlugins {
    /// Loads what the configuration chose. Nothing of any component runs before its pin, names and grants are right.
    pub fn load(host: &PluginHost, pair: &Pair) -> Result<Self, PluginsError> {
        let breaker = Arc::new(Breaker::default());
        let name = |slot: &str| format!("{}.{slot}", pair.name);
        let policy: RotationPolicy = load(host, &name("policy"), &pair.policy)?;
        let recovery: Recovery = load(host, &name("recovery"), &pair.recovery)?;
        let plugins = Self {
            policy_config: policy.facts().config.clone(),
            recovery_config: recovery.facts().config.clone(),
            cipher: slot(&name("cipher"), &breaker, load(host, &name("cipher"), &pair.cipher)?),
            policy: slot(&name("policy"), &breaker, policy),
            disguise: slot(&name("disguise"), &breaker, load(host, &name("disguise"), &pair.disguise)?),
            recovery: slot(&name("recovery"), &breaker, recovery),
            breaker,
        };
        Ok(plugins)
    }

    /// The stacks that the cipher chooses from, for the descriptor of an epoch.
    pub fn stacks(&self) -> Result<StackList, StackError> {
        let described = self.cipher.current().map(|cipher| cipher.description().stacks.clone()).unwrap_or_default();
        let stacks: Vec<Stack> = described.iter().filter_map(stack).collect();
        StackList::new(&stacks)
    }

    /// The digest of the cipher in force.
    #[must_use]
    pub fn cipher_digest(&self) -> [u8; 32] {
        self.cipher.current().map_or([0; 32], |cipher| cipher.facts().digest.0)
    }

    /// A worker for the cipher's own layer, where it has one.
    pub fn guest_layer(&self) -> Result<Option<Box<dyn GuestLayer + Send>>, CipherUnavailable> {
        if self.cipher.current().is_some_and(|cipher| cipher.is_raw()) {
            Ok(Some(Box::new(self.cipher.worker()?)))
        } else {
            Ok(None)
        }
    }

    /// What is known of every plugin, cipher first.
    #[must_use]
    pub fn facts(&self) -> Vec<Facts> {
        let mut facts = Vec::new();
        facts.extend(self.cipher.current().map(|plugin| plugin.facts().clone()));
        facts.extend(self.policy.current().map(|plugin| plugin.facts().clone()));
        facts.extend(self.disguise.current().map(|plugin| plugin.facts().clone()));
        facts.extend(self.recovery.current().map(|plugin| plugin.facts().clone()));
        facts
    }
}

/// Reads and loads one component.
pub fn load<P: Plugin>(host: &PluginHost, slot: &str, choice: &PluginChoice) -> Result<P, PluginsError> {
    let unreadable = |source| PluginsError::Unreadable { slot: slot.into(), path: choice.path.clone(), source };
    let metadata = std::fs::metadata(&choice.path).map_err(unreadable)?;
    if metadata.len() > COMPONENT_BYTES_MAX {
        return Err(unreadable(std::io::Error::from(std::io::ErrorKind::FileTooLarge)));
    }
    let bytes = std::fs::read(&choice.path).map_err(unreadable)?;
    let request =
        LoadRequest { slot, bytes: &bytes, pin: choice.sha256, grants: &choice.grants, config: &choice.config };
    Ok(host.load(&request)?)
}

fn slot<P: Plugin>(name: &str, breaker: &Arc<Breaker>, plugin: P) -> Slot<P> {
    let slot = Slot::new(name, Arc::clone(breaker));
    slot.install(Some(Arc::new(plugin)));
    slot
}

/// The vault's form of a described stack; the runtime has checked that it is one.
fn stack(described: &wit::cipher::Stack) -> Option<Stack> {
    let layers: Vec<Layer> = described
        .layers
        .iter()
        .map(|layer| Some(Layer { suite: suite(layer.suite), label: KeyLabel::new(&layer.key_label).ok()? }))
        .collect::<Option<_>>()?;
    Stack::new(&layers).ok()
}

fn suite(suite: wit::cipher::Suite) -> Suite {
    match suite {
        wit::cipher::Suite::Aes256Gcm => Suite::Aes256Gcm,
        wit::cipher::Suite::Aes256GcmSiv => Suite::Aes256GcmSiv,
        wit::cipher::Suite::Chacha20Poly1305 => Suite::ChaCha20Poly1305,
        wit::cipher::Suite::Chacha20 => Suite::ChaCha20,
        wit::cipher::Suite::Own => Suite::Guest,
    }
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
pub fn host_options(cache: FileCache, mac_key: Zeroizing<[u8; 32]>) -> HostOptions {
    HostOptions { code_cache: Some(Arc::new(cache)), cache_mac_key: mac_key, ..HostOptions::uncached() }
}
