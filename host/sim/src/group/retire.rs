//! Epochs are retired in a world of groups: what a keeper destroys goes by what its group lets it offer, not by what it holds
//!
//! No key is destroyed here in fact: the floor says which are, and the checker what needs them. What orders and floors go
//! through otherwise is tried in a world of one lane.

use std::collections::BTreeMap;

use farseal_core::owed::OwedMap;
use farseal_core::primary::{Command, Input};
use farseal_core::retire::{Floor, Holding, Order, OrderRefused, Verdict};
use farseal_core::rotation::How;
use farseal_core::secondary::Secondary;
use farseal_core::units::{BlockCount, Epoch, Extent, Generation, Lba, Path, Sequence};

use super::event::ToKeeper;
use super::figures::Figure;
use super::{BLOCKS, Mutation, World, pair};
use crate::check::retired;
use crate::dice::Dice;
use crate::disk::{to_usize, wide};
use crate::world::{Outcome, block_bytes};

const STREAM: u64 = 32;

/// The operator of a world in which epochs are retired.
#[derive(Debug)]
pub(super) struct Retirement {
    dice: Dice,
    /// In a thousand operations; 0 where nothing is retired.
    rate: u64,
}

impl Retirement {
    /// Some seeds have one, and no world that is broken elsewhere.
    pub(super) fn draw(seed: u64, mutation: Option<Mutation>) -> Self {
        let mut dice = Dice::new(seed, STREAM);
        let rate = match mutation {
            None if dice.chance(350) => dice.between(50, 300),
            Some(Mutation::LimitNotAsked) => 300,
            None | Some(_) => 0,
        };
        Self { dice, rate }
    }
}

impl World {
    /// New keys, old blocks sent again, and orders: in any order, so that many of them come too early.
    pub(super) fn retire(&mut self) -> Outcome {
        let dice = &mut self.retirement.dice;
        if !dice.chance(self.retirement.rate) {
            return Ok(());
        }
        let (lane, what) = (to_usize(dice.below(wide(self.lanes.len()))), dice.below(8));
        if self.lanes[lane].is_over() || self.lanes[lane].machine.is_none() {
            return Ok(());
        }
        match what {
            0 => self.tell_lane(lane, Input::Operator(Command::Rotate(How::AtOnce))),
            1 => self.owe_again(lane),
            _ => {
                self.order_retirement(lane);
                Ok(())
            }
        }
    }

    /// What the keeper's live blocks need of epochs before the newest.
    fn owe_again(&mut self, lane: usize) -> Outcome {
        let keeper = &self.keepers[lane];
        let Some(machine) = &keeper.machine else { return Ok(()) };
        let newest = machine.ledger().newest().map_or(Epoch::NONE, |entry| entry.epoch);
        let mut map = OwedMap::empty(BlockCount(BLOCKS), block_bytes());
        for (block, _) in keeper.sources(machine.offered()).iter().filter(|(_, (_, epoch))| *epoch < newest) {
            Extent::new(Lba(wide(*block)), BlockCount(1)).into_iter().for_each(|extent| map.mark(extent));
        }
        self.tell_lane(lane, Input::OweAgain { map })
    }

    fn order_retirement(&mut self, lane: usize) {
        let newest = self.lanes[lane].newest_epoch().0;
        let through = Epoch(newest.saturating_sub(self.retirement.dice.below(3)));
        let (generation, at) = (Generation(1), Sequence::NONE);
        let order = Order { pair: pair(lane), generation, through, at, nonce: [0; 32] };
        self.send_keeper(lane, Path(0), ToKeeper::Retire(order));
    }

    pub(super) fn judge_order(&mut self, lane: usize, order: &Order) -> Outcome {
        let keeper = &self.keepers[lane];
        let Some(machine) = &keeper.machine else { return Ok(()) };
        let offered = match self.mutation {
            Some(Mutation::LimitNotAsked) => machine.gap_open_after().unwrap_or(machine.durable().0),
            Some(_) | None => machine.offered(),
        };
        let ledger = machine.ledger();
        let mut live = BTreeMap::<Epoch, u64>::new();
        keeper
            .sources(offered)
            .values()
            .for_each(|(sequence, _)| *live.entry(ledger.epoch_at(*sequence)).or_default() += 1);
        let holding = Holding {
            pair: pair(lane),
            generation: machine.generation(),
            floor: keeper.floor,
            ledger,
            indexed: offered,
            offered,
            oldest_live: live.first_key_value().map(|(epoch, blocks)| (*epoch, BlockCount(*blocks))),
            own_history: false,
            taken_over: keeper.is_taken(),
        };
        let verdict = holding.judge(order);
        let at = self.now;
        self.trace.note(at, || format!("  keeper {lane}: {order:?}: {verdict:?}"));
        match verdict {
            Ok(Verdict::Raise(floor)) => {
                self.keepers[lane].floor = floor;
                self.figures.count(Figure::FloorsRaised);
                retired::kept_by_group(self, lane)
            }
            Ok(Verdict::Again(_)) => Ok(()),
            Err(refused) => {
                match refused {
                    OrderRefused::Live { .. } => self.figures.count(Figure::RetirementsRefusedLive),
                    OrderRefused::NotOffered { .. } => self.figures.count(Figure::RetirementsRefusedNotOffered),
                    OrderRefused::OtherPair(_)
                    | OrderRefused::OtherGeneration { .. }
                    | OrderRefused::TakenOver
                    | OrderRefused::OwnHistory
                    | OrderRefused::Unapplied { .. }
                    | OrderRefused::Ahead { .. }
                    | OrderRefused::Pinned { .. } => {}
                }
                Ok(())
            }
        }
    }

    /// What is offered has grown, or is taken over.
    pub(super) fn look_at_floor(&mut self, lane: usize) -> Outcome {
        let keeper = &mut self.keepers[lane];
        let offered = keeper.machine.as_ref().map_or(Sequence::NONE, Secondary::offered);
        let grown = offered > keeper.was_offered;
        keeper.was_offered = keeper.was_offered.max(offered);
        if keeper.floor == Floor::NONE || !grown && !keeper.is_taken() {
            return Ok(());
        }
        retired::kept_by_group(self, lane)
    }
}
