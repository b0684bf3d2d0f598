//! What an epoch is, in a fixed and bounded layout that its site signs.
//!
//! ```text
//! core:  "fsed" | version u8 | how u8 | stacks u8 | recipients u8 | pair 16 | generation u64 | epoch u64 |
//!        key_seq u64 | start_seq u64 | incarnation 16 | component 32 | key check 32 | created ms u64 | previous 32 |
//!        each stack: layers u8, each layer: suite u8, label length u8, label |
//!        each recipient: role u8, fingerprint 32
//! descriptor:  core | each recipient: capsule hash 32 | signature 64
//! ```
//!
//! Integers are big-endian. The signature (ECDSA P-256, SHA-256) is over "farseal v1 descriptor" || core || capsule
//! hashes. Exactly one encoding is accepted for every descriptor.

use std::fmt;

use farseal_plugin::vault::epoch_key::EpochKey;
use farseal_plugin::vault::schedule::{EpochSchedule, KeyCheck, KeyScope};
use farseal_plugin::vault::stack::{KeyLabel, Layer, MAX_LAYERS, MAX_STACKS, Stack, StackError, StackList, Suite};
use sha2::{Digest, Sha256};

use super::card::SIGNATURE_LEN;
use super::fingerprint::Fingerprint;
use super::wire::{Reader, Short};

const MAGIC: &[u8; 4] = b"fsed";
const VERSION: u8 = 1;
const SIGNED: &[u8] = b"farseal v1 descriptor";
/// Most recipients of one epoch key.
pub const MAX_RECIPIENTS: usize = 4;

/// How an epoch begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum How {
    /// The key travels in the order of the records, and nothing waits.
    InBand = 1,
    /// The gate was closed until everything under the old key was durable.
    Pause = 2,
    /// The first epoch of a process: nothing is sealed under an epoch of an earlier one.
    Start = 3,
    /// Never: the package travels as cover, and its key is thrown away.
    Cover = 4,
}

impl How {
    const ALL: [Self; 4] = [Self::InBand, Self::Pause, Self::Start, Self::Cover];
}

/// What a recipient needs the key for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Role {
    /// The site that sealed: to open its own records after a restart.
    Own = 1,
    /// The secondary: to open the copy without asking anyone.
    Secondary = 2,
    /// The escrow site: to release it for a recovery.
    Escrow = 3,
}

impl Role {
    const ALL: [Self; 3] = [Self::Own, Self::Secondary, Self::Escrow];
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Own => "own",
            Self::Secondary => "secondary",
            Self::Escrow => "escrow",
        })
    }
}

/// Someone who can open the epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient {
    /// What for.
    pub role: Role,
    /// That of the recipient's card.
    pub card: Fingerprint,
    /// SHA-256 of the recipient's capsule.
    pub capsule: [u8; 32],
}

/// What a site decides about an epoch before its key is wrapped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// The volume pair.
    pub pair: [u8; 16],
    /// The fencing number of the site that seals.
    pub generation: u64,
    /// The epoch's number, from 1.
    pub epoch: u64,
    /// The sequence number of the record that carries the key; 0 when no record does.
    pub key_seq: u64,
    /// The first sequence number sealed under the key; above `key_seq`.
    pub start_seq: u64,
    /// Random for every start of the process that seals.
    pub incarnation: [u8; 16],
    /// How it begins.
    pub how: How,
    /// The stacks that records may name, by index.
    pub stacks: StackList,
    /// SHA-256 of the cipher component that chooses among them.
    pub component: [u8; 32],
    /// When it was made, in milliseconds since 1970, by the site's clock.
    pub created_ms: u64,
    /// [`Descriptor::hash`] of the epoch before, zeroes for the first: a missing epoch shows.
    pub previous: [u8; 32],
}

impl Terms {
    /// What the epoch's keys are derived for.
    #[must_use]
    pub const fn scope(&self) -> KeyScope {
        KeyScope { pair: self.pair, generation: self.generation, epoch: self.epoch, incarnation: self.incarnation }
    }

    /// Whether records of this epoch open only with the component that sealed them.
    #[must_use]
    pub fn needs_layer(&self) -> bool {
        self.stacks.as_slice().iter().any(Stack::needs_guest)
    }

    /// The check value of `key` in this epoch.
    #[must_use]
    pub fn key_check(&self, key: &EpochKey) -> KeyCheck {
        EpochSchedule::new(key, &self.scope()).key_check()
    }
}

