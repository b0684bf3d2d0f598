//! Keys that are drawn and deposited at the escrow site before anybody asks for them, so that when they are deposited says
//! nothing of when they are used; and the receipts that let them be used.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use farseal_core::chain::Chain;
use farseal_core::units::{Epoch, Generation, Incarnation, PairId, Sequence};
use farseal_plugin::Digest;
use farseal_plugin::vault::epoch_key::EpochKey;
use farseal_plugin::vault::schedule::KeyScope;

use super::Event;
use crate::escrow::client::EscrowLine;
use crate::escrow::mark::Mark;
use crate::escrow::wire::DepositRefusal;
use crate::keys::capsule::CapsuleError;
use crate::keys::deposit::{Deposit, DepositTerms, Receipt};
use crate::keys::fingerprint::Fingerprint;
use crate::keys::identity::Identity;
use crate::plugins::PairPlugins;

/// Keys that are deposited ahead: at a rotation a second and a beat a second, none is waited for; after a restart they are
/// worth nothing.
const AHEAD: u64 = 6;

/// What a lane's deposits are made of.
#[derive(Clone, Debug)]
pub struct Terms {
    pub line: Arc<EscrowLine>,
    pub identity: Arc<Identity>,
    pub pair: PairId,
    pub generation: Generation,
    pub incarnation: Incarnation,
    /// Who keeps the copy, and may ask for its keys.
    pub holder: Fingerprint,
}

/// A lane's deposits.
#[derive(Clone)]
pub struct Deposits {
    terms: Terms,
    pool: Arc<Mutex<Pool>>,
}

#[derive(Default)]
struct Pool {
    /// The last epoch whose key was asked for.
    asked: Option<Epoch>,
    /// Drawn and not asked for.
    keys: BTreeMap<Epoch, EpochKey>,
    /// By its hash: an epoch's last deposit. The escrow's word on any other is for a key that was forgotten.
    last: BTreeMap<Epoch, [u8; 32]>,
    receipts: BTreeMap<Epoch, Receipt>,
    /// How often what was drawn ahead was forgotten.
    forgotten: u64,
    /// Components that the line was given: none is read again for each key.
    given: BTreeSet<Digest>,
}

impl std::fmt::Debug for Deposits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Deposits").field("terms", &self.terms).finish_non_exhaustive()
    }
}

impl Deposits {
    #[must_use]
    pub fn new(terms: Terms) -> Self {
        Self { terms, pool: Arc::default() }
    }

    /// How far the copy is durable: the escrow judges by it whether a copy that asks for keys is the newest.
    pub fn mark(&self, through: Sequence, chain: Chain) {
        let Terms { line, pair, generation, .. } = &self.terms;
        line.mark(*pair, Mark { generation: *generation, through, chain });
    }

    /// The key of an epoch with the escrow's word on it, if both are here: then nothing need be done at this moment.
    pub fn take_ready(&self, epoch: Epoch) -> Option<(EpochKey, Receipt)> {
        let receipt = self.receipt(epoch)?;
        Some((self.take(epoch)?, receipt))
    }

    /// The key of an epoch, if it was drawn ahead.
    pub fn take(&self, epoch: Epoch) -> Option<EpochKey> {
        let mut pool = self.pool();
        pool.asked = Some(epoch);
        // Epochs that were given up are not asked for again.
        pool.keys = pool.keys.split_off(&epoch);
        pool.last = pool.last.split_off(&epoch);
        pool.receipts = pool.receipts.split_off(&epoch);
        pool.keys.remove(&epoch)
    }

    /// Whoever knows a key may know those that were drawn ahead: they are never used. The escrow keeps what it was given.
    pub fn forget_ahead(&self) {
        let mut pool = self.pool();
        pool.forgotten += 1;
        for epoch in std::mem::take(&mut pool.keys).into_keys() {
            pool.last.remove(&epoch);
            pool.receipts.remove(&epoch);
        }
    }

    /// Deposits a key that is asked for now; the lane hears of the receipt.
    pub fn deposit(&self, epoch: Epoch, key: &EpochKey, inbox: &Sender<Event>) {
        match self.sealed(epoch, key) {
            Some(deposit) => {
                self.pool().last.insert(epoch, deposit.hash());
                self.send(epoch, deposit, inbox);
            }
            None => _ = inbox.send(Event::EpochFailed { epoch }),
        }
    }

    /// Deposits a key that was drawn ahead, unless it is too late for that: its epoch was asked for, or what was drawn ahead was
    /// forgotten since.
    fn deposit_ahead(&self, epoch: Epoch, key: EpochKey, forgotten: u64, inbox: &Sender<Event>) {
        let Some(deposit) = self.sealed(epoch, &key) else { return };
        if self.pool().put_ahead(epoch, key, deposit.hash(), forgotten) {
            self.send(epoch, deposit, inbox);
        }
    }

    fn send(&self, epoch: Epoch, deposit: Deposit, inbox: &Sender<Event>) {
        let (deposits, inbox, hash) = (self.clone(), inbox.clone(), deposit.hash());
        let answered = move |outcome| deposits.answered(epoch, hash, outcome, &inbox);
        self.terms.line.deposit(deposit, Box::new(answered));
    }

    /// What opens the epochs that are made now goes to the escrow, too, and is kept there by its digest.
    pub fn keep(&self, plugins: &PairPlugins) {
        for digest in plugins.for_the_other_site().into_iter().flatten() {
            if self.pool().given.contains(&digest) {
                continue;
            }
            match plugins.components.load(digest) {
                Ok(bytes) => {
                    self.terms.line.keep(digest, bytes);
                    self.pool().given.insert(digest);
                }
                Err(error) => tracing::error!(%error, "a component cannot be sent to the escrow"),
            }
        }
    }

