//! The primary's driver: carries out what the machine says on disks that forget, and rebuilds it after a crash.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use farseal_core::chain::{Chain, Digest};
use farseal_core::flow::{Chosen, Flow, Transfer};
use farseal_core::frame::{Attach, HandOver, Refusal};
use farseal_core::journal::{COMMIT_HEADER_BYTES, CommitHeader, SegmentHeader, chain_after, scan_segment};
use farseal_core::ledger::{Entry as LedgerEntry, Ledger};
use farseal_core::limits::{JOURNAL_BYTES_MAX, KEY_AGE_MAX, KEY_BYTES_MAX, RECORD_BLOCKS_MAX};
use farseal_core::owed::OwedMap;
use farseal_core::primary::{
    Alarm, Divergence, Found, Input, Kept, KeptMap, Mode, Output, Planned, Primary, Recovered, Room, Settings, Slots,
    Source, StoreFault, What,
};
use farseal_core::record::{Framed, HEADER_BYTES, Header, Kind};
use farseal_core::retire::Floor;
use farseal_core::rotation::{How, KeyLimits, Slot, State as RotationState};
use farseal_core::units::{
    BlockCount, ByteLen, Epoch, Extent, Generation, Incarnation, Instant, Lba, Millis, Path, Sequence, Ticket,
};

use crate::check::nonce::By;
use crate::check::{self, Checker, Failure};
use crate::dice::Dice;
use crate::disk::{Home, Loss, Mark, Tape, to_usize, wide};
use crate::faults::Fault;
use crate::flow::Throttled;
use crate::link::{Message, Side};
use crate::model::{Rec, write};
use crate::mutation::Mutation;
use crate::seal::{Facts, KeyId, Sealer, Stamp, read, seal};
use crate::stats::Sometimes;
use crate::world::{Event, Outcome, PAIR, VOLUME, World, block_bytes};

/// A tick that is due later than this comes then: a year, longer than any run.
const TICK_MS_MAX: u64 = 365 * 24 * 3_600_000;

/// A completion of something that the driver began.
#[derive(Clone, Debug)]
pub enum PrimaryEvent {
    Appended,
    Synced {
        mark: Mark,
        through: Sequence,
    },
    SyncFailed {
        mark: Mark,
        through: Sequence,
    },
    Destaged {
        through: Sequence,
    },
    HomeSynced {
        mark: BTreeMap<Lba, usize>,
        through: Sequence,
    },
    MapDone,
    EpochReady {
        epoch: Epoch,
    },
    /// The escrow site holds the key, durably.
    Escrowed {
        epoch: Epoch,
    },
    EscrowRefused {
        epoch: Epoch,
    },
    SlotsPlanned,
    PolicyDecides,
    CopyRead {
        extent: Extent,
        stamps: Vec<Stamp>,
    },
    HandOverKept,
}

/// What an initiator waits for.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    /// It covers this many writes of this life.
    orders: usize,
    durable: bool,
}

/// A write or copy in the data buffer.
#[derive(Clone, Debug)]
struct Buffered {
    ticket: Ticket,
    extent: Extent,
    stamps: Vec<Stamp>,
    /// The write's order in the model; a copy has none.
    order: Option<usize>,
    last: Option<Sequence>,
}

#[derive(Clone, Debug)]
pub struct Commit {
    records: Vec<Rec>,
    durable: Sequence,
    restart: Option<Chain>,
}

/// The dirty map's file; operations on it are done one after the other.
#[derive(Clone, Debug)]
enum MapOperation {
    Write { stamp: u64, bytes: Vec<u8>, acked: Sequence, acked_chain: Chain },
    Remove,
}

/// What outlives a process.
#[derive(Clone, Debug)]
pub struct PrimaryDisk {
    tape: Tape,
    home: Home,
    homed: Sequence,
    map: Option<(Vec<u8>, Sequence, Chain)>,
    keys: BTreeMap<Epoch, KeyId>,
    floors: (Floor, Floor),
    paused: bool,
    fenced: Option<Generation>,
    mode: Option<Mode>,
    chosen: Chosen,
}

