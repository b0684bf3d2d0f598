//! The slow part of a rotation, off the lane's thread: drawing keys, planning slots, asking the policy.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use farseal_core::limits::SLOT_BLOCKS_MAX;
use farseal_core::primary::{Action, Decision, Outcome, PolicyEvent};
use farseal_core::rotation::{How, KeyLimits, KeyState, KeyUse, Slot};
use farseal_core::schedule;
use farseal_core::units::{BlockBytes, Epoch, Incarnation, Instant, Millis, Now, WallTime};
use farseal_plugin::vault::epoch_key::EpochKey;
use farseal_plugin::wit::disguise::Seen;
use farseal_plugin::wit::rotation as wit;
use farseal_plugin::{Answer, Differences, Plugin as _, RotationCall, RotationPolicy, SwapError, Swapped};
use serde::{Deserialize, Serialize};

use super::deposits::Deposits;
use super::{Event, Parts};
use crate::keys::deposit::Receipt;
use crate::keys::hedge::Hedge;
use crate::keys::package::CARRIER_LEN;
use crate::plugins::PairPlugins;
use crate::store::{StoreError, files};

/// A key that may be placed in the order.
pub struct Prepared {
    pub epoch: Epoch,
    pub slot: Slot,
    pub key: EpochKey,
    /// The escrow site's, once it is here.
    pub receipt: Option<Receipt>,
}

impl std::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prepared").field("epoch", &self.epoch).field("slot", &self.slot).finish_non_exhaustive()
    }
}

/// Draws keys.
#[derive(Clone, Debug)]
pub struct KeyWork {
    plugins: Arc<PairPlugins>,
    block_bytes: BlockBytes,
    incarnation: Incarnation,
    hedge: Hedge,
    deposits: Option<Deposits>,
    inbox: Option<Sender<Event>>,
    /// The disguise fixed slots before any key was asked for.
    scheduled: Arc<AtomicBool>,
    /// Drawn with the slots, so that nothing has to be when a key is asked for.
    ahead: Arc<Mutex<Option<EpochKey>>>,
}

/// What a key is drawn for.
#[derive(Clone, Copy, Debug)]
enum Drawn {
    For(Epoch),
    Ahead,
}

/// The longest that a key waits for its slot: a disguise that plans further ahead is cut short.
const SLOT_WAIT_MAX: Millis = Millis(60_000);

impl KeyWork {
    #[must_use]
    pub fn new(plugins: Arc<PairPlugins>, block_bytes: BlockBytes, incarnation: Incarnation, hedge: Hedge) -> Self {
        Self {
            plugins,
            block_bytes,
            incarnation,
            hedge,
            deposits: None,
            inbox: None,
            scheduled: Arc::default(),
            ahead: Arc::default(),
        }
    }

    /// Every key is deposited at the escrow site before it may be used.
    #[must_use]
    pub fn with_deposits(self, deposits: Option<Deposits>) -> Self {
        Self { deposits, ..self }
    }

    /// The deposits, where the pair has an escrow site.
    pub(super) fn deposits(&self) -> Option<&Deposits> {
        self.deposits.as_ref()
    }

    pub(super) fn with_inbox(mut self, inbox: Sender<Event>) -> Self {
        self.inbox = Some(inbox);
        self
    }

    /// Gives the key of an epoch that was drawn ahead, if its slot is fixed; else draws it and fixes its slot, on a thread of
    /// its own.
    pub fn prepare(&self, epoch: Epoch, how: How, recent: Vec<Seen>, now: Instant) {
        if let (Some(inbox), Some((prepared, receipt))) = (&self.inbox, self.at_hand(epoch, how, now)) {
            let _ = inbox.send(Event::EpochPrepared(prepared));
            if let Some(receipt) = receipt {
                let _ = inbox.send(Event::EpochEscrowed { epoch, receipt });
            }
            return;
        }
        let work = self.clone();
        std::thread::spawn(move || {
            let Some(inbox) = &work.inbox else { return };
            let event = match work.prepared(epoch, how, &recent, now, inbox) {
                Ok(prepared) => Event::EpochPrepared(prepared),
                Err(error) => {
                    tracing::error!(%error, "a key could not be drawn");
                    Event::EpochFailed { epoch }
                }
            };
            let _ = inbox.send(event);
            let Some(deposits) = &work.deposits else { return };
            deposits.keep(&work.plugins);
            if let Some(receipt) = deposits.receipt(epoch) {
                let _ = inbox.send(Event::EpochEscrowed { epoch, receipt });
            }
            deposits.draw_ahead(epoch, |next| work.draw(Drawn::For(next)).ok(), inbox);
        });
    }

