//! A primary's life: it crashes, and what its disks hold begins it anew.

use farseal_core::journal::{SegmentHeader, scan_segment};
use farseal_core::ledger::{Entry as LedgerEntry, Ledger};
use farseal_core::owed::OwedMap;
use farseal_core::primary::{Found, Kept, KeptMap, Primary, Recovered};
use farseal_core::record::Kind;
use farseal_core::rotation::State as RotationState;
use farseal_core::units::{Epoch, Incarnation, Lba, Sequence};

use crate::check;
use crate::check::{Checker, Failure};
use crate::disk::{Loss, to_usize, wide};
use crate::faults::Fault;
use crate::flow::Throttled;
use crate::mutation::Mutation;
use crate::seal::read;
use crate::stats::Sometimes;
use crate::world::{Outcome, PAIR, World};

impl World {
    pub fn crash_primary(&mut self) {
        if let Some(machine) = &self.primary.machine {
            let status = machine.status();
            if status.copy == farseal_core::primary::CopyState::Resync {
                self.stats.see(Sometimes::CrashDuringResync);
            }
            if status.rotation != RotationState::Idle {
                self.stats.see(Sometimes::CrashDuringRotation);
            }
        }
        if let Some(handing) = self.primary.handing.take() {
            self.stats.see(Sometimes::CrashDuringSwap);
            // The write that was under way may have been done.
            if self.settings.mutation != Some(Mutation::HandOverNotKept) && self.dice_disk.chance(500) {
                self.primary.handing_over = Some(handing);
            }
        }
        self.primary_forgets();
        self.retirement.forget();
        self.primary.machine = None;
        self.primary.life += 1;
        self.slots.primary_crashed();
        self.in_flight_bytes = 0;
        // The file operation that was under way may have been done or not.
        if self.dice_disk.chance(500) {
            self.do_map_operation();
        }
    }

    pub fn restart_primary(&mut self) -> Outcome {
        if self.primary.machine.is_some() {
            return Ok(());
        }
        let Some(found) = self.recover_primary()? else { return Ok(()) };
        let last = found.recovered.last;
        self.begin_segment(last.next());
        self.check_epochs(last)?;
        let mut settings = self.primary.settings;
        self.policy.limit(&mut settings.key_limits, self.settings.mutation);
        let machine = Primary::new(self.clock(), settings, found.recovered);
        self.primary.machine = Some(machine);
        self.owed_may_have_changed = true;
        self.carry_out_primary()
    }

    /// What a restart makes of the disks; nothing, where damage ended the run.
    pub fn recover_primary(&mut self) -> Result<Option<Found>, Failure> {
        let appended = self.model.last();
        let loss = Loss::draw(&mut self.dice_disk);
        let dropped;
        let torn = {
            let site = &mut self.primary;
            dropped = site.tape.has_dropped();
            site.tape.crash(loss, &mut self.dice_disk);
            site.home.crash(loss, &mut self.dice_disk);
            self.rot_journal()
        };
        let site = &mut self.primary;
        let mut scans = Vec::new();
        for segment in &site.tape.segments {
            match scan_segment(PAIR, &segment.bytes) {
                Ok(scan) => scans.push(scan),
                Err(_) if torn => return self.damage_named().map(|()| None),
                Err(error) => return Err(Failure::new(Checker::Durability, format!("a segment is gone: {error}"))),
            }
        }
        let mut resumed = false;
        let owed = site.map.as_ref().map(|(bytes, acked, acked_chain)| {
            let (blocks, size) = (site.settings.blocks, site.settings.block_bytes);
            let found = OwedMap::decode_with(bytes, blocks, size);
            let (map, given_up) = found.unwrap_or_else(|_| (OwedMap::full(blocks, size), None));
            resumed |= map.progress().is_some_and(|(_, _, done)| done.0 > 0);
            KeptMap { map, given_up, acked: *acked, acked_chain: *acked_chain }
        });
        if resumed {
            self.stats.see(Sometimes::CopyResumed);
        }
        let owed = match self.settings.mutation {
            Some(Mutation::DirtyBitsForgotten) => owed
                .map(|kept| KeptMap { map: OwedMap::empty(site.settings.blocks, site.settings.block_bytes), ..kept }),
            Some(Mutation::GivenUpForgotten) => owed.map(|kept| KeptMap { given_up: None, ..kept }),
            _ => owed,
        };
        let kept = Kept {
            homed: site.homed,
            newest_epoch: site.keys.last_key_value().map_or(Epoch::NONE, |(epoch, _)| *epoch).max(site.epoch_floor),
            owed,
            paused: site.paused,
            fenced: site.fenced,
            mode: site.mode,
            chosen: site.chosen,
            handing_over: site.handing_over,
        };
        let mut found = Recovered::from_journal(&scans, kept.clone());
        if self.settings.mutation == Some(Mutation::DamageIgnored) && found.is_err() {
            scans.iter_mut().for_each(|scan| scan.durable = Sequence::NONE);
            found = Recovered::from_journal(&scans, kept);
        }
        let found = match found {
            Ok(found) => found,
            Err(_) if torn => return self.damage_named().map(|()| None),
            Err(damage) => return Err(Failure::new(Checker::Durability, damage.to_string())),
        };
        let last = found.recovered.last;
        if torn && self.settings.mutation.is_none() && last < self.model.promised.max(self.primary.durable_on_disk) {
            // No later commit says that the last one was durable: its rot looks like a torn tail. Known, and documented.
            self.stats.see(Sometimes::RotInLastCommit);
            self.over = true;
            return Ok(None);
        }
        check::durability::primary_restarted(self, last, appended, loss == Loss::None && !torn && !dropped)?;
        self.note_loss(
            if dropped { Loss::Some } else { loss },
            last,
            appended,
            scans.iter().any(|scan| scan.torn.is_some()),
        );
        for (_, entry) in &found.replay {
            check::retired::replayed(self, entry.header.sequence)?;
        }
        self.replay_home(&found.replay);
        self.model.restarted(last);
        let site = &mut self.primary;
        if !scans.is_empty() {
            site.tape.cut(found.segment, to_usize(found.valid_bytes));
            for (segment, scan) in site.tape.segments.iter_mut().zip(&scans) {
                segment.last = scan.entries.last().map_or(scan.header.first.previous(), |entry| entry.header.sequence);
            }
        }
        (site.chain, site.destaged, site.durable_on_disk) = (found.recovered.chain, last, last);
        site.commits.clear();
        (site.appending, site.held, site.broken) = (false, false, false);
        site.map_operations.clear();
        site.buffer.clear();
        site.buffered_bytes = 0;
        site.waiting.clear();
        site.sent.clear();
        site.tick_at = None;
        site.receipts.clear();
        site.in_force = None;
        site.carrier = None;
        let limits = site.chosen.limits.unwrap_or(site.settings.flow.limits);
        site.throttled = Throttled::default();
        site.throttled.set(limits.link);
        let reused = [Mutation::EpochReused, Mutation::IncarnationReused].map(Some).contains(&self.settings.mutation);
        if !reused || site.incarnation == 0 {
            site.incarnation = self.dice_life.draw();
        }
        let home = self.primary.home.image();
        check::write_order::recovered(self, &home, last)?;
        Ok(Some(found))
    }

