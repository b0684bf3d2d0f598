//! What members and lead say to each other, and what a console shows of a site. JSON, version 1.

use farseal_core::group::{CommonStatus, CutName, KeptCuts, LaneStanding, OfferLimit, Status as WriterStatus};
use farseal_core::units::{CutNumber, Millis, PairId, WallTime};
use serde::{Deserialize, Serialize};

use crate::control::api::{AddPreset, CommandReply, ErrorReply, NodeStatus, PauseStatus, PresetStatus, RemovePreset};
use crate::node::witness::Evidence;

/// From a member to its lead.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Report {
    /// Who it is and every pair that it has. First, and again when a pair's part changes.
    Hello {
        node: String,
        pairs: Vec<MemberPair>,
    },
    Stands {
        pair: PairId,
        standing: LaneStanding,
    },
    Cuts {
        pair: PairId,
        cuts: KeptCuts,
    },
    Opened {
        pair: PairId,
        cut: CutNumber,
    },
    Released {
        pair: PairId,
        cut: CutNumber,
        whole: bool,
    },
    /// Whether the pair can change sides now; if not, why.
    Ready {
        pair: PairId,
        obstacle: Option<String>,
    },
    /// Whether the pair can be taken over, at the point that was asked for; if not, why.
    CanTakeOver {
        pair: PairId,
        /// The question's.
        round: u64,
        obstacle: Option<String>,
        /// Which cut its name is here, where it was asked for one.
        #[serde(default)]
        cut: Option<CutNumber>,
    },
    /// What became of the word of a disaster at the pair's copy: why it is not taken over, or nothing.
    Declared {
        pair: PairId,
        refusal: Option<String>,
    },
    /// The main site of a copy here declares a disaster.
    Word {
        pair: PairId,
    },
    /// Neither the copy of a pair here nor its witness has heard the main site: the group is to be taken over by the witness rule.
    Unheard {
        pair: PairId,
        unheard: Box<Unheard>,
    },
    /// Its own status, once a second.
    Node(Box<NodeStatus>),
    Ask {
        id: u64,
        ask: Ask,
    },
}

/// On what a group is taken over by nobody's word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Unheard {
    /// The fingerprint of the main node that was not heard, as it is shown: another one needs a witness of its own.
    pub main: String,
    pub evidence: Evidence,
    /// For how long the statement is fresh enough, from now on.
    pub good_for: Millis,
}

/// A pair at a member.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct MemberPair {
    pub id: PairId,
    pub name: String,
    pub group: String,
    pub part: Part,
}

/// What a pair does at this site.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// Initiators write it here.
    Writes { standing: LaneStanding },
    /// Its copy is kept here; `None`: which cuts it holds is not known yet after a restart.
    Keeps { cuts: Option<KeptCuts> },
}

/// From the lead to a member.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    Open {
        pair: PairId,
        cut: CutNumber,
        lanes: u16,
    },
    Release {
        pair: PairId,
        cut: CutNumber,
    },
    Confirm {
        pair: PairId,
        cut: CutNumber,
        lanes: u16,
        name: Option<CutName>,
    },
    Pause {
        pair: PairId,
    },
    Resume {
        pair: PairId,
    },
    /// Find out whether the pair can change sides, and make it so where that takes time.
    PrepareTurn {
        pair: PairId,
    },
    /// Its new writes wait until one of the next two.
    Quiesce {
        pair: PairId,
    },
    GoOn {
        pair: PairId,
    },
    /// Change sides.
    HandOver {
        pair: PairId,
    },
    Limit {
        pair: PairId,
        limit: OfferLimit,
    },
    /// Say to the copy that this site is lost.
    Declare {
        pair: PairId,
    },
    /// Find out whether the pair can be taken over as it was at this cut, and keep that point.
    PrepareTakeOver {
        pair: PairId,
        /// What the answer names: one that came late is not taken for another's.
        round: u64,
        at: Option<CutName>,
        /// By the main site's word: keys that are with the escrow site may come later.
        #[serde(default)]
        by_word: bool,
        /// By nobody's word: the pair's own lane must have been silent, too.
        #[serde(default)]
        unheard: Option<Box<Unheard>>,
    },
    /// All pairs can be taken over by the witness rule: has this lane been silent until now?
    StillUnheard {
        pair: PairId,
        round: u64,
        silence: Millis,
    },
    /// Nothing comes of the main site's word.
    RefuseWord {
        pair: PairId,
    },
    /// Nothing comes of it: the point need not be kept.
    DropTakeOver {
        pair: PairId,
    },
    /// Take over at the cut that the limit before it named; the volume as it was at the point that was prepared.
    TakeOver {
        pair: PairId,
        #[serde(default)]
        at: Option<CutName>,
    },
    Status(SiteStatus),
    Answer {
        id: u64,
        reply: Reply,
    },
}

