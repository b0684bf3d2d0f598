//! What a pair's rotation policy was asked and what it answered: a bounded journal beside its state, by which another
//! policy is compared before it is put in force, and which tells an operator why a key changed.
//!
//! One line of JSON for each call, in `policy.journal`; at 1 MiB it becomes `policy.journal.old` and a new one begins.
//! What a crash tears off at the end is not missed: what counts is the state in `policy.json`.

use std::collections::VecDeque;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use farseal_plugin::wit::rotation::{Action, Decision, Event, OutcomeOfDecision};
use farseal_plugin::{Digest, RotationCall};
use serde::{Deserialize, Serialize};

use crate::store::{StoreError, files};

/// Bytes of one of the two files: some hundred calls of a policy with a large state, a thousand of a usual one.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// A line holds a state and settings of 64 KiB each, escaped: the last line may pass the limit by that.
const READ_BYTES_MAX: u64 = 2 * FILE_BYTES_MAX;

/// A call and its answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Entry {
    /// Of the component in force. Its settings are in the call's context.
    pub digest: Digest,
    /// Why the host's own policy answered in its place; `None`: the component did.
    pub instead: Option<String>,
    pub call: RotationCall,
    pub decisions: Vec<Decision>,
}

/// The journal of a pair.
#[derive(Debug)]
pub struct PolicyJournal {
    path: PathBuf,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    entries: VecDeque<(u64, Entry)>,
    /// Of the entries in memory, as lines.
    bytes: u64,
    /// Of the file that is written.
    in_file: u64,
}

impl PolicyJournal {
    /// Reads what is there; lines that cannot be read are passed over.
    pub fn open(pair_directory: &Path) -> Result<Self, StoreError> {
        let path = pair_directory.join("policy.journal");
        let mut inner = Inner::default();
        for file in [old(&path), path.clone()] {
            let bytes = files::read_if_there(&file, READ_BYTES_MAX)?.unwrap_or_default();
            inner.in_file = u64::try_from(bytes.len()).unwrap_or(FILE_BYTES_MAX);
            for line in bytes.split(|byte| *byte == b'\n') {
                if let Ok(entry) = serde_json::from_slice(line) {
                    inner.add(line.len(), entry);
                }
            }
            if bytes.last().is_some_and(|byte| *byte != b'\n') {
                // A torn line: the next one goes to a file of its own.
                inner.in_file = FILE_BYTES_MAX;
            }
        }
        Ok(Self { path, inner: Mutex::new(inner) })
    }

    /// Adds a call, before its decisions are carried out.
    pub fn add(&self, entry: Entry) {
        let Ok(mut line) = serde_json::to_vec(&entry) else { return };
        line.push(b'\n');
        let mut inner = self.lock();
        if let Err(error) = self.write(&mut inner, &line) {
            tracing::warn!(path = %self.path.display(), %error, "a call of the policy could not be journalled");
        }
        inner.add(line.len(), entry);
    }

    /// Everything that is there, oldest first.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        self.lock().entries.iter().map(|(_, entry)| entry.clone()).collect()
    }

    /// The calls that this component answered with these settings, since it was put in force.
    #[must_use]
    pub fn calls_of(&self, digest: Digest, config: &str) -> Vec<RotationCall> {
        let inner = self.lock();
        let own = |entry: &&Entry| entry.digest == digest && config_of(&entry.call) == config;
        let mut calls: Vec<_> = inner
            .entries
            .iter()
            .rev()
            .map(|(_, entry)| entry)
            .take_while(own)
            .map(|entry| entry.call.clone())
            .collect();
        calls.reverse();
        calls
    }

    /// Why the policy made its last decision of this number.
    #[must_use]
    pub fn reason(&self, id: u64) -> Option<String> {
        let inner = self.lock();
        let mut decisions = inner.entries.iter().rev().flat_map(|(_, entry)| &entry.decisions);
        let decision = decisions.find(|decision| decision.id == id && matches!(decision.action, Action::Rotate(_)))?;
        let reason = match &decision.action {
            Action::Rotate(rotate) if !rotate.reason.is_empty() => &rotate.reason,
            Action::Rotate(_) | Action::WakeAt(_) | Action::Watch(_) | Action::Alert(_) | Action::Ext(_) => {
                &decision.why
            }
        };
        Some(farseal_plugin::escaped(reason))
    }

    fn write(&self, inner: &mut Inner, line: &[u8]) -> std::io::Result<()> {
        if inner.in_file >= FILE_BYTES_MAX {
            std::fs::rename(&self.path, old(&self.path))?;
            inner.in_file = 0;
        }
        OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path)?.write_all(line)?;
        inner.in_file += u64::try_from(line.len()).unwrap_or(FILE_BYTES_MAX);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn add(&mut self, len: usize, entry: Entry) {
        let len = u64::try_from(len).unwrap_or(FILE_BYTES_MAX);
        self.entries.push_back((len, entry));
        self.bytes += len;
        while self.bytes > READ_BYTES_MAX
            && let Some((len, _)) = self.entries.pop_front()
        {
            self.bytes -= len;
        }
    }
}

/// What the host made of a decision: of one to rotate, what the policy was told; the others are carried out as they come.
#[must_use]
pub fn answer_to(entries: &[Entry], at: usize, decision: &Decision) -> String {
    match decision.action {
        Action::Rotate(_) | Action::Ext(_) => {}
        Action::WakeAt(_) | Action::Watch(_) | Action::Alert(_) => return "applied".into(),
    }
    let told = entries.iter().skip(at + 1).find_map(|entry| match &entry.call {
        RotationCall::Step { event: Event::Decided(decided), .. } if decided.id == decision.id => {
            Some(decided.outcome.clone())
        }
        RotationCall::Init { .. } | RotationCall::Step { .. } => None,
    });
    match told {
        None => "under way, or not heard of before a restart".into(),
        Some(OutcomeOfDecision::Refused(why)) => format!("refused: {}", farseal_plugin::escaped(&why)),
        Some(OutcomeOfDecision::Clamped(how)) => format!("clamped: {}", farseal_plugin::escaped(&how)),
        Some(OutcomeOfDecision::Applied) => "applied".into(),
    }
}

fn config_of(call: &RotationCall) -> &str {
    match call {
        RotationCall::Init { context } | RotationCall::Step { context, .. } => &context.config,
    }
}

fn old(path: &Path) -> PathBuf {
    path.with_extension("journal.old")
}