#[derive(Debug)]
pub struct PrimarySite {
    pub machine: Option<Primary>,
    pub settings: Settings,
    pub life: u32,
    pub incarnation: u64,
    pub tick_at: Option<Instant>,
    /// A disk failed for good: only a restart helps.
    pub broken: bool,
    /// Keys that the escrow site has, as this life has heard.
    pub receipts: BTreeSet<Epoch>,
    /// Since the last start.
    pub in_force: Option<Epoch>,
    // Durable.
    pub tape: Tape,
    pub home: Home,
    pub homed: Sequence,
    pub map: Option<(Vec<u8>, Sequence, Chain)>,
    /// Every key that was ever prepared and is not destroyed, by epoch; written before the key is used.
    pub keys: BTreeMap<Epoch, KeyId>,
    /// What is destroyed of them.
    pub floor: Floor,
    /// What the keeper has proved that it has destroyed.
    pub proved: Floor,
    pub paused: bool,
    pub fenced: Option<Generation>,
    pub mode: Option<Mode>,
    pub chosen: Chosen,
    /// What the link's throttle let through.
    pub throttled: Throttled,
    /// The path that carried the last records.
    pub carrier: Option<Path>,
    pub handing_over: Option<HandOver>,
    /// Being written.
    pub handing: Option<HandOver>,
    /// No epoch up to here comes again.
    pub epoch_floor: Epoch,
    /// What the journal's disk really holds, durably.
    pub durable_on_disk: Sequence,
    // Until the next crash.
    pub chain: Chain,
    pub commits: VecDeque<Commit>,
    appending: bool,
    held: bool,
    map_operations: VecDeque<MapOperation>,
    buffer: VecDeque<Buffered>,
    pub buffered_bytes: u64,
    destaged: Sequence,
    waiting: BTreeMap<Ticket, Waiting>,
    /// Bytes sent, by record, until acknowledged or sent anew.
    pub sent: BTreeMap<Sequence, u64>,
    pub segment_bytes: usize,
    pub journal_capacity: u64,
    pub journal_disk_full: bool,
    pub home_disk_full: bool,
}

impl PrimarySite {
    pub fn new(dice: &mut Dice, blocks: u64, small_journal: bool, flow: Flow) -> Self {
        let age_max = if dice.chance(150) { Millis(dice.between(500, 20_000)) } else { KEY_AGE_MAX };
        let bytes_max = if dice.chance(150) { ByteLen(dice.between(20_000, 400_000)) } else { KEY_BYTES_MAX };
        let settings = Settings {
            pair: PAIR,
            volume: VOLUME,
            generation: Generation(1),
            encrypted: true,
            block_bytes: block_bytes(),
            blocks: BlockCount(blocks),
            mode: [Mode::Async, Mode::SyncFlush, Mode::Sync][to_usize(dice.below(3))],
            paired: true,
            key_limits: KeyLimits { interval_min: Millis(dice.between(100, 2_000)), age_max, bytes_max },
            escrowed: dice.chance(250),
            in_slots: false,
            pause_hidden: true,
            rotate_how: if dice.chance(500) { How::InBand } else { How::Pause },
            journal_bytes_max: if small_journal { ByteLen(dice.between(300_000, 800_000)) } else { JOURNAL_BYTES_MAX },
            unordered: None,
            flow,
        };
        let segment_bytes = to_usize(dice.between(10_000, 60_000));
        let capacity = if small_journal { dice.between(900_000, 3_000_000) } else { u64::MAX };
        Self::blank(settings, segment_bytes, capacity)
    }

    /// Nothing was ever written.
    pub fn blank(settings: Settings, segment_bytes: usize, journal_capacity: u64) -> Self {
        Self {
            machine: None,
            settings,
            life: 0,
            incarnation: 0,
            tick_at: None,
            broken: false,
            receipts: BTreeSet::new(),
            in_force: None,
            tape: Tape::default(),
            home: Home::new(to_usize(settings.blocks.0)),
            homed: Sequence::NONE,
            map: None,
            keys: BTreeMap::new(),
            floor: Floor::NONE,
            proved: Floor::NONE,
            paused: false,
            fenced: None,
            mode: None,
            chosen: Chosen::default(),
            throttled: Throttled::default(),
            carrier: None,
            handing_over: None,
            handing: None,
            epoch_floor: Epoch::NONE,
            durable_on_disk: Sequence::NONE,
            chain: Chain::START,
            commits: VecDeque::new(),
            appending: false,
            held: false,
            map_operations: VecDeque::new(),
            buffer: VecDeque::new(),
            buffered_bytes: 0,
            destaged: Sequence::NONE,
            waiting: BTreeMap::new(),
            sent: BTreeMap::new(),
            segment_bytes,
            journal_capacity,
            journal_disk_full: false,
            home_disk_full: false,
        }
    }

    /// The order begins behind this record, as after a takeover.
    pub fn begins_behind(&mut self, before: Sequence) {
        (self.homed, self.durable_on_disk, self.destaged) = (before, before, before);
    }

