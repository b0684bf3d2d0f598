//! The five worlds under one trait, and a guest: a component of one of them, ready for calls.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use wasmtime::component::{Component, HasSelf, Instance, InstancePre, Linker};
use wasmtime::{Engine, Store};

use crate::bindings::rotation_policy::farseal::plugin::types::{Diagnostic, PluginError};
use crate::bindings::{cipher_plan, cipher_raw, key_disguise, recovery_strategy, rotation_policy};
use crate::engine::{EngineKind, Engines};
use crate::fault::{CallError, Called};
use crate::kind::{Digest, Kind, Power};
use crate::limits::CallLimits;
use crate::load_error::Problem;
use crate::store::{HostState, finish, store};

/// As a component is given none.
pub(crate) const NO_SETTINGS: &str = "{}";

/// What a component says about itself (`meta.wit`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// Lower-case words joined by hyphens.
    pub name: String,
    /// Semantic version.
    pub version: String,
    /// One sentence for the operator.
    pub summary: String,
    /// Version of its state text; 0 when it keeps none.
    pub state_schema: u32,
    /// JSON Schema of its settings.
    pub config_schema: String,
    /// Extension names it understands.
    pub understands: Vec<String>,
}

/// What is known of a loaded component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// The slot it was loaded for.
    pub slot: String,
    /// Its kind.
    pub kind: Kind,
    /// SHA-256 of its bytes.
    pub digest: Digest,
    /// Its size.
    pub bytes: usize,
    /// Version of the contract it was built for, such as `0.1.0`.
    pub abi: String,
    /// What it imports.
    pub powers: Vec<Power>,
    /// What it says about itself.
    pub about: About,
    /// Its settings as it gets them: a JSON object.
    pub config: String,
}

/// Which plugin wrote a state, and in which of its forms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateOwner {
    /// Its name, by its own word.
    pub plugin: String,
    /// Its `state-schema`.
    pub schema: u32,
}

impl Facts {
    /// Whose its states are.
    #[must_use]
    pub fn owner(&self) -> StateOwner {
        StateOwner { plugin: self.about.name.clone(), schema: self.about.state_schema }
    }
}

/// One world of the contract, as generated bindings.
pub(crate) trait World: 'static {
    /// Where the exports are in a component of this world.
    type Indices: Clone + Send + Sync;
    /// The exports of one instance.
    type Exports;
    fn indices(pre: &InstancePre<HostState>) -> wasmtime::Result<Self::Indices>;
    fn exports(
        indices: &Self::Indices,
        store: &mut Store<HostState>,
        instance: &Instance,
    ) -> wasmtime::Result<Self::Exports>;
    fn describe(exports: &Self::Exports, store: &mut Store<HostState>) -> wasmtime::Result<About>;
    fn check_config(
        exports: &Self::Exports,
        store: &mut Store<HostState>,
        config: &str,
    ) -> wasmtime::Result<Vec<Diagnostic>>;
}

