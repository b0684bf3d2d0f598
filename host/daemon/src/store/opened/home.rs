//! The opened volume as a home: reads open what is closed, writes overtake it.

use std::num::NonZero;

use super::{BlockSource, OpenedHome, SweepResult, regions};
use crate::store::home::Home;
use crate::store::{StoreError, locked, narrow, wide};

impl<S: BlockSource> Home for OpenedHome<S> {
    fn bytes(&self) -> u64 {
        self.image.bytes()
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), StoreError> {
        let (first, end) = self.blocks_of(offset, wide(into.len()))?;
        if self.bits.all(first, end) {
            return self.image.read(offset, into);
        }
        let (len, mut rest) = (wide(into.len()), into);
        let cut = |(first, end)| {
            let (from, to) = self.bytes_of(first, end, offset, len);
            let (into, left) = std::mem::take(&mut rest).split_at_mut(narrow(to - from));
            rest = left;
            Wanted { first, end, from, into }
        };
        self.read_wanted(regions(first, end).map(cut).collect())
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), StoreError> {
        self.overtake(offset, wide(bytes.len()), &|from, to| {
            self.image.write(from, &bytes[narrow(from - offset)..narrow(to - offset)])
        })
    }

    fn zero(&self, offset: u64, len: u64, punch: bool) -> Result<(), StoreError> {
        self.overtake(offset, len, &|from, to| self.image.zero(from, to - from, punch))
    }

    fn sync(&self) -> Result<(), StoreError> {
        let _one = locked(&self.syncing);
        let copies = self.bits.take_dirty();
        let mut done = self.image.sync();
        if done.is_ok() && !copies.is_empty() {
            done = self.bits.write(self.map.as_ref(), &copies);
        }
        if done.is_err() {
            self.bits.put_back(&copies);
        }
        done
    }

    fn allocated(&self, offset: u64, len: u64) -> Result<Vec<(u64, bool)>, StoreError> {
        let mut runs: Vec<(u64, bool)> = Vec::new();
        let mut push = |len: u64, data: bool| match runs.last_mut() {
            Some((last, same)) if *same == data => *last += len,
            _ => runs.push((len, data)),
        };
        let (first, end) = self.blocks_of(offset, len)?;
        for (from, to, opened) in self.bits.runs(first, end) {
            let (from_byte, to_byte) = self.bytes_of(from, to, offset, len);
            if opened {
                for (len, data) in self.image.allocated(from_byte, to_byte - from_byte)? {
                    push(len, data);
                }
                continue;
            }
            let mut at = from_byte;
            for (data_from, data_to) in self.closed_data(from, to) {
                let (data_from, data_to) = self.bytes_of(data_from, data_to, offset, len);
                if data_from > at {
                    self.under(at, data_from - at)?.into_iter().for_each(|(len, data)| push(len, data));
                }
                push(data_to - data_from, true);
                at = data_to;
            }
            if to_byte > at {
                self.under(at, to_byte - at)?.into_iter().for_each(|(len, data)| push(len, data));
            }
        }
        Ok(runs)
    }
}

/// A read of so many regions or more is opened by several threads: below that, starting one costs more than it saves.
const SPREAD_REGIONS_MIN: usize = 4;
/// Threads of one read at most.
const SPREAD_THREADS_MAX: usize = 8;

/// What of a region is read.
struct Wanted<'a> {
    first: u64,
    end: u64,
    from: u64,
    into: &'a mut [u8],
}

