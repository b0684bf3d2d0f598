//! Conformance: the contract's rules as properties, tried on a component with stories made by chance. What breaks a rule
//! is cut down to the shortest story that still does, which is a scenario ready to be kept.
//!
//! The stories follow from the seed alone, so that a report can be made again, and are played as `fixtures/` are: through
//! the component itself, with the node around it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cache::CodeCache;
use crate::fault::FaultClass;
use crate::host::{Checked, Plugin, PluginHost};
use crate::kind::{Digest, Grant, Kind};
use crate::limits;
use crate::load_error::{LoadError, Problem};
use crate::scenario::{Run, Scenario};

mod altered;
mod chance;
pub mod demand;
mod rules;
mod settings;
mod shrink;
mod stories;
mod texts;

use chance::Chance;
pub use rules::Rule;

/// Version of the kit: raised when a rule is added or made stricter.
pub const KIT: u32 = 4;

/// Fuel that the calls of one rule's stories use before no further story is told: an interpreter's step costs a hundred times what
/// one in Rust does, of which no story is left out. Fuel and no time: the same stories are told on every machine.
pub const FUEL: u64 = 750_000_000;
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

/// How hard to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effort {
    /// Stories for each rule that is tried with stories.
    pub stories: u32,
    /// The same seed makes the same stories.
    pub seed: u64,
    /// Units of fuel for the stories of each rule; [`FUEL`] unless somebody has more time.
    pub fuel: u64,
}

