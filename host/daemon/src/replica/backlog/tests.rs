//! The backlog against a model that remembers everything, with limits that a few records reach.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use farseal_core::record::Kind;
use farseal_core::secondary::Recovered;
use farseal_core::units::{BlockBytes, BlockCount, Generation, Lba, PairId, VolumeId, WallTime};
use proptest::prelude::*;

use super::*;
use crate::replica::recover::{Checkpoint, Found};
use crate::store::disk::RealDisk;

const PAIR: PairId = PairId([1; 16]);
const BLOCKS: u64 = 600;
const SEGMENT: u64 = 8192;
/// How far out of order records come.
const WINDOW: u64 = 12;

/// A log, its index and its backlog, and everything that came.
struct Rig {
    dir: tempfile::TempDir,
    limits: Limits,
    log: Log,
    index: Index,
    backlog: Backlog,
    all: BTreeMap<Sequence, (Header, Location)>,
    /// Durable without a hole.
    durable: Sequence,
    /// What the checkpoint on disk says.
    checkpoint: Option<Checkpoint>,
}

#[derive(Clone, Debug)]
enum Step {
    /// One of the next numbers that have not come.
    Arrive {
        which: usize,
        kind: Kind,
        lba: u64,
        blocks: u32,
    },
    Sync,
    /// What is durable but for so many records.
    Offer {
        but: u64,
    },
    Read,
    Discard,
    Checkpoint,
    /// The process ends without a word.
    Restart,
    /// And the index on disk is lost.
    LoseIndex,
}

impl Rig {
    fn new(limits: Limits) -> Self {
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let log = open(&dir, Location::START, &mut |_| {});
        let index = Index::anew(&dir.path().join("index"), BlockCount(BLOCKS)).unwrap();
        let backlog = Backlog::new(limits, Sequence::NONE);
        Self { dir, limits, log, index, backlog, all: BTreeMap::new(), durable: Sequence::NONE, checkpoint: None }
    }

    /// One with these records, in this order, synced.
    fn with(limits: Limits, sequences: impl IntoIterator<Item = u64>) -> Self {
        let mut rig = Self::new(limits);
        sequences.into_iter().for_each(|sequence| rig.append(&header(sequence, Kind::Data, sequence % BLOCKS, 1)));
        rig.take(&Step::Sync);
        rig
    }

    fn append(&mut self, header: &Header) {
        let body = vec![7; header.body_bytes()];
        let record = [header.encode(crc32c::crc32c(&body)).to_vec(), body].concat();
        let location = self.log.append(&record, header).unwrap();
        self.backlog.add(header, location);
        self.all.insert(header.sequence, (*header, location));
    }

