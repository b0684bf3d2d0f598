//! Whatever the interleaving of writes, keys and paths, and whoever restarts: each record opens under exactly the epoch
//! that sealed it, by the primary's ledger and by the secondary's.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::wildcard_enum_match_arm, reason = "of the machines' words it carries out what keys depend on")]

use std::collections::BTreeMap;

use farseal_core::chain::{Chain, Digest};
use farseal_core::flow::Chosen;
use farseal_core::frame::{Attach, KeyRefusal};
use farseal_core::ledger::{Entry, Ledger};
use farseal_core::owed::OwedMap;
use farseal_core::primary::{self, Command, Kept, KeptMap, Logged, Output, Planned, Primary, Source, What};
use farseal_core::record::{Header, Kind};
use farseal_core::rotation::{How, Slot};
use farseal_core::secondary::{self, KeyFacts, Secondary};
use farseal_core::units::{BlockCount, Epoch, Extent, Generation, Instant, Lba, Now, Path, Sequence, Ticket};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

#[path = "support/pair.rs"]
mod pair;

const BLOCKS: BlockCount = BlockCount(32);

/// One thing that happens. A number picks among what is under way.
#[derive(Clone, Copy, Debug)]
enum Step {
    Write(u64),
    Passes(u64),
    Rotate(How),
    Prepared,
    NotPrepared,
    JournalSynced,
    Arrives(usize),
    ArrivesTwice(usize),
    LogSynced,
    /// Everything that is under way comes to its end, in whatever order.
    Settles(usize),
    KeyChecked(usize),
    KeyRefused(usize),
    PathLost(u16),
    PathBack(u16),
    /// Everything is owed anew: a gap, and a key behind it.
    CopyAll,
    PrimaryRestarts(usize),
    SecondaryRestarts(usize),
}

/// A record as it was given its place, with what only this test knows: who sealed it.
#[derive(Clone, Copy, Debug)]
struct Rec {
    header: Header,
    digest: Digest,
    chain: Chain,
    at_gap: Chain,
    sealed_by: Epoch,
    /// What a key record says.
    facts: Option<KeyFacts>,
}

struct Pair {
    now: u64,
    primary: Primary,
    secondary: Secondary,
    tickets: u64,
    /// The journal; the first `synced` records survive.
    journal: Vec<Rec>,
    synced: usize,
    sync_wanted: bool,
    newest: Epoch,
    preparing: Option<Epoch>,
    owed: Option<KeptMap>,
    /// On its way, by path.
    way: Vec<(Path, Rec)>,
    log: Vec<Rec>,
    durable: usize,
    stored: u64,
    arriving: Option<Rec>,
    checks: Vec<Sequence>,
    /// A key that opened once opens for ever, and one that did not never will.
    opened: BTreeMap<Epoch, bool>,
}

fn secondary(now: Now, above: Vec<(Header, Digest)>) -> Secondary {
    let settings = pair::settings(BLOCKS);
    let ours = secondary::Settings {
        layout: None,
        pair: settings.pair,
        volume: settings.volume,
        encrypted: true,
        block_bytes: settings.block_bytes,
        blocks: BLOCKS,
    };
    let generation = Generation(1);
    Secondary::new(now, ours, secondary::Recovered { generation, above, ..secondary::Recovered::fresh() })
}

impl Pair {
    fn new() -> Self {
        let now = pair::at(1);
        let mut pair = Self {
            now: 1,
            primary: Primary::new(now, pair::settings(BLOCKS), primary::Recovered::fresh()),
            secondary: secondary(now, Vec::new()),
            tickets: 0,
            journal: Vec::new(),
            synced: 0,
            sync_wanted: false,
            newest: Epoch::NONE,
            preparing: None,
            owed: None,
            way: Vec::new(),
            log: Vec::new(),
            durable: 0,
            stored: 0,
            arriving: None,
            checks: Vec::new(),
            opened: BTreeMap::new(),
        };
        pair.go_on();
        pair
    }