    /// Whoever knows a key may know the one that was drawn ahead.
    pub(super) fn forget_ahead(&self) {
        self.deposits.iter().for_each(Deposits::forget_ahead);
        *self.ahead.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Without any work that a command could be told by.
    fn at_hand(&self, epoch: Epoch, how: How, now: Instant) -> Option<(Prepared, Option<Receipt>)> {
        if how == How::AtOnce || !self.scheduled.load(Ordering::Acquire) {
            return None;
        }
        let chance = chance().ok()?;
        let (key, receipt) = match &self.deposits {
            None => (self.ahead.lock().unwrap_or_else(PoisonError::into_inner).take()?, None),
            Some(deposits) => deposits.take_ready(epoch).map(|(key, receipt)| (key, Some(receipt)))?,
        };
        let slot = Slot { at: now, blocks: self.smallest_slot(), chance };
        Some((Prepared { epoch, slot, key, receipt: None }, receipt))
    }

    /// Asks the disguise for its coming slots, and draws a key ahead, on a thread of its own. Nothing says whether a key is
    /// due, and one is drawn whether or not the last one was taken.
    pub fn plan_slots(&self, recent: Vec<Seen>) {
        let work = self.clone();
        std::thread::spawn(move || {
            match (&work.deposits, &work.inbox) {
                (Some(deposits), Some(inbox)) => {
                    deposits.keep(&work.plugins);
                    deposits.refill(|next| work.draw(Drawn::For(next)).ok(), inbox);
                }
                (Some(_), None) => {}
                (None, _) => {
                    let drawn = work.draw(Drawn::Ahead).ok();
                    *work.ahead.lock().unwrap_or_else(PoisonError::into_inner) = drawn;
                }
            }
            let slots = work.slots(&recent);
            if let Err(error) = &slots {
                tracing::error!(%error, "no slots could be planned");
            }
            let slots = slots.ok();
            work.scheduled.store(slots.as_ref().is_some_and(|slots| !slots.is_empty()), Ordering::Release);
            if let Some(inbox) = &work.inbox {
                let _ = inbox.send(Event::SlotsPlanned(slots));
            }
        });
    }

    fn slots(&self, recent: &[Seen]) -> Result<Vec<schedule::Planned>, getrandom::Error> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed)?;
        let smallest = self.smallest_slot();
        let planned = self.plugins.disguise.plan(crate::clock::wall_time().0, recent, smallest, &seed).value;
        let mut slots = Vec::with_capacity(planned.len());
        for slot in planned {
            let chance = chance()?;
            let blocks = slot.blocks.clamp(smallest, SLOT_BLOCKS_MAX.max(smallest));
            slots.push(schedule::Planned { gap: Millis(slot.gap), blocks, chance });
        }
        Ok(slots)
    }

    /// Draws a key, hedged with everything that sets this moment apart.
    fn draw(&self, drawn: Drawn) -> Result<EpochKey, getrandom::Error> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed)?;
        let of = match drawn {
            Drawn::For(epoch) => epoch.0,
            // No epoch's number.
            Drawn::Ahead => u64::MAX,
        };
        let transcript = [self.incarnation.0.as_slice(), &of.to_le_bytes(), &self.hedge.value(), &seed].concat();
        EpochKey::generate(&transcript).map_err(|_| getrandom::Error::UNEXPECTED)
    }

    fn prepared(
        &self,
        epoch: Epoch,
        how: How,
        recent: &[Seen],
        now: Instant,
        inbox: &Sender<Event>,
    ) -> Result<Prepared, getrandom::Error> {
        let key = match self.deposits.as_ref().and_then(|deposits| deposits.take(epoch)) {
            Some(key) => key,
            None => {
                let key = self.draw(Drawn::For(epoch))?;
                self.deposits.iter().for_each(|deposits| deposits.deposit(epoch, &key, inbox));
                key
            }
        };
        let smallest = self.smallest_slot();
        let first = if how != How::AtOnce && self.slot_is_fixed() {
            // The disguise's work now would tell by what it takes from the machine that a key is wanted.
            None
        } else {
            let mut seed = [0; 32];
            getrandom::fill(&mut seed)?;
            self.plugins.disguise.plan(crate::clock::wall_time().0, recent, smallest, &seed).value.first().copied()
        };
        let wait = first.map_or(Millis(0), |slot| Millis(slot.gap.min(SLOT_WAIT_MAX.0)));
        let blocks = first.map_or(smallest, |slot| slot.blocks).clamp(smallest, SLOT_BLOCKS_MAX.max(smallest));
        let at = if how == How::AtOnce { now } else { now.plus(wait) };
        let slot = Slot { at, blocks, chance: chance()? };
        Ok(Prepared { epoch, slot, key, receipt: None })
    }

    /// Does the key go where a slot was fixed before, whatever is planned for it now?
    fn slot_is_fixed(&self) -> bool {
        let in_records = || self.plugins.disguise.current().is_some_and(|disguise| disguise.is_in_records());
        self.scheduled.load(Ordering::Acquire) || in_records()
    }

    /// The least blocks whose body holds a package and a disguise's own bytes.
    fn smallest_slot(&self) -> u32 {
        let body = u64::try_from(CARRIER_LEN).unwrap_or(u64::MAX);
        u32::try_from(body.div_ceil(self.block_bytes.as_u64() + 16)).unwrap_or(u32::MAX)
    }
}

