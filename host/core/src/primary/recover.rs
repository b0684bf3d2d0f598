//! What a restart makes of the journal, the dirty map and the marks that were kept beside them.
//!
//! One rule for every driver: where the journal ends, what of it the secondary may lack, what home must be given again.

use crate::chain::Chain;
use crate::journal::{Damage, Entry, Scan, Tear, chain_after, damage};
use crate::owed::OwedMap;
use crate::record::Kind;
use crate::units::{ByteLen, Epoch, Generation, Sequence};

use super::{Recovered, Unacked};

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
}

/// What [`super::Output::PersistOwed`] made durable.
#[derive(Clone, Debug)]
pub struct KeptMap {
    pub map: OwedMap,
    pub acked: Sequence,
    pub acked_chain: Chain,
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
        let Some(first) = scans.first() else {
            found.recovered =
                Self { newest_epoch: kept.newest_epoch, paused: kept.paused, fenced: kept.fenced, ..found.recovered };
            return Ok(found);
        };
        let before = first.header.first.previous();
        let (mut last, mut chain, mut cuts, mut torn) = (before, first.header.chain_before, 0, None);
        let (mut acked, mut acked_chain, mut unacked) = (before, chain, Vec::new());
        let homed = kept.homed.max(before);
        for (index, scan) in scans.iter().enumerate() {
            if scan.header.first != last.next() {
                torn = torn.or(Some(Tear::OutOfOrder { expected: last.next(), found: scan.header.first }));
                break;
            }
            (found.segment, found.valid_bytes) = (index, scan.valid_bytes);
            for entry in &scan.entries {
                let header = &entry.header;
                chain = chain_after(chain, scan.header.chain_before, header, entry.digest);
                last = header.sequence;
                match header.kind {
                    Kind::Gap if kept.owed.is_none() => {
                        // The resync that this gap opened has ended, or there would be a map.
                        unacked.clear();
                        (acked, acked_chain) = (Sequence(header.aux).previous(), scan.header.chain_before);
                    }
                    Kind::Cut => cuts = header.aux,
                    Kind::Data | Kind::Zero | Kind::Trim | Kind::Key | Kind::Cover | Kind::Void | Kind::Gap => {}
                }
                unacked.push(Unacked {
                    sequence: last,
                    kind: header.kind,
                    bytes: ByteLen(u64::try_from(header.record_bytes()).unwrap_or(u64::MAX)),
                    chain,
                    extent: header.extent(),
                    wall: header.wall,
                });
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
        if let Some(damage) = damage(last.next(), promised, torn) {
            return Err(damage);
        }
        let owed = kept.owed.map(|kept| {
            (acked, acked_chain) = (kept.acked, kept.acked_chain);
            kept.map
        });
        unacked.retain(|record| record.sequence > acked);
        found.recovered = Self {
            last,
            chain,
            acked,
            acked_chain,
            unacked,
            homed: homed.min(last),
            newest_epoch: kept.newest_epoch,
            owed,
            paused: kept.paused,
            fenced: kept.fenced,
            cuts,
        };
        Ok(found)
    }
}
