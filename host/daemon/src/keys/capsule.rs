//! One epoch key on its way to one recipient: HPKE (RFC 9180), single-shot, base mode.
//!
//! `info = "farseal v1 capsule" || SHA-256(core)`, `aad = core`, where the core is the epoch's descriptor without the
//! capsules' hashes. So a capsule opens for its recipient and for that descriptor only. Who sent it is proved by the
//! descriptor's signature, which covers the capsules' hashes, and not by HPKE's auth mode, which no post-quantum KEM
//! has.

use std::fmt;

use farseal_plugin::vault::epoch_key::{EPOCH_KEY_LEN, EpochKey};
use getrandom::SysRng;
use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::{DhP256HkdfSha256, MlKem768P256};
use hpke::rand_core::UnwrapErr;
use hpke::{Deserializable, HpkeError, Kem, OpModeR, OpModeS, Serializable};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::wire::{Reader, Short};

const INFO: &[u8] = b"farseal v1 capsule";
/// Bytes of the sealed epoch key: 32 and a tag of 16.
const SEALED_LEN: usize = EPOCH_KEY_LEN + 16;

/// A key encapsulation mechanism. The number is that of the IANA HPKE registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u16)]
pub enum KemId {
    /// DHKEM(P-256, HKDF-SHA256), RFC 9180: classical; falls to a large quantum computer.
    DhP256 = 0x0010,
    /// ML-KEM-768 with P-256 (draft-ietf-hpke-pq): holds while either of the two holds.
    #[default]
    MlKem768P256 = 0x0050,
}

impl KemId {
    /// Every mechanism there is.
    pub const ALL: [Self; 2] = [Self::DhP256, Self::MlKem768P256];

    /// The number in capsules and cards.
    #[must_use]
    pub const fn id(self) -> u16 {
        self as u16
    }

    /// The mechanism with this number, if there is one.
    #[must_use]
    pub fn from_id(id: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|kem| kem.id() == id)
    }

    /// The name in configuration and cards.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::DhP256 => "dhkem-p256",
            Self::MlKem768P256 => "mlkem768-p256",
        }
    }

    /// The mechanism of this name, if there is one.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kem| kem.name() == name)
    }

    /// Bytes in an encapsulated key.
    #[must_use]
    pub fn encapsulated_len(self) -> usize {
        match self {
            Self::DhP256 => <DhP256HkdfSha256 as Kem>::EncappedKey::size(),
            Self::MlKem768P256 => <MlKem768P256 as Kem>::EncappedKey::size(),
        }
    }

    /// Bytes in a capsule: mechanism u16be || encapsulated key || sealed epoch key.
    #[must_use]
    pub fn capsule_len(self) -> usize {
        2 + self.encapsulated_len() + SEALED_LEN
    }
}

impl fmt::Display for KemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A recipient's public key, known to be one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KemPublic {
    kem: KemId,
    bytes: Vec<u8>,
}

/// Bytes that are no public key of the mechanism.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("these {len} bytes are no {kem} public key")]
pub struct NotAKemKey {
    /// The mechanism.
    pub kem: KemId,
    /// How many bytes there were.
    pub len: usize,
}

impl KemPublic {
    /// Checks a public key: its length, and that its point is on the curve.
    ///
    /// # Errors
    /// [`NotAKemKey`] when it is not one.
    pub fn new(kem: KemId, bytes: &[u8]) -> Result<Self, NotAKemKey> {
        fn check<K: Kem>(bytes: &[u8]) -> Result<(), HpkeError> {
            K::PublicKey::from_bytes(bytes).map(|_| ())
        }
        let checked = match kem {
            KemId::DhP256 => check::<DhP256HkdfSha256>(bytes),
            KemId::MlKem768P256 => check::<MlKem768P256>(bytes),
        };
        checked.map_err(|_| NotAKemKey { kem, len: bytes.len() })?;
        Ok(Self { kem, bytes: bytes.to_vec() })
    }

    /// The mechanism.
    #[must_use]
    pub const fn kem(&self) -> KemId {
        self.kem
    }

