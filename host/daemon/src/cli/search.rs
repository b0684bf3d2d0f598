//! `farseal recover search`, `search-key` and `audit`: opens the records of a copy that hold a value, and shows who asked for what

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;

use clap::Args;
use farseal_core::units::Epoch;

use super::escrow::log_end;
use super::failure::{Exit, Failure};
use super::show::line;
use super::{Place, say, understood, wait_for};
use crate::control::api::{
    AuditReport, PairCommand, RecoverCommand as Asked, SearchKeyReport, SearchParameters, SearchReport,
};
use crate::range::ByteRange;
use crate::search::audit::{Logged, What};

/// `farseal recover search`.
#[derive(Debug, Args)]
pub(super) struct Search {
    /// The pair.
    pair: String,
    /// The key field and its value: a text, a number, or for the form "raw" the bytes, also as hexadecimal digits after 0x.
    #[arg(long, value_name = "NAME=VALUE", value_parser = named, required_unless_present = "key")]
    field: Option<(String, String)>,
    /// A search key from `farseal recover search-key`, which the node reads, in the place of a field and its value.
    #[arg(long, value_name = "FILE", conflicts_with = "field")]
    key: Option<PathBuf>,
    /// Search only what these epochs sealed: as 3..7, both included. All of them unless given.
    #[arg(long, value_name = "A..B", value_parser = epochs)]
    epochs: Option<(Epoch, Epoch)>,
    /// Search only the records of which some byte lies here, in bytes of the export: as 1GiB..2GiB.
    #[arg(long, value_name = "FROM..TO", value_parser = ByteRange::from_str)]
    range: Option<ByteRange>,
    /// Have the node write the records to this file, one after the other, NOT encrypted.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
}

/// `farseal recover search-key`.
#[derive(Debug, Args)]
pub(super) struct SearchKey {
    /// The pair.
    pair: String,
    /// The key field and its value.
    #[arg(long, value_name = "NAME=VALUE", value_parser = named)]
    field: (String, String),
    /// Find it only in what these epochs sealed: as 3..7. All that are here unless given.
    #[arg(long, value_name = "A..B", value_parser = epochs)]
    epochs: Option<(Epoch, Epoch)>,
    /// Where the node writes the search key.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// `farseal recover audit`.
#[derive(Debug, Args)]
pub(super) struct Audit {
    /// The pair.
    pair: String,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn search(place: &Place, wanted: &Search) -> Result<(), Failure> {
    let (field, value) = wanted.field.clone().unwrap_or_default();
    let (from_epoch, to_epoch) = wanted.epochs.map_or((None, None), |(from, to)| (Some(from), Some(to)));
    let out = wanted.out.as_deref().map(absolute).transpose()?;
    let key = wanted.key.as_deref().map(absolute).transpose()?;
    let asked = SearchParameters { field, value, key, from_epoch, to_epoch, range: wanted.range, out: out.clone() };
    let report = ask(place, &wanted.pair, Asked::Search(asked))?;
    let text = format!("{report:#}\n");
    let report: SearchReport = understood(Some(report))?;
    say(&if wanted.json { text } else { shown(&report, &wanted.pair, out.as_deref()) })?;
    if report.compared == 0 && !report.closed.is_empty() {
        let next = "give --epochs, or a search key, of epochs whose blocks the copy holds".to_owned();
        return Err(Failure::new(Exit::Failed, "nothing was searched: no key for the copy's epochs is at hand", next));
    }
    let failed = match () {
        () if report.failed > 0 => format!("{} blocks did not open: see the node's log", report.failed),
        () if report.withheld > 0 => format!("{} records were found and not opened", report.withheld),
        () => return Ok(()),
    };
    let next = if report.failed > 0 {
        format!("`farseal scrub {}` names what is damaged", wanted.pair)
    } else {
        "the recovery strategy withholds them: see its settings and the node's log".to_owned()
    };
    Err(Failure::new(Exit::Failed, failed, next))
}

pub(super) fn search_key(place: &Place, wanted: &SearchKey) -> Result<(), Failure> {
    let (field, value) = wanted.field.clone();
    let (from_epoch, to_epoch) = wanted.epochs.map_or((None, None), |(from, to)| (Some(from), Some(to)));
    let out = absolute(&wanted.out)?;
    let asked = SearchParameters { field, value, key: None, from_epoch, to_epoch, range: None, out: Some(out.clone()) };
    let report: SearchKeyReport = understood(Some(ask(place, &wanted.pair, Asked::SearchKey(asked))?))?;
    let mut text = format!("written   to {}: whoever has it finds this value in ", out.display());
    let _ = writeln!(text, "{} epochs, and opens nothing", report.epochs.len());
    for epoch in &report.missing {
        let _ = writeln!(text, "NO KEY    of epoch {epoch} is here: left out");
    }
    say(&text)
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|error| Failure::of(&error))
}

pub(super) fn audit(place: &Place, wanted: &Audit) -> Result<(), Failure> {
    let report = ask(place, &wanted.pair, Asked::Audit)?;
    let text = format!("{report:#}\n");
    let report: AuditReport = understood(Some(report))?;
    say(&if wanted.json { text } else { logged(&report) })
}

fn ask(place: &Place, pair: &str, asked: Asked) -> Result<serde_json::Value, Failure> {
    let client = place.client()?;
    let reply = wait_for(async { Ok(client.command(pair, &PairCommand::Recover(asked)).await?) })?;
    Ok(reply.report.unwrap_or_default())
}

pub(super) fn named(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("{text:?} is not NAME=VALUE"))?;
    Ok((name.to_owned(), value.to_owned()))
}

