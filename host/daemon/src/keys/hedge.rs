//! What peers said when a path came up: mixed into every key that is drawn, so that two machines that go on from one snapshot, its
//! memory and random source included, draw no key twice once they have connected.

use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest as _, Sha256};

/// Every challenge heard so far, as one value. Not secret.
#[derive(Clone, Debug, Default)]
pub struct Hedge(Arc<Mutex<[u8; 32]>>);

impl Hedge {
    /// The peer's challenge of a new path: SHA-256(value so far || challenge) is the next value.
    pub fn hear(&self, challenge: &[u8; 32]) {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *heard = Sha256::new().chain_update(*heard).chain_update(challenge).finalize().into();
    }

    /// Zeroes before the first challenge.
    #[must_use]
    pub fn value(&self) -> [u8; 32] {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_of_one_snapshot_part_at_the_next_challenge_and_stay_apart() {
        let (one, other) = (Hedge::default(), Hedge::default());
        one.hear(&[1; 32]);
        other.hear(&[1; 32]);
        assert_eq!(one.value(), other.value());
        one.hear(&[2; 32]);
        other.hear(&[3; 32]);
        assert_ne!(one.value(), other.value());
        one.hear(&[4; 32]);
        other.hear(&[4; 32]);
        assert_ne!(one.value(), other.value(), "what was heard before counts");
    }
}
