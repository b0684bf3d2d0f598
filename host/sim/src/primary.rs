//! The primary's driver: carries out what the machine says on disks that forget, and rebuilds it after a crash.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use farseal_core::chain::{Chain, Digest};
use farseal_core::flow::{Chosen, Flow};
use farseal_core::frame::HandOver;
use farseal_core::journal::SegmentHeader;
use farseal_core::limits::{JOURNAL_BYTES_MAX, KEY_AGE_MAX, KEY_BYTES_MAX};
use farseal_core::primary::{Mode, Primary, Settings};
use farseal_core::record::{Framed, HEADER_BYTES, Header};
use farseal_core::retire::Floor;
use farseal_core::rotation::{How, KeyLimits};
use farseal_core::units::{
    BlockCount, ByteLen, Epoch, Extent, Generation, Instant, Lba, Millis, Path, Sequence, Ticket,
};

use crate::dice::Dice;
use crate::disk::{Home, Mark, Tape, to_usize};
use crate::flow::Throttled;
use crate::model::{Rec, write};
use crate::seal::{KeyId, Stamp};
use crate::world::{PAIR, VOLUME, block_bytes};

mod home;
mod initiators;
mod journal;
mod keys;
mod life;
mod link;
mod machine;

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
            layout: None,
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
            shaped: true,
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