    /// All that a restored snapshot would bring back.
    pub fn disk(&self) -> PrimaryDisk {
        PrimaryDisk {
            tape: self.tape.clone(),
            home: self.home.clone(),
            homed: self.homed,
            map: self.map.clone(),
            keys: self.keys.clone(),
            floors: (self.floor, self.proved),
            paused: self.paused,
            fenced: self.fenced,
            mode: self.mode,
            chosen: self.chosen,
        }
    }

    pub fn set_back(&mut self, disk: PrimaryDisk) {
        let PrimaryDisk { tape, home, homed, map, keys, floors, paused, fenced, mode, chosen } = disk;
        (self.floor, self.proved) = floors;
        (self.tape, self.home, self.homed, self.map, self.keys) = (tape, home, homed, map, keys);
        (self.paused, self.fenced, self.mode, self.chosen) = (paused, fenced, mode, chosen);
        self.map_operations.clear();
    }

    /// The volume as an initiator reads it: home, under what waits in the buffer.
    pub fn read_all(&self) -> Vec<Stamp> {
        let mut image = self.home.image();
        self.buffer.iter().for_each(|entry| write(&mut image, entry.extent, &entry.stamps));
        image
    }

    /// The first record that the journal still holds.
    pub fn journal_first(&self) -> Sequence {
        let first = self.tape.segments.first();
        first
            .and_then(|segment| SegmentHeader::decode(&segment.bytes).ok())
            .map_or(Sequence::NONE, |header| header.first)
    }
}

impl World {
    // ---- life

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

    // ---- initiators

    pub fn room_for_write(&self) -> bool {
        let Some(machine) = &self.primary.machine else { return false };
        machine.room() == Room::Open
    }

    pub fn submit_write(
        &mut self,
        ticket: Ticket,
        what: What,
        extent: Extent,
        fua: bool,
        stamps: Vec<Stamp>,
    ) -> Outcome {
        let order = self.model.accept(extent, &stamps);
        self.primary.buffered_bytes += wide(stamps.len()) * block_bytes().as_u64();
        self.primary.buffer.push_back(Buffered { ticket, extent, stamps, order: Some(order), last: None });
        self.primary.waiting.insert(ticket, Waiting { orders: self.model.orders(), durable: fua });
        self.owed_may_have_changed = true;
        self.tell_primary(Input::Write { ticket, what, extent, fua })
    }

    pub fn submit_flush(&mut self, ticket: Ticket) -> Outcome {
        let orders = self.model.orders();
        self.primary.waiting.insert(ticket, Waiting { orders, durable: true });
        if self.settings.mutation == Some(Mutation::FlushAnsweredEarly) {
            check::durability::promised(self, orders)?;
        }
        if self.settings.mutation == Some(Mutation::SyncAnsweredEarly)
            && let Some(status) = self.primary.machine.as_ref().map(Primary::status)
            && (status.mode, status.mode_kept) == (Mode::Sync, true)
            && status.durable == status.last
        {
            check::durability::promised_at_both(self, orders)?;
        }
        self.tell_primary(Input::Flush { ticket })
    }

    fn reply(&mut self, ticket: Ticket, good: bool) -> Outcome {
        let Some(waiting) = self.primary.waiting.remove(&ticket) else {
            return Err(Failure::new(Checker::Panic, format!("{ticket:?} was answered twice or never asked")));
        };
        if !good {
            self.stats.see(Sometimes::FlushFailed);
            return Ok(());
        }
        check::fence::answered_well(self)?;
        self.promised(waiting)
    }

    /// What an answer says.
    fn promised(&mut self, waiting: Waiting) -> Outcome {
        let status = self.primary.machine.as_ref().map(Primary::status);
        let (mode, kept) = status.map_or((Mode::Async, false), |status| (status.mode, status.mode_kept));
        if waiting.durable || mode == Mode::Sync {
            check::durability::promised(self, waiting.orders)?;
        }
        let remote = mode == Mode::Sync || (mode == Mode::SyncFlush && waiting.durable);
        if remote && kept {
            self.stats.see(Sometimes::AnsweredForBothSites);
            check::durability::promised_at_both(self, waiting.orders)?;
        }
        if remote && !kept {
            self.stats.see(Sometimes::AnsweredWithoutTheCopy);
        }
        Ok(())
    }

    // ---- the machine

    pub fn tell_primary(&mut self, input: Input) -> Outcome {
        let now = self.clock();
        self.trace.note(self.now, || format!("  primary <- {input:?}"));
        let Some(machine) = &mut self.primary.machine else { return Ok(()) };
        machine.handle(now, input);
        self.carry_out_primary()
    }

