//! Every event in every phase of copying: in order, behind, and the stages of a resync.

use farseal_core::chain::{Chain, Digest};
use farseal_core::frame::{Ack, Differs, KeyRefusal, Welcome};
use farseal_core::given_up::GivenUp;
use farseal_core::owed::OwedMap;
use farseal_core::primary::{Command, CopyState, Input, Output, Primary, Recovered, Settings, StoreFault, What};
use farseal_core::rotation::Slot;
use farseal_core::units::{
    BlockBytes, BlockCount, ByteLen, Epoch, Extent, Generation, Instant, Lba, Now, Path, Sequence, Ticket,
};

use super::pair::{at, settings};
use super::{Step, diagram, snapshot, table};

const BLOCKS: BlockCount = BlockCount(16);
const NOW: Now = at(10_000);

/// A primary, and a disk, a link and a secondary that do what they should.
struct Site {
    primary: Primary,
    /// What it did since it was last asked.
    does: Vec<String>,
    digest: u8,
    stamp: u64,
    committing: Vec<usize>,
}

fn block(at: u64) -> Extent {
    Extent::new(Lba(at), BlockCount(1)).unwrap()
}

impl Site {
    fn new(owed: Option<OwedMap>) -> Self {
        // What comes first was sent before it was given up.
        let mut given_up = GivenUp::default();
        let mut chain = Chain::START;
        for sequence in 1..=3 {
            chain = chain.after(Digest([sequence; 32]));
            given_up.push(Sequence(u64::from(sequence)), chain);
        }
        let recovered = Recovered { owed, given_up: Some(given_up), ..Recovered::fresh() };
        let primary =
            Primary::new(NOW, Settings { journal_bytes_max: ByteLen(1 << 20), ..settings(BLOCKS) }, recovered);
        let mut site = Self { primary, does: Vec::new(), digest: 0, stamp: 0, committing: Vec::new() };
        site.drain();
        site
    }

    /// The first key is in force, two writes are in the journal and at home.
    fn started(mut self) -> Self {
        self.prepare(1);
        for ticket in 1..=2 {
            self.tell(Input::Write { ticket: Ticket(ticket), what: What::Data, extent: block(ticket), fua: true });
        }
        self.settle();
        self
    }

    fn prepare(&mut self, epoch: u64) {
        self.tell(Input::EpochPrepared { epoch: Epoch(epoch), slot: Slot { at: Instant(0), blocks: 1, chance: 0 } });
    }

    fn tell(&mut self, input: Input) {
        self.primary.handle(NOW, input);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.primary.poll_output() {
            match output {
                Output::Commit { records, .. } => {
                    self.committing.push(records.len());
                    let kinds: Vec<String> = records.iter().map(|record| format!("{:?}", record.kind)).collect();
                    self.does.push(format!("commit {}", kinds.join("+")));
                }
                Output::PersistOwed { stamp, .. } => {
                    self.stamp = stamp;
                    self.does.push("persist map".into());
                }
                Output::ReadForCopy { extent, .. } => self.does.push(format!("read {extent}")),
                Output::SeedArrived => self.does.push("seed arrived".into()),
                Output::DropOwed => self.does.push("drop map".into()),
                Output::DiscardCopy { .. } => self.does.push("discard copy".into()),
                Output::Send { range, .. } => self.does.push(format!("send {}-{}", range.first, range.last)),
                Output::PrepareEpoch { epoch, .. } => self.does.push(format!("prepare epoch {epoch}")),
                Output::TrimJournal { through } => self.does.push(format!("trim {through}")),
                Output::CarryKey { .. } => self.does.push("carry key".into()),
                Output::Alarm(alarm) => self.does.push(format!("alarm: {alarm}")),
                Output::ClosePath { .. } => self.does.push("close path".into()),
                Output::Reply { .. }
                | Output::RetryCommit
                | Output::SyncJournal
                | Output::Destage { .. }
                | Output::SyncHome
                | Output::DiscardEpoch { .. }
                | Output::EpochInForce { .. }
                | Output::PlanSlots
                | Output::ShamInForce
                | Output::AskPolicy { .. }
                | Output::CommandAnswered(_)
                | Output::PersistPause { .. }
                | Output::PersistMode { .. }
                | Output::PersistWay { .. }
                | Output::PersistLimits { .. }
                | Output::PersistHandOver { .. }
                | Output::SendHandOver { .. }
                | Output::HandedOver { .. }
                | Output::PersistFence { .. } => {}
            }
        }
    }

