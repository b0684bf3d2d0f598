//! How copying flows at the primary: which path carries what, and what slows it down.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use farseal_core::chain::{Chain, Digest};
use farseal_core::flow::{Chosen, Flow, Transfer, Way};
use farseal_core::frame::{Ack, Welcome};
use farseal_core::primary::{Command, Input, Mode, Output, Primary, Recovered, Settings, What};
use farseal_core::rotation::{How, KeyLimits, Slot};
use farseal_core::units::{
    BlockBytes, BlockCount, ByteLen, Extent, Generation, Instant, Lba, Millis, Now, PairId, Path, Sequence, Ticket,
    VolumeId, WallTime,
};

const BLOCKS: BlockCount = BlockCount(4096);

fn at(ms: u64) -> Now {
    Now { instant: Instant(ms), wall: WallTime(ms) }
}

fn settings(flow: Flow) -> Settings {
    Settings {
        pair: PairId([1; 16]),
        volume: VolumeId([2; 16]),
        generation: Generation(1),
        encrypted: true,
        block_bytes: BlockBytes::DEFAULT,
        blocks: BLOCKS,
        mode: Mode::Async,
        paired: true,
        key_limits: KeyLimits { interval_min: Millis(100), age_max: Millis(1 << 40), bytes_max: ByteLen(1 << 40) },
        rotate_how: How::InBand,
        journal_bytes_max: ByteLen(1 << 30),
        flow,
    }
}

/// A primary whose disks are as quick as they can be.
struct Site {
    primary: Primary,
    now: u64,
    tickets: u64,
    /// What was sent, and over which path.
    sent: Vec<String>,
    others: Vec<Output>,
}

impl Site {
    /// The first key is in force: record 1.
    fn new(flow: Flow, recovered: Recovered) -> Self {
        let mut site = Self {
            primary: Primary::new(at(0), settings(flow), recovered),
            now: 0,
            tickets: 0,
            sent: Vec::new(),
            others: Vec::new(),
        };
        site.drain();
        site
    }

    fn tell(&mut self, input: Input) {
        self.primary.handle(at(self.now), input);
        self.drain();
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "everything else is kept as it is")]
    fn drain(&mut self) {
        while let Some(output) = self.primary.poll_output() {
            match output {
                Output::Send { path, range } => {
                    self.sent.push(format!("{}-{} on {}", range.first, range.last, path.0));
                }
                Output::Commit { records, .. } => {
                    let digests = vec![Digest([7; 32]); records.len()];
                    self.primary.handle(at(self.now), Input::Committed { digests });
                }
                Output::SyncJournal => {
                    let through = self.primary.status().last;
                    self.primary.handle(at(self.now), Input::JournalSynced { through });
                }
                Output::PrepareEpoch { epoch, .. } => {
                    let slot = Slot { at: Instant(0), blocks: 1 };
                    self.primary.handle(at(self.now), Input::EpochPrepared { epoch, slot });
                }
                other => self.others.push(other),
            }
        }
    }

    /// The secondary holds these many records, every digest of which is alike.
    fn ack(durable: u64) -> Ack {
        let chain = (0..durable).fold(Chain::START, |chain, _| chain.after(Digest([7; 32])));
        Ack { durable: Sequence(durable), chain, ranges: Vec::new(), full: false }
    }

    fn up(&mut self, path: u16) {
        self.tell(Input::Attaching { path: Path(path) });
        let ack = Self::ack(self.primary.status().acked.0);
        self.tell(Input::Welcomed { path: Path(path), welcome: Welcome { generation: Generation(1), ack } });
    }

    fn acked(&mut self, path: u16, durable: u64) {
        self.tell(Input::Acked { path: Path(path), ack: Self::ack(durable) });
    }

    fn write(&mut self) {
        self.tickets += 1;
        let extent = Extent::new(Lba(self.tickets % BLOCKS.0), BlockCount(1)).unwrap();
        self.tell(Input::Write { ticket: Ticket(self.tickets), what: What::Data, extent, fua: false });
    }

    fn sent(&mut self) -> Vec<String> {
        std::mem::take(&mut self.sent)
    }
}

fn way(transfer: Transfer, paths: u16) -> Way {
    Way { transfer, paths }
}

fn linked(transfer: Transfer, paths: u16) -> Site {
    let mut site = Site::new(Flow { way: way(transfer, paths), ..Flow::default() }, Recovered::fresh());
    (0..paths).for_each(|path| site.up(path));
    site.acked(0, 1);
    site.sent();
    site
}

#[test]
fn an_ordered_transfer_uses_one_path_and_another_takes_over_when_it_breaks() {
    let mut site = linked(Transfer::Ordered, 3);
    site.write();
    site.write();
    assert_eq!(site.sent(), ["2-2 on 0", "3-3 on 0"]);
    site.tell(Input::PathLost { path: Path(2) });
    assert_eq!(site.sent(), [""; 0], "a path that stood by takes nothing with it");
    site.tell(Input::PathLost { path: Path(0) });
    assert_eq!(site.sent(), ["2-3 on 1"], "what may be lost with the path goes again");
    site.up(0);
    site.write();
    assert_eq!(site.sent(), ["4-4 on 1"], "the one that carries stays the one");
    assert_eq!(site.primary.flow(at(0)).carrier, Some(Path(1)));
}

#[test]
fn a_scheduled_transfer_uses_every_path() {
    let mut site = linked(Transfer::Scheduled, 2);
    (0..4).for_each(|_| site.write());
    let mut paths: Vec<String> = site.sent().iter().map(|sent| sent.split_once(" on ").unwrap().1.to_owned()).collect();
    paths.sort();
    assert_eq!(paths, ["0", "0", "1", "1"]);
}

#[test]
fn a_path_that_comes_anew_before_its_end_was_noticed_is_sent_what_it_had() {
    let mut site = linked(Transfer::Ordered, 1);
    site.write();
    assert_eq!(site.sent(), ["2-2 on 0"]);
    site.up(0);
    assert_eq!(site.sent(), ["2-2 on 0"]);
}

#[test]
fn the_way_changes_while_records_flow_and_is_remembered() {
    let mut site = linked(Transfer::Scheduled, 3);
    site.write();
    site.sent();
    let ordered = way(Transfer::Ordered, 1);
    site.tell(Input::Operator(Command::SetWay(ordered)));
    let closed = [1, 2].map(|path| Output::ClosePath { path: Path(path) });
    assert!(closed.iter().all(|close| site.others.contains(close)), "{:?}", site.others);
    assert!(site.others.contains(&Output::PersistWay { way: ordered }));
    site.sent();
    site.write();
    assert_eq!(site.sent(), ["3-3 on 0"]);
    site.up(1);
    assert_eq!(site.others.last(), Some(&Output::ClosePath { path: Path(1) }), "no path beyond those wanted is used");
    site.others.clear();
    site.tell(Input::Operator(Command::SetWay(ordered)));
    assert_eq!(site.others, [], "it is so already");
    let chosen = Chosen { way: Some(way(Transfer::Scheduled, 2)), ..Chosen::default() };
    let again = Site::new(Flow::default(), Recovered { chosen, ..Recovered::fresh() });
    assert_eq!(again.primary.flow(at(0)).way, way(Transfer::Scheduled, 2), "the choice outlives a restart");
}
