//! A recovery strategy's story: the node around it opens in the background at a steady pace, serves reads, and counts.

use std::collections::VecDeque;

use serde::Deserialize;
use serde::de::Error as _;

use super::journalled::JournalledOf;
use super::rotation::Crash;
use super::units::{Instant, Span, Step, clock_time, span, story_time};
use super::{Script, quoted};
use crate::fault::CallError;
use crate::host::Plugin as _;
use crate::recovery::{Recovery, extent_words};
use crate::wit::recovery::{Action, Context, Event, Extent, OnAccess, Outcome, Progress, Swept};
use crate::wit::types::Extension;
use crate::{found, written_last};

mod journalled;

/// Largest volume in a story: its blocks are counted one by one.
const VOLUME_BLOCKS: u64 = 4 << 20;
/// Calls in a row without time passing; more, and the strategy talks to itself.
const CHAIN: u32 = 32;
/// Calls in a story: four times what the largest volume takes in chunks of 4 096 blocks.
const CALLS: u32 = 4_096;

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Story {
    #[serde(deserialize_with = "volume_blocks")]
    volume_blocks: u64,
    #[serde(default)]
    present: Option<Vec<(u64, u64)>>,
    #[serde(default)]
    damaged: Vec<(u64, u64)>,
    #[serde(default = "super::rotation::start")]
    start: Instant,
    #[serde(default = "speed")]
    speed: u64,
    /// Runs of blocks that were written last, the newest first: what a host knows that is asked. Without it, the host does not answer.
    #[serde(default)]
    written_last: Option<Vec<(u64, u64)>>,
    #[serde(default)]
    entropy: u64,
    timeline: Vec<Entry>,
}

fn volume_blocks<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let blocks = u64::deserialize(deserializer)?;
    if blocks <= VOLUME_BLOCKS {
        Ok(blocks)
    } else {
        Err(D::Error::custom(format!("volume-blocks is at most {VOLUME_BLOCKS}")))
    }
}

const fn speed() -> u64 {
    65_536
}

