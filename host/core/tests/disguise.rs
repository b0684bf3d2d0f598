//! A disguise's standing schedule at the primary: slots are filled whether a key is due or not, and nothing else moves.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use farseal_core::chain::{Chain, Digest};
use farseal_core::frame::{Ack, Welcome};
use farseal_core::limits::{KEY_GAP_MAX, KEY_LEAD_MIN};
use farseal_core::primary::{Command, Input, Output, Planned, Primary, Recovered, Settings, Source, What};
use farseal_core::record::Kind;
use farseal_core::rotation::{How, KeyLimits, Refused, Slot, State};
use farseal_core::schedule;
use farseal_core::units::{
    BlockCount, ByteLen, Epoch, Extent, Generation, Instant, Lba, Millis, Path, Sequence, Ticket,
};

#[path = "support/pair.rs"]
mod pair;

use pair::{at, settings};

/// One slot every so many milliseconds.
const GAP: u64 = 100;

/// A pair on an idle link whose disks and remote are as quick as they can be.
struct Site {
    primary: Primary,
    now: u64,
    records: Vec<Planned>,
    commits: Vec<usize>,
    shams_in_force: usize,
    refused: Vec<Refused>,
    slots: bool,
}

impl Site {
    /// The first key is in force, and the link is up.
    fn new(settings: Settings, slots: bool) -> Self {
        let mut site = Self {
            primary: Primary::new(at(0), settings, Recovered::fresh()),
            now: 0,
            records: Vec::new(),
            commits: Vec::new(),
            shams_in_force: 0,
            refused: Vec::new(),
            slots,
        };
        site.tell(Input::Attaching { path: Path(0) });
        let ack = Ack { durable: Sequence::NONE, chain: Chain::START, ranges: Vec::new(), full: false };
        site.tell(Input::Welcomed { path: Path(0), welcome: Welcome { generation: Generation(1), ack } });
        site
    }

    fn tell(&mut self, input: Input) {
        self.primary.handle(at(self.now), input);
        while let Some(output) = self.primary.poll_output() {
            if let Some(answer) = self.answer(output) {
                self.primary.handle(at(self.now), answer);
            }
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "nothing else needs an answer here")]
    fn answer(&mut self, output: Output) -> Option<Input> {
        match output {
            Output::Commit { records, .. } => {
                let digests = vec![Digest([7; 32]); records.len()];
                self.commits.push(records.len());
                self.records.extend(records);
                Some(Input::Committed { digests })
            }
            Output::SyncJournal => Some(Input::JournalSynced { through: self.primary.status().last }),
            Output::Destage { through } => Some(Input::Destaged { through }),
            Output::PrepareEpoch { epoch, .. } => {
                let slot = Slot { at: Instant(0), blocks: 1, chance: 0 };
                Some(Input::EpochPrepared { epoch, slot })
            }
            Output::PlanSlots => {
                let slot = |chance| schedule::Planned { gap: Millis(GAP), blocks: 3, chance };
                Some(Input::SlotsPlanned { slots: (0..16).filter(|_| self.slots).map(slot).collect() })
            }
            Output::Send { path, range, slots: _ } => {
                let chain = (0..range.last.0).fold(Chain::START, |chain, _| chain.after(Digest([7; 32])));
                let ack = Ack { durable: range.last, chain, ranges: Vec::new(), full: false };
                Some(Input::Acked { path, ack })
            }
            Output::ShamInForce => {
                self.shams_in_force += 1;
                None
            }
            Output::CommandAnswered(answer) => {
                self.refused.extend(answer.err());
                None
            }
            _ => None,
        }
    }

    fn pass(&mut self, slots: u64) {
        for _ in 0..slots {
            self.now += GAP;
            self.tell(Input::Tick);
        }
    }

    /// What was placed from the first record of the schedule on.
    fn in_slots(&self) -> &[Planned] {
        &self.records[1..]
    }

    fn epoch(&self) -> Epoch {
        self.primary.status().key.unwrap().epoch
    }
}

