//! Conformance: the contract's rules as properties, tried on a component with stories made by chance. What breaks a rule
//! is cut down to the shortest story that still does, which is a scenario ready to be kept.
//!
//! The stories follow from the seed alone, so that a report can be made again, and are played as `fixtures/` are: through
//! the component itself, with the node around it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cache::CodeCache;
use crate::cost::Cost;
use crate::host::{Checked, Plugin, PluginHost};
use crate::kind::{Digest, Grant, Kind};
use crate::load_error::{LoadError, Problem};
use crate::scenario::{Run, Scenario};
use crate::world::About;

mod altered;
mod chance;
pub mod demand;
mod judged;
mod rules;
mod settings;
mod shrink;
mod stories;
mod texts;

use chance::Chance;
use judged::{Flaw, Judged};
pub use rules::Rule;

/// Version of the kit: raised when a rule is added or made stricter.
pub const KIT: u32 = 8;

/// Fuel that the calls of one rule's stories may use at least before no further story is told. Fuel and no time: the same stories are
/// told on every machine.
pub const FUEL: u64 = 750_000_000;
/// An interpreter's step costs a hundred times what one in Rust does: the stories of a rule may use what so many of the component's own
/// ordinary calls do. Measured with JavaScript, 5.4 million units a call: C-5 and C-8 have the most calls, some two thousand.
const CALLS_OF_A_RULE: u64 = 16_000;
/// But no more than this, which takes half a minute: a component whose ordinary call is that dear is told fewer stories.
const FUEL_MAX: u64 = 40_000_000_000;
/// Stories that are told in any case.
const LEAST_STORIES: u32 = 2;
/// To cut a story down takes many tries: they may use so many times as much.
const FUEL_FOR_CUTTING_DOWN: u64 = 4;

/// Of long stories a few say what many would: one in so many.
const FEWER_LONG_STORIES: u32 = 8;
/// A state of its own comes back so often in a story with a value of it changed, each time another, and so often with its text damaged.
const ALTERED_VALUES: u64 = 24;
/// See [`ALTERED_VALUES`].
const ALTERED_TEXTS: u64 = 3;
/// What a state may gain, in bytes, while nothing new happens.
const GROWTH_BYTES: u64 = 48;
/// Settings longer than this are told of by their beginning alone.
const SETTINGS_SHOWN: usize = 400;

/// How hard to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effort {
    /// Stories for each rule that is tried with stories.
    pub stories: u32,
    /// The same seed makes the same stories.
    pub seed: u64,
    /// Units of fuel for the stories of each rule; where it is not said, [`FUEL`], or more where the component's ordinary calls are dear.
    pub fuel: Option<u64>,
    /// Rules that are tried at once, each on a thread of its own. The report does not depend on it.
    pub threads: usize,
}

impl Default for Effort {
    fn default() -> Self {
        Self { stories: 40, seed: 1, fuel: None, threads: 1 }
    }
}

/// What came of one rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Verdict {
    /// The rule.
    pub rule: Rule,
    /// How often it was tried; fewer than wished where it broke, or where the fuel was used up.
    pub tried: u32,
    /// The first story that broke it.
    pub broken: Option<Broken>,
    /// The fuel was used up: so many stories were not told.
    #[serde(default)]
    pub untold: u32,
    /// So many of those tried ended early, by a fault or a refusal that another rule is about: they say nothing of this one.
    #[serde(default)]
    pub cut_short: u32,
}

/// How a rule was broken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Broken {
    /// In words.
    pub said: String,
    /// The shortest story found that breaks it: a scenario, ready to be kept under `fixtures/<kind>`.
    pub scenario: Option<String>,
    /// The end of that story's transcript.
    pub transcript: Vec<String>,
    /// The fuel for cutting the story down was used up: a shorter one may do it, too.
    #[serde(default)]
    pub long: bool,
}

/// The result for one component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Report {
    /// Version of the kit.
    pub kit: u32,
    /// The component's name and version, by its own word.
    pub name: String,
    /// See `name`.
    pub version: String,
    /// Its kind.
    pub kind: Kind,
    /// SHA-256 of its bytes.
    pub digest: Digest,
    /// What the stories follow from.
    pub seed: u64,
    /// Stories for each rule that is tried with stories.
    pub stories: u32,
    /// Units of fuel that the stories of each rule might use.
    #[serde(default)]
    pub fuel: u64,
    /// The settings that it was tried with.
    pub settings: Value,
    /// In the order of the rules, but what explains another one's break comes before it.
    pub verdicts: Vec<Verdict>,
}

