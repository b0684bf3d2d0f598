//! Plugins that are put in and taken out: what is asked for and what a swap showed.

use farseal_plugin::{Contrast, Difference, Digest};
use serde::{Deserialize, Serialize};

use super::PluginSlot;

/// Parameters of `plugin`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub enum PluginCommand {
    /// Put the one before back in its place.
    RollBack {
        /// Which place.
        slot: PluginSlot,
    },
    /// Let one that failed too often run again.
    Release {
        /// Which place.
        slot: PluginSlot,
    },
}

/// What a swap showed, whether or not it was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SwapReport {
    /// The one in force, and the one that is to be.
    pub old: Digest,
    pub new: Digest,
    /// Rules of the contract that were tried, and how often in all; none is broken.
    pub rules: u64,
    pub tries: u64,
    /// Journalled calls that both made.
    pub calls: u64,
    /// Where they decide otherwise.
    pub differences: Vec<Difference>,
    /// Of a cipher or disguise, whose calls are not journalled: what both make of the same made-up traffic.
    pub contrasts: Vec<Contrast>,
    /// It is in its place now.
    pub put: bool,
}