    fn commit(&mut self) {
        while !self.committing.is_empty() {
            let count = self.committing.remove(0);
            let digests = (0..count)
                .map(|_| {
                    self.digest += 1;
                    Digest([self.digest; 32])
                })
                .collect();
            self.tell(Input::Committed { digests });
        }
    }

    /// Disks finish what they have.
    fn settle(&mut self) {
        self.commit();
        let last = self.primary.status().last;
        self.tell(Input::JournalSynced { through: last });
        self.tell(Input::Destaged { through: last });
        self.tell(Input::HomeSynced { through: last });
    }

    fn welcome(&mut self, durable: u64) {
        self.welcome_at(durable, self.chain(durable));
    }

    fn welcome_at(&mut self, durable: u64, chain: Chain) {
        let path = Path(0);
        self.tell(Input::Attaching { path });
        let ack = Ack { durable: Sequence(durable), chain, ranges: Vec::new(), full: false };
        self.tell(Input::Welcomed { path, welcome: Welcome { generation: Generation(1), ack } });
    }

    fn ack(&mut self, durable: Sequence) {
        let ack = Ack { durable, chain: self.chain(durable.0), ranges: Vec::new(), full: false };
        self.tell(Input::Acked { path: Path(0), ack });
    }

    /// The running hash that the secondary has: this site's records in their order, from the gap on if it has one.
    fn chain(&self, through: u64) -> Chain {
        (1..=through).fold(Chain::START, |chain, sequence| {
            let digest = Digest([u8::try_from(sequence).unwrap(); 32]);
            let gap = sequence == 4 && self.primary.status().copy != CopyState::InOrder;
            if gap { Chain::START.after(digest) } else { chain.after(digest) }
        })
    }

    fn phase(&self) -> String {
        let state = format!("{:?}", self.primary.status().copy);
        let inside = format!("{:?}", self.primary);
        let stage = inside.split("stage: ").nth(1).and_then(|rest| rest.split([' ', ',', '(', '}']).next());
        stage.filter(|_| state == "Resync").map_or(state.clone(), |stage| format!("{state} {stage}"))
    }
}

fn in_order() -> Site {
    let mut site = Site::new(None).started();
    site.welcome(0);
    site
}

/// Everything is owed and no path is up.
fn behind() -> Site {
    Site::new(Some(OwedMap::full(BLOCKS, BlockBytes::DEFAULT))).started()
}

fn key_pending() -> Site {
    let mut site = behind();
    site.welcome(0);
    site
}

fn map_pending() -> Site {
    let mut site = key_pending();
    site.prepare(2);
    site
}

fn gap_placed() -> Site {
    let mut site = map_pending();
    site.tell(Input::OwedPersisted { stamp: site.stamp });
    site
}

fn open() -> Site {
    let mut site = gap_placed();
    site.settle();
    site
}

fn cut_placed() -> Site {
    let mut site = open();
    site.tell(Input::CopyRead { ticket: Ticket(100), what: What::Data, extent: Extent::new(Lba(0), BLOCKS).unwrap() });
    site.settle();
    let last = site.primary.status().last;
    site.ack(last);
    site
}

