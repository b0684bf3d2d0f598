//! Whatever is changed, moved or taken from elsewhere is refused and named, and nothing of the batch is served.

use farseal_plugin::vault::epoch_key::EpochKey;
use farseal_plugin::vault::provider::Provider;
use farseal_plugin::vault::schedule::{EpochSchedule, KeyScope};
use farseal_plugin::vault::seal::{OpenError, Opener};

use super::support::{Record, XorGuest, key, opener, scope, sealer, stacks};

const STACKS: [&str; 4] = ["aes-256-gcm", "aes-256-gcm-siv", "chacha20 + chacha20-poly1305", "guest + aes-256-gcm"];

fn sealed(stack: &str, seq: u64, fill: u8) -> Record {
    let mut record = Record::new(seq, vec![fill; 3 * 64], 64);
    sealer(stack, Provider::AwsLc).seal_batch(&mut [record.unit()], Some(&mut XorGuest)).unwrap();
    record
}

/// Opens with `opener` and says which block was refused; checks that nothing was left to serve.
fn refused_by(mut opener: Opener, record: &mut Record) -> Option<(u64, u32)> {
    match opener.open_batch(&mut [record.unit()], Some(&mut XorGuest)) {
        Ok(()) => None,
        Err(OpenError::NotAuthentic { seq, block }) => {
            assert!(record.body.iter().all(|byte| *byte == 0), "a refused body was left behind");
            Some((seq, block))
        }
        Err(other) => panic!("{other}"),
    }
}

fn refused(stack: &str, provider: Provider, record: &mut Record) -> Option<(u64, u32)> {
    refused_by(opener(stack, provider), record)
}

#[test]
fn every_flipped_byte_is_refused() {
    for stack in STACKS {
        let record = sealed(stack, 8, 0xEE);
        for provider in [Provider::AwsLc, Provider::Portable] {
            assert_eq!(refused(stack, provider, &mut record.clone()), None);
            for at in 0..record.header.len() {
                let mut changed = record.clone();
                changed.header[at] ^= 0x80;
                assert_eq!(refused(stack, provider, &mut changed), Some((8, 0)), "{stack}: header byte {at}");
            }
            for at in 0..record.body.len() {
                let mut changed = record.clone();
                changed.body[at] ^= 1;
                let block = u32::try_from(at / 64).unwrap();
                assert_eq!(refused(stack, provider, &mut changed), Some((8, block)), "{stack}: body byte {at}");
            }
            for at in 0..record.tags.len() {
                let mut changed = record.clone();
                changed.tags[at] ^= 1;
                let block = u32::try_from(at / 16).unwrap();
                assert_eq!(refused(stack, provider, &mut changed), Some((8, block)), "{stack}: tag byte {at}");
            }
        }
    }
}

#[test]
fn moved_blocks_and_records_are_refused() {
    for stack in STACKS {
        let record = sealed(stack, 8, 0xEE);

        let mut swapped = record.clone();
        swapped.body[..128].rotate_left(64);
        swapped.tags[..32].rotate_left(16);
        assert_eq!(refused(stack, Provider::AwsLc, &mut swapped), Some((8, 0)), "{stack}: blocks swapped");

        let mut moved = record.only_block(1);
        moved.first_block = 2;
        assert_eq!(refused(stack, Provider::AwsLc, &mut moved), Some((8, 2)), "{stack}: block renumbered");

        let mut cut = record.only_block(0);
        cut.body.truncate(32);
        assert_eq!(refused(stack, Provider::AwsLc, &mut cut), Some((8, 0)), "{stack}: block cut short");

        for seq in [7, 9, 8 + (1 << 20)] {
            let mut replayed = record.clone();
            replayed.seq = seq;
            assert_eq!(refused(stack, Provider::AwsLc, &mut replayed), Some((seq, 0)), "{stack}: as {seq}");
        }

        let other = sealed(stack, 9, 0xEE);
        let mut spliced = Record { body: other.body, tags: other.tags, ..record };
        assert_eq!(refused(stack, Provider::AwsLc, &mut spliced), Some((8, 0)), "{stack}: another record's body");
    }
}

#[test]
fn another_scope_or_key_opens_nothing_and_has_another_check_value() {
    let home = scope();
    let scopes = [
        KeyScope { pair: [2; 16], ..home },
        KeyScope { generation: 3, ..home },
        KeyScope { epoch: 4, ..home },
        KeyScope { incarnation: [5; 16], ..home },
    ];
    let check = EpochSchedule::new(&key(), &home).key_check();
    for stack in STACKS {
        for scope in &scopes {
            let mut record = sealed(stack, 8, 0xEE);
            let opener = Opener::new(&key(), scope, stacks(stack), Provider::AwsLc);
            assert!(opener.key_check() != check);
            assert_eq!(refused_by(opener, &mut record), Some((8, 0)), "{stack}: {scope:?}");
        }
        let mut record = sealed(stack, 8, 0xEE);
        let other = EpochKey::generate(b"another").unwrap();
        let opener = Opener::new(&other, &home, stacks(stack), Provider::AwsLc);
        assert!(opener.key_check() != check);
        assert_eq!(refused_by(opener, &mut record), Some((8, 0)), "{stack}: another key");
    }
}

#[test]
fn another_suite_or_label_opens_nothing() {
    for stack in ["aes-256-gcm-siv", "chacha20-poly1305", "aes-256-gcm:other"] {
        let mut record = sealed("aes-256-gcm", 8, 0xEE);
        assert_eq!(refused(stack, Provider::AwsLc, &mut record), Some((8, 0)), "opened as {stack}");
    }
}

#[test]
fn one_bad_record_leaves_nothing_of_its_batch_behind() {
    let (mut good, mut bad) = (sealed("aes-256-gcm", 8, 0xEE), sealed("aes-256-gcm", 9, 0xEE));
    bad.body[100] ^= 1;
    let opened = opener("aes-256-gcm", Provider::AwsLc).open_batch(&mut [good.unit(), bad.unit()], None);
    assert!(matches!(opened, Err(OpenError::NotAuthentic { seq: 9, block: 1 })));
    assert!(good.body.iter().all(|byte| *byte == 0));
}
