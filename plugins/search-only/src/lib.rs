//! Recovery strategy `search-only`: nothing is opened but records that an operator's search finds, so many a search and in all.
//! An operator can say `lock`, `unlock` and `release N`.

use farseal_sdk::recovery::{Context, Decisions, Event, FOUND, Found, OnAccess, Strategy};
use farseal_sdk::{About, Plugin};
use serde::{Deserialize, Serialize};

farseal_sdk::settings! {
    /// How much searches may open.
    pub struct Settings {
        /// Records that one search may open; 0 for all that it finds.
        per_search: u64 = 0,
        /// Records that all searches together may open, until an operator releases more; 0 for no limit.
        in_all: u64 = 0,
    }
}

/// What is kept between calls.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct State {
    locked: bool,
    /// Records opened by all searches.
    opened: u64,
    /// Records that an operator released beyond the settings.
    released: u64,
    /// The search that came last, and the records that it opened.
    search: u64,
    by_search: u64,
    /// Of this search it was said that it may open no more.
    said: bool,
}

/// The strategy.
#[derive(Debug)]
pub struct SearchOnly;

impl Plugin for SearchOnly {
    const ABOUT: About = farseal_sdk::about!("Opens nothing but what an operator's search finds.");
    const STATE_SCHEMA: u32 = 1;
    const UNDERSTANDS: &'static [&'static str] = &[FOUND];
    type Settings = Settings;
}

impl Strategy for SearchOnly {
    type State = State;

    fn step(state: &mut State, event: &Event, cx: &Context<'_, Settings>, decisions: &mut Decisions) {
        match event {
            Event::Begin => {
                decisions.access(OnAccess::Refuse, "only a search opens records");
                decisions.finished("nothing is opened in the background");
            }
            Event::Requested(text) => obey(state, text, decisions),
            Event::Ext(ext) => {
                if let Some(found) = Found::of(ext) {
                    state.open(&found, cx.settings, decisions);
                }
            }
            Event::Swept(_) | Event::Accessed(_) | Event::Timer => {}
        }
    }
}

impl State {
    fn open(&mut self, found: &Found, settings: &Settings, decisions: &mut Decisions) {
        if found.search != self.search {
            (self.search, self.by_search, self.said) = (found.search, 0, false);
        }
        for record in &found.records {
            if let Some(why) = self.limit(settings) {
                if !std::mem::replace(&mut self.said, true) {
                    decisions.alert(&format!("search {} opens no more records: {why}", self.search));
                }
                return;
            }
            decisions.open(*record, "the search found it");
            self.by_search += 1;
            self.opened += 1;
        }
    }

    /// Why no further record may be opened.
    fn limit(&self, settings: &Settings) -> Option<String> {
        let in_all = settings.in_all.saturating_add(self.released);
        if self.locked {
            Some("an operator locked the volume".into())
        } else if settings.per_search > 0 && self.by_search >= settings.per_search {
            Some(format!("per-search is {}", settings.per_search))
        } else if settings.in_all > 0 && self.opened >= in_all {
            Some(format!("{in_all} are released in all"))
        } else {
            None
        }
    }
}

fn obey(state: &mut State, text: &str, decisions: &mut Decisions) {
    let words: Vec<&str> = text.split_whitespace().collect();
    match words[..] {
        ["lock"] => state.locked = true,
        ["unlock"] => state.locked = false,
        ["release", count] if count.parse::<u64>().is_ok() => {
            state.released = state.released.saturating_add(count.parse().unwrap_or_default());
        }
        _ => decisions.alert("say lock, unlock or release N"),
    }
}

farseal_sdk::export_recovery!(SearchOnly);
