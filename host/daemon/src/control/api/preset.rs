//! Presets and pauses, as they travel between a node and its operator.

use farseal_core::preset::Preset;
use farseal_core::units::WallTime;
use serde::{Deserialize, Serialize};

/// Parameters of `preset-add`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct AddPreset {
    /// What it is called, once in a pair.
    pub name: String,
    /// When it pauses the pair. An interval counts from now, whatever it says.
    pub preset: Preset,
}

/// Parameters of `preset-remove`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RemovePreset {
    /// Which.
    pub name: String,
}

/// A preset of a pair.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PresetStatus {
    /// What it is called.
    pub name: String,
    /// When it pauses the pair.
    pub preset: Preset,
    /// Its window is open.
    pub holds: bool,
    /// When that changes.
    pub until: Option<WallTime>,
}

/// Whose pause it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PauseStatus {
    /// A preset, an operator, or the name that was given with the pause.
    pub by: String,
    /// Since when.
    pub since: WallTime,
    /// When it ends by itself; `None`: when the preset's window does, or when somebody resumes.
    pub until: Option<WallTime>,
}