pub(super) fn epochs(text: &str) -> Result<(Epoch, Epoch), String> {
    let bounds = text.split_once("..").and_then(|(from, to)| Some((from.parse().ok()?, to.parse().ok()?)));
    let (from, to) =
        bounds.filter(|(from, to)| from <= to).ok_or_else(|| format!("{text:?} is not A..B, as in 3..7"))?;
    Ok((Epoch(from), Epoch(to)))
}

pub(super) fn shown(report: &SearchReport, pair: &str, out: Option<&Path>) -> String {
    let mut text = String::new();
    let SearchReport { search, field, found, compared, opened, served, .. } = report;
    let _ = writeln!(text, "search    {search} for {}: {found} records found by {compared} tags", line(field));
    if report.closed_copy {
        let _ = writeln!(
            text,
            "opened    nothing: this copy is not taken over; `farseal takeover {pair}`, then search again"
        );
    } else {
        let hold = if report.by_key { "held it; what was written here since may not" } else { "hold the value" };
        let _ = writeln!(text, "opened    {opened} blocks now; {served} records are open and {hold}");
    }
    if report.withheld > 0 {
        let _ = writeln!(text, "withheld  {} records, by the recovery strategy", report.withheld);
    }
    if report.changed > 0 {
        let _ = writeln!(text, "changed   {} records were written here since and hold something else", report.changed);
    }
    if report.failed > 0 {
        let _ = writeln!(text, "DAMAGED   {} blocks did not open", report.failed);
    }
    if report.unreadable > 0 {
        let _ = writeln!(text, "UNREAD    {} blocks whose tags cannot be read", report.unreadable);
    }
    for (epoch, blocks) in &report.closed {
        let _ = writeln!(text, "NO KEY    of epoch {epoch}: its {blocks} blocks were not searched");
    }
    if report.outside > 0 {
        let _ = writeln!(text, "left out  {} blocks of other epochs", report.outside);
    }
    for record in &report.records {
        let fields: Vec<String> = record.fields.iter().map(|(name, value)| format!("{name}={}", line(value))).collect();
        let fields = if fields.is_empty() { "closed".to_owned() } else { fields.join(" ") };
        let _ = writeln!(text, "record    at {}, {} bytes: {fields}", record.offset, record.bytes);
    }
    if let Some(out) = out {
        let _ = writeln!(text, "written   to {}, NOT encrypted", out.display());
    }
    text
}

pub(super) fn logged(report: &AuditReport) -> String {
    let mut text = String::new();
    for Logged { at, search, what } in &report.lines {
        let said = match what {
            What::Asked { field, value, from_epoch, to_epoch, range } => {
                let to = if *to_epoch == Epoch(u64::MAX) { "the newest".to_owned() } else { to_epoch.to_string() };
                let range = range.as_ref().map_or_else(String::new, |range| format!(", range {}", line(range)));
                format!("asked for {}={} in epochs {from_epoch} to {to}{range}", line(field), line(value))
            }
            What::Found { records, compared } => format!("found {records} records by {compared} tags"),
            What::Opens { records } => {
                let places: Vec<String> = records.iter().map(|(first, blocks)| format!("{first}+{blocks}")).collect();
                format!("opens blocks {}", places.join(" "))
            }
            What::Ended { opened, failed } => format!("opened {opened} blocks; {failed} did not open"),
        };
        let _ = writeln!(text, "{}  search {search}  {said}", at.0);
    }
    if report.lines.is_empty() {
        text.push_str("nobody has searched this copy\n");
    }
    if report.unreadable > 0 {
        let _ = writeln!(text, "{} lines cannot be read: a crash cut them off", report.unreadable);
    }
    if !report.lines.is_empty() {
        text.push_str(&log_end(report.altered, report.end));
    }
    text
}
