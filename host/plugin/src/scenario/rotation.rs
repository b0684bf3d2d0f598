//! A rotation policy's story: the node around it keeps keys, clock, marks and journal, and clamps.

use std::collections::VecDeque;

use serde::Deserialize;
use serde::de::Error as _;

use super::journalled::{JournalledOf, OWN};
use super::units::{Instant, Size, Span, Step, clock_time, size, span, story_time};
use super::{Script, quoted};
use crate::fault::{CallError, FaultClass};
use crate::host::Plugin as _;
use crate::rotation::{RotationCall, RotationPolicy};
use crate::wit::rotation::{
    Action, Context, Decided, Decision, Event, HostLimits, How, KeyInfo, KeyState, Outcome, OutcomeOfDecision, Watch,
};
use crate::wit::types::Extension;

mod journalled;

/// Calls in a row without time passing; more, and the policy talks to itself.
const CHAIN: u32 = 32;

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

#[derive(Debug, Clone)]
enum Entry {
    Advance {
        by: u64,
        bytes: u64,
        blocks: u64,
    },
    Usage {
        bytes: u64,
        blocks: u64,
        records: u64,
    },
    Request(String),
    Suspect(Option<u64>),
    Link(Link),
    /// The escrow site answers, or does not: without its receipt a key has no place.
    Escrow(Link),
    Clock(i64),
    Crash(Crash),
    Restart,
    Ext(Extension),
    /// The journal holds this text as the policy's state.
    State(String),
    /// The state so far is handed to the policy as one of this schema.
    Migrate(u32),
    /// This very call; what comes of it is not carried out.
    Call(Box<RotationCall>),
    /// A call of a node's journal, made again.
    Journalled(Box<JournalledOf<RotationPolicy>>),
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct EntryForm {
    advance: Option<Span>,
    sealing: Option<Size>,
    blocks: Option<u64>,
    usage: Option<UsageForm>,
    request: Option<String>,
    suspect: Option<SuspectForm>,
    link: Option<Link>,
    escrow: Option<Link>,
    clock: Option<Step>,
    crash: Option<Crash>,
    ext: Option<Extension>,
    state: Option<String>,
    migrate: Option<u32>,
    call: Option<RotationCall>,
    journalled: Option<JournalledOf<RotationPolicy>>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum UsageForm {
    Bytes(Size),
    Full(UsageParts),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct UsageParts {
    bytes: Size,
    blocks: Option<u64>,
    records: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum SuspectForm {
    Epoch(u64),
    Word(String),
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_yaml_ng::Value::deserialize(deserializer)?;
        if value.as_str() == Some("restart") {
            return Ok(Self::Restart);
        }
        let form: EntryForm = serde_yaml_ng::from_value(value).map_err(D::Error::custom)?;
        let sealing = form.sealing.map_or(0, |size| size.0);
        let mut found = Vec::new();
        found.extend(form.advance.map(|by| Self::Advance {
            by: by.0,
            bytes: sealing,
            blocks: form.blocks.unwrap_or(sealing / 4096),
        }));
        found.extend(form.usage.map(|usage| match usage {
            UsageForm::Bytes(Size(bytes)) => Self::Usage { bytes, blocks: bytes / 4096, records: bytes / 65_536 },
            UsageForm::Full(parts) => {
                let bytes = parts.bytes.0;
                let blocks = parts.blocks.unwrap_or(bytes / 4096);
                Self::Usage { bytes, blocks, records: parts.records.unwrap_or(blocks / 16) }
            }
        }));
        found.extend(form.request.map(Self::Request));
        found.extend(
            form.suspect
                .map(|which| match which {
                    SuspectForm::Epoch(epoch) => Ok(Self::Suspect(Some(epoch))),
                    SuspectForm::Word(word) if word == "current" => Ok(Self::Suspect(None)),
                    SuspectForm::Word(word) => {
                        Err(D::Error::custom(format!("suspect: {word:?} is not `current` or an epoch")))
                    }
                })
                .transpose()?,
        );
        found.extend(form.link.map(Self::Link));
        found.extend(form.escrow.map(Self::Escrow));
        found.extend(form.clock.map(|step| Self::Clock(step.0)));
        found.extend(form.crash.map(Self::Crash));
        found.extend(form.ext.map(Self::Ext));
        found.extend(form.state.map(Self::State));
        found.extend(form.migrate.map(Self::Migrate));
        found.extend(form.call.map(|call| Self::Call(Box::new(call))));
        found.extend(form.journalled.map(|journalled| Self::Journalled(Box::new(journalled))));
        match <[Self; 1]>::try_from(found) {
            Ok([entry]) => Ok(entry),
            Err(found) => Err(D::Error::custom(format!("a timeline entry is one happening, not {}", found.len()))),
        }
    }
}

/// Plays the story.
pub(super) fn play(policy: RotationPolicy, story: &Story, script: &mut Script) {
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
        wake_at: None,
        marks: Watch { bytes: None, blocks: None },
        began: None,
        ceiling_met: 0,
        last_id: 0,
        calls: 0,
        chain: 0,
        crash: None,
        queue: VecDeque::new(),
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
    policy: RotationPolicy,
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
    /// By the node's clock.
    wake_at: Option<u64>,
    marks: Watch,
    /// Story time of the last rotation's beginning.
    began: Option<u64>,
    /// Epoch whose ceiling was acted on.
    ceiling_met: u64,
    last_id: u64,
    calls: usize,
    chain: u32,
    crash: Option<Crash>,
    queue: VecDeque<Event>,
    ended: bool,
}

/// What comes next while time passes; in this order when several come at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Next {
    Ceiling,
    Arrival,
    Timer,
    Mark,
    End,
}

impl Node<'_> {
    fn clock(&self) -> u64 {
        (self.story.start.0 + self.now).saturating_add_signed(self.offset)
    }

    fn active(&mut self) -> Option<&mut Key> {
        self.keys.iter_mut().rev().find(|key| key.state == KeyState::Active)
    }

    fn delivering(&self) -> Option<&Key> {
        self.keys.iter().find(|key| key.state == KeyState::Delivering)
    }

    fn enter(&mut self, entry: &Entry) {
        self.chain = 0;
        match entry {
            Entry::Advance { by, bytes, blocks } => self.advance(*by, *bytes, *blocks),
            Entry::Usage { bytes, blocks, records } => {
                self.head(&format!("{} sealed", size(*bytes)));
                self.seal(*bytes, *blocks, *records);
                self.settle();
            }
            Entry::Request(text) => self.happens(Some(Event::Requested(text.clone()))),
            Entry::Suspect(which) => {
                let epoch = which.unwrap_or_else(|| self.active().map_or(0, |key| key.epoch));
                self.happens(Some(Event::Suspect(epoch)));
            }
            Entry::Link(link) => {
                self.link = *link;
                self.head(if *link == Link::Up { "link up" } else { "link down" });
                self.send();
            }
            Entry::Escrow(escrow) => {
                self.escrow = *escrow;
                self.head(if *escrow == Link::Up { "the escrow answers" } else { "the escrow is silent" });
                self.send();
            }
            Entry::Clock(step) => {
                self.offset = self.offset.saturating_add(*step);
                let way = if *step < 0 { "back" } else { "ahead" };
                self.head(&format!("the clock steps {way} by {}", span(step.unsigned_abs())));
                self.settle();
            }
            Entry::Crash(crash) => self.crash = Some(*crash),
            Entry::Restart => {
                self.head("the node restarts");
                self.happens(Some(Event::Started));
            }
            Entry::Ext(ext) => {
                // The host sends no extension that the plugin does not name (`meta.wit`).
                if self.policy.facts().about.understands.contains(&ext.name) {
                    self.happens(Some(Event::Ext(ext.clone())));
                } else {
                    self.head(&format!("extension {} is not sent: the plugin does not name it", ext.name));
                }
            }
            Entry::State(text) => {
                self.head(&format!("the journal holds another state of {} bytes; the node restarts", text.len()));
                self.state = Some(text.clone());
                self.happens(Some(Event::Started));
            }
            Entry::Migrate(from) => self.migrate(*from),
            Entry::Call(call) => self.make(call),
            Entry::Journalled(journalled) => self.relive(journalled),
        }
    }

    /// A newer component takes over the state of an older one. Refused, it begins afresh.
    fn migrate(&mut self, from: u32) {
        self.head(&format!("the state is handed over as one of schema {from}"));
        let state = self.state.clone().unwrap_or_default();
        match self.policy.migrate(from, &state) {
            Ok(called) => {
                self.script.line(&format!("  state     {}", crate::fault::escaped(&called.value)));
                self.script.logs(&called.logs);
                self.state = Some(called.value);
                self.happens(Some(Event::Started));
            }
            Err(error @ CallError::Refused { .. }) => self.begin_afresh(&error),
            Err(error) => self.die(&error),
        }
    }

    /// A state that the policy does not take: a node forgets it, says so, and makes the first call again.
    fn begin_afresh(&mut self, error: &CallError) {
        self.script.line(&format!("  refuses   {error}"));
        self.script.logs(error.logs());
        self.script.line("  host      the policy begins afresh");
        self.state = None;
        self.happens(None);
    }

    /// A call as it stands, twice: the answers must be one. `own` is the state so far.
    fn make(&mut self, call: &RotationCall) {
        let mut call = call.clone();
        if let RotationCall::Step { state, .. } = &mut call
            && state == OWN
        {
            *state = self.state.clone().unwrap_or_default();
        }
        let (RotationCall::Init { context } | RotationCall::Step { context, .. }) = &mut call;
        context.config.clone_from(&self.policy.facts().config);
        let what = match &call {
            RotationCall::Init { .. } => "init".into(),
            RotationCall::Step { event, .. } => self.event_words(event),
        };
        self.head(&format!("called as it stands: {what}"));
        let answer = self.policy.call(&call);
        if self.policy.call(&call) != answer {
            self.script.impure("the same call has another answer (R-1)");
        }
        match answer {
            Ok(called) => self.show(&called.value, &called.logs),
            Err(error @ CallError::Refused { .. }) => self.script.line(&format!("  refuses   {error}")),
            Err(error) => self.die(&error),
        }
    }

    fn advance(&mut self, by: u64, bytes: u64, blocks: u64) {
        let begin = self.now;
        let end = begin + by;
        let (mut sealed, mut sealed_blocks) = (0, 0);
        while !self.ended {
            let pace = |need: u64, total: u64| -> Option<u64> {
                let ms = (u128::from(need) * u128::from(by)).div_ceil(u128::from(total.max(1)));
                (total > 0).then(|| begin.saturating_add(u64::try_from(ms).unwrap_or(u64::MAX)))
            };
            let (at, next) = self.next(
                end,
                |need| pace(need.saturating_add(sealed), bytes),
                |need| pace(need.saturating_add(sealed_blocks), blocks),
            );
            if at > self.now {
                self.chain = 0;
            }
            self.now = at;
            let due = |total: u64| {
                let part = u128::from(total) * u128::from(at - begin) / u128::from(by.max(1));
                u64::try_from(part).unwrap_or(u64::MAX)
            };
            let (more, more_blocks) = (due(bytes) - sealed, due(blocks) - sealed_blocks);
            sealed += more;
            sealed_blocks += more_blocks;
            self.seal(more, more_blocks, more_blocks / 16);
            if next == Next::End {
                return;
            }
            self.comes(next);
        }
    }

    /// What is due at this very moment.
    fn settle(&mut self) {
        while !self.ended {
            let (at, next) = self.next(self.now, |_| None, |_| None);
            if next == Next::End || at > self.now {
                return;
            }
            self.comes(next);
        }
    }

    /// The next thing that happens, at the latest the end. The paces say when so much more is sealed.
    fn next(
        &mut self,
        end: u64,
        bytes_at: impl Fn(u64) -> Option<u64>,
        blocks_at: impl Fn(u64) -> Option<u64>,
    ) -> (u64, Next) {
        let (now, marks, limits) = (self.now, self.marks, self.story.host.clone());
        let reach = |mark: u64, have: u64, at: &dyn Fn(u64) -> Option<u64>| {
            if have >= mark { Some(now) } else { at(mark - have) }
        };
        let mut coming = vec![(end, Next::End)];
        coming.extend(self.delivering().and_then(|key| key.due).map(|at| (at.max(now), Next::Arrival)));
        let to_go = self.wake_at.map(|at| at.saturating_sub(self.clock()));
        coming.extend(to_go.map(|ms| (now.saturating_add(ms), Next::Timer)));
        let ceiling_met = self.ceiling_met;
        if let Some(key) = self.active() {
            let (bytes, blocks) = (key.bytes, key.blocks);
            if ceiling_met != key.epoch {
                coming.push(((key.from + limits.max_age.0).max(now), Next::Ceiling));
                coming.extend(reach(limits.max_bytes.0, bytes, &bytes_at).map(|at| (at, Next::Ceiling)));
            }
            coming.extend(marks.bytes.and_then(|mark| reach(mark, bytes, &bytes_at)).map(|at| (at, Next::Mark)));
            coming.extend(marks.blocks.and_then(|mark| reach(mark, blocks, &blocks_at)).map(|at| (at, Next::Mark)));
        }
        coming.into_iter().min().unwrap_or((end, Next::End))
    }

    fn comes(&mut self, next: Next) {
        match next {
            Next::End => {}
            Next::Timer => {
                self.wake_at = None;
                self.happens(Some(Event::Timer));
            }
            Next::Mark => {
                self.marks = Watch { bytes: None, blocks: None };
                self.happens(Some(Event::Usage));
            }
            Next::Arrival => self.arrive(),
            Next::Ceiling => self.ceiling(),
        }
    }

    fn ceiling(&mut self) {
        let Some(key) = self.active() else { return };
        let (epoch, bytes, from) = (key.epoch, key.bytes, key.from);
        self.ceiling_met = epoch;
        let age = span(self.now - from);
        self.head(&format!("the host's ceiling: key {epoch} is {age} old and has sealed {}", size(bytes)));
        if self.delivering().is_some() {
            self.script.line("  host      sealing stops until the key that is on its way is here");
            return;
        }
        self.script.count("by-host", 1);
        let epoch = self.begin();
        let way = self.way();
        self.script.line(&format!("  host      sealing stops; key {epoch} is drawn unasked and {way}"));
    }

    /// Draws the next key and sends it if the link is up.
    fn begin(&mut self) -> u64 {
        let epoch = self.keys.last().map_or(1, |key| key.epoch + 1);
        let due = self.is_on_its_way().then(|| self.now + self.story.host.delivery.0);
        let since = self.clock();
        self.keys.push(Key {
            epoch,
            state: KeyState::Delivering,
            since,
            from: self.now,
            due,
            bytes: 0,
            blocks: 0,
            records: 0,
        });
        self.began = Some(self.now);
        epoch
    }

    /// The key that is drawn goes on its way, or waits.
    fn send(&mut self) {
        let due = self.is_on_its_way().then(|| self.now + self.story.host.delivery.0);
        if let Some(key) = self.keys.iter_mut().find(|key| key.state == KeyState::Delivering) {
            key.due = due;
        }
    }

    fn is_on_its_way(&self) -> bool {
        self.link == Link::Up && self.escrow == Link::Up
    }

    fn way(&self) -> &'static str {
        match (self.escrow, self.link) {
            (Link::Down, Link::Up | Link::Down) => "waiting for the escrow",
            (Link::Up, Link::Down) => "waiting for the link",
            (Link::Up, Link::Up) => "on its way",
        }
    }