impl Verdict {
    /// It was told enough to say that the rule is kept: half of the stories that were wished for, at least. A broken rule needs no more.
    #[must_use]
    pub const fn is_told_enough(&self) -> bool {
        let whole = self.tried.saturating_sub(self.cut_short);
        self.broken.is_some() || whole >= self.untold.saturating_add(self.cut_short)
    }

    /// No story of it was told to its end: a component that dies in its first call is tried for nothing else.
    #[must_use]
    pub const fn is_untried(&self) -> bool {
        self.broken.is_none() && self.cut_short == self.tried && self.tried > 0
    }

    /// What came of it, in one line.
    #[must_use]
    pub fn words(&self) -> String {
        if let Some(broken) = &self.broken {
            return format!("BROKEN: {}", broken.said);
        }
        let Self { tried, untold, cut_short, .. } = self;
        if self.is_untried() {
            return format!("NOT TRIED: a fault or a refusal ended each of {tried} stories early");
        }
        let word = if self.is_told_enough() { "kept" } else { "NOT TOLD ENOUGH" };
        let used_up = (*untold > 0).then(|| format!(" of {}: the fuel was used up", tried.saturating_add(*untold)));
        let early = (*cut_short > 0).then(|| format!("; a fault or a refusal ended {cut_short} early"));
        format!("{word}, tried {tried} times{}{}", used_up.unwrap_or_default(), early.unwrap_or_default())
    }
}

impl Report {
    /// No rule is broken, and of each enough stories were told to say so.
    #[must_use]
    pub fn conforms(&self) -> bool {
        self.verdicts.iter().all(|verdict| verdict.broken.is_none() && verdict.is_told_enough())
    }
}

/// Tries every rule of the component's kind, with these settings (null: none).
///
/// # Errors
/// What makes it unloadable, wrong settings among it. `subject` is what messages call it.
pub fn conform(
    host: &PluginHost,
    subject: &str,
    bytes: &[u8],
    config: &Value,
    effort: Effort,
) -> Result<Report, LoadError> {
    try_only(host, subject, bytes, config, effort, &Rule::ALL, &|_| ())
}

/// As [`conform`], but of the kind's rules only these: to look at one again. The report speaks for no component. `begins` hears of each
/// rule before it is tried.
///
/// # Errors
/// As for [`conform`].
pub fn try_only(
    host: &PluginHost,
    subject: &str,
    bytes: &[u8],
    config: &Value,
    effort: Effort,
    only: &[Rule],
    begins: &(dyn Fn(Rule) + Sync),
) -> Result<Report, LoadError> {
    let found = host.inspect(subject, bytes)?;
    let component = host.check(subject, bytes)?;
    let fuel = match effort.fuel {
        Some(fuel) => fuel,
        None => fuel_of_a_rule(&host.cost(subject, bytes, config)?),
    };
    let (about, by_the_way, spent, kept) = (&found.about, RefCell::default(), Cell::new(0), RefCell::default());
    let (cut_short, dead_end) = (Cell::new(false), RefCell::default());
    let trial = Trial { host, component, config, about, effort, fuel, by_the_way, spent, kept, cut_short, dead_end };
    trial.load(subject, config)?;
    let rules: Vec<Rule> = Rule::of(found.kind).into_iter().filter(|rule| only.contains(rule)).collect();
    let (mut flaws, mut by_the_way) = (BTreeMap::new(), BTreeMap::new());
    let (mut verdicts, mut dead_ends) = (Vec::new(), BTreeMap::new());
    for tried in try_all(&trial, &rules, begins) {
        flaws.extend(tried.flaw.map(|flaw| (tried.verdict.rule, flaw)));
        tried.by_the_way.into_iter().for_each(|(rule, broken)| {
            by_the_way.entry(rule).or_insert(broken);
        });
        if let Some((rule, story)) = tried.dead_end {
            dead_ends.entry(rule).or_insert(story);
        }
        verdicts.push(tried.verdict);
    }
    for verdict in verdicts.iter_mut().filter(|verdict| verdict.broken.is_none()) {
        let found = by_the_way.remove(&verdict.rule);
        let of_another = || trial.shortest(verdict.rule, dead_ends.get(&verdict.rule)?);
        let Some((broken, flaw)) = found.or_else(of_another) else { continue };
        (verdict.broken, verdict.cut_short) = (Some(broken), 0);
        flaws.insert(verdict.rule, flaw);
    }
    judged::explain(&mut verdicts, &flaws);
    Ok(Report {
        kit: KIT,
        name: found.about.name.clone(),
        version: found.about.version,
        kind: found.kind,
        digest: found.digest,
        seed: effort.seed,
        stories: effort.stories,
        fuel,
        settings: config.clone(),
        verdicts,
    })
}

