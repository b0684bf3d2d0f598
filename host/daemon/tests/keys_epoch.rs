//! An epoch key's way from one site to another: packages that are made, read, refused and opened.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "keys_epoch/golden.rs"]
mod golden;
#[path = "keys_epoch/hpke_by_hand.rs"]
mod hpke_by_hand;
#[path = "keys_epoch/hybrid_vector.rs"]
mod hybrid_vector;
#[path = "keys_epoch/support.rs"]
mod support;

use std::sync::Arc;

use farseal::keyring::Keyring;
use farseal::keys::capsule::{Capsule, CapsuleError, KemId};
use farseal::keys::descriptor::{Descriptor, DescriptorError, Role};
use farseal::keys::identity::Identity;
use farseal::keys::package::{
    CARRIER_LEN, Expected, OpenEpochError, PackageError, RefusedEpoch, SealEpochError, SealedEpoch,
};
use farseal_core::units::PairId;
use farseal_plugin::vault::epoch_key::EpochKey;
use farseal_plugin::vault::stack::{KeyLabel, Layer, Stack, StackList, Suite};
use proptest::prelude::*;
use support::{PAIR, escrow, primary, secondary, stranger, terms};

/// Decodes and verifies as the secondary of the pair would.
fn receive(bytes: &[u8], newest: Option<u64>) -> Result<farseal::keys::package::VerifiedEpoch, String> {
    let expected = Expected { pair: PAIR, signer: primary().card(), newest, escrow: None };
    let read = SealedEpoch::decode(bytes).map_err(|error| error.to_string())?;
    read.verify(&expected).map_err(|error| error.to_string())
}

fn two_recipients(key: &EpochKey) -> SealedEpoch {
    let recipients = [(Role::Secondary, secondary().card()), (Role::Own, escrow().card())];
    SealedEpoch::seal(terms(), key, primary(), &recipients, None).unwrap()
}

#[test]
fn each_recipient_opens_the_same_key() {
    let key = EpochKey::generate(b"test").unwrap();
    let bytes = two_recipients(&key).encode();
    for node in [secondary(), escrow()] {
        let verified = receive(&bytes, Some(4)).unwrap();
        assert!(verified.open(node).unwrap() == key);
        assert_eq!(verified.descriptor().terms, terms());
        assert_eq!(verified.package().encode(), bytes);
    }
}

#[test]
fn another_key_of_an_epoch_that_is_kept_is_told_from_the_same_one() {
    let folder = tempfile::tempdir().unwrap();
    let identity = Arc::new(Identity::from_stored(&secondary().to_stored()).unwrap());
    let keyring = Keyring::open(folder.path(), PairId(PAIR), identity, primary().card().clone()).unwrap();
    let sealed = || receive(&two_recipients(&EpochKey::generate(b"test").unwrap()).encode(), None).unwrap();
    let (first, other) = (sealed(), sealed());
    assert!(!keyring.has_another(&first), "none is kept");
    keyring.keep(first.clone()).unwrap();
    assert!(!keyring.has_another(&first) && keyring.has_another(&other));
}

#[test]
fn either_mechanism_carries_a_key() {
    let key = EpochKey::generate(b"test").unwrap();
    for node in [secondary(), stranger()] {
        let capsule = Capsule::seal(&node.card().kem, b"core", &key).unwrap();
        assert_eq!(capsule.as_bytes().len(), node.kem().unwrap().kem().capsule_len());
        assert!(capsule.open(node.kem().unwrap(), b"core").unwrap() == key);
        assert_eq!(capsule.open(node.kem().unwrap(), b"other core").unwrap_err(), CapsuleError::NotAuthentic);
        assert_eq!(capsule.open(escrow().kem().unwrap(), b"core").is_err(), node.card() != escrow().card());
    }
    assert_eq!(KemId::DhP256.capsule_len(), 2 + 65 + 48);
    assert_eq!(KemId::MlKem768P256.capsule_len(), 2 + 1153 + 48);
}

