//! What the NBD server counts, for `/metrics`. All counts grow; `connections_open` alone is a level.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Shared by all connections of a server.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections accepted.
    pub connections: AtomicU64,
    /// Connections open at this moment, in negotiation or transmission.
    pub connections_open: AtomicU64,
    /// Connections turned away because the server held its limit.
    pub connections_refused: AtomicU64,
    /// Negotiations that ended without a session by the client's fault: bad magic, deadline, too many options.
    pub handshakes_failed: AtomicU64,
    /// Sessions that reached transmission over TLS.
    pub tls_sessions: AtomicU64,
    /// TLS handshakes that failed.
    pub tls_failed: AtomicU64,
    /// READ requests.
    pub reads: AtomicU64,
    /// WRITE requests.
    pub writes: AtomicU64,
    /// FLUSH requests.
    pub flushes: AtomicU64,
    /// TRIM requests.
    pub trims: AtomicU64,
    /// WRITE_ZEROES requests.
    pub zeroes: AtomicU64,
    /// CACHE requests.
    pub caches: AtomicU64,
    /// BLOCK_STATUS requests.
    pub block_statuses: AtomicU64,
    /// Bytes of READ answers, holes included.
    pub bytes_read: AtomicU64,
    /// Payload bytes of WRITE requests that reached an export.
    pub bytes_written: AtomicU64,
    /// Requests refused before they reached an export.
    pub refused: AtomicU64,
    /// Requests that an export answered with an error.
    pub errors: AtomicU64,
    /// Requests whose connection was lost before their answer could be written.
    pub abandoned: AtomicU64,
    /// Sessions dropped because the client broke the protocol.
    pub protocol_violations: AtomicU64,
    /// TLS keys changed at a quiet moment.
    pub rekeys: AtomicU64,
}

impl Counters {
    /// Adds one.
    pub(crate) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Relaxed);
    }

    /// Adds `amount`.
    pub(crate) fn add(counter: &AtomicU64, amount: usize) {
        counter.fetch_add(u64::try_from(amount).unwrap_or(u64::MAX), Relaxed);
    }

    /// All counters by name, in a fixed order.
    #[must_use]
    pub fn snapshot(&self) -> [(&'static str, u64); 20] {
        [
            ("connections", self.connections.load(Relaxed)),
            ("connections_open", self.connections_open.load(Relaxed)),
            ("connections_refused", self.connections_refused.load(Relaxed)),
            ("handshakes_failed", self.handshakes_failed.load(Relaxed)),
            ("tls_sessions", self.tls_sessions.load(Relaxed)),
            ("tls_failed", self.tls_failed.load(Relaxed)),
            ("reads", self.reads.load(Relaxed)),
            ("writes", self.writes.load(Relaxed)),
            ("flushes", self.flushes.load(Relaxed)),
            ("trims", self.trims.load(Relaxed)),
            ("zeroes", self.zeroes.load(Relaxed)),
            ("caches", self.caches.load(Relaxed)),
            ("block_statuses", self.block_statuses.load(Relaxed)),
            ("bytes_read", self.bytes_read.load(Relaxed)),
            ("bytes_written", self.bytes_written.load(Relaxed)),
            ("refused", self.refused.load(Relaxed)),
            ("errors", self.errors.load(Relaxed)),
            ("abandoned", self.abandoned.load(Relaxed)),
            ("protocol_violations", self.protocol_violations.load(Relaxed)),
            ("rekeys", self.rekeys.load(Relaxed)),
        ]
    }
}
