//! The site that keeps the copy: what may come in, what is durable, what is offered for recovery.
//!
//! Records are stored as they come, whatever their order, and acknowledged once durable. The contiguous mark advances
//! in the order of the sequence numbers; there the running hash is computed, keys enter the ledger, and blocks enter the
//! index. None of it needs a key, but for one thing: a key record is acknowledged only when its capsule has been
//! checked, because the primary will seal with that key next.
//!
//! What is offered is always a prefix of the primary's order, and while a gap is open it is the prefix before the gap.
//!
//! A site that wrote itself and was taken over from keeps the copy of the new generation over its own volume, its
//! *base*. Both histories have everything up to the fork; until the first cut the base is a state of the old one, the
//! primary is told with each attach where it differs, and what is offered is that old state.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::chain::{Chain, Digest};
use crate::frame::{Ack, Attach, HandOver, KeyRefusal, Refusal, Welcome};
use crate::group::{KeptCuts, OfferLimit};
use crate::layout::{LayoutMark, SearchTags};
use crate::ledger::Ledger;
use crate::limits::{ALARMS_MAX, STORE_RETRY_INTERVAL};
use crate::lineage::Lineage;
use crate::points::Hole;
use crate::primary::StoreFault;
use crate::record::{Header, Kind};
use crate::units::{
    BlockBytes, BlockCount, CutNumber, Epoch, Generation, Instant, Now, PairId, Path, Sequence, VolumeId, WallTime,
};
use crate::window::{Arrival, Window};

mod cuts;
mod order;
mod words;

pub use words::*;

/// What a takeover waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wish {
    /// Somebody's word.
    Word,
    /// The primary's silence.
    Unheard { since: Instant, until: Instant },
}

#[derive(Clone, Copy, Debug)]
struct Stored {
    header: Header,
    digest: Digest,
    /// A gap that came later says that this does not count.
    given_up: bool,
}

#[derive(Debug)]
pub struct Secondary {
    settings: Settings,
    generation: Generation,
    taking_over: bool,
    taken_over: bool,
    outputs: VecDeque<Output>,
    paths: BTreeSet<Path>,
    /// The path on which something came last: the one that surely lives, and takes the answers.
    heard: Option<Path>,
    heard_at: Instant,
    /// Keys that a restart found and that are being checked again. Until then no path is welcomed: the mark that it
    /// would be told might be below what was acknowledged before.
    rechecked: BTreeSet<Sequence>,
    attaches: BTreeMap<Path, Attach>,
    /// The log holds records whose encrypt bit is not the one that this site's operator set: until that is set right,
    /// nothing is offered, no path is welcomed, and nobody takes over.
    other_bit: bool,
    /// It is taken over as soon as it is known again what may be offered.
    takeover_wanted: Option<Wish>,
    /// Every number that is stored, durable or not.
    seen: Window<()>,
    /// Stored, not yet durable, in the order of storing.
    unsynced: VecDeque<Stored>,
    stored: u64,
    synced: u64,
    sync_under_way: bool,
    retry_at: Option<Instant>,
    /// The generation is not known to be durable. Nobody is welcomed or fenced by one that a crash may take back.
    persisting: bool,
    /// When it is to be made durable again, which failed.
    persist_at: Option<Instant>,
    /// Something came while there was no room: the primary must send it again.
    missed: bool,
    failed: bool,
    durable: Window<Stored>,
    chain: Chain,
    durable_wall: Option<WallTime>,
    /// Key records that are being checked, and what came of the others that wait for their turn.
    keys: BTreeMap<Sequence, Option<Result<KeyFacts, KeyRefusal>>>,
    ledger: Ledger,
    /// Durable gap records, by the first number that each gives up.
    gaps: BTreeMap<Sequence, Stored>,
    gap_open_after: Option<Sequence>,
    limit: OfferLimit,
    group_through: Sequence,
    group_cut: CutNumber,
    cuts: KeptCuts,
    gap_chain: Chain,
    differs_after: Option<Sequence>,
    holes: Vec<Hole>,
    offered: Sequence,
    /// What the takeover that is under way goes on from, and who waits for word of it.
    fork: Option<(Sequence, Chain)>,
    handing_over: Option<Path>,
    /// How far the group let it be offered before the primary's wish was above that.
    limit_before: OfferLimit,
    /// Did the base differ when it was taken over?
    differed: Option<bool>,
    /// A takeover has fixed what is offered.
    fixed: bool,
    /// The refused key that the primary was last told of.
    refused_told: Option<Sequence>,
    /// The void of a refused key is next.
    void_expected: bool,
    ack_due: bool,
    alarms: VecDeque<(WallTime, Alarm)>,
}

