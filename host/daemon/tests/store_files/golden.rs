//! Files of format 1, kept as text and read again; a newer format is refused by name, whatever it holds.

use std::path::Path;
use std::sync::Arc;

use farseal::lane::state::{ChosenMode, LaneState};
use farseal::role::Control;
use farseal::store::disk::RealDisk;
use farseal::store::home::{Home, RawHome};
use farseal::store::index::Index;
use farseal::store::log::{Kept, Location, Log, LogError, Order, Run};
use farseal::store::opened::{BlockSource, OpenedHome, Unopened};
use farseal_core::chain::Chain;
use farseal_core::primary::Mode;
use farseal_core::record::Kind;
use farseal_core::units::{BlockBytes, BlockCount, ByteLen, Extent, Generation, Sequence};

use crate::records::{PAIR, header, record};

/// 32 bytes a line; `* N` are N lines of zeroes.
fn lines(bytes: &[u8]) -> String {
    let mut out = String::new();
    for run in bytes.chunks(32).collect::<Vec<_>>().chunk_by(|a, b| blank(a) && blank(b)) {
        if blank(run[0]) && run.len() > 1 {
            out += &format!("* {}\n", run.len());
        } else {
            let text: String = run.concat().iter().map(|byte| format!("{byte:02x}")).collect();
            out += &format!("{text}\n");
        }
    }
    out
}

fn blank(line: &[u8]) -> bool {
    line.len() == 32 && line.iter().all(|byte| *byte == 0)
}

fn bytes(lines: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for line in lines.lines() {
        if let Some(count) = line.strip_prefix("* ") {
            out.resize(out.len() + 32 * count.parse::<usize>().unwrap(), 0);
        }
        let digits = if line.starts_with('*') { "" } else { line };
        out.extend((0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()));
    }
    out
}

/// The fixture's bytes, which must be these.
fn golden(fixture: &str, found: &[u8]) -> Vec<u8> {
    assert_eq!(lines(found), fixture, "format 1 has other bytes now: that is another format");
    bytes(fixture)
}

/// Changes bytes of a file, and mends the checksum that stands at `crc` and covers what is before it.
fn forge(path: &Path, at: usize, byte: u8, crc: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] = byte;
    let sum = crc32c::crc32c(&bytes[..crc]);
    bytes[crc..crc + 4].copy_from_slice(&sum.to_le_bytes());
    std::fs::write(path, bytes).unwrap();
}

const LOG: &str = include_str!("../../../../fixtures/golden/log-1.hex");
const MARK: &str = include_str!("../../../../fixtures/golden/log-mark-1.hex");

#[test]
fn a_log_of_format_1_is_read() {
    let dir = crate::records::dir();
    let records = [header(Kind::Data, 1, 5, 2), header(Kind::Trim, 3, 9, 70), header(Kind::Cut, 2, 0, 0)];
    let mut log = Log::open(dir.path(), PAIR, Location::START, &mut |_| {}).unwrap();
    for header in &records {
        log.append(&record(header), header).unwrap();
    }
    log.flush().unwrap();
    log.syncer().sync().unwrap();
    let end = usize::try_from(log.end().offset).unwrap();
    drop(log);
    let segment = std::fs::read(dir.path().join("00000000.fsl")).unwrap();
    golden(LOG, &segment[..end]);
    golden(MARK, &std::fs::read(dir.path().join("log.mark")).unwrap());

    let kept = crate::records::dir();
    let path = kept.path().join("00000000.fsl");
    std::fs::write(&path, bytes(LOG)).unwrap();
    std::fs::write(kept.path().join("log.mark"), bytes(MARK)).unwrap();
    let mut found = Vec::new();
    Log::open(kept.path(), PAIR, Location::START, &mut |logged| found.push(logged.header)).unwrap();
    assert_eq!(found, records);

    forge(&path, 4, 2, 60);
    let refused = Log::open(kept.path(), PAIR, Location::START, &mut |_| {}).unwrap_err();
    assert!(matches!(refused, LogError::Version { found: 2, .. }), "{refused}");
    assert!(refused.to_string().ends_with("log format 2; this version reads format 1"), "{refused}");
}

/// A record, a slice of one, and a manifest that was left between the change and the removal.
#[test]
fn a_compacted_log_of_format_1_is_read() {
    let dir = crate::records::dir();
    let records = [header(Kind::Data, 1, 5, 2), header(Kind::Data, 2, 9, 4), header(Kind::Trim, 3, 20, 70)];
    let open = || {
        let disk = Arc::new(RealDisk);
        Log::open_on(disk, dir.path(), PAIR, Location::START, ByteLen(4096), &mut |_| {}).unwrap()
    };
    let mut log = open();
    for header in records.iter().chain(&[header(Kind::Data, 4, 30, 2)]) {
        log.append(&record(header), header).unwrap();
    }
    log.flush().unwrap();
    log.syncer().sync().unwrap();
    assert_eq!(log.end().segment, 1, "the first segment is full");
    let keep = [Some(Kept::Whole), Some(Kept::Runs(vec![Run { first: 1, count: 1 }, Run { first: 3, count: 1 }]))];
    let judge = |asked: Vec<_>| Some((0..asked.len()).map(|at| keep.get(at).cloned().flatten()).collect());
    let mut compacted = log.compactor().compact(&[0], judge).unwrap();
    log.adopt(&mut compacted, b"state").unwrap();
    drop(log);

    let segment = dir.path().join("00000000.fsc");
    let manifest = dir.path().join("log.manifest");
    let kept = [
        golden(include_str!("../../../../fixtures/golden/log-compacted-1.hex"), &std::fs::read(&segment).unwrap()),
        golden(include_str!("../../../../fixtures/golden/log-manifest-1.hex"), &std::fs::read(&manifest).unwrap()),
    ];
    std::fs::write(&segment, &kept[0]).unwrap();
    std::fs::write(&manifest, &kept[1]).unwrap();
    let log = open();
    let moved = log.unfinished().unwrap();
    assert_eq!(moved.iter().map(|(header, _)| *header).collect::<Vec<_>>(), records[..2]);
    assert!(log.is_replaced(0));
    assert_eq!(Log::order(dir.path(), PAIR).unwrap(), Order::Since(Some(b"state".to_vec())));
    drop(log);

    forge(&manifest, 4, 2, kept[1].len() - 4);
    let refused = Log::open(dir.path(), PAIR, Location::START, &mut |_| {}).unwrap_err().to_string();
    assert!(refused.ends_with("log format 2; this version reads format 1"), "{refused}");
}

