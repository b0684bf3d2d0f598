//! Compaction: every block reads as before, at every step, after a crash between any two, and from a log alone.

use std::path::Path;
use std::sync::Arc;

use farseal::store::disk::{Disk, RealDisk};
use farseal::store::index::Index;
use farseal::store::log::{CompactError, Compacted, Location, Log, LogError, Logged, Order, SegmentUse};
use farseal::store::scrub::scrub;
use farseal_core::compaction::{self, Facts, Room};
use farseal_core::record::{Header, Kind};
use farseal_core::units::{BlockCount, ByteLen, Lba};
use proptest::prelude::*;

use crate::faults::Faulty;
use crate::records::{PAIR, header, record};

const SEGMENT: u64 = 16 << 10;
const BLOCKS: u64 = 700;
/// A block of 512 bytes and its tag.
const EACH: u64 = 528;

/// A remote's log and index, and what each block must read as.
struct Copy {
    log: Log,
    index: Index,
    last: u64,
    /// Everything that lies before this is in the index on disk.
    kept: Location,
    /// The record that wrote each block.
    model: Vec<Option<(u64, Kind)>>,
}

#[derive(Clone, Debug)]
enum Step {
    Write {
        kind: Kind,
        lba: u64,
        blocks: u32,
    },
    Checkpoint,
    /// Of the log, and the power may go right after.
    BeginSegment {
        crash: bool,
    },
    /// How many of its steps it comes to before the power goes; 4 is all of them, and the power stays.
    Compact {
        steps: u8,
    },
    LoseIndex,
    LoseManifest,
    RemoveManifest,
}

impl Copy {
    fn open(dir: &Path, model: Vec<Option<(u64, Kind)>>, last: u64) -> Self {
        let (mut index, state) = Index::open(&dir.join("index"), BlockCount(BLOCKS)).unwrap();
        let from = state.as_ref().map_or(Location::START, |state| decode(state).1);
        let order = Log::order(&dir.join("log"), PAIR).unwrap();
        let (mut log, scanned) = open_log(dir, from).unwrap();
        let mut indexed = state.map_or(0, |state| decode(&state).0);
        if indexed > 0 {
            finish(&mut log, &mut index);
        } else if let Order::Since(state) = order {
            indexed = decode(&state.unwrap()).0;
            scanned.iter().for_each(|logged| index.apply(&logged.header, logged.location));
            log.compacted_records(&mut |header, location| index.apply(header, location)).unwrap();
        }
        scanned
            .iter()
            .filter(|logged| logged.header.sequence.0 > indexed)
            .for_each(|logged| index.apply(&logged.header, logged.location));
        Self { log, index, last, kept: from, model }
    }

    /// After a crash.
    fn again(self, dir: &Path) -> Self {
        let Self { log, index, last, model, .. } = self;
        drop((log, index));
        Self::open(dir, model, last)
    }

    fn write(&mut self, kind: Kind, lba: u64, blocks: u32) {
        self.last += 1;
        let header = header(kind, self.last, lba, blocks);
        let location = self.log.append(&record(&header), &header).unwrap();
        self.log.flush().unwrap();
        self.log.syncer().sync().unwrap();
        self.index.apply(&header, location);
        if kind.touches_volume() {
            let range = usize::try_from(lba).unwrap()..usize::try_from(lba + u64::from(blocks)).unwrap();
            self.model[range].fill(Some((self.last, kind)));
        }
    }

    fn state(&self) -> Vec<u8> {
        [self.last.to_le_bytes(), self.log.end().pack().to_le_bytes()].concat()
    }

    fn checkpoint(&mut self) {
        self.keep();
        self.log.drop_replaced(&self.state()).unwrap();
    }

    fn keep(&mut self) {
        self.index.checkpoint(&self.state()).unwrap();
        self.kept = self.log.end();
    }

    fn facts(&self) -> (Vec<SegmentUse>, Vec<Facts>) {
        let segments = self.log.full_segments(self.kept);
        let facts = segments.iter().map(|segment| Facts {
            bytes: segment.bytes,
            live: ByteLen(self.index.live(segment.number).0 * EACH),
            written: segment.compacted.map(|blocks| ByteLen(blocks * EACH)),
        });
        let facts = facts.collect();
        (segments, facts)
    }

    fn begin(&self, room: Room) -> Option<Result<Compacted, CompactError>> {
        let (segments, facts) = self.facts();
        let group: Vec<u32> = compaction::choose(&facts, room).into_iter().map(|at| segments[at].number).collect();
        let judge = |records: Vec<(Header, Location)>| {
            Some(records.iter().map(|(header, location)| self.index.reads(header, *location)).collect())
        };
        (!group.is_empty()).then(|| self.log.compactor().compact(&group, judge))
    }

