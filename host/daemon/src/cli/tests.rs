//! The command line's own shape, and the status screen in each state.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use clap::CommandFactory;
use farseal_core::units::{BlockCount, ByteLen, Epoch, Generation, Millis, Sequence, WallTime};
use farseal_plugin::Digest;

use super::*;
use crate::control::api::*;

fn plugin(slot: PluginSlot, name: &str) -> PluginStatus {
    PluginStatus {
        pair: "vault-1".into(),
        slot,
        name: name.into(),
        version: "0.1.0".into(),
        digest: Digest([7; 32]),
        grants: vec![],
        standing: PluginStanding::InForce,
        faults: 0,
        last_fault: None,
        stood_in: 0,
        last_stood_in: None,
    }
}

fn primary(state: PairState) -> PairStatus {
    PairStatus {
        name: "vault-1".into(),
        id: "00112233445566778899aabbccddeeff".into(),
        role: Role::Primary,
        peer: "remote".into(),
        volume: "vault".into(),
        range: None,
        size: ByteLen(10 << 30),
        state,
        mode: Mode::Async,
        mode_kept: true,
        ordered: true,
        encrypted: true,
        generation: Generation(1),
        paths_up: 1,
        paths: 1,
        marks: Marks { last: Sequence(1200), durable: Sequence(1200), safe: Sequence(1188), homed: Sequence(1100) },
        lag: Lag { records: 12, bytes: ByteLen(1_258_291), time: Some(Millis(240)) },
        journal: Some(JournalUse { used: ByteLen(512 << 20), max: ByteLen(4 << 30) }),
        flow: Some(flow()),
        key: Some(KeyStatus {
            epoch: Epoch(4),
            age: Some(Millis(754_000)),
            sealed: ByteLen(3 << 30),
            next: Some(NextRotation { by: RotationWord::Policy, wait: Some(Millis(180_000)), step: None }),
            held: None,
        }),
        plugins: vec![plugin(PluginSlot::Cipher, "aes-256-gcm"), plugin(PluginSlot::Policy, "interval")],
        last_error: None,
        history: None,
        verify: None,
        escrow: None,
        seed: None,
        points: None,
        arrived: None,
    }
}

fn flow() -> FlowStatus {
    FlowStatus {
        carrier: Some(0),
        high_water: ByteLen(3 << 30),
        fill_rate: ByteLen(8 << 20),
        time_left: Some(Millis(448_000)),
        ..FlowStatus::default()
    }
}

fn secondary(state: PairState) -> PairStatus {
    PairStatus {
        role: Role::Secondary,
        peer: "main".into(),
        lag: Lag { records: 0, bytes: ByteLen(0), time: Some(Millis(1_300)) },
        journal: None,
        flow: None,
        key: None,
        plugins: vec![plugin(PluginSlot::Recovery, "on-access")],
        ..primary(state)
    }
}

fn screen(pairs: Vec<PairStatus>) -> String {
    show::node(&node(pairs))
}

fn node(pairs: Vec<PairStatus>) -> NodeStatus {
    NodeStatus {
        node: "main".into(),
        version: "0.1.0".into(),
        fingerprint: "0123-4567-89ab-cdef-0123-4567-89ab-cdef".into(),
        now: WallTime(1_700_000_100_000),
        uptime: Millis(273_600_000),
        keys_in_swap: None,
        pairs,
        site: None,
    }
}

#[test]
fn the_command_line_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn a_healthy_primary() {
    insta::assert_snapshot!(screen(vec![primary(PairState::Copying)]));
}

#[test]
fn whether_keys_can_get_into_swap_stands_below_the_fingerprint() {
    for (keys, expected) in [
        (KeysInSwap::Locked, "keys cannot get into swap: memory is locked"),
        (KeysInSwap::Unswapped, "keys cannot get into swap: the system swaps nothing of this service"),
        (KeysInSwap::Possible { why: "a limit".into() }, "KEYS CAN GET INTO SWAP: a limit"),
    ] {
        let shown = show::node(&NodeStatus { keys_in_swap: Some(keys), ..node(vec![]) });
        assert_eq!(shown.lines().nth(2), Some(expected), "{shown}");
    }
}

