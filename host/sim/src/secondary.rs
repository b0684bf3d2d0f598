//! The secondary's driver: a log that forgets what was not synced, an index over what is offered, key checks that may
//! be slow or fail.

use std::collections::BTreeMap;

use farseal_core::chain::Digest;
use farseal_core::frame::KeyRefusal;
use farseal_core::journal::scan_record;
use farseal_core::lineage::Lineage;
use farseal_core::owed::OwedMap;
use farseal_core::primary::StoreFault;
use farseal_core::record::{Framed, Header, Kind};
use farseal_core::retire::Order;
use farseal_core::secondary::{Alarm, Input, KeyFacts, Output, Recovered, Secondary, Settings};
use farseal_core::units::{Generation, Instant, Path, Sequence};

use crate::branch::Branch;
use crate::check::{self, Checker, Failure};
use crate::disk::{Log, Loss, to_usize, wide};
use crate::faults::Fault;
use crate::link::{Message, Side};
use crate::model::apply;
use crate::mutation::Mutation;
use crate::retire::{Kept, Scan, Source};
use crate::seal::{self, Facts, Stamp, read};
use crate::stats::Sometimes;
use crate::world::{Event, Outcome, World};

/// A completion of something that the driver began.
#[derive(Clone, Debug)]
pub enum SecondaryEvent {
    Synced {
        records: usize,
        stored: u64,
    },
    SyncFailed {
        records: usize,
        stored: u64,
    },
    KeyChecked {
        key: Sequence,
    },
    /// The index was looked through for an order.
    Scanned {
        path: Option<Path>,
        order: Order,
        scan: Scan,
    },
    FloorKept {
        path: Option<Path>,
        order: Order,
    },
    KeysGone {
        path: Option<Path>,
        order: Order,
    },
}

/// What outlives a process.
#[derive(Clone, Debug)]
pub struct SecondaryDisk {
    log: Log,
    generation: Generation,
    taken_over: bool,
    kept: Kept,
}

#[derive(Debug)]
pub struct SecondarySite {
    pub machine: Option<Secondary>,
    pub settings: Settings,
    pub life: u32,
    pub tick_at: Option<Instant>,
    pub broken: bool,
    // Durable.
    log: Log,
    pub kept: Kept,
    pub generation: Generation,
    pub taken_over: bool,
    /// Where it took over.
    pub taken_at: Option<Sequence>,
    /// The history that it keeps, over a base that may be another's.
    pub keeps: Option<Lineage>,
    /// Its base is the end of another history still.
    pub base_differs: bool,
    pub base: Vec<Stamp>,
    /// The history that its base is the end of, if it wrote one.
    pub own: Option<Branch>,
    /// Where its base differs from the history that it keeps, if it wrote before.
    pub differs: Option<OwedMap>,
    // Known from the log.
    /// Where each record stands in the log; the newest, if it came more than once.
    pub records: BTreeMap<Sequence, usize>,
    /// Gap records by the first number that each gives up.
    gaps: BTreeMap<Sequence, Sequence>,
    // Until the next crash.
    stored: u64,
    incoming: Option<Vec<u8>>,
    /// The volume as far as everything durable and contiguous goes, gap or not.
    pub live: Vec<Stamp>,
    pub live_through: Sequence,
    /// The volume as it is offered.
    pub index: Vec<Stamp>,
    /// Of each block of it; none for what the base holds.
    pub sources: Vec<Option<Source>>,
    pub indexed: Sequence,
    /// What the checkers remember over crashes.
    pub offered: Sequence,
    pub acknowledged: Sequence,
    pub disk_full: bool,
}

