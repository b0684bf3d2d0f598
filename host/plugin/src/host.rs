//! The door: inspects and loads components. Nothing in a component runs before its names, pin and grants are right.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use wasmtime::component::Component;
use zeroize::Zeroizing;

use crate::anatomy::Anatomy;
use crate::cache::{self, CodeCache};
use crate::cipher::{Cipher, OpeningCipher};
use crate::engine::{CipherInstances, EngineError, EngineKind, Engines};
use crate::kind::{Digest, Grant, Kind, Power};
use crate::limits::{self, CallLimits};
use crate::load_error::{LoadError, Problem};
use crate::world::{
    About, CipherPlanWorld, DisguiseWorld, Facts, Guest, NO_SETTINGS, RecoveryWorld, RotationWorld, World,
};

/// How a [`PluginHost`] is made.
pub struct HostOptions {
    /// Where native code is kept between starts; without one, every load compiles.
    pub code_cache: Option<Arc<dyn CodeCache>>,
    /// The node's own secret for the MAC over cached code.
    pub cache_mac_key: Zeroizing<[u8; 32]>,
    /// Pooled, [`limits::CIPHER_INSTANCES`] at once, unless the node knows better.
    pub cipher_instances: CipherInstances,
}

impl HostOptions {
    /// No cache: for tools and tests.
    #[must_use]
    pub fn uncached() -> Self {
        let cipher_instances = CipherInstances::Pooled(limits::CIPHER_INSTANCES);
        Self { code_cache: None, cache_mac_key: Zeroizing::new([0; 32]), cipher_instances }
    }
}

impl fmt::Debug for HostOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostOptions").field("cached", &self.code_cache.is_some()).finish_non_exhaustive()
    }
}

/// What to load, for what, on whose word.
#[derive(Debug, Clone)]
pub struct LoadRequest<'a> {
    /// The slot's name, for messages: `vault-1.rotation`.
    pub slot: &'a str,
    /// The component.
    pub bytes: &'a [u8],
    /// The digest that the operator trusts; `None` is an error that says how to pin.
    pub pin: Option<Digest>,
    /// What the operator allows beyond the ordinary.
    pub grants: &'a [Grant],
    /// The plugin's settings: a JSON object, or null for none.
    pub config: &'a serde_json::Value,
}

/// What can be known about a component without trusting it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspection {
    /// Its kind.
    pub kind: Kind,
    /// Version of the contract it was built for.
    pub abi: String,
    /// What it asks for by its imports.
    pub powers: Vec<Power>,
    /// Everything it exports, also what the host never calls.
    pub exports: Vec<String>,
    /// Interfaces of later versions of the contract that it offers and this host does not ask for.
    pub optional: Vec<String>,
    /// SHA-256 of its bytes.
    pub digest: Digest,
    /// Its size.
    pub bytes: usize,
    /// What it says about itself.
    pub about: About,
    /// Units of fuel that `describe` took, start included.
    pub describe_fuel: u64,
}

/// A kind of plugin that can be loaded: [`crate::RotationPolicy`], [`crate::Disguise`], [`crate::Recovery`],
/// [`crate::Cipher`].
pub trait Plugin: sealed::Assemble + Send + Sync + 'static {
    /// The kind.
    const KIND: Kind;
    /// What is known of this one.
    fn facts(&self) -> &Facts;
}

pub(crate) mod sealed {
    //! Keeps `Plugin` to the four kinds of the contract.

    /// Makes a plugin of a checked component.
    pub trait Assemble: Sized {
        /// Links, describes and checks the settings.
        fn assemble(parts: super::Parts<'_>) -> Result<Self, super::Problem>;
    }
}

/// A component that is read, validated and compiled, and may be loaded as often as a tool needs it: a story takes less time
/// than reading its plugin again.
#[derive(Clone)]
pub struct Checked {
    pub(crate) component: Component,
    pub(crate) named: Named,
}

impl Checked {
    /// The kind, by its exports.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.named.kind
    }
}

