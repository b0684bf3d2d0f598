//! Every plugin in every scenario of its kind: the transcript is as accepted, and the scenario's expectations hold.
//!
//! `FARSEAL_PLUGIN` (a name, or the paths of components) and `FARSEAL_SCENARIO` (a name with `*` for any text) narrow it.
//! `FARSEAL_INTERPRETED` is where components with an interpreter in them are, which take a minute to compile; without it they are
//! left out.
//! `FARSEAL_FIXTURES` is where scenarios and transcripts are, if not in this repository.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/shipped.rs"]
mod components;
#[path = "support/host.rs"]
mod environment;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::{Duration, Instant};

use components::{read_components, shipped};
use environment::{host, root};
use farseal_plugin::conform::{Effort, conform};
use farseal_plugin::scenario::Scenario;
use farseal_plugin::{Checked, Kind};

/// Calls of a policy in a story that does not say itself how many it has. The longest accepted transcript has some four hundred.
const CALLS: usize = 2_000;

/// By name.
type Plugins = BTreeMap<String, Checked>;

#[test]
fn transcripts_are_as_accepted() {
    let begun = Instant::now();
    let (plugins, refused) = wanted_plugins();
    for line in refused.iter().flat_map(|refusal| refusal.lines()) {
        println!("refused: {line}");
    }
    assert!(refused.is_empty(), "see the lines that begin with `refused:`");
    let loading = begun.elapsed();
    let played = play_all(&plugins);
    played.settle();
    let narrowed = std::env::var_os("FARSEAL_SCENARIO").is_some() || std::env::var_os("FARSEAL_PLUGIN").is_some();
    assert!(played.stories > 0 || !narrowed, "no plugin and scenario go by these names");
    println!(
        "loaded {} plugins in {} us, played {} steps in {} us for {} units of fuel",
        plugins.len(),
        loading.as_micros(),
        played.steps,
        played.took.as_micros(),
        played.fuel
    );
}

#[test]
fn plugins_in_other_languages_are_as_accepted_and_keep_every_rule() {
    let Some(place) = std::env::var_os("FARSEAL_INTERPRETED").filter(|_| std::env::var_os("FARSEAL_PLUGIN").is_none())
    else {
        return;
    };
    let try_one = |(name, bytes): (String, Vec<u8>)| {
        let mut failures = play_all(&BTreeMap::from([checked((name.clone(), bytes.clone())).unwrap()])).failures;
        let report =
            conform(host(), &name, &bytes, &serde_json::Value::Null, Effort { stories: 2, ..Effort::default() })
                .unwrap();
        failures.extend(report.verdicts.iter().filter_map(|verdict| {
            verdict.broken.as_ref().map(|broken| format!("{name}: {}: {}", verdict.rule, broken.said))
        }));
        failures
    };
    // Compiling one takes a core for most of a minute.
    let failures: Vec<String> = std::thread::scope(|scope| {
        let tries: Vec<_> =
            read_components(Path::new(&place)).into_iter().map(|plugin| scope.spawn(move || try_one(plugin))).collect();
        tries.into_iter().flat_map(|one| one.join().unwrap()).collect()
    });
    Played { failures, ..Played::default() }.settle();
}

/// What came of many stories.
#[derive(Default)]
struct Played {
    stories: u32,
    /// Calls of policies and strategies.
    steps: usize,
    fuel: u64,
    took: Duration,
    failures: Vec<String>,
}

impl Played {
    /// `cargo xtask snapshot` takes these lines out of what a test program prints.
    fn settle(&self) {
        for line in self.failures.iter().flat_map(|failure| failure.lines()) {
            println!("broken: {line}");
        }
        assert!(self.failures.is_empty(), "see the lines that begin with `broken:`");
    }
}

fn play_all(plugins: &Plugins) -> Played {
    let pattern = std::env::var("FARSEAL_SCENARIO").ok();
    let mut played = Played::default();
    for kind in Kind::ALL {
        let (scenarios, wrong) = scenarios(kind);
        played.failures.extend(wrong);
        for (name, scenario) in scenarios {
            if pattern.as_ref().is_some_and(|pattern| !matches(pattern, &name)) {
                continue;
            }
            for (plugin, component) in plugins {
                if component.kind() == kind && scenario.is_for(plugin) {
                    play(&mut played, &name, &scenario, plugin, component);
                }
            }
        }
    }
    played
}

fn play(played: &mut Played, name: &str, scenario: &Scenario, plugin: &str, component: &Checked) {
    played.stories += 1;
    // `cargo xtask snapshot` shows these lines as they come.
    println!("playing: {plugin}@{name}");
    let begun = Instant::now();
    let run = match scenario.play(host(), plugin, component) {
        Ok(run) => run,
        Err(error) => {
            println!("played: fails 0 {plugin}@{name}");
            return played.failures.push(format!("{plugin}@{name}: {error}"));
        }
    };
    // The others compute over bytes, which is another matter.
    if matches!(scenario.kind(), Kind::Rotation | Kind::Recovery) {
        played.took += begun.elapsed();
        played.steps += run.steps;
        played.fuel = played.fuel.saturating_add(run.fuel);
    }
    let place = fixtures().join("snapshots").join(scenario.kind().name());
    let is_new = !place.join(format!("{plugin}@{name}.snap")).exists();
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(place);
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    played.failures.extend(run.failures.iter().map(|failure| format!("{plugin}@{name}: {failure}")));
    // All differences are to be seen at once, so that they can be reviewed at once.
    let compare = || settings.bind(|| insta::assert_snapshot!(format!("{plugin}@{name}"), run.transcript));
    let differs = panics_in_silence(compare);
    if differs {
        played.failures.push(format!("{plugin}@{name}: the transcript differs"));
    }
    let verdict = match (run.failures.is_empty(), differs, is_new) {
        (false, _, _) => "fails",
        (true, true, true) => "new",
        (true, true, false) => "differs",
        (true, false, _) => "as-accepted",
    };
    println!("played: {verdict} {} {plugin}@{name}", run.steps);
}