    /// The public key as the mechanism writes it.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Bytes in a private key of either mechanism (of the hybrid one: the seed it is expanded from).
pub(crate) const KEM_SECRET_LEN: usize = 32;

/// A recipient's private key, wiped on drop.
pub struct KemSecret {
    kem: KemId,
    bytes: Box<Zeroizing<[u8; KEM_SECRET_LEN]>>,
}

impl KemSecret {
    /// Draws a key pair.
    ///
    /// # Errors
    /// [`getrandom::Error`] when the operating system has no random bytes to give.
    pub fn generate(kem: KemId) -> Result<Self, getrandom::Error> {
        // The seed is drawn here, and fallibly; the mechanisms derive their pair from it (RFC 9180 section 7.1.3).
        let mut seed = Zeroizing::new([0u8; KEM_SECRET_LEN]);
        getrandom::fill(seed.as_mut_slice())?;
        let mut bytes = Box::new(Zeroizing::new([0u8; KEM_SECRET_LEN]));
        match kem {
            KemId::DhP256 => DhP256HkdfSha256::derive_keypair(seed.as_slice()).0.write_exact(bytes.as_mut_slice()),
            KemId::MlKem768P256 => MlKem768P256::derive_keypair(seed.as_slice()).0.write_exact(bytes.as_mut_slice()),
        }
        Ok(Self { kem, bytes })
    }

    /// Takes over a private key that was stored.
    ///
    /// # Errors
    /// [`NotAKemKey`] when it is none of this mechanism.
    pub fn from_stored(kem: KemId, stored: &[u8; KEM_SECRET_LEN]) -> Result<Self, NotAKemKey> {
        let mut bytes = Box::new(Zeroizing::new([0u8; KEM_SECRET_LEN]));
        bytes.copy_from_slice(stored);
        let secret = Self { kem, bytes };
        secret.public()?;
        Ok(secret)
    }

    /// The mechanism.
    #[must_use]
    pub const fn kem(&self) -> KemId {
        self.kem
    }

    pub(crate) fn expose(&self) -> &[u8; KEM_SECRET_LEN] {
        &self.bytes
    }

    /// The public half.
    ///
    /// # Errors
    /// [`NotAKemKey`] when the private bytes are none of this mechanism; never for one that was generated.
    pub fn public(&self) -> Result<KemPublic, NotAKemKey> {
        fn derive<K: Kem>(secret: &[u8]) -> Result<Vec<u8>, HpkeError> {
            Ok(K::sk_to_pk(&K::PrivateKey::from_bytes(secret)?).to_bytes().to_vec())
        }
        let derived = match self.kem {
            KemId::DhP256 => derive::<DhP256HkdfSha256>(self.bytes.as_slice()),
            KemId::MlKem768P256 => derive::<MlKem768P256>(self.bytes.as_slice()),
        };
        let bytes = derived.map_err(|_| NotAKemKey { kem: self.kem, len: KEM_SECRET_LEN })?;
        Ok(KemPublic { kem: self.kem, bytes })
    }
}

/// Prints the mechanism and no byte of the key.
impl fmt::Debug for KemSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KemSecret").field("kem", &self.kem).finish_non_exhaustive()
    }
}

/// An epoch key wrapped for one recipient: mechanism u16be || encapsulated key || sealed epoch key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capsule {
    kem: KemId,
    bytes: Vec<u8>,
}

/// Why a capsule was not made, read or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CapsuleError {
    /// Fewer bytes than its mechanism needs.
    #[error("a capsule ends after {have} bytes, in a field of {needed}")]
    CutShort {
        /// Bytes before the field.
        have: usize,
        /// Bytes that the field needs.
        needed: usize,
    },
    /// A mechanism that does not exist.
    #[error("a capsule names key encapsulation mechanism {id:#06x}, which this version does not know")]
    UnknownKem {
        /// Its number.
        id: u16,
    },
    /// Made for a key of another mechanism.
    #[error("the capsule is for {capsule}, the key is for {key}")]
    OtherKem {
        /// The capsule's mechanism.
        capsule: KemId,
        /// The key's mechanism.
        key: KemId,
    },
    /// The recipient's public key was refused by HPKE.
    #[error("the recipient's {kem} key cannot be sealed to")]
    Recipient {
        /// The mechanism.
        kem: KemId,
    },
    /// It does not open: for another recipient, for another descriptor, or changed on its way.
    #[error("the capsule does not open with this key for this descriptor")]
    NotAuthentic,
}

impl From<Short> for CapsuleError {
    fn from(short: Short) -> Self {
        Self::CutShort { have: short.at, needed: short.needed }
    }
}

