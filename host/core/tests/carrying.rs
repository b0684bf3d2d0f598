//! A key in the slots of other records, step by step: on a link that answers when the test says so.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use farseal_core::carriage::CarriageNumber;
use farseal_core::chain::{Chain, Digest};
use farseal_core::frame::{Ack, Welcome};
use farseal_core::limits::WINDOW_RECORDS_MAX;
use farseal_core::primary::{Command, Input, Output, Planned, Primary, Recovered, Settings, Slots, Source, What};
use farseal_core::record::Kind;
use farseal_core::rotation::{How, Slot, State};
use farseal_core::schedule;
use farseal_core::units::{BlockCount, Epoch, Extent, Generation, Instant, Lba, Millis, Path, Sequence, Ticket};
use farseal_core::window::Range;

#[path = "support/pair.rs"]
mod pair;

use pair::{at, settings};

const LINE: Path = Path(0);

/// A pair whose disks answer at once, with one path.
struct Site {
    primary: Primary,
    records: Vec<Planned>,
    sent: Vec<(Range, Slots)>,
    carried: Vec<(CarriageNumber, Planned)>,
    acked: Sequence,
    now: u64,
    tickets: u64,
    /// What the disguise plans whenever it is asked.
    plan: Vec<schedule::Planned>,
}

impl Site {
    /// The first key is in force, and the secondary has it.
    fn new() -> Self {
        Self::planning(Vec::new())
    }

    fn planning(plan: Vec<schedule::Planned>) -> Self {
        let settings = Settings { in_slots: true, ..settings(BlockCount(16)) };
        let mut site = Self {
            primary: Primary::new(at(1_000), settings, Recovered::fresh()),
            records: Vec::new(),
            sent: Vec::new(),
            carried: Vec::new(),
            acked: Sequence::NONE,
            now: 2_000,
            tickets: 0,
            plan,
        };
        site.connect();
        site.answer_all();
        site
    }

    /// With a key that is carried from now on.
    fn carrying() -> Self {
        let mut site = Self::new();
        site.tell(Input::Operator(Command::Rotate(How::InBand)));
        assert_eq!(site.carried.len(), 1, "{:?}", site.primary.status());
        site
    }

    fn connect(&mut self) {
        self.tell(Input::Attaching { path: LINE });
        let welcome = Welcome { generation: Generation(1), ack: self.ack() };
        self.tell(Input::Welcomed { path: LINE, welcome });
    }

    fn ack(&self) -> Ack {
        let chain = (0..self.acked.0).fold(Chain::START, |chain, _| chain.after(Digest([7; 32])));
        Ack { durable: self.acked, chain, ranges: Vec::new(), full: false }
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
                self.records.extend(records);
                Some(Input::Committed { digests })
            }
            Output::SyncJournal => Some(Input::JournalSynced { through: self.primary.status().last }),
            Output::Destage { through } => Some(Input::Destaged { through }),
            Output::PrepareEpoch { epoch, .. } => {
                let slot = Slot { at: Instant(0), blocks: 1, chance: 0 };
                Some(Input::EpochPrepared { epoch, slot })
            }
            Output::PlanSlots => Some(Input::SlotsPlanned { slots: self.plan.clone() }),
            Output::CarryKey { number, planned } => {
                self.carried.push((number, planned));
                None
            }
            Output::Send { range, slots, .. } => {
                self.sent.push((range, slots));
                None
            }
            _ => None,
        }
    }

    fn write(&mut self, records: u64) {
        for _ in 0..records {
            self.tickets += 1;
            let extent = Extent::new(Lba(0), BlockCount(1)).unwrap();
            self.tell(Input::Write { ticket: Ticket(self.tickets), what: What::Data, extent, fua: false });
        }
    }

    /// The secondary acknowledges what was sent.
    fn answer_all(&mut self) {
        let sent = self.sent.iter().map(|(range, _)| range.last).max().unwrap_or(Sequence::NONE);
        self.answer_through(sent);
    }

    fn answer_through(&mut self, acked: Sequence) {
        self.acked = self.acked.max(acked);
        let ack = self.ack();
        self.tell(Input::Acked { path: LINE, ack });
    }

    /// Writes one record after the other, each answered, until this one stands.
    fn write_through(&mut self, last: Sequence) {
        while self.primary.status().last < last {
            self.write(1);
            self.answer_all();
        }
    }

    fn at(&self, sequence: Sequence) -> Planned {
        *self.records.iter().find(|record| record.sequence == sequence).unwrap()
    }

    fn is_sent(&self, sequence: Sequence) -> bool {
        self.sent.iter().any(|(range, _)| range.first <= sequence && sequence <= range.last)
    }

    fn epoch(&self) -> Epoch {
        self.primary.status().key.unwrap().epoch
    }

    fn break_and_connect(&mut self) {
        self.tell(Input::PathLost { path: LINE });
        self.connect();
    }
}

