//! Seeds, as they travel between a node and its operator.

use std::path::PathBuf;

use farseal_core::units::Sequence;
use serde::{Deserialize, Serialize};

/// Parameters of `seed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub enum SeedCommand {
    /// At the primary: write the first copy to a folder instead of over the link.
    Export {
        /// An absolute path; the folder is made where it is not, and must be empty.
        to: PathBuf,
    },
    /// At the secondary: take the first copy from a folder.
    Import {
        /// An absolute path.
        from: PathBuf,
    },
    /// At the primary: the disk does not come; copy over the link.
    Abandon,
}

/// A first copy on a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SeedStatus {
    /// Of this seed and no other.
    pub id: String,
    /// Its folder at this node.
    pub directory: String,
    /// It goes up to here; `None` while it is being written.
    pub through: Option<Sequence>,
}
