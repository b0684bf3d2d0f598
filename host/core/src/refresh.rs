//! Which blocks of a copy still need keys that are to go: what the writing site asks its keeper, a page at a time, to send just those again
//!
//! ```text
//! question = its number (u64), from this block on (u64), the last epoch that is to go (u64)
//! answer   = everything up to here is in the index (u64), where to go on (u64), runs (u32), then for each
//!            its first block (u64), blocks (u64)
//! ```
//!
//! A block whose epoch the keeper does not know counts as one that is to be sent again: nobody could say that it may go.

use crate::bytes::Fields;
use crate::drill::LIVE_SCAN_BLOCKS;
use crate::ledger::Ledger;
use crate::units::{BlockCount, Epoch, Lba, Sequence};

/// Runs in one answer: 16 KiB. A page ends where there would be more.
pub const OLD_RUNS_MAX: usize = 1024;

/// Which blocks need an epoch up to this one, from this block on?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AskOld {
    /// Comes back with the answer.
    pub id: u64,
    pub from: Lba,
    /// The last epoch that is to go.
    pub through: Epoch,
}

/// A page of such blocks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Old {
    /// The index holds everything up to here; none while it is no state of the volume, and then nothing was looked at.
    pub through: Sequence,
    /// Where the next page begins; the volume's end after the last.
    pub next: Lba,
    /// In order, and none touches the next.
    pub runs: Vec<(Lba, BlockCount)>,
}

/// Takes a page's places in, in order.
#[derive(Debug)]
pub struct Page {
    at: Lba,
    last: Epoch,
    runs: Vec<(Lba, BlockCount)>,
}

impl AskOld {
    pub(crate) fn encode(&self) -> Vec<u8> {
        [self.id, self.from.0, self.through.0].iter().flat_map(|number| number.to_le_bytes()).collect()
    }

    pub(crate) fn decode(fields: &mut Fields<'_>) -> Self {
        Self { id: fields.u64(), from: Lba(fields.u64()), through: Epoch(fields.u64()) }
    }

    /// How many blocks the page that answers this looks at.
    pub fn blocks(&self, volume: BlockCount) -> BlockCount {
        BlockCount(volume.0.saturating_sub(self.from.0).min(LIVE_SCAN_BLOCKS))
    }
}

impl Page {
    pub fn new(ask: &AskOld) -> Self {
        Self { at: ask.from, last: ask.through, runs: Vec::new() }
    }

    /// The next `blocks`, and the record that holds them; none if no record does. `false`: there is no room, the page ends before
    /// them.
    pub fn take(&mut self, blocks: BlockCount, record: Option<Sequence>, ledger: &Ledger) -> bool {
        let old = record.is_some_and(|record| ledger.epoch_at(record) <= self.last);
        let full = self.runs.len() == OLD_RUNS_MAX;
        match self.runs.last_mut() {
            _ if !old => {}
            Some((first, count)) if first.0 + count.0 == self.at.0 => count.0 += blocks.0,
            Some(_) if full => return false,
            Some(_) | None => self.runs.push((self.at, blocks)),
        }
        self.at.0 = self.at.0.saturating_add(blocks.0);
        true
    }

    /// `indexed`: everything up to here is in the index.
    pub fn end(self, ask: &AskOld, indexed: Sequence) -> Old {
        // Beyond the volume nothing is looked at, and the page goes on all the same.
        let next = self.at.max(Lba(ask.from.0.saturating_add(1)));
        Old { through: indexed, next, runs: self.runs }
    }
}

impl Old {
    /// The index is no state of the volume now.
    pub fn not_now(ask: &AskOld) -> Self {
        Self { through: Sequence::NONE, next: ask.from, runs: Vec::new() }
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = [self.through.0.to_le_bytes(), self.next.0.to_le_bytes()].concat();
        out.extend(u32::try_from(self.runs.len()).unwrap_or(u32::MAX).to_le_bytes());
        for (first, blocks) in &self.runs {
            [first.0, blocks.0].iter().for_each(|number| out.extend(number.to_le_bytes()));
        }
        out
    }

