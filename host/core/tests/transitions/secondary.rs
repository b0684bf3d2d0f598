//! Every event in every state of the secondary.

use farseal_core::chain::{Chain, Digest};
use farseal_core::frame::{Attach, HandOver, KeyRefusal};
use farseal_core::limits::WINDOW_RECORDS_MAX;
use farseal_core::lineage::Lineage;
use farseal_core::primary::StoreFault;
use farseal_core::record::{Header, Kind};
use farseal_core::secondary::{Input, KeyFacts, Output, Recovered, Secondary, Settings};
use farseal_core::units::{
    BlockBytes, BlockCount, Epoch, Generation, Instant, Lba, Now, PairId, Path, Sequence, VolumeId, WallTime,
};

use super::{Step, snapshot, table};

const SETTINGS: Settings = Settings {
    layout: None,
    pair: PairId([1; 16]),
    volume: VolumeId([2; 16]),
    encrypted: true,
    block_bytes: BlockBytes::DEFAULT,
    blocks: BlockCount(100),
};

struct Site {
    secondary: Secondary,
    does: Vec<String>,
    stored: u64,
}

fn at(ms: u64) -> Now {
    Now { instant: Instant(ms), wall: WallTime(ms) }
}

fn header(kind: Kind, sequence: u64, aux: u64) -> Header {
    let blocks = u32::from(kind.has_blocks() || kind.touches_volume());
    Header {
        kind,
        encrypted: true,
        stack: 0,
        search_tags: farseal_core::layout::SearchTags::NONE,
        pair: SETTINGS.pair,
        volume: SETTINGS.volume,
        generation: Generation(1),
        sequence: Sequence(sequence),
        lba: Lba(0),
        blocks,
        block_bytes: SETTINGS.block_bytes,
        wall: WallTime(0),
        aux,
    }
}

impl Site {
    fn tell(&mut self, ms: u64, input: Input) {
        self.secondary.handle(at(ms), input);
        while let Some(output) = self.secondary.poll_output() {
            self.does.push(match output {
                Output::Store { sequence } => {
                    self.stored += 1;
                    format!("store {sequence}")
                }
                Output::Welcome { welcome, .. } => format!("welcome {}", welcome.ack.durable),
                Output::Refuse { refusal, .. } => format!("refuse: {refusal}"),
                Output::ClosePath { .. } => "close path".into(),
                Output::SyncLog => "sync".into(),
                Output::CheckKey { key } => format!("check key {key}"),
                Output::Ack { ack, .. } => {
                    let held: Vec<String> =
                        ack.ranges.iter().map(|range| format!(" {}-{}", range.first, range.last)).collect();
                    format!("ack {}{}", ack.durable, held.concat())
                }
                Output::KeyRefused { key, .. } => format!("key {key} refused"),
                Output::Offer { through } => format!("offer {through}"),
                Output::PersistGeneration { generation, taken_over: true } => {
                    format!("persist generation {generation}")
                }
                Output::PersistGeneration { generation, taken_over: false } => {
                    format!("persist generation {generation} of the primary")
                }
                Output::TakenOver { through, .. } => format!("taken over at {through}"),
                Output::Differs { .. } => "tell where the base differs".into(),
                Output::HandedOver { generation, .. } => format!("handed over as generation {generation}"),
                Output::Alarm(_) => "alarm".into(),
            });
        }
    }

    fn record(&mut self, kind: Kind, sequence: u64, aux: u64) {
        let digest = Digest([u8::try_from(sequence).unwrap(); 32]);
        self.tell(0, Input::Record { path: Path(0), header: header(kind, sequence, aux), digest });
    }

    fn attach(&mut self) {
        self.attach_as(Generation(1));
    }

    fn attach_as(&mut self, generation: Generation) {
        let attach = Attach {
            layout: None,
            pair: SETTINGS.pair,
            volume: SETTINGS.volume,
            generation,
            encrypted: true,
            block_bytes: SETTINGS.block_bytes,
            blocks: SETTINGS.blocks,
            path: 0,
            paths: 1,
        };
        self.tell(0, Input::Attach { path: Path(0), attach });
    }

    /// The primary asks this site to go on from so many records above what is here.
    fn hand_over(&mut self, above: u64) {
        let (at, chain) = self.secondary.durable();
        let generation = self.secondary.generation().next();
        let hand_over = HandOver { generation, at: Sequence(at.0 + above), chain };
        self.tell(0, Input::HandOver { path: Path(0), hand_over });
    }

