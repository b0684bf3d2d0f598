//! The NBD server against an in-memory export: with a client of its own, and with real ones.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "nbd_server/client.rs"]
mod client;
#[path = "nbd_server/life.rs"]
mod life;
#[path = "nbd_server/memory.rs"]
mod memory;
#[path = "nbd_server/plain.rs"]
mod plain;
#[path = "nbd_server/protocol.rs"]
mod protocol;
#[path = "nbd_server/real.rs"]
mod real;
#[path = "nbd_server/tls.rs"]
mod tls;