    fn at(&self) -> Now {
        pair::at(self.now)
    }

    fn tell(&mut self, input: primary::Input) {
        self.primary.handle(self.at(), input);
        self.go_on();
    }

    fn tell_secondary(&mut self, input: secondary::Input) {
        self.secondary.handle(self.at(), input);
        self.go_on();
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Write(lba) => {
                self.tickets += 1;
                let extent = Extent::new(Lba(lba % BLOCKS.0), BlockCount(1)).unwrap();
                self.tell(primary::Input::Write { ticket: Ticket(self.tickets), what: What::Data, extent, fua: false });
            }
            Step::Passes(ms) => {
                self.now += ms;
                self.tell(primary::Input::Tick);
                self.tell_secondary(secondary::Input::Tick);
            }
            Step::Rotate(how) => self.tell(primary::Input::Operator(Command::Rotate(how))),
            Step::Prepared => {
                if let Some(epoch) = self.preparing.take() {
                    self.newest = self.newest.max(epoch);
                    let slot = Slot { at: Instant(self.now), blocks: 1, chance: 0 };
                    self.tell(primary::Input::EpochPrepared { epoch, slot });
                }
            }
            Step::NotPrepared => {
                if let Some(epoch) = self.preparing.take() {
                    self.tell(primary::Input::EpochFailed { epoch });
                }
            }
            Step::JournalSynced => {
                if std::mem::take(&mut self.sync_wanted) {
                    self.synced = self.journal.len();
                    let through = self.primary.status().last.min(last(&self.journal));
                    self.tell(primary::Input::JournalSynced { through });
                }
            }
            Step::Arrives(pick) => {
                if let Some(place) = pick.checked_rem(self.way.len()) {
                    let (path, rec) = self.way.remove(place);
                    self.arrives(path, rec);
                }
            }
            Step::ArrivesTwice(pick) => {
                if let Some(place) = pick.checked_rem(self.way.len()) {
                    let (path, rec) = self.way[place];
                    self.arrives(path, rec);
                }
            }
            Step::LogSynced => {
                self.durable = self.log.len();
                self.tell_secondary(secondary::Input::LogSynced { stored: self.stored });
            }
            Step::Settles(pick) => {
                for step in [Step::JournalSynced, Step::LogSynced, Step::KeyChecked(pick)] {
                    self.step(step);
                }
                while !self.way.is_empty() {
                    self.step(Step::Arrives(pick));
                }
                for step in [Step::LogSynced, Step::KeyChecked(pick), Step::KeyChecked(pick)] {
                    self.step(step);
                }
            }
            Step::KeyChecked(pick) => self.key_checked(pick, true),
            Step::KeyRefused(pick) => self.key_checked(pick, false),
            Step::PathLost(path) => self.path_lost(Path(path)),
            Step::PathBack(path) => {
                self.path_lost(Path(path));
                self.attach(Path(path));
            }
            Step::CopyAll => self.tell(primary::Input::Operator(Command::CopyAll)),
            Step::PrimaryRestarts(kept) => self.primary_restarts(kept),
            Step::SecondaryRestarts(kept) => {
                let unsynced = self.log.len() - self.durable;
                self.log.truncate(self.durable + kept % (unsynced + 1));
                self.durable = self.log.len();
                (self.stored, self.checks) = (0, Vec::new());
                self.way.clear();
                let above = self.log.iter().map(|rec| (rec.header, rec.digest)).collect();
                self.secondary = secondary(self.at(), above);
                (0..2).for_each(|path| self.tell(primary::Input::PathLost { path: Path(path) }));
            }
        }
    }

    fn arrives(&mut self, path: Path, rec: Rec) {
        self.arriving = Some(rec);
        self.tell_secondary(secondary::Input::Record { path, header: rec.header, digest: rec.digest });
    }

    fn key_checked(&mut self, pick: usize, opens: bool) {
        let Some(place) = pick.checked_rem(self.checks.len()) else { return };
        let key = self.checks.remove(place);
        let rec = self.log.iter().find(|rec| rec.header.sequence == key).unwrap();
        let result = match rec.facts {
            Some(facts) if *self.opened.entry(facts.epoch).or_insert(opens) => Ok(facts),
            Some(_) => Err(KeyRefusal::Unopenable),
            // A cover is looked at as a key is.
            None => Err(KeyRefusal::NoCapsule),
        };
        self.tell_secondary(secondary::Input::KeyChecked { key, result });
    }

    fn path_lost(&mut self, path: Path) {
        self.way.retain(|(on, _)| *on != path);
        self.tell(primary::Input::PathLost { path });
        self.tell_secondary(secondary::Input::PathLost { path });
    }

    fn attach(&mut self, path: Path) {
        let settings = pair::settings(BLOCKS);
        self.tell(primary::Input::Attaching { path });
        let attach = Attach {
            layout: None,
            pair: settings.pair,
            volume: settings.volume,
            generation: settings.generation,
            encrypted: true,
            block_bytes: settings.block_bytes,
            blocks: BLOCKS,
            path: path.0,
            paths: 2,
        };
        self.tell_secondary(secondary::Input::Attach { path, attach });
    }

    /// A crash takes a part of what was not synced.
    fn primary_restarts(&mut self, kept: usize) {
        let unsynced = self.journal.len() - self.synced;
        self.journal.truncate(self.synced + kept % (unsynced + 1));
        self.synced = self.journal.len();
        (self.sync_wanted, self.preparing) = (false, None);
        self.way.clear();
        let logged: Vec<Logged> = self
            .journal
            .iter()
            .scan(Chain::START, |chain, rec| {
                let logged = Logged::after(*chain, rec.at_gap, rec.header, rec.digest);
                *chain = logged.chain;
                Some(logged)
            })
            .collect();
        let kept = Kept {
            homed: last(&self.journal),
            newest_epoch: self.newest,
            owed: self.owed.clone(),
            paused: false,
            fenced: None,
            mode: None,
            chosen: Chosen::default(),
            handing_over: None,
        };
        let recovered = primary::Recovered::from_records(Sequence::NONE, Chain::START, &logged, kept);
        self.primary = Primary::new(self.at(), pair::settings(BLOCKS), recovered);
        (0..2).for_each(|path| self.tell_secondary(secondary::Input::PathLost { path: Path(path) }));
        self.go_on();
    }

    /// Both machines' words are carried out, at once where nothing depends on when.
    fn go_on(&mut self) {
        loop {
            if let Some(output) = self.primary.poll_output() {
                self.primary_does(output);
            } else if let Some(output) = self.secondary.poll_output() {
                self.secondary_does(output);
            } else {
                return;
            }
        }
    }

    fn primary_does(&mut self, output: Output) {
        let now = self.at();
        match output {
            Output::Commit { records, restart, .. } => {
                let digests = records.iter().map(|planned| self.append(planned, restart)).collect();
                self.primary.handle(now, primary::Input::Committed { digests });
            }
            Output::SyncJournal => self.sync_wanted = true,
            Output::Destage { through } => self.primary.handle(now, primary::Input::Destaged { through }),
            Output::SyncHome => {
                let through = self.primary.status().destaged;
                self.primary.handle(now, primary::Input::HomeSynced { through });
            }
            Output::ReadForCopy { extent, .. } => {
                self.tickets += 1;
                let ticket = Ticket(self.tickets);
                self.primary.handle(now, primary::Input::CopyRead { ticket, what: What::Data, extent });
            }
            Output::PersistOwed { stamp, acked, acked_chain } => {
                let bytes = self.primary.encode_owed().unwrap();
                let block_bytes = pair::settings(BLOCKS).block_bytes;
                let (map, given_up) = OwedMap::decode_with(&bytes, BLOCKS, block_bytes).unwrap();
                self.owed = Some(KeptMap { map, given_up, acked, acked_chain });
                self.primary.handle(now, primary::Input::OwedPersisted { stamp });
            }
            Output::DropOwed => self.owed = None,
            Output::Send { path, range, slots: _ } => {
                let sent = self.journal.iter().filter(|rec| (range.first..=range.last).contains(&rec.header.sequence));
                self.way.extend(sent.map(|rec| (path, *rec)));
            }
            Output::PrepareEpoch { epoch, .. } => self.preparing = Some(epoch),
            Output::ClosePath { path } => {
                self.way.retain(|(on, _)| *on != path);
                self.secondary.handle(now, secondary::Input::PathLost { path });
            }
            Output::Alarm(primary::Alarm::Diverged(divergence)) => panic!("the sites disagree: {divergence}"),
            _ => {}
        }
    }

    fn append(&mut self, planned: &Planned, restart: Option<Chain>) -> Digest {
        let settings = pair::settings(BLOCKS);
        let header = Header {
            kind: planned.kind,
            encrypted: true,
            stack: 0,
            search_tags: farseal_core::layout::SearchTags::NONE,
            pair: settings.pair,
            volume: settings.volume,
            generation: settings.generation,
            sequence: planned.sequence,
            lba: planned.extent.map_or(Lba(0), Extent::first),
            blocks: planned.extent.map_or(planned.body_blocks, |extent| u32::try_from(extent.blocks().0).unwrap()),
            block_bytes: settings.block_bytes,
            wall: planned.wall,
            aux: planned.aux,
        };
        let facts = match planned.source {
            Source::Capsules { start, .. } => Some(KeyFacts { epoch: planned.epoch, start }),
            Source::Buffer { .. } | Source::Sham { .. } | Source::Header | Source::Random => None,
        };
        // As the tags would: no two records that are sealed under different keys have one digest.
        let digest = Digest::of(&header.encode(0), &planned.epoch.0.to_le_bytes());
        let before = self.journal.last().map_or(Chain::START, |rec| rec.chain);
        let at_gap = restart.unwrap_or(before);
        let chain = if header.kind == Kind::Gap { at_gap } else { before }.after(digest);
        assert_eq!(header.sequence, last(&self.journal).next());
        self.journal.push(Rec { header, digest, chain, at_gap, sealed_by: planned.epoch, facts });
        digest
    }

    fn secondary_does(&mut self, output: secondary::Output) {
        let now = self.at();
        match output {
            secondary::Output::Store { .. } => {
                self.stored += 1;
                self.log.push(self.arriving.unwrap());
            }
            secondary::Output::CheckKey { key } => self.checks.push(key),
            secondary::Output::Welcome { path, welcome } => {
                self.primary.handle(now, primary::Input::Welcomed { path, welcome });
            }
            secondary::Output::Ack { path, ack } => self.primary.handle(now, primary::Input::Acked { path, ack }),
            secondary::Output::KeyRefused { key, why, .. } => {
                self.primary.handle(now, primary::Input::KeyRefused { key, why });
            }
            secondary::Output::ClosePath { path } => {
                self.way.retain(|(on, _)| *on != path);
                self.primary.handle(now, primary::Input::PathLost { path });
            }
            _ => {}
        }
    }

    /// Every record of the journal by what the journal says, and every one that the secondary counts by its ledger.
    fn judge(&self) {
        let mut ledger = Ledger::default();
        for rec in &self.journal {
            let (key, generation) = (rec.header.sequence, rec.header.generation);
            if let Some(KeyFacts { epoch, start }) = rec.facts {
                ledger.arm(Entry { epoch, generation, key, start }).unwrap();
            }
            if rec.header.kind == Kind::Void {
                ledger.void(Epoch(rec.header.aux), key);
            }
        }
        opens_by(&ledger, &self.journal, "the primary");
        let (contiguous, _) = self.secondary.durable();
        let log: BTreeMap<Sequence, Rec> = self.log.iter().map(|rec| (rec.header.sequence, *rec)).collect();
        let gaps: Vec<(Sequence, Sequence)> = log
            .values()
            .filter(|rec| rec.header.kind == Kind::Gap)
            .map(|rec| (Sequence(rec.header.aux), rec.header.sequence))
            .collect();
        let counts = |rec: &Rec| {
            let sequence = rec.header.sequence;
            sequence <= contiguous && !gaps.iter().any(|(from, to)| *from <= sequence && sequence < *to)
        };
        let counted: Vec<Rec> = log.into_values().filter(counts).collect();
        opens_by(self.secondary.ledger(), &counted, "the secondary");
    }
}

