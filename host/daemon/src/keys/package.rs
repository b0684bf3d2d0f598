//! An epoch package: a signed descriptor with a capsule for each recipient at the ends of the link, and the escrow site's
//! receipt for the key that it holds. From bytes to an epoch key there are three types, and no way around the middle one.

use farseal_plugin::vault::epoch_key::EpochKey;

use super::capsule::{Capsule, CapsuleError};
use super::card::{PeerCard, SIGNATURE_LEN};
use super::deposit::{DepositError, Receipt, RefusedReceipt};
use super::descriptor::{
    Descriptor, DescriptorError, How, Recipient, Role, Terms, check_terms, encode_core, signed_bytes,
};
use super::fingerprint::Fingerprint;
use super::identity::Identity;
use super::release::RefusedRelease;
use super::wire::{Reader, Short};

/// Bytes of a block with its tag: what one carrier record holds at most.
pub const CARRIER_LEN: usize = 4096 + 16;

/// A package as it was made or read. Nothing in it is proven.
///
/// Bytes: descriptor length u16be || descriptor || for each recipient, in their order, a capsule; for an escrow its receipt.
/// An escrow's capsule is in the deposit, whose hash the descriptor names in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedEpoch {
    descriptor: Descriptor,
    proofs: Vec<Proof>,
}

/// How a recipient comes by the key.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Proof {
    Capsule(Capsule),
    Receipt(Receipt),
}

impl Proof {
    fn read(role: Role, reader: &mut Reader<'_>) -> Result<Self, PackageError> {
        Ok(match role {
            Role::Own | Role::Secondary => Self::Capsule(Capsule::read(reader)?),
            Role::Escrow => Self::Receipt(Receipt::read(reader).map_err(PackageError::Receipt)?),
        })
    }

    fn encode(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Capsule(capsule) => bytes.extend_from_slice(capsule.as_bytes()),
            Self::Receipt(receipt) => bytes.extend_from_slice(&receipt.encode()),
        }
    }

    /// What the descriptor names.
    fn hash(&self) -> [u8; 32] {
        match self {
            Self::Capsule(capsule) => capsule.hash(),
            Self::Receipt(receipt) => receipt.deposit,
        }
    }
}

/// A package that the pinned site signed for this pair, whole and with its own capsules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedEpoch(SealedEpoch);

/// Why no package was made.
#[derive(Debug, thiserror::Error)]
pub enum SealEpochError {
    /// The terms or the recipients are unsound.
    #[error(transparent)]
    Terms(#[from] DescriptorError),
    /// The key could not be wrapped.
    #[error("the epoch key could not be wrapped for {node}: {source}")]
    Capsule {
        /// The recipient's name.
        node: String,
        /// Why.
        source: CapsuleError,
    },
    /// It would not fit its carrier.
    #[error("the epoch package has {len} bytes and a carrier holds {CARRIER_LEN}; use fewer recipients or stacks")]
    TooLong {
        /// Its bytes.
        len: usize,
    },
}

/// Why bytes are no package.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PackageError {
    /// Longer than any package is.
    #[error("an epoch package has at most {CARRIER_LEN} bytes, this one {len}")]
    TooLong {
        /// Its bytes.
        len: usize,
    },
    /// Fewer bytes than it needs.
    #[error("the epoch package is cut short after {have} bytes, in a field of {needed}")]
    CutShort {
        /// Bytes before the field.
        have: usize,
        /// Bytes that the field needs.
        needed: usize,
    },
    /// More bytes than it has.
    #[error("the epoch package has {len} bytes too many")]
    Trailing {
        /// How many.
        len: usize,
    },
    /// Its descriptor.
    #[error(transparent)]
    Descriptor(#[from] DescriptorError),
    /// A capsule.
    #[error(transparent)]
    Capsule(#[from] CapsuleError),
    /// The escrow's receipt.
    #[error("the escrow's receipt: {0}")]
    Receipt(DepositError),
}

impl From<Short> for PackageError {
    fn from(short: Short) -> Self {
        Self::CutShort { have: short.at, needed: short.needed }
    }
}

/// What a node expects of a package.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// The pair.
    pub pair: [u8; 16],
    /// The pinned site.
    pub signer: &'a PeerCard,
    /// The newest epoch it knows of the pair; a package of this epoch or an older one is a replay. `None` when
    /// history is read on purpose, as for a recovery.
    pub newest: Option<u64>,
    /// The escrow site whose receipt it must have. `None` where the pair has none, and when history is read.
    pub escrow: Option<&'a PeerCard>,
}

/// Why a package is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RefusedEpoch {
    /// The pinned site did not sign this.
    #[error("epoch {epoch} is not signed by {signer}, the pinned key of {node}")]
    Forged {
        /// The epoch it claims to be.
        epoch: u64,
        /// The pinned site's name.
        node: String,
        /// The pinned signing key.
        signer: Fingerprint,
    },
    /// Signed for another pair.
    #[error("epoch {epoch} is of another pair")]
    OtherPair {
        /// The epoch.
        epoch: u64,
    },
    /// Not newer than what is known.
    #[error("epoch {epoch} is not newer than {newest}, which is known already: a replay")]
    Replayed {
        /// The epoch.
        epoch: u64,
        /// The newest known.
        newest: u64,
    },
    /// The escrow does not hold it.
    #[error("epoch {epoch} has no receipt of the escrow {escrow}")]
    NoReceipt {
        /// The epoch.
        epoch: u64,
        /// That of the pinned escrow's card.
        escrow: Fingerprint,
    },
    /// The escrow's receipt is not believed.
    #[error("epoch {epoch}: {source}")]
    Receipt {
        /// The epoch.
        epoch: u64,
        /// Why.
        source: RefusedReceipt,
    },
    /// A capsule is not the one that was signed for.
    #[error("epoch {epoch}: the capsule for the {role} recipient is not the one that was signed for")]
    CapsuleChanged {
        /// The epoch.
        epoch: u64,
        /// Whose capsule.
        role: Role,
    },
}