impl Secondary {
    pub fn new(now: Now, settings: Settings, recovered: Recovered) -> Self {
        let mut secondary = Self {
            settings,
            generation: recovered.generation,
            taking_over: false,
            taken_over: recovered.taken_over,
            outputs: VecDeque::new(),
            paths: BTreeSet::new(),
            heard: None,
            heard_at: now.instant,
            rechecked: BTreeSet::new(),
            attaches: BTreeMap::new(),
            other_bit: recovered.above.iter().any(|(header, _)| header.encrypted != settings.encrypted),
            takeover_wanted: None,
            seen: Window::from(recovered.contiguous),
            unsynced: VecDeque::new(),
            stored: 0,
            synced: 0,
            sync_under_way: false,
            retry_at: None,
            persisting: false,
            persist_at: None,
            missed: false,
            failed: false,
            durable: Window::from(recovered.contiguous),
            chain: recovered.chain,
            durable_wall: None,
            keys: BTreeMap::new(),
            ledger: recovered.ledger,
            gaps: BTreeMap::new(),
            gap_open_after: recovered.gap_open_after,
            gap_chain: recovered.gap_chain,
            differs_after: recovered.differs_after,
            holes: recovered.holes,
            fork: None,
            differed: None,
            handing_over: None,
            limit_before: recovered.limit,
            limit: recovered.limit,
            group_through: recovered.group_through,
            group_cut: recovered.group_cut,
            cuts: recovered.cuts,
            offered: match (recovered.offered, recovered.limit) {
                (Some(offered), _) => offered,
                (None, OfferLimit::Everything) => recovered.gap_open_after.unwrap_or(recovered.contiguous),
                (None, OfferLimit::Cut(_)) => Sequence::NONE,
            },
            fixed: false,
            refused_told: None,
            void_expected: false,
            ack_due: false,
            alarms: VecDeque::new(),
        };
        // Gaps first: what a gap gave up may be in the log too, and does not count.
        let (gaps, records): (Vec<_>, Vec<_>) =
            recovered.above.into_iter().partition(|(header, _)| header.kind == Kind::Gap);
        for (header, digest) in gaps.into_iter().chain(records) {
            secondary.make_durable(Stored { header, digest, given_up: false });
        }
        if secondary.other_bit {
            secondary.alarm(now, Alarm::EncryptionDiffers);
        }
        secondary.see_what_is_durable();
        secondary.rechecked = secondary.keys.keys().copied().collect();
        secondary.proceed(now);
        secondary
    }

