//! The bytes of NBD: constants, decoding of what a client sends, encoding of what it gets.
//!
//! Numbers from `doc/proto.md` of NetworkBlockDevice/nbd; all integers are big-endian.

use crate::nbd::export::{Errno, Extent};
use crate::nbd::limits::MAX_STRING;

/// First eight bytes of a server: "NBDMAGIC".
pub const NBD_MAGIC: u64 = 0x4e42_444d_4147_4943;
/// Introduces the newstyle greeting and each option: "IHAVEOPT".
pub const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
/// Introduces each reply to an option.
pub const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
/// Introduces each request.
pub const REQUEST_MAGIC: u32 = 0x2560_9513;
/// Introduces a simple reply.
pub const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
/// Introduces a structured reply chunk.
pub const STRUCTURED_REPLY_MAGIC: u32 = 0x668e_33ef;

/// Handshake and client flag: fixed newstyle.
pub const FIXED_NEWSTYLE: u16 = 1;
/// Handshake and client flag: no 124 zero bytes after `NBD_OPT_EXPORT_NAME`.
pub const NO_ZEROES: u16 = 1 << 1;

/// Transmission flags, `NBD_FLAG_*`.
pub mod flag {
    /// Always set.
    pub const HAS_FLAGS: u16 = 1;
    /// Writes are refused.
    pub const READ_ONLY: u16 = 1 << 1;
    /// FLUSH is understood.
    pub const SEND_FLUSH: u16 = 1 << 2;
    /// FUA is understood.
    pub const SEND_FUA: u16 = 1 << 3;
    /// TRIM is understood.
    pub const SEND_TRIM: u16 = 1 << 5;
    /// WRITE_ZEROES is understood.
    pub const SEND_WRITE_ZEROES: u16 = 1 << 6;
    /// DF is understood; only with structured replies.
    pub const SEND_DF: u16 = 1 << 7;
    /// A flush covers all connections.
    pub const CAN_MULTI_CONN: u16 = 1 << 8;
    /// CACHE is understood.
    pub const SEND_CACHE: u16 = 1 << 10;
    /// FAST_ZERO is understood.
    pub const SEND_FAST_ZERO: u16 = 1 << 11;
}

/// Options, `NBD_OPT_*`.
pub mod opt {
    /// Enter transmission; cannot be refused but by closing.
    pub const EXPORT_NAME: u32 = 1;
    /// Leave.
    pub const ABORT: u32 = 2;
    /// Names of the exports.
    pub const LIST: u32 = 3;
    /// Go on over TLS.
    pub const STARTTLS: u32 = 5;
    /// Facts about an export.
    pub const INFO: u32 = 6;
    /// Facts about an export, and enter transmission.
    pub const GO: u32 = 7;
    /// Use structured replies.
    pub const STRUCTURED_REPLY: u32 = 8;
    /// Which metadata contexts exist.
    pub const LIST_META_CONTEXT: u32 = 9;
    /// Choose metadata contexts.
    pub const SET_META_CONTEXT: u32 = 10;
    /// 64-bit requests; refused as unsupported.
    pub const EXTENDED_HEADERS: u32 = 11;
}

/// Option reply types, `NBD_REP_*`.
pub mod rep {
    /// Done.
    pub const ACK: u32 = 1;
    /// One export of a list.
    pub const SERVER: u32 = 2;
    /// One fact.
    pub const INFO: u32 = 3;
    /// One metadata context.
    pub const META_CONTEXT: u32 = 4;
    /// The option is not known here.
    pub const ERR_UNSUP: u32 = (1 << 31) + 1;
    /// The option is known but not allowed.
    pub const ERR_POLICY: u32 = (1 << 31) + 2;
    /// The option is malformed or out of place.
    pub const ERR_INVALID: u32 = (1 << 31) + 3;
    /// Start TLS first.
    pub const ERR_TLS_REQD: u32 = (1 << 31) + 5;
    /// No such export.
    pub const ERR_UNKNOWN: u32 = (1 << 31) + 6;
    /// The server is stopping.
    pub const ERR_SHUTDOWN: u32 = (1 << 31) + 7;
    /// The option's data is too long.
    pub const ERR_TOO_BIG: u32 = (1 << 31) + 9;
}

