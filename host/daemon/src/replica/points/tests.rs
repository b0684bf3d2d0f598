//! Every point that is kept reads as it was, whatever was compacted: a real log and real indexes against a model that remembers all.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use farseal_core::layout::SearchTags;
use farseal_core::record::Kind;
use farseal_core::units::{BlockBytes, BlockCount, Extent, Generation, Lba, PairId, VolumeId};
use proptest::prelude::*;

use super::*;
use crate::store::disk::RealDisk;

const PAIR: PairId = PairId([1; 16]);
const BLOCKS: u64 = 600;
/// How far out of order records come.
const WINDOW: u64 = 6;

#[derive(Clone, Debug)]
enum Step {
    /// One of the next numbers that have not come.
    Arrive {
        which: usize,
        kind: Kind,
        lba: u64,
        blocks: u32,
    },
    /// What is durable without a hole is offered, and noted.
    Offer,
    /// The window's oldest point becomes a later moment.
    Pass {
        which: usize,
    },
    Pin {
        which: u64,
    },
    Unpin,
    Compact,
}

struct Rig {
    dir: tempfile::TempDir,
    log: Log,
    newest: Index,
    floor: Floor,
    book: Points,
    pins: Vec<Pinned>,
    all: BTreeMap<Sequence, (Header, Location)>,
    offered: Sequence,
    made: u64,
}

impl Rig {
    fn new() -> Self {
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let disk = Arc::new(RealDisk);
        let log =
            Log::open_on(disk, &dir.path().join("log"), PAIR, Location::START, ByteLen(8192), &mut |_| {}).unwrap();
        let newest = Index::anew(&dir.path().join("newest"), BlockCount(BLOCKS)).unwrap();
        let index = newest.copy_to(&dir.path().join("floor")).unwrap();
        let floor = Floor::kept(index, Sequence::NONE, Location::START);
        let first = Moment { sequence: Sequence::NONE, at: WallTime(0), made: WallTime(0), from: 0, end: 0 };
        let book = Points::beginning(first);
        let (pins, all) = (Vec::new(), BTreeMap::new());
        Self { dir, log, newest, floor, book, pins, all, offered: Sequence::NONE, made: 0 }
    }

    fn contiguous(&self) -> Sequence {
        let run = self.all.keys().zip(1..).take_while(|(sequence, at)| sequence.0 == *at);
        run.last().map_or(Sequence::NONE, |(sequence, _)| *sequence)
    }

