//! A lane under a group's cut: what is answered, what waits, and where the cut stands in its order.

use farseal_core::chain::{Chain, Digest};
use farseal_core::frame::{Ack, Welcome};
use farseal_core::group::CutName;
use farseal_core::limits::CUT_HOLD_MAX;
use farseal_core::owed::OwedMap;
use farseal_core::primary::{Command, Input, Mode, Output, Primary, Recovered, Source, What};
use farseal_core::record::{CutMark, Kind};
use farseal_core::rotation::Slot;
use farseal_core::units::{
    BlockBytes, BlockCount, ByteLen, CutNumber, Epoch, Extent, Generation, Instant, Lba, Path, Sequence, Ticket,
};

use super::pair::{at, settings};

const BLOCKS: BlockCount = BlockCount(16);
const CUT: CutNumber = CutNumber(5);

/// A lane with a journal that does what it should when it is told to.
struct Lane {
    primary: Primary,
    now: u64,
    committing: Vec<usize>,
    chain: Chain,
    /// What each record that was placed is.
    order: Vec<String>,
    /// Maps that are to be made durable.
    maps: Vec<u64>,
}

impl Lane {
    fn new(recovered: Recovered) -> Self {
        let primary = Primary::new(at(1_000), settings(BLOCKS), recovered);
        let (order, maps) = (Vec::new(), Vec::new());
        let mut lane = Self { primary, now: 1_000, committing: Vec::new(), chain: Chain::START, order, maps };
        let slot = Slot { at: Instant(0), blocks: 1, chance: 0 };
        lane.tell(Input::EpochPrepared { epoch: Epoch(1), slot });
        lane.settle();
        lane.order.clear();
        lane
    }

    /// One thing that happens; which requests are answered.
    fn tell(&mut self, input: Input) -> Vec<u64> {
        self.primary.handle(at(self.now), input);
        let mut answered = Vec::new();
        while let Some(output) = self.primary.poll_output() {
            if let Output::Reply { ticket, result: Ok(()) } = output {
                answered.push(ticket.0);
            } else if let Output::PersistOwed { stamp, .. } = output {
                self.maps.push(stamp);
            } else if let Output::Commit { records, restart, .. } = output {
                self.chain = restart.unwrap_or(self.chain);
                self.committing.push(records.len());
                self.order.extend(records.iter().map(|record| match (record.kind, record.source) {
                    (Kind::Cut, _) => match CutMark::decode(record.aux) {
                        Some(CutMark::Boundary { cut, lanes }) => format!("cut {cut} of {lanes}"),
                        Some(CutMark::Confirmed { cut, .. }) => format!("confirmed {cut}"),
                        Some(CutMark::Name(part)) => String::from_utf8_lossy(&part).trim_end_matches('\0').into(),
                        Some(CutMark::Own(_)) | None => "own cut".into(),
                    },
                    (_, Source::Buffer { ticket, .. }) => format!("{}", ticket.0),
                    (kind, _) => format!("{kind:?}"),
                }));
            }
        }
        answered
    }

    fn write(&mut self, ticket: u64, fua: bool) -> Vec<u64> {
        let extent = Extent::new(Lba(ticket), BlockCount(1)).unwrap();
        self.tell(Input::Write { ticket: Ticket(ticket), what: What::Data, extent, fua })
    }

    fn flush(&mut self, ticket: u64) -> Vec<u64> {
        self.tell(Input::Flush { ticket: Ticket(ticket) })
    }

    fn open(&mut self) -> Vec<u64> {
        self.tell(Input::OpenCut { cut: CUT, lanes: 2 })
    }

    fn release(&mut self) -> Vec<u64> {
        self.tell(Input::ReleaseCut { cut: CUT })
    }

    /// The journal takes everything and makes it durable.
    fn settle(&mut self) -> Vec<u64> {
        let mut answered = Vec::new();
        while !self.committing.is_empty() {
            let digests = vec![Digest([7; 32]); self.committing.remove(0)];
            self.chain = digests.iter().fold(self.chain, |chain, digest| chain.after(*digest));
            answered.extend(self.tell(Input::Committed { digests }));
        }
        let through = self.primary.status().last;
        answered.extend(self.tell(Input::JournalSynced { through }));
        answered
    }

    fn link(&mut self) {
        self.tell(Input::Attaching { path: Path(0) });
        let ack = Ack { durable: Sequence(0), chain: Chain::START, ranges: Vec::new(), full: false };
        self.tell(Input::Welcomed { path: Path(0), welcome: Welcome { generation: Generation(1), ack } });
        self.ack();
    }

    fn ack(&mut self) -> Vec<u64> {
        let durable = self.primary.status().durable;
        let ack = Ack { durable, chain: self.chain, ranges: Vec::new(), full: false };
        self.tell(Input::Acked { path: Path(0), ack })
    }
}

#[test]
fn writes_after_the_cut_are_accepted_and_journalled_and_answered_at_the_release() {
    let mut lane = Lane::new(Recovered::fresh());
    assert_eq!(lane.write(1, false), [1]);
    lane.open();
    assert_eq!(lane.write(2, false), [0; 0]);
    assert_eq!(lane.write(3, true), [0; 0]);
    assert_eq!(lane.settle(), [0; 0], "durable here, and withheld all the same");
    assert_eq!(lane.order, ["1", "cut 5 of 2", "2", "3"]);
    assert_eq!(lane.release(), [2, 3]);
    assert_eq!(lane.write(4, false), [4]);
}

