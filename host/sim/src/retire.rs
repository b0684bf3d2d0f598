//! Retiring epochs: an operator has old keys destroyed, the keeper judges each order by what it holds, and the writing site's own keys go last
//!
//! The writing site asks which live blocks need old epochs, owes them again, and orders when none is left. The order takes
//! its time, is lost, comes twice or long after, and in some worlds the writing site lies. The keeper judges by its own scan;
//! a floor is part of its disk, beside the state that a restart begins with: what lies below it is not read again.

use std::collections::BTreeMap;

use farseal_core::owed::OwedMap;
use farseal_core::primary::{Command, CopyState, Input, Primary};
use farseal_core::retire::{Floor, Holding, Order, OrderRefused, Proof, Verdict, Wish};
use farseal_core::rotation::How;
use farseal_core::secondary::{Recovered, Secondary};
use farseal_core::units::{BlockCount, Epoch, Extent, Generation, Lba, PairId, Path, Sequence};

use crate::check::retired;
use crate::dice::Dice;
use crate::disk::{to_usize, wide};
use crate::link::{Message, Side};
use crate::mutation::Mutation;
use crate::seal::{KeyId, Stamp};
use crate::secondary::SecondaryEvent;
use crate::stats::Sometimes;
use crate::world::{Event, Outcome, PAIR, World};

const STREAM: u64 = 31;

/// The operator of a world in which epochs are retired, and what the writing site is about to have destroyed.
#[derive(Debug)]
pub struct Retirement {
    dice: Dice,
    /// In a thousand operations; 0 where nothing is retired.
    rate: u64,
    /// The writing site also orders without having sent anything again.
    lies: bool,
    wanted: Option<Wanted>,
    /// Every order that was ever made: any of them may come at any time.
    orders: Vec<Order>,
    /// A site has destroyed what it had of these epochs.
    pub destroyed: Floor,
    /// What the checkers look at may have changed.
    pub changed: bool,
}

/// Until the writing site's next crash.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    through: Epoch,
    order: Option<Order>,
}

/// Who says what a block of the index holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Source {
    pub sequence: Sequence,
    /// What really sealed it; nobody knows once a disk was set back.
    pub key: Option<KeyId>,
}

/// What the keeper's index needs, as of one moment.
#[derive(Clone, Copy, Debug)]
pub struct Scan {
    indexed: Sequence,
    oldest_live: Option<(Epoch, BlockCount)>,
}

/// What a restart of the keeper begins with.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    pub recovered: Recovered,
    pub index: Vec<Stamp>,
    pub sources: Vec<Option<Source>>,
    pub indexed: Sequence,
}

/// What the keeper's disk holds of keys.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    pub floor: Floor,
    /// The checker's: what was ever durable of it.
    pub destroyed: Floor,
    /// Made durable together with the floor.
    pub checkpoint: Option<Checkpoint>,
    /// Every key that it holds.
    pub keyring: BTreeMap<Epoch, KeyId>,
    /// Being made durable.
    raising: Option<(Floor, Box<Checkpoint>)>,
}

impl Retirement {
    /// Some seeds have such an operator, and no world that is broken elsewhere.
    pub fn draw(seed: u64, mutation: Option<Mutation>) -> Self {
        let mut dice = Dice::new(seed, STREAM);
        let rate = match mutation {
            None if dice.chance(350) => dice.between(20, 200),
            Some(mutation) if mutation.is_of_retiring() => 200,
            None | Some(_) => 0,
        };
        let lies = dice.chance(if mutation.is_some() { 800 } else { 300 });
        Self { dice, rate, lies, wanted: None, orders: Vec::new(), destroyed: Floor::NONE, changed: false }
    }

    pub fn may_retire(&self) -> bool {
        self.rate > 0
    }

    /// The writing site crashed: the operator must ask again.
    pub fn forget(&mut self) {
        self.wanted = None;
    }
}

impl Kept {
    /// A site that begins to keep a history, with the keys that it has.
    pub fn of(keyring: BTreeMap<Epoch, KeyId>, floor: Floor) -> Self {
        Self { floor, destroyed: floor, checkpoint: None, keyring, raising: None }
    }

    /// Finishes what a crash may have left.
    fn drop_keys(&mut self) {
        let floor = self.floor;
        self.keyring.retain(|epoch, _| floor.takes(*epoch).is_ok());
    }

