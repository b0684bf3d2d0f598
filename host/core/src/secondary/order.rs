//! The order's turn: where the copy is whole, keys enter the ledger, voids take them back, gaps open, and what is offered grows.

use super::{Alarm, LedgerErrorKind, Output, Secondary};
use crate::frame::KeyRefusal;
use crate::ledger::Entry as LedgerEntry;
use crate::record::{Header, Kind};
use crate::units::{Epoch, Now, Sequence};

impl Secondary {
    /// Moves the contiguous mark; stops at a key that is being checked.
    pub(super) fn advance(&mut self, now: Now) {
        loop {
            let mut next = self.durable.contiguous().next();
            if let Some(gap) = self.gaps.remove(&next) {
                next = gap.header.sequence;
                self.durable.skip_to(next.previous());
                self.durable.restore(next, gap);
                self.keys.retain(|key, _| *key > next);
            }
            let Some(record) = self.durable.peek(next).copied() else {
                break;
            };
            // Over a base of another history nothing counts before a gap: no cut but the one behind it makes them one.
            if record.header.kind != Kind::Gap && self.base_differs() && self.differs_after == Some(next.previous()) {
                break;
            }
            if record.header.kind == Kind::Key && !self.settle_key(now, &record.header) {
                break;
            }
            if record.header.kind == Kind::Cover && !self.settle_cover(next) {
                break;
            }
            self.durable.advance();
            if record.header.kind == Kind::Gap && self.gap_open_after.is_none() {
                self.gap_chain = self.chain;
            }
            self.chain = self.chain.after(record.digest);
            self.durable_wall = Some(record.header.wall);
            self.ack_due = true;
            match record.header.kind {
                Kind::Void => {
                    let known = self.ledger.void(Epoch(record.header.aux), next);
                    if !std::mem::take(&mut self.void_expected) && !known {
                        self.alarm(now, Alarm::Ledger { key: next, error: LedgerErrorKind::UnknownVoid });
                    }
                }
                Kind::Gap => {
                    let before = Sequence(record.header.aux).previous();
                    self.gap_open_after.get_or_insert(before);
                }
                Kind::Cut => self.pass_cut(&record),
                Kind::Data | Kind::Zero | Kind::Trim | Kind::Key | Kind::Cover => {}
            }
        }
        let consistent = self.gap_open_after.unwrap_or(self.durable.contiguous());
        let offered = consistent.min(self.limited_to()).max(self.offered);
        if offered > self.offered && !self.fixed && !self.other_bit {
            self.offered = offered;
            self.outputs.push_back(Output::Offer { through: offered });
        }
    }

    /// The key's turn in the order has come. Says whether the order may go on past it.
    ///
    /// A refused key stops the order: what follows may be sealed by it. The order goes on past the void that answers
    /// the refusal, if that comes before any other key, or by a gap.
    fn settle_key(&mut self, now: Now, header: &Header) -> bool {
        let key = header.sequence;
        let why = match self.keys.get(&key).copied().flatten() {
            None => return false,
            Some(Err(why)) => why,
            Some(Ok(facts)) => {
                let entry = LedgerEntry { epoch: facts.epoch, generation: header.generation, key, start: facts.start };
                match self.ledger.arm(entry) {
                    Ok(()) => {
                        self.keys.remove(&key);
                        return true;
                    }
                    Err(error) => {
                        self.alarm(now, Alarm::Ledger { key, error: LedgerErrorKind::from(error) });
                        self.keys.insert(key, Some(Err(KeyRefusal::Misplaced)));
                        KeyRefusal::Misplaced
                    }
                }
            }
        };
        if self.refused_told != Some(key) {
            self.refused_told = Some(key);
            self.alarm(now, Alarm::KeyRefused { key, why });
            if let Some(path) = self.answering_path() {
                self.outputs.push_back(Output::KeyRefused { path, key, why });
            }
        }
        let voided = self.is_voided(key);
        if voided {
            self.keys.remove(&key);
            self.void_expected = true;
        }
        voided
    }

    /// The cover's turn in the order has come: it was checked as a key is, and whatever came of that says nothing.
    fn settle_cover(&mut self, cover: Sequence) -> bool {
        let checked = self.keys.get(&cover).is_none_or(Option::is_some);
        if checked {
            self.keys.remove(&cover);
        }
        checked
    }

    /// Does a void stand behind this key, with no hole and no other key between?
    fn is_voided(&self, key: Sequence) -> bool {
        let mut at = key.next();
        while let Some(record) = self.durable.peek(at) {
            match record.header.kind {
                Kind::Void => return true,
                Kind::Key | Kind::Gap => return false,
                Kind::Data | Kind::Zero | Kind::Trim | Kind::Cover | Kind::Cut => at = at.next(),
            }
        }
        false
    }

    /// The key that stops the order, if it was refused.
    pub(super) fn key_refused(&self) -> Option<(Sequence, KeyRefusal)> {
        let key = self.durable.contiguous().next();
        let why = self.keys.get(&key).copied().flatten()?.err()?;
        let record = self.durable.peek(key)?;
        (record.header.kind == Kind::Key).then_some((key, why))
    }
}