#[test]
fn what_was_accepted_before_the_cut_is_answered_while_it_is_open() {
    let mut lane = Lane::new(Recovered::fresh());
    assert_eq!(lane.write(1, true), [0; 0]);
    assert_eq!(lane.flush(2), [0; 0]);
    lane.open();
    lane.write(3, true);
    assert_eq!(lane.settle(), [1, 2]);
    assert_eq!(lane.flush(4), [0; 0], "it covers a withheld write");
    assert_eq!(lane.release(), [3, 4]);
}

#[test]
fn a_withheld_answer_still_waits_for_what_its_mode_wants() {
    let mut lane = Lane::new(Recovered::fresh());
    lane.link();
    lane.tell(Input::Operator(Command::SetMode(Mode::Sync)));
    lane.open();
    lane.write(1, false);
    lane.settle();
    assert_eq!(lane.release(), [0; 0], "the secondary does not have it");
    assert_eq!(lane.ack(), [1]);
    lane.tell(Input::OpenCut { cut: CUT.next(), lanes: 2 });
    lane.write(2, false);
    lane.settle();
    assert_eq!(lane.ack(), [0; 0], "the cut is open");
    assert_eq!(lane.tell(Input::ReleaseCut { cut: CUT.next() }), [2]);
}

#[test]
fn a_plain_write_is_answered_at_the_release_behind_one_that_waits_for_the_journal() {
    let mut lane = Lane::new(Recovered::fresh());
    lane.write(1, true);
    lane.open();
    lane.write(2, false);
    assert_eq!(lane.release(), [2]);
    assert_eq!(lane.settle(), [1]);
}

#[test]
fn a_read_waits_where_it_would_show_a_withheld_write() {
    let mut lane = Lane::new(Recovered::fresh());
    let block = |at| Extent::new(Lba(at), BlockCount(1)).unwrap();
    lane.write(1, false);
    lane.open();
    lane.write(2, true);
    assert_eq!((lane.primary.withholds(block(1)), lane.primary.withholds(block(2))), (false, true));
    lane.release();
    assert!(!lane.primary.withholds(block(2)));
}

#[test]
fn a_lane_that_hears_nothing_more_goes_on_by_itself() {
    let mut lane = Lane::new(Recovered::fresh());
    lane.open();
    lane.write(1, false);
    assert_eq!(lane.primary.status().hold, Some(CUT));
    lane.now += CUT_HOLD_MAX.0 - 1;
    assert_eq!(lane.tell(Input::Tick), [0; 0]);
    lane.now += 1;
    assert_eq!(lane.tell(Input::Tick), [1]);
    assert_eq!(lane.primary.status().hold, None);
}

#[test]
fn an_old_number_opens_nothing() {
    let mut lane = Lane::new(Recovered { group_cut: CUT, ..Recovered::fresh() });
    lane.open();
    assert_eq!((lane.primary.status().hold, lane.write(1, false)), (None, vec![1]));
}

#[test]
fn a_confirmation_and_a_name_follow_the_cut_and_the_copy_is_known_to_hold_them() {
    let mut lane = Lane::new(Recovered::fresh());
    lane.link();
    lane.open();
    lane.release();
    let name = Some(CutName::new("end-of-day").unwrap());
    lane.tell(Input::ConfirmCut { cut: CUT, lanes: 2, name });
    lane.settle();
    assert_eq!(lane.order, ["cut 5 of 2", "end-of-", "day", "confirmed 5"]);
    assert_eq!(lane.primary.status().cut_copied.boundary, CutNumber::NONE);
    lane.ack();
    let copied = lane.primary.status().cut_copied;
    assert_eq!((copied.boundary, copied.confirmed), (CUT, CUT));
}

#[test]
fn a_lane_that_is_behind_holds_back_but_places_no_cut() {
    let owed = Some(OwedMap::full(BLOCKS, BlockBytes::DEFAULT));
    let mut lane = Lane::new(Recovered { owed, ..Recovered::fresh() });
    lane.open();
    assert_eq!(lane.write(1, false), [0; 0]);
    assert_eq!(lane.release(), [1]);
    lane.tell(Input::ConfirmCut { cut: CUT, lanes: 2, name: None });
    lane.settle();
    assert_eq!(lane.order, ["1"]);
}

#[test]
fn a_boundary_that_a_gap_gave_up_is_not_held_by_the_copy_whatever_it_acknowledges() {
    let mut lane = Lane::new(Recovered::fresh());
    lane.link();
    lane.open();
    lane.write(1, false);
    lane.release();
    lane.settle();
    lane.tell(Input::Destaged { through: Sequence(3) });
    lane.tell(Input::HomeSynced { through: Sequence(3) });
    for bytes in [ByteLen(1 << 60), ByteLen(0)] {
        lane.tell(Input::JournalBytes { bytes });
    }
    lane.tell(Input::EpochPrepared { epoch: Epoch(2), slot: Slot { at: Instant(0), blocks: 1, chance: 0 } });
    for stamp in std::mem::take(&mut lane.maps) {
        lane.tell(Input::OwedPersisted { stamp });
    }
    lane.settle();
    assert_eq!(lane.order, ["cut 5 of 2", "1", "Gap", "Key"]);
    lane.ack();
    assert_eq!(lane.primary.status().acked, Sequence(5));
    assert_eq!(lane.primary.standing().copied.boundary, CutNumber::NONE);
}
