//! Sites, terms and descriptors for the tests of epoch packages.

use std::sync::LazyLock;

use farseal::keys::capsule::{Capsule, KemId};
use farseal::keys::card::NodeName;
use farseal::keys::descriptor::{Descriptor, How, Recipient, Role, Terms};
use farseal::keys::fingerprint::Fingerprint;
use farseal::keys::identity::Identity;
use farseal_plugin::vault::epoch_key::EpochKey;
use farseal_plugin::vault::schedule::KeyCheck;
use farseal_plugin::vault::stack::{KeyLabel, Layer, Stack, StackList, Suite};
use proptest::prelude::*;

pub(crate) const PAIR: [u8; 16] = [0x11; 16];

fn made(name: &str, kem: KemId) -> Identity {
    Identity::generate(NodeName::new(name).unwrap(), kem).unwrap()
}

macro_rules! sites {
    ($($name:ident: $kem:ident),*) => {$(
        pub(crate) fn $name() -> &'static Identity {
            static SITE: LazyLock<Identity> = LazyLock::new(|| made(stringify!($name), KemId::$kem));
            &SITE
        }
    )*};
}
sites!(primary: MlKem768P256, secondary: MlKem768P256, escrow: MlKem768P256, stranger: DhP256);

pub(crate) fn terms() -> Terms {
    Terms {
        pair: PAIR,
        generation: 2,
        epoch: 5,
        key_seq: 1000,
        start_seq: 1800,
        incarnation: [0x22; 16],
        how: How::InBand,
        stacks: StackList::from("aes-256-gcm".parse::<Stack>().unwrap()),
        component: [0x33; 32],
        created_ms: 1_790_000_000_000,
        previous: [0x44; 32],
    }
}

/// A package, rightly signed, whose capsule holds another key than it commits to.
pub(crate) fn lying(said: &EpochKey, wrapped: &EpochKey) -> Vec<u8> {
    let mut descriptor = Descriptor {
        terms: terms(),
        key_check: terms().key_check(said),
        recipients: vec![Recipient { role: Role::Secondary, card: secondary().card().fingerprint(), capsule: [0; 32] }],
        signature: [0; 64],
    };
    let capsule = Capsule::seal(&secondary().card().kem, &descriptor.core(), wrapped).unwrap();
    descriptor.recipients[0].capsule = capsule.hash();
    descriptor.signature = primary().sign(&descriptor.signed_bytes());
    let encoded = descriptor.encode();
    let length = u16::try_from(encoded.len()).unwrap().to_be_bytes();
    [length.as_slice(), &encoded, capsule.as_bytes()].concat()
}

prop_compose! {
    fn any_stack(at: usize)(
        outer in prop::sample::select(&[Suite::Aes256Gcm, Suite::Aes256GcmSiv, Suite::ChaCha20Poly1305][..]),
        inner in prop::option::of(prop::sample::select(&[Suite::ChaCha20, Suite::Guest][..])),
        label in "[a-z0-9-]{1,20}",
    ) -> Stack {
        // The index keeps labels apart, within a stack and between stacks.
        let label = |kind: &str| KeyLabel::new(&format!("{label}-{at}-{kind}")).unwrap();
        let inner = inner.map(|suite| Layer { suite, label: label("i") });
        let layers: Vec<Layer> = inner.into_iter().chain([Layer { suite: outer, label: label("o") }]).collect();
        Stack::new(&layers).unwrap()
    }
}

prop_compose! {
    fn any_recipient(at: u8)(
        role in prop::sample::select(&[Role::Own, Role::Secondary, Role::Escrow][..]),
        card in any::<[u8; 31]>(),
        capsule in any::<[u8; 32]>(),
    ) -> Recipient {
        let mut whole = [at; 32];
        whole[1..].copy_from_slice(&card);
        Recipient { role, card: Fingerprint(whole), capsule }
    }
}

fn some_stacks() -> impl Strategy<Value = Vec<Stack>> {
    (1..=16usize).prop_flat_map(|count| (0..count).map(any_stack).collect::<Vec<_>>())
}

fn some_recipients() -> impl Strategy<Value = Vec<Recipient>> {
    (1..=4u8).prop_flat_map(|count| (0..count).map(any_recipient).collect::<Vec<_>>())
}

prop_compose! {
    pub(crate) fn any_descriptor()(
        fixed in any::<([u8; 16], [u8; 16], [u8; 32], [u8; 32], [u8; 32])>(),
        numbers in (any::<u64>(), 1..u64::MAX, 0..u64::MAX, any::<u64>()),
        how in prop::sample::select(&[How::InBand, How::Pause, How::Start, How::Cover][..]),
        gap in 1..1_000_000u64,
        stacks in some_stacks(),
        recipients in some_recipients(),
        signature in prop::array::uniform32(any::<u16>()),
    ) -> Descriptor {
        let (pair, incarnation, component, previous, check) = fixed;
        let (generation, epoch, key_seq, created_ms) = numbers;
        let mut bytes = [0; 64];
        for (to, from) in bytes.chunks_mut(2).zip(signature) {
            to.copy_from_slice(&from.to_be_bytes());
        }
        Descriptor {
            terms: Terms {
                pair, generation, epoch, key_seq, incarnation, how, component, created_ms, previous,
                start_seq: key_seq.saturating_add(gap),
                stacks: StackList::new(&stacks).unwrap(),
            },
            key_check: KeyCheck(check),
            recipients,
            signature: bytes,
        }
    }
}
