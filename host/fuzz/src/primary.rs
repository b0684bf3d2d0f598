//! Target: a hostile secondary, failing disks and every command of an operator against the primary's machine.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use farseal_core::chain::{Chain, Digest};
use farseal_core::flow::{Flow, Way};
use farseal_core::frame::{Ack, KeyRefusal, Welcome};
use farseal_core::limits::{ALARMS_MAX, KEY_AGE_MAX, KEY_BYTES_MAX};
use farseal_core::primary::{
    Action, Command, Decision, Input, Mode, Output, Planned, Primary, Recovered, Room, Settings, Source, StoreFault,
    What,
};
use farseal_core::rotation::{How, KeyLimits, Slot};
use farseal_core::schedule;
use farseal_core::units::{
    BlockBytes, BlockCount, ByteLen, Epoch, Extent, Generation, Instant, Lba, Millis, Now, PairId, Path, Sequence,
    Ticket, VolumeId, WallTime,
};
use farseal_core::window::Range;

use crate::script::Script;

const BLOCKS: u64 = 100;

/// Plays the choices; every word of the machine is judged when it is given.
pub(crate) fn run(data: &[u8]) {
    let mut script = Script::new(data);
    let mut site = Site::new(&mut script);
    while !script.is_over() {
        site.step(&mut script);
    }
}

/// Something that the machine asked for and that has not come yet.
#[derive(Clone, Copy, Debug)]
enum Asked {
    SyncJournal,
    Destage(Sequence),
    SyncHome,
    PersistOwed(u64),
    ReadForCopy(Extent),
    PrepareEpoch(Epoch),
    Receipt(Epoch),
    PlanSlots,
    Policy,
}

struct Site {
    machine: Primary,
    now: u64,
    asked: Vec<Asked>,
    commits: VecDeque<(Vec<Planned>, Option<Chain>)>,
    held: bool,
    chain: Chain,
    /// The running hash after each record.
    chains: BTreeMap<Sequence, Chain>,
    appended: Sequence,
    synced: Sequence,
    destaged: Sequence,
    homed: Sequence,
    tickets: u64,
    /// For each write: the last sequence number that holds a part of it, and how many blocks are placed.
    writes: BTreeMap<Ticket, (Sequence, u64)>,
    blocks_of: BTreeMap<Ticket, u64>,
    /// For each FLUSH: what was written before it.
    flushes: BTreeMap<Ticket, Vec<Ticket>>,
    waiting: BTreeSet<Ticket>,
    /// Greatest mark that the peer said truly.
    acked: Sequence,
}

impl Site {
    fn new(script: &mut Script<'_>) -> Self {
        let settings = Settings {
            layout: None,
            pair: PairId([1; 16]),
            volume: VolumeId([2; 16]),
            generation: Generation(1),
            encrypted: true,
            block_bytes: BlockBytes::DEFAULT,
            blocks: BlockCount(BLOCKS),
            mode: [Mode::Async, Mode::SyncFlush, Mode::Sync][usize::from(script.below(3))],
            paired: true,
            key_limits: KeyLimits { interval_min: Millis(100), age_max: KEY_AGE_MAX, bytes_max: KEY_BYTES_MAX },
            escrowed: script.below(2) == 0,
            in_slots: false,
            rotate_how: if script.below(2) == 0 { How::InBand } else { How::Pause },
            pause_hidden: script.below(4) != 0,
            shaped: script.below(4) != 0,
            journal_bytes_max: ByteLen(if script.below(2) == 0 { 100_000 } else { 1 << 30 }),
            unordered: None,
            flow: Flow { way: Way { paths: 3, ..Way::default() }, ..Flow::default() },
        };
        let mut site = Self {
            machine: Primary::new(at(0), settings, Recovered::fresh()),
            now: 0,
            asked: Vec::new(),
            commits: VecDeque::new(),
            held: false,
            chain: Chain::START,
            chains: BTreeMap::from([(Sequence::NONE, Chain::START)]),
            appended: Sequence::NONE,
            synced: Sequence::NONE,
            destaged: Sequence::NONE,
            homed: Sequence::NONE,
            tickets: 0,
            writes: BTreeMap::new(),
            blocks_of: BTreeMap::new(),
            flushes: BTreeMap::new(),
            waiting: BTreeSet::new(),
            acked: Sequence::NONE,
        };
        site.drain();
        site
    }

    fn step(&mut self, script: &mut Script<'_>) {
        let path = Path(u16::from(script.below(3)));
        match script.below(16) {
            0..=2 => self.write(script),
            3 => self.flush(),
            4 | 5 => self.commit(script),
            6..=8 => self.come(script),
            9 => self.tell(Input::Attaching { path }),
            10 => {
                let generation = Generation(if script.byte() == 255 { 2 } else { u64::from(script.below(2)) });
                let welcome = Welcome { generation, ack: self.ack(script) };
                self.tell(Input::Welcomed { path, welcome });
            }
            11 | 12 => {
                let ack = self.ack(script);
                self.tell(Input::Acked { path, ack });
            }
            13 => self.rarely(script, path),
            _ => {
                self.now += script.number() % 40_000;
                self.tell(Input::Tick);
            }
        }
    }

