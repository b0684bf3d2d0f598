//! Rotation: when to change the key. A policy is a state machine that is told what happened and answers with
//! decisions; it never waits, and it has no clock but the one in its [`Context`].

use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::bindings::exports::farseal::plugin::rotation as wit;
use crate::plugin::{self, Plugin, export_meta};
use crate::units::{Instant, Size, Span};
use crate::{PluginError, stated};

pub use wit::{
    Action, Decided, Decision, Event, HostLimits, How, KeyInfo, KeyState, Outcome, OutcomeOfDecision, Watch,
};

/// A rotation policy.
pub trait Policy: Plugin {
    /// Kept between calls as JSON, at most 64 KiB. `Default` is the state of a policy that has seen nothing.
    type State: Default + Serialize + DeserializeOwned;

    /// Something happened. May come late, twice, or with a clock that stepped: decide from `cx` what is due.
    fn step(state: &mut Self::State, event: &Event, cx: &Context<'_, Self::Settings>, decisions: &mut Decisions);

    /// The first call on a pair. As [`Event::Started`] unless written otherwise.
    fn init(cx: &Context<'_, Self::Settings>, decisions: &mut Decisions) -> Self::State {
        let mut state = Self::State::default();
        Self::step(&mut state, &Event::Started, cx, decisions);
        state
    }

    /// Reads the state that an older version of this plugin kept under schema `from`.
    ///
    /// # Errors
    /// What is wrong with it; the host may start afresh.
    fn migrate(from: u32, _own: serde_json::Value) -> Result<Self::State, String> {
        Err(format!("there is no way from schema {from}"))
    }
}

/// All that a policy can know.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a, S> {
    pub now: Instant,
    /// The pair's name as the operator wrote it.
    pub pair: &'a str,
    /// Drawn by the host for this event and journalled with it: jitter that replays.
    pub entropy: u64,
    pub settings: &'a S,
    /// Newest first; at most 16.
    pub keys: &'a [KeyInfo],
    /// The hard limits around every policy.
    pub limits: HostLimits,
    /// Could a key be delivered now?
    pub link_up: bool,
}

impl<S> Context<'_, S> {
    /// The key that seals: the active one, or the newest suspect one while nothing has replaced it.
    #[must_use]
    pub fn sealing(&self) -> Option<&KeyInfo> {
        let active = self.keys.iter().find(|key| matches!(key.state, KeyState::Active));
        active.or_else(|| self.keys.iter().find(|key| matches!(key.state, KeyState::Suspect)))
    }

    /// A key that is drawn and on its way.
    #[must_use]
    pub fn delivering(&self) -> Option<&KeyInfo> {
        self.keys.iter().find(|key| matches!(key.state, KeyState::Delivering))
    }

    /// No two rotations begin closer together than this.
    #[must_use]
    pub const fn floor(&self) -> Span {
        Span::from_millis(self.limits.min_interval)
    }

    /// The host wakes no sooner than a second from the call. An earlier wake-up is clamped, and the policy told: where it answers with
    /// the same again it talks to itself.
    #[must_use]
    pub fn soonest_wake(&self) -> Instant {
        self.now + Span::from_millis(1_000)
    }

    /// The host changes the key at this age whatever the policy says.
    #[must_use]
    pub const fn ceiling(&self) -> Span {
        Span::from_millis(self.limits.max_age)
    }
}

impl KeyInfo {
    /// When it became active; when it was drawn, if it has not yet. May lie ahead of `now`.
    #[must_use]
    pub const fn born(&self) -> Instant {
        Instant::from_millis(self.since)
    }

    #[must_use]
    pub const fn sealed(&self) -> Size {
        Size::from_bytes(self.bytes_sealed)
    }
}

/// The answer in the making. Decisions are carried out in the order made; each has an id of its own.
#[derive(Debug)]
pub struct Decisions {
    next: u64,
    made: Vec<Decision>,
}

impl Decisions {
    /// Starts numbering at `next`.
    #[must_use]
    pub const fn from_id(next: u64) -> Self {
        Self { next, made: Vec::new() }
    }

    /// Ask for a new key, as the pair is configured to change it. The reason is shown to the operator. Returns the
    /// id under which the outcome comes back as [`Event::Decided`].
    pub fn rotate(&mut self, reason: &str) -> u64 {
        self.make("", Action::Rotate(wit::Rotate { how: How::AsConfigured, reason: reason.to_owned() }))
    }