impl Default for Effort {
    fn default() -> Self {
        Self { stories: 40, seed: 1, fuel: FUEL }
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

impl Report {
    /// No rule is broken.
    #[must_use]
    pub fn conforms(&self) -> bool {
        self.verdicts.iter().all(|verdict| verdict.broken.is_none())
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
    begins: &dyn Fn(Rule),
) -> Result<Report, LoadError> {
    let found = host.inspect(subject, bytes)?;
    let component = host.check(subject, bytes)?;
    let (name, by_the_way, kept) = (found.about.name.clone(), RefCell::default(), RefCell::default());
    let trial =
        Trial { host, component, config, name, kind: found.kind, effort, by_the_way, spent: Cell::new(0), kept };
    trial.load(subject, config)?;
    let rules = Rule::of(found.kind).into_iter().filter(|rule| only.contains(rule));
    let tried = |rule| {
        begins(rule);
        trial.verdict(rule, &found.about.config_schema)
    };
    let mut verdicts: Vec<_> = rules.map(tried).collect();
    let by_the_way = trial.by_the_way.into_inner();
    for verdict in verdicts.iter_mut().filter(|verdict| verdict.broken.is_none()) {
        verdict.broken = by_the_way.get(&verdict.rule).cloned();
    }
    explain(&mut verdicts);
    Ok(Report {
        kit: KIT,
        name: found.about.name.clone(),
        version: found.about.version,
        kind: found.kind,
        digest: found.digest,
        seed: effort.seed,
        stories: effort.stories,
        fuel: effort.fuel,
        settings: config.clone(),
        verdicts,
    })
}

/// A wake-up that has passed breaks C-7, and is clamped, which is told: answered with another one it breaks C-6, too.
const LATE_WAKE: &str = "it asks to be woken at a time that has passed";

/// Whether what broke this rule is why the other is broken: a wake-up that lay behind, and wake-ups that come again and again.
fn is_why(cause: &Broken, result: &Broken) -> bool {
    let again = result.said.split_once('`').map(|(_, words)| words);
    cause.said == LATE_WAKE && again.is_some_and(|words| words.starts_with("wake-at "))
}

/// Where wake-ups that lay behind (C-7) are why it does not come to rest (C-6), their rule comes first, and the other says so.
fn explain(verdicts: &mut Vec<Verdict>) {
    let at = |rule| verdicts.iter().position(|verdict| verdict.rule == rule);
    let Some((cause, result)) = at(Rule::WakesAhead).zip(at(Rule::ComesToRest)) else { return };
    let broken = |at: usize| verdicts.get(at).and_then(|verdict| verdict.broken.as_ref());
    if !broken(cause).zip(broken(result)).is_some_and(|(cause, result)| is_why(cause, result)) {
        return;
    }
    if let Some(broken) = verdicts.get_mut(result).and_then(|verdict| verdict.broken.as_mut()) {
        broken.said.push_str(&format!("; mend {} first", Rule::WakesAhead.number()));
    }
    if cause > result {
        let cause = verdicts.remove(cause);
        verdicts.insert(result, cause);
    }
}

/// What a state grew in each of the last two thirds of a story that tells the same three times. A list that keeps the last fifty of
/// something is full after the first; digits that a counter gains are a few bytes.
fn growth(run: &Run) -> Option<String> {
    let [first, second, third] = run.states[..] else { return None };
    let grew = |from: u64, to: u64| to.saturating_sub(from) >= GROWTH_BYTES;
    let longest = run.counts.get("state-bytes").copied().unwrap_or(0);
    let is_long = usize::try_from(longest).is_ok_and(|longest| longest > limits::STATE_BYTES / 2);
    let outgrew = run.fault == Some(FaultClass::Protocol) && is_long;
    if run.counts.contains_key("cut") || !(outgrew || (grew(first, second) && grew(second, third))) {
        return None;
    }
    Some(if outgrew {
        format!("the state outgrew its bound in {} rounds of the same", 3 * stories::ROUNDS)
    } else {
        format!("the state has {first}, {second} and {third} bytes after each {} rounds of the same", stories::ROUNDS)
    })
}

fn a_fault(class: FaultClass) -> String {
    let article = if class == FaultClass::Invariant { "an" } else { "a" };
    format!("{article} {class} fault")
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

struct Trial<'a> {
    host: &'a PluginHost,
    component: Checked,
    config: &'a Value,
    name: String,
    kind: Kind,
    effort: Effort,
    /// What a story for one rule found of another.
    by_the_way: RefCell<BTreeMap<Rule, Broken>>,
    /// Fuel that all stories so far have used.
    spent: Cell<u64>,
    /// States that it kept in the last story.
    kept: RefCell<Vec<String>>,
}

impl Trial<'_> {
    fn verdict(&self, rule: Rule, schema: &str) -> Verdict {
        if rule == Rule::SettingsChecked {
            return self.check_settings(schema);
        }
        let fewer = if rule == Rule::StaysSmall { FEWER_LONG_STORIES } else { 1 };
        let stories = self.effort.stories.div_ceil(fewer);
        let begun = self.spent.get();
        for turn in 0..stories {
            if turn >= LEAST_STORIES && self.spent.get() - begun >= self.effort.fuel {
                return Verdict { rule, tried: turn, untold: stories - turn, broken: None };
            }
            let mut chance = Chance::new(self.effort.seed, rule.number(), turn);
            let story = stories::story(self.kind, rule, self.config, turn, &mut chance);
            let broken = self.shortest(rule, &story).or_else(|| {
                let of_its_own =
                    (rule == Rule::ForeignState).then(|| self.altered(&story, turn, &mut chance)).flatten()?;
                self.shortest(rule, &of_its_own)
            });
            if let Some(broken) = broken {
                return Verdict { rule, tried: turn + 1, untold: 0, broken: Some(broken) };
            }
        }
        Verdict { rule, tried: stories, untold: 0, broken: None }
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
        Some(stories::of_states(story, altered, chance))
    }

    /// How the story breaks the rule, or the shortest one that is left of it.
    fn shortest(&self, rule: Rule, story: &serde_yaml_ng::Value) -> Option<Broken> {
        self.breaks(rule, story)?;
        let end = self.spent.get().saturating_add(self.effort.fuel.saturating_mul(FUEL_FOR_CUTTING_DOWN));
        let story =
            shrink::shrink(story.clone(), |shorter| self.spent.get() < end && self.breaks(rule, shorter).is_some());
        let long = self.spent.get() >= end;
        self.breaks(rule, &story).map(|broken| Broken { long, ..broken })
    }

    /// A component that dies without what the rule is about breaks another rule. Said there, it is not missed: the stories for
    /// that one may be without it.
    fn dies_anyway(&self, story: &serde_yaml_ng::Value) -> bool {
        let mut without = story.clone();
        if let Some(timeline) = without.get_mut("timeline").and_then(serde_yaml_ng::Value::as_sequence_mut) {
            timeline.retain(|entry| entry.get("state").is_none() && entry.get("migrate").is_none());
        }
        let Some(run) = self.tell(&without) else { return false };
        let Some(class) = run.fault else { return false };
        let rule = match class {
            FaultClass::Timeout | FaultClass::Fuel | FaultClass::Memory | FaultClass::Panic => Rule::NeverDies,
            FaultClass::Protocol | FaultClass::Invariant if run.restless => Rule::ComesToRest,
            FaultClass::Protocol | FaultClass::Invariant => Rule::WithinBounds,
        };
        if !self.by_the_way.borrow().contains_key(&rule)
            && let Some(broken) = self.shortest(rule, &without)
        {
            self.by_the_way.borrow_mut().insert(rule, broken);
        }
        true
    }

    /// How the story breaks the rule; none where it does not.
    fn breaks(&self, rule: Rule, story: &serde_yaml_ng::Value) -> Option<Broken> {
        let mut story = story.clone();
        if rule == Rule::StaysSmall {
            let base = story.get("timeline")?.clone();
            story.as_mapping_mut()?.insert("timeline".into(), stories::three_times(&base));
        }
        let run = self.tell(&story)?;
        let said = match rule {
            Rule::Pure => {
                let again = self.tell(&story)?;
                run.impure.clone().or_else(|| {
                    (again.transcript != run.transcript).then(|| "the same story went otherwise the second time".into())
                })
            }
            Rule::NeverDies => run.fault.and_then(|class| match class {
                FaultClass::Timeout | FaultClass::Fuel | FaultClass::Memory | FaultClass::Panic => Some(a_fault(class)),
                FaultClass::Protocol | FaultClass::Invariant => None,
            }),
            Rule::WithinBounds => {
                (run.fault == Some(FaultClass::Protocol) && !run.restless).then(|| "a protocol fault".into())
            }
            Rule::ForeignState | Rule::Migrates => run.fault.filter(|_| !self.dies_anyway(&story)).map(a_fault),
            Rule::ComesToRest => run.restless.then(|| {
                let again = run.again.as_ref().map(|again| format!(": {again}"));
                format!("call followed call, and no time passed{}", again.unwrap_or_default())
            }),
            Rule::ToldTwice => {
                let count = |run: &Run| run.counts.get("rotations").copied().unwrap_or(0);
                let once = count(&run);
                if run.counts.contains_key("cut") {
                    // Both tellings would end somewhere, and not at the same place.
                    return None;
                }
                story.as_mapping_mut()?.insert("told".into(), "twice".into());
                story.as_mapping_mut()?.insert("calls".into(), 4_000.into());
                let twice = self.tell(&story)?;
                (count(&twice) > once).then(|| format!("{once} new keys told once, {} told twice", count(&twice)))
            }
            Rule::StaysSmall => growth(&run),
            Rule::Heeds => (run.counts.get("unheeded-suspicions").copied().unwrap_or(0) > 0).then(|| {
                "told that the key in force may be known to others, it neither asks for a new one nor alerts".into()
            }),
            Rule::Finishes => {
                let left_alone = story.get("timeline").and_then(|timeline| timeline.as_sequence()?.last()?.get("run"));
                let ended = run.finished || run.restless || run.fault.is_some() || left_alone.is_none();
                (!ended).then(|| "the plan is not finished".into())
            }
            Rule::WakesAhead => {
                let count = |what| run.counts.get(what).copied().unwrap_or(0) > 0;
                let late = count("late-wakes").then(|| LATE_WAKE.into());
                late.or_else(|| count("many-wakes").then(|| "it asks to be woken twice in one answer".into()))
            }
            Rule::RoundTrips | Rule::Opens => rule.failure(&run).or_else(|| run.fault.map(a_fault)),
            Rule::NeverGuesses | Rule::PlansRepeat | Rule::Depends => rule.failure(&run),
            Rule::SettingsChecked => None,
        }?;
        let lines: Vec<&str> = run.transcript.lines().filter(|line| !line.is_empty()).collect();
        let transcript = lines[lines.len().saturating_sub(12)..].iter().map(|line| (*line).to_owned()).collect();
        Some(Broken { said, scenario: serde_yaml_ng::to_string(&story).ok(), transcript, long: false })
    }

    /// Plays the story. None where it is no story: a shortened one may be without what its form needs.
    fn tell(&self, story: &serde_yaml_ng::Value) -> Option<Run> {
        let yaml = serde_yaml_ng::to_string(story).ok()?;
        let scenario = Scenario::parse("conformance", &yaml).ok()?;
        let run = scenario.play(self.host, &self.name, &self.component).ok()?;
        self.spent.set(self.spent.get().saturating_add(run.fuel));
        self.kept.borrow_mut().clone_from(&run.kept);
        Some(run)
    }

    /// Settings that the schema allows, and many that it does not: taken, or refused with a place.
    fn check_settings(&self, schema: &str) -> Verdict {
        let wrong = settings::unlikely(schema);
        let mut tried = 0;
        for config in &wrong {
            tried += 1;
            if let Err(said) = self.judge_settings(config) {
                let said = format!("with the settings {config}: {said}");
                let broken = Some(Broken { said, scenario: None, transcript: Vec::new(), long: false });
                return Verdict { rule: Rule::SettingsChecked, tried, untold: 0, broken };
            }
        }
        Verdict { rule: Rule::SettingsChecked, tried, untold: 0, broken: None }
    }

    fn judge_settings(&self, config: &Value) -> Result<(), String> {
        match self.load(&self.name, config) {
            Ok(()) => Ok(()),
            Err(LoadError { problem: Problem::Config { found }, .. }) => {
                let placeless = found.iter().any(|one| !one.path.is_empty() && !one.path.starts_with('/'));
                if placeless { Err("a complaint has a path that is no JSON pointer".into()) } else { Ok(()) }
            }
            Err(error) => Err(error.to_string()),
        }
    }

    fn load(&self, subject: &str, config: &Value) -> Result<(), LoadError> {
        match self.kind {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(said: &str) -> Broken {
        Broken { said: said.into(), scenario: None, transcript: Vec::new(), long: false }
    }

    #[test]
    fn one_rule_explains_another_only_where_wake_ups_that_lay_behind_come_again() {
        let again = |what: &str| {
            broken(&format!("call followed call, and no time passed: at +0d00:00:00 `{what}` was decided"))
        };
        let wakes = again("wake-at +0d00:00:00");
        assert!(is_why(&broken(LATE_WAKE), &wakes));
        assert!(!is_why(&broken("it asks to be woken twice in one answer"), &wakes));
        assert!(!is_why(&broken(LATE_WAKE), &again("rotate: \"`wake-at 7`\"")));
        assert!(!is_why(&broken(LATE_WAKE), &broken("call followed call, and no time passed")));
    }
}
