//! The first copy on a disk instead of over the link: exported here, shipped, imported at the remote.
//!
//! ```text
//!   DIRECTORY/copy/     what a secondary has: log (sealed records), index, epochs (signed packages), control.json
//!   DIRECTORY/seed.json what is in it, by length and SHA-256, for which pair, and up to which record; signed
//! ```
//!
//! While it is exported, the pair is served by a secondary of its own, in this node, that writes into the folder: the
//! lane sends to it as to any other, so live writes, throttles, crashes and full disks are what they always are. It ends
//! with the cut that closes the first copy; what is written later stays in the journal, or in the dirty map, as when
//! a link is down.
//!
//! # What the disk's acknowledgement is worth
//!
//! The lane forgets a place when the disk holds it durably, and a disk is no remote. So until the real one has attached
//! with at least what was shipped (`Shipped` in the lane's state), nothing is taken for granted: a remote that holds less
//! is not served (its path is closed, and the status says that the seed is awaited), and an operator who gives the seed
//! up owes the whole volume again ([`farseal_core::primary::Input::SeedLost`]). The map that would say what is owed
//! without the seed is thus the full one, which needs no record. Synchronous modes, pauses, and changes of sides promise
//! something about the remote, and are refused while a seed is under way.
//!
//! # What becomes of keys
//!
//! An epoch's key comes into force once its record is acknowledged, because the one who acknowledges has unwrapped it.
//! The exporter is a recipient of its own epochs and unwraps those; whether the remote can is found out at the import:
//! it verifies each package's signature and unwraps each capsule with its own identity, and takes nothing of a seed of
//! which one does not open. What it takes is acknowledged with the next attach, and not before. So no key is believed to
//! be with the remote that it did not open, and a seed that is refused costs another copy, never data. On the disk lies no
//! key but in capsules for the two sites.

pub mod export;
pub mod import;
pub mod manifest;
