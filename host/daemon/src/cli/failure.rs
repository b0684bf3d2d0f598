//! How commands fail: one message, the operator's next step, and an exit code that scripts may rely on.

use std::error::Error;
use std::fmt;
use std::process::ExitCode;

use crate::config::problem::ConfigError;
use crate::config::write::AppendError;
use crate::control::api::ErrorCode;
use crate::control::client::ClientError;

/// Exit codes. Stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0.
    Done,
    /// 1: tried and failed, or something given was not sound.
    Failed,
    /// 2: the command line is wrong.
    Usage,
    /// 3: not in this state, or a limit or the policy forbids it; nothing changed.
    Refused,
    /// 4: no node answers.
    NotReachable,
    /// 5: a verification was carried out and the copy differs, or decisions were compared and differ.
    Differs,
}

impl Exit {
    /// The number.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Refused => 3,
            Self::NotReachable => 4,
            Self::Differs => 5,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Why a command did not do what it was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// For scripts.
    pub exit: Exit,
    /// For people.
    pub message: String,
    /// What the operator can do.
    pub next: Option<String>,
}

impl Failure {
    /// Something failed, and its message says all.
    #[must_use]
    pub fn of(error: &dyn Error) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            if !message.contains(&text) {
                message = format!("{message}: {text}");
            }
            source = cause.source();
        }
        Self { exit: Exit::Failed, message, next: None }
    }

    pub(super) fn new(exit: Exit, message: impl Into<String>, next: impl Into<String>) -> Self {
        Self { exit, message: message.into(), next: Some(next.into()) }
    }

    /// A file could not be read or written.
    pub(super) fn file(path: &std::path::Path, error: &std::io::Error) -> Self {
        Self { exit: Exit::Failed, message: format!("{}: {error}", path.display()), next: None }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.next.iter().try_for_each(|next| write!(f, "\n  next: {next}"))
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self { exit: Exit::Failed, message: error.to_string(), next: None }
    }
}

impl From<AppendError> for Failure {
    fn from(error: AppendError) -> Self {
        Self { exit: Exit::Failed, message: error.to_string(), next: None }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let exit = match &error {
            ClientError::NotRunning { .. } | ClientError::NotAllowed { .. } | ClientError::Lost(_) => {
                Exit::NotReachable
            }
            ClientError::Refused { reply } if reply.code == ErrorCode::Refused => Exit::Refused,
            ClientError::Refused { .. } | ClientError::Nonsense { .. } => Exit::Failed,
        };
        Self { exit, message: error.to_string(), next: error.next() }
    }
}