    /// The receipt of an epoch, if it has come already.
    pub fn receipt(&self, epoch: Epoch) -> Option<Receipt> {
        self.pool().receipts.get(&epoch).copied()
    }

    /// As [`Self::draw_ahead`] at a moment that has to do with no key: where no key lacks, one is drawn and wrapped all the
    /// same and thrown away, so that what this takes says nothing of how many were used.
    pub fn refill(&self, draw: impl Fn(Epoch) -> Option<EpochKey>, inbox: &Sender<Event>) {
        let asked = self.pool().asked;
        if let Some(asked) = asked {
            self.fill(asked, draw, inbox, true);
        }
    }

    /// Draws the keys after this epoch's and deposits them.
    pub fn draw_ahead(&self, epoch: Epoch, draw: impl Fn(Epoch) -> Option<EpochKey>, inbox: &Sender<Event>) {
        self.fill(epoch, draw, inbox, false);
    }

    /// With `shams`, the work of a deposit is done for each key that is there already, too.
    fn fill(&self, after: Epoch, draw: impl Fn(Epoch) -> Option<EpochKey>, inbox: &Sender<Event>, shams: bool) {
        for next in (1..=AHEAD).map(|ahead| Epoch(after.0 + ahead)) {
            let (is_there, forgotten) = {
                let pool = self.pool();
                (pool.keys.contains_key(&next), pool.forgotten)
            };
            if is_there && !shams {
                continue;
            }
            let Some(key) = draw(next) else { return };
            if is_there {
                drop(self.sealed(next, &key));
            } else {
                self.deposit_ahead(next, key, forgotten, inbox);
            }
        }
    }

    /// `None`: it cannot be wrapped, and the log says why.
    fn sealed(&self, epoch: Epoch, key: &EpochKey) -> Option<Deposit> {
        let terms = &self.terms;
        let scope = KeyScope {
            pair: terms.pair.0,
            generation: terms.generation.0,
            epoch: epoch.0,
            incarnation: terms.incarnation.0,
        };
        let said = DepositTerms { scope, created_ms: crate::clock::wall_time().0, holder: terms.holder };
        let sealed = Deposit::seal(said, key, &terms.identity, &terms.line.card);
        let told = |error: &CapsuleError| {
            tracing::error!(%error, escrow = terms.line.name, "a key cannot be wrapped for the escrow");
        };
        sealed.inspect_err(told).ok()
    }

    fn answered(&self, epoch: Epoch, hash: [u8; 32], outcome: Result<Receipt, DepositRefusal>, inbox: &Sender<Event>) {
        let mut pool = self.pool();
        if pool.last.get(&epoch) != Some(&hash) {
            return;
        }
        let event = match outcome {
            Ok(receipt) => {
                pool.receipts.insert(epoch, receipt);
                Event::EpochEscrowed { epoch, receipt }
            }
            Err(why) => {
                tracing::error!(
                    epoch = epoch.0,
                    escrow = self.terms.line.name,
                    "the escrow does not take a key: {why}"
                );
                // Drawn and deposited anew when it is asked for.
                if pool.keys.remove(&epoch).is_some() {
                    return;
                }
                Event::EpochFailed { epoch }
            }
        };
        // One that waits here is not asked for yet.
        if !pool.keys.contains_key(&epoch) {
            let _ = inbox.send(event);
        }
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pool {
    /// Puts a key there that was drawn when what was drawn ahead had been forgotten so often. Says whether it is there now.
    fn put_ahead(&mut self, epoch: Epoch, key: EpochKey, deposit: [u8; 32], forgotten: u64) -> bool {
        let is_late = self.forgotten != forgotten || self.asked >= Some(epoch) || self.keys.contains_key(&epoch);
        if !is_late {
            self.keys.insert(epoch, key);
            self.last.insert(epoch, deposit);
        }
        !is_late
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn key() -> EpochKey {
        EpochKey::generate(b"test").unwrap()
    }

    #[test]
    fn a_key_that_was_being_drawn_when_those_drawn_ahead_were_forgotten_is_not_used() {
        let mut pool = Pool::default();
        let drawn_in = pool.forgotten;
        pool.forgotten += 1;
        assert!(!pool.put_ahead(Epoch(7), key(), [7; 32], drawn_in));
        assert!(pool.keys.is_empty() && pool.last.is_empty());
        assert!(pool.put_ahead(Epoch(7), key(), [8; 32], drawn_in + 1));
    }

    #[test]
    fn a_key_that_comes_after_its_epoch_was_asked_for_leaves_the_deposit_that_is_waited_for() {
        let mut pool = Pool { asked: Some(Epoch(7)), ..Pool::default() };
        pool.last.insert(Epoch(7), [1; 32]);
        assert!(!pool.put_ahead(Epoch(7), key(), [7; 32], 0) && !pool.put_ahead(Epoch(6), key(), [6; 32], 0));
        assert_eq!(pool.last[&Epoch(7)], [1; 32]);
        assert!(pool.put_ahead(Epoch(8), key(), [8; 32], 0));
        assert!(!pool.put_ahead(Epoch(8), key(), [9; 32], 0), "the first stays");
        assert_eq!(pool.last[&Epoch(8)], [8; 32]);
    }
}
