//! Opening what a search found, and nothing else: the part of the sweeper that holds a strategy to it

use farseal_core::units::Extent;
use farseal_plugin::wit::recovery as wit;
use farseal_plugin::{By, Plugin as _, found};
use tokio::sync::oneshot;

use super::brought::Bring;
use super::sweeper::{Kept, wit_extent};
use super::{Sweeper, crew};
use crate::search::audit::{Audit, Logged, What};
use crate::store::StoreError;
use crate::store::home::Home as _;

/// The records of a page of a search, to be opened as the strategy says.
#[derive(Debug)]
pub struct Searched {
    pub field: String,
    pub audit: Audit,
    pub records: Vec<Extent>,
    /// Has the escrow site open those whose keys are not here.
    pub bring: Option<Bring>,
    /// The audit log comes back for the next page.
    pub done: oneshot::Sender<Result<(Audit, SearchOpened), StoreError>>,
}

/// What became of them.
#[derive(Clone, Copy, Debug, Default)]
pub struct SearchOpened {
    /// Blocks that this search opened; those that were open before do not count.
    pub opened: u64,
    pub failed: u64,
    /// Records that the strategy did not let this search open.
    pub withheld: u64,
}

impl Sweeper {
    /// What the host says in the place of a strategy, to open everything, does not count where a search may have to come first.
    pub(super) fn is_the_strategys(&self, by: &By) -> bool {
        match by {
            By::Fallback(why) if self.by_search => {
                tracing::error!(pair = self.name, %why, "the recovery strategy does not answer: nothing is opened");
                self.rule.set_if_unsaid(wit::OnAccess::Refuse);
                false
            }
            By::Plugin(_) | By::Fallback(_) => true,
        }
    }

    pub(super) fn only_by_search(&self) -> bool {
        self.by_search && self.rule.said() != Some(wit::OnAccess::Open)
    }

    pub(super) fn not_found_by_search(&self, extent: wit::Extent) {
        let wit::Extent { first, blocks } = extent;
        tracing::warn!(
            pair = self.name,
            first,
            blocks,
            "the strategy would open what no search found: it stays closed"
        );
    }

    pub(super) fn obey(&self, action: &wit::Action) {
        match action {
            wit::Action::Access(rule) => self.rule.set(*rule),
            wit::Action::Alert(text) => {
                tracing::warn!(pair = self.name, "the strategy says: {}", farseal_plugin::escaped(text));
            }
            wit::Action::Open(_) | wit::Action::WakeAt(_) | wit::Action::Finished | wit::Action::Ext(_) => {}
        }
    }

    /// Opens the records that a search found, as far as the strategy lets it. Each is in the audit log before it is opened.
    pub(super) fn search(&self, state: &mut Option<Kept>, mut search: Box<Searched>) {
        let mut opened = SearchOpened::default();
        crew::search(true);
        let result = self.open_found(state, &mut search, &mut opened);
        crew::search(false);
        if result.is_ok() {
            self.keep(state.as_ref());
        }
        let Searched { audit, done, .. } = *search;
        let _ = done.send(result.map(|()| (audit, opened)));
    }

    fn open_found(
        &self,
        state: &mut Option<Kept>,
        search: &mut Searched,
        opened: &mut SearchOpened,
    ) -> Result<(), StoreError> {
        let number = search.audit.next();
        let log = |audit: &mut Audit, what| audit.add(&Logged { at: crate::clock::wall_time(), search: number, what });
        for batch in search.records.chunks(found::SEARCH_BATCH) {
            let allowed = self.allowed(state, &search.field, number, batch);
            opened.withheld += u64::try_from(batch.len() - allowed.len()).unwrap_or(u64::MAX);
            if allowed.is_empty() {
                continue;
            }
            let records = allowed.iter().map(|record| (record.first().0, record.blocks().0)).collect();
            log(&mut search.audit, What::Opens { records })?;
            for record in allowed {
                if let Some(bring) = &search.bring {
                    bring.bring(record);
                }
                let swept = self.home.sweep(record);
                opened.opened += swept.opened.0;
                opened.failed += swept.failed.0;
                self.home.source().brought().clear();
                if let Some(stopped) = swept.stopped {
                    return Err(stopped);
                }
            }
        }
        self.home.sync()
    }

    /// The records of a batch that may be opened: all of them where whatever is read is opened anyway.
    fn allowed(&self, state: &mut Option<Kept>, field: &str, number: u64, batch: &[Extent]) -> Vec<Extent> {
        if !self.only_by_search() {
            return batch.to_vec();
        }
        let strategy = self.plugins.recovery.current();
        if !strategy.is_some_and(|strategy| strategy.facts().about.understands.iter().any(|name| name == found::FOUND))
        {
            tracing::warn!(pair = self.name, "the recovery strategy refuses accesses and does not know of searches");
            return Vec::new();
        }
        let records: Vec<_> = batch.iter().map(|record| wit_extent(*record)).collect();
        let event = wit::Event::Ext(found::found(number, field, &records));
        let mut allowed = Vec::new();
        for decision in self.ask(state, &event).unwrap_or_default() {
            match decision.action {
                wit::Action::Open(wit::Extent { first, blocks }) => {
                    let within = |record: &&Extent| {
                        let end = first.checked_add(blocks).is_some_and(|end| record.end().0 <= end);
                        first <= record.first().0 && end && !allowed.contains(*record)
                    };
                    let named: Vec<_> = batch.iter().filter(within).copied().collect();
                    allowed.extend(named);
                }
                other @ (wit::Action::Access(_)
                | wit::Action::Alert(_)
                | wit::Action::WakeAt(_)
                | wit::Action::Finished
                | wit::Action::Ext(_)) => self.obey(&other),
            }
        }
        allowed
    }
}