impl fmt::Debug for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checked").field("named", &self.named).finish_non_exhaustive()
    }
}

/// What a component's bytes say before any code is compiled.
#[derive(Debug, Clone)]
pub(crate) struct Named {
    anatomy: Anatomy,
    digest: Digest,
    powers: Vec<Power>,
    kind: Kind,
    bytes: usize,
}

impl Named {
    fn read(bytes: &[u8], digest: Digest) -> Result<Self, Problem> {
        let anatomy = Anatomy::read(bytes)?;
        let kind = anatomy.kind()?;
        let powers = anatomy.powers(kind)?;
        Ok(Self { anatomy, digest, powers, kind, bytes: bytes.len() })
    }

    fn is_raw(&self) -> bool {
        self.powers.contains(&Power::Raw)
    }

    fn must_be(&self, wanted: Kind) -> Result<(), Problem> {
        if self.kind == wanted { Ok(()) } else { Err(Problem::OtherKind { wanted, found: self.kind }) }
    }
}

/// A checked component on its way to becoming a plugin.
pub struct Parts<'a> {
    engines: Arc<Engines>,
    checked: &'a Checked,
    slot: &'a str,
    config: String,
}

impl fmt::Debug for Parts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").field("slot", &self.slot).field("named", &self.checked.named).finish_non_exhaustive()
    }
}

/// Loads components; one in a node. Dropping it does not touch what it loaded.
pub struct PluginHost {
    engines: Arc<Engines>,
    cache: Option<Arc<dyn CodeCache>>,
    mac_key: Zeroizing<[u8; 32]>,
}

impl fmt::Debug for PluginHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PluginHost").field("cached", &self.cache.is_some()).finish_non_exhaustive()
    }
}

impl PluginHost {
    /// Makes both engines and starts the deadline thread.
    ///
    /// # Errors
    /// When the machine has no room for them.
    pub fn new(options: HostOptions) -> Result<Self, EngineError> {
        let engines = Engines::new(options.cipher_instances)?;
        Ok(Self { engines, cache: options.code_cache, mac_key: options.cache_mac_key })
    }

    /// Reads a component and lets it describe itself in the strictest world, whatever it is pinned or granted.
    ///
    /// # Errors
    /// What makes it unloadable, except settings, pin and grants. `subject` is what messages call it.
    pub fn inspect(&self, subject: &str, bytes: &[u8]) -> Result<Inspection, LoadError> {
        self.inspect_bytes(bytes).map_err(|problem| problem.about(subject))
    }

    fn inspect_bytes(&self, bytes: &[u8]) -> Result<Inspection, Problem> {
        check_size(bytes)?;
        let named = Named::read(bytes, Digest::of(bytes))?;
        let kind = named.kind;
        let component = self.compile(EngineKind::Decision, &named.digest, bytes)?;
        let raw = named.is_raw();
        let (about, describe_fuel) = match kind {
            Kind::Rotation => self.describe::<RotationWorld>(&component, kind, raw),
            Kind::Disguise => self.describe::<DisguiseWorld>(&component, kind, raw),
            Kind::Recovery => self.describe::<RecoveryWorld>(&component, kind, raw),
            Kind::Cipher => self.describe::<CipherPlanWorld>(&component, kind, raw),
        }?;
        let Named { anatomy, digest, powers, bytes, .. } = named;
        let abi = anatomy.abi().unwrap_or_default().into();
        let optional = anatomy.optional(kind);
        let exports = anatomy.exports;
        Ok(Inspection { kind, abi, powers, exports, optional, digest, bytes, about, describe_fuel })
    }

    fn describe<W: World>(&self, component: &Component, kind: Kind, raw: bool) -> Result<(About, u64), Problem> {
        Guest::<W>::new(Arc::clone(&self.engines), EngineKind::Decision, component, raw, limits::DECISION)
            .map_err(|other| Problem::OtherShape { kind, place: other.place })?
            .describe()
    }

