//! The log: records stay where they were put, and what a sync covered is never passed over.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use farseal::store::StoreError;
use farseal::store::disk::{Disk, RealDisk};
use farseal::store::log::{Flaw, LOG_SEGMENT_BYTES, Location, Log, LogError, Logged, ReadError, Walk};
use farseal::store::scrub::scrub;
use farseal_core::primary::StoreFault;
use farseal_core::record::{HEADER_BYTES, Kind};
use farseal_core::units::PairId;

use crate::faults::Faulty;
use crate::records::{header, open_log, record};

const SEGMENT: u64 = 8192;

fn open(dir: &Path, from: Location) -> Result<(Log, Vec<Logged>), LogError> {
    open_on(Arc::new(RealDisk), dir, from)
}

fn open_on(disk: Arc<dyn Disk>, dir: &Path, from: Location) -> Result<(Log, Vec<Logged>), LogError> {
    open_log(disk, dir, from, SEGMENT)
}

fn append(log: &mut Log, sequence: u64, kind: Kind) -> Result<Location, StoreError> {
    let header = header(kind, sequence, 5, 2);
    log.append(&record(&header), &header)
}

/// Records with these sequence numbers, synced.
fn filled(dir: &Path, sequences: impl IntoIterator<Item = u64>) -> (Log, Vec<Location>) {
    let (mut log, _) = open(dir, Location::START).unwrap();
    let places = sequences.into_iter().map(|sequence| append(&mut log, sequence, Kind::Data).unwrap()).collect();
    log.flush().unwrap();
    log.syncer().sync().unwrap();
    (log, places)
}

fn segment(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("{number:08x}.fsl"))
}

fn flip(path: &Path, at: u32) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[usize::try_from(at).unwrap()] ^= 8;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn records_come_back_in_the_order_in_which_they_came() {
    let dir = crate::records::dir();
    let order = [3, 1, 2, 9, 8, 7, 20, 19, 18, 17];
    let (log, places) = filled(dir.path(), order);
    assert!(places.is_sorted() && log.end().segment > 0, "{places:?}");
    let reader = log.reader();
    for (sequence, location) in order.iter().zip(&places) {
        let header = header(Kind::Data, *sequence, 5, 2);
        let whole = record(&header);
        let (framed, body) = reader.read(*location).unwrap();
        assert_eq!((framed.header, &body[..]), (header, &whole[HEADER_BYTES..]));
        assert_eq!(reader.header(*location).unwrap(), framed);
        let part = reader.part(*location, 1, 1).unwrap();
        let expected = (&whole[HEADER_BYTES + 16..][..16], &whole[HEADER_BYTES + 32 + 512..]);
        assert_eq!((part.header, &part.tags[..], &part.blocks[..]), (header, expected.0, expected.1));
        for (first, count) in [(2, 1), (1, 2), (u32::MAX, 1)] {
            let refused = reader.part(*location, first, count);
            assert!(matches!(refused, Err(ReadError::NoSuchBlock { blocks: 2, .. })), "{count} from {first}");
        }
    }
    assert!(matches!(reader.read(log.end()), Err(ReadError::NotThere(_))));
    let end = log.end();
    drop(log);
    let (log, logged) = open(dir.path(), Location::START).unwrap();
    let found: Vec<(u64, Location)> = logged.iter().map(|logged| (logged.header.sequence.0, logged.location)).collect();
    assert_eq!(found, order.into_iter().zip(places.iter().copied()).collect::<Vec<_>>());
    assert_eq!(log.end(), end);
    drop(log);
    // From a checkpoint on, only what came after it.
    for (at, from) in places.iter().enumerate() {
        let (_, logged) = open(dir.path(), *from).unwrap();
        assert_eq!(logged.len(), order.len() - at);
    }
    assert!(open(dir.path(), end).unwrap().1.is_empty());
    let past = Location { segment: end.segment + 1, offset: 64 };
    assert!(matches!(open(dir.path(), past), Err(LogError::Behind { .. })));
    let past = Location { offset: end.offset + 1, ..end };
    assert!(matches!(open(dir.path(), past), Err(LogError::Behind { .. })));
}

