//! What travels between a node and its operator: JSON with kebab-case names, times in milliseconds, sizes in bytes.

use std::fmt;
use std::path::PathBuf;

mod escrow;
mod flow;
mod key;
mod plugin;
mod points;
mod preset;
mod recover;
mod recovery;
mod search;
mod seed;
mod verify;

pub use escrow::*;
use farseal_core::group::CutName;
pub use farseal_core::primary::Mode;
use farseal_core::rotation::How;
use farseal_core::units::{BlockCount, ByteLen, Epoch, Generation, Millis, Sequence, WallTime};
use farseal_plugin::{Digest, Grant};
pub use flow::*;
pub use key::*;
pub use plugin::*;
pub use points::*;
pub use preset::*;
pub use recover::*;
pub use recovery::*;
pub use search::*;
pub use seed::*;
use serde::{Deserialize, Serialize};
use serde_json::Value;
pub use verify::*;

pub use crate::keys::memory::KeysInSwap;
pub use crate::site::words::{GroupCommand, GroupStatus, SiteStatus, SiteView};

/// A node, as it is now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct NodeStatus {
    /// Its name.
    pub node: String,
    /// Of the program.
    pub version: String,
    /// What two operators compare.
    pub fingerprint: String,
    /// When this was made.
    pub now: WallTime,
    /// Since the node started.
    pub uptime: Millis,
    /// Whether keys can get into swap; `None`: the node is of a version that does not say.
    #[serde(default)]
    pub keys_in_swap: Option<KeysInSwap>,
    /// In the order of the configuration.
    pub pairs: Vec<PairStatus>,
    /// The site's groups as its lead said last; `None` while it cannot be reached.
    #[serde(default)]
    pub site: Option<SiteStatus>,
}

/// A pair, as this side sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PairStatus {
    /// Its name.
    pub name: String,
    /// Its id in hexadecimal, the same at both sites.
    pub id: String,
    /// This side.
    pub role: Role,
    /// The other side's node.
    pub peer: String,
    /// The volume's name here.
    pub volume: String,
    /// What of the volume is the pair's, as `0..10GiB, 20GiB..21GiB`; `None`: all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<String>,
    /// The size of what is copied.
    pub size: ByteLen,
    /// What it does.
    pub state: PairState,
    /// When an initiator is answered.
    pub mode: Mode,
    /// The mode is kept: where it waits for the other site, it does.
    #[serde(default)]
    pub mode_kept: bool,
    /// The copy follows in the order of the writes; else it offers moments at which nothing was owed, and none between.
    #[serde(default = "yes")]
    pub ordered: bool,
    /// Are records sealed?
    pub encrypted: bool,
    /// Who may write.
    pub generation: Generation,
    /// Connections of the link that are up.
    pub paths_up: u16,
    /// Connections of the link that there should be.
    pub paths: u16,
    /// How far which part is.
    pub marks: Marks,
    /// What the copy lacks.
    pub lag: Lag,
    /// The journal; `None` at a secondary.
    pub journal: Option<JournalUse>,
    /// How copying flows; `None` at a secondary.
    #[serde(default)]
    pub flow: Option<FlowStatus>,
    /// The key in force; `None` where nothing is sealed, or before the first key.
    pub key: Option<KeyStatus>,
    /// What is chosen.
    pub plugins: Vec<PluginStatus>,
    /// The last thing that went wrong.
    pub last_error: Option<LastError>,
    /// Where the history that is written or kept here comes from; `None` for a pair's first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<HistoryStatus>,
    /// The verification that runs, or ran last; `None` at a secondary, and where there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<VerifyStatus>,
    /// The line to the pair's escrow site; `None` where it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub escrow: Option<EscrowLineStatus>,
    /// The first copy travels on a disk; `None` where it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<SeedStatus>,
    /// What can be gone back to beside the newest point; `None` where that is all, and at a primary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub points: Option<PointsStatus>,
    /// How far the copy is opened as it arrives, at a site that does so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arrived: Option<ArrivedStatus>,
}

/// What of a copy is open already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ArrivedStatus {
    /// Everything up to this record.
    pub through: Sequence,
    /// But for so many blocks, which did not open.
    pub closed: u64,
}

