//! What a site shows of itself: its public keys, as a text that `farseal pair` exchanges and two people compare.

use std::fmt;
use std::str::FromStr;

use p256::ecdsa::signature::Verifier;
use p256::ecdsa::{Signature, VerifyingKey};
use p256::pkcs8::{DecodePublicKey, EncodePublicKey};
use serde::{Deserialize, Serialize};

use super::capsule::{KemId, KemPublic, NotAKemKey};
use super::fingerprint::{Fingerprint, ShownFingerprint};
use super::wire::{from_hex, to_hex};

/// Bytes in a signature: r || s, big-endian (IEEE P1363).
pub const SIGNATURE_LEN: usize = 64;
/// Longest node name, in bytes.
pub const MAX_NODE_NAME: usize = 63;
/// Longest card, in bytes: a hybrid key in hexadecimal takes 2 498.
const MAX_CARD: usize = 8 * 1024;
const FORMAT: u32 = 1;
const CARD_DOMAIN: &[u8] = b"farseal v1 card";
const SPKI_DOMAIN: &[u8] = b"farseal v1 spki";

/// A node's name: 1 to 63 characters of `a-z0-9-`, as in a DNS label, so that it can stand in a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeName(String);

/// Not a node name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is no node name: 1 to {MAX_NODE_NAME} characters of a-z, 0-9 and -, with neither end a hyphen")]
pub struct NotANodeName {
    /// Its first characters.
    pub name: String,
}

impl NodeName {
    /// Checks a name.
    ///
    /// # Errors
    /// [`NotANodeName`].
    pub fn new(name: &str) -> Result<Self, NotANodeName> {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let sound = (1..=MAX_NODE_NAME).contains(&name.len())
            && name.chars().all(allowed)
            && !name.starts_with('-')
            && !name.ends_with('-');
        if sound {
            Ok(Self(name.to_owned()))
        } else {
            Err(NotANodeName { name: name.chars().take(MAX_NODE_NAME + 1).collect() })
        }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An ECDSA P-256 public key, and the exact SubjectPublicKeyInfo bytes that a certificate of it has.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningPublic {
    key: VerifyingKey,
    spki: Vec<u8>,
}

/// Bytes that are no P-256 SubjectPublicKeyInfo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is no ECDSA P-256 public key (SubjectPublicKeyInfo, DER, uncompressed point)")]
pub struct NotASigningKey;

/// The signature is not this key's for this message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the signature is not of this key")]
pub struct Forged;

impl SigningPublic {
    pub(super) fn of(key: VerifyingKey) -> Result<Self, NotASigningKey> {
        let spki = key.to_public_key_der().map_err(|_| NotASigningKey)?.into_vec();
        Ok(Self { key, spki })
    }

    /// Reads a SubjectPublicKeyInfo. Only the one canonical encoding is taken.
    ///
    /// # Errors
    /// [`NotASigningKey`].
    pub fn from_spki(der: &[u8]) -> Result<Self, NotASigningKey> {
        let read = Self::of(VerifyingKey::from_public_key_der(der).map_err(|_| NotASigningKey)?)?;
        if read.spki == der { Ok(read) } else { Err(NotASigningKey) }
    }

    /// SubjectPublicKeyInfo, DER.
    #[must_use]
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// Names this key alone, as an error about a TLS peer does.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        spki_fingerprint(&self.spki)
    }

    /// Verifies ECDSA P-256 with SHA-256 (FIPS 186-5). Of the two values of s only the lower is taken, so that a
    /// signature cannot be rewritten into another.
    ///
    /// # Errors
    /// [`Forged`].
    pub fn verify(&self, message: &[u8], signature: &[u8; SIGNATURE_LEN]) -> Result<(), Forged> {
        let signature = Signature::from_slice(signature).map_err(|_| Forged)?;
        if signature.normalize_s() != signature {
            return Err(Forged);
        }
        self.key.verify(message, &signature).map_err(|_| Forged)
    }
}

/// Names the key in a SubjectPublicKeyInfo, whatever it is.
pub(super) fn spki_fingerprint(spki: &[u8]) -> Fingerprint {
    Fingerprint::of(SPKI_DOMAIN, &[spki])
}

impl fmt::Debug for SigningPublic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningPublic({})", self.fingerprint())
    }
}

