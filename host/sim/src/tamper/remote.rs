//! The site that keeps the copy, over what it was sent and what its disk gives back: the real machine, real parsing, and a
//! list of what was noticed, first things first.

use std::collections::BTreeMap;

use farseal_core::frame::{Attach, Frame, FrameError, HandOver, KeyRefusal, PREFIX_BYTES, Prefix, Refusal};
use farseal_core::journal::{Tear, scan_record};
use farseal_core::primary::Divergence;
use farseal_core::record::{Framed, Header, HeaderError, Kind};
use farseal_core::secondary::{Alarm, Input, KeyFacts, Output, Recovered, Secondary, Settings};
use farseal_core::units::{BlockCount, Generation, Instant, Now, Path, Sequence, WallTime};

use super::genuine::{BLOCKS, Genuine};
use crate::disk::wide;
use crate::seal::{Sealer, Unopened, facts, open};
use crate::world::{PAIR, VOLUME, block_bytes};

pub const NOW: Now = Now { instant: Instant(10), wall: WallTime(1_700_000_000_000) };
pub const PATH: Path = Path(0);
/// The generation that writes.
pub const GENERATION: Generation = Generation(2);

/// Who noticed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum By {
    /// Frame parsing.
    Frame,
    /// The record's header: magic, version, lengths, its checksum.
    Header,
    /// The body's checksum.
    Checksum,
    /// The encrypt bit is not the pair's.
    EncryptBit,
    /// It is of another pair, volume, size or generation.
    ControlInformation,
    /// Its number: too far, there already, or one before it is missing.
    Window,
    /// The check of a key record, or the ledger.
    KeyCheck,
    /// The primary, from the running hash in an acknowledgement.
    RunningHash,
    /// The primary, from how far the other site was.
    Mark,
    /// Whoever opens it.
    Opening,
    /// Nobody but who holds a later mark: a sequence number with its running hash.
    LaterMark,
}

/// What was noticed, in the words of whoever did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reason {
    Frame(FrameError),
    /// The frame that was announced does not come to an end.
    FrameShort,
    Record(HeaderError),
    Torn(Tear),
    Refused(Refusal),
    Alarm(Alarm),
    /// It was there already, or is below what counts.
    NotTaken(Sequence),
    /// What comes after it is here, and it is not.
    Hole(Sequence),
    Key(KeyRefusal),
    Diverged(Divergence),
    /// The primary waits for an acknowledgement.
    NotAcknowledged(Sequence),
    NoEpoch(Sequence),
    Unopened(Sequence, Unopened),
    /// Another record was given than the one that was asked for.
    OtherRecord {
        asked: Sequence,
        given: Sequence,
    },
    /// What there is ends otherwise than at a mark that somebody holds.
    OtherThanMark {
        mark: Sequence,
        found: Sequence,
    },
}

impl Reason {
    pub fn by(&self) -> By {
        match self {
            Self::Frame(_) | Self::FrameShort => By::Frame,
            Self::Record(_) => By::Header,
            Self::Torn(Tear::RecordHeader { .. }) => By::Header,
            Self::Torn(_) => By::Checksum,
            Self::Refused(Refusal::EncryptionDiffers) | Self::Alarm(Alarm::EncryptionDiffers) => By::EncryptBit,
            Self::Unopened(_, Unopened::EncryptionDiffers) => By::EncryptBit,
            Self::Refused(_)
            | Self::Alarm(Alarm::Misplaced | Alarm::Fenced(_) | Alarm::OtherPlace | Alarm::LayoutDiffers) => {
                By::ControlInformation
            }
            Self::Alarm(Alarm::KeyRefused { .. } | Alarm::Ledger { .. }) | Self::Key(_) => By::KeyCheck,
            Self::Alarm(Alarm::Nonsense | Alarm::LogFull | Alarm::LogFailed) | Self::NotTaken(_) | Self::Hole(_) => {
                By::Window
            }
            Self::Diverged(Divergence::Chain(_)) => By::RunningHash,
            Self::Diverged(_) | Self::NotAcknowledged(_) => By::Mark,
            Self::NoEpoch(_) | Self::Unopened(..) | Self::OtherRecord { .. } => By::Opening,
            Self::OtherThanMark { .. } => By::LaterMark,
        }
    }
}

/// What is opened of the copy.
#[derive(Debug, Default)]
pub struct Served {
    /// Something opened that was never written so.
    pub falsely: Option<Sequence>,
    pub records: u64,
}

#[derive(Debug)]
pub struct Remote<'a> {
    pub machine: Secondary,
    genuine: &'a Genuine,
    base: Sequence,
    pub log: Vec<Vec<u8>>,
    records: BTreeMap<Sequence, usize>,
    incoming: Option<Vec<u8>>,
    stored: u64,
    taken: bool,
    pub noticed: Vec<Reason>,
    /// What the primary is to be told.
    pub answers: Vec<Output>,
}

