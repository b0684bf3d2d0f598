//! What a restart makes of the journal, the dirty map and the marks that were kept beside them.
//!
//! One rule for every driver: where the journal ends, what of it the secondary may lack, what home must be given again.

use crate::chain::{Chain, Digest};
use crate::flow::Chosen;
use crate::frame::HandOver;
use crate::given_up::GivenUp;
use crate::journal::{Damage, Entry, Scan, Tear, chain_after, damage};
use crate::lineage::Lineage;
use crate::owed::OwedMap;
use crate::record::{CutMark, Header, Kind};
use crate::units::{BlockBytes, BlockCount, ByteLen, Epoch, Generation, Sequence};

use super::{Mode, Recovered, Unacked};

/// What was kept beside the journal.
#[derive(Clone, Debug)]
pub struct Kept {
    /// Everything up to here is durable at home; the journal's first record says the same of what lies before it.
    pub homed: Sequence,
    /// The newest epoch that was ever prepared.
    pub newest_epoch: Epoch,
    /// The dirty map, with how far the secondary was known to be when it was made durable.
    pub owed: Option<KeptMap>,
    /// A pause by the operator was in force.
    pub paused: bool,
    /// The other site has taken over, as this generation.
    pub fenced: Option<Generation>,
    /// The mode that an operator chose last.
    pub mode: Option<Mode>,
    /// What else an operator chose.
    pub chosen: Chosen,
    /// This site was handing over.
    pub handing_over: Option<HandOver>,
}

/// What [`super::Output::PersistOwed`] made durable.
#[derive(Clone, Debug)]
pub struct KeptMap {
    pub map: OwedMap,
    /// Where the secondary may be, as the map's file says; `None` where it does not.
    pub given_up: Option<GivenUp>,
    pub acked: Sequence,
    pub acked_chain: Chain,
}

/// A record of the journal and the running hash around it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Logged {
    pub header: Header,
    pub digest: Digest,
    /// For a gap, where the running hash starts anew.
    pub chain_before: Chain,
    pub chain: Chain,
}

/// What a journal holds.
#[derive(Clone, Debug)]
pub struct Found {
    pub recovered: Recovered,
    /// The segment in which the journal ends, counted from 0, and the bytes of its valid part. What follows was never
    /// promised; the driver cuts it off, durably, before it appends.
    pub segment: usize,
    pub valid_bytes: u64,
    /// To be written to home, in this order, before the machine starts: (segment, record).
    pub replay: Vec<(usize, Entry)>,
}

impl Recovered {
    /// Reads the scans of a journal's segments, oldest first. Fails where promised records are damaged: nothing is guessed.
    pub fn from_journal(scans: &[Scan], kept: Kept) -> Result<Found, Damage> {
        let mut found = Found { recovered: Self::fresh(), segment: 0, valid_bytes: 0, replay: Vec::new() };
        let (before, chain_before) = scans
            .first()
            .map_or((Sequence::NONE, Chain::START), |first| (first.header.first.previous(), first.header.chain_before));
        let (mut last, mut chain, mut torn, mut records) = (before, chain_before, None, Vec::new());
        let homed = kept.homed.max(before);
        for (index, scan) in scans.iter().enumerate() {
            if scan.header.first != last.next() {
                torn = torn.or(Some(Tear::OutOfOrder { expected: last.next(), found: scan.header.first }));
                break;
            }
            (found.segment, found.valid_bytes) = (index, scan.valid_bytes);
            for entry in &scan.entries {
                let logged = Logged::after(chain, scan.header.chain_before, entry.header, entry.digest);
                (last, chain) = (logged.header.sequence, logged.chain);
                records.push(logged);
                if last > homed {
                    found.replay.push((index, *entry));
                }
            }
            torn = scan.torn;
            if torn.is_some() {
                break;
            }
        }
        let promised = scans.iter().map(|scan| scan.durable).max().unwrap_or_default();
        let promised = kept.owed.as_ref().map_or(promised, |kept| kept.acked.max(promised));
        if let Some(damage) = damage(last.next(), promised, torn).filter(|_| !scans.is_empty()) {
            return Err(damage);
        }
        found.recovered = Self::from_records(before, chain_before, &records, kept);
        Ok(found)
    }

