//! Answers a primary's drill: which epochs the copy's live blocks need, and a proof that a block of each opens here.
//!
//! A block is opened in memory, on a thread of its own, and forgotten; what leaves is a digest under the question's
//! challenge, which says nothing to whoever does not hold the block already.

use std::collections::BTreeMap;
use std::sync::Arc;

use farseal_core::drill::{AskDrill, AskLive, Drilled, LIVE_EPOCHS_MAX, LIVE_SCAN_BLOCKS, Live, LiveEpoch, Outcome};
use farseal_core::ledger::Ledger;
use farseal_core::record::Kind;
use farseal_core::secondary::Input;
use farseal_core::units::{BlockBytes, BlockCount, Epoch, Extent, Lba, Path, Sequence};
use sha2::{Digest as _, Sha256};
use tokio::sync::OwnedSemaphorePermit;
use zeroize::Zeroizing;

use super::Runner;
use crate::keyring::{Keyring, UnsealError, Unsealer};
use crate::keys::package::OpenEpochError;
use crate::link::listen::Answer;
use crate::plugins::PairPlugins;
use crate::store::index::{Index, Place};
use crate::store::log::LogReader;

/// What opening one block needs.
struct Opening {
    ledger: Arc<Ledger>,
    keyring: Arc<Keyring>,
    plugins: Arc<PairPlugins>,
    reader: LogReader,
    block: BlockBytes,
}

impl Runner {
    /// A page of the epochs that live blocks need.
    pub(super) fn show_live(&mut self, path: Path, ask: AskLive, permit: OwnedSemaphorePermit) {
        let (Some(answers), Some(live)) = (self.paths.get(&path), self.live(ask.from)) else {
            return self.give(Input::Nonsense { path });
        };
        let _ = answers.send(Answer::Held { id: ask.id, answer: live.encode(), permit });
    }

    /// A page from this block on; of nothing while the index is no state of the volume, none once there is no index here.
    pub(super) fn live(&self, from: Lba) -> Option<Live> {
        let index = self.index.as_ref()?;
        if self.backlog.is_reading() {
            return Some(Live { through: Sequence::NONE, next: from, epochs: Vec::new() });
        }
        Some(page(index, self.secondary.ledger(), from, self.settings.blocks, self.backlog.indexed()))
    }

    /// Whether a block opens, and to what.
    pub(super) fn drill(&mut self, path: Path, ask: AskDrill, permit: OwnedSemaphorePermit) {
        let within = ask.lba.0 < self.settings.blocks.0;
        let (Some(answers), Some(index), true) = (self.paths.get(&path).cloned(), &self.index, within) else {
            return self.give(Input::Nonsense { path });
        };
        let place = index.lookup(ask.lba);
        let opening = Opening {
            ledger: Arc::new(self.secondary.ledger().clone()),
            keyring: Arc::clone(&self.keyring),
            plugins: Arc::clone(&self.plugins),
            reader: self.log.reader(),
            block: self.settings.block_bytes,
        };
        std::thread::spawn(move || {
            let drilled = match place {
                None => Drilled { sequence: Sequence::NONE, outcome: Outcome::Nothing, proof: [0; 32] },
                Some(place) => opening.prove(&place, &ask),
            };
            let _ = answers.send(Answer::Held { id: ask.id, answer: drilled.encode(), permit });
        });
    }
}

pub(crate) fn page(index: &Index, ledger: &Ledger, from: Lba, volume: BlockCount, through: Sequence) -> Live {
    let blocks = volume.0.saturating_sub(from.0).min(LIVE_SCAN_BLOCKS);
    let mut found: BTreeMap<Epoch, LiveEpoch> = BTreeMap::new();
    let mut at = from;
    let places = Extent::new(from, BlockCount(blocks)).map(|extent| index.places(extent)).unwrap_or_default();
    for (run, place) in places {
        let epoch = place.map(|place| ledger.epoch_at(place.sequence));
        if let Some(epoch) = epoch {
            if found.len() == LIVE_EPOCHS_MAX && !found.contains_key(&epoch) {
                break;
            }
            let entry = found.entry(epoch).or_insert(LiveEpoch { epoch, blocks: BlockCount(0), first: at });
            entry.blocks.0 += run.0;
        }
        at.0 += run.0;
    }
    let next = if blocks == 0 { Lba(from.0.saturating_add(1)) } else { at };
    Live { through, next, epochs: found.into_values().collect() }
}

impl Opening {
    fn prove(self, place: &Place, ask: &AskDrill) -> Drilled {
        let failed = |outcome| Drilled { sequence: place.sequence, outcome, proof: [0; 32] };
        match self.open(place, ask.lba) {
            Ok(block) => Drilled { proof: proof(&ask.challenge, &block), ..failed(Outcome::Opened) },
            Err(outcome) => failed(outcome),
        }
    }

    fn open(self, place: &Place, lba: Lba) -> Result<Zeroizing<Vec<u8>>, Outcome> {
        let extent = Extent::new(lba, BlockCount(1)).ok_or(Outcome::Nothing)?;
        let part = place.part(&self.reader, extent).map_err(|_| Outcome::Unreadable)?.ok_or(Outcome::Unreadable)?;
        let (mut block, mut tags) = (Zeroizing::new(part.blocks.to_vec()), part.tags.to_vec());
        let mut unsealer = Unsealer::new(self.keyring, self.ledger, self.plugins);
        let first = if part.header.kind == Kind::Data { place.block } else { 0 };
        unsealer.open(&part.header, first, &mut block, &mut tags).map_err(|error| outcome(&error))?;
        if part.header.kind != Kind::Data {
            block.resize(self.block.as_usize(), 0);
        }
        Ok(block)
    }
}

/// What stands for a block under a challenge.
pub(crate) fn proof(challenge: &[u8; 32], block: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update(challenge).chain_update(block).finalize().into()
}

fn outcome(error: &UnsealError) -> Outcome {
    match error {
        UnsealError::Key(OpenEpochError::OtherRecipient { .. } | OpenEpochError::WithEscrow { .. }) => {
            Outcome::NotRecipient
        }
        UnsealError::NoPackage { .. } | UnsealError::NoEpoch(_) => Outcome::NoKey,
        UnsealError::Key(
            OpenEpochError::Capsule { .. } | OpenEpochError::OtherKey { .. } | OpenEpochError::Released { .. },
        )
        | UnsealError::OtherBit { .. }
        | UnsealError::Open(_)
        | UnsealError::Layer { .. } => Outcome::NotOpened,
    }
}
