//! How copying flows at the primary: which path carries what, and what slows it down.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use farseal_core::chain::{Chain, Digest};
use farseal_core::flow::{Chosen, Flow, Limits, Rate, Transfer, Way};
use farseal_core::frame::{Ack, Welcome};
use farseal_core::limits::RATE_BURST;
use farseal_core::owed::{CopyKind, OwedMap};
use farseal_core::primary::{
    Alarm, Command, CopyProgress, CopyState, Input, Output, Primary, Recovered, Settings, What,
};
use farseal_core::record::Kind;
use farseal_core::rotation::Slot;
use farseal_core::units::{BlockBytes, BlockCount, ByteLen, Extent, Generation, Instant, Lba, Path, Sequence, Ticket};

#[path = "support/pair.rs"]
mod pair;

use pair::{at, settings};

const BLOCKS: BlockCount = BlockCount(4096);

/// A primary whose disks are as quick as they can be.
struct Site {
    primary: Primary,
    now: u64,
    tickets: u64,
    /// What was sent, and over which path.
    sent: Vec<String>,
    others: Vec<Output>,
    /// Copies that are being read.
    reads: Vec<Extent>,
    kinds: Vec<Kind>,
    /// The dirty map on disk.
    kept: Option<OwedMap>,
    gap: u64,
}

impl Site {
    /// The first key is in force: record 1.
    fn new(flow: Flow, recovered: Recovered) -> Self {
        let mut site = Self {
            primary: Primary::new(at(0), Settings { flow, ..settings(BLOCKS) }, recovered),
            now: 0,
            tickets: 0,
            sent: Vec::new(),
            others: Vec::new(),
            reads: Vec::new(),
            kinds: Vec::new(),
            kept: None,
            gap: 1,
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
                Output::Send { path, range, slots: _ } => {
                    self.sent.push(format!("{}-{} on {}", range.first, range.last, path.0));
                }
                Output::Commit { records, .. } => {
                    self.kinds.extend(records.iter().map(|record| record.kind));
                    let gap = records.iter().find(|record| record.kind == Kind::Gap);
                    self.gap = gap.map_or(self.gap, |gap| gap.sequence.0);
                    let digests = vec![Digest([7; 32]); records.len()];
                    self.primary.handle(at(self.now), Input::Committed { digests });
                }
                Output::SyncJournal => {
                    let through = self.primary.status().last;
                    self.primary.handle(at(self.now), Input::JournalSynced { through });
                }
                Output::PrepareEpoch { epoch, .. } => {
                    let slot = Slot { at: Instant(0), blocks: 1, chance: 0 };
                    self.primary.handle(at(self.now), Input::EpochPrepared { epoch, slot });
                }
                Output::Destage { through } => self.primary.handle(at(self.now), Input::Destaged { through }),
                Output::ReadForCopy { extent, at_once: false } => self.reads.push(extent),
                Output::ReadForCopy { extent, at_once: true } => {
                    self.tickets += 1;
                    let ticket = Ticket(self.tickets);
                    self.primary.handle(at(self.now), Input::CopyRead { ticket, what: What::Data, extent });
                }
                Output::PersistOwed { stamp, .. } => {
                    self.kept = self.primary.owed_map().cloned();
                    self.primary.handle(at(self.now), Input::OwedPersisted { stamp });
                }
                other => self.others.push(other),
            }
        }
    }

    /// The secondary holds these many records, every digest of which is alike; the running hash starts anew at a gap.
    fn ack(&self, durable: u64) -> Ack {
        let chain = (self.gap..=durable).fold(Chain::START, |chain, _| chain.after(Digest([7; 32])));
        Ack { durable: Sequence(durable), chain, ranges: Vec::new(), full: false }
    }

    fn up(&mut self, path: u16) {
        self.tell(Input::Attaching { path: Path(path) });
        let ack = self.ack(self.primary.status().acked.0);
        self.tell(Input::Welcomed { path: Path(path), welcome: Welcome { generation: Generation(1), ack } });
    }

    fn acked(&mut self, path: u16, durable: u64) {
        let ack = self.ack(durable);
        self.tell(Input::Acked { path: Path(path), ack });
    }

    /// The reads for copies come back, and the secondary acknowledges what follows from them.
    fn copy(&mut self, what: What) {
        for extent in std::mem::take(&mut self.reads) {
            self.tickets += 1;
            self.tell(Input::CopyRead { ticket: Ticket(self.tickets), what, extent });
        }
        let last = self.primary.status().last.0;
        self.acked(0, last);
    }

    /// Time passes as the machine asks for it, up to here.
    fn wait_until(&mut self, ms: u64) {
        while let Some((due, _)) = self.primary.poll_timeout(at(self.now)).filter(|(due, _)| due.0 < ms) {
            self.now = due.0;
            self.tell(Input::Tick);
        }
        self.now = ms;
        self.tell(Input::Tick);
    }

    fn progress(&self) -> CopyProgress {
        self.primary.flow(at(self.now)).copy.unwrap()
    }

    fn write(&mut self) {
        self.write_blocks(1);
    }

    fn write_blocks(&mut self, blocks: u64) {
        self.tickets += 1;
        let extent = Extent::new(Lba(self.tickets % (BLOCKS.0 - blocks)), BlockCount(blocks)).unwrap();
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
    assert_eq!(site.others, [Output::CommandAnswered(Ok(()))], "it is so already");
    let chosen = Chosen { way: Some(way(Transfer::Scheduled, 2)), ..Chosen::default() };
    let again = Site::new(Flow::default(), Recovered { chosen, ..Recovered::fresh() });
    assert_eq!(again.primary.flow(at(0)).way, way(Transfer::Scheduled, 2), "the choice outlives a restart");
}