fn ours() -> Settings {
    settings(BlockCount(16))
}

#[test]
fn every_slot_gives_one_record_of_its_length_with_and_without_a_key() {
    let (mut quiet, mut rotating) = (Site::new(ours(), true), Site::new(ours(), true));
    quiet.pass(20);
    rotating.pass(4);
    rotating.now += GAP / 2;
    rotating.tell(Input::Operator(Command::Rotate(How::InBand)));
    rotating.now -= GAP / 2;
    rotating.pass(16);
    for site in [&quiet, &rotating] {
        assert_eq!(site.in_slots().len(), 20);
        assert!(site.in_slots().iter().all(|record| record.body_blocks == 3));
    }
    assert_eq!(rotating.commits, quiet.commits, "commits are split alike");
    let keys = |site: &Site| site.in_slots().iter().filter(|record| record.kind == Kind::Key).count();
    assert_eq!((keys(&quiet), keys(&rotating)), (0, 1));
    let kinds = [rotating.in_slots()[4].kind, rotating.in_slots()[5].kind];
    assert_eq!(kinds, [Kind::Cover, Kind::Key], "it is drawn beside the first slot's cover, and takes the second");
}

#[test]
fn slots_walk_an_idle_order_to_a_keys_start_and_nothing_hurries_it() {
    let mut site = Site::new(ours(), true);
    site.pass(2);
    site.tell(Input::Operator(Command::Rotate(How::InBand)));
    site.pass(2);
    let key = *site.in_slots().last().unwrap();
    let Source::Capsules { start, how: How::InBand } = key.source else { panic!("{key:?}") };
    assert!(start.since(key.sequence) <= KEY_LEAD_MIN + KEY_GAP_MAX + 1);
    while site.primary.status().last.next() < start {
        assert_eq!(site.epoch(), Epoch(1));
        let before = site.records.len();
        site.pass(1);
        assert_eq!(site.records.len(), before + 1, "one record a slot");
    }
    site.pass(1);
    assert_eq!(site.epoch(), Epoch(2));
}

#[test]
fn nothing_is_begun_for_a_key_at_the_moment_at_which_somebody_asks_for_it() {
    let mut site = Site::new(ours(), true);
    site.pass(2);
    site.now += GAP / 2;
    site.primary.handle(at(site.now), Input::Operator(Command::Rotate(How::InBand)));
    assert_eq!(site.primary.poll_output(), Some(Output::CommandAnswered(Ok(()))));
    assert_eq!(site.primary.poll_output(), None);
    assert!(matches!(site.primary.status().rotation, State::Preparing { how: How::InBand, .. }));
    // The schedule's next doing has it drawn, and so has a link that is lost: there is nobody to hide from.
    site.tell(Input::PathLost { path: Path(0) });
    assert!(matches!(site.primary.status().rotation, State::Waiting { .. }));
}

#[test]
fn a_cover_starts_for_nothing_where_a_key_would_have_started() {
    let mut site = Site::new(ours(), true);
    site.pass(200);
    let starts = site.in_slots().iter().filter(|record| match record.source {
        Source::Sham { start } => start <= site.primary.status().last.next(),
        Source::Buffer { .. } | Source::Capsules { .. } | Source::Header | Source::Random => false,
    });
    assert_eq!(site.shams_in_force, starts.count());
    assert!(site.shams_in_force > 100, "most of 200 covers have begun");
}

#[test]
fn no_cover_goes_while_the_pair_does_not_send() {
    let mut site = Site::new(ours(), true);
    site.pass(3);
    site.tell(Input::Operator(Command::Pause));
    let paused = site.records.len();
    site.pass(10);
    assert_eq!(site.records.len(), paused);
    site.tell(Input::Operator(Command::Resume));
    site.pass(3);
    assert_eq!(site.records.len(), paused + 3);
    site.tell(Input::PathLost { path: Path(0) });
    site.pass(10);
    assert_eq!(site.records.len(), paused + 3);
}

