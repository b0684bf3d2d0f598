//! Bytes of each format on disk and wire, kept as text: what wrote them may change, what they say may not.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use farseal_core::chain::Chain;
use farseal_core::declare::Declare;
use farseal_core::drill::{AskDrill, AskLive};
use farseal_core::frame::{
    Ack, Attach, ComponentPart, Differs, Frame, FrameError, HandOver, KeyRefusal, PREFIX_BYTES, Prefix, Refusal, Shape,
    Welcome,
};
use farseal_core::given_up::GivenUp;
use farseal_core::inspect::{Answer, Held, Inspect, Part, Run, Terms, Unreadable};
use farseal_core::journal::{CommitHeader, SEGMENT_HEADER_BYTES, SegmentError, SegmentHeader, scan_segment};
use farseal_core::layout::LayoutId;
use farseal_core::lineage::Lineage;
use farseal_core::owed::{OwedError, OwedMap};
use farseal_core::record::{Framed, HEADER_BYTES, Header, HeaderError, Kind};
use farseal_core::refresh::AskOld;
use farseal_core::retire::{AskRetire, Order, SIGNATURE_BYTES};
use farseal_core::units::{
    BlockBytes, BlockCount, Epoch, Extent, Generation, Incarnation, Lba, PairId, Sequence, VolumeId, WallTime,
};
use farseal_core::window::Range;

const PAIR: PairId = PairId([1; 16]);

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// 32 bytes a line: a change shows where it is.
fn lines(bytes: &[u8]) -> String {
    bytes.chunks(32).map(|line| hex(line) + "\n").collect()
}

/// The fixture's bytes, which must be these.
fn golden(fixture: &str, bytes: &[u8]) -> Vec<u8> {
    assert_eq!(lines(bytes), fixture, "this format has other bytes now: that is another format");
    unhex(fixture)
}

fn header(kind: Kind, sequence: u64, aux: u64) -> Header {
    let (lba, blocks) = match kind {
        Kind::Data => (5, 1),
        Kind::Zero | Kind::Trim => (9, 70),
        Kind::Key | Kind::Cover => (0, 1),
        Kind::Void | Kind::Cut | Kind::Gap => (0, 0),
    };
    Header {
        kind,
        encrypted: true,
        stack: 1,
        search_tags: farseal_core::layout::SearchTags::NONE,
        pair: PAIR,
        volume: VolumeId([2; 16]),
        generation: Generation(3),
        sequence: Sequence(sequence),
        lba: Lba(lba),
        blocks,
        block_bytes: BlockBytes::new(512).unwrap(),
        wall: WallTime(1_700_000_000_000),
        aux,
    }
}

/// One record of every kind, in two commits.
fn journal() -> Vec<u8> {
    let kinds = [Kind::Key, Kind::Data, Kind::Zero, Kind::Trim, Kind::Cover, Kind::Void, Kind::Cut, Kind::Gap];
    let records: Vec<Vec<u8>> = (10..)
        .zip(kinds)
        .map(|(sequence, kind)| {
            let header = header(kind, sequence, if kind == Kind::Gap { 4 } else { 0 });
            let body = vec![u8::try_from(sequence).unwrap(); header.body_bytes()];
            [header.encode(crc32c::crc32c(&body)).to_vec(), body].concat()
        })
        .collect();
    let mut bytes = SegmentHeader {
        pair: PAIR,
        generation: Generation(3),
        incarnation: Incarnation([4; 16]),
        first: Sequence(10),
        chain_before: Chain([5; 32]),
        created: WallTime(1_700_000_000_000),
    }
    .encode()
    .to_vec();
    let (first, second) = records.split_at(3);
    for (at, commit, durable) in [(10, first, 9), (13, second, 12)] {
        let body = commit.concat();
        let header = CommitHeader {
            first: Sequence(at),
            records: u32::try_from(commit.len()).unwrap(),
            bytes: u32::try_from(body.len()).unwrap(),
            durable: Sequence(durable),
        };
        bytes.extend(header.encode());
        bytes.extend(body);
    }
    bytes
}