/// What came of trying one rule.
struct Tried {
    verdict: Verdict,
    flaw: Option<Flaw>,
    /// What its stories found of other rules.
    by_the_way: BTreeMap<Rule, (Broken, Flaw)>,
    /// The first of its stories that another rule's fault or refusal ended, and which rule that is.
    dead_end: Option<(Rule, serde_yaml_ng::Value)>,
}

/// Each rule alone, some at once, and what came of them in their order: no rule's stories depend on what another's were.
fn try_all(trial: &Trial<'_>, rules: &[Rule], begins: &(dyn Fn(Rule) + Sync)) -> Vec<Tried> {
    let (next, found) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    let work = |trial: Trial<'_>| {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(rule) = rules.get(at) else { return };
            begins(*rule);
            let (verdict, flaw) = trial.verdict(*rule);
            let (by_the_way, dead_end) = (trial.by_the_way.take(), trial.dead_end.take());
            let tried = Tried { verdict, flaw, by_the_way, dead_end };
            found.lock().unwrap_or_else(PoisonError::into_inner).insert(at, tried);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..trial.effort.threads.min(rules.len()) {
            let trial = trial.clone();
            scope.spawn(|| work(trial));
        }
        work(trial.clone());
    });
    found.into_inner().unwrap_or_else(PoisonError::into_inner).into_values().collect()
}

/// By the dearest of the component's ordinary calls.
fn fuel_of_a_rule(costs: &[Cost]) -> u64 {
    let dearest = costs.iter().map(|cost| cost.most).max().unwrap_or(0);
    dearest.saturating_mul(CALLS_OF_A_RULE).clamp(FUEL, FUEL_MAX)
}

/// Native code in memory, so that a component is compiled once for all its stories.
#[derive(Debug, Default)]
pub struct CodeInMemory(Mutex<BTreeMap<String, Vec<u8>>>);

impl CodeCache for CodeInMemory {
    fn get(&self, key: &str) -> Option<Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    fn put(&self, key: &str, bytes: &[u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key.into(), bytes.into());
    }
}

/// One that has told nothing yet is copied for each thread.
#[derive(Clone)]
struct Trial<'a> {
    host: &'a PluginHost,
    component: Checked,
    config: &'a Value,
    about: &'a About,
    effort: Effort,
    /// For the stories of each rule.
    fuel: u64,
    /// What a story for one rule found of another.
    by_the_way: RefCell<BTreeMap<Rule, (Broken, Flaw)>>,
    /// Fuel that all stories so far have used.
    spent: Cell<u64>,
    /// States that it kept in the last story.
    kept: RefCell<Vec<String>>,
    /// A fault or a refusal ended a story since this was last looked at.
    cut_short: Cell<bool>,
    /// See [`Tried::dead_end`].
    dead_end: RefCell<Option<(Rule, serde_yaml_ng::Value)>>,
}

