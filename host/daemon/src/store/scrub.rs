//! Checking a whole log without a key: every record against its own checksums.

use std::path::PathBuf;

use farseal_core::record::{Framed, HEADER_BYTES};

use super::log::{Cursor, Flaw, LOG_HEADER_BYTES, Location, LogReader, decode_header, entry_at, entry_bytes};
use super::{StoreError, wide};

/// How far a scrub is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ScrubProgress {
    /// Bytes looked at.
    pub bytes: u64,
    /// Bytes of the log when the scrub began.
    pub of: u64,
    pub records: u64,
    pub damaged: u64,
}

/// Something in the log that is not as it was written.
#[derive(Debug)]
pub struct DamagedRecord {
    pub path: PathBuf,
    pub location: Location,
    pub flaw: Flaw,
    /// Bytes that are no use: up to the next record that is whole enough to find.
    pub bytes: u64,
}

/// What a scrub found.
#[derive(Debug, Default)]
pub struct ScrubReport {
    /// Records that are as they were written.
    pub records: u64,
    pub bytes: u64,
    pub damaged: Vec<DamagedRecord>,
    /// Segments that could not be read to their end.
    pub unreadable: Vec<(u32, StoreError)>,
}

/// Checks everything that the log holds as this begins. Goes on past every error.
pub fn scrub(reader: &LogReader, progress: &mut dyn FnMut(ScrubProgress)) -> ScrubReport {
    let segments = reader.segments();
    let of = segments.iter().map(|(_, end)| end).sum();
    let mut report = ScrubReport::default();
    for (number, end) in segments {
        let done = reader.cursor(number, end).and_then(|mut cursor| scrub_segment(number, &mut cursor, &mut report));
        // Compaction may have taken it away meanwhile.
        if let Err(error) = done
            && reader.end(number).is_some()
        {
            report.unreadable.push((number, error));
        }
        report.bytes += end;
        progress(ScrubProgress {
            bytes: report.bytes,
            of,
            records: report.records,
            damaged: wide(report.damaged.len()),
        });
    }
    report
}

fn scrub_segment(number: u32, cursor: &mut Cursor, report: &mut ScrubReport) -> Result<(), StoreError> {
    if !matches!(decode_header(cursor.bytes(0, wide(LOG_HEADER_BYTES))?, number), Some(Ok(_))) {
        let path = cursor.path().to_owned();
        let location = Location { segment: number, offset: 0 };
        report.damaged.push(DamagedRecord { path, location, flaw: Flaw::Segment, bytes: wide(LOG_HEADER_BYTES) });
    }
    let mut at = wide(LOG_HEADER_BYTES);
    while at < cursor.end() {
        let (flaw, next) = match entry_at(cursor, at)? {
            Ok(entry) => {
                report.records += 1;
                at += wide(entry.bytes());
                continue;
            }
            Err(_) if cursor.blank_from(at)? => return Ok(()),
            Err(flaw @ Flaw::Body { .. }) => (flaw, at + entry_bytes(cursor, at)?.unwrap_or(1)),
            Err(flaw) => (flaw, next_entry(cursor, at + 1)?),
        };
        let location = Location { segment: number, offset: u32::try_from(at).unwrap_or(u32::MAX) };
        report.damaged.push(DamagedRecord { path: cursor.path().to_owned(), location, flaw, bytes: next - at });
        at = next;
    }
    Ok(())
}

/// The next place where an entry's head stands; else the segment's end.
fn next_entry(cursor: &mut Cursor, mut at: u64) -> Result<u64, StoreError> {
    const PIECE: u64 = 64 << 10;
    while at < cursor.end() {
        let piece = cursor.bytes(at, PIECE + wide(HEADER_BYTES))?;
        let found = piece.windows(HEADER_BYTES).position(starts_entry);
        if let Some(found) = found {
            return Ok(at + wide(found));
        }
        at += PIECE;
    }
    Ok(cursor.end())
}

/// Does a whole record or a slice of one begin here, as far as a header shows?
fn starts_entry(bytes: &[u8]) -> bool {
    Framed::decode(bytes).is_ok() || bytes.starts_with(b"FSS1")
}
