//! Calls that a node journalled, as lines of a story: what was asked then, and what was decided.

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Serialize};

use crate::step::{Call, StepFunction};

/// A state that says: what the plugin returned last.
pub(super) const OWN: &str = "own";

/// A call as the journal has it, and what was decided then.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Journalled<C, E> {
    /// Its settings are left empty: a story has its own.
    pub(super) call: Call<C, E>,
    /// The actions, as [`Told::deed`] writes them.
    pub(super) did: Vec<String>,
}

/// Of a kind of plugin.
pub(super) type JournalledOf<P> = Journalled<<P as StepFunction>::Context, <P as StepFunction>::Event>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Form<C, E> {
    call: Call<C, E>,
    did: Vec<String>,
}

impl<'de, C: DeserializeOwned, E: DeserializeOwned> Deserialize<'de> for Journalled<C, E> {
    /// By way of JSON: a call is one line of it, as in the node's journal.
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        let Form { call, did } = serde_json::from_value(value).map_err(D::Error::custom)?;
        Ok(Self { call, did })
    }
}

/// How a kind's calls are told in a story.
pub trait Told: StepFunction {
    /// What a decision does, without the words that people and plugins put in it.
    fn deed(decision: &Self::Decision) -> String;

    /// The name of the pair or volume, which a story hides.
    fn named(context: &mut Self::Context) -> &mut String;

    /// What a person wrote.
    fn written(event: &mut Self::Event) -> Option<&mut String>;

    /// What the host says, in which names may stand.
    fn said(event: &mut Self::Event) -> Option<&mut String>;

    /// The lines of a story that say what the node is like.
    fn node(first: &Self::Context) -> String;
}

pub(super) fn deeds<P: Told>(decisions: &[P::Decision]) -> Vec<String> {
    decisions.iter().map(P::deed).collect()
}

/// The journalled call as it is made now: with the story's settings, and the state that came last where it says so.
pub(super) fn made_now<P: Told>(
    journalled: &JournalledOf<P>,
    plugin: &P,
    last: Option<&String>,
) -> Call<P::Context, P::Event> {
    let mut call = journalled.call.clone();
    if let Call::Step { state, .. } = &mut call
        && state == OWN
    {
        *state = last.cloned().unwrap_or_default();
    }
    P::config_mut(call.context_mut()).clone_from(&plugin.facts().config);
    call
}

pub(super) fn words(deeds: &[String]) -> String {
    if deeds.is_empty() { "nothing".into() } else { crate::fault::escaped(&deeds.join(", ")) }
}