fn settings() -> Settings {
    Settings {
        pair: PAIR,
        volume: VOLUME,
        encrypted: true,
        block_bytes: block_bytes(),
        blocks: BlockCount(BLOCKS),
        layout: None,
    }
}

pub fn attach() -> Attach {
    let Settings { pair, volume, encrypted, block_bytes, blocks, layout: _ } = settings();
    Attach { pair, volume, generation: GENERATION, encrypted, block_bytes, blocks, path: 0, paths: 1, layout: None }
}

impl<'a> Remote<'a> {
    /// A node that starts over a log of which everything up to `base` is known, and the rest is what the disk gives back.
    pub fn start(genuine: &'a Genuine, base: Sequence, log: Vec<Vec<u8>>) -> Result<Self, Reason> {
        let (mut above, mut records) = (Vec::new(), BTreeMap::new());
        for (place, record) in log.iter().enumerate() {
            let framed = Framed::decode(record).map_err(Reason::Record)?;
            let (entry, _) = scan_record(record, framed.header.sequence).map_err(Reason::Torn)?;
            if record.len() != framed.header.record_bytes() {
                return Err(Reason::Torn(Tear::RecordBody(framed.header.sequence)));
            }
            records.entry(entry.header.sequence).or_insert(place);
            above.push((entry.header, entry.digest));
        }
        let (chain, ledger) = (genuine.chain(base), genuine.ledger(base));
        let found = Recovered { generation: GENERATION, contiguous: base, chain, ledger, above, ..Recovered::fresh() };
        let mut remote = Self {
            machine: Secondary::new(NOW, settings(), found),
            genuine,
            base,
            log,
            records,
            incoming: None,
            stored: 0,
            taken: false,
            noticed: Vec::new(),
            answers: Vec::new(),
        };
        remote.carry_out();
        Ok(remote)
    }

    pub fn tell(&mut self, input: Input) {
        self.machine.handle(NOW, input);
        self.carry_out();
    }

