//! Conformance: the contract's rules as properties, tried on a component with stories made by chance. What breaks a rule
//! is cut down to the shortest story that still does, which is a scenario ready to be kept.
//!
//! The stories follow from the seed alone, so that a report can be made again, and are played as `fixtures/` are: through
//! the component itself, with the node around it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cache::CodeCache;
use crate::fault::FaultClass;
use crate::host::{Checked, Plugin, PluginHost};
use crate::kind::{Digest, Grant, Kind};
use crate::load_error::{LoadError, Problem};
use crate::scenario::{Run, Scenario};

mod chance;
pub mod demand;
mod settings;
mod shrink;
mod stories;

use chance::Chance;

/// Version of the kit: raised when a rule is added or made stricter.
pub const KIT: u32 = 2;

/// How hard to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effort {
    /// Stories for each rule that is tried with stories.
    pub stories: u32,
    /// The same seed makes the same stories.
    pub seed: u64,
}

impl Default for Effort {
    fn default() -> Self {
        Self { stories: 40, seed: 1 }
    }
}

/// A rule that the kit tries. What each says in full is in `wit/README.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Rule {
    /// Equal arguments, equal answers: each story is told twice, to two instances.
    #[serde(rename = "C-1")]
    Pure,
    /// No trap, no loop, no hoard, on any input that the types allow.
    #[serde(rename = "C-2")]
    NeverDies,
    /// Answers are within the contract's bounds.
    #[serde(rename = "C-3")]
    WithinBounds,
    /// Wrong settings are refused with their place; none is a fault.
    #[serde(rename = "C-4")]
    SettingsChecked,
    /// State of another plugin is refused or survived, and the next step is sound.
    #[serde(rename = "C-5")]
    ForeignState,
    /// It comes to rest: 32 calls without time passing are too many.
    #[serde(rename = "C-6")]
    ComesToRest,
    /// Wake-ups that are asked for lie ahead, one an answer.
    #[serde(rename = "C-7")]
    WakesAhead,
    /// Rotation: what the node tells twice brings no more keys than told once.
    #[serde(rename = "C-10")]
    ToldTwice,
    /// Rotation: its own state, handed over as one of its own schema, goes on.
    #[serde(rename = "C-11")]
    Migrates,
    /// Recovery: left alone with a volume, the plan comes to its end, restarts and damage notwithstanding.
    #[serde(rename = "C-20")]
    Finishes,
    /// Disguise: round trips and exact capacity.
    #[serde(rename = "C-30")]
    RoundTrips,
    /// Disguise: nothing in plain covers, nothing false in carriers with one bit changed.
    #[serde(rename = "C-31")]
    NeverGuesses,
    /// Cipher: plans that a fresh instance repeats.
    #[serde(rename = "C-40")]
    PlansRepeat,
    /// Cipher: of an own algorithm each block opens to what it was, alone and beside a damaged one.
    #[serde(rename = "C-41")]
    Opens,
    /// Cipher: of an own algorithm a block does not open under another's nonce or key.
    #[serde(rename = "C-42")]
    Depends,
}

/// What came of one rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Verdict {
    /// The rule.
    pub rule: Rule,
    /// How often it was tried; fewer than wished where it broke.
    pub tried: u32,
    /// The first story that broke it.
    pub broken: Option<Broken>,
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
    /// The settings that it was tried with.
    pub settings: Value,
    /// In the order of the rules.
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
    try_only(host, subject, bytes, config, effort, &Rule::ALL)
}

/// As [`conform`], but of the kind's rules only these: to look at one again. The report speaks for no component.
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
) -> Result<Report, LoadError> {
    let found = host.inspect(subject, bytes)?;
    let component = host.check(subject, bytes)?;
    let trial = Trial { host, component, config, name: found.about.name.clone(), kind: found.kind, effort };
    trial.load(subject, config)?;
    let rules = Rule::of(found.kind).into_iter().filter(|rule| only.contains(rule));
    let verdicts = rules.map(|rule| trial.verdict(rule, &found.about.config_schema)).collect();
    Ok(Report {
        kit: KIT,
        name: found.about.name.clone(),
        version: found.about.version,
        kind: found.kind,
        digest: found.digest,
        seed: effort.seed,
        stories: effort.stories,
        settings: config.clone(),
        verdicts,
    })
}

