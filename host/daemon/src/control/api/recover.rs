//! What opening a copy would come to, as it travels between a node and its operator.

use farseal_core::group::CutName;
use farseal_core::units::{Epoch, Generation, Sequence, WallTime};
use farseal_plugin::Digest;
use serde::{Deserialize, Serialize};

use super::SearchParameters;

/// Parameters of `recover`.
///
/// A point is written as [`POINT_FORM`] says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub enum RecoverCommand {
    /// What a takeover would open, and whether all that it needs is at hand: [`RecoverPlan`]. Changes nothing.
    Plan {
        /// The point; the newest unless given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        at: Option<String>,
    },
    /// What can be gone back to: [`PointsReport`](super::PointsReport).
    Points,
    /// Keep a point, whatever the window does.
    Pin {
        /// The point.
        at: String,
        /// What to call it; the name of the cut, or of its record, unless given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<CutName>,
    },
    /// Keep it no longer than other points.
    Unpin {
        /// The pin.
        name: CutName,
    },
    /// Open a point for reading and writing beside the copy, which goes on; what is written is thrown away in the end.
    Test {
        /// The point; the newest unless given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        at: Option<String>,
    },
    /// End the test, and throw away what was written.
    EndTest,
    /// After a takeover: how far opening is, and what is known of it: [`RecoveryReport`](super::RecoveryReport). Changes nothing.
    Report,
    /// Words for the recovery strategy, at most [`WORDS_MAX`] bytes: which ones it knows, its own README says.
    Tell {
        /// The words.
        words: String,
    },
    /// Opens the records that hold a value: [`SearchReport`](super::SearchReport).
    Search(SearchParameters),
    /// Writes a search key of one value to a file, where the epochs' keys are: [`SearchKeyReport`](super::SearchKeyReport).
    SearchKey(SearchParameters),
    /// After a takeover: removes the image of what was opened as it arrived, once all of the copy is open.
    DropArrived,
    /// Who searched for what, and what was opened for it: [`AuditReport`](super::AuditReport).
    Audit,
}

/// Of [`RecoverCommand::Tell`].
pub const WORDS_MAX: usize = 1024;

/// How a point is written.
pub const POINT_FORM: &str = "a record's number, the name of a cut or a pin, a time as 2026-11-29T11:30:00Z by the main site's clock, an \
                              age as 15m-ago, or \"newest\"";

/// What a takeover would open now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RecoverPlan {
    /// When this was made.
    pub now: WallTime,
    /// The generation whose writes the copy holds.
    pub generation: Generation,
    /// The last record that would be opened, and when the main site gave the newest write up to it its place, if that is known.
    pub through: Sequence,
    pub at: Option<WallTime>,
    /// The last record that lies here without a hole before it: more than `through` while a catch-up, or a group, holds it back.
    pub held: Sequence,
    /// The running hash over the order up to `held`, in hexadecimal digits, for comparison with the main site's.
    pub chain: String,
    /// A catch-up is under way: what lies behind its gap would not be opened.
    pub catching_up: bool,
    /// The new history is not whole here: this site's own, older one would be opened.
    pub own_history: bool,
    /// The group's cut that would be opened; 0 outside a group.
    pub cut: u64,
    /// Blocks that some record holds, and each epoch that sealed some of them, oldest first.
    pub blocks: u64,
    pub epochs: Vec<PlannedEpoch>,
    /// The plugin that would say what is opened when.
    pub recovery: String,
}

/// An epoch that live blocks need.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PlannedEpoch {
    /// Its number.
    pub epoch: Epoch,
    /// Blocks that nothing but its key opens.
    pub blocks: u64,
    /// Is its key at hand?
    pub key: KeyAtHand,
    /// The component that its records need, where the host's own ciphers do not do.
    pub component: Option<Digest>,
    /// That component is here, or none is needed.
    pub component_here: bool,
}

/// Is a key at hand?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyAtHand {
    /// It was opened just now, and forgotten.
    Here,
    /// The escrow site would have to release it.
    WithEscrow,
    /// It cannot be had, for this reason.
    Missing { why: String },
}

impl RecoverPlan {
    /// Would every block open?
    #[must_use]
    pub fn opens_everything(&self) -> bool {
        self.epochs.iter().all(|epoch| epoch.key == KeyAtHand::Here && epoch.component_here)
    }
}