impl SecondarySite {
    pub fn new(settings: Settings) -> Self {
        let blocks = to_usize(settings.blocks.0);
        Self {
            machine: None,
            settings,
            life: 0,
            tick_at: None,
            broken: false,
            log: Log::default(),
            kept: Kept::default(),
            generation: Generation(0),
            taken_over: false,
            taken_at: None,
            keeps: None,
            base_differs: false,
            base: vec![0; blocks],
            own: None,
            differs: None,
            records: BTreeMap::new(),
            gaps: BTreeMap::new(),
            stored: 0,
            incoming: None,
            live: vec![0; blocks],
            live_through: Sequence::NONE,
            index: vec![0; blocks],
            sources: vec![None; blocks],
            indexed: Sequence::NONE,
            offered: Sequence::NONE,
            acknowledged: Sequence::NONE,
            disk_full: false,
        }
    }

    pub fn disk(&self) -> SecondaryDisk {
        let (log, kept) = (self.log.clone(), self.kept.clone());
        SecondaryDisk { log, generation: self.generation, taken_over: self.taken_over, kept }
    }

    pub fn set_back(&mut self, disk: SecondaryDisk) {
        (self.log, self.generation, self.taken_over) = (disk.log, disk.generation, disk.taken_over);
        self.kept = disk.kept;
        (self.live, self.live_through) = (vec![0; self.live.len()], Sequence::NONE);
        (self.offered, self.acknowledged) = (Sequence::NONE, Sequence::NONE);
    }

    /// Of each record up to `through`, by its number; a given-up number has none.
    pub fn digests(&self, through: Sequence) -> Vec<Digest> {
        let digest = |sequence: u64| {
            let record = self.log.records.get(*self.records.get(&Sequence(sequence))?)?;
            Some(scan_record(record, Sequence(sequence)).ok()?.0.digest)
        };
        (1..=through.0).map(|sequence| digest(sequence).unwrap_or(Digest([0; 32]))).collect()
    }

    pub fn key_at(&self, place: usize) -> Option<Facts> {
        let record = self.log.records.get(place)?;
        seal::facts(&Framed::decode(record).ok()?.header, record).ok()
    }

    fn learn(&mut self, header: &Header, place: usize) {
        if header.kind == Kind::Gap {
            self.gaps.insert(Sequence(header.aux), header.sequence);
        }
        // A record that comes twice is the same both times: the first may be durable already.
        self.records.entry(header.sequence).or_insert(place);
    }

    /// The records after `from` up to `through` that count: what a gap gave up does not.
    fn steps(&self, from: Sequence, through: Sequence) -> Vec<Sequence> {
        let mut steps = Vec::new();
        let mut at = from.next();
        while at <= through {
            if let Some(gap) = self.gaps.get(&at).filter(|gap| **gap <= through) {
                at = *gap;
            }
            steps.push(at);
            at = at.next();
        }
        steps
    }

    /// Every record up to `through` that lies in the log, given up or not.
    pub fn held(&self, through: Sequence) -> Vec<Sequence> {
        self.records.range(..=through).map(|(sequence, _)| *sequence).collect()
    }

    pub fn read(&self, sequence: Sequence) -> Option<(Header, Vec<Stamp>)> {
        let record = self.log.records.get(*self.records.get(&sequence)?)?;
        let header = Framed::decode(record).ok()?.header;
        Some((header, read(&header, record)?))
    }
}

impl World {
    pub fn crash_secondary(&mut self) {
        self.keeper_crashes();
        self.witness.keeper_crashes();
        self.secondary.machine = None;
        self.secondary.life += 1;
        self.slots.forget();
    }