#[test]
fn a_journal_segment_of_format_1_is_read() {
    let bytes = golden(include_str!("../../../fixtures/golden/journal-1.hex"), &journal());
    let scan = scan_segment(PAIR, &bytes).unwrap();
    let kinds: Vec<(u64, Kind)> =
        scan.entries.iter().map(|entry| (entry.header.sequence.0, entry.header.kind)).collect();
    let expected = [Kind::Key, Kind::Data, Kind::Zero, Kind::Trim, Kind::Cover, Kind::Void, Kind::Cut, Kind::Gap];
    assert_eq!(kinds, (10..).zip(expected).collect::<Vec<_>>());
    assert_eq!((scan.torn, scan.durable, scan.valid_bytes), (None, Sequence(12), u64::try_from(bytes.len()).unwrap()));
    assert_eq!(scan.header.chain_before, Chain([5; 32]));

    let mut newer = bytes;
    newer[4] = 2;
    let crc = crc32c::crc32c(&newer[..SEGMENT_HEADER_BYTES - 4]);
    newer[SEGMENT_HEADER_BYTES - 4..SEGMENT_HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(scan_segment(PAIR, &newer), Err(SegmentError::Version(2)));
}

#[test]
fn a_record_of_a_newer_format_is_refused_by_name() {
    let mut newer = header(Kind::Data, 9, 0).encode(7);
    newer[4] = 2;
    let crc = crc32c::crc32c(&newer[..HEADER_BYTES - 4]);
    newer[HEADER_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(Framed::decode(&newer), Err(HeaderError::Version(2)));
    assert_eq!(HeaderError::Version(2).to_string(), "record format 2; this version reads format 1");
}

fn dirty_map() -> OwedMap {
    let mut map = OwedMap::empty(BlockCount(3000), BlockBytes::DEFAULT);
    for (first, blocks) in [(0, 1), (100, 40), (2999, 1)] {
        map.mark(Extent::new(Lba(first), BlockCount(blocks)).unwrap());
    }
    map
}

#[test]
fn a_dirty_map_of_format_1_is_read() {
    let map = dirty_map();
    let bytes = golden(include_str!("../../../fixtures/golden/owed-1.hex"), &map.encode());
    let found = OwedMap::decode_with(&bytes, BlockCount(3000), BlockBytes::DEFAULT);
    assert_eq!(found, Ok((map, None)), "it does not say where the secondary may be");
}

#[test]
fn a_dirty_map_of_format_2_is_read_and_a_newer_one_refused_by_name() {
    let (volume, block) = (BlockCount(3000), BlockBytes::DEFAULT);
    let (map, mut given_up) = (dirty_map(), GivenUp::default());
    given_up.push(Sequence(40), Chain([4; 32]));
    given_up.push(Sequence(43), Chain([5; 32]));
    let bytes = golden(include_str!("../../../fixtures/golden/owed-2.hex"), &map.encode_with(&given_up));
    assert_eq!(OwedMap::decode_with(&bytes, volume, block), Ok((map, Some(given_up))));

    let mut newer = bytes;
    newer[4] = 3;
    let crc = crc32c::crc32c_append(crc32c::crc32c(&newer[..28]), &newer[32..]);
    newer[28..32].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(OwedMap::decode(&newer, volume, block), Err(OwedError::Version(3)));
}

/// What a copy answers, with one run of each kind.
fn answer(extent: Extent) -> Vec<u8> {
    let header = header(Kind::Data, 7, 0);
    let Header { pair, volume, encrypted, block_bytes, .. } = header;
    let part = Part { header, first: 0, tags: vec![6; 16], blocks: vec![7; 512] };
    let held =
        [Held::Record(Box::new(part)), Held::Nothing, Held::Unreadable(Unreadable::Header), Held::Base(vec![[8; 32]])];
    let runs = held.map(|held| Run { blocks: BlockCount(1), held }).to_vec();
    let answer = Answer { through: Sequence(9), runs };
    let bytes = answer.encode();
    let terms = Terms { pair, volume, encrypted, block_bytes };
    assert_eq!(Answer::decode(&bytes, extent, &terms), Ok(answer));
    bytes
}

/// One of each kind, and of each refusal.
fn frames() -> Vec<(&'static str, Frame)> {
    let ack = Ack {
        durable: Sequence(7),
        chain: Chain([3; 32]),
        ranges: vec![
            Range { first: Sequence(9), last: Sequence(12) },
            Range { first: Sequence(15), last: Sequence(15) },
        ],
        full: true,
    };
    let attach = Attach {
        layout: None,
        pair: PAIR,
        volume: VolumeId([2; 16]),
        generation: Generation(4),
        encrypted: true,
        block_bytes: BlockBytes::DEFAULT,
        blocks: BlockCount(1 << 20),
        path: 1,
        paths: 2,
    };
    let refused = |why| Frame::KeyRefused { key: Sequence(3), why };
    let lineage = Lineage {
        generation: Generation(4),
        fork: Sequence(20),
        fork_chain: Chain([6; 32]),
        start: Sequence(30),
        start_chain: Chain([7; 32]),
    };
    let extent = Extent::new(Lba(5), BlockCount(4)).unwrap();
    vec![
        ("hello", Frame::Hello { challenge: [9; 32] }),
        ("attach", Frame::Attach(attach)),
        ("welcome", Frame::Welcome(Welcome { generation: Generation(4), ack: ack.clone() })),
        ("refuse-unknown-pair", Frame::Refuse(Refusal::UnknownPair)),
        ("refuse-fenced", Frame::Refuse(Refusal::Fenced(Generation(5)))),
        ("refuse-encryption-differs", Frame::Refuse(Refusal::EncryptionDiffers)),
        ("refuse-other-size", Frame::Refuse(Refusal::OtherSize(77))),
        ("refuse-other-volume", Frame::Refuse(Refusal::OtherVolume)),
        ("refuse-not-secondary", Frame::Refuse(Refusal::NotSecondary)),
        ("refuse-damaged", Frame::Refuse(Refusal::Damaged)),
        ("records", Frame::Records(vec![1, 2, 3])),
        ("ack", Frame::Ack(ack)),
        ("key-refused-no-capsule", refused(KeyRefusal::NoCapsule)),
        ("key-refused-forged", refused(KeyRefusal::Forged)),
        ("key-refused-misplaced", refused(KeyRefusal::Misplaced)),
        ("key-refused-other-recipient", refused(KeyRefusal::OtherRecipient)),
        ("key-refused-unopenable", refused(KeyRefusal::Unopenable)),
        ("key-refused-no-receipt", refused(KeyRefusal::NoReceipt)),
        ("key-refused-no-component", refused(KeyRefusal::NoComponent)),
        ("key-refused-destroyed", refused(KeyRefusal::Destroyed)),
        ("component", Frame::Component(ComponentPart { digest: [5; 32], of: 8, from: 4, bytes: vec![6; 4] })),
        ("ping", Frame::Ping { token: 0x0102_0304_0506_0708 }),
        ("pong", Frame::Pong { token: 8 }),
        ("lineage", Frame::Lineage(lineage)),
        ("differs", Frame::Differs(Differs { first: 3, words: vec![1, 1 << 63], last: true })),
        ("hand-over", Frame::HandOver(HandOver { generation: Generation(6), at: Sequence(40), chain: Chain([8; 32]) })),
        ("handed-over", Frame::HandedOver { generation: Generation(6) }),
        ("inspect", Frame::Inspect(Inspect { id: 5, extent, challenge: [9; 32] })),
        ("held", Frame::Held { id: 5, answer: answer(extent) }),
        ("shape", Frame::Shape(Shape::of(32 << 20))),
        ("ask-live", Frame::AskLive(AskLive { id: 5, from: Lba(4) })),
        ("ask-drill", Frame::AskDrill(AskDrill { id: 5, lba: Lba(4), challenge: [7; 32] })),
        ("ask-old", Frame::AskOld(AskOld { id: 5, from: Lba(4), through: Epoch(3) })),
        ("ask-retire", Frame::AskRetire(Box::new(retire()))),
        ("declare", Frame::Declare(Declare { id: 5, generation: Generation(6) })),
        ("slotted", Frame::Slotted([vec![9; 32], vec![1, 2, 3]].concat())),
        ("in-slots", Frame::InSlots),
        ("attach-layout", Frame::Attach(Attach { layout: Some(LayoutId([8; 16])), ..attach })),
        ("refuse-layout-differs", Frame::Refuse(Refusal::LayoutDiffers)),
    ]
}

fn retire() -> AskRetire {
    let (generation, through, at) = (Generation(2), Epoch(3), Sequence(40));
    let order = Order { pair: PAIR, generation, through, at, nonce: [9; 32] };
    AskRetire { id: 5, order: order.encode(), signature: [4; SIGNATURE_BYTES] }
}

fn decode(bytes: &[u8]) -> Result<Frame, FrameError> {
    let prefix = Prefix::decode(bytes[..PREFIX_BYTES].try_into().unwrap())?;
    Frame::decode(prefix, bytes[PREFIX_BYTES..].to_vec())
}

#[test]
fn each_frame_of_wire_version_1_keeps_its_bytes() {
    let fixture = include_str!("../../../fixtures/golden/frames-1.hex");
    let rendered: String = frames().iter().map(|(name, frame)| format!("{name} {}\n", hex(&frame.encode()))).collect();
    assert_eq!(rendered, fixture, "wire version 1 has other bytes now: that is another version");
    let mut kinds = BTreeSet::new();
    for (line, (name, frame)) in fixture.lines().zip(frames()) {
        let bytes = unhex(line.split_once(' ').unwrap().1);
        kinds.insert(bytes[4]);
        assert_eq!(decode(&bytes), Ok(frame), "{name}");
        let mut newer = bytes;
        newer[5] = 2;
        assert_eq!(decode(&newer), Err(FrameError::Version(2)), "{name}");
    }
    let known = (0..=u8::MAX).filter(|kind| Prefix::decode([9, 0, 0, 0, *kind, 1, 0, 0]).is_ok());
    assert_eq!(kinds, known.collect(), "a kind of frame has no golden bytes: add it to frames() and to the fixture");
}
