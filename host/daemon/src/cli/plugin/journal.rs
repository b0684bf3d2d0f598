//! `farseal plugin journal`: what a pair's policy or strategy was asked, from the pair's folder, so that it works while the node
//! does not run.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Subcommand, ValueEnum};
use farseal_plugin::scenario::export::{self, Exported, Made, MadeBy, Told};
use farseal_plugin::{LoadRequest, Recovery, RotationPolicy};

use super::{host_for, read};
use crate::cli::failure::{Exit, Failure};
use crate::cli::{Place, say};
use crate::plugins::journal::{Newest, StepJournal};

/// `farseal plugin journal ..`.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum JournalCommand {
    /// Make a scenario of it, for `cargo xtask snapshot`: the calls that the newest component answered with its newest
    /// settings. The pair's name and what people wrote are replaced; times, counts and settings are not.
    Export(Export),
}

/// `farseal plugin journal export`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Export {
    /// The pair.
    pair: String,
    /// Whose calls.
    #[arg(value_enum, default_value_t = Journalled::Policy)]
    slot: Journalled,
    /// Only so many calls, the newest.
    #[arg(long, value_name = "CALLS")]
    last: Option<usize>,
    /// Write it there.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// A place whose plugin's calls are journalled.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Journalled {
    Policy,
    Recovery,
}

pub(super) fn journal(place: &Place, command: JournalCommand) -> Result<(), Failure> {
    match command {
        JournalCommand::Export(wanted) => export(place, &wanted),
    }
}

fn export(place: &Place, wanted: &Export) -> Result<(), Failure> {
    let (config, pair) = (place.config()?, &wanted.pair);
    if !config.pairs.iter().any(|known| known.name == *pair) {
        let message = format!("there is no pair {pair}");
        return Err(Failure::new(Exit::Failed, message, "`farseal status` lists the pairs"));
    }
    let directory = config.node.state_dir.join("pairs").join(pair);
    let (calls, exported) = match wanted.slot {
        Journalled::Policy => {
            let journal = StepJournal::of_policy(&directory).map_err(|error| Failure::of(&error))?;
            let next = "it is asked when the pair's node starts as a writer; the other site has the journal then";
            story::<RotationPolicy>(&directory, wanted, journal.newest(), next)?
        }
        Journalled::Recovery => {
            let journal = StepJournal::of_recovery(&directory).map_err(|error| Failure::of(&error))?;
            let next = "it is asked once this site has taken over from its copy";
            story::<Recovery>(&directory, wanted, journal.newest(), next)?
        }
    };
    match &wanted.out {
        None => say(&exported.yaml)?,
        Some(file) => {
            fs::write(file, &exported.yaml).map_err(|error| Failure::file(file, &error))?;
            say(&format!("{calls} calls are a story in {}\n", file.display()))?;
        }
    }
    if exported.otherwise == 0 {
        return Ok(());
    }
    let message = format!("{} calls are decided otherwise now than the journal says", exported.otherwise);
    Err(Failure::new(Exit::Differs, message, "the journal was changed, or the component breaks rule R-1: keep both"))
}

/// How many calls, and the story that they are.
fn story<P: Told>(
    directory: &Path,
    wanted: &Export,
    newest: Option<Newest<P>>,
    next: &str,
) -> Result<(usize, Exported), Failure> {
    let pair = &wanted.pair;
    let Some((digest, settings, mut entries)) = newest else {
        let message = format!("no call of a {} plugin of {pair} is journalled here", P::KIND.name());
        return Err(Failure::new(Exit::Failed, message, next));
    };
    entries.drain(..entries.len().saturating_sub(wanted.last.unwrap_or(usize::MAX)));
    let component = directory.join("components").join(format!("{digest}.wasm"));
    let bytes = read(&component)?;
    let settings = serde_json::from_str(&settings).map_err(|error| Failure::of(&error))?;
    let request = LoadRequest { slot: pair, bytes: &bytes, pin: Some(digest), grants: &[], config: &settings };
    let plugin: P = host_for(&component, &bytes, None)?.load(&request).map_err(|error| Failure::of(&error))?;
    let made: Vec<MadeBy<P>> =
        entries.into_iter().map(|entry| Made { call: entry.call, decisions: entry.decisions }).collect();
    let exported = export::export(&plugin, &made).map_err(|error| Failure::of(&error))?;
    Ok((made.len(), exported))
}