    fn contiguous(&self) -> Sequence {
        let run = self.all.keys().zip(1..).take_while(|(sequence, at)| sequence.0 == *at);
        run.last().map_or(Sequence::NONE, |(sequence, _)| *sequence)
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Arrive { which, kind, lba, blocks } => {
                let first = self.contiguous().0 + 1;
                let mut missing = (first..first + WINDOW).map(Sequence).filter(|next| !self.all.contains_key(next));
                if let Some(sequence) = missing.nth(which % 3) {
                    self.append(&header(sequence.0, *kind, *lba, *blocks));
                }
            }
            Step::Sync => {
                self.log.flush().unwrap();
                self.log.syncer().sync().unwrap();
                self.durable = self.contiguous();
            }
            Step::Offer { but } => {
                let through = Sequence(self.durable.0.saturating_sub(*but)).max(self.backlog.target());
                self.backlog.offer(through, &mut self.index);
            }
            Step::Read => {
                self.log.flush().unwrap();
                let read = self.backlog.read_on(&self.log, &mut self.index).unwrap();
                assert!(read <= self.limits.step_records);
            }
            Step::Discard => {
                self.log.discard_unsynced().unwrap();
                let end = self.log.end();
                self.backlog.discard(end);
                self.all.retain(|_, (_, location)| *location < end);
            }
            Step::Checkpoint => {
                self.log.flush().unwrap();
                let scan_from = self.frontier();
                let (indexed, offered) = (self.backlog.indexed(), self.backlog.target());
                let begin = Checkpoint::of(&Recovered::fresh());
                let contiguous = self.durable;
                let checkpoint = Checkpoint { contiguous, indexed, offered, scan_from: scan_from.pack(), ..begin };
                self.index.checkpoint(&[]).unwrap();
                self.checkpoint = Some(checkpoint);
            }
            Step::Restart => self.restart(),
            Step::LoseIndex => {
                self.checkpoint = None;
                self.restart();
            }
        }
    }

    fn restart(&mut self) {
        let place = self.dir.path().join("index");
        self.index = match &self.checkpoint {
            Some(_) => Index::open(&place, BlockCount(BLOCKS)).unwrap().0,
            None => Index::anew(&place, BlockCount(BLOCKS)).unwrap(),
        };
        let fresh = Checkpoint::of(&Recovered::fresh());
        let checkpoint = self.checkpoint.as_ref().unwrap_or(&fresh);
        let last = Sequence(u64::MAX);
        let mut found = Found::new(checkpoint, self.checkpoint.is_none(), last, self.limits, &mut self.index);
        let from = Location::unpack(checkpoint.scan_from);
        let mut there = Vec::new();
        self.log = open(&self.dir, from, &mut |logged| {
            there.push(logged.location);
            found.take(&logged);
        });
        self.backlog = found.backlog;
        let end = self.log.end();
        // What was in the buffer is gone.
        self.all.retain(|_, (_, location)| *location < end);
        assert!(self.all.values().filter(|(_, location)| *location >= from).count() == there.len());
        self.durable = self.contiguous();
    }

    /// What must hold at any time.
    fn check(&self) {
        assert!(self.backlog.remembered.len() <= self.limits.records);
        let (least, most) = (self.model(self.backlog.indexed()), self.model(self.backlog.target()));
        assert!(self.backlog.indexed() <= self.backlog.target());
        for lba in 0..BLOCKS {
            let found = self.found(lba);
            assert!(least.get(&lba).copied() <= found && found <= most.get(&lba).copied(), "block {lba}: {found:?}");
        }
        let frontier = self.frontier();
        let waiting = self.all.range(self.backlog.target().next()..);
        assert!(waiting.into_iter().all(|(_, (_, location))| *location >= frontier), "a restart would not find it");
    }

    /// Reads until nothing is left to be read: then the index is that of the model.
    fn settle(&mut self) {
        while self.backlog.is_reading() {
            self.take(&Step::Read);
            self.check();
        }
        assert_eq!(self.backlog.indexed(), self.backlog.target());
        let model = self.model(self.backlog.target());
        (0..BLOCKS).for_each(|lba| assert_eq!(self.found(lba), model.get(&lba).copied(), "block {lba}"));
    }

    fn frontier(&self) -> Location {
        self.backlog.frontier(self.log.durable_end())
    }

    fn found(&self, lba: u64) -> Option<(Sequence, Location)> {
        self.index.lookup(Lba(lba)).map(|place| (place.sequence, place.location))
    }

    /// What each block reads as when the records up to `through` are applied in their order.
    fn model(&self, through: Sequence) -> BTreeMap<u64, (Sequence, Location)> {
        let mut blocks = BTreeMap::new();
        for (sequence, (header, location)) in self.all.range(..=through) {
            let Some(extent) = header.extent() else { continue };
            blocks.extend((extent.first().0..extent.end().0).map(|lba| (lba, (*sequence, *location))));
        }
        blocks
    }
}

fn open(dir: &tempfile::TempDir, from: Location, each: &mut dyn FnMut(crate::store::log::Logged)) -> Log {
    Log::open_on(Arc::new(RealDisk), &dir.path().join("log"), PAIR, from, ByteLen(SEGMENT), each).unwrap()
}

