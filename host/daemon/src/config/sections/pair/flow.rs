//! How a pair's copying flows: what is picked, its throttles, and how its initiators are slowed down.

use farseal_core::flow::{Limits, Pacing, Rate};
use farseal_core::limits::{PACE_LONGEST, SHAPE_MAX};
use farseal_core::units::Millis;

use super::super::super::problem::ConfigError;
use super::super::super::read::Table;
use super::super::super::units::{RATE_FORM, parse_rate};
use super::span;
use crate::config::Pick;
use crate::keys::tls::LinkMode;

pub(super) fn pick(table: &mut Table<'_, '_>, primary: bool) -> Result<Pick, ConfigError> {
    let Some(field) = table.take("pick") else { return Ok(Pick::default()) };
    if !primary {
        let fix = "remove it; write it at the primary";
        return Err(field.wrong("what is copied is picked where initiators write", "pick on a primary", fix));
    }
    field.one_of(&[("used", Pick::Used), ("all", Pick::All), ("written", Pick::Written)])
}

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

pub(super) fn shape(table: &mut Table<'_, '_>) -> Result<Option<Rate>, ConfigError> {
    let Some(field) = table.take("shape") else { return Ok(None) };
    let rate = field.parsed(RATE_FORM, parse_rate)?;
    if rate.is_some_and(|rate| rate.get() > SHAPE_MAX.0) {
        let fix = "write shape = \"200MiB/s\", and spread the pair over several paths";
        return Err(field.wrong("no path is shaped to so much", "64KiB/s to 200MiB/s a path, or \"none\"", fix));
    }
    Ok(rate)
}

pub(super) fn link(table: &mut Table<'_, '_>, shape: Option<Rate>) -> Result<LinkMode, ConfigError> {
    let Some(field) = table.take("link") else { return Ok(LinkMode::Tls) };
    let mode = field.one_of(&[("tls", LinkMode::Tls), ("san", LinkMode::San)])?;
    if mode == LinkMode::San && shape.is_some() {
        let fix = "write link = \"tls\", or remove the shape";
        return Err(field.wrong(
            "the cells of a shaped path are sealed whole, which TLS does",
            "\"tls\" with a shape",
            fix,
        ));
    }
    Ok(mode)
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