    fn carry_out_primary(&mut self) -> Outcome {
        while let Some(output) = self.primary.machine.as_mut().and_then(Primary::poll_output) {
            self.trace.note(self.now, || format!("  primary -> {output:?}"));
            self.primary_does(output)?;
        }
        let now = self.clock();
        let Some(machine) = &self.primary.machine else { return Ok(()) };
        self.owed_may_have_changed = true;
        if self.settings.mutation == Some(Mutation::TicksLost) {
            return Ok(());
        }
        let timeout = machine.poll_timeout(now);
        if timeout.is_some_and(|(_, why)| why.contains("throttle")) {
            self.stats.see(Sometimes::Throttled);
        }
        if let Some((at, _)) = timeout
            && self.primary.tick_at.is_none_or(|before| at < before)
        {
            self.primary.tick_at = Some(at);
            // A policy that talks nonsense may set its timer further than microseconds can be counted.
            let delay = at.since(now.instant).0.clamp(1, TICK_MS_MAX) * 1000;
            let life = self.primary.life;
            self.after(delay, Event::Tick { side: Side::Primary, life });
        }
        Ok(())
    }

    fn primary_does(&mut self, output: Output) -> Outcome {
        let life = self.primary.life;
        let soon = |event| Event::Primary { life, event };
        match output {
            Output::Reply { ticket, result } => self.reply(ticket, result.is_ok()),
            Output::Commit { records, durable, restart } => self.commit(&records, durable, restart),
            Output::RetryCommit => {
                self.primary.held = false;
                if self.settings.mutation == Some(Mutation::SealedAgain) {
                    self.seal_again()?;
                }
                self.append_next();
                Ok(())
            }
            Output::SyncJournal => {
                let (mark, through) = (self.primary.tape.mark(), self.model.last());
                let event = if self.faults.strikes(Fault::JournalSyncFails) {
                    PrimaryEvent::SyncFailed { mark, through }
                } else {
                    PrimaryEvent::Synced { mark, through }
                };
                let delay = self.sync_delay(3_000);
                self.after(delay, soon(event));
                Ok(())
            }
            Output::Destage { through } => {
                let delay = self.disk_delay(1_000);
                self.after(delay, soon(PrimaryEvent::Destaged { through }));
                Ok(())
            }
            Output::SyncHome => {
                let event = PrimaryEvent::HomeSynced { mark: self.primary.home.mark(), through: self.primary.destaged };
                let delay = self.sync_delay(5_000);
                self.after(delay, soon(event));
                Ok(())
            }
            Output::TrimJournal { through } => {
                self.primary.tape.trim(through);
                let bytes = ByteLen(self.primary.tape.bytes());
                self.tell_primary_later(Input::JournalBytes { bytes })
            }
            Output::ReadForCopy { extent, at_once } => {
                // The disk reads at one instant of the time that it takes: the first, which is the hardest case.
                let image = match self.settings.mutation {
                    Some(Mutation::CopyReadWithoutTheBuffer) => self.primary.home.image(),
                    _ => self.primary.read_all(),
                };
                let from = to_usize(extent.first().0);
                let stamps = image[from..from + to_usize(extent.blocks().0)].to_vec();
                if at_once {
                    self.stats.see(Sometimes::CopyReadAtOnce);
                    return self.primary_event(PrimaryEvent::CopyRead { extent, stamps });
                }
                let delay = self.disk_delay(4_000);
                self.after(delay, soon(PrimaryEvent::CopyRead { extent, stamps }));
                Ok(())
            }
            Output::DiscardCopy { ticket } => {
                self.stats.see(Sometimes::CopyDiscarded);
                let site = &mut self.primary;
                if let Some(place) = site.buffer.iter().position(|entry| entry.ticket == ticket)
                    && let Some(entry) = site.buffer.remove(place)
                {
                    site.buffered_bytes -= wide(entry.stamps.len()) * block_bytes().as_u64();
                }
                Ok(())
            }
            Output::PersistOwed { stamp, acked, acked_chain } => {
                let bytes = self.primary.machine.as_ref().and_then(Primary::encode_owed);
                let bytes = bytes.unwrap_or_default();
                self.map_operation(MapOperation::Write { stamp, bytes, acked, acked_chain });
                Ok(())
            }
            Output::DropOwed => {
                self.stats.see(Sometimes::ResyncEnded);
                self.map_operation(MapOperation::Remove);
                Ok(())
            }
            Output::Send { path, range, slots } => {
                let path = self.carrier(path)?;
                self.send_records(path, range.first, range.last, slots)
            }
            Output::ClosePath { path } => {
                self.close_path(path, Side::Primary);
                Ok(())
            }
            Output::PrepareEpoch { epoch, how, .. } => {
                match how {
                    How::InBand => self.stats.see(Sometimes::RotationInBand),
                    How::Pause => self.stats.see(Sometimes::RotationPause),
                    How::AtOnce => self.stats.see(Sometimes::RotationAtOnce),
                }
                let (now, limits) = (self.clock().instant, self.primary.settings.key_limits);
                self.ceilings.begun(now, limits, life, how)?;
                let most = if self.faults.strikes(Fault::EpochSlow) { 10_000_000 } else { 20_000 };
                let delay = self.dice_life.between(10, most);
                self.after(delay, soon(PrimaryEvent::EpochReady { epoch }));
                Ok(())
            }
            Output::PlanSlots => {
                let most = if self.faults.strikes(Fault::EpochSlow) { 10_000_000 } else { 20_000 };
                let delay = self.disguise.dice.between(10, most);
                self.after(delay, soon(PrimaryEvent::SlotsPlanned));
                Ok(())
            }
            Output::CarryKey { number, planned } => {
                let rec = self.seal(&planned)?;
                self.slots.carry(number, planned, rec)
            }
            Output::ShamInForce => {
                self.stats.see(Sometimes::ShamInForce);
                Ok(())
            }
            Output::AskPolicy { event: _ } => {
                let delay = self.dice_life.between(10, 50_000);
                self.after(delay, soon(PrimaryEvent::PolicyDecides));
                Ok(())
            }
            Output::PersistFence { generation } => {
                self.sides.knows = true;
                self.primary.fenced =
                    Some(generation).filter(|_| self.settings.mutation != Some(Mutation::FenceForgotten));
                Ok(())
            }
            Output::PersistHandOver { hand_over } => {
                self.primary.handing = Some(hand_over);
                if self.settings.mutation == Some(Mutation::HandOverNotKept) {
                    return self.tell_primary(Input::HandOverPersisted);
                }
                // Now and then it takes long enough for a crash to come between.
                let crashes = self.faults.has(Fault::CrashPrimary) || self.faults.has(Fault::CrashBoth);
                let most = if crashes && self.dice_disk.chance(500) { 1_000_000 } else { 3_000 };
                let delay = self.disk_delay(most);
                self.after(delay, soon(PrimaryEvent::HandOverKept));
                Ok(())
            }
            Output::SendHandOver { path, hand_over } => {
                self.send(path, Side::Secondary, Message::HandOver(hand_over));
                Ok(())
            }
            Output::HandedOver { hand_over } => self.handed_over(&hand_over),
            Output::PersistMode { mode } => {
                self.primary.mode = Some(mode);
                Ok(())
            }
            Output::PersistWay { way } => {
                self.primary.carrier = None;
                self.primary.chosen.way = Some(way);
                self.stats.see(match way.transfer {
                    Transfer::Ordered => Sometimes::TransferOrdered,
                    Transfer::Scheduled => Sometimes::TransferScheduled,
                });
                Ok(())
            }
            Output::PersistLimits { limits } => {
                self.primary.chosen.limits = Some(limits);
                self.stats.see(Sometimes::ThrottleChanged);
                Ok(())
            }
            Output::PersistPause { paused } => {
                self.primary.paused = paused;
                self.stats.see(Sometimes::PausedByOperator);
                Ok(())
            }
            Output::Alarm(alarm) => {
                match alarm {
                    Alarm::JournalFull => self.stats.see(Sometimes::JournalFull),
                    Alarm::SecondaryFull => self.stats.see(Sometimes::SecondaryFull),
                    Alarm::EpochVoid(_) => self.stats.see(Sometimes::RotationVoided),
                    Alarm::KeyRefused { .. } => self.stats.see(Sometimes::KeyRefused),
                    Alarm::EscrowSilent(_) => self.stats.see(Sometimes::EscrowLate),
                    Alarm::HardLimit => self.stats.see(Sometimes::HeldAtHardLimit),
                    Alarm::Behind => self.stats.see(Sometimes::JournalOverflow),
                    Alarm::JournalFailed | Alarm::Home(StoreFault::Failed) => self.primary.broken = true,
                    // Not a false one: a disk was set back.
                    Alarm::Diverged(_) if self.rollback.happened() => {}
                    Alarm::Diverged(Divergence::Fenced(_)) if self.sides.forked.is_some() => {
                        self.stats.see(Sometimes::Fenced);
                    }
                    Alarm::SwapEnded(_) => self.stats.see(Sometimes::SwapGivenUp),
                    Alarm::SequenceEnd => {
                        self.stats.see(Sometimes::SequenceEnd);
                        self.order_ended = true;
                    }
                    Alarm::Diverged(divergence) => {
                        return Err(Failure::new(Checker::Liveness, format!("false alarm: {divergence}")));
                    }
                    Alarm::Home(StoreFault::Full | StoreFault::Unsealed)
                    | Alarm::HighWater
                    | Alarm::EpochNotPrepared(_)
                    | Alarm::CannotSeal
                    | Alarm::SeedAwaited
                    | Alarm::ModeNotKept(_) => {}
                }
                Ok(())
            }
            Output::EpochInForce { epoch } => {
                self.primary.in_force = Some(epoch);
                self.ceilings.in_force(self.clock().instant, life, epoch);
                Ok(())
            }
            Output::DiscardEpoch { .. } | Output::SeedArrived | Output::RotationRefused(_) => Ok(()),
        }
    }

