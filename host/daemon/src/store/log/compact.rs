//! Compaction: what is still read of some segments is written to new ones, verbatim and without a key, and these take the
//! place of the old ones.
//!
//! The order of its steps makes a crash between any two of them harmless:
//!
//! 1. The new segments are written and made durable. No manifest names them: after a crash they are removed.
//! 2. [`Log::adopt`]: the manifest names them, and the old ones as replaced. From here on what was begun is finished:
//!    after a crash [`Log::unfinished`] says what has moved.
//! 3. The index reads the new segments, durably.
//! 4. [`Log::drop_replaced`]: the manifest names the old ones no more, and then they are removed.

use std::fs;
use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use farseal_core::limits::RECORD_BYTES_MAX;
use farseal_core::record::{Header, Kind};
use farseal_core::units::{ByteLen, PairId};

use super::manifest::{Listed, Manifest};
use super::{
    BUFFER_BYTES, COMPACTED, Cursor, Flaw, Kept, LOG_HEADER_BYTES, Location, Log, LogReader, RESERVE_BYTES, SegmentUse,
    Shared, WINDOW_BYTES, decode_header, encode_header, entry_at, segment_path,
};
use crate::store::disk::{Disk, Tail};
use crate::store::{StoreError, exclusive, shared, wide};

/// Entries that are judged at once.
const JUDGE_ENTRIES: usize = 512;
/// Bytes of entries that are judged at once: what a cursor reads with one call, so that nothing is read twice.
const JUDGE_BYTES: u64 = 2 << 20;
const _: () = assert!(JUDGE_BYTES + RECORD_BYTES_MAX as u64 <= WINDOW_BYTES, "a batch is what a cursor reads at once");

/// Why segments were not compacted. The log is as it was.
#[derive(Debug, thiserror::Error)]
pub enum CompactError {
    #[error("compaction was stopped")]
    Stopped,
    /// It stays as it is: what else of it can be read is read from there.
    #[error("segment {:08x} byte {}: {flaw}; the segment is left as it is", .0.segment, .0.offset, flaw = .1)]
    Damaged(Location, Flaw),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Writes new segments beside a log that goes on.
#[derive(Debug)]
pub struct Compactor {
    pair: PairId,
    segment_bytes: u64,
    disk: Arc<dyn Disk>,
    shared: Arc<Shared>,
    reader: LogReader,
}

/// New segments, durable, that nobody reads yet. Removed when this is dropped before [`Log::adopt`] took it.
#[derive(Debug)]
pub struct Compacted {
    shared: Arc<Shared>,
    segments: Vec<(u32, Listed)>,
    replaces: Vec<u32>,
    moved: Vec<(Header, Location)>,
    adopted: bool,
}

impl Compacted {
    /// The records of which something was kept, and where they are now.
    pub fn moved(&self) -> &[(Header, Location)] {
        &self.moved
    }

    /// The segments that are read no more once the index has moved.
    pub fn replaces(&self, number: u32) -> bool {
        self.replaces.contains(&number)
    }

    /// Bytes that were written.
    pub fn bytes(&self) -> ByteLen {
        ByteLen(self.segments.iter().map(|(_, segment)| segment.bytes).sum())
    }
}

impl Drop for Compacted {
    fn drop(&mut self) {
        if !self.adopted {
            for (number, _) in &self.segments {
                let _ = fs::remove_file(segment_path(&self.shared.dir, *number));
            }
        }
    }
}

impl Compactor {
    /// Writes what `judge` keeps of the segments of `group`, in their order. `judge` is asked of some records at a time
    /// and says what to keep of each, or nothing at all to stop.
    pub fn compact(
        &self,
        group: &[u32],
        mut judge: impl FnMut(Vec<(Header, Location)>) -> Option<Vec<Option<Kept>>>,
    ) -> Result<Compacted, CompactError> {
        let compacted = Compacted {
            shared: Arc::clone(&self.shared),
            segments: Vec::new(),
            replaces: group.to_vec(),
            moved: Vec::new(),
            adopted: false,
        };
        let mut writer = Writer { of: self, compacted, tail: None, buffer: Vec::new() };
        for number in group {
            let end = self.reader.end(*number).unwrap_or_default();
            let mut cursor = self.reader.cursor(*number, end)?;
            self.rewrite(*number, &mut cursor, &mut judge, &mut writer)?;
        }
        writer.finish()
    }