    /// Takes in one event. Outputs that follow from it wait in [`Secondary::poll_output`].
    pub fn handle(&mut self, now: Now, input: Input) {
        self.take(now, input);
        self.proceed(now);
        assert!(self.offered <= self.durable.contiguous(), "only what is durable is offered");
        debug_assert!(self.seen.contiguous() >= self.durable.contiguous(), "what is durable has come");
    }

    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let log = self.retry_at.map(|at| (at, "try the log's disk again"));
        let generation = self.persist_at.map(|at| (at, "make the generation durable"));
        log.into_iter().chain(generation).min_by_key(|(at, _)| *at)
    }

    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Everything up to here may be offered for recovery.
    pub fn offered(&self) -> Sequence {
        self.offered
    }

    /// Every key that a restart found is checked again: what the copy holds is known in full.
    pub fn is_recovered(&self) -> bool {
        self.rechecked.is_empty()
    }

    /// The group's cuts that this lane holds and confirms; some are missing before it is recovered.
    pub fn cuts(&self) -> &KeptCuts {
        &self.cuts
    }

    /// How far the group lets it be offered, and the last record of that.
    pub fn limit(&self) -> (OfferLimit, Sequence) {
        (self.limit, self.group_through)
    }

    /// The last record before an open gap: what is offered until the cut.
    pub fn gap_open_after(&self) -> Option<Sequence> {
        self.gap_open_after
    }

    /// Where the copy was no state of the volume. No record in one of these is a point to go back to.
    pub fn holes(&self) -> &[Hole] {
        &self.holes
    }

    /// Nobody goes back behind this record.
    pub fn forget_holes(&mut self, before: Sequence) {
        self.holes.retain(|hole| hole.until > before);
    }

    /// When the writing site gave the last durable record its place.
    pub fn durable_wall(&self) -> Option<WallTime> {
        self.durable_wall
    }

    /// The running hash before an open gap.
    pub fn gap_chain(&self) -> Chain {
        self.gap_chain
    }

    /// The base is a state of another history still. Fixed by a takeover: what becomes durable after it makes no copy of the base.
    pub fn base_differs(&self) -> bool {
        let now = || self.gap_open_after.is_some() && self.gap_open_after == self.differs_after;
        self.differed.unwrap_or_else(now)
    }

    /// What a takeover goes on from: the last record that is offered, and the running hash there. Fixed by a takeover.
    pub fn fork(&self) -> (Sequence, Chain) {
        let now = match self.gap_open_after {
            Some(before) => (before, self.gap_chain),
            None => (self.durable.contiguous(), self.chain),
        };
        // Below what is consistent here only because the group is not further: that place's running hash is not kept.
        let now = if self.offered < now.0 { (self.offered, Chain::UNKNOWN) } else { now };
        self.fork.unwrap_or(now)
    }

    /// The takeover is the primary's wish: there is one history.
    pub fn was_handed_over(&self) -> bool {
        self.handing_over.is_some()
    }

    /// Durable without a hole, and the running hash there.
    pub fn durable(&self) -> (Sequence, Chain) {
        (self.durable.contiguous(), self.chain)
    }

    pub fn status(&self) -> Status {
        Status {
            generation: self.generation,
            taken_over: self.taken_over,
            paths: self.paths.len(),
            linked: self.is_linked(),
            heard: self.heard_at,
            durable: self.durable.contiguous(),
            offered: self.offered,
            durable_wall: self.durable_wall,
            gap_open: self.gap_open_after.is_some(),
            group_cut: self.group_cut,
            base_differs: self.base_differs(),
            epoch: self.ledger.newest().map(|entry| entry.epoch),
            full: self.retry_at.is_some() || self.persist_at.is_some(),
            chain: self.chain,
            alarms: self.alarms.iter().copied().collect(),
        }
    }

    fn take(&mut self, now: Now, input: Input) {
        if self.is_linked() || input.is_of_the_primary() {
            self.heard_at = now.instant;
        }
        match input {
            Input::Attach { path, attach } => {
                self.attaches.insert(path, attach);
            }
            Input::PathLost { path } => {
                self.attaches.remove(&path);
                if self.paths.remove(&path) {
                    self.say_again();
                }
            }
            Input::Record { path, header, digest } => self.on_record(now, path, header, digest),
            Input::Nonsense { path } => self.drop_path(now, path, Alarm::Nonsense),
            Input::LogSynced { stored } => self.on_synced(stored),
            Input::LogFailed { fault } => self.on_failed(now, fault),
            Input::KeyChecked { key, result } => {
                self.rechecked.remove(&key);
                if let Some(slot) = self.keys.get_mut(&key) {
                    *slot = Some(result);
                }
            }
            Input::Limit(limit) => self.on_limit(limit),
            Input::TakeOver => self.takeover_wanted = Some(Wish::Word),
            Input::TakeOverUnheard { unheard_since: since, until } => {
                self.takeover_wanted.get_or_insert(Wish::Unheard { since, until });
            }
            Input::HandOver { path, hand_over } => self.on_hand_over(now, path, &hand_over),
            Input::GenerationPersisted { generation } => {
                if generation == self.generation {
                    (self.persisting, self.persist_at) = (false, None);
                }
                if self.taking_over && generation == self.generation {
                    self.taking_over = false;
                    self.taken_over = true;
                    if let Some(path) = self.handing_over {
                        self.outputs.push_back(Output::HandedOver { path, generation });
                        self.close_paths();
                    }
                    self.outputs.push_back(Output::TakenOver { generation, through: self.offered });
                }
            }
            Input::GenerationNotPersisted { generation } => {
                if self.persisting && generation == self.generation {
                    self.persist_at = Some(now.instant.plus(STORE_RETRY_INTERVAL));
                    // Those who wait come again.
                    for path in std::mem::take(&mut self.attaches).into_keys() {
                        self.outputs.push_back(Output::ClosePath { path });
                    }
                }
            }
            Input::Tick => {
                if self.persist_at.is_some_and(|at| now.instant >= at) {
                    self.persist_at = None;
                    self.persist_generation();
                }
                if self.retry_at.is_some_and(|at| now.instant >= at) {
                    self.retry_at = None;
                    self.ack_due = true;
                    if std::mem::take(&mut self.missed) {
                        self.close_paths();
                    }
                }
            }
        }
    }

    /// A primary that waits for its welcome, while keys are checked again, is there.
    fn is_linked(&self) -> bool {
        !self.paths.is_empty() || !self.attaches.is_empty()
    }

    /// Is it still so, when it can be done?
    fn stands(&self, now: Now, wish: Wish) -> bool {
        match wish {
            Wish::Word => true,
            Wish::Unheard { since, until } => !self.is_linked() && self.heard_at <= since && now.instant < until,
        }
    }

    fn proceed(&mut self, now: Now) {
        self.advance(now);
        if self.rechecked.is_empty() {
            if self.takeover_wanted.take().is_some_and(|wish| self.stands(now, wish)) {
                if self.other_bit {
                    self.alarm(now, Alarm::EncryptionDiffers);
                } else {
                    self.take_over();
                }
            }
            for (path, attach) in std::mem::take(&mut self.attaches) {
                self.on_attach(now, path, &attach);
            }
        }
        self.run_sync();
        self.run_ack();
    }

    fn on_attach(&mut self, now: Now, path: Path, attach: &Attach) {
        // Before the generation is durable a main site must not be fenced by it: a crash would leave nobody who writes. Nor is it
        // answered under one that this site would not know any more.
        if self.taking_over {
            if self.handing_over.is_some() && attach.generation > self.generation {
                self.withdraw(attach.generation);
            }
            self.outputs.push_back(Output::ClosePath { path });
            return;
        }
        if self.persist_at.is_some() {
            self.outputs.push_back(Output::ClosePath { path });
            return;
        }
        if self.persisting {
            self.attaches.insert(path, *attach);
            return;
        }
        if let Err(refusal) = self.judge(attach) {
            if let Refusal::Fenced(_) = refusal {
                self.alarm(now, Alarm::Fenced(attach.generation));
            }
            if refusal == Refusal::EncryptionDiffers {
                self.alarm(now, Alarm::EncryptionDiffers);
            }
            if refusal == Refusal::LayoutDiffers {
                self.alarm(now, Alarm::LayoutDiffers);
            }
            self.outputs.push_back(Output::Refuse { path, refusal });
            return;
        }
        if attach.generation > self.generation {
            self.generation = attach.generation;
            self.attaches.insert(path, *attach);
            return self.persist_generation();
        }
        self.paths.insert(path);
        self.heard = Some(path);
        // Before the welcome: its mark must not be taken for a key's delivery.
        if let Some((key, why)) = self.key_refused() {
            self.outputs.push_back(Output::KeyRefused { path, key, why });
        }
        if self.base_differs() {
            self.outputs.push_back(Output::Differs { path });
        }
        let welcome = Welcome { generation: self.generation, ack: self.ack() };
        self.outputs.push_back(Output::Welcome { path, welcome });
    }

    fn judge(&self, attach: &Attach) -> Result<(), Refusal> {
        if attach.pair != self.settings.pair {
            return Err(Refusal::UnknownPair);
        }
        if self.taken_over || attach.generation < self.generation {
            return Err(Refusal::Fenced(self.generation));
        }
        if attach.encrypted != self.settings.encrypted || self.other_bit {
            return Err(Refusal::EncryptionDiffers);
        }
        if attach.layout != self.settings.layout.map(|layout| layout.id) {
            return Err(Refusal::LayoutDiffers);
        }
        if attach.volume != self.settings.volume || attach.block_bytes != self.settings.block_bytes {
            return Err(Refusal::OtherVolume);
        }
        if attach.blocks != self.settings.blocks {
            return Err(Refusal::OtherSize(self.settings.blocks.0));
        }
        if self.failed {
            return Err(Refusal::Damaged);
        }
        Ok(())
    }

    fn on_record(&mut self, now: Now, path: Path, header: Header, digest: Digest) {
        if !self.paths.contains(&path) || self.failed || self.taking_over {
            return;
        }
        self.heard = Some(path);
        if self.retry_at.is_some() {
            self.missed = true;
            return;
        }
        let settings = &self.settings;
        if header.encrypted != settings.encrypted {
            return self.drop_path(now, path, Alarm::EncryptionDiffers);
        }
        if header.search_tags != settings.layout.map_or(SearchTags::NONE, |layout| layout.tags) {
            return self.drop_path(now, path, Alarm::LayoutDiffers);
        }
        let inside = header.extent().is_none_or(|extent| extent.end().0 <= settings.blocks.0);
        let ours = header.pair == settings.pair
            && header.volume == settings.volume
            && header.generation == self.generation
            && header.block_bytes == settings.block_bytes;
        if !ours || !inside {
            return self.drop_path(now, path, Alarm::Misplaced);
        }
        let arrival =
            if header.kind == Kind::Gap { self.judge_gap(&header) } else { self.seen.insert(header.sequence, ()) };
        match arrival {
            Arrival::New => {
                while self.seen.advance().is_some() {}
                self.stored += 1;
                self.unsynced.push_back(Stored { header, digest, given_up: false });
                self.outputs.push_back(Output::Store { sequence: header.sequence });
            }
            Arrival::Duplicate => self.ack_due = true,
            // The primary learns from the next welcome where a gap joins.
            Arrival::TooFar if header.kind == Kind::Gap => {
                if self.paths.remove(&path) {
                    self.outputs.push_back(Output::ClosePath { path });
                }
            }
            Arrival::TooFar => self.drop_path(now, path, Alarm::Nonsense),
        }
    }

    /// A gap stands for all that it gives up; it counts only if it joins what is durable here.
    fn judge_gap(&mut self, header: &Header) -> Arrival {
        let (first, end) = (Sequence(header.aux), header.sequence);
        if end <= self.durable.contiguous() || self.gaps.get(&first).is_some_and(|gap| gap.header.sequence == end) {
            return Arrival::Duplicate;
        }
        if self.gap_stored().is_some_and(|stored| stored >= end) {
            return Arrival::Duplicate;
        }
        if first != self.durable.contiguous().next() {
            return Arrival::TooFar;
        }
        // What was given up may have come all the same, and must not count once the primary counts on the gap.
        self.unsynced
            .iter_mut()
            .filter(|record| record.header.sequence < end)
            .for_each(|record| record.given_up = true);
        self.durable.forget(first, end);
        self.keys.retain(|key, _| *key < first || *key >= end);
        self.seen.forget(first, end);
        self.seen.skip_to(end);
        Arrival::New
    }

    /// The last gap that is stored and not yet durable.
    fn gap_stored(&self) -> Option<Sequence> {
        let gaps = self.unsynced.iter().filter(|record| record.header.kind == Kind::Gap && !record.given_up);
        gaps.map(|record| record.header.sequence).next_back()
    }

    fn on_synced(&mut self, stored: u64) {
        self.sync_under_way = false;
        while self.synced < stored.min(self.stored) {
            let Some(record) = self.unsynced.pop_front() else {
                break;
            };
            self.synced += 1;
            self.make_durable(record);
        }
        self.ack_due = true;
    }

    fn make_durable(&mut self, record: Stored) {
        let header = &record.header;
        if record.given_up || header.sequence <= self.durable.contiguous() {
            return;
        }
        if header.kind == Kind::Gap {
            self.gaps.insert(Sequence(header.aux), record);
            return;
        }
        if is_checked(header.kind) {
            self.keys.insert(header.sequence, None);
            self.outputs.push_back(Output::CheckKey { key: header.sequence });
        }
        self.durable.restore(header.sequence, record);
    }

    fn run_sync(&mut self) {
        if self.synced < self.stored && !self.sync_under_way && !self.failed && self.retry_at.is_none() {
            self.sync_under_way = true;
            self.outputs.push_back(Output::SyncLog);
        }
    }

    fn run_ack(&mut self) {
        if !std::mem::take(&mut self.ack_due) {
            return;
        }
        let Some(path) = self.answering_path() else {
            return;
        };
        let ack = self.ack();
        self.outputs.push_back(Output::Ack { path, ack });
    }

    /// An answer may be lost with its path: another one takes it. Where there is none, the next welcome says the same.
    fn say_again(&mut self) {
        self.ack_due = true;
        if let (Some((key, why)), Some(path)) = (self.key_refused(), self.answering_path()) {
            self.outputs.push_back(Output::KeyRefused { path, key, why });
        }
    }

    /// Any path will do; a broken one is known last where nothing comes.
    fn answering_path(&self) -> Option<Path> {
        self.heard.filter(|path| self.paths.contains(path)).or_else(|| self.paths.first().copied())
    }

    fn ack(&self) -> Ack {
        Ack {
            durable: self.durable.contiguous(),
            chain: self.chain,
            ranges: self.durable.ranges(),
            full: self.retry_at.is_some(),
        }
    }

    /// What could not be stored was never promised: paths are closed, and the primary sends it again.
    fn on_failed(&mut self, now: Now, fault: StoreFault) {
        self.sync_under_way = false;
        self.unsynced.clear();
        // Their numbers are not given again: a sync that is under way must not count for what comes next.
        self.synced = self.stored;
        self.see_what_is_durable();
        self.close_paths();
        match fault {
            StoreFault::Full | StoreFault::Unsealed => {
                self.retry_at = Some(now.instant.plus(STORE_RETRY_INTERVAL));
                self.alarm(now, Alarm::LogFull);
            }
            StoreFault::Failed => {
                self.failed = true;
                self.alarm(now, Alarm::LogFailed);
            }
        }
    }

    /// What has come is what is durable, also behind gaps that the order has not reached yet. Where a gap begins it counts,
    /// and not what it gave up, as in [`Self::advance`].
    fn see_what_is_durable(&mut self) {
        self.seen = Window::from(self.durable.contiguous());
        self.durable.above().for_each(|sequence| self.seen.restore(sequence, ()));
        loop {
            match self.gaps.get(&self.seen.contiguous().next()) {
                Some(gap) => self.seen.skip_to(gap.header.sequence),
                None if self.seen.advance().is_some() => {}
                None => break,
            }
        }
    }

    /// A takeover's, or a main site's that this site follows: whichever it is by now.
    fn persist_generation(&mut self) {
        let (generation, taken_over) = (self.generation, self.taking_over);
        self.persisting = true;
        self.outputs.push_back(Output::PersistGeneration { generation, taken_over });
    }

    fn close_paths(&mut self) {
        for path in std::mem::take(&mut self.paths) {
            self.outputs.push_back(Output::ClosePath { path });
        }
    }

    fn take_over(&mut self) {
        if self.taking_over || self.taken_over {
            return;
        }
        let fork = self.fork();
        self.fork = Some(fork);
        self.differed = Some(self.base_differs());
        self.taking_over = true;
        self.fixed = true;
        // The primary begins as the first generation, whether or not it has attached yet.
        let before = self.generation.max(Lineage::FIRST.generation);
        self.generation = match self.limit {
            OfferLimit::Cut(_) if fork.0 < self.durable.contiguous() => Lineage::apart(before),
            OfferLimit::Cut(_) | OfferLimit::Everything => before.next(),
        };
        if self.handing_over.is_none() {
            self.close_paths();
        }
        self.persist_generation();
    }

    /// Asked again, when the answer was lost, this site has a newer generation and refuses the attach: that is the answer.
    fn on_hand_over(&mut self, now: Now, path: Path, hand_over: &HandOver) {
        if !self.paths.contains(&path) || self.failed || self.taking_over || self.taken_over {
            return;
        }
        let here = HandOver { generation: self.generation.next(), at: self.durable.contiguous(), chain: self.chain };
        if *hand_over != here || self.gap_open_after.is_some() {
            return self.drop_path(now, path, Alarm::OtherPlace);
        }
        self.handing_over = Some(path);
        // The primary's word: it stops here, whatever the group is at.
        self.limit_before = std::mem::replace(&mut self.limit, OfferLimit::Everything);
        self.advance(now);
        self.take_over();
    }

    /// The primary took back what it handed over, before this site could write down that it goes on. So it does not: what may be on
    /// its disk of that is replaced by the primary's generation first.
    fn withdraw(&mut self, generation: Generation) {
        (self.taking_over, self.handing_over, self.fixed) = (false, None, false);
        (self.fork, self.differed) = (None, None);
        self.limit = self.limit_before;
        self.generation = generation;
        self.persist_at = None;
        self.close_paths();
        self.persist_generation();
    }

    fn drop_path(&mut self, now: Now, path: Path, alarm: Alarm) {
        self.alarm(now, alarm);
        if self.paths.remove(&path) {
            self.outputs.push_back(Output::ClosePath { path });
        }
    }

    fn alarm(&mut self, now: Now, alarm: Alarm) {
        if self.alarms.back().is_some_and(|(_, last)| *last == alarm) {
            return;
        }
        if self.alarms.len() == ALARMS_MAX {
            self.alarms.pop_front();
        }
        self.alarms.push_back((now.wall, alarm));
        self.outputs.push_back(Output::Alarm(alarm));
    }
}

/// A cover is checked as a key is, so that nothing but its content tells it from one.
fn is_checked(kind: Kind) -> bool {
    matches!(kind, Kind::Key | Kind::Cover)
}