fn chance() -> Result<u64, getrandom::Error> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map(|()| u64::from_le_bytes(bytes))
}

/// Asks the policy, one call at a time, and keeps its state.
#[derive(Debug)]
pub struct PolicyWork {
    calls: Sender<Request>,
}

enum Request {
    Ask(Call),
    Swap(PolicySwap),
}

/// Another policy is to go on from the state of the one in force.
pub struct PolicySwap {
    pub new: Arc<RotationPolicy>,
    pub done: Box<dyn FnOnce(Result<Carried, StoreError>) + Send>,
}

impl std::fmt::Debug for PolicySwap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PolicySwap")
    }
}

/// What became of the state of the policy before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Carried {
    /// The new one goes on from it.
    State,
    /// It begins afresh; why, where there was a state.
    Afresh(Option<String>),
}

#[derive(Debug)]
struct Call {
    now: Now,
    event: PolicyEvent,
    /// In whose words, where it is a request.
    requests: Vec<String>,
    /// What the policy answers is not carried out: a cover's start costs what a key's does.
    for_nothing: bool,
    keys: Vec<KeyUse>,
    limits: KeyLimits,
    link_up: bool,
}

/// A policy's state and the call that led to it, kept before its decisions are carried out.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Kept {
    format: u32,
    state: String,
    calls: u64,
    last_now: u64,
}

/// A state text of 64 KiB, escaped, and what stands around it.
const KEPT_BYTES_MAX: u64 = 512 << 10;

struct PolicyThread {
    name: String,
    path: PathBuf,
    plugins: Arc<PairPlugins>,
    kept: Option<Kept>,
}

impl PolicyWork {
    pub(super) fn start(parts: &Parts, inbox: Sender<Event>) -> Self {
        let (calls, queue) = channel::<Request>();
        let mut thread = PolicyThread {
            name: parts.name.clone(),
            path: parts.directory.join("policy.json"),
            plugins: Arc::clone(&parts.plugins),
            kept: None,
        };
        std::thread::spawn(move || {
            thread.kept = load(&thread.path);
            for request in queue {
                match request {
                    Request::Swap(PolicySwap { new, done }) => done(thread.swap(new)),
                    Request::Ask(call) if call.for_nothing => thread.rehearse(&call),
                    Request::Ask(call) => {
                        let decisions = thread.answer(&call);
                        if inbox.send(Event::PolicyDecided(decisions)).is_err() {
                            break;
                        }
                    }
                }
            }
        });
        Self { calls }
    }

    /// `requests`: the words of those who ask for a key, where the event is that. The policy is told each.
    pub fn ask(
        &self,
        now: Now,
        requests: Vec<String>,
        event: PolicyEvent,
        keys: Vec<KeyUse>,
        limits: KeyLimits,
        link_up: bool,
    ) {
        let _ = self.calls.send(Request::Ask(Call { now, event, requests, for_nothing: false, keys, limits, link_up }));
    }

