//! The primary's journal on disk: segments of commits of records, and what a restart makes of them.
//!
//! ```text
//! segment = segment header (128 bytes), then commits, back to back
//! commit  = commit header (64 bytes), then its records, verbatim
//! ```
//!
//! A commit header names the last sequence number that was known durable when the commit was written. So a restart can
//! tell the two ends of a journal apart: records torn at the tail were never promised and are cut off; a record that
//! is damaged *below* a mark was promised, and that is said, never passed over. Sequence numbers are consecutive
//! within a segment, and from one to the next; a segment whose first record is a gap starts a new run.

use crate::bytes::Fields;
use crate::chain::{Chain, Digest};
use crate::record::{Framed, HEADER_BYTES, Header, HeaderError, Kind};
use crate::units::{Generation, Incarnation, PairId, Sequence, WallTime};

/// Bytes of a segment's header.
pub const SEGMENT_HEADER_BYTES: usize = 128;
/// Bytes of a commit's header.
pub const COMMIT_HEADER_BYTES: usize = 64;

const SEGMENT_MAGIC: [u8; 4] = *b"FSJ1";
const COMMIT_MAGIC: [u8; 4] = *b"FSC1";
const VERSION: u8 = 1;

/// What a segment says of itself. Padded with zeroes to 128 bytes; the last four are its checksum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentHeader {
    pub pair: PairId,
    pub generation: Generation,
    /// The life of the process that wrote it.
    pub incarnation: Incarnation,
    /// Of its first record.
    pub first: Sequence,
    /// The running hash before its first record.
    pub chain_before: Chain,
    pub created: WallTime,
}

/// What stands before a commit's records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CommitHeader {
    /// Of its first record.
    pub first: Sequence,
    pub records: u32,
    /// Of all its records together.
    pub bytes: u32,
    /// Every record up to here was durable in the journal when this was written.
    pub durable: Sequence,
}

/// A record that a scan found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    pub header: Header,
    /// Where the record starts in its segment, in bytes.
    pub offset: u64,
    pub digest: Digest,
}

/// What a scan of one segment found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Scan {
    pub header: SegmentHeader,
    pub entries: Vec<Entry>,
    /// Where the valid part ends, in bytes.
    pub valid_bytes: u64,
    /// The greatest mark that any commit header carries, before or after the end of the valid part.
    pub durable: Sequence,
    /// What stands after the valid part, unless that is nothing or zeroes.
    pub torn: Option<Tear>,
}

/// Why the valid part of a segment ends before its bytes do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Tear {
    #[error("the commit header is torn or damaged")]
    CommitHeader,
    #[error("the commit is cut short")]
    CommitShort,
    #[error("record {sequence}: {reason}")]
    RecordHeader { sequence: Sequence, reason: HeaderError },
    #[error("record {0}: its bytes do not match their checksum")]
    RecordBody(Sequence),
    #[error("record {sequence} belongs to pair {pair}")]
    OtherPair { sequence: Sequence, pair: PairId },
    #[error("record {found} stands where {expected} belongs")]
    OutOfOrder { expected: Sequence, found: Sequence },
}

/// Why bytes are not a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SegmentError {
    #[error("no journal segment starts here: the header is missing or damaged")]
    Header,
    #[error("journal format {0}; this version reads format 1")]
    Version(u8),
    #[error("it belongs to pair {found}, not to {expected}")]
    OtherPair { expected: PairId, found: PairId },
}

/// Promised records that a journal no longer has. Nothing is guessed: the operator is told what is covered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("records {first} to {last} were durable and are damaged ({cause})")]
pub struct Damage {
    pub first: Sequence,
    pub last: Sequence,
    pub cause: Tear,
}

