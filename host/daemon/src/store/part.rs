//! The home of a pair that copies ranges of a volume: those ranges, one after the other.

use std::sync::Arc;

use super::home::{Home, RawHome};
use super::{StoreError, narrow};
use crate::range::{self, ByteRange};

/// Ranges of a home that several pairs share, as a home of their own.
#[derive(Debug)]
pub struct PartHome {
    whole: Arc<RawHome>,
    ranges: Vec<ByteRange>,
}

impl PartHome {
    /// The ranges are disjoint, in order, and inside of the home.
    #[must_use]
    pub fn new(whole: Arc<RawHome>, ranges: Vec<ByteRange>) -> Self {
        Self { whole, ranges }
    }

    /// Where bytes lie in the whole: (there, from the first one on, how many). What is beyond the ranges is beyond the
    /// whole, too, so that it is refused there.
    fn places(&self, offset: u64, len: u64) -> Vec<(u64, u64, u64)> {
        let (mut places, mut at, mut done) = (Vec::new(), 0, 0);
        for range in &self.ranges {
            let place = offset + done;
            if done < len && place < at + range.bytes() {
                let step = (at + range.bytes() - place).min(len - done);
                places.push((range.start + (place - at), done, step));
                done += step;
            }
            at += range.bytes();
        }
        if done < len {
            places.push((self.whole.bytes(), done, len - done));
        }
        places
    }

    fn write_by(
        &self,
        offset: u64,
        bytes: &[u8],
        write: impl Fn(&RawHome, u64, &[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        for (at, from, len) in self.places(offset, super::wide(bytes.len())) {
            if let Some(part) = bytes.get(narrow(from)..narrow(from + len)) {
                write(&self.whole, at, part)?;
            }
        }
        Ok(())
    }
}

impl Home for PartHome {
    fn bytes(&self) -> u64 {
        range::bytes(&self.ranges).0
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), StoreError> {
        for (at, from, len) in self.places(offset, super::wide(into.len())) {
            if let Some(part) = into.get_mut(narrow(from)..narrow(from + len)) {
                self.whole.read(at, part)?;
            }
        }
        Ok(())
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), StoreError> {
        self.write_by(offset, bytes, RawHome::write)
    }

    fn write_in_bulk(&self, offset: u64, bytes: &[u8]) -> Result<(), StoreError> {
        self.write_by(offset, bytes, RawHome::write_in_bulk)
    }

    fn zero(&self, offset: u64, len: u64, punch: bool) -> Result<(), StoreError> {
        self.places(offset, len).into_iter().try_for_each(|(at, _, len)| self.whole.zero(at, len, punch))
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.whole.sync()
    }

    fn allocated(&self, offset: u64, len: u64) -> Result<Vec<(u64, bool)>, StoreError> {
        let mut runs = Vec::new();
        for (at, _, len) in self.places(offset, len) {
            runs.extend(self.whole.allocated(at, len)?);
        }
        Ok(runs)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn what_is_written_over_the_end_of_a_range_goes_on_in_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let whole = Arc::new(RawHome::open(&folder.path().join("volume"), Some(1000)).unwrap());
        let ranges = vec![ByteRange { start: 100, end: 160 }, ByteRange { start: 400, end: 440 }];
        let part = PartHome::new(Arc::clone(&whole), ranges);
        assert_eq!(part.bytes(), 100);
        part.write(50, &[7; 20]).unwrap();
        let mut bytes = vec![0; 1000];
        whole.read(0, &mut bytes).unwrap();
        let written: Vec<usize> = (0..1000).filter(|at| bytes[*at] == 7).collect();
        assert_eq!(written, (150..160).chain(400..410).collect::<Vec<_>>());
        let mut back = [0; 20];
        part.read(50, &mut back).unwrap();
        assert_eq!(back, [7; 20]);
        part.zero(55, 10, false).unwrap();
        part.read(50, &mut back).unwrap();
        assert_eq!(back.iter().filter(|byte| **byte == 7).count(), 10);
        let runs = part.allocated(0, 100).unwrap();
        assert_eq!(runs.iter().map(|(len, _)| len).sum::<u64>(), 100);
        assert!(part.write(95, &[1; 10]).is_err(), "a write beyond the ranges went somewhere");
        whole.read(0, &mut bytes).unwrap();
        assert_eq!(bytes[440..450], [0; 10]);
    }
}