#[test]
fn no_pairs() {
    insta::assert_snapshot!(screen(vec![]));
}

#[test]
fn what_a_copy_keeps_beside_the_newest_point() {
    let points =
        |status: PointsStatus| screen(vec![PairStatus { points: Some(status), ..secondary(PairState::Copying) }]);
    let window = PointsStatus {
        window: Some(Millis(86_400_000)),
        oldest: Some((Sequence(800), Millis(12_600_000))),
        room: ByteLen(40 << 30),
        shortened: Some("the disk was full".into()),
        pins: 2,
        tested: Some(Sequence(1_000)),
    };
    let pins = PointsStatus { window: None, oldest: None, room: ByteLen(0), shortened: None, pins: 1, tested: None };
    let name = |text: &str| farseal_core::group::CutName::new(text).unwrap();
    let named = |text: &str, sequence: u64, pinned: bool, kept: bool| NamedPoint {
        name: name(text),
        sequence: Sequence(sequence),
        at: WallTime(1_700_000_000_000),
        pinned,
        kept,
    };
    let report = PointsReport {
        now: WallTime(1_700_000_100_000),
        window: Some(Millis(86_400_000)),
        oldest: Sequence(800),
        oldest_at: Some(WallTime(1_699_987_400_000)),
        newest: Sequence(1_200),
        newest_at: WallTime(1_700_000_098_700),
        room: ByteLen(40 << 30),
        shortened: Some(("the disk was full".into(), WallTime(1_700_000_000_000))),
        catching_up: vec![(Sequence(900), Sequence(950))],
        named: vec![
            named("early", 500, false, false),
            named("early", 500, true, true),
            named("noon", 1_100, false, true),
        ],
        tested: Some(Sequence(1_000)),
    };
    let none = PointsReport {
        window: None,
        oldest: Sequence(1_200),
        oldest_at: None,
        shortened: None,
        catching_up: vec![],
        named: vec![],
        tested: None,
        ..report.clone()
    };
    insta::assert_snapshot!(
        [points(window), points(pins), recover::shown_points(&report), recover::shown_points(&none)].join("\n")
    );
}