    pub fn restart_secondary(&mut self) -> Outcome {
        if self.secondary.machine.is_some() {
            return Ok(());
        }
        let loss = Loss::draw(&mut self.dice_disk);
        self.keeper_comes_back();
        let site = &mut self.secondary;
        site.log.crash(loss, &mut self.dice_disk);
        let rotten = self.faults.strikes(Fault::LogRot) && !site.log.records.is_empty();
        if rotten {
            let place = to_usize(self.dice_disk.below(wide(site.log.records.len())));
            let at = to_usize(self.dice_disk.below(wide(site.log.records[place].len())));
            site.log.records[place][at] ^= 1 << self.dice_disk.below(8);
        }
        (site.records, site.gaps) = (BTreeMap::new(), BTreeMap::new());
        let mut above: Vec<(Header, Digest)> = Vec::new();
        for place in 0..site.log.records.len() {
            let record = &site.log.records[place];
            let scanned =
                Framed::decode(record).ok().and_then(|framed| scan_record(record, framed.header.sequence).ok());
            let Some((entry, _)) = scanned else {
                // What was acknowledged is damaged: said, never passed over.
                self.stats.see(Sometimes::DamageNamed);
                self.over = true;
                return if rotten { Ok(()) } else { Err(Failure::new(Checker::Durability, "the log is damaged")) };
            };
            site.learn(&entry.header, place);
            if site.taken_at.is_none_or(|taken| entry.header.sequence <= taken) {
                above.push((entry.header, entry.digest));
            }
        }
        let begin = match (&site.kept.checkpoint, &site.keeps) {
            (Some(checkpoint), _) => checkpoint.recovered.clone(),
            (None, Some(lineage)) => Recovered::keeper_of(lineage, site.differs.is_some()),
            (None, None) => Recovered::fresh(),
        };
        above.retain(|(header, _)| header.sequence > begin.contiguous);
        let recovered = Recovered { generation: site.generation, taken_over: site.taken_over, above, ..begin };
        (site.index, site.indexed) = (site.base.clone(), recovered.contiguous);
        site.sources = vec![None; site.base.len()];
        if let Some(checkpoint) = &site.kept.checkpoint {
            (site.index, site.indexed) = (checkpoint.index.clone(), checkpoint.indexed);
            site.sources = checkpoint.sources.clone();
        }
        (site.stored, site.incoming, site.broken, site.tick_at) = (0, None, false, None);
        self.secondary.settings.encrypted = !self.faults.strikes(Fault::OtherBit);
        let machine = Secondary::new(self.clock(), self.secondary.settings, recovered);
        self.secondary.machine = Some(machine);
        self.keeper_follows_witness();
        self.carry_out_secondary()
    }

    pub fn tell_secondary(&mut self, input: Input) -> Outcome {
        let now = self.clock();
        self.trace.note(self.now, || format!("  secondary <- {input:?}"));
        let Some(machine) = &mut self.secondary.machine else { return Ok(()) };
        machine.handle(now, input);
        self.carry_out_secondary()
    }

    fn carry_out_secondary(&mut self) -> Outcome {
        while let Some(output) = self.secondary.machine.as_mut().and_then(Secondary::poll_output) {
            self.trace.note(self.now, || format!("  secondary -> {output:?}"));
            self.follow_durable()?;
            self.secondary_does(output)?;
        }
        self.follow_durable()?;
        let now = self.clock();
        let Some(machine) = &self.secondary.machine else { return Ok(()) };
        self.secondary.base_differs = machine.base_differs();
        if let Some((at, _)) = machine.poll_timeout()
            && self.secondary.tick_at.is_none_or(|before| at < before)
        {
            self.secondary.tick_at = Some(at);
            let life = self.secondary.life;
            self.after(at.since(now.instant).0.max(1) * 1000, Event::Tick { side: Side::Secondary, life });
        }
        Ok(())
    }

    /// The checkers' own image of all that is durable and contiguous.
    fn follow_durable(&mut self) -> Outcome {
        let Some(machine) = &self.secondary.machine else { return Ok(()) };
        let (contiguous, _) = machine.durable();
        if contiguous <= self.secondary.live_through {
            return Ok(());
        }
        for sequence in self.secondary.steps(self.secondary.live_through, contiguous) {
            if let Some((header, stamps)) = self.secondary.read(sequence) {
                let before = self.secondary.live.clone();
                apply(&mut self.secondary.live, &header, &stamps);
                if !self.rollback.happened() && !self.secondary.base_differs {
                    check::write_order::followed(&before, &self.secondary.live, sequence)?;
                }
            }
        }
        self.secondary.live_through = contiguous;
        self.owed_may_have_changed = true;
        Ok(())
    }

