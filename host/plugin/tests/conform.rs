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

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::{Arc, OnceLock};

use components::shipped;
use environment::root;
use farseal_plugin::conform::{CodeInMemory, Effort, Report, Rule, conform, try_only};
use farseal_plugin::scenario::Scenario;
use farseal_plugin::{HostOptions, Kind, PluginHost};
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
    conform(host(), "test", bytes, config, Effort { stories, ..Effort::default() }).unwrap()
}

#[test]
fn the_shipped_plugins_keep_every_rule() {
    let mut broken = String::new();
    for (name, bytes) in shipped() {
        for verdict in tried(bytes, &Value::Null, 12).verdicts {
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
    let (mut sheet, mut found) = (String::new(), BTreeSet::new());
    for (kind, deed, rule) in [
        ("rotation", "first-key", Rule::NeverDies),
        ("rotation", "loop", Rule::NeverDies),
        ("rotation", "cut-at-200", Rule::NeverDies),
        ("rotation", "cut-at-64", Rule::NeverDies),
        ("rotation", "refuses-within", Rule::NeverDies),
        ("rotation", "own-state", Rule::ForeignState),
        ("rotation", "trusts", Rule::ForeignState),
        ("rotation", "restless", Rule::ComesToRest),
        ("rotation", "near-wake", Rule::ComesToRest),
        ("rotation", "late-wake", Rule::WakesAhead),
        ("rotation", "two-wakes", Rule::WakesAhead),
        ("rotation", "none", Rule::StaysSmall),
        ("rotation", "hoards-texts", Rule::StaysSmall),
        ("rotation", "none", Rule::Heeds),
        ("rotation", "asks-once", Rule::Heeds),
        ("rotation", "counting", Rule::ToldTwice),
        ("rotation", "none", Rule::Migrates),
        ("rotation", "forgets-its-form", Rule::Migrates),
        ("rotation", "begs", Rule::NeverBegs),
        ("rotation", "many", Rule::WithinBounds),
        ("rotation,careless", "none", Rule::SettingsChecked),
        ("rotation", "obliging", Rule::SettingsChecked),
        ("recovery", "none", Rule::Finishes),
        ("recovery", "refuses-within", Rule::NeverDies),
        ("recovery", "trusts", Rule::ForeignState),
        ("recovery", "late-wake", Rule::WakesAhead),
        ("recovery", "wraps", Rule::WithinBounds),
        ("disguise", "none", Rule::RoundTrips),
        ("disguise", "careful", Rule::RoundTrips),
        ("disguise", "modest", Rule::RoundTrips),
        ("disguise", "corrupts", Rule::RoundTrips),
        ("disguise", "refuses-within", Rule::RoundTrips),
        ("disguise", "trims", Rule::RoundTrips),
        ("disguise", "refuses-plan", Rule::NeverDies),
        ("disguise", "hides", Rule::NeverGuesses),
        ("disguise", "small-slot", Rule::WithinBounds),
        ("plan", "remembers", Rule::Pure),
        ("plan", "remembers", Rule::PlansRepeat),
        ("plan", "refuses-within", Rule::PlansRepeat),
        ("plan", "no-such-stack", Rule::WithinBounds),
        ("cipher", "garbles", Rule::Opens),
        ("cipher", "chains", Rule::Opens),
        ("cipher", "refuses-within", Rule::Opens),
        ("cipher", "folds", Rule::Opens),
        ("cipher", "none", Rule::Depends),
    ] {
        let (bytes, config) = (hostile::hostile(kind), json!({ "do": deed }));
        let effort = Effort { stories: 12, ..Effort::default() };
        let report = try_only(host(), "test", &bytes, &config, effort, &[rule], &|_| ()).unwrap();
        let broken = report.verdicts[0].broken.as_ref().unwrap_or_else(|| panic!("{kind} {deed}: {rule} held"));
        found.insert(rule);
        writeln!(sheet, "{kind} that does {deed:?} breaks {rule}: {}\n", broken.said).unwrap();
        let Some(story) = broken.scenario.as_deref() else { continue };
        assert!(Scenario::parse(deed, story).is_ok(), "what was found is a scenario: {story}");
        writeln!(sheet, "{story}\n{}\n", broken.transcript.join("\n")).unwrap();
    }
    assert_eq!(found.into_iter().collect::<Vec<_>>(), Rule::ALL, "every rule has a mistake that breaks it");
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(root().join("fixtures/snapshots/hostile"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!("conformance", sheet));
}

#[test]
fn the_rule_that_explains_another_comes_first_and_what_repeats_is_named() {
    let (bytes, config) = (hostile::hostile("rotation"), json!({ "do": "late-wake-again" }));
    let both = [Rule::ComesToRest, Rule::WakesAhead];
    let report =
        try_only(host(), "test", &bytes, &config, Effort { stories: 2, ..Effort::default() }, &both, &|_| ()).unwrap();
    assert_eq!(
        report.verdicts.iter().map(|verdict| verdict.rule).collect::<Vec<_>>(),
        [Rule::WakesAhead, Rule::ComesToRest]
    );
    let said = &report.verdicts[1].broken.as_ref().unwrap().said;
    let wanted = "at +0d00:00:00 `wake-at +0d00:00:00` was decided 32 times, after `decided: #32 clamped` at last; mend C-7 first";
    assert_eq!(said, &format!("call followed call, and no time passed: {wanted}"));
}

#[test]
fn a_state_that_its_own_policy_cannot_read_is_said_to_be_that_by_every_rule_that_it_breaks() {
    let (bytes, config) = (hostile::hostile("rotation"), json!({ "do": "forgets-its-form" }));
    let effort = Effort { stories: 12, ..Effort::default() };
    let rules = [Rule::Heeds, Rule::Migrates];
    let report = try_only(host(), "test", &bytes, &config, effort, &rules, &|_| ()).unwrap();
    let said: Vec<_> = report.verdicts.iter().map(|each| (each.rule, &*each.broken.as_ref().unwrap().said)).collect();
    let unread = "it cannot read the state that it wrote itself";
    assert_eq!(said[0], (Rule::Migrates, unread));
    assert!(said[1].0 == Rule::Heeds && said[1].1.starts_with(unread) && said[1].1.ends_with("; mend C-11 first"));
}

#[test]
fn the_report_is_the_same_however_many_rules_are_tried_at_once() {
    for deed in ["forgets-its-form", "late-wake-again", "hoards"] {
        let (bytes, config) = (hostile::hostile("rotation"), json!({ "do": deed }));
        let told = |threads| {
            let effort = Effort { stories: 2, threads, ..Effort::default() };
            conform(host(), "test", &bytes, &config, effort).unwrap()
        };
        assert_eq!(told(1), told(5));
    }
}

#[test]
fn a_rule_of_which_less_than_half_of_the_stories_were_told_is_not_said_to_be_kept() {
    let effort = Effort { stories: 12, fuel: Some(1), ..Effort::default() };
    let report = conform(host(), "test", &shipped()["interval"], &Value::Null, effort).unwrap();
    let verdict = &report.verdicts[0];
    assert_eq!((verdict.tried, verdict.untold, verdict.broken.is_none()), (2, 10, true));
    assert!(!verdict.is_told_enough() && !report.conforms());
}

#[test]
fn a_policy_that_keeps_every_request_is_found_with_the_fewest_stories_that_are_told() {
    let (bytes, config) = (hostile::hostile("rotation"), json!({ "do": "hoards" }));
    let effort = Effort { fuel: Some(1), ..Effort::default() };
    let report = try_only(host(), "test", &bytes, &config, effort, &[Rule::StaysSmall], &|_| ()).unwrap();
    let broken = report.verdicts[0].broken.as_ref().unwrap();
    assert!(broken.scenario.as_deref().unwrap().contains("request:"), "{broken:?}");
}

#[test]
fn a_policy_that_keeps_every_look_is_found_where_its_looks_are_hours_apart() {
    let (bytes, config) = (hostile::hostile("rotation"), json!({ "do": "hoards-looks" }));
    let effort = Effort { stories: 12, ..Effort::default() };
    let report = try_only(host(), "test", &bytes, &config, effort, &[Rule::StaysSmall], &|_| ()).unwrap();
    let broken = report.verdicts[0].broken.as_ref().unwrap();
    assert!(broken.said.contains("rounds of the same"), "{broken:?}");
}

/// How the first of these rules that is broken is, in words.
fn said(kind: &'static str, deed: &str, rule: Rule, stories: u32) -> Option<String> {
    let (bytes, config) = (hostile::hostile(kind), json!({ "do": deed }));
    let effort = Effort { stories, ..Effort::default() };
    let report = try_only(host(), "test", &bytes, &config, effort, &[rule], &|_| ()).unwrap();
    report.verdicts.into_iter().find_map(|verdict| verdict.broken).map(|broken| broken.said)
}

#[test]
fn a_refusal_that_the_contract_has_no_room_for_is_told_with_what_was_refused_and_on_which_input() {
    for (kind, rule, wanted) in [
        (
            "disguise",
            Rule::RoundTrips,
            &["disguise.embed refuses", "bytes in a cover of", "which carries", "(R-21)"][..],
        ),
        ("plan", Rule::PlansRepeat, &["cipher.plan-batch refuses a batch of", "records in blocks of", "(R-32)"]),
        ("cipher", Rule::Opens, &["raw-cipher.open refuses what it sealed, a batch of", "units", "(R-40)"]),
        ("rotation", Rule::NeverDies, &["rotation.step was refused, asked `requested:", " at +", "not on request"]),
        ("recovery", Rule::NeverDies, &["recovery.step was refused, asked `", " at +", "reads are nothing to me"]),
    ] {
        let said = said(kind, "refuses-within", rule, 12).unwrap_or_else(|| panic!("{kind}: {rule} held"));
        assert!(wanted.iter().all(|part| said.contains(part)), "{kind}: {said}");
    }
}

#[test]
fn settings_that_are_taken_and_then_fail_break_the_rule_about_settings_by_name() {
    let said = said("rotation", "obliging", Rule::SettingsChecked, 1).unwrap();
    let wanted = [r#""no-such-setting":1"#, "are taken, and then: rotation.init was refused"];
    assert!(wanted.iter().all(|part| said.contains(part)), "{said}");
    assert_eq!(
        self::said("rotation", "refuses-within", Rule::SettingsChecked, 1),
        None,
        "it refuses with any settings"
    );
}

#[test]
fn a_suspicion_that_the_floor_put_off_and_that_is_forgotten_breaks_the_rule_about_suspicions() {
    let said = said("rotation", "asks-once", Rule::Heeds, 12).unwrap();
    assert!(said.contains("is refused, and neither asks again nor alerts"), "{said}");
}

#[test]
fn of_a_state_that_grows_the_field_that_does_is_named() {
    let said = said("rotation", "hoards-texts", Rule::StaysSmall, 8).unwrap();
    assert!(said.contains("; what grows is `/texts` (first 61, then 181 entries)"), "{said}");
}

#[test]
fn where_the_first_call_dies_no_other_rule_is_said_to_be_kept() {
    let (bytes, config) = (hostile::hostile("rotation"), json!({ "do": "panic" }));
    let effort = Effort { stories: 2, ..Effort::default() };
    let report = conform(host(), "test", &bytes, &config, effort).unwrap();
    let (broken, others): (Vec<_>, Vec<_>) = report.verdicts.iter().partition(|verdict| verdict.broken.is_some());
    assert_eq!(broken.iter().map(|verdict| verdict.rule).collect::<Vec<_>>(), [Rule::NeverDies]);
    assert_eq!(others.len() + 1, Rule::of(Kind::Rotation).len());
    for verdict in others {
        assert!(verdict.is_untried() && verdict.words().starts_with("NOT TRIED"), "{verdict:?}");
    }
    assert!(!report.conforms());
}

#[test]
fn what_ends_the_stories_of_a_rule_is_said_by_the_rule_that_it_is_about() {
    let (bytes, config) = (hostile::hostile("rotation"), json!({ "do": "dies-late" }));
    let effort = Effort { stories: 8, ..Effort::default() };
    let tried = |rules: &[Rule]| try_only(host(), "test", &bytes, &config, effort, rules, &|_| ()).unwrap().verdicts;
    assert!(tried(&[Rule::NeverDies]).iter().all(|verdict| verdict.broken.is_none()), "its own stories are too short");
    let both = tried(&[Rule::NeverDies, Rule::StaysSmall]);
    let found = both.iter().map(|verdict| (verdict.rule, verdict.broken.is_some(), verdict.is_untried()));
    assert_eq!(found.collect::<Vec<_>>(), [(Rule::NeverDies, true, false), (Rule::StaysSmall, false, true)]);
}

#[test]
fn settings_that_change_the_key_all_the_time_do_not_make_a_story_last_for_ever() {
    let config = json!({ "interval": "40s", "max-bytes": "1MiB" });
    assert!(tried(&shipped()["interval"], &config, 2).conforms());
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

/// The cells of the table's rows that begin with `| {letter}-`.
fn rows(letter: &str) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(root().join("wit/README.md")).unwrap();
    let rows = text.lines().filter(|line| line.starts_with(&format!("| {letter}-")));
    rows.map(|row| row.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect()).collect()
}

/// Every `R-n` in a text.
fn rules_in(text: &str) -> BTreeSet<String> {
    let number = |rest: &str| rest.chars().take_while(char::is_ascii_digit).collect::<String>();
    let found = text.split("R-").skip(1).map(number).filter(|number| !number.is_empty());
    found.map(|number| format!("R-{number}")).collect()
}

#[test]
fn the_kit_and_the_contract_number_the_same_rules() {
    let kinds = |rule: &Rule| {
        if rule.kinds() == Kind::ALL {
            return "all".to_owned();
        }
        rule.kinds().iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    };
    let kit: Vec<_> = Rule::ALL.iter().map(|rule| [rule.number().to_owned(), kinds(rule)]).collect();
    let told: Vec<_> = rows("C").into_iter().map(|row| [row[0].clone(), row[1].clone()]).collect();
    assert_eq!(told, kit, "the table of wit/README.md under `How the rules are tried`");

    let written: BTreeSet<String> = ["types", "meta", "rotation", "recovery", "disguise", "cipher", "raw"]
        .iter()
        .flat_map(|file| {
            rules_in(&std::fs::read_to_string(root().join("wit/v0.1").join(file).with_extension("wit")).unwrap())
        })
        .collect();
    let listed: BTreeSet<String> = rows("R").into_iter().map(|row| row[0].clone()).collect();
    assert_eq!(written, listed, "the rules in wit/v0.1 and in the table of wit/README.md");
    // Of each rule the table says which of the kit's tries it, or that the host alone sees to it.
    for row in rows("R") {
        let tried: Vec<&str> = Rule::ALL
            .iter()
            .filter(|rule| rule.contract().contains(&row[0].as_str()))
            .map(|rule| rule.number())
            .collect();
        let tried = if tried.is_empty() { "the host".to_owned() } else { tried.join(", ") };
        assert_eq!(row[3], tried, "{}", row[0]);
    }
}
