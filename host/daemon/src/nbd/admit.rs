//! Which requests may reach an export, and with which error the others are refused.

use crate::nbd::export::{ContextId, Errno};
use crate::nbd::limits::MAX_PAYLOAD;
use crate::nbd::wire::{RequestHeader, cmd, cmd_flag};

/// What negotiation settled for a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// Length of the export in bytes.
    pub size: u64,
    /// Whether anything that writes is refused.
    pub read_only: bool,
    /// Whether the client understands structured replies.
    pub structured: bool,
    /// The metadata contexts that the client chose.
    pub contexts: Vec<ContextId>,
}

/// A request that may be submitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// READ; `whole` is DF.
    Read { whole: bool },
    /// WRITE.
    Write { fua: bool },
    /// DISC.
    Disconnect,
    /// FLUSH.
    Flush,
    /// TRIM.
    Trim { fua: bool },
    /// CACHE.
    Cache,
    /// WRITE_ZEROES.
    WriteZeroes { fua: bool, no_hole: bool, fast: bool },
    /// BLOCK_STATUS.
    BlockStatus { one_only: bool },
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// The error on the wire.
    pub errno: Errno,
    /// For the person at the initiator.
    pub text: &'static str,
}

/// Checks a request against the protocol and the export. A refused WRITE's payload still follows it.
///
/// # Errors
/// As `proto.md` prescribes: EINVAL for unknown commands and flags, ranges and lengths; EPERM for writing
/// to a read-only export; ENOSPC for writing beyond the end; EOVERFLOW only for an unfragmented READ.
pub fn admit(header: &RequestHeader, terms: &Terms) -> Result<Command, Refusal> {
    let command = decode(header)?;
    match command {
        Command::Disconnect => return Ok(command),
        Command::Flush => {
            let reserved = header.offset == 0 && header.len == 0;
            return reserved.then_some(command).ok_or(INVALID_FLUSH);
        }
        Command::Write { .. } | Command::Trim { .. } | Command::WriteZeroes { .. } if terms.read_only => {
            return Err(READ_ONLY);
        }
        Command::Read { whole: true } if !terms.structured => return Err(UNKNOWN_FLAG),
        Command::Read { whole } if header.len > MAX_PAYLOAD => {
            return Err(if whole { UNFRAGMENTED } else { TOO_LONG });
        }
        Command::Write { .. } if header.len > MAX_PAYLOAD => return Err(TOO_LONG),
        Command::BlockStatus { .. } if terms.contexts.is_empty() => return Err(NO_CONTEXT),
        Command::Read { .. }
        | Command::Write { .. }
        | Command::Trim { .. }
        | Command::Cache
        | Command::WriteZeroes { .. }
        | Command::BlockStatus { .. } => {}
    }
    in_range(header, terms.size, command)?;
    Ok(command)
}

fn decode(header: &RequestHeader) -> Result<Command, Refusal> {
    let has = |flag: u16| header.flags & flag != 0;
    let fua = has(cmd_flag::FUA);
    let (command, allowed) = match header.command {
        cmd::READ => (Command::Read { whole: has(cmd_flag::DF) }, cmd_flag::DF),
        cmd::WRITE => (Command::Write { fua }, 0),
        cmd::DISC => (Command::Disconnect, u16::MAX),
        cmd::FLUSH => (Command::Flush, 0),
        cmd::TRIM => (Command::Trim { fua }, 0),
        cmd::CACHE => (Command::Cache, 0),
        cmd::WRITE_ZEROES => {
            let (no_hole, fast) = (has(cmd_flag::NO_HOLE), has(cmd_flag::FAST_ZERO));
            (Command::WriteZeroes { fua, no_hole, fast }, cmd_flag::NO_HOLE | cmd_flag::FAST_ZERO)
        }
        cmd::BLOCK_STATUS => (Command::BlockStatus { one_only: has(cmd_flag::REQ_ONE) }, cmd_flag::REQ_ONE),
        _ => return Err(UNKNOWN_COMMAND),
    };
    // FUA is valid on every command, though only writes heed it.
    if header.flags & !(allowed | cmd_flag::FUA) != 0 {
        return Err(UNKNOWN_FLAG);
    }
    Ok(command)
}

fn in_range(header: &RequestHeader, size: u64, command: Command) -> Result<(), Refusal> {
    if header.len == 0 {
        return Err(EMPTY);
    }
    let end = header.offset.checked_add(u64::from(header.len));
    if end.is_some_and(|end| end <= size) {
        return Ok(());
    }
    let writes = matches!(command, Command::Write { .. } | Command::WriteZeroes { .. });
    Err(if writes { WRITE_BEYOND_END } else { BEYOND_END })
}

const fn refusal(errno: Errno, text: &'static str) -> Refusal {
    Refusal { errno, text }
}

const UNKNOWN_COMMAND: Refusal = refusal(Errno::Inval, "command not known here");
const UNKNOWN_FLAG: Refusal = refusal(Errno::Inval, "flag not valid for this command");
const INVALID_FLUSH: Refusal = refusal(Errno::Inval, "FLUSH has offset and length zero");
const EMPTY: Refusal = refusal(Errno::Inval, "length is zero");
const TOO_LONG: Refusal = refusal(Errno::Inval, "longer than 64 MiB; 32 MiB is advertised");
const UNFRAGMENTED: Refusal = refusal(Errno::Overflow, "too long to send unfragmented: 64 MiB at most");
const NO_CONTEXT: Refusal = refusal(Errno::Inval, "no metadata context was negotiated");
const READ_ONLY: Refusal = refusal(Errno::Perm, "the export is read-only");
const BEYOND_END: Refusal = refusal(Errno::Inval, "the range ends beyond the export");
const WRITE_BEYOND_END: Refusal = refusal(Errno::NoSpc, "the range ends beyond the export");

#[cfg(test)]
mod tests;
