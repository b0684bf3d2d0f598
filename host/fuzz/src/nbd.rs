//! Target: an initiator, from its first byte to its last.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use farseal::nbd::export::{Answer, Errno, Export, ExportInfo, Extent, Piece, Reply, Request};
use farseal::nbd::registry::Registry;
use farseal::nbd::replay::replay;
use farseal::nbd::wire::{REQUEST_BYTES, RequestHeader, SIMPLE_REPLY_MAGIC, STRUCTURED_REPLY_MAGIC, chunk, cmd};

const BYTES: u64 = 96 << 10;

/// The first byte says in what pieces the rest comes, and whether answers come at once.
pub(crate) fn run(data: &[u8]) {
    let Some((how, sent)) = data.split_first() else { return };
    let registry = Registry::default();
    let disk = Arc::new(Disk { late: how & 1 == 1, held: Mutex::default() });
    let read_only = Arc::new(ReadOnly);
    let added = registry.add("disk", disk).and_then(|()| registry.add("old", read_only));
    assert_eq!(added, Ok(()));
    let piece = [1, 7, 64, 1 << 20][usize::from(how >> 1 & 3)];
    if let Ok(Some(replayed)) = replay(&registry, sent, piece) {
        judge(&sent[replayed.entered_at..], &replayed.replies);
    }
}

/// Every reply is whole, or the last one that the initiator waited for; it answers a request that was sent.
fn judge(requests: &[u8], replies: &[u8]) {
    let sent = reads(requests);
    let mut rest = replies;
    while let Some((magic, after)) = rest.split_first_chunk::<4>() {
        rest = match u32::from_be_bytes(*magic) {
            SIMPLE_REPLY_MAGIC => {
                let Some((error, after)) = after.split_first_chunk::<4>() else { return };
                let Some((cookie, after)) = after.split_first_chunk::<8>() else { return };
                let error = u32::from_be_bytes(*error);
                assert!(error == 0 || known(error), "error {error} is none of the protocol's");
                let Some(len) = sent.get(&u64::from_be_bytes(*cookie)) else {
                    panic!("a reply to a request that was not sent");
                };
                let len = if error == 0 { *len } else { Some(0) };
                // Two requests of one cookie: which of them is answered cannot be told.
                let Some(len) = len else { return };
                let Some((_, after)) = after.split_at_checked(len) else { return };
                after
            }
            STRUCTURED_REPLY_MAGIC => {
                let Some((head, after)) = after.split_first_chunk::<16>() else { return };
                let [f0, f1, k0, k1, c0, c1, c2, c3, c4, c5, c6, c7, l0, l1, l2, l3] = *head;
                let kind = u16::from_be_bytes([k0, k1]);
                assert!(u16::from_be_bytes([f0, f1]) & !chunk::DONE == 0, "a flag that nobody knows");
                let kinds = [chunk::NONE, chunk::OFFSET_DATA, chunk::OFFSET_HOLE, chunk::BLOCK_STATUS, chunk::ERROR];
                assert!(kinds.contains(&kind), "chunk kind {kind}");
                let cookie = u64::from_be_bytes([c0, c1, c2, c3, c4, c5, c6, c7]);
                assert!(sent.contains_key(&cookie), "a chunk for a request that was not sent");
                let len = usize::try_from(u32::from_be_bytes([l0, l1, l2, l3])).unwrap_or(usize::MAX);
                let Some((_, after)) = after.split_at_checked(len) else { return };
                after
            }
            other => panic!("reply magic {other:#x}"),
        };
    }
}

/// For each cookie the bytes that a good simple reply carries; `None` where it was used twice for different lengths.
fn reads(mut requests: &[u8]) -> BTreeMap<u64, Option<usize>> {
    let mut sent = BTreeMap::new();
    while let Some((header, rest)) = requests.split_first_chunk::<REQUEST_BYTES>() {
        let Ok(header) = RequestHeader::decode(header) else { break };
        let len = if header.command == cmd::READ { usize::try_from(header.len).unwrap_or(usize::MAX) } else { 0 };
        let known = sent.entry(header.cookie).or_insert(Some(len));
        if *known != Some(len) {
            *known = None;
        }
        requests = rest.get(usize::try_from(header.payload()).unwrap_or(usize::MAX)..).unwrap_or_default();
    }
    sent
}

fn known(error: u32) -> bool {
    use Errno::{Inval, Io, NoMem, NoSpc, NotSup, Overflow, Perm, Shutdown};
    [Perm, Io, NoMem, Inval, NoSpc, Overflow, NotSup, Shutdown].iter().any(|errno| errno.code() == error)
}

/// Nothing is stored: what reaches it must lie inside.
struct Disk {
    late: bool,
    held: Mutex<Vec<(Request, Reply)>>,
}

impl Export for Disk {
    fn info(&self) -> ExportInfo {
        ExportInfo { description: "a disk".to_owned(), size: BYTES, read_only: false, preferred_block: 4096 }
    }

    fn submit(&self, request: Request, reply: Reply) {
        if self.late {
            self.held.lock().unwrap_or_else(PoisonError::into_inner).push((request, reply));
        } else {
            reply.done(answer(&request));
        }
    }

    /// The newest first: answers need not come in order.
    fn submitted(&self) {
        let held = std::mem::take(&mut *self.held.lock().unwrap_or_else(PoisonError::into_inner));
        held.into_iter().rev().for_each(|(request, reply)| reply.done(answer(&request)));
    }
}

struct ReadOnly;

impl Export for ReadOnly {
    fn info(&self) -> ExportInfo {
        ExportInfo { description: String::new(), size: 512, read_only: true, preferred_block: 512 }
    }

    fn submit(&self, request: Request, reply: Reply) {
        match request {
            Request::Write { .. } | Request::Trim { .. } | Request::WriteZeroes { .. } => {
                panic!("a write reached a read-only export")
            }
            Request::Read { .. } | Request::Flush | Request::Cache { .. } | Request::BlockStatus { .. } => {
                reply.done(answer(&request));
            }
        }
    }
}

fn answer(request: &Request) -> Result<Answer, Errno> {
    let inside = |offset: u64, len: u64| {
        assert!(len > 0 && offset.checked_add(len).is_some_and(|end| end <= BYTES), "{len} bytes at {offset}");
    };
    match request {
        Request::Read { offset, len } => {
            inside(*offset, u64::from(*len));
            let half = len / 2;
            let zeroes = Bytes::from(vec![1; usize::try_from(len - half).unwrap_or(0)]);
            if half == 0 || offset % 3 == 0 {
                return Ok(Answer::Data(Bytes::from(vec![2; usize::try_from(*len).unwrap_or(0)])));
            }
            Ok(Answer::Pieces(vec![Piece::Zero(half), Piece::Data(zeroes)]))
        }
        Request::Write { offset, data, .. } => {
            inside(*offset, u64::try_from(data.len()).unwrap_or(u64::MAX));
            if offset % 7 == 6 { Err(Errno::Io) } else { Ok(Answer::Done) }
        }
        Request::Flush => Ok(Answer::Done),
        Request::Trim { offset, len, .. } | Request::Cache { offset, len } => {
            inside(*offset, u64::from(*len));
            Ok(Answer::Done)
        }
        Request::WriteZeroes { offset, len, fast, .. } => {
            inside(*offset, u64::from(*len));
            if *fast { Err(Errno::NotSup) } else { Ok(Answer::Done) }
        }
        Request::BlockStatus { offset, len, .. } => {
            inside(*offset, u64::from(*len));
            Ok(Answer::Extents(vec![Extent { len: *len, flags: 3 }]))
        }
    }
}