    fn secondary_does(&mut self, output: Output) -> Outcome {
        let life = self.secondary.life;
        match output {
            Output::Differs { path } => {
                if self.settings.mutation == Some(Mutation::DiffersNotTold) {
                    return Ok(());
                }
                for differs in self.secondary.differs.clone().map(|map| map.differs()).unwrap_or_default() {
                    self.send(path, Side::Primary, Message::Differs(differs));
                }
                Ok(())
            }
            Output::HandedOver { path, generation } => {
                self.send(path, Side::Primary, Message::HandedOver(generation));
                Ok(())
            }
            Output::Welcome { path, welcome } => {
                check::fence::welcomed(self)?;
                check::durability::secondary_restarted(self, welcome.ack.durable)?;
                self.note_acknowledged(welcome.ack.durable)?;
                self.send(path, Side::Primary, Message::Welcome(welcome));
                Ok(())
            }
            Output::Refuse { path, refusal } => {
                self.send(path, Side::Primary, Message::Refuse(refusal));
                Ok(())
            }
            Output::ClosePath { path } => {
                self.close_path(path, Side::Secondary);
                Ok(())
            }
            Output::Store { sequence } => self.store(sequence),
            Output::SyncLog => {
                let (records, stored) = (self.secondary.log.records.len(), self.secondary.stored);
                let event = if self.faults.strikes(Fault::LogFails) {
                    SecondaryEvent::SyncFailed { records, stored }
                } else {
                    SecondaryEvent::Synced { records, stored }
                };
                let delay = self.sync_delay(3_000);
                if self.settings.mutation == Some(Mutation::LogAckedEarly) {
                    return self.tell_secondary(Input::LogSynced { stored: self.secondary.stored });
                }
                self.after(delay, Event::Secondary { life, event });
                Ok(())
            }
            Output::CheckKey { key } => {
                let most = if self.faults.strikes(Fault::KeySlow) { 8_000_000 } else { 5_000 };
                let delay = self.dice_life.between(10, most);
                self.after(delay, Event::Secondary { life, event: SecondaryEvent::KeyChecked { key } });
                Ok(())
            }
            Output::Ack { path, ack } => {
                self.note_acknowledged(ack.durable)?;
                self.send(path, Side::Primary, Message::Ack(ack));
                Ok(())
            }
            Output::KeyRefused { path, key, why } => {
                self.send(path, Side::Primary, Message::KeyRefused { key, why });
                Ok(())
            }
            Output::Offer { through } => self.offer(through),
            Output::PersistGeneration { generation, taken_over } => {
                let fails = self.faults.strikes(Fault::GenerationFails);
                // The file may have its new name and the folder not be synced: a crash then shows one or the other.
                if fails && self.dice_life.chance(500) {
                    self.stats.see(Sometimes::GenerationNotWritten);
                    return self.tell_secondary(Input::GenerationNotPersisted { generation });
                }
                let kept = self.settings.mutation != Some(Mutation::GenerationNotKept);
                if let Some(machine) = self.secondary.machine.as_ref().filter(|_| taken_over) {
                    let (fork, _) = machine.fork();
                    let (lineage, planned) = (self.lineage_taken(machine, generation), machine.was_handed_over());
                    self.sides.taking(lineage, planned);
                    self.judge_rules_takeover()?;
                    if kept {
                        (self.secondary.taken_over, self.secondary.taken_at) = (true, Some(fork));
                    }
                } else if kept && self.secondary.taken_over {
                    // Taken back before it was known to be written.
                    self.stats.see(Sometimes::HandOverWithdrawn);
                    (self.secondary.taken_over, self.secondary.taken_at) = (false, None);
                    self.sides.withdrawn();
                }
                if kept {
                    self.secondary.generation = generation;
                }
                if fails {
                    self.stats.see(Sometimes::GenerationWrittenUnknown);
                    // A restart finds it taken over, and nobody says so again.
                    self.turn_later();
                    return self.tell_secondary(Input::GenerationNotPersisted { generation });
                }
                self.tell_secondary(Input::GenerationPersisted { generation })
            }
            Output::TakenOver { through, .. } => {
                let gap_open = self.secondary.machine.as_ref().is_some_and(|machine| machine.status().gap_open);
                if gap_open {
                    self.stats.see(Sometimes::TakeOverWithGapOpen);
                }
                self.judge_opened(through)?;
                self.taken_over()
            }
            Output::Alarm(Alarm::EncryptionDiffers) => {
                self.stats.see(Sometimes::EncryptionDiffers);
                Ok(())
            }
            Output::Alarm(_) => Ok(()),
        }
    }