#[test]
fn a_location_packs_into_a_word_that_sorts_alike() {
    let places = [(0, 0), (0, u32::MAX), (1, 0), (u32::MAX, 5)].map(|(segment, offset)| Location { segment, offset });
    assert!(places.map(Location::pack).is_sorted());
    assert_eq!(places.map(|place| Location::unpack(place.pack())), places);
}

#[test]
fn a_tail_torn_at_any_byte_is_cut_to_whole_records() {
    let dir = crate::records::dir();
    let (mut log, _) = filled(dir.path(), [1]);
    let synced = log.end();
    for sequence in 2..=3 {
        append(&mut log, sequence, Kind::Zero).unwrap();
    }
    log.flush().unwrap();
    drop(log);
    let path = segment(dir.path(), 0);
    let whole = std::fs::read(&path).unwrap();
    let whole = &whole[..usize::try_from(synced.offset).unwrap() + 2 * 112];
    let mark = std::fs::read(dir.path().join("log.mark")).unwrap();
    for cut in usize::try_from(synced.offset).unwrap()..whole.len() {
        let mut torn = whole[..cut].to_vec();
        torn.resize(if cut % 2 == 0 { cut } else { whole.len() + 500 }, 0);
        std::fs::write(&path, torn).unwrap();
        std::fs::write(dir.path().join("log.mark"), &mark).unwrap();
        let (mut log, logged) = open(dir.path(), Location::START).unwrap();
        let complete = 1 + (cut - usize::try_from(synced.offset).unwrap()) / 112;
        assert_eq!(logged.len(), complete, "cut at {cut}");
        assert_eq!(std::fs::metadata(&path).unwrap().len(), u64::from(log.end().offset));
        let again = append(&mut log, 9, Kind::Zero).unwrap();
        log.flush().unwrap();
        log.reader().read(again).unwrap();
    }
}

#[test]
fn a_flipped_bit_below_the_mark_is_refused_and_named() {
    let dir = crate::records::dir();
    let (log, places) = filled(dir.path(), 1..=10);
    drop(log);
    let second = places[1];
    flip(&segment(dir.path(), 0), second.offset + 200);
    let Err(error) = open(dir.path(), Location::START) else { panic!("passed over") };
    assert!(error.to_string().contains("record 2 (2 blocks from 5)"), "{error}");
    assert!(error.to_string().contains("00000000.fsl"), "{error}");
    flip(&segment(dir.path(), 0), second.offset + 200);

    // The very last record of the last sync.
    let last = places[9];
    flip(&segment(dir.path(), last.segment), last.offset + 100);
    assert!(matches!(open(dir.path(), Location::START), Err(LogError::Damaged { flaw: Flaw::Body { .. }, .. })));
    flip(&segment(dir.path(), last.segment), last.offset + 100);
    flip(&segment(dir.path(), last.segment), last.offset + 3);
    assert!(matches!(open(dir.path(), Location::START), Err(LogError::Damaged { flaw: Flaw::Header(_), .. })));
    flip(&segment(dir.path(), last.segment), last.offset + 3);

    // A file that lost its end, and one that is gone.
    let path = segment(dir.path(), last.segment);
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..usize::try_from(last.offset).unwrap()]).unwrap();
    assert!(matches!(open(dir.path(), Location::START), Err(LogError::Behind { .. })));
    std::fs::write(&path, &whole).unwrap();
    let first = std::fs::read(segment(dir.path(), 0)).unwrap();
    std::fs::write(segment(dir.path(), 0), &first[..10]).unwrap();
    assert!(matches!(open(dir.path(), Location::START), Err(LogError::Damaged { flaw: Flaw::Segment, .. })));
    std::fs::write(segment(dir.path(), 0), first).unwrap();
    assert!(matches!(
        Log::open(dir.path(), PairId([9; 16]), Location::START, &mut |_| {}),
        Err(LogError::OtherPair { .. } | LogError::Damaged { .. })
    ));
    assert_eq!(open(dir.path(), Location::START).unwrap().1.len(), 10);
}