    /// The work of [`PolicyWork::ask`] after a rotation, for nothing.
    pub fn rehearse(&self, now: Now, keys: Vec<KeyUse>, limits: KeyLimits, link_up: bool) {
        let Some(key) = keys.first() else { return };
        let event = PolicyEvent::Rotated(key.epoch);
        let call = Call { now, event, requests: Vec::new(), for_nothing: true, keys, limits, link_up };
        let _ = self.calls.send(Request::Ask(call));
    }

    /// Between two calls.
    pub fn swap(&self, swap: PolicySwap) {
        let _ = self.calls.send(Request::Swap(swap));
    }
}

impl PolicyThread {
    fn answer(&mut self, call: &Call) -> Vec<Decision> {
        let events: Vec<wit::Event> = if call.event == PolicyEvent::Requested {
            call.requests.iter().cloned().map(wit::Event::Requested).collect()
        } else {
            vec![event(&call.event)]
        };
        events.into_iter().flat_map(|event| self.step(call, event)).collect()
    }

    fn step(&mut self, call: &Call, event: wit::Event) -> Vec<Decision> {
        let mut entropy = [0; 8];
        if getrandom::fill(&mut entropy).is_err() {
            tracing::error!(pair = self.name, "the random source failed: the policy is not asked");
            return Vec::new();
        }
        let context = self.context(call, u64::from_le_bytes(entropy));
        let now = call.now.wall.0;
        let mut decisions = Vec::new();
        let state = match self.kept.take() {
            Some(kept) => kept,
            None => {
                let answer = self.plugins.policy.init(now, &context);
                self.journal(RotationCall::Init { context: context.clone() }, &answer);
                decisions.extend(answer.value.decisions);
                Kept { format: 1, state: answer.value.state, calls: 0, last_now: now }
            }
        };
        let answer = self.plugins.policy.step(now, &state.state, &event, &context);
        self.journal(RotationCall::Step { state: state.state.clone(), event, context }, &answer);
        let outcome = answer.value;
        decisions.extend(outcome.decisions);
        let kept = Kept { format: 1, state: outcome.state, calls: state.calls + 1, last_now: now };
        if let Err(error) = save(&self.path, &kept) {
            tracing::error!(pair = self.name, %error, "the policy's state could not be kept: its decisions are not carried out");
            self.kept = Some(state);
            return Vec::new();
        }
        self.kept = Some(kept);
        decisions.into_iter().filter_map(|decision| self.decision(decision)).collect()
    }

    /// Asks, forgets the answer, and keeps the state as it was.
    fn rehearse(&self, call: &Call) {
        let mut entropy = [0; 8];
        let (Some(kept), Ok(())) = (&self.kept, getrandom::fill(&mut entropy)) else { return };
        let context = self.context(call, u64::from_le_bytes(entropy));
        let _ = self.plugins.policy.step(call.now.wall.0, &kept.state, &event(&call.event), &context);
        if let Err(error) = save(&self.path, kept) {
            tracing::error!(pair = self.name, %error, "the policy's state could not be kept again");
        }
    }

    fn journal(&self, call: RotationCall, answer: &Answer<wit::Outcome>) {
        let decisions = answer.value.decisions.clone();
        self.plugins.policy_journal.add_answer(&self.plugins.policy, call, answer, decisions);
    }

    /// The new policy goes on from the state, if it can; else it begins afresh with the next call.
    fn swap(&mut self, new: Arc<RotationPolicy>) -> Result<Carried, StoreError> {
        let (slot, state) = (&self.plugins.policy, self.kept.as_ref().map(|kept| kept.state.as_str()));
        let before = slot.current();
        let (state, carried) = match slot.swap(Arc::clone(&new), state, &[], Differences::Accept) {
            Ok(Swapped { state: Some(state), .. }) => (Some(state), Carried::State),
            Ok(Swapped { state: None, .. }) => (None, Carried::Afresh(None)),
            Err(SwapError::State(error)) => {
                slot.install(Some(new));
                (None, Carried::Afresh(Some(error.to_string())))
            }
            // Nothing was compared here.
            Err(SwapError::Differs { .. }) => {
                slot.install(Some(new));
                (None, Carried::Afresh(None))
            }
        };
        let kept = match (state, self.kept.as_ref()) {
            (Some(state), Some(kept)) => Some(Kept { state, ..kept.clone() }),
            (None | Some(_), _) => None,
        };
        let saved = match &kept {
            Some(kept) => save(&self.path, kept),
            None => files::remove_durably(&self.path),
        };
        match saved {
            Ok(()) => self.kept = kept,
            Err(error) => {
                slot.install(before);
                return Err(error);
            }
        }
        Ok(carried)
    }

