//! The background part of a recovery, on a thread of its own: it asks the strategy, opens in turn what that one wants opened, and keeps how
//! far it is.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

use farseal_core::limits::POLICY_WAKE_MIN;
use farseal_core::units::{BlockCount, Extent, Instant, Lba, Now};
use farseal_plugin::wit::recovery as wit;
use farseal_plugin::wit::types::Extension;
use farseal_plugin::{Answer, Plugin as _, RecoveryCall, StateOwner, written_last};
use serde::{Deserialize, Serialize};

use super::account::Stage;
use super::{AccessRule, CopySource, Searched, crew, rule};
use crate::clock::Clock;
use crate::plugins::PairPlugins;
use crate::store::home::Home as _;
use crate::store::opened::OpenedHome;
use crate::store::{StoreError, files};

/// Something for the sweeper.
#[derive(Debug)]
pub enum Sweep {
    Accessed(Extent),
    Requested(String),
    Search(Box<Searched>),
    /// Another strategy is in force.
    Changed,
    Stop,
}

/// The background part of a recovery, on a thread of its own.
pub struct Sweeper {
    pub name: String,
    pub home: Arc<OpenedHome<CopySource>>,
    pub plugins: Arc<PairPlugins>,
    pub blocks: BlockCount,
    pub rule: Arc<AccessRule>,
    /// The pair declares a record layout: while the strategy refuses accesses, nothing is opened but what a search found, and
    /// the host opens nothing in the place of a strategy that does not answer.
    pub by_search: bool,
    pub path: PathBuf,
}

/// What a strategy remembers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Kept {
    format: u32,
    /// None in format 1: of whichever strategy was in force.
    #[serde(default)]
    owner: Option<StateOwner>,
    state: String,
}

impl std::fmt::Debug for Sweeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sweeper").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A state text of 64 KiB, escaped, and what stands around it.
const KEPT_BYTES_MAX: u64 = 512 << 10;
/// Format 1 did not say whose the state is.
const FORMAT: u32 = 2;

/// Blocks opened between two syncs of the image: 64 MiB of 4 KiB blocks.
const SYNC_BLOCKS: u64 = 16_384;
/// An image that could not be written is tried again after this.
const WRITE_RETRY: Duration = Duration::from_secs(5);
/// Without anything to wait for, the sweep looks again after this.
const IDLE: Duration = Duration::from_secs(3600);
/// Hints that are given to the strategy at once, and that wait for it.
const ACCESSED_MAX: usize = 64;
/// With so many extents to be opened, the strategy is not asked for more.
const OPENS_MAX: usize = 1024;

impl Sweeper {
    /// Runs until the strategy has finished and nothing more is asked, or until stopped.
    pub fn start(self, events: Receiver<Sweep>) {
        let name = format!("sweep-{}", self.name);
        let spawned = std::thread::Builder::new().name(name).spawn(move || self.run(&events));
        if let Err(error) = spawned {
            tracing::error!(%error, "the sweep could not be started: blocks are opened on access only");
        }
    }

    fn run(self, inbox: &Receiver<Sweep>) {
        crew::join();
        let kept = files::read_if_there(&self.path, KEPT_BYTES_MAX).ok().flatten();
        let kept = kept.and_then(|bytes| serde_json::from_slice::<Kept>(&bytes).ok());
        let kept = kept.filter(|kept| (1..=FORMAT).contains(&kept.format));
        let mut course = Course { state: kept, ..Course::default() };
        let ended = self.go_on(inbox, &mut course).and_then(|Stopped| self.end_sync(&mut course.syncing));
        if let Err(error) = ended {
            tracing::error!(pair = self.name, %error, "the opened image could not be synced: the sweep stops");
            self.home.source().account().set_stage(Stage::Stopped);
        }
    }

    /// Until it is stopped, or the image cannot be synced.
    fn go_on(&self, inbox: &Receiver<Sweep>, course: &mut Course) -> Result<Stopped, StoreError> {
        // By a clock that only moves forward: a wait is as long as it was to be, whatever happens to the time of day.
        let clock = Clock::start();
        course.events.push(wit::Event::Begin);
        loop {
            if !self.ask_of_events(&clock, course) {
                return Ok(Stopped);
            }
            if let Some(extent) = course.opens.pop_front()
                && self.open_on(extent, inbox, course).is_err()
            {
                return Ok(Stopped);
            }
            if self.pending_stop(inbox, course) {
                return Ok(Stopped);
            }
            if let Some(search) = course.searches.pop_front() {
                self.search(&mut course.state, search);
            }
            let rests = course.events.is_empty() && course.opens.is_empty();
            self.sync_when_due(rests, course)?;
            if rests && course.searches.is_empty() && self.rest(&clock, inbox, course) {
                return Ok(Stopped);
            }
        }
    }