    /// An input that follows from an output: after the outputs that stand before it.
    fn tell_primary_later(&mut self, input: Input) -> Outcome {
        let now = self.clock();
        if let Some(machine) = &mut self.primary.machine {
            machine.handle(now, input);
        }
        Ok(())
    }

    pub fn primary_event(&mut self, event: PrimaryEvent) -> Outcome {
        match event {
            PrimaryEvent::Appended => self.appended(),
            PrimaryEvent::Synced { mark, through } => {
                if self.settings.mutation != Some(Mutation::SyncLies) {
                    self.primary.tape.synced(mark);
                }
                self.primary.durable_on_disk = self.primary.durable_on_disk.max(through);
                self.tell_primary(Input::JournalSynced { through })
            }
            PrimaryEvent::SyncFailed { mark, through } => {
                if self.drops() {
                    self.primary.tape.sync_dropped(mark);
                }
                if self.settings.mutation == Some(Mutation::JournalSyncRetried) {
                    return self.primary_event(PrimaryEvent::Synced { mark, through });
                }
                self.primary.broken = true;
                self.tell_primary(Input::JournalSyncFailed)
            }
            PrimaryEvent::Destaged { through } => self.destaged(through),
            PrimaryEvent::HomeSynced { mark, through } => {
                if self.faults.strikes(Fault::HomeSyncFails) {
                    if self.drops() {
                        self.primary.home.sync_dropped(&mark);
                    }
                    if self.settings.mutation != Some(Mutation::HomeSyncRetried) {
                        return self.tell_primary(Input::HomeSyncFailed);
                    }
                }
                self.primary.home.synced(&mark);
                self.primary.homed = self.primary.homed.max(through);
                self.tell_primary(Input::HomeSynced { through })
            }
            PrimaryEvent::MapDone => match self.do_map_operation() {
                Some((stamp, true)) => self.tell_primary(Input::OwedPersisted { stamp }),
                Some((stamp, false)) => self.tell_primary(Input::OwedPersistFailed { stamp }),
                None => Ok(()),
            },
            PrimaryEvent::HandOverKept => {
                self.primary.handing_over = self.primary.handing.take();
                self.tell_primary(Input::HandOverPersisted)
            }
            PrimaryEvent::EpochReady { epoch } => self.epoch_ready(epoch),
            PrimaryEvent::Escrowed { epoch } => {
                self.primary.receipts.insert(epoch);
                self.stats.see(Sometimes::KeyEscrowed);
                self.tell_primary(Input::EpochEscrowed { epoch })
            }
            PrimaryEvent::EscrowRefused { epoch } => self.tell_primary(Input::EpochFailed { epoch }),
            PrimaryEvent::SlotsPlanned => {
                let input = self.disguise.answer();
                self.tell_primary(input)
            }
            PrimaryEvent::PolicyDecides => {
                let wall = self.clock().wall;
                let decisions = self.policy.decide(wall, &mut self.dice_life);
                self.tell_primary(Input::PolicyDecided { decisions })
            }
            PrimaryEvent::CopyRead { extent, stamps } => {
                if self.faults.strikes(Fault::CopyReadFails) {
                    return self.tell_primary(Input::CopyReadFailed { extent });
                }
                self.stats.see(Sometimes::CopyRead);
                let ticket = self.ticket();
                let empty = stamps.iter().all(|stamp| *stamp == 0);
                let (what, stamps) = if empty { (What::Zero, Vec::new()) } else { (What::Data, stamps) };
                if empty {
                    self.stats.see(Sometimes::CopyOfZeroes);
                }
                self.primary.buffered_bytes += wide(stamps.len()) * block_bytes().as_u64();
                self.primary.buffer.push_back(Buffered { ticket, extent, stamps, order: None, last: None });
                self.tell_primary(Input::CopyRead { ticket, what, extent })
            }
        }
    }