    /// What the journal's valid records and the kept marks say. `before` is the last record that left the journal, which
    /// the secondary acknowledged or the map owes, and `chain_before` the running hash there.
    pub fn from_records(before: Sequence, chain_before: Chain, records: &[Logged], kept: Kept) -> Self {
        let (mut acked, mut acked_chain) = (before, chain_before);
        let mut from = 0;
        // A gap without a map opened a resync that has ended: what it gave up was copied since.
        let gap = records.iter().rposition(|record| record.header.kind == Kind::Gap && kept.owed.is_none());
        if let Some((index, gap)) = gap.and_then(|index| Some((index, records.get(index)?))) {
            (acked, acked_chain) = (Sequence(gap.header.aux).previous(), gap.chain_before);
            from = index;
        }
        let mut given_up = Some(GivenUp::default());
        let owed = kept.owed.map(|kept| {
            (acked, acked_chain) = (kept.acked, kept.acked_chain);
            given_up = kept.given_up;
            kept.map
        });
        if let Some(given_up) = given_up.as_mut().filter(|_| owed.is_some()) {
            // What stands in the journal may have been sent, and what left it since the map was written was acknowledged
            // or never sent.
            given_up.push(before, chain_before);
            records.iter().for_each(|record| given_up.push(record.header.sequence, record.chain));
        }
        let unacked = records.iter().skip(from).filter(|record| record.header.sequence > acked).map(Logged::unacked);
        let cuts = records.iter().rev().find_map(|record| match record.header.cut_mark()? {
            CutMark::Own(count) => Some(count),
            CutMark::Boundary { .. } | CutMark::Confirmed { .. } | CutMark::Name(_) => None,
        });
        let group_cut = records.iter().filter_map(|record| match record.header.cut_mark()? {
            CutMark::Boundary { cut, .. } | CutMark::Confirmed { cut, .. } => Some(cut),
            CutMark::Own(_) | CutMark::Name(_) => None,
        });
        let last = records.last();
        Self {
            last: last.map_or(before, |record| record.header.sequence),
            chain: last.map_or(chain_before, |record| record.chain),
            acked,
            acked_chain,
            unacked: unacked.collect(),
            homed: kept.homed.max(before).min(last.map_or(before, |record| record.header.sequence)),
            newest_epoch: kept.newest_epoch,
            owed,
            given_up,
            paused: kept.paused,
            fenced: kept.fenced,
            mode: kept.mode,
            chosen: kept.chosen,
            // Whoever asks the other site places nothing behind the cut: with more here, it was given up.
            handing_over: kept
                .handing_over
                .filter(|hand_over| last.is_none_or(|last| last.header.sequence == hand_over.at)),
            cuts: cuts.unwrap_or(0),
            group_cut: group_cut.max().unwrap_or_default(),
        }
    }
}

/// Where a site's volume may differ from another history.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Differing {
    pub map: OwedMap,
    /// It is known which granules; else all of them count.
    pub known: bool,
}

impl Recovered {
    /// Where the volume that this journal led to may differ from a history that forked from it: what was written above the
    /// fork. Nothing is known where the fork lies below what the secondary acknowledged, or where it was never here.
    pub fn differing(&self, from: &Lineage, volume: BlockCount, block_bytes: BlockBytes) -> Differing {
        let at = self.unacked.iter().find(|record| record.sequence == from.fork).map(|record| record.chain);
        let chain = if from.fork == self.acked { Some(self.acked_chain) } else { at };
        let told = from.fork_chain != Chain::UNKNOWN;
        let other = told && chain.is_some_and(|chain| chain != from.fork_chain);
        if from.fork < self.acked || from.fork > self.last || other {
            return Differing { map: OwedMap::full(volume, block_bytes), known: false };
        }
        let mut map = self.owed.clone().unwrap_or_else(|| OwedMap::empty(volume, block_bytes));
        map.forget_copies();
        let above = self.unacked.iter().filter(|record| record.sequence > from.fork);
        above.filter_map(|record| record.extent).for_each(|extent| map.mark(extent));
        Differing { map, known: true }
    }
}

impl Logged {
    /// The record that follows a running hash, in a segment that began at another.
    pub fn after(chain: Chain, at_gap: Chain, header: Header, digest: Digest) -> Self {
        let chain_before = if header.kind == Kind::Gap { at_gap } else { chain };
        Self { header, digest, chain_before, chain: chain_after(chain, at_gap, &header, digest) }
    }

    fn unacked(&self) -> Unacked {
        Unacked {
            sequence: self.header.sequence,
            kind: self.header.kind,
            bytes: ByteLen(u64::try_from(self.header.record_bytes()).unwrap_or(u64::MAX)),
            chain: self.chain,
            extent: self.header.extent(),
            wall: self.header.wall,
        }
    }
}
