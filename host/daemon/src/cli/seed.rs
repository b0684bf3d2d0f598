//! `farseal seed`: the first copy of a pair on a disk.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Subcommand;

use super::failure::{Exit, Failure};
use super::{Place, operate, say, wait_for};
use crate::config::units::size_text;
use crate::control::api::{PairCommand, PairState, SeedCommand as Told};
use crate::control::client::Client;
use crate::seed::manifest::Manifest;

/// How often `--wait` asks.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// `farseal seed ..`.
#[derive(Debug, Subcommand)]
pub(super) enum SeedCommand {
    /// On the primary's node: write the first copy to a folder, sealed for the remote, while initiators go on writing.
    Export {
        /// The pair; nothing of it may have been copied yet.
        pair: String,
        /// The folder, made where it is not.
        directory: PathBuf,
        /// Come back when the seed is whole and the disk can be shipped.
        #[arg(long)]
        wait: bool,
    },
    /// Check that a seed is whole and as it was exported. Needs no key and no node.
    Verify {
        /// Its folder.
        directory: PathBuf,
    },
    /// On the secondary's node: take the first copy from a folder.
    Import {
        /// Its folder.
        directory: PathBuf,
    },
    /// On the primary's node: the disk does not come; copy over the link.
    Abandon {
        /// The pair.
        pair: String,
    },
}

pub(super) fn seed(place: &Place, command: SeedCommand) -> Result<(), Failure> {
    match command {
        SeedCommand::Verify { directory } => verify(&directory),
        SeedCommand::Export { pair, directory, wait } => {
            let client = place.client()?;
            let to = absolute(&directory)?;
            wait_for(async {
                let reply = client.command(&pair, &PairCommand::Seed(Told::Export { to })).await?;
                operate::print(&reply)?;
                if wait { until_whole(&client, &pair).await } else { Ok(()) }
            })
        }
        SeedCommand::Import { directory } => {
            let client = place.client()?;
            let from = absolute(&directory)?;
            let seed = Manifest::load(&from).map_err(|error| Failure::of(&error))?.seed;
            wait_for(async {
                let id = seed.pair.to_string();
                let pair = client.status().await?.pairs.into_iter().find(|pair| pair.id == id);
                let Some(pair) = pair else {
                    let message = format!("it is a seed of pair {} ({id}), which this node does not have", seed.name);
                    return Err(Failure::new(Exit::Refused, message, "`farseal pair accept` takes a pair up"));
                };
                operate::print(&client.command(&pair.name, &PairCommand::Seed(Told::Import { from })).await?)
            })
        }
        SeedCommand::Abandon { pair } => {
            let client = place.client()?;
            let reply = wait_for(async { Ok(client.command(&pair, &PairCommand::Seed(Told::Abandon)).await?) })?;
            operate::print(&reply)
        }
    }
}

fn verify(directory: &Path) -> Result<(), Failure> {
    let checked = Manifest::load(directory).and_then(|manifest| {
        let bytes = manifest.check(directory, |_, _| Ok(()))?;
        Ok((manifest.seed, bytes))
    });
    let (seed, bytes) = checked.map_err(|error| Failure::of(&error))?;
    let size = size_text(farseal_core::units::ByteLen(bytes));
    say(&format!(
        "a whole seed of pair {} ({}) up to record {}: {} files, {size}\n",
        farseal_plugin::escaped(&seed.name),
        seed.pair,
        seed.through,
        seed.files.len()
    ))
}

async fn until_whole(client: &Client, pair: &str) -> Result<(), Failure> {
    loop {
        let found = client.status().await?.pairs.into_iter().find(|each| each.name == pair);
        let Some(PairState::Seeding { shipped }) = found.map(|pair| pair.state) else {
            let next = format!("`farseal status {pair}`");
            return Err(Failure::new(Exit::Failed, "the export has ended without a seed", next));
        };
        if shipped {
            return say("the seed is whole: ship it\n");
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The node's own folder is another one.
fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|error| Failure::file(path, &error))
}
