//! The index against a map that keeps one entry a block.

use std::collections::BTreeMap;
use std::path::Path;

use farseal::store::index::{Index, IndexError};
use farseal::store::log::Location;
use farseal_core::record::Kind;
use farseal_core::units::{BlockCount, Extent, Lba};
use proptest::prelude::*;

use crate::records::header;

const BLOCKS: u64 = 3000;

/// Sequence, location and index in the record of whatever was last said of a block.
type Model = BTreeMap<u64, (u64, Kind, Location, u32)>;

fn extent(first: u64, blocks: u64) -> Extent {
    Extent::new(Lba(first), BlockCount(blocks)).unwrap()
}

fn place(sequence: u64) -> Location {
    Location { segment: 7, offset: u32::try_from(sequence).unwrap() * 100 }
}

fn apply(index: &mut Index, model: &mut Model, kind: Kind, sequence: u64, first: u64, blocks: u32) {
    index.apply(&header(kind, sequence, first, blocks), place(sequence));
    for (at, lba) in (0..blocks).zip(first..BLOCKS) {
        let block = if kind == Kind::Data { at } else { 0 };
        let entry = model.entry(lba).or_insert((0, kind, Location::START, 0));
        if entry.0 <= sequence {
            *entry = (sequence, kind, place(sequence), block);
        }
    }
}

fn check(index: &Index, model: &Model) {
    let mut present = 0;
    for lba in 0..BLOCKS + 2 {
        let found = index.lookup(Lba(lba)).map(|place| (place.sequence.0, place.kind, place.location, place.block));
        assert_eq!(found, model.get(&lba).copied(), "block {lba}");
        present += u64::from(found.is_some_and(|(_, kind, _, _)| kind == Kind::Data));
    }
    assert_eq!(index.present(), BlockCount(present));
    for (first, blocks) in [(0, BLOCKS), (100, 700), (2999, 50)] {
        let mut at = first;
        for (count, data) in index.runs(extent(first, blocks)) {
            for lba in at..at + count.0 {
                let expected = model.get(&lba).is_some_and(|(_, kind, _, _)| *kind == Kind::Data);
                assert_eq!(data, expected, "block {lba}");
            }
            at += count.0;
        }
        assert_eq!(at, first + blocks);
        let mut at = first;
        for (count, place) in index.places(extent(first, blocks)) {
            for (further, lba) in (0..).zip(at..at + count.0) {
                let expected = model.get(&lba).copied();
                let found = place.map(|place| {
                    let further = if place.kind == Kind::Data { further } else { 0 };
                    (place.sequence.0, place.kind, place.location, place.block + further)
                });
                assert_eq!(found, expected, "block {lba}");
            }
            at += count.0;
        }
        assert_eq!(at, first + blocks);
    }
}

fn check_age(index: &Index, model: &Model) {
    for (part_blocks, most) in [(1, 5000), (7, 20), (256, 3), (300, 100)] {
        let mut parts = BTreeMap::<u64, u64>::new();
        for (lba, (sequence, ..)) in model.iter().filter(|(_, (_, kind, ..))| *kind == Kind::Data) {
            let newest = parts.entry(lba / part_blocks).or_default();
            *newest = (*newest).max(*sequence);
        }
        let mut expected: Vec<(u64, u64)> = parts.into_iter().collect();
        expected.sort_by_key(|(part, newest)| (u64::MAX - newest, *part));
        expected.truncate(most);
        let expected: Vec<u64> = expected.into_iter().map(|(part, _)| part * part_blocks).collect();
        assert_eq!(index.written_last(part_blocks, most), expected, "parts of {part_blocks}");
    }
}

fn open(dir: &Path) -> (Index, Option<Vec<u8>>) {
    Index::open(dir, BlockCount(BLOCKS)).unwrap()
}

#[derive(Clone, Debug)]
enum Step {
    Apply { kind: usize, sequence: u64, first: u64, blocks: u32 },
    Checkpoint,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let apply = |blocks: std::ops::Range<u32>| {
        (0..3usize, 1..60u64, 0..BLOCKS, blocks).prop_map(|(kind, sequence, first, blocks)| Step::Apply {
            kind,
            sequence,
            first,
            blocks,
        })
    };
    prop_oneof![6 => apply(1..300), 2 => apply(1..3000), 1 => Just(Step::Checkpoint), 1 => Just(Step::Reopen)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_newest_record_wins_in_any_order_and_a_checkpoint_keeps_it(steps in proptest::collection::vec(step(), 1..40)) {
        let dir = crate::records::dir();
        let (mut index, _) = open(dir.path());
        let (mut model, mut kept, mut state) = (Model::new(), Model::new(), None);
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Apply { kind, sequence, first, blocks } => {
                    // One sequence number is one record: its shape follows from it.
                    let kind = [Kind::Data, Kind::Zero, Kind::Trim][kind];
                    let kind = if model.values().any(|entry| entry.0 == sequence) { continue } else { kind };
                    let most = if kind == Kind::Data { blocks.min(256) } else { blocks };
                    apply(&mut index, &mut model, kind, sequence, first, most);
                    apply(&mut index, &mut model, kind, sequence, first, most);
                }
                Step::Checkpoint => {
                    let blob = vec![u8::try_from(number).unwrap(); number];
                    index.checkpoint(&blob).unwrap();
                    kept = model.clone();
                    state = Some(blob);
                }
                Step::Reopen => {
                    drop(index);
                    // What a checkpoint that was cut short leaves behind.
                    std::fs::write(dir.path().join("index.root.new"), b"torn").unwrap();
                    let (again, found) = open(dir.path());
                    assert_eq!(found, state);
                    index = again;
                    model = kept.clone();
                }
            }
        }
        check(&index, &model);
        check_age(&index, &model);
    }
}