    /// The floor and what a restart begins with are durable.
    fn keep(&mut self) -> bool {
        let Some((floor, checkpoint)) = self.raising.take() else { return false };
        self.floor = floor;
        self.destroyed = self.destroyed.raised(floor.epoch());
        self.checkpoint = Some(*checkpoint);
        true
    }
}

// ---- the writing site

impl World {
    /// What the operator wants at this instant, and what comes of what was wanted before.
    pub fn retire(&mut self) -> Outcome {
        if !self.retirement.may_retire() {
            return Ok(());
        }
        if self.retirement.dice.chance(30) && !self.retirement.orders.is_empty() {
            let any = self.retirement.dice.below(wide(self.retirement.orders.len()));
            let order = self.retirement.orders[to_usize(any)];
            self.stats.see(Sometimes::OrderCameLate);
            self.order_comes(None, order)?;
        }
        let differs = self.secondary.machine.as_ref().is_none_or(Secondary::base_differs);
        if !differs && self.secondary.own.is_some() && self.retirement.dice.chance(10) {
            self.secondary.own = None;
        }
        let Some(in_force) = self.primary.in_force.filter(|_| self.primary.machine.is_some()) else { return Ok(()) };
        self.destroy_own();
        if self.retirement.wanted.is_some() && self.retirement.dice.chance(300) {
            self.ask_live();
        }
        if !self.retirement.dice.chance(self.retirement.rate) {
            return Ok(());
        }
        match self.retirement.dice.below(10) {
            0..3 => self.tell_primary(Input::Operator(Command::Rotate(How::AtOnce))),
            3..7 if self.retirement.lies => {
                self.lie(in_force);
                Ok(())
            }
            _ => {
                self.want(in_force);
                Ok(())
            }
        }
    }

    fn want(&mut self, in_force: Epoch) {
        let dice = &mut self.retirement.dice;
        let any = Epoch(dice.below(in_force.0 + 2));
        let wish = if dice.chance(700) { Wish::BeforeInForce } else { Wish::Through(any) };
        if let Ok(through) = wish.last(Some(in_force), self.primary.proved) {
            self.retirement.wanted = Some(Wanted { through, order: None });
        }
    }

    /// As a writing site that has the keeper destroy what it still needs.
    fn lie(&mut self, in_force: Epoch) {
        let dice = &mut self.retirement.dice;
        let through = Epoch((in_force.0 + dice.below(3)).saturating_sub(1));
        let at = [Sequence::NONE, self.secondary.indexed, self.secondary.indexed.plus(5)][to_usize(dice.below(3))];
        let generation = Generation(self.primary.settings.generation.0.saturating_sub(dice.below(20) / 19));
        self.order(generation, through, at);
    }

    fn any_path(&mut self) -> Option<Path> {
        let open: Vec<Path> = self.link.paths().filter(|path| self.link.lines[usize::from(path.0)].open).collect();
        let at = self.retirement.dice.below(wide(open.len()));
        open.get(to_usize(at)).copied()
    }

    /// Not while what was owed again is on its way.
    fn ask_live(&mut self) {
        let status = self.primary.machine.as_ref().map(Primary::status);
        let (Some(wanted), Some(path)) = (self.retirement.wanted, self.any_path()) else { return };
        if status.is_some_and(|status| status.copy == CopyState::InOrder) {
            self.send(path, Side::Secondary, Message::AskLive { through: wanted.through });
        }
    }

    /// The keeper says where its live blocks need the epochs that are to go.
    pub fn live_told(&mut self, through: Epoch, at: Sequence, map: OwedMap) -> Outcome {
        if self.retirement.wanted.is_none_or(|wanted| wanted.through != through) {
            return Ok(());
        }
        if map.is_empty() {
            let order = self.order(self.primary.settings.generation, through, at);
            self.retirement.wanted = Some(Wanted { through, order: Some(order) });
            return Ok(());
        }
        self.stats.see(Sometimes::OwedAgainToRetire);
        self.tell_primary(Input::OweAgain { map })
    }

    /// Now and then it is lost, or comes twice.
    fn order(&mut self, generation: Generation, through: Epoch, at: Sequence) -> Order {
        let dice = &mut self.retirement.dice;
        let mut nonce = [0; 32];
        nonce.chunks_mut(8).for_each(|part| part.copy_from_slice(&dice.draw().to_le_bytes()));
        let pair = if dice.chance(20) { PairId([7; 16]) } else { PAIR };
        let order = Order { pair, generation, through, at, nonce };
        let times = [0, 1, 1, 1, 1, 2][to_usize(dice.below(6))];
        self.retirement.orders.push(order);
        for _ in 0..times {
            if let Some(path) = self.any_path() {
                self.send(path, Side::Secondary, Message::Retire(order));
            }
        }
        order
    }

