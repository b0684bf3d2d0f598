//! A walk through the plain segments of a log that goes on: record by record, by their heads alone.
//!
//! Bodies are passed over: whoever reads a record by its location checks it then, and a scrub checks all of them.

use farseal_core::record::Header;

use super::read::{Cursor, head_at};
use super::{LOG_HEADER_BYTES, Location, LogReader, ReadError};
use crate::store::wide;

/// Bytes that are read at once: of records of 4 KiB some sixty, of the largest a quarter of one.
const AHEAD_BYTES: u64 = 256 << 10;

/// Where a walk is. It sees what was flushed, also after it began, and is told by nobody when the log takes something
/// back: begin another one then.
#[derive(Debug)]
pub struct Walk {
    reader: LogReader,
    at: Location,
    cursor: Option<Cursor>,
    /// Bytes that were read with the cursors before.
    read: u64,
}

impl LogReader {
    /// Begins at `from`, where a record stands or a segment begins or ends.
    pub fn walk(&self, from: Location) -> Walk {
        Walk { reader: self.clone(), at: from, cursor: None, read: 0 }
    }
}

impl Walk {
    /// Where the next record is looked for.
    pub fn at(&self) -> Location {
        self.at
    }

    /// Bytes that were read from the disk so far.
    pub fn bytes(&self) -> u64 {
        self.read + self.cursor.as_ref().map_or(0, Cursor::read)
    }

    /// The next record, and where it lies; `None` where the log ends for now. After an error it stays where it is.
    pub fn record(&mut self) -> Result<Option<(Header, Location)>, ReadError> {
        let Some((segment, end)) = self.reader.segment_from(self.at) else { return Ok(None) };
        if segment != self.at.segment {
            self.turn_to(Location { segment, offset: 0 });
        }
        let offset = u64::from(self.at.offset).max(wide(LOG_HEADER_BYTES));
        let cursor = match &mut self.cursor {
            Some(cursor) if offset < cursor.end() => cursor,
            // It is the first, or the segment has grown.
            Some(_) | None => {
                self.turn_to(self.at);
                self.cursor.insert(self.reader.cursor(segment, end)?.reading(AHEAD_BYTES))
            }
        };
        let location = Location::at(segment, offset);
        let framed = head_at(cursor, offset)?.map_err(|flaw| ReadError::Damaged { location, flaw })?;
        self.at = Location::at(segment, offset + wide(framed.header.record_bytes()));
        Ok(Some((framed.header, location)))
    }

    fn turn_to(&mut self, at: Location) {
        self.read = self.bytes();
        self.cursor = None;
        self.at = at;
    }
}