    fn arrive(&mut self) {
        let (now, clock) = (self.now, self.clock());
        self.note_age();
        if let Some(old) = self.active() {
            old.state = KeyState::Retired;
        }
        let Some(key) = self.keys.iter_mut().find(|key| key.state == KeyState::Delivering) else { return };
        key.state = KeyState::Active;
        key.since = clock;
        key.from = now;
        key.due = None;
        let epoch = key.epoch;
        self.script.count("rotations", 1);
        self.happens(Some(Event::Rotated(epoch)));
    }

    /// The active key seals, unless it has met the host's ceiling: then nothing is sealed until the next is in force.
    fn seal(&mut self, bytes: u64, blocks: u64, records: u64) {
        let stopped_at = self.ceiling_met;
        if let Some(key) = self.active().filter(|key| key.epoch != stopped_at) {
            key.bytes = key.bytes.saturating_add(bytes);
            key.blocks = key.blocks.saturating_add(blocks);
            key.records = key.records.saturating_add(records);
        }
    }

    /// Tells the policy (`None`: its first call) and everything that follows from it at this moment.
    fn happens(&mut self, event: Option<Event>) {
        self.tell(event);
        while let Some(event) = self.queue.pop_front() {
            if self.ended {
                return;
            }
            self.tell(Some(event));
        }
        // Marks that are passed already, and keys that arrive at once.
        if !self.ended {
            self.settle();
        }
    }

