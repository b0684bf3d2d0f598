//! An epoch key on its way to the escrow site, before it may seal anything; and that site's receipt for it.
//!
//! ```text
//! core:     "fsdp" | version u8 | pair 16 | generation u64 | epoch u64 | incarnation 16 | key check 32 |
//!           created ms u64 | escrow's card 32 | holder's card 32
//! deposit:  core | capsule for the escrow | signature 64
//! receipt:  "fsrc" | version u8 | escrow's card 32 | deposit's hash 32 | key check 32 | checked u8 | taken ms u64 | signature 64
//! ```
//!
//! Integers are big-endian. The signatures (ECDSA P-256, SHA-256) are over "farseal v1 deposit" || core || capsule hash,
//! and "farseal v1 receipt" || the receipt's bytes before it. The capsule's associated data is the core, so it opens for that
//! escrow, pair, generation, epoch and incarnation only.
//!
//! A deposit says nothing of places in the order, because it is made before its key has one. What ties it to an epoch's
//! descriptor is the key check, and the deposit's hash, which the descriptor names in place of a capsule's.

use farseal_plugin::vault::epoch_key::EpochKey;
use farseal_plugin::vault::schedule::{EpochSchedule, KeyCheck, KeyScope};
use sha2::{Digest, Sha256};

use super::capsule::{Capsule, CapsuleError, KemSecret};
use super::card::{PeerCard, SIGNATURE_LEN};
use super::descriptor::{Descriptor, Terms};
use super::fingerprint::Fingerprint;
use super::identity::Identity;
use super::wire::{Reader, Short};

const MAGIC: &[u8; 4] = b"fsdp";
const RECEIPT_MAGIC: &[u8; 4] = b"fsrc";
const VERSION: u8 = 1;
const SIGNED: &[u8] = b"farseal v1 deposit";
const RECEIPT_SIGNED: &[u8] = b"farseal v1 receipt";
/// Bytes of a receipt.
pub const RECEIPT_LEN: usize = 4 + 1 + 32 + 32 + 32 + 1 + 8 + SIGNATURE_LEN;
/// Bytes of the longest deposit: a core of 157, a hybrid capsule, a signature.
pub const DEPOSIT_LEN_MAX: usize = 157 + 2 + 1153 + 48 + SIGNATURE_LEN;

/// What a site says of a key that it deposits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DepositTerms {
    /// What the key's keys are derived for.
    pub scope: KeyScope,
    /// When it was made, in milliseconds since 1970, by the site's clock.
    pub created_ms: u64,
    /// Besides the depositing site, only the holder of this card may ask for the key: the site that keeps the copy.
    pub holder: Fingerprint,
}

/// A deposit as it was made or read. Nothing in it is proven until [`Deposit::verify`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deposit {
    /// What the site says.
    pub terms: DepositTerms,
    /// The check value of the epoch key.
    pub key_check: KeyCheck,
    /// Whom it is for.
    pub escrow: Fingerprint,
    capsule: Capsule,
    signature: [u8; SIGNATURE_LEN],
}

/// A deposit that a pinned site signed for this escrow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedDeposit(Deposit);

/// Why bytes are no deposit, or no receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DepositError {
    /// Fewer bytes than it needs.
    #[error("it is cut short after {have} bytes, in a field of {needed}")]
    CutShort {
        /// Bytes before the field.
        have: usize,
        /// Bytes that the field needs.
        needed: usize,
    },
    /// More bytes than it has.
    #[error("it has {len} bytes too many")]
    Trailing {
        /// How many.
        len: usize,
    },
    /// Something else, or of a later version.
    #[error("it is none of version {VERSION}")]
    Format,
    /// Its capsule.
    #[error(transparent)]
    Capsule(#[from] CapsuleError),
}

impl From<Short> for DepositError {
    fn from(short: Short) -> Self {
        Self::CutShort { have: short.at, needed: short.needed }
    }
}

/// Why a deposit is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RefusedDeposit {
    /// The pinned site did not sign it.
    #[error("epoch {epoch}: the deposit is not signed by the site that sends it")]
    Forged {
        /// The epoch it claims to be.
        epoch: u64,
    },
    /// For another escrow.
    #[error("epoch {epoch}: the deposit is for the escrow {escrow}")]
    OtherEscrow {
        /// The epoch.
        epoch: u64,
        /// Whom it is for.
        escrow: Fingerprint,
    },
    /// The capsule does not open.
    #[error("epoch {epoch}: {source}")]
    Capsule {
        /// The epoch.
        epoch: u64,
        /// Why.
        source: CapsuleError,
    },
    /// The capsule holds another key than the deposit commits to.
    #[error("epoch {epoch}: the capsule holds another key than the deposit commits to")]
    OtherKey {
        /// The epoch.
        epoch: u64,
    },
}

