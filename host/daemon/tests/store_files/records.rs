//! Records to store: right in every byte that the store looks at.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use farseal::store::disk::Disk;
use farseal::store::log::{Location, Log, LogError, Logged};
use farseal_core::record::{Header, Kind};
use farseal_core::units::{BlockBytes, ByteLen, Generation, Lba, PairId, Sequence, VolumeId, WallTime};

pub(crate) const PAIR: PairId = PairId([1; 16]);

pub(crate) fn header(kind: Kind, sequence: u64, lba: u64, blocks: u32) -> Header {
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

/// A whole record whose blocks hold its sequence number.
pub(crate) fn record(header: &Header) -> Bytes {
    let fill = u8::try_from(header.sequence.0 % 251).unwrap();
    let body = vec![fill; header.body_bytes()];
    let mut bytes = header.encode(crc32c::crc32c(&body)).to_vec();
    bytes.extend(body);
    bytes.into()
}

/// Opens a log and collects what it shows.
pub(crate) fn open_log(
    disk: Arc<dyn Disk>,
    dir: &Path,
    from: Location,
    segment: u64,
) -> Result<(Log, Vec<Logged>), LogError> {
    let mut logged = Vec::new();
    let log = Log::open_on(disk, dir, PAIR, from, ByteLen(segment), &mut |record| logged.push(record))?;
    Ok((log, logged))
}

/// A directory of a test's own; in memory where that is possible, since no test here pulls a plug.
pub(crate) fn dir() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}
