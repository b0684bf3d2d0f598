//! Farseal, the remote-copy storage controller: everything that knows sockets, disks and the clock.

pub mod config;
pub mod control;
pub mod keys;
pub mod nbd;
pub mod observe;
