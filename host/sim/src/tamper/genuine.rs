//! What a writing site has really written: a history of a few hundred records under a score of keys, and all that follows
//! from it at every place.

use std::collections::BTreeMap;

use farseal_core::chain::{Chain, Digest};
use farseal_core::journal::scan_record;
use farseal_core::ledger::{Entry, Ledger};
use farseal_core::record::{CutMark, Header, Kind};
use farseal_core::units::{Epoch, Generation, Lba, PairId, Sequence, WallTime};

use crate::dice::Dice;
use crate::disk::{to_usize, wide};
use crate::seal::{Facts, KeyId, Sealer, Stamp, seal};
use crate::world::{VOLUME, block_bytes};

/// Records of a history.
pub const RECORDS: u64 = 320;
/// Blocks of its volume.
pub const BLOCKS: u64 = 24;

/// A record as it was sealed.
#[derive(Clone, Debug)]
pub struct Whole {
    pub header: Header,
    pub bytes: Vec<u8>,
    pub digest: Digest,
    pub stamps: Vec<Stamp>,
}

/// A history, and at each of its places the running hash and the ledger.
#[derive(Clone, Debug)]
pub struct Genuine {
    pub records: Vec<Whole>,
    chains: Vec<Chain>,
    ledgers: Vec<Ledger>,
    /// Every key that it ever brought, whether or not it came into force.
    pub keys: BTreeMap<Epoch, Sealer>,
}

struct Writer {
    dice: Dice,
    pair: PairId,
    generation: Generation,
    genuine: Genuine,
    sealer: Sealer,
    coming: Option<(Epoch, Sequence)>,
    stamp: Stamp,
}

impl Genuine {
    /// What a pair writes in one generation; the seed decides the rest.
    pub fn write(seed: u64, pair: PairId, generation: Generation) -> Self {
        let genuine = Self {
            records: Vec::new(),
            chains: vec![Chain::START],
            ledgers: vec![Ledger::default()],
            keys: BTreeMap::new(),
        };
        let dice = Dice::new(seed, generation.0 ^ u64::from(pair.0[0]) << 8);
        let sealer = Sealer::default();
        let mut writer = Writer { dice, pair, generation, genuine, sealer, coming: None, stamp: 0 };
        writer.key(1);
        while wide(writer.genuine.records.len()) < RECORDS {
            writer.next();
        }
        writer.genuine
    }

    pub fn get(&self, sequence: Sequence) -> Option<&Whole> {
        self.records.get(to_usize(sequence.0).checked_sub(1)?)
    }

    /// The running hash after this record.
    pub fn chain(&self, sequence: Sequence) -> Chain {
        self.chains.get(to_usize(sequence.0)).copied().unwrap_or(Chain::UNKNOWN)
    }

    /// Which epoch opens what, as far as the records up to this one say.
    pub fn ledger(&self, sequence: Sequence) -> Ledger {
        self.ledgers.get(to_usize(sequence.0)).cloned().unwrap_or_default()
    }
}

impl Writer {
    fn next(&mut self) {
        let next = Sequence(wide(self.genuine.records.len()) + 1);
        if let Some((epoch, start)) = self.coming {
            if next == start {
                self.sealer = self.genuine.keys.get(&epoch).copied().unwrap_or_default();
                self.coming = None;
            } else if next.next() == start && self.dice.chance(150) {
                self.coming = None;
                return self.place(Kind::Void, 0, epoch.0, None);
            }
        } else if self.dice.chance(100) {
            let lead = self.dice.between(2, 7);
            return self.key(lead);
        }
        let blocks = u32::try_from(self.dice.between(1, 5)).unwrap_or(1);
        match self.dice.below(12) {
            0 => self.place(Kind::Zero, blocks, 0, None),
            1 => self.place(Kind::Trim, blocks, 0, None),
            2 => self.place(Kind::Cover, blocks, 0, None),
            3 => self.place(Kind::Cut, 0, CutMark::Own(next.0).encode(), None),
            _ => self.place(Kind::Data, blocks, 0, None),
        }
    }

    /// A key record whose epoch begins so many records later.
    fn key(&mut self, lead: u64) {
        let at = Sequence(wide(self.genuine.records.len()) + 1);
        let epoch = Epoch(wide(self.genuine.keys.len()) + 1);
        let sealer = Sealer { key: KeyId(self.dice.draw()), incarnation: self.dice.draw() };
        let facts = Facts { epoch, start: at.plus(lead), sealer };
        self.genuine.keys.insert(epoch, sealer);
        self.coming = Some((epoch, facts.start));
        self.place(Kind::Key, 1, 0, Some(facts));
    }

    fn place(&mut self, kind: Kind, blocks: u32, aux: u64, facts: Option<Facts>) {
        let sequence = Sequence(wide(self.genuine.records.len()) + 1);
        let lba = if kind.touches_volume() { self.dice.below(BLOCKS - u64::from(blocks)) } else { 0 };
        let header = Header {
            kind,
            encrypted: true,
            stack: 0,
            search_tags: farseal_core::layout::SearchTags::NONE,
            pair: self.pair,
            volume: VOLUME,
            generation: self.generation,
            sequence,
            lba: Lba(lba),
            blocks,
            block_bytes: block_bytes(),
            wall: WallTime(1_700_000_000_000 + sequence.0),
            aux,
        };
        let stamps: Vec<Stamp> = if kind == Kind::Data {
            (0..u64::from(blocks)).map(|at| self.stamp + at + 1).collect()
        } else {
            Vec::new()
        };
        self.stamp += wide(stamps.len());
        let bytes = seal(&header, self.sealer, &stamps, facts);
        let Ok((entry, _)) = scan_record(&bytes, sequence) else { return };
        let mut ledger = self.genuine.ledger(sequence.previous());
        if let Some(Facts { epoch, start, .. }) = facts {
            ledger.arm(Entry { epoch, generation: self.generation, key: sequence, start }).unwrap_or_default();
        }
        if kind == Kind::Void {
            ledger.void(Epoch(aux), sequence);
        }
        self.genuine.chains.push(self.genuine.chain(sequence.previous()).after(entry.digest));
        self.genuine.ledgers.push(ledger);
        self.genuine.records.push(Whole { header, bytes, digest: entry.digest, stamps });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::open;
    use crate::world::PAIR;

    #[test]
    fn a_genuine_history_opens_record_by_record_under_its_own_ledger() {
        let genuine = Genuine::write(1, PAIR, Generation(2));
        let ledger = genuine.ledger(Sequence(RECORDS));
        for whole in genuine.records.iter().filter(|whole| whole.header.kind.is_sealed()) {
            let epoch = ledger.epoch_at(whole.header.sequence);
            let sealer = genuine.keys.get(&epoch).copied().unwrap_or_default();
            assert_eq!(open(&whole.header, &whole.bytes, true, sealer), Ok(whole.stamps.clone()));
        }
        for kind in [Kind::Data, Kind::Zero, Kind::Trim, Kind::Key, Kind::Cover, Kind::Void, Kind::Cut] {
            assert!(genuine.records.iter().any(|whole| whole.header.kind == kind), "{kind:?}");
        }
    }
}
