//! An epoch key on its way back from the escrow site, for a recovery: wrapped anew for whoever may open the copy.
//!
//! ```text
//! core:     "fsrl" | version u8 | pair 16 | generation u64 | epoch u64 | incarnation 16 | key check 32 |
//!           deposit's hash 32 | requester's card 32 | request u64 | released ms u64
//! release:  core | capsule for the requester | signature 64 of the escrow
//! ```
//!
//! Integers are big-endian. The signature is over "farseal v1 release" || core || capsule hash. A release lies beside the epoch's
//! package and is worth nothing without the requester's private key.

use farseal_plugin::vault::epoch_key::EpochKey;
use farseal_plugin::vault::schedule::{EpochSchedule, KeyCheck, KeyScope};

use super::capsule::{Capsule, CapsuleError};
use super::card::{PeerCard, SIGNATURE_LEN};
use super::deposit::{DepositError, VerifiedDeposit, read_scope, write_scope};
use super::fingerprint::Fingerprint;
use super::identity::Identity;
use super::wire::Reader;

const MAGIC: &[u8; 4] = b"fsrl";
const VERSION: u8 = 1;
const SIGNED: &[u8] = b"farseal v1 release";
/// Bytes of the longest release: a core of 197, a hybrid capsule, a signature.
pub const RELEASE_LEN_MAX: usize = 197 + 2 + 1153 + 48 + SIGNATURE_LEN;

/// One epoch key, released. Nothing in it is proven until [`Release::open`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// What the key's keys are derived for.
    pub scope: KeyScope,
    /// The check value of the epoch key.
    pub key_check: KeyCheck,
    /// [`super::deposit::Deposit::hash`].
    pub deposit: [u8; 32],
    /// Whom it is for.
    pub requester: Fingerprint,
    /// The escrow's number of the request that was approved.
    pub request: u64,
    /// When, in milliseconds since 1970, by the escrow's clock.
    pub released_ms: u64,
    capsule: Capsule,
    signature: [u8; SIGNATURE_LEN],
}

/// Why a release gives no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RefusedRelease {
    /// The pinned escrow did not sign it.
    #[error("epoch {epoch}: the release is not signed by the escrow")]
    Forged {
        /// The epoch it claims to be.
        epoch: u64,
    },
    /// For another node.
    #[error("epoch {epoch}: the release is for {requester}, not for this node")]
    OtherRequester {
        /// The epoch.
        epoch: u64,
        /// Whom it is for.
        requester: Fingerprint,
    },
    /// Its capsule does not open.
    #[error("epoch {epoch}: {source}")]
    Capsule {
        /// The epoch.
        epoch: u64,
        /// Why.
        source: CapsuleError,
    },
    /// It holds another key than it says.
    #[error("epoch {epoch}: the release holds another key than the epoch's descriptor commits to")]
    OtherKey {
        /// The epoch.
        epoch: u64,
    },
}

impl Release {
    /// Wraps a deposit's key for `requester` and signs.
    ///
    /// # Errors
    /// [`CapsuleError::Recipient`] when the requester's public key cannot be used.
    pub fn seal(
        deposit: &VerifiedDeposit,
        key: &EpochKey,
        escrow: &Identity,
        requester: &PeerCard,
        request: u64,
        released_ms: u64,
    ) -> Result<Self, CapsuleError> {
        let (deposit, card) = (deposit.deposit(), requester.fingerprint());
        let (scope, key_check, hash) = (deposit.terms.scope, deposit.key_check, deposit.hash());
        let core = core(&scope, &key_check, hash, card, request, released_ms);
        let capsule = Capsule::seal(&requester.kem, &core, key)?;
        let signature = escrow.sign(&signed(&core, &capsule));
        Ok(Self { scope, key_check, deposit: hash, requester: card, request, released_ms, capsule, signature })
    }

    /// All of its bytes, at most [`RELEASE_LEN_MAX`].
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        [self.core().as_slice(), self.capsule.as_bytes(), &self.signature].concat()
    }

    /// Reads a release, all of `bytes`.
    ///
    /// # Errors
    /// [`DepositError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DepositError> {
        let mut reader = Reader::new(bytes);
        if reader.array()? != *MAGIC || reader.u8()? != VERSION {
            return Err(DepositError::Format);
        }
        let scope = read_scope(&mut reader)?;
        let (key_check, deposit) = (KeyCheck(reader.array()?), reader.array()?);
        let (requester, request, released_ms) = (Fingerprint(reader.array()?), reader.u64()?, reader.u64()?);
        let capsule = Capsule::read(&mut reader)?;
        let signature = reader.array()?;
        if !reader.rest().is_empty() {
            return Err(DepositError::Trailing { len: reader.rest().len() });
        }
        Ok(Self { scope, key_check, deposit, requester, request, released_ms, capsule, signature })
    }

    /// Unwraps the epoch key for this node, and holds it against the check value of the epoch's signed descriptor.
    ///
    /// # Errors
    /// [`RefusedRelease`], the signature first.
    pub fn open(
        &self,
        identity: &Identity,
        escrow: &PeerCard,
        descriptor: (&KeyScope, &KeyCheck),
    ) -> Result<EpochKey, RefusedRelease> {
        let (epoch, core) = (self.scope.epoch, self.core());
        let proved = escrow.signing.verify(&signed(&core, &self.capsule), &self.signature);
        proved.map_err(|_| RefusedRelease::Forged { epoch })?;
        if self.requester != identity.card().fingerprint() {
            return Err(RefusedRelease::OtherRequester { epoch, requester: self.requester });
        }
        let Some(secret) = identity.kem() else {
            return Err(RefusedRelease::OtherRequester { epoch, requester: self.requester });
        };
        let key = self.capsule.open(secret, &core);
        let key = key.map_err(|source| RefusedRelease::Capsule { epoch, source })?;
        let (scope, check) = descriptor;
        if EpochSchedule::new(&key, scope).key_check() == *check {
            Ok(key)
        } else {
            Err(RefusedRelease::OtherKey { epoch })
        }
    }

    fn core(&self) -> Vec<u8> {
        core(&self.scope, &self.key_check, self.deposit, self.requester, self.request, self.released_ms)
    }
}

fn core(
    scope: &KeyScope,
    key_check: &KeyCheck,
    deposit: [u8; 32],
    requester: Fingerprint,
    request: u64,
    released_ms: u64,
) -> Vec<u8> {
    let mut core = [MAGIC.as_slice(), &[VERSION]].concat();
    write_scope(&mut core, scope);
    core.extend_from_slice(&key_check.0);
    core.extend_from_slice(&deposit);
    core.extend_from_slice(&requester.0);
    core.extend_from_slice(&request.to_be_bytes());
    core.extend_from_slice(&released_ms.to_be_bytes());
    core
}

fn signed(core: &[u8], capsule: &Capsule) -> Vec<u8> {
    [SIGNED, core, &capsule.hash()].concat()
}
