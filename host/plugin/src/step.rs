//! What policies and strategies have in common: each is a step function, whose calls are journalled as they are made, so
//! that they can be made again, by it or by another.

use std::fmt::Debug;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::fault::CallError;
use crate::host::Plugin;

/// A call as the node journals it: all that the answer depends on besides the component.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Call<C, E> {
    /// The first call of its life.
    Init {
        /// What it is shown.
        context: C,
    },
    /// Any later one.
    Step {
        /// What it returned last.
        state: String,
        /// What happened.
        event: E,
        /// What it is shown.
        context: C,
    },
}

impl<C, E> Call<C, E> {
    /// What it is shown.
    #[must_use]
    pub const fn context(&self) -> &C {
        match self {
            Self::Init { context } | Self::Step { context, .. } => context,
        }
    }

    /// As [`Call::context`].
    pub const fn context_mut(&mut self) -> &mut C {
        match self {
            Self::Init { context } | Self::Step { context, .. } => context,
        }
    }
}

/// A call of a kind of plugin.
pub type CallOf<P> = Call<<P as StepFunction>::Context, <P as StepFunction>::Event>;

/// A state and the decisions that came with it.
pub type Stepped<P> = (String, Vec<<P as StepFunction>::Decision>);

/// A plugin that is a function of its state and what happens: [`crate::RotationPolicy`], [`crate::Recovery`].
pub trait StepFunction: Plugin {
    /// What it is shown.
    type Context: Debug + Clone + PartialEq + Serialize + DeserializeOwned + Send;
    /// What happens.
    type Event: Debug + Clone + PartialEq + Serialize + DeserializeOwned + Send;
    /// What it decides.
    type Decision: Debug + Clone + PartialEq + Serialize + DeserializeOwned + Send;

    /// Makes a call.
    ///
    /// # Errors
    /// A refusal or a fault of the plugin; [`CallError::Input`] when the call passes the contract's bounds.
    fn make(&self, call: &CallOf<Self>) -> Result<Stepped<Self>, CallError>
    where
        Self: Sized;

    /// Makes the first call after another was in force, whose state is in it: as the node does after a swap.
    ///
    /// # Errors
    /// As for [`StepFunction::make`].
    fn follow(&self, before: &Self, call: &CallOf<Self>) -> Result<Stepped<Self>, CallError>
    where
        Self: Sized;

    /// When a call is made, in milliseconds since 1970.
    fn now(context: &Self::Context) -> u64;

    /// The settings that it is shown.
    fn config(context: &Self::Context) -> &str;

    /// As [`StepFunction::config`].
    fn config_mut(context: &mut Self::Context) -> &mut String;

    /// What happened, in words: one line, nothing that moves a cursor.
    fn event_words(event: &Self::Event) -> String;

    /// What is decided at this time, in words, without the reason.
    fn action_words(now: u64, decision: &Self::Decision) -> String;
}
