//! `farseal recover`: which points of the copy there are, what opening one would come to, trying it before it must be, and what
//! came of it.

mod opened;
mod points;

use std::fmt::Write as _;

use clap::{Args, Subcommand};
use farseal_core::group::CutName;

use super::failure::{Exit, Failure};
use super::operate::{Told, carry_out};
use super::search::{self, Audit, Search, SearchKey};
use super::show::{line, span};
use super::{Place, say, understood, wait_for};
use crate::control::api::{KeyAtHand, POINT_FORM, PairCommand, PlannedEpoch, RecoverCommand as Asked, RecoverPlan};

#[cfg(test)]
pub(super) use self::points::shown as shown_points;

/// `farseal recover ..`.
#[derive(Debug, Subcommand)]
pub(super) enum RecoverCommand {
    /// At the remote: what a takeover would open, up to which record and time, and which keys and components it needs. Changes nothing.
    #[command(after_help = "Exit codes: 0 every block would open; 1 some would not; else as every command.")]
    Plan {
        #[command(flatten)]
        shown: Shown,
        /// At an earlier point: `farseal recover points` shows them.
        #[arg(long, value_name = "POINT")]
        at: Option<String>,
    },
    /// At the remote: what can be gone back to.
    #[command(after_help = POINT_FORM)]
    Points(Shown),
    /// At the remote: keep a point until `unpin`, whatever the window does.
    #[command(after_help = POINT_FORM)]
    Pin {
        /// The pair.
        pair: String,
        /// The point.
        point: String,
        /// What to call it.
        #[arg(long, value_parser = CutName::new)]
        name: Option<CutName>,
    },
    /// At the remote: keep a point no longer than others.
    Unpin {
        /// The pair.
        pair: String,
        /// What the pin is called.
        #[arg(value_parser = CutName::new)]
        name: CutName,
    },
    /// At the remote: a point as an NBD export to read and write, while copying goes on; what is written is thrown away.
    #[command(after_help = POINT_FORM)]
    Test {
        /// The pair.
        pair: String,
        /// At an earlier point than the newest.
        #[arg(long, value_name = "POINT")]
        at: Option<String>,
        /// The test is over.
        #[arg(long, conflicts_with = "at")]
        end: bool,
    },
    /// After a takeover: how far opening is, how fast it goes, and what did not open
    Status(Shown),
    /// After a takeover: all that is known of it, as evidence: what was opened, from which epochs, what failed, what cannot have been lost
    #[command(after_help = "Exit codes: 0 no block failed; 1 some did; else as every command.")]
    Report(Shown),
    /// At the remote: finds the records whose key field has a value, by tags alone; after a takeover it opens just those. Each search is in the audit log.
    #[command(after_help = "Exit codes: 0 what was found is open; 1 some of it is not; else as every command.")]
    Search(Search),
    /// Where the keys are: writes a key that finds one value of one field in chosen epochs, and opens nothing, to a file.
    SearchKey(SearchKey),
    /// After a takeover, once all is open: remove the image of what was opened as it arrived.
    DropArrived {
        /// The pair.
        pair: String,
    },
    /// Who searched for what, and what was opened for it.
    Audit(Audit),
    /// After a takeover: say something to the recovery strategy, such as "pause", "resume" or "rate 20000"; its README says what it knows
    Tell {
        /// The pair.
        pair: String,
        /// What it is told.
        #[arg(required = true)]
        words: Vec<String>,
    },
}