#[test]
fn a_torn_mark_leaves_the_one_before_it() {
    let dir = crate::records::dir();
    let (log, places) = filled(dir.path(), 1..=3);
    drop(log);
    let (mut log, _) = open(dir.path(), Location::START).unwrap();
    append(&mut log, 4, Kind::Data).unwrap();
    log.flush().unwrap();
    log.syncer().sync().unwrap();
    drop(log);
    let path = dir.path().join("log.mark");
    let mark = std::fs::read(&path).unwrap();
    for slot in [0, 512] {
        let mut torn = mark.clone();
        torn[slot + 20..slot + 40].fill(0xee);
        std::fs::write(&path, torn).unwrap();
        flip(&segment(dir.path(), 0), places[1].offset + 150);
        assert!(matches!(open(dir.path(), Location::START), Err(LogError::Damaged { .. })));
        flip(&segment(dir.path(), 0), places[1].offset + 150);
    }
}

#[test]
fn a_full_disk_takes_nothing_half_and_gives_back_what_was_not_synced() {
    for room in (0..6000).step_by(211) {
        let dir = crate::records::dir();
        let disk = Arc::new(Faulty::with_room(1 << 20));
        let (mut log, _) = open_on(disk.clone(), dir.path(), Location::START).unwrap();
        append(&mut log, 1, Kind::Data).unwrap();
        log.flush().unwrap();
        assert_eq!(log.syncer().sync().unwrap(), 1);
        let durable = log.end();
        disk.room.store(room, Ordering::SeqCst);
        let stored = (2..=14).try_for_each(|sequence| {
            append(&mut log, sequence, Kind::Data)?;
            log.flush()
        });
        assert_eq!(stored.unwrap_err().fault(), StoreFault::Full);
        log.discard_unsynced().unwrap();
        assert_eq!(log.end(), durable);
        assert_eq!(log.syncer().sync().unwrap(), 1);
        disk.room.store(1 << 20, Ordering::SeqCst);
        for sequence in 20..=30 {
            append(&mut log, sequence, Kind::Data).unwrap();
        }
        log.flush().unwrap();
        assert_eq!(log.syncer().sync().unwrap(), 12);
        drop(log);
        let (_, logged) = open(dir.path(), Location::START).unwrap();
        let found: Vec<u64> = logged.iter().map(|logged| logged.header.sequence.0).collect();
        assert_eq!(found, [1].into_iter().chain(20..=30).collect::<Vec<u64>>(), "room for {room}");
    }
}

#[test]
fn large_and_small_records_keep_their_order() {
    let dir = crate::records::dir();
    let (mut log, _) = open_log(Arc::new(RealDisk), dir.path(), Location::START, LOG_SEGMENT_BYTES.0).unwrap();
    let blocks = |sequence: u64| if sequence.is_multiple_of(3) { 1000 } else { 1 };
    for sequence in 1..=50 {
        let header = header(Kind::Data, sequence, 5, blocks(sequence));
        log.append(&record(&header), &header).unwrap();
    }
    log.flush().unwrap();
    assert_eq!(log.syncer().sync().unwrap(), 50);
    drop(log);
    let (log, logged) = open_log(Arc::new(RealDisk), dir.path(), Location::START, LOG_SEGMENT_BYTES.0).unwrap();
    assert_eq!(logged.len(), 50);
    for (sequence, logged) in (1..).zip(logged) {
        assert_eq!(logged.header, header(Kind::Data, sequence, 5, blocks(sequence)));
        log.reader().read(logged.location).unwrap();
    }
}

