//! What a pair's policy or strategy was asked and what it answered: a bounded journal beside its state, by which another is
//! compared before it is put in force.
//!
//! One line of JSON for each call, in `policy.journal` or `recovery.journal`; at 1 MiB it becomes `.journal.old` and a new one
//! begins. What a crash tears off at the end is not missed: what counts is the state, which is kept elsewhere. Nor is a call missed
//! whose line would be longer than 512 KiB, nor a file that is longer than these can be: the log says so, and the node goes on.

use std::collections::VecDeque;
use std::fmt;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use farseal_plugin::{Answer, By, Call, CallOf, Digest, Recovery, RotationPolicy, Slot, StepFunction};
use serde::{Deserialize, Serialize};

use crate::store::{StoreError, files};

/// Bytes of one of the two files: some hundred calls of a policy with a large state, a thousand of a usual one.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// A line holds a state and settings of 64 KiB each, and what may be escaped in them; decisions are short where an author means well.
const LINE_BYTES_MAX: usize = 512 << 10;
/// The last line may pass the limit by all of its length.
const READ_BYTES_MAX: u64 = 2 * FILE_BYTES_MAX;

/// A call and its answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Entry<C, E, D> {
    /// Of the component in force. Its settings are in the call's context.
    pub digest: Digest,
    /// Why the host answered in its place; `None`: the component did.
    pub instead: Option<String>,
    pub call: Call<C, E>,
    pub decisions: Vec<D>,
}

/// Of a kind of plugin.
pub type EntryOf<P> = Entry<<P as StepFunction>::Context, <P as StepFunction>::Event, <P as StepFunction>::Decision>;

/// The newest calls that one component answered by itself with one set of settings: which, with what, and the calls.
pub type Newest<P> = (Digest, String, Vec<EntryOf<P>>);

/// The journal of one place of a pair.
pub struct StepJournal<P: StepFunction> {
    path: PathBuf,
    inner: Mutex<Inner<P>>,
}

impl<P: StepFunction> fmt::Debug for StepJournal<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StepJournal").field("path", &self.path).finish_non_exhaustive()
    }
}

struct Inner<P: StepFunction> {
    entries: VecDeque<(u64, EntryOf<P>)>,
    /// Of the entries in memory, as lines.
    bytes: u64,
    /// Of the file that is written.
    in_file: u64,
}

