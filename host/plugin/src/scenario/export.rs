//! From a node's journal to a scenario: what a policy or strategy was really asked becomes a story for it and for others. Names of
//! pairs and what people wrote are replaced; times, counts and settings are not.

use std::fmt::Write as _;

use super::journalled::{Journalled, OWN, deeds};
use super::units::instant;
use crate::fault::CallError;
use crate::step::{Call, CallOf, StepFunction};

pub use super::journalled::Told;

/// What stands for a pair's name.
const PAIR: &str = "pair";
/// Bytes below which a name may well be part of a word.
const SHORT: usize = 4;

/// A call and its answer, as journalled.
#[derive(Debug, Clone, PartialEq)]
pub struct Made<C, E, D> {
    /// What was asked.
    pub call: Call<C, E>,
    /// What was answered.
    pub decisions: Vec<D>,
}

/// Of a kind of plugin.
pub type MadeBy<P> = Made<<P as StepFunction>::Context, <P as StepFunction>::Event, <P as StepFunction>::Decision>;

/// A story, and how far the policy still decides as the journal has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// The scenario, ready for `fixtures/rotation`.
    pub yaml: String,
    /// Calls that are decided otherwise now: none, unless the journal is not this component's or rule R-1 is broken.
    pub otherwise: u64,
}

/// The journal cannot be made a story.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ExportError {
    /// There is nothing in it.
    #[error("the plugin in force has answered no call yet")]
    Empty,
    /// The plugin fails on a journalled call.
    #[error("journalled call {call} ends otherwise now: {error}")]
    Fails {
        /// Which, from 0.
        call: usize,
        /// How.
        error: CallError,
    },
    /// A call that has no form in JSON.
    #[error("journalled call {call} cannot be written: {reason}")]
    Form {
        /// Which, from 0.
        call: usize,
        /// Why.
        reason: String,
    },
}

/// Makes a story of journalled calls, which this plugin answered with the settings that it has now.
///
/// # Errors
/// [`ExportError`].
pub fn export<P: Told>(plugin: &P, made: &[MadeBy<P>]) -> Result<Exported, ExportError> {
    let first = made.first().ok_or(ExportError::Empty)?;
    let names = Names::of::<P>(made);
    let mut yaml = heading(plugin, first.call.context(), made.len());
    let mut own: Option<String> = None;
    let mut otherwise = 0;
    for (index, Made { call, decisions }) in made.iter().enumerate() {
        let (state, now) = plugin.make(call).map_err(|error| ExportError::Fails { call: index, error })?;
        let did = deeds::<P>(decisions);
        otherwise += u64::from(did != deeds::<P>(&now));
        let follows = matches!(call, Call::Step { state, .. } if own.as_deref() == Some(state));
        let mut call = names.hidden::<P>(call);
        if let Call::Step { state, .. } = &mut call
            && follows
        {
            // What the plugin makes of the hidden names itself.
            OWN.clone_into(state);
        }
        P::config_mut(call.context_mut()).clear();
        own = Some(state);
        let line = serde_json::to_string(&Journalled { call, did });
        let line = line.map_err(|error| ExportError::Form { call: index, reason: error.to_string() })?;
        // Writing to a string cannot fail.
        let _ = writeln!(yaml, "  - journalled: {line}");
    }
    // What is decided otherwise now is decided so in the story, too.
    let _ = write!(yaml, "expect:\n  differences: {otherwise}\n");
    Ok(Exported { yaml, otherwise })
}

fn heading<P: Told>(plugin: &P, first: &P::Context, calls: usize) -> String {
    let facts = plugin.facts();
    format!(
        "about: What a node's plugin was asked from {} on, {calls} calls, as its journal has it.\n\
         kind: {}\nplugins: [{}]\nconfig: {}\n{}timeline:\n",
        instant(P::now(first) / 1_000 * 1_000),
        P::KIND.name(),
        facts.about.name,
        facts.config,
        P::node(first),
    )
}

/// What is replaced, and by what: the same name by the same one everywhere.
struct Names(Vec<(String, String)>);

impl Names {
    fn of<P: Told>(made: &[MadeBy<P>]) -> Self {
        let mut names: Vec<(String, String)> = Vec::new();
        let mut texts = 0;
        for Made { call, .. } in made {
            let mut call = call.clone();
            let pair = P::named(call.context_mut());
            if !names.iter().any(|(name, _)| name == pair) {
                names.push((pair.clone(), PAIR.into()));
            }
            if let Call::Step { event, .. } = &mut call
                && let Some(text) = P::written(event).filter(|text| !text.is_empty())
                && !names.iter().any(|(name, _)| name == text)
            {
                texts += 1;
                names.push((text.clone(), format!("text {texts}")));
            }
        }
        // The longest first: one may be part of another.
        names.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        Self(names)
    }

    fn instead_of(&self, text: &str) -> String {
        let found = self.0.iter().find(|(name, _)| name == text);
        found.map_or_else(|| text.to_owned(), |(_, instead)| instead.clone())
    }

    /// Wherever it stands in a text of the host's or the policy's own; a short one only where it is a JSON string.
    fn within(&self, text: &str) -> String {
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let put = |text: String, (name, instead): &(String, String)| {
            let (name, instead) = (quoted(name), quoted(instead));
            let bare = (name.trim_matches('"'), instead.trim_matches('"'));
            if bare.0.len() < SHORT { text.replace(&name, &instead) } else { text.replace(bare.0, bare.1) }
        };
        self.0.iter().fold(text.to_owned(), put)
    }

    fn hidden<P: Told>(&self, call: &CallOf<P>) -> CallOf<P> {
        let mut call = call.clone();
        if let Call::Step { state, event, .. } = &mut call {
            *state = self.within(state);
            if let Some(text) = P::written(event) {
                *text = self.instead_of(text);
            }
            if let Some(text) = P::said(event) {
                *text = self.within(text);
            }
        }
        let name = P::named(call.context_mut());
        *name = self.instead_of(name);
        call
    }
}
