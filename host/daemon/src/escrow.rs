//! The escrow site (R25): a third node that holds keys and no data, and what the other two say to it.
//!
//! ```text
//! wire    messages, in cells of one size, so that a line to the escrow looks the same whatever it carries
//! client  a site's end: deposits keys on a heartbeat, asks for them back in a recovery
//! desk    what the escrow answers: receipts for deposits, releases for requests that a person approved
//! grants  what such a yes grants: the keys that were held then, for a day
//! records opens what an approved search found, for the site that asked, one record at a time
//! serve   the escrow's end of the line
//! store   deposits, requests and the audit log, durable before anything is answered
//! shares  the escrow's own key, shared out among people
//! ```

pub mod ciphers;
pub mod client;
pub mod desk;
mod grants;
pub mod heard;
pub mod library;
pub mod mark;
pub mod parts;
pub mod records;
pub mod search;
pub mod serve;
pub mod shares;
mod shipping;
pub mod store;
pub mod wire;