/// What an operator asks the lead, from any node.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ask {
    View,
    Group { group: String, command: GroupCommand },
}

/// What an operator tells a group.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GroupCommand {
    /// Make a cut now.
    Cut { name: Option<CutName> },
    /// Bring all pairs to one cut at both sites and keep them there.
    Pause {
        /// Answer when both sites are there.
        wait: bool,
        /// Who asks; `None`: an operator.
        #[serde(default)]
        by: Option<String>,
        /// Resume by itself after this.
        #[serde(default)]
        span: Option<Millis>,
    },
    /// Go on after a pause; or end a change of sides that does not come to its end.
    Resume,
    /// Hand all pairs over to the other site, at one cut.
    SwapSides,
    /// Have the group pause by itself.
    AddPreset(AddPreset),
    /// No longer.
    RemovePreset(RemovePreset),
    /// Make all copies here, at one cut, the side that writes.
    TakeOver {
        /// The volumes as they were at this earlier cut.
        at: Option<CutName>,
    },
    /// This site is lost, or about to be: the other one is to take all pairs over.
    Declare,
    /// A pair whose node is gone for good is no longer waited for.
    Forget { pair: String },
}

/// The lead's answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    Done(CommandReply),
    No(ErrorReply),
    View(Box<SiteView>),
}

/// A whole site, through its lead.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SiteView {
    pub site: SiteStatus,
    /// Each node as it was when the lead last heard of it.
    pub nodes: Vec<NodeStatus>,
}

/// The groups of a site.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SiteStatus {
    /// The lead's node.
    pub lead: String,
    pub at: WallTime,
    /// Nodes that the lead can speak to.
    pub nodes: Vec<String>,
    pub groups: Vec<GroupStatus>,
}

/// A group at this site.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct GroupStatus {
    pub name: String,
    pub pairs: Vec<GroupPair>,
    /// Between two cuts; `None`: none are made by themselves.
    pub interval: Option<Millis>,
    /// At the site that writes.
    pub writes: Option<WriterStatus>,
    /// At the site that keeps.
    pub keeps: Option<CommonStatus>,
    /// A takeover at this cut is under way.
    pub taking_over: Option<CutNumber>,
    /// Named cuts, oldest first.
    pub named: Vec<Named>,
    /// Whose pause it is, where it is somebody's.
    #[serde(default)]
    pub pause: Option<PauseStatus>,
    #[serde(default)]
    pub presets: Vec<PresetStatus>,
}

/// A cut that an operator named.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Named {
    pub name: CutName,
    pub cut: CutNumber,
    pub wall: WallTime,
}

/// A pair of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct GroupPair {
    pub id: PairId,
    pub name: String,
    pub node: String,
    /// Its node can be spoken to, and has said how the pair is.
    pub there: bool,
}

impl GroupCommand {
    /// The command's name in paths, messages and on the command line.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Cut { .. } => "cut",
            Self::Pause { .. } => "pause",
            Self::Resume => "resume",
            Self::SwapSides => "swap-sides",
            Self::AddPreset(_) => "preset-add",
            Self::RemovePreset(_) => "preset-remove",
            Self::TakeOver { .. } => "takeover",
            Self::Declare => "declare",
            Self::Forget { .. } => "forget",
        }
    }
}

impl SiteStatus {
    /// The group of several pairs that this one is in.
    #[must_use]
    pub fn group_of(&self, pair: PairId) -> Option<&GroupStatus> {
        self.groups.iter().find(|group| group.pairs.len() > 1 && group.pairs.iter().any(|each| each.id == pair))
    }
}
