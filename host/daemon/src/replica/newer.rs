//! Tells whoever opens the copy as it arrives what became newer: by pages of the index, the first as soon as there is anything.

use std::sync::Arc;

use farseal_core::ledger::Ledger;
use farseal_core::units::{Extent, Lba, Sequence};

use super::Runner;
use crate::store::index::Place;

/// Runs of a page: what is opened before the index is asked again, 2 048 blocks written one by one.
const PAGE_RUNS: usize = 2_048;

/// A question. It is dropped unanswered when the copy's thread ends.
pub struct Newer {
    /// Blocks of records up to this one are known.
    pub after: Sequence,
    pub from: Lba,
    pub done: Box<dyn FnOnce(Option<Page>) + Send>,
}

impl std::fmt::Debug for Newer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Newer").field("after", &self.after).field("from", &self.from).finish_non_exhaustive()
    }
}

/// What is newer; none comes any more once this site has taken over.
#[derive(Debug)]
pub struct Page {
    /// The index is a state of the volume up to this record, at least.
    pub through: Sequence,
    /// In which epoch each record was sealed.
    pub ledger: Arc<Ledger>,
    pub runs: Vec<(Extent, Place)>,
    /// Where the next page begins.
    pub next: Option<Lba>,
}

impl Runner {
    pub(super) fn newer_asked(&mut self, asked: Newer) {
        self.waits = Some(asked);
        self.newer_on();
    }

    /// Answers a question that waits, if there is something to say.
    pub(super) fn newer_on(&mut self) {
        let Some(asked) = self.waits.take() else { return };
        let Some(index) = self.index.as_ref().filter(|_| self.control.taken_over_at.is_none()) else {
            return (asked.done)(None);
        };
        let through = self.backlog.indexed();
        // While places are read that are not remembered, the index is no state of the volume.
        if self.backlog.is_reading() || (asked.from == Lba(0) && through <= asked.after) {
            self.waits = Some(asked);
            return;
        }
        let (runs, next) = index.newer(asked.after, asked.from, PAGE_RUNS);
        let ledger = Arc::new(self.secondary.ledger().clone());
        (asked.done)(Some(Page { through, ledger, runs, next }));
    }
}