    fn carry_out(&mut self) {
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Store { sequence } => {
                    self.taken = true;
                    self.stored += 1;
                    self.records.entry(sequence).or_insert(self.log.len());
                    self.log.extend(self.incoming.take());
                }
                Output::SyncLog => self.machine.handle(NOW, Input::LogSynced { stored: self.stored }),
                Output::CheckKey { key } => {
                    let result = self.key(key);
                    self.machine.handle(NOW, Input::KeyChecked { key, result });
                }
                Output::PersistGeneration { generation, .. } => {
                    self.machine.handle(NOW, Input::GenerationPersisted { generation });
                }
                Output::Alarm(alarm) => {
                    self.taken = true;
                    self.noticed.push(Reason::Alarm(alarm));
                }
                Output::Refuse { refusal, .. } => self.noticed.push(Reason::Refused(refusal)),
                Output::KeyRefused { why, .. } => self.noticed.push(Reason::Key(why)),
                Output::ClosePath { .. } => self.taken = true,
                Output::Welcome { .. } | Output::Ack { .. } => self.answers.push(output),
                Output::Offer { .. }
                | Output::TakenOver { .. }
                | Output::Differs { .. }
                | Output::HandedOver { .. } => {}
            }
        }
    }

    fn key(&self, key: Sequence) -> Result<KeyFacts, KeyRefusal> {
        let record = self.records.get(&key).and_then(|place| self.log.get(*place)).ok_or(KeyRefusal::NoCapsule)?;
        let header = Framed::decode(record).map_err(|_| KeyRefusal::NoCapsule)?.header;
        facts(&header, record).map(|facts| KeyFacts { epoch: facts.epoch, start: facts.start })
    }

    /// What comes over a path, as a node reads it: frame by frame, and of a frame of records one after the other.
    pub fn stream(&mut self, mut bytes: &[u8]) {
        while let Some((prefix, rest)) = bytes.split_first_chunk::<PREFIX_BYTES>() {
            let frame = Prefix::decode(*prefix).map(|prefix| {
                let len = usize::try_from(prefix.body_bytes).unwrap_or(usize::MAX);
                rest.split_at_checked(len).map(|(body, rest)| (prefix, body, rest))
            });
            let (prefix, body, rest) = match frame {
                Ok(Some(frame)) => frame,
                Ok(None) => return self.noticed.push(Reason::FrameShort),
                Err(error) => return self.nonsense(Reason::Frame(error)),
            };
            match Frame::decode(prefix, body.to_vec()) {
                Ok(Frame::Records(records)) => {
                    if !self.records(&records) {
                        return;
                    }
                }
                Ok(Frame::Attach(attach)) => self.tell(Input::Attach { path: PATH, attach }),
                Ok(Frame::HandOver(HandOver { generation, at, chain })) => {
                    let hand_over = HandOver { generation, at, chain };
                    self.tell(Input::HandOver { path: PATH, hand_over });
                }
                Ok(_) => return self.nonsense(Reason::Alarm(Alarm::Nonsense)),
                Err(error) => return self.nonsense(Reason::Frame(error)),
            }
            bytes = rest;
        }
        if !bytes.is_empty() {
            self.noticed.push(Reason::FrameShort);
        }
    }

    /// Says whether the frame was one.
    fn records(&mut self, bytes: &[u8]) -> bool {
        let mut at = 0;
        while at < bytes.len() {
            let found = Framed::decode(&bytes[at..]).map_err(Reason::Record);
            let found =
                found.and_then(|framed| scan_record(&bytes[at..], framed.header.sequence).map_err(Reason::Torn));
            let (entry, len) = match found {
                Ok(found) => found,
                Err(reason) => {
                    self.nonsense(reason);
                    return false;
                }
            };
            self.incoming = Some(bytes[at..at + len].to_vec());
            self.taken = false;
            self.tell(Input::Record { path: PATH, header: entry.header, digest: entry.digest });
            if !self.taken {
                self.noticed.push(Reason::NotTaken(entry.header.sequence));
            }
            at += len;
        }
        true
    }

    fn nonsense(&mut self, reason: Reason) {
        self.noticed.push(reason);
        self.tell(Input::Nonsense { path: PATH });
    }

    /// Records are here that come after one that is not.
    pub fn look_for_holes(&mut self) {
        let next = self.machine.durable().0.next();
        let above = self.records.range(next..).next().is_some_and(|(first, _)| *first > next);
        if above {
            self.noticed.push(Reason::Hole(next));
        }
    }

    /// Opens what is offered above the base, record by record, with the keys that the records themselves brought.
    pub fn open_all(&mut self) -> Served {
        let mut served = Served::default();
        let (ledger, offered) = (self.machine.ledger().clone(), self.machine.offered());
        let mut keys = self.genuine.keys.clone();
        keys.retain(|epoch, _| ledger.get(*epoch).is_some_and(|entry| entry.key <= self.base));
        let headers: Vec<(Header, usize)> = self
            .records
            .range(self.base.next()..)
            .take_while(|(sequence, _)| **sequence <= offered)
            .filter_map(|(_, place)| Some((Framed::decode(self.log.get(*place)?).ok()?.header, *place)))
            .collect();
        let gone: Vec<(u64, u64)> = headers
            .iter()
            .filter(|(header, _)| header.kind == Kind::Gap)
            .map(|(header, _)| (header.aux, header.sequence.0))
            .collect();
        for (header, place) in &headers {
            let sequence = header.sequence;
            if let Ok(facts) = facts(header, &self.log[*place]) {
                keys.insert(facts.epoch, facts.sealer);
            }
            if !header.kind.is_sealed() || gone.iter().any(|(from, to)| (*from..*to).contains(&sequence.0)) {
                continue;
            }
            let epoch = ledger.epoch_at(sequence);
            let Some(sealer) = keys.get(&epoch).copied() else {
                self.noticed.push(Reason::NoEpoch(sequence));
                continue;
            };
            match open_answer(self.genuine, header, &self.log[*place], sealer) {
                Ok(true) => served.records += 1,
                Ok(false) => served.falsely = Some(sequence),
                Err(why) => self.noticed.push(Reason::Unopened(sequence, why)),
            }
        }
        served
    }

    /// Nothing is in the log that was not written so.
    pub fn is_genuine(&self) -> bool {
        self.records.iter().all(|(sequence, place)| {
            self.log.get(*place).zip(self.genuine.get(*sequence)).is_some_and(|(found, whole)| *found == whole.bytes)
        })
    }

    /// What somebody knows of the order's end, held against this site.
    pub fn hold_against(&mut self, mark: Sequence) {
        let (found, chain) = self.machine.durable();
        if found != mark || chain != self.genuine.chain(mark) {
            self.noticed.push(Reason::OtherThanMark { mark, found });
        }
    }
}

/// Opens a record. Says whether it is the one that was written under this number.
pub fn open_answer(genuine: &Genuine, header: &Header, record: &[u8], sealer: Sealer) -> Result<bool, Unopened> {
    let stamps = open(header, record, true, sealer)?;
    Ok(genuine.get(header.sequence).is_some_and(|whole| whole.header == *header && whole.stamps == stamps))
}

/// Records as they travel, three in a frame.
pub fn frames(run: &[Vec<u8>]) -> Vec<u8> {
    let mut stream = Vec::new();
    for records in run.chunks(3) {
        let bytes = records.concat();
        stream.extend(Prefix::records(u32::try_from(wide(bytes.len())).unwrap_or(u32::MAX)));
        stream.extend(bytes);
    }
    stream
}