#[test]
fn a_forged_package_is_refused() {
    let key = EpochKey::generate(b"test").unwrap();
    let recipients = [(Role::Secondary, secondary().card())];
    let forged = SealedEpoch::seal(terms(), &key, stranger(), &recipients, None).unwrap();
    let expected = Expected { pair: PAIR, signer: primary().card(), newest: None, escrow: None };
    let refused = forged.verify(&expected).unwrap_err();
    assert!(matches!(refused, RefusedEpoch::Forged { epoch: 5, .. }), "{refused}");
}

#[test]
fn a_package_of_another_pair_is_refused() {
    let key = EpochKey::generate(b"test").unwrap();
    let expected = Expected { pair: [0xEE; 16], signer: primary().card(), newest: None, escrow: None };
    assert_eq!(two_recipients(&key).verify(&expected).unwrap_err(), RefusedEpoch::OtherPair { epoch: 5 });
}

#[test]
fn a_replayed_package_is_refused() {
    let key = EpochKey::generate(b"test").unwrap();
    for newest in [5, 6, u64::MAX] {
        let expected = Expected { pair: PAIR, signer: primary().card(), newest: Some(newest), escrow: None };
        let refused = two_recipients(&key).verify(&expected).unwrap_err();
        assert_eq!(refused, RefusedEpoch::Replayed { epoch: 5, newest });
    }
}

#[test]
fn a_node_that_is_no_recipient_opens_nothing() {
    let verified = receive(&two_recipients(&EpochKey::generate(b"test").unwrap()).encode(), None).unwrap();
    let card = stranger().card().fingerprint();
    assert_eq!(verified.open(stranger()).unwrap_err(), OpenEpochError::OtherRecipient { epoch: 5, card });
    assert!(verified.capsule_for(card).is_none());
}

#[test]
fn a_site_that_wraps_another_key_than_it_commits_to_is_found_out() {
    let (said, wrapped) = (EpochKey::generate(b"1").unwrap(), EpochKey::generate(b"2").unwrap());
    let package = support::lying(&said, &wrapped);
    let verified = receive(&package, None).unwrap();
    assert_eq!(verified.open(secondary()).unwrap_err(), OpenEpochError::OtherKey { epoch: 5 });
}

#[test]
fn swapped_capsules_are_refused() {
    let bytes = two_recipients(&EpochKey::generate(b"test").unwrap()).encode();
    let capsule = KemId::MlKem768P256.capsule_len();
    let mut swapped = bytes.clone();
    let start = bytes.len() - 2 * capsule;
    swapped[start..].rotate_left(capsule);
    let expected = Expected { pair: PAIR, signer: primary().card(), newest: None, escrow: None };
    let refused = SealedEpoch::decode(&swapped).unwrap().verify(&expected).unwrap_err();
    assert_eq!(refused, RefusedEpoch::CapsuleChanged { epoch: 5, role: Role::Secondary });
}

#[test]
fn a_package_cut_short_or_grown_is_refused() {
    let bytes = two_recipients(&EpochKey::generate(b"test").unwrap()).encode();
    for len in 0..bytes.len() {
        assert!(SealedEpoch::decode(&bytes[..len]).is_err(), "{len} bytes were enough");
    }
    let grown = [bytes.as_slice(), &[0]].concat();
    assert_eq!(SealedEpoch::decode(&grown).unwrap_err(), PackageError::Trailing { len: 1 });
    assert!(matches!(SealedEpoch::decode(&[0; CARRIER_LEN + 1]), Err(PackageError::TooLong { .. })));
}

#[test]
fn every_flipped_byte_of_a_package_is_refused() {
    let bytes = two_recipients(&EpochKey::generate(b"test").unwrap()).encode();
    receive(&bytes, None).unwrap();
    for at in 0..bytes.len() {
        for bit in [0x01, 0x80] {
            let mut changed = bytes.clone();
            changed[at] ^= bit;
            assert!(receive(&changed, None).is_err(), "byte {at} may be flipped with {bit:#x}");
        }
    }
}

