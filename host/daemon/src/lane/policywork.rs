//! Asking the rotation policy, off the lane's thread: one call at a time, and its state is kept before its decisions are carried out.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use farseal_core::limits::STORE_RETRY_INTERVAL;
use farseal_core::primary::{Action, Decision, Outcome, PolicyEvent};
use farseal_core::rotation::{How, KeyLimits, KeyState, KeyUse};
use farseal_core::units::{Now, WallTime};
use farseal_plugin::wit::rotation as wit;
use farseal_plugin::{Answer, By, NotCarried, Plugin as _, RotationCall, RotationPolicy, StateOwner};
use serde::{Deserialize, Serialize};

use super::looks::{KeyRequest, Looks, heard};
use super::{Event, Parts};
use crate::control::api::PluginSlot;
use crate::plugins::PairPlugins;
use crate::store::{StoreError, files};

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
    /// Where it is a request: whose.
    requests: Vec<KeyRequest>,
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
    /// None where nobody knows any more (format 1), or where no policy has answered yet.
    #[serde(default)]
    owner: Option<StateOwner>,
    state: String,
    calls: u64,
    last_now: u64,
    #[serde(default)]
    looks: Looks,
}

/// A state text of 64 KiB, escaped, and what stands around it.
const KEPT_BYTES_MAX: u64 = 512 << 10;
/// Format 1 did not say whose the state is.
const FORMAT: u32 = 2;

struct PolicyThread {
    name: String,
    path: PathBuf,
    plugins: Arc<PairPlugins>,
    kept: Option<Kept>,
    /// A core that began anew does not know when the policy is to be woken.
    is_to_tell_looks: bool,
}

impl PolicyWork {
    pub(super) fn start(parts: &Parts, inbox: Sender<Event>) -> Self {
        let (calls, queue) = channel::<Request>();
        let mut thread = PolicyThread {
            name: parts.name.clone(),
            path: parts.directory.join("policy.json"),
            plugins: Arc::clone(&parts.plugins),
            kept: None,
            is_to_tell_looks: true,
        };
        std::thread::spawn(move || {
            thread.kept = load(&thread.path).and_then(|kept| thread.own(kept));
            let mut queue = Queue { coming: queue, waiting: VecDeque::new() };
            while let Some(request) = queue.next() {
                match request {
                    Request::Swap(PolicySwap { new, done }) => done(thread.swap(new)),
                    Request::Ask(call) if call.for_nothing => thread.rehearse(&call),
                    Request::Ask(call) => {
                        let again = || queue.pause(Duration::from_millis(STORE_RETRY_INTERVAL.0));
                        let Some(decisions) = thread.answer(call, again) else { break };
                        if inbox.send(Event::PolicyDecided(decisions)).is_err() {
                            break;
                        }
                    }
                }
            }
        });
        Self { calls }
    }