    /// The keeper says that its keys are gone.
    pub fn proof_comes(&mut self, proof: &Proof) {
        let order = self.retirement.wanted.and_then(|wanted| wanted.order);
        // The nonce stands for the order's digest.
        let Some(order) = order.filter(|order| proof.answers(order, &order.nonce)) else { return };
        self.primary.proved = self.primary.proved.raised(order.through);
        self.retirement.wanted = None;
        self.stats.see(Sometimes::RetirementProved);
    }

    /// Own keys go when the keeper's are gone, and when nothing in the journal would be opened by them after a crash.
    fn destroy_own(&mut self) {
        let proved = self.primary.proved;
        if proved <= self.primary.floor || !self.retirement.dice.chance(300) {
            return;
        }
        let needed = retired::needed_by_the_journal(self).is_some_and(|epoch| proved.takes(epoch).is_err());
        if needed && self.settings.mutation != Some(Mutation::OwnKeysDestroyedEarly) {
            self.stats.see(Sometimes::OwnKeysNeededStill);
            return;
        }
        self.primary.floor = proved;
        self.primary.keys.retain(|epoch, _| proved.takes(*epoch).is_ok());
        self.stats.see(Sometimes::OwnKeysDestroyed);
    }
}

// ---- the keeper

impl World {
    pub fn show_live(&mut self, path: Path, through: Epoch) {
        let (blocks, size) = (self.secondary.settings.blocks, self.secondary.settings.block_bytes);
        let Some(machine) = self.secondary.machine.as_ref().filter(|machine| machine.is_recovered()) else { return };
        let mut map = OwedMap::empty(blocks, size);
        for (lba, source) in (0..).zip(&self.secondary.sources) {
            let needs = source.is_some_and(|source| machine.ledger().epoch_at(source.sequence) <= through);
            Extent::new(Lba(lba), BlockCount(1)).filter(|_| needs).into_iter().for_each(|extent| map.mark(extent));
        }
        self.send(path, Side::Primary, Message::Live { through, at: self.secondary.indexed, map: Box::new(map) });
    }

    /// An order reaches the keeper, over a path or much later. Its scan may take a while.
    pub fn order_comes(&mut self, path: Option<Path>, order: Order) -> Outcome {
        let Some(scan) = self.scan() else { return Ok(()) };
        if self.retirement.dice.chance(500) {
            return self.judge_order(path, &order, scan);
        }
        let most = if self.retirement.dice.chance(300) { 3_000_000 } else { 50_000 };
        let delay = self.retirement.dice.between(10, most);
        let (life, event) = (self.secondary.life, SecondaryEvent::Scanned { path, order, scan });
        self.after(delay, Event::Secondary { life, event });
        Ok(())
    }

    /// A live block whose epoch nobody knows is of the oldest.
    fn scan(&self) -> Option<Scan> {
        let ledger = self.secondary.machine.as_ref()?.ledger();
        let live = self.secondary.sources.iter().flatten().map(|source| ledger.epoch_at(source.sequence));
        let oldest = live.clone().min().filter(|_| self.settings.mutation != Some(Mutation::LiveNotScanned));
        let count = |oldest: Epoch| BlockCount(wide(live.filter(|epoch| *epoch == oldest).count()));
        Some(Scan { indexed: self.secondary.indexed, oldest_live: oldest.map(|oldest| (oldest, count(oldest))) })
    }

    pub fn judge_order(&mut self, path: Option<Path>, order: &Order, scan: Scan) -> Outcome {
        let Some(machine) = self.secondary.machine.as_ref().filter(|_| self.secondary.kept.raising.is_none()) else {
            return Ok(());
        };
        let mutation = self.settings.mutation;
        let own_history = machine.base_differs() || self.secondary.own.is_some();
        let late = mutation == Some(Mutation::ScanOutOfDate);
        let holding = Holding {
            pair: PAIR,
            generation: machine.generation(),
            floor: self.secondary.kept.floor,
            ledger: machine.ledger(),
            indexed: if late { machine.offered() } else { scan.indexed },
            offered: machine.offered(),
            oldest_live: scan.oldest_live,
            own_history: own_history && mutation != Some(Mutation::OwnHistoryNotAsked),
            taken_over: machine.status().taken_over,
        };
        let verdict = match (mutation, holding.judge(order)) {
            (Some(Mutation::UnofferedNotAsked), Err(OrderRefused::NotOffered { .. })) => {
                Ok(Verdict::Raise(holding.floor.raised(order.through)))
            }
            (_, verdict) => verdict,
        };
        self.trace.note(self.now, || format!("  {order:?} with {scan:?}: {verdict:?}"));
        match verdict {
            Ok(Verdict::Raise(floor)) => {
                self.secondary.kept.raising = Some((floor, Box::new(self.checkpoint())));
                let most = if self.retirement.dice.chance(200) { 1_000_000 } else { 5_000 };
                self.kept_later(most, SecondaryEvent::FloorKept { path, order: *order });
                Ok(())
            }
            Ok(Verdict::Again(_)) => {
                self.stats.see(Sometimes::OrderCameAgain);
                self.keys_gone(path, order)
            }
            Err(refused) => {
                if let Some(seen) = seen(&refused) {
                    self.stats.see(seen);
                }
                Ok(())
            }
        }
    }

