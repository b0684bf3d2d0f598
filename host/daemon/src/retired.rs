//! What was retired of a pair's keys at this site: the floor below which no key is taken, and what was signed for it; one small file of the pair's folder.

use std::path::{Path, PathBuf};

use farseal_core::retire::Floor;
use farseal_core::units::{Epoch, Sequence, WallTime};
use serde::{Deserialize, Serialize};

use crate::store::{StoreError, files};

/// The retirings that are kept, the newest: one a day for three years.
const KEPT_MAX: usize = 1024;
/// A file that holds more is none.
const BYTES_MAX: u64 = 4 << 20;

/// What a site remembers of it, whatever it does for the pair.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retired {
    pub destroyed: Destroyed,
    /// No log of this site holds a key record up to this floor any more.
    pub swept: Floor,
    /// Oldest first.
    pub retirings: Vec<Retiring>,
}

/// Which keys are taken no more.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Destroyed {
    pub floor: Floor,
    /// The keys that were at or below the floor lie before this record. They were checked when they came; what comes after it is
    /// new, and refused.
    pub at: Sequence,
}

/// One of them. At the writing site with the keeper's proof, at the keeper until it has given one.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retiring {
    /// The last epoch that went.
    pub through: Epoch,
    pub when: WallTime,
    /// As they were signed, in hexadecimal digits.
    pub order: Signed,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<Signed>,
    /// Deposits that the escrow site said to have destroyed.
    #[serde(default)]
    pub deposits: u64,
}

/// What was signed, and the signature.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signed {
    pub message: String,
    pub signature: String,
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RetiredError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(
        "{}: {source}; it says which keys are destroyed and taken no more: restore it from a copy of the node's state \
         directory", path.display()
    )]
    Unreadable { path: PathBuf, source: serde_json::Error },
}

impl Retired {
    /// Of the pair whose folder this is; nothing is retired where there is no file.
    pub fn load(directory: &Path) -> Result<Self, RetiredError> {
        let path = path(directory);
        match files::read_if_there(&path, BYTES_MAX)? {
            Some(bytes) => serde_json::from_slice(&bytes).map_err(|source| RetiredError::Unreadable { path, source }),
            None => Ok(Self::default()),
        }
    }

    /// Durable when this returns.
    pub fn save(&self, directory: &Path) -> Result<(), StoreError> {
        files::write_atomically(&path(directory), &serde_json::to_vec_pretty(self).unwrap_or_default())
    }

    /// Adds a retiring, or puts it in the place of the one that went as far. The floor never sinks.
    pub fn add(&mut self, retiring: Retiring, at: Sequence) {
        let raised = self.destroyed.floor.raised(retiring.through);
        if raised != self.destroyed.floor {
            self.destroyed = Destroyed { floor: raised, at };
        }
        self.retirings.retain(|known| known.through != retiring.through);
        self.retirings.push(retiring);
        let over = self.retirings.len().saturating_sub(KEPT_MAX);
        self.retirings.drain(..over);
    }
}

fn path(directory: &Path) -> PathBuf {
    directory.join("retired.json")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn retiring(through: u64) -> Retiring {
        let signed = |message: &str| Signed { message: message.into(), signature: "00".into() };
        Retiring {
            through: Epoch(through),
            when: WallTime(7),
            order: signed("0a"),
            proof: Some(signed("0b")),
            deposits: 2,
        }
    }

    #[test]
    fn what_was_retired_is_found_again_and_the_floor_never_sinks() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(Retired::load(directory.path()).unwrap(), Retired::default());
        let mut retired = Retired::default();
        for (through, at) in [(4, 40), (9, 90), (6, 95)] {
            retired.add(retiring(through), Sequence(at));
        }
        retired.save(directory.path()).unwrap();
        let found = Retired::load(directory.path()).unwrap();
        assert_eq!(found, retired);
        assert_eq!((found.destroyed.floor.epoch(), found.destroyed.at), (Epoch(9), Sequence(90)));
        let kept = || found.retirings.iter().map(|retiring| retiring.through.0);
        let of = |epoch| kept().filter(|through| epoch <= *through).min();
        assert_eq!([1, 4, 5, 9, 10].map(of), [Some(4), Some(4), Some(6), Some(9), None]);
    }

    #[test]
    fn a_file_that_cannot_be_read_is_no_empty_one() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(path(directory.path()), b"{}").unwrap();
        assert!(matches!(Retired::load(directory.path()), Err(RetiredError::Unreadable { .. })));
    }
}