/// Why a verified package gives no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenEpochError {
    /// This node is none of its recipients.
    #[error("epoch {epoch} is not for {card}, the keys of this node")]
    OtherRecipient {
        /// The epoch.
        epoch: u64,
        /// This node's card.
        card: Fingerprint,
    },
    /// Only the escrow site has it.
    #[error("the key of epoch {epoch} is with the escrow site: ask for it with `farseal escrow request`")]
    WithEscrow {
        /// The epoch.
        epoch: u64,
    },
    /// What the escrow site released does not open.
    #[error("{source}")]
    Released {
        /// The epoch.
        epoch: u64,
        /// Why.
        source: RefusedRelease,
    },
    /// Its capsule does not open.
    #[error("epoch {epoch}: {source}")]
    Capsule {
        /// The epoch.
        epoch: u64,
        /// Why.
        source: CapsuleError,
    },
    /// The capsule holds another key than the descriptor commits to: its signer is broken or lies.
    #[error("epoch {epoch}: the capsule holds another key than the descriptor commits to")]
    OtherKey {
        /// The epoch.
        epoch: u64,
    },
}

impl SealedEpoch {
    /// Wraps `key` for the recipients at the ends of the link, names the escrow that has it, and signs.
    ///
    /// # Errors
    /// [`SealEpochError`].
    pub fn seal(
        terms: Terms,
        key: &EpochKey,
        signer: &Identity,
        recipients: &[(Role, &PeerCard)],
        receipt: Option<&Receipt>,
    ) -> Result<Self, SealEpochError> {
        let mut named: Vec<_> = recipients.iter().map(|(role, card)| (*role, card.fingerprint())).collect();
        named.extend(receipt.map(|receipt| (Role::Escrow, receipt.escrow)));
        check_terms(&terms, &named.iter().map(|(_, card)| *card).collect::<Vec<_>>())?;
        let key_check = terms.key_check(key);
        let core = encode_core(&terms, &key_check, &named);
        let mut proofs = Vec::with_capacity(named.len());
        for (_, card) in recipients {
            let wrapped = Capsule::seal(&card.kem, &core, key);
            let wrapped = wrapped.map_err(|source| SealEpochError::Capsule { node: card.node.to_string(), source })?;
            proofs.push(Proof::Capsule(wrapped));
        }
        proofs.extend(receipt.copied().map(Proof::Receipt));
        let signature = signer.sign(&signed_bytes(&core, proofs.iter().map(Proof::hash)));
        let recipients = named
            .into_iter()
            .zip(&proofs)
            .map(|((role, card), proof)| Recipient { role, card, capsule: proof.hash() })
            .collect();
        let sealed = Self { descriptor: Descriptor { terms, key_check, recipients, signature }, proofs };
        let len = sealed.encode().len();
        if len > CARRIER_LEN { Err(SealEpochError::TooLong { len }) } else { Ok(sealed) }
    }

    /// What it claims. Believe a [`VerifiedEpoch`] instead.
    #[must_use]
    pub const fn unproven(&self) -> &Descriptor {
        &self.descriptor
    }

