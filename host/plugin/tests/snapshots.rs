//! Every plugin in every scenario of its kind: the transcript is as accepted, and the scenario's expectations hold.
//!
//! `FARSEAL_PLUGIN` (a name, or the path of a component) and `FARSEAL_SCENARIO` (a name with `*` for any text) narrow it.
//! `FARSEAL_FIXTURES` is where scenarios and transcripts are, if not in this repository.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/shipped.rs"]
mod components;
#[path = "support/host.rs"]
mod environment;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use components::shipped;
use environment::{host, root};
use farseal_plugin::Kind;
use farseal_plugin::scenario::Scenario;

#[test]
fn transcripts_are_as_accepted() {
    let plugins = wanted_plugins();
    let pattern = std::env::var("FARSEAL_SCENARIO").ok();
    let mut failures = Vec::new();
    let mut played = 0_u32;
    for kind in Kind::ALL {
        for (name, scenario) in scenarios(kind) {
            if pattern.as_ref().is_some_and(|pattern| !matches(pattern, &name)) {
                continue;
            }
            for (plugin, (of, bytes)) in &plugins {
                if *of == kind && scenario.is_for(plugin) {
                    played += 1;
                    failures.extend(play(kind, &name, &scenario, plugin, bytes));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    let narrowed = pattern.is_some() || std::env::var_os("FARSEAL_PLUGIN").is_some();
    assert!(played > 0 || !narrowed, "no plugin and scenario go by these names");
}

fn play(kind: Kind, name: &str, scenario: &Scenario, plugin: &str, bytes: &[u8]) -> Vec<String> {
    let run = match scenario.play(host(), plugin, bytes) {
        Ok(run) => run,
        Err(error) => return vec![format!("{plugin}@{name}: {error}")],
    };
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(fixtures().join("snapshots").join(kind.name()));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    let mut failures: Vec<String> = run.failures.iter().map(|failure| format!("{plugin}@{name}: {failure}")).collect();
    // All differences are to be seen at once, so that they can be reviewed at once.
    let compare = || settings.bind(|| insta::assert_snapshot!(format!("{plugin}@{name}"), run.transcript));
    let seen = std::panic::catch_unwind(std::panic::AssertUnwindSafe(compare));
    if seen.is_err() {
        failures.push(format!("{plugin}@{name}: the transcript differs"));
    }
    failures
}

fn fixtures() -> PathBuf {
    std::env::var_os("FARSEAL_FIXTURES").map_or_else(|| root().join("fixtures"), PathBuf::from)
}

fn scenarios(kind: Kind) -> BTreeMap<String, Scenario> {
    let place = fixtures().join(kind.name());
    let Ok(files) = std::fs::read_dir(place) else { return BTreeMap::new() };
    files
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .map(|path| {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let scenario = Scenario::parse(&name, &std::fs::read_to_string(&path).unwrap())
                .unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(scenario.kind(), kind, "{name} lies in the wrong folder");
            (name, scenario)
        })
        .collect()
}

fn wanted_plugins() -> BTreeMap<String, (Kind, Vec<u8>)> {
    let chosen = match std::env::var("FARSEAL_PLUGIN") {
        Ok(path) if path.ends_with(".wasm") => {
            let name = Path::new(&path).file_stem().unwrap().to_str().unwrap().to_owned();
            BTreeMap::from([(name, std::fs::read(&path).unwrap())])
        }
        Ok(name) => {
            let bytes = shipped().get(&name).unwrap_or_else(|| panic!("there is no shipped plugin {name}"));
            BTreeMap::from([(name, bytes.clone())])
        }
        Err(_) => shipped().clone(),
    };
    let with_kind = |(name, bytes): (String, Vec<u8>)| {
        let kind = host().inspect(&name, &bytes).unwrap_or_else(|error| panic!("{error}")).kind;
        (name, (kind, bytes))
    };
    chosen.into_iter().map(with_kind).collect()
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
