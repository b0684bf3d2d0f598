//! The log's mark: how far a sync has reached, so that a restart tells damage from a torn end.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use farseal_core::units::PairId;

use super::Location;
use crate::store::{StoreError, files};

/// Each slot in a sector of its own: a torn write spoils one.
const SLOT_BYTES: u64 = 512;
const USED_BYTES: usize = 48;
const MAGIC: [u8; 4] = *b"FSM1";
/// How far the durable mark may lag: its own sync would otherwise double the cost of every one.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Mark {
    path: PathBuf,
    file: File,
    pair: PairId,
    counter: u64,
    durable: Location,
    synced_at: Instant,
}

impl Mark {
    /// Opens the mark; makes one, at the start, where there is none that counts.
    pub(super) fn open(dir: &Path, pair: PairId) -> Result<Self, StoreError> {
        let path = dir.join("log.mark");
        let failed = |doing| {
            let path = path.clone();
            move |source| StoreError::io(&path, doing, source)
        };
        let existed = path.exists();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed("open the mark"))?;
        let mut mark =
            Self { path: path.clone(), file, pair, counter: 0, durable: Location::START, synced_at: Instant::now() };
        let newest = [0, 1].into_iter().filter_map(|slot| mark.slot(slot)).max();
        match newest {
            Some((counter, durable)) => {
                mark.counter = counter;
                mark.durable = durable;
            }
            None => {
                if existed {
                    tracing::warn!(path = %path.display(), "the log's mark is damaged: what is torn cannot be told from what is damaged");
                }
                mark.file.set_len(0).map_err(failed("clear the mark"))?;
                mark.write(Location::START)?;
                mark.write(Location::START)?;
                mark.sync()?;
                files::sync_dir(dir)?;
            }
        }
        Ok(mark)
    }

    /// Everything before this was durable.
    pub(super) fn durable(&self) -> Location {
        self.durable
    }

    /// Notes that everything before `end` is durable; with `hard` the note is durable too.
    pub(super) fn advance(&mut self, end: Location, hard: bool) -> Result<(), StoreError> {
        if end != self.durable {
            self.write(end)?;
        }
        if hard || self.synced_at.elapsed() >= SYNC_INTERVAL {
            self.sync()?;
        }
        Ok(())
    }

    fn slot(&self, slot: u64) -> Option<(u64, Location)> {
        let mut bytes = [0; USED_BYTES];
        self.file.read_exact_at(&mut bytes, slot * SLOT_BYTES).ok()?;
        let counter = u64::from_le_bytes(bytes[24..32].try_into().ok()?);
        let location = Location::unpack(u64::from_le_bytes(bytes[32..40].try_into().ok()?));
        (bytes == encode(self.pair, counter, location)).then_some((counter, location))
    }

    fn write(&mut self, end: Location) -> Result<(), StoreError> {
        let counter = self.counter + 1;
        self.file
            .write_all_at(&encode(self.pair, counter, end), counter % 2 * SLOT_BYTES)
            .map_err(|source| StoreError::io(&self.path, "write the mark", source))?;
        self.counter = counter;
        self.durable = end;
        Ok(())
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        self.synced_at = Instant::now();
        self.file.sync_data().map_err(|source| StoreError::SyncFailed { path: self.path.clone(), source })
    }
}

fn encode(pair: PairId, counter: u64, durable: Location) -> [u8; USED_BYTES] {
    let mut out = [0; USED_BYTES];
    out[0..4].copy_from_slice(&MAGIC);
    out[8..24].copy_from_slice(&pair.0);
    out[24..32].copy_from_slice(&counter.to_le_bytes());
    out[32..40].copy_from_slice(&durable.pack().to_le_bytes());
    let crc = crc32c::crc32c(&out[..44]);
    out[44..].copy_from_slice(&crc.to_le_bytes());
    out
}
