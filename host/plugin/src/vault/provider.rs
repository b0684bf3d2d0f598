//! Who computes a suite: aws-lc by default, the RustCrypto crates as the portable provider and the cross-check.

use aes_gcm::Aes256Gcm;
use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm_siv::Aes256GcmSiv;
use aws_lc_rs::aead;
use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit, StreamCipher};
use chacha20poly1305::ChaCha20Poly1305;

use super::schedule::{LAYER_KEY_LEN, NONCE_LEN};
use super::stack::Suite;
use super::unit::TAG_LEN;

/// Which implementation computes the authenticating suites. Both give the same bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Provider {
    /// aws-lc: 7 to 10 GB/s a core with VAES.
    #[default]
    AwsLc,
    /// RustCrypto: 2 GB/s a core, no C in the build; the reference to check the other against.
    Portable,
}

/// A block did not authenticate, or (sealing) is longer than the suite allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refused;

/// One expanded key of an authenticating suite.
pub(super) trait AeadKey: Send {
    fn seal(
        &self,
        nonce: [u8; NONCE_LEN],
        aad: &[u8],
        block: &mut [u8],
        tag: &mut [u8; TAG_LEN],
    ) -> Result<(), Refused>;
    fn open(&self, nonce: [u8; NONCE_LEN], aad: &[u8], block: &mut [u8], tag: &[u8; TAG_LEN]) -> Result<(), Refused>;
}

/// Expands `key` for an authenticating suite; `None` for one that does not authenticate.
pub(super) fn aead_key(provider: Provider, suite: Suite, key: &[u8; LAYER_KEY_LEN]) -> Option<Box<dyn AeadKey>> {
    match provider {
        Provider::AwsLc => {
            let algorithm = match suite {
                Suite::Aes256Gcm => &aead::AES_256_GCM,
                Suite::Aes256GcmSiv => &aead::AES_256_GCM_SIV,
                Suite::ChaCha20Poly1305 => &aead::CHACHA20_POLY1305,
                Suite::ChaCha20 | Suite::Guest => return None,
            };
            let key = aead::UnboundKey::new(algorithm, key).ok()?;
            Some(Box::new(AwsLcKey(aead::LessSafeKey::new(key))))
        }
        Provider::Portable => match suite {
            Suite::Aes256Gcm => Some(Box::new(PortableKey(Aes256Gcm::new(key.into())))),
            Suite::Aes256GcmSiv => Some(Box::new(PortableKey(Aes256GcmSiv::new(key.into())))),
            Suite::ChaCha20Poly1305 => Some(Box::new(PortableKey(ChaCha20Poly1305::new(key.into())))),
            Suite::ChaCha20 | Suite::Guest => None,
        },
    }
}

/// XORs the ChaCha20 stream (RFC 8439 section 2.4, counter from 0) into a block of at most 64 KiB.
pub(super) fn chacha20(key: &[u8; LAYER_KEY_LEN], nonce: [u8; NONCE_LEN], block: &mut [u8]) {
    ChaCha20::new(key.into(), &nonce.into()).apply_keystream(block);
}

struct AwsLcKey(aead::LessSafeKey);

impl AeadKey for AwsLcKey {
    fn seal(
        &self,
        nonce: [u8; NONCE_LEN],
        aad: &[u8],
        block: &mut [u8],
        tag: &mut [u8; TAG_LEN],
    ) -> Result<(), Refused> {
        let made = self
            .0
            .seal_in_place_separate_tag(aead::Nonce::assume_unique_for_key(nonce), aead::Aad::from(aad), block)
            .map_err(|_| Refused)?;
        *tag = made.as_ref().try_into().map_err(|_| Refused)?;
        Ok(())
    }

    fn open(&self, nonce: [u8; NONCE_LEN], aad: &[u8], block: &mut [u8], tag: &[u8; TAG_LEN]) -> Result<(), Refused> {
        self.0
            .open_in_place_separate_tag(
                aead::Nonce::assume_unique_for_key(nonce),
                aead::Aad::from(aad),
                tag.as_slice(),
                block,
            )
            .map(|_| ())
            .map_err(|_| Refused)
    }
}

struct PortableKey<A>(A);

impl<A> AeadKey for PortableKey<A>
where
    A: AeadInOut<NonceSize = aes_gcm::aead::consts::U12, TagSize = aes_gcm::aead::consts::U16> + Send,
{
    fn seal(
        &self,
        nonce: [u8; NONCE_LEN],
        aad: &[u8],
        block: &mut [u8],
        tag: &mut [u8; TAG_LEN],
    ) -> Result<(), Refused> {
        let made = self.0.encrypt_inout_detached(&nonce.into(), aad, block.into()).map_err(|_| Refused)?;
        *tag = made.into();
        Ok(())
    }

    fn open(&self, nonce: [u8; NONCE_LEN], aad: &[u8], block: &mut [u8], tag: &[u8; TAG_LEN]) -> Result<(), Refused> {
        self.0.decrypt_inout_detached(&nonce.into(), aad, block.into(), tag.into()).map_err(|_| Refused)
    }
}

#[cfg(test)]
mod vectors;
