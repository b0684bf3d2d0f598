//! The opened home against a model, through crashes that lose any part of what was not synced.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use farseal::store::StoreError;
use farseal::store::home::{Home, RawHome};
use farseal::store::opened::{BlockSource, OpenedError, OpenedHome, Unopened};
use farseal_core::units::{BlockBytes, BlockCount, Epoch, Extent, Lba, Sequence};
use proptest::prelude::*;

const BLOCK: u64 = 512;
const BLOCKS: u64 = 600;
const BYTES: usize = 600 * 512;
/// Bytes that reach a disk together.
const SECTOR: usize = 512;

fn extent(first: u64, blocks: u64) -> Extent {
    Extent::new(Lba(first), BlockCount(blocks)).unwrap()
}

fn len(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap()
}

/// What block `lba` holds at the source; every third holds nothing.
fn sealed(lba: u64) -> u8 {
    if lba % 3 == 2 { 0 } else { u8::try_from(lba % 200).unwrap() + 10 }
}

/// Blocks that open, but for those that are said to be broken.
#[derive(Clone, Debug, Default)]
struct Source {
    broken: BTreeSet<u64>,
    refuses: Arc<AtomicBool>,
    opened: Arc<Mutex<BTreeMap<u64, u64>>>,
    threads: Arc<Mutex<BTreeSet<String>>>,
}

impl BlockSource for Source {
    fn open(&self, extent: Extent, into: &mut [u8]) -> Result<(), Unopened> {
        if self.refuses.load(Ordering::SeqCst) {
            return Err(Unopened::Refused);
        }
        self.threads.lock().unwrap().insert(format!("{:?}", std::thread::current().id()));
        for (lba, block) in (extent.first().0..extent.end().0).zip(into.chunks_mut(len(BLOCK))) {
            if self.broken.contains(&lba) {
                return Err(Unopened::NotAuthentic { lba: Lba(lba), sequence: Sequence(lba + 1) });
            }
            block.fill(sealed(lba));
            *self.opened.lock().unwrap().entry(lba).or_default() += 1;
        }
        Ok(())
    }

    fn runs(&self, within: Extent) -> Vec<(BlockCount, bool)> {
        (within.first().0..within.end().0).map(|lba| (BlockCount(1), sealed(lba) != 0)).collect()
    }
}

/// A disk that remembers what was synced, and what was only written.
#[derive(Clone, Debug)]
struct Volatile(Arc<Mutex<Layers>>);

#[derive(Debug)]
struct Layers {
    durable: Vec<u8>,
    now: Vec<u8>,
    /// The next sync fails and reaches nothing.
    fails: bool,
}

impl Volatile {
    fn new(bytes: usize) -> Self {
        Self(Arc::new(Mutex::new(Layers { durable: vec![0; bytes], now: vec![0; bytes], fails: false })))
    }

    /// Power goes: of each sector, what was synced or what was written remains.
    fn crash(&self, dice: &mut impl FnMut() -> bool) {
        let mut layers = self.0.lock().unwrap();
        let Layers { durable, now, .. } = &mut *layers;
        for (durable, now) in durable.chunks_mut(SECTOR).zip(now.chunks(SECTOR)) {
            if durable != now && dice() {
                durable.copy_from_slice(now);
            }
        }
        layers.now = layers.durable.clone();
    }
}

