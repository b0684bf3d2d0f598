//! Retiring epochs: which keys an operator may have destroyed, when the keeper may destroy them, and the floor below which no key is taken again
//!
//! A key may go when nothing needs it that a takeover could open, now or later. What the index holds is asked block by
//! block. What is not offered yet, behind a gap or a group's cut, comes later in the order, and the epochs' starts
//! ascend: so it is enough that the first record that is not offered falls in an epoch that stays.
//!
//! ```text
//! order = "farseal retire order 1" (22), pair (16), generation (u64), the last epoch to go (u64),
//!         nothing was live at this sequence number (u64), nonce (32)
//! proof = "farseal retire proof 1" (22), SHA-256 of the order (32), the floor that holds now (u64)
//! ```
//!
//! Both are what is signed. An order that comes again changes nothing: a floor only rises.

mod answer;

use serde::{Deserialize, Serialize};

pub use self::answer::{Answer, AskRetire, Refusal, SIGNATURE_BYTES};

use crate::bytes::Fields;
use crate::ledger::Ledger;
use crate::units::{BlockCount, Epoch, Generation, PairId, Sequence};

const ORDER_DOMAIN: [u8; 22] = *b"farseal retire order 1";
const PROOF_DOMAIN: [u8; 22] = *b"farseal retire proof 1";

/// Every epoch up to this one is destroyed: no package of theirs is kept, found again in a log, or taken from a peer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
pub struct Floor(Epoch);

/// A key that must not be there any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("epoch {epoch} is destroyed, as all up to {floor} are: its key is not taken again")]
pub struct BelowFloor {
    pub epoch: Epoch,
    pub floor: Epoch,
}

/// What an operator wants destroyed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wish {
    /// Every epoch before the one in force.
    BeforeInForce,
    /// Every epoch up to this one.
    Through(Epoch),
}

/// Why a wish is refused before anything is asked or sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WishRefused {
    #[error("no key is in force: write something first")]
    NoneInForce,
    #[error("epoch {0} is in force: rotate the key, then retire it")]
    InForce(Epoch),
    #[error("there is no epoch {asked} yet: {in_force} is in force")]
    Future { asked: Epoch, in_force: Epoch },
    #[error("every epoch before {0}, which is in force, is destroyed already")]
    Nothing(Epoch),
}

/// The writing site has no use for these epochs any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Order {
    pub pair: PairId,
    /// The writing site's.
    pub generation: Generation,
    /// The last epoch to go.
    pub through: Epoch,
    /// The keeper's index held no live block of them when it held everything up to here.
    pub at: Sequence,
    /// Random, and used once.
    pub nonce: [u8; 32],
}

/// A site has destroyed what an order names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Proof {
    /// SHA-256 of the order as it was signed.
    pub order: [u8; 32],
    pub floor: Floor,
}

/// What the keeper holds when an order comes.
#[derive(Clone, Copy, Debug)]
pub struct Holding<'a> {
    pub pair: PairId,
    pub generation: Generation,
    pub floor: Floor,
    pub ledger: &'a Ledger,
    /// Everything up to here is in the index.
    pub indexed: Sequence,
    /// What a takeover would open.
    pub offered: Sequence,
    /// The oldest epoch that live blocks of the index need, and how many need it.
    pub oldest_live: Option<(Epoch, BlockCount)>,
    /// This site has a history of its own: a base that differs still, or a branch that is kept.
    pub own_history: bool,
    pub taken_over: bool,
}

/// What an order that is not refused asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Make this floor durable, then destroy what lies at or below it.
    Raise(Floor),
    /// The floor is there already: finish what a crash may have left, and answer again.
    Again(Floor),
}

/// Why the keeper destroys nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OrderRefused {
    #[error("the order is for pair {0}, not for this one")]
    OtherPair(PairId),
    #[error("the order is of generation {found}, and {here} is kept here")]
    OtherGeneration { found: Generation, here: Generation },
    #[error("this site was taken over to and writes: only the writing site retires keys")]
    TakenOver,
    #[error("a history of this site's own is kept beside the copy: resync, or delete its branches, first")]
    OwnHistory,
    #[error("what is offered up to {offered} is in the index up to {indexed} only: try again")]
    Unapplied { indexed: Sequence, offered: Sequence },
    #[error("the order speaks of record {at}, and the index is at {indexed}")]
    Ahead { at: Sequence, indexed: Sequence },
    #[error("{} live blocks need epoch {epoch}: they are to be sent again first", blocks.0)]
    Live { epoch: Epoch, blocks: BlockCount },
    #[error(
        "the point at record {point} is pinned or under test there, and needs epoch {epoch}: let it go first (`farseal recover \
         unpin`, or `farseal recover test --end`)"
    )]
    Pinned { point: Sequence, epoch: Epoch },
    #[error("records after {offered}, which are not offered yet, may need epoch {epoch}: wait until they are")]
    NotOffered { offered: Sequence, epoch: Epoch },
}

