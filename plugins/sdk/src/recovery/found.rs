//! What a search found: a strategy that refuses accesses says which of it may be opened

use serde::Deserialize;

use super::Extent;
use crate::Extension;

/// The extension by which the host tells of the records that an operator's search found, 16 of them at most:
/// `{"search": 3, "field": "customer", "records": [[81920, 1], [90112, 1]]}`. Those that the answer's `open` decisions cover are
/// opened; all others stay closed. The host opens nothing else while accesses are refused on a volume with a record layout.
pub const FOUND: &str = "found";

/// Records that one search found. Several such may belong to one search.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The search's number.
    pub search: u64,
    /// The key field that was asked for. Its value is not told.
    pub field: String,
    /// In the order of the volume.
    pub records: Vec<Extent>,
}

#[derive(Debug, Deserialize)]
struct Told {
    search: u64,
    field: String,
    records: Vec<(u64, u64)>,
}

impl Found {
    /// What an extension tells, if it is this one.
    #[must_use]
    pub fn of(ext: &Extension) -> Option<Self> {
        if ext.name != FOUND {
            return None;
        }
        let Told { search, field, records } = serde_json::from_str(&ext.json).ok()?;
        let records = records.into_iter().map(|(first, blocks)| Extent { first, blocks }).collect();
        Some(Self { search, field, records })
    }
}
