//! The link between two sites: connections, one a path, carrying the frames of [`farseal_core::frame`] over TLS, or sealed on
//! a trusted fabric ([`san`]).
//!
//! The primary dials ([`dial`]), the secondary listens ([`listen`]); both speak through a [`session`]. A path that
//! breaks is lost as a whole: the primary sends again what is owed, over the same path when it is back or over another.

pub mod dial;
pub mod listen;
pub mod parts;
pub mod places;
pub mod san;
pub mod session;
pub mod shape;
pub mod slots;
