//! Who a node is: one key that signs (descriptors, TLS handshakes), one that receives epoch keys.

use std::fmt;

use p256::SecretKey;
use p256::ecdsa::signature::Signer;
use p256::ecdsa::{Signature, SigningKey};
use p256::pkcs8::EncodePrivateKey;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, date_time_ymd,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::{Zeroize, Zeroizing};

use super::capsule::{KEM_SECRET_LEN, KemId, KemPublic, KemSecret, NotAKemKey};
use super::card::{NodeName, NotANodeName, NotASigningKey, PeerCard, SIGNATURE_LEN, SigningPublic};
use super::wire::{Reader, Short};

const MAGIC: &[u8; 4] = b"fsid";
const VERSION: u8 = 1;
/// The version of an identity whose KEM key is shared out.
const VERSION_SHARED: u8 = 2;
/// Times that a P-256 scalar is drawn before the source of randomness is held to be broken: each draw misses with
/// a chance of 2^-32.
const DRAWS: usize = 8;

/// A node's identity. Printed, it shows its public half.
pub struct Identity {
    card: PeerCard,
    signing: SigningKey,
    kem: KemPlace,
}

/// Where the key is that opens capsules.
enum KemPlace {
    Here(KemSecret),
    /// With people, of whom so many have to come together.
    SharedOut {
        needed: u8,
    },
}

/// Why no identity was made.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// The operating system gave no random bytes.
    #[error("no random bytes from the operating system; no identity was made")]
    NoEntropy(#[from] getrandom::Error),
    /// The drawn bytes were no keys, again and again.
    #[error("the operating system's random bytes are no keys; the source is broken")]
    BrokenEntropy,
}

