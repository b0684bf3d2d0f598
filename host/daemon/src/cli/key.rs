//! `farseal key`: change a pair's key, and see what became of each.

use std::fmt::Write as _;
use std::time::Duration;

use clap::{Args, Subcommand};
use farseal_core::units::{Epoch, Millis, WallTime};
use farseal_plugin::scenario::units;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::failure::{Exit, Failure};
use super::operate::HowArg;
use super::show::{line, size, span};
use super::{Place, operate, say, understood, wait_for};
use crate::control::api::{
    DrillReport, DrilledEpoch, EpochReport, KeyCommand as Asked, KeyHistory, KeyReport, PairCommand, PastEpoch,
    PluginStanding, PolicyReport, Retire, RetireReport, RetireStep, RetiringReport, Rotate, RotationWord,
};

/// `farseal key ..`.
#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// Change the key; the policy is asked unless --force.
    Rotate(RotateArgs),
    /// The key in force: its age and use against the limits, who can open it, what a rotation under way waits for.
    Status(Shown),
    /// What became of each epoch: on whose word, when in force, what it sealed.
    History(Shown),
    /// Who decides when the key changes, what it decided last, and what the host made of that.
    Policy(Shown),
    /// On the primary's node: have the remote prove, for every epoch that the copy's blocks need, that it can open them.
    #[command(after_help = "Exit codes: 0 the remote opens every epoch; 1 it does not; else as every command.")]
    Drill(Shown),
    /// On the primary's node: destroy the keys of epochs that are over, at every site, after the blocks that need them were sent again.
    #[command(
        after_help = "May be interrupted, and given again: it goes on where it was. What is destroyed opens nowhere, \
                            also not what was written before and is overwritten, or in a copy of a site's disk whose \
                            node's identity is kept safe."
    )]
    Retire(RetireArgs),
}

/// `farseal key rotate`.
#[derive(Debug, Args)]
pub(super) struct RotateArgs {
    /// The pair.
    pair: String,
    /// Not as the pair is configured.
    #[arg(long, value_enum, conflicts_with = "suspect")]
    how: Option<HowArg>,
    /// For the log and the history.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Do not ask the policy. The host's limits hold all the same.
    #[arg(long)]
    force: bool,
    /// Someone else may know the key in force: the policy is told, and the next record is sealed under a new one. No
    /// interval, no slot of the disguise and no acknowledgement is waited for.
    #[arg(long)]
    suspect: bool,
}