    fn note_acknowledged(&mut self, durable: Sequence) -> Outcome {
        let held = self.secondary.log.durable;
        let place = self.secondary.records.get(&durable).copied();
        let begun = self.secondary.keeps.map_or(Sequence::NONE, |lineage| lineage.start);
        if durable != begun && place.is_none_or(|place| place >= held) {
            return Err(Failure::new(
                Checker::Durability,
                format!("record {durable} is acknowledged before it is durable"),
            ));
        }
        self.secondary.acknowledged = self.secondary.acknowledged.max(durable);
        Ok(())
    }

    fn store(&mut self, sequence: Sequence) -> Outcome {
        check::fence::believed(self, sequence)?;
        self.secondary.stored += 1;
        let Some(record) = self.secondary.incoming.take() else {
            return Err(Failure::new(Checker::Panic, format!("record {sequence} is to be stored; none came")));
        };
        if self.secondary.disk_full {
            return self.tell_secondary(Input::LogFailed { fault: StoreFault::Full });
        }
        let place = self.secondary.log.records.len();
        if let Ok(framed) = Framed::decode(&record) {
            check::tamper::stored(&framed.header)?;
            if framed.header.kind == Kind::Gap {
                self.stats.see(Sometimes::GapAccepted);
            }
            self.secondary.learn(&framed.header, place);
            if self.settings.mutation == Some(Mutation::AppliedOutOfOrder)
                && let Some(stamps) = read(&framed.header, &record)
            {
                apply(&mut self.secondary.index, &framed.header, &stamps);
            }
        }
        self.secondary.log.records.push(record);
        Ok(())
    }

    fn offer(&mut self, through: Sequence) -> Outcome {
        let through = match (self.settings.mutation, &self.secondary.machine) {
            (Some(Mutation::OpenGapServed), Some(machine)) => machine.durable().0,
            _ => through,
        };
        let steps = self.secondary.steps(self.secondary.indexed, through);
        for sequence in &steps {
            let Some((header, stamps)) = self.secondary.read(*sequence) else {
                return Err(Failure::new(
                    Checker::WriteOrder,
                    format!("record {sequence} is offered and not in the log"),
                ));
            };
            if self.settings.mutation != Some(Mutation::AppliedOutOfOrder) {
                apply(&mut self.secondary.index, &header, &stamps);
            }
            let known = self.model.get(*sequence).filter(|_| !self.rollback.happened());
            let source = Source { sequence: *sequence, key: known.map(|rec| rec.sealer.key) };
            for lba in header.extent().into_iter().flat_map(|extent| extent.first().0..extent.end().0) {
                self.secondary.sources[to_usize(lba)] = Some(source);
            }
        }
        self.secondary.indexed = through;
        self.retirement.changed = true;
        // After a restart the index is built anew; what was offered before is not offered less.
        if through >= self.secondary.offered {
            check::write_order::offered(self, through)?;
        }
        check::recoverable::offered(self, &steps)?;
        let Some(machine) = &self.secondary.machine else { return Ok(()) };
        let ledger = machine.ledger();
        let key_of = |epoch| {
            let entry = ledger.get(epoch)?;
            self.secondary.key_at(*self.secondary.records.get(&entry.key)?).map(|facts| facts.sealer.key)
        };
        check::epoch::check(self, ledger, key_of, steps.iter().copied(), "the secondary")?;
        self.follow_points(through)
    }

