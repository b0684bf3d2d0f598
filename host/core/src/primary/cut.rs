//! A group's cuts in this lane: where each begins in the order, which answers wait for the other lanes, and the records
//! that tell the secondary of it.

use super::*;
use crate::group::{Hold, LaneStanding};
use crate::limits::CUT_HOLD_MAX;

/// What this lane knows of its group's cuts.
#[derive(Debug, Default)]
pub(super) struct GroupCuts {
    hold: Option<Held>,
    /// Records that are due, each behind every write up to an order.
    due: VecDeque<(Order, CutMark)>,
    /// Boundaries and confirmations that have their place and are not acknowledged.
    placed: VecDeque<(Sequence, CutMark)>,
    newest: CutNumber,
    copied: CutCopied,
}

/// Answers that are withheld.
#[derive(Debug)]
struct Held {
    hold: Hold,
    /// Writes above this are not answered.
    after: Order,
    /// The lane goes on by itself then.
    until: Instant,
}

impl GroupCuts {
    pub(super) fn new(newest: CutNumber) -> Self {
        Self { newest, ..Self::default() }
    }

    pub(super) fn held(&self) -> Option<CutNumber> {
        self.hold.as_ref().map(|held| held.hold.cut())
    }

    pub(super) fn newest(&self) -> CutNumber {
        self.newest
    }

    pub(super) fn copied(&self) -> CutCopied {
        self.copied
    }

    /// A write was accepted. Says whether its answer is withheld.
    pub(super) fn withhold(&mut self, extent: Extent) -> bool {
        if let Some(held) = &mut self.hold {
            held.hold.add(extent);
        }
        self.hold.is_some()
    }

    /// Is the answer to what covers everything up to here withheld?
    pub(super) fn withholds(&self, order: Order) -> bool {
        self.hold.as_ref().is_some_and(|held| order > held.after)
    }

    pub(super) fn overlaps(&self, extent: Extent) -> bool {
        self.hold.as_ref().is_some_and(|held| held.hold.overlaps(extent))
    }

    /// The coordinator is not heard of: initiators wait no longer.
    pub(super) fn go_on(&mut self, now: Now) {
        self.hold.take_if(|held| now.instant >= held.until);
    }

    pub(super) fn timeout(&self) -> Option<Instant> {
        self.hold.as_ref().map(|held| held.until)
    }

    /// A gap has its place: it gives up what was not acknowledged, and an acknowledgement of it says nothing of these.
    pub(super) fn given_up(&mut self) {
        self.placed.clear();
    }

    /// The secondary holds everything up to here.
    pub(super) fn acknowledged(&mut self, acked: Sequence) {
        while let Some((_, mark)) = self.placed.pop_front_if(|(sequence, _)| *sequence <= acked) {
            match mark {
                CutMark::Boundary { cut, .. } => self.copied.boundary = self.copied.boundary.max(cut),
                CutMark::Confirmed { cut, .. } => self.copied.confirmed = self.copied.confirmed.max(cut),
                CutMark::Own(_) | CutMark::Name(_) => {}
            }
        }
    }
}

impl Primary {
    /// Answers to what is accepted now are withheld.
    pub fn holds(&self) -> bool {
        self.group.hold.is_some()
    }

    /// What a group's coordinator must know of this lane; whether something was written is not known here.
    pub fn standing(&self) -> LaneStanding {
        let copies = self.fenced.is_none() && self.transfer.diverged().is_none();
        LaneStanding {
            in_order: copies && self.copying.state() == CopyState::InOrder,
            written: false,
            pause: self.pause_state(),
            swap: self.swap.as_ref().map(swap::Stage::state),
            fenced: self.fenced,
            newest: self.group.newest,
            copied: self.group.copied,
        }
    }

    /// A cut that is open still is over: its coordinator has gone on to the next.
    pub(super) fn on_open_cut(&mut self, now: Now, cut: CutNumber, lanes: u16) {
        if cut <= self.group.newest {
            return;
        }
        self.group.newest = cut;
        let until = now.instant.plus(CUT_HOLD_MAX);
        let held = Held { hold: Hold::new(cut), after: self.accepted, until };
        // A lane that is alone in its group has nobody to wait for.
        self.group.hold = Some(held).filter(|_| lanes > 1);
        self.mark_cut(CutMark::Boundary { cut, lanes });
    }

    /// A write that was only withheld is answered, also behind others that wait for more.
    pub(super) fn on_release_cut(&mut self, cut: CutNumber) {
        if self.group.held() != Some(cut) {
            return;
        }
        self.group.hold = None;
        if self.mode == Mode::Sync || self.journal_failed || self.fenced.is_some() {
            return;
        }
        let (answered, waiting) = std::mem::take(&mut self.waiting).into_iter().partition(|waiting| !waiting.durable);
        self.waiting = waiting;
        let answered: VecDeque<Waiting> = answered;
        let reply = |waiting: Waiting| Output::Reply { ticket: waiting.ticket, result: Ok(()) };
        self.outputs.extend(answered.into_iter().map(reply));
    }

    pub(super) fn on_confirm_cut(&mut self, cut: CutNumber, lanes: u16, name: Option<CutName>) {
        for part in name.iter().flat_map(CutName::parts) {
            self.mark_cut(CutMark::Name(part));
        }
        self.mark_cut(CutMark::Confirmed { cut, lanes });
    }

    /// A secondary that is not followed in order could make nothing of it.
    fn mark_cut(&mut self, mark: CutMark) {
        if self.copying.state() == CopyState::InOrder {
            self.group.due.push_back((self.accepted, mark));
        }
    }

    pub(super) fn cut_mark_due(&self) -> bool {
        self.group.due.front().is_some_and(|(after, _)| self.planned >= *after)
    }

    /// The mark that stands next in the order. One that would stand in an open gap is left out: this lane then holds
    /// no such cut, and the group's stays where it is.
    pub(super) fn take_cut_mark(&mut self) -> Option<CutMark> {
        loop {
            let planned = self.planned;
            let (_, mark) = self.group.due.pop_front_if(|(after, _)| planned >= *after)?;
            if self.copying.state() == CopyState::InOrder {
                self.group.placed.push_back((self.next, mark));
                return Some(mark);
            }
        }
    }

    pub(super) fn plan_cut(&mut self, now: Now, epoch: Epoch, mark: CutMark) -> Planned {
        Planned { aux: mark.encode(), ..self.place(now, Kind::Cut, epoch, Source::Header) }
    }
}
