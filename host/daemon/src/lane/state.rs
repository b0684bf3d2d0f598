//! What a lane remembers across restarts beside its journal: one small file, replaced as a whole.

use std::path::{Path, PathBuf};

use farseal_core::chain::Chain;
use farseal_core::flow::{Limits, Way};
use farseal_core::frame::HandOver;
use farseal_core::primary::Mode;
use farseal_core::units::{Epoch, Generation, Sequence};
use serde::{Deserialize, Serialize};

use crate::store::{StoreError, files};

/// Marks that are allowed to be old: each is a lower bound.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LaneState {
    pub format: u32,
    /// The secondary is known to hold everything up to here.
    pub acked: Sequence,
    pub acked_chain: Chain,
    /// Home holds everything up to here, durably.
    pub homed: Sequence,
    /// The operator paused the transfer.
    pub paused: bool,
    /// The mode that an operator chose, and the configuration's at that time: another one there takes its place.
    #[serde(default)]
    pub chosen: Option<ChosenMode>,
    /// Over what the operator has records go, as [`LaneState::chosen`].
    #[serde(default)]
    pub way: Option<Instead<Way>>,
    /// How fast the operator lets copying be, as [`LaneState::chosen`].
    #[serde(default)]
    pub limits: Option<Instead<Limits>>,
    /// The other site has taken over, as this generation: nothing is written here any more.
    #[serde(default)]
    pub fenced: Option<Generation>,
    /// This site hands over to the other, which alone knows whether it took over: nothing is written here until it says.
    #[serde(default)]
    pub handing_over: Option<HandOver>,
    /// The first copy travels on a disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<Seed>,
    /// The record that this lane goes on after, and the running hash there; none for a pair's first lane.
    #[serde(default)]
    pub start: Sequence,
    #[serde(default = "chain_start")]
    pub start_chain: Chain,
    /// No epoch up to here is given again: the lanes before this one used them.
    #[serde(default)]
    pub epoch_floor: Epoch,
}

fn chain_start() -> Chain {
    Chain::START
}

/// A first copy on a disk: see [`crate::seed`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seed {
    /// Of this seed and no other.
    pub id: String,
    /// Its folder here.
    pub directory: PathBuf,
    /// What it goes up to, once the export has ended: the secondary is not served before it has that much.
    #[serde(default)]
    pub shipped: Option<Sequence>,
}

/// See [`LaneState::chosen`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChosenMode {
    pub mode: Mode,
    pub instead_of: Mode,
}

/// What an operator chose, and what the configuration said at that time: another word there takes its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Instead<T> {
    pub chosen: T,
    pub instead_of: T,
}

/// Has the pair in this folder begun? Then its volume and what it has promised are somewhere.
#[must_use]
pub fn began(directory: &Path) -> bool {
    ["control.json", "lane.json", "journal"].iter().any(|name| directory.join(name).exists())
}

impl<T: Copy + PartialEq> Instead<T> {
    /// The choice, if the configuration still says what it said then.
    pub fn of(this: Option<Self>, configured: T) -> Option<T> {
        this.filter(|this| this.instead_of == configured).map(|this| this.chosen)
    }
}

/// A file that holds more is not ours.
const STATE_BYTES_MAX: u64 = 64 << 10;
/// A bit for each 64 KiB of the largest volume.
const OWED_BYTES_MAX: u64 = 1 << 33;

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{path}: {source}; restore it from a copy; do not remove it: it says whether this site may write")]
    Unreadable { path: PathBuf, source: serde_json::Error },
    #[error("{path}: format {found}; this version reads format 1")]
    Format { path: PathBuf, found: u32 },
}

impl Default for LaneState {
    fn default() -> Self {
        Self {
            format: 1,
            acked: Sequence::NONE,
            acked_chain: Chain::START,
            homed: Sequence::NONE,
            paused: false,
            fenced: None,
            chosen: None,
            way: None,
            limits: None,
            handing_over: None,
            seed: None,
            start: Sequence::NONE,
            start_chain: Chain::START,
            epoch_floor: Epoch::NONE,
        }
    }
}

impl LaneState {
    /// A lane that goes on after a record that both sites hold, or whose difference a dirty map owes.
    #[must_use]
    pub fn beginning(start: Sequence, chain: Chain, epoch_floor: Epoch) -> Self {
        Self {
            acked: start,
            acked_chain: chain,
            homed: start,
            start,
            start_chain: chain,
            epoch_floor,
            ..Self::default()
        }
    }

    /// Has a lane begun here?
    pub fn exists(directory: &Path) -> bool {
        directory.join("lane.json").exists()
    }

    pub fn load(directory: &Path) -> Result<Self, StateError> {
        let path = directory.join("lane.json");
        let Some(bytes) = files::read_if_there(&path, STATE_BYTES_MAX)? else { return Ok(Self::default()) };
        let state: Self =
            serde_json::from_slice(&bytes).map_err(|source| StateError::Unreadable { path: path.clone(), source })?;
        if state.format == 1 { Ok(state) } else { Err(StateError::Format { path, found: state.format }) }
    }

    pub fn save(&self, directory: &Path) -> Result<(), StoreError> {
        let text = serde_json::to_vec_pretty(self).unwrap_or_default();
        files::write_atomically(&directory.join("lane.json"), &text)
    }
}

pub fn save_owed(directory: &Path, map: &[u8]) -> Result<(), StoreError> {
    files::write_atomically(&owed_path(directory), map)
}

pub fn load_owed(directory: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    files::read_if_there(&owed_path(directory), OWED_BYTES_MAX)
}

pub fn drop_owed(directory: &Path) -> Result<(), StoreError> {
    files::remove_durably(&owed_path(directory))
}

fn owed_path(directory: &Path) -> PathBuf {
    directory.join("owed.map")
}
