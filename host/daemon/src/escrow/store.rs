//! What an escrow keeps: deposits as they came, what was asked for and what a person said to it, and an audit log that only
//! grows. A redb file; each change is durable when its call returns.

use std::collections::VecDeque;
use std::path::Path;

use farseal_core::units::{Epoch, PairId, WallTime};
use redb::{ReadableTable as _, ReadableTableMetadata as _, TableDefinition};
use serde::{Deserialize, Serialize};

use super::mark::Mark;
use super::search::AskedSearch;
use super::wire::Place;
use crate::chained::{Chained, LineHash};
use crate::keys::fingerprint::Fingerprint;
use crate::store::database::Database;
pub use crate::store::database::DatabaseError as EscrowStoreError;

/// Pair, epoch, hash: in this order, integers big-endian, so that a pair's deposits lie together and in the order of epochs.
type DepositKey = [u8; 56];

const DEPOSITS: TableDefinition<'static, DepositKey, &[u8]> = TableDefinition::new("deposits");
const BY_HASH: TableDefinition<'static, [u8; 32], DepositKey> = TableDefinition::new("by-hash");
const DESTROYED: TableDefinition<'static, [u8; 32], u64> = TableDefinition::new("destroyed");
const REQUESTS: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("requests");
/// By pair and depositing site.
const MARKS: TableDefinition<'static, [u8; 48], &[u8]> = TableDefinition::new("marks");
const LOG: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("log");

/// The file.
#[derive(Debug)]
pub struct EscrowStore(Database);

/// Keys that a site asked for, and what became of it. Fingerprints are shown ones: they name whom, and open nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Asked {
    pub id: u64,
    pub at: WallTime,
    /// All 32 bytes of the asking site's card, in hexadecimal.
    pub requester: String,
    pub node: String,
    pub pair: PairId,
    /// All 32 bytes of the depositing site's card, in hexadecimal.
    pub depositor: String,
    pub first: Epoch,
    pub last: Epoch,
    /// Deposits among these when it was asked.
    pub keys: u64,
    pub copy: Mark,
    pub reason: String,
    /// Not the keys: what finds this value in their epochs, and the opening of what it finds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search: Option<AskedSearch>,
    pub answer: Option<Answer>,
}

/// How far a pair's copy was, and when its writing site said so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct KeptMark {
    pub mark: Mark,
    pub at: WallTime,
}

/// What a person said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Answer {
    pub approved: bool,
    pub at: WallTime,
    pub note: String,
    /// Every key was fetched.
    pub complete: bool,
}

/// One line of the audit log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Logged {
    pub at: WallTime,
    /// Whose doing it was: a site by its name and fingerprint, or the escrow's operator.
    pub who: String,
    pub what: String,
}

/// The audit log, as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// The newest lines, oldest of them first.
    pub lines: Vec<Logged>,
    /// Lines that do not follow on the one before them as it is now, or are none.
    pub altered: u64,
    /// Of the last line.
    pub end: LineHash,
}

impl EscrowStore {
    /// Opens the file, or makes it.
    ///
    /// # Errors
    /// [`EscrowStoreError`].
    pub fn open(path: &Path) -> Result<Self, EscrowStoreError> {
        let database = Database::open(path, |tables| {
            tables.open_table(DEPOSITS)?;
            tables.open_table(BY_HASH)?;
            tables.open_table(DESTROYED)?;
            tables.open_table(REQUESTS)?;
            tables.open_table(LOG)?;
            tables.open_table(MARKS)?;
            Ok(())
        })?;
        Ok(Self(database))
    }

    /// Keeps deposits, all or none.
    ///
    /// # Errors
    /// [`EscrowStoreError`]; nothing was changed.
    pub fn deposit(&self, all: &[(PairId, Place, &[u8])]) -> Result<(), EscrowStoreError> {
        self.0.change(|tables| {
            let (mut deposits, mut by_hash) = (tables.open_table(DEPOSITS)?, tables.open_table(BY_HASH)?);
            for (pair, place, bytes) in all {
                let key = key(*pair, place.epoch, place.deposit);
                deposits.insert(key, *bytes)?;
                by_hash.insert(place.deposit, key)?;
            }
            Ok(())
        })
    }