#[test]
fn the_other_half_of_the_signatures_is_refused() {
    let mut package = two_recipients(&EpochKey::generate(b"test").unwrap()).unproven().clone();
    let signature = p256::ecdsa::Signature::from_slice(&package.signature).unwrap();
    let (r, s) = signature.split_scalars();
    let high = p256::ecdsa::Signature::from_scalars(r.to_bytes(), (-s).to_bytes()).unwrap();
    package.signature = high.to_bytes().into();
    let card = primary().card();
    assert!(card.signing.verify(&package.signed_bytes(), &package.signature).is_err());
    assert!(card.signing.verify(&package.signed_bytes(), &signature.to_bytes().into()).is_ok());
}

#[test]
fn the_largest_package_with_two_hybrid_recipients_fits_its_carrier() {
    let key = EpochKey::generate(b"test").unwrap();
    let plain = two_recipients(&key).encode().len();
    assert_eq!(plain, 2 + 176 + 8 + 2 * 33 + 2 * 32 + 64 + 2 * 1203);

    let label = |at: usize, kind: &str| KeyLabel::new(&format!("{at:02}-{kind}-{}", "x".repeat(23))).unwrap();
    let stacks: Vec<Stack> = (0..16)
        .map(|at| {
            let inner = Layer { suite: Suite::Guest, label: label(at, "inner") };
            Stack::new(&[inner, Layer { suite: Suite::Aes256Gcm, label: label(at, "outer") }]).unwrap()
        })
        .collect();
    let mut terms = terms();
    terms.stacks = StackList::new(&stacks).unwrap();
    let recipients = [(Role::Secondary, secondary().card()), (Role::Own, escrow().card())];
    let most = SealedEpoch::seal(terms.clone(), &key, primary(), &recipients, None).unwrap().encode().len();
    assert_eq!(most, 2 + 176 + 16 * (1 + 2 * 34) + 2 * 33 + 2 * 32 + 64 + 2 * 1203);
    assert!(most <= CARRIER_LEN, "{most}");

    let more = [recipients[0], recipients[1], (Role::Own, primary().card())];
    let refused = SealedEpoch::seal(terms, &key, primary(), &more, None).unwrap_err();
    assert!(matches!(refused, SealEpochError::TooLong { .. }), "{refused}");
}

#[test]
fn unsound_terms_are_refused_when_made() {
    let key = EpochKey::generate(b"test").unwrap();
    let one = [(Role::Secondary, secondary().card())];
    let mut zero = terms();
    zero.epoch = 0;
    let mut late = terms();
    late.start_seq = late.key_seq;
    for (terms, recipients, field) in
        [(zero, &one[..], "epoch"), (late, &one[..], "start_seq"), (terms(), &[][..], "recipients")]
    {
        let refused = SealedEpoch::seal(terms, &key, primary(), recipients, None).unwrap_err();
        assert!(
            matches!(&refused, SealEpochError::Terms(DescriptorError::Field { field: found, .. }) if *found == field),
            "{refused}"
        );
    }
    let twice = [one[0], one[0]];
    let refused = SealedEpoch::seal(terms(), &key, primary(), &twice, None).unwrap_err();
    assert!(matches!(refused, SealEpochError::Terms(DescriptorError::RecipientTwice { .. })), "{refused}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn what_is_written_is_read_and_what_is_read_is_written(descriptor in support::any_descriptor()) {
        let bytes = descriptor.encode();
        let read = Descriptor::decode(&bytes).unwrap();
        prop_assert_eq!(&read, &descriptor);
        prop_assert_eq!(read.encode(), bytes);
    }

    #[test]
    fn no_bytes_make_a_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = SealedEpoch::decode(&bytes);
        let _ = Descriptor::decode(&bytes);
        let _ = Identity::from_stored(&bytes);
    }

    #[test]
    fn whatever_is_read_from_changed_bytes_is_written_back_the_same(
        descriptor in support::any_descriptor(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut bytes = descriptor.encode();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(read) = Descriptor::decode(&bytes) {
            prop_assert_eq!(read.encode(), bytes);
        }
    }
}