    // ---- keys

    fn epoch_ready(&mut self, epoch: Epoch) -> Outcome {
        if self.faults.strikes_at(Fault::EpochFails, 1) {
            return self.tell_primary(Input::EpochFailed { epoch });
        }
        let newest = self.primary.keys.last_key_value().map(|(_, key)| *key);
        let old = match self.settings.mutation {
            Some(Mutation::EpochReused) => newest,
            Some(Mutation::StaleKeySealsOn) => newest.filter(|_| self.primary.settings.generation > Generation(1)),
            Some(Mutation::KeyOfTheSnapshot) if self.rollback.happened() => self.nonces.key_of(epoch),
            _ => None,
        };
        let key = old.unwrap_or_else(|| KeyId(self.dice_life.draw()));
        if self.faults.strikes(Fault::KeyRefused) {
            self.unopenable.insert(key);
        }
        self.primary.keys.insert(epoch, key);
        let at = self.clock().instant.plus(Millis(self.dice_life.below(200)));
        let blocks = u32::try_from(self.dice_life.between(1, 4)).unwrap_or(1).min(RECORD_BLOCKS_MAX);
        let blocks = if self.disguise.in_slots { 1 } else { blocks };
        self.deposit(epoch);
        let chance = self.disguise.dice.draw();
        self.tell_primary(Input::EpochPrepared { epoch, slot: Slot { at, blocks, chance } })?;
        if self.settings.mutation == Some(Mutation::ReceiptNotAwaited) {
            self.tell_primary(Input::EpochEscrowed { epoch })?;
        }
        Ok(())
    }

