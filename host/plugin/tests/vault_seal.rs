//! Sealing and opening through the public API: what comes back, what is refused, and that both providers agree.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "vault_seal/golden.rs"]
mod golden;
#[path = "vault_seal/support.rs"]
mod support;
#[path = "vault_seal/tamper.rs"]
mod tamper;

use farseal_plugin::vault::guest::GuestLayer;
use farseal_plugin::vault::provider::Provider;
use farseal_plugin::vault::schedule::NonceMask;
use farseal_plugin::vault::seal::{OpenError, Opener, SealError, Sealer};
use farseal_plugin::vault::stack::{Layer, Stack, StackError, StackIndex, StackList, Suite};
use farseal_plugin::vault::unit::{block_count, tags_len};
use proptest::prelude::*;
use support::{BrokenGuest, Record, XorGuest, opener, scope, sealer, stacks};

const ALL_STACKS: &[&str] = &[
    "aes-256-gcm",
    "aes-256-gcm-siv",
    "chacha20-poly1305",
    "chacha20 + aes-256-gcm",
    "chacha20 + aes-256-gcm-siv",
    "guest + aes-256-gcm",
    "guest:mine + chacha20-poly1305",
];

#[test]
fn every_stack_opens_what_it_sealed() {
    for text in ALL_STACKS {
        let mut record = Record::patterned(7, 3 * 4096, 4096);
        let plain = record.body.clone();
        sealer(text, Provider::AwsLc).seal_batch(&mut [record.unit()], Some(&mut XorGuest)).unwrap();
        assert!(record.body != plain, "{text} left the body as it was");
        opener(text, Provider::AwsLc).open_batch(&mut [record.unit()], Some(&mut XorGuest)).unwrap();
        assert!(record.body == plain, "{text} gave other bytes back");
    }
}

#[test]
fn a_batch_may_cross_spans_and_mix_stacks() {
    let list = StackList::new(&["aes-256-gcm", "guest + aes-256-gcm-siv"].map(|text| text.parse().unwrap())).unwrap();
    let border = 1 << 20;
    let mut records: Vec<Record> = [border - 2, border - 1, border, border + 1, 1 << 40]
        .into_iter()
        .map(|seq| Record::patterned(seq, 8192, 4096))
        .collect();
    let plain: Vec<_> = records.iter().map(|record| record.body.clone()).collect();
    for (at, record) in records.iter_mut().enumerate() {
        record.stack = StackIndex(u8::from(at % 3 == 1));
    }
    let key = support::key();
    let mut sealer = Sealer::new(&key, &scope(), list.clone(), Provider::AwsLc);
    let mut opener = Opener::new(&key, &scope(), list, Provider::Portable);
    let mut units: Vec<_> = records.iter_mut().map(Record::unit).collect();
    sealer.seal_batch(&mut units, Some(&mut XorGuest)).unwrap();
    units.reverse();
    opener.open_batch(&mut units, Some(&mut XorGuest)).unwrap();
    let opened: Vec<_> = records.iter().map(|record| record.body.clone()).collect();
    assert!(opened == plain);
}

#[test]
fn one_block_opens_without_its_neighbours() {
    for text in ["aes-256-gcm", "chacha20 + aes-256-gcm", "guest + aes-256-gcm"] {
        let mut record = Record::patterned(9, 4 * 512 + 100, 512);
        let plain = record.body.clone();
        sealer(text, Provider::AwsLc).seal_batch(&mut [record.unit()], Some(&mut XorGuest)).unwrap();
        for block in [0, 2, 4] {
            let mut one = record.only_block(block);
            opener(text, Provider::AwsLc).open_batch(&mut [one.unit()], Some(&mut XorGuest)).unwrap();
            let at = usize::try_from(block).unwrap() * 512;
            assert!(one.body[..] == plain[at..(at + 512).min(plain.len())], "{text}, block {block}");
        }
    }
}

#[test]
fn a_record_without_a_body_is_authenticated() {
    let mut record = Record::patterned(3, 0, 4096);
    assert_eq!(record.tags.len(), 16);
    sealer("aes-256-gcm", Provider::AwsLc).seal_batch(&mut [record.unit()], None).unwrap();
    opener("aes-256-gcm", Provider::AwsLc).open_batch(&mut [record.unit()], None).unwrap();
    record.header[5] ^= 1;
    let refused = opener("aes-256-gcm", Provider::AwsLc).open_batch(&mut [record.unit()], None);
    assert!(matches!(refused, Err(OpenError::NotAuthentic { seq: 3, block: 0 })));
}

