//! A lane at the writing site: its machine, a journal that forgets what was not synced, and a volume of stamps.

use std::collections::BTreeMap;

use farseal_core::chain::{Chain, Digest};
use farseal_core::flow::{Flow, Transfer, Way};
use farseal_core::frame::HandOver;
use farseal_core::owed::OwedMap;
use farseal_core::primary::{Kept, KeptMap, Logged, Mode, Planned, Primary, Recovered, Settings, Source};
use farseal_core::record::{Header, Kind};
use farseal_core::rotation::{How, KeyLimits};
use farseal_core::units::{
    BlockCount, ByteLen, Epoch, Extent, Generation, Instant, Lba, Millis, Now, Sequence, Ticket,
};

use crate::dice::{Dice, mix};
use crate::disk::{to_usize, wide};
use crate::group::declaring::Word;
use crate::group::{BLOCKS, pair};
use crate::seal::Stamp;
use crate::world::{VOLUME, block_bytes};

/// A record with what it holds.
#[derive(Clone, Debug)]
pub struct Rec {
    pub header: Header,
    pub digest: Digest,
    pub stamps: Vec<Stamp>,
    /// That it is of.
    pub epoch: Epoch,
    /// A key record's epoch and start.
    pub key: Option<(Epoch, Sequence)>,
    /// The running hash after it.
    chain: Chain,
    chain_before: Chain,
}

#[derive(Debug)]
pub struct Lane {
    pub index: usize,
    pub group: usize,
    flow: Flow,
    pub machine: Option<Primary>,
    pub life: u64,
    pub tick_at: Option<Instant>,
    // Durable, but for the journal's end.
    journal: Vec<Rec>,
    durable: usize,
    map: Option<KeptMap>,
    newest_epoch: Epoch,
    pub paused: bool,
    pub fenced: Option<Generation>,
    pub handing_over: Option<HandOver>,
    /// The other site writes, and this one keeps its copy.
    pub turned: bool,
    /// With the writing site.
    pub gone: bool,
    /// The change of sides for which it stood still last, as its world counts them.
    pub stood: Option<u64>,
    // Until the next crash.
    /// What initiators would read.
    pub content: Vec<Stamp>,
    pub writes: BTreeMap<Ticket, Vec<Stamp>>,
    /// Commits that are being appended.
    pub appending: Vec<(Vec<Planned>, Option<Chain>)>,
    pub next_block: u64,
    /// Words of a disaster that its node waits for.
    pub words: Vec<Word>,
    /// What is being made durable.
    pub handing: Option<HandOver>,
}

impl Lane {
    pub fn new(dice: &mut Dice, index: usize, group: usize, paths: usize) -> Self {
        let transfer = if dice.chance(300) { Transfer::Ordered } else { Transfer::Scheduled };
        let way = Way { transfer, paths: u16::try_from(paths).unwrap_or(1) };
        Self {
            index,
            group,
            flow: Flow { way, ..Flow::default() },
            machine: None,
            life: 0,
            tick_at: None,
            journal: Vec::new(),
            durable: 0,
            map: None,
            newest_epoch: Epoch::NONE,
            paused: false,
            fenced: None,
            handing_over: None,
            turned: false,
            gone: false,
            stood: None,
            content: vec![0; to_usize(BLOCKS)],
            writes: BTreeMap::new(),
            appending: Vec::new(),
            next_block: 0,
            words: Vec::new(),
            handing: None,
        }
    }

    fn settings(&self) -> Settings {
        Settings {
            layout: None,
            pair: pair(self.index),
            volume: VOLUME,
            generation: Generation(1),
            encrypted: false,
            block_bytes: block_bytes(),
            blocks: BlockCount(BLOCKS),
            mode: Mode::Async,
            paired: true,
            key_limits: KeyLimits { interval_min: Millis(100), age_max: Millis(1 << 40), bytes_max: ByteLen(1 << 40) },
            escrowed: false,
            in_slots: false,
            rotate_how: How::InBand,
            pause_hidden: true,
            shaped: true,
            journal_bytes_max: ByteLen(1 << 20),
            unordered: None,
            flow: self.flow,
        }
    }

    /// Nothing is written here any more: it knows that its copy was taken over, or it is lost.
    pub fn is_over(&self) -> bool {
        self.fenced.is_some() || self.turned || self.gone
    }

    /// Loses what was not synced, or only some of it. Says which stamps are gone.
    pub fn crash(&mut self, dice: &mut Dice) -> Vec<Stamp> {
        self.machine = None;
        self.life += 1;
        let kept = self.durable + to_usize(dice.below(wide(self.journal.len() - self.durable) + 1));
        self.journal.truncate(kept);
        self.durable = kept;
        self.writes.clear();
        self.words.clear();
        self.appending.clear();
        self.tick_at = None;
        if let Some(handing) = self.handing.take().filter(|_| dice.chance(500)) {
            // What was under way may have been done.
            self.handing_over = Some(handing);
        }
        let before = std::mem::replace(&mut self.content, vec![0; to_usize(BLOCKS)]);
        for rec in &self.journal {
            apply(&mut self.content, &rec.header, &rec.stamps);
        }
        let gone = before.into_iter().zip(&self.content).filter(|(before, now)| *before != 0 && before != *now);
        gone.map(|(before, _)| before).collect()
    }