#[test]
fn every_state_of_a_primary_says_whether_it_protects() {
    let states = [
        PairState::Starting,
        PairState::Copying,
        PairState::CatchingUp { owed: ByteLen(3 << 30) },
        PairState::Behind { owed: ByteLen(3_328_599_654) },
        PairState::Pausing,
        PairState::Paused,
        PairState::LinkDown { since: Millis(12_000) },
        PairState::Diverged { why: "the running hashes differ at record 7".into() },
        PairState::Stopped { why: "the journal failed".into() },
    ];
    let lines = states.map(|state| screen(vec![primary(state)]).lines().nth(4).unwrap().to_owned());
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn every_state_of_a_secondary() {
    let states = [
        PairState::Starting,
        PairState::Copying,
        PairState::Paused,
        PairState::LinkDown { since: Millis(90_000) },
        PairState::TakingOver,
        PairState::TakenOver { opened: BlockCount(42), of: BlockCount(100) },
        PairState::TakenOver { opened: BlockCount(100), of: BlockCount(100) },
    ];
    let lines = states.map(|state| {
        let screen = screen(vec![secondary(state)]);
        screen.lines().skip(4).take(2).collect::<Vec<_>>().join("\n")
    });
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn a_secondary() {
    insta::assert_snapshot!(screen(vec![secondary(PairState::Copying)]));
}

#[test]
fn trouble_names_the_next_step() {
    let mut pair = primary(PairState::LinkDown { since: Millis(3_723_000) });
    pair.paths_up = 0;
    pair.lag = Lag { records: 40_000, bytes: ByteLen(2 << 30), time: Some(Millis(3_722_000)) };
    let key = pair.key.as_mut().unwrap();
    key.next = Some(NextRotation { by: RotationWord::HostLimit, wait: None, step: Some("the key is prepared".into()) });
    key.held = Some("the key has reached the host's hard limit".into());
    pair.plugins[1].standing = PluginStanding::Quarantined;
    pair.plugins[1].faults = 3;
    pair.plugins[1].last_fault = Some("ran out of fuel\u{1b}[2J".into());
    let mut disguise = plugin(PluginSlot::Disguise, "cover");
    disguise.stood_in = 12;
    disguise.last_stood_in = Some("disguise.embed refused: too long".into());
    pair.plugins.push(disguise);
    pair.last_error = Some(LastError {
        at: WallTime(1_700_000_088_000),
        message: "connection refused by remote.example:7440".into(),
        next: Some("start the node at remote, or correct [[peer]] addresses".into()),
    });
    insta::assert_snapshot!(screen(vec![pair]));
}

#[test]
fn a_clock_that_was_set_back_shows_no_negative_age() {
    let mut pair = primary(PairState::Copying);
    pair.last_error = Some(LastError { at: WallTime(u64::MAX), message: "x".into(), next: None });
    assert!(screen(vec![pair]).contains("0.0 s ago: x"));
}

#[test]
fn sizes_and_spans_read_well() {
    let sizes = [0, 1023, 1024, 1_258_291, 10 << 30, u64::MAX].map(|bytes| show::size(ByteLen(bytes)));
    assert_eq!(sizes, ["0 B", "1023 B", "1.0 KiB", "1.1 MiB", "10.0 GiB", "16777215.9 TiB"]);
    let spans = [0, 240, 9_999, 12_000, 754_000, 3_723_000, 273_600_000].map(|ms| show::span(Millis(ms)));
    assert_eq!(spans, ["0.0 s", "0.2 s", "9.9 s", "12 s", "12 m 34 s", "1 h 2 m", "3 d 4 h"]);
}

mod journey;

#[test]
fn a_pair_that_is_copied_throttled_and_paced() {
    use farseal_core::preset::Preset;
    let preset = |name: &str, preset| PresetStatus {
        name: name.into(),
        preset,
        holds: name == "night",
        until: Some(WallTime(1_700_003_700_000)),
    };
    let mut pair = primary(PairState::CatchingUp { owed: ByteLen(7 << 30) });
    let rate = |bytes| farseal_core::flow::Rate::new(bytes).ok();
    pair.paths = 2;
    pair.flow = Some(FlowStatus {
        limits: farseal_core::flow::Limits { link: rate(50 << 20), resync: None, initial_copy: rate(20 << 20) },
        pace_us: 4_200,
        high_waters: 2,
        overflows: 1,
        copy: Some(CopyStatus {
            kind: farseal_core::owed::CopyKind::Initial,
            total: ByteLen(10 << 30),
            done: ByteLen(3 << 30),
            rate: ByteLen(20 << 20),
            time_left: Some(Millis(358_000)),
        }),
        pause: Some(PauseStatus {
            by: "preset night".into(),
            since: WallTime(1_700_000_040_000),
            until: Some(WallTime(1_700_003_700_000)),
        }),
        presets: vec![
            preset("night", Preset::TimeOfDay { pause: 120, resume: 360, days: [true; 7], offset: 540 }),
            preset("hourly", Preset::Interval { every: Millis(3_600_000), span: Millis(60_000), from: WallTime(0) }),
            preset(
                "now-and-then",
                Preset::Irregular { every: (Millis(60_000), Millis(120_000)), span: (Millis(1_000), Millis(2_000)) },
            ),
        ],
        ..flow()
    });
    insta::assert_snapshot!(screen(vec![pair]));
}