    /// Loads a component for a slot: pin, names, kind, grants, form, then its own word on its settings.
    ///
    /// # Errors
    /// The first thing that is wrong, with its cause and its fix; nothing of the component stays.
    pub fn load<P: Plugin>(&self, request: &LoadRequest<'_>) -> Result<P, LoadError> {
        self.load_bytes(request).map_err(|problem| problem.about(request.slot))
    }

    /// A cipher's component that sealed once, to open what it sealed: neither settings nor grants count, and
    /// it seals nothing. `None` where the component has no algorithm of its own: then the host opens without it.
    ///
    /// # Errors
    /// As for [`PluginHost::load`]; `pin` is what the epoch's descriptor names.
    pub fn opening_cipher(&self, subject: &str, bytes: &[u8], pin: Digest) -> Result<Option<OpeningCipher>, LoadError> {
        self.open_only(subject, bytes, pin).map_err(|problem| problem.about(subject))
    }

    fn open_only(&self, subject: &str, bytes: &[u8], pin: Digest) -> Result<Option<OpeningCipher>, Problem> {
        check_size(bytes)?;
        let named = Named::read(bytes, check_pin(bytes, Some(pin))?)?;
        named.must_be(Kind::Cipher)?;
        if !named.is_raw() {
            return Ok(None);
        }
        let checked = self.compiled(EngineKind::Data, named, bytes)?;
        let parts =
            Parts { engines: Arc::clone(&self.engines), checked: &checked, slot: subject, config: NO_SETTINGS.into() };
        Ok(Some(OpeningCipher::of(Arc::new(Cipher::to_open(&parts)?))))
    }

    fn load_bytes<P: Plugin>(&self, request: &LoadRequest<'_>) -> Result<P, Problem> {
        check_size(request.bytes)?;
        let named = Named::read(request.bytes, check_pin(request.bytes, request.pin)?)?;
        let config = admitted::<P>(&named, request.grants, request.config)?;
        let checked = self.compiled(engine_of(P::KIND), named, request.bytes)?;
        P::assemble(Parts { engines: Arc::clone(&self.engines), checked: &checked, slot: request.slot, config })
    }

    /// Reads, validates and compiles a component once, for many loads.
    ///
    /// # Errors
    /// What makes it unloadable, except settings and grants. `subject` is what messages call it.
    pub fn check(&self, subject: &str, bytes: &[u8]) -> Result<Checked, LoadError> {
        let checked = || {
            check_size(bytes)?;
            let named = Named::read(bytes, Digest::of(bytes))?;
            self.compiled(engine_of(named.kind), named, bytes)
        };
        checked().map_err(|problem: Problem| problem.about(subject))
    }

    /// As [`PluginHost::load`], of what is checked already, pinned to just that.
    ///
    /// # Errors
    /// As for [`PluginHost::load`].
    pub fn load_checked<P: Plugin>(
        &self,
        slot: &str,
        checked: &Checked,
        grants: &[Grant],
        config: &serde_json::Value,
    ) -> Result<P, LoadError> {
        let load = || {
            let config = admitted::<P>(&checked.named, grants, config)?;
            P::assemble(Parts { engines: Arc::clone(&self.engines), checked, slot, config })
        };
        load().map_err(|problem: Problem| problem.about(slot))
    }

    fn compiled(&self, engine: EngineKind, named: Named, bytes: &[u8]) -> Result<Checked, Problem> {
        Ok(Checked { component: self.compile(engine, &named.digest, bytes)?, named })
    }