impl Trial<'_> {
    fn verdict(&self, rule: Rule) -> (Verdict, Option<Flaw>) {
        if rule == Rule::SettingsChecked {
            return self.check_settings();
        }
        let fewer = if rule == Rule::StaysSmall { FEWER_LONG_STORIES } else { 1 };
        let stories = self.effort.stories.div_ceil(fewer);
        let begun = self.spent.get();
        let mut verdict = Verdict { rule, tried: 0, untold: 0, broken: None, cut_short: 0 };
        for turn in 0..stories {
            if turn >= LEAST_STORIES && self.spent.get() - begun >= self.fuel {
                return (Verdict { untold: stories - turn, ..verdict }, None);
            }
            self.cut_short.set(false);
            verdict.tried += 1;
            let mut chance = Chance::new(self.effort.seed, rule.number(), turn);
            let story = stories::story(self.component.kind(), rule, self.config, turn, &mut chance);
            let broken = self.whole(rule, &story).or_else(|| {
                let of_its_own =
                    (rule == Rule::ForeignState).then(|| self.altered(&story, turn, &mut chance)).flatten()?;
                self.whole(rule, &of_its_own)
            });
            if let Some((broken, flaw)) = broken {
                self.dead_end.take();
                return (Verdict { broken: Some(broken), cut_short: 0, ..verdict }, Some(flaw));
            }
            verdict.cut_short += u32::from(self.cut_short.get());
        }
        if matches!(rule, Rule::ForeignState | Rule::Migrates) {
            // With a state that is not its own it may die where no other rule looks; without one it is asked again.
            self.dead_end.take();
        }
        (verdict, None)
    }

    /// How a story of the kit's own breaks the rule, cut down. Of one that has no form nothing could be said, and a rule of which
    /// nothing is said would look kept: that is told instead.
    fn whole(&self, rule: Rule, story: &serde_yaml_ng::Value) -> Option<(Broken, Flaw)> {
        match stories::form(story) {
            Ok(()) => self.shortest(rule, story),
            Err(error) => {
                let said = format!("this cannot be tried, by a mistake of the kit's and not of the plugin's: {error}");
                let scenario = serde_yaml_ng::to_string(story).ok();
                let broken = Broken { said: said.clone(), scenario, transcript: Vec::new(), long: false };
                Some((broken, Flaw::Other(said)))
            }
        }
    }

    /// Of the states that it kept in the story told last one comes back, again and again, each time with another thing changed.
    fn altered(&self, story: &serde_yaml_ng::Value, turn: u32, chance: &mut Chance) -> Option<serde_yaml_ng::Value> {
        let kept = self.kept.borrow();
        // The longest says most: every value of it has its turn. Of the others there is one in four turns.
        let longest = kept.iter().max_by_key(|state| state.len())?;
        let any = usize::try_from(chance.below(64)).ok().and_then(|at| kept.get(at.checked_rem(kept.len())?))?;
        let state = if turn % 4 == 3 { any } else { longest };
        let first = u64::from(turn - turn / 4) * ALTERED_VALUES;
        let mut altered: Vec<_> =
            (first..first + ALTERED_VALUES).filter_map(|number| altered::value(state, number)).collect();
        altered.extend((0..ALTERED_TEXTS).map(|_| altered::damaged(state, chance)));
        altered.retain(|changed| !altered::counts_otherwise(state, changed));
        Some(stories::of_states(self.component.kind(), story, altered, chance))
    }

    /// How the story breaks the rule, or the shortest one that is left of it and has the same flaw: a shorter one may break the rule by
    /// another mistake, which is not what was found.
    fn shortest(&self, rule: Rule, story: &serde_yaml_ng::Value) -> Option<(Broken, Flaw)> {
        let (_, flaw) = self.breaks(rule, story)?;
        let end = self.spent.get().saturating_add(self.fuel.saturating_mul(FUEL_FOR_CUTTING_DOWN));
        let still = |shorter: &serde_yaml_ng::Value| {
            self.spent.get() < end && self.breaks(rule, shorter).is_some_and(|(_, found)| found == flaw)
        };
        let story = shrink::shrink(story.clone(), still);
        let long = self.spent.get() >= end;
        self.breaks(rule, &story).map(|(broken, flaw)| (Broken { long, ..broken }, flaw))
    }

    /// A component that dies without what the rule is about breaks another rule. Said there, it is not missed: the stories for
    /// that one may be without it.
    fn dies_anyway(&self, story: &serde_yaml_ng::Value) -> bool {
        let mut without = story.clone();
        if let Some(timeline) = without.get_mut("timeline").and_then(serde_yaml_ng::Value::as_sequence_mut) {
            timeline.retain(|entry| entry.get("state").is_none() && entry.get("migrate").is_none());
        }
        let Some(run) = self.tell(&without) else { return false };
        let Some(rule) = judged::rule_of_end(&run) else { return false };
        if !self.by_the_way.borrow().contains_key(&rule)
            && let Some(found) = self.shortest(rule, &without)
        {
            self.by_the_way.borrow_mut().insert(rule, found);
        }
        true
    }

    /// How the story breaks the rule, and by which flaw; none where it does not, or where it would make an honest policy break it, too.
    fn breaks(&self, rule: Rule, story: &serde_yaml_ng::Value) -> Option<(Broken, Flaw)> {
        let Judged { said, flaw, story: told, transcript } = judged::judge(rule, story, &|story| self.tell(story))?;
        let of_state = matches!(rule, Rule::ForeignState | Rule::Migrates) && flaw != Flaw::Unread;
        if (of_state && self.dies_anyway(story)) || judged::is_of_the_story(rule, story) {
            return None;
        }
        let transcript = last_lines(&transcript);
        let scenario = serde_yaml_ng::to_string(&told).ok();
        Some((Broken { said, scenario, transcript, long: false }, flaw))
    }

    /// Plays the story. None where it is no story: a shortened one may be without what its form needs.
    fn tell(&self, story: &serde_yaml_ng::Value) -> Option<Run> {
        let yaml = serde_yaml_ng::to_string(story).ok()?;
        let scenario = Scenario::parse("conformance", &yaml).ok()?;
        let run = scenario.play(self.host, &self.about.name, &self.component).ok()?;
        self.spent.set(self.spent.get().saturating_add(run.fuel));
        self.kept.borrow_mut().clone_from(&run.kept);
        if let Some(rule) = judged::rule_of_end(&run) {
            self.cut_short.set(true);
            self.dead_end.borrow_mut().get_or_insert_with(|| (rule, story.clone()));
        }
        Some(run)
    }

    /// Settings that the schema allows, and many that it does not: refused with a place, or taken, and then good for a few calls.
    fn check_settings(&self) -> (Verdict, Option<Flaw>) {
        let rule = Rule::SettingsChecked;
        let mut verdict = Verdict { rule, tried: 0, untold: 0, broken: None, cut_short: 0 };
        // What dies with its own settings as well does not die of others.
        let dies_anyway = self.use_settings(self.config).is_err();
        for config in &settings::unlikely(&self.about.config_schema, self.config) {
            verdict.tried += 1;
            let broken = match self.judge_settings(config) {
                Err(said) => Some(wrong(&format!("with the settings {}: {said}", shown(config)))),
                Ok(Taken::No) => None,
                Ok(Taken::Yes) if dies_anyway => {
                    verdict.cut_short += 1;
                    None
                }
                Ok(Taken::Yes) => self.use_settings(config).err(),
            };
            if let Some(broken) = broken {
                let flaw = Flaw::Other(broken.said.clone());
                return (Verdict { broken: Some(broken), cut_short: 0, ..verdict }, Some(flaw));
            }
        }
        (verdict, None)
    }

    fn judge_settings(&self, config: &Value) -> Result<Taken, String> {
        match self.load(&self.about.name, config) {
            Ok(()) => Ok(Taken::Yes),
            Err(LoadError { problem: Problem::Config { found, .. }, .. }) => {
                let placeless = found.iter().any(|one| !one.path.is_empty() && !one.path.starts_with('/'));
                if placeless { Err("a complaint has a path that is no JSON pointer".into()) } else { Ok(Taken::No) }
            }
            Err(error) => Err(error.to_string()),
        }
    }

    /// A few calls with settings that it takes.
    fn use_settings(&self, config: &Value) -> Result<(), Broken> {
        let story = stories::of_settings(self.component.kind(), config).map_err(|error| error.to_string());
        let formed = story.and_then(|story| stories::form(&story).map(|()| story));
        let story = formed.map_err(|error| {
            wrong(&format!("this cannot be tried, by a mistake of the kit's and not of the plugin's: {error}"))
        })?;
        let Some((said, run)) = self.tell(&story).and_then(|run| Some((judged::with_settings(&run)?, run))) else {
            return Ok(());
        };
        let said = format!("the settings {} are taken, and then: {said}", shown(config));
        let scenario = serde_yaml_ng::to_string(&story).ok().filter(|_| is_shown(config));
        Err(Broken { scenario, transcript: last_lines(&run.transcript), ..wrong(&said) })
    }

    fn load(&self, subject: &str, config: &Value) -> Result<(), LoadError> {
        match self.component.kind() {
            Kind::Rotation => self.load_as::<crate::RotationPolicy>(subject, config),
            Kind::Disguise => self.load_as::<crate::Disguise>(subject, config),
            Kind::Recovery => self.load_as::<crate::Recovery>(subject, config),
            Kind::Cipher => self.load_as::<crate::Cipher>(subject, config),
        }
    }

    fn load_as<P: Plugin>(&self, subject: &str, config: &Value) -> Result<(), LoadError> {
        self.host.load_checked::<P>(subject, &self.component, &[Grant::Raw], config).map(drop)
    }
}

/// Whether settings were taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    Yes,
    No,
}

/// Without a story: `said` is all there is.
fn wrong(said: &str) -> Broken {
    Broken { said: said.into(), scenario: None, transcript: Vec::new(), long: false }
}

/// Settings as a line has room for them.
fn shown(config: &Value) -> String {
    let text = config.to_string();
    if is_shown(config) {
        return text;
    }
    let begin: String = text.chars().take(SETTINGS_SHOWN / 4).collect();
    format!("{begin}.. ({} bytes)", text.len())
}

fn is_shown(config: &Value) -> bool {
    config.to_string().len() <= SETTINGS_SHOWN
}

/// The end of a transcript, without its blank lines.
fn last_lines(transcript: &str) -> Vec<String> {
    let lines: Vec<&str> = transcript.lines().filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(12)..].iter().map(|line| (*line).to_owned()).collect()
}