    /// What the node tells of its own accord it may tell twice: after a crash between the call and the journal.
    fn tell(&mut self, event: Option<Event>) {
        let again = event.clone().filter(|event| {
            let own =
                matches!(event, Event::Started | Event::Timer | Event::Usage | Event::Rotated(_) | Event::Decided(_));
            own && self.story.told == Told::Twice
        });
        self.call(event);
        if !self.ended && again.is_some() {
            self.call(again);
        }
    }

    fn call(&mut self, event: Option<Event>) {
        if self.story.calls.is_some_and(|most| self.calls >= most) {
            self.head("the story ends here: enough calls");
            self.script.count("cut", 1);
            self.ended = true;
            return;
        }
        self.chain += 1;
        let most = if self.story.told == Told::Twice { 2 * CHAIN } else { CHAIN };
        if self.chain > most {
            self.script
                .line(&format!("  host      {most} calls in a row and no time passes: the policy talks to itself"));
            self.script.restless = true;
            self.script.fault = Some(FaultClass::Protocol);
            self.ended = true;
            return;
        }
        let context = self.context();
        let title = event.as_ref().map_or_else(|| "first call".into(), |event| self.event_words(event));
        self.script.blank();
        self.script.line(&format!("{:<18}{:<44}entropy {}", story_time(self.now), title, context.entropy));
        let call = match event {
            None => RotationCall::Init { context },
            Some(event) => RotationCall::Step { state: self.state.clone().unwrap_or_default(), event, context },
        };
        let crash = self.crash.take();
        let first = self.policy.call(&call);
        let answer = if crash == Some(Crash::BeforeAck) {
            self.script
                .line("  crash     before the answer is in the journal; the node starts and makes the same call again");
            let again = self.policy.call(&call);
            if again != first {
                self.script.impure("the same call has another answer (R-1)");
            }
            again
        } else {
            first
        };
        match answer {
            Ok(called) => {
                self.show(&called.value, &called.logs);
                if crash == Some(Crash::AfterAck) {
                    self.script.line(
                        "  crash     after the answer is in the journal; the node starts and carries it out from there",
                    );
                }
                self.carry_out(called.value);
                self.script.fuel(called.fuel);
            }
            Err(error @ CallError::Refused { .. }) if foreign_state(&error) => return self.begin_afresh(&error),
            Err(error) => self.die(&error),
        }
        if crash.is_some() && !self.ended {
            self.queue.push_back(Event::Started);
        }
    }