impl Floor {
    /// Nothing is destroyed.
    pub const NONE: Self = Self(Epoch::NONE);

    /// The last epoch that is destroyed.
    pub fn epoch(self) -> Epoch {
        self.0
    }

    /// May a key of this epoch be kept?
    ///
    /// # Errors
    /// [`BelowFloor`].
    pub fn takes(self, epoch: Epoch) -> Result<(), BelowFloor> {
        if epoch <= self.0 { Err(BelowFloor { epoch, floor: self.0 }) } else { Ok(()) }
    }

    /// It never sinks.
    #[must_use]
    pub fn raised(self, through: Epoch) -> Self {
        Self(self.0.max(through))
    }
}

impl Wish {
    /// The last epoch to go.
    ///
    /// # Errors
    /// [`WishRefused`].
    pub fn last(self, in_force: Option<Epoch>, floor: Floor) -> Result<Epoch, WishRefused> {
        let in_force = in_force.ok_or(WishRefused::NoneInForce)?;
        let last = match self {
            Self::BeforeInForce => Epoch(in_force.0.saturating_sub(1)),
            Self::Through(asked) if asked == in_force => return Err(WishRefused::InForce(in_force)),
            Self::Through(asked) if asked > in_force => return Err(WishRefused::Future { asked, in_force }),
            Self::Through(asked) => asked,
        };
        if last <= floor.0 { Err(WishRefused::Nothing(in_force)) } else { Ok(last) }
    }
}

impl Holding<'_> {
    /// What the keeper does of an order whose signature is the writing site's. What it says of live blocks is not believed.
    ///
    /// # Errors
    /// [`OrderRefused`].
    pub fn judge(&self, order: &Order) -> Result<Verdict, OrderRefused> {
        if order.pair != self.pair {
            return Err(OrderRefused::OtherPair(order.pair));
        }
        if order.through <= self.floor.0 {
            return Ok(Verdict::Again(self.floor));
        }
        if order.generation != self.generation {
            return Err(OrderRefused::OtherGeneration { found: order.generation, here: self.generation });
        }
        if self.taken_over {
            return Err(OrderRefused::TakenOver);
        }
        if self.own_history {
            return Err(OrderRefused::OwnHistory);
        }
        let (indexed, offered) = (self.indexed, self.offered);
        if indexed < offered {
            return Err(OrderRefused::Unapplied { indexed, offered });
        }
        if order.at > indexed {
            return Err(OrderRefused::Ahead { at: order.at, indexed });
        }
        if let Some((epoch, blocks)) = self.oldest_live.filter(|(epoch, _)| *epoch <= order.through) {
            return Err(OrderRefused::Live { epoch, blocks });
        }
        // Without an epoch there nothing says that the next record is not of one that is to go.
        let next = self.ledger.epoch_at(offered.next());
        if next <= order.through {
            return Err(OrderRefused::NotOffered { offered, epoch: next });
        }
        Ok(Verdict::Raise(self.floor.raised(order.through)))
    }
}

impl Order {
    /// Of its encoding.
    pub const BYTES: usize = ORDER_DOMAIN.len() + 16 + 3 * 8 + 32;

    /// What is signed.
    pub fn encode(&self) -> [u8; Self::BYTES] {
        let mut out = [0; Self::BYTES];
        let numbers = [self.generation.0, self.through.0, self.at.0].map(u64::to_le_bytes);
        let fields = [ORDER_DOMAIN.as_slice(), &self.pair.0, numbers.as_flattened(), &self.nonce];
        out.iter_mut().zip(fields.iter().copied().flatten()).for_each(|(byte, field)| *byte = *field);
        out
    }

    /// `None` if it is no order.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields::new(bytes);
        let domain = fields.array() == ORDER_DOMAIN;
        let order = Self {
            pair: PairId(fields.array()),
            generation: Generation(fields.u64()),
            through: Epoch(fields.u64()),
            at: Sequence(fields.u64()),
            nonce: fields.array(),
        };
        (fields.done() && domain).then_some(order)
    }
}

impl Proof {
    /// What is signed.
    pub fn encode(&self) -> Vec<u8> {
        [PROOF_DOMAIN.as_slice(), &self.order, &self.floor.0.0.to_le_bytes()].concat()
    }

