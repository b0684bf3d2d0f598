//! The control information of a site: what its lead must know after a restart.
//!
//! Behind a trait, so that another store can take its place where a site outgrows one machine. The embedded one is a redb
//! file in the lead's state folder: each change is durable when its call returns.

use std::collections::BTreeMap;
use std::path::Path;

use farseal_core::group::{CutName, Phase};
use farseal_core::limits::CUTS_NAMED_MAX;
use farseal_core::preset::Presets;
use farseal_core::units::{CutNumber, PairId, WallTime};
use redb::{ReadableTable as _, TableDefinition};
use serde::{Deserialize, Serialize};

use super::words::Named;
pub use crate::store::database::DatabaseError as ControlError;
use crate::store::database::{Database, NUMBERS};

/// Everything that is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Control {
    /// Cut numbers up to here are taken.
    pub reserved: CutNumber,
    pub pairs: BTreeMap<PairId, KnownPair>,
    pub groups: BTreeMap<String, GroupRecord>,
}

/// A pair of the site, whether its node is there or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnownPair {
    pub name: String,
    pub node: String,
    pub group: String,
}

/// What is kept of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupRecord {
    pub phase: Phase,
    /// The last cut that keepers were told to offer; may be old.
    pub held: CutNumber,
    /// A takeover at this cut was decided: every pair of the group carries it out, whenever it comes.
    pub taking_over: Option<CutNumber>,
    /// With the volumes as they were at this earlier cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_at: Option<CutName>,
    pub named: Vec<Named>,
    /// When a disaster was declared here that the other site answered with its takeover; nothing once a pair is kept here again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub declared: Option<WallTime>,
    #[serde(default)]
    pub presets: Presets,
    /// A pause that was theirs, or for so long, is over, and the group has not gone on yet.
    #[serde(default)]
    pub resume_due: bool,
}

/// Where a site's lead keeps its control information.
pub trait ControlStore: Send {
    /// # Errors
    /// [`ControlError`].
    fn load(&self) -> Result<Control, ControlError>;
    /// # Errors
    /// [`ControlError`]; nothing was changed.
    fn reserve(&mut self, through: CutNumber) -> Result<(), ControlError>;
    /// `None`: the pair is no longer of the site.
    ///
    /// # Errors
    /// [`ControlError`]; nothing was changed.
    fn put_pair(&mut self, pair: PairId, known: Option<&KnownPair>) -> Result<(), ControlError>;
    /// # Errors
    /// [`ControlError`]; nothing was changed.
    fn put_group(&mut self, name: &str, record: &GroupRecord) -> Result<(), ControlError>;
}

const PAIRS: TableDefinition<'static, [u8; 16], &[u8]> = TableDefinition::new("pairs");
const GROUPS: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("groups");

const RESERVED: &str = "cuts-reserved";

/// The embedded store.
#[derive(Debug)]
pub struct FileStore(Database);

impl GroupRecord {
    pub(super) fn add_named(&mut self, named: Named) {
        if self.named.len() == CUTS_NAMED_MAX {
            self.named.remove(0);
        }
        self.named.push(named);
    }
}

impl FileStore {
    /// Opens the file, or makes it.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn open(path: &Path) -> Result<Self, ControlError> {
        let database = Database::open(path, |tables| {
            tables.open_table(PAIRS)?;
            tables.open_table(GROUPS)?;
            Ok(())
        })?;
        Ok(Self(database))
    }
}

impl ControlStore for FileStore {
    fn load(&self) -> Result<Control, ControlError> {
        let (reserved, pairs, groups) = self.0.read(|tables| {
            let reserved = tables.open_table(NUMBERS)?.get(RESERVED)?.map_or(0, |number| number.value());
            let mut pairs = Vec::new();
            for entry in tables.open_table(PAIRS)?.iter()? {
                let (id, known) = entry?;
                pairs.push((id.value(), known.value().to_vec()));
            }
            let mut groups = Vec::new();
            for entry in tables.open_table(GROUPS)?.iter()? {
                let (name, record) = entry?;
                groups.push((name.value().to_owned(), record.value().to_vec()));
            }
            Ok((reserved, pairs, groups))
        })?;
        let mut control = Control { reserved: CutNumber(reserved), ..Control::default() };
        for (id, known) in pairs {
            let id = PairId(id);
            control.pairs.insert(id, self.0.parsed(format!("pair {id}"), &known)?);
        }
        for (name, record) in groups {
            let record = self.0.parsed(format!("group {name}"), &record)?;
            control.groups.insert(name, record);
        }
        Ok(control)
    }

    fn reserve(&mut self, through: CutNumber) -> Result<(), ControlError> {
        self.0.change(|tables| {
            tables.open_table(NUMBERS)?.insert(RESERVED, through.0)?;
            Ok(())
        })
    }

    fn put_pair(&mut self, pair: PairId, known: Option<&KnownPair>) -> Result<(), ControlError> {
        self.0.change(|tables| {
            let mut table = tables.open_table(PAIRS)?;
            match known {
                Some(known) => {
                    table.insert(pair.0, serde_json::to_vec(known).unwrap_or_default().as_slice())?;
                }
                None => {
                    table.remove(pair.0)?;
                }
            }
            Ok(())
        })
    }

    fn put_group(&mut self, name: &str, record: &GroupRecord) -> Result<(), ControlError> {
        self.0.change(|tables| {
            let bytes = serde_json::to_vec(record).unwrap_or_default();
            tables.open_table(GROUPS)?.insert(name, bytes.as_slice())?;
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn what_a_lead_was_told_is_there_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("site.redb");
        let (pair, other) = (PairId([1; 16]), PairId([2; 16]));
        let known = KnownPair { name: "one".into(), node: "main-1".into(), group: "default".into() };
        let mut record = GroupRecord {
            phase: Phase::Paused { cut: CutNumber(7), lanes: 2, settled: true },
            held: CutNumber(6),
            taking_over: Some(CutNumber(7)),
            declared: Some(WallTime(11)),
            ..GroupRecord::default()
        };
        record.add_named(Named { name: CutName::new("nightly").unwrap(), cut: CutNumber(5), wall: WallTime(9) });
        {
            let mut store = FileStore::open(&path).unwrap();
            assert_eq!(store.load().unwrap(), Control::default());
            store.reserve(CutNumber(1024)).unwrap();
            store.put_pair(pair, Some(&known)).unwrap();
            store.put_pair(other, Some(&known)).unwrap();
            store.put_pair(other, None).unwrap();
            store.put_group("default", &record).unwrap();
        }
        let control = FileStore::open(&path).unwrap().load().unwrap();
        assert_eq!(control.reserved, CutNumber(1024));
        assert_eq!(control.pairs, [(pair, known)].into());
        assert_eq!(control.groups, [("default".to_owned(), record)].into());
    }
}
