//! What a restart makes of the log's segments.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use farseal_core::units::PairId;

use super::manifest::Manifest;
use super::{Cursor, Flaw, LOG_HEADER_BYTES, Location, LogError, Logged, decode_header, record_at, reopen};
use crate::store::disk::{Disk, Tail, open_anew, truncate_durably};
use crate::store::{StoreError, files, wide};

pub(super) struct Found {
    pub(super) segments: BTreeMap<u32, u64>,
    pub(super) tail: Option<(u32, Tail)>,
}

pub(super) fn recover(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    pair: PairId,
    from: Location,
    durable: Location,
    manifest: &Manifest,
    each: &mut dyn FnMut(Logged),
) -> Result<Found, LogError> {
    let mut found = Found { segments: BTreeMap::new(), tail: None };
    // A checkpoint was made of what was durable, whatever became of the mark: nothing below it is a torn end.
    let promised = durable.max(from);
    let mut paths = list(dir, promised, manifest)?.into_iter().peekable();
    while let Some((number, path)) = paths.next() {
        let next = paths.peek().filter(|(next, _)| *next == number + 1);
        let expected = next.map(|(next, path)| end_before(*next, path)).transpose()?.flatten();
        if number < from.segment.min(durable.segment) {
            let metadata = fs::metadata(&path).map_err(|source| StoreError::io(&path, "find its size", source))?;
            let end = metadata.len();
            if let Some(expected) = expected.filter(|expected| u64::from(*expected) > end) {
                return Err(LogError::Damaged { path, offset: end, flaw: Flaw::End { expected }, durable });
            }
            found.segments.insert(number, end);
            continue;
        }
        let start = if number == from.segment { u64::from(from.offset) } else { 0 };
        // Where the checkpoint is ahead of the mark, what lies between is checked and not shown again.
        let mut show = |logged| {
            if number >= from.segment {
                each(logged)
            }
        };
        let missing = || LogError::Behind { dir: dir.to_owned(), from: from.max(durable) };
        let (end, flaw) = scan(disk, pair, number, &path, start, &mut show)?.ok_or_else(missing)?;
        let flaw = flaw
            .or_else(|| expected.filter(|expected| u64::from(*expected) > end).map(|expected| Flaw::End { expected }));
        let place = Location::at(number, end);
        if let Some(flaw) = flaw
            && place < promised
        {
            return Err(LogError::Damaged { path, offset: end, flaw, durable: promised });
        }
        if end < wide(LOG_HEADER_BYTES) {
            // Made, and torn before its header was durable.
            fs::remove_file(&path).map_err(|source| StoreError::io(&path, "remove the torn segment", source))?;
            break;
        }
        keep(disk, dir, number, end, &mut found)?;
        if let Some(flaw) = flaw {
            tracing::warn!(path = %path.display(), offset = end, %flaw, "cut off a torn end that was never promised");
            break;
        }
    }
    // What follows a torn end was never promised either.
    for (_, path) in paths.rev() {
        fs::remove_file(&path).map_err(|source| StoreError::io(&path, "remove the torn segment", source))?;
    }
    files::sync_dir(dir)?;
    let end = found.tail.as_ref().map_or(Location::START, |(number, tail)| Location::at(*number, tail.end));
    if end < from || end < durable {
        return Err(LogError::Behind { dir: dir.to_owned(), from: from.max(durable) });
    }
    Ok(found)
}

/// Segments in order, without a hole below what was promised but where compaction has put others in their place.
fn list(dir: &Path, promised: Location, manifest: &Manifest) -> Result<Vec<(u32, PathBuf)>, LogError> {
    let mut listed: Vec<(u32, PathBuf)> = Vec::new();
    for (number, path) in files::numbered(dir, 8, "fsl")? {
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        let mut expected = listed.last().map_or(0, |(last, _)| last + 1);
        while expected < number && manifest.is_gone(expected) {
            expected += 1;
        }
        if number != expected && Location::at(expected, 0) < promised {
            return Err(LogError::Missing { dir: dir.to_owned(), number: expected });
        }
        if number != expected {
            // The hole and what follows it were never promised.
            fs::remove_file(&path).map_err(|source| StoreError::io(&path, "remove the torn segment", source))?;
            continue;
        }
        listed.push((number, path));
    }
    Ok(listed)
}

/// Where the segment before this one ended, as this one says; `None` where it does not say.
fn end_before(number: u32, path: &Path) -> Result<Option<u32>, StoreError> {
    let failed = |source| StoreError::io(path, "open the segment", source);
    let file = File::open(path).map_err(failed)?;
    let len = file.metadata().map_err(failed)?.len();
    let mut cursor = Cursor::new(path.to_owned(), Arc::new(file), len.min(wide(LOG_HEADER_BYTES)));
    let header = decode_header(cursor.bytes(0, wide(LOG_HEADER_BYTES))?, number);
    Ok(header.and_then(Result::ok).map(|(_, before)| before))
}

/// Reads a segment from `start` on. Says where its valid part ends, and why there if that is not its end; `None` where
/// the file does not reach `start`.
fn scan(
    disk: &Arc<dyn Disk>,
    pair: PairId,
    number: u32,
    path: &Path,
    start: u64,
    each: &mut dyn FnMut(Logged),
) -> Result<Option<(u64, Option<Flaw>)>, LogError> {
    let failed = |source| StoreError::io(path, "open the segment", source);
    let file = open_anew(disk.as_ref(), path)?;
    let len = file.metadata().map_err(failed)?.len();
    let mut cursor = Cursor::new(path.to_owned(), Arc::new(file), len);
    match decode_header(cursor.bytes(0, wide(LOG_HEADER_BYTES))?, number) {
        None => return Ok(Some((0, Some(Flaw::Segment)))),
        Some(Err(found)) => return Err(LogError::Version { path: path.to_owned(), found }),
        Some(Ok((found, _))) if found != pair => {
            return Err(LogError::OtherPair { path: path.to_owned(), expected: pair, found });
        }
        Some(Ok(_)) => {}
    }
    let mut at = start.max(wide(LOG_HEADER_BYTES));
    if at > len {
        return Ok(None);
    }
    while at < len {
        match record_at(&mut cursor, at)? {
            Ok((framed, digest)) => {
                let header = framed.header;
                each(Logged { header, body_crc: framed.body_crc, digest, location: Location::at(number, at) });
                at += wide(header.record_bytes());
            }
            Err(_) if cursor.blank_from(at)? => break,
            Err(flaw) => return Ok(Some((at, Some(flaw)))),
        }
    }
    Ok(Some((at, None)))
}

/// Takes a segment that was scanned, cut at its valid end.
fn keep(disk: &Arc<dyn Disk>, dir: &Path, number: u32, end: u64, found: &mut Found) -> Result<(), LogError> {
    let tail = reopen(disk, dir, number)?;
    if tail.end > end {
        truncate_durably(disk.as_ref(), &tail.path, &tail.file, end)?;
    }
    let tail = Tail::resume(Arc::clone(disk), tail.path, tail.file, end);
    found.segments.insert(number, end);
    found.tail = Some((number, tail));
    Ok(())
}
