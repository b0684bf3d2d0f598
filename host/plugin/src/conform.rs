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
use crate::host::{LoadRequest, PluginHost};
use crate::kind::{Digest, Grant, Kind};
use crate::load_error::{LoadError, Problem};
use crate::scenario::{Run, Scenario};

mod chance;
mod settings;
mod shrink;
mod stories;

use chance::Chance;

/// Version of the kit: raised when a rule is added or made stricter.
pub const KIT: u32 = 1;

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
    /// Rotation: what the node tells twice brings no more keys than told once.
    #[serde(rename = "C-10")]
    ToldTwice,
    /// Rotation: its own state, handed over as one of its own schema, goes on.
    #[serde(rename = "C-11")]
    Migrates,
    /// Recovery: left alone with a volume, the plan comes to its end, restarts and damage notwithstanding.
    #[serde(rename = "C-20")]
    Finishes,
    /// Disguise: round trips, exact capacity, nothing in plain covers, nothing false in changed carriers.
    #[serde(rename = "C-30")]
    RoundTrips,
    /// Cipher: plans that a fresh instance repeats, and for an own algorithm `open(seal(x)) == x`.
    #[serde(rename = "C-40")]
    Seals,
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
    let found = host.inspect(subject, bytes)?;
    let trial = Trial { host, bytes, config, name: found.about.name.clone(), kind: found.kind, effort };
    trial.load(subject, config)?;
    let rules = Rule::of(found.kind).iter().map(|rule| trial.verdict(*rule, &found.about.config_schema)).collect();
    Ok(Report {
        kit: KIT,
        name: found.about.name.clone(),
        version: found.about.version,
        kind: found.kind,
        digest: found.digest,
        seed: effort.seed,
        verdicts: rules,
    })
}

impl Rule {
    /// The rules of a kind.
    #[must_use]
    pub const fn of(kind: Kind) -> &'static [Self] {
        match kind {
            Kind::Rotation => &[
                Self::Pure,
                Self::NeverDies,
                Self::WithinBounds,
                Self::SettingsChecked,
                Self::ForeignState,
                Self::ComesToRest,
                Self::ToldTwice,
                Self::Migrates,
            ],
            Kind::Recovery => &[
                Self::Pure,
                Self::NeverDies,
                Self::WithinBounds,
                Self::SettingsChecked,
                Self::ForeignState,
                Self::ComesToRest,
                Self::Finishes,
            ],
            Kind::Disguise => {
                &[Self::Pure, Self::NeverDies, Self::WithinBounds, Self::SettingsChecked, Self::RoundTrips]
            }
            Kind::Cipher => &[Self::Pure, Self::NeverDies, Self::WithinBounds, Self::SettingsChecked, Self::Seals],
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
            Self::ToldTwice => "C-10",
            Self::Migrates => "C-11",
            Self::Finishes => "C-20",
            Self::RoundTrips => "C-30",
            Self::Seals => "C-40",
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
            Self::ToldTwice => "what is told twice brings no more keys",
            Self::Migrates => "its own state goes on under its own schema",
            Self::Finishes => "the plan comes to its end",
            Self::RoundTrips => "what is hidden is found again, and nothing else",
            Self::Seals => "plans repeat, and what was sealed opens",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<5} {}", self.number(), self.words())
    }
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
    bytes: &'a [u8],
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
                FaultClass::Timeout | FaultClass::Fuel | FaultClass::Memory | FaultClass::Panic => {
                    Some(format!("a {class} fault"))
                }
                FaultClass::Protocol | FaultClass::Invariant => None,
            }),
            Rule::WithinBounds => {
                (run.fault == Some(FaultClass::Protocol) && !run.restless).then(|| "a protocol fault".into())
            }
            Rule::ForeignState | Rule::Migrates => run.fault.map(|class| format!("a {class} fault")),
            Rule::ComesToRest => run.restless.then(|| "call followed call, and no time passed".into()),
            Rule::ToldTwice => {
                let count = |run: &Run| run.counts.get("rotations").copied().unwrap_or(0);
                let once = count(&run);
                story.as_mapping_mut()?.insert("told".into(), "twice".into());
                let twice = self.tell(&story)?;
                (count(&twice) > once).then(|| format!("{once} new keys told once, {} told twice", count(&twice)))
            }
            Rule::Finishes => {
                let left_alone = story.get("timeline").and_then(|timeline| timeline.as_sequence()?.last()?.get("run"));
                let ended = run.finished || run.restless || run.fault.is_some() || left_alone.is_none();
                (!ended).then(|| "the plan is not finished".into())
            }
            Rule::RoundTrips | Rule::Seals => {
                run.failures.first().cloned().or_else(|| run.fault.map(|class| format!("a {class} fault")))
            }
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
        scenario.play(self.host, &self.name, self.bytes).ok()
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
        let request = LoadRequest {
            slot: subject,
            bytes: self.bytes,
            pin: Some(Digest::of(self.bytes)),
            grants: &[Grant::Raw],
            config,
        };
        match self.kind {
            Kind::Rotation => self.host.load::<crate::RotationPolicy>(&request).map(drop),
            Kind::Disguise => self.host.load::<crate::Disguise>(&request).map(drop),
            Kind::Recovery => self.host.load::<crate::Recovery>(&request).map(drop),
            Kind::Cipher => self.host.load::<crate::Cipher>(&request).map(drop),
        }
    }
}