impl Capsule {
    /// Wraps `key` for `recipient` and for the descriptor whose core is `core`.
    ///
    /// # Errors
    /// [`CapsuleError::Recipient`] when the public key cannot be used.
    pub fn seal(recipient: &KemPublic, core: &[u8], key: &EpochKey) -> Result<Self, CapsuleError> {
        fn seal<K: Kem>(recipient: &[u8], core: &[u8], key: &EpochKey) -> Result<Vec<u8>, HpkeError> {
            let (encapsulated, sealed) = hpke::single_shot_seal_with_rng::<AesGcm256, HkdfSha256, K>(
                &OpModeS::Base,
                &K::PublicKey::from_bytes(recipient)?,
                &info(core),
                key.expose(),
                core,
                // getrandom(2) fails on Linux only before the system is up, which drawing the epoch key has ruled out.
                &mut UnwrapErr(SysRng),
            )?;
            Ok([encapsulated.to_bytes().as_slice(), &sealed].concat())
        }
        let kem = recipient.kem();
        let sealed = match kem {
            KemId::DhP256 => seal::<DhP256HkdfSha256>(recipient.as_bytes(), core, key),
            KemId::MlKem768P256 => seal::<MlKem768P256>(recipient.as_bytes(), core, key),
        };
        let sealed = sealed.map_err(|_| CapsuleError::Recipient { kem })?;
        Ok(Self { kem, bytes: [kem.id().to_be_bytes().as_slice(), &sealed].concat() })
    }

    /// Unwraps the epoch key.
    ///
    /// # Errors
    /// [`CapsuleError::OtherKem`] and [`CapsuleError::NotAuthentic`].
    pub fn open(&self, secret: &KemSecret, core: &[u8]) -> Result<EpochKey, CapsuleError> {
        fn open<K: Kem>(secret: &[u8], encapsulated: &[u8], sealed: &[u8], core: &[u8]) -> Result<Vec<u8>, HpkeError> {
            hpke::single_shot_open::<AesGcm256, HkdfSha256, K>(
                &OpModeR::Base,
                &K::PrivateKey::from_bytes(secret)?,
                &K::EncappedKey::from_bytes(encapsulated)?,
                &info(core),
                sealed,
                core,
            )
        }
        if self.kem != secret.kem() {
            return Err(CapsuleError::OtherKem { capsule: self.kem, key: secret.kem() });
        }
        let mut reader = Reader::new(&self.bytes);
        reader.u16()?;
        let (encapsulated, sealed) = (reader.bytes(self.kem.encapsulated_len())?, reader.bytes(SEALED_LEN)?);
        let secret = secret.expose().as_slice();
        let opened = match self.kem {
            KemId::DhP256 => open::<DhP256HkdfSha256>(secret, encapsulated, sealed, core),
            KemId::MlKem768P256 => open::<MlKem768P256>(secret, encapsulated, sealed, core),
        };
        let opened = Zeroizing::new(opened.map_err(|_| CapsuleError::NotAuthentic)?);
        let mut key = Zeroizing::new([0u8; EPOCH_KEY_LEN]);
        if opened.len() != key.len() {
            return Err(CapsuleError::NotAuthentic);
        }
        key.copy_from_slice(&opened);
        Ok(EpochKey::from_unwrapped(&key))
    }

    /// The capsule that `bytes` begin with.
    ///
    /// # Errors
    /// [`CapsuleError::CutShort`] and [`CapsuleError::UnknownKem`].
    pub fn decode(bytes: &[u8]) -> Result<Self, CapsuleError> {
        Self::read(&mut Reader::new(bytes))
    }

    /// The mechanism it was made for.
    #[must_use]
    pub const fn kem(&self) -> KemId {
        self.kem
    }

    /// All of its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// SHA-256 of its bytes, as the descriptor names it.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(&self.bytes).into()
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, CapsuleError> {
        let id = reader.u16()?;
        let kem = KemId::from_id(id).ok_or(CapsuleError::UnknownKem { id })?;
        let rest = reader.bytes(kem.encapsulated_len() + SEALED_LEN)?;
        Ok(Self { kem, bytes: [id.to_be_bytes().as_slice(), rest].concat() })
    }
}

fn info(core: &[u8]) -> [u8; INFO.len() + 32] {
    let mut info = [0; INFO.len() + 32];
    let (label, hash) = info.split_at_mut(INFO.len());
    label.copy_from_slice(INFO);
    hash.copy_from_slice(&Sha256::digest(core));
    info
}