#[test]
fn a_carried_key_stands_where_it_was_said_and_is_told_with_the_record_behind_it() {
    let mut site = Site::carrying();
    let (number, planned) = site.carried[0];
    site.write_through(planned.sequence.next());
    assert_eq!(site.at(planned.sequence), planned, "what was carried is what stands");
    assert!(!site.is_sent(planned.sequence));
    let told: Vec<_> = site.sent.iter().filter(|(_, slots)| matches!(slots, Slots::Stands { .. })).collect();
    let behind = Range { first: planned.sequence.next(), last: planned.sequence.next() };
    assert_eq!(told, [&(behind, Slots::Stands { number, key: planned.sequence })]);
    site.write_through(Sequence(planned.sequence.0 + 500));
    assert_eq!(site.epoch(), Epoch(2));
}

#[test]
fn every_piece_goes_once_and_in_its_turn() {
    let mut site = Site::carrying();
    let (number, planned) = site.carried[0];
    site.write_through(planned.sequence);
    let mut next = 0;
    for (range, slots) in site.sent.iter().filter(|(_, slots)| matches!(slots, Slots::Pieces { .. })) {
        assert_eq!(*slots, Slots::Pieces { number, first: next });
        next += u16::try_from(range.last.since(range.first) + 1).unwrap();
    }
    assert!(next > 180, "a key record of a block of 4 KiB in pieces of 23 bytes: {next}");
}

#[test]
fn a_path_that_breaks_takes_the_pieces_with_it_and_the_key_is_carried_anew() {
    let mut site = Site::carrying();
    let (_, first) = site.carried[0];
    site.write(50);
    site.break_and_connect();
    let [_, (number, again)] = site.carried[..] else { panic!("{:?}", site.carried) };
    assert!(again.sequence > first.sequence);
    assert!(site.sent.iter().any(|(_, slots)| *slots == Slots::Pieces { number, first: 0 }));
    site.write_through(Sequence(again.sequence.0 + 500));
    assert_eq!(site.at(again.sequence), again);
    assert_eq!(site.records.iter().filter(|record| record.kind == Kind::Key).count(), 2, "the first key and this one");
    assert_eq!(site.epoch(), Epoch(2));
}

#[test]
fn a_key_of_which_nobody_was_told_goes_as_it_is_when_the_connection_was_made_anew() {
    let mut site = Site::carrying();
    let (_, planned) = site.carried[0];
    site.write_through(planned.sequence.previous());
    site.write(1);
    assert!(site.primary.status().last > planned.sequence && !site.is_sent(planned.sequence));
    site.break_and_connect();
    assert!(site.is_sent(planned.sequence));
    site.answer_all();
    site.write_through(Sequence(planned.sequence.0 + 500));
    assert_eq!(site.epoch(), Epoch(2));
}

#[test]
fn a_key_that_is_not_there_when_its_place_is_due_leaves_it_to_data_and_comes_with_twice_the_lead() {
    let mut site = Site::carrying();
    let (_, first) = site.carried[0];
    let asked = site.primary.status().last;
    while site.primary.status().last < first.sequence {
        site.write(1);
    }
    assert_eq!(site.at(first.sequence).kind, Kind::Data);
    let [_, (_, again)] = site.carried[..] else { panic!("{:?}", site.carried) };
    let (short, long) = (first.sequence.since(asked), again.sequence.since(site.primary.status().last));
    assert!(long > short, "{short} records, then {long}");
    site.answer_all();
    site.write_through(Sequence(again.sequence.0 + 1_000));
    assert_eq!(site.at(again.sequence), again);
    assert_eq!(site.epoch(), Epoch(2));
}