impl<P: StepFunction> StepJournal<P> {
    /// Reads what is there; lines that cannot be read are passed over.
    fn open_at(path: PathBuf) -> Result<Self, StoreError> {
        let mut inner = Inner::<P> { entries: VecDeque::new(), bytes: 0, in_file: 0 };
        for file in [old(&path), path.clone()] {
            let bytes = match files::read_if_there(&file, READ_BYTES_MAX) {
                Ok(bytes) => bytes.unwrap_or_default(),
                Err(error @ StoreError::Damaged { .. }) => {
                    tracing::warn!(%error, "calls that were journalled are passed over");
                    // The next line goes to a file of its own.
                    inner.in_file = FILE_BYTES_MAX;
                    continue;
                }
                Err(error) => return Err(error),
            };
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

    /// Adds a call that was answered from a slot, before its decisions are carried out.
    pub fn add_answer<T>(&self, slot: &Slot<P>, call: CallOf<P>, answer: &Answer<T>, decisions: Vec<P::Decision>) {
        let Some(plugin) = slot.current() else { return };
        let instead = match &answer.by {
            By::Plugin(_) => None,
            By::Fallback(because) => Some(because.to_string()),
        };
        self.add(Entry { digest: plugin.facts().digest, instead, call, decisions });
    }

    /// Adds a call, before its decisions are carried out.
    pub fn add(&self, entry: EntryOf<P>) {
        let Ok(mut line) = serde_json::to_vec(&entry) else { return };
        line.push(b'\n');
        if line.len() > LINE_BYTES_MAX {
            let (bytes, decisions, path) = (line.len(), entry.decisions.len(), self.path.display());
            let call = match &entry.call {
                Call::Init { .. } => "first call".into(),
                Call::Step { event, .. } => P::event_words(event),
            };
            tracing::warn!(%path, call, decisions, bytes, "a call is too long to be journalled and is left out");
            return;
        }
        let mut inner = self.lock();
        if let Err(error) = self.write(&mut inner, &line) {
            tracing::warn!(path = %self.path.display(), %error, "a call could not be journalled");
        }
        inner.add(line.len(), entry);
    }

    /// Everything that is there, oldest first.
    #[must_use]
    pub fn entries(&self) -> Vec<EntryOf<P>> {
        self.lock().entries.iter().map(|(_, entry)| entry.clone()).collect()
    }

    /// The last decision of this sort.
    #[must_use]
    pub fn last_decision(&self, is_wanted: impl Fn(&P::Decision) -> bool) -> Option<P::Decision> {
        let inner = self.lock();
        let mut decisions = inner.entries.iter().rev().flat_map(|(_, entry)| &entry.decisions);
        decisions.find(|decision| is_wanted(decision)).cloned()
    }

    /// The calls that this component answered with these settings, since it was put in force.
    #[must_use]
    pub fn calls_of(&self, digest: Digest, config: &str) -> Vec<CallOf<P>> {
        let inner = self.lock();
        let own = |entry: &&EntryOf<P>| entry.digest == digest && P::config(entry.call.context()) == config;
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

    /// See [`Newest`]. `None`: there are none.
    #[must_use]
    pub fn newest(&self) -> Option<Newest<P>> {
        let inner = self.lock();
        let own = |entry: &&EntryOf<P>| entry.instead.is_none();
        let mut newest = inner.entries.iter().rev().map(|(_, entry)| entry).skip_while(|entry| !own(entry)).peekable();
        let first = newest.peek()?;
        let (digest, config) = (first.digest, P::config(first.call.context()).to_owned());
        let same =
            |entry: &&EntryOf<P>| own(entry) && entry.digest == digest && P::config(entry.call.context()) == config;
        let mut entries: Vec<EntryOf<P>> = newest.take_while(same).cloned().collect();
        entries.reverse();
        Some((digest, config, entries))
    }

    fn write(&self, inner: &mut Inner<P>, line: &[u8]) -> std::io::Result<()> {
        if inner.in_file >= FILE_BYTES_MAX {
            std::fs::rename(&self.path, old(&self.path))?;
            inner.in_file = 0;
        }
        OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path)?.write_all(line)?;
        inner.in_file += u64::try_from(line.len()).unwrap_or(FILE_BYTES_MAX);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Inner<P>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<P: StepFunction> Inner<P> {
    fn add(&mut self, len: usize, entry: EntryOf<P>) {
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

impl StepJournal<RotationPolicy> {
    /// Of a pair's policy.
    pub fn of_policy(pair_directory: &Path) -> Result<Self, StoreError> {
        Self::open_at(pair_directory.join("policy.journal"))
    }
}

impl StepJournal<Recovery> {
    /// Of a pair's strategy.
    pub fn of_recovery(pair_directory: &Path) -> Result<Self, StoreError> {
        Self::open_at(pair_directory.join("recovery.journal"))
    }
}

fn old(path: &Path) -> PathBuf {
    path.with_extension("journal.old")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use farseal_plugin::RotationCall;
    use farseal_plugin::wit::rotation::{Context, HostLimits};

    use super::*;

    fn entry(instead: &str) -> EntryOf<RotationPolicy> {
        let limits = HostLimits { min_interval: 0, max_age: 1, max_bytes: 1 };
        let context = Context {
            now: 1,
            pair: "vault".into(),
            entropy: 0,
            config: "{}".into(),
            keys: Vec::new(),
            limits,
            link_up: true,
        };
        let digest = Digest::of(b"a policy");
        Entry { digest, instead: Some(instead.into()), call: RotationCall::Init { context }, decisions: Vec::new() }
    }

    fn said(journal: &StepJournal<RotationPolicy>) -> Vec<String> {
        journal.entries().into_iter().filter_map(|entry| entry.instead).collect()
    }

    #[test]
    fn a_journal_that_is_too_long_is_passed_over_and_the_next_call_begins_another() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("policy.journal"), vec![b'x'; 3 << 20]).unwrap();
        let journal = StepJournal::of_policy(directory.path()).unwrap();
        assert!(journal.entries().is_empty());
        journal.add(entry("one"));
        let length = std::fs::metadata(directory.path().join("policy.journal")).unwrap().len();
        assert!(length < 1_000, "{length} bytes");
        // What was too long is the older of the two now.
        assert_eq!(said(&StepJournal::of_policy(directory.path()).unwrap()), ["one"]);
    }

    #[test]
    fn a_call_that_is_too_long_is_left_out_and_those_around_it_are_there_after_a_start() {
        let directory = tempfile::tempdir().unwrap();
        let journal = StepJournal::of_policy(directory.path()).unwrap();
        let long = "x".repeat(LINE_BYTES_MAX);
        for instead in ["one", &long, "two"] {
            journal.add(entry(instead));
        }
        assert_eq!(said(&journal), ["one", "two"]);
        assert_eq!(said(&StepJournal::of_policy(directory.path()).unwrap()), ["one", "two"]);
    }
}