/// What a copy keeps beside its newest point.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PointsStatus {
    /// How far the window is to reach back; `None`: there is none.
    pub window: Option<Millis>,
    /// The oldest point of the window, and how long ago it was offered.
    pub oldest: Option<(Sequence, Millis)>,
    /// What the log takes for it.
    pub room: ByteLen,
    /// Why it is shorter than it was to be.
    pub shortened: Option<String>,
    /// Points that are pinned.
    pub pins: u64,
    /// The record at which a test is under way.
    pub tested: Option<Sequence>,
}

/// What changes of sides left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct HistoryStatus {
    /// The last record that the generation before has, too.
    pub fork: Sequence,
    /// What this site's own volume is a state of, where it keeps a copy: generation and record.
    pub base: Option<(Generation, Sequence)>,
    /// The branches that lie here.
    pub branches: Vec<String>,
}

/// Which side of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Initiators write here.
    Primary,
    /// The copy is kept here.
    Secondary,
}

/// What a pair does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum PairState {
    /// The node is starting this pair: a restart replays its journal or log.
    Starting,
    /// Primary: every record goes in its order. Secondary: it comes.
    Copying,
    /// Primary: the link is up and older writes are copied from the dirty map.
    CatchingUp {
        /// Still owed by the map.
        owed: ByteLen,
    },
    /// Primary: more was written than the journal holds; the dirty map remembers it.
    Behind {
        /// Owed by the map.
        owed: ByteLen,
    },
    /// The operator paused; what came before is still on its way.
    Pausing,
    /// Both sites hold the state of the pause.
    Paused,
    /// Primary: the first copy travels on a disk.
    Seeding {
        /// It is whole, and the remote has not got it yet.
        shipped: bool,
    },
    /// There is no link: new writes are on one site only.
    LinkDown {
        /// Since the last path was lost, or since the start.
        since: Millis,
    },
    /// The sites disagree; the pair is stopped and nothing was overwritten.
    Diverged {
        /// How.
        why: String,
    },
    /// The store failed or sealing stopped: nothing more is taken until the operator acts.
    Stopped {
        /// What stopped.
        why: String,
    },
    /// Secondary: it is becoming the side that writes.
    TakingOver,
    /// Secondary: it was taken over to; initiators work here.
    TakenOver {
        /// Blocks that are open.
        opened: BlockCount,
        /// Blocks that hold data.
        of: BlockCount,
    },
}

/// How far which part of the way is; all count records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Marks {
    /// Given a place. At a secondary: the greatest that is durable without a hole.
    pub last: Sequence,
    /// Durable here.
    pub durable: Sequence,
    /// Primary: durable at the secondary. Secondary: what a takeover would open, or did.
    pub safe: Sequence,
    /// Primary: written to the volume. Secondary: 0.
    pub homed: Sequence,
}

/// What the copy lacks. Never negative; `None` where it cannot be known from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Lag {
    /// Records that the secondary has not acknowledged.
    pub records: u64,
    /// Their bytes, and what the dirty map owes.
    pub bytes: ByteLen,
    /// Age of the oldest write that the copy lacks. At a secondary: since the last durable record was made.
    pub time: Option<Millis>,
}

/// A journal's fill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct JournalUse {
    /// On disk.
    pub used: ByteLen,
    /// Beyond it the dirty map takes over.
    pub max: ByteLen,
}

/// The key that seals.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct KeyStatus {
    /// Its epoch.
    pub epoch: Epoch,
    /// Since it came into force; `None` at a secondary that cannot know.
    pub age: Option<Millis>,
    /// Sealed under it.
    pub sealed: ByteLen,
    /// The coming rotation, if one is planned or under way.
    pub next: Option<NextRotation>,
    /// Sealing is held, and why, in plain words.
    pub held: Option<String>,
}

/// The coming rotation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct NextRotation {
    /// On whose word.
    pub by: RotationWord,
    /// When that word is next asked, counted from now; `None` while a rotation is under way.
    pub wait: Option<Millis>,
    /// What it is doing, in plain words, once it is under way.
    pub step: Option<String>,
}

/// On whose word a rotation comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RotationWord {
    /// The policy plugin.
    Policy,
    /// The host's limits.
    HostLimit,
    /// The operator.
    Operator,
    /// Nobody's: a node seals under no key of an earlier start.
    FirstKey,
    /// Nobody's: the copy lacks the keys of what is given up before a catch-up.
    CatchUp,
}

/// Which of a pair's four places for plugins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum PluginSlot {
    /// What seals the blocks.
    Cipher,
    /// When the key changes.
    Policy,
    /// How a key travels unseen.
    Disguise,
    /// How the copy is opened.
    Recovery,
}