impl Deposit {
    /// Wraps `key` for `escrow` and signs.
    ///
    /// # Errors
    /// [`CapsuleError::Recipient`] when the escrow's public key cannot be used.
    pub fn seal(
        terms: DepositTerms,
        key: &EpochKey,
        signer: &Identity,
        escrow: &PeerCard,
    ) -> Result<Self, CapsuleError> {
        let (key_check, card) = (EpochSchedule::new(key, &terms.scope).key_check(), escrow.fingerprint());
        let core = core(&terms, &key_check, card);
        let capsule = Capsule::seal(&escrow.kem, &core, key)?;
        let signature = signer.sign(&signed(&core, &capsule));
        Ok(Self { terms, key_check, escrow: card, capsule, signature })
    }

    /// All of its bytes, at most [`DEPOSIT_LEN_MAX`].
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let core = core(&self.terms, &self.key_check, self.escrow);
        [core.as_slice(), self.capsule.as_bytes(), &self.signature].concat()
    }

    /// Reads a deposit, all of `bytes`.
    ///
    /// # Errors
    /// [`DepositError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DepositError> {
        let mut reader = Reader::new(bytes);
        if reader.array()? != *MAGIC || reader.u8()? != VERSION {
            return Err(DepositError::Format);
        }
        let scope = read_scope(&mut reader)?;
        let key_check = KeyCheck(reader.array()?);
        let created_ms = reader.u64()?;
        let (escrow, holder) = (Fingerprint(reader.array()?), Fingerprint(reader.array()?));
        let capsule = Capsule::read(&mut reader)?;
        let signature = reader.array()?;
        if !reader.rest().is_empty() {
            return Err(DepositError::Trailing { len: reader.rest().len() });
        }
        Ok(Self { terms: DepositTerms { scope, created_ms, holder }, key_check, escrow, capsule, signature })
    }

    /// SHA-256 of its bytes: its name in receipts and descriptors.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.encode()).into()
    }

    /// Proves that `signer` made it, for the escrow whose card has this fingerprint.
    ///
    /// # Errors
    /// [`RefusedDeposit`], the signature first.
    pub fn verify(self, signer: &PeerCard, escrow: Fingerprint) -> Result<VerifiedDeposit, RefusedDeposit> {
        let epoch = self.terms.scope.epoch;
        let core = core(&self.terms, &self.key_check, self.escrow);
        let proved = signer.signing.verify(&signed(&core, &self.capsule), &self.signature);
        proved.map_err(|_| RefusedDeposit::Forged { epoch })?;
        if self.escrow != escrow {
            return Err(RefusedDeposit::OtherEscrow { epoch, escrow: self.escrow });
        }
        Ok(VerifiedDeposit(self))
    }
}

impl VerifiedDeposit {
    /// What the site that deposited the key signed of its epoch, if `descriptor` is that: its signature, its scope and its key
    /// check. Whoever brings a record to be opened chooses neither the ciphers nor the component that it is opened with.
    #[must_use]
    pub fn epoch_terms(&self, descriptor: &[u8], depositor: &PeerCard) -> Option<Terms> {
        let descriptor = Descriptor::decode(descriptor).ok()?;
        depositor.signing.verify(&descriptor.signed_bytes(), &descriptor.signature).ok()?;
        let is_its = descriptor.key_check == self.0.key_check && descriptor.terms.scope() == self.0.terms.scope;
        is_its.then_some(descriptor.terms)
    }

    /// What the site said.
    #[must_use]
    pub const fn deposit(&self) -> &Deposit {
        &self.0
    }

    /// Unwraps the epoch key and holds it against the check value that was signed.
    ///
    /// # Errors
    /// [`RefusedDeposit::Capsule`] and [`RefusedDeposit::OtherKey`].
    pub fn open(&self, secret: &KemSecret) -> Result<EpochKey, RefusedDeposit> {
        let Deposit { terms, key_check, escrow, capsule, .. } = &self.0;
        let epoch = terms.scope.epoch;
        let opened = capsule.open(secret, &core(terms, key_check, *escrow));
        let key = opened.map_err(|source| RefusedDeposit::Capsule { epoch, source })?;
        if EpochSchedule::new(&key, &terms.scope).key_check() == *key_check {
            Ok(key)
        } else {
            Err(RefusedDeposit::OtherKey { epoch })
        }
    }
}

/// The escrow site's word that it holds a deposit durably.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// That of the escrow's card.
    pub escrow: Fingerprint,
    /// [`Deposit::hash`].
    pub deposit: [u8; 32],
    /// As the deposit commits to: what ties the receipt to an epoch's descriptor.
    pub key_check: KeyCheck,
    /// The escrow opened the capsule and found the key that the deposit commits to. An escrow whose key is shared out
    /// among people cannot, and says so.
    pub checked: bool,
    /// When, in milliseconds since 1970, by the escrow's clock.
    pub taken_ms: u64,
    signature: [u8; SIGNATURE_LEN],
}

