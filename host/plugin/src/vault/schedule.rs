//! From an epoch key to the key and the nonces of one layer: HKDF-SHA-256 (RFC 5869), fixed layouts, no TLV.

use std::fmt;

use hkdf::Hkdf;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use super::epoch_key::EpochKey;
use super::search::SearchKey;
use super::stack::{KeyLabel, MAX_LABEL, Suite};

/// Sequence numbers in a span, as a power of two: every 2^20 records the layer keys change.
///
/// 2^20 records of 2^8 blocks of 4 KiB are 2^28 blocks sealed under one AES-256-GCM key: an advantage of about 2^-57 by
/// the single-key bound of draft-irtf-cfrg-aead-limits-11. What binds over a pair's life is the multi-key bound, which
/// the epoch's own limits keep.
pub const SPAN_BITS: u32 = 20;

const EPOCH_SALT: &[u8] = b"farseal v1 epoch";
const RECORD_INFO: &[u8] = b"farseal v1 record";
const MASK_INFO: &[u8] = b"farseal v1 mask";
const COMMIT_INFO: &[u8] = b"farseal v1 commit";
const SEARCH_INFO: &[u8] = b"farseal v1 search";
const DRILL_INFO: &[u8] = b"farseal v1 drill";

/// Bytes in a nonce of every suite here.
pub const NONCE_LEN: usize = 12;
/// Bytes in a layer key of every suite here.
pub const LAYER_KEY_LEN: usize = 32;

/// What an epoch key is for. Two scopes that differ anywhere share no layer key, even under one epoch key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyScope {
    /// The volume pair.
    pub pair: [u8; 16],
    /// The fencing number of the side that seals.
    pub generation: u64,
    /// The number of the epoch.
    pub epoch: u64,
    /// Random for every start of the process that seals, mixed with the peer's challenge.
    pub incarnation: [u8; 16],
}

/// A run of 2^20 sequence numbers under one set of layer keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(u64);

impl Span {
    /// The span that `seq` lies in.
    #[must_use]
    pub const fn of(seq: u64) -> Self {
        Self(seq >> SPAN_BITS)
    }
}

/// The key check value: says which epoch key a descriptor means, without saying anything about the key.
///
/// AES-GCM does not commit to its key; this does, so that a capsule can never carry another key than the signed
/// descriptor names.
#[derive(Debug, Clone, Copy)]
pub struct KeyCheck(pub [u8; 32]);

/// Compared in constant time.
impl PartialEq for KeyCheck {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}
impl Eq for KeyCheck {}

/// The derivation root of one epoch in one scope.
pub struct EpochSchedule {
    prk: Box<Zeroizing<[u8; 32]>>,
}

impl EpochSchedule {
    /// PRK = HKDF-Extract(salt = SHA-256("farseal v1 epoch" || pair || generation || epoch || incarnation),
    /// input = epoch key), integers big-endian.
    #[must_use]
    pub fn new(key: &EpochKey, scope: &KeyScope) -> Self {
        let salt = Sha256::new()
            .chain_update(EPOCH_SALT)
            .chain_update(scope.pair)
            .chain_update(scope.generation.to_be_bytes())
            .chain_update(scope.epoch.to_be_bytes())
            .chain_update(scope.incarnation)
            .finalize();
        let (mut extracted, _) = Hkdf::<Sha256>::extract(Some(&salt), key.expose());
        let mut prk = Box::new(Zeroizing::new([0u8; 32]));
        prk.copy_from_slice(&extracted);
        extracted.zeroize();
        Self { prk }
    }

    /// HKDF-Expand(PRK, "farseal v1 commit", 32).
    #[must_use]
    pub fn key_check(&self) -> KeyCheck {
        let mut value = [0u8; 32];
        self.expand(&[COMMIT_INFO], &mut value);
        KeyCheck(value)
    }

    /// What only a holder of the epoch key can answer to a challenge, and what says nothing about the key:
    /// HKDF-Expand(PRK, "farseal v1 drill" || challenge, 32).
    #[must_use]
    pub fn drill(&self, challenge: &[u8; 32]) -> [u8; 32] {
        let mut proof = [0u8; 32];
        self.expand(&[DRILL_INFO, challenge], &mut proof);
        proof
    }

    /// The branch for search tags: HKDF-Expand(PRK, "farseal v1 search", 32). Neither does it lead to a layer key nor any layer key to
    /// it: both are outputs of one pseudorandom function for different inputs.
    #[must_use]
    pub fn search(&self) -> SearchKey {
        let mut key = Zeroizing::new([0u8; LAYER_KEY_LEN]);
        self.expand(&[SEARCH_INFO], key.as_mut_slice());
        SearchKey::new(&key)
    }

    /// The key and the nonce mask of one layer in one span.
    ///
    /// Both are HKDF-Expand(PRK, purpose || suite u8 || label length u8 || label || `component` || span u64be);
    /// the purposes are "farseal v1 record" and "farseal v1 mask". `component` is the SHA-256 of the component that
    /// computes a guest layer (so that no two components ever share a key) and is absent for the host's own suites;
    /// the suite byte says which, so no two inputs read alike.
    #[must_use]
    pub fn layer(&self, suite: Suite, label: &KeyLabel, component: Option<&[u8; 32]>, span: Span) -> LayerKey {
        let text = label.as_str().as_bytes();
        // A label is 1 to 32 characters, so its length always fits.
        let length = u8::try_from(text.len().min(MAX_LABEL)).unwrap_or(u8::MAX);
        let ids = [suite.id(), length];
        let component: &[u8] = component.map_or(&[], |digest| digest.as_slice());
        let span = span.0.to_be_bytes();
        let mut key = Zeroizing::new([0u8; LAYER_KEY_LEN]);
        self.expand(&[RECORD_INFO, &ids, text, component, &span], key.as_mut_slice());
        let mut mask = [0u8; NONCE_LEN];
        self.expand(&[MASK_INFO, &ids, text, component, &span], &mut mask);
        LayerKey { key, mask: NonceMask(mask) }
    }

    fn expand(&self, info: &[&[u8]], out: &mut [u8]) {
        // RFC 5869 allows up to 255 hashes of output and wants a PRK of at least one; 32 of 32 can do neither wrong.
        if let Ok(root) = Hkdf::<Sha256>::from_prk(self.prk.as_slice())
            && root.expand_multi_info(info, out).is_ok()
        {
            return;
        }
        unreachable!("HKDF-SHA-256 gives up to 8160 bytes from a 32-byte PRK; {} were asked for", out.len());
    }
}

/// Prints no byte of the root.
impl fmt::Debug for EpochSchedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EpochSchedule(..)")
    }
}

/// The key of one layer in one span, and what its nonces are masked with.
pub struct LayerKey {
    /// Wiped on drop.
    pub key: Zeroizing<[u8; LAYER_KEY_LEN]>,
    /// As secret as a nonce, which is to say not.
    pub mask: NonceMask,
}

/// Prints no byte of the key.
impl fmt::Debug for LayerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LayerKey").field("mask", &self.mask).finish_non_exhaustive()
    }
}

/// Turns a place in the order into a nonce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NonceMask(pub [u8; NONCE_LEN]);

impl NonceMask {
    /// mask XOR (seq u64be || block u32be): a bijection, so distinct places never share a nonce under one key.
    #[must_use]
    pub fn nonce(&self, seq: u64, block: u32) -> [u8; NONCE_LEN] {
        let mut nonce = self.0;
        for (byte, place) in nonce.iter_mut().zip(seq.to_be_bytes().into_iter().chain(block.to_be_bytes())) {
            *byte ^= place;
        }
        nonce
    }
}