    fn die(&mut self, error: &CallError) {
        self.script.error(error);
        self.ended = true;
    }

    fn context(&mut self) -> Context {
        let entropy = match &self.story.entropy {
            Entropy::One(one) => *one,
            Entropy::Many(many) => self.calls.checked_rem(many.len()).and_then(|at| many.get(at)).copied().unwrap_or(0),
        };
        self.calls += 1;
        let info = |key: &Key| KeyInfo {
            epoch: key.epoch,
            state: key.state,
            since: key.since,
            bytes_sealed: key.bytes,
            blocks_sealed: key.blocks,
            records_sealed: key.records,
        };
        let limits = &self.story.host;
        Context {
            now: self.clock(),
            pair: self.story.pair.clone(),
            entropy,
            config: self.policy.facts().config.clone(),
            keys: self.keys.iter().rev().take(crate::limits::KEYS).map(info).collect(),
            limits: HostLimits {
                min_interval: limits.min_interval.0,
                max_age: limits.max_age.0,
                max_bytes: limits.max_bytes.0,
            },
            link_up: self.link == Link::Up,
        }
    }

    fn show(&mut self, outcome: &Outcome, logs: &[crate::fault::LogLine]) {
        for decision in &outcome.decisions {
            let action = self.action_words(&decision.action);
            self.script.line(&format!("  plugin    #{} {action}", decision.id));
            if !decision.why.is_empty() {
                self.script.line(&format!("            because {}", crate::fault::escaped(&decision.why)));
            }
        }
        if self.state.as_ref() != Some(&outcome.state) {
            self.script.line(&format!("  state     {}", crate::fault::escaped(&outcome.state)));
        }
        self.script.logs(logs);
    }