impl SegmentHeader {
    pub fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut out = [0; SEGMENT_HEADER_BYTES];
        out[0..4].copy_from_slice(&SEGMENT_MAGIC);
        out[4] = VERSION;
        out[8..24].copy_from_slice(&self.pair.0);
        out[24..32].copy_from_slice(&self.generation.0.to_le_bytes());
        out[32..48].copy_from_slice(&self.incarnation.0);
        out[48..56].copy_from_slice(&self.first.0.to_le_bytes());
        out[56..88].copy_from_slice(&self.chain_before.0);
        out[88..96].copy_from_slice(&self.created.0.to_le_bytes());
        let crc = crc32c::crc32c(&out[..124]);
        out[124..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, SegmentError> {
        let bytes = bytes.get(..SEGMENT_HEADER_BYTES).ok_or(SegmentError::Header)?;
        let mut fields = Fields::new(bytes);
        let (magic, version, _) = (fields.array::<4>(), fields.u8(), fields.array::<3>());
        let header = Self {
            pair: PairId(fields.array()),
            generation: Generation(fields.u64()),
            incarnation: Incarnation(fields.array()),
            first: Sequence(fields.u64()),
            chain_before: Chain(fields.array()),
            created: WallTime(fields.u64()),
        };
        fields.take(28);
        if magic != SEGMENT_MAGIC || fields.u32() != crc32c::crc32c(&bytes[..124]) || header.first.0 == 0 {
            return Err(SegmentError::Header);
        }
        if version != VERSION {
            return Err(SegmentError::Version(version));
        }
        Ok(header)
    }
}

impl CommitHeader {
    pub fn encode(&self) -> [u8; COMMIT_HEADER_BYTES] {
        let mut out = [0; COMMIT_HEADER_BYTES];
        out[0..4].copy_from_slice(&COMMIT_MAGIC);
        out[8..16].copy_from_slice(&self.first.0.to_le_bytes());
        out[16..20].copy_from_slice(&self.records.to_le_bytes());
        out[20..24].copy_from_slice(&self.bytes.to_le_bytes());
        out[24..32].copy_from_slice(&self.durable.0.to_le_bytes());
        let crc = crc32c::crc32c(&out[..60]);
        out[60..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..COMMIT_HEADER_BYTES)?;
        let mut fields = Fields::new(bytes);
        let (magic, _) = (fields.array::<4>(), fields.u32());
        let header = Self {
            first: Sequence(fields.u64()),
            records: fields.u32(),
            bytes: fields.u32(),
            durable: Sequence(fields.u64()),
        };
        fields.take(28);
        (magic == COMMIT_MAGIC && fields.u32() == crc32c::crc32c(&bytes[..60])).then_some(header)
    }
}

/// Reads a segment up to the end of its valid part, then looks on for marks beyond it.
pub fn scan_segment(pair: PairId, bytes: &[u8]) -> Result<Scan, SegmentError> {
    let header = SegmentHeader::decode(bytes)?;
    if header.pair != pair {
        return Err(SegmentError::OtherPair { expected: pair, found: header.pair });
    }
    let mut scan = Scan {
        header,
        entries: Vec::new(),
        valid_bytes: wide(SEGMENT_HEADER_BYTES),
        durable: Sequence::NONE,
        torn: None,
    };
    let mut at = SEGMENT_HEADER_BYTES;
    let mut expected = header.first;
    while at < bytes.len() {
        match scan_commit(pair, &bytes[at..], expected) {
            Ok((commit, entries)) => {
                scan.durable = scan.durable.max(commit.durable);
                expected = expected.plus(u64::from(commit.records));
                scan.entries
                    .extend(entries.into_iter().map(|entry| Entry { offset: entry.offset + wide(at), ..entry }));
                at += COMMIT_HEADER_BYTES + usize::try_from(commit.bytes).unwrap_or(usize::MAX);
                scan.valid_bytes = wide(at);
            }
            Err(tear) => {
                if !is_blank(&bytes[at..]) {
                    scan.torn = Some(tear);
                    scan.durable = scan.durable.max(marks_beyond(&bytes[at..]));
                }
                break;
            }
        }
    }
    Ok(scan)
}

/// Nothing but zeroes: room that was reserved and not used. A page at a time, as there may be much of it.
pub fn is_blank(bytes: &[u8]) -> bool {
    const ZEROES: [u8; 4096] = [0; 4096];
    bytes.chunks(ZEROES.len()).all(|page| *page == ZEROES[..page.len()])
}

/// Were promised records lost? `next` is the first sequence number that the scans did not reach, `durable` the
/// greatest mark known from any source: later segments, checkpoints, the peer's acknowledgements.
pub fn damage(next: Sequence, durable: Sequence, torn: Option<Tear>) -> Option<Damage> {
    (durable >= next).then_some(Damage { first: next, last: durable, cause: torn.unwrap_or(Tear::CommitShort) })
}

fn scan_commit(pair: PairId, bytes: &[u8], first: Sequence) -> Result<(CommitHeader, Vec<Entry>), Tear> {
    let commit = CommitHeader::decode(bytes).ok_or(Tear::CommitHeader)?;
    if commit.first != first {
        return Err(Tear::OutOfOrder { expected: first, found: commit.first });
    }
    let body_bytes = usize::try_from(commit.bytes).map_err(|_| Tear::CommitShort)?;
    let body = bytes.get(COMMIT_HEADER_BYTES..).and_then(|rest| rest.get(..body_bytes)).ok_or(Tear::CommitShort)?;
    let (mut entries, mut at, mut expected) = (Vec::new(), 0, first);
    while at < body.len() {
        let (entry, len) = scan_record(&body[at..], expected)?;
        if entry.header.pair != pair {
            return Err(Tear::OtherPair { sequence: expected, pair: entry.header.pair });
        }
        entries.push(Entry { offset: wide(COMMIT_HEADER_BYTES + at), ..entry });
        at += len;
        expected = expected.next();
    }
    if expected.since(first) == u64::from(commit.records) { Ok((commit, entries)) } else { Err(Tear::CommitShort) }
}

/// One record at the start of `bytes`, and its length.
pub fn scan_record(bytes: &[u8], expected: Sequence) -> Result<(Entry, usize), Tear> {
    let framed = Framed::decode(bytes).map_err(|reason| Tear::RecordHeader { sequence: expected, reason })?;
    let header = framed.header;
    let rest = bytes.get(HEADER_BYTES..).unwrap_or_default();
    let body = rest.get(..header.body_bytes()).ok_or(Tear::RecordBody(expected))?;
    if !framed.body_matches(body) {
        return Err(Tear::RecordBody(expected));
    }
    if header.sequence != expected {
        return Err(Tear::OutOfOrder { expected, found: header.sequence });
    }
    let digest = Digest::of(&header.encode(framed.body_crc), &body[..header.tag_bytes()]);
    Ok((Entry { header, offset: 0, digest }, header.record_bytes()))
}

/// The greatest mark in commit headers that stand anywhere in `bytes`.
fn marks_beyond(bytes: &[u8]) -> Sequence {
    let mut greatest = Sequence::NONE;
    for at in 0..bytes.len().saturating_sub(COMMIT_HEADER_BYTES - 1) {
        if bytes[at..].starts_with(&COMMIT_MAGIC)
            && let Some(commit) = CommitHeader::decode(&bytes[at..])
        {
            greatest = greatest.max(commit.durable);
        }
    }
    greatest
}

/// The running hash after `header`'s record: a gap starts again from where its run of given-up records began.
pub fn chain_after(before: Chain, at_gap: Chain, header: &Header, digest: Digest) -> Chain {
    if header.kind == Kind::Gap { at_gap.after(digest) } else { before.after(digest) }
}

fn wide(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::tests::sample;

    fn segment(commits: &[(u64, &[u32])]) -> Vec<u8> {
        let mut bytes = SegmentHeader {
            pair: PairId([1; 16]),
            generation: Generation(3),
            incarnation: Incarnation([4; 16]),
            first: Sequence(10),
            chain_before: Chain::START,
            created: WallTime(5),
        }
        .encode()
        .to_vec();
        let mut sequence = 10;
        for (durable, blocks) in commits {
            let first = sequence;
            let mut records = Vec::new();
            for blocks in *blocks {
                let header = sample(Kind::Data, sequence, *blocks);
                let body = vec![u8::try_from(sequence % 251).unwrap(); header.body_bytes()];
                records.extend(header.encode(crc32c::crc32c(&body)));
                records.extend(body);
                sequence += 1;
            }
            let commit = CommitHeader {
                first: Sequence(first),
                records: u32::try_from(sequence - first).unwrap(),
                bytes: u32::try_from(records.len()).unwrap(),
                durable: Sequence(*durable),
            };
            bytes.extend(commit.encode());
            bytes.extend(records);
        }
        bytes
    }

    fn check(bytes: &[u8]) -> String {
        match scan_segment(PairId([1; 16]), bytes) {
            Err(error) => error.to_string(),
            Ok(scan) => {
                let next = scan.entries.last().map_or(scan.header.first, |entry| entry.header.sequence.next());
                let damage = damage(next, scan.durable, scan.torn);
                format!(
                    "next {next}, {}",
                    match (scan.torn, damage) {
                        (_, Some(damage)) => damage.to_string(),
                        (Some(tear), None) => format!("tail cut: {tear}"),
                        (None, None) => "whole".into(),
                    }
                )
            }
        }
    }

    #[test]
    fn an_undamaged_journal_is_recovered_whole() {
        let bytes = segment(&[(9, &[1, 2]), (11, &[1]), (12, &[3])]);
        assert_eq!(check(&bytes), "next 14, whole");
        let mut preallocated = bytes.clone();
        preallocated.resize(bytes.len() + 100_000, 0);
        assert_eq!(check(&preallocated), "next 14, whole");
    }

    #[test]
    fn a_torn_tail_is_cut_and_a_damaged_promise_is_named() {
        let bytes = segment(&[(9, &[1]), (10, &[1]), (11, &[1])]);
        let mut torn = bytes.clone();
        torn.truncate(bytes.len() - 10);
        assert_eq!(check(&torn), "next 12, tail cut: the commit is cut short");

        let mut flipped = bytes.clone();
        let last = bytes.len() - 1;
        flipped[last] ^= 1;
        assert_eq!(check(&flipped), "next 12, tail cut: record 12: its bytes do not match their checksum");

        let mut lost = bytes.clone();
        lost[SEGMENT_HEADER_BYTES + COMMIT_HEADER_BYTES + HEADER_BYTES + 50] ^= 1;
        assert_eq!(
            check(&lost),
            "next 10, records 10 to 11 were durable and are damaged (record 10: its bytes do not match their checksum)"
        );
    }

    #[test]
    fn a_segment_of_another_pair_or_version_is_refused() {
        let bytes = segment(&[(9, &[1])]);
        assert!(matches!(scan_segment(PairId([9; 16]), &bytes), Err(SegmentError::OtherPair { .. })));
        let mut newer = bytes.clone();
        newer[4] = 2;
        let crc = crc32c::crc32c(&newer[..124]);
        newer[124..128].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(check(&newer), "journal format 2; this version reads format 1");
        assert_eq!(check(&bytes[..50]), "no journal segment starts here: the header is missing or damaged");
    }

    proptest! {
        #[test]
        fn any_cut_recovers_a_prefix(cut in 0usize..40_000) {
            let bytes = segment(&[(0, &[1, 1]), (0, &[2]), (0, &[1, 1, 1])]);
            let cut = SEGMENT_HEADER_BYTES + cut % (bytes.len() - SEGMENT_HEADER_BYTES);
            let scan = scan_segment(PairId([1; 16]), &bytes[..cut]).unwrap();
            for (index, entry) in scan.entries.iter().enumerate() {
                prop_assert_eq!(entry.header.sequence, Sequence(10 + index as u64));
            }
            prop_assert!(usize::try_from(scan.valid_bytes).unwrap() <= cut);
        }

        #[test]
        fn any_flip_is_noticed(at in 0usize..40_000, bit in 0..8u8) {
            let bytes = segment(&[(9, &[1, 1]), (11, &[2])]);
            let mut flipped = bytes.clone();
            let at = at % bytes.len();
            flipped[at] ^= 1 << bit;
            match scan_segment(PairId([1; 16]), &flipped) {
                Err(_) => prop_assert!(at < SEGMENT_HEADER_BYTES),
                Ok(scan) => prop_assert!(scan.torn.is_some() && scan.entries.len() < 3),
            }
        }
    }
}
