//! Target: a hostile primary, a slow disk and a nervous operator against the secondary's machine.

use std::collections::BTreeMap;

use farseal_core::chain::{Chain, Digest};
use farseal_core::frame::{Ack, Attach, KeyRefusal};
use farseal_core::ledger::Ledger;
use farseal_core::limits::{ACK_RANGES_MAX, ALARMS_MAX};
use farseal_core::primary::StoreFault;
use farseal_core::record::{Header, Kind};
use farseal_core::secondary::{Input, KeyFacts, Output, Recovered, Secondary, Settings};
use farseal_core::units::{
    BlockBytes, BlockCount, Epoch, Generation, Instant, Lba, Now, PairId, Path, Sequence, VolumeId, WallTime,
};

use crate::script::Script;

const SETTINGS: Settings = Settings {
    layout: None,
    pair: PairId([1; 16]),
    volume: VolumeId([2; 16]),
    encrypted: true,
    block_bytes: BlockBytes::DEFAULT,
    blocks: BlockCount(100),
};

/// Plays the choices; every answer of the machine is judged when it is given.
pub(crate) fn run(data: &[u8]) {
    let mut script = Script::new(data);
    let mut site = Site::new();
    while !script.is_over() {
        site.step(&mut script);
    }
    site.restart();
}

/// What a checkpoint of the index keeps.
#[derive(Clone, Debug)]
struct Kept {
    contiguous: Sequence,
    chain: Chain,
    ledger: Ledger,
    gap_open_after: Option<Sequence>,
}

struct Site {
    machine: Secondary,
    now: u64,
    /// Every record that was stored, in that order; the first `durable` of them are synced.
    log: Vec<(Header, Digest)>,
    durable: usize,
    /// Stores of this life that failed, which the machine counts too.
    life_base: usize,
    lost: usize,
    kept: Kept,
    generation: Generation,
    taken_over: bool,
    /// What each key record says, as the first look found it.
    facts: BTreeMap<(Sequence, Vec<u8>), Result<KeyFacts, KeyRefusal>>,
    checks: Vec<Sequence>,
    /// The greatest mark that was ever acknowledged, and the running hash there.
    acked: (Sequence, Chain),
    /// What this life has offered so far; a restart begins again where the checkpoint stands.
    offered: Sequence,
    offered_ever: Sequence,
    epochs: u64,
}

impl Site {
    fn new() -> Self {
        let kept =
            Kept { contiguous: Sequence::NONE, chain: Chain::START, ledger: Ledger::default(), gap_open_after: None };
        Self {
            machine: Secondary::new(at(0), SETTINGS, Recovered::fresh()),
            now: 0,
            log: Vec::new(),
            durable: 0,
            life_base: 0,
            lost: 0,
            kept,
            generation: Generation(0),
            taken_over: false,
            facts: BTreeMap::new(),
            checks: Vec::new(),
            acked: (Sequence::NONE, Chain::START),
            offered: Sequence::NONE,
            offered_ever: Sequence::NONE,
            epochs: 0,
        }
    }

    fn step(&mut self, script: &mut Script<'_>) {
        let path = Path(u16::from(script.below(3)));
        match script.below(16) {
            0 => self.attach(script, path),
            1 => self.tell(Input::PathLost { path }),
            2 => self.tell(Input::Nonsense { path }),
            3 => self.sync(script),
            4 => self.fail(script),
            5 | 6 => self.check_key(script),
            7 => {
                self.now += script.number() % 5000;
                self.tell(Input::Tick);
            }
            8 => self.rarely(script),
            9 => self.checkpoint(),
            _ => {
                let header = self.header(script);
                let digest = Digest([script.below(3); 32]);
                self.give(Input::Record { path, header, digest }, Some((header, digest)));
            }
        }
    }

    fn rarely(&mut self, script: &mut Script<'_>) {
        match script.below(4) {
            0 => self.restart(),
            1 => self.tell(Input::TakeOver),
            2 => {
                let generation = Generation(u64::from(script.below(4)));
                self.tell(Input::GenerationPersisted { generation });
            }
            _ => {}
        }
    }

