//! What a keeper says to an order to retire, as bytes: destroyed with its proof, under way, or why not
//!
//! ```text
//! destroyed = 0 (u8), the proof as it was signed (62), signature (64)
//! else      = code (u8), two numbers that the code gives a meaning (u64, u64)
//! ```

use super::{Order, OrderRefused, PROOF_DOMAIN, Proof};
use crate::bytes::Fields;
use crate::units::{BlockCount, Epoch, Generation, PairId, Sequence};

/// Bytes of an ECDSA P-256 signature, r and s.
pub const SIGNATURE_BYTES: usize = 64;
const PROOF_BYTES: usize = PROOF_DOMAIN.len() + 32 + 8;

/// An order on its way to the keeper.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AskRetire {
    /// Comes back with the answer.
    pub id: u64,
    /// As it was signed: see [`Order::encode`].
    pub order: [u8; Order::BYTES],
    /// The writing site's.
    pub signature: [u8; SIGNATURE_BYTES],
}

/// What the keeper says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Nothing of what the order names is left there.
    Destroyed {
        proof: Proof,
        signature: [u8; SIGNATURE_BYTES],
    },
    /// It looks through its index, or writes parts of its log anew: the order is to be given again.
    UnderWay,
    Refused(Refusal),
}

/// Why the keeper destroys nothing, or cannot finish.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    #[error("the order is not signed by the site that writes")]
    Forged,
    #[error("what was signed is no order to retire: both sites need the same version of farseal")]
    NoOrder,
    #[error(transparent)]
    Order(#[from] OrderRefused),
    #[error(
        "its log is damaged in segment {segment:08x}, which holds keys and cannot be written anew: have it scrubbed"
    )]
    Damaged { segment: u32 },
    #[error("its disk failed: see its log")]
    Store,
}

impl AskRetire {
    pub(crate) fn encode(&self) -> Vec<u8> {
        [self.id.to_le_bytes().as_slice(), &self.order, &self.signature].concat()
    }

    pub(crate) fn decode(fields: &mut Fields<'_>) -> Self {
        Self { id: fields.u64(), order: fields.array(), signature: fields.array() }
    }
}

impl Answer {
    pub fn encode(&self) -> Vec<u8> {
        if let Self::Destroyed { proof, signature } = self {
            return [[0].as_slice(), &proof.encode(), signature].concat();
        }
        let (code, one, two) = self.numbers();
        [[code].as_slice(), &one.to_le_bytes(), &two.to_le_bytes()].concat()
    }

    /// `None` if it is no answer.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields::new(bytes);
        let code = fields.u8();
        if code == 0 {
            let (proof, signature) = (Proof::decode(fields.take(PROOF_BYTES))?, fields.array());
            return fields.done().then_some(Self::Destroyed { proof, signature });
        }
        let (one, two) = (fields.u64(), fields.u64());
        let answer = Self::of_numbers(code, one, two)?;
        (fields.done() && answer.numbers() == (code, one, two)).then_some(answer)
    }

    fn numbers(&self) -> (u8, u64, u64) {
        let refusal = match *self {
            Self::Destroyed { .. } => return (0, 0, 0),
            Self::UnderWay => return (1, 0, 0),
            Self::Refused(refusal) => refusal,
        };
        let order = match refusal {
            Refusal::Forged => return (2, 0, 0),
            Refusal::NoOrder => return (3, 0, 0),
            Refusal::Damaged { segment } => return (4, u64::from(segment), 0),
            Refusal::Store => return (5, 0, 0),
            Refusal::Order(order) => order,
        };
        match order {
            OrderRefused::OtherPair(PairId(id)) => {
                let mut fields = Fields::new(&id);
                (16, fields.u64(), fields.u64())
            }
            OrderRefused::OtherGeneration { found, here } => (17, found.0, here.0),
            OrderRefused::TakenOver => (18, 0, 0),
            OrderRefused::OwnHistory => (19, 0, 0),
            OrderRefused::Unapplied { indexed, offered } => (20, indexed.0, offered.0),
            OrderRefused::Ahead { at, indexed } => (21, at.0, indexed.0),
            OrderRefused::Live { epoch, blocks } => (22, epoch.0, blocks.0),
            OrderRefused::NotOffered { offered, epoch } => (23, offered.0, epoch.0),
            OrderRefused::Pinned { point, epoch } => (24, point.0, epoch.0),
        }
    }

    fn of_numbers(code: u8, one: u64, two: u64) -> Option<Self> {
        let (indexed, offered) = (Sequence(one), Sequence(two));
        let order = match code {
            1 => return Some(Self::UnderWay),
            2 => return Some(Self::Refused(Refusal::Forged)),
            3 => return Some(Self::Refused(Refusal::NoOrder)),
            4 => return Some(Self::Refused(Refusal::Damaged { segment: u32::try_from(one).ok()? })),
            5 => return Some(Self::Refused(Refusal::Store)),
            16 => {
                let mut id = [0; 16];
                id[..8].copy_from_slice(&one.to_le_bytes());
                id[8..].copy_from_slice(&two.to_le_bytes());
                OrderRefused::OtherPair(PairId(id))
            }
            17 => OrderRefused::OtherGeneration { found: Generation(one), here: Generation(two) },
            18 => OrderRefused::TakenOver,
            19 => OrderRefused::OwnHistory,
            20 => OrderRefused::Unapplied { indexed, offered },
            21 => OrderRefused::Ahead { at: Sequence(one), indexed: Sequence(two) },
            22 => OrderRefused::Live { epoch: Epoch(one), blocks: BlockCount(two) },
            23 => OrderRefused::NotOffered { offered: Sequence(one), epoch: Epoch(two) },
            24 => OrderRefused::Pinned { point: Sequence(one), epoch: Epoch(two) },
            _ => return None,
        };
        Some(Self::Refused(Refusal::Order(order)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::retire::Floor;

    #[test]
    fn each_answer_comes_back_as_it_went_and_says_what_to_do() {
        let signature = [5; SIGNATURE_BYTES];
        let refusals: Vec<Refusal> = (2..=24)
            .filter_map(|code| Answer::of_numbers(code, 40, 41))
            .filter_map(|answer| if let Answer::Refused(refusal) = answer { Some(refusal) } else { None })
            .collect();
        let proof = Proof { order: [7; 32], floor: Floor::NONE.raised(Epoch(4)) };
        let mut answers = vec![Answer::Destroyed { proof, signature }, Answer::UnderWay];
        answers.extend(refusals.iter().copied().map(Answer::Refused));
        for answer in answers {
            let bytes = answer.encode();
            assert_eq!(Answer::decode(&bytes), Some(answer));
            assert_eq!(Answer::decode(&bytes[..bytes.len() - 1]), None);
            assert_eq!(Answer::decode(&[bytes.as_slice(), &[0]].concat()), None);
        }
        let said: Vec<String> = refusals.iter().map(ToString::to_string).collect();
        insta::assert_snapshot!(said.join("\n"));
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_each_answer_has_one_form(bytes in proptest::collection::vec(any::<u8>(), 0..140)) {
            if let Some(answer) = Answer::decode(&bytes) {
                prop_assert_eq!(answer.encode(), bytes);
            }
        }
    }
}
