//! A lane's restart: what the journal holds goes home, and core learns what is owed.

use std::sync::Arc;

use farseal_core::chain::Chain;
use farseal_core::owed::{OwedError, OwedMap};
use farseal_core::primary::{Recovered, Unacked};
use farseal_core::record::{HEADER_BYTES, Header, Kind};
use farseal_core::units::{ByteLen, Sequence};
use farseal_core::window::Range;

use super::Parts;
use super::state::{self, LaneState, StateError};
use crate::keyring::{UnsealError, Unsealer};
use crate::store::StoreError;
use crate::store::journal::{Journal, JournalError, JournalRecovery, RecoveredRecord};

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
    let known = state.homed.max(state.acked);
    let (journal, recovery) = Journal::open(&directory.join("journal"), parts.settings.pair, known)?;
    if let Some((path, tear)) = &recovery.cut {
        tracing::info!(pair = parts.name, path = %path.display(), "the journal's tail was never promised and is cut off: {tear}");
    }
    replay(parts, &journal, &recovery.records, state.homed)?;
    let last = recovery.last.max(known);
    if last > state.homed {
        state.homed = last;
        state.save(directory)?;
    }
    let owed = load_owed(parts)?;
    let recovered = gather(parts, &state, &recovery, last, owed);
    let chain = recovered.chain;
    Ok(Found { journal, recovered, chain, state })
}

fn gather(
    parts: &Parts,
    state: &LaneState,
    recovery: &JournalRecovery,
    last: Sequence,
    owed: Option<OwedMap>,
) -> Recovered {
    // What left the journal was acknowledged, or is owed by the map.
    let trimmed = if recovery.records.is_empty() { last } else { recovery.first.previous() };
    let (acked, acked_chain) = if trimmed > state.acked && owed.is_none() {
        (trimmed, if recovery.records.is_empty() { recovery.chain } else { recovery.chain_before })
    } else {
        (state.acked, state.acked_chain)
    };
    // A gap without a map is one whose resync has ended: what it gave up was copied since.
    let ended = recovery.records.iter().rfind(|record| record.header.kind == Kind::Gap && owed.is_none());
    let given_up = ended.map_or(Sequence::NONE, |gap| gap.header.sequence);
    let unacked = recovery
        .records
        .iter()
        .filter(|record| record.header.sequence >= given_up)
        .filter(|record| record.header.sequence > acked)
        .map(|record| Unacked {
            sequence: record.header.sequence,
            kind: record.header.kind,
            bytes: ByteLen(u64::try_from(record.header.record_bytes()).unwrap_or(u64::MAX)),
            chain: record.chain,
            extent: record.header.extent(),
            wall: record.header.wall,
        })
        .collect();
    let chain = recovery.records.last().map_or(acked_chain, |record| record.chain);
    let cuts = recovery
        .records
        .iter()
        .filter(|record| record.header.kind == Kind::Cut)
        .map(|record| record.header.aux)
        .max()
        .unwrap_or(0);
    Recovered {
        last,
        chain,
        acked,
        acked_chain,
        unacked,
        homed: state.homed,
        newest_epoch: parts.keyring.newest(),
        owed,
        paused: state.paused,
        fenced: state.fenced,
        cuts,
    }
}

/// A map that cannot be read stands for everything: owing too much costs time, owing too little costs data.
fn load_owed(parts: &Parts) -> Result<Option<OwedMap>, RecoverError> {
    let Some(bytes) = state::load_owed(&parts.directory)? else { return Ok(None) };
    let (blocks, size) = (parts.settings.blocks, parts.settings.block_bytes);
    match OwedMap::decode(&bytes, blocks, size) {
        Ok(map) => Ok(Some(map)),
        Err(error @ (OwedError::Damaged | OwedError::Version(_) | OwedError::OtherVolume { .. })) => {
            tracing::warn!(pair = parts.name, "{error}: the whole volume is owed");
            Ok(Some(OwedMap::full(blocks, size)))
        }
    }
}

/// Writes what the journal holds above `homed` to home, in order, and makes it durable there.
fn replay(parts: &Parts, journal: &Journal, records: &[RecoveredRecord], homed: Sequence) -> Result<(), RecoverError> {
    let pending: Vec<&RecoveredRecord> = records.iter().filter(|record| record.header.sequence > homed).collect();
    if pending.is_empty() {
        return Ok(());
    }
    let ledger = Arc::new(parts.keyring.ledger());
    let mut unsealer = Unsealer::new(Arc::clone(&parts.keyring), ledger, parts.plugins.guest_layer()?);
    let reader = journal.reader();
    for run in pending.chunks(REPLAY_RECORDS) {
        let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
        let range = Range { first: first.header.sequence, last: last.header.sequence };
        for (record, bytes) in run.iter().zip(reader.read(range)?) {
            apply(parts, &mut unsealer, &record.header, &bytes)?;
        }
    }
    parts.home.sync()?;
    tracing::info!(pair = parts.name, records = pending.len(), "replayed the journal to home");
    Ok(())
}

fn apply(parts: &Parts, unsealer: &mut Unsealer, header: &Header, record: &[u8]) -> Result<(), RecoverError> {
    let Some(extent) = header.extent() else { return Ok(()) };
    let sequence = header.sequence;
    let mut body = record.get(HEADER_BYTES..).unwrap_or_default().to_vec();
    let (tags, blocks) = body.split_at_mut(header.tag_bytes().min(record.len().saturating_sub(HEADER_BYTES)));
    unsealer.open(header, 0, blocks, tags).map_err(|source| RecoverError::Unsealed { sequence, source })?;
    let offset = extent.first().0 * header.block_bytes.as_u64();
    match header.kind {
        Kind::Data => parts.home.write(offset, blocks)?,
        Kind::Zero | Kind::Trim => {
            parts.home.zero(offset, extent.blocks().byte_len(header.block_bytes).0, header.kind == Kind::Trim)?;
        }
        Kind::Key | Kind::Cover | Kind::Void | Kind::Cut | Kind::Gap => {}
    }
    Ok(())
}
