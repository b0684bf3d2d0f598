//! Commands for how a pair's copying flows: over which paths, how fast.

use clap::{Subcommand, ValueEnum};
use farseal_core::flow::Transfer;
use farseal_core::limits::PATHS_MAX;

use super::failure::Failure;
use super::{Place, operate, wait_for};
use crate::config::units::{RATE_FORM, parse_rate};
use crate::control::api::{PairCommand, SetRate, SetTransfer, Throttle};

#[derive(Debug, Subcommand)]
pub(super) enum Flow {
    /// Choose in which order and over how many paths records travel, while they do.
    Transfer {
        /// The pair.
        pair: String,
        /// How they travel.
        #[arg(value_enum)]
        transfer: TransferArg,
        /// Connections of the link; as many as now unless given.
        #[arg(long, value_parser = clap::value_parser!(u16).range(1..=i64::from(PATHS_MAX)))]
        paths: Option<u16>,
    },
    /// Choose how fast copying may be, while it runs: "50MiB/s", or "none". Without a rate: show what is in force.
    Throttle {
        /// The pair.
        pair: String,
        /// Everything that goes over the pair's paths.
        #[arg(long, value_name = "RATE", value_parser = rate)]
        link: Option<SetRate>,
        /// Copying after an outage.
        #[arg(long, value_name = "RATE", value_parser = rate)]
        resync: Option<SetRate>,
        /// The first copy, and one that `copy-all` asks for.
        #[arg(long, value_name = "RATE", value_parser = rate)]
        initial_copy: Option<SetRate>,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum TransferArg {
    /// Over one path, in order; the others stand by.
    Ordered,
    /// Over every path, in any order; the remote puts them in order.
    Scheduled,
}

impl From<TransferArg> for Transfer {
    fn from(transfer: TransferArg) -> Self {
        match transfer {
            TransferArg::Ordered => Self::Ordered,
            TransferArg::Scheduled => Self::Scheduled,
        }
    }
}

pub(super) fn flow(place: &Place, command: Flow) -> Result<(), Failure> {
    let (pair, command) = match command {
        Flow::Transfer { pair, transfer, paths } => {
            (pair, PairCommand::SetTransfer(SetTransfer { transfer: transfer.into(), paths }))
        }
        Flow::Throttle { pair, link, resync, initial_copy } => {
            (pair, PairCommand::Throttle(Throttle { link, resync, initial_copy }))
        }
    };
    let client = place.client()?;
    let reply = wait_for(async { Ok(client.command(&pair, &command).await?) })?;
    operate::print(&reply)
}

fn rate(text: &str) -> Result<SetRate, String> {
    let rate = parse_rate(text).map_err(|error| format!("{error}: {RATE_FORM}"))?;
    Ok(rate.map_or(SetRate::None, SetRate::BytesASecond))
}