    /// `None` if it is no proof.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields::new(bytes);
        let domain = fields.array() == PROOF_DOMAIN;
        let proof = Self { order: fields.array(), floor: Floor(Epoch(fields.u64())) };
        (fields.done() && domain).then_some(proof)
    }

    /// Does it say that what this order names is destroyed? `digest` is that of the order as it was signed.
    pub fn answers(&self, order: &Order, digest: &[u8; 32]) -> bool {
        self.order == *digest && self.floor.0 >= order.through
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ledger::Entry;

    const PAIR: PairId = PairId([1; 16]);

    fn order(through: u64, at: u64) -> Order {
        Order { pair: PAIR, generation: Generation(3), through: Epoch(through), at: Sequence(at), nonce: [9; 32] }
    }

    /// Epoch 1 from record 2 on, 2 from 20 on, 3 from 40 on.
    fn ledger() -> Ledger {
        let mut ledger = Ledger::default();
        for (epoch, start) in [(1, 2), (2, 20), (3, 40)] {
            let (key, start) = (Sequence(start - 1), Sequence(start));
            ledger.arm(Entry { epoch: Epoch(epoch), generation: Generation(3), key, start }).unwrap();
        }
        ledger
    }

    fn holding(ledger: &Ledger) -> Holding<'_> {
        Holding {
            pair: PAIR,
            generation: Generation(3),
            floor: Floor::NONE,
            ledger,
            indexed: Sequence(50),
            offered: Sequence(50),
            oldest_live: Some((Epoch(3), BlockCount(8))),
            own_history: false,
            taken_over: false,
        }
    }

    #[test]
    fn a_wish_names_epochs_before_the_one_in_force_or_is_refused() {
        let (five, in_force, floor) = (Epoch(5), Some(Epoch(5)), Floor(Epoch(2)));
        for (wish, in_force, expected) in [
            (Wish::BeforeInForce, in_force, Ok(Epoch(4))),
            (Wish::Through(Epoch(3)), in_force, Ok(Epoch(3))),
            (Wish::Through(Epoch(2)), in_force, Err(WishRefused::Nothing(five))),
            (Wish::Through(five), in_force, Err(WishRefused::InForce(five))),
            (Wish::Through(Epoch(6)), in_force, Err(WishRefused::Future { asked: Epoch(6), in_force: five })),
            (Wish::BeforeInForce, Some(Epoch(3)), Err(WishRefused::Nothing(Epoch(3)))),
            (Wish::BeforeInForce, Some(Epoch(0)), Err(WishRefused::Nothing(Epoch(0)))),
            (Wish::BeforeInForce, None, Err(WishRefused::NoneInForce)),
        ] {
            assert_eq!(wish.last(in_force, floor), expected, "{wish:?} with {in_force:?} in force");
        }
    }

    #[test]
    fn the_keeper_refuses_whatever_a_takeover_could_still_need() {
        let ledger = ledger();
        let (good, empty) = (holding(&ledger), Ledger::default());
        let not_offered =
            |epoch, offered| Err(OrderRefused::NotOffered { offered: Sequence(offered), epoch: Epoch(epoch) });
        let other = Order { pair: PairId([2; 16]), ..order(2, 50) };
        let older = Order { generation: Generation(2), ..order(2, 50) };
        let raise = |through| Ok(Verdict::Raise(Floor(Epoch(through))));
        for (name, order, holding, expected) in [
            ("all before the one in force", order(2, 50), good, raise(2)),
            ("some of them", order(1, 50), good, raise(1)),
            ("nothing lives", order(2, 50), Holding { oldest_live: None, ..good }, raise(2)),
            ("again", order(2, 50), Holding { floor: Floor(Epoch(2)), ..good }, Ok(Verdict::Again(Floor(Epoch(2))))),
            ("other pair", other, good, Err(OrderRefused::OtherPair(PairId([2; 16])))),
            (
                "of an older generation",
                older,
                good,
                Err(OrderRefused::OtherGeneration { found: Generation(2), here: Generation(3) }),
            ),
            ("taken over", order(2, 50), Holding { taken_over: true, ..good }, Err(OrderRefused::TakenOver)),
            ("its own history", order(2, 50), Holding { own_history: true, ..good }, Err(OrderRefused::OwnHistory)),
            (
                "a backlog",
                order(2, 50),
                Holding { indexed: Sequence(49), ..good },
                Err(OrderRefused::Unapplied { indexed: Sequence(49), offered: Sequence(50) }),
            ),
            (
                "of a place to come",
                order(2, 51),
                good,
                Err(OrderRefused::Ahead { at: Sequence(51), indexed: Sequence(50) }),
            ),
            (
                "a lying main site",
                order(2, 50),
                Holding { oldest_live: Some((Epoch(1), BlockCount(7))), ..good },
                Err(OrderRefused::Live { epoch: Epoch(1), blocks: BlockCount(7) }),
            ),
            (
                "held back in the middle of an epoch",
                order(2, 30),
                Holding { indexed: Sequence(30), offered: Sequence(30), ..good },
                not_offered(2, 30),
            ),
            ("the epoch in force", order(3, 50), Holding { oldest_live: None, ..good }, not_offered(3, 50)),
            ("a future epoch", order(9, 50), Holding { oldest_live: None, ..good }, not_offered(3, 50)),
            ("no epoch known", order(2, 50), Holding { ledger: &empty, ..good }, not_offered(0, 50)),
        ] {
            assert_eq!(holding.judge(&order), expected, "{name}");
        }
    }

    #[test]
    fn a_floor_never_sinks_and_takes_nothing_at_or_below_it() {
        let floor = Floor::NONE.raised(Epoch(4)).raised(Epoch(2));
        assert_eq!(floor.takes(Epoch(4)), Err(BelowFloor { epoch: Epoch(4), floor: Epoch(4) }));
        assert_eq!(floor.takes(Epoch(5)), Ok(()));
        assert_eq!(Floor::NONE.takes(Epoch(1)), Ok(()));
    }

    #[test]
    fn a_proof_answers_its_own_order_and_no_other() {
        let proof = Proof { order: [7; 32], floor: Floor(Epoch(4)) };
        assert!(proof.answers(&order(4, 1), &[7; 32]) && proof.answers(&order(3, 1), &[7; 32]));
        assert!(!proof.answers(&order(4, 1), &[8; 32]), "of another order");
        assert!(!proof.answers(&order(5, 1), &[7; 32]), "not so far");
        assert_eq!(Proof::decode(&order(4, 1).encode()), None);
        assert_eq!(Order::decode(&proof.encode()), None);
    }

    proptest! {
        #[test]
        fn orders_and_proofs_come_back_as_they_went(
            through in any::<u64>(), at in any::<u64>(), nonce in any::<[u8; 32]>()
        ) {
            let order = Order { nonce, ..order(through, at) };
            let proof = Proof { order: nonce, floor: Floor(Epoch(through)) };
            let (order_bytes, proof_bytes) = (order.encode(), proof.encode());
            prop_assert_eq!(Order::decode(&order_bytes), Some(order));
            prop_assert_eq!(Proof::decode(&proof_bytes), Some(proof));
            let cut = usize::try_from(at).unwrap_or(0) % proof_bytes.len();
            prop_assert_eq!(Order::decode(&order_bytes[..cut]), None);
            prop_assert_eq!(Proof::decode(&proof_bytes[..cut]), None);
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..140)) {
            let _ = (Order::decode(&bytes), Proof::decode(&bytes));
        }

        /// Whatever the keeper holds, and however the main site lies: no record that is live now, or may be offered later,
        /// falls in an epoch that is destroyed.
        #[test]
        fn no_epoch_is_destroyed_that_a_takeover_could_need(
            gaps in proptest::collection::vec((1..20u64, 1..10u64), 1..8),
            live in proptest::collection::vec(0..200u64, 0..6),
            (indexed, offered) in (0..200u64, 0..200u64),
            (through, at) in (0..10u64, 0..200u64),
        ) {
            let (mut ledger, mut key) = (Ledger::default(), 0);
            for (epoch, (gap, lead)) in (1..).zip(&gaps) {
                key += gap;
                let (key, start) = (Sequence(key), Sequence(key + lead));
                let _ = ledger.arm(Entry { epoch: Epoch(epoch), generation: Generation(3), key, start });
            }
            let epoch_of = |record: u64| ledger.epoch_of(Sequence(record)).map(|entry| entry.epoch);
            let live: Vec<u64> = live.into_iter().filter(|record| *record <= indexed).collect();
            let oldest_live = live.iter().filter_map(|record| epoch_of(*record)).min();
            let holding = Holding {
                ledger: &ledger,
                indexed: Sequence(indexed),
                offered: Sequence(offered),
                oldest_live: oldest_live.map(|epoch| (epoch, BlockCount(1))),
                ..holding(&ledger)
            };
            if let Ok(Verdict::Raise(floor)) = holding.judge(&order(through, at)) {
                for record in live.iter().copied().chain(offered + 1..300) {
                    prop_assert!(epoch_of(record).is_none_or(|epoch| floor.takes(epoch).is_ok()), "record {}", record);
                }
            }
        }
    }
}