    fn carry_out(&mut self, outcome: Outcome) {
        self.state = Some(outcome.state);
        self.judge_wakes(&outcome.decisions);
        for decision in outcome.decisions {
            let id = decision.id;
            if id <= self.last_id {
                self.script.line(&format!("  host      #{id} was seen before; not carried out again"));
                continue;
            }
            self.last_id = id;
            let always_told = matches!(decision.action, Action::Rotate(_) | Action::Ext(_));
            let outcome = self.decide(decision);
            let words = match &outcome {
                OutcomeOfDecision::Applied => None,
                OutcomeOfDecision::Clamped(text) => Some(format!("clamped: {text}")),
                OutcomeOfDecision::Refused(text) => {
                    self.script.count("refused-decisions", 1);
                    Some(format!("refused: {text}"))
                }
            };
            if let Some(words) = &words {
                self.script.line(&format!("  host      #{id} {words}"));
            }
            if always_told || words.is_some() {
                self.queue.push_back(Event::Decided(Decided { id, outcome }));
            }
        }
    }

    ///
    fn judge_wakes(&mut self, decisions: &[Decision]) {
        let now = self.clock();
        let wakes = || {
            decisions.iter().filter_map(|decision| match decision.action {
                Action::WakeAt(at) => Some(at),
                Action::Rotate(_) | Action::Watch(_) | Action::Alert(_) | Action::Ext(_) => None,
            })
        };
        self.script.count_if("late-wakes", wakes().any(|at| at <= now));
        self.script.count_if("many-wakes", wakes().count() > 1);
    }

