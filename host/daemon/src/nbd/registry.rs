//! The exports by name, in the order they were added; they come and go while the server runs.

use std::fmt;
use std::mem;
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};

use crate::nbd::completion::Queue;
use crate::nbd::export::Export;
use crate::nbd::limits::MAX_STRING;

/// What a server serves. Cloning shares it.
#[derive(Clone, Default)]
pub struct Registry {
    entries: Arc<RwLock<Vec<Arc<Entry>>>>,
}

/// Why an export was not added.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddError {
    /// The name is taken.
    #[error("export {0:?} exists already: remove it first or choose another name")]
    Exists(String),
    /// The name cannot be asked for.
    #[error("an export name has 1 to 4096 bytes and no NUL, this one has {0} bytes")]
    Name(usize),
}

impl Registry {
    /// Adds an export. The first one also answers to the empty name.
    ///
    /// # Errors
    /// A name that is taken, empty or too long.
    pub fn add(&self, name: &str, export: Arc<dyn Export>) -> Result<(), AddError> {
        if name.is_empty() || name.len() > MAX_STRING || name.contains('\0') {
            return Err(AddError::Name(name.len()));
        }
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        if entries.iter().any(|entry| entry.name == name) {
            return Err(AddError::Exists(name.to_owned()));
        }
        entries.push(Arc::new(Entry { name: name.to_owned(), export, sessions: Mutex::default() }));
        Ok(())
    }

    /// Removes an export: its sessions finish what is in flight, answer ESHUTDOWN to the rest, and end.
    /// Says whether it was there.
    pub fn remove(&self, name: &str) -> bool {
        let removed = {
            let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
            let place = entries.iter().position(|entry| entry.name == name);
            place.map(|place| entries.remove(place))
        };
        let Some(entry) = removed else { return false };
        entry.withdraw();
        true
    }

    /// Names, in order.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.entries().iter().map(|entry| entry.name.clone()).collect()
    }

    pub(crate) fn entries(&self) -> Vec<Arc<Entry>> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// By name; the empty name is the first export.
    pub(crate) fn find(&self, name: &str) -> Option<Arc<Entry>> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        let mut found = entries.iter().filter(|entry| name.is_empty() || entry.name == name);
        found.next().cloned()
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Registry").field(&self.names()).finish()
    }
}

/// An export under its name, with the sessions on it.
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) export: Arc<dyn Export>,
    sessions: Mutex<Sessions>,
}

#[derive(Default)]
struct Sessions {
    queues: Vec<Weak<Queue>>,
    withdrawn: bool,
}

impl Entry {
    /// Makes a session's queue hear of the removal, at once if that has been.
    pub(crate) fn join(&self, queue: &Arc<Queue>) {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        if sessions.withdrawn {
            queue.close();
            return;
        }
        sessions.queues.retain(|queue| queue.strong_count() > 0);
        sessions.queues.push(Arc::downgrade(queue));
    }

    fn withdraw(&self) {
        let queues = {
            let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
            sessions.withdrawn = true;
            mem::take(&mut sessions.queues)
        };
        for queue in queues.iter().filter_map(Weak::upgrade) {
            queue.close();
        }
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Entry").field(&self.name).finish()
    }
}