/// What an epoch is. Reading one proves nothing: see [`super::package`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// What the site decided.
    pub terms: Terms,
    /// The check value of the epoch key.
    pub key_check: KeyCheck,
    /// Who can open it.
    pub recipients: Vec<Recipient>,
    /// The site's.
    pub signature: [u8; SIGNATURE_LEN],
}

/// Why bytes are no descriptor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DescriptorError {
    /// Fewer bytes than it needs.
    #[error("the descriptor ends after {have} bytes, in a field of {needed}")]
    CutShort {
        /// Bytes before the field.
        have: usize,
        /// Bytes that the field needs.
        needed: usize,
    },
    /// More bytes than it has.
    #[error("the descriptor has {len} bytes too many")]
    Trailing {
        /// How many.
        len: usize,
    },
    /// Something else, or of a later version.
    #[error("this is no epoch descriptor of version {VERSION}")]
    Format,
    /// A field with a value that it cannot have.
    #[error("descriptor field {field} cannot be {value}")]
    Field {
        /// Which.
        field: &'static str,
        /// What it holds.
        value: u64,
    },
    /// A label that is not text.
    #[error("descriptor: a key label is not text")]
    LabelNotText,
    /// A stack that is none.
    #[error("descriptor: {0}")]
    Stack(#[from] StackError),
    /// The same recipient twice.
    #[error("descriptor: {card} is a recipient twice")]
    RecipientTwice {
        /// Whose card.
        card: Fingerprint,
    },
}

impl From<Short> for DescriptorError {
    fn from(short: Short) -> Self {
        Self::CutShort { have: short.at, needed: short.needed }
    }
}

/// The part of a descriptor that capsules are bound to.
pub(super) fn encode_core(terms: &Terms, check: &KeyCheck, recipients: &[(Role, Fingerprint)]) -> Vec<u8> {
    let count = |len: usize| u8::try_from(len).unwrap_or(u8::MAX);
    let stacks = terms.stacks.as_slice();
    let mut core = Vec::with_capacity(1024);
    core.extend_from_slice(MAGIC);
    core.extend_from_slice(&[VERSION, terms.how as u8, count(stacks.len()), count(recipients.len())]);
    core.extend_from_slice(&terms.pair);
    for number in [terms.generation, terms.epoch, terms.key_seq, terms.start_seq] {
        core.extend_from_slice(&number.to_be_bytes());
    }
    core.extend_from_slice(&terms.incarnation);
    core.extend_from_slice(&terms.component);
    core.extend_from_slice(&check.0);
    core.extend_from_slice(&terms.created_ms.to_be_bytes());
    core.extend_from_slice(&terms.previous);
    for stack in stacks {
        core.push(count(stack.layers().count()));
        for layer in stack.layers() {
            let label = layer.label.as_str().as_bytes();
            core.extend_from_slice(&[layer.suite.id(), count(label.len())]);
            core.extend_from_slice(label);
        }
    }
    for (role, card) in recipients {
        core.push(*role as u8);
        core.extend_from_slice(&card.0);
    }
    core
}

/// What is signed: the domain, the core and the capsules' hashes.
pub(super) fn signed_bytes(core: &[u8], capsules: impl Iterator<Item = [u8; 32]>) -> Vec<u8> {
    let mut signed = [SIGNED, core].concat();
    capsules.for_each(|hash| signed.extend_from_slice(&hash));
    signed
}

/// The rules that hold between fields, the same for what is made and what is read.
pub(super) fn check_terms(terms: &Terms, cards: &[Fingerprint]) -> Result<(), DescriptorError> {
    let refuse = |field, value| Err(DescriptorError::Field { field, value });
    if terms.epoch == 0 {
        return refuse("epoch", terms.epoch);
    }
    if terms.start_seq <= terms.key_seq {
        return refuse("start_seq", terms.start_seq);
    }
    if !(1..=MAX_RECIPIENTS).contains(&cards.len()) {
        return refuse("recipients", u64::try_from(cards.len()).unwrap_or(u64::MAX));
    }
    for (at, card) in cards.iter().enumerate() {
        if cards.iter().take(at).any(|earlier| earlier == card) {
            return Err(DescriptorError::RecipientTwice { card: *card });
        }
    }
    Ok(())
}