const MIB: u64 = 1 << 20;

fn rate(bytes: u64) -> Option<Rate> {
    Rate::new(bytes).ok()
}

/// A primary whose secondary is to get the whole volume.
fn copying(limits: Limits) -> Site {
    let mut owed = OwedMap::full(BLOCKS, BlockBytes::DEFAULT);
    owed.begin(CopyKind::Initial);
    resumed(limits, owed)
}

fn resumed(limits: Limits, owed: OwedMap) -> Site {
    let recovered = Recovered { owed: Some(owed), ..Recovered::fresh() };
    let mut site = Site::new(Flow { limits, ..Flow::default() }, recovered);
    site.up(0);
    site
}

#[test]
fn the_link_carries_no_more_than_its_throttle_and_all_of_it_in_the_end() {
    let limits = Limits { link: rate(MIB), ..Limits::default() };
    let mut site = linked(Transfer::Ordered, 1);
    site.tell(Input::Operator(Command::SetLimits(limits)));
    assert!(site.others.contains(&Output::PersistLimits { limits }));
    let begun = site.now;
    (0..64).for_each(|_| site.write_blocks(16));
    let sent_by = |site: &mut Site, ms| {
        site.wait_until(ms);
        let records = site.sent().into_iter().map(|sent| {
            let (range, _) = sent.split_once(" on ").unwrap();
            let (first, last) = range.split_once('-').unwrap();
            last.parse::<u64>().unwrap() + 1 - first.parse::<u64>().unwrap()
        });
        // A header, 16 tags and 16 blocks each.
        records.sum::<u64>() * (96 + 16 * (16 + 4096))
    };
    let mut sent = 0;
    for ms in [500, 1_000, 2_000, 3_000] {
        sent += sent_by(&mut site, begun + ms);
        let (least, most) = (MIB * ms / 1_000 - MIB / 10, MIB * (ms + RATE_BURST.0) / 1_000 + 5 * MIB / 4);
        assert!((least..=most).contains(&sent), "{sent} bytes in {ms} ms, not {least} to {most}");
    }
    site.tell(Input::Operator(Command::SetLimits(Limits::default())));
    assert_eq!(sent + sent_by(&mut site, 4_000), 64 * (96 + 16 * 4112), "without a throttle the rest goes at once");
}

#[test]
fn each_kind_of_copy_has_its_throttle() {
    for (kind, slow) in [(CopyKind::Initial, true), (CopyKind::Resync, false)] {
        let mut owed = OwedMap::full(BLOCKS, BlockBytes::DEFAULT);
        owed.begin(kind);
        let mut site = resumed(Limits { initial_copy: rate(MIB), ..Limits::default() }, owed);
        for ms in 0..2_000 {
            site.wait_until(ms);
            site.copy(What::Data);
        }
        let done = site.primary.status().owed_blocks.0 == 0;
        assert_eq!(done, !slow, "16 MiB in two seconds, {kind:?}");
        if slow {
            let progress = site.progress();
            assert_eq!((progress.kind, progress.total.0), (CopyKind::Initial, 16 * MIB));
            assert!((2 * MIB..=4 * MIB).contains(&progress.done.0), "{progress:?}");
            assert!(progress.rate.0 > 0 && progress.time_left.is_some(), "{progress:?}");
        }
    }
}

#[test]
fn zeroes_are_copied_as_such_and_use_nothing_of_the_throttle() {
    let mut site = copying(Limits { initial_copy: rate(MIB / 16), ..Limits::default() });
    site.kinds.clear();
    site.wait_until(10);
    for _ in 0..32 {
        site.copy(What::Zero);
    }
    assert_eq!(site.primary.status().copy, CopyState::InOrder, "16 MiB of zeroes within no time at all");
    assert_eq!(site.kinds.iter().filter(|kind| **kind == Kind::Zero).count(), 16, "a record for each MiB");
    assert_eq!(site.kinds.iter().filter(|kind| **kind == Kind::Data).count(), 0);
}