/// Facts, `NBD_INFO_*`.
pub mod info {
    /// Size and transmission flags.
    pub const EXPORT: u16 = 0;
    /// Canonical name.
    pub const NAME: u16 = 1;
    /// Description for a person.
    pub const DESCRIPTION: u16 = 2;
    /// Minimum, preferred, maximum.
    pub const BLOCK_SIZE: u16 = 3;
}

/// Commands, `NBD_CMD_*`.
pub mod cmd {
    /// Read.
    pub const READ: u16 = 0;
    /// Write; the only one with a payload.
    pub const WRITE: u16 = 1;
    /// Leave.
    pub const DISC: u16 = 2;
    /// Make durable.
    pub const FLUSH: u16 = 3;
    /// Discard.
    pub const TRIM: u16 = 4;
    /// Read ahead.
    pub const CACHE: u16 = 5;
    /// Zero.
    pub const WRITE_ZEROES: u16 = 6;
    /// Metadata.
    pub const BLOCK_STATUS: u16 = 7;
}

/// Command flags, `NBD_CMD_FLAG_*`.
pub mod cmd_flag {
    /// Durable before it is answered.
    pub const FUA: u16 = 1;
    /// WRITE_ZEROES: keep it allocated.
    pub const NO_HOLE: u16 = 1 << 1;
    /// READ: one content chunk.
    pub const DF: u16 = 1 << 2;
    /// BLOCK_STATUS: one extent.
    pub const REQ_ONE: u16 = 1 << 3;
    /// WRITE_ZEROES: fast or not at all.
    pub const FAST_ZERO: u16 = 1 << 4;
}

/// Chunk types, `NBD_REPLY_TYPE_*`.
pub mod chunk {
    /// Nothing; ends a reply.
    pub const NONE: u16 = 0;
    /// Offset and data.
    pub const OFFSET_DATA: u16 = 1;
    /// Offset and length of zeroes.
    pub const OFFSET_HOLE: u16 = 2;
    /// Context and descriptors.
    pub const BLOCK_STATUS: u16 = 5;
    /// Error number and text.
    pub const ERROR: u16 = (1 << 15) + 1;
    /// Flag: the last chunk of a reply.
    pub const DONE: u16 = 1;
}

/// Bytes of a request's header.
pub const REQUEST_BYTES: usize = 28;
/// Bytes of an option's header.
pub const OPTION_BYTES: usize = 16;

/// What comes first from the server.
#[must_use]
pub fn greeting() -> [u8; 18] {
    let mut bytes = [0; 18];
    bytes[..8].copy_from_slice(&NBD_MAGIC.to_be_bytes());
    bytes[8..16].copy_from_slice(&OPTION_MAGIC.to_be_bytes());
    bytes[16..].copy_from_slice(&(FIXED_NEWSTYLE | NO_ZEROES).to_be_bytes());
    bytes
}

/// A client broke the framing: nothing after this can be trusted, the connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A request without its magic.
    #[error("request magic {0:#010x}, expected 0x25609513")]
    RequestMagic(u32),
    /// An option without its magic.
    #[error("option magic {0:#018x}, expected \"IHAVEOPT\"")]
    OptionMagic(u64),
    /// A client flag that the server did not offer.
    #[error("client flags {0:#x}: only fixed newstyle and no-zeroes are known")]
    ClientFlags(u32),
}

/// What the client answered to the greeting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientFlags {
    /// May send any option; otherwise only `NBD_OPT_EXPORT_NAME`.
    pub fixed: bool,
    /// Wants no padding.
    pub no_zeroes: bool,
}

impl ClientFlags {
    /// Decodes the four bytes after the greeting.
    ///
    /// # Errors
    /// Any flag but the two offered; `proto.md` demands to drop such a client.
    pub fn decode(bytes: [u8; 4]) -> Result<Self, Malformed> {
        let flags = u32::from_be_bytes(bytes);
        let (fixed, no_zeroes) = (u32::from(FIXED_NEWSTYLE), u32::from(NO_ZEROES));
        if flags & !(fixed | no_zeroes) != 0 {
            return Err(Malformed::ClientFlags(flags));
        }
        Ok(Self { fixed: flags & fixed != 0, no_zeroes: flags & no_zeroes != 0 })
    }
}