/// Why a receipt is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RefusedReceipt {
    /// The pinned escrow did not sign it.
    #[error("the receipt is not signed by the escrow {0}")]
    Forged(Fingerprint),
    /// For another deposit.
    #[error("the receipt is for another deposit")]
    OtherDeposit,
    /// For another key than the epoch's.
    #[error("the receipt is for another key than the epoch's")]
    OtherKey,
}

impl Receipt {
    /// Signs for a deposit that is durable.
    #[must_use]
    pub fn sign(escrow: &Identity, deposit: &Deposit, checked: bool, taken_ms: u64) -> Self {
        let (card, key_check) = (escrow.card().fingerprint(), deposit.key_check);
        let deposit = deposit.hash();
        let blank = Self { escrow: card, deposit, key_check, checked, taken_ms, signature: [0; 64] };
        Self { signature: escrow.sign(&blank.signed()), ..blank }
    }

    /// All of its bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; RECEIPT_LEN] {
        let mut bytes = [0; RECEIPT_LEN];
        let unsigned = self.unsigned();
        let (head, signature) = bytes.split_at_mut(unsigned.len());
        head.copy_from_slice(&unsigned);
        signature.copy_from_slice(&self.signature);
        bytes
    }

    /// Reads a receipt, all of `bytes`.
    ///
    /// # Errors
    /// [`DepositError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DepositError> {
        let mut reader = Reader::new(bytes);
        let receipt = Self::read(&mut reader)?;
        let len = reader.rest().len();
        if len > 0 { Err(DepositError::Trailing { len }) } else { Ok(receipt) }
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, DepositError> {
        if reader.array()? != *RECEIPT_MAGIC || reader.u8()? != VERSION {
            return Err(DepositError::Format);
        }
        let (escrow, deposit) = (Fingerprint(reader.array()?), reader.array()?);
        let key_check = KeyCheck(reader.array()?);
        let checked = match reader.u8()? {
            0 => false,
            1 => true,
            2.. => return Err(DepositError::Format),
        };
        Ok(Self { escrow, deposit, key_check, checked, taken_ms: reader.u64()?, signature: reader.array()? })
    }

    /// Proves that `escrow` signed it for this deposit.
    ///
    /// # Errors
    /// [`RefusedReceipt`].
    pub fn verify(&self, escrow: &PeerCard, deposit: [u8; 32]) -> Result<(), RefusedReceipt> {
        let card = escrow.fingerprint();
        let proved = escrow.signing.verify(&self.signed(), &self.signature);
        if proved.is_err() || self.escrow != card {
            return Err(RefusedReceipt::Forged(card));
        }
        if self.deposit == deposit { Ok(()) } else { Err(RefusedReceipt::OtherDeposit) }
    }

    fn unsigned(&self) -> Vec<u8> {
        let head = [RECEIPT_MAGIC.as_slice(), &[VERSION], &self.escrow.0, &self.deposit, &self.key_check.0].concat();
        [head.as_slice(), &[u8::from(self.checked)], &self.taken_ms.to_be_bytes()].concat()
    }

    fn signed(&self) -> Vec<u8> {
        [RECEIPT_SIGNED, &self.unsigned()].concat()
    }
}

fn core(terms: &DepositTerms, key_check: &KeyCheck, escrow: Fingerprint) -> Vec<u8> {
    let mut core = [MAGIC.as_slice(), &[VERSION]].concat();
    write_scope(&mut core, &terms.scope);
    core.extend_from_slice(&key_check.0);
    core.extend_from_slice(&terms.created_ms.to_be_bytes());
    core.extend_from_slice(&escrow.0);
    core.extend_from_slice(&terms.holder.0);
    core
}

fn signed(core: &[u8], capsule: &Capsule) -> Vec<u8> {
    [SIGNED, core, &capsule.hash()].concat()
}

pub(super) fn write_scope(bytes: &mut Vec<u8>, scope: &KeyScope) {
    bytes.extend_from_slice(&scope.pair);
    bytes.extend_from_slice(&scope.generation.to_be_bytes());
    bytes.extend_from_slice(&scope.epoch.to_be_bytes());
    bytes.extend_from_slice(&scope.incarnation);
}

pub(super) fn read_scope(reader: &mut Reader<'_>) -> Result<KeyScope, Short> {
    Ok(KeyScope {
        pair: reader.array()?,
        generation: reader.u64()?,
        epoch: reader.u64()?,
        incarnation: reader.array()?,
    })
}