type Event = (&'static str, fn(&mut Site));

fn events() -> Vec<Event> {
    vec![
        ("path up, secondary where it was", |site| site.welcome(0)),
        ("path up, secondary further", |site| site.welcome(2)),
        ("path up, secondary elsewhere", |site| site.welcome_at(2, Chain([99; 32]))),
        ("path lost", |site| site.tell(Input::PathLost { path: Path(0) })),
        ("write", |site| {
            site.tell(Input::Write { ticket: Ticket(50), what: What::Data, extent: block(3), fua: false });
        }),
        ("journal over its limit", |site| site.tell(Input::JournalBytes { bytes: ByteLen(1 << 30) })),
        ("map written", |site| site.tell(Input::OwedPersisted { stamp: site.stamp })),
        ("map not written", |site| site.tell(Input::OwedPersistFailed { stamp: site.stamp })),
        ("key prepared", |site| site.prepare(2)),
        ("key not prepared", |site| site.tell(Input::EpochFailed { epoch: Epoch(2) })),
        ("journal written", Site::settle),
        ("journal disk full", |site| {
            if !site.committing.is_empty() {
                site.tell(Input::CommitFailed { fault: StoreFault::Full });
            }
        }),
        ("copy read", |site| {
            site.tell(Input::CopyRead {
                ticket: Ticket(60),
                what: What::Data,
                extent: Extent::new(Lba(0), BLOCKS).unwrap(),
            });
        }),
        ("copy not read", |site| {
            site.tell(Input::CopyReadFailed { extent: Extent::new(Lba(0), BLOCKS).unwrap() });
        }),
        ("write, then copy read", |site| {
            site.tell(Input::Write { ticket: Ticket(51), what: What::Data, extent: block(3), fua: false });
            site.tell(Input::CopyRead {
                ticket: Ticket(61),
                what: What::Data,
                extent: Extent::new(Lba(0), BLOCKS).unwrap(),
            });
        }),
        ("all acknowledged", |site| {
            site.settle();
            let last = site.primary.status().last;
            site.ack(last);
        }),
        ("an earlier record acknowledged", |site| site.ack(Sequence(2))),
        ("key in force refused", |site| {
            let key = Sequence(if site.primary.status().last > Sequence(4) { 5 } else { 1 });
            site.tell(Input::KeyRefused { key, why: KeyRefusal::Unopenable });
        }),
        ("secondary's base differs", |site| {
            site.tell(Input::Differs { differs: Differs { first: 0, words: vec![1], last: true } });
        }),
        ("operator copies all", |site| site.tell(Input::Operator(Command::CopyAll))),
        ("a block is found different", |site| {
            let mut map = OwedMap::empty(BLOCKS, BlockBytes::DEFAULT);
            map.mark(block(1));
            site.tell(Input::OweAgain { map });
        }),
        ("the seed is given up", |site| site.tell(Input::SeedLost)),
        ("path up, the awaited seed not there", |site| {
            site.primary.await_seed(Sequence(1 << 20));
            let welcome = Welcome {
                generation: Generation(1),
                ack: Ack { durable: Sequence(2), chain: Chain::START, ranges: vec![], full: false },
            };
            site.tell(Input::Welcomed { path: Path(0), welcome });
        }),
        ("operator pauses", |site| site.tell(Input::Operator(Command::Pause))),
    ]
}

fn steps() -> Vec<Step> {
    let states: [fn() -> Site; 7] = [in_order, behind, key_pending, map_pending, gap_placed, open, cut_placed];
    let mut steps = Vec::new();
    for state in states {
        for (event, apply) in events() {
            let mut site = state();
            let before = site.phase();
            site.does.clear();
            apply(&mut site);
            steps.push(Step { state: before, event, after: site.phase(), does: site.does.join("; ") });
        }
    }
    steps
}

#[test]
fn every_event_in_every_phase_of_copying() {
    snapshot("copying", &table(&steps()));
}

#[test]
fn the_copyings_diagram_follows_from_its_table() {
    snapshot("copying_diagram", &diagram(&steps()));
}
