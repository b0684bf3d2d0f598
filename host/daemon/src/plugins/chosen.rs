//! What an operator put in a pair's places for plugins: it outlives a restart, as long as the configuration says what it
//! said then. A configuration that was changed since wins.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use farseal_plugin::{Digest, Grant};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::PluginChoice;
use crate::control::api::PluginSlot;
use crate::store::{StoreError, files};

/// Twelve settings of 64 KiB at most, escaped, and what stands around them.
const CHOSEN_BYTES_MAX: u64 = 4 << 20;

/// A component with its settings. Its bytes are kept by their digest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Put {
    pub digest: Digest,
    pub grants: Vec<Grant>,
    pub config: Value,
}

/// A place in which an operator put something.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Place {
    /// The configuration's at that time.
    pub instead_of: Put,
    pub now: Put,
    /// The one before, for a way back.
    pub before: Put,
}

/// The places of a pair in which an operator put something.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chosen {
    format: u32,
    places: BTreeMap<PluginSlot, Place>,
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ChosenError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{}: {source}; restore it, or remove it to go back to the configuration's plugins", path.display())]
    Unreadable { path: PathBuf, source: serde_json::Error },
    #[error("{}: format {found}; this version reads format 1", path.display())]
    Format { path: PathBuf, found: u32 },
}

impl Put {
    /// The configuration's; `None` where it pins no digest.
    #[must_use]
    pub fn configured(choice: &PluginChoice) -> Option<Self> {
        Some(Self { digest: choice.sha256?, grants: choice.grants.clone(), config: choice.config.clone() })
    }
}

impl Chosen {
    pub fn load(pair_directory: &Path) -> Result<Self, ChosenError> {
        let path = file(pair_directory);
        let Some(bytes) = files::read_if_there(&path, CHOSEN_BYTES_MAX)? else { return Ok(Self::default()) };
        let chosen: Self =
            serde_json::from_slice(&bytes).map_err(|source| ChosenError::Unreadable { path: path.clone(), source })?;
        if chosen.format == 1 { Ok(chosen) } else { Err(ChosenError::Format { path, found: chosen.format }) }
    }

    /// What an operator put there, if the configuration still says what it said then.
    #[must_use]
    pub fn of(&self, slot: PluginSlot, configured: &PluginChoice) -> Option<&Place> {
        let configured = Put::configured(configured)?;
        self.places.get(&slot).filter(|place| place.instead_of == configured)
    }

    /// Keeps, durably, what is in a place from now on.
    pub fn put(&mut self, pair_directory: &Path, slot: PluginSlot, place: Place) -> Result<(), StoreError> {
        let mut places = self.places.clone();
        places.insert(slot, place);
        let chosen = Self { format: 1, places };
        files::write_atomically(&file(pair_directory), &serde_json::to_vec_pretty(&chosen).unwrap_or_default())?;
        *self = chosen;
        Ok(())
    }
}

fn file(pair_directory: &Path) -> PathBuf {
    pair_directory.join("plugins.json")
}