    /// Tells the strategy what happened, and notes what it wants. `false`: there is nobody to ask.
    fn ask_of_events(&self, clock: &Clock, course: &mut Course) -> bool {
        // A strategy that wants ever more hears of what was done when it is done.
        if course.opens.len() >= OPENS_MAX {
            return true;
        }
        for event in std::mem::take(&mut course.events) {
            let Some(decisions) = self.ask(&mut course.state, &event) else { return false };
            for decision in decisions {
                match decision.action {
                    wit::Action::Open(extent) if self.only_by_search() => self.not_found_by_search(extent),
                    wit::Action::Open(extent) => course.opens.push_back(extent),
                    wit::Action::WakeAt(at) => course.wake_at(clock.now(), at),
                    wit::Action::Finished => {
                        tracing::info!(pair = self.name, "the strategy has nothing more to open by itself");
                        course.finished = true;
                    }
                    wit::Action::Ext(ext) => course.events.extend(self.answer(&ext)),
                    other @ (wit::Action::Access(_) | wit::Action::Alert(_)) => self.obey(&other),
                }
            }
            self.rule.set_if_unsaid(wit::OnAccess::Open);
        }
        true
    }

    /// What the strategy believes to be open must be so after a crash: the image first, then the state. While more is opened, another
    /// thread syncs.
    fn sync_when_due(&self, rests: bool, course: &mut Course) -> Result<(), StoreError> {
        if rests {
            self.end_sync(&mut course.syncing)?;
            self.home.sync()?;
            course.unsynced = 0;
            self.keep(course.state.as_ref());
        } else if course.unsynced >= SYNC_BLOCKS {
            self.end_sync(&mut course.syncing)?;
            course.unsynced = 0;
            course.syncing = Some(self.begin_sync(course.state.clone())?);
        } else if course.syncing.as_ref().is_some_and(|syncing| syncing.thread.is_finished()) {
            self.end_sync(&mut course.syncing)?;
        }
        Ok(())
    }

    fn begin_sync(&self, state: Option<Kept>) -> Result<Syncing, StoreError> {
        let home = Arc::clone(&self.home);
        let thread = std::thread::Builder::new().name(format!("sync-{}", self.name)).spawn(move || home.sync());
        let thread =
            thread.map_err(|source| StoreError::io(&self.path, "start a thread that syncs the image", source))?;
        Ok(Syncing { thread, state })
    }

    fn end_sync(&self, syncing: &mut Option<Syncing>) -> Result<(), StoreError> {
        let Some(Syncing { thread, state }) = syncing.take() else { return Ok(()) };
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        self.keep(state.as_ref());
        Ok(())
    }

    /// Nothing is to be done until something comes. Says whether to stop.
    fn rest(&self, clock: &Clock, inbox: &Receiver<Sweep>, course: &mut Course) -> bool {
        let stage = if course.finished { Stage::Finished } else { Stage::Waiting };
        self.home.source().account().set_stage(stage);
        let left = course.wake.map(|at| Duration::from_millis(at.since(clock.now().instant).0.max(1)));
        match self.wait(inbox, left) {
            Waited::Event(event) => course.add(event),
            Waited::Timer => {
                course.wake = None;
                course.add(wit::Event::Timer);
            }
            Waited::Search(search) => course.searches.push_back(search),
            Waited::Stop => return true,
        }
        false
    }

    /// Takes what has come meanwhile. Says whether to stop.
    fn pending_stop(&self, inbox: &Receiver<Sweep>, course: &mut Course) -> bool {
        let mut accessed = Vec::new();
        while let Ok(event) = inbox.try_recv() {
            match event {
                Sweep::Accessed(extent) if accessed.len() < ACCESSED_MAX => accessed.push(wit_extent(extent)),
                Sweep::Accessed(_) => {}
                Sweep::Requested(text) => course.add(wit::Event::Requested(text)),
                Sweep::Changed => course.add(wit::Event::Begin),
                Sweep::Search(search) => course.searches.push_back(search),
                Sweep::Stop => return true,
            }
        }
        if !accessed.is_empty() {
            course.add(wit::Event::Accessed(accessed));
        }
        false
    }