/// Header of an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OptionHeader {
    /// One of [`opt`], or unknown.
    pub option: u32,
    /// Bytes of data that follow.
    pub len: u32,
}

impl OptionHeader {
    /// Decodes an option's header.
    ///
    /// # Errors
    /// Wrong magic.
    pub fn decode(bytes: &[u8; OPTION_BYTES]) -> Result<Self, Malformed> {
        let mut fields = Fields(bytes);
        let magic = fields.u64().unwrap_or(0);
        if magic != OPTION_MAGIC {
            return Err(Malformed::OptionMagic(magic));
        }
        Ok(Self { option: fields.u32().unwrap_or(0), len: fields.u32().unwrap_or(0) })
    }
}

/// Header of a request, as it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestHeader {
    /// Of [`cmd_flag`].
    pub flags: u16,
    /// One of [`cmd`], or unknown.
    pub command: u16,
    /// The client's name for the request; comes back in the reply.
    pub cookie: u64,
    /// Bytes from the start of the export.
    pub offset: u64,
    /// Bytes.
    pub len: u32,
}

impl RequestHeader {
    /// Decodes a request's header.
    ///
    /// # Errors
    /// Wrong magic.
    pub fn decode(bytes: &[u8; REQUEST_BYTES]) -> Result<Self, Malformed> {
        let mut fields = Fields(bytes);
        let magic = fields.u32().unwrap_or(0);
        if magic != REQUEST_MAGIC {
            return Err(Malformed::RequestMagic(magic));
        }
        Ok(Self {
            flags: fields.u16().unwrap_or(0),
            command: fields.u16().unwrap_or(0),
            cookie: fields.u64().unwrap_or(0),
            offset: fields.u64().unwrap_or(0),
            len: fields.u32().unwrap_or(0),
        })
    }

    /// Encodes it, as a client does.
    #[must_use]
    pub fn encode(&self) -> [u8; REQUEST_BYTES] {
        let mut bytes = [0; REQUEST_BYTES];
        bytes[..4].copy_from_slice(&REQUEST_MAGIC.to_be_bytes());
        bytes[4..6].copy_from_slice(&self.flags.to_be_bytes());
        bytes[6..8].copy_from_slice(&self.command.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.cookie.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.offset.to_be_bytes());
        bytes[24..].copy_from_slice(&self.len.to_be_bytes());
        bytes
    }

    /// Bytes of payload that follow the header, whatever becomes of the request.
    #[must_use]
    pub fn payload(&self) -> u32 {
        if self.command == cmd::WRITE { self.len } else { 0 }
    }
}

/// Data of `NBD_OPT_INFO` and `NBD_OPT_GO`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InfoQuery {
    /// Of the export; empty is the default one.
    pub name: String,
    /// Which of [`info`] the client asks for.
    pub facts: Vec<u16>,
}

impl InfoQuery {
    /// Decodes the option's data; `None` where it is malformed.
    #[must_use]
    pub fn decode(data: &[u8]) -> Option<Self> {
        let mut fields = Fields(data);
        let name = fields.string()?;
        let count = fields.u16()?;
        let facts = (0..count).map(|_| fields.u16()).collect::<Option<Vec<_>>>()?;
        fields.0.is_empty().then_some(Self { name, facts })
    }
}

/// Data of `NBD_OPT_LIST_META_CONTEXT` and `NBD_OPT_SET_META_CONTEXT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContextQuery {
    /// Of the export; empty is the default one.
    pub name: String,
    /// Each `namespace:leaf`, or `namespace:` in a list.
    pub queries: Vec<String>,
}

impl ContextQuery {
    /// Decodes the option's data; `None` where it is malformed.
    #[must_use]
    pub fn decode(data: &[u8]) -> Option<Self> {
        let mut fields = Fields(data);
        let name = fields.string()?;
        let count = usize::try_from(fields.u32()?).ok()?;
        // Each query takes four bytes at least: a count beyond the data is a lie.
        if count > fields.0.len() / 4 {
            return None;
        }
        let queries = (0..count).map(|_| fields.string()).collect::<Option<Vec<_>>>()?;
        fields.0.is_empty().then_some(Self { name, queries })
    }
}

/// A name that is a whole option's data; `None` where it is too long or not UTF-8.
#[must_use]
pub fn decode_name(data: &[u8]) -> Option<String> {
    if data.len() > MAX_STRING {
        return None;
    }
    String::from_utf8(data.to_vec()).ok()
}

