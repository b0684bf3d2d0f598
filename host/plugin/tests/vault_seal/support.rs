//! Records, keys and stand-in components for the vault's tests.

use farseal_plugin::vault::epoch_key::EpochKey;
use farseal_plugin::vault::guest::{GuestFault, GuestLayer, GuestUnit};
use farseal_plugin::vault::provider::Provider;
use farseal_plugin::vault::schedule::KeyScope;
use farseal_plugin::vault::seal::{Opener, Sealer};
use farseal_plugin::vault::stack::{Stack, StackIndex, StackList};
use farseal_plugin::vault::unit::{HEADER_LEN, TAG_LEN, Unit, tags_len};
use zeroize::Zeroizing;

pub(crate) fn key() -> EpochKey {
    EpochKey::from_unwrapped(&Zeroizing::new([0x42; 32]))
}

pub(crate) fn scope() -> KeyScope {
    KeyScope { pair: [1; 16], generation: 2, epoch: 3, incarnation: [4; 16] }
}

pub(crate) fn stacks(text: &str) -> StackList {
    StackList::from(text.parse::<Stack>().unwrap())
}

pub(crate) fn sealer(stack: &str, provider: Provider) -> Sealer {
    Sealer::new(&key(), &scope(), stacks(stack), provider)
}

pub(crate) fn opener(stack: &str, provider: Provider) -> Opener {
    Opener::new(&key(), &scope(), stacks(stack), provider)
}

/// A record that owns its bytes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Record {
    pub(crate) header: [u8; HEADER_LEN],
    pub(crate) seq: u64,
    pub(crate) stack: StackIndex,
    pub(crate) block_len: u32,
    pub(crate) first_block: u32,
    pub(crate) body: Vec<u8>,
    pub(crate) tags: Vec<u8>,
}

impl Record {
    pub(crate) fn new(seq: u64, body: Vec<u8>, block_len: u32) -> Self {
        let tags = vec![0; tags_len(body.len(), block_len).unwrap()];
        let mut header = [0; HEADER_LEN];
        header[..8].copy_from_slice(&seq.to_be_bytes());
        Self { header, seq, stack: StackIndex(0), block_len, first_block: 0, body, tags }
    }

    pub(crate) fn patterned(seq: u64, len: usize, block_len: u32) -> Self {
        let body = (0..len).map(|at| u8::try_from(at * 7 % 251).unwrap()).collect();
        Self::new(seq, body, block_len)
    }

    pub(crate) fn unit(&mut self) -> Unit<'_> {
        Unit {
            header: &self.header,
            seq: self.seq,
            stack: self.stack,
            block_len: self.block_len,
            first_block: self.first_block,
            body: &mut self.body,
            beside: 0,
            tags: &mut self.tags,
        }
    }

    pub(crate) fn only_block(&self, block: u32) -> Self {
        let (index, len) = (usize::try_from(block).unwrap(), usize::try_from(self.block_len).unwrap());
        Self {
            first_block: block,
            body: self.body.chunks(len).nth(index).unwrap().to_vec(),
            tags: self.tags.chunks(TAG_LEN).nth(index).unwrap().to_vec(),
            ..self.clone()
        }
    }
}

/// A stand-in for a component: XORs each block with subkey and nonce.
#[derive(Debug)]
pub(crate) struct XorGuest;

impl XorGuest {
    fn apply(subkey: &[u8; 32], units: &mut [GuestUnit<'_>]) {
        for unit in units {
            let block_len = usize::try_from(unit.block_len).unwrap();
            assert!(!unit.body.is_empty(), "a record without a body came by");
            assert_eq!(unit.blocks(), unit.body.len().div_ceil(block_len), "a nonce for each block");
            for (block, nonce) in unit.body.chunks_mut(block_len).zip(unit.nonces.chunks(12)) {
                for (at, byte) in block.iter_mut().enumerate() {
                    *byte ^= subkey[at % 32] ^ nonce[at % 12] ^ 0x55;
                }
            }
        }
    }
}

impl GuestLayer for XorGuest {
    fn component(&self) -> [u8; 32] {
        [9; 32]
    }
    fn seal(&mut self, subkey: &[u8; 32], units: &mut [GuestUnit<'_>]) -> Result<(), GuestFault> {
        Self::apply(subkey, units);
        Ok(())
    }
    fn open(&mut self, subkey: &[u8; 32], units: &mut [GuestUnit<'_>]) -> Result<(), GuestFault> {
        Self::apply(subkey, units);
        Ok(())
    }
}

/// A component that loses a bit when it seals.
#[derive(Debug, Clone, Copy)]
pub(crate) enum BrokenGuest {
    AtTheFirst,
    AtTheLast,
}

impl GuestLayer for BrokenGuest {
    fn component(&self) -> [u8; 32] {
        [9; 32]
    }
    fn seal(&mut self, subkey: &[u8; 32], units: &mut [GuestUnit<'_>]) -> Result<(), GuestFault> {
        XorGuest::apply(subkey, units);
        let byte = match self {
            Self::AtTheFirst => units.first_mut().and_then(|unit| unit.body.first_mut()),
            Self::AtTheLast => units.last_mut().and_then(|unit| unit.body.last_mut()),
        };
        *byte.unwrap() ^= 1;
        Ok(())
    }
    fn open(&mut self, subkey: &[u8; 32], units: &mut [GuestUnit<'_>]) -> Result<(), GuestFault> {
        XorGuest::apply(subkey, units);
        Ok(())
    }
}