    /// The lane has ended, in order: nothing of it is lost, and its initiators go elsewhere.
    pub fn stop(&mut self) {
        self.machine = None;
        self.life += 1;
        self.words.clear();
        self.tick_at = None;
    }

    pub fn restart(&mut self, now: Now) {
        let records: Vec<Logged> = self.journal.iter().map(Rec::logged).collect();
        let last = records.last().map_or(Sequence::NONE, |record| record.header.sequence);
        let kept = Kept {
            homed: last,
            newest_epoch: self.newest_epoch,
            owed: self.map.clone(),
            paused: self.paused,
            fenced: self.fenced,
            mode: None,
            chosen: farseal_core::flow::Chosen::default(),
            handing_over: self.handing_over,
        };
        let recovered = Recovered::from_records(Sequence::NONE, Chain::START, &records, kept);
        self.machine = Some(Primary::new(now, self.settings(), recovered));
    }

    pub fn prepared(&mut self, epoch: Epoch) {
        self.newest_epoch = self.newest_epoch.max(epoch);
    }

    pub fn newest_epoch(&self) -> Epoch {
        self.newest_epoch
    }

    /// The first record behind this one that is sealed.
    pub fn first_sealed(&self, after: Sequence) -> Option<&Rec> {
        self.journal.iter().find(|rec| rec.header.sequence > after && rec.header.kind.is_sealed())
    }

    pub fn keep_map(&mut self, acked: Sequence, acked_chain: Chain) {
        let bytes = self.machine.as_ref().and_then(Primary::encode_owed);
        let kept = bytes.and_then(|bytes| OwedMap::decode_with(&bytes, BlockCount(BLOCKS), block_bytes()).ok());
        self.map = kept.map(|(map, given_up)| KeptMap { map, given_up, acked, acked_chain });
    }

    pub fn drop_map(&mut self) {
        self.map = None;
    }

    /// Appends the oldest commit under way; the digests of its records.
    pub fn append(&mut self) -> Option<Vec<Digest>> {
        if self.appending.is_empty() {
            return None;
        }
        let (records, restart) = self.appending.remove(0);
        let mut digests = Vec::new();
        for planned in records {
            let rec = self.built(&planned, restart);
            digests.push(rec.digest);
            self.journal.push(rec);
        }
        Some(digests)
    }

    fn built(&self, planned: &Planned, restart: Option<Chain>) -> Rec {
        let extent = planned.extent;
        let header = Header {
            kind: planned.kind,
            encrypted: false,
            stack: 0,
            search_tags: farseal_core::layout::SearchTags::NONE,
            pair: pair(self.index),
            volume: VOLUME,
            generation: Generation(1),
            sequence: planned.sequence,
            lba: extent.map_or(Lba(0), Extent::first),
            blocks: extent
                .map_or(planned.body_blocks, |extent| u32::try_from(extent.blocks().0).unwrap_or(planned.body_blocks)),
            block_bytes: block_bytes(),
            wall: planned.wall,
            aux: planned.aux,
        };
        let (mut stamps, mut key) = (Vec::new(), None);
        match planned.source {
            Source::Buffer { ticket, skip } => {
                let all = self.writes.get(&ticket).map_or(&[][..], Vec::as_slice);
                stamps = all.iter().skip(to_usize(skip.0)).take(to_usize(u64::from(header.blocks))).copied().collect();
            }
            Source::Capsules { start, .. } => key = Some((planned.epoch, start)),
            Source::Sham { .. } | Source::Header | Source::Random => {}
        }
        let mut digest = [0; 32];
        let content = stamps.iter().fold(mix(header.sequence.0 ^ self.life << 40), |all, stamp| mix(all ^ stamp));
        digest[..8].copy_from_slice(&content.to_le_bytes());
        let digest = Digest(digest);
        let before = self.journal.last().map_or(Chain::START, |rec| rec.chain);
        let chain_before = restart.filter(|_| header.kind == Kind::Gap).unwrap_or(before);
        let epoch = planned.epoch;
        Rec { header, digest, stamps, epoch, key, chain: chain_before.after(digest), chain_before }
    }

    /// How far a sync that begins now reaches.
    pub fn end(&self) -> (usize, Sequence) {
        (self.journal.len(), self.journal.last().map_or(Sequence::NONE, |rec| rec.header.sequence))
    }

    pub fn synced(&mut self, end: usize) {
        self.durable = self.durable.max(end);
    }

    /// The records of a range, as the journal has them.
    pub fn records(&self, first: Sequence, last: Sequence) -> Vec<Rec> {
        let within = |rec: &&Rec| first <= rec.header.sequence && rec.header.sequence <= last;
        self.journal.iter().filter(within).cloned().collect()
    }
}

impl Rec {
    fn logged(&self) -> Logged {
        Logged { header: self.header, digest: self.digest, chain_before: self.chain_before, chain: self.chain }
    }
}

/// What a record does to a volume.
pub fn apply(content: &mut [Stamp], header: &Header, stamps: &[Stamp]) {
    if header.kind == Kind::Data {
        let first = to_usize(header.lba.0);
        for (block, stamp) in content.iter_mut().skip(first).zip(stamps) {
            *block = *stamp;
        }
    }
}