impl Home for Volatile {
    fn bytes(&self) -> u64 {
        u64::try_from(self.0.lock().unwrap().now.len()).unwrap()
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), StoreError> {
        let at = len(offset);
        into.copy_from_slice(&self.0.lock().unwrap().now[at..at + into.len()]);
        Ok(())
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), StoreError> {
        let at = len(offset);
        self.0.lock().unwrap().now[at..at + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn zero(&self, offset: u64, bytes: u64, _punch: bool) -> Result<(), StoreError> {
        self.0.lock().unwrap().now[len(offset)..len(offset + bytes)].fill(0);
        Ok(())
    }

    fn sync(&self) -> Result<(), StoreError> {
        let mut layers = self.0.lock().unwrap();
        if std::mem::take(&mut layers.fails) {
            return Err(StoreError::SyncLost { path: "volatile".into() });
        }
        layers.durable = layers.now.clone();
        Ok(())
    }

    fn allocated(&self, _offset: u64, bytes: u64) -> Result<Vec<(u64, bool)>, StoreError> {
        Ok(vec![(bytes, true)])
    }
}

fn block() -> BlockBytes {
    BlockBytes::new(512).unwrap()
}

fn over(image: &Volatile, map: &Volatile, source: &Source) -> OpenedHome<Source> {
    OpenedHome::open_on(Box::new(image.clone()), Box::new(map.clone()), block(), source.clone()).unwrap()
}

fn fresh(source: &Source) -> (OpenedHome<Source>, Volatile, Volatile) {
    let (image, map) = (Volatile::new(BYTES), Volatile::new(2 * 4096));
    (over(&image, &map, source), image, map)
}

fn plain() -> Vec<u8> {
    (0..BLOCKS).flat_map(|lba| vec![sealed(lba); len(BLOCK)]).collect()
}

#[derive(Clone, Debug)]
enum Step {
    Read {
        at: u64,
        len: u64,
    },
    Write {
        at: u64,
        len: u64,
        fill: u8,
    },
    Zero {
        at: u64,
        len: u64,
    },
    Sweep {
        first: u64,
        blocks: u64,
    },
    Sync,
    /// Power goes, perhaps in the middle of a sync: of the image, or of the map.
    Crash {
        seed: u64,
        within: u8,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let bytes = BLOCKS * BLOCK;
    let range =
        move || (0..bytes, prop_oneof![1..2000u64, 1..200_000u64]).prop_map(move |(at, len)| (at, len.min(bytes - at)));
    let aligned = move || (0..BLOCKS, 1..80u64).prop_map(|(at, n)| (at * BLOCK, n.min(BLOCKS - at) * BLOCK));
    let any_range = move || prop_oneof![range(), aligned()];
    prop_oneof![
        4 => any_range().prop_map(|(at, len)| Step::Read { at, len }),
        4 => (any_range(), 1..=255u8).prop_map(|((at, len), fill)| Step::Write { at, len, fill }),
        1 => any_range().prop_map(|(at, len)| Step::Zero { at, len }),
        1 => (0..BLOCKS, 1..300u64).prop_map(|(first, blocks)| Step::Sweep { first, blocks }),
        2 => Just(Step::Sync),
        2 => (any::<u64>(), 0..3u8).prop_map(|(seed, within)| Step::Crash { seed, within }),
    ]
}

/// After a crash a sector may hold what was synced, or anything written to it since.
struct Model {
    now: Vec<u8>,
    since_sync: Vec<Vec<u8>>,
}

impl Model {
    fn set(&mut self, at: u64, bytes: u64, fill: u8) {
        self.now[len(at)..len(at + bytes)].fill(fill);
        self.since_sync.push(self.now.clone());
    }

    fn settle(&mut self, found: &[u8]) {
        for at in (0..BYTES).step_by(SECTOR) {
            let found = &found[at..at + SECTOR];
            let known = self.since_sync.iter().any(|state| &state[at..at + SECTOR] == found);
            assert!(known, "sector {} holds {} which nobody wrote since the last sync", at / SECTOR, found[0]);
        }
        self.now = found.to_vec();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn what_was_synced_survives_and_nothing_older_returns(steps in proptest::collection::vec(step(), 1..40)) {
        let source = Source::default();
        let (mut home, image, map) = fresh(&source);
        let mut model = Model { now: plain(), since_sync: vec![plain()] };
        for step in steps {
            match step {
                Step::Read { at, len: bytes } => {
                    let mut read = vec![0xaa; len(bytes)];
                    home.read(at, &mut read).unwrap();
                    assert!(read == model.now[len(at)..len(at + bytes)], "read of {bytes} at {at}");
                }
                Step::Write { at, len: bytes, fill } => {
                    home.write(at, &vec![fill; len(bytes)]).unwrap();
                    model.set(at, bytes, fill);
                }
                Step::Zero { at, len: bytes } => {
                    home.zero(at, bytes, true).unwrap();
                    model.set(at, bytes, 0);
                }
                Step::Sweep { first, blocks } => {
                    let result = home.sweep(extent(first, blocks));
                    assert!(result.stopped.is_none() && result.failed.0 == 0);
                }
                Step::Sync => {
                    home.sync().unwrap();
                    model.since_sync = vec![model.now.clone()];
                }
                Step::Crash { mut seed, within } => {
                    let mut dice = || {
                        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                        seed >> 62 & 1 == 1
                    };
                    if within > 0 {
                        let torn = if within == 1 { &image } else { &map };
                        torn.0.lock().unwrap().fails = true;
                        let _ = home.sync();
                        torn.0.lock().unwrap().fails = false;
                    }
                    image.crash(&mut dice);
                    map.crash(&mut dice);
                    home = over(&image, &map, &source);
                    let mut read = vec![0; BYTES];
                    home.read(0, &mut read).unwrap();
                    model.settle(&read);
                    model.since_sync = vec![model.now.clone()];
                }
            }
        }
        let mut read = vec![0; BYTES];
        home.read(0, &mut read).unwrap();
        assert!(read == model.now);
    }
}

#[test]
fn a_block_is_opened_once_and_never_again() {
    let source = Source::default();
    let (home, image, map) = fresh(&source);
    let mut read = vec![0; BYTES];
    for _ in 0..3 {
        home.read(0, &mut read).unwrap();
        assert!(read == plain());
    }
    home.sync().unwrap();
    let home = over(&image, &map, &source);
    home.read(0, &mut read).unwrap();
    assert_eq!(home.sweep(extent(0, BLOCKS)).opened, BlockCount(0));
    let opened = source.opened.lock().unwrap();
    assert_eq!(opened.len(), 400);
    assert!(opened.values().all(|times| *times == 1));
    assert_eq!(home.progress().opened, home.progress().present);
}

/// More blocks than other tests have: whole regions for several threads.
#[test]
fn a_large_read_of_what_is_closed_was_opened_by_one_thread() {
    const MANY: u64 = 2_600;
    let many = len(MANY * BLOCK);
    let source = Source::default();
    let (image, map) = (Box::new(Volatile::new(many)), Box::new(Volatile::new(2 * 4096)));
    let block = BlockBytes::new(u32::try_from(BLOCK).unwrap()).unwrap();
    let home = OpenedHome::open_on(image, map, block, source.clone()).unwrap();
    // Neither end is one of a block.
    let mut read = vec![0xFF; many - 300];
    home.read(100, &mut read).unwrap();
    let expected: Vec<u8> = (0..MANY).flat_map(|lba| vec![sealed(lba); len(BLOCK)]).collect();
    assert!(read == expected[100..many - 200]);
    let cores = std::thread::available_parallelism().unwrap().get();
    assert_eq!(source.threads.lock().unwrap().len(), cores.clamp(1, 5));
    assert!(source.opened.lock().unwrap().values().all(|times| *times == 1));

    let source = Source { broken: [600, 1_800].into(), ..Source::default() };
    let (image, map) = (Box::new(Volatile::new(many)), Box::new(Volatile::new(2 * 4096)));
    let home = OpenedHome::open_on(image, map, block, source).unwrap();
    let failed = home.read(0, &mut vec![0; many]);
    assert!(matches!(failed, Err(StoreError::NotAuthentic { lba: Lba(600), .. })), "not the first: {failed:?}");
}

#[test]
fn a_block_that_cannot_be_opened_is_named_and_keeps_no_other() {
    let source = Source { broken: [4, 300].into(), ..Source::default() };
    let (home, ..) = fresh(&source);
    let result = home.sweep(extent(0, BLOCKS));
    assert_eq!((result.opened, result.failed), (BlockCount(398), BlockCount(2)));
    assert_eq!(result.first_failed, [Lba(4), Lba(300)]);
    assert!(matches!(result.why, Some(StoreError::NotAuthentic { lba: Lba(4), sequence: Sequence(5) })));
    let mut read = vec![0; len(4 * BLOCK)];
    assert!(matches!(home.read(3 * BLOCK, &mut read), Err(StoreError::NotAuthentic { lba: Lba(4), .. })));
    home.read(BLOCK, &mut read[..len(3 * BLOCK)]).unwrap();
    let progress = home.progress();
    assert_eq!((progress.present, progress.opened, progress.failed), (BlockCount(400), BlockCount(398), BlockCount(2)));
    // Part of a broken block cannot be changed; the whole of it can.
    assert!(home.write(4 * BLOCK + 1, &[1]).is_err());
    home.write(4 * BLOCK, &vec![1; len(BLOCK)]).unwrap();
    home.read(3 * BLOCK, &mut read[..len(2 * BLOCK)]).unwrap();
    assert_eq!(home.progress().failed, BlockCount(1));
}

#[test]
fn a_refusal_reaches_the_reader_as_one() {
    let source = Source::default();
    source.refuses.store(true, Ordering::SeqCst);
    let (home, ..) = fresh(&source);
    assert!(matches!(home.read(0, &mut [0; 512]), Err(StoreError::Refused)));
    // What holds nothing needs nobody's leave.
    home.read(2 * BLOCK, &mut [0; 512]).unwrap();
    source.refuses.store(false, Ordering::SeqCst);
    home.read(0, &mut [0; 512]).unwrap();
    assert!(matches!(StoreError::from(Unopened::NoKey { epoch: Epoch(3) }), StoreError::NoKey { epoch: Epoch(3) }));
}

#[test]
fn runs_tell_data_from_holes_on_both_sides_of_the_border() {
    let (home, ..) = fresh(&Source::default());
    home.write(2 * BLOCK, &vec![5; len(BLOCK)]).unwrap();
    let runs = home.allocated(BLOCK / 2, 6 * BLOCK).unwrap();
    assert_eq!(runs, [(BLOCK * 9 / 2, true), (BLOCK, false), (BLOCK / 2, true)]);
}

#[test]
fn a_concurrent_write_is_never_overtaken_by_an_older_block() {
    for _ in 0..20 {
        let (home, ..) = fresh(&Source::default());
        let writes = AtomicU64::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| home.sweep(extent(0, BLOCKS)));
            scope.spawn(|| {
                for lba in (0..BLOCKS).rev() {
                    home.write(lba * BLOCK, &vec![255; len(BLOCK)]).unwrap();
                    writes.fetch_add(1, Ordering::SeqCst);
                }
            });
            scope.spawn(|| {
                let mut read = vec![0; BYTES];
                home.read(0, &mut read).unwrap();
            });
        });
        let mut read = vec![0; BYTES];
        home.read(0, &mut read).unwrap();
        assert!(read.iter().all(|byte| *byte == 255));
        assert_eq!(writes.into_inner(), BLOCKS);
    }
}

#[test]
fn an_opened_volume_on_files_survives_a_restart() {
    let dir = crate::records::dir();
    let open = || OpenedHome::open(dir.path(), BLOCKS * BLOCK, block(), Source::default());
    let home = open().unwrap();
    let mut expected = plain();
    home.write(777, &[9; 3000]).unwrap();
    expected[777..3777].fill(9);
    home.sync().unwrap();
    drop(home);
    let home = open().unwrap();
    assert_eq!(home.progress().opened, BlockCount(5));
    let mut read = vec![0; BYTES];
    home.read(0, &mut read).unwrap();
    assert!(read == expected);
    drop(home);
    // Without its map every block would be opened again, over what was written since.
    std::fs::remove_file(dir.path().join("opened.map")).unwrap();
    let over = |begun| {
        let image: Arc<dyn Home> = Arc::new(RawHome::open(&dir.path().join("opened.image"), None).unwrap());
        OpenedHome::over(image, dir.path(), block(), Source::default(), begun)
    };
    assert!(matches!(over(true), Err(OpenedError::MapGone(_))));
    assert!(!dir.path().join("opened.map").exists());
    assert!(over(false).is_ok());
    let odd = OpenedHome::open(dir.path(), 1000, block(), Source::default());
    assert!(matches!(odd, Err(OpenedError::Size { bytes: 1000, block: 512, .. })));
}

#[test]
fn a_map_with_neither_copy_whole_is_refused() {
    let source = Source::default();
    let (home, image, map) = fresh(&source);
    for _ in 0..2 {
        home.write(0, &[1; 512]).unwrap();
        home.sync().unwrap();
    }
    map.0.lock().unwrap().now[4096 + 100] ^= 1;
    over(&image, &map, &source).read(0, &mut [0; 512]).unwrap();
    map.0.lock().unwrap().now[100] ^= 1;
    let refused = OpenedHome::open_on(Box::new(image), Box::new(map), block(), source);
    assert!(matches!(refused, Err(StoreError::Damaged { offset: 0, .. })));
}
