//! Why a component is not loaded: each cause with its number, its reason and its fix, in words for an operator.
//!
//! Numbers are stable; a message never shows the runtime's own text.

use std::fmt;

use crate::bindings::rotation_policy::farseal::plugin::types::Diagnostic;
use crate::fault::{FaultClass, diagnostic, escaped};
use crate::kind::{ABI, Digest, Kind};
use crate::limits;

/// A component was not loaded.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadError {
    /// The slot or file that the component was meant for.
    pub subject: String,
    /// What is wrong.
    pub problem: Problem,
}

/// What is wrong with a component.
#[derive(Debug, Clone, PartialEq)]
pub enum Problem {
    /// E01: the bytes are no WebAssembly at all.
    NotWasm,
    /// E02: a core module that was never made a component.
    CoreModule,
    /// E03: a component whose bytes are damaged or use what the host does not run.
    Malformed {
        /// Where, in bytes from the start.
        offset: u64,
        /// What the validator found.
        reason: String,
    },
    /// E04: larger than any component may be.
    TooLarge {
        /// Its size in bytes.
        bytes: usize,
    },
    /// E05: nobody said which bytes to trust.
    Unpinned {
        /// What the bytes are.
        found: Digest,
    },
    /// E06: not the bytes that were pinned.
    Altered {
        /// What was pinned.
        pinned: Digest,
        /// What the bytes are.
        found: Digest,
    },
    /// E10: exports none of the kinds.
    NoKind {
        /// What it exports.
        exports: Vec<String>,
    },
    /// E11: imports WASI.
    Wasi {
        /// The first such import.
        first: String,
        /// How many more there are.
        more: usize,
        /// The component's kind.
        kind: Kind,
    },
    /// E12: made for a version of the contract that this host does not speak.
    OtherVersion {
        /// The import or export that shows it.
        name: String,
    },
    /// E13: of another kind than the slot.
    OtherKind {
        /// The slot's kind.
        wanted: Kind,
        /// The component's kind.
        found: Kind,
    },
    /// E14: imports something that its world does not have.
    ForeignImport {
        /// The import.
        name: String,
        /// The component's kind.
        kind: Kind,
    },
    /// E15: wants raw key material without the operator's grant.
    RawNotGranted,
    /// E16: an interface of its world is not exported.
    MissingExport {
        /// The component's kind.
        kind: Kind,
        /// The interface.
        interface: &'static str,
    },
    /// E17: carries another component with code of its own.
    NestedCode,
    /// E18: the interfaces are there, but a function or type in one is not the contract's.
    OtherShape {
        /// The component's kind.
        kind: Kind,
        /// Names that it was found at, the outermost first.
        place: Vec<String>,
    },
    /// E19: exports two kinds at once.
    TwoKinds {
        /// One.
        first: Kind,
        /// The other.
        second: Kind,
    },
    /// E20: `describe` or `check-config` died.
    Died {
        /// The function.
        function: &'static str,
        /// How.
        class: FaultClass,
        /// What happened.
        detail: String,
    },
    /// E21: `describe` gives something that breaks the contract.
    BadAbout {
        /// What.
        reason: String,
    },
    /// E22: the settings are wrong.
    Config {
        /// What is wrong, as the component says.
        found: Vec<Diagnostic>,
        /// It was given any: otherwise what it refuses may be its own defaults.
        given: bool,
    },
    /// E23: the settings are no JSON object, or too long.
    ConfigForm {
        /// What they are.
        found: &'static str,
    },
    /// E24: a cipher's stacks break the contract.
    BadStacks {
        /// What.
        reason: String,
    },
    /// E30: valid, but this machine cannot make native code of it or start it.
    NoRoom {
        /// `compiled` or `started`.
        step: &'static str,
    },
}

