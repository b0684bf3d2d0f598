//! For how long earlier points of the copy are kept, and in how much room.

use farseal_core::limits::{RETENTION_BYTES_MIN, RETENTION_LONGEST};
use farseal_core::points::Terms;
use farseal_core::units::{ByteLen, Millis};

use super::super::super::problem::ConfigError;
use super::super::super::read::Table;
use super::{size_within, span};

/// The shortest window: what a minute holds is not worth an index of its own.
const SHORTEST: Millis = Millis(1_000);

pub(super) fn terms(table: &mut Table<'_, '_>) -> Result<Option<Terms>, ConfigError> {
    let none = |text: &str| text.trim() == "none";
    let form = "a duration as \"24h\", or \"none\"";
    let window = match table.take("retention") {
        Some(field) if !none(field.text(form)?) => Some(span(&field, SHORTEST, RETENTION_LONGEST)?),
        Some(_) | None => None,
    };
    let form = "a size as \"200GiB\", or \"none\"";
    let field = match table.take("retention-size") {
        Some(field) if !none(field.text(form)?) => field,
        Some(_) | None => return Ok(window.map(|span| Terms { span, size: None })),
    };
    let size = size_within(&field, RETENTION_BYTES_MIN, ByteLen(1 << 60), "write retention-size = \"200GiB\"")?;
    match window {
        Some(span) => Ok(Some(Terms { span, size: Some(size) })),
        None => Err(field.wrong(
            "there is no window whose size it could limit",
            "retention-size beside retention",
            "add retention = \"24h\", or remove this line",
        )),
    }
}