/// A plugin in its place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PluginStatus {
    /// The pair.
    pub pair: String,
    /// Its place there.
    pub slot: PluginSlot,
    /// What it calls itself.
    pub name: String,
    /// Its own version.
    pub version: String,
    /// What its bytes are.
    pub digest: Digest,
    /// What it is granted.
    pub grants: Vec<Grant>,
    /// Whether it answers.
    pub standing: PluginStanding,
    /// Faults that still count against it; the host answered instead.
    pub faults: u64,
    /// The last fault.
    pub last_fault: Option<String>,
    /// How often the host answered in its place since the node started: a refusal is no fault, and counts here.
    #[serde(default)]
    pub stood_in: u64,
    /// Why, the last time.
    #[serde(default)]
    pub last_stood_in: Option<String>,
}

/// Whether a plugin answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PluginStanding {
    /// It answers.
    InForce,
    /// It failed too often; the host answers in its place.
    Quarantined,
}

/// Something that went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct LastError {
    /// When.
    pub at: WallTime,
    /// What.
    pub message: String,
    /// What the operator does about it; `None` where it mends itself.
    pub next: Option<String>,
}

/// What an operator tells a pair.
#[derive(Debug, Clone, PartialEq)]
pub enum PairCommand {
    /// Change the key.
    Rotate(Rotate),
    /// Someone else may know this epoch's key.
    Suspect(Suspect),
    /// Bring both sites to one state and keep it.
    Pause(Pause),
    /// Go on after a pause.
    Resume,
    /// Answer initiators in another mode.
    SetMode(SetMode),
    /// Send over other paths, or in another order.
    SetTransfer(SetTransfer),
    /// Copy no faster than this.
    Throttle(Throttle),
    /// Have the pair pause by itself.
    AddPreset(AddPreset),
    /// No longer.
    RemovePreset(RemovePreset),
    /// Become the keeper of the history of the site that took over.
    Rejoin,
    /// Hand over to the other site, which holds everything, and become its keeper.
    SwapSides(SwapSides),
    /// Write here again after handing over to a site that never answered, as a newer generation than it was asked to take.
    TakeBack,
    /// This main site is lost, or about to be: have the remote take over with what it has, and be fenced by it.
    Declare,
    /// What this site wrote and no history has.
    Branch(BranchCommand),
    /// Make this secondary the side that writes.
    TakeOver(TakeOver),
    /// Check every record of the copy, without a key.
    Scrub,
    /// Compare the volume with the copy, while both are in use.
    Verify(Verify),
    /// The first copy on a disk.
    Seed(SeedCommand),
    /// Copy the whole volume afresh.
    CopyAll,
    /// Keys that the escrow site holds.
    Escrow(EscrowCommand),
    /// Put another plugin in a place.
    Swap(Swap),
    /// What of a place's plugin is undone or forgiven.
    Plugin(PluginCommand),
    /// What is to be known of the pair's keys.
    Key(KeyCommand),
    /// What opening the copy would come to.
    Recover(RecoverCommand),
}

/// Parameters of `rotate`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Rotate {
    /// `None`: as the pair is configured. Never [`How::AtOnce`].
    pub how: Option<How>,
    /// For the log.
    pub reason: Option<String>,
    /// Do not ask the policy.
    pub force: bool,
    /// Someone else may know the key in force: the policy is told, and the next record is sealed under a new one.
    pub suspect: bool,
}

/// Parameters of `suspect`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Suspect {
    /// Whose key.
    pub epoch: Epoch,
}

/// Parameters of `pause`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Pause {
    /// Answer when both sites hold the state of the pause.
    pub wait: bool,
    /// Who asks, for the status and the log; `None`: an operator.
    pub by: Option<String>,
    /// Resume by itself after this; `None`: when somebody resumes.
    #[serde(rename = "for")]
    pub span: Option<Millis>,
    /// Without the others of its group.
    pub alone: bool,
}

/// Parameters of a group's `cut`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct CutParameters {
    /// What the operator calls it.
    pub name: Option<CutName>,
}

/// Parameters of a group's `forget`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ForgetParameters {
    /// The pair whose node is gone for good.
    pub pair: String,
}

/// Parameters of `swap-sides`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct SwapSides {
    /// Without the others of its group: it makes no common points until they have changed sides, too.
    pub alone: bool,
}

