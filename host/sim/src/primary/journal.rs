//! A primary's commits: sealed, appended, and durable when they are.

use std::rc::Rc;

use farseal_core::chain::Chain;
use farseal_core::journal::{COMMIT_HEADER_BYTES, CommitHeader, chain_after};
use farseal_core::primary::{Input, Planned, Slots, Source, StoreFault};
use farseal_core::record::{Header, Kind};
use farseal_core::rotation::How;
use farseal_core::units::{ByteLen, Extent, Lba, Path, Sequence};

use super::{Commit, PrimaryEvent, digest_of};
use crate::check;
use crate::check::nonce::By;
use crate::check::{Checker, Failure};
use crate::disk::{to_usize, wide};
use crate::model::Rec;
use crate::mutation::Mutation;
use crate::seal::{Facts, Sealer, seal};
use crate::stats::Sometimes;
use crate::world::{Event, Outcome, PAIR, VOLUME, World, block_bytes};

impl World {
    pub(super) fn commit(&mut self, planned: &[Planned], durable: Sequence, restart: Option<Chain>) -> Outcome {
        let mut records = Vec::new();
        for planned in planned {
            let again = self.settings.mutation == Some(Mutation::CarriedKeySealedAgain);
            let rec = match self.slots.carried(planned) {
                Some(_) if again => self.seal(&Planned { wall: self.clock().wall, ..*planned })?,
                Some(rec) => rec,
                None => self.seal(planned)?,
            };
            self.note_sealed(&rec)?;
            records.push(rec);
        }
        let bytes = records.iter().map(|rec| wide(rec.bytes.len())).sum();
        check::bounds::commit(records.len(), bytes)?;
        self.primary.commits.push_back(Commit { records, durable, restart });
        self.append_next();
        Ok(())
    }

    fn note_sealed(&mut self, rec: &Rec) -> Outcome {
        let site = &self.primary;
        let generation = site.settings.generation;
        let by = By { life: site.life, epoch: rec.epoch, generation, set_back: self.rollback.happened() };
        if let Some(again) = self.nonces.sealed(rec, by)? {
            self.stats.see(again);
        }
        let (now, limits) = (self.clock().instant, self.primary.settings.key_limits);
        self.ceilings.sealed(now, limits, self.primary.life, rec)
    }

    /// What waits for room is sealed once more, as of now.
    pub(super) fn seal_again(&mut self) -> Outcome {
        let now = self.clock().wall;
        let Some(mut commit) = self.primary.commits.pop_front() else { return Ok(()) };
        for rec in &mut commit.records {
            rec.header.wall = now;
            let bytes = seal(&rec.header, rec.sealer, &rec.stamps, rec.facts);
            rec.digest = digest_of(&rec.header, &bytes);
            rec.bytes = Rc::new(bytes);
            self.note_sealed(rec)?;
        }
        self.primary.commits.push_front(commit);
        Ok(())
    }

