//! What a search found, as the host tells a strategy that refuses accesses: the extension `found`, whose answer is what may be opened

use serde::{Deserialize, Serialize};

use crate::wit::recovery::Extent;
use crate::wit::types::Extension;

/// What the extension is called.
pub const FOUND: &str = "found";
/// The most records that it names: as many as one answer may open.
pub const SEARCH_BATCH: usize = crate::limits::OPENS;

#[derive(Debug, Serialize, Deserialize)]
struct Found {
    search: u64,
    field: String,
    records: Vec<(u64, u64)>,
}

/// So many records were found by the search with this number, for a value of this key field; the value is not told.
#[must_use]
pub fn found(search: u64, field: &str, records: &[Extent]) -> Extension {
    let records = records.iter().map(|record| (record.first, record.blocks)).collect();
    let json = serde_json::to_string(&Found { search, field: field.to_owned(), records }).unwrap_or_default();
    Extension { name: FOUND.into(), json }
}