/// `farseal key retire`.
#[derive(Debug, Args)]
pub(super) struct RetireArgs {
    /// The pair.
    pair: String,
    /// The last epoch to go; every one before the one in force, unless this says otherwise.
    #[arg(long, value_name = "EPOCH", conflicts_with = "older_than")]
    through: Option<u64>,
    /// Only epochs that have been over for so long: as 30d.
    #[arg(long, value_name = "TIME", value_parser = operate::span)]
    older_than: Option<Millis>,
    /// Say how much would be sent again, and destroy nothing.
    #[arg(long)]
    dry_run: bool,
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

pub(super) fn key(place: &Place, command: KeyCommand) -> Result<(), Failure> {
    match command {
        KeyCommand::Rotate(RotateArgs { pair, how, reason, force, suspect }) => {
            let rotate = Rotate { how: how.map(Into::into), reason, force, suspect };
            let client = place.client()?;
            operate::print(&wait_for(async { Ok(client.command(&pair, &PairCommand::Rotate(rotate)).await?) })?)
        }
        KeyCommand::Status(shown) => show::<KeyReport>(place, &shown, Asked::Status, status),
        KeyCommand::History(shown) => show::<KeyHistory>(place, &shown, Asked::History, history),
        KeyCommand::Drill(shown) => drill(place, &shown),
        KeyCommand::Retire(wanted) => retire(place, &wanted),
        KeyCommand::Policy(shown) => show::<PolicyReport>(place, &shown, Asked::Policy, policy),
    }
}

fn show<T: DeserializeOwned>(
    place: &Place,
    shown: &Shown,
    asked: Asked,
    text: impl FnOnce(&T) -> String,
) -> Result<(), Failure> {
    ask(place, shown, asked, text).map(drop)
}

fn ask<T: DeserializeOwned>(
    place: &Place,
    shown: &Shown,
    asked: Asked,
    text: impl FnOnce(&T) -> String,
) -> Result<T, Failure> {
    let client = place.client()?;
    let reply = wait_for(async { Ok(client.command(&shown.pair, &PairCommand::Key(asked)).await?) })?;
    let report = reply.report.unwrap_or(Value::Null);
    let json = format!("{report:#}\n");
    let found = understood(Some(report))?;
    say(&if shown.json { json } else { text(&found) })?;
    Ok(found)
}

fn drill(place: &Place, shown: &Shown) -> Result<(), Failure> {
    let found = ask::<DrillReport>(place, shown, Asked::Drill, drilled)?;
    let count = |failed: fn(&DrilledEpoch) -> bool| found.epochs.iter().filter(|epoch| failed(epoch)).count();
    let remote = count(|epoch| epoch.trouble.is_some());
    let escrow = count(|epoch| epoch.escrow.as_ref().is_some_and(|proof| proof.trouble.is_some()));
    let who = match (remote, escrow) {
        (0, 0) => return Ok(()),
        (_, 0) => format!("the remote does not open {remote}"),
        (0, _) => format!("the escrow site does not open {escrow}"),
        (_, _) => format!("the remote does not open {remote}, the escrow site {escrow}"),
    };
    let message = format!("{who} of the {} epochs that live blocks need", found.epochs.len());
    if remote == 0 {
        let next = "`farseal escrow log` at the escrow site; write the blocks again under a key that it holds";
        return Err(Failure::new(Exit::Failed, message, next));
    }
    Err(Failure::new(Exit::Failed, message, format!("`farseal verify {}` names blocks that differ", shown.pair)))
}

fn drilled(found: &DrillReport) -> String {
    let mut out = format!("the copy up to record {}\n{:<7}{:<14}remote\n", found.through, "epoch", "live blocks");
    for each in &found.epochs {
        let opens = |trouble: &Option<String>| trouble.as_deref().map_or_else(|| "opens it".to_owned(), line);
        let remote = match &each.escrow {
            Some(escrow) if escrow.alone => "holds no key".to_owned(),
            Some(_) | None => opens(&each.trouble),
        };
        let escrow = each.escrow.as_ref().map(|escrow| format!("; the escrow {}", opens(&escrow.trouble)));
        let _ = writeln!(out, "{:<7}{:<14}{remote}{}", each.epoch.to_string(), each.blocks, escrow.unwrap_or_default());
    }
    out
}

/// Step by step, until every site has destroyed them.
fn retire(place: &Place, args: &RetireArgs) -> Result<(), Failure> {
    let RetireArgs { through, older_than, dry_run, .. } = *args;
    let mut wanted = Retire { through: through.map(Epoch), older_than, dry_run, from: 0, clean: false };
    let client = place.client()?;
    let (mut again, mut shown) = (0_u64, String::new());
    wait_for(async {
        loop {
            let asked = PairCommand::Key(Asked::Retire(wanted));
            let reply = client.command(&args.pair, &asked).await?;
            let found: RetireReport = understood(reply.report)?;
            again += found.blocks;
            let through = found.through;
            // From here on these, whatever comes into force meanwhile.
            (wanted.through, wanted.older_than) = (Some(through), None);
            (wanted.from, wanted.clean) = (found.next, found.clean);
            let passed = found.next >= found.volume;
            let text = match &found.step {
                RetireStep::Destroyed { deposits } => {
                    let escrow = if *deposits == 0 {
                        String::new()
                    } else {
                        format!("; {deposits} deposits at the escrow site")
                    };
                    return say(&format!(
                        "the keys up to epoch {through} are destroyed at both sites{escrow}; {again} blocks were sent again\n"
                    ));
                }
                RetireStep::Looked if dry_run && passed => {
                    return say(&format!(
                        "{again} blocks would be sent again, to destroy the keys up to epoch {through}\n"
                    ));
                }
                RetireStep::Looked => {
                    if passed && !found.clean {
                        // What was sent again is looked for once more.
                        (wanted.from, wanted.clean) = (0, false);
                    }
                    format!("looked through {} %, {again} blocks sent again", percent(found.next, found.volume))
                }
                RetireStep::CatchingUp => format!("{again} blocks sent again, the copy catches up"),
                RetireStep::Journal => "waits for this site's journal".to_owned(),
                RetireStep::Remote => {
                    "the remote destroys them, and writes its log anew where it holds them".to_owned()
                }
                RetireStep::Escrow { reason } => {
                    format!("the remote has destroyed them; the escrow site: {}", line(reason))
                }
            };
            if text != shown {
                note(&text);
                shown = text;
            }
            if found.step != RetireStep::Looked {
                tokio::time::sleep(STEP_EVERY).await;
            }
        }
    })
}

/// How often a step that waits is taken again.
const STEP_EVERY: Duration = Duration::from_millis(500);

fn percent(done: u64, all: u64) -> u64 {
    u64::try_from(u128::from(done) * 100 / u128::from(all.max(1))).unwrap_or(100).min(100)
}

/// For whoever watches; the result alone goes to standard output.
fn note(text: &str) {
    eprintln!("{text}");
}

fn status(report: &KeyReport) -> String {
    let mut out = String::new();
    match &report.epoch {
        Some(epoch) => self::epoch(&mut out, epoch, report),
        None => field(&mut out, "epoch", "none yet: the first key is being made"),
    }
    if let Some(bound) = &report.bound {
        let (exponent, goal) = (bound.exponent, bound.goal);
        let text = format!(
            "all that was sealed ({}) gives an observer at most 2^-{exponent} over guessing; at 2^-{goal} one key may seal {}",
            size(bound.life),
            size(bound.key_bytes_max)
        );
        field(&mut out, "bound", &text);
    }
    if let Some(next) = &report.next_cipher {
        let text = format!("{} ({}) seals from the next epoch on", line(&next.name), next.digest.short());
        field(&mut out, "cipher", &text);
    }
    match &report.under_way {
        Some(coming) => {
            let text = format!("epoch {} is {}, waits for {}", coming.epoch, coming.stage, line(&coming.waits_for));
            field(&mut out, "rotation", &text);
        }
        None if report.seals => field(&mut out, "rotation", "none is under way"),
        None => {}
    }
    field(&mut out, "keys here", &format!("{} epochs", report.keys_here));
    out
}

fn epoch(out: &mut String, epoch: &EpochReport, report: &KeyReport) {
    let suspect = if epoch.suspect { ", SUSPECT" } else { "" };
    let what = if report.seals { epoch.stage.name() } else { "the newest that is kept here" };
    let (key, start) = (epoch.key, epoch.start);
    field(
        out,
        "epoch",
        &format!("{}, {what}{suspect}: key in record {key}, seals from record {start} on", epoch.epoch),
    );
    if let (Some(age), Some(limits)) = (epoch.age, &report.limits) {
        field(out, "age", &format!("{} of {} at most", span(age), span(limits.age_max)));
        field(out, "sealed", &format!("{} of {} at most", size(epoch.sealed), size(limits.bytes_max)));
        field(out, "interval", &format!("{} at least between two rotations", span(limits.interval_min)));
    }
    field(out, "sealed by", epoch.cipher.short().as_str());
    for (at, recipient) in epoch.recipients.iter().enumerate() {
        let text = format!("{}, {}, card {}", line(&recipient.role), line(&recipient.kem), line(&recipient.card));
        field(out, if at == 0 { "opened by" } else { "" }, &text);
    }
}

fn history(history: &KeyHistory) -> String {
    let mut out = format!(
        "{:<7}{:<10}{:<9}{:<10}{:<15}{:<15}{:<12}by\n",
        "epoch", "stage", "how", "start", "made", "in force", "sealed"
    );
    let ago =
        |at: Option<WallTime>| at.map_or_else(|| "-".to_owned(), |at| format!("{} ago", span(history.now.since(at))));
    for each in &history.epochs {
        let start = each.start.map_or_else(|| "-".to_owned(), |start| start.to_string());
        let how = match each.how {
            farseal_core::rotation::How::InBand => "in-band",
            farseal_core::rotation::How::Pause => "pause",
            farseal_core::rotation::How::AtOnce => "at once",
        };
        let _ = writeln!(
            out,
            "{:<7}{:<10}{how:<9}{start:<10}{:<15}{:<15}{:<12}{}",
            each.epoch.to_string(),
            each.stage.name(),
            ago(Some(each.made)),
            ago(each.in_force),
            size(each.sealed),
            by(each)
        );
    }
    for RetiringReport { through, when, order, proof, deposits } in &history.retirings {
        let proof = match proof {
            None => "the remote's proof is not here",
            Some(true) => "the remote's proof holds",
            Some(false) => "THE REMOTE'S PROOF IS NOT WHAT WAS SIGNED",
        };
        let escrow = if *deposits == 0 { String::new() } else { format!("; {deposits} deposits at the escrow site") };
        let order = order.get(..16).unwrap_or_default();
        let _ = writeln!(out, "destroyed up to epoch {through}, {}: order {order}, {proof}{escrow}", ago(Some(*when)));
    }
    out
}

fn by(epoch: &PastEpoch) -> String {
    let word = match epoch.by {
        None => "-",
        Some(RotationWord::Policy) => "the policy",
        Some(RotationWord::HostLimit) => "the host's limit",
        Some(RotationWord::Operator) => "an operator",
        Some(RotationWord::FirstKey) => "nobody: a start needs a new key",
        Some(RotationWord::CatchUp) => "nobody: a catch-up needs a new key",
    };
    epoch.reason.as_ref().map_or_else(|| word.to_owned(), |reason| format!("{word}: {}", line(reason)))
}

fn policy(report: &PolicyReport) -> String {
    let mut out = String::new();
    field(&mut out, "policy", &format!("{} {}", line(&report.name), line(&report.version)));
    field(&mut out, "sha256", &report.digest.to_string());
    field(&mut out, "settings", &line(&report.settings));
    let standing = match report.standing {
        PluginStanding::InForce => "answers",
        PluginStanding::Quarantined => "QUARANTINED: the host's limits alone change the key; `farseal plugin release`",
    };
    field(&mut out, "standing", standing);
    field(&mut out, "journal", &format!("{} calls", report.calls));
    for each in &report.decisions {
        let host = each.instead.as_ref().map(|why| format!(" [the host's own: {}]", line(why))).unwrap_or_default();
        let why = if each.why.is_empty() { String::new() } else { format!(" ({})", line(&each.why)) };
        let _ = writeln!(
            out,
            "  {}  {}: {}{why}: {}{host}",
            units::instant(each.at.0),
            line(&each.event),
            line(&each.decision),
            line(&each.answer)
        );
    }
    out
}

fn field(out: &mut String, name: &str, text: &str) {
    let _ = writeln!(out, "{name:<10}{text}");
}