/// The library that compares has no other way to say that texts differ; what it would print is shown as a difference instead.
fn panics_in_silence(compare: impl FnOnce()) -> bool {
    thread_local! { static SILENT: Cell<bool> = const { Cell::new(false) }; }
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let others = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !SILENT.get() {
                others(panic);
            }
        }));
    });
    SILENT.set(true);
    let seen = std::panic::catch_unwind(std::panic::AssertUnwindSafe(compare));
    SILENT.set(false);
    seen.is_err()
}

fn fixtures() -> PathBuf {
    std::env::var_os("FARSEAL_FIXTURES").map_or_else(|| root().join("fixtures"), PathBuf::from)
}

/// Those of a kind, and what is wrong with others.
fn scenarios(kind: Kind) -> (BTreeMap<String, Scenario>, Vec<String>) {
    let place = fixtures().join(kind.name());
    let (mut good, mut wrong) = (BTreeMap::new(), Vec::new());
    let Ok(files) = std::fs::read_dir(place) else { return (good, wrong) };
    let files = files.map(|entry| entry.unwrap().path());
    for path in files.filter(|path| path.extension().is_some_and(|extension| extension == "yaml")) {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        match Scenario::parse(&name, &std::fs::read_to_string(&path).unwrap()) {
            Ok(scenario) if scenario.kind() == kind => drop(good.insert(name, scenario.at_most(CALLS))),
            Ok(_) => wrong.push(format!("scenario {name} lies in the wrong folder")),
            Err(error) => wrong.push(error.to_string()),
        }
    }
    (good, wrong)
}

/// Those that are wanted, and why others among them are refused.
fn wanted_plugins() -> (Plugins, Vec<String>) {
    let chosen = match std::env::var("FARSEAL_PLUGIN") {
        Ok(paths) if paths.ends_with(".wasm") => std::env::split_paths(&paths)
            .map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), std::fs::read(&path).unwrap()))
            .collect(),
        Ok(name) => {
            let bytes = shipped().get(&name).unwrap_or_else(|| panic!("there is no shipped plugin {name}"));
            BTreeMap::from([(name, bytes.clone())])
        }
        Err(_) => shipped().clone(),
    };
    let (mut plugins, mut refused) = (Plugins::new(), Vec::new());
    for plugin in chosen {
        match checked(plugin) {
            Ok((name, component)) => drop(plugins.insert(name, component)),
            Err(refusal) => refused.push(refusal),
        }
    }
    (plugins, refused)
}

fn checked((name, bytes): (String, Vec<u8>)) -> Result<(String, Checked), String> {
    let component = host().check(&name, &bytes).map_err(|error| error.to_string())?;
    Ok((name, component))
}

fn matches(pattern: &str, name: &str) -> bool {
    let mut rest = name;
    let mut parts = pattern.split('*');
    let Some(first) = parts.next().and_then(|first| rest.strip_prefix(first)) else { return false };
    rest = first;
    let mut open = pattern == "*";
    for part in parts {
        open = part.is_empty();
        match rest.find(part) {
            Some(at) => rest = rest.get(at + part.len()..).unwrap_or_default(),
            None => return false,
        }
    }
    open || rest.is_empty()
}

#[test]
fn a_story_that_has_too_many_calls_fails_once_and_its_transcript_ends_there() {
    let story = "about: x\nkind: rotation\ntimeline:\n  - repeat: 3000\n    of: [{ advance: 1h }, restart, restart]\n";
    // One call less than whole rounds have: a round is left in the middle.
    let told = |most: usize| Scenario::parse("late", story).unwrap().at_most(most).play_to_listener().unwrap();
    for most in [CALLS, CALLS + 1] {
        let run = told(most);
        let said = format!("stopped after {most} calls: told `started` every 1h (`calls` lets a scenario have more)");
        assert_eq!(run.failures, [said]);
        assert_eq!(run.transcript.matches("FAILS").count(), 1, "{}", run.transcript);
    }
    assert_eq!(told(6_001).failures, Vec::<String>::new());
}

#[test]
fn scenario_patterns_match_whole_names() {
    for (pattern, name, yes) in [
        ("idle", "idle", true),
        ("idle", "idle-year", false),
        ("idle*", "idle-year", true),
        ("*", "idle", true),
        ("*year", "idle-year", true),
        ("*year", "year-idle", false),
        ("i*y*r", "idle-year", true),
    ] {
        assert_eq!(matches(pattern, name), yes, "{pattern} {name}");
    }
}
