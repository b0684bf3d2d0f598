//! What the node does for whoever operates it. The server knows nothing more of the node than this.

use std::future::Future;
use std::pin::Pin;

use super::api::{
    CommandReply, ErrorCode, ErrorReply, EscrowAnswer, EscrowView, GroupCommand, NodeStatus, PairCommand, PluginStatus,
    SiteView,
};

/// A future that owns its type.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A node, as its operator sees it.
pub trait Operator: Send + Sync + 'static {
    /// Everything, as it is now. Quick: called for each `status` and each scrape.
    fn status(&self) -> NodeStatus;

    /// Carries out a command on a pair. Returns when it took effect, or when `wait` says so.
    fn command(&self, pair: &str, command: PairCommand) -> BoxFuture<'_, Result<CommandReply, CommandError>>;

    /// Carries out a command on a group, through the site's lead.
    fn group(&self, group: &str, command: GroupCommand) -> BoxFuture<'_, Result<CommandReply, CommandError>>;

    /// The whole site, as its lead knows it.
    fn site(&self) -> BoxFuture<'_, Result<SiteView, CommandError>>;

    /// What this node holds and was asked for, as an escrow site.
    ///
    /// # Errors
    /// [`CommandError`].
    fn escrow(&self) -> Result<EscrowView, CommandError>;

    /// Says yes or no to a request for keys.
    ///
    /// # Errors
    /// [`CommandError`].
    fn escrow_answer(&self, answer: EscrowAnswer) -> Result<CommandReply, CommandError>;

    /// Every plugin of every pair.
    fn plugins(&self) -> Vec<PluginStatus>;

    /// Appends samples in Prometheus' text format to those that the status yields. No epoch numbers: whoever
    /// may read metrics must not learn when a key changed.
    fn metrics(&self, out: &mut String);
}

/// Why a command was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// No such pair.
    #[error("there is no pair {pair:?} here")]
    NoSuchPair {
        /// What was asked for.
        pair: String,
    },
    /// The command is for the other side.
    #[error("{command} is for the {needs} of a pair; this node is the {is} of {pair}")]
    OtherSide {
        /// The pair.
        pair: String,
        /// The command's name.
        command: &'static str,
        /// The role that it needs.
        needs: super::api::Role,
        /// The role here.
        is: super::api::Role,
    },
    /// The pair is in a state in which the command makes no sense.
    #[error("pair {pair} is {state}; {command} does nothing there")]
    WrongState {
        /// The pair.
        pair: String,
        /// The command's name.
        command: &'static str,
        /// The state, in plain words.
        state: String,
        /// The command that would lead on, such as `farseal resume vault-1`.
        would: Option<String>,
    },
    /// It is for a whole group, and the pair has others in its own.
    #[error("pair {pair} is in group {group} with others: one alone would not agree with them")]
    Grouped {
        /// The pair.
        pair: String,
        /// Its group.
        group: String,
        /// The command's name.
        command: &'static str,
    },
    /// The site's lead cannot be asked, or says no.
    #[error("{}", .0.message)]
    Lead(ErrorReply),
    /// The command makes sense, and a limit, the policy or a missing partner forbids it.
    #[error("{reason}")]
    Refused {
        /// Who forbids it, and why.
        reason: String,
        /// What the operator can do.
        next: Option<String>,
    },
    /// A parameter is wrong.
    #[error("{parameter}: {reason}")]
    BadParameter {
        /// Which.
        parameter: &'static str,
        /// Why, and what is allowed.
        reason: String,
    },
    /// The policy does not rotate now. It is asked once: what it does with the request is its own business.
    #[error("the policy {policy} holds the request; it looks again {looks}{}", why.as_ref().map(|why| format!(": {why}")).unwrap_or_default())]
    Held {
        /// The pair.
        pair: String,
        /// The policy's name.
        policy: String,
        /// When it is asked again, for people.
        looks: String,
        /// In its own words.
        why: Option<String>,
    },
    /// It began and was not done in time; it may still be.
    #[error("{what} is not done yet; it goes on")]
    NotYet {
        /// What was waited for.
        what: String,
    },
    /// It failed.
    #[error("{reason}")]
    Failed {
        /// Why.
        reason: String,
        /// What the operator can do.
        next: Option<String>,
    },
}

impl CommandError {
    /// What the client is told.
    #[must_use]
    pub fn reply(&self) -> ErrorReply {
        let (code, next) = match self {
            Self::NoSuchPair { .. } => (ErrorCode::NotFound, Some("`farseal status` lists the pairs".to_owned())),
            Self::OtherSide { needs, .. } => (ErrorCode::Refused, Some(format!("run it on the {needs}'s node"))),
            Self::WrongState { would, .. } => {
                (ErrorCode::Refused, would.as_ref().map(|would| format!("run `{would}`")))
            }
            Self::Grouped { group, command: "preset-add", .. } => {
                let next = format!("run `farseal preset add --group {group}`: the pairs of a group pause together");
                (ErrorCode::Refused, Some(next))
            }
            Self::Grouped { group, command: "declare", .. } => {
                let next = format!(
                    "run `farseal disaster declare --group {group}`: the pairs of a group are taken over together"
                );
                (ErrorCode::Refused, Some(next))
            }
            Self::Grouped { pair, group, command } => {
                let command = if *command == "swap-sides" { "swap" } else { *command };
                let next = format!("run `farseal {command} --group {group}`, or `farseal {command} {pair} --alone`");
                (ErrorCode::Refused, Some(next))
            }
            Self::Lead(reply) => (reply.code, reply.next.clone()),
            Self::Refused { next, .. } => (ErrorCode::Refused, next.clone()),
            Self::BadParameter { .. } => (ErrorCode::BadRequest, None),
            Self::Held { pair, .. } => {
                let next = format!(
                    "wait for it (`farseal key policy {pair}` tells what it decides), or `farseal rotate {pair} --force`: that does not ask"
                );
                (ErrorCode::Refused, Some(next))
            }
            Self::NotYet { .. } => {
                (ErrorCode::Refused, Some("`farseal status --watch` shows how far it is".to_owned()))
            }
            Self::Failed { next, .. } => (ErrorCode::Failed, next.clone()),
        };
        ErrorReply { code, message: self.to_string(), next }
    }
}
