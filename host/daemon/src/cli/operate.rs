//! Commands for a pair of the running node.

use clap::{Args, Subcommand, ValueEnum};
use farseal_core::primary::Mode;
use farseal_core::rotation::How;
use farseal_core::units::{Epoch, Millis};

use super::failure::{Exit, Failure};
use super::{Place, agreed, say, wait_for};
use crate::config::units::{SPAN_FORM, parse_span};
use crate::control::api::{CommandReply, PairCommand, Pause, Rotate, SetMode, Suspect};

/// One variant for each command.
#[derive(Debug, Subcommand)]
pub(super) enum Operate {
    /// Change the key; the policy is asked unless --force.
    Rotate(RotateArgs),
    /// Tell the policy that someone else may know an epoch's key.
    Suspect {
        /// The pair.
        pair: String,
        /// The epoch, as `status` shows it.
        epoch: u64,
    },
    /// Bring both sites to one state and keep it there; initiators go on writing.
    #[command(
        after_help = "For programs: `farseal pause PAIR --wait --by NAME --for 30m` ends with 0 when both sites hold \
                            the state, with 3 if the pair is paused already or is not there in 60 s, with 4 if no node \
                            answers. A preset's pause becomes the caller's."
    )]
    Pause {
        /// The pair.
        pair: String,
        /// Come back when both sites hold that state.
        #[arg(long)]
        wait: bool,
        /// Who asks, for the status and the log.
        #[arg(long, value_name = "NAME")]
        by: Option<String>,
        /// Resume by itself after this, as 30m.
        #[arg(long = "for", value_name = "SPAN", value_parser = span)]
        span: Option<Millis>,
    },
    /// Go on after a pause.
    Resume {
        /// The pair.
        pair: String,
    },
    /// Choose when initiators are answered, while they go on writing.
    Mode {
        /// The pair.
        pair: String,
        /// What a WRITE and a FLUSH wait for.
        #[arg(value_enum)]
        mode: ModeArg,
    },
    /// On the secondary's node: make it the side that writes. The old primary is fenced off.
    Takeover {
        /// The pair.
        pair: String,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
    /// On a node that was taken over from: keep the copy of the new history. What it lacks is kept as a branch.
    Rejoin {
        /// The pair.
        pair: String,
    },
    /// On the primary's node: change sides with the other node, without losing a write. Initiators connect there then.
    Swap {
        /// The pair.
        pair: String,
    },
    /// On the secondary's node: check every record of the copy, without a key.
    Scrub {
        /// The pair.
        pair: String,
    },
    /// On the primary's node: copy the whole volume afresh.
    CopyAll {
        /// The pair.
        pair: String,
    },
}

/// `farseal rotate`.
#[derive(Debug, Args)]
pub(super) struct RotateArgs {
    /// The pair.
    pair: String,
    /// Not as the pair is configured.
    #[arg(long, value_enum)]
    how: Option<HowArg>,
    /// For the log.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Do not ask the policy. The host's limits hold all the same.
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum ModeArg {
    /// WRITE: its place in the buffer. FLUSH: the journal here.
    Async,
    /// FLUSH: the remote, too.
    SyncFlush,
    /// WRITE and FLUSH: the remote, too.
    Sync,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum HowArg {
    InBand,
    Pause,
}

impl From<ModeArg> for Mode {
    fn from(mode: ModeArg) -> Self {
        match mode {
            ModeArg::Async => Self::Async,
            ModeArg::SyncFlush => Self::SyncFlush,
            ModeArg::Sync => Self::Sync,
        }
    }
}

pub(super) fn operate(place: &Place, command: Operate) -> Result<(), Failure> {
    let (pair, command) = match command {
        Operate::Rotate(RotateArgs { pair, how, reason, force }) => {
            let how = how.map(|how| match how {
                HowArg::InBand => How::InBand,
                HowArg::Pause => How::Pause,
            });
            (pair, PairCommand::Rotate(Rotate { how, reason, force }))
        }
        Operate::Suspect { pair, epoch } => (pair, PairCommand::Suspect(Suspect { epoch: Epoch(epoch) })),
        Operate::Pause { pair, wait, by, span } => (pair, PairCommand::Pause(Pause { wait, by, span })),
        Operate::Resume { pair } => (pair, PairCommand::Resume),
        Operate::Mode { pair, mode } => (pair, PairCommand::SetMode(SetMode { mode: mode.into() })),
        Operate::Takeover { pair, yes } => {
            if !yes {
                confirm_takeover(&pair)?;
            }
            (pair, PairCommand::TakeOver)
        }
        Operate::Rejoin { pair } => (pair, PairCommand::Rejoin),
        Operate::Swap { pair } => (pair, PairCommand::SwapSides),
        Operate::Scrub { pair } => (pair, PairCommand::Scrub),
        Operate::CopyAll { pair } => (pair, PairCommand::CopyAll),
    };
    let client = place.client()?;
    let reply = wait_for(async { Ok(client.command(&pair, &command).await?) })?;
    print(&reply)
}

fn span(text: &str) -> Result<Millis, String> {
    parse_span(text).map_err(|error| format!("{error}: {SPAN_FORM}"))
}

fn confirm_takeover(pair: &str) -> Result<(), Failure> {
    let question = format!(
        "Takeover of {pair}: initiators will work on the copy here. The other site is fenced off: what it wrote and this \
         site lacks is not in the copy. It can be had back as the keeper of a copy, with `farseal rejoin` there."
    );
    match agreed(&question) {
        Some(true) => Ok(()),
        Some(false) => Err(Failure::new(Exit::Refused, "nothing was done", format!("`farseal takeover {pair}`"))),
        None => {
            let next = format!("`farseal takeover {pair} --yes`");
            Err(Failure::new(Exit::Refused, "a takeover fences the other site off, and nobody is here to agree", next))
        }
    }
}

pub(super) fn print(reply: &CommandReply) -> Result<(), Failure> {
    let mut text = format!("{}\n", reply.message);
    for detail in &reply.details {
        text.push_str(&format!("  {detail}\n"));
    }
    if let Some(next) = &reply.next {
        text.push_str(&format!("next: {next}\n"));
    }
    say(&text)
}
