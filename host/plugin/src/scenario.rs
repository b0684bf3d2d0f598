//! Stories told to a plugin: reads a scenario, plays it through the component as a node would, and writes the
//! transcript that a person reviews. The format is described in `fixtures/rotation/README.md`.
//!
//! Everything is an input, so the transcript of one component and one scenario is the same for ever, and that of one policy the
//! same in every language: what a call costs is counted beside it.

mod cipher;
mod contents;
mod disguise;
pub mod export;
mod heard;
mod journalled;
mod recovery;
mod rotation;
pub mod units;

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::fault::{CallError, Called, FaultClass, LogLine, describe, escaped};
use crate::host::{Checked, Plugin, PluginHost};
use crate::kind::{Grant, Kind};
use crate::limits;
use crate::load_error::{LoadError, Problem};
pub(crate) use cipher::stack_words;
use units::Range;

/// A scenario, read and checked for form.
#[derive(Debug, Clone)]
pub struct Scenario {
    heading: Heading,
    rest: serde_yaml_ng::Value,
    /// See [`Scenario::at_most`].
    most: Option<usize>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Heading {
    about: String,
    kind: Kind,
    #[serde(default)]
    plugins: Option<Vec<String>>,
    /// Of all plugins of the kind, these are not meant.
    #[serde(default)]
    except: Vec<String>,
    #[serde(default)]
    config: Option<serde_json::Value>,
    #[serde(default)]
    configs: BTreeMap<String, serde_json::Value>,
    #[serde(default)]
    expect: Expect,
    /// In place of `expect`, for the plugin named.
    #[serde(default)]
    expects: BTreeMap<String, Expect>,
}

/// The hard assertions of all kinds; those that a kind does not know stay unasked.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct Expect {
    refused: bool,
    fault: Option<FaultClass>,
    rotations: Option<Range>,
    by_host: Option<Range>,
    refused_decisions: Option<Range>,
    alerts: Option<Range>,
    max_age: Option<units::Span>,
    final_epoch: Option<Range>,
    slots: Option<Range>,
    state_bytes: Option<Range>,
    unheeded_suspicions: Option<Range>,
    finished: Option<bool>,
    opened: Option<Range>,
    refused_reads: Option<Range>,
    stacks: Option<Range>,
    round_trip: bool,
    differences: Option<Range>,
}

/// A scenario file is not as the README says.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// Not YAML, or an unknown or misspelt key.
    #[error("scenario {name}{}: {source}. The format is described in fixtures/rotation/README.md", at_line(*line))]
    Form {
        /// The scenario.
        name: String,
        /// Where, if that is known and `source` does not say it.
        line: Option<usize>,
        /// What, and where the file is no YAML.
        #[source]
        source: serde_yaml_ng::Error,
    },
    /// A value that cannot be played.
    #[error("scenario {name}: {reason}")]
    Value {
        /// The scenario.
        name: String,
        /// What is wrong.
        reason: String,
    },
}

/// What came of a scenario.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The story as it went.
    pub transcript: String,
    /// Expectations that were not met; they count even when the transcript is accepted.
    pub failures: Vec<String>,
    /// The fault that ended it.
    pub fault: Option<FaultClass>,
    /// It ended because the plugin never came to rest: too many calls without time passing.
    pub restless: bool,
    /// What it decided again and again until then, and when.
    pub again: Option<Again>,
    /// In words, the fault of the call that ended it.
    pub died: Option<String>,
    /// The call that the plugin refused, where that ended it.
    pub refusal: Option<Refusal>,
    /// The first of the failures that show that the plugin knows more than it is told: R-1.
    pub impure: Option<String>,
    /// What was counted, such as `rotations`.
    pub counts: BTreeMap<&'static str, u64>,
    /// Of a rotation policy: how long its state was after each entry of the timeline, in bytes.
    pub states: Vec<u64>,
    /// That state after the first entry and after the last.
    pub ends: Option<(String, String)>,
    /// The first different states that a policy or a strategy kept.
    pub kept: Vec<String>,
    /// Calls that a policy or a strategy answered or ended in a fault.
    pub steps: usize,
    /// Units of fuel that these used.
    pub fuel: u64,
    /// A recovery strategy's plan came to its end.
    pub finished: bool,
}

/// A call that a plugin refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The function, as `rotation.step`.
    pub function: &'static str,
    /// Why, by the plugin's own word.
    pub why: String,
    /// What it was asked.
    pub asked: String,
}