impl Rule {
    /// Every rule, in the order of their numbers.
    pub const ALL: [Self; 15] = [
        Self::Pure,
        Self::NeverDies,
        Self::WithinBounds,
        Self::SettingsChecked,
        Self::ForeignState,
        Self::ComesToRest,
        Self::WakesAhead,
        Self::ToldTwice,
        Self::Migrates,
        Self::Finishes,
        Self::RoundTrips,
        Self::NeverGuesses,
        Self::PlansRepeat,
        Self::Opens,
        Self::Depends,
    ];

    /// The rules of a kind.
    #[must_use]
    pub fn of(kind: Kind) -> Vec<Self> {
        Self::ALL.into_iter().filter(|rule| rule.kinds().contains(&kind)).collect()
    }

    /// The kinds that it is tried on.
    #[must_use]
    pub const fn kinds(self) -> &'static [Kind] {
        match self {
            Self::Pure | Self::NeverDies | Self::WithinBounds | Self::SettingsChecked => &Kind::ALL,
            Self::ForeignState | Self::ComesToRest | Self::WakesAhead => &[Kind::Rotation, Kind::Recovery],
            Self::ToldTwice | Self::Migrates => &[Kind::Rotation],
            Self::Finishes => &[Kind::Recovery],
            Self::RoundTrips | Self::NeverGuesses => &[Kind::Disguise],
            Self::PlansRepeat | Self::Opens | Self::Depends => &[Kind::Cipher],
        }
    }

    /// The rules of the contract that it tries, as `wit/README.md` numbers them; the bounds of answers have no number.
    #[must_use]
    pub const fn contract(self) -> &'static [&'static str] {
        match self {
            Self::Pure => &["R-1", "R-20"],
            Self::NeverDies => &["R-2", "R-3"],
            Self::WithinBounds => &["R-5", "R-30"],
            Self::SettingsChecked | Self::ForeignState | Self::Migrates | Self::Finishes => &[],
            Self::ComesToRest => &["R-6"],
            Self::WakesAhead => &["R-8"],
            Self::ToldTwice => &["R-5"],
            Self::RoundTrips => &["R-21", "R-22"],
            Self::NeverGuesses => &["R-23"],
            Self::PlansRepeat => &["R-31", "R-32"],
            Self::Opens => &["R-40"],
            Self::Depends => &["R-41"],
        }
    }

    /// Its number, as `wit/README.md` has it.
    #[must_use]
    pub const fn number(self) -> &'static str {
        match self {
            Self::Pure => "C-1",
            Self::NeverDies => "C-2",
            Self::WithinBounds => "C-3",
            Self::SettingsChecked => "C-4",
            Self::ForeignState => "C-5",
            Self::ComesToRest => "C-6",
            Self::WakesAhead => "C-7",
            Self::ToldTwice => "C-10",
            Self::Migrates => "C-11",
            Self::Finishes => "C-20",
            Self::RoundTrips => "C-30",
            Self::NeverGuesses => "C-31",
            Self::PlansRepeat => "C-40",
            Self::Opens => "C-41",
            Self::Depends => "C-42",
        }
    }

    /// In a few words.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Pure => "equal arguments give equal answers",
            Self::NeverDies => "no input that the types allow ends in a fault",
            Self::WithinBounds => "answers are within the contract's bounds",
            Self::SettingsChecked => "wrong settings are refused, with their place",
            Self::ForeignState => "foreign state is refused or survived",
            Self::ComesToRest => "it comes to rest when no time passes",
            Self::WakesAhead => "wake-ups lie ahead, one an answer",
            Self::ToldTwice => "what is told twice brings no more keys",
            Self::Migrates => "its own state goes on under its own schema",
            Self::Finishes => "the plan comes to its end",
            Self::RoundTrips => "what is hidden is found again",
            Self::NeverGuesses => "nothing is found that was not hidden",
            Self::PlansRepeat => "a fresh instance plans the same",
            Self::Opens => "what was sealed opens, block by block",
            Self::Depends => "no block opens under another's nonce or key",
        }
    }

    /// The first failure of a story that is this rule's: each names its rule of the contract.
    fn failure(self, run: &Run) -> Option<String> {
        let names = |failure: &String, rule: &&str| failure.split(['(', ')', ',', ' ']).any(|word| word == *rule);
        run.failures.iter().find(|failure| self.contract().iter().any(|rule| names(failure, rule))).cloned()
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<5} {}", self.number(), self.words())
    }
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
}

