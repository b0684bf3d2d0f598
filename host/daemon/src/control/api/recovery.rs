//! What is known of a recovery, as it travels between a node and its operator.

use std::path::PathBuf;

use farseal_core::units::{Epoch, Generation, Lba, Millis, Sequence, WallTime};
use serde::{Deserialize, Serialize};

use super::SearchProgress;
use crate::node::witness::Evidence;
use crate::recovery::account::{Beginning, Stage, Why};
use crate::recovery::times::Times;

/// What is known of a recovery.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RecoveryReport {
    /// When this was made.
    pub now: WallTime,
    /// The generation that this site writes as.
    pub generation: Generation,
    /// The other site handed over: nothing was lost.
    pub planned: bool,
    /// The last record of the copy that is opened.
    pub through: Sequence,
    /// What was known at the takeover; not of one by an earlier version.
    pub beginning: Option<Beginning>,
    /// The witness's statement on which this site took over by itself, where it did.
    pub evidence: Option<Evidence>,
    /// The strategy's name, and what it is at.
    pub recovery: String,
    pub stage: Stage,
    /// Blocks that hold data, those of them that are open or overwritten, and those that did not open when they were tried last.
    pub present: u64,
    pub opened: u64,
    pub failed: u64,
    /// Blocks that initiators' reads had opened since the node's start.
    pub on_access: u64,
    /// Blocks a second of the sweep lately, and when everything would be open at that rate.
    pub rate: Option<f64>,
    pub left: Option<Millis>,
    /// How far the search is that runs now.
    pub searching: Option<SearchProgress>,
    /// The image of what was opened as it arrived, where it is still there, and the bytes that it takes.
    pub arrived: Option<(PathBuf, u64)>,
    /// When it was opened: the first and the last block of each epoch, and by sweep, accesses and searches. What a crash took is missing.
    pub times: Times,
    /// Every epoch that sealed some of the blocks, oldest first.
    pub epochs: Vec<OpenedEpoch>,
    /// Runs of blocks that did not open, at most 1024.
    pub failures: Vec<FailedBlocks>,
}

/// An epoch of a recovery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct OpenedEpoch {
    /// Its number; 0 for blocks of which no key record says it.
    pub epoch: Epoch,
    /// Blocks that it sealed, and those of them that are open or overwritten.
    pub blocks: u64,
    pub opened: u64,
}

/// Blocks that did not open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct FailedBlocks {
    pub first: Lba,
    pub blocks: u64,
    /// The record that holds them, and its epoch.
    pub sequence: Sequence,
    pub epoch: Option<Epoch>,
    pub why: Why,
}