/// What a plugin decided again and again while no time passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Again {
    /// What it did, without the details: `wake-at`.
    pub deed: String,
    /// What it was told that came of it; none where it was told nothing.
    pub came: Option<&'static str>,
    /// The sentence: what, when, how often, and after what at last.
    pub said: String,
}

/// Different states of a story that are told of.
const KEPT: usize = 64;

const HEADING: [&str; 8] = ["about", "kind", "plugins", "except", "config", "configs", "expect", "expects"];

impl Scenario {
    /// Reads a scenario; `name` is what messages call it.
    ///
    /// # Errors
    /// The first key or value that is not as the format has it.
    pub fn parse(name: &str, yaml: &str) -> Result<Self, ScenarioError> {
        let form = |source: serde_yaml_ng::Error| {
            let line = if source.location().is_some() { None } else { line_of(yaml, &source.to_string()) };
            ScenarioError::Form { name: name.into(), line, source }
        };
        let mut rest: serde_yaml_ng::Mapping = serde_yaml_ng::from_str(yaml).map_err(form)?;
        let mut heading = serde_yaml_ng::Mapping::new();
        for key in HEADING {
            if let Some(value) = rest.remove(key) {
                heading.insert(key.into(), value);
            }
        }
        let heading: Heading = serde_yaml_ng::from_value(heading.into()).map_err(form)?;
        let scenario = Self { heading, rest: rest.into(), most: None };
        scenario.check().map_err(form)?;
        Ok(scenario)
    }

    fn check(&self) -> Result<(), serde_yaml_ng::Error> {
        match self.heading.kind {
            Kind::Rotation => self.body::<rotation::Story>().map(drop),
            Kind::Disguise => self.body::<disguise::Story>().map(drop),
            Kind::Recovery => self.body::<recovery::Story>().map(drop),
            Kind::Cipher => self.body::<cipher::Story>().map(drop),
        }
    }

    fn body<T: DeserializeOwned>(&self) -> Result<T, serde_yaml_ng::Error> {
        serde_yaml_ng::from_value(self.rest.clone())
    }

    /// A policy's story that does not say itself how many calls it has ends after so many, and has failed: a policy that is woken by
    /// mistake every second of a year would go on for hours, and its transcript would be of no use to anybody.
    #[must_use]
    pub const fn at_most(mut self, calls: usize) -> Self {
        self.most = Some(calls);
        self
    }

    /// The kind of plugin it is for.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.heading.kind
    }

    /// Whether it is for the plugin of this name.
    #[must_use]
    pub fn is_for(&self, plugin: &str) -> bool {
        let named = |names: &Vec<String>| names.iter().any(|name| name == plugin);
        self.heading.plugins.as_ref().is_none_or(named) && !named(&self.heading.except)
    }

    /// Plays it through the component. All grants are given: a scenario decides nothing about trust.
    ///
    /// # Errors
    /// The scenario's form, or why the component cannot be loaded (except that it refuses the settings: that is part
    /// of the story).
    pub fn play(&self, host: &PluginHost, plugin: &str, component: &Checked) -> Result<Run, PlayError> {
        match self.heading.kind {
            Kind::Rotation => {
                self.play_as::<crate::RotationPolicy, rotation::Story>(host, plugin, component, rotation::play)
            }
            Kind::Disguise => self.play_as::<crate::Disguise, disguise::Story>(host, plugin, component, disguise::play),
            Kind::Recovery => self.play_as::<crate::Recovery, recovery::Story>(host, plugin, component, recovery::play),
            Kind::Cipher => self.play_as::<crate::Cipher, cipher::Story>(host, plugin, component, cipher::play),
        }
    }

    /// Plays it to an honest policy that is part of the host: what that one seems to break, the story breaks. None for the kinds that
    /// have no such plugin, and where the scenario has no form.
    #[must_use]
    pub fn play_to_listener(&self) -> Option<Run> {
        match self.heading.kind {
            Kind::Rotation => {
                let mut script = Script { most: self.most, ..Script::default() };
                rotation::play_to_listener(&self.body().ok()?, &mut script);
                Some(script.end(&self.heading.expect))
            }
            Kind::Disguise | Kind::Recovery | Kind::Cipher => None,
        }
    }

    fn play_as<P: Plugin, S: DeserializeOwned>(
        &self,
        host: &PluginHost,
        plugin: &str,
        component: &Checked,
        play: impl FnOnce(P, &S, &mut Script),
    ) -> Result<Run, PlayError> {
        let story: S = self.body().map_err(|source| ScenarioError::Form { name: plugin.into(), line: None, source })?;
        let heading = &self.heading;
        let config =
            heading.configs.get(plugin).or(heading.config.as_ref()).cloned().unwrap_or(serde_json::Value::Null);
        let mut script = Script { most: self.most, ..Script::default() };
        script.line(heading.about.trim());
        if !config.is_null() {
            script.line(&format!("settings  {config}"));
        }
        match host.load_checked::<P>(plugin, component, &[Grant::Raw], &config) {
            Ok(loaded) => play(loaded, &story, &mut script),
            Err(LoadError { problem: Problem::Config { found, .. }, .. }) => {
                script.blank();
                for one in &found {
                    script.line(&format!("  refuses   {}", crate::fault::diagnostic(one)));
                }
                script.refused = true;
            }
            Err(error) => return Err(PlayError::Load(error)),
        }
        Ok(script.end(heading.expects.get(plugin).unwrap_or(&heading.expect)))
    }
}

