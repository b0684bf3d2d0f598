//! `farseal verify`: compares a pair's volume with its copy, and says where they differ.

use std::io::IsTerminal as _;
use std::time::Duration;

use clap::Args;
use farseal_core::flow::Rate;
use farseal_core::verify::WHOLE;

use super::failure::{Exit, Failure};
use super::{Place, operate, say, show, wait_for};
use crate::config::units::{RATE_FORM, parse_rate};
use crate::control::api::{PairCommand, Verify as Parameters, VerifyStatus};
use crate::control::client::Client;

/// How often it asks how far the verification is.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// `farseal verify`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 nothing differs; 5 something does; else as every command. What was busy each time \
                        that it was looked at is skipped and counted. Interrupting this command does not end the \
                        verification: --stop does."
)]
pub(super) struct Verify {
    /// The pair.
    pair: String,
    /// Compare only a part, chosen by chance: as 1%.
    #[arg(long, value_name = "PERCENT", value_parser = sample)]
    sample: Option<u16>,
    /// Compare no faster than this: as 50MiB/s.
    #[arg(long, value_name = "RATE", value_parser = rate)]
    rate: Option<Rate>,
    /// Copy again what differs, at the end. What this site holds counts as right: look at what differs first.
    #[arg(long)]
    repair: bool,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
    /// End the verification that runs.
    #[arg(long, conflicts_with_all = ["sample", "rate", "repair", "json"])]
    stop: bool,
}

pub(super) fn verify(place: &Place, wanted: &Verify) -> Result<(), Failure> {
    let client = place.client()?;
    let Verify { sample, rate, repair, stop, .. } = *wanted;
    let parameters = Parameters { sample: sample.unwrap_or(WHOLE), rate, repair, stop };
    let command = PairCommand::Verify(parameters);
    wait_for(async {
        let reply = client.command(&wanted.pair, &command).await?;
        if stop {
            return operate::print(&reply);
        }
        let found = until_end(&client, &wanted.pair).await?;
        if wanted.json {
            let text = serde_json::to_string_pretty(&found).map_err(|error| Failure::of(&error))?;
            say(&(text + "\n"))?;
        } else {
            say(&show::verified(&found))?;
        }
        judged(&wanted.pair, &found)
    })
}

async fn until_end(client: &Client, pair: &str) -> Result<VerifyStatus, Failure> {
    let mut shown = String::new();
    loop {
        let status = client.status().await?;
        let verify = status.pairs.into_iter().find(|each| each.name == pair).and_then(|pair| pair.verify);
        let Some(verify) = verify else {
            let next = format!("`farseal status {pair}`");
            return Err(Failure::new(Exit::Failed, "this node is not the pair's primary any more", next));
        };
        let text = show::verify(&verify);
        if std::io::stderr().is_terminal() && text != shown {
            eprint!("\r\x1b[K{text}");
            shown = text;
        }
        if !verify.runs() {
            if !shown.is_empty() {
                eprintln!();
            }
            return Ok(verify);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn judged(pair: &str, found: &VerifyStatus) -> Result<(), Failure> {
    if found.different.0 > 0 {
        let next = if found.repaired {
            format!("what differs is copied again; when `farseal status {pair}` says copying, verify again")
        } else {
            format!("find out which side is right; `farseal verify {pair} --repair` copies this site's content again")
        };
        return Err(Failure::new(Exit::Differs, "the copy differs", next));
    }
    match found.end.as_ref().and_then(|end| end.early.as_ref()) {
        Some(why) => Err(Failure::new(Exit::Failed, format!("not everything was verified: {why}"), "verify again")),
        None => Ok(()),
    }
}

/// Percent, to two digits behind the point.
fn sample(text: &str) -> Result<u16, String> {
    let wrong = || "a share of 0.01% to 100%, as 1%".to_owned();
    let number = text.strip_suffix('%').ok_or_else(wrong)?;
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || whole.len() > 3 || part.len() > 2 || !digits(whole) || !digits(part) {
        return Err(wrong());
    }
    let parts: u16 = format!("{whole}{part:0<2}").parse().map_err(|_| wrong())?;
    if (1..=WHOLE).contains(&parts) { Ok(parts) } else { Err(wrong()) }
}

fn rate(text: &str) -> Result<Rate, String> {
    let rate = parse_rate(text).map_err(|error| format!("{error}: {RATE_FORM}"))?;
    rate.ok_or_else(|| format!("as fast as it goes is what happens without --rate; {RATE_FORM}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_read_to_a_hundredth_of_a_percent() {
        for (text, parts) in [("1%", 100), ("0.01%", 1), ("12.5%", 1250), ("100%", 10_000), ("007%", 700)] {
            assert_eq!(sample(text), Ok(parts), "{text}");
        }
        for text in ["1", "0%", "100.01%", "0.001%", "-1%", "1.%x", "%", "1 %", "65637%"] {
            assert!(sample(text).is_err(), "{text}");
        }
    }
}