    fn write(&mut self, script: &mut Script<'_>) {
        if self.machine.room() != Room::Open {
            return;
        }
        let first = script.number() % BLOCKS;
        let blocks = (1 + u64::from(script.below(40))).min(BLOCKS - first);
        let Some(extent) = Extent::new(Lba(first), BlockCount(blocks)) else { return };
        let what = [What::Data, What::Data, What::Zero, What::Trim][usize::from(script.below(4))];
        let ticket = self.ticket();
        self.writes.insert(ticket, (Sequence::NONE, 0));
        self.blocks_of.insert(ticket, blocks);
        self.waiting.insert(ticket);
        let fua = script.below(4) == 0;
        if fua {
            self.flushes.insert(ticket, self.writes.keys().copied().collect());
        }
        self.tell(Input::Write { ticket, what, extent, fua });
    }

    fn flush(&mut self) {
        let ticket = self.ticket();
        self.waiting.insert(ticket);
        self.flushes.insert(ticket, self.writes.keys().copied().collect());
        self.tell(Input::Flush { ticket });
    }

    /// The oldest commit is appended, or is not.
    fn commit(&mut self, script: &mut Script<'_>) {
        if self.held || self.commits.is_empty() {
            return;
        }
        if script.below(8) == 0 {
            self.held = true;
            let fault = [StoreFault::Full, StoreFault::Unsealed, StoreFault::Full, StoreFault::Failed]
                [usize::from(script.below(4))];
            return self.tell(Input::CommitFailed { fault });
        }
        let Some((records, restart)) = self.commits.pop_front() else { return };
        let digests: Vec<Digest> = records.iter().map(|_| Digest([script.below(4); 32])).collect();
        self.chain = restart.unwrap_or(self.chain);
        for (record, digest) in records.iter().zip(&digests) {
            self.chain = self.chain.after(*digest);
            self.chains.insert(record.sequence, self.chain);
            self.appended = record.sequence;
        }
        self.tell(Input::Committed { digests });
    }

