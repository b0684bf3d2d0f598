//! A pair that need not keep the order of writes (R13): places are remembered, and each is sent once for many writes.
//!
//! With the first write after everything was acknowledged the order is given up, as it is when a journal overflows: the
//! dirty map remembers where was written. After a while the map is worked off as a resync, with a gap before it and a
//! cut behind it; then the pair is in order again, and at rest, until the next write.
//!
//! What is promised: the secondary offers the volume as it stood at a cut, a moment at which nothing was owed, and keeps
//! offering that until the next cut is whole; every block that reaches it is one that an initiator wrote, in no case one
//! that was written over before a block that it holds already. What is not: a point between two cuts, and that the
//! secondary is never further behind than a link's delay. So neither a synchronous mode nor a group's cuts go with it.
//!
//! A pause waits for the next cut: it is what both sites hold then.

use super::*;

impl Primary {
    /// An initiator writes: where no order is kept, it is remembered rather than sent. Before it is accepted.
    pub(super) fn give_up_order(&mut self) {
        let Some(every) = self.settings.unordered else { return };
        if self.settings.paired
            && self.copying.state() == CopyState::InOrder
            && self.pause.is_none()
            && self.swap.is_none()
            && self.fenced.is_none()
        {
            self.copying.wait_until(self.told.plus(every));
            self.start_over();
        }
    }

    /// A pause need not wait for the interval's end.
    pub(super) fn catch_up_at_once(&mut self, now: Now) {
        if self.settings.unordered.is_some() {
            self.copying.wait_until(now.instant);
        }
    }

    /// The operator's pause holds copying: where no order is kept, from the cut on.
    pub(super) fn pauses(&self) -> bool {
        self.pause.is_some_and(|pause| pause.cut.is_some()) || (self.pause.is_some() && self.may_pause())
    }

    /// A pause may get its place now.
    pub(super) fn may_pause(&self) -> bool {
        self.settings.unordered.is_none() || self.copying.state() == CopyState::InOrder
    }
}
