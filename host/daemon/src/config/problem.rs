//! What is wrong with a configuration: where, what was found, what is allowed, and the fix.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why a configuration was not taken.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("{}: {source}\n  fix: `farseal init --dir DIR --name NAME` makes a configuration; `--config FILE` names another", file.display())]
    Unreadable {
        /// Which.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is larger than any configuration.
    #[error("{}: larger than {most} bytes\n  fix: this is no configuration of farseal; name the right file with --config", file.display())]
    TooLong {
        /// Which.
        file: PathBuf,
        /// Bytes allowed.
        most: u64,
    },
    /// It is not TOML.
    #[error("{}:{line}: not TOML: {message}\n  fix: correct this line; see https://toml.io for the syntax", file.display())]
    Syntax {
        /// Which.
        file: PathBuf,
        /// Counted from 1.
        line: usize,
        /// The parser's word.
        message: String,
    },
    /// A field is wrong.
    #[error("{}:{line}: {problem}", file.display())]
    Field {
        /// Which.
        file: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        problem: Box<Problem>,
    },
}

/// What is wrong with a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Its path: `pair[0].key-limits.max-age`.
    pub field: String,
    /// Its value as the file has it, cut to a line; `None` where it is missing.
    pub value: Option<String>,
    /// What is wrong with it.
    pub wrong: String,
    /// What is allowed.
    pub allowed: String,
    /// What to write.
    pub fix: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{} = {value}: {}", self.field, self.wrong)?,
            None => write!(f, "{}: {}", self.field, self.wrong)?,
        }
        write!(f, "\n  allowed: {}\n  fix: {}", self.allowed, self.fix)
    }
}
