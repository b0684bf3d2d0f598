//! A keeper in a group of several: it offers the group's cut, whatever else it holds.

use farseal_core::chain::Digest;
use farseal_core::frame::Attach;
use farseal_core::group::OfferLimit;
use farseal_core::record::{CutMark, Header, Kind};
use farseal_core::secondary::{Input, KeyFacts, Output, Recovered, Secondary, Settings};
use farseal_core::units::{
    BlockBytes, BlockCount, CutNumber, Epoch, Generation, Lba, Now, PairId, Path, Sequence, VolumeId, WallTime,
};

const SETTINGS: Settings = Settings {
    layout: None,
    pair: PairId([1; 16]),
    volume: VolumeId([2; 16]),
    encrypted: false,
    block_bytes: BlockBytes::DEFAULT,
    blocks: BlockCount(16),
};

struct Keeper {
    secondary: Secondary,
    stored: u64,
    sequence: u64,
}

impl Keeper {
    fn new(limit: OfferLimit) -> Self {
        let mut keeper = Self {
            secondary: Secondary::new(Now::default(), SETTINGS, Recovered { limit, ..Recovered::fresh() }),
            stored: 0,
            sequence: 0,
        };
        let attach = Attach {
            layout: None,
            pair: SETTINGS.pair,
            volume: SETTINGS.volume,
            generation: Generation(1),
            encrypted: false,
            block_bytes: SETTINGS.block_bytes,
            blocks: SETTINGS.blocks,
            path: 0,
            paths: 1,
        };
        keeper.tell(Input::Attach { path: Path(0), attach });
        keeper.tell(Input::GenerationPersisted { generation: Generation(1) });
        keeper
    }

    fn tell(&mut self, input: Input) {
        self.secondary.handle(Now::default(), input);
        while let Some(output) = self.secondary.poll_output() {
            if let Output::Store { .. } = output {
                self.stored += 1;
            }
        }
    }

    fn comes(&mut self, kind: Kind, aux: u64) {
        self.sequence += 1;
        let header = header(kind, self.sequence, aux);
        self.tell(Input::Record { path: Path(0), header, digest: Digest([1; 32]) });
        self.tell(Input::LogSynced { stored: self.stored });
    }

    fn data(&mut self) {
        self.comes(Kind::Data, 0);
    }

    fn mark(&mut self, mark: CutMark) {
        self.comes(Kind::Cut, mark.encode());
    }

    fn boundary(&mut self, cut: u64) {
        self.mark(CutMark::Boundary { cut: CutNumber(cut), lanes: 2 });
    }

    fn allow(&mut self, cut: u64) -> u64 {
        self.tell(Input::Limit(OfferLimit::Cut(CutNumber(cut))));
        self.secondary.offered().0
    }
}

fn header(kind: Kind, sequence: u64, aux: u64) -> Header {
    Header {
        kind,
        encrypted: false,
        stack: 0,
        search_tags: farseal_core::layout::SearchTags::NONE,
        pair: SETTINGS.pair,
        volume: SETTINGS.volume,
        generation: Generation(1),
        sequence: Sequence(sequence),
        lba: Lba(0),
        blocks: u32::from(kind == Kind::Data),
        block_bytes: SETTINGS.block_bytes,
        wall: WallTime(0),
        aux,
    }
}

#[test]
fn what_lies_above_the_groups_cut_is_kept_and_not_offered() {
    let mut keeper = Keeper::new(OfferLimit::Cut(CutNumber::NONE));
    keeper.data();
    keeper.boundary(1);
    keeper.data();
    keeper.boundary(2);
    assert_eq!(keeper.secondary.durable().0, Sequence(4));
    assert_eq!(keeper.secondary.offered(), Sequence::NONE);
    assert_eq!(keeper.allow(1), 2);
    assert_eq!(keeper.allow(9), 2, "a cut that is not held changes nothing");
    assert_eq!(keeper.allow(2), 4);
    assert_eq!(keeper.allow(1), 4, "nothing is taken back");
    assert_eq!(keeper.secondary.group_cut(), CutNumber(2));
}