#[test]
fn a_segment_that_was_taken_back_is_not_read_again() {
    let dir = crate::records::dir();
    let (mut log, _) = filled(dir.path(), [1]);
    let reader = log.reader();
    for round in 1..4 {
        let places: Vec<Location> =
            (1..=20).map(|at| append(&mut log, round * 100 + at, Kind::Data).unwrap()).collect();
        log.flush().unwrap();
        for (at, place) in (1..).zip(places) {
            assert!(place.segment < 4);
            assert_eq!(reader.read(place).unwrap().0.header.sequence.0, round * 100 + at);
        }
        log.discard_unsynced().unwrap();
    }
}

#[test]
fn a_full_disk_before_the_first_sync_leaves_an_empty_log() {
    let dir = crate::records::dir();
    let disk = Arc::new(Faulty::with_room(100));
    let (mut log, _) = open_on(disk.clone(), dir.path(), Location::START).unwrap();
    append(&mut log, 1, Kind::Data).unwrap();
    assert!(log.flush().is_err());
    log.discard_unsynced().unwrap();
    disk.room.store(1 << 20, Ordering::SeqCst);
    append(&mut log, 1, Kind::Data).unwrap();
    log.flush().unwrap();
    assert_eq!(log.syncer().sync().unwrap(), 1);
    drop(log);
    assert_eq!(open(dir.path(), Location::START).unwrap().1.len(), 1);
}

#[test]
fn after_one_failed_sync_nothing_is_promised_again() {
    let dir = crate::records::dir();
    let disk = Arc::new(Faulty::with_room(1 << 20));
    let (mut log, _) = open_on(disk.clone(), dir.path(), Location::START).unwrap();
    append(&mut log, 1, Kind::Data).unwrap();
    log.flush().unwrap();
    disk.sync_fails.store(true, Ordering::SeqCst);
    let syncer = log.syncer();
    assert!(matches!(syncer.sync(), Err(StoreError::SyncFailed { .. })));
    assert!(matches!(syncer.sync(), Err(StoreError::SyncLost { .. })));
}

/// The system's cache still has it, and a restart took it for durable.
#[test]
fn what_a_failed_sync_left_in_the_cache_is_not_promised_by_a_restart() {
    let dir = crate::records::dir();
    let disk = Arc::new(Faulty::with_room(1 << 20));
    let (mut log, _) = open_on(disk.clone(), dir.path(), Location::START).unwrap();
    append(&mut log, 1, Kind::Data).unwrap();
    log.flush().unwrap();
    log.syncer().sync().unwrap();
    append(&mut log, 2, Kind::Data).unwrap();
    log.flush().unwrap();
    disk.sync_fails.store(true, Ordering::SeqCst);
    assert!(matches!(log.syncer().sync(), Err(StoreError::SyncFailed { .. })));
    drop(log);
    let (_, logged) = open_on(disk, dir.path(), Location::START).unwrap();
    assert_eq!(logged.iter().map(|logged| logged.header.sequence.0).collect::<Vec<_>>(), [1]);
}

/// Cut off as torn, and what follows it removed, as the mark alone was believed.
#[test]
fn damage_below_a_checkpoint_is_refused_though_the_mark_is_gone_and_no_file_is_touched() {
    let dir = crate::records::dir();
    let (log, places) = filled(dir.path(), 1..200);
    let end = log.end();
    drop(log);
    std::fs::remove_file(dir.path().join("log.mark")).unwrap();
    assert!(end.segment > 1, "more than one segment");
    flip(&segment(dir.path(), 0), places[1].offset + 20);
    let files = || {
        let mut all: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        all.retain(|path| path.extension().is_some_and(|extension| extension == "fsl"));
        all.sort();
        all.into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect::<Vec<_>>()
    };
    let before = files();
    let refused = open(dir.path(), end);
    assert!(matches!(refused, Err(LogError::Damaged { .. })), "{refused:?}");
    assert!(files() == before);
}