    /// For so long; without a span, for a while.
    fn wait(&self, inbox: &Receiver<Sweep>, span: Option<Duration>) -> Waited {
        match inbox.recv_timeout(span.unwrap_or(IDLE)) {
            Ok(Sweep::Accessed(extent)) => Waited::Event(wit::Event::Accessed(vec![wit_extent(extent)])),
            Ok(Sweep::Requested(text)) => Waited::Event(wit::Event::Requested(text)),
            Ok(Sweep::Changed) => Waited::Event(wit::Event::Begin),
            Ok(Sweep::Search(search)) => Waited::Search(search),
            Ok(Sweep::Stop) | Err(RecvTimeoutError::Disconnected) => Waited::Stop,
            Err(RecvTimeoutError::Timeout) => Waited::Timer,
        }
    }

    /// What the strategy wants to know and this host does.
    fn answer(&self, ext: &Extension) -> Option<wit::Event> {
        let blocks = written_last::asked(ext)?;
        let firsts = self.home.source().index().written_last(blocks, written_last::WRITTEN_LAST_PARTS);
        Some(wit::Event::Ext(written_last::answer(blocks, firsts)))
    }

    /// Asks the strategy. Its plans only open what can be opened again, so its state is kept after them.
    pub(super) fn ask(&self, state: &mut Option<Kept>, event: &wit::Event) -> Option<Vec<wit::Decision>> {
        let context = self.context()?;
        let now = context.now;
        let mut decisions = Vec::new();
        let own = self.plugins.recovery.current().map(|strategy| strategy.facts().owner());
        let kept = |state: String| Kept { format: FORMAT, owner: own.clone(), state };
        // Another's, or an older form of its own, may read well and mean something else.
        let foreign = |kept: &Kept| kept.owner.is_some() && own.is_some() && kept.owner != own;
        let current = match state.take().filter(|kept| !foreign(kept)) {
            Some(kept) => kept,
            None => {
                let answer = self.plugins.recovery.init(now, &context);
                self.journal(RecoveryCall::Init { context: context.clone() }, &answer);
                if !self.is_the_strategys(&answer.by) {
                    return Some(Vec::new());
                }
                decisions.extend(answer.value.decisions);
                kept(answer.value.state)
            }
        };
        let answer = self.plugins.recovery.step(now, &current.state, event, &context);
        self.journal(RecoveryCall::Step { state: current.state.clone(), event: event.clone(), context }, &answer);
        if !self.is_the_strategys(&answer.by) {
            *state = Some(current);
            return Some(Vec::new());
        }
        let outcome = answer.value;
        decisions.extend(outcome.decisions);
        *state = Some(kept(outcome.state));
        Some(decisions)
    }

    fn journal(&self, call: RecoveryCall, answer: &Answer<wit::Outcome>) {
        let decisions = answer.value.decisions.clone();
        self.plugins.recovery_journal.add_answer(&self.plugins.recovery, call, answer, decisions);
    }

    pub(super) fn keep(&self, state: Option<&Kept>) {
        let book = self.home.source().account().book();
        if let Err(error) = self.path.parent().map_or(Ok(()), |folder| book.keep(folder)) {
            tracing::warn!(pair = self.name, %error, "when what was opened could not be kept");
        }
        let Some(kept) = state else { return };
        if let Err(error) = files::write_atomically(&self.path, &serde_json::to_vec(kept).unwrap_or_default()) {
            tracing::warn!(pair = self.name, %error, "the strategy's state could not be kept: a restart sweeps again");
        }
    }

    fn context(&self) -> Option<wit::Context> {
        let progress = self.home.progress();
        let progress =
            wit::Progress { present: progress.present.0, opened: progress.opened.0, failed: progress.failed.0 };
        rule::context(&self.plugins, &self.name, self.blocks, progress)
    }

