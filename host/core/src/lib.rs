//! Farseal's decisions: every rule about order, durability, keys and fencing, as plain values.
//!
//! ```text
//!   initiator ──Write, Flush──▶ ┌─────────┐ ──Commit, SyncJournal, Destage──▶ journal and home
//!   operator  ──Pause, Rotate─▶ │ Primary │ ──Send──▶ link ──Records──▶ ┌───────────┐
//!   policy    ──decisions─────▶ └─────────┘ ◀──Ack─── link ◀───Ack───── │ Secondary │ ──Append, Sync──▶ log
//!                                                                       └───────────┘
//! ```
//!
//! The contract of both machines is the same: `handle(now, Input)` one thing that happened, then drain
//! `poll_output()`, then wait until `poll_timeout()`. Clock, dice, disks, peer and plugins arrive as inputs, so the
//! stream of inputs is the whole truth: it can be recorded, replayed and cut short. Nothing here does I/O, and
//! bulk bytes never come here: an input names a place and a length, an output says what to do with them.
//!
//! Reading order: the vocabulary ([`units`], [`limits`]), the bytes ([`record`], [`layout`], [`journal`], [`frame`]), the small
//! machines ([`window`], [`chain`], [`ledger`], [`given_up`], [`owed`], [`flow`], [`preset`], [`rotation`],
//! [`stage`], [`aead_bound`], [`compaction`], [`points`]), then the two sites ([`primary`], [`secondary`]), what compares them ([`verify`]), what
//! makes one order of several pairs ([`group`]), and when a site takes over by itself ([`witness`]).

pub mod units;

pub mod limits;

pub mod bare;
pub mod layout;
pub mod record;

pub mod chain;

pub mod lineage;

pub mod points;

pub mod journal;

pub mod inspect;

pub mod declare;
pub mod drill;
pub mod refresh;

pub mod frame;

pub mod window;

pub mod ledger;

pub mod given_up;

pub mod owed;

pub mod retire;

pub mod rotation;

pub mod schedule;

pub mod carriage;
pub mod stage;

pub mod aead_bound;

pub mod flow;

pub mod preset;

pub mod compaction;

pub mod group;

pub mod primary;

pub mod secondary;

pub mod verify;

pub mod witness;

mod bytes;