    fn decide(&mut self, decision: Decision) -> OutcomeOfDecision {
        let id = decision.id;
        match decision.action {
            Action::Rotate(_) => {
                if let Some(key) = self.delivering() {
                    return OutcomeOfDecision::Refused(format!("key {} is on its way already", key.epoch));
                }
                let soonest = self.began.map(|began| began + self.story.host.min_interval.0);
                if let Some(soonest) = soonest.filter(|soonest| *soonest > self.now) {
                    let wait = span(soonest - self.now);
                    return OutcomeOfDecision::Refused(format!(
                        "sooner than the host's limit allows; {wait} from here it does"
                    ));
                }
                let epoch = self.begin();
                let way = self.way();
                self.script.line(&format!("  host      #{id} applied: key {epoch} is drawn and {way}"));
                OutcomeOfDecision::Applied
            }
            Action::WakeAt(at) => {
                let soonest = self.clock() + 1_000;
                self.wake_at = Some(at.max(soonest));
                if at < soonest {
                    return OutcomeOfDecision::Clamped("not sooner than 1 s from the call".into());
                }
                OutcomeOfDecision::Applied
            }
            Action::Watch(watch) => {
                self.marks = watch;
                OutcomeOfDecision::Applied
            }
            Action::Alert(_) => {
                self.script.count("alerts", 1);
                OutcomeOfDecision::Applied
            }
            Action::Ext(_) => OutcomeOfDecision::Refused("unknown extension".into()),
        }
    }

