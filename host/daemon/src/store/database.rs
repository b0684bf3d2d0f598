//! A redb file of named tables with a format number: each change is durable when its call returns, and every error names the
//! file.

use std::path::{Path, PathBuf};

use redb::{
    Database as Redb, ReadTransaction, ReadableDatabase as _, ReadableTable as _, TableDefinition, WriteTransaction,
};
use serde::de::DeserializeOwned;

/// Numbers by name, of which the format is one.
pub const NUMBERS: TableDefinition<'static, &str, u64> = TableDefinition::new("numbers");
const FORMAT: &str = "format";

/// The file.
#[derive(Debug)]
pub struct Database {
    path: PathBuf,
    database: Redb,
}

/// Why it cannot be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    #[error("{}: {source}", path.display())]
    Store { path: PathBuf, source: Box<redb::Error> },
    #[error("{}: {what} cannot be read: {source}; restore the file from a copy", path.display())]
    Unreadable { path: PathBuf, what: String, source: serde_json::Error },
    #[error("{}: format {found}; this version reads format 1", path.display())]
    Format { path: PathBuf, found: u64 },
}

impl Database {
    /// Opens the file, or makes it with the tables that `make` opens.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn open(
        path: &Path,
        make: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error>,
    ) -> Result<Self, DatabaseError> {
        let failed = |source: redb::Error| DatabaseError::Store { path: path.to_owned(), source: Box::new(source) };
        let database = Redb::create(path).map_err(|error| failed(error.into()))?;
        let opened = Self { path: path.to_owned(), database };
        let format = opened.change(|tables| {
            let found = tables.open_table(NUMBERS)?.get(FORMAT)?.map(|format| format.value());
            if found.is_none() {
                tables.open_table(NUMBERS)?.insert(FORMAT, 1)?;
            }
            make(tables)?;
            Ok(found.unwrap_or(1))
        })?;
        if format == 1 { Ok(opened) } else { Err(DatabaseError::Format { path: opened.path, found: format }) }
    }

    /// All of a change, or none of it.
    ///
    /// # Errors
    /// [`DatabaseError::Store`]; nothing was changed.
    pub fn change<T>(
        &self,
        change: impl FnOnce(&WriteTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, DatabaseError> {
        let done = || -> Result<T, redb::Error> {
            let transaction = self.database.begin_write()?;
            let value = change(&transaction)?;
            transaction.commit()?;
            Ok(value)
        };
        done().map_err(|source| self.failed(source))
    }

    /// One state of all tables.
    ///
    /// # Errors
    /// [`DatabaseError::Store`].
    pub fn read<T>(&self, read: impl FnOnce(&ReadTransaction) -> Result<T, redb::Error>) -> Result<T, DatabaseError> {
        let done = || read(&self.database.begin_read()?);
        done().map_err(|source| self.failed(source))
    }

    /// A value that was kept as JSON.
    ///
    /// # Errors
    /// [`DatabaseError::Unreadable`], which says that it is `what`.
    pub fn parsed<T: DeserializeOwned>(&self, what: String, bytes: &[u8]) -> Result<T, DatabaseError> {
        let path = || self.path.clone();
        serde_json::from_slice(bytes).map_err(|source| DatabaseError::Unreadable { path: path(), what, source })
    }

    fn failed(&self, source: redb::Error) -> DatabaseError {
        DatabaseError::Store { path: self.path.clone(), source: Box::new(source) }
    }
}
