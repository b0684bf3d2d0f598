//! Farseal, the remote-copy storage controller: everything that knows sockets, disks and the clock.
//!
//! Decisions are made in `farseal-core`; components run in `farseal-plugin`; this crate carries out and connects.
//! Reading order: [`node`] puts a configuration together; [`lane`] drives a primary, [`replica`] a secondary,
//! [`recovery`] opens the copy, [`verify`] compares it, [`seed`] ships it on a disk; [`site`] makes one order of pairs on several nodes; [`nbd`], [`link`], [`store`], [`keys`] and [`control`] each know one part of the
//! world and none of the others.

pub mod arrival;
pub mod chained;
pub mod cli;
pub mod clock;
pub mod components;
pub mod config;
pub mod control;
pub mod escrow;
pub mod keyring;
pub mod keys;
pub mod lane;
pub mod link;
pub mod nbd;
pub mod node;
pub mod observe;
pub mod parted;
pub mod plain;
pub mod plugins;
pub mod range;
pub mod recovery;
pub mod replica;
pub mod retired;
pub mod role;
pub mod search;
pub mod seed;
pub mod site;
pub mod store;
pub mod tested;
pub mod verify;
pub mod volume;