#[test]
fn lengths_are_checked_before_anything_is_touched() {
    assert_eq!(block_count(8193, 4096), Some(3));
    assert_eq!(block_count(0, 4096), Some(1));
    assert_eq!((block_count(1, 0), block_count(1, 65_537)), (None, None));
    assert_eq!(tags_len(8193, 4096), Some(48));
    for (body, block_len, tags, first_block) in
        [(4096, 0, 16, 0), (4096, 4096, 15, 0), (4096, 4096, 32, 0), (4096, 70_000, 16, 0), (8192, 4096, 32, u32::MAX)]
    {
        let mut record = Record::patterned(1, body, 4096);
        let plain = record.body.clone();
        (record.block_len, record.first_block) = (block_len, first_block);
        record.tags.resize(tags, 0);
        let refused = sealer("aes-256-gcm", Provider::AwsLc).seal_batch(&mut [record.unit()], None);
        assert!(matches!(refused, Err(SealError::Length(_))), "{refused:?}");
        let refused = opener("aes-256-gcm", Provider::AwsLc).open_batch(&mut [record.unit()], None);
        assert!(matches!(refused, Err(OpenError::Length(_))), "{refused:?}");
        assert!(record.body == plain);
    }
}

#[test]
fn a_sequence_number_seals_once() {
    let mut sealer = sealer("aes-256-gcm", Provider::AwsLc);
    let (mut a, mut b) = (Record::patterned(5, 512, 512), Record::patterned(5, 512, 512));
    let refused = sealer.seal_batch(&mut [a.unit(), b.unit()], None);
    assert!(matches!(refused, Err(SealError::NotAscending { seq: 5, last: 5 })), "{refused:?}");
    sealer.seal_batch(&mut [a.unit()], None).unwrap();
    b.seq = 4;
    let refused = sealer.seal_batch(&mut [b.unit()], None);
    assert!(matches!(refused, Err(SealError::NotAscending { seq: 4, last: 5 })), "{refused:?}");
}

#[test]
fn a_part_of_a_record_is_not_sealed() {
    let mut record = Record::patterned(5, 512, 512);
    record.first_block = 1;
    let refused = sealer("aes-256-gcm", Provider::AwsLc).seal_batch(&mut [record.unit()], None);
    assert!(matches!(refused, Err(SealError::NotWhole { seq: 5, first_block: 1 })), "{refused:?}");
}

#[test]
fn a_guest_layer_needs_its_guest() {
    let mut record = Record::patterned(5, 512, 512);
    let refused = sealer("guest + aes-256-gcm", Provider::AwsLc).seal_batch(&mut [record.unit()], None);
    assert!(matches!(refused, Err(SealError::NoGuest { seq: 5 })));
    let refused = opener("guest + aes-256-gcm", Provider::AwsLc).open_batch(&mut [record.unit()], None);
    assert!(matches!(refused, Err(OpenError::NoGuest { seq: 5 })));
    record.stack = StackIndex(1);
    let refused = sealer("aes-256-gcm", Provider::AwsLc).seal_batch(&mut [record.unit()], None);
    assert!(matches!(refused, Err(SealError::UnknownStack { seq: 5, stack: StackIndex(1) })));
}

#[test]
fn a_guest_that_cannot_undo_itself_is_found_out_and_the_batch_wiped() {
    for (guest, seq) in [(BrokenGuest::AtTheFirst, 1), (BrokenGuest::AtTheLast, 2)] {
        let (mut a, mut b) = (Record::patterned(1, 4096, 512), Record::patterned(2, 4096, 512));
        let mut sealer = sealer("guest + aes-256-gcm", Provider::AwsLc);
        let refused = sealer.seal_batch(&mut [a.unit(), b.unit()], Some(&mut { guest } as &mut dyn GuestLayer));
        assert!(matches!(refused, Err(SealError::GuestNotInverse { seq: found }) if found == seq), "{refused:?}");
        assert!(a.body.iter().chain(&b.body).all(|byte| *byte == 0));
        // Nothing was sealed, so the same numbers may be sealed by a sound instance.
        sealer.seal_batch(&mut [a.unit(), b.unit()], Some(&mut XorGuest)).unwrap();
    }
}

#[test]
fn a_batch_that_a_guest_failed_in_can_be_sealed_again() {
    let list = StackList::new(&["aes-256-gcm", "guest + aes-256-gcm"].map(|text| text.parse().unwrap())).unwrap();
    let mut sealer = Sealer::new(&support::key(), &scope(), list, Provider::AwsLc);
    let (mut a, mut b) = (Record::patterned(1, 512, 512), Record::patterned(2, 512, 512));
    b.stack = StackIndex(1);
    let (plain_a, plain_b) = (a.body.clone(), b.body.clone());
    let refused = sealer.seal_batch(&mut [a.unit(), b.unit()], Some(&mut BrokenGuest::AtTheFirst));
    assert!(matches!(refused, Err(SealError::GuestNotInverse { seq: 2 })), "{refused:?}");
    (a.body, b.body) = (plain_a, plain_b);
    sealer.seal_batch(&mut [a.unit(), b.unit()], Some(&mut XorGuest)).unwrap();
}