    /// A deposit by its hash.
    ///
    /// # Errors
    /// [`EscrowStoreError`].
    pub fn find(&self, deposit: [u8; 32]) -> Result<Option<Vec<u8>>, EscrowStoreError> {
        self.0.read(|tables| {
            let Some(key) = tables.open_table(BY_HASH)?.get(deposit)?.map(|key| key.value()) else { return Ok(None) };
            Ok(tables.open_table(DEPOSITS)?.get(key)?.map(|bytes| bytes.value().to_vec()))
        })
    }

    /// Was this deposit destroyed on purpose?
    ///
    /// # Errors
    /// [`EscrowStoreError`].
    pub fn is_destroyed(&self, deposit: [u8; 32]) -> Result<bool, EscrowStoreError> {
        self.0.read(|tables| Ok(tables.open_table(DESTROYED)?.get(deposit)?.is_some()))
    }

    /// Destroys a deposit; what remains is that it was.
    ///
    /// # Errors
    /// [`EscrowStoreError`]; nothing was changed.
    pub fn destroy(&self, deposit: [u8; 32], at: WallTime) -> Result<(), EscrowStoreError> {
        self.0.change(|tables| {
            if let Some(key) = tables.open_table(BY_HASH)?.remove(deposit)?.map(|key| key.value()) {
                tables.open_table(DEPOSITS)?.remove(key)?;
            }
            tables.open_table(DESTROYED)?.insert(deposit, at.0)?;
            Ok(())
        })
    }

    /// A pair's deposits of these epochs, in order, after a place, as many as are wanted.
    ///
    /// # Errors
    /// [`EscrowStoreError`].
    pub fn deposits(
        &self,
        pair: PairId,
        (first, last): (Epoch, Epoch),
        after: Option<Place>,
        most: usize,
    ) -> Result<Vec<(Place, Vec<u8>)>, EscrowStoreError> {
        let from = after.map_or(key(pair, first, [0; 32]), |place| key(pair, place.epoch, place.deposit));
        let to = key(pair, last, [0xff; 32]);
        if from > to {
            return Ok(Vec::new());
        }
        self.0.read(|tables| {
            let table = tables.open_table(DEPOSITS)?;
            let mut found = Vec::new();
            for entry in table.range(from..=to)? {
                let (at, bytes) = entry?;
                let place = place_of(&at.value());
                if Some(place) == after {
                    continue;
                }
                if found.len() == most {
                    break;
                }
                found.push((place, bytes.value().to_vec()));
            }
            Ok(found)
        })
    }

    /// How many deposits there are.
    ///
    /// # Errors
    /// [`EscrowStoreError`].
    pub fn count(&self) -> Result<u64, EscrowStoreError> {
        self.0.read(|tables| Ok(tables.open_table(DEPOSITS)?.len()?))
    }

    /// Keeps a request as it stands now; a new one has number 0 and gets its own.
    ///
    /// # Errors
    /// [`EscrowStoreError`]; nothing was changed.
    pub fn put_request(&self, mut asked: Asked) -> Result<Asked, EscrowStoreError> {
        self.0.change(|tables| {
            let mut table = tables.open_table(REQUESTS)?;
            if asked.id == 0 {
                asked.id = table.last()?.map_or(0, |(id, _)| id.value()) + 1;
            }
            table.insert(asked.id, serde_json::to_vec(&asked).unwrap_or_default().as_slice())?;
            Ok(())
        })?;
        Ok(asked)
    }

