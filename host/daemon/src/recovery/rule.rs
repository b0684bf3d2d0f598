//! What becomes of an access to a closed block, as the strategy says, and what an access waits for before it has said anything. How a
//! strategy would begin, asked before a takeover

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use farseal_core::units::BlockCount;
use farseal_plugin::wit::recovery as wit;
use farseal_plugin::{By, Plugin as _};

use crate::plugins::PairPlugins;

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

/// Would the strategy in force refuse accesses from the beginning on? It is asked as a takeover asks it, and nothing is made of its
/// other decisions. One that does not answer is none to rely on.
pub fn begins_by_refusing(plugins: &PairPlugins, pair: &str, blocks: BlockCount) -> bool {
    let nothing = wit::Progress { present: 0, opened: 0, failed: 0 };
    let Some(context) = context(plugins, pair, blocks, nothing) else { return false };
    let made = plugins.recovery.init(context.now, &context);
    let begun = plugins.recovery.step(context.now, &made.value.state, &wit::Event::Begin, &context);
    if [&made.by, &begun.by].iter().any(|by| matches!(by, By::Fallback(_))) {
        return false;
    }
    let decisions = made.value.decisions.iter().chain(&begun.value.decisions);
    let mut rules = decisions.filter_map(|decision| match decision.action {
        wit::Action::Access(rule) => Some(rule),
        wit::Action::Open(_)
        | wit::Action::WakeAt(_)
        | wit::Action::Finished
        | wit::Action::Alert(_)
        | wit::Action::Ext(_) => None,
    });
    rules.next_back() == Some(wit::OnAccess::Refuse)
}

/// What a strategy is told of the moment. `None`: the system has no chance to give.
pub(super) fn context(
    plugins: &PairPlugins,
    pair: &str,
    blocks: BlockCount,
    progress: wit::Progress,
) -> Option<wit::Context> {
    let mut entropy = [0; 8];
    getrandom::fill(&mut entropy).ok()?;
    Some(wit::Context {
        now: crate::clock::wall_time().0,
        volume: pair.to_owned(),
        config: plugins.recovery.current().map_or_else(String::new, |plugin| plugin.facts().config.clone()),
        volume_blocks: blocks.0,
        progress,
        entropy: u64::from_le_bytes(entropy),
    })
}