    pub(super) fn seal(&mut self, planned: &Planned) -> Result<Rec, Failure> {
        if matches!(planned.source, Source::Sham { .. }) {
            self.stats.see(Sometimes::SlotCovered);
        } else if self.disguise.stands && matches!(planned.source, Source::Capsules { how: How::InBand, .. }) {
            self.stats.see(Sometimes::KeyInSlot);
        }
        let (mut stamps, mut order, mut facts) = (Vec::new(), None, None);
        match planned.source {
            Source::Buffer { ticket, skip } => {
                let entry = self.primary.buffer.iter_mut().find(|entry| entry.ticket == ticket);
                let (Some(entry), Some(extent)) = (entry, planned.extent) else {
                    return Err(Failure::new(Checker::Panic, format!("{planned:?}: its ticket is not in the buffer")));
                };
                let from = to_usize(skip.0);
                if !entry.stamps.is_empty() {
                    stamps = entry.stamps[from..from + to_usize(extent.blocks().0)].to_vec();
                }
                if skip.0 + extent.blocks().0 == entry.extent.blocks().0 {
                    entry.last = Some(planned.sequence);
                    order = entry.order;
                }
            }
            Source::Capsules { start, how: _ } => {
                check::recoverable::placed(self, planned.epoch)?;
                let key = self.primary.keys.get(&planned.epoch).copied().unwrap_or_default();
                let sealer = Sealer { key, incarnation: self.primary.incarnation };
                facts = Some(Facts { epoch: planned.epoch, start, sealer });
            }
            Source::Sham { .. } | Source::Header | Source::Random => {}
        }
        if planned.kind == Kind::Gap {
            self.stats.see(Sometimes::Resync);
        }
        let blocks = match planned.kind {
            Kind::Key | Kind::Cover => planned.body_blocks,
            Kind::Data | Kind::Zero | Kind::Trim | Kind::Void | Kind::Cut | Kind::Gap => {
                planned.extent.map_or(0, |extent| u32::try_from(extent.blocks().0).unwrap_or(u32::MAX))
            }
        };
        let header = Header {
            kind: planned.kind,
            encrypted: true,
            stack: 0,
            search_tags: farseal_core::layout::SearchTags::NONE,
            pair: PAIR,
            volume: VOLUME,
            generation: self.primary.settings.generation,
            sequence: planned.sequence,
            lba: planned.extent.map_or(Lba(0), Extent::first),
            blocks,
            block_bytes: block_bytes(),
            wall: planned.wall,
            aux: planned.aux,
        };
        let epoch = match self.settings.mutation {
            Some(Mutation::SealedTooEarly) => {
                self.primary.keys.last_key_value().map_or(planned.epoch, |(epoch, _)| *epoch)
            }
            _ => planned.epoch,
        };
        let key = self.primary.keys.get(&epoch).copied().unwrap_or_default();
        let sealer = if planned.kind.is_sealed() {
            Sealer { key, incarnation: self.primary.incarnation }
        } else {
            Sealer::default()
        };
        let bytes = seal(&header, sealer, &stamps, facts);
        let digest = digest_of(&header, &bytes);
        Ok(Rec { header, digest, sealer, epoch, stamps, facts, bytes: Rc::new(bytes), order })
    }

    pub(super) fn append_next(&mut self) {
        if self.primary.appending || self.primary.held || self.primary.commits.is_empty() {
            return;
        }
        self.primary.appending = true;
        let delay = self.disk_delay(500);
        let life = self.primary.life;
        self.after(delay, Event::Primary { life, event: PrimaryEvent::Appended });
    }

    pub(super) fn appended(&mut self) -> Outcome {
        self.primary.appending = false;
        let Some(commit) = self.primary.commits.front().cloned() else { return Ok(()) };
        let records: Vec<u8> = commit.records.iter().flat_map(|rec| rec.bytes.iter().copied()).collect();
        let full = self.primary.journal_disk_full
            || (self.primary.tape.segments.len() > 2
                && self.primary.tape.bytes() + wide(records.len()) > self.primary.journal_capacity);
        if full {
            self.primary.held = true;
            return self.tell_primary(Input::CommitFailed { fault: StoreFault::Full });
        }
        self.primary.commits.pop_front();
        let Some(first) = commit.records.first().map(|rec| rec.header.sequence) else { return Ok(()) };
        let last = commit.records.last().map_or(first, |rec| rec.header.sequence);
        if let Some(chain) = commit.restart {
            self.primary.chain = chain;
        }
        let length = self.primary.tape.segments.last().map_or(usize::MAX, |segment| segment.bytes.len());
        if commit.restart.is_some() || length > self.primary.segment_bytes {
            self.begin_segment(first);
        }
        let header = CommitHeader {
            first,
            records: u32::try_from(commit.records.len()).unwrap_or(0),
            bytes: u32::try_from(records.len()).unwrap_or(0),
            durable: commit.durable,
        };
        let mut bytes = Vec::with_capacity(COMMIT_HEADER_BYTES + records.len());
        bytes.extend(header.encode());
        bytes.extend(records);
        self.primary.tape.append(&bytes, last);
        let mut digests = Vec::new();
        for rec in commit.records {
            if rec.header.sequence != self.model.last().next() {
                return Err(Failure::new(Checker::Panic, format!("record {} out of its place", rec.header.sequence)));
            }
            self.primary.chain = chain_after(self.primary.chain, self.primary.chain, &rec.header, rec.digest);
            digests.push(rec.digest);
            self.model.append(rec);
        }
        check::fence::appended(self, last)?;
        self.append_next();
        let bytes = ByteLen(self.primary.tape.bytes());
        self.tell_primary(Input::Committed { digests })?;
        if self.settings.mutation == Some(Mutation::UnsyncedSent) {
            self.send_records(Path(0), first, last, Slots::Idle)?;
        }
        self.tell_primary(Input::JournalBytes { bytes })
    }
}
