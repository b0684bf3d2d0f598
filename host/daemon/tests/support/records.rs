//! The records of a copy's log as files: where they stand, and how they are altered so that only the seal can tell.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use farseal_core::record::{Framed, HEADER_BYTES, Kind};

pub(crate) fn flip(file: &Path, at: u64) {
    let file = File::options().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x40], at).unwrap();
}

/// Makes the checksums of the record at a place right again.
pub(crate) fn mend_checksums(log: &Path, at: u64) {
    let mut bytes = fs::read(log).unwrap();
    let from = usize::try_from(at).unwrap();
    let header = Framed::decode(&bytes[from..]).unwrap().header;
    let body = from + HEADER_BYTES..from + header.record_bytes();
    let framed = header.encode(crc32c::crc32c(&bytes[body]));
    bytes[from..from + HEADER_BYTES].copy_from_slice(&framed);
    let file = File::options().write(true).open(log).unwrap();
    file.write_all_at(&framed, at).unwrap();
}

/// Where the newest data record of each block stands in the copy's first segment.
pub(crate) fn newest(log: &Path) -> BTreeMap<u64, u64> {
    let bytes = fs::read(log).unwrap();
    let (mut at, mut found) = (64, BTreeMap::new());
    while let Ok(framed) = Framed::decode(&bytes[at..]) {
        if framed.header.kind == Kind::Data {
            found.insert(framed.header.lba.0, u64::try_from(at).unwrap());
        }
        at += framed.header.record_bytes();
    }
    found
}

/// Alters a block of the copy in a segment so that only the seal can tell, where its records are of so many blocks from multiples of
/// them on. Says which record holds it.
pub(crate) fn alter(log: &Path, block: u64, per_record: u64) -> Option<u64> {
    let at = *newest(log).get(&(block - block % per_record))?;
    let bytes = fs::read(log).unwrap();
    let header = Framed::decode(&bytes[usize::try_from(at).unwrap()..]).unwrap().header;
    let before = u64::try_from(HEADER_BYTES + header.tag_bytes()).unwrap();
    let size = u64::from(header.block_bytes.get());
    flip(log, at + before + block % per_record * size + 5);
    mend_checksums(log, at);
    Some(header.sequence.0)
}
