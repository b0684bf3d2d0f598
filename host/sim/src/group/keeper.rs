//! A lane's copy at the keeping site: its machine over a log that forgets what was not synced.

use std::collections::{BTreeMap, BTreeSet};

use farseal_core::group::OfferLimit;
use farseal_core::record::{CutMark, Kind};
use farseal_core::retire::Floor;
use farseal_core::secondary::{Recovered, Secondary, Settings};
use farseal_core::units::{BlockCount, CutNumber, Epoch, Generation, Now, Sequence};

use super::lane::{Rec, apply};
use crate::dice::Dice;
use crate::disk::{to_usize, wide};
use crate::group::{BLOCKS, pair};
use crate::seal::Stamp;
use crate::world::{VOLUME, block_bytes};

#[derive(Debug)]
pub struct Keeper {
    pub index: usize,
    pub machine: Option<Secondary>,
    pub life: u64,
    log: Vec<Rec>,
    durable: usize,
    generation: Generation,
    /// Where it was taken over: the last record that is offered, and the group's cut.
    taken: Option<(Sequence, CutNumber)>,
    /// By its lane's wish.
    handed: bool,
    pub stored: u64,
    pub incoming: Option<Rec>,
    /// The revision of the cuts that its lead was told of.
    pub told: Option<u64>,
    /// Words of a disaster that wait for what its group does.
    pub words: Vec<u64>,
    /// When what it said last arrives at its lead.
    pub said_at: u64,
    /// Durable.
    pub floor: Floor,
    /// The checker's: the most that was ever offered.
    pub was_offered: Sequence,
}

impl Keeper {
    pub fn new(index: usize) -> Self {
        Self {
            index,
            machine: None,
            life: 0,
            log: Vec::new(),
            durable: 0,
            generation: Generation(0),
            taken: None,
            handed: false,
            stored: 0,
            incoming: None,
            told: None,
            words: Vec::new(),
            said_at: 0,
            floor: Floor::NONE,
            was_offered: Sequence::NONE,
        }
    }

    pub fn crash(&mut self, dice: &mut Dice) {
        self.machine = None;
        self.life += 1;
        self.words.clear();
        let kept = self.durable + to_usize(dice.below(wide(self.log.len() - self.durable) + 1));
        self.log.truncate(kept);
        self.durable = kept;
    }

    pub fn restart(&mut self, now: Now) {
        let settings = Settings {
            layout: None,
            pair: pair(self.index),
            volume: VOLUME,
            encrypted: false,
            block_bytes: block_bytes(),
            blocks: BlockCount(BLOCKS),
        };
        // What came after a takeover belongs to no history here.
        let counts = |rec: &&Rec| self.taken.is_none_or(|(through, _)| rec.header.sequence <= through);
        let (limit, group_cut) = match self.taken {
            Some((_, cut)) => (OfferLimit::Everything, cut),
            None => (OfferLimit::Cut(CutNumber::NONE), CutNumber::NONE),
        };
        let recovered = Recovered {
            generation: self.generation,
            taken_over: self.taken.is_some(),
            above: self.log.iter().filter(counts).map(|rec| (rec.header, rec.digest)).collect(),
            limit,
            group_cut,
            ..Recovered::fresh()
        };
        (self.stored, self.incoming, self.told) = (0, None, None);
        self.machine = Some(Secondary::new(now, settings, recovered));
    }

    pub fn keep_generation(&mut self, generation: Generation, taken_over: bool) {
        self.generation = generation;
        if let Some(machine) = self.machine.as_ref().filter(|_| taken_over) {
            self.taken = Some((machine.fork().0, machine.group_cut()));
            self.handed = machine.was_handed_over();
        }
    }

    pub fn is_taken(&self) -> bool {
        self.taken.is_some()
    }

    /// What was taken over: through which record, at which of the group's cuts.
    pub fn taken(&self) -> Option<(Sequence, CutNumber)> {
        self.taken
    }

    /// Its lane handed over to it.
    pub fn is_handed_over(&self) -> bool {
        self.handed
    }

    /// The boundary of this cut is durable here.
    pub fn holds(&self, cut: CutNumber) -> bool {
        let is = |rec: &Rec| matches!(rec.header.cut_mark(), Some(CutMark::Boundary { cut: held, .. }) if held == cut);
        self.log.iter().take(self.durable).any(is)
    }

    /// Cuts whose boundary is durable here, and not given up.
    pub fn held(&self) -> BTreeSet<CutNumber> {
        let durable = || self.log.iter().take(self.durable).map(|rec| rec.header);
        let gaps: Vec<(Sequence, Sequence)> = durable()
            .filter(|header| header.kind == Kind::Gap)
            .map(|header| (Sequence(header.aux), header.sequence))
            .collect();
        let stands = |at: Sequence| !gaps.iter().any(|(first, gap)| *first <= at && at < *gap);
        let boundaries = durable().filter(|header| stands(header.sequence)).filter_map(|header| header.cut_mark());
        let cut = |mark| if let CutMark::Boundary { cut, .. } = mark { Some(cut) } else { None };
        boundaries.filter_map(cut).collect()
    }

    pub fn store(&mut self) {
        self.stored += 1;
        self.log.extend(self.incoming.take());
    }

    pub fn end(&self) -> usize {
        self.log.len()
    }

    pub fn synced(&mut self, end: usize) {
        self.durable = self.durable.max(end);
    }

    pub fn key_at(&self, sequence: Sequence) -> Option<Rec> {
        self.log.iter().find(|rec| rec.header.sequence == sequence && rec.key.is_some()).cloned()
    }

    /// The volume after everything up to `through` that counts: what a gap gave up does not.
    pub fn image(&self, through: Sequence) -> Vec<Stamp> {
        let mut image = vec![0; to_usize(BLOCKS)];
        self.counted(through).iter().for_each(|rec| apply(&mut image, &rec.header, &rec.stamps));
        image
    }

    /// The record that says what a block holds then, and its epoch.
    pub fn sources(&self, through: Sequence) -> BTreeMap<usize, (Sequence, Epoch)> {
        let mut sources = BTreeMap::new();
        for rec in self.counted(through).into_iter().filter(|rec| rec.header.kind == Kind::Data) {
            let first = to_usize(rec.header.lba.0);
            sources.extend((first..first + rec.stamps.len()).map(|block| (block, (rec.header.sequence, rec.epoch))));
        }
        sources
    }

    fn counted(&self, through: Sequence) -> Vec<&Rec> {
        let records: BTreeMap<Sequence, &Rec> = self.log.iter().rev().map(|rec| (rec.header.sequence, rec)).collect();
        let gaps: BTreeMap<Sequence, Sequence> = self
            .log
            .iter()
            .filter(|rec| rec.header.kind == Kind::Gap && rec.header.sequence <= through)
            .map(|rec| (Sequence(rec.header.aux), rec.header.sequence))
            .collect();
        let mut counted = Vec::new();
        let mut at = Sequence(1);
        while at <= through {
            at = gaps.get(&at).copied().unwrap_or(at);
            counted.extend(records.get(&at));
            at = at.next();
        }
        counted
    }
}