/// A scenario could not be played.
#[derive(Debug, thiserror::Error)]
pub enum PlayError {
    /// The scenario is not as the format has it.
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    /// The component is not loadable.
    #[error("{0}")]
    Load(LoadError),
}

/// The transcript as it grows, and what is counted for the expectations.
#[derive(Debug, Default)]
struct Script {
    text: String,
    failures: Vec<String>,
    refused: bool,
    fault: Option<FaultClass>,
    counts: BTreeMap<&'static str, u64>,
    states: Vec<u64>,
    ends: Option<(String, String)>,
    kept: Vec<String>,
    steps: usize,
    spent: u64,
    /// What was said since the last blank line while nobody listened; none while somebody does.
    unheard: Option<String>,
    finished: bool,
    round_trip: bool,
    /// It never comes to rest: too many calls without time passing.
    restless: bool,
    again: Option<Again>,
    died: Option<String>,
    /// What the plugin is being asked, in a few words.
    asked: String,
    refusal: Option<Refusal>,
    /// What was decided since time passed last, and what the plugin was told that came of it.
    in_a_row: Vec<(String, Option<&'static str>)>,
    impure: Option<String>,
    /// More calls than this are too many.
    most: Option<usize>,
    heard: heard::Heard,
}

impl Script {
    fn line(&mut self, line: &str) {
        let text = self.unheard.as_mut().unwrap_or(&mut self.text);
        text.push_str(line.trim_end());
        text.push('\n');
    }

    fn blank(&mut self) {
        match &mut self.unheard {
            Some(text) => text.replace_range(.., "\n"),
            None => self.text.push('\n'),
        }
    }

    /// What follows is not part of the transcript.
    fn stop_listening(&mut self) {
        self.unheard.get_or_insert_default();
    }