    fn replay_home(&mut self, replay: &[(usize, farseal_core::journal::Entry)]) {
        let site = &mut self.primary;
        for (segment, entry) in replay {
            let bytes = &site.tape.segments[*segment].bytes[to_usize(entry.offset)..];
            let stamps = read(&entry.header, bytes).unwrap_or_default();
            let Some(extent) = entry.header.extent() else { continue };
            for block in 0..extent.blocks().0 {
                let stamp = stamps.get(to_usize(block)).copied().unwrap_or(0);
                site.home.write(Lba(extent.first().0 + block), stamp);
            }
        }
        if !replay.is_empty() {
            self.stats.see(Sometimes::HomeReplayed);
        }
    }

    fn note_loss(&mut self, loss: Loss, last: Sequence, appended: Sequence, torn: bool) {
        if last < appended {
            self.stats.see(Sometimes::TailLost);
        } else if loss == Loss::None && appended > Sequence::NONE {
            self.stats.see(Sometimes::NothingLost);
        }
        if torn {
            self.stats.see(Sometimes::TailTorn);
        }
    }

    /// A bit of the journal that was durable flips.
    fn rot_journal(&mut self) -> bool {
        if !self.faults.strikes(Fault::JournalRot) || self.primary.tape.segments.is_empty() {
            return false;
        }
        let place = to_usize(self.dice_disk.below(wide(self.primary.tape.segments.len())));
        let segment = &mut self.primary.tape.segments[place];
        let at = to_usize(self.dice_disk.below(wide(segment.bytes.len())));
        segment.bytes[at] ^= 1 << self.dice_disk.below(8);
        true
    }

    /// The node says what is damaged and does not start: a run ends here, as it should.
    fn damage_named(&mut self) -> Outcome {
        self.stats.see(Sometimes::DamageNamed);
        self.over = true;
        Ok(())
    }

    /// Each record in the journal opens with the epoch that the records themselves say.
    fn check_epochs(&mut self, last: Sequence) -> Outcome {
        let mut ledger = Ledger::default();
        for rec in &self.model.history {
            let header = &rec.header;
            match (header.kind, rec.facts) {
                (Kind::Key, Some(facts)) => {
                    let entry = LedgerEntry {
                        epoch: facts.epoch,
                        generation: header.generation,
                        key: header.sequence,
                        start: facts.start,
                    };
                    if let Err(error) = ledger.arm(entry) {
                        return Err(Failure::new(Checker::Epoch, format!("key record {}: {error}", header.sequence)));
                    }
                }
                (Kind::Void, _) => {
                    ledger.void(Epoch(header.aux), header.sequence);
                }
                _ => {}
            }
        }
        let kept = |sequence: &Sequence| {
            ledger.epoch_of(*sequence).is_none_or(|entry| self.retirement.destroyed.takes(entry.epoch).is_ok())
        };
        let records = (self.model.before.0 + 1..=last.0).map(Sequence).filter(kept);
        check::epoch::check(self, &ledger, |epoch| self.primary.keys.get(&epoch).copied(), records, "the primary")
    }

    pub fn begin_segment(&mut self, first: Sequence) {
        let (now, site) = (self.clock(), &mut self.primary);
        let header = SegmentHeader {
            pair: PAIR,
            generation: site.settings.generation,
            incarnation: Incarnation([0; 16]),
            first,
            chain_before: site.chain,
            created: now.wall,
        };
        site.tape.begin(&header.encode());
        if let Some(segment) = site.tape.segments.last_mut() {
            segment.last = first.previous();
        }
    }
}
