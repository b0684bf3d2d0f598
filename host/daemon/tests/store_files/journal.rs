//! The journal: what was promised comes back, in order and whole, or is named.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use farseal::store::StoreError;
use farseal::store::disk::{Disk, RealDisk};
use farseal::store::journal::{Journal, JournalError, JournalRecovery};
use farseal_core::chain::{Chain, Digest};
use farseal_core::journal::CommitHeader;
use farseal_core::primary::StoreFault;
use farseal_core::record::{Framed, HEADER_BYTES, Kind};
use farseal_core::units::{ByteLen, Generation, Incarnation, PairId, Sequence, WallTime};
use farseal_core::window::Range;

use crate::faults::Faulty;
use crate::records::{PAIR, header, record};

fn open(dir: &Path, known: u64) -> Result<(Journal, JournalRecovery), JournalError> {
    open_on(Arc::new(RealDisk), dir, known, 64 << 10)
}

fn open_on(
    disk: Arc<dyn Disk>,
    dir: &Path,
    known: u64,
    segment: u64,
) -> Result<(Journal, JournalRecovery), JournalError> {
    Journal::open_on(disk, dir, PAIR, Sequence(known), ByteLen(segment))
}

fn range(first: u64, last: u64) -> Range {
    Range { first: Sequence(first), last: Sequence(last) }
}

fn digest(record: &Bytes) -> Digest {
    let framed = Framed::decode(record).unwrap();
    let tags = &record[HEADER_BYTES..HEADER_BYTES + framed.header.tag_bytes()];
    Digest::of(&framed.header.encode(framed.body_crc), tags)
}

/// A journal with the running hash that its driver keeps.
struct Lane {
    journal: Journal,
    next: u64,
    chain: Chain,
    durable: u64,
}

impl Lane {
    fn fresh(dir: &Path) -> Self {
        Self::on(open(dir, 0).unwrap().0)
    }

    fn on(mut journal: Journal) -> Self {
        journal.begin(Generation(1), Incarnation([1; 16]));
        Self { journal, next: 1, chain: Chain::START, durable: 0 }
    }

    fn commit(&mut self, kinds: &[Kind], restart: bool) -> Result<(), StoreError> {
        let records: Vec<Bytes> =
            (self.next..).zip(kinds).map(|(sequence, kind)| record(&header(*kind, sequence, 5, 2))).collect();
        let commit = CommitHeader {
            first: Sequence(self.next),
            records: u32::try_from(records.len()).unwrap(),
            bytes: u32::try_from(records.iter().map(Bytes::len).sum::<usize>()).unwrap(),
            durable: Sequence(self.durable),
        };
        self.journal.append(commit, &records, self.chain, restart, WallTime(1))?;
        self.next += u64::try_from(records.len()).unwrap();
        self.chain = records.iter().fold(self.chain, |chain, record| chain.after(digest(record)));
        Ok(())
    }

    fn sync(&mut self) {
        self.durable = self.journal.syncer().sync().unwrap().0;
    }
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
}

