//! What the daemon holds: a place for one plugin of a kind, which always answers, says who did, and can be given
//! another plugin while it works.

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::breaker::Breaker;
use crate::cipher::{Cipher, CipherWorker};
use crate::disguise::Disguise;
use crate::fallback;
use crate::fault::{CallError, Called, FaultClass, LogLine, escaped};
use crate::host::Plugin;
use crate::kind::Digest;
use crate::recovery::Recovery;
use crate::rotation::RotationPolicy;
use crate::wit::types::PluginError;
use crate::wit::{cipher, disguise, recovery, rotation};

/// A place for one plugin: the plugin in force, its standing with the breaker, and the native answer behind it.
#[derive(Debug)]
pub struct Slot<P> {
    name: String,
    current: RwLock<Option<Arc<P>>>,
    breaker: Arc<Breaker>,
    stood_in: Mutex<Option<StoodIn>>,
}

/// How often the host answered because a plugin failed or refused, since this one was put in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoodIn {
    /// The plugin.
    pub digest: Digest,
    /// At least 1.
    pub times: u64,
    /// Why, the last time: made safe for a terminal, at most 400 characters.
    pub last: String,
}

/// Of [`StoodIn::last`].
const REASON_CHARS: usize = 400;

/// An answer, who gave it, and what it cost.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer<T> {
    /// The answer, within the contract's bounds whoever gave it.
    pub value: T,
    /// Who gave it.
    pub by: By,
    /// What the plugin logged, also when the fallback answers.
    pub logs: Vec<LogLine>,
    /// Units of fuel that the plugin used.
    pub fuel: u64,
}

/// Who answered.
#[derive(Debug, Clone, PartialEq)]
pub enum By {
    /// The plugin with this digest.
    Plugin(Digest),
    /// The host's own code, because the plugin did not.
    Fallback(Because),
}

/// Why the plugin did not answer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Because {
    /// The slot is empty.
    #[error("the slot has no plugin")]
    NoPlugin,
    /// It failed too often.
    #[error("plugin {} is in quarantine; `farseal plugin release` lets it run again", .0.short())]
    Quarantined(Digest),
    /// It failed this time, or refused.
    #[error("{error}{}", if *.quarantined { "; this was one fault too many: quarantined" } else { "" })]
    Failed {
        /// How.
        error: CallError,
        /// Whether this fault put it in quarantine: worth an alert and storing [`Breaker::state`].
        quarantined: bool,
    },
}

impl Because {
    /// The fault's class, if a fault it was.
    #[must_use]
    pub const fn class(&self) -> Option<FaultClass> {
        match self {
            Self::Failed { error, .. } => error.class(),
            Self::NoPlugin | Self::Quarantined(_) => None,
        }
    }
}

impl<P: Plugin> Slot<P> {
    /// An empty slot. All slots of a node share one breaker.
    #[must_use]
    pub fn new(name: impl Into<String>, breaker: Arc<Breaker>) -> Self {
        Self { name: name.into(), current: RwLock::new(None), breaker, stood_in: Mutex::new(None) }
    }

    /// The slot's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The plugin in force.
    #[must_use]
    pub fn current(&self) -> Option<Arc<P>> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts a plugin in force, or none. Calls under way end with the one before, which is returned for a way back.
    pub fn install(&self, plugin: Option<Arc<P>>) -> Option<Arc<P>> {
        *self.stood_in.lock().unwrap_or_else(PoisonError::into_inner) = None;
        std::mem::replace(&mut self.current.write().unwrap_or_else(PoisonError::into_inner), plugin)
    }

    fn usable(&self) -> Result<Arc<P>, Because> {
        let plugin = self.current().ok_or(Because::NoPlugin)?;
        let digest = plugin.facts().digest;
        if self.breaker.allows(&digest) { Ok(plugin) } else { Err(Because::Quarantined(digest)) }
    }

    fn judge(&self, plugin: &P, now: u64, error: CallError) -> Because {
        let quarantined = error.class().is_some_and(|class| self.breaker.strike(plugin.facts().digest, now, class));
        Because::Failed { error, quarantined }
    }

