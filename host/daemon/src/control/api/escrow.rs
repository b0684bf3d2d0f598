//! Escrow sites, as they travel between a node and its operator.

use farseal_core::units::{Epoch, Sequence, WallTime};
use serde::{Deserialize, Serialize};

use crate::chained::LineHash;
use crate::escrow::mark::Freshness;
use crate::escrow::shares::ShareText;

/// Parameters of `escrow`: at the site that keeps a copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub enum EscrowCommand {
    /// Ask a person at the escrow for the keys that are not here.
    Request {
        /// Why, for that person; one line of at most 256 bytes.
        reason: String,
        /// Not the keys: what finds one value, and the opening of what it finds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        search: Option<EscrowSearch>,
    },
    /// Get the keys of the request that was approved.
    Fetch {
        /// Until somebody has said yes or no.
        #[serde(default)]
        wait: bool,
    },
}

/// A search that is asked for at the escrow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct EscrowSearch {
    /// The key field's name, and its value as an operator types it.
    pub field: String,
    pub value: String,
    /// The first and the last epoch to search; all of the copy's unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epochs: Option<(Epoch, Epoch)>,
}

/// What the escrow's operator says to a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct EscrowAnswer {
    /// Its number.
    pub request: u64,
    /// Yes or no.
    pub approve: bool,
    /// For the log.
    #[serde(default)]
    pub note: String,
    /// The texts of people's shares, where the escrow's key is shared out.
    #[serde(default)]
    pub shares: Vec<ShareText>,
    /// The copy that asks is known to be stale, and its keys are to be released all the same.
    #[serde(default)]
    pub although_stale: bool,
}

/// An escrow site, as its operator sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct EscrowView {
    /// When this was made.
    pub now: WallTime,
    /// That are held.
    pub keys: u64,
    /// That are admitted.
    pub sites: Vec<String>,
    /// How many people have to come together for an approval; 0 where the key is at the node.
    pub shares_needed: u8,
    /// Oldest first.
    pub requests: Vec<EscrowRequest>,
    /// The newest lines of the audit log: when, who, what.
    pub log: Vec<(WallTime, String, String)>,
    /// Lines of the audit log, all that there are, that do not follow on the one before them.
    pub log_altered: u64,
    /// SHA-256 of its last line.
    pub log_end: LineHash,
}

/// Keys that a site asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct EscrowRequest {
    /// Its number.
    pub id: u64,
    /// When it came.
    pub at: WallTime,
    /// What the asking site calls itself.
    pub site: String,
    /// Of the asking site's card, in hexadecimal.
    pub fingerprint: String,
    /// The pair's id in hexadecimal.
    pub pair: String,
    /// How many keys.
    pub keys: u64,
    /// Of the first and the last of them.
    pub epochs: (Epoch, Epoch),
    /// How far the copy goes that they are to open, and what is known here of its age.
    pub through: Sequence,
    pub freshness: Freshness,
    /// Not the keys, but what finds this value in their epochs, and the opening of what it finds.
    pub search: Option<EscrowSearched>,
    /// As the asking site says.
    pub reason: String,
    /// How it stands.
    pub state: EscrowRequestState,
    /// All of its keys were fetched.
    pub fetched: bool,
}

/// What a search at the escrow looks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct EscrowSearched {
    pub field: String,
    /// As the escrow reads it in what it was asked.
    pub value: String,
    /// Blocks of a record: as many are opened around each that holds the value.
    pub record_blocks: u32,
}

/// How a request stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EscrowRequestState {
    /// For a yes or a no.
    Waiting,
    /// The site may fetch.
    Approved,
    /// It may not.
    Denied,
    /// It might have, and the time is over.
    Expired,
}

/// A pair's line to its escrow site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct EscrowLineStatus {
    /// What the configuration calls the escrow.
    pub escrow: String,
    /// Who can open the copy: "escrow" or "both".
    pub holders: String,
    /// Is the line up?
    pub up: bool,
    /// Why it is not.
    pub trouble: Option<String>,
    /// How far the escrow was told that the copy is durable; none while it was not told of the newest.
    pub marked: Option<Sequence>,
    /// Keys without a receipt, of all pairs of the line.
    pub waiting: u64,
    /// At the site that keeps the copy: keys that only the escrow has.
    pub missing: u64,
}