/// The public part of an identity.
///
/// Its text form is TOML; the fingerprint in it is checked when it is read, and is what two operators compare.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerCard {
    /// The node's name. Not part of the fingerprint: a node may be renamed.
    pub node: NodeName,
    /// Verifies its descriptors and its TLS handshakes.
    pub signing: SigningPublic,
    /// Receives epoch keys.
    pub kem: KemPublic,
}

/// Why a text is no peer card.
#[derive(Debug, thiserror::Error)]
pub enum CardError {
    /// Longer than any card is.
    #[error("a peer card has at most {MAX_CARD} bytes, this text has {len}")]
    TooLong {
        /// Its bytes.
        len: usize,
    },
    /// Not the TOML of a card.
    #[error("this is no peer card: {0}")]
    Toml(#[from] toml::de::Error),
    /// Of a later version.
    #[error("peer card format {format} is not known to this version, which reads {FORMAT}")]
    Format {
        /// Its format.
        format: u32,
    },
    /// The `node` field.
    #[error("field node: {0}")]
    Node(#[from] NotANodeName),
    /// A field that is not hexadecimal.
    #[error("field {field} is not lower-case hexadecimal")]
    Hex {
        /// Which.
        field: &'static str,
    },
    /// The `signing-key` field.
    #[error("field signing-key: {0}")]
    Signing(#[from] NotASigningKey),
    /// The `kem` field.
    #[error("field kem: {kem:?} is not known; there are mlkem768-p256 and dhkem-p256")]
    Kem {
        /// Its first characters.
        kem: String,
    },
    /// The `kem-key` field.
    #[error("field kem-key: {0}")]
    KemKey(#[from] NotAKemKey),
    /// The fingerprint is not that of the keys.
    #[error("field fingerprint does not go with the keys, which have {actual}; ask for the card again")]
    Fingerprint {
        /// That of the keys.
        actual: Fingerprint,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct CardText {
    format: u32,
    node: String,
    fingerprint: String,
    signing_key: String,
    kem: String,
    kem_key: String,
}

impl PeerCard {
    /// SHA-256("farseal v1 card" || signing SPKI || KEM number || KEM public key), each with its length.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        let kem = self.kem.kem().id().to_be_bytes();
        Fingerprint::of(CARD_DOMAIN, &[self.signing.spki(), &kem, self.kem.as_bytes()])
    }

    fn read(text: &str) -> Result<Self, CardError> {
        if text.len() > MAX_CARD {
            return Err(CardError::TooLong { len: text.len() });
        }
        let fields: CardText = toml::from_str(text)?;
        if fields.format != FORMAT {
            return Err(CardError::Format { format: fields.format });
        }
        let hex = |field, text: &str| from_hex(text).ok_or(CardError::Hex { field });
        let kem = KemId::from_name(&fields.kem)
            .ok_or_else(|| CardError::Kem { kem: fields.kem.chars().take(MAX_NODE_NAME).collect() })?;
        let card = Self {
            node: NodeName::new(&fields.node)?,
            signing: SigningPublic::from_spki(&hex("signing-key", &fields.signing_key)?)?,
            kem: KemPublic::new(kem, &hex("kem-key", &fields.kem_key)?)?,
        };
        let actual = card.fingerprint();
        let claimed = fields.fingerprint.parse::<ShownFingerprint>();
        if claimed.is_ok_and(|claimed| actual.is_shown_as(&claimed)) {
            Ok(card)
        } else {
            Err(CardError::Fingerprint { actual })
        }
    }
}

impl FromStr for PeerCard {
    type Err = CardError;

    fn from_str(text: &str) -> Result<Self, CardError> {
        Self::read(text)
    }
}

impl fmt::Display for PeerCard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = toml::to_string(&CardText {
            format: FORMAT,
            node: self.node.0.clone(),
            fingerprint: self.fingerprint().to_string(),
            signing_key: to_hex(self.signing.spki()),
            kem: self.kem.kem().name().to_owned(),
            kem_key: to_hex(self.kem.as_bytes()),
        });
        f.write_str(&text.map_err(|_| fmt::Error)?)
    }
}
