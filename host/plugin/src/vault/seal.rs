//! Sealing and opening whole batches in place, each block under a nonce made from its place in the order.

mod by_guest;

use std::fmt;

use zeroize::Zeroize;

use super::epoch_key::EpochKey;
use super::guest::{GuestFault, GuestLayer};
use super::provider::{AeadKey, Provider, aead_key, chacha20};
use super::schedule::{EpochSchedule, KeyCheck, KeyScope, LayerKey, NonceMask, Span};
use super::stack::{Stack, StackIndex, StackList, Suite};
use super::unit::{BadLength, BlockAad, Tags, Unit};

/// Seals records under one epoch key. One for each worker: it keeps the expanded keys of the span it is in.
pub struct Sealer {
    keys: EpochKeys,
    last: Option<u64>,
}

/// Opens records that one epoch key sealed. One for each worker.
pub struct Opener {
    keys: EpochKeys,
}

/// Why a batch was not sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// Lengths that contradict each other; nothing was changed.
    #[error(transparent)]
    Length(#[from] BadLength),
    /// A stack that the epoch does not have; nothing was changed.
    #[error("record {seq} asks for stack {}, which its epoch does not have", stack.0)]
    UnknownStack {
        /// The record.
        seq: u64,
        /// What it asked for.
        stack: StackIndex,
    },
    /// Part of a record; nothing was changed.
    #[error("record {seq} begins with block {first_block}; a record is sealed once and whole")]
    NotWhole {
        /// The record.
        seq: u64,
        /// Where it begins.
        first_block: u32,
    },
    /// A sequence number at or below one that this sealer used: sealing it would repeat a nonce. Nothing was changed.
    #[error("record {seq} comes after {last} was sealed; a sequence number seals once, in rising order")]
    NotAscending {
        /// The record.
        seq: u64,
        /// The highest number sealed so far.
        last: u64,
    },
    /// A guest layer without a component to compute it; nothing was changed.
    #[error("record {seq} needs the component of its guest layer, and none is loaded")]
    NoGuest {
        /// The record.
        seq: u64,
    },
    /// The component failed; the batch was wiped.
    #[error(transparent)]
    Guest(#[from] GuestFault),
    /// The component cannot open what it sealed; the batch was wiped.
    #[error("the cipher component does not open what it sealed (record {seq}); the batch was not sealed")]
    GuestNotInverse {
        /// The record of the sample.
        seq: u64,
    },
    /// The outermost layer refused a block; the batch was wiped.
    #[error("record {seq}, block {block}: the suite refused to seal it")]
    Refused {
        /// The record.
        seq: u64,
        /// The block's index in the record.
        block: u32,
    },
}

/// Why a batch was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Lengths that contradict each other; nothing was changed.
    #[error(transparent)]
    Length(#[from] BadLength),
    /// A stack that the epoch does not have; nothing was changed.
    #[error("record {seq} names stack {}, which its epoch does not have", stack.0)]
    UnknownStack {
        /// The record.
        seq: u64,
        /// What it names.
        stack: StackIndex,
    },
    /// A guest layer without a component to compute it; nothing was changed.
    #[error("record {seq} needs the component of its guest layer, and none is loaded")]
    NoGuest {
        /// The record.
        seq: u64,
    },
    /// A block is not what was sealed at this place under this key; the batch was wiped.
    #[error("record {seq}, block {block} is not authentic")]
    NotAuthentic {
        /// The record.
        seq: u64,
        /// The block's index in the record.
        block: u32,
    },
    /// The component failed; the batch was wiped.
    #[error(transparent)]
    Guest(#[from] GuestFault),
}

impl Sealer {
    /// A sealer for one epoch.
    #[must_use]
    pub fn new(key: &EpochKey, scope: &KeyScope, stacks: StackList, provider: Provider) -> Self {
        Self { keys: EpochKeys::new(key, scope, stacks, provider), last: None }
    }

    /// The check value of the epoch key in its scope, as the descriptor publishes it.
    #[must_use]
    pub fn key_check(&self) -> KeyCheck {
        self.keys.schedule.key_check()
    }

    /// Seals every unit in place and writes its tags.
    ///
    /// Sequence numbers rise within a batch and from batch to batch of one sealer. `guest` computes guest layers and
    /// may be `None` where no unit's stack has one.
    ///
    /// # Errors
    /// [`SealError`]. What it says of wiping holds for the bodies and tags of the whole batch, so that bytes that are half
    /// sealed can be neither sent nor stored: seal a copy of what must not be lost.
    pub fn seal_batch(&mut self, units: &mut [Unit<'_>], guest: Option<&mut dyn GuestLayer>) -> Result<(), SealError> {
        let mut last = self.last;
        for unit in &*units {
            unit.checked_block_len()?;
            let (seq, stack) = (unit.seq, unit.stack);
            let found = self.keys.stacks.get(stack).ok_or(SealError::UnknownStack { seq, stack })?;
            if found.needs_guest() && guest.is_none() {
                return Err(SealError::NoGuest { seq });
            }
            if unit.first_block != 0 {
                return Err(SealError::NotWhole { seq, first_block: unit.first_block });
            }
            if let Some(last) = last.filter(|last| seq <= *last) {
                return Err(SealError::NotAscending { seq, last });
            }
            last = Some(seq);
        }
        let sealed = self.seal_checked(units, guest);
        if sealed.is_err() {
            wipe(units);
        }
        sealed
    }

    fn seal_checked(&mut self, units: &mut [Unit<'_>], guest: Option<&mut dyn GuestLayer>) -> Result<(), SealError> {
        let component = guest.as_ref().map(|guest| guest.component());
        // Components first, for the whole batch: one that fails has used up no number, and the batch can be tried again.
        if let Some(guest) = guest {
            for run in units.chunk_by_mut(same_keys) {
                let keys = self.keys.of_run(run, component)?;
                if let Some(key) = &keys.guest {
                    by_guest::seal(run, key, guest)?;
                }
            }
        }
        // From here on the numbers are used up, whatever happens.
        self.last = units.last().map(|unit| unit.seq).or(self.last);
        for run in units.chunk_by_mut(same_keys) {
            let keys = self.keys.of_run(run, component)?;
            for unit in run {
                keys.seal_unit(unit)?;
            }
        }
        Ok(())
    }
}

impl Opener {
    /// An opener for one epoch.
    #[must_use]
    pub fn new(key: &EpochKey, scope: &KeyScope, stacks: StackList, provider: Provider) -> Self {
        Self { keys: EpochKeys::new(key, scope, stacks, provider) }
    }

    /// The check value of the epoch key in its scope, to compare with the descriptor's.
    #[must_use]
    pub fn key_check(&self) -> KeyCheck {
        self.keys.schedule.key_check()
    }

    /// Opens every unit in place. Units may be whole records or runs of a record's blocks, in any order.
    ///
    /// # Errors
    /// [`OpenError`]. Unless it says that nothing was changed, the bodies of the whole batch are wiped, so that
    /// nothing unproven can be served: open a copy, or one unit at a time, to keep its neighbours.
    pub fn open_batch(&mut self, units: &mut [Unit<'_>], guest: Option<&mut dyn GuestLayer>) -> Result<(), OpenError> {
        for unit in &*units {
            unit.checked_block_len()?;
            let (seq, stack) = (unit.seq, unit.stack);
            let found = self.keys.stacks.get(stack).ok_or(OpenError::UnknownStack { seq, stack })?;
            if found.needs_guest() && guest.is_none() {
                return Err(OpenError::NoGuest { seq });
            }
        }
        let opened = self.open_checked(units, guest);
        if opened.is_err() {
            wipe(units);
        }
        opened
    }

    fn open_checked(
        &mut self,
        units: &mut [Unit<'_>],
        mut guest: Option<&mut dyn GuestLayer>,
    ) -> Result<(), OpenError> {
        let component = guest.as_ref().map(|guest| guest.component());
        for run in units.chunk_by_mut(same_keys) {
            let keys = self.keys.of_run(run, component)?;
            for unit in &mut *run {
                keys.open_unit(unit)?;
            }
            if let (Some(key), Some(guest)) = (&keys.guest, guest.as_deref_mut()) {
                by_guest::open(run, key, guest)?;
            }
        }
        Ok(())
    }
}

/// Consecutive units that one set of expanded keys serves.
fn same_keys(a: &Unit<'_>, b: &Unit<'_>) -> bool {
    a.stack == b.stack && Span::of(a.seq) == Span::of(b.seq)
}

fn wipe(units: &mut [Unit<'_>]) {
    for unit in units {
        unit.body.zeroize();
        unit.tags.zeroize();
    }
}

/// A stack that the epoch does not have.
struct NoStack {
    seq: u64,
    stack: StackIndex,
}

impl From<NoStack> for SealError {
    fn from(NoStack { seq, stack }: NoStack) -> Self {
        Self::UnknownStack { seq, stack }
    }
}

impl From<NoStack> for OpenError {
    fn from(NoStack { seq, stack }: NoStack) -> Self {
        Self::UnknownStack { seq, stack }
    }
}

/// Everything derived from one epoch key, expanded as it is asked for.
struct EpochKeys {
    schedule: EpochSchedule,
    stacks: StackList,
    provider: Provider,
    /// By stack index: the expanded keys of the span asked for last.
    expanded: Vec<Option<StackKeys>>,
}

/// The expanded keys of one stack in one span.
struct StackKeys {
    span: Span,
    component: Option<[u8; 32]>,
    /// An inner layer that the host computes.
    stream: Option<LayerKey>,
    /// An inner layer that a component computes.
    guest: Option<LayerKey>,
    outer: Box<dyn AeadKey>,
    outer_mask: NonceMask,
}

impl EpochKeys {
    fn new(key: &EpochKey, scope: &KeyScope, stacks: StackList, provider: Provider) -> Self {
        let expanded = stacks.as_slice().iter().map(|_| None).collect();
        Self { schedule: EpochSchedule::new(key, scope), stacks, provider, expanded }
    }

    /// The keys for units that [`same_keys`] holds together.
    fn of_run(&mut self, run: &[Unit<'_>], component: Option<[u8; 32]>) -> Result<&StackKeys, NoStack> {
        let (seq, stack) = run.first().map_or((0, StackIndex::default()), |first| (first.seq, first.stack));
        self.of(stack, Span::of(seq), component).ok_or(NoStack { seq, stack })
    }

    fn of(&mut self, stack: StackIndex, span: Span, component: Option<[u8; 32]>) -> Option<&StackKeys> {
        let layers = self.stacks.get(stack)?;
        let component = component.filter(|_| layers.needs_guest());
        let slot = self.expanded.get_mut(usize::from(stack.0))?;
        if !slot.as_ref().is_some_and(|keys| keys.span == span && keys.component == component) {
            *slot = StackKeys::expand(&self.schedule, layers, self.provider, span, component);
        }
        slot.as_ref()
    }
}

impl StackKeys {
    fn expand(
        schedule: &EpochSchedule,
        stack: &Stack,
        provider: Provider,
        span: Span,
        component: Option<[u8; 32]>,
    ) -> Option<Self> {
        let outer = stack.outer();
        let outer_key = schedule.layer(outer.suite, &outer.label, None, span);
        let inner = |wanted: Suite, component: Option<&[u8; 32]>| {
            let layer = stack.inner().filter(|layer| layer.suite == wanted)?;
            Some(schedule.layer(layer.suite, &layer.label, component, span))
        };
        Some(Self {
            span,
            component,
            stream: inner(Suite::ChaCha20, None),
            guest: inner(Suite::Guest, component.as_ref()),
            outer: aead_key(provider, outer.suite, &outer_key.key)?,
            outer_mask: outer_key.mask,
        })
    }

    fn seal_unit(&self, unit: &mut Unit<'_>) -> Result<(), SealError> {
        let seq = unit.seq;
        let block_len = unit.checked_block_len()?;
        let mut aad = BlockAad::new(unit.header);
        for (block, bytes, Tags { tag, beside }) in unit.blocks(block_len) {
            if let Some(stream) = &self.stream {
                chacha20(&stream.key, stream.mask.nonce(seq, block), bytes);
            }
            let nonce = self.outer_mask.nonce(seq, block);
            let aad = aad.of_block(block, bytes, beside);
            self.outer.seal(nonce, aad, bytes, tag).map_err(|_| SealError::Refused { seq, block })?;
        }
        Ok(())
    }

    fn open_unit(&self, unit: &mut Unit<'_>) -> Result<(), OpenError> {
        let seq = unit.seq;
        let block_len = unit.checked_block_len()?;
        let mut aad = BlockAad::new(unit.header);
        for (block, bytes, Tags { tag, beside }) in unit.blocks(block_len) {
            let nonce = self.outer_mask.nonce(seq, block);
            let aad = aad.of_block(block, bytes, beside);
            self.outer.open(nonce, aad, bytes, tag).map_err(|_| OpenError::NotAuthentic { seq, block })?;
            if let Some(stream) = &self.stream {
                chacha20(&stream.key, stream.mask.nonce(seq, block), bytes);
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").field("stacks", &self.keys.stacks).field("last", &self.last).finish_non_exhaustive()
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opener").field("stacks", &self.keys.stacks).finish_non_exhaustive()
    }
}
