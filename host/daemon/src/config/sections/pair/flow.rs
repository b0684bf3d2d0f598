//! A pair's throttles, and how its initiators are slowed down.

use farseal_core::flow::{Limits, Pacing, Rate};
use farseal_core::limits::PACE_LONGEST;
use farseal_core::units::Millis;

use super::super::super::problem::ConfigError;
use super::super::super::read::Table;
use super::super::super::units::{RATE_FORM, parse_rate};
use super::span;

pub(super) fn limits(table: &mut Table<'_, '_>) -> Result<Limits, ConfigError> {
    let Some(field) = table.take("limits") else { return Ok(Limits::default()) };
    let mut table = field.table("{ link = \"100MiB/s\", resync = \"none\", initial-copy = \"none\" }")?;
    let mut rate = |key| -> Result<Option<Rate>, ConfigError> {
        table.take(key).map(|field| field.parsed(RATE_FORM, parse_rate)).transpose().map(Option::flatten)
    };
    let limits = Limits { link: rate("link")?, resync: rate("resync")?, initial_copy: rate("initial-copy")? };
    table.finish()?;
    Ok(limits)
}

pub(super) fn pacing(table: &mut Table<'_, '_>) -> Result<Pacing, ConfigError> {
    let mut pacing = Pacing::default();
    if let Some(field) = table.take("journal-high-water") {
        let form = "1 to 100, percent of journal-max";
        let percent = u8::try_from(field.integer(form)?).ok().filter(|percent| (1..=100).contains(percent));
        let fix = "write journal-high-water = 80";
        pacing.high_water_percent = percent.ok_or_else(|| field.wrong("this is no share of the journal", form, fix))?;
    }
    if let Some(field) = table.take("pace-max") {
        pacing.pace_max = span(&field, Millis(0), PACE_LONGEST)?;
    }
    Ok(pacing)
}