#[test]
fn a_place_that_is_written_all_the_time_is_copied_all_the_same() {
    let mut site = copying(Limits::default());
    for _ in 0..40 {
        // Into each read that is under way, before it comes back.
        for extent in site.reads.clone() {
            site.tickets += 1;
            let block = Extent::new(extent.first(), BlockCount(1)).unwrap();
            site.tell(Input::Write { ticket: Ticket(site.tickets), what: What::Data, extent: block, fua: false });
        }
        site.copy(What::Data);
    }
    assert_eq!(site.primary.status().copy, CopyState::InOrder);
}

#[test]
fn a_restart_in_the_middle_of_a_copy_repeats_an_eighth_of_the_volume_at_most() {
    let slow = Limits { initial_copy: rate(4 * MIB), ..Limits::default() };
    let mut site = copying(slow);
    let mut restarts = 0;
    for step in 1..100 {
        site.wait_until(step * 100);
        site.copy(What::Data);
        if site.primary.status().copy == CopyState::InOrder {
            break;
        }
        let (owed, kept) = (site.primary.owed_map().unwrap(), site.kept.clone().unwrap());
        let all = Extent::new(Lba(0), BLOCKS).unwrap();
        let blocks = |map: &OwedMap| map.runs(all).iter().map(|run| run.blocks().0).sum::<u64>();
        let repeated = blocks(&kept) - blocks(owed);
        assert!(repeated <= BLOCKS.0 / 8 + 256, "{repeated} blocks are copied again");
        for run in owed.runs(all) {
            assert_eq!(kept.runs(run), [run], "what is owed is owed after a restart");
        }
        if step % 10 == 0 {
            restarts += 1;
            let done = kept.progress().unwrap().2;
            site = resumed(slow, kept);
            assert_eq!(site.progress().done, done, "the count goes on, too");
        }
    }
    assert!(restarts >= 2, "the copy was over before it could be disturbed");
    assert_eq!(site.primary.status().copy, CopyState::InOrder);
}

#[test]
fn a_journal_above_high_water_slows_writes_and_one_that_is_full_does_not() {
    let mut site = linked(Transfer::Ordered, 1);
    let fill = |site: &mut Site, percent: u64| {
        let bytes = ByteLen((1 << 30) / 100 * percent);
        site.tell(Input::JournalBytes { bytes });
        site.primary.pace_us()
    };
    assert_eq!(fill(&mut site, 90), 0, "the journal waits for home, and nobody for the secondary");
    fill(&mut site, 10);
    site.write();
    let through = site.primary.status().last;
    site.tell(Input::HomeSynced { through });
    assert_eq!([fill(&mut site, 50), fill(&mut site, 80)], [0, 0]);
    let (low, high) = (fill(&mut site, 85), fill(&mut site, 99));
    assert!(0 < low && low < high && high <= 20_000, "{low} and {high} microseconds");
    let alarms = |site: &Site, alarm| site.others.iter().filter(|other| **other == Output::Alarm(alarm)).count();
    assert_eq!(alarms(&site, Alarm::HighWater), 1);
    fill(&mut site, 79);
    fill(&mut site, 81);
    assert_eq!(alarms(&site, Alarm::HighWater), 1, "at the mark it is one event");
    fill(&mut site, 10);
    fill(&mut site, 90);
    let shown = site.primary.flow(at(site.now)).journal;
    assert_eq!((shown.high_waters, shown.overflows), (2, 0));

    site.write();
    let through = site.primary.status().last;
    site.tell(Input::HomeSynced { through });
    site.tell(Input::PathLost { path: Path(0) });
    assert_eq!(fill(&mut site, 101), 0, "the dirty map takes over: nobody is slowed");
    assert_eq!((site.primary.status().copy, alarms(&site, Alarm::Behind)), (CopyState::Behind, 1));
    assert_eq!(site.primary.flow(at(site.now)).journal.overflows, 1);
}

#[test]
fn the_time_left_follows_from_what_is_written() {
    let mut site = linked(Transfer::Ordered, 1);
    assert_eq!(site.primary.flow(at(site.now)).journal.time_left, None);
    for step in 1..=400 {
        site.now = step * 100;
        site.write_blocks(256);
    }
    let fill = site.primary.flow(at(site.now)).journal;
    // Ten a second, of a MiB and what goes with it.
    assert!((9 * MIB..=11 * MIB).contains(&fill.fill_rate.0), "{fill:?}");
    let left = fill.time_left.unwrap().0;
    assert!((50_000..=70_000).contains(&left), "1 GiB less 400 MiB at 10 MiB a second: {left} ms");
}
