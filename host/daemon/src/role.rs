//! What this node is for a pair now, whatever it was configured as: one small file, replaced as a whole.
//!
//! ```text
//!   configured as primary ──▶ Writer ──rejoin, handed over──▶ Keeper ──takeover, handed over to──▶ Writer ──▶ ..
//!   configured as secondary ─────────────────────────────────▶ Keeper        (adopt: Keeper ──▶ Writer)
//! ```
//!
//! | in the pair's folder | what |
//! |---|---|
//! | `control.json` | this file: generation, where its history comes from, which folder counts |
//! | `journal`, `epochs`, `lane.json`, `owed.map` | the lane of a site that began as primary |
//! | `log`, `index`, `points`, `epochs` | the copy of a site that began as secondary |
//! | `copy-seed-ID/` | the same, where the copy began with a seed |
//! | `opened/opened.image` | the volume of a site that began as secondary, unless `opened/image.place` names another place; a primary's is where it was configured |
//! | `generation-N/` | the lane of a later generation, and which blocks of its copy are in the image (`opened.map`) |
//! | `copy-N/` | the copy of generation N at a site that wrote before: log, index, epochs, `differs.map` |
//! | `plugins.json`, `breaker.json`, `components/` | what an operator put in the plugins' places, strikes, every component by its digest |
//! | `keys.journal`, `policy.json` | beside a lane: what became of each epoch, the policy's state |
//! | `retired.json` | up to which epoch keys are destroyed, and what was signed for it |
//! | `policy.journal`, `policy.journal.old` | what the policy was asked and answered |
//! | `branches/G-F/` | what a lane of generation G wrote above F and no history has: its journal, epochs and dirty map |
//!
//! Each site has one image of the volume for all its life. A keeper's image is its base and is not written; a writer
//! over a copy moves the copy's blocks into the image as they are needed, and is a plain writer once all are there.

use std::path::{Path, PathBuf};

use farseal_core::chain::Chain;
use farseal_core::lineage::Lineage;
use farseal_core::units::{Epoch, Generation, Sequence};
use serde::{Deserialize, Serialize};

use crate::store::{StoreError, files};

/// The file of a pair holds a few numbers and names.
const CONTROL_BYTES_MAX: u64 = 16 << 10;

/// The pair's control information at this site. Where it says nothing, the configuration says how the pair began.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Control {
    pub generation: Generation,
    /// Where this site took over from the copy that it kept, if it did.
    pub taken_over_at: Option<Sequence>,
    /// The volume was opened as it was at this point, before [`Self::taken_over_at`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opened_at: Option<Sequence>,
    /// Where the history of this generation comes from; none for a pair's first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lineage: Option<Lineage>,
    /// The takeover was planned: the other site holds all of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub planned: bool,
    /// The copy that this site keeps, or has taken over, after it was a writer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keeps: Option<Keeps>,
    /// The lane of a site that writes over its image alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writes: Option<Writes>,
    /// No epoch up to here is given again.
    #[serde(default, skip_serializing_if = "is_none")]
    pub epoch_floor: Epoch,
    /// The copy's folder, below the pair's, where it began with a seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy: Option<String>,
    /// The seed that was imported here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seeded: Option<String>,
}

/// Where the branches of a pair lie, below its folder.
#[must_use]
pub fn branches_folder(directory: &Path) -> PathBuf {
    directory.join("branches")
}

/// Is any branch kept there, whatever state it is in?
#[must_use]
pub fn keeps_branches(directory: &Path) -> bool {
    std::fs::read_dir(branches_folder(directory)).is_ok_and(|mut found| found.next().is_some())
}

/// A copy and what lies under it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keeps {
    /// Below the pair's folder.
    pub folder: String,
    /// The end of the history that this site wrote itself: what the image holds.
    pub base_generation: Generation,
    pub base: Sequence,
    pub base_chain: Chain,
    /// The image is not a state of the history that is kept: the end of a branch.
    pub differs: bool,
    /// The branch, if anything was lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// The folder of the lane that ended, below the pair's; what belongs to the branch moves there.
    pub ended: String,
}

/// A lane of its own folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Writes {
    /// Below the pair's folder.
    pub folder: String,
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{path}: {source}; restore the file from a copy of the node's state directory")]
    Unreadable { path: PathBuf, source: serde_json::Error },
}

/// What a site does for a pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It writes over its image; the lane is in this folder.
    Writer { lane: PathBuf },
    /// It keeps a copy in this folder, or has taken it over.
    Keeper { copy: PathBuf },
}

impl Control {
    /// A site that writes over its image alone, with a lane of its own folder below the pair's, and keeps nothing.
    pub fn writing(lineage: Lineage, folder: String, epoch_floor: Epoch) -> Self {
        Self {
            generation: lineage.generation,
            lineage: Some(lineage),
            writes: Some(Writes { folder }),
            epoch_floor,
            ..Self::default()
        }
    }

    /// A new pair has no file.
    pub fn load(directory: &Path) -> Result<Self, ControlError> {
        let path = directory.join("control.json");
        match files::read_if_there(&path, CONTROL_BYTES_MAX)? {
            Some(bytes) => serde_json::from_slice(&bytes).map_err(|source| ControlError::Unreadable { path, source }),
            None => Ok(Self::default()),
        }
    }

    pub fn save(&self, directory: &Path) -> Result<(), StoreError> {
        let text = serde_json::to_vec_pretty(self).unwrap_or_default();
        files::write_atomically(&directory.join("control.json"), &text)
    }

    /// `directory`: the pair's folder. `primary`: it was configured as such.
    pub fn standing(&self, directory: &Path, primary: bool) -> Standing {
        match (&self.writes, &self.keeps) {
            (Some(writes), _) => Standing::Writer { lane: directory.join(&writes.folder) },
            (None, Some(keeps)) => Standing::Keeper { copy: directory.join(&keeps.folder) },
            (None, None) if primary => Standing::Writer { lane: directory.to_owned() },
            (None, None) => {
                let copy = self.copy.as_ref().map_or_else(|| directory.to_owned(), |folder| directory.join(folder));
                Standing::Keeper { copy }
            }
        }
    }

    /// The history that this site writes or keeps.
    pub fn history(&self) -> Lineage {
        self.lineage.unwrap_or(Lineage::FIRST)
    }
}

/// The folder, below the pair's, of a lane that a later generation began with.
pub fn lane_folder(generation: Generation) -> String {
    format!("generation-{generation}")
}

/// The folder, below the pair's, of the copy of a generation at a site that wrote before.
pub fn copy_folder(generation: Generation) -> String {
    format!("copy-{generation}")
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_none(epoch: &Epoch) -> bool {
    *epoch == Epoch::NONE
}
