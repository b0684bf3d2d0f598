//! `farseal branches`: what this site wrote and no history has.

use std::path::PathBuf;

use clap::Subcommand;

use super::failure::{Exit, Failure};
use super::{Place, agreed, operate, wait_for};
use crate::control::api::{BranchCommand, PairCommand};

/// `farseal branches ..`.
#[derive(Debug, Subcommand)]
pub(super) enum BranchesCommand {
    /// Name a pair's branches at this site.
    List {
        /// The pair.
        pair: String,
    },
    /// Say what is known of one: where it forked, how much it holds, when it was made.
    Show {
        /// The pair.
        pair: String,
        /// Its name, as `list` shows it.
        branch: String,
    },
    /// Open its records and write its blocks, NOT encrypted, to a folder, with a list of what is where.
    Export {
        /// The pair.
        pair: String,
        /// Its name, as `list` shows it.
        branch: String,
        /// The folder, made where it is not.
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
    },
    /// This site's history wins: it writes again, from the branch's end on. The other site is fenced off.
    Adopt {
        /// The pair.
        pair: String,
        /// Its name, as `list` shows it.
        branch: String,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
    /// Delete it, for good.
    Drop {
        /// The pair.
        pair: String,
        /// Its name, as `list` shows it.
        branch: String,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
}

pub(super) fn branches(place: &Place, command: BranchesCommand) -> Result<(), Failure> {
    let (pair, command) = match command {
        BranchesCommand::List { pair } => (pair, BranchCommand::List),
        BranchesCommand::Show { pair, branch } => (pair, BranchCommand::Show { branch }),
        BranchesCommand::Export { pair, branch, to } => {
            let to = std::path::absolute(&to).map_err(|error| Failure::file(&to, &error))?;
            (pair, BranchCommand::Export { branch, to })
        }
        BranchesCommand::Adopt { pair, branch, yes } => {
            let question = format!(
                "Adopting branch {branch} of {pair}: this site writes again, and the other one is fenced off. What it \
                 wrote since the fork is in no history then, and is kept there as a branch."
            );
            confirm(yes, &question, &format!("farseal branches adopt {pair} {branch}"))?;
            (pair, BranchCommand::Adopt { branch })
        }
        BranchesCommand::Drop { pair, branch, yes } => {
            let question = format!("Branch {branch} of {pair} is deleted: nobody else has what it holds.");
            confirm(yes, &question, &format!("farseal branches drop {pair} {branch}"))?;
            (pair, BranchCommand::Drop { branch })
        }
    };
    let client = place.client()?;
    let reply = wait_for(async { Ok(client.command(&pair, &PairCommand::Branch(command)).await?) })?;
    operate::print(&reply)
}

fn confirm(yes: bool, question: &str, command: &str) -> Result<(), Failure> {
    match if yes { Some(true) } else { agreed(question) } {
        Some(true) => Ok(()),
        Some(false) => Err(Failure::new(Exit::Refused, "nothing was done", format!("`{command}`"))),
        None => Err(Failure::new(Exit::Refused, "nobody is here to agree", format!("`{command} --yes`"))),
    }
}