    /// How long the active key sealed: to now, or to its ceiling.
    fn note_age(&mut self) {
        let (now, stopped_at, limit) = (self.now, self.ceiling_met, self.story.host.max_age.0);
        let age = self.active().map_or(0, |key| {
            let age = now - key.from;
            if key.epoch == stopped_at { age.min(limit) } else { age }
        });
        let oldest = self.script.counts.entry("max-age").or_default();
        *oldest = age.max(*oldest);
    }

    fn close(&mut self) {
        let now = self.now;
        self.note_age();
        if let Some(epoch) = self.active().map(|key| key.epoch) {
            self.script.counts.insert("final-epoch", epoch);
        }
        let count = |what| self.script.counts.get(what).copied().unwrap_or(0);
        let (rotations, by_host, oldest) = (count("rotations"), count("by-host"), count("max-age"));
        self.script.blank();
        self.script.line(&format!(
            "{:<18}end: {rotations} new keys, {by_host} of them by the host's ceiling; the longest sealed for {}",
            story_time(now),
            span(oldest)
        ));
    }

    fn head(&mut self, what: &str) {
        self.script.blank();
        let line = format!("{:<18}{what}", story_time(self.now));
        self.script.line(&line);
    }

    fn event_words(&self, event: &Event) -> String {
        let words = crate::rotation::words(event);
        if matches!(event, Event::Usage) {
            let sealed = self.keys.iter().rev().find(|key| key.state == KeyState::Active).map_or(0, |key| key.bytes);
            return format!("{words}: {} sealed", size(sealed));
        }
        words
    }

    fn action_words(&self, action: &Action) -> String {
        match action {
            Action::Rotate(rotate) => {
                let how = match rotate.how {
                    How::AsConfigured => "",
                    How::InBand => " in-band",
                    How::Pause => " with a pause",
                };
                format!("rotate{how}: {}", quoted(&rotate.reason))
            }
            Action::WakeAt(at) => format!("wake-at {}", clock_time(self.story.start.0, *at)),
            Action::Watch(watch) => {
                let bytes = watch.bytes.map(size);
                let blocks = watch.blocks.map(|blocks| format!("{blocks} blocks"));
                let marks: Vec<_> = bytes.into_iter().chain(blocks).collect();
                if marks.is_empty() { "watch nothing".into() } else { format!("watch {}", marks.join(", ")) }
            }
            Action::Alert(text) => format!("alert {}", quoted(text)),
            Action::Ext(ext) => {
                format!("extension {} {}", crate::fault::escaped(&ext.name), crate::fault::escaped(&ext.json))
            }
        }
    }
}
