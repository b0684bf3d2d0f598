//! The node of a rotation policy's story: time passes, keys are drawn, arrive, seal and meet the host's ceiling.

use super::super::units::{size, span, story_time};
use super::timeline::Entry;
use super::{Key, Link, Node};
use crate::wit::rotation::{Event, KeyState, Watch};

/// A policy that puts its wake-up off again and again is followed so often.
const WAKES_FOLLOWED: u32 = 16;

/// A suspicion that the host's floor put off is owed an answer so long after the floor's end, and as long again as the floor is: whoever
/// doubles the wait from one refusal to the next comes that late.
const GRACE: u64 = 3_600_000;

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
    pub(super) fn clock(&self) -> u64 {
        (self.story.start.0 + self.now).saturating_add_signed(self.offset)
    }

    fn active(&mut self) -> Option<&mut Key> {
        self.keys.iter_mut().rev().find(|key| key.state == KeyState::Active)
    }

    pub(super) fn delivering(&self) -> Option<&Key> {
        self.keys.iter().find(|key| key.state == KeyState::Delivering)
    }

    pub(super) fn enter(&mut self, entry: &Entry) {
        self.chain = 0;
        match entry {
            Entry::Advance { by, bytes, blocks } => self.advance(*by, *bytes, *blocks),
            Entry::BeforeWake(by) => self.approach_wake(*by),
            Entry::Usage { bytes, blocks, records } => {
                self.head(&format!("{} sealed", size(*bytes)));
                self.seal(*bytes, *blocks, *records);
                self.settle();
            }
            Entry::Request(text) => self.happens(Some(Event::Requested(text.clone()))),
            Entry::Suspect(which) => self.suspect(*which),
            Entry::Link(link) => {
                self.link = *link;
                self.forgive_put_off(*link);
                self.head(if *link == Link::Up { "link up" } else { "link down" });
                self.send();
            }
            Entry::Escrow(escrow) => {
                self.escrow = *escrow;
                self.forgive_put_off(*escrow);
                self.head(if *escrow == Link::Up { "the escrow answers" } else { "the escrow is silent" });
                self.send();
            }
            Entry::Clock(step) => {
                self.offset = self.offset.saturating_add(*step);
                (self.clock_stepped, self.put_off) = (true, None);
                let way = if *step < 0 { "back" } else { "ahead" };
                self.head(&format!("the clock steps {way} by {}", span(step.unsigned_abs())));
                self.settle();
            }
            Entry::Crash(crash) => self.crash = Some(*crash),
            Entry::Restart => {
                self.head("the node restarts");
                self.happens(Some(Event::Started));
            }
            Entry::Repeat { times, of } => self.repeat(*times, of),
            Entry::Ext(ext) => {
                // The host sends no extension that the plugin does not name (`meta.wit`).
                if self.policy.understands(&ext.name) {
                    self.happens(Some(Event::Ext(ext.clone())));
                } else {
                    self.head(&format!("extension {} is not sent: the plugin does not name it", ext.name));
                }
            }
            Entry::State(text) => {
                self.head(&format!("the journal holds another state of {} bytes; the node restarts", text.len()));
                self.state = Some(text.clone());
                self.put_off = None;
                self.is_own = false;
                // It may count its decisions from anywhere; a node's core has no such check either.
                self.last_id = 0;
                self.happens(Some(Event::Started));
            }
            Entry::Migrate(from) => self.migrate(*from),
            Entry::Call(call) => self.make(call),
            Entry::Journalled(journalled) => self.relive(journalled),
        }
    }

    /// The first suspicion of the key in force has to be heeded, unless another key is on its way already or would be refused.
    fn suspect(&mut self, which: Option<u64>) {
        let (in_force, since) = self.active().map_or((0, 0), |key| (key.epoch, key.from));
        let epoch = which.unwrap_or(in_force);
        // When the key was begun a policy is not told, but when it came into force.
        let rests = self.now.saturating_sub(since) >= self.story.host.min_interval.0;
        let free = self.delivering().is_none() && self.may_begin() && rests;
        let counts = epoch == in_force && epoch != self.suspected && free;
        self.suspected = if epoch == in_force { epoch } else { self.suspected };
        let before = (self.heeds, self.alerts, self.below_floor);
        self.happens(Some(Event::Suspect(epoch)));
        self.script.count_if("unheeded-suspicions", counts && self.heeds == before.0 && !self.ended);
        let is_put_off = self.below_floor > before.2 && self.alerts == before.1 && self.delivering().is_none();
        if epoch == in_force && is_put_off && self.is_on_its_way() && !self.clock_stepped {
            let floor = self.story.host.min_interval.0;
            let owed = self.soonest().saturating_add(floor).saturating_add(GRACE);
            self.put_off.get_or_insert(owed);
        }
    }

    /// Where a key could not be delivered a policy may wait until it can.
    fn forgive_put_off(&mut self, way: Link) {
        if way == Link::Down {
            self.put_off = None;
        }
    }

    /// A suspicion that the host's floor put off was forgotten: no key since, and no alert.
    fn judge_put_off(&mut self) {
        let forgotten = self.put_off.is_some_and(|owed| owed <= self.now) && !self.ended;
        if forgotten {
            self.put_off = None;
            self.script.count("forgotten-suspicions", 1);
            self.head("nothing came of the suspicion that the host's floor put off");
        }
    }

    /// The first round and the last are told whole, and what goes wrong in between. Within rounds that are not told nothing is.
    fn repeat(&mut self, times: u64, of: &[Entry]) {
        let rotations = |node: &Self| node.script.counts.get("rotations").copied().unwrap_or(0);
        let mut before = (self.calls, rotations(self));
        let shortened = times > 2 && self.script.listens();
        for round in 1..=times {
            if self.ended {
                return;
            }
            if shortened && round == times {
                self.script.listen();
                let (calls, keys) = (self.calls - before.0, rotations(self) - before.1);
                let bytes = self.state_bytes();
                self.head(&format!(
                    "{} more rounds: {calls} calls, {keys} new keys, a state of {bytes} bytes",
                    times - 2
                ));
            }
            of.iter().for_each(|entry| self.enter(entry));
            if shortened && round == 1 {
                before = (self.calls, rotations(self));
                self.script.stop_listening();
            }
        }
    }

    pub(super) fn state_bytes(&self) -> u64 {
        self.state.as_ref().map_or(0, |state| u64::try_from(state.len()).unwrap_or(u64::MAX))
    }

    fn advance(&mut self, by: u64, bytes: u64, blocks: u64) {
        let begin = self.now;
        let end = begin + by;
        let (mut sealed, mut sealed_blocks) = (0, 0);
        while !self.ended {
            // More than is sealed on the way is never reached on it.
            let pace = |need: u64, total: u64| -> Option<u64> {
                let ms = (u128::from(need) * u128::from(by)).div_ceil(u128::from(total.max(1)));
                (need <= total).then(|| begin.saturating_add(u64::try_from(ms).unwrap_or(u64::MAX)))
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
            // Where no time passes all of it is sealed at once, as `usage` does it: a part of it would never be more.
            let due = |total: u64| {
                let part = (u128::from(total) * u128::from(at - begin)).checked_div(u128::from(by));
                part.map_or(total, |part| u64::try_from(part).unwrap_or(u64::MAX))
            };
            let (more, more_blocks) = (due(bytes) - sealed, due(blocks) - sealed_blocks);
            sealed += more;
            sealed_blocks += more_blocks;
            self.seal(more, more_blocks, more_blocks / 16);
            if next == Next::End {
                return self.judge_put_off();
            }
            self.comes(next);
        }
    }

    /// On the way the policy may ask to be woken later.
    fn approach_wake(&mut self, by: u64) {
        for _ in 0..WAKES_FOLLOWED {
            let to_go = self.wake_at.map_or(0, |at| at.saturating_sub(self.clock()));
            if self.ended || to_go <= by {
                return;
            }
            self.advance(to_go - by, 0, 0);
        }
    }

    /// What is due at this very moment.
    pub(super) fn settle(&mut self) {
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

    /// In story time: before it the host refuses another rotation.
    pub(super) fn soonest(&self) -> u64 {
        self.began.map_or(0, |began| began.saturating_add(self.story.host.min_interval.0))
    }

    pub(super) fn may_begin(&self) -> bool {
        self.soonest() <= self.now
    }

    /// Draws the next key and sends it if the link is up.
    pub(super) fn begin(&mut self) -> u64 {
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
        self.begged = 0;
        self.put_off = None;
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

    pub(super) fn way(&self) -> &'static str {
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
        self.clock_stepped = false;
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

    /// How long the active key sealed: to now, or to its ceiling.
    pub(super) fn note_age(&mut self) {
        let (now, stopped_at, limit) = (self.now, self.ceiling_met, self.story.host.max_age.0);
        let age = self.active().map_or(0, |key| {
            let age = now - key.from;
            if key.epoch == stopped_at { age.min(limit) } else { age }
        });
        let oldest = self.script.counts.entry("max-age").or_default();
        *oldest = age.max(*oldest);
    }

    pub(super) fn close(&mut self) {
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

    pub(super) fn head(&mut self, what: &str) {
        self.script.blank();
        let line = format!("{:<18}{what}", story_time(self.now));
        self.script.line(&line);
    }
}