    /// Whether and why the host had to answer in place of the plugin in force: also where it only refused, which counts for
    /// nothing with the breaker.
    #[must_use]
    pub fn stood_in(&self) -> Option<StoodIn> {
        let digest = self.current()?.facts().digest;
        let stood_in = self.stood_in.lock().unwrap_or_else(PoisonError::into_inner).clone();
        stood_in.filter(|stood_in| stood_in.digest == digest)
    }

    fn ask<T>(
        &self,
        now: u64,
        call: impl FnOnce(&P) -> Result<Called<T>, CallError>,
        fallback: impl FnOnce() -> T,
    ) -> Answer<T> {
        self.try_ask(now, call).unwrap_or_else(|because| {
            self.stand_in(&because);
            Answer { value: fallback(), logs: logs_of(&because), by: By::Fallback(because), fuel: 0 }
        })
    }

    fn stand_in(&self, because: &Because) {
        let (Because::Failed { error, .. }, Some(plugin)) = (because, self.current()) else { return };
        let digest = plugin.facts().digest;
        let last = escaped(&error.to_string()).chars().take(REASON_CHARS).collect();
        let mut stood_in = self.stood_in.lock().unwrap_or_else(PoisonError::into_inner);
        let before =
            stood_in.as_ref().filter(|stood_in| stood_in.digest == digest).map_or(0, |stood_in| stood_in.times);
        *stood_in = Some(StoodIn { digest, times: before.saturating_add(1), last });
    }

    fn try_ask<T>(
        &self,
        now: u64,
        call: impl FnOnce(&P) -> Result<Called<T>, CallError>,
    ) -> Result<Answer<T>, Because> {
        let plugin = self.usable()?;
        match call(&plugin) {
            Ok(called) => Ok(Answer {
                value: called.value,
                by: By::Plugin(plugin.facts().digest),
                logs: called.logs,
                fuel: called.fuel,
            }),
            Err(error) => Err(self.judge(&plugin, now, error)),
        }
    }
}

fn logs_of(because: &Because) -> Vec<LogLine> {
    match because {
        Because::Failed { error, .. } => error.logs().to_vec(),
        Because::NoPlugin | Because::Quarantined(_) => Vec::new(),
    }
}

impl Slot<RotationPolicy> {
    /// [`RotationPolicy::init`], or the ceiling policy.
    pub fn init(&self, now: u64, context: &rotation::Context) -> Answer<rotation::Outcome> {
        self.ask(now, |policy| policy.init(&with_config(policy, context)), || fallback::rotation("", None, context))
    }

    /// [`RotationPolicy::step`], or the ceiling policy; the state then stays as it was. A policy that says that the
    /// state is not its own is started afresh.
    pub fn step(
        &self,
        now: u64,
        state: &str,
        event: &rotation::Event,
        context: &rotation::Context,
    ) -> Answer<rotation::Outcome> {
        self.ask(
            now,
            |policy| match policy.step(state, event, &with_config(policy, context)) {
                // A state that is not its own: start afresh (`types.wit`), since no policy at all is worse.
                Err(CallError::Refused { error: PluginError::InvalidState(_), .. }) => {
                    policy.init(&with_config(policy, context))
                }
                other => other,
            },
            || fallback::rotation(state, Some(event), context),
        )
    }
}

fn with_config(policy: &RotationPolicy, context: &rotation::Context) -> rotation::Context {
    rotation::Context { config: policy.facts().config.clone(), ..context.clone() }
}

impl Slot<Disguise> {
    /// [`Disguise::plan`], or one plain slot.
    pub fn plan(
        &self,
        now: u64,
        recent: &[disguise::Seen],
        smallest: u32,
        seed: &[u8; 32],
    ) -> Answer<Vec<disguise::Slot>> {
        self.ask(now, |plugin| plugin.plan(recent, smallest, seed), || fallback::disguise_plan(smallest))
    }