    /// Reads an answer to this question about a volume of so many blocks; `None` if it is none.
    pub fn decode(bytes: &[u8], ask: &AskOld, volume: BlockCount) -> Option<Self> {
        let mut fields = Fields::new(bytes);
        let (through, next, count) = (Sequence(fields.u64()), Lba(fields.u64()), fields.u32());
        let count = usize::try_from(count).ok().filter(|count| *count <= OLD_RUNS_MAX)?;
        let runs: Vec<_> = (0..count).map(|_| (Lba(fields.u64()), BlockCount(fields.u64()))).collect();
        let mut at = ask.from.0;
        for (first, blocks) in &runs {
            let end = first.0.checked_add(blocks.0).filter(|end| *end <= volume.0 && blocks.0 > 0 && first.0 >= at)?;
            at = end;
        }
        // A page that goes nowhere would be asked for again and again.
        let goes_on = next > ask.from && at <= next.0 || through == Sequence::NONE && runs.is_empty();
        (fields.done() && goes_on).then_some(Self { through, next, runs })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ledger::Entry;
    use crate::units::Generation;

    const VOLUME: BlockCount = BlockCount(1000);

    fn ask(from: u64, through: u64) -> AskOld {
        AskOld { id: 7, from: Lba(from), through: Epoch(through) }
    }

    /// Epoch 1 from record 2 on, 2 from 20 on, 3 from 40 on.
    fn ledger() -> Ledger {
        let mut ledger = Ledger::default();
        for (epoch, start) in [(1, 2), (2, 20), (3, 40)] {
            let (key, start) = (Sequence(start - 1), Sequence(start));
            ledger.arm(Entry { epoch: Epoch(epoch), generation: Generation(1), key, start }).unwrap();
        }
        ledger
    }

    #[test]
    fn a_page_names_the_blocks_of_epochs_that_are_to_go_and_those_of_no_known_epoch() {
        let (ledger, ask) = (ledger(), ask(10, 2));
        let mut page = Page::new(&ask);
        for (blocks, record) in
            [(4, Some(25)), (2, Some(5)), (3, None), (1, Some(45)), (5, Some(39)), (7, Some(40)), (1, Some(1))]
        {
            assert!(page.take(BlockCount(blocks), record.map(Sequence), &ledger));
        }
        let old = page.end(&ask, Sequence(50));
        let runs = [(10, 6), (20, 5), (32, 1)].map(|(first, blocks)| (Lba(first), BlockCount(blocks)));
        assert_eq!(old, Old { through: Sequence(50), next: Lba(33), runs: runs.into() });
        assert_eq!(Old::decode(&old.encode(), &ask, VOLUME), Some(old));
    }

    #[test]
    fn a_page_ends_before_the_run_for_which_there_is_no_room() {
        let (ledger, ask) = (ledger(), ask(0, 1));
        let mut page = Page::new(&ask);
        let taken = (0..5_000).take_while(|at| page.take(BlockCount(1), (at % 2 == 0).then_some(Sequence(5)), &ledger));
        assert_eq!(taken.count(), 2 * OLD_RUNS_MAX);
        let old = page.end(&ask, Sequence(50));
        assert_eq!((old.next, old.runs.len()), (Lba(2048), OLD_RUNS_MAX));
    }

    #[test]
    fn an_answer_that_does_not_fit_its_question_is_none() {
        let ask = ask(10, 2);
        let old = |next, runs: &[(u64, u64)]| Old {
            through: Sequence(50),
            next: Lba(next),
            runs: runs.iter().map(|(first, blocks)| (Lba(*first), BlockCount(*blocks))).collect(),
        };
        for (name, old, fits) in [
            ("good", old(20, &[(10, 2), (13, 7)]), true),
            ("nothing", old(1000, &[]), true),
            ("goes nowhere", old(10, &[]), false),
            ("begins before the question", old(20, &[(9, 2)]), false),
            ("an empty run", old(20, &[(12, 0)]), false),
            ("runs over each other", old(20, &[(10, 5), (14, 1)]), false),
            ("runs beyond what was looked at", old(20, &[(19, 2)]), false),
            ("beyond the volume", old(2000, &[(999, 2)]), false),
            ("too long to be added up", old(20, &[(12, u64::MAX)]), false),
            ("not now", Old::not_now(&ask), true),
        ] {
            assert_eq!(Old::decode(&old.encode(), &ask, VOLUME).is_some(), fits, "{name}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = Old::decode(&bytes, &ask(0, 1), VOLUME);
        }
    }
}
