//! The points of a copy, as an operator sees them.

use std::fmt::Write as _;

use farseal_core::units::WallTime;

use super::{Shown, asked};
use crate::cli::failure::Failure;
use crate::cli::show::{line, size, span};
use crate::cli::{Place, say};
use crate::control::api::{PointsReport, RecoverCommand as Asked};

pub(super) fn points(place: &Place, Shown { pair, json }: &Shown) -> Result<(), Failure> {
    let (text, report) = asked::<PointsReport>(place, pair, Asked::Points)?;
    say(&if *json { text } else { shown(&report) })
}

pub(in crate::cli) fn shown(report: &PointsReport) -> String {
    let mut out = String::new();
    let ago = |at: WallTime| format!("{} ago", span(report.now.since(at)));
    let _ =
        writeln!(out, "newest    record {}, made {} by the main site's clock", report.newest, ago(report.newest_at));
    match (report.window, report.oldest_at) {
        (Some(window), Some(at)) => {
            let _ = writeln!(out, "oldest    record {}, offered {}", report.oldest, ago(at));
            let room = size(report.room);
            let _ = writeln!(out, "window    {}: every record from the oldest on; {room} of log", span(window));
        }
        (Some(window), None) => {
            let _ = writeln!(out, "window    {}: it begins when the copy is whole", span(window));
        }
        (None, _) => {
            let _ = writeln!(out, "window    none: only the newest point, and pins (`retention` of the pair)");
        }
    }
    if let Some((why, at)) = &report.shortened {
        let _ = writeln!(out, "BUT       the oldest points were given up {}: {}", ago(*at), line(why));
    }
    for (before, after) in report.catching_up.iter().rev().take(8) {
        let _ = writeln!(out, "not       records {} to {}: the copy was catching up", before.next(), after.previous());
    }
    for point in &report.named {
        let kind = if point.pinned { "pin" } else { "cut" };
        let gone = if point.kept { "" } else { "; NOT KEPT any more" };
        let _ = writeln!(out, "{kind:<10}{} at record {}, {}{gone}", point.name, point.sequence, ago(point.at));
    }
    if let Some(record) = report.tested {
        let _ = writeln!(out, "test      under way at record {record}");
    }
    out
}