/// Changes one file's bytes.
fn edit(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).unwrap();
    change(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn what_is_appended_is_read_verbatim_and_recovered() {
    let dir = crate::records::dir();
    let mut lane = Lane::fresh(dir.path());
    for _ in 0..60 {
        lane.commit(&[Kind::Data, Kind::Zero, Kind::Data], false).unwrap();
    }
    lane.sync();
    assert_eq!(lane.durable, 180);
    assert!(segments(dir.path()).len() > 2, "small segments were rolled");
    let read = lane.journal.reader().read(range(1, 180)).unwrap();
    for (sequence, found) in (1..).zip(&read) {
        let kind = if sequence % 3 == 2 { Kind::Zero } else { Kind::Data };
        assert_eq!(*found, record(&header(kind, sequence, 5, 2)));
    }
    assert!(matches!(lane.journal.reader().read(range(180, 181)), Err(StoreError::NotInJournal { .. })));
    let (chain, bytes) = (lane.chain, lane.journal.bytes());
    drop(lane);
    let (journal, recovery) = open(dir.path(), 180).unwrap();
    assert_eq!((recovery.first, recovery.last, recovery.chain), (Sequence(1), Sequence(180), chain));
    assert_eq!((recovery.chain_before, recovery.generation), (Chain::START, Generation(1)));
    assert_eq!(recovery.cut, None);
    assert_eq!(journal.bytes(), bytes);
    assert_eq!(journal.reader().read(range(1, 180)).unwrap(), read);
}

#[test]
fn a_restarted_journal_goes_on_in_a_new_segment() {
    let dir = crate::records::dir();
    let mut lane = Lane::fresh(dir.path());
    lane.commit(&[Kind::Data], false).unwrap();
    let Lane { next, chain, .. } = lane;
    let (mut journal, _) = open(dir.path(), 1).unwrap();
    journal.begin(Generation(2), Incarnation([2; 16]));
    let mut lane = Lane { journal, next, chain, durable: 1 };
    lane.commit(&[Kind::Data], false).unwrap();
    drop(lane);
    let (_, recovery) = open(dir.path(), 0).unwrap();
    assert_eq!((recovery.last, recovery.generation), (Sequence(2), Generation(2)));
    assert_eq!(segments(dir.path()).len(), 2);
}

#[test]
fn a_gap_starts_a_new_run_of_the_hash() {
    let dir = crate::records::dir();
    let mut lane = Lane::fresh(dir.path());
    lane.commit(&[Kind::Data; 3], false).unwrap();
    lane.chain = Chain([9; 32]);
    lane.commit(&[Kind::Gap, Kind::Data], true).unwrap();
    let chain = lane.chain;
    drop(lane);
    let (_, recovery) = open(dir.path(), 0).unwrap();
    assert_eq!((recovery.last, recovery.chain, recovery.chain_before), (Sequence(5), chain, Chain::START));

    // A segment that is no gap must follow from the one before it.
    let other = crate::records::dir();
    let mut lane = Lane::fresh(other.path());
    lane.commit(&[Kind::Data; 3], false).unwrap();
    lane.chain = Chain([9; 32]);
    lane.commit(&[Kind::Data], true).unwrap();
    drop(lane);
    assert!(matches!(open(other.path(), 0), Err(JournalError::Chain { .. })));
}

#[test]
fn a_tail_torn_at_any_byte_is_cut_to_whole_commits_and_goes_on() {
    let dir = crate::records::dir();
    let mut lane = Lane::fresh(dir.path());
    lane.commit(&[Kind::Zero], false).unwrap();
    lane.commit(&[Kind::Zero, Kind::Zero], false).unwrap();
    lane.commit(&[Kind::Zero], false).unwrap();
    drop(lane);
    let name = segments(dir.path()).remove(0);
    let whole = std::fs::read(&name).unwrap();
    let ends = [0, 128 + 64 + 112, 128 + 2 * 64 + 3 * 112, 128 + 3 * 64 + 4 * 112];
    assert_eq!(whole.len(), ends[3]);
    for cut in 0..whole.len() {
        // Torn by a shorter file, and by a page that never came.
        for zeroes in [false, true] {
            let mut torn = whole[..cut].to_vec();
            torn.resize(if zeroes { whole.len() } else { cut }, 0);
            std::fs::write(&name, torn).unwrap();
            let (mut journal, recovery) = open(dir.path(), 0).unwrap();
            let commits = ends.iter().filter(|end| **end > 0 && **end <= cut).count();
            let last = [0, 1, 3, 4][commits];
            assert_eq!(recovery.last, Sequence(last), "cut at {cut}");
            assert_eq!(
                std::fs::metadata(&name).map_or(0, |m| usize::try_from(m.len()).unwrap()),
                if zeroes && recovery.cut.is_none() { whole.len() } else { ends[commits] },
                "cut at {cut}"
            );
            if cut % 16 == 0 {
                journal.begin(Generation(2), Incarnation([2; 16]));
                let mut lane = Lane { journal, next: last + 1, chain: recovery.chain, durable: last };
                lane.commit(&[Kind::Data], false).unwrap();
                drop(lane);
                let (_, again) = open(dir.path(), last + 1).unwrap();
                assert_eq!(again.last, Sequence(last + 1));
                segments(dir.path()).iter().for_each(|path| std::fs::remove_file(path).unwrap());
            }
        }
    }
}

#[test]
fn damage_below_a_mark_is_refused_and_named() {
    let dir = crate::records::dir();
    let mut lane = Lane::fresh(dir.path());
    for _ in 0..3 {
        lane.commit(&[Kind::Data], false).unwrap();
        lane.sync();
    }
    drop(lane);
    let name = segments(dir.path()).remove(0);
    let whole = std::fs::read(&name).unwrap();
    let record_bytes = record(&header(Kind::Data, 1, 5, 2)).len();

    // Record 2 was durable when the third commit was written.
    edit(&name, |bytes| bytes[128 + 2 * 64 + record_bytes + 200] ^= 4);
    let Err(error) = open(dir.path(), 0) else { panic!("passed over") };
    assert!(error.to_string().contains("records 2 to 2 were durable and are damaged"), "{error}");
    assert!(error.to_string().contains("0000000000000001.fsj"), "{error}");

    // Record 3 was the last: only the peer knows that it was durable.
    std::fs::write(&name, &whole).unwrap();
    edit(&name, |bytes| *bytes.last_mut().unwrap() ^= 1);
    let Err(error) = open(dir.path(), 3) else { panic!("passed over") };
    assert!(error.to_string().contains("records 3 to 3 were durable"), "{error}");
    assert_eq!(open(dir.path(), 2).unwrap().1.last, Sequence(2));

    // Without its header nothing of a segment can be placed.
    std::fs::write(&name, &whole).unwrap();
    edit(&name, |bytes| bytes[9] ^= 1);
    let Err(error) = open(dir.path(), 0) else { panic!("passed over") };
    assert!(error.to_string().contains("records 1 to 2 were durable"), "{error}");

    std::fs::remove_file(&name).unwrap();
    let Err(error) = open(dir.path(), 3) else { panic!("passed over") };
    assert!(error.to_string().contains("records 1 to 3 were durable"), "{error}");
}

#[test]
fn segments_after_a_torn_one_were_never_promised_unless_a_mark_says_so() {
    let build = |sync: bool| {
        let dir = crate::records::dir();
        let mut lane = Lane::fresh(dir.path());
        lane.commit(&[Kind::Data; 2], false).unwrap();
        if sync {
            lane.sync();
        }
        lane.journal.begin(Generation(2), Incarnation([2; 16]));
        lane.commit(&[Kind::Data; 2], false).unwrap();
        drop(lane);
        edit(&segments(dir.path())[0], |bytes| *bytes.last_mut().unwrap() ^= 1);
        dir
    };
    let dir = build(false);
    let (journal, recovery) = open(dir.path(), 0).unwrap();
    assert_eq!(recovery.last, Sequence::NONE);
    assert!(recovery.cut.is_some());
    assert_eq!((segments(dir.path()).len(), journal.bytes()), (0, ByteLen(0)));
    let dir = build(true);
    let Err(JournalError::Damaged { damage, .. }) = open(dir.path(), 0) else { panic!("passed over") };
    assert_eq!((damage.first, damage.last), (Sequence(1), Sequence(2)));
}

#[test]
fn a_missing_segment_and_another_pairs_are_refused() {
    let dir = crate::records::dir();
    let mut lane = Lane::fresh(dir.path());
    for generation in 1..=3 {
        lane.journal.begin(Generation(generation), Incarnation([1; 16]));
        lane.commit(&[Kind::Data], false).unwrap();
        lane.sync();
    }
    drop(lane);
    let names = segments(dir.path());
    let middle = std::fs::read(&names[1]).unwrap();
    std::fs::remove_file(&names[1]).unwrap();
    let Err(JournalError::Damaged { damage, .. }) = open(dir.path(), 0) else { panic!("passed over") };
    assert_eq!((damage.first, damage.last), (Sequence(2), Sequence(2)));
    std::fs::write(dir.path().join("00000000000000ff.fsj"), &middle).unwrap();
    assert!(matches!(open(dir.path(), 0), Err(JournalError::Misnamed { first: Sequence(2), .. })));
    let other = Journal::open(dir.path(), PairId([9; 16]), Sequence(0));
    assert!(matches!(other, Err(JournalError::Segment { .. })));
}

#[test]
fn trimming_keeps_the_newest_durable_segment() {
    let dir = crate::records::dir();
    let mut lane = Lane::fresh(dir.path());
    for generation in 1..=4 {
        lane.journal.begin(Generation(generation), Incarnation([1; 16]));
        lane.commit(&[Kind::Data; 2], false).unwrap();
        if generation < 4 {
            lane.sync();
        }
    }
    lane.journal.trim(Sequence(3)).unwrap();
    assert_eq!(segments(dir.path()).len(), 3, "record 4 keeps the second");
    lane.journal.trim(Sequence(8)).unwrap();
    assert_eq!(segments(dir.path()).len(), 2, "the fourth may not survive a crash");
    lane.sync();
    lane.journal.trim(Sequence(8)).unwrap();
    assert_eq!(segments(dir.path()).len(), 1);
    assert!(matches!(lane.journal.reader().read(range(6, 7)), Err(StoreError::NotInJournal { .. })));
    let chain = lane.chain;
    drop(lane);
    let (_, recovery) = open(dir.path(), 8).unwrap();
    assert_eq!((recovery.first, recovery.last, recovery.chain), (Sequence(7), Sequence(8), chain));
}

#[test]
fn a_full_disk_leaves_nothing_half_written_and_the_same_append_works_later() {
    for reserves in [false, true] {
        for room in (0..2400).step_by(37) {
            let dir = crate::records::dir();
            let disk = Arc::new(Faulty::with_room(room));
            disk.reserves.store(reserves, Ordering::SeqCst);
            let mut lane = Lane::on(open_on(disk.clone(), dir.path(), 0, 4096).unwrap().0);
            let mut refused = 0;
            while lane.next < 4 {
                let before = lane.journal.bytes();
                match lane.commit(&[Kind::Data], false) {
                    Ok(()) => {}
                    Err(error) => {
                        assert_eq!(error.fault(), StoreFault::Full, "{error}");
                        assert_eq!(lane.journal.bytes(), before);
                        let (_, recovery) = open(dir.path(), 0).unwrap();
                        assert_eq!((recovery.last.0, recovery.cut), (lane.next - 1, None));
                        refused += 1;
                        disk.room.store(1 << 20, Ordering::SeqCst);
                    }
                }
            }
            assert!(refused <= 1);
            lane.sync();
            let read = lane.journal.reader().read(range(1, 3)).unwrap();
            assert_eq!(read.len(), 3);
            drop(lane);
            assert_eq!(open(dir.path(), 3).unwrap().1.last, Sequence(3));
        }
    }
}

/// It was a failure for good: no pair of the node wrote again before a restart.
#[test]
fn want_of_a_descriptor_leaves_nothing_behind_and_the_same_append_works_later() {
    let dir = crate::records::dir();
    let disk = Arc::new(Faulty::with_room(1 << 20));
    let mut lane = Lane::on(open_on(disk.clone(), dir.path(), 0, 64 << 10).unwrap().0);
    lane.commit(&[Kind::Data], false).unwrap();
    lane.sync();
    // A segment of its own.
    lane.journal.begin(Generation(1), Incarnation([1; 16]));
    disk.no_descriptor.store(true, Ordering::SeqCst);
    let error = lane.commit(&[Kind::Data], false).unwrap_err();
    assert_eq!(error.fault(), StoreFault::Full, "{error}");
    assert!(error.to_string().contains("LimitNOFILE="), "{error}");
    lane.commit(&[Kind::Data], false).unwrap();
    lane.sync();
    drop(lane);
    assert_eq!(open(dir.path(), 2).unwrap().1.last, Sequence(2));
}

#[test]
fn after_one_failed_sync_nothing_is_promised_again() {
    let dir = crate::records::dir();
    let disk = Arc::new(Faulty::with_room(1 << 20));
    let mut lane = Lane::on(open_on(disk.clone(), dir.path(), 0, 64 << 10).unwrap().0);
    lane.commit(&[Kind::Data], false).unwrap();
    lane.sync();
    disk.sync_fails.store(true, Ordering::SeqCst);
    lane.commit(&[Kind::Data], false).unwrap();
    let syncer = lane.journal.syncer();
    assert!(matches!(syncer.sync(), Err(StoreError::SyncFailed { .. })));
    assert!(matches!(syncer.sync(), Err(StoreError::SyncLost { .. })));
    assert!(matches!(lane.commit(&[Kind::Data], false), Err(StoreError::SyncLost { .. })));
    assert_eq!(StoreError::SyncLost { path: PathBuf::new() }.fault(), StoreFault::Failed);
}

/// The system's cache still has it, and a restart took it for durable.
#[test]
fn what_a_failed_sync_left_in_the_cache_is_not_promised_by_a_restart() {
    let dir = crate::records::dir();
    let disk = Arc::new(Faulty::with_room(1 << 20));
    let mut lane = Lane::on(open_on(disk.clone(), dir.path(), 0, 64 << 10).unwrap().0);
    lane.commit(&[Kind::Data], false).unwrap();
    lane.sync();
    lane.commit(&[Kind::Data], false).unwrap();
    disk.sync_fails.store(true, Ordering::SeqCst);
    assert!(matches!(lane.journal.syncer().sync(), Err(StoreError::SyncFailed { .. })));
    drop(lane);
    let (_, recovery) = open_on(disk, dir.path(), 0, 64 << 10).unwrap();
    assert_eq!(recovery.last, Sequence(1));
}

#[test]
fn a_commit_that_contradicts_its_header_is_not_written() {
    let dir = crate::records::dir();
    let mut lane = Lane::fresh(dir.path());
    let commit = CommitHeader { first: Sequence(1), records: 2, bytes: 10, durable: Sequence(0) };
    let wrong = lane.journal.append(commit, &[Bytes::from_static(b"0123456789")], Chain::START, false, WallTime(0));
    assert!(matches!(wrong, Err(StoreError::Commit { said: 2, found: 1, .. })));
    assert_eq!(segments(dir.path()).len(), 0);
}
