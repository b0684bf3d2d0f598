//! The contract between the NBD server and what it serves.

use std::fmt;

use bytes::Bytes;

pub use crate::nbd::completion::{Batch, Reply};

/// What an export serves. All connections share one value; calls may be concurrent.
///
/// The server advertises `NBD_FLAG_CAN_MULTI_CONN` for every export. That is a promise the export keeps:
/// a [`Request::Flush`] or a `fua` answered with [`Answer::Done`] covers every write that was answered
/// before, on whatever connection.
pub trait Export: Send + Sync + 'static {
    /// What the export is at this moment. A connection asks once, when it negotiates.
    fn info(&self) -> ExportInfo;

    /// Names of the metadata contexts, each `namespace:leaf`. Index is the [`ContextId`]; the order must
    /// never change during the life of the export.
    fn contexts(&self) -> Vec<String> {
        vec![BASE_ALLOCATION.to_owned()]
    }

    /// Takes a request whose range lies within the export and is not empty.
    ///
    /// Must not block for long: it runs on the thread that carries the connection. Answers by consuming
    /// `reply`, during the call or later from any thread. Requests of one connection come in order of
    /// arrival.
    fn submit(&self, request: Request, reply: Reply);

    /// Called after each run of [`submit`](Self::submit) calls that came out of one read of a socket, so
    /// that an export with a queue wakes its thread once for many requests.
    fn submitted(&self) {}
}

/// The context that `proto.md` defines: allocated or not, zero or not.
pub const BASE_ALLOCATION: &str = "base:allocation";

/// In `base:allocation`: not allocated.
pub const STATE_HOLE: u32 = 1;
/// In `base:allocation`: reads as zeroes.
pub const STATE_ZERO: u32 = 2;

/// What a primary's volume offers beside it: has the other site this block as it is here?
pub const FARSEAL_OWED: &str = "farseal:owed";

/// In `farseal:owed`: the secondary may lack what is here.
pub const STATE_OWED: u32 = 1;

/// What a client is told of an export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportInfo {
    /// For a person to read; empty for none. At most 4096 bytes are sent.
    pub description: String,
    /// Length in bytes.
    pub size: u64,
    /// Whether writes, trims and zeroes are refused with EPERM before they reach the export.
    pub read_only: bool,
    /// The unit that the export likes best, in bytes: a power of two from 512 to 32 MiB.
    pub preferred_block: u32,
}

/// Place of a metadata context in [`Export::contexts`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContextId(pub u32);

/// One request, checked against the export's size. Offsets and lengths are bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Answer: [`Answer::Data`] or [`Answer::Pieces`] of exactly `len` bytes.
    Read { offset: u64, len: u32 },
    /// `data` is page-aligned from one page on, and shares its buffer when cloned or sliced.
    Write { offset: u64, data: Bytes, fua: bool },
    /// Everything answered before is durable when this is answered.
    Flush,
    /// The range is no longer needed; what it reads as afterwards is undefined.
    Trim { offset: u64, len: u32, fua: bool },
    /// The range reads as zeroes afterwards.
    WriteZeroes {
        offset: u64,
        len: u32,
        fua: bool,
        /// Keep the range allocated.
        no_hole: bool,
        /// Answer [`Errno::NotSup`] at once unless this is faster than writing zeroes.
        fast: bool,
    },
    /// The range will be read soon.
    Cache { offset: u64, len: u32 },
    /// Answer: [`Answer::Extents`] from `offset` on, in order, covering at most `len`.
    BlockStatus {
        context: ContextId,
        offset: u64,
        len: u32,
        /// Only the first extent is wanted.
        one_only: bool,
    },
}

/// How a request ended well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The request is done and has nothing to return.
    Done,
    /// The whole range of a READ.
    Data(Bytes),
    /// The whole range of a READ in order, with its holes.
    Pieces(Vec<Piece>),
    /// Descriptors of a BLOCK_STATUS.
    Extents(Vec<Extent>),
}

/// A part of a READ's range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// These bytes.
    Data(Bytes),
    /// This many zero bytes; sent as a hole where the client understands one.
    Zero(u32),
}

/// A stretch of one status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Bytes.
    pub len: u32,
    /// As the context defines them; for `base:allocation` [`STATE_HOLE`] and [`STATE_ZERO`].
    pub flags: u32,
}

/// The errors that NBD can carry (`proto.md`, error values), by their number on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Errno {
    /// Not permitted: a write to a read-only export.
    Perm = 1,
    /// The store failed.
    Io = 5,
    /// Out of memory; `proto.md` asks servers to avoid it.
    NoMem = 12,
    /// The request breaks a rule.
    Inval = 22,
    /// No space, or a write beyond the end.
    NoSpc = 28,
    /// Too large for an unfragmented read.
    Overflow = 75,
    /// Not supported, or not fast.
    NotSup = 95,
    /// The export is going away.
    Shutdown = 108,
}

impl Errno {
    /// The number on the wire.
    #[must_use]
    pub const fn code(self) -> u32 {
        match self {
            Self::Perm => 1,
            Self::Io => 5,
            Self::NoMem => 12,
            Self::Inval => 22,
            Self::NoSpc => 28,
            Self::Overflow => 75,
            Self::NotSup => 95,
            Self::Shutdown => 108,
        }
    }

    /// What a structured error tells the person at the initiator.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Perm => "not permitted on this export",
            Self::Io => "the volume could not carry out the request",
            Self::NoMem => "the node is out of memory",
            Self::Inval => "the request is not valid",
            Self::NoSpc => "no space left",
            Self::Overflow => "too large to send in one piece",
            Self::NotSup => "not supported by this export",
            Self::Shutdown => "the export is being withdrawn",
        }
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}