    fn rewrite(
        &self,
        number: u32,
        cursor: &mut Cursor,
        judge: &mut impl FnMut(Vec<(Header, Location)>) -> Option<Vec<Option<Kept>>>,
        writer: &mut Writer<'_>,
    ) -> Result<(), CompactError> {
        let place = |at| Location::at(number, at);
        if !matches!(decode_header(cursor.bytes(0, wide(LOG_HEADER_BYTES))?, number), Some(Ok(_))) {
            return Err(CompactError::Damaged(place(0), Flaw::Segment));
        }
        let mut at = wide(LOG_HEADER_BYTES);
        while at < cursor.end() {
            let first = at;
            let mut entries = Vec::new();
            while at < cursor.end() && entries.len() < JUDGE_ENTRIES && at - first < JUDGE_BYTES {
                match entry_at(cursor, at)? {
                    Ok(entry) => {
                        let from = at;
                        at += wide(entry.bytes());
                        entries.push((from, entry));
                    }
                    // Room that was reserved and not used.
                    Err(_) if cursor.blank_from(at)? => at = cursor.end(),
                    Err(flaw) => return Err(CompactError::Damaged(place(at), flaw)),
                }
            }
            let asked = entries.iter().map(|(at, entry)| (entry.framed.header, place(*at))).collect();
            let kept = judge(asked).filter(|kept| kept.len() == entries.len()).ok_or(CompactError::Stopped)?;
            for ((at, entry), keep) in entries.iter().zip(kept) {
                let Some(keep) = keep else { continue };
                // All that is kept of a slice is the slice.
                let all = keep.blocks(&entry.framed.header) == entry.kept.blocks(&entry.framed.header);
                let keep = if all { entry.kept.clone() } else { keep };
                let bytes = Bytes::copy_from_slice(cursor.bytes(*at, wide(entry.bytes()))?);
                let cut = entry
                    .cut(&bytes, &keep)
                    .ok_or(CompactError::Damaged(place(*at), Flaw::Slice { sequence: entry.framed.header.sequence }))?;
                writer.put(&entry.framed.header, &keep, &cut)?;
            }
        }
        Ok(())
    }
}

struct Writer<'a> {
    of: &'a Compactor,
    compacted: Compacted,
    tail: Option<Tail>,
    buffer: Vec<u8>,
}

impl Writer<'_> {
    fn put(&mut self, header: &Header, kept: &Kept, bytes: &[u8]) -> Result<(), StoreError> {
        let end = self.end() + wide(bytes.len());
        if self.tail.is_none() || end > self.of.segment_bytes {
            self.roll()?;
        }
        let location =
            Location::at(self.compacted.segments.last().map_or(COMPACTED, |(number, _)| *number), self.end());
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= BUFFER_BYTES {
            self.flush()?;
        }
        if let Some((_, segment)) = self.compacted.segments.last_mut()
            && header.kind == Kind::Data
        {
            segment.blocks += u64::from(kept.blocks(header));
        }
        self.compacted.moved.push((*header, location));
        Ok(())
    }

    fn end(&self) -> u64 {
        self.tail.as_ref().map_or(0, |tail| tail.end) + wide(self.buffer.len())
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        let Some(tail) = &mut self.tail else { return Ok(()) };
        let goal = tail.end + wide(self.buffer.len());
        tail.append(
            &mut [IoSlice::new(&self.buffer)],
            goal.next_multiple_of(RESERVE_BYTES).min(self.of.segment_bytes),
        )?;
        self.buffer.clear();
        if let Some((_, segment)) = self.compacted.segments.last_mut() {
            segment.bytes = tail.end;
        }
        Ok(())
    }

    fn roll(&mut self) -> Result<(), StoreError> {
        self.close()?;
        let number = COMPACTED | self.of.shared.next_compacted.fetch_add(1, Ordering::Relaxed);
        let path = segment_path(&self.of.shared.dir, number);
        let tail = Tail::create(Arc::clone(&self.of.disk), path)?;
        self.compacted.segments.push((number, Listed { bytes: 0, blocks: 0, fresh: true }));
        self.tail = Some(tail);
        self.buffer.extend(encode_header(self.of.pair, number, 0));
        Ok(())
    }

    /// Makes the segment durable.
    fn close(&mut self) -> Result<(), StoreError> {
        self.flush()?;
        let Some(mut tail) = self.tail.take() else { return Ok(()) };
        tail.cut()?;
        self.of.disk.sync(&tail.file).map_err(|source| StoreError::SyncFailed { path: tail.path, source })
    }

    fn finish(mut self) -> Result<Compacted, CompactError> {
        self.close()?;
        self.of.shared.entries.sync()?;
        Ok(self.compacted)
    }
}

