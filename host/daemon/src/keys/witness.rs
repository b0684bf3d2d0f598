//! What a witness says of a main site: when it heard it last, signed, for one question of one site.
//!
//! ```text
//! core:       "fswt" | version u8 | pair 16 | main site's card 32 | asking site's card 32 | challenge 32 |
//!             heard ago ms u64 | beat ms u64 | at ms u64
//! statement:  core | signature 64 of the witness
//! ```
//!
//! Integers are big-endian; a main site that the witness never heard has 2^64-1 for how long ago, and beat 0. The signature is over
//! "farseal v1 witness" || core. The challenge is random and new: an older statement answers no question.

use farseal_core::units::{Millis, PairId, WallTime};
use farseal_core::witness::Said;

use super::card::{PeerCard, SIGNATURE_LEN};
use super::fingerprint::Fingerprint;
use super::identity::Identity;
use super::wire::{Reader, Short};

const MAGIC: &[u8; 4] = b"fswt";
const VERSION: u8 = 1;
const SIGNED: &[u8] = b"farseal v1 witness";
/// Bytes of a statement.
pub const STATEMENT_LEN: usize = 4 + 1 + 16 + 3 * 32 + 3 * 8 + SIGNATURE_LEN;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    pub pair: PairId,
    /// The main site's card.
    pub main: Fingerprint,
    /// Never used before.
    pub challenge: [u8; 32],
}

/// A statement. Nothing in it is proven until [`Statement::verify`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    pub question: Question,
    /// Whoever asked.
    pub asker: Fingerprint,
    pub said: Said,
    /// By the witness's clock.
    pub at: WallTime,
    signature: [u8; SIGNATURE_LEN],
}

/// Why a statement counts for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RefusedStatement {
    #[error("it is no statement that this version reads")]
    Format,
    #[error("it is not signed by the witness")]
    Forged,
    #[error("it answers another question: of another pair, another site, or an earlier one")]
    OtherQuestion,
}

impl From<Short> for RefusedStatement {
    fn from(_: Short) -> Self {
        Self::Format
    }
}

impl Statement {
    /// Says it.
    #[must_use]
    pub fn sign(witness: &Identity, question: Question, asker: Fingerprint, said: Said, at: WallTime) -> Self {
        let signature = witness.sign(&[SIGNED, &core(&question, asker, said, at)].concat());
        Self { question, asker, said, at, signature }
    }

    /// All of its bytes, [`STATEMENT_LEN`].
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        [core(&self.question, self.asker, self.said, self.at).as_slice(), &self.signature].concat()
    }

    /// Reads a statement, all of `bytes`.
    ///
    /// # Errors
    /// [`RefusedStatement::Format`].
    pub fn decode(bytes: &[u8]) -> Result<Self, RefusedStatement> {
        let mut reader = Reader::new(bytes);
        if bytes.len() != STATEMENT_LEN || reader.array()? != *MAGIC || reader.u8()? != VERSION {
            return Err(RefusedStatement::Format);
        }
        let (pair, main) = (PairId(reader.array()?), Fingerprint(reader.array()?));
        let (asker, challenge) = (Fingerprint(reader.array()?), reader.array()?);
        let (ago, beat, at) = (reader.u64()?, reader.u64()?, WallTime(reader.u64()?));
        let said = match (ago, beat) {
            (u64::MAX, 0) => Said::NeverHeard,
            (u64::MAX, _) => return Err(RefusedStatement::Format),
            (ago, gap) => Said::Heard { ago: Millis(ago), gap: Millis(gap) },
        };
        let question = Question { pair, main, challenge };
        Ok(Self { question, asker, said, at, signature: reader.array()? })
    }

    /// Did this witness say it, to this site, in answer to this question?
    ///
    /// # Errors
    /// [`RefusedStatement`], the signature first.
    pub fn verify(
        &self,
        witness: &PeerCard,
        question: &Question,
        asker: Fingerprint,
    ) -> Result<Said, RefusedStatement> {
        let signed = [SIGNED, &core(&self.question, self.asker, self.said, self.at)].concat();
        witness.signing.verify(&signed, &self.signature).map_err(|_| RefusedStatement::Forged)?;
        if self.question == *question && self.asker == asker {
            Ok(self.said)
        } else {
            Err(RefusedStatement::OtherQuestion)
        }
    }
}

fn core(question: &Question, asker: Fingerprint, said: Said, at: WallTime) -> Vec<u8> {
    let (ago, beat) = match said {
        Said::NeverHeard => (u64::MAX, 0),
        // Never the number that stands for never.
        Said::Heard { ago, gap } => (ago.0.min(u64::MAX - 1), gap.0),
    };
    let mut core =
        [MAGIC.as_slice(), &[VERSION], &question.pair.0, &question.main.0, &asker.0, &question.challenge].concat();
    [ago, beat, at.0].iter().for_each(|number| core.extend_from_slice(&number.to_be_bytes()));
    core
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::super::capsule::KemId;
    use super::super::card::NodeName;
    use super::*;

    fn question() -> Question {
        Question { pair: PairId([1; 16]), main: Fingerprint([2; 32]), challenge: [3; 32] }
    }

    #[test]
    fn a_statement_answers_its_own_question_to_its_own_asker_by_its_own_witness_alone() {
        let [witness, other] = ["witness", "other"]
            .map(|name| Identity::generate(NodeName::new(name).unwrap(), KemId::MlKem768P256).unwrap());
        let asker = Fingerprint([4; 32]);
        for said in [Said::NeverHeard, Said::Heard { ago: Millis(7), gap: Millis(1) }] {
            let statement = Statement::sign(&witness, question(), asker, said, WallTime(9));
            let bytes = statement.encode();
            assert_eq!(bytes.len(), STATEMENT_LEN);
            let read = Statement::decode(&bytes).unwrap();
            assert_eq!(read, statement);
            assert_eq!(read.verify(witness.card(), &question(), asker), Ok(said));
            assert_eq!(read.verify(other.card(), &question(), asker), Err(RefusedStatement::Forged));
            for asked in [
                Question { pair: PairId([9; 16]), ..question() },
                Question { main: Fingerprint([9; 32]), ..question() },
                Question { challenge: [9; 32], ..question() },
            ] {
                assert_eq!(read.verify(witness.card(), &asked, asker), Err(RefusedStatement::OtherQuestion));
            }
            let elsewhere = read.verify(witness.card(), &question(), Fingerprint([9; 32]));
            assert_eq!(elsewhere, Err(RefusedStatement::OtherQuestion));
            for at in 0..bytes.len() {
                let mut changed = bytes.clone();
                changed[at] ^= 1;
                let refused =
                    Statement::decode(&changed).and_then(|read| read.verify(witness.card(), &question(), asker));
                assert!(refused.is_err(), "byte {at}");
                assert_eq!(Statement::decode(&bytes[..at]), Err(RefusedStatement::Format));
            }
        }
    }
}
