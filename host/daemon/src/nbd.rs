//! The NBD server: what initiators connect to.
//!
//! Fixed newstyle negotiation, simple and structured replies, block status, TLS by
//! `NBD_OPT_STARTTLS`, over TCP and Unix sockets (protocol: NetworkBlockDevice/nbd, `doc/proto.md`).
//!
//! | module | is | does I/O |
//! |---|---|---|
//! | [`export`] | the contract with whatever is served | no |
//! | [`limits`] | every bound, with its reason | no |
//! | [`wire`] | constants, request decoding, reply encoding | no |
//! | [`negotiate`] | the option haggling, as a state machine | no |
//! | [`admit`] | which requests may reach an export, and what refuses the others | no |
//! | [`completion`] | how an export answers, from any thread | no |
//! | [`pool`] | page-aligned payload buffers that are used again | no |
//! | [`room`] | how much payload all connections hold together | no |
//! | [`registry`] | the exports, by name, that come and go | no |
//! | [`outbox`] | replies waiting to be written, as one vectored write | no |
//! | [`inbox`] | bytes read ahead of the request they belong to | no |
//! | [`handshake`] | negotiation on a socket, TLS included | yes |
//! | [`session`] | the transmission phase of one connection | yes |
//! | [`server`] | listeners, threads, stop | yes |
//! | [`replay`] | a connection from bytes in memory | no |
//! | [`tls`] | certificates and cipher choice | no |
//! | [`counters`] | what `/metrics` reads | no |
//!
//! # How a request travels
//!
//! One task owns a connection and does both directions, so that an answer given during
//! [`export::Export::submit`] leaves in the same wake-up that read the request. A connection stays on
//! one thread. An answer given later, from another thread, wakes the task once however many answers
//! follow before it runs.
//!
//! # What a lost connection means
//!
//! A write whose payload did not arrive in full never reaches the export. A request that did reach it
//! runs to its end; its answer is dropped and counted as abandoned. Requests are submitted in the order
//! of arrival, so a write of a lost connection holds an earlier place in the export's order than any
//! write that a reconnected initiator sends once it has seen the first one submitted.

pub mod admit;
pub mod completion;
pub mod counters;
pub mod export;
pub mod handshake;
pub mod inbox;
pub mod limits;
pub mod negotiate;
pub mod outbox;
pub mod pool;
pub mod registry;
pub mod replay;
pub mod room;
pub mod server;
pub mod session;
pub mod tls;
pub mod wire;
