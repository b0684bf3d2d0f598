//! Commands for a pair of the running node.

use clap::{Args, Subcommand, ValueEnum};
use farseal_core::group::CutName;
use farseal_core::primary::Mode;
use farseal_core::rotation::How;
use farseal_core::units::{Epoch, Millis};

use super::failure::{Exit, Failure};
use super::{Place, agreed, say, wait_for};
use crate::config::units::{SPAN_FORM, parse_span};
use crate::control::api::{
    CommandReply, GroupCommand, PairCommand, Pause, Rotate, SetMode, Suspect, SwapSides, TakeOver,
};

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
        #[command(flatten)]
        what: Target,
        /// Come back when both sites hold that state.
        #[arg(long)]
        wait: bool,
        /// Who asks, for the status and the log.
        #[arg(long, value_name = "NAME")]
        by: Option<String>,
        /// Resume by itself after this, as 30m.
        #[arg(long = "for", value_name = "SPAN", value_parser = span)]
        span: Option<Millis>,
        /// The pair without the others of its group.
        #[arg(long, conflicts_with = "group")]
        alone: bool,
    },
    /// Go on after a pause.
    Resume {
        #[command(flatten)]
        what: Target,
    },
    /// Make a cut of a group now: a point that all its copies can be recovered at.
    Cut {
        /// The group.
        group: String,
        /// What to call it: up to 42 characters of a-z, A-Z, 0-9, '.', '_' and '-'.
        #[arg(value_parser = CutName::new)]
        name: Option<CutName>,
    },
    /// No longer wait for a pair of a group whose node is gone for good.
    Forget {
        /// The group.
        group: String,
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
        #[command(flatten)]
        what: Target,
        /// The pair without the others of its group, at its own state.
        #[arg(long, conflicts_with = "group")]
        alone: bool,
        /// As the volume was at an earlier point: `farseal recover points` shows them. A group's is a cut's name.
        #[arg(long, value_name = "POINT")]
        at: Option<String>,
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
        #[command(flatten)]
        what: Target,
        /// The pair without the others of its group: it makes no common points until they have changed sides, too.
        #[arg(long, conflicts_with = "group")]
        alone: bool,
    },
    /// After a swap that the other site never answered, and only where it is lost for good: write here again.
    TakeBack {
        /// The pair.
        pair: String,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
    /// On the primary's node, when its site is lost or about to be: have the remote take over now, with what it has.
    #[command(name = "disaster", subcommand)]
    Disaster(Disaster),
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

/// A pair, or all pairs of a group.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct Target {
    /// The pair.
    pair: Option<String>,
    /// All pairs of this group, on whatever nodes of the site, at one cut.
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
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
pub(super) enum HowArg {
    /// Nothing stops.
    InBand,
    /// Sealing is held until the remote has everything.
    Pause,
}

impl From<HowArg> for How {
    fn from(how: HowArg) -> Self {
        match how {
            HowArg::InBand => Self::InBand,
            HowArg::Pause => Self::Pause,
        }
    }
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

/// `farseal disaster ..`.
#[derive(Debug, Subcommand)]
pub(super) enum Disaster {
    /// The remote takes over with what it has. What it lacks stays here, and is kept as a branch when this site rejoins.
    Declare {
        #[command(flatten)]
        what: Target,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
}

/// What a command line comes to.
pub(super) enum Told {
    Pair(String, PairCommand),
    Group(String, GroupCommand),
}

impl Target {
    pub(super) fn pair(name: String) -> Self {
        Self { pair: Some(name), group: None }
    }

    pub(super) fn group(name: String) -> Self {
        Self { pair: None, group: Some(name) }
    }

    pub(super) fn pair_name(&self) -> Option<&str> {
        self.pair.as_deref()
    }

    pub(super) fn group_name(&self) -> Option<&str> {
        self.group.as_deref()
    }

    pub(super) fn told(self, pair: PairCommand, group: GroupCommand) -> Told {
        match (self.pair, self.group) {
            (_, Some(name)) => Told::Group(name, group),
            (name, None) => Told::Pair(name.unwrap_or_default(), pair),
        }
    }

    fn name(&self) -> String {
        match (&self.pair, &self.group) {
            (_, Some(group)) => format!("--group {group}"),
            (pair, None) => pair.clone().unwrap_or_default(),
        }
    }
}

pub(super) fn operate(place: &Place, command: Operate) -> Result<(), Failure> {
    carry_out(place, &told(command)?)
}

pub(super) fn carry_out(place: &Place, told: &Told) -> Result<(), Failure> {
    let client = place.client()?;
    let reply = wait_for(async {
        Ok(match told {
            Told::Pair(pair, command) => client.command(pair, command).await?,
            Told::Group(group, command) => client.group(group, command).await?,
        })
    })?;
    print(&reply)
}

fn told(command: Operate) -> Result<Told, Failure> {
    let (pair, command) = match command {
        Operate::Cut { group, name } => return Ok(Told::Group(group, GroupCommand::Cut { name })),
        Operate::Forget { group, pair } => return Ok(Told::Group(group, GroupCommand::Forget { pair })),
        Operate::Pause { what, wait, by, span, alone } => {
            let group = GroupCommand::Pause { wait, by: by.clone(), span };
            return Ok(what.told(PairCommand::Pause(Pause { wait, by, span, alone }), group));
        }
        Operate::Resume { what } => return Ok(what.told(PairCommand::Resume, GroupCommand::Resume)),
        Operate::Takeover { what, alone, at, yes } => {
            if !yes {
                confirm_takeover(&what.name())?;
            }
            let cut = at.as_deref().filter(|_| what.group_name().is_some()).map(CutName::new).transpose();
            let cut = cut.map_err(|error| {
                let next =
                    "`farseal status --site` shows the group's named cuts; one pair alone can go back to any point";
                Failure::new(Exit::Usage, format!("--at: a group goes back to a named cut: {error}"), next)
            })?;
            return Ok(what.told(PairCommand::TakeOver(TakeOver { alone, at }), GroupCommand::TakeOver { at: cut }));
        }
        Operate::Swap { what, alone } => {
            return Ok(what.told(PairCommand::SwapSides(SwapSides { alone }), GroupCommand::SwapSides));
        }
        Operate::Rotate(RotateArgs { pair, how, reason, force }) => {
            let how = how.map(Into::into);
            (pair, PairCommand::Rotate(Rotate { how, reason, force, suspect: false }))
        }
        Operate::Suspect { pair, epoch } => (pair, PairCommand::Suspect(Suspect { epoch: Epoch(epoch) })),
        Operate::Mode { pair, mode } => (pair, PairCommand::SetMode(SetMode { mode: mode.into() })),
        Operate::Rejoin { pair } => (pair, PairCommand::Rejoin),
        Operate::TakeBack { pair, yes } => {
            if !yes {
                confirm_take_back(&pair)?;
            }
            (pair, PairCommand::TakeBack)
        }
        Operate::Disaster(Disaster::Declare { what, yes }) => {
            if !yes {
                confirm_disaster(&what.name())?;
            }
            return Ok(what.told(PairCommand::Declare, GroupCommand::Declare));
        }
        Operate::Scrub { pair } => (pair, PairCommand::Scrub),
        Operate::CopyAll { pair } => (pair, PairCommand::CopyAll),
    };
    Ok(Told::Pair(pair, command))
}

pub(super) fn span(text: &str) -> Result<Millis, String> {
    parse_span(text).map_err(|error| format!("{error}: {SPAN_FORM}"))
}

fn confirm_takeover(pair: &str) -> Result<(), Failure> {
    let question = format!(
        "Takeover of {pair}: initiators will work on the copy here. The other site is fenced off: what it wrote and this \
         site lacks is not in the copy. It can be had back as the keeper of a copy, with `farseal rejoin` there."
    );
    confirm(&question, "a takeover fences the other site off", &format!("farseal takeover {pair}"))
}

fn confirm_disaster(pair: &str) -> Result<(), Failure> {
    let question = format!(
        "Disaster at the main site of {pair}: the remote takes over at once, with what has arrived there, and this site is fenced. \
         Where there is time to send everything, `farseal swap {pair}` loses nothing."
    );
    confirm(&question, "the remote may lack writes", &format!("farseal disaster declare {pair}"))
}

fn confirm_take_back(pair: &str) -> Result<(), Failure> {
    let question = format!(
        "Taking {pair} back: the other site was asked to go on, and nobody here knows whether it did. If initiators work \
         there, they and those that work here write two histories from now on, and one of them will be a branch. Make sure \
         that nobody works there."
    );
    confirm(&question, "the other site may be writing", &format!("farseal take-back {pair}"))
}

fn confirm(question: &str, risk: &str, command: &str) -> Result<(), Failure> {
    match agreed(question) {
        Some(true) => Ok(()),
        Some(false) => Err(Failure::new(Exit::Refused, "nothing was done", format!("`{command}`"))),
        None => {
            let refused = format!("{risk}, and nobody is here to agree");
            Err(Failure::new(Exit::Refused, refused, format!("`{command} --yes`")))
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
