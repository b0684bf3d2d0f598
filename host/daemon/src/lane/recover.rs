//! A lane's restart: what the journal holds goes home, and core learns what is owed.

use std::sync::Arc;

use farseal_core::chain::Chain;
use farseal_core::flow::Chosen;
use farseal_core::given_up::GivenUp;
use farseal_core::owed::{OwedError, OwedMap};
use farseal_core::primary::{Kept, KeptMap, Logged, Recovered};
use farseal_core::record::{HEADER_BYTES, Header, Kind};
use farseal_core::units::Sequence;
use farseal_core::window::Range;

use super::Parts;
use super::state::{self, Instead, LaneState, StateError};
use crate::keyring::{UnsealError, Unsealer};
use crate::store::StoreError;
use crate::store::home::Home;
use crate::store::journal::{Journal, JournalError};

/// What a restart found, ready to go on.
#[derive(Debug)]
pub struct Found {
    pub journal: Journal,
    pub recovered: Recovered,
    pub chain: Chain,
    pub state: LaneState,
}

/// Why a lane cannot start. Nothing was changed but for home, which got only what the journal promised.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("record {sequence} of the journal does not open: {source}")]
    Unsealed { sequence: Sequence, source: UnsealError },
    #[error(transparent)]
    Cipher(#[from] farseal_plugin::CipherUnavailable),
}

/// Records of the journal that are replayed at a time.
const REPLAY_RECORDS: usize = 256;

/// Opens the journal, replays it to home, and gathers what core must know.
pub fn recover(parts: &Parts) -> Result<Found, RecoverError> {
    let directory = &parts.directory;
    crate::store::files::create_private_dir(directory)?;
    let mut state = LaneState::load(directory)?;
    // A lane that goes on after another's end has an empty journal at first.
    let known = Some(state.homed.max(state.acked)).filter(|known| *known > state.start).unwrap_or_default();
    let (journal, mut recovery) = Journal::open(&directory.join("journal"), parts.settings.pair, known)?;
    if let Some((path, tear)) = &recovery.cut {
        tracing::info!(pair = parts.name, path = %path.display(), "the journal's tail was never promised and is cut off: {tear}");
    }
    if recovery.records.is_empty() {
        (recovery.first, recovery.last) = (state.start.next(), state.start);
        (recovery.chain_before, recovery.chain) = (state.start_chain, state.start_chain);
    }
    replay(parts, &journal, &recovery.records, state.homed)?;
    if recovery.last > state.homed {
        state.homed = recovery.last;
        state.save(directory)?;
    }
    let owed = load_owed(parts)?;
    let kept = Kept {
        homed: state.homed,
        newest_epoch: parts.keyring.newest().max(state.epoch_floor),
        owed: owed.map(|(map, given_up)| KeptMap { map, given_up, acked: state.acked, acked_chain: state.acked_chain }),
        paused: state.paused,
        fenced: state.fenced,
        chosen: Chosen {
            way: Instead::of(state.way, parts.settings.flow.way),
            limits: Instead::of(state.limits, parts.settings.flow.limits),
        },
        handing_over: state.handing_over,
        mode: state.chosen.filter(|chosen| chosen.instead_of == parts.settings.mode).map(|chosen| chosen.mode),
    };
    let before = recovery.first.previous();
    let recovered = Recovered::from_records(before, recovery.chain_before, &recovery.records, kept);
    let chain = recovered.chain;
    Ok(Found { journal, recovered, chain, state })
}

/// A map that cannot be read stands for everything: owing too much costs time, owing too little costs data.
fn load_owed(parts: &Parts) -> Result<Option<(OwedMap, Option<GivenUp>)>, RecoverError> {
    let Some(bytes) = state::load_owed(&parts.directory)? else { return Ok(None) };
    let (blocks, size) = (parts.settings.blocks, parts.settings.block_bytes);
    match OwedMap::decode_with(&bytes, blocks, size) {
        Ok(found) => Ok(Some(found)),
        Err(error @ (OwedError::Damaged | OwedError::Version(_) | OwedError::OtherVolume { .. })) => {
            tracing::warn!(pair = parts.name, "{error}: the whole volume is owed");
            Ok(Some((OwedMap::full(blocks, size), None)))
        }
    }
}

/// Writes what the journal holds above `homed` to home, in order, and makes it durable there.
fn replay(parts: &Parts, journal: &Journal, records: &[Logged], homed: Sequence) -> Result<(), RecoverError> {
    let pending: Vec<&Logged> = records.iter().filter(|record| record.header.sequence > homed).collect();
    if pending.is_empty() {
        return Ok(());
    }
    let ledger = Arc::new(parts.keyring.ledger());
    let mut unsealer = Unsealer::new(Arc::clone(&parts.keyring), ledger, Arc::clone(&parts.plugins));
    let reader = journal.reader();
    for run in pending.chunks(REPLAY_RECORDS) {
        let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
        let range = Range { first: first.header.sequence, last: last.header.sequence };
        for (record, bytes) in run.iter().zip(reader.read(range)?) {
            apply(&*parts.home, &mut unsealer, &record.header, &bytes)?;
        }
    }
    parts.home.sync()?;
    tracing::info!(pair = parts.name, records = pending.len(), "replayed the journal to home");
    Ok(())
}

/// Opens a record and writes what it says to a home.
pub fn apply(home: &dyn Home, unsealer: &mut Unsealer, header: &Header, record: &[u8]) -> Result<(), RecoverError> {
    let Some(extent) = header.extent() else { return Ok(()) };
    let sequence = header.sequence;
    let mut body = record.get(HEADER_BYTES..).unwrap_or_default().to_vec();
    let (tags, blocks) = body.split_at_mut(header.tag_bytes().min(record.len().saturating_sub(HEADER_BYTES)));
    unsealer.open(header, 0, blocks, tags).map_err(|source| RecoverError::Unsealed { sequence, source })?;
    let offset = extent.first().0 * header.block_bytes.as_u64();
    match header.kind {
        Kind::Data => home.write(offset, blocks)?,
        Kind::Zero | Kind::Trim => {
            home.zero(offset, extent.blocks().byte_len(header.block_bytes).0, header.kind == Kind::Trim)?;
        }
        Kind::Key | Kind::Cover | Kind::Void | Kind::Cut | Kind::Gap => {}
    }
    Ok(())
}