fn opens_by(ledger: &Ledger, records: &[Rec], site: &str) {
    for rec in records.iter().filter(|rec| rec.header.kind.is_sealed()) {
        let opens = ledger.epoch_of(rec.header.sequence).map(|entry| entry.epoch);
        let Rec { header, sealed_by, .. } = rec;
        assert_eq!(opens, Some(*sealed_by), "{site}: {:?} record {}", header.kind, header.sequence);
    }
}

fn last(journal: &[Rec]) -> Sequence {
    journal.last().map_or(Sequence::NONE, |rec| rec.header.sequence)
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        16 => any::<u64>().prop_map(Step::Write),
        10 => (1..400_u64).prop_map(Step::Passes),
        8 => prop_oneof![4 => Just(How::InBand), 3 => Just(How::Pause), 1 => Just(How::AtOnce)].prop_map(Step::Rotate),
        10 => Just(Step::Prepared),
        1 => Just(Step::NotPrepared),
        6 => Just(Step::JournalSynced),
        12 => any::<usize>().prop_map(Step::Arrives),
        2 => any::<usize>().prop_map(Step::ArrivesTwice),
        6 => Just(Step::LogSynced),
        8 => any::<usize>().prop_map(Step::Settles),
        6 => any::<usize>().prop_map(Step::KeyChecked),
        4 => any::<usize>().prop_map(Step::KeyRefused),
        1 => (0..2_u16).prop_map(Step::PathLost),
        3 => (0..2_u16).prop_map(Step::PathBack),
        1 => Just(Step::CopyAll),
        1 => any::<usize>().prop_map(Step::PrimaryRestarts),
        1 => any::<usize>().prop_map(Step::SecondaryRestarts),
    ]
}