macro_rules! world {
    ($(#[$doc:meta])* $name:ident = $module:ident :: $exports:ident, $indices:ident) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub(crate) struct $name;

        impl World for $name {
            type Indices = $module::$indices;
            type Exports = $module::$exports;

            fn indices(pre: &InstancePre<HostState>) -> wasmtime::Result<Self::Indices> {
                $module::$indices::new(pre)
            }

            fn exports(indices: &Self::Indices, store: &mut Store<HostState>, instance: &Instance) -> wasmtime::Result<Self::Exports> {
                indices.load(store, instance)
            }

            fn describe(exports: &Self::Exports, store: &mut Store<HostState>) -> wasmtime::Result<About> {
                let about = exports.farseal_plugin_meta().call_describe(store)?;
                Ok(About {
                    name: about.name,
                    version: about.version,
                    summary: about.summary,
                    state_schema: about.state_schema,
                    config_schema: about.config_schema,
                    understands: about.understands,
                })
            }

            fn check_config(exports: &Self::Exports, store: &mut Store<HostState>, config: &str) -> wasmtime::Result<Vec<Diagnostic>> {
                exports.farseal_plugin_meta().call_check_config(store, &config.to_owned())
            }
        }
    };
}

world!(/// `world rotation-policy`.
    RotationWorld = rotation_policy::RotationPolicy, RotationPolicyIndices);
world!(/// `world key-disguise`.
    DisguiseWorld = key_disguise::KeyDisguise, KeyDisguiseIndices);
world!(/// `world recovery-strategy`.
    RecoveryWorld = recovery_strategy::RecoveryStrategy, RecoveryStrategyIndices);
world!(/// `world cipher-plan`; also the planning half of `cipher-raw`.
    CipherPlanWorld = cipher_plan::CipherPlan, CipherPlanIndices);
world!(/// `world cipher-raw`.
    CipherRawWorld = cipher_raw::CipherRaw, CipherRawIndices);

/// A component linked to exactly the powers that it has, with the exports of world `W` found.
pub(crate) struct Guest<W: World> {
    pub(crate) engines: Arc<Engines>,
    pub(crate) kind: EngineKind,
    pub(crate) pre: InstancePre<HostState>,
    pub(crate) indices: W::Indices,
    pub(crate) limits: CallLimits,
}

impl<W: World> Guest<W> {
    pub(crate) fn new(
        engines: Arc<Engines>,
        kind: EngineKind,
        component: &Component,
        raw: bool,
        limits: CallLimits,
    ) -> Result<Self, NotThisWorld> {
        let pre = linker(engines.of(kind), raw)
            .and_then(|linker| linker.instantiate_pre(component))
            .map_err(|error| NotThisWorld::at(&error))?;
        let indices = W::indices(&pre).map_err(|error| NotThisWorld::at(&error))?;
        Ok(Self { engines, kind, pre, indices, limits })
    }

    /// One call in a fresh store and instance, both gone afterwards.
    pub(crate) fn call<T>(
        &self,
        function: &'static str,
        call: impl FnOnce(&W::Exports, &mut Store<HostState>) -> wasmtime::Result<Result<T, PluginError>>,
    ) -> Result<Called<T>, CallError> {
        let mut store = store(self.engines.of(self.kind), &self.limits);
        let result = self.start(&mut store).and_then(|exports| call(&exports, &mut store));
        finish(&mut store, &self.limits, function, result)
    }

    pub(crate) fn start(&self, store: &mut Store<HostState>) -> wasmtime::Result<W::Exports> {
        let instance = self.pre.instantiate(&mut *store)?;
        W::exports(&self.indices, store, &instance)
    }

    /// `describe`, with everything the contract says about its answer checked.
    pub(crate) fn describe(&self) -> Result<(About, u64), Problem> {
        let called =
            self.call("describe", |exports, store| W::describe(exports, store).map(Ok)).map_err(died("describe"))?;
        crate::about::check(&called.value, &called.logs)?;
        Ok((called.value, called.fuel))
    }

    /// `check-config`: no complaint, or the complaints.
    pub(crate) fn check_config(&self, config: &str) -> Result<(), Problem> {
        let called = self
            .call("check-config", |exports, store| W::check_config(exports, store, config).map(Ok))
            .map_err(died("check-config"))?;
        if called.value.is_empty() {
            Ok(())
        } else {
            Err(Problem::Config { found: crate::about::capped(called.value), given: config != NO_SETTINGS })
        }
    }
}

impl<W: World> fmt::Debug for Guest<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guest").field("engine", &self.kind).field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// The names fit the world, but a function or type does not.
#[derive(Debug, Clone)]
pub(crate) struct NotThisWorld {
    /// The names that the runtime tripped over, the outermost first; empty where it names none.
    pub(crate) place: Vec<String>,
}

impl NotThisWorld {
    /// Of the runtime's own words only the names in them are kept, and only what can be a name in WIT.
    fn at(error: &wasmtime::Error) -> Self {
        let is_name = |word: &&str| {
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-:/@.".contains(&byte);
            !word.is_empty() && word.len() <= 128 && word.bytes().all(fits)
        };
        let mut place: Vec<String> = Vec::new();
        for word in format!("{error:#}").split('`').skip(1).step_by(2).filter(is_name) {
            if !place.iter().any(|known| known == word) && place.len() < 3 {
                place.push(word.to_owned());
            }
        }
        Self { place }
    }
}

pub(crate) fn died(function: &'static str) -> impl Fn(CallError) -> Problem {
    move |error| match error {
        CallError::Fault { class, detail, .. } => Problem::Died { function, class, detail },
        CallError::Refused { error: PluginError::InvalidConfig(found), .. } => {
            Problem::Config { found: crate::about::capped(found), given: true }
        }
        CallError::Refused { error, .. } => {
            Problem::BadAbout { reason: format!("{function} answers \"{}\"", crate::fault::describe(&error)) }
        }
        CallError::Input { what, .. } => Problem::ConfigForm { found: what },
        CallError::NoRoom { .. } => Problem::NoRoom { step: "started" },
    }
}

fn linker(engine: &Engine, raw: bool) -> wasmtime::Result<Linker<HostState>> {
    use rotation_policy::farseal::plugin::{log, types};
    let mut linker = Linker::new(engine);
    types::add_to_linker::<HostState, HasSelf<HostState>>(&mut linker, |state| state)?;
    log::add_to_linker::<HostState, HasSelf<HostState>>(&mut linker, |state| state)?;
    if raw {
        cipher_raw::farseal::plugin::raw::add_to_linker::<HostState, HasSelf<HostState>>(&mut linker, |state| state)?;
    }
    Ok(linker)
}
