//! A site's secrets: who it is, how epoch keys travel to their recipients, and how little of it ever touches a disk.
//!
//! ```text
//! identity    ECDSA P-256 signs descriptors and is the TLS key; a KEM key pair receives epoch keys
//! capsule     one epoch key for one recipient (HPKE)
//! descriptor  what an epoch is, signed; with its capsules it is the package that a key record carries
//! deposit     an epoch key for the escrow site, and that site's receipt
//! release     the same key, wrapped anew by the escrow site for a recovery
//! search_release  what finds one value in an epoch, from the escrow site
//! witness     what a witness says of a main site that nobody hears, signed
//! seal_file   secrets at rest: passphrase file, or systemd credentials
//! tls         the link between sites, each end pinned to the other's key
//! memory      core dumps and swap
//! ```

pub mod capsule;
pub mod card;
pub mod deposit;
pub mod descriptor;
pub mod fingerprint;
pub mod hedge;
pub mod identity;
pub mod memory;
pub mod package;
pub mod release;
pub mod seal_file;
pub mod search_release;
pub mod tls;
pub mod witness;

pub(crate) mod wire;
