//! A world for core: two sites, the link, disks, initiators, an operator, accidents, on one thread from one seed.
//!
//! ```text
//!   dice ─▶ world ─┬─▶ primary.rs   ── Input ──▶ Primary   ── Output ──▶ journal, home, map, link
//!                  ├─▶ secondary.rs ── Input ──▶ Secondary ── Output ──▶ log, index, link
//!                  └─▶ model ◀── check/: one promise a file, judged at every event
//! ```
//!
//! A run is a function of the code, the seed and the settings, nothing else. Reading order: [`world`], the two drivers
//! ([`primary`], [`secondary`]), what they stand on ([`disk`], [`link`], [`seal`], [`faults`]), what is true ([`model`])
//! and who judges ([`check`]). [`mutation`] breaks the driver to show that each checker fires. Who writes may change
//! ([`turn`], [`branch`]), an operator wants anything ([`operator`], [`flow`]) and has old keys destroyed ([`retire`]), a policy
//! says anything ([`policy`]), earlier points of the copy are opened
//! ([`points`]), and a disk may be set back ([`rollback`]). The site that writes declares a disaster ([`disaster`]), or it is heard
//! no more and its copy's keeper takes over by the witness rule ([`witness`]).
//! What a link or a copy that lies can do is tried one by one ([`tamper`]).
//! Several subsystems and their groups have a world of their own ([`group`]).

pub mod branch;

pub mod disaster;

pub mod operator;

pub mod policy;

pub mod turn;

pub mod witness;
pub mod world;

pub mod primary;

pub mod secondary;

pub mod disguise;

pub mod disk;

pub mod link;

pub mod seal;

pub mod faults;

pub mod flow;

pub mod retire;

pub mod rollback;

pub mod tamper;

pub mod mutation;

pub mod model;

pub mod points;

pub mod group;

pub mod check;

pub mod slots;
pub mod stats;

pub mod trace;

pub mod dice;