impl Trial<'_> {
    fn verdict(&self, rule: Rule, schema: &str) -> Verdict {
        if rule == Rule::SettingsChecked {
            return self.check_settings(schema);
        }
        for turn in 0..self.effort.stories {
            let mut chance = Chance::new(self.effort.seed, rule.number(), turn);
            let story = stories::story(self.kind, rule, self.config, &mut chance);
            if self.breaks(rule, &story).is_some() {
                let story = shrink::shrink(story, |shorter| self.breaks(rule, shorter).is_some());
                return Verdict { rule, tried: turn + 1, broken: self.breaks(rule, &story) };
            }
        }
        Verdict { rule, tried: self.effort.stories, broken: None }
    }

    /// How the story breaks the rule; none where it does not.
    fn breaks(&self, rule: Rule, story: &serde_yaml_ng::Value) -> Option<Broken> {
        let mut story = story.clone();
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
            Rule::ForeignState | Rule::Migrates => run.fault.map(a_fault),
            Rule::ComesToRest => run.restless.then(|| "call followed call, and no time passed".into()),
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
            Rule::Finishes => {
                let left_alone = story.get("timeline").and_then(|timeline| timeline.as_sequence()?.last()?.get("run"));
                let ended = run.finished || run.restless || run.fault.is_some() || left_alone.is_none();
                (!ended).then(|| "the plan is not finished".into())
            }
            Rule::WakesAhead => {
                let count = |what| run.counts.get(what).copied().unwrap_or(0) > 0;
                let late = count("late-wakes").then(|| "it asks to be woken at a time that has passed".into());
                late.or_else(|| count("many-wakes").then(|| "it asks to be woken twice in one answer".into()))
            }
            Rule::RoundTrips | Rule::Opens => rule.failure(&run).or_else(|| run.fault.map(a_fault)),
            Rule::NeverGuesses | Rule::PlansRepeat | Rule::Depends => rule.failure(&run),
            Rule::SettingsChecked => None,
        }?;
        let lines: Vec<&str> = run.transcript.lines().filter(|line| !line.is_empty()).collect();
        let transcript = lines[lines.len().saturating_sub(12)..].iter().map(|line| (*line).to_owned()).collect();
        Some(Broken { said, scenario: serde_yaml_ng::to_string(&story).ok(), transcript })
    }

    /// Plays the story. None where it is no story: a shortened one may be without what its form needs.
    fn tell(&self, story: &serde_yaml_ng::Value) -> Option<Run> {
        let yaml = serde_yaml_ng::to_string(story).ok()?;
        let scenario = Scenario::parse("conformance", &yaml).ok()?;
        scenario.play(self.host, &self.name, &self.component).ok()
    }

    /// Settings that the schema allows, and many that it does not: taken, or refused with a place.
    fn check_settings(&self, schema: &str) -> Verdict {
        let wrong = settings::unlikely(schema);
        let mut tried = 0;
        for config in &wrong {
            tried += 1;
            if let Err(said) = self.judge_settings(config) {
                let said = format!("with the settings {config}: {said}");
                let broken = Some(Broken { said, scenario: None, transcript: Vec::new() });
                return Verdict { rule: Rule::SettingsChecked, tried, broken };
            }
        }
        Verdict { rule: Rule::SettingsChecked, tried, broken: None }
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
