//! How far a recovery is, and all that is known of it, as an operator sees it.

use std::fmt::Write as _;

use super::{Shown, asked};
use crate::cli::failure::{Exit, Failure};
use crate::cli::show::{line, span};
use crate::cli::{Place, say};
use crate::control::api::{FailedBlocks, OpenedEpoch, RecoverCommand as Asked, RecoveryReport, SearchProgress};
use crate::recovery::account::{Beginning, Stage, Why};
use crate::recovery::times::{Span, Way};

pub(super) fn report(
    place: &Place,
    Shown { pair, json }: &Shown,
    words: fn(&RecoveryReport) -> String,
) -> Result<(), Failure> {
    let (text, report) = asked::<RecoveryReport>(place, pair, Asked::Report)?;
    say(&if *json { text } else { words(&report) })?;
    if report.failed == 0 && report.failures.is_empty() {
        return Ok(());
    }
    let next = format!(
        "`farseal recover report {pair}` says which, and why; what another site or a backup holds of them can be written over them"
    );
    Err(Failure::new(Exit::Failed, "some blocks of the copy did not open".to_owned(), next))
}

/// How far opening is.
pub(super) fn opening(report: &RecoveryReport) -> String {
    let mut out = String::new();
    let RecoveryReport { present, opened, failed, .. } = report;
    let stage = match report.stage {
        Stage::Opening => "opens blocks",
        Stage::Waiting => "waits",
        Stage::Finished => "has opened all that it is to",
        Stage::Stopped => "IS STOPPED: the image cannot be written",
    };
    let share = opened.saturating_mul(100).checked_div(*present).unwrap_or(100);
    let _ = writeln!(out, "opened    {opened} of {present} blocks, {share} %");
    let _ = writeln!(out, "strategy  {} {stage}", line(&report.recovery));
    if let Some(rate) = report.rate.filter(|_| report.stage == Stage::Opening) {
        let left = report.left.map_or(String::new(), |left| format!("; all in {}", span(left)));
        let _ = writeln!(out, "rate      {rate:.0} blocks a second{left}");
    }
    if let Some(SearchProgress { search, passed, of, found, opened }) = report.searching {
        let _ = writeln!(
            out,
            "search    {search} has passed {passed} of {of} blocks, found {found} records and opened {opened} blocks"
        );
    }
    if report.on_access > 0 {
        let _ = writeln!(out, "access    {} blocks were opened for reads since the node's start", report.on_access);
    }
    if *failed > 0 {
        let _ = writeln!(out, "FAILED    {failed} blocks did not open");
    }
    out
}

/// All that is known.
pub(super) fn told(report: &RecoveryReport) -> String {
    let mut out = String::new();
    let RecoveryReport { generation, through, .. } = report;
    let _ = writeln!(out, "recovery  generation {generation}, from record {through} of the other site's history on");
    if let Some(beginning) = &report.beginning {
        let ago = |at| span(report.now.since(at));
        let _ = writeln!(out, "began     {} ago", ago(beginning.at));
        if let Some(evidence) = &report.evidence {
            let _ = writeln!(
                out,
                "witness   {} had not heard the other site for {}, nor had this one for {}: its signed statement is kept",
                line(&evidence.witness),
                span(evidence.unheard),
                span(evidence.silence)
            );
        }
        if let Some(point) = beginning.point {
            let _ = writeln!(out, "point     record {point}, as an operator chose: what came after it is left out");
        }
        let _ = writeln!(out, "hash      {} up to record {}", line(&beginning.chain), beginning.held);
        let _ = writeln!(out, "{}", lost(report.planned, beginning));
        if beginning.catching_up {
            let _ = writeln!(
                out,
                "not       the records behind the gap of a catch-up that was under way, up to {}",
                beginning.held
            );
        }
        if beginning.cut.0 > 0 {
            let _ = writeln!(out, "cut       {} of its group", beginning.cut);
        }
    }
    out += &opening(report);
    for OpenedEpoch { epoch, blocks, opened } in &report.epochs {
        let times = report.times.epochs.iter().find(|(of, _)| of == epoch);
        let times = times.map(|(_, times)| format!("; opened {}", when(report, times))).unwrap_or_default();
        let _ = writeln!(out, "epoch     {epoch}: {opened} of {blocks} blocks are open or overwritten{times}");
    }
    if let Some((path, bytes)) = &report.arrived {
        let path = line(&path.display().to_string());
        let _ = writeln!(
            out,
            "arrived   {path} stays, {bytes} bytes: `farseal recover drop-arrived` removes it when all is open"
        );
    }
    for (way, times) in &report.times.ways {
        let way = match way {
            Way::Access => "accesses",
            Way::Sweep => "the sweep",
            Way::Search => "searches",
        };
        let _ = writeln!(out, "opened    {} blocks by {way}, {}", times.blocks, when(report, times));
    }
    for FailedBlocks { first, blocks, sequence, epoch, why } in &report.failures {
        let last = first.0 + blocks.saturating_sub(1);
        let why = match why {
            Why::NotAuthentic => "is NOT what was sealed: altered, or moved from another place",
            Why::NoKey => "needs a key that is not here",
            Why::Unreadable => "could not be read from the log",
        };
        let epoch = epoch.map_or_else(|| "no known epoch".to_owned(), |epoch| format!("epoch {epoch}"));
        let _ = writeln!(out, "failed    blocks {first} to {last}: record {sequence} of {epoch} {why}");
    }
    out
}

/// The first and the last time.
fn when(report: &RecoveryReport, times: &Span) -> String {
    format!("from {} to {} ago", span(report.now.since(times.first)), span(report.now.since(times.last)))
}

/// What the other site can have written that is not here.
fn lost(planned: bool, beginning: &Beginning) -> String {
    if planned {
        return "lost      nothing: the other site handed over".to_owned();
    }
    let since = beginning.written.map_or_else(
        || "what the other site wrote after that record".to_owned(),
        |written| {
            let window = span(beginning.at.since(written));
            format!("what the other site wrote after that record, in the {window} before the takeover by both clocks")
        },
    );
    format!("lost      nothing up to record {}; {since}, and keeps as a branch when it rejoins", beginning.through)
}