/// Appends a reply to an option.
pub fn put_option_reply(out: &mut Vec<u8>, option: u32, kind: u32, data: &[u8]) {
    out.extend_from_slice(&OPTION_REPLY_MAGIC.to_be_bytes());
    out.extend_from_slice(&option.to_be_bytes());
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&length(data.len()).to_be_bytes());
    out.extend_from_slice(data);
}

/// Appends a simple reply; a READ's data follows it.
pub fn put_simple_reply(out: &mut Vec<u8>, cookie: u64, error: u32) {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&SIMPLE_REPLY_MAGIC.to_be_bytes());
    bytes[4..8].copy_from_slice(&error.to_be_bytes());
    bytes[8..].copy_from_slice(&cookie.to_be_bytes());
    out.extend_from_slice(&bytes);
}

/// Appends the header of a chunk whose payload of `len` bytes follows it.
fn put_chunk(out: &mut Vec<u8>, cookie: u64, kind: u16, last: bool, len: u32) {
    let mut bytes = [0; 20];
    let flags = if last { chunk::DONE } else { 0 };
    bytes[..4].copy_from_slice(&STRUCTURED_REPLY_MAGIC.to_be_bytes());
    bytes[4..6].copy_from_slice(&flags.to_be_bytes());
    bytes[6..8].copy_from_slice(&kind.to_be_bytes());
    bytes[8..16].copy_from_slice(&cookie.to_be_bytes());
    bytes[16..].copy_from_slice(&len.to_be_bytes());
    out.extend_from_slice(&bytes);
}

/// Appends what precedes `len` bytes of READ data at `offset`. `len` is at most `MAX_PAYLOAD`.
pub fn put_data_chunk(out: &mut Vec<u8>, cookie: u64, last: bool, offset: u64, len: u32) {
    put_chunk(out, cookie, chunk::OFFSET_DATA, last, len.saturating_add(8));
    out.extend_from_slice(&offset.to_be_bytes());
}

/// Appends a hole of a READ.
pub fn put_hole_chunk(out: &mut Vec<u8>, cookie: u64, last: bool, offset: u64, len: u32) {
    put_chunk(out, cookie, chunk::OFFSET_HOLE, last, 12);
    out.extend_from_slice(&offset.to_be_bytes());
    out.extend_from_slice(&len.to_be_bytes());
}

/// Appends the descriptors of one context.
pub fn put_status_chunk(out: &mut Vec<u8>, cookie: u64, last: bool, context: u32, extents: &[Extent]) {
    put_chunk(out, cookie, chunk::BLOCK_STATUS, last, length(4 + extents.len() * 8));
    out.extend_from_slice(&context.to_be_bytes());
    for extent in extents {
        out.extend_from_slice(&extent.len.to_be_bytes());
        out.extend_from_slice(&extent.flags.to_be_bytes());
    }
}

/// Appends an error with its text.
pub fn put_error_chunk(out: &mut Vec<u8>, cookie: u64, last: bool, errno: Errno, text: &str) {
    let text = &text.as_bytes()[..text.len().min(MAX_STRING)];
    put_chunk(out, cookie, chunk::ERROR, last, length(6 + text.len()));
    out.extend_from_slice(&errno.code().to_be_bytes());
    out.extend_from_slice(&u16::try_from(text.len()).unwrap_or(0).to_be_bytes());
    out.extend_from_slice(text);
}

/// A length that the encoders keep far below 4 GiB, as the wire wants it.
fn length(len: usize) -> u32 {
    debug_assert!(u32::try_from(len).is_ok(), "replies are bounded");
    u32::try_from(len).unwrap_or(u32::MAX)
}

/// Fields of a message, read from its front.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk()?;
        self.0 = tail;
        Some(*head)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// A string behind its 32-bit length.
    fn string(&mut self) -> Option<String> {
        let len = usize::try_from(self.u32()?).ok()?;
        if len > MAX_STRING || len > self.0.len() {
            return None;
        }
        let (head, tail) = self.0.split_at(len);
        self.0 = tail;
        String::from_utf8(head.to_vec()).ok()
    }
}

#[cfg(test)]
mod tests;
