//! Keys that are drawn and deposited at the escrow site before anybody asks for them, so that when they are deposited says
//! nothing of when they are used; and the receipts that let them be used.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use farseal_core::units::{Epoch, Generation, Incarnation, PairId};
use farseal_plugin::Digest;
use farseal_plugin::vault::epoch_key::EpochKey;
use farseal_plugin::vault::schedule::KeyScope;

use super::Event;
use crate::escrow::client::EscrowLine;
use crate::escrow::wire::DepositRefusal;
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
    /// Drawn and not asked for.
    keys: BTreeMap<Epoch, EpochKey>,
    receipts: BTreeMap<Epoch, Receipt>,
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

    /// The key of an epoch, if it was drawn ahead.
    pub fn take(&self, epoch: Epoch) -> Option<EpochKey> {
        let mut pool = self.pool();
        // Epochs that were given up are not asked for again.
        pool.keys = pool.keys.split_off(&epoch);
        pool.receipts = pool.receipts.split_off(&epoch);
        pool.keys.remove(&epoch)
    }

    /// Deposits a key that is asked for now; the lane hears of the receipt.
    pub fn deposit(&self, epoch: Epoch, key: &EpochKey, inbox: &Sender<Event>) {
        let terms = &self.terms;
        let scope = KeyScope {
            pair: terms.pair.0,
            generation: terms.generation.0,
            epoch: epoch.0,
            incarnation: terms.incarnation.0,
        };
        let said = DepositTerms { scope, created_ms: crate::clock::wall_time().0, holder: terms.holder };
        match Deposit::seal(said, key, &terms.identity, &terms.line.card) {
            Ok(deposit) => {
                let (deposits, inbox) = (self.clone(), inbox.clone());
                terms.line.deposit(deposit, Box::new(move |outcome| deposits.answered(epoch, outcome, &inbox)));
            }
            Err(error) => {
                tracing::error!(%error, escrow = terms.line.name, "a key cannot be wrapped for the escrow");
                let _ = inbox.send(Event::EpochFailed { epoch });
            }
        }
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

    /// Draws the keys after this epoch's and deposits them.
    pub fn draw_ahead(&self, epoch: Epoch, draw: impl Fn(Epoch) -> Option<EpochKey>, inbox: &Sender<Event>) {
        for next in (1..=AHEAD).map(|ahead| Epoch(epoch.0 + ahead)) {
            if self.pool().keys.contains_key(&next) {
                continue;
            }
            let Some(key) = draw(next) else { return };
            self.deposit(next, &key, inbox);
            self.pool().keys.insert(next, key);
        }
    }

    fn answered(&self, epoch: Epoch, outcome: Result<Receipt, DepositRefusal>, inbox: &Sender<Event>) {
        let mut pool = self.pool();
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
