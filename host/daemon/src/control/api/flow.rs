//! How copying flows, as it travels between a node and its operator.

use farseal_core::flow::{Limits, Rate, Transfer};
use farseal_core::owed::CopyKind;
use farseal_core::units::{ByteLen, Millis};
use serde::{Deserialize, Serialize};

use super::{PauseStatus, PresetStatus};

/// How a primary's copying flows.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct FlowStatus {
    /// In which order records travel.
    pub transfer: Transfer,
    /// The path that carries records, or did last; where the transfer is ordered, the others stand by.
    pub carrier: Option<u16>,
    /// How fast copying may be, in bytes a second.
    pub limits: Limits,
    /// The journal's bytes above which initiators are slowed down.
    pub high_water: ByteLen,
    /// Bytes a second that the journal takes in, smoothed.
    pub fill_rate: ByteLen,
    /// How long until the journal is full at this rate if the remote takes nothing; `None` where nothing is written.
    pub time_left: Option<Millis>,
    /// By how much answers to writes are delayed now, in microseconds.
    pub pace_us: u64,
    /// How often the journal rose above high water since the node's start.
    pub high_waters: u64,
    /// How often it overflowed into the dirty map.
    pub overflows: u64,
    /// What is copied beside the order; `None` where nothing is.
    pub copy: Option<CopyStatus>,
    /// Whose pause it is; `None` while there is none, or where somebody else paused the pair.
    pub pause: Option<PauseStatus>,
    /// When the pair pauses by itself.
    pub presets: Vec<PresetStatus>,
}

/// A copy of what the dirty map owes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct CopyStatus {
    /// The first copy, or one after an outage.
    pub kind: CopyKind,
    /// What was owed altogether.
    pub total: ByteLen,
    /// What of it the remote has.
    pub done: ByteLen,
    /// Bytes a second, smoothed.
    pub rate: ByteLen,
    /// Until nothing is owed, at this rate; `None` while nothing is copied.
    pub time_left: Option<Millis>,
}

/// Parameters of `throttle`. What is left out stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Throttle {
    /// Everything that goes over the pair's paths.
    pub link: Option<SetRate>,
    /// Copying after an outage.
    pub resync: Option<SetRate>,
    /// The first copy, and one that an operator asked for.
    pub initial_copy: Option<SetRate>,
}

/// A throttle's new rate: `"none"`, or `{"bytes-a-second": 1048576}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SetRate {
    /// As fast as it goes.
    None,
    /// No faster than this.
    BytesASecond(Rate),
}

impl SetRate {
    /// What is in force from now on, where there is a word; else what was.
    #[must_use]
    pub fn over(this: Option<Self>, before: Option<Rate>) -> Option<Rate> {
        match this {
            None => before,
            Some(Self::None) => None,
            Some(Self::BytesASecond(rate)) => Some(rate),
        }
    }
}

/// Parameters of `transfer`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SetTransfer {
    /// From now on, and after a restart, until the configuration is given another transfer than it has now.
    pub transfer: Transfer,
    /// Connections of the link; `None`: as many as now.
    #[serde(default)]
    pub paths: Option<u16>,
}