    fn kept_later(&mut self, most: u64, event: SecondaryEvent) {
        let (life, delay) = (self.secondary.life, self.retirement.dice.between(10, most));
        self.after(delay, Event::Secondary { life, event });
    }

    fn checkpoint(&self) -> Checkpoint {
        let site = &self.secondary;
        let mut recovered = Recovered::fresh();
        if let Some(machine) = &site.machine {
            (recovered.contiguous, recovered.chain) = machine.durable();
            (recovered.ledger, recovered.cuts) = (machine.ledger().clone(), machine.cuts().clone());
            (recovered.gap_open_after, recovered.gap_chain) = (machine.gap_open_after(), machine.gap_chain());
            recovered.offered = Some(machine.offered());
            recovered.holes = machine.holes().to_vec();
        }
        Checkpoint { recovered, index: site.index.clone(), sources: site.sources.clone(), indexed: site.indexed }
    }

    pub fn floor_kept(&mut self, path: Option<Path>, order: Order) -> Outcome {
        if self.secondary.kept.keep() {
            self.stats.see(Sometimes::FloorRaised);
            self.retirement.changed = true;
            self.kept_later(5_000, SecondaryEvent::KeysGone { path, order });
        }
        Ok(())
    }

    pub fn keys_gone(&mut self, path: Option<Path>, order: &Order) -> Outcome {
        self.secondary.kept.drop_keys();
        self.retirement.destroyed = self.retirement.destroyed.raised(self.secondary.kept.floor.epoch());
        self.retirement.changed = true;
        let proof = Proof { order: order.nonce, floor: self.secondary.kept.floor };
        if let Some(path) = path {
            self.send(path, Side::Primary, Message::Retired(proof));
        }
        Ok(())
    }

    /// What was being made durable when the keeper crashed may have been.
    pub fn keeper_crashes(&mut self) {
        if self.secondary.kept.raising.is_none() {
            return;
        }
        if self.retirement.dice.chance(500) {
            self.secondary.kept.keep();
            self.stats.see(Sometimes::FloorRaisedInACrash);
        } else {
            self.secondary.kept.raising = None;
            self.stats.see(Sometimes::FloorLostInACrash);
        }
    }

    /// The keeper comes back.
    pub fn keeper_comes_back(&mut self) {
        let kept = &mut self.secondary.kept;
        kept.raising = None;
        if self.settings.mutation == Some(Mutation::FloorForgotten) {
            (kept.floor, kept.checkpoint) = (Floor::NONE, None);
        }
        if self.settings.mutation == Some(Mutation::CheckpointForgotten) {
            kept.checkpoint = None;
        }
        kept.drop_keys();
        self.retirement.destroyed = self.retirement.destroyed.raised(kept.destroyed.epoch());
        self.retirement.changed = true;
    }
}

fn seen(refused: &OrderRefused) -> Option<Sometimes> {
    match refused {
        OrderRefused::Live { .. } => Some(Sometimes::RetirementRefusedLive),
        OrderRefused::NotOffered { .. } => Some(Sometimes::RetirementRefusedNotOffered),
        OrderRefused::OtherGeneration { .. } => Some(Sometimes::RetirementRefusedGeneration),
        OrderRefused::OwnHistory => Some(Sometimes::RetirementRefusedOwnHistory),
        OrderRefused::Unapplied { .. } => Some(Sometimes::RetirementRefusedUnapplied),
        OrderRefused::OtherPair(_)
        | OrderRefused::TakenOver
        | OrderRefused::Ahead { .. }
        | OrderRefused::Pinned { .. } => None,
    }
}
