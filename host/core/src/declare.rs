//! The main site's word that it is lost, or about to be: the keeper takes over with what it has (R27).
//!
//! Unlike a hand-over, nothing has to be whole: what has not arrived stays behind as a branch. The keeper answers before it
//! raises its generation, which then fences the main site. The word of one pair of a group is the word of all of them: the keeper's
//! site takes the group over at a cut that all of its copies hold, or none of it, and answers when it has decided.

use crate::bytes::Fields;
use crate::units::{Generation, Sequence};

/// The main site declares a disaster, as of the generation that it writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Declare {
    pub id: u64,
    pub generation: Generation,
}

/// What a keeper has to take over with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Keeps {
    pub generation: Generation,
    /// What a takeover would open.
    pub offered: Sequence,
    /// That is a state of the history that the main site writes; not so before the first copy is whole.
    pub has_point: bool,
    /// Epochs of it whose keys are not here.
    pub keys_missing: u64,
    /// An escrow site has them, and is asked for them after the takeover.
    pub escrowed: bool,
}

/// What the keeper does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// It takes over at this record, or a later one of a catch-up that ends before.
    TakesOver {
        through: Sequence,
    },
    Refused(Refusal),
}

/// Why the keeper does not take over.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    #[error("it keeps generation {here}, and the word is of another")]
    OtherGeneration { here: Generation },
    #[error(
        "the keys of {epochs} of its epochs are with the escrow site alone: get them there, then `farseal takeover` there"
    )]
    NoKeys { epochs: u64 },
    #[error("the pair's group cannot be taken over there now: the log of that site's lead says why")]
    Grouped,
    #[error("the copy there is not whole yet, and holds no state of this volume that could be taken over")]
    NotWhole,
}

impl Declare {
    /// What a keeper says to it. Of a pair of a group the group decides after that.
    #[must_use]
    pub fn judge(self, keeps: &Keeps) -> Answer {
        if self.generation != keeps.generation {
            Answer::Refused(Refusal::OtherGeneration { here: keeps.generation })
        } else if !keeps.has_point {
            Answer::Refused(Refusal::NotWhole)
        } else if keeps.keys_missing > 0 && !keeps.escrowed {
            Answer::Refused(Refusal::NoKeys { epochs: keeps.keys_missing })
        } else {
            Answer::TakesOver { through: keeps.offered }
        }
    }

    pub(crate) fn encode(self) -> Vec<u8> {
        [self.id.to_le_bytes(), self.generation.0.to_le_bytes()].concat()
    }

    pub(crate) fn decode(fields: &mut Fields<'_>) -> Self {
        Self { id: fields.u64(), generation: Generation(fields.u64()) }
    }
}

impl Answer {
    pub fn encode(self) -> Vec<u8> {
        let (code, number) = match self {
            Self::TakesOver { through } => (0, through.0),
            Self::Refused(Refusal::OtherGeneration { here }) => (1, here.0),
            Self::Refused(Refusal::NoKeys { epochs }) => (2, epochs),
            Self::Refused(Refusal::Grouped) => (3, 0),
            Self::Refused(Refusal::NotWhole) => (4, 0),
        };
        [[code].as_slice(), &u64::to_le_bytes(number)].concat()
    }

    /// `None` if it is no answer.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields::new(bytes);
        let (code, number) = (fields.u8(), fields.u64());
        let answer = match code {
            0 => Self::TakesOver { through: Sequence(number) },
            1 => Self::Refused(Refusal::OtherGeneration { here: Generation(number) }),
            2 => Self::Refused(Refusal::NoKeys { epochs: number }),
            3 => Self::Refused(Refusal::Grouped),
            4 => Self::Refused(Refusal::NotWhole),
            _ => return None,
        };
        (fields.done() && answer.encode() == bytes).then_some(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_counts_in_its_own_generation_over_a_whole_copy_where_the_keys_are_here_or_can_be_asked_for() {
        let word = Declare { id: 1, generation: Generation(4) };
        let (generation, offered) = (Generation(4), Sequence(9));
        let keeps = Keeps { generation, offered, has_point: true, keys_missing: 0, escrowed: false };
        let takes_over = Answer::TakesOver { through: Sequence(9) };
        assert_eq!(word.judge(&keeps), takes_over);
        for here in [Generation(3), Generation(5)] {
            let refused = Answer::Refused(Refusal::OtherGeneration { here });
            assert_eq!(word.judge(&Keeps { generation: here, ..keeps }), refused, "of an old generation, or a new one");
        }
        let part = Keeps { has_point: false, ..keeps };
        assert_eq!(word.judge(&part), Answer::Refused(Refusal::NotWhole));
        let closed = Keeps { keys_missing: 2, ..keeps };
        assert_eq!(word.judge(&closed), Answer::Refused(Refusal::NoKeys { epochs: 2 }));
        assert_eq!(word.judge(&Keeps { escrowed: true, ..closed }), takes_over);
    }

    #[test]
    fn answers_come_back_as_they_went_and_nothing_else_is_one() {
        for answer in [
            Answer::TakesOver { through: Sequence(9) },
            Answer::Refused(Refusal::OtherGeneration { here: Generation(4) }),
            Answer::Refused(Refusal::NoKeys { epochs: 2 }),
            Answer::Refused(Refusal::Grouped),
            Answer::Refused(Refusal::NotWhole),
        ] {
            let bytes = answer.encode();
            assert_eq!(Answer::decode(&bytes), Some(answer));
            assert_eq!(Answer::decode(&bytes[1..]), None);
            assert_eq!(Answer::decode(&[bytes.as_slice(), &[0]].concat()), None);
        }
        assert_eq!(Answer::decode(&[9; 9]), None);
        assert_eq!(Answer::decode(&[3, 1, 0, 0, 0, 0, 0, 0, 0]), None, "one form for each");
    }
}