#[test]
fn records_without_a_body_pass_a_guest_by() {
    let mut records = [Record::patterned(1, 0, 512), Record::patterned(2, 1024, 512), Record::patterned(3, 0, 512)];
    let plain = records[1].body.clone();
    let mut units: Vec<_> = records.iter_mut().map(Record::unit).collect();
    sealer("guest + aes-256-gcm", Provider::AwsLc).seal_batch(&mut units, Some(&mut XorGuest)).unwrap();
    opener("guest + aes-256-gcm", Provider::AwsLc).open_batch(&mut units, Some(&mut XorGuest)).unwrap();
    assert!(records[1].body == plain);
    let mut bare = Record::patterned(4, 0, 512);
    sealer("guest + aes-256-gcm", Provider::AwsLc).seal_batch(&mut [bare.unit()], Some(&mut XorGuest)).unwrap();
}

#[test]
fn a_stack_is_checked_when_it_is_made() {
    for text in ALL_STACKS {
        assert_eq!(text.parse::<Stack>().unwrap().to_string(), *text);
    }
    type Is = fn(&StackError) -> bool;
    let wrong: &[(&str, Is)] = &[
        ("", |error| matches!(error, StackError::UnknownSuite { .. })),
        ("aes-128-gcm", |error| matches!(error, StackError::UnknownSuite { .. })),
        ("chacha20", |error| matches!(error, StackError::OutermostProvesNothing { suite: Suite::ChaCha20 })),
        ("aes-256-gcm + guest", |error| matches!(error, StackError::OutermostProvesNothing { suite: Suite::Guest })),
        ("aes-256-gcm + aes-256-gcm-siv", |error| matches!(error, StackError::InnerAuthenticates { .. })),
        ("chacha20:k + aes-256-gcm:k", |error| matches!(error, StackError::SharedLabel { .. })),
        ("aes-256-gcm:UPPER", |error| matches!(error, StackError::Label { .. })),
        ("aes-256-gcm:", |error| matches!(error, StackError::Label { .. })),
        ("chacha20 + guest + aes-256-gcm", |error| matches!(error, StackError::Layers { count: 3 })),
    ];
    for (text, is) in wrong {
        let error = text.parse::<Stack>().unwrap_err();
        assert!(is(&error), "{text:?}: {error}");
    }
    assert!(matches!(Stack::new(&[]), Err(StackError::Layers { count: 0 })));
    assert!(matches!(StackList::new(&[]), Err(StackError::Stacks { count: 0 })));
    let gcm = Stack::new(&[Layer::plain(Suite::Aes256Gcm)]).unwrap();
    assert!(matches!(StackList::new(&[gcm, gcm]), Err(StackError::Repeated { at: 1 })));
    assert!(stacks("aes-256-gcm").as_slice() == [gcm]);
}

#[test]
fn suite_numbers_lead_back_to_their_suites() {
    for id in 0..=u8::MAX {
        assert!(Suite::from_id(id).is_none_or(|suite| suite.id() == id));
    }
    assert!(Suite::ALL.into_iter().all(|suite| Suite::from_id(suite.id()) == Some(suite)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn both_providers_seal_the_same_bytes_and_open_each_others(
        stack in prop::sample::select(ALL_STACKS),
        seq in 0..=u64::MAX,
        header in prop::array::uniform32(any::<u8>()),
        body in prop::collection::vec(any::<u8>(), 0..20_000),
        block_len in prop::sample::select(&[512u32, 1000, 4096, 65_536][..]),
    ) {
        let mut a = Record::new(seq, body.clone(), block_len);
        a.header[..32].copy_from_slice(&header);
        let mut b = a.clone();
        sealer(stack, Provider::AwsLc).seal_batch(&mut [a.unit()], Some(&mut XorGuest)).unwrap();
        sealer(stack, Provider::Portable).seal_batch(&mut [b.unit()], Some(&mut XorGuest)).unwrap();
        prop_assert!(a.body == b.body && a.tags == b.tags);
        opener(stack, Provider::Portable).open_batch(&mut [a.unit()], Some(&mut XorGuest)).unwrap();
        opener(stack, Provider::AwsLc).open_batch(&mut [b.unit()], Some(&mut XorGuest)).unwrap();
        prop_assert!(a.body == body && b.body == body);
    }

    #[test]
    fn distinct_places_have_distinct_nonces(
        mask in prop::array::uniform12(any::<u8>()),
        a in (any::<u64>(), any::<u32>()),
        b in (any::<u64>(), any::<u32>()),
        near in (0..4u64, 0..4u32),
    ) {
        let mask = NonceMask(mask);
        let beside = (a.0 ^ near.0, a.1 ^ near.1);
        for other in [b, beside] {
            prop_assert_eq!(a == other, mask.nonce(a.0, a.1) == mask.nonce(other.0, other.1));
        }
    }
}
