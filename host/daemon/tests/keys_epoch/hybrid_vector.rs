//! ML-KEM-768 with P-256 held against a vector of draft-irtf-cfrg-concrete-hybrid-kems (`mlkem768_p256`, the seed of 32 times 01, as of
//! revision defafa2): a capsule that is made by hand from the draft's ciphertext and shared secret opens for the draft's key.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use farseal::keys::capsule::{Capsule, KemId, KemSecret};

use super::hpke_by_hand::{Aead, HYBRID, info_of, schedule, unhex};

const SEED: [u8; 32] = [1; 32];
/// The last 65 bytes of the encapsulation key: the point on P-256. ML-KEM checks its own part in every opening, as it encrypts again.
const POINT: &str = "047a93f1833da6f7c4226f8c05392ba90626e4ed81bc9dff573aa243055f08a567e29577ce8dafa08297e6b04a779bed85
    2b95ec0ac14e04b1cb58eb656455bad9";
const SHARED: &str = "d33a83edb4fb5a7508686ba4ddff001c17ba8890e9e3be067d50c959b512f9be";
const CIPHERTEXT: &str = "
    600ecf4026683898d0e339eeea9ebd437a4a802952bf32bfa326b48eb74946d0cdd5437e70df4b6b7acbf79efe60ddcde985acfd8c2d23775e1ecc54
    eb6ee03dcc9b4aac150172737831adfaf0e63a4782bad2a785b9c39bf5e34640ea3da447efc2a03e23a337ad1f542c32c2eb46f7b88d0bfba87d8efe
    8cd4456e6f21beebcf3dd502b53d537395750ce963d289eff74621545d4a5d9262bd14b3dddd4ef880e65cbe8f2f8aad826f57f727a60aaaeee8c69e
    89af6c539fd4f267c44bee8b5385a460a7c8e4a809959df86c1136ee23e7544cfa7524c6c04ed9ec29aed307b5dfd0108f29294aceeb517a098b8cdb
    ad5911bc75e96258bbf38a20288c6911b2346f842c0943bf8e9c34a0a8e518e92c8761c6efe6b1d3ea8aed9b2c4feacfbf3559f3a5e46e4dfddf8193
    6183d4d1f9c8c1616b14db2057435ad71655d743fad4987a19e821d0ac666ff3e46b7cc0e90b85e1966962279a48afe2e9bbce89c819a8ba52476af0
    74a071495398bd497f4d4f34026025452975cfdaa3e7e183a962bda009108221ecb20d218c42e38774019d2dc32621278b5e88f99b62a9e746d16c16
    91ccf3e7e9185c3c493e7617f451f632c161fbe6d8ac3217f10ed4bfeee47e4960ec4a53e4852ca0241543848422044a67567a83e09d8e74b9d11af1
    7d53c49565ca53deda7c4df076a3e1b6368b1931d81db93e87f75bea6924a321376fe73b5a5b07b80a98dc3ab8d14732540f1b4b7176e274a905d453
    eac1caafe2bfe4e6c904556ca91b01b2302215ab3dfe6b49f46963df632a9e7cb8439cd5ee56a1f8e2cd3faae5d8f3462d0ff931f5038cfa70259d96
    3163d6163ef22b0c32081bff2763e98da87817048d4ce755e5d2b1cfe7d6eeab0fdbe766c95f125537a04bcf99026f9bd5be3b26b9b7614f132f6747
    dd6d96009a85ae6cbb1a14b9231099b67b04d7849875b6492f3b6482f8bdac305f7ec29f28ef4739934c6a7a2800fbdbff6eb2237d6a085ddfab8519
    db1d2b1e63aa6cb9b3b044278947dc3bcd329aa427d13267f93a6cf2aee8a2ab74d4288fe0b676ea85586834ab57e863d4805703eb8bf6e71fbb11a3
    86e7b64a0d661dbd05f5e2924f1419bc799a089d44dda9066c6c503f8c80be8daa99bd48338daeb4911acf19328103c96f40a77ffd827d52294ba21a
    d1d52fc27e8b12ad65887024f41e63fcfe654152676ac363f2377c5b0b437e075897e33dd8d57227fc5a536629efad998a279103150e7d47e4b7d11a
    0d649d146c6560c48c9c0c56c811cfa6f3f62cf717ae571597bc297deed887672d8a8cec2929c2b55b95f26bd5d10ef30c0c4a6295d5ca601538f5a2
    0ac1064d2f4c2a078af1b1629a0c203ad047125eb9dce0d1260eef19cd4ad8ec5d73a01ba23e266cc6dd266c5a81af58ccf1b5ce0440efdd1fe7bb42
    177679b5e5095ffa0d453bc17b8921008531c2d096a3a4a48563370462a59fe1faff2a81603f2d09ca2e0beac44204a4e03aa852745b1747bb6c4242
    06ae093ecb91789704203948060efd681edaf7f1ab49d5f631f1122d2e0cb452a2ce5490497b32df225372b80b86e5a710a64e8b4d92318414a17947
    9b96827f3379de247163949084";

#[test]
fn a_capsule_of_the_drafts_ciphertext_opens_for_the_drafts_key() {
    let secret = KemSecret::from_stored(KemId::MlKem768P256, &SEED).unwrap();
    assert!(secret.public().unwrap().as_bytes().ends_with(&unhex(POINT)));
    let enc = unhex(CIPHERTEXT);
    assert_eq!(enc.len(), 1153);

    let (core, key) = (b"the core of a descriptor", [0x5a; 32]);
    let (seal_key, nonce) = schedule(HYBRID, &Aead(2, 32, &AES_256_GCM), &unhex(SHARED), &info_of(core));
    let sealing = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &seal_key).unwrap());
    let mut sealed = key.to_vec();
    let nonce = Nonce::try_assume_unique_for_key(&nonce).unwrap();
    sealing.seal_in_place_append_tag(nonce, Aad::from(core), &mut sealed).unwrap();
    let capsule = Capsule::decode(&[&HYBRID[..], &enc, &sealed].concat()).unwrap();
    assert!(capsule.open(&secret, core).unwrap().expose() == &key);
}
