//! RFC 9180 in base mode for DHKEM(P-256, HKDF-SHA256), HKDF-SHA256, AES-256-GCM, written from the text of the RFC on the
//! p256 crate, held against the RFC's own vectors, and then against the crate that capsules are made with.

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, Algorithm, LessSafeKey, Nonce, UnboundKey};
use farseal::keys::capsule::{Capsule, KemId, KemSecret};
use farseal_plugin::vault::epoch_key::EpochKey;
use hkdf::Hkdf;
use p256::elliptic_curve::sec1::ToSec1Point;
use p256::{PublicKey, SecretKey};
use sha2::{Digest, Sha256};

/// The registry's numbers of the mechanisms.
const KEM: [u8; 2] = [0x00, 0x10];
pub(crate) const HYBRID: [u8; 2] = [0x00, 0x50];
const KDF: [u8; 2] = [0x00, 0x01];

/// An AEAD of RFC 9180 section 7.3: its number, key length and algorithm.
pub(crate) struct Aead(pub(crate) u8, pub(crate) usize, pub(crate) &'static Algorithm);

fn extract(suite: &[u8], salt: &[u8], label: &[u8], ikm: &[u8]) -> Vec<u8> {
    let labeled = [b"HPKE-v1", suite, label, ikm].concat();
    Hkdf::<Sha256>::extract(Some(salt), &labeled).0.to_vec()
}

fn expand(suite: &[u8], prk: &[u8], label: &[u8], info: &[u8], len: usize) -> Vec<u8> {
    let length = u16::try_from(len).unwrap().to_be_bytes();
    let labeled = [length.as_slice(), b"HPKE-v1", suite, label, info].concat();
    let mut out = vec![0; len];
    Hkdf::<Sha256>::from_prk(prk).unwrap().expand(&labeled, &mut out).unwrap();
    out
}

/// Section 4.1, `Decap`.
fn decapsulate(enc: &[u8], secret: &SecretKey) -> Vec<u8> {
    let suite = [b"KEM".as_slice(), &KEM].concat();
    let ephemeral = PublicKey::from_sec1_bytes(enc).unwrap();
    let shared = p256::ecdh::diffie_hellman(secret.to_nonzero_scalar(), ephemeral.as_affine());
    let context = [enc, secret.public_key().to_sec1_point(false).as_bytes()].concat();
    let prk = extract(&suite, b"", b"eae_prk", shared.raw_secret_bytes());
    expand(&suite, &prk, b"shared_secret", &context, 32)
}

/// Section 5.1, `KeySchedule` in mode_base: key and base nonce.
pub(crate) fn schedule(kem: [u8; 2], aead: &Aead, shared: &[u8], info: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let suite = [b"HPKE".as_slice(), &kem, &KDF, &[0, aead.0]].concat();
    let psk_id_hash = extract(&suite, b"", b"psk_id_hash", b"");
    let info_hash = extract(&suite, b"", b"info_hash", info);
    let context = [&[0], psk_id_hash.as_slice(), &info_hash].concat();
    let secret = extract(&suite, shared, b"secret", b"");
    let key = expand(&suite, &secret, b"key", &context, aead.1);
    (key, expand(&suite, &secret, b"base_nonce", &context, 12))
}

/// Section 6.1, `OpenBase`: the first message of a context, whose nonce is the base nonce.
fn open(aead: &Aead, enc: &[u8], secret: &SecretKey, info: &[u8], aad: &[u8], sealed: &[u8]) -> Vec<u8> {
    let (key, nonce) = schedule(KEM, aead, &decapsulate(enc, secret), info);
    let key = LessSafeKey::new(UnboundKey::new(aead.2, &key).unwrap());
    let mut opened = sealed.to_vec();
    let nonce = Nonce::try_assume_unique_for_key(&nonce).unwrap();
    key.open_in_place(nonce, Aad::from(aad), &mut opened).unwrap().to_vec()
}

pub(crate) fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        text.chars().filter(|c| !c.is_whitespace()).map(|c| u8::try_from(c.to_digit(16).unwrap()).unwrap()).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// What a capsule is bound to besides its associated data.
pub(crate) fn info_of(core: &[u8]) -> Vec<u8> {
    [b"farseal v1 capsule".as_slice(), &Sha256::digest(core)].concat()
}

/// RFC 9180 appendix A.3.1: DHKEM(P-256, HKDF-SHA256), HKDF-SHA256, AES-128-GCM, base mode, encryption 0.
#[test]
fn the_hand_written_hpke_gives_the_values_of_the_rfc() {
    let aead = Aead(1, 16, &AES_128_GCM);
    let secret =
        SecretKey::from_slice(&unhex("f3ce7fdae57e1a310d87f1ebbde6f328be0a99cdbcadf4d6589cf29de4b8ffd2")).unwrap();
    let enc = unhex(
        "04a92719c6195d5085104f469a8b9814d5838ff72b60501e2c4466e5e67b325ac98536d7b61a1af4b78e5b7f951c0900be863c403ce65c9b
         fcb9382657222d18c4",
    );
    let info = unhex("4f6465206f6e2061204772656369616e2055726e");
    let shared = decapsulate(&enc, &secret);
    assert_eq!(shared, unhex("c0d26aeab536609a572b07695d933b589dcf363ff9d93c93adea537aeabb8cb8"));
    let (key, nonce) = schedule(KEM, &aead, &shared, &info);
    assert_eq!(key, unhex("868c066ef58aae6dc589b6cfdd18f97e"));
    assert_eq!(nonce, unhex("4e0bc5018beba4bf004cca59"));
    let sealed = unhex("5ad590bb8baa577f8619db35a36311226a896e7342a6d836d8b7bcd2f20b6c7f9076ac232e3ab2523f39513434");
    let opened = open(&aead, &enc, &secret, &info, &unhex("436f756e742d30"), &sealed);
    assert_eq!(opened, unhex("4265617574792069732074727574682c20747275746820626561757479"));
}

#[test]
fn the_hand_written_hpke_opens_a_capsule() {
    let scalar = [0x52; 32];
    let recipient = KemSecret::from_stored(KemId::DhP256, &scalar).unwrap();
    let key = EpochKey::generate(b"test").unwrap();
    let core = b"the core of a descriptor";
    let capsule = Capsule::seal(&recipient.public().unwrap(), core, &key).unwrap();
    let (enc, sealed) = capsule.as_bytes()[2..].split_at(65);
    let info = info_of(core);
    let secret = SecretKey::from_slice(&scalar).unwrap();
    assert!(open(&Aead(2, 32, &AES_256_GCM), enc, &secret, &info, core, sealed) == key.expose());
}