    pub fn secondary_event(&mut self, event: SecondaryEvent) -> Outcome {
        match event {
            SecondaryEvent::Synced { records, stored } => {
                self.secondary.log.durable = self.secondary.log.durable.max(records);
                self.tell_secondary(Input::LogSynced { stored })
            }
            SecondaryEvent::SyncFailed { records, stored } => {
                if self.drops() {
                    self.secondary.log.sync_dropped(records);
                }
                if self.settings.mutation == Some(Mutation::LogSyncRetried) {
                    return self.secondary_event(SecondaryEvent::Synced { records, stored });
                }
                self.secondary.broken = true;
                self.tell_secondary(Input::LogFailed { fault: StoreFault::Failed })
            }
            SecondaryEvent::KeyChecked { key } => {
                let facts = self.secondary.records.get(&key).and_then(|place| self.secondary.key_at(*place));
                let taken = self.settings.mutation == Some(Mutation::RefusedKeyTaken);
                let below = facts.is_some_and(|facts| self.secondary.kept.floor.takes(facts.epoch).is_err());
                let result = match facts {
                    // Destroyed, and not taken again.
                    Some(_) if below => Err(KeyRefusal::Misplaced),
                    Some(facts) if taken || !self.unopenable.contains(&facts.sealer.key) => {
                        check::retired::taken(self, facts.epoch)?;
                        self.secondary.kept.keyring.insert(facts.epoch, facts.sealer.key);
                        Ok(KeyFacts { epoch: facts.epoch, start: facts.start })
                    }
                    Some(_) => Err(KeyRefusal::Unopenable),
                    None => Err(KeyRefusal::NoCapsule),
                };
                self.tell_secondary(Input::KeyChecked { key, result })
            }
            SecondaryEvent::Scanned { path, order, scan } => self.judge_order(path, &order, scan),
            SecondaryEvent::FloorKept { path, order } => self.floor_kept(path, order),
            SecondaryEvent::KeysGone { path, order } => self.keys_gone(path, &order),
        }
    }

    pub fn secondary_receives(&mut self, path: Path, message: Message) -> Outcome {
        if self.secondary.machine.is_none() {
            return Ok(());
        }
        match message {
            Message::Attach(attach) => {
                let lines = self.link.paths().zip(&self.link.lines);
                if lines.filter(|(other, _)| *other != path).all(|(_, line)| !line.secondary_up) {
                    self.slots.forget();
                }
                self.tell_secondary(Input::Attach { path, attach })
            }
            Message::Nonsense => self.tell_secondary(Input::Nonsense { path }),
            Message::Records(bytes) => self.records_received(path, &bytes),
            Message::Slotted { records, slots } => self.slotted_received(path, &records, &slots),
            Message::HandOver(hand_over) => self.tell_secondary(Input::HandOver { path, hand_over }),
            Message::AskLive { through } => {
                self.show_live(path, through);
                Ok(())
            }
            Message::Retire(order) => self.order_comes(Some(path), order),
            Message::Declare(word) => self.word_comes(Some(path), word),
            Message::Welcome(_)
            | Message::Refuse(_)
            | Message::Ack(_)
            | Message::KeyRefused { .. }
            | Message::Differs(_)
            | Message::HandedOver(_)
            | Message::Live { .. }
            | Message::Retired(_) => Ok(()),
        }
    }

    /// Takes in whole records, one after the other.
    pub fn records_received(&mut self, path: Path, bytes: &[u8]) -> Outcome {
        let mut at = 0;
        while let Ok(framed) = Framed::decode(&bytes[at..]) {
            let end = at + framed.header.record_bytes();
            let Ok((entry, _)) = scan_record(&bytes[at..], framed.header.sequence) else { break };
            let machine = self.secondary.machine.as_ref();
            if machine.is_some_and(|machine| machine.durable().0.next() < entry.header.sequence) {
                self.stats.see(Sometimes::OutOfOrderArrival);
            }
            self.secondary.incoming = Some(bytes[at..end].to_vec());
            let mut header = entry.header;
            header.encrypted |= self.settings.mutation == Some(Mutation::FlagNotShown);
            self.tell_secondary(Input::Record { path, header, digest: entry.digest })?;
            at = end;
        }
        Ok(())
    }
}