    /// [`Disguise::embed`], or the plain form. `None` when the payload fits neither: take a longer cover. The
    /// record's header must say which of the two it is ([`Answer::by`]).
    pub fn embed(&self, now: u64, cover: &[u8], payload: &[u8], seed: &[u8; 32]) -> Answer<Option<Vec<u8>>> {
        self.ask(
            now,
            |plugin| plugin.embed(cover, payload, seed).map(|called| called.map(Some)),
            || fallback::disguise_embed(cover, payload),
        )
    }

    /// [`Disguise::extract`] of a carrier that a disguise made.
    ///
    /// # Errors
    /// Why there is no answer; a plain carrier is for [`fallback::disguise_extract`].
    pub fn extract(&self, now: u64, carrier: &[u8]) -> Result<Answer<Option<Vec<u8>>>, Because> {
        self.try_ask(now, |plugin| plugin.extract(carrier))
    }

    /// [`Disguise::capacity`], or that of the plain form.
    pub fn capacity(&self, now: u64, cover_bytes: u32) -> Answer<u32> {
        let plain = u32::try_from(fallback::PLAIN_HEADER).map_or(0, |header| cover_bytes.saturating_sub(header));
        self.ask(now, |plugin| plugin.capacity(cover_bytes), || plain)
    }
}

impl Slot<Recovery> {
    /// [`Recovery::init`], or open on access and in order.
    pub fn init(&self, now: u64, context: &recovery::Context) -> Answer<recovery::Outcome> {
        self.ask(
            now,
            |plugin| plugin.init(&recovery_context(plugin, context)),
            || fallback::recovery("", None, context),
        )
    }

    /// [`Recovery::step_or_begin`], or open on access and in order: from then on, since the strategy's state is given up.
    pub fn step(
        &self,
        now: u64,
        state: &str,
        event: &recovery::Event,
        context: &recovery::Context,
    ) -> Answer<recovery::Outcome> {
        self.ask(
            now,
            |plugin| plugin.step_or_begin(state, event, &recovery_context(plugin, context)),
            || fallback::recovery(state, Some(event), context),
        )
    }
}

fn recovery_context(plugin: &Recovery, context: &recovery::Context) -> recovery::Context {
    recovery::Context { config: plugin.facts().config.clone(), ..context.clone() }
}

/// Sealing stops: there is no native choice of cipher behind an operator's.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error(
    "cipher slot {slot} seals nothing: {because}. Nothing is sealed otherwise than configured; put a cipher in the slot or release this one"
)]
pub struct CipherUnavailable {
    /// The slot.
    pub slot: String,
    /// Why.
    #[source]
    pub because: Because,
}

impl Slot<Cipher> {
    /// A worker for the cipher in force. Workers of the one before go on until they are dropped: a cipher changes at
    /// an epoch's boundary only.
    ///
    /// # Errors
    /// No cipher, or it is in quarantine.
    pub fn worker(&self) -> Result<CipherWorker, CipherUnavailable> {
        self.usable().map(Cipher::worker).map_err(|because| self.unavailable(because))
    }

    /// [`CipherWorker::plan_batch`], counted by the breaker.
    ///
    /// # Errors
    /// Fails closed: whatever the reason, nothing is to be sealed.
    pub fn plan_batch(
        &self,
        now: u64,
        worker: &mut CipherWorker,
        batch: &cipher::Batch,
    ) -> Result<Answer<cipher::Plan>, CipherUnavailable> {
        let plugin = Arc::clone(worker.cipher());
        let digest = plugin.facts().digest;
        if !self.breaker.allows(&digest) {
            return Err(self.unavailable(Because::Quarantined(digest)));
        }
        match worker.plan_batch(batch) {
            Ok(called) => {
                Ok(Answer { value: called.value, by: By::Plugin(digest), logs: called.logs, fuel: called.fuel })
            }
            Err(error) => Err(self.unavailable(self.judge(&plugin, now, error))),
        }
    }

    /// Counts a fault that the vault met when it used `worker` as its inner layer.
    pub fn report(&self, now: u64, worker: &CipherWorker, error: CallError) -> CipherUnavailable {
        self.unavailable(self.judge(worker.cipher(), now, error))
    }

    fn unavailable(&self, because: Because) -> CipherUnavailable {
        CipherUnavailable { slot: self.name.clone(), because }
    }
}
