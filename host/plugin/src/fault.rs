//! What comes of a call: an answer with its log and cost, a refusal, or a fault with its class.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::bindings::rotation_policy::farseal::plugin::log::Level;
use crate::bindings::rotation_policy::farseal::plugin::types::{Diagnostic, PluginError};

/// One line that a component logged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogLine {
    /// How much it matters.
    pub level: Level,
    /// The text, as the component gave it: escape before showing ([`LogLine::to_string`] does).
    pub message: String,
    /// Named values.
    pub fields: Vec<(String, String)>,
}

impl fmt::Display for LogLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", level_name(self.level), escaped(&self.message))?;
        self.fields.iter().try_for_each(|(key, value)| write!(f, " {}={:?}", escaped(key), value))
    }
}

/// A component's text made safe for a terminal: control characters and non-ASCII are escaped.
#[must_use]
pub fn escaped(text: &str) -> String {
    text.chars()
        .flat_map(|c| if c == ' ' || c.is_ascii_graphic() { vec![c] } else { c.escape_default().collect() })
        .collect()
}

const fn level_name(level: Level) -> &'static str {
    match level {
        Level::Trace => "trace",
        Level::Debug => "debug",
        Level::Info => "info",
        Level::Warn => "warn",
        Level::Error => "error",
    }
}

/// An answer, what was logged on the way to it, and what it cost.
#[derive(Debug, Clone, PartialEq)]
pub struct Called<T> {
    /// The answer, within the contract's bounds.
    pub value: T,
    /// At most 64 lines and 8 KiB.
    pub logs: Vec<LogLine>,
    /// Units of fuel used; 0 in the engine that does not count.
    pub fuel: u64,
}

impl<T> Called<T> {
    /// The same call with another value.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Called<U> {
        Called { value: f(self.value), logs: self.logs, fuel: self.fuel }
    }
}

/// What kind of fault a component is guilty of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultClass {
    /// The wall-clock deadline passed.
    Timeout,
    /// The instruction limit was used up.
    Fuel,
    /// More memory than allowed, or an access outside of it.
    Memory,
    /// It gave up by itself: a panic, an abort, or `plugin-error.internal`.
    Panic,
    /// The answer or a call into the host is outside the contract's form or bounds.
    Protocol,
    /// A promise of the contract about the answer's meaning is broken (lengths, round trips).
    Invariant,
}

impl fmt::Display for FaultClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Timeout => "timeout",
            Self::Fuel => "fuel",
            Self::Memory => "memory",
            Self::Panic => "panic",
            Self::Protocol => "protocol",
            Self::Invariant => "invariant",
        })
    }
}

/// Why a call has no answer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CallError {
    /// The component is at fault; it counts towards quarantine.
    #[error("{class} fault in {function}: {detail}")]
    Fault {
        /// What kind of fault.
        class: FaultClass,
        /// The function that was called.
        function: &'static str,
        /// What happened and what the author can do.
        detail: String,
        /// What was logged before.
        logs: Vec<LogLine>,
    },
    /// The component considered the call and refused it; not its fault.
    #[error("{function} was refused: {}", describe(error))]
    Refused {
        /// The function that was called.
        function: &'static str,
        /// The reason.
        error: PluginError,
        /// What was logged before.
        logs: Vec<LogLine>,
    },
    /// The caller's arguments are outside the contract; nothing was run, and the component is not at fault.
    #[error("{function} was not called: {what}")]
    Input {
        /// The function that was to be called.
        function: &'static str,
        /// Which bound is passed.
        what: &'static str,
    },
    /// All instances of the pool are in use; the component is not at fault.
    #[error("{function} was not called: all cipher instances are in use; run fewer ciphers or workers at once")]
    NoRoom {
        /// The function that was to be called.
        function: &'static str,
    },
}

impl CallError {
    /// The class, if this is a fault.
    #[must_use]
    pub const fn class(&self) -> Option<FaultClass> {
        match self {
            Self::Fault { class, .. } => Some(*class),
            Self::Refused { .. } | Self::Input { .. } | Self::NoRoom { .. } => None,
        }
    }

    /// What was logged before the end.
    #[must_use]
    pub fn logs(&self) -> &[LogLine] {
        match self {
            Self::Fault { logs, .. } | Self::Refused { logs, .. } => logs,
            Self::Input { .. } | Self::NoRoom { .. } => &[],
        }
    }
}

/// A refusal in one line.
#[must_use]
pub fn describe(error: &PluginError) -> String {
    match error {
        PluginError::InvalidConfig(found) => {
            let found: Vec<_> = found.iter().map(diagnostic).collect();
            format!("the settings are wrong: {}", found.join("; "))
        }
        PluginError::InvalidState(text) => format!("the state is not this plugin's: {}", escaped(text)),
        PluginError::Unsupported(text) => format!("not supported: {}", escaped(text)),
        PluginError::Rejected(text) => format!("rejected: {}", escaped(text)),
        PluginError::Internal(text) => format!("at fault itself: {}", escaped(text)),
    }
}

/// A diagnostic in one line.
#[must_use]
pub fn diagnostic(found: &Diagnostic) -> String {
    let path = if found.path.is_empty() { "(all)".into() } else { escaped(&found.path) };
    match &found.help {
        Some(help) => format!("{path}: {} ({})", escaped(&found.message), escaped(help)),
        None => format!("{path}: {}", escaped(&found.message)),
    }
}
