//! Recovery: how the copy is opened after a takeover. A strategy plans; the host finds, opens and verifies.

mod background;
mod chunks;
mod found;
mod written_last;

use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::bindings::exports::farseal::plugin::recovery as wit;
use crate::plugin::{self, Plugin, export_meta};
use crate::units::Instant;
use crate::{PluginError, stated};

pub use self::background::{Background, Pace};
pub use self::found::{FOUND, Found};
pub use self::written_last::{Awaited, WRITTEN_LAST};
pub use wit::{Action, Decision, Event, Extent, OnAccess, Outcome, Progress, Swept};

/// A recovery strategy.
pub trait Strategy: Plugin {
    /// Kept between calls as JSON, at most 64 KiB. `Default` is the state of a strategy that has seen nothing.
    type State: Default + Serialize + DeserializeOwned;

    /// Something happened. [`Event::Begin`] comes first, and again after every restart of the node.
    fn step(state: &mut Self::State, event: &Event, cx: &Context<'_, Self::Settings>, decisions: &mut Decisions);

    /// The first call on a volume. [`Event::Begin`] follows, so that nothing is decided here unless written otherwise.
    fn init(_cx: &Context<'_, Self::Settings>, _decisions: &mut Decisions) -> Self::State {
        Self::State::default()
    }
}

/// All that a strategy can know.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a, S> {
    pub now: Instant,
    pub volume: &'a str,
    pub settings: &'a S,
    pub volume_blocks: u64,
    pub progress: Progress,
    /// Drawn by the host for this event and journalled with it.
    pub entropy: u64,
}

/// The answer in the making: at most 64 decisions, of which at most 16 open.
#[derive(Debug, Default)]
pub struct Decisions {
    made: Vec<Decision>,
}

impl Decisions {
    /// Open in the background what is not open yet in this extent of at most 65 536 blocks.
    pub fn open(&mut self, extent: Extent, why: &str) {
        self.make(why, Action::Open(extent));
    }

    /// The rule for accesses to blocks that are not open yet.
    pub fn access(&mut self, rule: OnAccess, why: &str) {
        self.make(why, Action::Access(rule));
    }

    /// Have [`Event::Timer`] sent at this time.
    pub fn wake_at(&mut self, at: Instant, why: &str) {
        self.make(why, Action::WakeAt(at.as_millis()));
    }

    /// Nothing more to open in the background.
    pub fn finished(&mut self, why: &str) {
        self.make(why, Action::Finished);
    }

    /// Tell the operator.
    pub fn alert(&mut self, text: &str) {
        self.make("", Action::Alert(text.to_owned()));
    }

    /// Anything else; `why` may be empty where the action says it.
    pub fn make(&mut self, why: &str, action: Action) {
        self.made.push(Decision { why: why.to_owned(), action });
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
pub fn init<P: Strategy>(ctx: &wit::Context) -> Result<Outcome, PluginError> {
    let settings = plugin::settings::<P>(&ctx.config)?;
    let mut decisions = Decisions::default();
    let state = P::init(&context(ctx, &settings), &mut decisions);
    outcome::<P>(&state, decisions)
}

/// `step` as the host calls it.
///
/// # Errors
/// Wrong settings, or state that is not this plugin's.
pub fn step<P: Strategy>(state: &str, event: &Event, ctx: &wit::Context) -> Result<Outcome, PluginError> {
    let settings = plugin::settings::<P>(&ctx.config)?;
    let (mut state, _) = stated::decode::<P::State>(P::STATE_SCHEMA, state)?;
    let mut decisions = Decisions::default();
    P::step(&mut state, event, &context(ctx, &settings), &mut decisions);
    outcome::<P>(&state, decisions)
}

fn context<'a, S>(ctx: &'a wit::Context, settings: &'a S) -> Context<'a, S> {
    Context {
        now: Instant::from_millis(ctx.now),
        volume: &ctx.volume,
        settings,
        volume_blocks: ctx.volume_blocks,
        progress: ctx.progress,
        entropy: ctx.entropy,
    }
}

fn outcome<P: Strategy>(state: &P::State, decisions: Decisions) -> Result<Outcome, PluginError> {
    Ok(Outcome { state: stated::encode(P::STATE_SCHEMA, None, state)?, decisions: decisions.made })
}

/// A strategy as world `recovery-strategy` exports it.
#[doc(hidden)]
#[derive(Debug)]
pub struct Exported<P>(PhantomData<P>);

export_meta!(Strategy, Exported);

impl<P: Strategy> wit::Guest for Exported<P> {
    fn init(ctx: wit::Context) -> Result<Outcome, PluginError> {
        crate::log::catch_panics();
        init::<P>(&ctx)
    }

    fn step(state: String, event: Event, ctx: wit::Context) -> Result<Outcome, PluginError> {
        crate::log::catch_panics();
        step::<P>(&state, &event, &ctx)
    }
}

/// Makes a component of world `recovery-strategy` of a [`Strategy`].
#[macro_export]
macro_rules! export_recovery {
    ($strategy:ty) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            type Component = $crate::recovery::Exported<$strategy>;
    $crate::export_interfaces!(Component: meta, recovery);
        };
    };
}
