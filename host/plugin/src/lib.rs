//! Runs components: the only crate that knows WebAssembly, and the native sealing that a cipher plans.
//!
//! # What a plugin may do
//! Answer questions. It is a WebAssembly component of one of four kinds ([`Kind`]); its imports are its whole request for
//! power, compared with its kind's world and the operator's grants before any of its code runs ([`PluginHost::load`]).
//! Every kind may log, within limits. A cipher may ask for raw key material, which needs [`Grant::Raw`] and always has an
//! authenticating layer of the host's around what it makes. There is nothing else to import: no clock, no randomness, no
//! file, no socket.
//!
//! # What a plugin sees
//! | kind | sees | never sees |
//! |---|---|---|
//! | rotation | times, counts, the pair's name, 64 bits of entropy | keys, data |
//! | disguise | lengths and times of transfers, a payload that is sealed already | keys, data, whether a key is due (in `plan`) |
//! | recovery | addresses and counts of blocks | keys, data |
//! | cipher, by plan | the shape of records | keys, data |
//! | cipher, raw | a subkey derived for it alone, the bytes of a batch | epoch keys, other volumes' bytes in the same instance |
//!
//! # What a plugin costs
//! Rotation, recovery and disguise get a fresh instance for each call (some tens of microseconds) and pay in fuel, which is
//! exact and the same on every machine; wall time is the backstop. A cipher's instance is kept by its worker
//! ([`CipherWorker`]), replaced after ten thousand calls, and is limited by wall time alone, because counting costs on the
//! data path. All sizes are in [`limits`]. Compiling takes half a second for a Rust component; [`CodeCache`] keeps the
//! result under a MAC.
//!
//! # How a plugin dies
//! A trap, a limit, an answer outside the contract's bounds or against its promises ends the call: the store is dropped
//! with everything in it, and the fault has a class and a sentence ([`CallError`]). Three faults in ten minutes put the
//! component's digest in quarantine ([`Breaker`]) until an operator releases it. A [`Slot`] answers all the same from
//! [`fallback`] and says so; only a cipher fails closed ([`CipherUnavailable`]).
//!
//! # How to test one
//! [`scenario`] plays stories from `fixtures/<kind>` to a component and writes transcripts for review; [`mod@conform`] makes
//! stories by chance and tries the contract's rules with them.
//!
//! No sockets, no disks, no clock in here: storage is behind [`CodeCache`], time is an argument. The one thread is the
//! deadline clock of the two engines.

mod about;
mod anatomy;
mod bindings;
mod breaker;
mod cache;
mod cipher;
pub mod conform;
mod contrast;
mod cost;
mod disguise;
mod engine;
pub mod fallback;
mod fault;
pub mod found;
mod host;
mod kind;
pub mod limits;
mod load_error;
mod recovery;
mod replay;
mod rotation;
pub mod scenario;
mod slot;
mod step;
mod store;
pub mod vault;
mod world;
pub mod written_last;

pub use breaker::{Breaker, BreakerState, Changed, Standing, Strike};
pub use cache::CodeCache;
pub use cipher::{Cipher, CipherWorker, OpeningCipher};
pub use contrast::{Contrast, contrast_ciphers, contrast_disguises};
pub use cost::Cost;
pub use disguise::Disguise;
pub use engine::{CipherInstances, EngineError};
pub use fault::{CallError, Called, FaultClass, LogLine, describe, diagnostic, escaped};
pub use host::{Checked, HostOptions, Inspection, LoadRequest, Plugin, PluginHost};
pub use kind::{ABI, Digest, DigestError, Grant, Kind, Power};
pub use load_error::{LoadError, Problem};
pub use recovery::{Recovery, RecoveryCall};
pub use replay::{Difference, replay_diff};
pub use rotation::{NotCarried, RotationCall, RotationPolicy};
pub use slot::{Answer, Because, By, CipherUnavailable, Slot, StoodIn};
pub use step::{Call, CallOf, StepFunction, Stepped};
pub use world::{About, Facts, StateOwner};

/// The contract's own types, as the WIT files name them.
pub mod wit {
    pub use crate::bindings::rotation_policy::farseal::plugin::{log, types};

    /// `interface rotation`.
    pub mod rotation {
        pub use crate::bindings::rotation_policy::exports::farseal::plugin::rotation::{
            Action, Context, Decided, Decision, Event, HostLimits, How, KeyInfo, KeyState, Outcome, OutcomeOfDecision,
            Rotate, Watch,
        };
    }

    /// `interface disguise`.
    pub mod disguise {
        pub use crate::bindings::key_disguise::exports::farseal::plugin::disguise::{Seen, Slot};
    }

    /// `interface recovery`.
    pub mod recovery {
        pub use crate::bindings::recovery_strategy::exports::farseal::plugin::recovery::{
            Action, Context, Decision, Event, Extent, OnAccess, Outcome, Progress, Swept,
        };
    }

    /// `interface cipher` and `interface raw-cipher`.
    pub mod cipher {
        pub use crate::bindings::cipher_plan::exports::farseal::plugin::cipher::{
            Batch, Description, Layer, Plan, RecordKind, Shape, Stack, Suite,
        };
        pub use crate::bindings::cipher_raw::exports::farseal::plugin::raw_cipher::Unit;
    }
}
