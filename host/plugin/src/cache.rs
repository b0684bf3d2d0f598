//! Native code kept from one start to the next: made here, sealed with a MAC, and dropped at the least doubt.

use std::hash::{Hash, Hasher};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use wasmtime::Engine;
use wasmtime::component::Component;
use zeroize::Zeroizing;

use crate::engine::EngineKind;
use crate::kind::Digest;

/// Where native code is kept. The daemon puts it in a directory of its own (mode 0700; write, sync, rename).
///
/// Nothing read from it is trusted without its MAC, and losing it costs only time.
pub trait CodeCache: Send + Sync {
    /// What was stored under this key (64 hexadecimal digits), if it is still there.
    fn get(&self, key: &str) -> Option<Vec<u8>>;
    /// Stores it, or does not: there is nothing to report.
    fn put(&self, key: &str, bytes: &[u8]);
}

const HEADER: &[u8; 8] = b"FSCODE1\n";
const MAC_BYTES: usize = 32;

/// The key: everything that the native code depends on.
pub(crate) fn key(digest: &Digest, engine: &Engine, kind: EngineKind) -> String {
    let mut compatibility = Blake3Hasher(blake3::Hasher::new());
    engine.precompile_compatibility_hash().hash(&mut compatibility);
    let mut key = blake3::Hasher::new();
    key.update(b"farseal native code v1\0");
    key.update(&digest.0);
    key.update(compatibility.0.finalize().as_bytes());
    key.update(env!("CARGO_PKG_VERSION").as_bytes());
    key.update(b"\0");
    key.update(kind.name().as_bytes());
    key.finalize().to_hex().to_string()
}

/// Header, MAC over key and code, code.
pub(crate) fn wrap(mac_key: &Zeroizing<[u8; 32]>, key: &str, code: &[u8]) -> Vec<u8> {
    let tag = mac(mac_key, key, code).finalize().into_bytes();
    [HEADER.as_slice(), tag.as_slice(), code].concat()
}

/// The code, if header and MAC are right.
pub(crate) fn unwrap<'a>(mac_key: &Zeroizing<[u8; 32]>, key: &str, stored: &'a [u8]) -> Option<&'a [u8]> {
    let rest = stored.strip_prefix(HEADER.as_slice())?;
    let (tag, code) = rest.split_at_checked(MAC_BYTES)?;
    mac(mac_key, key, code).verify_slice(tag).ok()?;
    Some(code)
}

fn mac(mac_key: &Zeroizing<[u8; 32]>, key: &str, code: &[u8]) -> Hmac<Sha256> {
    #[expect(clippy::expect_used, reason = "HMAC takes keys of every length")]
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(mac_key.as_slice()).expect("any key length");
    mac.update(HEADER);
    mac.update(key.as_bytes());
    mac.update(code);
    mac
}

/// Native code that this node made itself, as a component; `None` when the engine will not have it.
pub(crate) fn revive(engine: &Engine, code: &[u8]) -> Option<Component> {
    #[expect(
        unsafe_code,
        reason = "native code cannot be validated; the MAC proves that this node compiled these very bytes"
    )]
    // SAFETY: `code` comes from `unwrap`, so it is what `Component::serialize` returned on this node for a key that
    // includes this engine's compatibility hash, unchanged; it is copied from memory that nobody else can write.
    let component = unsafe { Component::deserialize(engine, code) };
    component.ok()
}

/// `Hash` writes into BLAKE3: the standard hasher has 64 bits, which is no identity.
struct Blake3Hasher(blake3::Hasher);

impl Hasher for Blake3Hasher {
    fn finish(&self) -> u64 {
        let digest = self.0.finalize();
        digest.as_bytes().first_chunk().map_or(0, |first| u64::from_le_bytes(*first))
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn any_change_of_key_code_or_secret_is_a_miss() {
        let secret = Zeroizing::new([7; 32]);
        let stored = wrap(&secret, "key", b"native");
        assert_eq!(unwrap(&secret, "key", &stored).unwrap(), b"native");
        assert!(unwrap(&secret, "other", &stored).is_none());
        assert!(unwrap(&Zeroizing::new([8; 32]), "key", &stored).is_none());
        for at in 0..stored.len() {
            let mut changed = stored.clone();
            *changed.get_mut(at).unwrap() ^= 1;
            assert!(unwrap(&secret, "key", &changed).is_none(), "byte {at}");
            assert!(unwrap(&secret, "key", stored.get(..at).unwrap()).is_none(), "cut at {at}");
        }
    }
}