fn play(steps: Vec<Step>) -> Pair {
    let mut pair = Pair::new();
    let begin = [Step::Prepared, Step::JournalSynced, Step::PathBack(0), Step::PathBack(1)];
    for step in begin.into_iter().chain(steps) {
        pair.step(step);
        pair.judge();
    }
    pair
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    proptest::collection::vec(step(), 1..400)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn every_record_opens_under_the_one_epoch_that_sealed_it(steps in steps()) {
        play(steps);
    }
}

#[test]
fn the_interleavings_hold_what_they_are_meant_to_hold() {
    let mut runner = TestRunner::deterministic();
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for _ in 0..300 {
        let pair = play(steps().new_tree(&mut runner).unwrap().current());
        let kinds = |kind| pair.log.iter().filter(move |rec| rec.header.kind == kind).count();
        let counted = pair.secondary.ledger().entries().count();
        let apart = pair.log.windows(2).filter(|two| two[1].header.sequence < two[0].header.sequence).count();
        for (what, count) in [
            ("keys", kinds(Kind::Key)),
            ("voids", kinds(Kind::Void)),
            ("gaps", kinds(Kind::Gap)),
            ("cuts", kinds(Kind::Cut)),
            ("out of order", apart),
            ("refused keys", pair.opened.values().filter(|opens| !**opens).count()),
            ("three epochs at the secondary", usize::from(counted >= 3)),
        ] {
            *seen.entry(what).or_default() += count;
        }
    }
    assert!(seen.values().all(|count| *count >= 10), "{seen:?}");
}
