//! The native side of a cipher plan: keys, the layers of a stack, and sealing whole batches in place.
//!
//! A cipher component chooses *which* stack seals a record; everything that must be right (keys, nonces,
//! associated data, the outermost layer) is made here, from what the host alone knows.
//!
//! ```text
//! epoch key --Extract(scope)--> PRK --Expand(layer, span)--> layer key, nonce mask
//!                                |--Expand("commit")------> key check value (in the signed descriptor)
//!                                 \--Expand("search")------> search key: tags by which key fields are found, opens nothing
//! nonce = mask XOR (sequence u64be || block u32be)
//! associated data = header || block u32be || length u32be || search tags of the block
//! ```
//!
//! Read `seal` first; `schedule` is the key derivation, `stack` what may be combined.

pub mod epoch_key;
pub mod guest;
pub mod provider;
pub mod schedule;
pub mod seal;
pub mod search;
pub mod stack;
pub mod unit;