    /// All of its bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let descriptor = self.descriptor.encode();
        // At most 4 recipients and 16 stacks: below 2 KiB.
        let length = u16::try_from(descriptor.len()).unwrap_or(u16::MAX);
        let mut bytes = [length.to_be_bytes().as_slice(), &descriptor].concat();
        self.proofs.iter().for_each(|proof| proof.encode(&mut bytes));
        bytes
    }

    /// Reads a package, all of `bytes`.
    ///
    /// # Errors
    /// [`PackageError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, PackageError> {
        if bytes.len() > CARRIER_LEN {
            return Err(PackageError::TooLong { len: bytes.len() });
        }
        let mut reader = Reader::new(bytes);
        let length = usize::from(reader.u16()?);
        let descriptor = Descriptor::decode(reader.bytes(length)?)?;
        let recipients = descriptor.recipients.iter();
        let proofs = recipients.map(|each| Proof::read(each.role, &mut reader)).collect::<Result<Vec<_>, _>>()?;
        if !reader.rest().is_empty() {
            return Err(PackageError::Trailing { len: bytes.len() - reader.position() });
        }
        Ok(Self { descriptor, proofs })
    }

    /// Proves that the pinned site made this package for this pair, and that it is new.
    ///
    /// # Errors
    /// [`RefusedEpoch`], the signature first.
    pub fn verify(self, expected: &Expected<'_>) -> Result<VerifiedEpoch, RefusedEpoch> {
        let epoch = self.descriptor.terms.epoch;
        let signature: &[u8; SIGNATURE_LEN] = &self.descriptor.signature;
        let signer = expected.signer;
        signer.signing.verify(&self.descriptor.signed_bytes(), signature).map_err(|_| RefusedEpoch::Forged {
            epoch,
            node: signer.node.to_string(),
            signer: signer.signing.fingerprint(),
        })?;
        if self.descriptor.terms.pair != expected.pair {
            return Err(RefusedEpoch::OtherPair { epoch });
        }
        if let Some(newest) = expected.newest.filter(|newest| epoch <= *newest) {
            return Err(RefusedEpoch::Replayed { epoch, newest });
        }
        for (recipient, proof) in self.descriptor.recipients.iter().zip(&self.proofs) {
            if proof.hash() != recipient.capsule {
                return Err(RefusedEpoch::CapsuleChanged { epoch, role: recipient.role });
            }
        }
        if let Some(escrow) = expected.escrow {
            self.verify_receipt(escrow)?;
        }
        Ok(VerifiedEpoch(self))
    }

    /// The escrow that the pair has holds the key, durably.
    fn verify_receipt(&self, escrow: &PeerCard) -> Result<(), RefusedEpoch> {
        let (epoch, card) = (self.descriptor.terms.epoch, escrow.fingerprint());
        let mut proofs = self.descriptor.recipients.iter().zip(&self.proofs);
        let receipt = proofs.find_map(|(recipient, proof)| match proof {
            Proof::Receipt(receipt) if recipient.card == card => Some((receipt, recipient.capsule)),
            Proof::Receipt(_) | Proof::Capsule(_) => None,
        });
        let (receipt, deposit) = receipt.ok_or(RefusedEpoch::NoReceipt { epoch, escrow: card })?;
        receipt.verify(escrow, deposit).map_err(|source| RefusedEpoch::Receipt { epoch, source })?;
        // A cover has some key's receipt: its own key is nobody's.
        if receipt.key_check == self.descriptor.key_check || self.descriptor.terms.how == How::Cover {
            Ok(())
        } else {
            Err(RefusedEpoch::Receipt { epoch, source: RefusedReceipt::OtherKey })
        }
    }
}

impl VerifiedEpoch {
    /// What the site said.
    #[must_use]
    pub const fn descriptor(&self) -> &Descriptor {
        &self.0.descriptor
    }

    /// The package, to be stored or passed on.
    #[must_use]
    pub const fn package(&self) -> &SealedEpoch {
        &self.0
    }

    /// The capsule for the holder of `card`.
    #[must_use]
    pub fn capsule_for(&self, card: Fingerprint) -> Option<&Capsule> {
        self.0.descriptor.recipients.iter().zip(&self.0.proofs).find_map(|(recipient, proof)| match proof {
            Proof::Capsule(capsule) if recipient.card == card => Some(capsule),
            Proof::Capsule(_) | Proof::Receipt(_) => None,
        })
    }

    /// The escrow site's receipt, if the key was deposited.
    #[must_use]
    pub fn receipt(&self) -> Option<&Receipt> {
        self.0.proofs.iter().find_map(|proof| match proof {
            Proof::Receipt(receipt) => Some(receipt),
            Proof::Capsule(_) => None,
        })
    }

    /// Unwraps the epoch key for this node, and holds it against the check value that was signed.
    ///
    /// # Errors
    /// [`OpenEpochError`].
    pub fn open(&self, identity: &Identity) -> Result<EpochKey, OpenEpochError> {
        let terms = &self.0.descriptor.terms;
        let (epoch, card) = (terms.epoch, identity.card().fingerprint());
        let capsule = self.capsule_for(card).zip(identity.kem());
        let (capsule, secret) = capsule.ok_or(OpenEpochError::OtherRecipient { epoch, card })?;
        let opened = capsule.open(secret, &self.0.descriptor.core());
        let key = opened.map_err(|source| OpenEpochError::Capsule { epoch, source })?;
        if terms.key_check(&key) == self.0.descriptor.key_check {
            Ok(key)
        } else {
            Err(OpenEpochError::OtherKey { epoch })
        }
    }
}
