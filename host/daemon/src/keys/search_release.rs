//! A search key on its way from the escrow site: finds one value of one field in one epoch, and opens nothing.
//!
//! ```text
//! core:     "fssr" | version u8 | pair 16 | generation u64 | epoch u64 | incarnation 16 | deposit's hash 32 |
//!           requester's card 32 | request u64 | released ms u64 | what is searched for, its hash 32
//! release:  core | capsule for the requester | signature 64 of the escrow
//! ```
//!
//! Integers are big-endian. The signature is over "farseal v1 search release" || core || capsule hash. The capsule holds the value
//! key in the place of an epoch key, bound to this core: neither can be taken for the other.

use farseal_plugin::vault::epoch_key::EpochKey;
use farseal_plugin::vault::schedule::KeyScope;
use farseal_plugin::vault::search::ValueKey;
use zeroize::Zeroizing;

use super::capsule::{Capsule, CapsuleError};
use super::card::{PeerCard, SIGNATURE_LEN};
use super::deposit::{DepositError, read_scope, write_scope};
use super::fingerprint::Fingerprint;
use super::identity::Identity;
use super::release::RefusedRelease;
use super::wire::Reader;

const MAGIC: &[u8; 4] = b"fssr";
const VERSION: u8 = 1;
const SIGNED: &[u8] = b"farseal v1 search release";

/// What a release is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct About {
    /// What the epoch's keys are derived for.
    pub scope: KeyScope,
    /// [`super::deposit::Deposit::hash`].
    pub deposit: [u8; 32],
    /// Whom it is for.
    pub requester: Fingerprint,
    /// The escrow's number of the request that was approved.
    pub request: u64,
    /// When, in milliseconds since 1970, by the escrow's clock.
    pub released_ms: u64,
    /// [`crate::escrow::search::AskedSearch::hash`].
    pub search: [u8; 32],
}

/// One search key, released. Nothing in it is proven until [`SearchRelease::open`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchRelease {
    pub about: About,
    capsule: Capsule,
    signature: [u8; SIGNATURE_LEN],
}

impl SearchRelease {
    /// Wraps a value key for `requester` and signs.
    ///
    /// # Errors
    /// [`CapsuleError::Recipient`] when the requester's public key cannot be used.
    pub fn seal(about: About, key: &ValueKey, escrow: &Identity, requester: &PeerCard) -> Result<Self, CapsuleError> {
        let core = about.core();
        let carried = EpochKey::from_unwrapped(&Zeroizing::new(*key.expose()));
        let capsule = Capsule::seal(&requester.kem, &core, &carried)?;
        let signature = escrow.sign(&signed(&core, &capsule));
        Ok(Self { about, capsule, signature })
    }

    /// All of its bytes, at most those of a [`super::release::Release`].
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        [self.about.core().as_slice(), self.capsule.as_bytes(), &self.signature].concat()
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
        let (deposit, requester) = (reader.array()?, Fingerprint(reader.array()?));
        let (request, released_ms, search) = (reader.u64()?, reader.u64()?, reader.array()?);
        let capsule = Capsule::read(&mut reader)?;
        let signature = reader.array()?;
        if !reader.rest().is_empty() {
            return Err(DepositError::Trailing { len: reader.rest().len() });
        }
        let about = About { scope, deposit, requester, request, released_ms, search };
        Ok(Self { about, capsule, signature })
    }

    /// Unwraps the value key for this node.
    ///
    /// # Errors
    /// [`RefusedRelease`], the signature first.
    pub fn open(&self, identity: &Identity, escrow: &PeerCard) -> Result<ValueKey, RefusedRelease> {
        let (epoch, core, requester) = (self.about.scope.epoch, self.about.core(), self.about.requester);
        let proved = escrow.signing.verify(&signed(&core, &self.capsule), &self.signature);
        proved.map_err(|_| RefusedRelease::Forged { epoch })?;
        let own = identity.kem().filter(|_| requester == identity.card().fingerprint());
        let secret = own.ok_or(RefusedRelease::OtherRequester { epoch, requester })?;
        let key = self.capsule.open(secret, &core).map_err(|source| RefusedRelease::Capsule { epoch, source })?;
        Ok(ValueKey::from_bytes(Zeroizing::new(*key.expose())))
    }
}

impl About {
    fn core(&self) -> Vec<u8> {
        let mut core = [MAGIC.as_slice(), &[VERSION]].concat();
        write_scope(&mut core, &self.scope);
        core.extend_from_slice(&self.deposit);
        core.extend_from_slice(&self.requester.0);
        core.extend_from_slice(&self.request.to_be_bytes());
        core.extend_from_slice(&self.released_ms.to_be_bytes());
        core.extend_from_slice(&self.search);
        core
    }
}

fn signed(core: &[u8], capsule: &Capsule) -> Vec<u8> {
    [SIGNED, core, &capsule.hash()].concat()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::super::capsule::KemId;
    use super::super::card::NodeName;
    use super::super::release::RELEASE_LEN_MAX;
    use super::*;

    #[test]
    fn a_search_key_opens_for_its_requester_alone_and_not_when_a_byte_is_changed() {
        let [escrow, remote, other] = ["escrow", "remote", "other"]
            .map(|name| Identity::generate(NodeName::new(name).unwrap(), KemId::MlKem768P256).unwrap());
        let about = About {
            scope: KeyScope { pair: [1; 16], generation: 1, epoch: 5, incarnation: [2; 16] },
            deposit: [3; 32],
            requester: remote.card().fingerprint(),
            request: 4,
            released_ms: 6,
            search: [7; 32],
        };
        let key = ValueKey::from_bytes(Zeroizing::new([8; 32]));
        let bytes = SearchRelease::seal(about, &key, &escrow, remote.card()).unwrap().encode();
        assert!(bytes.len() <= RELEASE_LEN_MAX);
        let release = SearchRelease::decode(&bytes).unwrap();
        assert_eq!(release.about, about);
        assert_eq!(release.open(&remote, escrow.card()).unwrap().expose(), &[8; 32]);
        assert!(matches!(release.open(&other, escrow.card()), Err(RefusedRelease::OtherRequester { .. })));
        assert!(matches!(release.open(&remote, other.card()), Err(RefusedRelease::Forged { .. })));
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            let opened = SearchRelease::decode(&changed).map(|release| release.open(&remote, escrow.card()).is_ok());
            assert_ne!(opened.ok(), Some(true), "byte {at}");
        }
    }
}
