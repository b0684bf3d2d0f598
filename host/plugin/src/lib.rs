//! Runs components: the only crate that knows WebAssembly.

mod about;
mod anatomy;
mod bindings;
mod breaker;
mod cache;
mod cipher;
mod disguise;
mod engine;
pub mod fallback;
mod fault;
mod host;
mod kind;
pub mod limits;
mod load_error;
mod recovery;
mod replay;
mod rotation;
pub mod scenario;
mod slot;
mod store;
pub mod vault;
mod world;

pub use breaker::{Breaker, BreakerState, Standing, Strike};
pub use cache::CodeCache;
pub use cipher::{Cipher, CipherWorker};
pub use disguise::Disguise;
pub use engine::EngineError;
pub use fault::{CallError, Called, FaultClass, LogLine, describe, diagnostic, escaped};
pub use host::{HostOptions, Inspection, LoadRequest, Plugin, PluginHost};
pub use kind::{ABI, Digest, DigestError, Grant, Kind, Power};
pub use load_error::{LoadError, Problem};
pub use recovery::Recovery;
pub use replay::{Difference, replay_diff};
pub use rotation::{RotationCall, RotationPolicy};
pub use slot::{Answer, Because, By, CipherUnavailable, Differences, Slot, SwapError, Swapped};
pub use world::{About, Facts};

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
