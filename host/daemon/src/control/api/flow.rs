//! How copying flows, as it travels between a node and its operator.

use farseal_core::flow::Transfer;
use serde::{Deserialize, Serialize};

/// How a primary's copying flows.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct FlowStatus {
    /// In which order records travel.
    pub transfer: Transfer,
    /// The path that carries records, or did last; where the transfer is ordered, the others stand by.
    pub carrier: Option<u16>,
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