/// What is shown.
#[derive(Debug, Args)]
pub(super) struct Shown {
    /// The pair.
    pair: String,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn recover(place: &Place, command: RecoverCommand) -> Result<(), Failure> {
    let (pair, asked) = match command {
        RecoverCommand::Plan { shown, at } => return plan(place, &shown, at),
        RecoverCommand::Points(shown) => return points::points(place, &shown),
        RecoverCommand::Status(shown) => return opened::report(place, &shown, opened::opening),
        RecoverCommand::Report(shown) => return opened::report(place, &shown, opened::told),
        RecoverCommand::Search(wanted) => return search::search(place, &wanted),
        RecoverCommand::SearchKey(wanted) => return search::search_key(place, &wanted),
        RecoverCommand::Audit(wanted) => return search::audit(place, &wanted),
        RecoverCommand::Pin { pair, point, name } => (pair, Asked::Pin { at: point, name }),
        RecoverCommand::DropArrived { pair } => (pair, Asked::DropArrived),
        RecoverCommand::Unpin { pair, name } => (pair, Asked::Unpin { name }),
        RecoverCommand::Test { pair, at: _, end: true } => (pair, Asked::EndTest),
        RecoverCommand::Test { pair, at, end: false } => (pair, Asked::Test { at }),
        RecoverCommand::Tell { pair, words } => (pair, Asked::Tell { words: words.join(" ") }),
    };
    carry_out(place, &Told::Pair(pair, PairCommand::Recover(asked)))
}

/// What the node answers, as its text and as what it means.
fn asked<T: serde::de::DeserializeOwned>(place: &Place, pair: &str, what: Asked) -> Result<(String, T), Failure> {
    let client = place.client()?;
    let reply = wait_for(async { Ok(client.command(pair, &PairCommand::Recover(what)).await?) })?;
    let report = reply.report.unwrap_or_default();
    Ok((format!("{report:#}\n"), understood(Some(report))?))
}

fn plan(place: &Place, Shown { pair, json }: &Shown, at: Option<String>) -> Result<(), Failure> {
    let (text, plan) = asked::<RecoverPlan>(place, pair, Asked::Plan { at })?;
    say(&if *json { text } else { shown(&plan) })?;
    if plan.opens_everything() {
        return Ok(());
    }
    let closed: u64 = plan.epochs.iter().filter(|epoch| !opens(epoch)).map(|epoch| epoch.blocks).sum();
    let with_escrow = plan.epochs.iter().any(|epoch| epoch.key == KeyAtHand::WithEscrow);
    let next = if with_escrow {
        format!("`farseal escrow request {pair} --reason ..` asks the escrow site for the keys")
    } else {
        "bring the missing files back from a copy of the node's state directory".to_owned()
    };
    Err(Failure::new(Exit::Failed, format!("{closed} of {} blocks would not open", plan.blocks), next))
}

fn opens(epoch: &PlannedEpoch) -> bool {
    epoch.key == KeyAtHand::Here && epoch.component_here
}

pub(super) fn shown(plan: &RecoverPlan) -> String {
    let mut out = String::new();
    let at = plan.at.map(|at| format!(", written {} ago by the main site's clock", span(plan.now.since(at))));
    let _ = writeln!(
        out,
        "opens     up to record {} of generation {}{}",
        plan.through,
        plan.generation,
        at.unwrap_or_default()
    );
    if plan.held > plan.through {
        let why = if plan.catching_up { "a catch-up is under way" } else { "its group is not so far" };
        let _ = writeln!(out, "not       the records up to {} that lie here: {why}", plan.held);
    }
    if plan.own_history {
        let _ = writeln!(
            out,
            "BUT       the other site's newer history is not whole here: this site's own, older one is opened"
        );
    }
    if plan.cut > 0 {
        let _ = writeln!(out, "cut       {} of its group", plan.cut);
    }
    let _ = writeln!(out, "hash      {} up to record {}", line(&plan.chain), plan.held);
    let _ = writeln!(out, "blocks    {} hold data; {} says what is opened when", plan.blocks, line(&plan.recovery));
    for PlannedEpoch { epoch, blocks, key, component, component_here } in &plan.epochs {
        let key = match key {
            KeyAtHand::Here => "its key opens here".to_owned(),
            KeyAtHand::WithEscrow => "ITS KEY IS WITH THE ESCROW SITE ALONE".to_owned(),
            KeyAtHand::Missing { why } => format!("ITS KEY IS MISSING: {}", line(why)),
        };
        let component = component.map(|digest| {
            let standing = if *component_here { "is here" } else { "IS MISSING" };
            format!("; its cipher {} {standing}", digest.short())
        });
        let _ = writeln!(out, "epoch     {epoch}, {blocks} blocks: {key}{}", component.unwrap_or_default());
    }
    out
}
