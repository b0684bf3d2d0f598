//! The points of a copy, as they travel between a node and its operator.

use farseal_core::group::CutName;
use farseal_core::units::{ByteLen, Millis, Sequence, WallTime};
use serde::{Deserialize, Serialize};

/// What can be gone back to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PointsReport {
    /// When this was made.
    pub now: WallTime,
    /// How long each point is kept unless it is pinned; `None`: only the newest is.
    pub window: Option<Millis>,
    /// From the oldest point of the window to the newest each record at which the copy was consistent is a point.
    pub oldest: Sequence,
    /// When the oldest was offered, by this site's clock; `None` where only the newest is kept.
    pub oldest_at: Option<WallTime>,
    /// The newest point.
    pub newest: Sequence,
    /// When the main site made it, by its clock.
    pub newest_at: WallTime,
    /// What the log takes from the oldest point on.
    pub room: ByteLen,
    /// Why the window is shorter than it was to be, and since when.
    pub shortened: Option<(String, WallTime)>,
    /// Spans of records at which the copy was catching up, and no point: the point before, the point after.
    pub catching_up: Vec<(Sequence, Sequence)>,
    /// Cuts that were named, and pins, in the order of their records.
    pub named: Vec<NamedPoint>,
    /// The record at which a test is under way.
    pub tested: Option<Sequence>,
}

/// A point with a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct NamedPoint {
    /// Its name.
    pub name: CutName,
    /// Its record.
    pub sequence: Sequence,
    /// A cut: when the main site made it. A pin: when it was pinned.
    pub at: WallTime,
    /// It stays until somebody lets it go.
    pub pinned: bool,
    /// It can still be gone back to.
    pub kept: bool,
}