#[test]
fn a_takeover_opens_the_groups_cut() {
    let mut keeper = Keeper::new(OfferLimit::Cut(CutNumber::NONE));
    keeper.data();
    keeper.boundary(1);
    keeper.data();
    keeper.allow(1);
    keeper.tell(Input::TakeOver);
    assert_eq!(keeper.allow(2), 2);
    assert_eq!(keeper.secondary.offered(), Sequence(2));
}

#[test]
fn a_cut_that_the_lead_names_while_keys_are_checked_again_is_offered_and_taken_over_at_once_they_are() {
    let boundary = |cut| CutMark::Boundary { cut: CutNumber(cut), lanes: 2 }.encode();
    let log = [(Kind::Key, 0), (Kind::Data, 0), (Kind::Cut, boundary(1)), (Kind::Data, 0), (Kind::Cut, boundary(2))];
    let records = (1..).zip(log).map(|(sequence, (kind, aux))| (header(kind, sequence, aux), Digest([1; 32])));
    let limit = OfferLimit::Cut(CutNumber::NONE);
    let recovered = Recovered { limit, above: records.collect(), ..Recovered::fresh() };
    for take_over in [false, true] {
        let secondary = Secondary::new(Now::default(), SETTINGS, recovered.clone());
        let mut keeper = Keeper { secondary, stored: 0, sequence: 5 };
        assert_eq!(keeper.allow(1), 0, "it is not known yet what is held");
        if take_over {
            keeper.tell(Input::TakeOver);
        }
        let facts = KeyFacts { epoch: Epoch(1), start: Sequence(2) };
        keeper.tell(Input::KeyChecked { key: Sequence(1), result: Ok(facts) });
        assert_eq!((keeper.secondary.offered(), keeper.secondary.group_cut()), (Sequence(3), CutNumber(1)));
    }
}

#[test]
fn a_pair_that_is_alone_offers_everything_and_keeps_that_when_others_join() {
    let mut keeper = Keeper::new(OfferLimit::Everything);
    keeper.data();
    keeper.boundary(1);
    keeper.data();
    assert_eq!(keeper.secondary.offered(), Sequence(3));
    assert_eq!(keeper.allow(0), 3);
    keeper.data();
    assert_eq!(keeper.secondary.offered(), Sequence(3));
    keeper.boundary(2);
    assert_eq!(keeper.allow(2), 5);
}

#[test]
fn a_groups_cut_neither_closes_a_gap_nor_counts_inside_one() {
    let mut keeper = Keeper::new(OfferLimit::Everything);
    keeper.data();
    keeper.comes(Kind::Gap, 2);
    keeper.data();
    keeper.boundary(1);
    keeper.mark(CutMark::Confirmed { cut: CutNumber(1), lanes: 2 });
    assert_eq!(keeper.secondary.gap_open_after(), Some(Sequence(1)));
    assert!(keeper.secondary.cuts().held().is_empty() && keeper.secondary.cuts().confirmed().is_empty());
    keeper.mark(CutMark::Own(1));
    assert_eq!((keeper.secondary.gap_open_after(), keeper.secondary.offered()), (None, Sequence(6)));
    keeper.boundary(2);
    assert!(keeper.secondary.cuts().held().contains_key(&CutNumber(2)));
}

#[test]
fn a_takeover_at_the_groups_cut_is_not_the_answer_to_a_hand_over_that_did_not_arrive() {
    let mut keeper = Keeper::new(OfferLimit::Cut(CutNumber::NONE));
    keeper.data();
    keeper.boundary(1);
    assert_eq!(keeper.allow(1), 2);
    // The cut that the primary hands over at, behind the group's; it asks to be followed by generation 2.
    keeper.mark(CutMark::Own(1));
    keeper.tell(Input::TakeOver);
    assert_eq!(keeper.secondary.fork().0, Sequence(2));
    assert_eq!(keeper.secondary.generation(), Generation(4), "3 is what that site may take back");
    // Where nothing is left out, both mean the same.
    let mut keeper = Keeper::new(OfferLimit::Everything);
    keeper.data();
    keeper.tell(Input::TakeOver);
    assert_eq!(keeper.secondary.generation(), Generation(2));
}