    fn compile(&self, kind: EngineKind, digest: &Digest, bytes: &[u8]) -> Result<Component, Problem> {
        let engine = self.engines.of(kind);
        let key = cache::key(digest, engine, kind);
        if let Some(component) = self.cached(&key, kind) {
            return Ok(component);
        }
        let component = Component::from_binary(engine, bytes).map_err(|_error| Problem::NoRoom { step: "compiled" })?;
        if let Some(cache) = &self.cache
            && let Ok(code) = component.serialize()
        {
            cache.put(&key, &cache::wrap(&self.mac_key, &key, &code));
        }
        Ok(component)
    }

    fn cached(&self, key: &str, kind: EngineKind) -> Option<Component> {
        let stored = self.cache.as_ref()?.get(key)?;
        let code = cache::unwrap(&self.mac_key, key, &stored)?;
        cache::revive(self.engines.of(kind), code)
    }
}

impl Parts<'_> {
    /// Links, describes and checks the settings: what is the same for every kind.
    pub(crate) fn guest<W: World>(&self, limits: CallLimits) -> Result<(Guest<W>, Facts), Problem> {
        let (guest, facts) = self.unsettled(limits)?;
        guest.check_config(&self.config)?;
        Ok((guest, facts))
    }

    /// Links and describes, whatever the settings.
    pub(crate) fn unsettled<W: World>(&self, limits: CallLimits) -> Result<(Guest<W>, Facts), Problem> {
        let Checked { component, named } = self.checked;
        let kind = named.kind;
        let guest = Guest::<W>::new(Arc::clone(&self.engines), engine_of(kind), component, named.is_raw(), limits)
            .map_err(|other| Problem::OtherShape { kind, place: other.place })?;
        let (about, _fuel) = guest.describe()?;
        let facts = Facts {
            slot: self.slot.into(),
            kind,
            digest: named.digest,
            bytes: named.bytes,
            abi: named.anatomy.abi().unwrap_or_default().into(),
            powers: named.powers.clone(),
            about,
            config: self.config.clone(),
        };
        Ok((guest, facts))
    }

    /// Whether it has an algorithm of its own.
    pub(crate) fn is_raw(&self) -> bool {
        self.checked.named.is_raw()
    }
}

/// Where plugins of a kind run.
const fn engine_of(kind: Kind) -> EngineKind {
    match kind {
        Kind::Rotation | Kind::Disguise | Kind::Recovery => EngineKind::Decision,
        Kind::Cipher => EngineKind::Data,
    }
}

/// Its settings as it gets them, where it is of the kind that is wanted and has the grants that it needs.
fn admitted<P: Plugin>(named: &Named, grants: &[Grant], config: &serde_json::Value) -> Result<String, Problem> {
    named.must_be(P::KIND)?;
    if named.is_raw() && !grants.contains(&Grant::Raw) {
        return Err(Problem::RawNotGranted);
    }
    config_text(config)
}

fn check_size(bytes: &[u8]) -> Result<(), Problem> {
    if bytes.len() > limits::COMPONENT_BYTES { Err(Problem::TooLarge { bytes: bytes.len() }) } else { Ok(()) }
}

fn check_pin(bytes: &[u8], pin: Option<Digest>) -> Result<Digest, Problem> {
    let found = Digest::of(bytes);
    match pin {
        None => Err(Problem::Unpinned { found }),
        Some(pinned) if pinned != found => Err(Problem::Altered { pinned, found }),
        Some(_) => Ok(found),
    }
}

fn config_text(config: &serde_json::Value) -> Result<String, Problem> {
    let text = match config {
        serde_json::Value::Null => NO_SETTINGS.into(),
        serde_json::Value::Object(_) => config.to_string(),
        serde_json::Value::Array(_) => return Err(Problem::ConfigForm { found: "a list" }),
        serde_json::Value::Bool(_) | serde_json::Value::Number(_) | serde_json::Value::String(_) => {
            return Err(Problem::ConfigForm { found: "a single value" });
        }
    };
    if text.len() > limits::CONFIG_BYTES { Err(Problem::ConfigForm { found: "longer than 64 KiB" }) } else { Ok(text) }
}
