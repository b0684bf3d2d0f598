//! The slow part of a rotation, off the lane's thread: drawing keys and planning slots.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use farseal_core::limits::SLOT_BLOCKS_MAX;
use farseal_core::rotation::{How, Slot};
use farseal_core::schedule;
use farseal_core::units::{BlockBytes, Epoch, Incarnation, Instant, Millis};
use farseal_plugin::vault::epoch_key::EpochKey;
use farseal_plugin::wit::disguise::{Seen, Slot as SlotWish};

use super::Event;
use super::deposits::Deposits;
use crate::control::api::PluginSlot;
use crate::keys::deposit::Receipt;
use crate::keys::hedge::Hedge;
use crate::keys::package::CARRIER_LEN;
use crate::plugins::PairPlugins;

/// A key that may be placed in the order.
pub struct Prepared {
    pub epoch: Epoch,
    pub slot: Slot,
    pub key: EpochKey,
    /// The escrow site's, once it is here.
    pub receipt: Option<Receipt>,
}

impl std::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prepared").field("epoch", &self.epoch).field("slot", &self.slot).finish_non_exhaustive()
    }
}

/// Draws keys.
#[derive(Clone, Debug)]
pub struct KeyWork {
    plugins: Arc<PairPlugins>,
    block_bytes: BlockBytes,
    incarnation: Incarnation,
    hedge: Hedge,
    deposits: Option<Deposits>,
    inbox: Option<Sender<Event>>,
    /// The disguise fixed slots before any key was asked for.
    scheduled: Arc<AtomicBool>,
    /// Drawn with the slots, so that nothing has to be when a key is asked for.
    ahead: Arc<Mutex<Ahead>>,
}

/// A key that was drawn ahead, where no escrow site keeps such.
#[derive(Debug, Default)]
struct Ahead {
    key: Option<EpochKey>,
    /// How often it was forgotten.
    forgotten: u64,
}

/// What a key is drawn for.
#[derive(Clone, Copy, Debug)]
enum Drawn {
    For(Epoch),
    Ahead,
}

/// The longest that a key waits for its slot: a disguise that plans further ahead is cut short.
const SLOT_WAIT_MAX: Millis = Millis(60_000);

impl KeyWork {
    #[must_use]
    pub fn new(plugins: Arc<PairPlugins>, block_bytes: BlockBytes, incarnation: Incarnation, hedge: Hedge) -> Self {
        Self {
            plugins,
            block_bytes,
            incarnation,
            hedge,
            deposits: None,
            inbox: None,
            scheduled: Arc::default(),
            ahead: Arc::default(),
        }
    }

    /// Every key is deposited at the escrow site before it may be used.
    #[must_use]
    pub fn with_deposits(self, deposits: Option<Deposits>) -> Self {
        Self { deposits, ..self }
    }

    /// The deposits, where the pair has an escrow site.
    pub(super) fn deposits(&self) -> Option<&Deposits> {
        self.deposits.as_ref()
    }

    pub(super) fn with_inbox(mut self, inbox: Sender<Event>) -> Self {
        self.inbox = Some(inbox);
        self
    }

    /// Gives the key of an epoch that was drawn ahead, if its slot is fixed; else draws it and fixes its slot, on a thread of
    /// its own.
    pub fn prepare(&self, epoch: Epoch, how: How, recent: Vec<Seen>, now: Instant) {
        if let (Some(inbox), Some((prepared, receipt))) = (&self.inbox, self.at_hand(epoch, how, now)) {
            let _ = inbox.send(Event::EpochPrepared(prepared));
            if let Some(receipt) = receipt {
                let _ = inbox.send(Event::EpochEscrowed { epoch, receipt });
            }
            return;
        }
        let work = self.clone();
        std::thread::spawn(move || {
            let Some(inbox) = &work.inbox else { return };
            let event = match work.prepared(epoch, how, &recent, now, inbox) {
                Ok(prepared) => Event::EpochPrepared(prepared),
                Err(error) => {
                    tracing::error!(%error, "a key could not be drawn");
                    Event::EpochFailed { epoch }
                }
            };
            let _ = inbox.send(event);
            let Some(deposits) = &work.deposits else { return };
            deposits.keep(&work.plugins);
            if let Some(receipt) = deposits.receipt(epoch) {
                let _ = inbox.send(Event::EpochEscrowed { epoch, receipt });
            }
            deposits.draw_ahead(epoch, |next| work.draw(Drawn::For(next)).ok(), inbox);
        });
    }

    /// Whoever knows a key may know the one that was drawn ahead.
    pub(super) fn forget_ahead(&self) {
        self.deposits.iter().for_each(Deposits::forget_ahead);
        let mut ahead = self.ahead();
        *ahead = Ahead { key: None, forgotten: ahead.forgotten + 1 };
    }

    fn ahead(&self) -> MutexGuard<'_, Ahead> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Without any work that a command could be told by.
    fn at_hand(&self, epoch: Epoch, how: How, now: Instant) -> Option<(Prepared, Option<Receipt>)> {
        if how == How::AtOnce || !self.scheduled.load(Ordering::Acquire) {
            return None;
        }
        let chance = chance().ok()?;
        let (key, receipt) = match &self.deposits {
            None => (self.ahead().key.take()?, None),
            Some(deposits) => deposits.take_ready(epoch).map(|(key, receipt)| (key, Some(receipt)))?,
        };
        let slot = Slot { at: now, blocks: self.smallest_slot(), chance };
        Some((Prepared { epoch, slot, key, receipt: None }, receipt))
    }