    /// Call followed call: what was decided most often of late, and after what it was decided last. What was plainly applied brings no
    /// call by itself, and counts only where nothing else came back again and again, as with a mark that is passed already.
    fn talks_to_itself(&mut self, when: &str, told: &str) {
        self.restless = true;
        let deed = |words: &str| words.split([' ', ':']).next().unwrap_or_default().to_owned();
        let mut often: BTreeMap<String, (usize, &String, Option<&'static str>)> = BTreeMap::new();
        let told_again = self.in_a_row.iter().filter(|(_, came)| came.is_some()).count() > 1;
        for (words, came) in self.in_a_row.iter().filter(|(_, came)| came.is_some() || !told_again) {
            let (times, last, came_of_it) = often.entry(deed(words)).or_insert((0, words, None));
            (*times, *last, *came_of_it) = (*times + 1, words, *came);
        }
        let most = often.into_iter().max_by_key(|(_, (times, ..))| *times);
        self.again = most.map(|(deed, (times, words, came))| {
            let said = format!("at {when} `{words}` was decided {times} times, after `{told}` at last");
            Again { deed, came, said }
        });
    }

    /// A plugin's state, as it stands from here on.
    fn keep(&mut self, state: &str) {
        if self.kept.len() < KEPT && !self.kept.iter().any(|kept| kept == state) {
            self.kept.push(state.to_owned());
        }
    }

    /// The same after an entry of the timeline.
    fn keep_end(&mut self, state: &str) {
        let (_, last) = self.ends.get_or_insert_with(|| (state.to_owned(), String::new()));
        state.clone_into(last);
    }

    /// A call was made that cost so much fuel: all of a call's, where it used that up.
    fn spend<T>(&mut self, called: &Result<Called<T>, CallError>) {
        let fuel = match called {
            Ok(called) => called.fuel,
            Err(error) if error.class() == Some(FaultClass::Fuel) => limits::DECISION.fuel.unwrap_or(0),
            Err(_) => 0,
        };
        self.steps += 1;
        self.spent = self.spent.saturating_add(fuel);
    }

    const fn listens(&self) -> bool {
        self.unheard.is_none()
    }

    /// What follows is.
    fn listen(&mut self) {
        self.unheard = None;
    }

    /// Something went wrong: what led to it is part of the transcript, too.
    fn hear(&mut self) {
        let unheard = self.unheard.take().unwrap_or_default();
        self.text.push_str(&unheard);
    }

    fn fail(&mut self, failure: impl Into<String>) {
        let failure = failure.into();
        self.hear();
        self.line(&format!("  FAILS     {failure}"));
        self.failures.push(failure);
    }

    /// The same question had two answers.
    fn impure(&mut self, failure: &str) {
        self.fail(failure);
        self.impure.get_or_insert_with(|| failure.to_owned());
    }

    fn count(&mut self, what: &'static str, by: u64) {
        *self.counts.entry(what).or_default() += by;
    }

    fn count_if(&mut self, what: &'static str, happened: bool) {
        if happened {
            self.count(what, 1);
        }
    }

    fn logs(&mut self, logs: &[LogLine]) {
        logs.iter().for_each(|log| self.line(&format!("  log       {log}")));
    }

    /// The story's end by a fault or a refusal.
    fn error(&mut self, error: &CallError) {
        self.hear();
        self.line(&format!("  error     {error}"));
        self.logs(error.logs());
        self.fault = error.class();
        self.died = self.fault.map(|_| error.to_string());
        self.refused |= self.fault.is_none();
        if let CallError::Refused { function, error, .. } = error {
            self.refusal = Some(Refusal { function, why: describe(error), asked: std::mem::take(&mut self.asked) });
        }
    }

    /// The answer, where the contract leaves no room for a refusal: one that comes breaks this rule of it, and there is none.
    fn answered<T>(
        &mut self,
        answer: Result<Called<T>, CallError>,
        rule: &str,
        asked: impl FnOnce() -> String,
    ) -> Result<Option<Called<T>>, CallError> {
        match answer {
            Ok(called) => Ok(Some(called)),
            Err(CallError::Refused { function, error, logs }) => {
                self.fail(format!("{function} refuses {}: {} ({rule})", asked(), describe(&error)));
                self.logs(&logs);
                Ok(None)
            }
            Err(error @ (CallError::Fault { .. } | CallError::Input { .. } | CallError::NoRoom { .. })) => Err(error),
        }
    }

    fn end(mut self, expect: &Expect) -> Run {
        if self.fault != expect.fault {
            let name =
                |class: Option<FaultClass>| class.map_or_else(|| "no fault".into(), |class| format!("a {class} fault"));
            self.fail(format!("{} was expected, {} came", name(expect.fault), name(self.fault)));
        }
        if self.refused != expect.refused {
            self.fail(if expect.refused { "a refusal was expected, none came" } else { "the plugin refused" });
        }
        let ended = self.refused || self.fault.is_some();
        let ranges = [
            ("rotations", expect.rotations),
            ("by-host", expect.by_host),
            ("refused-decisions", expect.refused_decisions),
            ("alerts", expect.alerts),
            ("final-epoch", expect.final_epoch),
            ("state-bytes", expect.state_bytes),
            ("unheeded-suspicions", expect.unheeded_suspicions),
            ("opened", expect.opened),
            ("refused-reads", expect.refused_reads),
            ("stacks", expect.stacks),
            ("differences", expect.differences),
        ];
        for (what, range) in ranges {
            let count = self.counts.get(what).copied().unwrap_or(0);
            if let Some(range) = range
                && !range.holds(count)
            {
                self.fail(format!("{what}: {count} is not {range}"));
            }
        }
        if let (Some(range), Some((low, high))) =
            (expect.slots, self.counts.get("slots-least").zip(self.counts.get("slots-most")))
            && !(range.holds(*low) && range.holds(*high))
        {
            self.fail(format!("slots: plans have {low} to {high}, not {range}"));
        }
        let oldest = self.counts.get("max-age").copied().unwrap_or(0);
        if let Some(limit) = expect.max_age
            && oldest > limit.0
        {
            self.fail(format!(
                "max-age: a key was active for {}, longer than {}",
                units::span(oldest),
                units::span(limit.0)
            ));
        }
        if expect.finished.is_some_and(|finished| finished != self.finished) && !ended {
            self.fail(if self.finished { "finished, which was not expected" } else { "the plan is not finished" });
        }
        if expect.round_trip && !self.round_trip {
            self.fail("no raw batch made the round trip");
        }
        let Self { text: transcript, spent: fuel, failures, fault, restless, again, died, .. } = self;
        let Self { refusal, impure, counts, states, ends, kept, steps, finished, .. } = self;
        Run {
            transcript,
            failures,
            fault,
            restless,
            again,
            died,
            refusal,
            impure,
            counts,
            states,
            ends,
            kept,
            steps,
            fuel,
            finished,
        }
    }
}

/// The line that a complaint is about: the first with the name or the value that it quotes. What checks the form of values that are
/// read already does not know where they stood.
fn line_of(yaml: &str, complaint: &str) -> Option<usize> {
    let quoted = |mark: char| complaint.split(mark).nth(1).filter(|word| !word.is_empty());
    let word = quoted('`').or_else(|| quoted('"'))?;
    let is_key = |line: &str| {
        let mut places = line.match_indices(word).map(|(at, _)| line.split_at(at));
        places.any(|(before, after)| {
            let begins = before.chars().next_back().is_none_or(|last| " {,-".contains(last));
            begins && after.get(word.len()..).is_some_and(|rest| rest.trim_start().starts_with(':'))
        })
    };
    let with_key = yaml.lines().position(is_key);
    with_key.or_else(|| yaml.lines().position(|line| line.contains(word))).map(|before| before + 1)
}

fn at_line(line: Option<usize>) -> String {
    line.map_or_else(String::new, |line| format!(", line {line}"))
}

/// Plugin text for the transcript: one line, nothing that moves a cursor.
fn quoted(text: &str) -> String {
    format!("\"{}\"", escaped(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_key_or_value_is_told_with_its_line() {
        let story = |line: &str| format!("about: x\nkind: rotation\ntimeline:\n  - advance: 1d\n{line}\n");
        for (line, said) in [
            ("  - advanced: 2d", "scenario late, line 5: unknown field `advanced`"),
            ("  - { advance: 2d, sealed: 1GiB }", "scenario late, line 5: unknown field `sealed`"),
            ("  - advance: 2y", "scenario late, line 5: \"2y\" is not a span"),
            ("expect: { rotation: 2 }", "scenario late, line 5: unknown field `rotation`"),
            ("pairs: vault", "scenario late, line 5: unknown field `pairs`"),
            ("  - advance: [", "scenario late: "),
        ] {
            let Err(error) = Scenario::parse("late", &story(line)) else { panic!("{line} is wrong") };
            assert!(error.to_string().starts_with(said), "{line}: {error}");
        }
    }

    #[test]
    fn a_story_of_too_many_calls_stops_and_says_what_for() {
        let story = |calls: &str| {
            format!(
                "about: x\nkind: rotation\n{calls}timeline:\n  - repeat: 90\n    of: [{{ advance: 1h }}, restart]\n"
            )
        };
        let told = |calls: &str| {
            let scenario = Scenario::parse("late", &story(calls)).map(|scenario| scenario.at_most(51));
            scenario.ok().and_then(|scenario| scenario.play_to_listener()).map(|run| (run.failures, run.transcript))
        };
        let Some((failures, transcript)) = told("") else { panic!("it is a story") };
        let said = "stopped after 51 calls: told `started` every 1h (`calls` lets a scenario have more)";
        assert_eq!(failures, [said]);
        assert!(transcript.contains(&format!("  FAILS     {said}")), "{transcript}");
        assert_eq!(told("calls: 181\n").map(|(failures, _)| failures), Some(Vec::new()), "it says itself how many");
    }

    #[test]
    fn of_what_repeats_that_is_named_of_which_the_plugin_was_told() {
        let decided = |told: usize| {
            let mut script = Script::default();
            for round in 0..3 {
                let came = (round < told).then_some("refused");
                script.in_a_row.extend([("rotate: \"due\"".to_owned(), came), ("watch nothing".to_owned(), None)]);
            }
            script.talks_to_itself("+0d00:00:00", "decided: #3 refused");
            script.again.map(|again| again.said)
        };
        let said = |words: &str| {
            Some(format!("at +0d00:00:00 `{words}` was decided 3 times, after `decided: #3 refused` at last"))
        };
        assert_eq!(decided(3), said("rotate: \"due\""));
        assert_eq!(decided(1), said("watch nothing"), "what came back once does not repeat");
        assert_eq!(decided(0), said("watch nothing"), "where it was told of none, all count");
    }
}
