//! The command line: what an operator types.
//!
//! ```text
//! init        a configuration and an identity
//! pair        cards, invitations, new pairs
//! status      am I protected, and how far behind
//! operate     rotate, suspect, pause, resume, takeover, rejoin, swap, take-back, disaster, scrub, copy-all; cut and forget for groups
//! verify      compare the volume with its copy
//! seed        the first copy on a disk: export, verify, import, abandon
//! branches    list, show, export, adopt, drop
//! flow        transfer, throttle
//! preset      add, list, remove
//! key         rotate, status, history, policy, drill, retire
//! recover     plan, points, pin, unpin, test
//! plugin      list, inspect, check, conform, swap, rollback, release
//! failure     exit codes
//! ```
//!
//! `init`, `pair`, `seed verify` and `plugin inspect|check` work on files; everything else asks the running node.

use std::ffi::OsString;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::config::Config;
use crate::control::client::Client;

mod branches;
mod escrow;
pub mod failure;
mod flow;
pub mod identity;
mod init;
mod invitation;
mod key;
mod operate;
mod pair;
mod plugin;
mod preset;
mod recover;
mod search;
mod seed;
mod show;
mod show_site;
mod status;
mod verify;

use failure::{Exit, Failure};

/// Where the configuration is looked for when neither `--config` nor `FARSEAL_CONFIG` says.
const DEFAULT_CONFIG: &str = "/etc/farseal/farseal.toml";

const EXIT_CODES: &str = "Exit codes: 0 done; 1 failed; 2 wrong usage; 3 refused in this state or by a limit; \
                          4 no node answers; \
                          5 verify found differences.\n\
                          The configuration is --config, else $FARSEAL_CONFIG, else /etc/farseal/farseal.toml.";

/// Remote copy of block volumes, sealed under keys that keep changing.
#[derive(Debug, Parser)]
#[command(name = "farseal", version, after_help = EXIT_CODES)]
struct Cli {
    /// The node's configuration.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The node's control socket, instead of the one that the configuration names.
    #[arg(long, global = true, value_name = "PATH")]
    socket: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a configuration and an identity.
    Init(init::Init),
    /// Run the node.
    Run,
    /// Show this node's card; make, accept and list pairs.
    #[command(subcommand)]
    Pair(pair::PairCommand),
    /// Am I protected, and how far behind?
    Status(status::Status),
    #[command(flatten)]
    Operate(operate::Operate),
    /// Change a pair's key, and see what became of each.
    #[command(subcommand)]
    Key(key::KeyCommand),
    #[command(flatten)]
    Flow(flow::Flow),
    /// On the primary's node: compare the volume with its copy, while both are in use.
    Verify(verify::Verify),
    /// The first copy of a pair on a disk instead of over the link.
    #[command(subcommand)]
    Seed(seed::SeedCommand),
    /// Have a pair pause and resume by itself: at times of day, or every so often.
    #[command(subcommand)]
    Preset(preset::PresetCommand),
    /// What this site wrote and no history has: list, show, export, adopt, drop.
    #[command(subcommand)]
    Branches(branches::BranchesCommand),
    /// The site that holds keys and no data: be one, name one, get keys back from one.
    #[command(subcommand)]
    Escrow(escrow::EscrowCommands),
    /// What can be gone back to, what opening it would come to, trying it, and what came of it.
    #[command(subcommand)]
    Recover(recover::RecoverCommand),
    /// List, inspect, check and swap plugins.
    #[command(subcommand)]
    Plugin(plugin::PluginCommand),
}

/// Where things are, for commands.
#[derive(Debug)]
struct Place {
    config: PathBuf,
    socket: Option<PathBuf>,
}

impl Place {
    fn config(&self) -> Result<Config, Failure> {
        Ok(Config::load(&self.config)?)
    }

    fn client(&self) -> Result<Client, Failure> {
        match &self.socket {
            Some(socket) => Ok(Client::new(socket)),
            None => Ok(Client::new(&self.config()?.node.control_socket)),
        }
    }
}

/// Does what the process's arguments say. `run` runs a node until it is told to stop; it is what `farseal run` does
/// with a sound configuration.
pub fn main<E: Into<Box<dyn std::error::Error>>>(run: impl FnOnce(Config) -> Result<(), E>) -> ExitCode {
    let from_environment = std::env::var_os("FARSEAL_CONFIG").map(PathBuf::from);
    perform(std::env::args_os(), from_environment, run)
}

fn perform<E: Into<Box<dyn std::error::Error>>>(
    arguments: impl IntoIterator<Item = OsString>,
    from_environment: Option<PathBuf>,
    run: impl FnOnce(Config) -> Result<(), E>,
) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(usage) => {
            let exit = if usage.use_stderr() { Exit::Usage } else { Exit::Done };
            // A closed terminal is no reason to fail differently.
            let _ = usage.print();
            return exit.into();
        }
    };
    let config = cli.config.or(from_environment).unwrap_or_else(|| Path::new(DEFAULT_CONFIG).to_owned());
    let place = Place { config, socket: cli.socket };
    let done = match cli.command {
        Command::Init(init) => init::init(&init),
        Command::Run => place.config().and_then(|config| run(config).map_err(|error| Failure::of(&*error.into()))),
        Command::Pair(command) => pair::pair(&place, command),
        Command::Status(status) => status::status(&place, &status),
        Command::Operate(command) => operate::operate(&place, command),
        Command::Key(command) => key::key(&place, command),
        Command::Flow(command) => flow::flow(&place, command),
        Command::Verify(wanted) => verify::verify(&place, &wanted),
        Command::Seed(command) => seed::seed(&place, command),
        Command::Preset(command) => preset::preset(&place, command),
        Command::Branches(command) => branches::branches(&place, command),
        Command::Escrow(command) => escrow::escrow(&place, command),
        Command::Plugin(command) => plugin::plugin(&place, command),
        Command::Recover(command) => recover::recover(&place, command),
    };
    match done {
        Ok(()) => Exit::Done.into(),
        Err(failure) => {
            eprintln!("farseal: {failure}");
            failure.exit.into()
        }
    }
}

/// Runs what waits for the node.
fn wait_for<T>(ask: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::of(&error))?.block_on(ask)
}

/// A node's report as this version knows it.
fn understood<T: DeserializeOwned>(report: Option<Value>) -> Result<T, Failure> {
    serde_json::from_value(report.unwrap_or_default()).map_err(|error| {
        let next = "use the same version of farseal for node and command";
        Failure::new(Exit::Failed, format!("the node's answer is not understood: {error}"), next)
    })
}

/// Prints to standard output. A reader that went away, as `head` does, is no failure.
fn say(text: &str) -> Result<(), Failure> {
    use std::io::Write;
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::of(&error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Asks for a yes. `None` where there is no terminal to ask at.
fn agreed(question: &str) -> Option<bool> {
    use std::io::{BufRead, IsTerminal, Write};
    let input = std::io::stdin();
    if !input.is_terminal() {
        return None;
    }
    let mut prompt = std::io::stderr();
    let _ = write!(prompt, "{question} Type yes to go on: ");
    let _ = prompt.flush();
    let mut answer = String::new();
    input.lock().read_line(&mut answer).ok()?;
    Some(answer.trim() == "yes")
}

#[cfg(test)]
mod tests;