    /// Carries out that many of a pass's three steps. Says whether there was anything to do.
    fn compact(&mut self, steps: u8) -> bool {
        if steps >= 3 {
            self.keep();
        }
        let Some(compacted) = self.begin(Room::Enough) else { return false };
        let mut compacted = compacted.unwrap();
        if steps >= 1 {
            self.log.adopt(&mut compacted, &self.state()).unwrap();
        }
        if steps >= 2 {
            for (header, to) in compacted.moved() {
                self.index.moved(header, *to, |number| compacted.replaces(number));
            }
            self.keep();
        }
        if steps >= 3 {
            self.log.drop_replaced(&self.state()).unwrap();
        }
        true
    }

    /// Every block, through the index and out of the log.
    fn check(&self) {
        let reader = self.log.reader();
        for (lba, expected) in (0..).zip(&self.model) {
            let place = self.index.lookup(Lba(lba));
            assert_eq!(place.map(|place| (place.sequence.0, place.kind)), *expected, "block {lba}");
            let Some(place) = place else { continue };
            let block = if place.kind == Kind::Data { place.block } else { 0 };
            let part = reader.part(place.location, block, 1).unwrap_or_else(|error| panic!("block {lba}: {error}"));
            let fill = u8::try_from(place.sequence.0 % 251).unwrap();
            assert_eq!(part.header.sequence, place.sequence, "block {lba}");
            assert!(part.tags.iter().chain(&part.blocks).all(|byte| *byte == fill), "block {lba}");
        }
        let report = scrub(&reader, &mut |_| {});
        assert!(report.damaged.is_empty() && report.unreadable.is_empty(), "{report:?}");
    }
}

fn open_log(dir: &Path, from: Location) -> Result<(Log, Vec<Logged>), LogError> {
    open_on(Arc::new(RealDisk), dir, from)
}

fn open_on(disk: Arc<dyn Disk>, dir: &Path, from: Location) -> Result<(Log, Vec<Logged>), LogError> {
    crate::records::open_log(disk, &dir.join("log"), from, SEGMENT)
}

fn decode(state: &[u8]) -> (u64, Location) {
    let (last, scan_from) = state.split_at(8);
    let location = Location::unpack(u64::from_le_bytes(scan_from.try_into().unwrap()));
    (u64::from_le_bytes(last.try_into().unwrap()), location)
}

fn has_compacted(dir: &Path) -> bool {
    let mut entries = std::fs::read_dir(dir.join("log")).unwrap();
    entries.any(|entry| entry.unwrap().path().extension().is_some_and(|extension| extension == "fsc"))
}

fn finish(log: &mut Log, index: &mut Index) {
    for (header, to) in log.unfinished().unwrap() {
        index.moved(&header, to, |number| log.is_replaced(number));
    }
}

fn new_copy(dir: &Path) -> Copy {
    Copy::open(dir, vec![None; usize::try_from(BLOCKS).unwrap()], 0)
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let kind = prop_oneof![6 => Just(Kind::Data), 1 => Just(Kind::Zero), 1 => Just(Kind::Trim), 1 => Just(Kind::Cover)];
    let write = (kind, 0..BLOCKS, prop_oneof![3 => 1_u32..4, 1 => 1_u32..24, 1 => 200_u32..600]).prop_map(
        |(kind, lba, blocks)| {
            // A record of data fits a segment.
            let most = if kind == Kind::Data || kind == Kind::Cover { 24 } else { BLOCKS };
            let blocks = u64::from(blocks).min(most).min(BLOCKS - lba);
            Step::Write { kind, lba, blocks: u32::try_from(blocks).unwrap() }
        },
    );
    let step = prop_oneof![
        40 => write,
        2 => Just(Step::Checkpoint),
        2 => any::<bool>().prop_map(|crash| Step::BeginSegment { crash }),
        3 => (0_u8..=4).prop_map(|steps| Step::Compact { steps }),
        1 => Just(Step::LoseIndex),
        1 => Just(Step::LoseManifest),
        1 => Just(Step::RemoveManifest),
    ];
    proptest::collection::vec(step, 1..400)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_block_reads_as_before_whatever_was_compacted_and_lost(steps in steps()) {
        let dir = crate::records::dir();
        let mut copy = new_copy(dir.path());
        for step in steps {
            match step {
                Step::Write { kind, lba, blocks } => copy.write(kind, lba, blocks),
                Step::Checkpoint => copy.checkpoint(),
                Step::BeginSegment { crash } => {
                    let before = copy.log.end();
                    copy.log.begin_segment().unwrap();
                    copy.log.syncer().sync().unwrap();
                    copy.checkpoint();
                    let full = copy.log.full_segments(copy.log.durable_end());
                    let holds = before > Location::START && before.offset > 64;
                    assert!(!holds || full.iter().any(|segment| segment.number == before.segment), "it grows no more");
                    if crash {
                        copy = copy.again(dir.path());
                    }
                }
                Step::Compact { steps } => {
                    copy.compact(steps);
                    copy.check();
                    if steps < 4 {
                        copy = copy.again(dir.path());
                    }
                }
                Step::LoseIndex => {
                    std::fs::remove_dir_all(dir.path().join("index")).unwrap();
                    copy = copy.again(dir.path());
                }
                // Bits rot, or a file is gone, and the index is whole.
                Step::LoseManifest | Step::RemoveManifest => {
                    copy.checkpoint();
                    let path = dir.path().join("log/log.manifest");
                    // With nothing compacted beside it, a hole cannot be told from a segment that was lost.
                    let is_removed = matches!(step, Step::RemoveManifest) && has_compacted(dir.path());
                    if path.exists() && is_removed {
                        std::fs::remove_file(&path).unwrap();
                    } else if path.exists() {
                        std::fs::write(&path, b"rot").unwrap();
                    }
                    copy = copy.again(dir.path());
                    copy.checkpoint();
                    while copy.compact(3) {}
                }
            }
        }
        copy.check();
    }
}