    fn context(&self, call: &Call, entropy: u64) -> wit::Context {
        wit::Context {
            now: call.now.wall.0,
            pair: self.name.clone(),
            entropy,
            config: self.plugins.policy.current().map_or_else(String::new, |policy| policy.facts().config.clone()),
            keys: call.keys.iter().map(key_info).collect(),
            limits: wit::HostLimits {
                min_interval: call.limits.interval_min.0,
                max_age: call.limits.age_max.0,
                max_bytes: call.limits.bytes_max.0,
            },
            link_up: call.link_up,
        }
    }

    /// What core carries out. An alert is for the operator, and done here.
    fn decision(&self, decision: wit::Decision) -> Option<Decision> {
        let action = match decision.action {
            wit::Action::Rotate(rotate) => {
                tracing::info!(pair = self.name, reason = %farseal_plugin::escaped(&rotate.reason), "the policy asks for a new key");
                Action::Rotate(match rotate.how {
                    wit::How::AsConfigured => None,
                    wit::How::InBand => Some(How::InBand),
                    wit::How::Pause => Some(How::Pause),
                })
            }
            wit::Action::WakeAt(at) => Action::WakeAt(WallTime(at)),
            wit::Action::Watch(watch) => Action::Watch { bytes: watch.bytes, blocks: watch.blocks },
            wit::Action::Alert(text) => {
                tracing::warn!(pair = self.name, "the policy says: {}", farseal_plugin::escaped(&text));
                return None;
            }
            wit::Action::Ext(_) => Action::Unknown,
        };
        Some(Decision { id: decision.id, action })
    }
}

fn event(event: &PolicyEvent) -> wit::Event {
    match event {
        PolicyEvent::Started => wit::Event::Started,
        PolicyEvent::Timer => wit::Event::Timer,
        PolicyEvent::Usage => wit::Event::Usage,
        PolicyEvent::Requested => wit::Event::Requested("operator".into()),
        PolicyEvent::Suspect(epoch) => wit::Event::Suspect(epoch.0),
        PolicyEvent::Rotated(epoch) => wit::Event::Rotated(epoch.0),
        PolicyEvent::Decided { id, outcome } => {
            wit::Event::Decided(wit::Decided { id: *id, outcome: outcome_of(*outcome) })
        }
    }
}

fn outcome_of(outcome: Outcome) -> wit::OutcomeOfDecision {
    match outcome {
        Outcome::Applied => wit::OutcomeOfDecision::Applied,
        Outcome::Refused(refused) => wit::OutcomeOfDecision::Refused(refused.to_string()),
        Outcome::NotDelivered => wit::OutcomeOfDecision::Refused("the key was not delivered in time".into()),
        Outcome::NotPrepared => wit::OutcomeOfDecision::Refused("the key could not be prepared".into()),
        Outcome::Unknown => wit::OutcomeOfDecision::Refused("unknown extension".into()),
    }
}

fn key_info(key: &KeyUse) -> wit::KeyInfo {
    wit::KeyInfo {
        epoch: key.epoch.0,
        state: match key.state {
            KeyState::Delivering => wit::KeyState::Delivering,
            KeyState::Active => wit::KeyState::Active,
            KeyState::Retired => wit::KeyState::Retired,
            KeyState::Suspect => wit::KeyState::Suspect,
        },
        since: key.since.0,
        bytes_sealed: key.bytes.0,
        blocks_sealed: key.blocks,
        records_sealed: key.records,
    }
}

fn load(path: &Path) -> Option<Kept> {
    let bytes = files::read_if_there(path, KEPT_BYTES_MAX).ok().flatten()?;
    match serde_json::from_slice::<Kept>(&bytes) {
        Ok(kept) if kept.format == 1 => Some(kept),
        Ok(_) | Err(_) => {
            tracing::warn!(path = %path.display(), "the policy's state cannot be read: it begins afresh");
            None
        }
    }
}

fn save(path: &Path, kept: &Kept) -> Result<(), StoreError> {
    files::write_atomically(path, &serde_json::to_vec_pretty(kept).unwrap_or_default())
}
