//! `farseal status`: asks the node, prints one screen or JSON, once or again and again.

use std::time::Duration;

use clap::Args;

use super::failure::{Exit, Failure};
use super::{Place, say, show, show_site, wait_for};
use crate::control::api::NodeStatus;

/// How often `--watch` asks: as often as a person reads.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// ECMA-48: cursor home, erase to the end.
const CLEAR: &str = "\x1b[H\x1b[J";

/// `farseal status`.
#[derive(Debug, Args)]
pub(super) struct Status {
    /// Only this pair.
    pair: Option<String>,
    /// The node's whole answer.
    #[arg(long, conflicts_with = "watch")]
    json: bool,
    /// The whole site, through its lead: every node and every group.
    #[arg(long, conflicts_with = "pair")]
    site: bool,
    /// Again each second, until stopped.
    #[arg(long)]
    watch: bool,
}

pub(super) fn status(place: &Place, wanted: &Status) -> Result<(), Failure> {
    let client = place.client()?;
    wait_for(async {
        loop {
            if wanted.site {
                let view = client.site().await?;
                if wanted.json {
                    let text = serde_json::to_string_pretty(&view).map_err(|error| Failure::of(&error))?;
                    return say(&(text + "\n"));
                }
                let clear = if wanted.watch { CLEAR } else { "" };
                say(&format!("{clear}{}", show_site::site(&view)))?;
                if !wanted.watch {
                    return Ok(());
                }
                tokio::time::sleep(WATCH_INTERVAL).await;
                continue;
            }
            let found = only(client.status().await?, wanted.pair.as_deref())?;
            if wanted.json {
                let text = serde_json::to_string_pretty(&found).map_err(|error| Failure::of(&error))?;
                return say(&(text + "\n"));
            }
            if !wanted.watch {
                return say(&show::node(&found));
            }
            say(&format!("{CLEAR}{}", show::node(&found)))?;
            tokio::time::sleep(WATCH_INTERVAL).await;
        }
    })
}

fn only(mut status: NodeStatus, pair: Option<&str>) -> Result<NodeStatus, Failure> {
    let Some(pair) = pair else { return Ok(status) };
    status.pairs.retain(|each| each.name == pair);
    if status.pairs.is_empty() {
        return Err(Failure::new(
            Exit::Failed,
            format!("there is no pair {pair:?} here"),
            "`farseal status` lists the pairs",
        ));
    }
    Ok(status)
}