impl Problem {
    /// The stable number of the message.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NotWasm => "E01",
            Self::CoreModule => "E02",
            Self::Malformed { .. } => "E03",
            Self::TooLarge { .. } => "E04",
            Self::Unpinned { .. } => "E05",
            Self::Altered { .. } => "E06",
            Self::NoKind { .. } => "E10",
            Self::Wasi { .. } => "E11",
            Self::OtherVersion { .. } => "E12",
            Self::OtherKind { .. } => "E13",
            Self::ForeignImport { .. } => "E14",
            Self::RawNotGranted => "E15",
            Self::MissingExport { .. } => "E16",
            Self::NestedCode => "E17",
            Self::OtherShape { .. } => "E18",
            Self::TwoKinds { .. } => "E19",
            Self::Died { .. } => "E20",
            Self::BadAbout { .. } => "E21",
            Self::Config { .. } => "E22",
            Self::ConfigForm { .. } => "E23",
            Self::BadStacks { .. } => "E24",
            Self::NoRoom { .. } => "E30",
        }
    }

    /// The error about a named slot or file.
    pub(crate) fn about(self, subject: &str) -> LoadError {
        LoadError { subject: subject.into(), problem: self }
    }

    /// What is wrong, why it may have come about, and what to do.
    fn words(&self) -> Words {
        match self {
            Self::NotWasm => words("is not WebAssembly", None, "give the .wasm file that `cargo xtask plugins` writes to target/plugins"),
            Self::CoreModule => words(
                "is a core module, not a component",
                Some("cargo's own output for wasm32-unknown-unknown is only the first half".into()),
                "build with `cargo xtask plugins`, or run `wasm-tools component new` on it; wasm-bindgen output will not work",
            ),
            Self::Malformed { offset, reason } => words(
                format!("is damaged or uses what this host does not run: {} (byte {offset})", escaped(reason)),
                Some("allowed is finished WebAssembly without threads, 64-bit memory, garbage collection and relaxed SIMD".into()),
                "build it again, or fetch it again and compare its SHA-256",
            ),
            Self::TooLarge { bytes } => words(
                format!("is {} MiB; the limit is {} MiB", bytes.div_ceil(1 << 20), limits::COMPONENT_BYTES >> 20),
                None,
                "strip debug sections, or split what it does",
            ),
            Self::Unpinned { found } => words(
                "is not pinned",
                Some("only bytes that an operator named are run".into()),
                format!("if you trust this file, add sha256 = \"{found}\" to the slot"),
            ),
            Self::Altered { pinned, found } => words(
                "is not the component that was pinned",
                Some(format!("pinned {pinned}, found {found}")),
                "restore the pinned file, or inspect the new one and pin its SHA-256",
            ),
            Self::NoKind { exports } => words(
                format!("exports no kind of plugin, only {}", list(exports)),
                is_program(exports).then(|| "it is a program with a `main`, as cargo builds for wasm32-wasip2".into()),
                if is_program(exports) {
                    "a plugin is a library for wasm32-unknown-unknown: `cargo xtask new-plugin` writes one that works"
                } else {
                    "export one of farseal:plugin/rotation, disguise, recovery or cipher, and farseal:plugin/meta"
                },
            ),
            Self::Wasi { first, more, kind } => words(
                format!("imports {}{}; the {kind} world has no WASI", escaped(first), and_more(*more)),
                Some("it was built for wasm32-wasip1 or wasm32-wasip2, or by a toolchain that brings WASI along".into()),
                "build for wasm32-unknown-unknown; for Python add --stub-wasi; for JavaScript disable all features",
            ),
            Self::OtherVersion { name } => words(
                format!("uses {}; this host speaks {ABI} ({ABI}.0 and later {ABI}.x, no pre-releases)", escaped(name)),
                None,
                format!("build it against wit/v{ABI}, or run a host that speaks its version"),
            ),
            Self::OtherKind { wanted, found } => words(
                format!("is a {found} plugin; this slot takes a {wanted} plugin"),
                None,
                format!("name it in the {} setting, or give this slot a {wanted} plugin", setting(*found)),
            ),
            Self::ForeignImport { name, kind } => words(
                format!("imports {}, which the {kind} world does not have", escaped(name)),
                Some("a component gets power only through its imports, and this one is not on offer".into()),
                "remove the import; time and randomness come as arguments",
            ),
            Self::RawNotGranted => words(
                "wants raw key material (farseal:plugin/raw), which this slot does not grant",
                Some("a cipher of its own sees derived keys and the blocks themselves".into()),
                "add grants = [\"raw\"] to the slot if you trust it with that, or use a cipher that only plans",
            ),
            Self::MissingExport { kind, interface } => words(
                format!("is a {kind} plugin that does not export farseal:plugin/{interface}"),
                None,
                format!("export it; the world is in wit/v{ABI}/worlds.wit"),
            ),
            Self::NestedCode => words(
                "carries another component with code of its own",
                Some("what the inner component does cannot be told apart from the outer one's".into()),
                "build one component from one core module; do not compose",
            ),
            Self::OtherShape { kind, place } => words(
                format!("has the names of the {kind} world, but a function or type behind one of them is not the contract's{}", found_at(place)),
                Some("it was built from an edited copy of the WIT files".into()),
                format!("build it against wit/v{ABI} as published"),
            ),
            Self::TwoKinds { first, second } => words(
                format!("is a {first} and a {second} plugin at once"),
                Some("a component has one world, so that its powers can be judged".into()),
                "make two components of it",
            ),
            Self::Died { function, class, detail } => {
                words(format!("died in {function} ({class}): {detail}"), None, "this is for the plugin's author: neither call may fail")
            }
            Self::BadAbout { reason } => {
                words(format!("describes itself outside the contract: {reason}"), None, format!("see wit/v{ABI}/meta.wit; this is for the plugin's author"))
            }
            Self::Config { found, given } => {
                let found = found.iter().map(diagnostic).collect::<Vec<_>>().join("; ");
                if *given {
                    words(format!("refuses its settings: {found}"), None, "correct the plugin's config; `farseal plugin inspect` prints what it takes")
                } else {
                    words(
                        format!("refuses to go without settings: {found}"),
                        None,
                        "give what it names in the plugin's config; where `farseal plugin inspect` prints a default for it, it refuses its own default, \
                         and this is for the plugin's author",
                    )
                }
            }
            Self::ConfigForm { found } => {
                words(format!("was given settings that are {found}"), None, "settings are a table (a JSON object) of at most 64 KiB")
            }
            Self::BadStacks { reason } => {
                words(format!("describes stacks outside the contract: {reason}"), None, format!("see wit/v{ABI}/cipher.wit; this is for the plugin's author"))
            }
            Self::NoRoom { step } => words(
                format!("is valid but cannot be {step} here"),
                Some("memory or address space is used up, or it needs more instances and tables than one plugin may have".into()),
                "run fewer ciphers at once, raise the process's memory limit, or make the plugin smaller",
            ),
        }
    }
}