/// Parameters of `takeover`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct TakeOver {
    /// Without the others of its group, at its own state.
    pub alone: bool,
    /// As the volume was at this point, written as [`POINT_FORM`] says; the newest unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
}

/// Parameters of `takeover` for a group.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct GroupTakeOver {
    /// As the volumes were at this cut; the newest that all pairs hold unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<CutName>,
}

/// Parameters of `mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SetMode {
    /// From now on, and after a restart, until the configuration is given another mode than it has now.
    pub mode: Mode,
}

/// Parameters of `branch`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub enum BranchCommand {
    /// Name them.
    List,
    /// Say what is known of one.
    Show {
        /// Which.
        branch: String,
    },
    /// Open its records and write them to a folder.
    Export {
        /// Which.
        branch: String,
        /// The folder, made where it is not: an absolute path.
        to: PathBuf,
    },
    /// Write here again, from the branch's end on: the other site's history becomes a branch there.
    Adopt {
        /// Which.
        branch: String,
    },
    /// Delete it.
    Drop {
        /// Which.
        branch: String,
    },
}

/// Parameters of `swap`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Swap {
    /// Which place.
    pub slot: PluginSlot,
    /// Where the node finds the component: an absolute path.
    pub component: PathBuf,
    /// What its bytes must be.
    pub sha256: Digest,
    /// What it may beyond the ordinary.
    #[serde(default)]
    pub grants: Vec<Grant>,
    /// Its settings; `None`: those of the one before.
    #[serde(default)]
    pub config: Option<Value>,
    /// Say where its decisions would differ, and change nothing.
    #[serde(default)]
    pub dry_run: bool,
    /// Put it in although its decisions differ.
    #[serde(default)]
    pub accept: bool,
}

/// Done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct CommandReply {
    /// What was done, in one sentence.
    pub message: String,
    /// More, a line each; for a swap, where decisions differ.
    #[serde(default)]
    pub details: Vec<String>,
    /// What the operator may want to do now.
    #[serde(default)]
    pub next: Option<String>,
    /// What was asked for, where it has a form of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<Value>,
}

/// Not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ErrorReply {
    /// What kind of error.
    pub code: ErrorCode,
    /// What is wrong, in one sentence.
    pub message: String,
    /// What the operator can do.
    pub next: Option<String>,
}

/// What kind of error; each has its HTTP status and its exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorCode {
    /// 400: the request is malformed.
    BadRequest,
    /// 404: no such pair, command or page.
    NotFound,
    /// 409: not in this state, or forbidden by a limit.
    Refused,
    /// 500: it was tried and failed.
    Failed,
}

fn yes() -> bool {
    true
}

impl CommandReply {
    /// A reply of one sentence.
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), details: Vec::new(), next: None, report: None }
    }
}

impl PairCommand {
    /// The command's name in paths, messages and on the command line.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Rotate(_) => "rotate",
            Self::Suspect(_) => "suspect",
            Self::Pause(_) => "pause",
            Self::Resume => "resume",
            Self::SetMode(_) => "mode",
            Self::SetTransfer(_) => "transfer",
            Self::Throttle(_) => "throttle",
            Self::AddPreset(_) => "preset-add",
            Self::RemovePreset(_) => "preset-remove",
            Self::Rejoin => "rejoin",
            Self::SwapSides(_) => "swap-sides",
            Self::TakeBack => "take-back",
            Self::Declare => "declare",
            Self::Branch(_) => "branch",
            Self::TakeOver(_) => "takeover",
            Self::Scrub => "scrub",
            Self::Verify(_) => "verify",
            Self::Seed(_) => "seed",
            Self::CopyAll => "copy-all",
            Self::Escrow(_) => "escrow",
            Self::Swap(_) => "swap",
            Self::Plugin(_) => "plugin",
            Self::Key(_) => "key",
            Self::Recover(_) => "recover",
        }
    }
}

impl PluginSlot {
    /// Every slot, in the order of the configuration.
    pub const ALL: [Self; 4] = [Self::Cipher, Self::Policy, Self::Disguise, Self::Recovery];

    /// Its name in files and messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cipher => "cipher",
            Self::Policy => "policy",
            Self::Disguise => "disguise",
            Self::Recovery => "recovery",
        }
    }
}

impl fmt::Display for PluginSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Primary => "primary",
            Self::Secondary => "secondary",
        })
    }
}
