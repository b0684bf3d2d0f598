//! The witness rule of a pair: for how long nobody may have heard the main site before the copy's keeper takes over by itself.

use farseal_core::limits::{WITNESS_SILENCE_MAX, WITNESS_SILENCE_MIN};
use farseal_core::units::Millis;

use super::super::super::problem::ConfigError;
use super::super::super::read::Table;
use super::span;

/// The pair's escrow is the witness.
pub(super) fn silence(table: &mut Table<'_, '_>, has_escrow: bool) -> Result<Option<Millis>, ConfigError> {
    let form = "a duration as \"10m\", or \"none\"";
    let Some(field) = table.take("witness-silence") else { return Ok(None) };
    if field.text(form)?.trim() == "none" {
        return Ok(None);
    }
    if !has_escrow {
        return Err(field.wrong(
            "no witness is named, and a takeover is never by silence alone",
            "witness-silence beside escrow = \"NAME\"",
            "add escrow = \"NAME\", which is the witness, or write witness-silence = \"none\"",
        ));
    }
    span(&field, WITNESS_SILENCE_MIN, WITNESS_SILENCE_MAX).map(Some)
}
