//! What was written last, as a strategy asks for it and the host answers: the extension `written-last` of recovery strategies

use serde::{Deserialize, Serialize};

use crate::wit::types::Extension;

/// What the extension is called.
pub const WRITTEN_LAST: &str = "written-last";
/// The most parts that an answer names.
pub const WRITTEN_LAST_PARTS: usize = 1024;
/// The most blocks of a part: what one decision may open.
const PART_BLOCKS_MAX: u64 = 65_536;

#[derive(Debug, Serialize, Deserialize)]
struct Parts {
    blocks: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    firsts: Vec<u64>,
}

/// How many blocks the parts have that a strategy asks for; `None`: it asks for something else, or for parts that there are not.
#[must_use]
pub fn asked(ext: &Extension) -> Option<u64> {
    if ext.name != WRITTEN_LAST {
        return None;
    }
    let Parts { blocks, .. } = serde_json::from_str(&ext.json).ok()?;
    (1..=PART_BLOCKS_MAX).contains(&blocks).then_some(blocks)
}

/// The answer: the parts that begin at these blocks, the one with the newest record first.
#[must_use]
pub fn answer(blocks: u64, firsts: Vec<u64>) -> Extension {
    let json = serde_json::to_string(&Parts { blocks, firsts }).unwrap_or_default();
    Extension { name: WRITTEN_LAST.into(), json }
}