    fn attach(&mut self, script: &mut Script<'_>, path: Path) {
        let odd = script.byte();
        let attach = Attach {
            layout: None,
            pair: if odd == 1 { PairId([7; 16]) } else { SETTINGS.pair },
            volume: if odd == 2 { VolumeId([7; 16]) } else { SETTINGS.volume },
            generation: Generation(if odd < 4 { script.number() % 4 } else { self.generation.0.max(1) }),
            encrypted: odd != 4,
            block_bytes: SETTINGS.block_bytes,
            blocks: if odd == 5 { BlockCount(script.number()) } else { SETTINGS.blocks },
            path: path.0,
            paths: 3,
        };
        self.tell(Input::Attach { path, attach });
    }

    /// Mostly what an honest primary would send next, so that there is something to spoil.
    fn header(&self, script: &mut Script<'_>) -> Header {
        let next = self.log.last().map_or(1, |(header, _)| header.sequence.0.saturating_add(1));
        let kinds =
            [Kind::Data, Kind::Data, Kind::Zero, Kind::Trim, Kind::Key, Kind::Cover, Kind::Void, Kind::Cut, Kind::Gap];
        let kind = kinds[usize::from(script.below(9))];
        let sequence = match script.below(8) {
            0..=3 => next,
            4 => self.machine.durable().0.0.saturating_add(1),
            5 => next.saturating_add(u64::from(script.byte())),
            6 => next.saturating_sub(u64::from(script.byte())),
            _ => script.number(),
        };
        let durable = self.machine.durable().0.0;
        let odd = script.byte();
        Header {
            kind,
            encrypted: odd != 1,
            stack: 0,
            search_tags: farseal_core::layout::SearchTags::NONE,
            pair: if odd == 2 { PairId([7; 16]) } else { SETTINGS.pair },
            volume: if odd == 3 { VolumeId([7; 16]) } else { SETTINGS.volume },
            generation: if odd == 4 { Generation(script.number()) } else { self.machine.generation() },
            // As a decoded header has it.
            sequence: Sequence(sequence.clamp(1, farseal_core::limits::SEQUENCE_MAX)),
            lba: Lba(if kind.touches_volume() { u64::from(script.byte()) } else { 0 }),
            blocks: u32::from(kind.has_blocks() || kind.touches_volume()),
            block_bytes: SETTINGS.block_bytes,
            wall: WallTime(script.number()),
            aux: match kind {
                Kind::Gap if script.below(3) != 0 => durable + 1,
                Kind::Void if script.below(3) != 0 => self.epochs,
                Kind::Data | Kind::Zero | Kind::Trim | Kind::Key | Kind::Cover | Kind::Void | Kind::Cut | Kind::Gap => {
                    script.number()
                }
            },
        }
    }

    /// The disk has done some of what it was given.
    fn sync(&mut self, script: &mut Script<'_>) {
        let open = self.log.len() - self.durable;
        let done = if script.below(4) == 0 { usize::from(script.byte()).min(open) } else { open };
        self.durable += done;
        let stored = self.durable - self.life_base + self.lost;
        self.tell(Input::LogSynced { stored: u64::try_from(stored).unwrap_or(u64::MAX) });
    }

    /// What was not durable is taken back from the log.
    fn fail(&mut self, script: &mut Script<'_>) {
        let fault = if script.below(4) == 0 { StoreFault::Failed } else { StoreFault::Full };
        self.lost += self.log.len() - self.durable;
        self.log.truncate(self.durable);
        self.tell(Input::LogFailed { fault });
    }

    fn check_key(&mut self, script: &mut Script<'_>) {
        let key = match self.checks.len() {
            0 => Sequence(script.number()),
            some => self.checks.remove(usize::from(script.byte()) % some),
        };
        let Some((header, digest)) = self.log.iter().rev().find(|(header, _)| header.sequence == key).copied() else {
            let result = Err(KeyRefusal::NoCapsule);
            return self.tell(Input::KeyChecked { key, result });
        };
        self.epochs += 1;
        let drawn = match script.below(8) {
            0 => Err(KeyRefusal::Forged),
            1 => Ok(KeyFacts { epoch: Epoch(script.number()), start: Sequence(script.number()) }),
            _ => Ok(KeyFacts { epoch: Epoch(self.epochs), start: key.plus(2) }),
        };
        let name = (key, [header.encode(0).as_slice(), &digest.0].concat());
        let result = *self.facts.entry(name).or_insert(drawn);
        self.tell(Input::KeyChecked { key, result });
    }

