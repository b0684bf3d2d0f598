//! What an author of a Farseal plugin imports: typed settings and state, a trait for each kind, logging that works
//! in the component and in a native test, and the glue that makes a component of it.
//!
//! The contract is `wit/v0.1`; this crate is sugar around it and is never required. A plugin is a crate with
//! `crate-type = ["cdylib", "rlib"]`, an implementation of one of the traits, and one `export_*!` line:
//!
//! | kind | trait | export |
//! |---|---|---|
//! | rotation | [`rotation::Policy`] | `farseal_sdk::export_rotation!(Mine);` |
//! | disguise | [`disguise::Disguise`] | `farseal_sdk::export_disguise!(Mine);` |
//! | recovery | [`recovery::Strategy`] | `farseal_sdk::export_recovery!(Mine);` |
//! | cipher | [`cipher::Cipher`] | `farseal_sdk::export_cipher!(Mine);` |
//! | cipher-raw | [`cipher::RawCipher`] | `farseal_sdk::export_cipher_raw!(Mine);` |
//!
//! There is no clock and no randomness to call: time, entropy and seeds are arguments, so that equal arguments give
//! equal results on every machine, for ever.

pub mod asking;
pub mod bindings;
pub mod bounds;
pub mod cipher;
pub mod disguise;
pub mod log;
pub mod plugin;
pub mod recovery;
pub mod rotation;
pub mod settings;
pub mod stated;
pub mod units;

pub use bindings::farseal::plugin::types::{Diagnostic, Extension, PluginError};
pub use plugin::{About, Plugin};
pub use settings::Settings;
pub use units::{Instant, Size, Span};

#[doc(hidden)]
pub use serde_json;
