//! Branches: what a site wrote and no history has, kept sealed until an operator drops it.

use std::path::{Path, PathBuf};

use farseal_core::chain::Chain;
use farseal_core::lineage::Lineage;
use farseal_core::primary::Differing;
use farseal_core::units::{BlockCount, Generation, Sequence, WallTime};
use serde::{Deserialize, Serialize};

use crate::lane::recover::Found;
use crate::role::branches_folder;
use crate::store::{StoreError, files};

/// The description of a branch holds a few numbers.
const BRANCH_BYTES_MAX: u64 = 16 << 10;

/// What is known of a branch; kept beside its records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Branch {
    pub format: u32,
    /// The generation that wrote it.
    pub generation: Generation,
    /// The last record that the history which won has, too.
    pub fork: Sequence,
    pub fork_chain: Chain,
    pub end: Sequence,
    pub end_chain: Chain,
    /// The generation that won.
    pub won: Generation,
    /// Records above the fork that the journal still holds.
    pub records: u64,
    pub bytes: u64,
    /// When the first and the last of them were made.
    pub from: Option<WallTime>,
    pub to: Option<WallTime>,
    /// Blocks in which the volume may differ from the history that won, in whole granules.
    pub differs: BlockCount,
    /// It is known which; else that is the whole volume.
    pub known: bool,
}

/// Why a branch cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum BranchError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{path}: {source}; restore the file from a copy of the node's state directory")]
    Unreadable { path: PathBuf, source: serde_json::Error },
}

impl Branch {
    /// What a lane that ends holds above the fork; none if it wrote nothing there.
    #[must_use]
    pub fn of(found: &Found, lineage: &Lineage, generation: Generation, differing: &Differing) -> Option<Self> {
        let recovered = &found.recovered;
        let above = || recovered.unacked.iter().filter(|record| record.sequence > lineage.fork);
        if differing.map.is_empty() {
            return None;
        }
        Some(Self {
            format: 1,
            generation,
            fork: lineage.fork,
            fork_chain: lineage.fork_chain,
            end: recovered.last,
            end_chain: recovered.chain,
            won: lineage.generation,
            records: u64::try_from(above().count()).unwrap_or(u64::MAX),
            bytes: above().map(|record| record.bytes.0).sum(),
            from: above().next().map(|record| record.wall),
            to: above().next_back().map(|record| record.wall),
            differs: differing.map.owed(),
            known: differing.known,
        })
    }

    #[must_use]
    pub fn name(&self) -> String {
        format!("{}-{}", self.generation, self.fork)
    }
}

/// Makes a branch's folder, with its description.
pub fn describe(directory: &Path, branch: &Branch) -> Result<(), StoreError> {
    let place = branches_folder(directory).join(branch.name());
    files::create_private_dir(&branches_folder(directory))?;
    files::create_private_dir(&place)?;
    files::write_atomically(&place.join("branch.json"), &serde_json::to_vec_pretty(branch).unwrap_or_default())
}

/// Every branch, by name.
pub fn list(directory: &Path) -> Result<Vec<Branch>, BranchError> {
    let place = branches_folder(directory);
    let entries = match std::fs::read_dir(&place) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(StoreError::io(&place, "list the branches", source).into()),
    };
    let mut branches = Vec::new();
    for entry in entries {
        let path = entry.map_err(|source| StoreError::io(&place, "list the branches", source))?.path();
        let path = path.join("branch.json");
        if let Some(bytes) = files::read_if_there(&path, BRANCH_BYTES_MAX)? {
            branches.push(serde_json::from_slice(&bytes).map_err(|source| BranchError::Unreadable { path, source })?);
        }
    }
    branches.sort_by_key(|branch: &Branch| (branch.generation, branch.fork));
    Ok(branches)
}
