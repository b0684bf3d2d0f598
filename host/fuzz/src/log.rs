//! Target: the remote's log on a disk that gives back less, or other, than it was given.

use std::path::Path;
use std::sync::Arc;

use farseal::store::disk::RealDisk;
use farseal::store::log::{Location, Log, LogError, Logged};
use farseal_core::record::{Header, Kind};
use farseal_core::units::{ByteLen, PairId, Sequence};

use crate::record;
use crate::script::Script;

const PAIR: PairId = PairId([1; 16]);
/// Small, so that a few records fill one.
const SEGMENT_BYTES: u64 = 4096;

/// Appends and syncs as the first choices say, harms the files as the rest says, and opens them.
pub(crate) fn run(data: &[u8]) {
    let Ok(dir) = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()) else { return };
    let mut script = Script::new(data);
    let (mut log, found) = open(dir.path()).expect("an empty directory");
    assert!(found.is_empty());
    let mut written: Vec<(Header, Vec<u8>)> = Vec::new();
    let mut promised = 0;
    for sequence in 1..=u64::from(script.below(24)) {
        let header = header(&mut script, sequence);
        let bytes = bytes_of(&header, script.byte());
        log.append(&bytes, &header).expect("room");
        written.push((header, bytes));
        if script.below(3) == 0 {
            log.flush().expect("room");
            log.syncer().sync().expect("a disk that syncs");
            promised = written.len();
        }
    }
    log.flush().expect("room");
    drop(log);
    let mut harmed = false;
    while !script.is_over() {
        harmed |= harm(&mut script, dir.path());
    }
    let (log, found) = match open(dir.path()) {
        Ok(opened) => opened,
        Err(refused) => {
            assert!(harmed, "a log that nobody harmed: {refused}");
            assert!(!matches!(refused, LogError::Store(_)), "a named cause: {refused}");
            return;
        }
    };
    assert!(found.len() <= written.len(), "nothing comes back that was never written");
    assert!(found.len() >= promised, "{} of {promised} promised records came back", found.len());
    for (logged, (header, bytes)) in found.iter().zip(&written) {
        assert_eq!(logged.header, *header, "records come back in the order in which they came");
        let (_, body) = log.reader().read(logged.location).expect("what a restart found can be read");
        assert_eq!(bytes[bytes.len() - body.len()..], body[..], "to the last byte");
    }
    go_on(dir.path(), log, found.len());
}

/// What was recovered is a log like any other.
fn go_on(dir: &Path, mut log: Log, count: usize) {
    let header = Header { sequence: Sequence(1000), ..header(&mut Script::new(&[]), 1000) };
    let bytes = bytes_of(&header, 9);
    let location = log.append(&bytes, &header).expect("room");
    log.flush().expect("room");
    log.syncer().sync().expect("a disk that syncs");
    drop(log);
    let (_, again) = open(dir).expect("a log that was recovered once");
    assert_eq!(again.len(), count + 1);
    assert_eq!(again.last().map(|logged| logged.location), Some(location));
}

fn open(dir: &Path) -> Result<(Log, Vec<Logged>), LogError> {
    let (disk, mut found) = (Arc::new(RealDisk), Vec::new());
    let size = ByteLen(SEGMENT_BYTES);
    let log = Log::open_on(disk, dir, PAIR, Location::START, size, &mut |logged| found.push(logged))?;
    Ok((log, found))
}

fn header(script: &mut Script<'_>, sequence: u64) -> Header {
    let kind = [Kind::Data, Kind::Zero, Kind::Key, Kind::Cut][usize::from(script.below(4))];
    record::header(script, kind, 4, PAIR, sequence)
}

fn bytes_of(header: &Header, fill: u8) -> Vec<u8> {
    let body = vec![fill; header.body_bytes()];
    [header.encode(crc32c::crc32c(&body)).to_vec(), body].concat()
}

/// Changes one of the files. The mark is left alone: it is what tells damage from a torn end.
fn harm(script: &mut Script<'_>, dir: &Path) -> bool {
    let path = dir.join(format!("{:08x}.fsl", script.below(8)));
    let Ok(mut bytes) = std::fs::read(&path) else { return false };
    let at = usize::from(script.word()) % (bytes.len() + 1);
    match script.below(5) {
        0 => bytes.truncate(at),
        1 => bytes[at..].fill(0),
        2 => bytes.resize(bytes.len() + usize::from(script.word()), 0),
        3 => return std::fs::remove_file(&path).is_ok(),
        _ => {
            let bit = 1 << script.below(8);
            bytes.get_mut(at).into_iter().for_each(|byte| *byte ^= bit);
        }
    }
    std::fs::write(&path, bytes).is_ok()
}