#[derive(Debug, Clone)]
enum Entry {
    Advance(u64),
    Run(u64),
    Read(u64, u64),
    Request(String),
    /// An operator's search finds these records.
    Search(Vec<(u64, u64)>),
    Restart,
    Clock(i64),
    /// Touches the next call.
    Crash(Crash),
    /// The journal holds this text as the strategy's state.
    State(String),
    /// A call of a node's journal, made again.
    Journalled(Box<JournalledOf<Recovery>>),
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct EntryForm {
    advance: Option<Span>,
    run: Option<Span>,
    read: Option<(u64, u64)>,
    request: Option<String>,
    search: Option<Vec<(u64, u64)>>,
    clock: Option<Step>,
    crash: Option<Crash>,
    state: Option<String>,
    journalled: Option<JournalledOf<Recovery>>,
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_yaml_ng::Value::deserialize(deserializer)?;
        if value.as_str() == Some("restart") {
            return Ok(Self::Restart);
        }
        let form: EntryForm = serde_yaml_ng::from_value(value).map_err(D::Error::custom)?;
        let found = [
            form.advance.map(|by| Self::Advance(by.0)),
            form.run.map(|by| Self::Run(by.0)),
            form.read.map(|(first, blocks)| Self::Read(first, blocks)),
            form.request.map(Self::Request),
            form.search.map(Self::Search),
            form.clock.map(|step| Self::Clock(step.0)),
            form.crash.map(Self::Crash),
            form.state.map(Self::State),
            form.journalled.map(|journalled| Self::Journalled(Box::new(journalled))),
        ];
        let mut found = found.into_iter().flatten();
        match (found.next(), found.next()) {
            (Some(entry), None) => Ok(entry),
            (None | Some(_), _) => Err(D::Error::custom("a timeline entry is one happening")),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Block {
    Absent,
    Sealed,
    Damaged,
    Open,
    Failed,
}

/// Plays the story.
pub(super) fn play(strategy: Recovery, story: &Story, script: &mut Script) {
    let volume = usize::try_from(story.volume_blocks).unwrap_or(0);
    let start = if story.present.is_some() { Block::Absent } else { Block::Sealed };
    let mut node = Node {
        strategy,
        story,
        script,
        blocks: vec![start; volume],
        now: 0,
        state: None,
        is_own: false,
        wake_at: None,
        access: OnAccess::Open,
        work: VecDeque::new(),
        answers: Vec::new(),
        searches: 0,
        found: Vec::new(),
        chain: 0,
        calls: 0,
        offset: 0,
        crash: None,
        ended: false,
    };
    for (first, blocks) in story.present.iter().flatten() {
        node.mark(*first, *blocks, Block::Sealed);
    }
    for (first, blocks) in &story.damaged {
        node.mark(*first, *blocks, Block::Damaged);
    }
    // A journal has the first call among its own, or begins later.
    let relives = story.timeline.iter().any(|entry| matches!(entry, Entry::Journalled(_)));
    if !relives {
        node.call(None);
        node.call(Some(Event::Begin));
    }
    for entry in &story.timeline {
        if node.ended {
            break;
        }
        node.enter(entry);
    }
    if relives { node.close_journal() } else { node.close() }
}

struct Node<'a> {
    strategy: Recovery,
    story: &'a Story,
    script: &'a mut Script,
    blocks: Vec<Block>,
    now: u64,
    state: Option<String>,
    /// The state is what the strategy gave, and not what a story has put there.
    is_own: bool,
    /// In story time.
    wake_at: Option<u64>,
    access: OnAccess,
    /// Background opens in order, the first under way.
    work: VecDeque<Extent>,
    /// What the strategy asked for, and gets in its next event.
    answers: Vec<Extension>,
    /// Searches so far, and what the last one found while it is being answered.
    searches: u64,
    found: Vec<Extent>,
    chain: u32,
    calls: u32,
    /// How far the node's clock is off.
    offset: i64,
    crash: Option<Crash>,
    ended: bool,
}

impl Node<'_> {
    fn clock(&self) -> u64 {
        (self.story.start.0 + self.now).saturating_add_signed(self.offset)
    }

    fn mark(&mut self, first: u64, blocks: u64, block: Block) {
        let from = usize::try_from(first).unwrap_or(usize::MAX);
        let count = usize::try_from(blocks).unwrap_or(usize::MAX);
        self.blocks.iter_mut().skip(from).take(count).for_each(|one| *one = block);
    }

    fn count(&self, wanted: Block) -> u64 {
        u64::try_from(self.blocks.iter().filter(|block| **block == wanted).count()).unwrap_or(u64::MAX)
    }

    /// Opens what is sealed in an extent: how many opened, how many failed.
    fn open(&mut self, extent: &Extent) -> (u64, u64) {
        let from = usize::try_from(extent.first).unwrap_or(usize::MAX);
        let count = usize::try_from(extent.blocks).unwrap_or(usize::MAX);
        let (mut opened, mut failed) = (0, 0);
        for block in self.blocks.iter_mut().skip(from).take(count) {
            match block {
                Block::Sealed => {
                    *block = Block::Open;
                    opened += 1;
                }
                Block::Damaged => {
                    *block = Block::Failed;
                    failed += 1;
                }
                Block::Absent | Block::Open | Block::Failed => {}
            }
        }
        (opened, failed)
    }

    /// Milliseconds that an open takes: only what is closed costs time.
    fn cost(&self, extent: &Extent) -> u64 {
        let closed = self.part(extent).filter(|block| matches!(block, Block::Sealed | Block::Damaged)).count();
        let closed = u64::try_from(closed).unwrap_or(u64::MAX);
        closed.saturating_mul(1_000).div_ceil(self.story.speed.max(1)).max(1)
    }

    fn part(&self, extent: &Extent) -> impl Iterator<Item = &Block> {
        let from = usize::try_from(extent.first).unwrap_or(usize::MAX);
        let count = usize::try_from(extent.blocks).unwrap_or(usize::MAX);
        self.blocks.iter().skip(from).take(count)
    }

    fn enter(&mut self, entry: &Entry) {
        self.chain = 0;
        match entry {
            Entry::Advance(by) => self.advance(*by, false),
            Entry::Run(by) => self.advance(*by, true),
            Entry::Read(first, blocks) => self.read(&Extent { first: *first, blocks: *blocks }),
            Entry::Request(text) => self.call(Some(Event::Requested(text.clone()))),
            Entry::Search(records) => self.search(records),
            Entry::Restart => self.restart(),
            Entry::Clock(step) => {
                self.offset = self.offset.saturating_add(*step);
                let way = if *step < 0 { "back" } else { "ahead" };
                self.head(&format!("the clock steps {way} by {}", span(step.unsigned_abs())));
            }
            Entry::Crash(crash) => self.crash = Some(*crash),
            Entry::State(text) => {
                self.head(&format!("the journal holds another state of {} bytes; the node restarts", text.len()));
                self.state = Some(text.clone());
                self.is_own = false;
                self.restart();
            }
            Entry::Journalled(journalled) => self.relive(journalled),
        }
    }

    /// Background work is asked for again by the strategy; the blocks that are open stay open.
    fn restart(&mut self) {
        self.work.clear();
        self.script.finished = false;
        self.call(Some(Event::Begin));
    }

    fn advance(&mut self, by: u64, until_finished: bool) {
        let end = self.now + by;
        let mut started = self.now;
        while !self.ended {
            if until_finished && self.script.finished && self.work.is_empty() {
                return;
            }
            let done = self.work.front().map(|extent| started.saturating_add(self.cost(extent)));
            let wake = self.wake_at.map(|at| at.max(self.now));
            let next = done.into_iter().chain(wake).min().unwrap_or(u64::MAX);
            if next > end {
                self.now = end;
                return;
            }
            if next > self.now {
                self.chain = 0;
            }
            self.now = next;
            if wake == Some(next) && done != Some(next) {
                self.wake_at = None;
                self.call(Some(Event::Timer));
            } else if let Some(extent) = self.work.pop_front() {
                started = self.now;
                let (opened, failed) = self.open(&extent);
                self.call(Some(Event::Swept(Swept { extent, opened, failed })));
            }
        }
    }

    fn read(&mut self, extent: &Extent) {
        let closed = self.part(extent).any(|block| matches!(block, Block::Sealed | Block::Damaged));
        self.head(&format!("an initiator reads {}", extent_words(extent)));
        if !closed {
            return self.script.line("  host      answered: nothing to open");
        }
        if self.access == OnAccess::Refuse {
            self.script.count("refused-reads", 1);
            return self.script.line("  host      refused: the plan says so");
        }
        let (opened, failed) = self.open(extent);
        let error = if failed > 0 { format!(", {failed} blocks fail verification: an error") } else { String::new() };
        self.script.line(&format!("  host      {opened} blocks opened and kept{error}"));
        self.call(Some(Event::Accessed(vec![*extent])));
    }

    /// As the host does: what was found is told in batches, and of it alone something is opened, at once.
    fn search(&mut self, records: &[(u64, u64)]) {
        self.searches += 1;
        self.head(&format!("a search finds {} records", records.len()));
        let records: Vec<Extent> =
            records.iter().map(|(first, blocks)| Extent { first: *first, blocks: *blocks }).collect();
        for batch in records.chunks(found::SEARCH_BATCH) {
            self.found = batch.to_vec();
            self.call(Some(Event::Ext(found::found(self.searches, "id", batch))));
            self.found.clear();
        }
    }

    fn open_found(&mut self, extent: &Extent) -> String {
        let words = extent_words(extent);
        if !self.found.contains(extent) {
            return format!("open {words}: no search found them, ignored");
        }
        let (opened, failed) = self.open(extent);
        let error = if failed > 0 { format!(", {failed} blocks fail verification") } else { String::new() };
        format!("open {words}: {opened} blocks opened{error}")
    }

    fn call(&mut self, event: Option<Event>) {
        if self.ended {
            return;
        }
        self.calls += 1;
        if self.calls > CALLS {
            self.script.fail(format!("{CALLS} calls, and no end in sight"));
            self.ended = true;
            return;
        }
        self.chain += 1;
        if self.chain == 1 {
            self.script.in_a_row.clear();
        }
        let title = event.as_ref().map_or_else(|| "first call".into(), crate::recovery::words);
        if self.chain > CHAIN {
            self.script.fail("the strategy talks to itself: 32 calls in a row and no time passes");
            self.script.talks_to_itself(&story_time(self.now), &title);
            self.ended = true;
            return;
        }
        let opened = self.count(Block::Open);
        let failed = self.count(Block::Failed);
        let present = opened + failed + self.count(Block::Sealed) + self.count(Block::Damaged);
        let context = Context {
            now: self.clock(),
            volume: "volume".into(),
            config: self.strategy.facts().config.clone(),
            volume_blocks: self.story.volume_blocks,
            progress: Progress { present, opened, failed },
            entropy: self.story.entropy,
        };
        self.script.blank();
        self.script.line(&format!("{:<18}{title:<47} open {opened} of {present}", story_time(self.now)));
        self.script.asked = format!("{title} at {}", story_time(self.now));
        let ask = || match &event {
            None => self.strategy.init(&context),
            Some(event) => self.strategy.step(self.state.as_deref().unwrap_or_default(), event, &context),
        };
        let mut answer = ask();
        self.script.spend(&answer);
        let crash = self.crash.take();
        if crash == Some(Crash::BeforeAck) {
            let again = ask();
            self.script
                .line("  crash     before the answer is in the journal; the node starts and makes the same call again");
            if again != answer {
                self.script.impure("the same call has another answer (R-1)");
            }
            answer = again;
        }
        match answer {
            Ok(called) => {
                self.carry_out(called.value);
                if crash.is_some() {
                    if crash == Some(Crash::AfterAck) {
                        self.script.line("  crash     after the answer is in the journal; the node starts");
                    }
                    return self.restart();
                }
                self.script.logs(&called.logs);
                for answer in std::mem::take(&mut self.answers) {
                    self.call(Some(Event::Ext(answer)));
                }
            }
            Err(error @ CallError::Refused { error: crate::wit::types::PluginError::InvalidState(_), .. }) => {
                self.script.line(&format!("  refuses   {error}"));
                self.script.logs(error.logs());
                self.script.line("  host      the strategy begins afresh");
                self.script.count_if("unread-states", self.is_own);
                self.state = None;
                self.is_own = false;
                self.call(None);
                self.call(Some(Event::Begin));
            }
            Err(error) => self.die(&error),
        }
    }

    fn die(&mut self, error: &CallError) {
        self.script.error(error);
        self.ended = true;
    }

    fn carry_out(&mut self, outcome: Outcome) {
        let wakes = outcome.decisions.iter().filter(|decision| matches!(decision.action, Action::WakeAt(_))).count();
        self.script.count_if("many-wakes", wakes > 1);
        for decision in &outcome.decisions {
            let words = self.carry_out_one(&decision.action);
            self.tell(&words, &decision.why);
        }
        self.take_state(outcome.state);
    }

    fn tell(&mut self, words: &str, why: &str) {
        self.script.in_a_row.push((words.to_owned(), Some("carried out")));
        let why = if why.is_empty() { String::new() } else { format!(" because {}", crate::fault::escaped(why)) };
        self.script.line(&format!("  plugin    {words}{why}"));
    }

    fn take_state(&mut self, state: String) {
        if self.state.as_ref() != Some(&state) {
            self.script.line(&format!("  state     {}", crate::fault::escaped(&state)));
        }
        self.script.keep(&state);
        self.state = Some(state);
        self.is_own = true;
    }

    fn carry_out_one(&mut self, action: &Action) -> String {
        match action {
            Action::Access(OnAccess::Open) => {
                self.access = OnAccess::Open;
                "accesses open blocks".into()
            }
            Action::Access(OnAccess::Refuse) => {
                self.access = OnAccess::Refuse;
                "accesses to closed blocks are refused".into()
            }
            Action::Open(extent) if !self.found.is_empty() => self.open_found(extent),
            Action::Open(extent) => {
                self.work.push_back(*extent);
                format!("open {}", extent_words(extent))
            }
            Action::WakeAt(at) => {
                self.script.count_if("late-wakes", *at <= self.clock());
                // As long as it was to be when it was asked for: a clock that steps changes nothing of that.
                self.wake_at = Some(self.now.saturating_add(at.saturating_sub(self.clock()).max(1_000)));
                format!("wake-at {}", clock_time(self.story.start.0, *at))
            }
            Action::Finished => {
                self.script.finished = true;
                "finished".into()
            }
            Action::Alert(text) => {
                self.script.count("alerts", 1);
                format!("alert {}", quoted(text))
            }
            Action::Ext(ext) => match (written_last::asked(ext), &self.story.written_last) {
                (Some(blocks), Some(runs)) => {
                    let firsts = newest_parts(blocks, runs);
                    self.answers.push(written_last::answer(blocks, firsts));
                    format!("asks for what was written last, in parts of {blocks} blocks")
                }
                _ => format!("extension {}: unknown, ignored", crate::fault::escaped(&ext.name)),
            },
        }
    }

    fn head(&mut self, what: &str) {
        self.script.blank();
        let line = format!("{:<18}{what}", story_time(self.now));
        self.script.line(&line);
    }

    fn close(&mut self) {
        let (opened, failed, sealed) = (self.count(Block::Open), self.count(Block::Failed), self.count(Block::Sealed));
        self.script.counts.insert("opened", opened);
        let closed = sealed + self.count(Block::Damaged);
        self.head(&format!(
            "end: {opened} blocks open, {failed} failed, {closed} still closed after {}",
            span(self.now)
        ));
    }
}

/// The parts in which these runs lie, each once, in their order.
fn newest_parts(blocks: u64, runs: &[(u64, u64)]) -> Vec<u64> {
    let mut firsts = Vec::new();
    for (first, count) in runs {
        for part in first / blocks..first.saturating_add(*count).div_ceil(blocks) {
            if firsts.len() < written_last::WRITTEN_LAST_PARTS && !firsts.contains(&(part * blocks)) {
                firsts.push(part * blocks);
            }
        }
    }
    firsts
}