/// Why stored bytes are no identity.
#[derive(Debug, thiserror::Error)]
pub enum StoredIdentityError {
    /// Fewer bytes than it needs.
    #[error("the stored identity ends after {have} bytes, in a field of {needed}")]
    CutShort {
        /// Bytes before the field.
        have: usize,
        /// Bytes that the field needs.
        needed: usize,
    },
    /// More bytes than it has.
    #[error("the stored identity has {len} bytes too many")]
    Trailing {
        /// How many.
        len: usize,
    },
    /// Something else, or of a later version.
    #[error("this is no stored identity of version {VERSION}")]
    Format,
    /// Its name.
    #[error("the stored identity's name is unsound: {0}")]
    Node(#[from] NotANodeName),
    /// Its signing key.
    #[error("the stored identity's signing key is unsound: {0}")]
    Signing(#[from] NotASigningKey),
    /// Its mechanism.
    #[error("the stored identity names key encapsulation mechanism {id:#06x}, which this version does not know")]
    Kem {
        /// Its number.
        id: u16,
    },
    /// Its KEM key.
    #[error("the stored identity's KEM key is unsound: {0}")]
    KemKey(#[from] NotAKemKey),
}

impl From<Short> for StoredIdentityError {
    fn from(short: Short) -> Self {
        Self::CutShort { have: short.at, needed: short.needed }
    }
}

/// Why no certificate was made.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The key could not be written as PKCS #8.
    #[error("the signing key could not be encoded")]
    Encode,
    /// rcgen refused.
    #[error("no certificate was made: {0}")]
    Rcgen(#[from] rcgen::Error),
}

/// A self-signed certificate and its key, for a TLS configuration.
#[derive(Debug)]
pub struct TlsCertificate {
    /// The certificate.
    pub certificate: CertificateDer<'static>,
    /// Its key.
    pub key: PrivateKeyDer<'static>,
}

impl Identity {
    /// Makes a new identity.
    ///
    /// # Errors
    /// [`GenerateError`].
    pub fn generate(node: NodeName, kem: KemId) -> Result<Self, GenerateError> {
        let mut drawn = Zeroizing::new([0u8; 32]);
        for _ in 0..DRAWS {
            getrandom::fill(drawn.as_mut_slice())?;
            // A draw of zero, or above the order of the curve, is drawn again.
            if let Ok(secret) = SecretKey::from_slice(drawn.as_slice()) {
                let kem = KemSecret::generate(kem)?;
                return Self::assemble(node, SigningKey::from(secret), kem).map_err(|_| GenerateError::BrokenEntropy);
            }
        }
        Err(GenerateError::BrokenEntropy)
    }

    fn assemble(node: NodeName, signing: SigningKey, kem: KemSecret) -> Result<Self, StoredIdentityError> {
        let card = PeerCard { node, signing: SigningPublic::of(*signing.verifying_key())?, kem: kem.public()? };
        Ok(Self { card, signing, kem: KemPlace::Here(kem) })
    }

    /// The same identity without the key that opens capsules: that is shared out among people, of whom `needed` have to
    /// come together.
    #[must_use]
    pub fn without_kem(self, needed: u8) -> Self {
        Self { kem: KemPlace::SharedOut { needed }, ..self }
    }

    /// The public part.
    #[must_use]
    pub const fn card(&self) -> &PeerCard {
        &self.card
    }

    /// Opens capsules for this node. `None` where the key is shared out among people.
    #[must_use]
    pub const fn kem(&self) -> Option<&KemSecret> {
        match &self.kem {
            KemPlace::Here(secret) => Some(secret),
            KemPlace::SharedOut { .. } => None,
        }
    }

    /// How many people have to come together for the key that opens capsules; 0 where it is here.
    #[must_use]
    pub const fn shares_needed(&self) -> u8 {
        match &self.kem {
            KemPlace::Here(_) => 0,
            KemPlace::SharedOut { needed } => *needed,
        }
    }

    /// Signs with ECDSA P-256 and SHA-256, deterministically (RFC 6979), as r || s with the lower s.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_LEN] {
        let signature: Signature = self.signing.sign(message);
        signature.normalize_s().to_bytes().into()
    }

    /// A self-signed certificate of the signing key for this node's name and `names` (DNS names or IP addresses).
    ///
    /// It never expires: a peer pins the key, not a date. Its key usage has both digitalSignature and keyEncipherment,
    /// because GnuTLS clients (QEMU, libnbd) refuse a server whose key usage lacks the latter.
    ///
    /// # Errors
    /// [`CertificateError`] when a name cannot stand in a certificate.
    pub fn certificate(&self, names: &[String]) -> Result<TlsCertificate, CertificateError> {
        let encoded = self.signing.to_pkcs8_der().map_err(|_| CertificateError::Encode)?;
        let pkcs8 = PrivatePkcs8KeyDer::from(encoded.as_bytes().to_vec());
        let key = KeyPair::from_pkcs8_der_and_sign_algo(&pkcs8, &PKCS_ECDSA_P256_SHA256)?;

        let node = self.card.node.as_str();
        let all: Vec<String> = std::iter::once(node.to_owned()).chain(names.iter().cloned()).collect();
        let mut params = CertificateParams::new(all)?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, node);
        params.not_before = date_time_ymd(2000, 1, 1);
        // RFC 5280 section 4.1.2.5: the year 9999 says that there is no well-defined end.
        params.not_after = date_time_ymd(9999, 12, 31);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.self_signed(&key)?.der().clone();
        Ok(TlsCertificate { certificate, key: PrivateKeyDer::Pkcs8(pkcs8) })
    }

    /// What [`super::seal_file`] keeps: "fsid" || version u8 || KEM number u16be || signing scalar 32 || KEM key 32 ||
    /// name length u8 || name. Version 2, where the KEM key is shared out, has in its place: people needed u8 || length of the
    /// KEM public key u16be || that key.
    #[must_use]
    pub fn to_stored(&self) -> Zeroizing<Vec<u8>> {
        let node = self.card.node.as_str().as_bytes();
        let public = self.card.kem.as_bytes();
        // Room from the start: a growing vector would leave keys behind where it was.
        let mut stored = Zeroizing::new(Vec::with_capacity(11 + 2 * 32 + public.len() + node.len()));
        stored.extend_from_slice(MAGIC);
        stored.push(if self.kem().is_some() { VERSION } else { VERSION_SHARED });
        stored.extend_from_slice(&self.card.kem.kem().id().to_be_bytes());
        let mut scalar = self.signing.to_bytes();
        stored.extend_from_slice(&scalar);
        scalar.zeroize();
        match &self.kem {
            KemPlace::Here(secret) => stored.extend_from_slice(secret.expose()),
            KemPlace::SharedOut { needed } => {
                stored.push(*needed);
                stored.extend_from_slice(&u16::try_from(public.len()).unwrap_or(u16::MAX).to_be_bytes());
                stored.extend_from_slice(public);
            }
        }
        stored.push(u8::try_from(node.len()).unwrap_or(u8::MAX));
        stored.extend_from_slice(node);
        stored
    }

    /// Reads what [`Identity::to_stored`] wrote.
    ///
    /// # Errors
    /// [`StoredIdentityError`].
    pub fn from_stored(stored: &[u8]) -> Result<Self, StoredIdentityError> {
        let mut reader = Reader::new(stored);
        if reader.array()? != *MAGIC {
            return Err(StoredIdentityError::Format);
        }
        let shared = match reader.u8()? {
            VERSION => false,
            VERSION_SHARED => true,
            _ => return Err(StoredIdentityError::Format),
        };
        let id = reader.u16()?;
        let kem = KemId::from_id(id).ok_or(StoredIdentityError::Kem { id })?;
        let signing = SigningKey::from_slice(reader.bytes(32)?).map_err(|_| NotASigningKey)?;
        let (place, public) = if shared {
            let (needed, length) = (reader.u8()?, usize::from(reader.u16()?));
            (KemPlace::SharedOut { needed }, KemPublic::new(kem, reader.bytes(length)?)?)
        } else {
            let secret = Zeroizing::new(reader.array::<KEM_SECRET_LEN>()?);
            let secret = KemSecret::from_stored(kem, &secret)?;
            let public = secret.public()?;
            (KemPlace::Here(secret), public)
        };
        let length = usize::from(reader.u8()?);
        let name = String::from_utf8_lossy(reader.bytes(length)?);
        let node = NodeName::new(&name)?;
        if !reader.rest().is_empty() {
            return Err(StoredIdentityError::Trailing { len: reader.rest().len() });
        }
        let card = PeerCard { node, signing: SigningPublic::of(*signing.verifying_key())?, kem: public };
        Ok(Self { card, signing, kem: place })
    }
}

/// Prints the public part.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("card", &self.card).finish_non_exhaustive()
    }
}