    fn synced(&mut self) {
        self.tell(0, Input::LogSynced { stored: self.stored });
    }

    fn checked(&mut self, key: u64, epoch: u64) {
        let facts = KeyFacts { epoch: Epoch(epoch), start: Sequence(key + 1) };
        self.tell(0, Input::KeyChecked { key: Sequence(key), result: Ok(facts) });
    }

    fn state(&self, name: &str) -> String {
        let status = self.secondary.status();
        format!("{name} (durable {}, offered {})", status.durable, status.offered)
    }
}

fn alone() -> Site {
    Site { secondary: Secondary::new(at(0), SETTINGS, Recovered::fresh()), does: Vec::new(), stored: 0 }
}

/// The primary waits until its generation is durable here.
fn waiting() -> Site {
    let mut site = alone();
    site.attach();
    site
}

/// The first key and two records are durable.
fn attached() -> Site {
    let mut site = waiting();
    site.tell(0, Input::GenerationPersisted { generation: Generation(1) });
    site.record(Kind::Key, 1, 0);
    site.record(Kind::Data, 2, 0);
    site.record(Kind::Data, 3, 0);
    site.synced();
    site.checked(1, 1);
    site
}

fn holed() -> Site {
    let mut site = attached();
    site.record(Kind::Data, 6, 0);
    site.synced();
    site
}

fn unsynced() -> Site {
    let mut site = attached();
    site.record(Kind::Data, 4, 0);
    site
}

fn checking() -> Site {
    let mut site = attached();
    site.record(Kind::Key, 4, 0);
    site.record(Kind::Data, 5, 0);
    site.synced();
    site
}

fn refused() -> Site {
    let mut site = checking();
    site.tell(0, Input::KeyChecked { key: Sequence(4), result: Err(KeyRefusal::Unopenable) });
    site
}

fn gap_open() -> Site {
    let mut site = attached();
    site.record(Kind::Gap, 10, 4);
    site.record(Kind::Key, 11, 0);
    site.synced();
    site.checked(11, 2);
    site
}

fn full() -> Site {
    let mut site = unsynced();
    site.tell(0, Input::LogFailed { fault: StoreFault::Full });
    site.attach();
    site
}

fn failed() -> Site {
    let mut site = attached();
    site.tell(0, Input::LogFailed { fault: StoreFault::Failed });
    site
}

/// It was a primary up to another record than the fork, and keeps the copy of the new history.
fn base_differs() -> Site {
    let lineage = Lineage::at(Generation(1), Sequence(5), Chain([5; 32]));
    let recovered = Recovered::keeper_of(&lineage, true);
    let mut site = Site { secondary: Secondary::new(at(0), SETTINGS, recovered), does: Vec::new(), stored: 0 };
    site.attach();
    site
}

/// The primary asks it to go on; the generation is not durable yet.
fn handed_over() -> Site {
    let mut site = attached();
    site.hand_over(0);
    site
}

fn taking_over() -> Site {
    let mut site = gap_open();
    site.tell(0, Input::TakeOver);
    site
}

fn taken_over() -> Site {
    let mut site = taking_over();
    site.tell(0, Input::GenerationPersisted { generation: Generation(2) });
    site
}