    /// Opens what the strategy wants. Where the image has no room it is tried again until it has, or until stopped.
    fn open_on(&self, extent: wit::Extent, inbox: &Receiver<Sweep>, course: &mut Course) -> Result<(), Stopped> {
        // The strategy's rule may be another since it wanted this.
        if self.only_by_search() {
            self.not_found_by_search(extent);
            return Ok(());
        }
        let Some(whole) = self.inside(extent) else { return Ok(()) };
        let account = self.home.source().account();
        let (mut opened, mut said) = (0, false);
        loop {
            account.set_stage(Stage::Opening);
            let then = course.opens.iter().filter_map(|extent| self.inside(*extent));
            let swept = crew::sweep(&self.home, whole, then);
            account.swept(swept.opened, std::time::Instant::now());
            opened += swept.opened.0;
            let ends = match swept.stopped {
                None => {
                    for lba in &swept.first_failed {
                        tracing::error!(pair = self.name, %lba, "a block of the copy does not open");
                    }
                    true
                }
                // The rule changed meanwhile: what it keeps closed is not waited for.
                Some(StoreError::Refused) => true,
                Some(error) => {
                    if !std::mem::replace(&mut said, true) {
                        tracing::error!(pair = self.name, %error, "the opened image cannot be written: the sweep waits");
                    }
                    false
                }
            };
            if ends {
                course.unsynced += opened;
                course.add(wit::Event::Swept(wit::Swept { extent, opened, failed: swept.failed.0 }));
                return Ok(());
            }
            account.set_stage(Stage::Stopped);
            match self.wait(inbox, Some(WRITE_RETRY)) {
                Waited::Event(event) => course.add(event),
                Waited::Search(search) => course.searches.push_back(search),
                Waited::Timer => {}
                Waited::Stop => return Err(Stopped),
            }
        }
    }

    /// What of it lies in the volume.
    fn inside(&self, extent: wit::Extent) -> Option<Extent> {
        let blocks = self.blocks.0.saturating_sub(extent.first).min(extent.blocks);
        Extent::new(Lba(extent.first), BlockCount(blocks))
    }
}

/// How far a sweep is.
#[derive(Debug, Default)]
struct Course {
    state: Option<Kept>,
    /// What the strategy is not told yet.
    events: Vec<wit::Event>,
    /// What it wants opened, in its order.
    opens: VecDeque<wit::Extent>,
    searches: VecDeque<Box<Searched>>,
    /// When it wants to be asked, by the sweep's clock.
    wake: Option<Instant>,
    /// It has nothing more to open by itself.
    finished: bool,
    /// Blocks opened since the last sync.
    unsynced: u64,
    syncing: Option<Syncing>,
}

/// A sync of the image beside the sweep, and what the strategy believed when it began.
#[derive(Debug)]
struct Syncing {
    thread: JoinHandle<Result<(), StoreError>>,
    state: Option<Kept>,
}

impl Course {
    /// A later one replaces the one before. Not sooner than in a second: each call is written down, and each rest is a sync.
    fn wake_at(&mut self, now: Now, at: u64) {
        let ahead = at.saturating_sub(now.wall.0).max(POLICY_WAKE_MIN.0);
        self.wake = Some(Instant(now.instant.0.saturating_add(ahead)));
    }

    fn add(&mut self, event: wit::Event) {
        match event {
            // Another strategy is in force: what the one before it wanted, nobody wants any more.
            wit::Event::Begin => {
                self.opens.clear();
                self.finished = false;
                self.wake = None;
            }
            // A hint only.
            wit::Event::Accessed(_) if self.events.len() >= ACCESSED_MAX => return,
            wit::Event::Accessed(_)
            | wit::Event::Swept(_)
            | wit::Event::Requested(_)
            | wit::Event::Timer
            | wit::Event::Ext(_) => {}
        }
        self.events.push(event);
    }
}

/// The node ends.
struct Stopped;

enum Waited {
    Event(wit::Event),
    Search(Box<Searched>),
    Timer,
    Stop,
}

pub(super) fn wit_extent(extent: Extent) -> wit::Extent {
    wit::Extent { first: extent.first().0, blocks: extent.blocks().0 }
}

#[cfg(test)]
mod tests {
    use farseal_core::units::WallTime;

    use super::*;

    #[test]
    fn a_strategy_that_wants_to_be_woken_at_once_is_woken_a_second_later_and_another_ones_wish_is_forgotten() {
        let now = Now { instant: Instant(500), wall: WallTime(1_000_000) };
        let mut course = Course::default();
        for (at, wakes) in
            [(0, 1_500), (1_000_000, 1_500), (1_000_999, 1_500), (1_007_000, 7_500), (u64::MAX, u64::MAX - 999_500)]
        {
            course.wake_at(now, at);
            assert_eq!(course.wake, Some(Instant(wakes)), "{at}");
        }
        course.add(wit::Event::Begin);
        assert_eq!(course.wake, None);
    }
}
