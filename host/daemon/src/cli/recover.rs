//! `farseal recover`: what opening the copy would come to, before it is opened.

use std::fmt::Write as _;

use clap::{Args, Subcommand};

use super::failure::{Exit, Failure};
use super::show::{line, span};
use super::{Place, say, understood, wait_for};
use crate::control::api::{KeyAtHand, PairCommand, PlannedEpoch, RecoverCommand as Asked, RecoverPlan};

/// `farseal recover ..`.
#[derive(Debug, Subcommand)]
pub(super) enum RecoverCommand {
    /// At the remote: what a takeover would open now, up to which record and time, and which keys and components it needs. Changes nothing.
    #[command(after_help = "Exit codes: 0 every block would open; 1 some would not; else as every command.")]
    Plan(Shown),
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

pub(super) fn recover(place: &Place, command: &RecoverCommand) -> Result<(), Failure> {
    let RecoverCommand::Plan(Shown { pair, json }) = command;
    let client = place.client()?;
    let reply = wait_for(async { Ok(client.command(pair, &PairCommand::Recover(Asked::Plan)).await?) })?;
    let report = reply.report.unwrap_or_default();
    let text = format!("{report:#}\n");
    let plan: RecoverPlan = understood(Some(report))?;
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