    /// Asks the disguise for its coming slots, and draws a key ahead, on a thread of its own. Nothing says whether a key is
    /// due, and one is drawn whether or not the last one was taken.
    pub fn plan_slots(&self, recent: Vec<Seen>) {
        let work = self.clone();
        std::thread::spawn(move || {
            match (&work.deposits, &work.inbox) {
                (Some(deposits), Some(inbox)) => {
                    deposits.keep(&work.plugins);
                    deposits.refill(|next| work.draw(Drawn::For(next)).ok(), inbox);
                }
                (Some(_), None) => {}
                (None, _) => {
                    let forgotten = work.ahead().forgotten;
                    let drawn = work.draw(Drawn::Ahead).ok();
                    let mut ahead = work.ahead();
                    // It may have been forgotten while it was drawn.
                    ahead.key = drawn.filter(|_| ahead.forgotten == forgotten);
                }
            }
            let slots = work.slots(&recent);
            if let Err(error) = &slots {
                tracing::error!(%error, "no slots could be planned");
            }
            let slots = slots.ok();
            work.scheduled.store(slots.as_ref().is_some_and(|slots| !slots.is_empty()), Ordering::Release);
            if let Some(inbox) = &work.inbox {
                let _ = inbox.send(Event::SlotsPlanned(slots));
            }
        });
    }

    fn slots(&self, recent: &[Seen]) -> Result<Vec<schedule::Planned>, getrandom::Error> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed)?;
        let smallest = self.smallest_slot();
        let planned = self.planned(recent, smallest, &seed);
        let mut slots = Vec::with_capacity(planned.len());
        for slot in planned {
            let chance = chance()?;
            let blocks = slot.blocks.clamp(smallest, SLOT_BLOCKS_MAX.max(smallest));
            slots.push(schedule::Planned { gap: Millis(slot.gap), blocks, chance });
        }
        Ok(slots)
    }

    fn planned(&self, recent: &[Seen], smallest: u32, seed: &[u8; 32]) -> Vec<SlotWish> {
        let answer = self.plugins.disguise.plan(crate::clock::wall_time().0, recent, smallest, seed);
        self.plugins.say_who_answered(PluginSlot::Disguise, &answer.by, "a key takes the host's plain slot");
        answer.value
    }

    /// Draws a key, hedged with everything that sets this moment apart.
    fn draw(&self, drawn: Drawn) -> Result<EpochKey, getrandom::Error> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed)?;
        let of = match drawn {
            Drawn::For(epoch) => epoch.0,
            // No epoch's number.
            Drawn::Ahead => u64::MAX,
        };
        let transcript = [self.incarnation.0.as_slice(), &of.to_le_bytes(), &self.hedge.value(), &seed].concat();
        EpochKey::generate(&transcript).map_err(|_| getrandom::Error::UNEXPECTED)
    }

    fn prepared(
        &self,
        epoch: Epoch,
        how: How,
        recent: &[Seen],
        now: Instant,
        inbox: &Sender<Event>,
    ) -> Result<Prepared, getrandom::Error> {
        let key = match self.deposits.as_ref().and_then(|deposits| deposits.take(epoch)) {
            Some(key) => key,
            None => {
                let key = self.draw(Drawn::For(epoch))?;
                self.deposits.iter().for_each(|deposits| deposits.deposit(epoch, &key, inbox));
                key
            }
        };
        let smallest = self.smallest_slot();
        let first = if how != How::AtOnce && self.slot_is_fixed() {
            // The disguise's work now would tell by what it takes from the machine that a key is wanted.
            None
        } else {
            let mut seed = [0; 32];
            getrandom::fill(&mut seed)?;
            self.planned(recent, smallest, &seed).first().copied()
        };
        let wait = first.map_or(Millis(0), |slot| Millis(slot.gap.min(SLOT_WAIT_MAX.0)));
        let blocks = first.map_or(smallest, |slot| slot.blocks).clamp(smallest, SLOT_BLOCKS_MAX.max(smallest));
        let at = if how == How::AtOnce { now } else { now.plus(wait) };
        let slot = Slot { at, blocks, chance: chance()? };
        Ok(Prepared { epoch, slot, key, receipt: None })
    }

    /// Does the key go where a slot was fixed before, whatever is planned for it now?
    fn slot_is_fixed(&self) -> bool {
        let in_records = || self.plugins.disguise.current().is_some_and(|disguise| disguise.is_in_records());
        self.scheduled.load(Ordering::Acquire) || in_records()
    }

    /// The least blocks whose body holds a package and a disguise's own bytes.
    fn smallest_slot(&self) -> u32 {
        let body = u64::try_from(CARRIER_LEN).unwrap_or(u64::MAX);
        u32::try_from(body.div_ceil(self.block_bytes.as_u64() + 16)).unwrap_or(u32::MAX)
    }
}

fn chance() -> Result<u64, getrandom::Error> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map(|()| u64::from_le_bytes(bytes))
}