#[test]
fn a_checkpoint_cut_short_before_its_root_is_the_one_before() {
    let dir = crate::records::dir();
    let (mut index, mut model) = (open(dir.path()).0, Model::new());
    apply(&mut index, &mut model, Kind::Data, 1, 0, 200);
    index.checkpoint(b"one").unwrap();
    let root = std::fs::read(dir.path().join("index.root")).unwrap();
    let kept = model.clone();
    for sequence in 2..6 {
        apply(&mut index, &mut model, Kind::Data, sequence, 100, 256);
    }
    index.checkpoint(b"two").unwrap();
    drop(index);
    // All images of the second are there, its root is not.
    std::fs::write(dir.path().join("index.root"), root).unwrap();
    let (index, state) = open(dir.path());
    assert_eq!(state.unwrap(), b"one");
    check(&index, &kept);
}

#[test]
fn a_damaged_index_says_that_the_log_can_make_a_new_one() {
    let dir = crate::records::dir();
    let (mut index, mut model) = (open(dir.path()).0, Model::new());
    apply(&mut index, &mut model, Kind::Data, 1, 0, 256);
    apply(&mut index, &mut model, Kind::Trim, 2, 900, 2000);
    index.checkpoint(b"state").unwrap();
    drop(index);
    for (name, at) in [("index.root", 3), ("index.root", 30), ("index.chunks", 0), ("index.chunks", 4095)] {
        let path = dir.path().join(name);
        let whole = std::fs::read(&path).unwrap();
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        std::fs::write(&path, damaged).unwrap();
        let error = Index::open(dir.path(), BlockCount(BLOCKS)).unwrap_err();
        assert!(error.rebuild() && error.to_string().contains(name), "{error}");
        std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        assert!(Index::open(dir.path(), BlockCount(BLOCKS)).unwrap_err().rebuild());
        std::fs::write(&path, whole).unwrap();
    }
    let other = Index::open(dir.path(), BlockCount(BLOCKS + 1)).unwrap_err();
    assert!(matches!(other, IndexError::OtherSize { expected: 3001, found: 3000, .. }));
    check(&open(dir.path()).0, &model);
    let index = Index::anew(dir.path(), BlockCount(BLOCKS)).unwrap();
    check(&index, &Model::new());
    drop(index);
    assert_eq!(open(dir.path()).1, None);
}

#[test]
fn trimming_a_huge_volume_costs_one_entry_and_gives_memory_back() {
    let dir = crate::records::dir();
    let blocks = 1 << 28;
    let (mut index, _) = Index::open(dir.path(), BlockCount(blocks)).unwrap();
    for sequence in 1..=100 {
        index.apply(&header(Kind::Data, sequence, sequence * 1_000_000, 200), place(sequence));
    }
    assert_eq!(index.present(), BlockCount(100 * 200));
    index.checkpoint(b"").unwrap();
    index.apply(&header(Kind::Trim, 101, 1, u32::try_from(blocks - 2).unwrap()), place(101));
    assert_eq!(index.present(), BlockCount(0));
    assert_eq!(index.lookup(Lba(5_000_000)).unwrap().kind, Kind::Trim);
    assert_eq!((index.lookup(Lba(0)), index.lookup(Lba(blocks - 1))), (None, None));
    // An older record that comes again changes nothing; a newer one does.
    index.apply(&header(Kind::Data, 5, 5_000_000, 200), place(5));
    assert_eq!(index.present(), BlockCount(0));
    index.apply(&header(Kind::Data, 102, 5_000_000, 1), place(102));
    assert_eq!(
        index.runs(extent(4_999_999, 3)),
        [(BlockCount(1), false), (BlockCount(1), true), (BlockCount(1), false)]
    );
    index.checkpoint(b"").unwrap();
    assert!(std::fs::metadata(dir.path().join("index.root")).unwrap().len() < 300);
    drop(index);
    let (index, _) = Index::open(dir.path(), BlockCount(blocks)).unwrap();
    assert_eq!(index.present(), BlockCount(1));
}

#[test]
fn images_of_replaced_chunks_are_used_again() {
    let dir = crate::records::dir();
    let (mut index, mut model) = (open(dir.path()).0, Model::new());
    for sequence in 1..=20 {
        apply(&mut index, &mut model, Kind::Data, sequence, 0, 256);
        index.checkpoint(b"").unwrap();
    }
    assert_eq!(std::fs::metadata(dir.path().join("index.chunks")).unwrap().len(), 2 * 4096);
    drop(index);
    let (mut index, _) = open(dir.path());
    for sequence in 21..=25 {
        apply(&mut index, &mut model, Kind::Data, sequence, 0, 256);
        index.checkpoint(b"").unwrap();
    }
    assert_eq!(std::fs::metadata(dir.path().join("index.chunks")).unwrap().len(), 2 * 4096);
    drop(index);
    check(&open(dir.path()).0, &model);
}
