//! Verifications, as they travel between a node and its operator.

use farseal_core::flow::Rate;
use farseal_core::units::{ByteLen, Millis, WallTime};
use serde::{Deserialize, Serialize};

/// Parameters of `verify`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Verify {
    /// Of 10 000 ranges of 1 MiB so many, by chance: 1 to 10 000.
    pub sample: u16,
    /// Compare no faster than this; `None`: as fast as it goes.
    pub rate: Option<Rate>,
    /// Copy again what is found different. What this site holds counts as right.
    pub repair: bool,
    /// End the one that runs; nothing else counts then.
    pub stop: bool,
}

/// A verification that runs or has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct VerifyStatus {
    /// When it began.
    pub began: WallTime,
    /// How it ended; `None` while it runs.
    pub end: Option<VerifyEnd>,
    /// What is to be compared.
    pub planned: ByteLen,
    /// Compared so far.
    pub compared: ByteLen,
    /// Busy each time that it was looked at.
    pub skipped: ByteLen,
    /// Never copied, and not meant to be: the pair copies only what is written.
    pub unpicked: ByteLen,
    /// Bytes a second, on average.
    pub rate: ByteLen,
    /// Until everything is compared, at this rate; `None` where that cannot be said.
    pub time_left: Option<Millis>,
    /// Differs, is missing, or cannot be opened.
    pub different: ByteLen,
    /// What differs, by address; neighbours that differ in the same way are one.
    pub found: Vec<FoundStatus>,
    /// Differing extents beyond those that are listed.
    pub found_more: u64,
    /// What differs was put back into the dirty map.
    pub repaired: bool,
}

/// How a verification ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct VerifyEnd {
    /// When.
    pub at: WallTime,
    /// Why it did not come to its end; `None` if it did.
    pub early: Option<String>,
}

/// An extent that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct FoundStatus {
    /// Where it begins, in bytes.
    pub offset: ByteLen,
    /// How long it is.
    pub len: ByteLen,
    /// How it differs, in plain words.
    pub what: String,
}

impl Default for Verify {
    fn default() -> Self {
        Self { sample: farseal_core::verify::WHOLE, rate: None, repair: false, stop: false }
    }
}

impl VerifyStatus {
    /// It has not ended.
    #[must_use]
    pub fn runs(&self) -> bool {
        self.end.is_none()
    }
}
