//! The strikes against a pair's components, kept across restarts: a component that failed too often is not called again
//! because the node was restarted.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::channel;

use farseal_plugin::{Breaker, BreakerState};

use crate::store::{StoreError, files};

/// Some hundred components with their strikes.
const STANDINGS_BYTES_MAX: u64 = 1 << 20;

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StandingsError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{}: {source}; restore it, or remove it to release every plugin of the pair", path.display())]
    Unreadable { path: PathBuf, source: serde_json::Error },
}

/// The breaker of a pair. What it says is written by a thread of its own, so that whoever called a component does not
/// wait for a disk.
pub fn breaker(pair_directory: &Path) -> Result<Arc<Breaker>, StandingsError> {
    let path = pair_directory.join("breaker.json");
    let state: BreakerState = match files::read_if_there(&path, STANDINGS_BYTES_MAX)? {
        Some(bytes) => serde_json::from_slice(&bytes)
            .map_err(|source| StandingsError::Unreadable { path: path.clone(), source })?,
        None => BreakerState::new(),
    };
    let (sender, changes) = channel::<BreakerState>();
    std::thread::spawn(move || {
        for state in changes {
            let kept = files::write_atomically(&path, &serde_json::to_vec_pretty(&state).unwrap_or_default());
            if let Err(error) = kept {
                tracing::error!(%error, "strikes against a plugin could not be kept: a restart forgets them");
            }
        }
    });
    Ok(Arc::new(Breaker::telling(state, Box::new(move |state| drop(sender.send(state))))))
}
