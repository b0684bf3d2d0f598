//! The conformance kit: the shipped plugins keep every rule, and a planted mistake of each kind is found, named and cut
//! down to a short story that a person reviews.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/shipped.rs"]
mod components;
#[path = "support/host.rs"]
mod environment;
#[path = "support/hostile.rs"]
#[expect(dead_code, reason = "other test programs load what this one only builds")]
mod hostile;

use std::fmt::Write as _;
use std::sync::{Arc, OnceLock};

use components::shipped;
use environment::root;
use farseal_plugin::conform::{CodeInMemory, Effort, Report, Rule, conform};
use farseal_plugin::scenario::Scenario;
use farseal_plugin::{HostOptions, PluginHost};
use serde_json::{Value, json};

/// A host that compiles each component once.
fn host() -> &'static PluginHost {
    static HOST: OnceLock<PluginHost> = OnceLock::new();
    HOST.get_or_init(|| {
        let code_cache = Some(Arc::new(CodeInMemory::default()) as Arc<_>);
        PluginHost::new(HostOptions { code_cache, ..HostOptions::uncached() }).unwrap()
    })
}

fn tried(bytes: &[u8], config: &Value, stories: u32) -> Report {
    conform(host(), "test", bytes, config, Effort { stories, seed: 1 }).unwrap()
}

#[test]
fn the_shipped_plugins_keep_every_rule() {
    let mut broken = String::new();
    for (name, bytes) in shipped() {
        for verdict in tried(bytes, &Value::Null, 4).verdicts {
            if let Some(found) = verdict.broken {
                writeln!(broken, "{name}: {}: {}\n{}", verdict.rule, found.said, found.scenario.unwrap_or_default())
                    .unwrap();
                writeln!(broken, "{}", found.transcript.join("\n")).unwrap();
            }
        }
    }
    assert!(broken.is_empty(), "{broken}");
}

#[test]
fn a_planted_mistake_of_each_kind_is_found_and_cut_down() {
    let mut sheet = String::new();
    for (kind, deed, rule) in [
        ("rotation", "first-key", Rule::NeverDies),
        ("rotation", "own-state", Rule::ForeignState),
        ("rotation", "restless", Rule::ComesToRest),
        ("rotation", "counting", Rule::ToldTwice),
        ("rotation", "none", Rule::Migrates),
        ("rotation", "many", Rule::WithinBounds),
        ("recovery", "none", Rule::Finishes),
        ("recovery", "wraps", Rule::WithinBounds),
        ("disguise", "none", Rule::RoundTrips),
        ("disguise", "careful", Rule::RoundTrips),
        ("disguise", "small-slot", Rule::WithinBounds),
    ] {
        let report = tried(&hostile::hostile(kind), &json!({ "do": deed }), 12);
        let verdict = report.verdicts.iter().find(|verdict| verdict.rule == rule).unwrap();
        let broken = verdict.broken.as_ref().unwrap_or_else(|| panic!("{kind} {deed}: {rule} held"));
        let story = broken.scenario.as_deref().unwrap();
        assert!(Scenario::parse(deed, story).is_ok(), "what was found is a scenario: {story}");
        writeln!(sheet, "{kind} that does {deed:?} breaks {rule}: {}\n\n{story}", broken.said).unwrap();
        writeln!(sheet, "{}\n", broken.transcript.join("\n")).unwrap();
    }
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(root().join("fixtures/snapshots/hostile"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!("conformance", sheet));
}

#[test]
fn a_report_can_be_made_again_and_read_again() {
    let bytes = &shipped()["interval"];
    let report = tried(bytes, &Value::Null, 2);
    assert_eq!(tried(bytes, &Value::Null, 2), report);
    let text = serde_json::to_string_pretty(&report).unwrap();
    assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
    assert!(report.conforms());
}
