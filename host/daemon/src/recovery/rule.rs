//! What becomes of an access to a closed block, as the strategy says, and what an access waits for before it has said anything

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use farseal_plugin::wit::recovery as wit;

/// What becomes of an access to a block that is not open yet, as the strategy says.
#[derive(Debug)]
pub struct AccessRule {
    rule: Mutex<Option<wit::OnAccess>>,
    told: Condvar,
}

/// How long an access waits for the strategy's first word: many times what a plugin's call may take.
const RULE_WAIT: Duration = Duration::from_secs(10);

impl AccessRule {
    /// Accesses open, until the strategy says otherwise.
    #[must_use]
    pub fn open() -> Self {
        Self { rule: Mutex::new(Some(wit::OnAccess::Open)), told: Condvar::new() }
    }

    /// Accesses wait for the strategy's first word: of a volume that may be opened by search alone, nothing is opened before it.
    #[must_use]
    pub fn unsaid() -> Self {
        Self { rule: Mutex::new(None), told: Condvar::new() }
    }

    pub(super) fn set(&self, rule: wit::OnAccess) {
        *self.rule.lock().unwrap_or_else(PoisonError::into_inner) = Some(rule);
        self.told.notify_all();
    }

    /// The strategy has spoken; if it said nothing of accesses, this is the rule.
    pub(super) fn set_if_unsaid(&self, rule: wit::OnAccess) {
        self.rule.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(rule);
        self.told.notify_all();
    }

    pub(super) fn said(&self) -> Option<wit::OnAccess> {
        *self.rule.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Is an access refused? Without a word of the strategy in time it is.
    pub(super) fn refuses(&self) -> bool {
        let rule = self.rule.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.told.wait_timeout_while(rule, RULE_WAIT, |rule| rule.is_none());
        *waited.unwrap_or_else(PoisonError::into_inner).0 != Some(wit::OnAccess::Open)
    }
}