    /// Every request, oldest first.
    ///
    /// # Errors
    /// [`EscrowStoreError`].
    pub fn requests(&self) -> Result<Vec<Asked>, EscrowStoreError> {
        let found = self.0.read(|tables| {
            let table = tables.open_table(REQUESTS)?;
            table
                .iter()?
                .map(|entry| entry.map(|(id, bytes)| (id.value(), bytes.value().to_vec())))
                .collect::<Result<Vec<_>, _>>()
                .map_err(Into::into)
        })?;
        found.iter().map(|(id, bytes)| self.0.parsed(format!("request {id}"), bytes)).collect()
    }

    /// Keeps a mark over the one before.
    ///
    /// # Errors
    /// [`EscrowStoreError`]; nothing was changed.
    pub fn keep_mark(&self, pair: PairId, site: Fingerprint, mark: &KeptMark) -> Result<(), EscrowStoreError> {
        self.0.change(|tables| {
            let bytes = serde_json::to_vec(mark).unwrap_or_default();
            tables.open_table(MARKS)?.insert(mark_key(pair, site), bytes.as_slice())?;
            Ok(())
        })
    }

    /// A pair's mark by one site.
    ///
    /// # Errors
    /// [`EscrowStoreError`].
    pub fn mark(&self, pair: PairId, site: Fingerprint) -> Result<Option<KeptMark>, EscrowStoreError> {
        let found = self.0.read(|tables| {
            Ok(tables.open_table(MARKS)?.get(mark_key(pair, site))?.map(|bytes| bytes.value().to_vec()))
        })?;
        found.map(|bytes| self.0.parsed("a mark".into(), &bytes)).transpose()
    }

    /// Adds a line to the audit log.
    ///
    /// # Errors
    /// [`EscrowStoreError`]; nothing was changed.
    pub fn log(&self, line: &Logged) -> Result<(), EscrowStoreError> {
        self.0.change(|tables| {
            let mut table = tables.open_table(LOG)?;
            let last = table.last()?.map(|(at, line)| (at.value(), LineHash::of(line.value())));
            let (at, before) = last.unwrap_or((0, LineHash::NONE));
            table.insert(at + 1, serde_json::to_vec(&Chained { before, line }).unwrap_or_default().as_slice())?;
            Ok(())
        })
    }

    /// The newest lines of the audit log, and whether all that there are follow on each other.
    ///
    /// # Errors
    /// [`EscrowStoreError`].
    pub fn logged(&self, most: usize) -> Result<Log, EscrowStoreError> {
        let (mut lines, mut altered, mut end) = (VecDeque::new(), 0, LineHash::NONE);
        self.0.read(|tables| {
            for entry in tables.open_table(LOG)?.iter()? {
                let (_, line) = entry?;
                let chained = serde_json::from_slice::<Chained<Logged>>(line.value());
                let follows = chained.as_ref().is_ok_and(|chained| chained.before == end);
                altered += u64::from(!follows);
                end = LineHash::of(line.value());
                lines.extend(chained.ok().map(|chained| chained.line));
                if lines.len() > most {
                    lines.pop_front();
                }
            }
            Ok(())
        })?;
        Ok(Log { lines: lines.into(), altered, end })
    }
}

fn mark_key(pair: PairId, site: Fingerprint) -> [u8; 48] {
    let mut key = [0; 48];
    key[..16].copy_from_slice(&pair.0);
    key[16..].copy_from_slice(&site.0);
    key
}

fn key(pair: PairId, epoch: Epoch, deposit: [u8; 32]) -> DepositKey {
    let mut key = [0; 56];
    key[..16].copy_from_slice(&pair.0);
    key[16..24].copy_from_slice(&epoch.0.to_be_bytes());
    key[24..].copy_from_slice(&deposit);
    key
}

fn place_of(key: &DepositKey) -> Place {
    let (mut epoch, mut deposit) = ([0; 8], [0; 32]);
    epoch.copy_from_slice(&key[16..24]);
    deposit.copy_from_slice(&key[24..]);
    Place { epoch: Epoch(u64::from_be_bytes(epoch)), deposit }
}
