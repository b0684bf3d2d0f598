//! No key, incarnation, sequence number and block ever seal two contents: not across crash, lost tails, a restored
//! snapshot of the disk, a takeover, nor while both sites write.
//!
//! The ledger belongs to the world, so no crash, snapshot or change of sides takes anything out of it: what a site forgot
//! that it sealed counts as much as what a disk still holds. It holds the two defences apart that keep a nonce from
//! coming twice: an incarnation is of one process, and a key seals in one incarnation, as one epoch of one generation.
//! Either alone would do. Lanes of a group are pairs in this respect; their world has no seals.

use std::collections::BTreeMap;

use farseal_core::chain::Digest;
use farseal_core::limits::SEQUENCE_MAX;
use farseal_core::units::{Epoch, Generation, Sequence};

use super::{Checker, Failure};
use crate::model::Rec;
use crate::seal::{KeyId, Sealer};
use crate::stats::Sometimes;

/// Who seals, as the ledger must know it beside what stands in the record.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct By {
    /// The process: no two of a run have the same.
    pub life: u32,
    pub epoch: Epoch,
    pub generation: Generation,
    /// A disk was set back before.
    pub set_back: bool,
}

/// Every nonce that was used, with what it sealed.
#[derive(Clone, Debug, Default)]
pub struct Nonces {
    /// Header and tags, which stand for the blocks.
    sealed: BTreeMap<(Sealer, Sequence), Digest>,
    blocks: u64,
    /// The process that each incarnation is of.
    lives: BTreeMap<u64, u32>,
    keys: BTreeMap<KeyId, (u64, Epoch, Generation)>,
    /// Who sealed each sequence number last.
    numbers: BTreeMap<Sequence, By>,
}

impl Nonces {
    /// A record was sealed, whether or not it reaches a disk. Says which sequence numbers came again, and why that was.
    pub fn sealed(&mut self, rec: &Rec, by: By) -> Result<Option<Sometimes>, Failure> {
        if !rec.header.kind.is_sealed() {
            return Ok(None);
        }
        let (Sealer { key, incarnation }, sequence) = (rec.sealer, rec.header.sequence);
        let fail = |what: String| Err(Failure::new(Checker::Nonce, what));
        if sequence.0 > SEQUENCE_MAX {
            return fail(format!("record {sequence} is sealed beyond the counter's end"));
        }
        match self.sealed.insert((rec.sealer, sequence), rec.digest) {
            Some(before) if before != rec.digest => {
                return fail(format!("key {:x} sealed two contents at record {sequence}", key.0));
            }
            Some(_) => {}
            None => self.blocks += u64::from(rec.header.tags()),
        }
        let life = *self.lives.entry(incarnation).or_insert(by.life);
        if life != by.life {
            return fail(format!(
                "incarnation {incarnation:x} is of two lives, {life} and {}: record {sequence}",
                by.life
            ));
        }
        let own = (incarnation, by.epoch, by.generation);
        let before = *self.keys.entry(key).or_insert(own);
        if before != own {
            return fail(format!("key {:x} seals as {own:?} and sealed as {before:?}: record {sequence}", key.0));
        }
        let last = self.numbers.insert(sequence, by).filter(|last| last.life != by.life);
        Ok(last.map(|last| match last {
            last if last.set_back != by.set_back => Sometimes::NumberSealedAgainAfterSnapshot,
            last if last.generation != by.generation => Sometimes::NumberSealedAgainAfterTakeover,
            _ => Sometimes::NumberSealedAgainAfterCrash,
        }))
    }

    /// The key that sealed as this epoch first.
    pub fn key_of(&self, epoch: Epoch) -> Option<KeyId> {
        self.keys.iter().find(|(_, (_, of, _))| *of == epoch).map(|(key, _)| *key)
    }

    /// Blocks that were sealed; a record without blocks has one tag, and counts as one.
    pub fn len(&self) -> u64 {
        self.blocks
    }

    pub fn is_empty(&self) -> bool {
        self.blocks == 0
    }
}