type State = (&'static str, fn() -> Site);
type Event = (&'static str, fn(&mut Site));

fn events() -> Vec<Event> {
    vec![
        ("attach", Site::attach),
        ("attach as generation 3", |site| site.attach_as(Generation(3))),
        ("path lost", |site| site.tell(0, Input::PathLost { path: Path(0) })),
        ("record, the next", |site| {
            let next = site.secondary.durable().0.0 + 1;
            site.record(Kind::Data, next, 0);
        }),
        ("record, further on", |site| site.record(Kind::Data, 20, 0)),
        ("record, known", |site| site.record(Kind::Data, 2, 0)),
        ("record, beyond the window", |site| {
            let digest = Digest([0; 32]);
            let header = header(Kind::Data, 1 << 30, 0);
            site.tell(0, Input::Record { path: Path(0), header, digest });
        }),
        ("record, not encrypted", |site| {
            let header = Header { encrypted: false, ..header(Kind::Data, 30, 0) };
            site.tell(0, Input::Record { path: Path(0), header, digest: Digest([0; 32]) });
        }),
        ("gap that joins", |site| {
            let next = site.secondary.durable().0.0 + 1;
            site.record(Kind::Gap, next + 20, next);
        }),
        ("gap that does not join", |site| site.record(Kind::Gap, 40, 33)),
        ("void, the next", |site| site.record(Kind::Void, 6, 2)),
        ("cut, the next", |site| {
            let next = site.secondary.durable().0.0 + 1;
            site.record(Kind::Cut, next, 1);
            site.synced();
        }),
        ("log synced", Site::synced),
        ("log full", |site| site.tell(0, Input::LogFailed { fault: StoreFault::Full })),
        ("log failed", |site| site.tell(0, Input::LogFailed { fault: StoreFault::Failed })),
        ("key good", |site| site.checked(4, 2)),
        ("key bad", |site| {
            site.tell(0, Input::KeyChecked { key: Sequence(4), result: Err(KeyRefusal::Forged) });
        }),
        ("nonsense", |site| site.tell(0, Input::Nonsense { path: Path(0) })),
        ("take over", |site| site.tell(0, Input::TakeOver)),
        ("hand over, here", |site| site.hand_over(0)),
        ("hand over, elsewhere", |site| site.hand_over(1)),
        ("generation durable", |site| {
            let generation = site.secondary.generation();
            site.tell(0, Input::GenerationPersisted { generation });
        }),
        ("generation not durable, and the next try", |site| {
            let generation = site.secondary.generation();
            site.tell(0, Input::GenerationNotPersisted { generation });
            site.tell(1_000, Input::Tick);
        }),
        ("a second passes", |site| site.tell(1_000, Input::Tick)),
    ]
}

/// What was on its way to the disk made a copy of the base that had been taken over by then: nobody knew any more where the history
/// that goes on differs (seed 102072).
#[test]
fn a_base_that_differed_when_it_was_taken_over_differs_for_good() {
    let on_its_way = || {
        let mut site = base_differs();
        site.record(Kind::Gap, 10, 6);
        site.record(Kind::Cut, 11, 1);
        site
    };
    let mut copied = on_its_way();
    copied.synced();
    assert!(!copied.secondary.base_differs(), "the cut behind the gap makes it the copy");
    let mut taken = on_its_way();
    taken.tell(0, Input::TakeOver);
    taken.tell(0, Input::GenerationPersisted { generation: Generation(2) });
    taken.synced();
    assert!(taken.secondary.base_differs());
    assert_eq!(taken.secondary.fork().0, Sequence(5));
}

/// One that is written as a takeover's would have this site write beside the main site that it follows.
#[test]
fn a_main_sites_newer_generation_that_cannot_be_written_is_tried_again_and_no_takeover_comes_of_it() {
    for (newer, asked) in [
        ((|site| site.attach_as(Generation(2))) as fn(&mut Site), "persist generation 2 of the primary"),
        (|site| site.tell(0, Input::TakeOver), "persist generation 2"),
    ] {
        let mut site = alone();
        newer(&mut site);
        let tried =
            |site: &Site| site.does.iter().filter(|done| done.starts_with("persist")).cloned().collect::<Vec<_>>();
        site.tell(0, Input::GenerationNotPersisted { generation: Generation(2) });
        site.tell(999, Input::Tick);
        assert_eq!(tried(&site), [asked]);
        site.tell(1_000, Input::Tick);
        assert_eq!(tried(&site), [asked, asked]);
        site.tell(5_000, Input::Tick);
        assert_eq!(tried(&site), [asked, asked], "that one is not known to have failed");
    }
}

/// It would write beside the main site, which writes on since it took the hand-over back; and what it may have on its disk of that goes
/// first.
#[test]
fn a_hand_over_that_was_taken_back_before_it_could_be_written_is_not_tried_again() {
    let mut site = handed_over();
    site.tell(0, Input::GenerationNotPersisted { generation: Generation(2) });
    site.does.clear();
    site.attach_as(Generation(3));
    assert_eq!(site.does, ["close path", "persist generation 3 of the primary", "close path"]);
    site.attach_as(Generation(3));
    assert!(!site.does.iter().any(|did| did.starts_with("welcome")), "a crash would find the hand-over again");
    site.tell(0, Input::GenerationPersisted { generation: Generation(3) });
    assert_eq!(site.does.last().unwrap(), "welcome 3");
    let status = site.secondary.status();
    assert_eq!((status.taken_over, site.secondary.was_handed_over()), (false, false));
    site.tell(5_000, Input::Tick);
    site.tell(0, Input::TakeOver);
    assert_eq!(site.does.last().unwrap(), "persist generation 4", "an operator's word is heard as ever");
}

#[test]
fn every_event_in_every_state_of_the_secondary() {
    let states: [State; 14] = [
        ("alone", alone),
        ("waiting for its generation", waiting),
        ("attached", attached),
        ("with a hole", holed),
        ("stored, not synced", unsynced),
        ("checking a key", checking),
        ("key refused", refused),
        ("gap open", gap_open),
        ("full", full),
        ("failed", failed),
        ("base differs", base_differs),
        ("handed over", handed_over),
        ("taking over", taking_over),
        ("taken over", taken_over),
    ];
    let mut steps = Vec::new();
    for (name, state) in states {
        for (event, apply) in events() {
            let mut site = state();
            let before = site.state(name);
            site.does.clear();
            apply(&mut site);
            steps.push(Step { state: before, event, after: site.state(name), does: site.does.join("; ") });
        }
    }
    snapshot("secondary", &table(&steps));
}

/// What was seen stayed at the gap that the order had passed, and a window later every record was too far out of order.
#[test]
fn a_restart_sees_behind_a_gap_that_does_not_join_what_its_checkpoint_knew() {
    let kinds = [(Kind::Key, 1, 0), (Kind::Data, 2, 0), (Kind::Gap, 10, 3), (Kind::Key, 11, 0), (Kind::Data, 12, 0)];
    let above = kinds.map(|(kind, sequence, aux)| (header(kind, sequence, aux), Digest([1; 32])));
    let recovered = Recovered { generation: Generation(1), above: above.to_vec(), ..Recovered::fresh() };
    let mut site = Site { secondary: Secondary::new(at(0), SETTINGS, recovered), does: Vec::new(), stored: 0 };
    site.checked(1, 1);
    site.checked(11, 2);
    site.attach();
    assert_eq!(site.does.last().unwrap(), "welcome 12");
    for sequence in 13..13 + 2 * WINDOW_RECORDS_MAX {
        let digest = Digest([2; 32]);
        site.tell(0, Input::Record { path: Path(0), header: header(Kind::Data, sequence, 0), digest });
    }
    assert!(!site.does.iter().any(|did| did == "close path"), "the window follows what came");
}

/// A keeper that checks its keys again after a restart has no path that is up, and the primary waits for its welcome: it was taken for
/// unheard.
#[test]
fn a_primary_that_waits_for_its_welcome_is_heard() {
    let above = [(header(Kind::Key, 1, 0), Digest([1; 32])), (header(Kind::Data, 2, 0), Digest([2; 32]))];
    let recovered = Recovered { generation: Generation(1), above: above.to_vec(), ..Recovered::fresh() };
    let mut site = Site { secondary: Secondary::new(at(0), SETTINGS, recovered), does: Vec::new(), stored: 0 };
    site.attach();
    let status = site.secondary.status();
    assert_eq!((status.paths, status.linked), (0, true));
    let by_silence = Input::TakeOverUnheard { unheard_since: Instant(0), until: Instant(90_000) };
    site.tell(60_000, by_silence.clone());
    site.checked(1, 1);
    assert!(!site.secondary.status().taken_over && site.secondary.status().paths == 1, "{:?}", site.does);
    // Lost, and silent from then on.
    site.tell(61_000, Input::PathLost { path: Path(0) });
    let status = site.secondary.status();
    assert_eq!((status.linked, status.heard), (false, Instant(61_000)));
    site.tell(71_000, by_silence);
    assert!(!site.does.contains(&"persist generation 2".to_owned()), "it was heard since");
    site.tell(90_000, Input::TakeOverUnheard { unheard_since: Instant(61_000), until: Instant(90_000) });
    assert!(!site.does.contains(&"persist generation 2".to_owned()), "the statement is too old");
    site.tell(71_001, Input::TakeOverUnheard { unheard_since: Instant(61_000), until: Instant(90_000) });
    assert!(site.does.contains(&"persist generation 2".to_owned()), "{:?}", site.does);
}
