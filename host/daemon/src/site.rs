//! The subsystems of a site and its lead: consistency groups over pairs of many nodes, and one place that shows them all.
//!
//! ```text
//!  lead node                                    member nodes
//!   lead ── coordinator, common ── store         member ── lanes, replicas
//!    │  ▲                                           ▲
//!    │  └── reports ◀── member (its own)            │ orders and reports: TLS, pinned cards
//!    └───── orders ───▶ ──────────────────── net ───┘
//! ```
//!
//! A node alone is its own lead, and nothing listens. The lead decides nothing itself: [`farseal_core::group`] does.
//! What it must not forget lies in a [`store::ControlStore`]; everything else members tell it when they join.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

pub mod lead;
pub mod member;
pub mod net;
pub mod store;
pub mod wire;
pub mod words;

use words::{Ask, Reply, Report, SiteStatus, SiteView};

/// How long a node waits for its lead's answer: a takeover waits for every member of the group.
const PATIENCE: Duration = Duration::from_secs(60);

/// Takes reports to the lead.
pub type Uplink = Box<dyn Fn(Report) + Send>;

/// This node's way to its lead, and what it heard of the site last.
#[derive(Default)]
pub struct Site {
    uplink: Mutex<Option<Uplink>>,
    heard: Mutex<Option<SiteStatus>>,
    asks: Mutex<BTreeMap<u64, oneshot::Sender<Reply>>>,
    next_ask: AtomicU64,
}

/// Why the lead gave no answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NoLead {
    #[error("the site's lead cannot be reached from here")]
    Unreachable,
    #[error("the site's lead did not answer in {} s", PATIENCE.as_secs())]
    Slow,
}

impl std::fmt::Debug for Site {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Site").finish_non_exhaustive()
    }
}

impl Site {
    /// From now on reports go this way; `None`: the lead is gone, and whoever waits for it is told.
    pub fn set_uplink(&self, uplink: Option<Uplink>) {
        if uplink.is_none() {
            lock(&self.asks).clear();
            *lock(&self.heard) = None;
        }
        *lock(&self.uplink) = uplink;
    }

    /// Takes a report to the lead, if there is one to be reached: it hears everything anew when it is again.
    pub fn report(&self, report: Report) -> bool {
        lock(&self.uplink).as_ref().map(|uplink| uplink(report)).is_some()
    }

    /// What the lead said of the site last; `None` while it cannot be reached.
    pub fn status(&self) -> Option<SiteStatus> {
        lock(&self.heard).clone()
    }

    pub(crate) fn heard(&self, status: SiteStatus) {
        *lock(&self.heard) = Some(status);
    }

    pub(crate) fn answered(&self, ask: u64, reply: Reply) {
        if let Some(waits) = lock(&self.asks).remove(&ask) {
            let _ = waits.send(reply);
        }
    }

    /// Asks the lead.
    ///
    /// # Errors
    /// [`NoLead`]; what the lead refuses is in the reply.
    pub async fn ask(&self, ask: Ask) -> Result<Reply, NoLead> {
        let id = self.next_ask.fetch_add(1, Ordering::Relaxed);
        let (sender, reply) = oneshot::channel();
        lock(&self.asks).insert(id, sender);
        if !self.report(Report::Ask { id, ask }) {
            lock(&self.asks).remove(&id);
            return Err(NoLead::Unreachable);
        }
        match tokio::time::timeout(PATIENCE, reply).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(_)) => Err(NoLead::Unreachable),
            Err(_) => {
                lock(&self.asks).remove(&id);
                Err(NoLead::Slow)
            }
        }
    }

    /// Everything that the lead knows.
    ///
    /// # Errors
    /// [`NoLead`].
    pub async fn view(&self) -> Result<SiteView, NoLead> {
        match self.ask(Ask::View).await? {
            Reply::View(view) => Ok(*view),
            Reply::Done(_) | Reply::No(_) => Err(NoLead::Unreachable),
        }
    }
}

fn lock<T>(place: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    place.lock().unwrap_or_else(PoisonError::into_inner)
}