#[test]
fn a_window_that_is_full_behind_the_key_does_not_forget_that_it_stands() {
    let mut site = Site::carrying();
    let (number, planned) = site.carried[0];
    site.write_through(planned.sequence.previous());
    let before = planned.sequence.previous();
    // Two windows of records, none answered.
    site.sent.clear();
    site.write(WINDOW_RECORDS_MAX * 2);
    let behind = |site: &Site| site.sent.iter().filter(|(_, slots)| matches!(slots, Slots::Stands { .. })).count();
    assert_eq!(behind(&site), 1);
    // The same with a window that is full right before the key.
    let mut site = Site::carrying();
    let (_, planned) = site.carried[0];
    site.write_through(before);
    site.tell(Input::Acked { path: LINE, ack: Ack { full: true, ..site.ack() } });
    site.write(3);
    assert!(site.primary.status().last > planned.sequence);
    assert_eq!(behind(&site), 0);
    site.answer_all();
    assert_eq!(behind(&site), 1);
    assert!(site.sent.iter().any(|(_, slots)| *slots == Slots::Stands { number, key: planned.sequence }));
    assert!(!site.is_sent(planned.sequence));
}

#[test]
fn an_idle_link_carries_nothing_and_the_key_waits() {
    let mut site = Site::carrying();
    for _ in 0..100 {
        site.now += 10_000;
        site.tell(Input::Tick);
    }
    assert!(site.sent.iter().all(|(_, slots)| *slots == Slots::Idle));
    assert!(matches!(site.primary.status().rotation, State::Carrying { carried: false, .. }));
    assert_eq!(site.epoch(), Epoch(1));
}

#[test]
fn a_pause_before_the_key_stands_does_not_lose_it() {
    let mut site = Site::carrying();
    let (_, planned) = site.carried[0];
    site.write_through(planned.sequence.previous());
    site.tell(Input::Operator(Command::Pause));
    site.write(5);
    site.tell(Input::Operator(Command::Resume));
    site.answer_all();
    site.write_through(Sequence(planned.sequence.0 + 1_000));
    assert_eq!(site.epoch(), Epoch(2));
}

/// A slot every 100 ms.
fn standing() -> Site {
    Site::planning(vec![schedule::Planned { gap: Millis(100), blocks: 1, chance: 5 }; 16])
}

#[test]
fn with_a_standing_schedule_covers_are_carried_and_a_key_waits_for_its_turn() {
    let mut site = standing();
    site.now += 100;
    site.tell(Input::Tick);
    let [(number, cover)] = site.carried[..] else { panic!("{:?}", site.carried) };
    assert!(matches!((cover.kind, cover.source), (Kind::Cover, Source::Sham { .. })), "{cover:?}");
    // A key that is asked for meanwhile changes nothing.
    site.tell(Input::Operator(Command::Rotate(How::InBand)));
    assert!(matches!(site.primary.status().rotation, State::Preparing { .. }), "nor is it drawn");
    assert_eq!(site.carried.len(), 1);
    site.write_through(cover.sequence.previous());
    assert!(site.sent.iter().any(|(_, slots)| *slots == Slots::Pieces { number, first: 0 }));
    assert_eq!(site.primary.status().last, cover.sequence.previous());
    // It stands with what is written next, and that says so.
    site.sent.clear();
    site.write(1);
    assert_eq!(site.at(cover.sequence), cover);
    assert!(!site.is_sent(cover.sequence));
    assert_eq!(
        site.sent.iter().map(|(_, slots)| *slots).collect::<Vec<_>>(),
        [Slots::Stands { number, key: cover.sequence }]
    );
    site.answer_all();
    assert!(matches!(site.primary.status().rotation, State::Waiting { .. }), "drawn as the cover stands");
    // The key takes the next turn.
    site.now += 100;
    site.tell(Input::Tick);
    let [_, (_, key)] = site.carried[..] else { panic!("{:?}", site.carried) };
    assert_eq!((key.kind, key.epoch), (Kind::Key, Epoch(2)));
    // The cover's start comes first, and there whatever is carried begins anew.
    let Source::Sham { start } = cover.source else { panic!("{cover:?}") };
    site.write_through(start.next());
    let [_, _, (_, key)] = site.carried[..] else { panic!("{:?}", site.carried) };
    assert_eq!((key.kind, key.epoch), (Kind::Key, Epoch(2)));
    let Source::Capsules { start, .. } = key.source else { panic!("{key:?}") };
    site.write_through(start);
    assert_eq!(site.epoch(), Epoch(2));
}