    /// Have [`Event::Timer`] sent at this time, instead of any time asked for before.
    pub fn wake_at(&mut self, at: Instant, why: &str) {
        self.make(why, Action::WakeAt(at.as_millis()));
    }

    /// Have [`Event::Usage`] sent once, when the active key has sealed this much; replaces the mark set before.
    pub fn watch_bytes(&mut self, size: Size, why: &str) {
        self.make(why, Action::Watch(Watch { bytes: Some(size.as_bytes()), blocks: None }));
    }

    /// Tell the operator.
    pub fn alert(&mut self, text: &str) {
        self.make("", Action::Alert(text.to_owned()));
    }

    /// Anything else; `why` may be empty where the action says it.
    pub fn make(&mut self, why: &str, action: Action) -> u64 {
        let id = self.next;
        self.next += 1;
        self.made.push(Decision { id, why: why.to_owned(), action });
        id
    }

    /// What was decided so far.
    #[must_use]
    pub fn as_slice(&self) -> &[Decision] {
        &self.made
    }
}

/// `init` as the host calls it: text in, text out.
///
/// # Errors
/// Wrong settings.
pub fn init<P: Policy>(ctx: &wit::Context) -> Result<Outcome, PluginError> {
    let settings = plugin::settings::<P>(&ctx.config)?;
    let mut decisions = Decisions::from_id(1);
    let state = P::init(&context(ctx, &settings), &mut decisions);
    outcome::<P>(&state, decisions)
}

/// `step` as the host calls it.
///
/// # Errors
/// Wrong settings, or state that is not this plugin's.
pub fn step<P: Policy>(state: &str, event: &Event, ctx: &wit::Context) -> Result<Outcome, PluginError> {
    let settings = plugin::settings::<P>(&ctx.config)?;
    let (mut state, next) = stated::decode::<P::State>(P::STATE_SCHEMA, state)?;
    let mut decisions = Decisions::from_id(next.unwrap_or(1));
    P::step(&mut state, event, &context(ctx, &settings), &mut decisions);
    outcome::<P>(&state, decisions)
}

/// `migrate` as the host calls it.
///
/// # Errors
/// State that is not this plugin's, or of a schema that it does not know.
pub fn migrate<P: Policy>(from: u32, state: &str) -> Result<String, PluginError> {
    let (own, next) = stated::decode_older(from, state)?;
    let state = if from == P::STATE_SCHEMA {
        serde_json::from_value(own).map_err(|error| PluginError::InvalidState(error.to_string()))?
    } else {
        P::migrate(from, own).map_err(PluginError::InvalidState)?
    };
    stated::encode(P::STATE_SCHEMA, next, &state)
}

fn context<'a, S>(ctx: &'a wit::Context, settings: &'a S) -> Context<'a, S> {
    Context {
        now: Instant::from_millis(ctx.now),
        pair: &ctx.pair,
        entropy: ctx.entropy,
        settings,
        keys: &ctx.keys,
        limits: ctx.limits,
        link_up: ctx.link_up,
    }
}

fn outcome<P: Policy>(state: &P::State, decisions: Decisions) -> Result<Outcome, PluginError> {
    let state = stated::encode(P::STATE_SCHEMA, Some(decisions.next), state)?;
    Ok(Outcome { state, decisions: decisions.made })
}

/// A policy as world `rotation-policy` exports it.
#[doc(hidden)]
#[derive(Debug)]
pub struct Exported<P>(PhantomData<P>);

export_meta!(Policy, Exported);

impl<P: Policy> wit::Guest for Exported<P> {
    fn init(ctx: wit::Context) -> Result<Outcome, PluginError> {
        crate::log::catch_panics();
        init::<P>(&ctx)
    }

    fn step(state: String, event: Event, ctx: wit::Context) -> Result<Outcome, PluginError> {
        crate::log::catch_panics();
        step::<P>(&state, &event, &ctx)
    }

    fn migrate(from_schema: u32, state: String) -> Result<String, PluginError> {
        crate::log::catch_panics();
        migrate::<P>(from_schema, &state)
    }
}

/// Makes a component of world `rotation-policy` of a [`Policy`].
#[macro_export]
macro_rules! export_rotation {
    ($policy:ty) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            type Component = $crate::rotation::Exported<$policy>;
    $crate::export_interfaces!(Component: meta, rotation);
        };
    };
}
