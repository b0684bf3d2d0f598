//! What strangers send and disks give back, as plain functions over bytes: each target parses or plays its input and
//! panics where a promise does not hold.
//!
//! ```text
//!   fixtures/corpus/TARGET ──▶ mutate ──▶ target ──▶ panics? ─▶ a file that repeats it
//! ```
//!
//! Three things drive a target: the test of this crate (the corpus and a fixed number of mutations of it), `cargo xtask
//! fuzz` (as long as asked), and libFuzzer (`libfuzzer/`, outside the workspace, with a nightly compiler). An input
//! that once found a bug stays in the corpus under the name of what went wrong.

pub mod campaign;

pub mod mutate;

mod script;

mod config;
mod frames;
mod journal;
mod log;
mod nbd;
mod owed;
mod primary;
mod record;
mod secondary;

/// One way in for bytes that nobody vouches for.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    pub name: &'static str,
    /// What it plays, and what must hold.
    pub purpose: &'static str,
    /// Panics where a promise does not hold.
    pub run: fn(&[u8]),
}

/// Every target.
pub const TARGETS: [Target; 8] = [
    Target {
        name: "frames",
        purpose: "bytes from a peer: what decodes encodes back to the same bytes, wherever the stream is split",
        run: frames::run,
    },
    Target {
        name: "secondary",
        purpose: "a hostile primary against the secondary's machine: acknowledged is stored, offered is a prefix, also after restarts",
        run: secondary::run,
    },
    Target {
        name: "primary",
        purpose: "a hostile secondary against the primary's machine: its invariants hold, nothing unacknowledged is trimmed",
        run: primary::run,
    },
    Target {
        name: "journal",
        purpose: "a journal segment cut, flipped and spliced: what is recovered is a prefix of what was written",
        run: journal::run,
    },
    Target {
        name: "log",
        purpose: "the remote's log cut and flipped on disk: a prefix, or a named refusal, and then it can be appended to",
        run: log::run,
    },
    Target {
        name: "nbd",
        purpose: "an initiator from its first byte: nothing outside the export, and every reply well-formed",
        run: nbd::run,
    },
    Target {
        name: "config",
        purpose: "a configuration file: valid or refused with its place, and no field that is passed over",
        run: config::run,
    },
    Target {
        name: "owed",
        purpose: "a dirty map from disk: refused, or whole and able to become empty",
        run: owed::run,
    },
];

impl Target {
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        TARGETS.into_iter().find(|target| target.name == name)
    }
}