#[test]
fn a_key_and_a_cover_are_sent_alike_record_by_record() {
    let sent = |rotates: bool| {
        let mut site = standing();
        if rotates {
            site.tell(Input::Operator(Command::Rotate(How::InBand)));
        }
        site.now += 100;
        site.tell(Input::Tick);
        let (_, cover) = site.carried[0];
        assert_eq!(cover.kind, Kind::Cover, "beside which a key is drawn");
        site.write_through(cover.sequence);
        site.now += 100;
        site.tell(Input::Tick);
        let (_, planned) = site.carried[1];
        assert_eq!(planned.kind == Kind::Key, rotates);
        site.write_through(Sequence(planned.sequence.0 + 200));
        assert_eq!(site.epoch(), Epoch(if rotates { 2 } else { 1 }));
        site.sent
    };
    assert_eq!(sent(true), sent(false));
}

#[test]
fn what_is_carried_begins_anew_at_a_keys_start_and_at_a_covers() {
    let anew = |rotates: bool| {
        let mut site = standing();
        if rotates {
            site.tell(Input::Operator(Command::Rotate(How::InBand)));
        }
        let mut placed = Vec::new();
        for _ in 0..3 {
            site.now += 100;
            site.tell(Input::Tick);
            let (_, planned) = *site.carried.last().unwrap();
            site.write_through(planned.sequence);
            placed.push(planned);
        }
        site.now += 100;
        site.tell(Input::Tick);
        let before = site.carried.len();
        let (Source::Sham { start } | Source::Capsules { start, .. }) = placed[2].source else { panic!("{placed:?}") };
        assert_eq!(placed[2].kind == Kind::Key, rotates, "the key waits for the third slot at most: {placed:?}");
        site.write_through(start.next());
        site.carried.len() - before
    };
    assert_eq!((anew(true), anew(false)), (1, 1));
}

#[test]
fn a_cover_that_is_not_there_when_its_place_is_due_leaves_it_to_data() {
    let mut site = standing();
    site.now += 100;
    site.tell(Input::Tick);
    let (_, cover) = site.carried[0];
    while site.primary.status().last < cover.sequence {
        site.write(1);
    }
    assert_eq!(site.at(cover.sequence).kind, Kind::Data);
    let [_, (_, again)] = site.carried[..] else { panic!("at once, with a longer lead: {:?}", site.carried) };
    assert!(again.sequence.since(site.primary.status().last) > cover.sequence.0);
    site.write_through(Sequence(again.sequence.0 + 1));
    assert_eq!(site.at(again.sequence).kind, Kind::Cover);
}

#[test]
fn a_cover_of_a_key_that_is_no_longer_in_force_is_not_carried_on() {
    let mut site = standing();
    site.now += 100;
    site.tell(Input::Tick);
    let (_, cover) = site.carried[0];
    site.tell(Input::Operator(Command::Rotate(How::AtOnce)));
    assert_eq!(site.epoch(), Epoch(2));
    site.write_through(Sequence(cover.sequence.0 + 10));
    assert_ne!(site.at(cover.sequence).kind, Kind::Cover);
}

#[test]
fn a_slot_longer_than_what_can_be_carried_is_none() {
    let mut site = Site::planning(vec![schedule::Planned { gap: Millis(100), blocks: 100, chance: 5 }; 16]);
    site.now += 1_000;
    site.tell(Input::Tick);
    assert_eq!(site.carried, []);
    site.tell(Input::Operator(Command::Rotate(How::InBand)));
    assert_eq!(site.carried.len(), 1, "the key goes without a schedule");
}