    /// Something that was asked for comes, or fails.
    fn come(&mut self, script: &mut Script<'_>) {
        if self.asked.is_empty() {
            return;
        }
        let asked = self.asked.remove(usize::from(script.byte()) % self.asked.len());
        let fails = script.below(12) == 0;
        let input = match asked {
            Asked::SyncJournal if fails => Input::JournalSyncFailed,
            Asked::SyncJournal => {
                self.synced = self.appended;
                Input::JournalSynced { through: self.synced }
            }
            Asked::Destage(_) if fails => Input::DestageFailed { fault: StoreFault::Full },
            Asked::Destage(through) => {
                self.destaged = through;
                Input::Destaged { through }
            }
            Asked::SyncHome if fails => Input::HomeSyncFailed,
            Asked::SyncHome => {
                self.homed = self.destaged;
                Input::HomeSynced { through: self.homed }
            }
            Asked::PersistOwed(stamp) if fails => Input::OwedPersistFailed { stamp },
            Asked::PersistOwed(stamp) => Input::OwedPersisted { stamp },
            Asked::ReadForCopy(extent) if fails => Input::CopyReadFailed { extent },
            Asked::ReadForCopy(extent) => {
                let ticket = self.ticket();
                let what = if script.byte().is_multiple_of(2) { What::Data } else { What::Zero };
                Input::CopyRead { ticket, what, extent }
            }
            Asked::PrepareEpoch(epoch) if fails => Input::EpochFailed { epoch },
            Asked::PrepareEpoch(epoch) => {
                let slot = Slot { at: Instant(self.now + u64::from(script.byte())), blocks: 1, chance: 0 };
                self.asked.push(Asked::Receipt(epoch));
                Input::EpochPrepared { epoch, slot }
            }
            Asked::Receipt(epoch) if fails => Input::EpochFailed { epoch },
            Asked::Receipt(epoch) => Input::EpochEscrowed { epoch },
            Asked::PlanSlots if fails => Input::SlotsNotPlanned,
            Asked::PlanSlots => {
                let slot = |script: &mut Script<'_>| schedule::Planned {
                    gap: Millis(u64::from(script.byte())),
                    blocks: u32::from(script.byte()).max(1),
                    chance: script.number(),
                };
                Input::SlotsPlanned { slots: (0..script.below(4)).map(|_| slot(script)).collect() }
            }
            Asked::Policy => {
                let action = match script.below(6) {
                    0 => Action::Rotate(None),
                    1 => Action::Rotate(Some(How::Pause)),
                    2 => Action::WakeAt(WallTime(self.now.saturating_add(script.number()))),
                    3 => Action::Watch { bytes: Some(script.number()), blocks: None },
                    4 => Action::Unknown,
                    _ => return self.tell(Input::PolicyDecided { decisions: Vec::new() }),
                };
                Input::PolicyDecided { decisions: vec![Decision { id: self.now, action }] }
            }
        };
        self.tell(input);
    }

    fn rarely(&mut self, script: &mut Script<'_>, path: Path) {
        let why = KeyRefusal::Forged;
        let input = match script.below(12) {
            0 => Input::PathLost { path },
            1 => Input::KeyRefused { key: Sequence(script.number()), why },
            2 => Input::KeyRefused { key: self.machine.status().acked.next(), why },
            3 => Input::JournalBytes { bytes: ByteLen(script.number() >> 8) },
            4 => Input::Operator(Command::Pause),
            5 => Input::Operator(Command::Resume),
            6 => Input::Operator(Command::RequestRotation),
            7 => Input::Operator(Command::Rotate(if script.below(2) == 0 { How::InBand } else { How::Pause })),
            8 => Input::Operator(Command::Suspect(Epoch(u64::from(script.byte())))),
            9 => Input::Operator(Command::CopyAll),
            10 => Input::Operator(Command::SetMode(
                [Mode::Async, Mode::SyncFlush, Mode::Sync][usize::from(script.below(3))],
            )),
            _ if script.byte() == 255 => Input::Fenced { generation: Generation(2) },
            _ => Input::PathLost { path },
        };
        self.tell(input);
    }

    /// Mostly what an honest secondary might say.
    fn ack(&mut self, script: &mut Script<'_>) -> Ack {
        let last = self.synced;
        let durable = match script.below(6) {
            0 => last,
            1 => Sequence(script.number()),
            2 => Sequence(last.0.saturating_sub(u64::from(script.byte()))),
            _ => Sequence(self.acked.0.saturating_add(u64::from(script.below(6))).min(last.0)),
        };
        let known = self.chains.get(&durable).copied();
        let chain = if script.below(16) == 0 { Chain([script.byte(); 32]) } else { known.unwrap_or(Chain::START) };
        if durable <= last && known == Some(chain) {
            self.acked = self.acked.max(durable);
        }
        let mut ranges = Vec::new();
        let mut above = durable;
        for _ in 0..script.below(3) {
            let first = above.plus(2 + u64::from(script.below(4)));
            above = first.plus(u64::from(script.below(4)));
            ranges.push(Range { first, last: above });
        }
        Ack { durable, chain, ranges, full: script.below(16) == 0 }
    }

    fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }

    fn tell(&mut self, input: Input) {
        self.machine.handle(at(self.now), input);
        self.drain();
        assert!(self.machine.status().alarms.len() <= ALARMS_MAX, "alarms are bounded");
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the other outputs promise nothing that is judged here")]
    fn drain(&mut self) {
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Reply { ticket, result } => self.judge_reply(ticket, result.is_ok()),
                Output::Commit { records, restart, .. } => {
                    self.place(&records);
                    self.commits.push_back((records, restart));
                }
                Output::RetryCommit => self.held = false,
                Output::SyncJournal => self.asked.push(Asked::SyncJournal),
                Output::Destage { through } => {
                    assert!(through <= self.synced, "home never holds what the journal could lose");
                    self.asked.push(Asked::Destage(through));
                }
                Output::SyncHome => self.asked.push(Asked::SyncHome),
                Output::TrimJournal { through } => {
                    assert!(through <= self.homed, "what home does not hold durably stays in the journal");
                }
                Output::Send { range, .. } => {
                    assert!(range.first <= range.last && range.last <= self.synced, "only what is durable is sent");
                }
                Output::PersistOwed { stamp, .. } => self.asked.push(Asked::PersistOwed(stamp)),
                Output::ReadForCopy { extent, .. } => {
                    assert!(extent.end().0 <= BLOCKS, "copies lie inside the volume");
                    self.asked.push(Asked::ReadForCopy(extent));
                }
                Output::PrepareEpoch { epoch, .. } => self.asked.push(Asked::PrepareEpoch(epoch)),
                Output::PlanSlots => self.asked.push(Asked::PlanSlots),
                Output::AskPolicy { .. } => self.asked.push(Asked::Policy),
                _ => {}
            }
        }
    }

    /// Sequence numbers follow each other; each block of a write gets one place.
    fn place(&mut self, records: &[Planned]) {
        for record in records {
            if let Source::Buffer { ticket, .. } = record.source
                && let Some((last, placed)) = self.writes.get_mut(&ticket)
            {
                *last = record.sequence;
                *placed += record.extent.map_or(0, |extent| extent.blocks().0);
            }
        }
    }

    fn judge_reply(&mut self, ticket: Ticket, well: bool) {
        assert!(self.waiting.remove(&ticket), "{ticket:?} is answered twice, or was never asked");
        let Some(covered) = self.flushes.remove(&ticket).filter(|_| well) else { return };
        for write in covered {
            let (last, placed) = self.writes[&write];
            let whole = placed == self.blocks_of[&write];
            assert!(whole && last <= self.synced, "a flush covers record {last}, durable is {}", self.synced);
        }
    }
}

fn at(now: u64) -> Now {
    Now { instant: Instant(now), wall: WallTime(now) }
}
