//! Searches of a copy, as they travel between a node and its operator.

use std::collections::BTreeMap;
use std::path::PathBuf;

use farseal_core::units::Epoch;
use serde::{Deserialize, Serialize};

use crate::chained::LineHash;
use crate::range::ByteRange;
use crate::search::audit::Logged;

/// Parameters of a search.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SearchParameters {
    /// The key field's name, and its value as an operator types it; empty where a search key says what is looked for.
    pub field: String,
    pub value: String,
    /// A file with a search key, which the node reads.
    pub key: Option<PathBuf>,
    /// The first and the last epoch to search; all of them unless given.
    pub from_epoch: Option<Epoch>,
    pub to_epoch: Option<Epoch>,
    /// The records of which some byte lies here; all of the volume unless given. Not for search keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<ByteRange>,
    /// Where the node writes the records, one after the other, or the search key: a file that is not there yet.
    pub out: Option<PathBuf>,
}

/// What came of a search.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SearchReport {
    /// Its number, as in the audit log.
    pub search: u64,
    pub field: String,
    /// Tags that were compared, and records whose tag says that they hold the value.
    pub compared: u64,
    pub found: u64,
    /// The copy is not taken over: nothing was opened, and what was found is named by its place alone.
    pub closed_copy: bool,
    /// Blocks that this search opened, and blocks that did not open.
    pub opened: u64,
    pub failed: u64,
    /// Blocks on which a key was used meanwhile, by whomever.
    pub units: u64,
    /// Records that the recovery strategy did not let this search open.
    pub withheld: u64,
    /// Records that were found and hold another value by now, because they were written here since.
    pub changed: u64,
    /// Records that are open and hold the value; by a search key, whoever gave it knows the value, and not whether what was written
    /// here since still holds it.
    pub served: u64,
    /// By a search key alone: nobody here knows the value.
    #[serde(default)]
    pub by_key: bool,
    /// Blocks of epochs whose key is not here, by epoch; of epochs that were not to be searched; and blocks that cannot be read.
    pub closed: Vec<(Epoch, u64)>,
    pub outside: u64,
    pub unreadable: u64,
    /// The first of those that are served; of a copy that is not taken over, of those that were found.
    pub records: Vec<FoundRecord>,
}

/// A search key that was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SearchKeyReport {
    /// The epochs that it finds the value in.
    pub epochs: Vec<Epoch>,
    /// Epochs that were asked for and whose key is not here.
    pub missing: Vec<Epoch>,
}

/// A record that a search found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct FoundRecord {
    /// Where it lies in the export, in bytes.
    pub offset: u64,
    pub bytes: u64,
    /// Its key fields by name, as an operator types them; none of a closed record.
    pub fields: BTreeMap<String, String>,
}

/// The audit log of a pair's searches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct AuditReport {
    /// The newest lines, oldest of them first.
    pub lines: Vec<Logged>,
    /// Lines that a crash cut off.
    pub unreadable: u64,
    /// Lines that do not follow on the one before them: something was changed, taken out or put in there.
    pub altered: u64,
    /// SHA-256 of the last line. A log that ends otherwise than one wrote down, and does not hold that line, lacks its end.
    pub end: LineHash,
}

/// How far a search is that runs now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SearchProgress {
    /// Its number, as in the audit log.
    pub search: u64,
    /// Blocks of the volume that it has passed, of so many.
    pub passed: u64,
    pub of: u64,
    /// Records that it found, and blocks that it opened.
    pub found: u64,
    pub opened: u64,
}