    fn append(&mut self, sequence: Sequence, kind: Kind, lba: u64, blocks: u32) {
        let header = Header {
            kind,
            encrypted: true,
            stack: 0,
            search_tags: SearchTags::NONE,
            pair: PAIR,
            volume: VolumeId([2; 16]),
            generation: Generation(3),
            sequence,
            lba: Lba(lba),
            blocks,
            block_bytes: BlockBytes::new(512).unwrap(),
            // The clock of the writing site, in the order of its records.
            wall: WallTime(sequence.0 * 10),
            aux: 0,
        };
        let body = vec![u8::try_from(sequence.0 % 251).unwrap(); header.body_bytes()];
        let record = [header.encode(crc32c::crc32c(&body)).to_vec(), body].concat();
        let location = self.log.append(&record, &header).unwrap();
        self.all.insert(sequence, (header, location));
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Arrive { which, kind, lba, blocks } => {
                let first = self.contiguous().0 + 1;
                let mut missing = (first..first + WINDOW).map(Sequence).filter(|next| !self.all.contains_key(next));
                if let Some(sequence) = missing.nth(which % 3) {
                    self.append(sequence, *kind, *lba, *blocks);
                }
            }
            Step::Offer => self.offer(),
            Step::Pass { which } => {
                let moments: Vec<Moment> = self.book.moments().iter().copied().collect();
                let to = moments[which % moments.len()];
                self.book.advance(&to, None, WallTime(0));
                self.floor.pass = Some(Pass { to, room: Room::Enough, walk: self.log.reader().walk(self.floor.from) });
                while self.floor.step().unwrap().is_none() {}
            }
            Step::Pin { which } => {
                let oldest = self.floor.through.0;
                let sequence = Sequence(oldest + which % (self.offered.0 - oldest + 1));
                self.made += 1;
                let index = self.point(sequence, &format!("pin-{}", self.made));
                self.pins.push(Pinned { sequence, index, changed: false });
            }
            Step::Unpin => drop(self.pins.pop()),
            Step::Compact => self.compact(),
        }
    }

    fn offer(&mut self) {
        self.log.flush().unwrap();
        self.log.syncer().sync().unwrap();
        let through = self.contiguous();
        let new = self.all.range(self.offered.next()..).take_while(|(sequence, _)| **sequence <= through);
        for (header, location) in new.map(|(_, record)| record) {
            self.newest.apply(header, *location);
        }
        self.offered = through;
        let end = self.log.durable_end();
        let above = self.all.range(through.next()..).map(|(_, (_, location))| *location);
        let wall = WallTime(through.0 * 10);
        let from = above.fold(end, Location::min).pack();
        self.book.note(Moment { sequence: through, at: wall, made: wall, from, end: end.pack() });
    }

    /// As [`Runner::begun`] makes it.
    fn point(&self, at: Sequence, name: &str) -> Index {
        let place = self.dir.path().join(name);
        if let Some(pin) = self.pins.iter().find(|pin| pin.sequence == at) {
            return pin.index.copy_to(&place).unwrap();
        }
        let mut index = self.floor.index.copy_to(&place).unwrap();
        let end = self.book.end_of(at).map_or(self.log.durable_end(), Location::unpack);
        let mut walk = self.log.reader().walk(self.floor.from);
        while !build::read_some(&mut walk, end, at, &mut index).unwrap() {}
        index
    }

    /// Everything that may be, whether it is worth it or not.
    fn compact(&mut self) {
        let group: Vec<u32> = self.log.full_segments(self.floor.from).iter().map(|segment| segment.number).collect();
        if group.is_empty() {
            return;
        }
        let judge = |records: Vec<(Header, Location)>| {
            let kept = |(header, location): (Header, Location)| {
                let others = self.pins.iter().map(|pin| &pin.index).chain([&self.floor.index, &self.newest]);
                let reads = others.filter_map(|index| index.reads(&header, location));
                reads.reduce(|one, other| one.both(other, &header))
            };
            Some(records.into_iter().map(kept).collect())
        };
        let mut compacted = self.log.compactor().compact(&group, judge).unwrap();
        self.log.adopt(&mut compacted, b"state").unwrap();
        for (header, to) in compacted.moved() {
            let others = self.pins.iter_mut().map(|pin| &mut pin.index);
            for index in others.chain([&mut self.floor.index, &mut self.newest]) {
                index.moved(header, *to, |number| compacted.replaces(number));
            }
        }
        self.log.drop_replaced(b"state").unwrap();
    }

    /// Each block of a point is that of the newest record up to it, and is there to be read.
    fn check(&self, at: Sequence, index: &Index) {
        let mut expected: Vec<Option<(Sequence, Kind)>> = vec![None; usize::try_from(BLOCKS).unwrap()];
        for (header, _) in self.all.range(..=at).map(|(_, record)| record) {
            let extent = header.extent().unwrap();
            for lba in extent.first().0..extent.end().0 {
                expected[usize::try_from(lba).unwrap()] = Some((header.sequence, header.kind));
            }
        }
        let reader = self.log.reader();
        for (lba, expected) in (0..).zip(expected) {
            let place = index.lookup(Lba(lba));
            assert_eq!(place.map(|place| (place.sequence, place.kind)), expected, "block {lba} at {at}");
            let Some(place) = place else { continue };
            let part = place.part(&reader, Extent::new(Lba(lba), BlockCount(1)).unwrap()).unwrap().unwrap();
            let byte = u8::try_from(place.sequence.0 % 251).unwrap();
            assert!(part.tags.iter().chain(&part.blocks).all(|found| *found == byte), "block {lba} at {at}");
        }
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let kind = prop_oneof![6 => Just(Kind::Data), 1 => Just(Kind::Zero), 1 => Just(Kind::Trim)];
    let arrive = (any::<usize>(), kind, 0..BLOCKS - 40, 1_u32..40)
        .prop_map(|(which, kind, lba, blocks)| Step::Arrive { which, kind, lba, blocks });
    let step = prop_oneof![
        12 => arrive,
        3 => Just(Step::Offer),
        1 => any::<usize>().prop_map(|which| Step::Pass { which }),
        1 => any::<u64>().prop_map(|which| Step::Pin { which }),
        1 => Just(Step::Unpin),
        2 => Just(Step::Compact),
    ];
    proptest::collection::vec(step, 20..160)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn every_point_of_the_window_and_every_pin_reads_as_it_was(steps in steps(), some in any::<u64>()) {
        let mut rig = Rig::new();
        steps.iter().for_each(|step| rig.take(step));
        rig.offer();
        rig.compact();
        rig.check(rig.offered, &rig.newest);
        rig.pins.iter().for_each(|pin| rig.check(pin.sequence, &pin.index));
        let (oldest, newest) = (rig.floor.through.0, rig.offered.0);
        for point in [oldest, newest, oldest + some % (newest - oldest + 1)].map(Sequence) {
            rig.check(point, &rig.point(point, "looked-at"));
        }
    }

    #[test]
    fn a_time_is_the_last_record_that_was_made_by_then(steps in steps(), time in 0_u64..800) {
        let mut rig = Rig::new();
        steps.iter().for_each(|step| rig.take(step));
        rig.offer();
        let view = View {
            points: rig.book.clone(),
            terms: None,
            window: true,
            holes: Vec::new(),
            cuts: Vec::new(),
            begins: Sequence::NONE,
            newest: rig.offered,
            made: WallTime(rig.offered.0 * 10),
            room: ByteLen(0),
            tested: None,
        };
        let expected = Sequence((time / 10).min(rig.offered.0));
        match view.known().find(&farseal_core::points::Asked::Time(WallTime(time))) {
            Ok(found) => prop_assert_eq!(view.settle(found, &rig.log.reader()).unwrap(), expected),
            Err(_) => prop_assert!(expected < rig.floor.through),
        }
    }
}

/// Compacted by what was only in memory, segments were gone that a restart walks through: it passed over them without a word.
#[test]
fn what_a_restart_needs_of_the_log_is_where_the_window_on_disk_begins() {
    let dir = tempfile::tempdir().unwrap();
    let index = Index::anew(&dir.path().join("floor"), BlockCount(BLOCKS)).unwrap();
    let mut floor = Floor::kept(index, Sequence(1), Location::unpack(1 << 32));
    (floor.from, floor.changed) = (Location::unpack(5 << 32), true);
    assert_eq!(floor.kept_from, Location::unpack(1 << 32));
    floor.keep().unwrap();
    assert_eq!((floor.kept_from, floor.changed), (Location::unpack(5 << 32), false));
}