/// The index is no contract: the log makes it again. A newer one is named all the same, and never half believed.
#[test]
fn an_index_of_a_newer_format_is_named_and_made_again() {
    let dir = crate::records::dir();
    let blocks = BlockCount(3000);
    let (mut index, _) = Index::open(dir.path(), blocks).unwrap();
    index.checkpoint(b"state").unwrap();
    drop(index);
    let path = dir.path().join("index.root");
    let len = std::fs::read(&path).unwrap().len();
    forge(&path, 4, 2, len - 4);
    let refused = Index::open(dir.path(), blocks).unwrap_err();
    assert!(refused.rebuild() && refused.to_string().contains("index format 2; this version reads format 1"));
}

struct NoSource;

impl BlockSource for NoSource {
    fn open(&self, _: Extent, _: &mut [u8]) -> Result<(), Unopened> {
        Err(Unopened::Refused)
    }

    fn runs(&self, within: Extent) -> Vec<(BlockCount, bool)> {
        vec![(within.blocks(), true)]
    }
}

/// What was written since a takeover exists nowhere else: a map that is not understood would serve old blocks.
#[test]
fn a_map_of_opened_blocks_of_format_1_is_read() {
    let dir = crate::records::dir();
    let block = BlockBytes::new(512).unwrap();
    let open = || OpenedHome::open(dir.path(), 600 * 512, block, NoSource).unwrap();
    let home = open();
    for (first, blocks) in [(0, 1), (70, 60), (599, 1)] {
        home.write(first * 512, &vec![7; blocks * 512]).unwrap();
    }
    home.sync().unwrap();
    drop(home);
    let path = dir.path().join("opened.map");
    let fixture = include_str!("../../../../fixtures/golden/opened-map-1.hex");
    let kept = golden(fixture, &std::fs::read(&path).unwrap());
    std::fs::write(&path, kept).unwrap();
    assert_eq!(open().progress().opened, BlockCount(62));
    // It has no version: anything else fails its checksum.
    let image = RawHome::open(&path, None).unwrap();
    image.write(0, &[0xff; 16]).unwrap();
    image.write(4096, &[0xff; 16]).unwrap();
    drop(image);
    assert!(OpenedHome::open(dir.path(), 600 * 512, block, NoSource).is_err());
}

#[test]
fn what_a_lane_remembered_in_format_1_is_read() {
    let dir = crate::records::dir();
    let path = dir.path().join("lane.json");
    let text = include_str!("../../../../fixtures/golden/lane-1.json");
    std::fs::write(&path, text).unwrap();
    let expected = LaneState {
        acked: Sequence(41),
        acked_chain: Chain([7; 32]),
        homed: Sequence(40),
        paused: true,
        chosen: Some(ChosenMode { mode: Mode::SyncFlush, instead_of: Mode::Async }),
        fenced: Some(Generation(3)),
        ..LaneState::default()
    };
    assert_eq!(LaneState::load(dir.path()).unwrap(), expected);
    std::fs::write(&path, text.replace("\"format\": 1", "\"format\": 2")).unwrap();
    let refused = LaneState::load(dir.path()).unwrap_err().to_string();
    assert!(refused.ends_with("format 2; this version reads format 1"), "{refused}");
    std::fs::write(&path, text.replace("\"homed\"", "\"hommed\"")).unwrap();
    let refused = LaneState::load(dir.path()).unwrap_err().to_string();
    assert!(refused.contains("lane.json") && refused.contains("hommed"), "{refused}");
}

#[test]
fn what_a_secondary_remembered_in_format_1_is_read() {
    let dir = crate::records::dir();
    let path = dir.path().join("control.json");
    let text = include_str!("../../../../fixtures/golden/control-1.json");
    std::fs::write(&path, text).unwrap();
    let control = Control::load(dir.path()).unwrap();
    assert_eq!((control.generation, control.taken_over_at), (Generation(2), Some(Sequence(77))));
    std::fs::write(&path, text.replace("\"generation\"", "\"generatoin\"")).unwrap();
    let refused = Control::load(dir.path()).unwrap_err().to_string();
    assert!(refused.contains("control.json") && refused.contains("generatoin"), "{refused}");
}