    /// `requests`: of those who ask for a key, where the event is that. The policy is told each, and each is told what it makes of it.
    pub fn ask(
        &self,
        now: Now,
        requests: Vec<KeyRequest>,
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

/// What is asked, in its order.
struct Queue {
    coming: Receiver<Request>,
    /// What came during a pause.
    waiting: VecDeque<Request>,
}

impl Queue {
    fn next(&mut self) -> Option<Request> {
        self.waiting.pop_front().or_else(|| self.coming.recv().ok())
    }

    /// Whether there is still somebody who asks when this time has passed.
    fn pause(&mut self, time: Duration) -> bool {
        let end = Instant::now() + time;
        loop {
            match self.coming.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(request) => self.waiting.push_back(request),
                Err(RecvTimeoutError::Timeout) => return true,
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
    }
}

/// Why a call came to nothing. It is made again: whoever asked has taken note of it, and does not ask again by itself.
#[derive(Debug, thiserror::Error)]
enum NotMade {
    #[error("the random source failed: the policy is not asked")]
    NoEntropy,
    #[error("the policy's state could not be kept: its decisions are not carried out: {0}")]
    NotKept(#[from] StoreError),
}

impl PolicyThread {
    /// `again` is asked before a call that came to nothing is made again, and waits; none where it says no.
    fn answer(&mut self, mut call: Call, mut again: impl FnMut() -> bool) -> Option<Vec<Decision>> {
        let requests = std::mem::take(&mut call.requests);
        let events: Vec<_> = if call.event == PolicyEvent::Requested {
            requests.into_iter().map(|asks| (wit::Event::Requested(asks.text), Some(asks.heard))).collect()
        } else {
            vec![(event(&call.event), None)]
        };
        let before = self.kept.as_ref().map_or_else(Looks::default, |kept| kept.looks);
        let mut decisions = Vec::new();
        for (event, asks) in events {
            let mut said = false;
            let answered = loop {
                match self.step(&call, event.clone()) {
                    Ok(answered) => break answered,
                    Err(error) if said => tracing::debug!(pair = self.name, "{error}"),
                    Err(error) => tracing::error!(pair = self.name, "{error}; it is asked again until that succeeds"),
                }
                said = true;
                if !again() {
                    return None;
                }
            };
            if let (Some(asks), Some(kept)) = (asks, &self.kept) {
                // Who does not wait any more asked all the same.
                let _ = asks.send(heard(&answered, kept.looks));
            }
            if std::mem::take(&mut self.is_to_tell_looks) {
                decisions.extend(before.again(call.now.wall));
            }
            decisions.extend(answered.into_iter().filter_map(|decision| self.decision(decision)));
        }
        Some(decisions)
    }

    fn step(&mut self, call: &Call, event: wit::Event) -> Result<Vec<wit::Decision>, NotMade> {
        let mut entropy = [0; 8];
        getrandom::fill(&mut entropy).map_err(|_| NotMade::NoEntropy)?;
        let context = self.context(call, u64::from_le_bytes(entropy));
        let now = call.now.wall.0;
        let mut decisions = Vec::new();
        let state = match self.kept.clone() {
            Some(kept) => kept,
            None => {
                let answer = self.plugins.policy.init(now, &context);
                self.journal(RotationCall::Init { context: context.clone() }, &answer);
                decisions.extend(answer.value.decisions);
                let owner = self.owner(&answer.by, None);
                Kept {
                    format: FORMAT,
                    owner,
                    state: answer.value.state,
                    calls: 0,
                    last_now: now,
                    looks: Looks::default(),
                }
            }
        };
        let answer = self.plugins.policy.step(now, &state.state, &event, &context);
        let mut looks = state.looks;
        looks.told(&event);
        self.journal(RotationCall::Step { state: state.state.clone(), event, context }, &answer);
        let owner = self.owner(&answer.by, state.owner.as_ref());
        let outcome = answer.value;
        decisions.extend(outcome.decisions);
        looks.decided(&decisions);
        let kept = Kept { format: FORMAT, owner, state: outcome.state, calls: state.calls + 1, last_now: now, looks };
        // What was kept before stays until then: also that there was nothing, so that its first call is made again, too.
        save(&self.path, &kept)?;
        self.kept = Some(kept);
        Ok(decisions)
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
        self.plugins.say_who_answered(PluginSlot::Policy, &answer.by, "the host's limits alone decide about the key");
        let decisions = answer.value.decisions.clone();
        self.plugins.policy_journal.add_answer(&self.plugins.policy, call, answer, decisions);
    }

    /// Whose the answered state is. Where the host answers, a state stays as it was.
    fn owner(&self, by: &By, before: Option<&StateOwner>) -> Option<StateOwner> {
        match by {
            By::Plugin(_) => self.plugins.policy.current().map(|policy| policy.facts().owner()),
            By::Fallback(_) => before.cloned(),
        }
    }

    /// The configuration may name another policy than before the last start, or a newer version of it.
    fn own(&self, kept: Kept) -> Option<Kept> {
        let (Some(policy), Some(owner)) = (self.plugins.policy.current(), &kept.owner) else { return Some(kept) };
        match carried(&kept, owner, &policy) {
            Ok(kept) => Some(kept),
            Err(why) => {
                let why = farseal_plugin::escaped(&why.to_string()).to_string();
                tracing::info!(pair = self.name, why, "the policy begins afresh");
                None
            }
        }
    }

    /// The new policy goes on from the state, if it can; else it begins afresh with the next call.
    fn swap(&mut self, new: Arc<RotationPolicy>) -> Result<Carried, StoreError> {
        let slot = &self.plugins.policy;
        let owner = |kept: &Kept| kept.owner.clone().or_else(|| slot.current().map(|policy| policy.facts().owner()));
        let (kept, becomes) = match self.kept.as_ref().and_then(|kept| Some((kept, owner(kept)?))) {
            None => (None, Carried::Afresh(None)),
            Some((kept, owner)) => match carried(kept, &owner, &new) {
                Ok(kept) => (Some(kept), Carried::State),
                Err(why) => (None, Carried::Afresh(Some(why.to_string()))),
            },
        };
        match &kept {
            Some(kept) => save(&self.path, kept)?,
            None => files::remove_durably(&self.path)?,
        }
        slot.install(Some(new));
        self.kept = kept;
        self.is_to_tell_looks = true;
        Ok(becomes)
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
        PolicyEvent::Requested => wit::Event::Requested(String::new()),
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
        Outcome::Clamped => wit::OutcomeOfDecision::Clamped("not sooner than 1 s from the call".into()),
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

/// As the policy's own.
fn carried(kept: &Kept, owner: &StateOwner, policy: &RotationPolicy) -> Result<Kept, NotCarried> {
    let state = policy.carry_over(owner, &kept.state)?;
    Ok(Kept { format: FORMAT, owner: Some(policy.facts().owner()), state, ..kept.clone() })
}

fn load(path: &Path) -> Option<Kept> {
    let bytes = files::read_if_there(path, KEPT_BYTES_MAX).ok().flatten()?;
    match serde_json::from_slice::<Kept>(&bytes) {
        Ok(kept) if (1..=FORMAT).contains(&kept.format) => Some(kept),
        Ok(_) | Err(_) => {
            tracing::warn!(path = %path.display(), "the policy's state cannot be read: it begins afresh");
            None
        }
    }
}

fn save(path: &Path, kept: &Kept) -> Result<(), StoreError> {
    files::write_atomically(path, &serde_json::to_vec_pretty(kept).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use farseal_core::units::{self, ByteLen, Epoch, Millis};

    use super::*;

    fn call(event: PolicyEvent) -> Call {
        let key = KeyUse {
            epoch: Epoch(1),
            state: KeyState::Active,
            since: WallTime(0),
            bytes: ByteLen(0),
            blocks: 0,
            records: 0,
        };
        Call {
            now: Now { instant: units::Instant(0), wall: WallTime(1_000) },
            event,
            requests: ["one", "two"].map(request).into(),
            for_nothing: false,
            keys: vec![key],
            limits: KeyLimits { interval_min: Millis(0), age_max: Millis(1 << 40), bytes_max: ByteLen(1 << 40) },
            link_up: true,
        }
    }

    fn request(text: &str) -> KeyRequest {
        KeyRequest { text: text.into(), heard: tokio::sync::oneshot::channel().0 }
    }

    /// Without a policy: the host's own answers. Its state's place is not there yet.
    fn thread(directory: &Path) -> PolicyThread {
        let plugins = Arc::new(PairPlugins::none(directory));
        let path = directory.join("later/policy.json");
        PolicyThread { name: "vault".into(), path, plugins, kept: None, is_to_tell_looks: true }
    }

    #[test]
    fn a_call_whose_state_could_not_be_kept_is_made_again_until_it_is() {
        for (event, rotations) in
            [(PolicyEvent::Timer, 0), (PolicyEvent::Suspect(Epoch(1)), 1), (PolicyEvent::Requested, 2)]
        {
            let directory = tempfile::tempdir().unwrap();
            let mut thread = thread(directory.path());
            let mut failed = 0;
            let decisions = thread.answer(call(event), || {
                failed += 1;
                if failed == 3 {
                    std::fs::create_dir(directory.path().join("later")).unwrap();
                }
                true
            });
            let decisions = decisions.unwrap();
            let rotates = decisions.iter().filter(|decision| matches!(decision.action, Action::Rotate(_))).count();
            assert_eq!((failed, rotates), (3, rotations), "{decisions:?}");
            assert!(decisions.iter().any(|decision| matches!(decision.action, Action::WakeAt(_))), "{decisions:?}");
            assert!(load(&thread.path).is_some());
        }
    }

    #[test]
    fn what_could_not_be_kept_leaves_what_was_there_and_ends_with_those_who_ask() {
        let directory = tempfile::tempdir().unwrap();
        let mut thread = thread(directory.path());
        assert_eq!(thread.answer(call(PolicyEvent::Timer), || false), None);
        assert!(thread.kept.is_none(), "the first call is made again, too");
    }

    #[test]
    fn a_restart_keeps_when_the_policy_is_woken_and_its_answer_comes_before_its_new_decisions() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("later")).unwrap();
        let mut thread = thread(directory.path());
        thread.answer(call(PolicyEvent::Started), || false).unwrap();
        let kept = load(&thread.path).unwrap();
        assert!(kept.looks.at.is_some() && kept.looks.bytes.is_some(), "{kept:?}");
        let again = |thread: &mut PolicyThread| {
            let decisions = thread.answer(call(PolicyEvent::Started), || false).unwrap();
            decisions.into_iter().map(|decision| decision.action).collect::<Vec<_>>()
        };
        let usual = again(&mut thread);
        let mut thread = PolicyThread { kept: load(&thread.path), is_to_tell_looks: true, ..thread };
        let first = again(&mut thread);
        let looks: Vec<_> = kept.looks.again(WallTime(1_000)).into_iter().map(|decision| decision.action).collect();
        assert_eq!(first, [looks, usual.clone()].concat());
        assert_eq!(again(&mut thread), usual, "only the first answer has them");
    }

    #[test]
    fn a_state_of_before_looks_were_kept_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("policy.json");
        let text = r#"{"format":2,"owner":null,"state":"{}","calls":3,"last_now":9}"#;
        std::fs::write(&path, text).unwrap();
        assert_eq!(load(&path).unwrap().looks, Looks::default());
    }

    #[test]
    fn whoever_asks_hears_what_the_policy_makes_of_it() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("later")).unwrap();
        let (heard, mut hears) = tokio::sync::oneshot::channel();
        let requests = vec![KeyRequest { text: "one".into(), heard }];
        thread(directory.path()).answer(Call { requests, ..call(PolicyEvent::Requested) }, || false).unwrap();
        assert_eq!(hears.try_recv(), Ok(super::super::looks::Heard::Rotates));
    }

    #[test]
    fn what_is_asked_during_a_pause_has_its_turn_after_it() {
        let (asks, coming) = channel();
        let mut queue = Queue { coming, waiting: VecDeque::new() };
        for event in [PolicyEvent::Usage, PolicyEvent::Timer] {
            asks.send(Request::Ask(call(event))).unwrap();
        }
        assert!(queue.pause(Duration::ZERO));
        drop(asks);
        assert!(!queue.pause(Duration::ZERO));
        let order = std::iter::from_fn(|| match queue.next()? {
            Request::Ask(call) => Some(call.event),
            Request::Swap(_) => None,
        });
        assert_eq!(order.collect::<Vec<_>>(), [PolicyEvent::Usage, PolicyEvent::Timer]);
    }
}