struct Words {
    what: String,
    why: Option<String>,
    help: String,
}

fn words(what: impl Into<String>, why: Option<String>, help: impl Into<String>) -> Words {
    Words { what: what.into(), why, help: help.into() }
}

/// What a pair's configuration calls the place for a kind.
const fn setting(kind: Kind) -> &'static str {
    match kind {
        Kind::Rotation => "policy",
        Kind::Disguise => "disguise",
        Kind::Recovery => "recovery",
        Kind::Cipher => "cipher",
    }
}

fn found_at(place: &[String]) -> String {
    if place.is_empty() { String::new() } else { format!(" (found at {})", escaped(&place.join(", "))) }
}

/// What a toolchain makes of a program for WASI.
fn is_program(exports: &[String]) -> bool {
    exports.iter().any(|name| name.starts_with("wasi:cli/run@"))
}

fn and_more(more: usize) -> String {
    if more == 0 { String::new() } else { format!(" (and {more} more)") }
}

fn list(names: &[String]) -> String {
    match names {
        [] => "nothing".into(),
        [first, rest @ ..] => format!("{}{}", escaped(first), and_more(rest.len())),
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Words { what, why, help } = self.problem.words();
        write!(f, "error[{}]: {} {what}", self.problem.code(), escaped(&self.subject))?;
        if let Some(why) = why {
            write!(f, "\n  why:  {why}")?;
        }
        write!(f, "\n  help: {help}")
    }
}

impl std::error::Error for LoadError {}