#[test]
fn a_key_waits_for_a_slot_while_the_pair_does_not_send_and_its_own_time_means_nothing() {
    let mut site = Site::new(ours(), true);
    site.pass(1);
    site.now += GAP / 2;
    site.tell(Input::Operator(Command::Rotate(How::InBand)));
    site.tell(Input::Operator(Command::Pause));
    site.pass(10);
    assert!(site.in_slots().iter().all(|record| record.kind != Kind::Key));
    site.tell(Input::Operator(Command::Resume));
    site.pass(2);
    assert_eq!(site.in_slots().iter().filter(|record| record.kind == Kind::Key).count(), 1);
}

#[test]
fn a_pause_that_would_show_is_refused_and_one_that_does_not_goes_with_the_cut_right_before_its_start() {
    let mut site = Site::new(Settings { pause_hidden: false, ..ours() }, true);
    site.tell(Input::Operator(Command::Rotate(How::Pause)));
    assert_eq!(site.refused, [Refused::Visible]);

    let mut site = Site::new(ours(), true);
    site.pass(2);
    site.tell(Input::Operator(Command::Rotate(How::Pause)));
    site.pass(3);
    let kinds: Vec<Kind> = site.in_slots().iter().skip(3).map(|record| record.kind).collect();
    assert_eq!(kinds, [Kind::Cover, Kind::Key, Kind::Cut, Kind::Cover], "it begins to drain with a slot");
    let Source::Capsules { start, how: How::Pause } = site.in_slots()[4].source else { panic!("no pause") };
    assert_eq!(start, site.in_slots()[6].sequence, "the cut is the last record under the old key");
}

#[test]
fn covers_walk_to_an_armed_keys_start_at_the_hard_limit() {
    let limits = KeyLimits { interval_min: Millis(100), age_max: Millis(500), bytes_max: ByteLen(1 << 40) };
    let mut site = Site::new(Settings { key_limits: limits, ..ours() }, true);
    site.pass(2);
    site.tell(Input::Operator(Command::Rotate(How::InBand)));
    site.pass(2);
    assert_eq!(site.in_slots().last().unwrap().kind, Kind::Key);
    site.pass(1);
    assert_eq!(site.epoch(), Epoch(2), "sealing is not held for longer than it takes");
}

#[test]
fn without_a_schedule_a_key_goes_at_once_and_is_in_force_at_once() {
    let mut site = Site::new(ours(), false);
    site.pass(2);
    site.tell(Input::Operator(Command::Rotate(How::InBand)));
    assert_eq!(site.in_slots().first().unwrap().kind, Kind::Key);
    site.pass(5);
    assert_eq!(site.epoch(), Epoch(2));
    assert_eq!(site.in_slots().len(), usize::try_from(KEY_LEAD_MIN).unwrap());
    assert!(site.in_slots().iter().skip(1).all(|record| matches!(record.source, Source::Random)));
}

#[test]
fn a_key_in_slots_takes_its_place_among_ordinary_records_and_waits_for_them_on_an_idle_link() {
    let mut site = Site::new(Settings { in_slots: true, ..ours() }, false);
    site.pass(2);
    site.tell(Input::Operator(Command::Rotate(How::InBand)));
    site.pass(5);
    assert!(site.in_slots().is_empty(), "nothing goes that nobody wrote");
    let extent = Extent::new(Lba(0), BlockCount(1)).unwrap();
    for ticket in 0..2_000 {
        site.tell(Input::Write { ticket: Ticket(ticket), what: What::Data, extent, fua: false });
    }
    let keys: Vec<usize> = (0..).zip(site.in_slots()).filter(|(_, r)| r.kind == Kind::Key).map(|(at, _)| at).collect();
    assert!(keys.len() == 1 && keys[0] > 180, "its pieces went before it: {keys:?}");
    assert!(site.in_slots().iter().all(|record| matches!(record.kind, Kind::Key | Kind::Data)));
    assert_eq!(site.epoch(), Epoch(2));
}