#[test]
fn a_log_that_is_overwritten_for_ever_stays_small() {
    let dir = crate::records::dir();
    let mut copy = new_copy(dir.path());
    for round in 0..60_u64 {
        for lba in (0..BLOCKS).step_by(7) {
            copy.write(Kind::Data, (lba + round) % (BLOCKS - 8), 8);
        }
        while copy.compact(3) {}
        let live = copy.index.present().0 * EACH;
        // Nothing can be done about the segment that grows, nor about headers.
        let most = 2 * live + SEGMENT + live / 4;
        assert!(copy.log.bytes().0 <= most, "round {round}: {} of {most}", copy.log.bytes().0);
    }
    copy.check();
}

#[test]
fn a_full_disk_frees_what_is_dead_without_writing_a_segment() {
    let dir = crate::records::dir();
    let disk = Arc::new(Faulty::with_room(u64::MAX));
    let mut copy = new_copy(dir.path());
    copy.log = open_on(disk.clone(), dir.path(), Location::START).unwrap().0;
    for _ in 0..200 {
        copy.write(Kind::Data, 5, 8);
    }
    copy.keep();
    disk.room.store(0, std::sync::atomic::Ordering::SeqCst);
    let before = copy.log.bytes().0;
    while let Some(compacted) = copy.begin(Room::None) {
        let mut compacted = compacted.unwrap();
        assert_eq!(compacted.bytes(), ByteLen(0));
        copy.log.adopt(&mut compacted, &copy.state()).unwrap();
        copy.checkpoint();
    }
    assert!(copy.log.bytes().0 <= SEGMENT && before > 8 * SEGMENT, "{before}");
    copy.check();
}

#[test]
fn a_pass_that_finds_no_room_leaves_nothing_behind() {
    let dir = crate::records::dir();
    let disk = Arc::new(Faulty::with_room(u64::MAX));
    let mut copy = new_copy(dir.path());
    copy.log = open_on(disk.clone(), dir.path(), Location::START).unwrap().0;
    for lba in 0..80 {
        copy.write(Kind::Data, lba, 4);
    }
    copy.keep();
    disk.room.store(600, std::sync::atomic::Ordering::SeqCst);
    let files = || std::fs::read_dir(dir.path().join("log")).unwrap().count();
    let before = files();
    assert!(matches!(copy.begin(Room::Enough), Some(Err(CompactError::Store(_)))));
    assert_eq!(files(), before);
    copy.check();
}

#[test]
fn a_segment_with_damage_is_left_as_it_is() {
    let dir = crate::records::dir();
    let mut copy = new_copy(dir.path());
    for _ in 0..20 {
        copy.write(Kind::Data, 5, 8);
    }
    copy.keep();
    let path = dir.path().join("log/00000000.fsl");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[2000] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let refused = copy.begin(Room::Enough).unwrap().unwrap_err();
    assert!(matches!(refused, CompactError::Damaged(Location { segment: 0, .. }, _)), "{refused}");
    assert!(path.exists());
}

#[test]
fn a_compacted_segment_that_is_missing_is_named() {
    let dir = crate::records::dir();
    let mut copy = new_copy(dir.path());
    for lba in 0..80 {
        copy.write(Kind::Data, lba, 4);
    }
    assert!(copy.compact(3));
    drop(copy);
    let path = dir.path().join("log/00000000.fsc");
    std::fs::remove_file(&path).unwrap();
    let error = open_log(dir.path(), Location::START).unwrap_err();
    assert!(matches!(error, LogError::MissingCompacted { .. }), "{error}");
    assert!(error.to_string().contains("00000000.fsc"), "{error}");
}
