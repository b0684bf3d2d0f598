//! Consistency groups: several pairs, on one node or on many, whose copies are recovered at one point (R17).
//!
//! Each pair is a lane with an order of its own. A *cut* is a place in each lane's order such that no write below it
//! depends on one above it, in whatever lane. Nobody need know what depends on what: an initiator can only act upon what
//! it was answered, so it is enough to hold *answers* back for as long as it takes to fix the place everywhere.
//!
//! ```text
//!  coordinator       lane A                lane B
//!   open c ────────▶ boundary, hold   ───▶ boundary, hold      writes go on: accepted, journalled, sent
//!          ◀──────── opened           ◀─── opened              .. and are not answered
//!   release c ─────▶ answers go out   ───▶ answers go out
//!          ◀──────── let go when told ◀─── let go when told
//!   confirm c ─────▶ record: confirmed ──▶ record: confirmed
//! ```
//!
//! A write above the cut is answered after every lane has fixed its boundary. So whatever follows from that answer, or
//! from a read that shows the write, is above the cut too. A lane that hears nothing for too long lets go by itself and
//! says so: such a cut is never confirmed, and one that is not confirmed is never offered. No clock is compared between
//! nodes.
//!
//! | file | is |
//! |---|---|
//! | `coordinator` | the writing site's side: makes cuts, one at a time |
//! | `hold` | a lane's list of what is withheld |
//! | `kept` | what a keeper of one lane has seen of its group's cuts |
//! | `common` | the keeping site's side: the greatest cut that every lane holds and one confirms |
//! | `numbers` | cut numbers that are never given twice |
//! | `taking` | a takeover that is not decided: who is asked, in which round, for which reason |

mod common;
mod coordinator;
mod hold;
mod kept;
mod numbers;
mod taking;

pub use common::{Common, CommonStatus};
pub use coordinator::{
    Command, Coordinator, Event, Input, LaneStanding, Made, Output, Phase, Refusal, Settings, Status,
};
pub use hold::Hold;
pub use kept::{HeldCut, KeptCuts, NamedCut, OfferLimit};
pub use numbers::Numbers;
pub use taking::{Next, Reason, Round, Taking};

use serde::{Deserialize, Serialize};

use crate::limits::CUT_NAME_MAX;

/// What an operator calls a cut: 1 to 42 characters of a-z, A-Z, 0-9, '.', '_' and '-'.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CutName(String);

/// Not the name of a cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a cut's name has 1 to {CUT_NAME_MAX} characters of a-z, A-Z, 0-9, '.', '_' and '-'")]
pub struct BadCutName;

impl CutName {
    pub fn new(text: &str) -> Result<Self, BadCutName> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if (1..=CUT_NAME_MAX).contains(&text.len()) && text.bytes().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(BadCutName)
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as the parts that records carry, filled with zeroes.
    pub fn parts(&self) -> impl Iterator<Item = [u8; 7]> {
        self.0.as_bytes().chunks(7).map(|chunk| {
            let mut part = [0; 7];
            part.iter_mut().zip(chunk).for_each(|(to, from)| *to = *from);
            part
        })
    }
}

impl std::fmt::Display for CutName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for CutName {
    type Error = BadCutName;

    fn try_from(text: String) -> Result<Self, BadCutName> {
        Self::new(&text)
    }
}

impl From<CutName> for String {
    fn from(name: CutName) -> Self {
        name.0
    }
}