#[test]
fn a_walk_sees_what_a_restart_shows_and_what_came_since() {
    let dir = crate::records::dir();
    let (log, places) = filled(dir.path(), [3, 1, 2, 9, 8, 7, 20, 19, 18, 17]);
    let walked = |walk: &mut Walk| -> Vec<(u64, Location)> {
        std::iter::from_fn(|| walk.record().unwrap()).map(|(header, at)| (header.sequence.0, at)).collect()
    };
    let end = log.end();
    drop(log);
    for from in places.iter().copied().chain([Location::START, end]) {
        let (log, logged) = open(dir.path(), from).unwrap();
        let shown: Vec<_> = logged.iter().map(|logged| (logged.header.sequence.0, logged.location)).collect();
        assert_eq!(walked(&mut log.reader().walk(from)), shown, "from {from:?}");
    }
    let (mut log, _) = open(dir.path(), end).unwrap();
    let mut walk = log.reader().walk(end);
    assert_eq!(walk.record().unwrap(), None);
    for sequence in 30..60 {
        let place = append(&mut log, sequence, Kind::Data).unwrap();
        log.flush().unwrap();
        assert_eq!(walked(&mut walk), [(sequence, place)]);
    }
    assert!(walk.at().segment > end.segment && walk.at() == log.end());
}

#[test]
fn a_walk_passes_bodies_over_and_stays_before_a_head_that_is_damaged() {
    let dir = crate::records::dir();
    let (log, places) = filled(dir.path(), 1..=10);
    flip(&segment(dir.path(), places[1].segment), places[1].offset + 300);
    flip(&segment(dir.path(), places[4].segment), places[4].offset + 50);
    let mut walk = log.reader().walk(Location::START);
    for place in &places[..4] {
        assert_eq!(walk.record().unwrap().unwrap().1, *place);
    }
    for _ in 0..2 {
        let refused = walk.record();
        assert!(
            matches!(refused, Err(ReadError::Damaged { location, flaw: Flaw::Header(_) }) if location == places[4])
        );
        assert_eq!(walk.at(), places[4]);
    }
}

#[test]
fn scrub_names_every_damaged_record_and_goes_on() {
    let dir = crate::records::dir();
    let (log, places) = filled(dir.path(), 1..=20);
    let reader = log.reader();
    let clean = scrub(&reader, &mut |_| {});
    assert_eq!((clean.records, clean.damaged.len(), clean.bytes), (20, 0, log.bytes().0));
    flip(&segment(dir.path(), places[2].segment), places[2].offset + 300);
    flip(&segment(dir.path(), places[7].segment), places[7].offset + 50);
    flip(&segment(dir.path(), places[15].segment), places[15].offset + 500);
    // Past the reader's open files: what it has open is what was written.
    let reader = log.reader();
    let mut last = None;
    let report = scrub(&reader, &mut |progress| last = Some(progress));
    assert_eq!(report.records, 17);
    let damaged: Vec<String> =
        report.damaged.iter().map(|damaged| format!("{} {}", damaged.location.offset, damaged.flaw)).collect();
    let body = "(2 blocks from 5): its bytes do not match their checksum";
    let expected = [
        format!("{} record 3 {body}", places[2].offset),
        format!("{} the header's checksum does not match: damaged or torn", places[7].offset),
        format!("{} record 16 {body}", places[15].offset),
    ];
    assert_eq!(damaged, expected);
    assert_eq!(report.damaged[1].bytes, u64::try_from(record(&header(Kind::Data, 8, 5, 2)).len()).unwrap());
    let last = last.unwrap();
    assert_eq!((last.bytes, last.damaged), (last.of, 3));
    std::fs::remove_file(segment(dir.path(), 0)).unwrap();
    let report = scrub(&log.reader(), &mut |_| {});
    assert_eq!(report.unreadable.len(), 1);
    assert_eq!(report.unreadable[0].0, 0);
}