impl Log {
    /// What writes new segments, on any thread.
    pub fn compactor(&self) -> Compactor {
        Compactor {
            pair: self.pair,
            segment_bytes: self.segment_bytes,
            disk: Arc::clone(&self.disk),
            shared: Arc::clone(&self.shared),
            reader: self.reader(),
        }
    }

    /// The segments that no record is added to any more: all compacted ones, and the plain ones before `before`, where the
    /// index on disk ends. A restart reads later ones again, and must find them.
    pub fn full_segments(&self, before: Location) -> Vec<SegmentUse> {
        let tail = self.tail.as_ref().map_or(0, |(number, _)| *number).min(before.segment);
        let plain = shared(&self.shared.segments);
        let plain = plain.range(..tail).map(|(number, end)| (*number, *end, None));
        let compacted = self.manifest.compacted.iter();
        let compacted = compacted.map(|(number, segment)| (*number, segment.bytes, Some(segment.blocks)));
        plain
            .chain(compacted)
            .map(|(number, bytes, compacted)| SegmentUse { number, bytes: ByteLen(bytes), compacted })
            .collect()
    }

    /// Takes new segments in, beside those that they replace, with the state of the order as it is now. Everything that was
    /// left out of them must be in the index, durable or not.
    pub fn adopt(&mut self, compacted: &mut Compacted, state: &[u8]) -> Result<(), StoreError> {
        let mut manifest = Manifest { anew: false, ..self.manifest.clone() };
        manifest.compacted.extend(compacted.segments.iter().copied());
        manifest.replaced.extend(&compacted.replaces);
        manifest.state = Some(state.to_vec());
        // Should this fail, nobody knows which manifest is on disk: the new segments stay, and it may be tried again.
        compacted.adopted = true;
        manifest.save(&self.shared.dir, self.pair)?;
        self.manifest = manifest;
        exclusive(&self.shared.compacted).extend(compacted.segments.iter().map(|(number, new)| (*number, new.bytes)));
        Ok(())
    }

    /// What a crash interrupted: the records that have moved, and where they are. Their old segments are still there, and
    /// [`Self::is_replaced`] knows them.
    pub fn unfinished(&self) -> Result<Vec<(Header, Location)>, CompactError> {
        let fresh = self.manifest.compacted.iter().filter(|(_, segment)| segment.fresh);
        let mut moved = Vec::new();
        let mut each = |header: &Header, location| moved.push((*header, location));
        fresh.into_iter().try_for_each(|(number, segment)| self.entries_of(*number, segment.bytes, &mut each))?;
        Ok(moved)
    }

    /// Is this segment about to go?
    pub fn is_replaced(&self, number: u32) -> bool {
        self.manifest.replaced.contains(&number)
    }

    /// The index is durable and reads nothing from the replaced segments any more: removes them. A damaged manifest is
    /// written anew by the way.
    pub fn drop_replaced(&mut self, state: &[u8]) -> Result<(), StoreError> {
        if self.manifest.replaced.is_empty() && !self.manifest.anew {
            return Ok(());
        }
        let mut manifest = Manifest { anew: false, ..self.manifest.clone() };
        let gone = manifest.drop_replaced();
        manifest.state = Some(state.to_vec());
        manifest.save(&self.shared.dir, self.pair)?;
        self.manifest = manifest;
        exclusive(&self.shared.segments).retain(|number, _| !gone.contains(number));
        exclusive(&self.shared.compacted).retain(|number, _| !gone.contains(number));
        self.shared.discards.fetch_add(1, Ordering::AcqRel);
        for number in gone {
            let path = segment_path(&self.shared.dir, number);
            if let Err(error) = fs::remove_file(&path) {
                tracing::warn!(path = %path.display(), %error, "a replaced segment stays until a restart");
            }
        }
        self.shared.entries.sync()
    }

    /// Shows `each` record that compacted segments hold, whole or in part, in no order.
    pub fn compacted_records(&self, each: &mut dyn FnMut(&Header, Location)) -> Result<(), CompactError> {
        let mut segments = self.manifest.compacted.iter();
        segments.try_for_each(|(number, segment)| self.entries_of(*number, segment.bytes, each))
    }

    fn entries_of(&self, number: u32, end: u64, each: &mut dyn FnMut(&Header, Location)) -> Result<(), CompactError> {
        let mut cursor = self.reader().cursor(number, end)?;
        let mut at = wide(LOG_HEADER_BYTES);
        while at < end {
            match entry_at(&mut cursor, at)? {
                Ok(entry) => {
                    each(&entry.framed.header, Location::at(number, at));
                    at += wide(entry.bytes());
                }
                Err(flaw) => return Err(CompactError::Damaged(Location::at(number, at), flaw)),
            }
        }
        Ok(())
    }
}