    /// The escrow site answers after a while, or after long, or refuses.
    fn deposit(&mut self, epoch: Epoch) {
        if !self.primary.settings.escrowed {
            return;
        }
        let most = if self.faults.strikes(Fault::EscrowSilent) { 30_000_000 } else { 1_500_000 };
        let delay = self.dice_life.between(1_000, most);
        let refused = self.faults.strikes(Fault::EscrowRefuses);
        let answer = if refused { PrimaryEvent::EscrowRefused { epoch } } else { PrimaryEvent::Escrowed { epoch } };
        let life = self.primary.life;
        self.after(delay, Event::Primary { life, event: answer });
    }

    // ---- journal

    fn commit(&mut self, planned: &[Planned], durable: Sequence, restart: Option<Chain>) -> Outcome {
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
    fn seal_again(&mut self) -> Outcome {
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

    fn seal(&mut self, planned: &Planned) -> Result<Rec, Failure> {
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

    fn append_next(&mut self) {
        if self.primary.appending || self.primary.held || self.primary.commits.is_empty() {
            return;
        }
        self.primary.appending = true;
        let delay = self.disk_delay(500);
        let life = self.primary.life;
        self.after(delay, Event::Primary { life, event: PrimaryEvent::Appended });
    }

    fn appended(&mut self) -> Outcome {
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

    // ---- home

    fn destaged(&mut self, through: Sequence) -> Outcome {
        if self.primary.home_disk_full {
            return self.tell_primary(Input::DestageFailed { fault: StoreFault::Full });
        }
        if through > self.primary.durable_on_disk {
            return Err(Failure::new(
                Checker::WriteOrder,
                format!("record {through} is destaged before it is durable"),
            ));
        }
        for sequence in self.primary.destaged.0 + 1..=through.0 {
            let Some(rec) = self.model.get(Sequence(sequence)) else { continue };
            let Some(extent) = rec.header.extent() else { continue };
            for block in 0..extent.blocks().0 {
                let stamp = rec.stamps.get(to_usize(block)).copied().unwrap_or(0);
                self.primary.home.write(Lba(extent.first().0 + block), stamp);
            }
        }
        self.primary.destaged = through;
        while self.primary.buffer.front().is_some_and(|entry| entry.last.is_some_and(|last| last <= through)) {
            if let Some(entry) = self.primary.buffer.pop_front()
                && (entry.order.is_some() || self.settings.mutation != Some(Mutation::BufferLeaked))
            {
                self.primary.buffered_bytes -= wide(entry.stamps.len()) * block_bytes().as_u64();
            }
        }
        self.tell_primary(Input::Destaged { through })
    }

    // ---- dirty map

    fn map_operation(&mut self, operation: MapOperation) {
        self.primary.map_operations.push_back(operation);
        if self.primary.map_operations.len() == 1 {
            self.next_map_operation();
        }
    }

    fn next_map_operation(&mut self) {
        let delay = self.disk_delay(5_000);
        let life = self.primary.life;
        self.after(delay, Event::Primary { life, event: PrimaryEvent::MapDone });
    }

    /// Does the oldest operation; for a write, says its stamp and whether it came off.
    fn do_map_operation(&mut self) -> Option<(u64, bool)> {
        let operation = self.primary.map_operations.pop_front()?;
        if !self.primary.map_operations.is_empty() && self.primary.machine.is_some() {
            self.next_map_operation();
        }
        match operation {
            MapOperation::Write { stamp, .. } if self.faults.strikes(Fault::MapFails) => Some((stamp, false)),
            MapOperation::Write { stamp, bytes, acked, acked_chain } => {
                self.primary.map = Some((bytes, acked, acked_chain));
                Some((stamp, true))
            }
            MapOperation::Remove => {
                self.primary.map = None;
                None
            }
        }
    }

    // ---- link

    pub fn attach(&mut self, path: Path) -> Outcome {
        let settings = self.primary.settings;
        let attach = Attach {
            pair: PAIR,
            volume: VOLUME,
            generation: settings.generation,
            encrypted: true,
            block_bytes: settings.block_bytes,
            blocks: settings.blocks,
            path: path.0,
            paths: u16::try_from(self.link.lines.len()).unwrap_or(1),
        };
        self.send(path, Side::Secondary, Message::Attach(attach));
        self.tell_primary(Input::Attaching { path })
    }

    fn send_records(&mut self, path: Path, first: Sequence, last: Sequence, slots: Slots) -> Outcome {
        check::owed::sendable(self, first)?;
        let mut bytes = Vec::new();
        for sequence in first.0..=last.0 {
            let Some(rec) = self.model.get(Sequence(sequence)) else {
                return Err(Failure::new(Checker::Panic, format!("record {sequence} is to be sent; there is none")));
            };
            bytes.extend(rec.bytes.iter());
            self.primary.sent.insert(Sequence(sequence), wide(rec.bytes.len()));
        }
        self.count_in_flight();
        if self.settings.mutation != Some(Mutation::UnsyncedSent) {
            self.throttled(wide(bytes.len()))?;
        }
        if self.faults.strikes_at(Fault::FlagStripped, 4) {
            self.stats.see(Sometimes::FlagStripped);
            strip_flag(&mut bytes);
        }
        let records = last.0 - first.0 + 1;
        let twice = self.faults.strikes(Fault::Duplicate);
        self.send_beside_slots(path, bytes.clone(), records, slots);
        if twice {
            self.send_beside_slots(path, bytes, records, Slots::Idle);
        }
        Ok(())
    }

    fn count_in_flight(&mut self) {
        let acked = self.primary.machine.as_ref().map_or(Sequence::NONE, |machine| machine.status().acked);
        self.primary.sent.retain(|sequence, _| *sequence > acked);
        self.in_flight_bytes = self.primary.sent.values().sum();
    }

    pub fn primary_receives(&mut self, path: Path, message: Message) -> Outcome {
        if self.primary.machine.is_none() {
            return Ok(());
        }
        match message {
            Message::Welcome(welcome) => self.tell_primary(Input::Welcomed { path, welcome }),
            Message::Refuse(refusal) => {
                self.stats.see(Sometimes::PathRefused);
                self.close_path(path, Side::Primary);
                match refusal {
                    Refusal::Fenced(generation) => self.tell_primary(Input::Fenced { generation }),
                    Refusal::UnknownPair
                    | Refusal::EncryptionDiffers
                    | Refusal::OtherSize(_)
                    | Refusal::OtherVolume
                    | Refusal::NotSecondary
                    | Refusal::Damaged
                    | Refusal::OtherLink => Ok(()),
                }
            }
            Message::Ack(ack) => self.tell_primary(Input::Acked { path, ack }),
            Message::KeyRefused { key, why } => self.tell_primary(Input::KeyRefused { key, why }),
            Message::Differs(differs) => self.tell_primary(Input::Differs { differs }),
            Message::HandedOver(generation) => self.tell_primary(Input::HandedOver { generation }),
            Message::Live { through, at, map } => self.live_told(through, at, *map),
            Message::Retired(proof) => {
                self.proof_comes(&proof);
                Ok(())
            }
            Message::Attach(_)
            | Message::Records(_)
            | Message::Slotted { .. }
            | Message::HandOver(_)
            | Message::AskLive { .. }
            | Message::Retire(_)
            | Message::Nonsense => Ok(()),
        }
    }
}

/// Clears the first record's encrypt bit, and makes its checksum fit.
fn strip_flag(records: &mut [u8]) {
    if let Ok(framed) = Framed::decode(records) {
        let header = Header { encrypted: false, ..framed.header };
        records[..HEADER_BYTES].copy_from_slice(&header.encode(framed.body_crc));
    }
}

fn digest_of(header: &Header, record: &[u8]) -> Digest {
    Digest::of(
        &record[..HEADER_BYTES].try_into().unwrap_or([0; HEADER_BYTES]),
        &record[HEADER_BYTES..HEADER_BYTES + header.tag_bytes()],
    )
}
