//! Every bound of the NBD server, each with the reason that chose it.

use std::time::Duration;

/// Largest payload of one READ or WRITE that is served, in bytes.
///
/// The reference tester sends requests of 47.6 MiB, libnbd and nbdkit stop at 64 MiB.
pub const MAX_PAYLOAD: u32 = 64 << 20;

/// Largest payload advertised in `NBD_INFO_BLOCK_SIZE`, in bytes: what QEMU's client sends at most.
pub const ADVERTISED_MAX_PAYLOAD: u32 = 32 << 20;

/// Smallest unit advertised, in bytes. Clients that enter with `NBD_OPT_EXPORT_NAME` cannot learn any
/// other, and `proto.md` lets them assume byte granularity.
pub const MIN_BLOCK: u32 = 1;

/// Unit at which the store works best, advertised as preferred, in bytes.
pub const PREFERRED_BLOCK: u32 = 4096;

/// Requests of one connection that may be between "header read" and "reply written".
///
/// Known initiators keep 16 (QEMU) to 128 (kernel `nbd`) in flight; a link of 10 ms wants more than 16.
pub const MAX_IN_FLIGHT: usize = 128;

/// Payload bytes of one connection that may be in the same span: one request of [`MAX_PAYLOAD`], or two
/// advertised ones.
pub const MAX_IN_FLIGHT_BYTES: usize = 64 << 20;

/// Payload bytes of all connections of one server that may be in that span: sixteen connections at their own bound.
pub const PAYLOAD_BYTES: usize = 1 << 30;

/// Payload bytes that a connection which holds none may take at once, whatever the others hold: at most 64 MiB for
/// [`MAX_CONNECTIONS`] beyond [`PAYLOAD_BYTES`], so that whoever asks for little never waits for those who read nothing.
pub const ALWAYS_BYTES: usize = 256 << 10;

/// How long a client may leave a reply unread, or a payload half sent, and nothing of it moves, while others wait for the room
/// that it holds.
pub const STUCK_DEADLINE: Duration = Duration::from_secs(60);

/// Connections that one server holds open. With [`INBOX_BYTES`] each this is 32 MiB of idle buffers.
pub const MAX_CONNECTIONS: usize = 256;

/// Threads that carry connections: past four the store is the bottleneck, not the protocol.
pub const MAX_THREADS: usize = 4;

/// Bytes that one connection reads ahead: 31 write requests of 4 KiB in one `recv`, within a core's L2.
pub const INBOX_BYTES: usize = 128 << 10;

/// Payload that still misses at least this many bytes is read straight into its buffer, in bytes.
/// Below it, reading ahead saves more system calls than the copy costs (16 KiB copy: about 1 us).
pub const DIRECT_READ: usize = 16 << 10;

/// Payload bytes that are submitted before answers are written, so that a pipeline of large reads moves
/// while it is carried out, in bytes.
pub const BURST_BYTES: usize = 512 << 10;

/// Reply bytes that wait for the socket before the next request is taken, in bytes. A client that does not
/// read its replies is not read from either; and buffers come back while the cache still holds them
/// (16 reads of a MiB, measured: a quarter less CPU).
pub const BACKLOG_BYTES: u64 = 512 << 10;

/// Slices of one vectored write: 32 replies of header and body, on the stack.
pub const WRITE_SLICES: usize = 64;

/// Header bytes already written that an outbox keeps before it closes up, in bytes.
pub const OUTBOX_SLACK: usize = 64 << 10;

/// Options that one client may send. nbdkit allows 32; a client listing contexts for many exports needs more.
pub const MAX_OPTIONS: usize = 128;

/// Option data that is read, in bytes: a name of 4096 bytes and some queries.
pub const MAX_OPTION_DATA: u32 = 16 << 10;

/// Option data that is skipped with `NBD_REP_ERR_TOO_BIG`; beyond it the client is dropped, in bytes.
pub const MAX_OPTION_SKIP: u32 = 1 << 20;

/// Longest string of the protocol, in bytes (`proto.md`, conventions).
pub const MAX_STRING: usize = 4096;

/// Time from accept to the transmission phase, TLS included (QEMU's server: 10 s).
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);

/// How long a closing session waits for requests that the export still holds.
pub const CLOSE_DEADLINE: Duration = Duration::from_secs(10);

/// How long a closing session with nothing in flight goes on answering ESHUTDOWN, so that the
/// initiator sees a reason and not only a lost connection.
pub const CLOSE_LINGER: Duration = Duration::from_millis(250);

/// Pause after a failed `accept` (out of descriptors), so that the loop does not spin.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Descriptors in one block status reply: 32 KiB of payload.
pub const MAX_EXTENTS: usize = 4096;

/// Free payload buffers that the pool keeps, in bytes over all classes. Two connections' worth.
pub const POOL_BYTES: usize = 2 * MAX_IN_FLIGHT_BYTES;

/// Ciphertext read from a TLS socket at once, in bytes: rustls by itself asks for 4 KiB at a time.
pub const TLS_READ: usize = 128 << 10;

/// TLS records sent under one key before the session looks for a quiet moment to change it: half of
/// the 2^24 after which rustls changes AES-GCM keys at any moment (see [`crate::nbd::tls`]).
pub const REKEY_RECORDS: u64 = 1 << 23;

/// Plaintext that rustls may hold encrypted before the socket takes it, in bytes. Larger means fewer
/// and longer writes; it is memory per TLS connection.
pub const TLS_BUFFER: usize = 256 << 10;

/// Plaintext bytes of one TLS record (RFC 8446, section 5.1).
pub const TLS_RECORD: usize = 16 << 10;
