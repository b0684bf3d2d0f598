//! Runs of chunks that read as zeroes as a whole: one entry a run, however long.

use std::collections::BTreeMap;

use super::index::Slot;
use super::log::Location;

/// Disjoint runs of chunks, by first chunk: one past the last, and the record that zeroed them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Zeroes {
    runs: BTreeMap<u64, (u64, Slot)>,
}

impl Zeroes {
    pub(super) fn get(&self, chunk: u64) -> Option<Slot> {
        self.runs.range(..=chunk).next_back().filter(|(_, (end, _))| chunk < *end).map(|(_, (_, slot))| *slot)
    }

    /// Zeroes the chunks from `first` up to `end`, but for those that a newer record has zeroed.
    pub(super) fn overlay(&mut self, first: u64, end: u64, slot: Slot) {
        if first >= end {
            return;
        }
        let before = self.runs.range(..first).next_back().filter(|(_, (until, _))| *until > first).map(|(at, _)| *at);
        let touched: Vec<u64> = before.into_iter().chain(self.runs.range(first..end).map(|(at, _)| *at)).collect();
        let mut at = first;
        for run in touched {
            let Some((until, old)) = self.runs.remove(&run) else {
                continue;
            };
            if run < first {
                self.put(run, first, old);
            }
            let (from, to) = (run.max(first), until.min(end));
            self.put(at, from, slot);
            self.put(from, to, if old.sequence() > slot.sequence() { old } else { slot });
            self.put(end, until, old);
            at = to;
        }
        self.put(at, end, slot);
    }

    /// The records that zeroed some of the chunks from `first` up to `end`.
    pub(super) fn within(&self, first: u64, end: u64) -> impl Iterator<Item = Slot> {
        let before = self.runs.range(..first).next_back().filter(|(_, (until, _))| *until > first);
        before.into_iter().chain(self.runs.range(first..end.max(first))).map(|(_, (_, slot))| *slot)
    }

    /// Gives the runs between `first` and `end` that `is` knows another location.
    pub(super) fn moved(&mut self, first: u64, end: u64, to: Location, is: impl Fn(&Slot) -> bool) {
        let before = self.runs.range(..first).next_back().filter(|(_, (until, _))| *until > first).map(|(at, _)| *at);
        for (_, (_, slot)) in self.runs.range_mut(before.unwrap_or(first)..end.max(first)) {
            if is(slot) {
                slot.location = to.pack();
            }
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, u64, Slot)> {
        self.runs.iter().map(|(first, (end, slot))| (*first, *end, *slot))
    }

    /// Adds a run where there is none, joined to an equal one before it.
    fn put(&mut self, first: u64, end: u64, slot: Slot) {
        if first >= end {
            return;
        }
        match self.runs.range_mut(..first).next_back() {
            Some((_, (until, before))) if *until == first && *before == slot => *until = end,
            _ => {
                self.runs.insert(first, (end, slot));
            }
        }
    }
}
