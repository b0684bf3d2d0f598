//! A rotation policy's story: the node around it keeps keys, clock, marks and journal, and clamps.

use std::collections::VecDeque;

use serde::Deserialize;

use super::Script;
use super::units::{Instant, Size, Span, size, span};
use crate::fault::CallError;
use crate::rotation::RotationPolicy;
use crate::wit::rotation::{Event, KeyState, Watch};

mod answering;
mod asked;
mod journalled;
mod node;
mod timeline;

use answering::Answering;
use timeline::Entry;

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Story {
    #[serde(default = "start")]
    pub(super) start: Instant,
    #[serde(default = "pair")]
    pair: String,
    #[serde(default)]
    host: Limits,
    #[serde(default)]
    entropy: Entropy,
    #[serde(default)]
    link: Link,
    #[serde(default)]
    told: Told,
    /// The story ends after so many calls: one that lasts long says no more about a policy that is asked often.
    #[serde(default)]
    calls: Option<usize>,
    timeline: Vec<Entry>,
}

/// How often the policy hears of what the node tells of its own accord.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Told {
    #[default]
    Once,
    Twice,
}

pub(super) const fn start() -> Instant {
    Instant(1_767_225_600_000)
}

fn pair() -> String {
    "pair".into()
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct Limits {
    min_interval: Span,
    max_age: Span,
    max_bytes: Size,
    delivery: Span,
}

impl Default for Limits {
    fn default() -> Self {
        let day = 86_400_000;
        Self { min_interval: Span(day / 24), max_age: Span(180 * day), max_bytes: Size(1 << 40), delivery: Span(2_000) }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Entropy {
    One(u64),
    Many(Vec<u64>),
}

impl Default for Entropy {
    fn default() -> Self {
        Self::One(7919)
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Link {
    #[default]
    Up,
    Down,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Crash {
    BeforeAck,
    AfterAck,
}

/// Plays the story.
pub(super) fn play(policy: RotationPolicy, story: &Story, script: &mut Script) {
    play_to(Answering::Component(Box::new(policy)), story, script);
}

/// Plays it to the honest policy that is part of the host.
pub(super) fn play_to_listener(story: &Story, script: &mut Script) {
    play_to(Answering::Listener, story, script);
}

fn play_to(policy: Answering, story: &Story, script: &mut Script) {
    let limits = &story.host;
    script.line(&format!(
        "limits    keys change after {} at the soonest, {} or {} at the latest",
        span(limits.min_interval.0),
        span(limits.max_age.0),
        size(limits.max_bytes.0)
    ));
    let first = Key {
        epoch: 1,
        state: KeyState::Active,
        since: story.start.0,
        from: 0,
        due: None,
        bytes: 0,
        blocks: 0,
        records: 0,
    };
    let mut node = Node {
        policy,
        story,
        script,
        now: 0,
        offset: 0,
        link: story.link,
        escrow: Link::Up,
        keys: vec![first],
        state: None,
        is_own: false,
        wake_at: None,
        marks: Watch { bytes: None, blocks: None },
        began: None,
        begged: 0,
        is_own_time: false,
        ceiling_met: 0,
        last_id: 0,
        calls: 0,
        chain: 0,
        crash: None,
        queue: VecDeque::new(),
        suspected: 0,
        heeds: 0,
        alerts: 0,
        below_floor: 0,
        put_off: None,
        clock_stepped: false,
        ended: false,
    };
    // A journal has the first call among its own, or begins later.
    let relives = story.timeline.iter().any(|entry| matches!(entry, Entry::Journalled(_)));
    if !relives {
        node.happens(None);
    }
    for entry in &story.timeline {
        if node.ended {
            break;
        }
        node.enter(entry);
        let bytes = node.state_bytes();
        node.script.states.push(bytes);
        node.script.keep_end(node.state.as_deref().unwrap_or_default());
    }
    if relives { node.close_journal() } else { node.close() }
}

fn foreign_state(error: &CallError) -> bool {
    matches!(error, CallError::Refused { error: crate::wit::types::PluginError::InvalidState(_), .. })
}

#[derive(Debug, Clone)]
struct Key {
    epoch: u64,
    state: KeyState,
    /// By the node's clock.
    since: u64,
    /// In story time, when it became active.
    from: u64,
    /// In story time, when it arrives; `None` while it cannot.
    due: Option<u64>,
    bytes: u64,
    blocks: u64,
    records: u64,
}

struct Node<'a> {
    policy: Answering,
    story: &'a Story,
    script: &'a mut Script,
    /// Story time in milliseconds.
    now: u64,
    /// How far the node's clock is off.
    offset: i64,
    link: Link,
    escrow: Link,
    /// Oldest first.
    keys: Vec<Key>,
    state: Option<String>,
    /// The state is what the policy gave, and not what a story has put there.
    is_own: bool,
    /// By the node's clock.
    wake_at: Option<u64>,
    marks: Watch,
    /// Story time of the last rotation's beginning.
    began: Option<u64>,
    /// Rotations below the host's floor that it asked for on its own timers and marks since then.
    begged: u64,
    /// The call that is being answered came of a timer or a mark.
    is_own_time: bool,
    /// Epoch whose ceiling was acted on.
    ceiling_met: u64,
    last_id: u64,
    calls: usize,
    chain: u32,
    crash: Option<Crash>,
    queue: VecDeque<Event>,
    /// The last epoch in force that was suspected.
    suspected: u64,
    /// Decisions by which a policy shows that it heard of a suspicion.
    heeds: u64,
    /// Of these, alerts.
    alerts: u64,
    /// Rotations that were refused because they came below the host's floor.
    below_floor: u64,
    /// A suspicion was answered with a rotation that the host's floor forbade: in story time, when another is owed at the latest.
    put_off: Option<u64>,
    /// The clock stepped since the key in force came into force: what a policy reckons from its age is wrong.
    clock_stepped: bool,
    ended: bool,
}