    fn checkpoint(&mut self) {
        let (contiguous, chain) = self.machine.durable();
        let gap_open_after = self.machine.gap_open_after();
        self.kept = Kept { contiguous, chain, ledger: self.machine.ledger().clone(), gap_open_after };
    }

    /// A crash: what was not synced is gone, and keys are checked again.
    fn restart(&mut self) {
        self.log.truncate(self.durable);
        let kept = self.kept.clone();
        let above = self.log.iter().filter(|(header, _)| header.sequence > kept.contiguous).copied().collect();
        let recovered = Recovered {
            generation: self.generation,
            taken_over: self.taken_over,
            contiguous: kept.contiguous,
            chain: kept.chain,
            above,
            ledger: kept.ledger,
            gap_open_after: kept.gap_open_after,
            ..Recovered::fresh()
        };
        self.life_base = self.durable;
        self.lost = 0;
        self.checks.clear();
        self.offered = recovered.gap_open_after.unwrap_or(recovered.contiguous);
        self.machine = Secondary::new(at(self.now), SETTINGS, recovered);
        self.drain(None);
        let promised: Vec<Sequence> = self.checks.clone();
        for key in promised {
            let found = self.facts.iter().find(|((sequence, _), _)| *sequence == key).map(|(_, result)| *result);
            if let Some(result) = found {
                self.checks.retain(|waiting| *waiting != key);
                self.tell(Input::KeyChecked { key, result });
            }
        }
    }

    fn tell(&mut self, input: Input) {
        self.give(input, None);
    }

    fn give(&mut self, input: Input, came: Option<(Header, Digest)>) {
        self.machine.handle(at(self.now), input);
        self.drain(came);
        let status = self.machine.status();
        assert!(status.alarms.len() <= ALARMS_MAX, "alarms are bounded");
        assert!(status.offered <= status.durable, "only what is durable is offered");
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the other outputs promise nothing that is judged here")]
    fn drain(&mut self, came: Option<(Header, Digest)>) {
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Store { sequence } => {
                    let Some(record) = came.filter(|(header, _)| header.sequence == sequence) else {
                        panic!("a record is stored that did not come");
                    };
                    assert!(!self.taken_over, "nothing is added to a log that was taken over");
                    self.log.push(record);
                }
                Output::Welcome { welcome, .. } => self.judge_ack(&welcome.ack),
                Output::Ack { ack, .. } => self.judge_ack(&ack),
                Output::CheckKey { key } => self.checks.push(key),
                Output::Offer { through } => {
                    assert!(through >= self.offered, "what is offered never goes back");
                    self.offered = through;
                    self.offered_ever = self.offered_ever.max(through);
                }
                Output::PersistGeneration { generation, taken_over } => {
                    assert!(generation >= self.generation, "generations only grow");
                    self.generation = generation;
                    self.taken_over |= taken_over;
                }
                Output::TakenOver { generation, through } => {
                    assert_eq!(generation, self.generation);
                    assert!(through >= self.offered_ever, "taken over at {through}, offered was {}", self.offered_ever);
                }
                _ => {}
            }
        }
    }

    /// What is acknowledged is in the log, synced; and the mark only grows, over restarts too.
    fn judge_ack(&mut self, ack: &Ack) {
        assert!(ack.ranges.len() <= ACK_RANGES_MAX);
        assert!(ack.durable >= self.acked.0, "acknowledged {} after {}", ack.durable, self.acked.0);
        if ack.durable == self.acked.0 {
            assert_eq!(ack.chain, self.acked.1, "two running hashes at {}", ack.durable);
        }
        self.acked = (ack.durable, ack.chain);
        let synced = |wanted: Sequence| {
            self.log[..self.durable].iter().any(|(header, _)| {
                header.sequence == wanted
                    || (header.kind == Kind::Gap && header.aux <= wanted.0 && wanted <= header.sequence)
            })
        };
        assert!(ack.durable == Sequence::NONE || synced(ack.durable), "{} is not in the log", ack.durable);
        let mut above = ack.durable;
        for range in &ack.ranges {
            assert!(range.first > above && range.last >= range.first, "ranges are in order");
            above = range.last;
            assert!(synced(range.first) && synced(range.last), "{range:?} is not in the log");
        }
    }
}

fn at(now: u64) -> Now {
    Now { instant: Instant(now), wall: WallTime(now) }
}