fn header(sequence: u64, kind: Kind, lba: u64, blocks: u32) -> Header {
    let speaks = kind.has_blocks() || kind.touches_volume();
    Header {
        kind,
        encrypted: true,
        stack: 0,
        search_tags: farseal_core::layout::SearchTags::NONE,
        pair: PAIR,
        volume: VolumeId([2; 16]),
        generation: Generation(3),
        sequence: Sequence(sequence),
        lba: Lba(if speaks { lba } else { 0 }),
        blocks: if speaks { blocks } else { 0 },
        block_bytes: BlockBytes::new(512).unwrap(),
        wall: WallTime(7),
        aux: 0,
    }
}

fn limits(records: usize, step_records: u64) -> Limits {
    Limits { records, step_records, step_bytes: ByteLen(1 << 20) }
}

fn step() -> impl Strategy<Value = Step> {
    let kind = prop_oneof![4 => Just(Kind::Data), 1 => Just(Kind::Zero), 1 => Just(Kind::Trim), 1 => Just(Kind::Cut)];
    let arrive = (0..3usize, kind, 0..BLOCKS - 40, 1..40u32).prop_map(|(which, kind, lba, blocks)| Step::Arrive {
        which,
        kind,
        lba,
        blocks: if kind == Kind::Data { blocks % 4 + 1 } else { blocks },
    });
    prop_oneof![
        24 => arrive,
        6 => Just(Step::Sync),
        4 => (0..20u64).prop_map(|but| Step::Offer { but }),
        12 => Just(Step::Read),
        2 => Just(Step::Discard),
        2 => Just(Step::Checkpoint),
        1 => Just(Step::Restart),
        1 => Just(Step::LoseIndex),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_bounded_backlog_gives_the_index_what_one_without_bounds_does_in_whatever_order(
        records in 1..9usize,
        step_records in 1..6u64,
        step_bytes in prop_oneof![Just(1), Just(1 << 20)],
        steps in proptest::collection::vec(step(), 1..160),
    ) {
        let mut rig = Rig::new(Limits { records, step_records, step_bytes: ByteLen(step_bytes) });
        for step in steps {
            rig.take(&step);
            rig.check();
        }
        rig.settle();
        rig.take(&Step::Sync);
        rig.take(&Step::Offer { but: 0 });
        rig.settle();
    }
}

#[test]
fn an_offer_below_what_was_spilled_reads_nothing() {
    let mut rig = Rig::with(limits(4, 2), 1..=20);
    rig.take(&Step::Offer { but: 16 });
    assert!(!rig.backlog.is_reading());
    assert_eq!(rig.backlog.indexed(), Sequence(4));
    rig.take(&Step::Offer { but: 15 });
    assert!(rig.backlog.is_reading(), "the fifth is only in the log");
    rig.settle();
}

#[test]
fn the_lowest_of_those_that_wait_are_remembered_however_they_come() {
    let rig = Rig::with(limits(4, 2), [9, 8, 7, 6, 5, 4, 3, 2, 1, 10, 11, 12]);
    let remembered: Vec<u64> = rig.backlog.remembered.keys().map(|sequence| sequence.0).collect();
    assert_eq!(remembered, [1, 2, 3, 4]);
    assert_eq!(rig.frontier(), rig.all[&Sequence(9)].1);
}

#[test]
fn an_offer_that_is_raised_in_the_middle_of_a_pass_gets_what_the_pass_had_left_behind() {
    let mut rig = Rig::with(limits(2, 1), (1..=40).map(|at| if at % 2 == 0 { at - 1 } else { at + 1 }));
    rig.take(&Step::Offer { but: 30 });
    for _ in 0..20 {
        rig.take(&Step::Read);
    }
    assert!(rig.backlog.spilled.is_some(), "what the first offer did not ask for");
    rig.take(&Step::Offer { but: 25 });
    assert!(rig.backlog.indexed() < Sequence(15), "the pass is past some of them");
    rig.settle();
    assert_eq!(rig.backlog.indexed(), Sequence(15));
    rig.take(&Step::Offer { but: 0 });
    rig.settle();
    assert_eq!(rig.frontier(), rig.log.end());
}

#[test]
fn a_log_of_more_records_than_the_limit_is_opened_and_offered() {
    let mut rig = Rig::with(limits(16, 64), 1..=1000);
    rig.take(&Step::Offer { but: 990 });
    rig.take(&Step::Checkpoint);
    rig.take(&Step::Restart);
    rig.check();
    assert_eq!((rig.backlog.remembered.len(), rig.backlog.indexed()), (16, Sequence(10)));
    rig.take(&Step::Offer { but: 0 });
    let mut steps = 0;
    while rig.backlog.is_reading() {
        rig.take(&Step::Read);
        steps += 1;
    }
    assert_eq!(steps, (1000 - 10 - 16_u64).div_ceil(64) + u64::from((1000 - 10 - 16) % 64 == 0));
    rig.settle();
}

#[test]
fn a_restart_in_the_middle_of_a_pass_offers_no_less() {
    let mut rig = Rig::with(limits(3, 1), 1..=30);
    rig.take(&Step::Offer { but: 5 });
    for _ in 0..10 {
        rig.take(&Step::Read);
    }
    assert_eq!(rig.backlog.indexed(), Sequence(3), "the pass is not through");
    rig.take(&Step::Checkpoint);
    rig.take(&Step::Restart);
    assert_eq!(rig.backlog.indexed(), Sequence(25));
    rig.settle();
}

#[test]
fn a_record_whose_head_is_damaged_stops_the_pass_until_it_is_mended() {
    let mut rig = Rig::with(limits(2, 4), 1..=30);
    let (_, damaged) = rig.all[&Sequence(9)];
    let path = rig.dir.path().join(format!("log/{:08x}.fsl", damaged.segment));
    let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
    let at = u64::from(damaged.offset) + 40;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
    rig.take(&Step::Offer { but: 0 });
    let mut read_on = || rig.backlog.read_on(&rig.log, &mut rig.index);
    read_on().unwrap();
    for _ in 0..3 {
        let refused = read_on();
        assert!(matches!(refused, Err(ReadError::Damaged { location, .. }) if location == damaged), "{refused:?}");
    }
    assert!(rig.backlog.is_reading() && rig.backlog.indexed() == Sequence(2));
    file.write_all_at(&byte, at).unwrap();
    rig.settle();
    assert_eq!(rig.backlog.indexed(), Sequence(30));
}

#[test]
fn what_is_spilled_behind_a_pass_is_not_lost_with_its_end() {
    let mut rig = Rig::with(limits(4, 1), [1, 2, 3, 6, 4, 5, 7, 8, 9, 10, 11]);
    rig.take(&Step::Offer { but: 5 });
    (12..=18).for_each(|sequence| rig.append(&header(sequence, Kind::Data, sequence, 1)));
    rig.take(&Step::Sync);
    rig.take(&Step::Offer { but: 1 });
    (19..=23).for_each(|sequence| rig.append(&header(sequence, Kind::Data, sequence, 1)));
    rig.settle();
    assert_eq!(rig.backlog.indexed(), Sequence(17));
    rig.take(&Step::Sync);
    rig.take(&Step::Offer { but: 0 });
    rig.settle();
    assert_eq!((rig.backlog.indexed(), rig.frontier()), (Sequence(23), rig.log.end()));
}

#[test]
fn a_checkpoint_counts_on_no_segment_that_a_power_cut_can_take() {
    let mut rig = Rig::with(limits(3, 1), 1..=4);
    rig.take(&Step::Offer { but: 0 });
    rig.settle();
    let durable = rig.log.end();
    let mut sequence = 5;
    while rig.log.end().segment == durable.segment {
        rig.append(&header(sequence, Kind::Data, sequence, 1));
        sequence += 1;
        if rig.log.end().segment == durable.segment {
            rig.take(&Step::Sync);
            rig.take(&Step::Offer { but: 0 });
        }
    }
    assert!(rig.backlog.remembered.len() == 1, "the first record of the next segment waits");
    rig.take(&Step::Checkpoint);
    rig.take(&Step::Discard);
    rig.take(&Step::Restart);
    rig.settle();
    assert_eq!(rig.backlog.indexed(), Sequence(sequence - 2));
}