impl<S: BlockSource> OpenedHome<S> {
    /// Each thread reads regions that follow each other. The error is the first in the order of the volume.
    fn read_wanted(&self, mut wanted: Vec<Wanted<'_>>) -> Result<(), StoreError> {
        let read = |part: Vec<Wanted<'_>>| part.into_iter().try_for_each(|region| self.read_region(region));
        let threads = self.threads_for(wanted.len());
        if threads < 2 {
            return read(wanted);
        }
        let each = wanted.len().div_ceil(threads);
        std::thread::scope(|scope| {
            let mut others = Vec::new();
            while wanted.len() > each {
                let part = wanted.split_off(wanted.len() - each);
                others.push(scope.spawn(move || read(part)));
            }
            let first = read(wanted);
            let others = others.into_iter().rev();
            let others = others.map(|other| other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            others.fold(first, Result::and)
        })
    }

    fn threads_for(&self, regions: usize) -> usize {
        if regions < SPREAD_REGIONS_MIN || !self.source.may_spread() {
            return 1;
        }
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        cores.min(SPREAD_THREADS_MAX).min(regions / 2)
    }

    fn read_region(&self, Wanted { first, end, from, into }: Wanted<'_>) -> Result<(), StoreError> {
        if self.bits.all(first, end) {
            return self.image.read(from, into);
        }
        self.read_closed(first, end, from, into)
    }

    /// What lies under the copy where it says nothing.
    fn under(&self, offset: u64, len: u64) -> Result<Vec<(u64, bool)>, StoreError> {
        if self.source.is_based() { self.image.allocated(offset, len) } else { Ok(vec![(len, false)]) }
    }

    /// Reads within one region, opening what is closed.
    fn read_closed(&self, first: u64, end: u64, offset: u64, into: &mut [u8]) -> Result<(), StoreError> {
        let _region = self.region(first);
        let len = wide(into.len());
        for (from, to, opened) in self.bits.runs(first, end) {
            let (from_byte, to_byte) = self.bytes_of(from, to, offset, len);
            let piece = &mut into[narrow(from_byte - offset)..narrow(to_byte - offset)];
            if opened {
                self.image.read(from_byte, piece)?;
                continue;
            }
            // What the copy says nothing of is what the base has.
            if self.source.is_based() {
                self.image.read(from_byte, piece)?;
            } else {
                piece.fill(0);
            }
            for (data_from, data_to) in self.closed_data(from, to) {
                let opened = self.open_for_read(data_from, data_to)?;
                let (at, until) = self.bytes_of(data_from, data_to, offset, len);
                let skip = narrow(at - data_from * self.block.as_u64());
                let wanted = narrow(until - at);
                into[narrow(at - offset)..narrow(until - offset)].copy_from_slice(&opened[skip..skip + wanted]);
            }
        }
        Ok(())
    }

    /// Opens blocks and keeps them. Where the image has no room they are answered all the same.
    fn open_for_read(&self, first: u64, end: u64) -> Result<Vec<u8>, StoreError> {
        let mut bytes = vec![0; self.len(end - first)];
        match self.open_into(first, end, &mut bytes) {
            Ok(()) => {
                if let Err(error) = self.keep(first, end, &bytes) {
                    tracing::warn!(%error, first, "an opened block is answered and not kept");
                }
                Ok(bytes)
            }
            // A rule, not a fault: the blocks stay as they are, and count as closed.
            Err(StoreError::Refused) => Err(StoreError::Refused),
            Err(error) => {
                // Keeps what can be opened, and counts what cannot.
                let _ = self.open_run(first, end, &mut bytes, &mut SweepResult::default());
                Err(error)
            }
        }
    }

    /// Changes bytes in the image; the blocks that they lie in are in the image from then on.
    fn overtake(
        &self,
        offset: u64,
        len: u64,
        change: &dyn Fn(u64, u64) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let (first, end) = self.blocks_of(offset, len)?;
        if self.bits.all(first, end) {
            return if len == 0 { Ok(()) } else { change(offset, offset + len) };
        }
        for (first, end) in regions(first, end) {
            let _region = self.region(first);
            let (from, to) = self.bytes_of(first, end, offset, len);
            self.open_edge(first, from, to)?;
            self.open_edge(end - 1, from, to)?;
            change(from, to)?;
            self.mark(first, end);
        }
        Ok(())
    }

    /// A closed block that is changed in part is opened first.
    fn open_edge(&self, lba: u64, from: u64, to: u64) -> Result<(), StoreError> {
        let block = self.block.as_u64();
        if (from <= lba * block && (lba + 1) * block <= to) || self.bits.all(lba, lba + 1) {
            return Ok(());
        }
        let mut bytes = vec![0; self.len(1)];
        if !self.closed_data(lba, lba + 1).is_empty() {
            self.open_into(lba, lba + 1, &mut bytes)?;
        } else if self.source.is_based() {
            self.image.read(lba * block, &mut bytes)?;
        }
        self.keep(lba, lba + 1, &bytes)
    }

    /// The blocks that a range of bytes touches: first, and one past the last.
    fn blocks_of(&self, offset: u64, len: u64) -> Result<(u64, u64), StoreError> {
        let bytes = self.image.bytes();
        let end = offset.checked_add(len).filter(|end| *end <= bytes).ok_or(StoreError::OutOfBounds {
            path: "opened.image".into(),
            offset,
            len,
            bytes,
        })?;
        let block = self.block.as_u64();
        let first = offset / block;
        Ok((first, end.div_ceil(block).max(first)))
    }

    /// The part of a range of bytes that lies in these blocks: from, to.
    fn bytes_of(&self, first: u64, end: u64, offset: u64, len: u64) -> (u64, u64) {
        let block = self.block.as_u64();
        ((first * block).max(offset), (end * block).min(offset + len))
    }
}
