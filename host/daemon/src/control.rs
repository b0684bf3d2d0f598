//! How a running node is asked and told: JSON over HTTP on a Unix socket that only its owner opens.
//!
//! ```text
//! api       what travels: status, commands, replies, errors
//! operator  what the node implements
//! server    the socket, and `/metrics`
//! scrapes   `/metrics` over TCP, within bounds
//! client    the CLI's side
//! ```

pub mod api;
pub mod client;
pub mod operator;
pub mod scrapes;
pub mod server;
