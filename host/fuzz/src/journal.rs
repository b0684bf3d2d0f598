//! Target: a journal segment after a crash, or after worse.

use farseal_core::chain::Chain;
use farseal_core::journal::{CommitHeader, SEGMENT_HEADER_BYTES, SegmentHeader, damage, scan_segment};
use farseal_core::record::{Header, Kind};
use farseal_core::units::{Generation, Incarnation, PairId, Sequence, WallTime};

use crate::record;
use crate::script::Script;

const PAIR: PairId = PairId([1; 16]);
const FIRST: u64 = 10;

/// Builds a valid segment from the first choices, harms it as the rest says, and scans it.
pub(crate) fn run(data: &[u8]) {
    let mut script = Script::new(data);
    let (whole, written) = segment(&mut script, PAIR);
    let (strange, _) = segment(&mut script, PairId([9; 16]));
    let mut bytes = whole.clone();
    let mut harmed = false;
    while !script.is_over() {
        harmed |= harm(&mut script, &mut bytes, &strange);
    }
    let Ok(scan) = scan_segment(PAIR, &bytes) else {
        assert!(harmed, "an undamaged segment is read");
        return;
    };
    for (entry, (header, digest_of)) in scan.entries.iter().zip(&written) {
        assert_eq!(entry.header, *header, "what is recovered was written, in its place");
        assert_eq!(entry.header.pair, PAIR);
        let at = usize::try_from(entry.offset).expect("an offset in memory");
        let found = &bytes[at..at + entry.header.record_bytes()];
        assert_eq!(found, &whole[*digest_of..digest_of + header.record_bytes()], "to the last byte");
    }
    assert!(scan.entries.len() <= written.len(), "nothing is recovered that was never written");
    assert!(usize::try_from(scan.valid_bytes).is_ok_and(|valid| valid <= bytes.len().max(SEGMENT_HEADER_BYTES)));
    let next = Sequence(FIRST + u64::try_from(scan.entries.len()).unwrap_or(u64::MAX));
    if bytes == whole {
        assert_eq!((scan.entries.len(), scan.torn), (written.len(), None), "an undamaged segment comes back whole");
    } else if let Some(damage) = damage(next, scan.durable, scan.torn) {
        assert!(damage.first == next && damage.last >= next, "damage begins where the valid part ends");
    }
}

/// A valid segment, and each record's header and place.
fn segment(script: &mut Script<'_>, pair: PairId) -> (Vec<u8>, Vec<(Header, usize)>) {
    let mut bytes = SegmentHeader {
        pair,
        generation: Generation(3),
        incarnation: Incarnation([4; 16]),
        first: Sequence(FIRST),
        chain_before: Chain::START,
        created: WallTime(5),
    }
    .encode()
    .to_vec();
    let mut written = Vec::new();
    let mut sequence = FIRST;
    for _ in 0..script.below(5) {
        let first = sequence;
        let mut records = Vec::new();
        let durable = Sequence(first.saturating_sub(1 + u64::from(script.below(3))));
        let places = bytes.len() + farseal_core::journal::COMMIT_HEADER_BYTES;
        for _ in 0..=script.below(4) {
            let header = header(script, pair, sequence);
            let body: Vec<u8> = std::iter::repeat_n(script.byte(), header.body_bytes()).collect();
            written.push((header, places + records.len()));
            records.extend(header.encode(crc32c::crc32c(&body)));
            records.extend(body);
            sequence += 1;
        }
        let commit = CommitHeader {
            first: Sequence(first),
            records: u32::try_from(sequence - first).unwrap_or(u32::MAX),
            bytes: u32::try_from(records.len()).unwrap_or(u32::MAX),
            durable,
        };
        bytes.extend(commit.encode());
        bytes.extend(records);
    }
    (bytes, written)
}

fn header(script: &mut Script<'_>, pair: PairId, sequence: u64) -> Header {
    let kind = [Kind::Data, Kind::Zero, Kind::Trim, Kind::Key, Kind::Cover, Kind::Void, Kind::Cut, Kind::Gap]
        [usize::from(script.below(8))];
    record::header(script, kind, 3, pair, sequence)
}

/// Says whether the bytes may have changed.
fn harm(script: &mut Script<'_>, bytes: &mut Vec<u8>, strange: &[u8]) -> bool {
    let at = usize::from(script.word()) % (bytes.len() + 1);
    match script.below(5) {
        0 => bytes.truncate(at),
        1 => {
            let bit = 1 << script.below(8);
            bytes.get_mut(at).into_iter().for_each(|byte| *byte ^= bit);
        }
        // A piece of another pair's journal at the same or at another place.
        2 => {
            let from = if script.below(2) == 0 { at } else { usize::from(script.word()) }.min(strange.len());
            let piece = &strange[from..(from + usize::from(script.word())).min(strange.len())];
            let end = (at + piece.len()).min(bytes.len());
            drop(bytes.splice(at..end, piece.iter().copied()));
        }
        // A piece of its own at another place: an old tail.
        3 => {
            let from = usize::from(script.word()) % (bytes.len() + 1);
            let piece = bytes[from..(from + usize::from(script.word())).min(bytes.len())].to_vec();
            let end = (at + piece.len()).min(bytes.len());
            drop(bytes.splice(at..end, piece));
        }
        _ => {
            let zeroes = usize::from(script.word());
            bytes.resize(bytes.len() + zeroes, 0);
        }
    }
    true
}