impl Descriptor {
    /// The descriptor without the capsules' hashes and the signature: what the capsules are bound to.
    #[must_use]
    pub fn core(&self) -> Vec<u8> {
        let recipients: Vec<_> = self.recipients.iter().map(|recipient| (recipient.role, recipient.card)).collect();
        encode_core(&self.terms, &self.key_check, &recipients)
    }

    /// What the signature is over.
    #[must_use]
    pub fn signed_bytes(&self) -> Vec<u8> {
        signed_bytes(&self.core(), self.recipients.iter().map(|recipient| recipient.capsule))
    }

    /// Names this descriptor, as the next one's `previous` does: SHA-256 of what is signed.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.signed_bytes()).into()
    }

    /// All of it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.core();
        self.recipients.iter().for_each(|recipient| bytes.extend_from_slice(&recipient.capsule));
        bytes.extend_from_slice(&self.signature);
        bytes
    }

    /// Reads a descriptor, all of `bytes`.
    ///
    /// # Errors
    /// [`DescriptorError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DescriptorError> {
        let mut reader = Reader::new(bytes);
        if reader.array()? != *MAGIC || reader.u8()? != VERSION {
            return Err(DescriptorError::Format);
        }
        let how = one_of("how", reader.u8()?, How::ALL, |how| how as u8)?;
        let stacks = bounded("stacks", reader.u8()?, MAX_STACKS)?;
        let recipients = bounded("recipients", reader.u8()?, MAX_RECIPIENTS)?;
        let (pair, generation, epoch) = (reader.array()?, reader.u64()?, reader.u64()?);
        let (key_seq, start_seq, incarnation) = (reader.u64()?, reader.u64()?, reader.array()?);
        let (component, check) = (reader.array()?, KeyCheck(reader.array()?));
        let (created_ms, previous) = (reader.u64()?, reader.array()?);
        let stacks = (0..stacks).map(|_| read_stack(&mut reader)).collect::<Result<Vec<_>, _>>()?;
        let stacks = StackList::new(&stacks)?;
        let terms = Terms {
            pair,
            generation,
            epoch,
            key_seq,
            start_seq,
            incarnation,
            how,
            stacks,
            component,
            created_ms,
            previous,
        };
        let recipients = read_recipients(&mut reader, recipients)?;
        let signature = reader.array()?;
        if !reader.rest().is_empty() {
            return Err(DescriptorError::Trailing { len: reader.rest().len() });
        }
        check_terms(&terms, &recipients.iter().map(|recipient| recipient.card).collect::<Vec<_>>())?;
        Ok(Self { terms, key_check: check, recipients, signature })
    }
}

fn read_stack(reader: &mut Reader<'_>) -> Result<Stack, DescriptorError> {
    let layers = bounded("layers", reader.u8()?, MAX_LAYERS)?;
    let layers = (0..layers).map(|_| read_layer(reader)).collect::<Result<Vec<_>, _>>()?;
    Ok(Stack::new(&layers)?)
}

fn read_layer(reader: &mut Reader<'_>) -> Result<Layer, DescriptorError> {
    let id = reader.u8()?;
    let suite = Suite::from_id(id).ok_or(DescriptorError::Field { field: "suite", value: id.into() })?;
    let length = usize::from(reader.u8()?);
    let label = std::str::from_utf8(reader.bytes(length)?).map_err(|_| DescriptorError::LabelNotText)?;
    Ok(Layer { suite, label: KeyLabel::new(label)? })
}

fn read_recipients(reader: &mut Reader<'_>, count: usize) -> Result<Vec<Recipient>, DescriptorError> {
    let mut recipients = Vec::with_capacity(count);
    for _ in 0..count {
        let role = one_of("role", reader.u8()?, Role::ALL, |role| role as u8)?;
        recipients.push(Recipient { role, card: Fingerprint(reader.array()?), capsule: [0; 32] });
    }
    for recipient in &mut recipients {
        recipient.capsule = reader.array()?;
    }
    Ok(recipients)
}

fn one_of<T: Copy, const N: usize>(
    field: &'static str,
    byte: u8,
    all: [T; N],
    id: fn(T) -> u8,
) -> Result<T, DescriptorError> {
    all.into_iter().find(|value| id(*value) == byte).ok_or(DescriptorError::Field { field, value: byte.into() })
}

fn bounded(field: &'static str, byte: u8, most: usize) -> Result<usize, DescriptorError> {
    let count = usize::from(byte);
    if (1..=most).contains(&count) { Ok(count) } else { Err(DescriptorError::Field { field, value: byte.into() }) }
}
