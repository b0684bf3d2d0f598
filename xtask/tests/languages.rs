//! One policy and one strategy in three languages: every story has the same transcript, to the byte. Scaffolds in JavaScript and Python build and load at the first try.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/copy.rs"]
#[expect(dead_code, reason = "what the tests of other kinds need is there, too")]
mod copy;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use copy::{Copy, builds, root, succeeded};

/// By kind and scenario.
type Transcripts = BTreeMap<(&'static str, String), String>;

#[test]
fn one_policy_and_one_strategy_are_the_same_in_three_languages() {
    let there: Vec<&str> = ["js", "python"].into_iter().filter(|language| builds(language)).collect();
    if there.is_empty() {
        eprintln!("not tested: nothing in target/tools builds JavaScript or Python; cargo xtask plugins installs it");
        return;
    }
    let both = ["rotation", "recovery"];
    let rust = transcripts("rust", &both);
    for kind in both {
        let stories = rust.keys().filter(|(of, _)| *of == kind).count();
        assert!(stories > 4, "{kind}: all that are told to each, and its own");
    }
    // An interpreter takes most of a minute to build and to compile, each on one core.
    let all: Vec<Transcripts> = std::thread::scope(|scope| {
        let tries = there.iter().map(|language| scope.spawn(|| transcripts(language, &both)));
        let tries: Vec<_> = tries.collect();
        tries.into_iter().map(|one| one.join().unwrap()).collect()
    });
    for (language, told) in there.iter().zip(&all) {
        assert!(told.keys().eq(rust.keys()), "{language} was told something else");
        for (story, transcript) in &rust {
            assert_eq!(&told[story], transcript, "{language}, {story:?}");
        }
    }
}

#[test]
fn the_sdks_name_an_authors_mistake_in_the_plain_interpreters() {
    let programs: [(&str, &[&str]); 3] = [
        ("js", &["node", "--test", "plugins/sdk/tests/"]),
        ("python", &["python3", "-m", "unittest", "plugins/sdk/tests/test_python.py"]),
        ("python", &["python3", "-m", "unittest", "plugins/sdk/tests/test_strategy.py"]),
    ];
    for (language, words) in programs {
        let is_new_enough =
            language != "python" || succeeds(&["python3", "-c", "import sys; assert sys.version_info >= (3, 11)"]);
        if !builds(language) || !is_new_enough {
            eprintln!("not tested: the SDK's own tests in {language}; cargo xtask plugins installs what they need");
            continue;
        }
        succeeded(&in_repository(words).output().unwrap());
    }
}

fn in_repository(words: &[&str]) -> Command {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).current_dir(root());
    command
}

fn succeeds(words: &[&str]) -> bool {
    in_repository(words).output().is_ok_and(|output| output.status.success())
}

/// Of the scaffolds in a language, a policy and a strategy, which keep every rule.
fn transcripts(language: &str, kinds: &[&'static str]) -> Transcripts {
    let folder = if language == "rust" { String::from("scaffold") } else { format!("scaffold-{language}") };
    let copy = Copy::building_in(&folder);
    let names: Vec<String> = kinds.iter().map(|kind| format!("first-{kind}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for (kind, name) in kinds.iter().zip(&names) {
        let said = succeeded(&copy.xtask(&["new-plugin", kind, name, "--lang", language]));
        assert!(said.contains(&format!("cargo xtask plugins {name}")), "it says what comes next: {said}");
    }
    let built = succeeded(&copy.xtask(&["plugins"].iter().chain(&names).copied().collect::<Vec<_>>()));
    assert_eq!(built.matches("imports log").count(), names.len(), "{built}");
    // Nothing is accepted yet: each transcript is left as a new one.
    let played = copy.with_host_from_here("snapshot", &names, &[]);
    assert!(!played.status.success());
    if language != "rust" {
        succeeded(&copy.with_host_from_here("conform", &names, &["--stories", "1"]));
    }
    kinds.iter().flat_map(|kind| new_transcripts(&copy, kind, &played)).collect()
}

fn new_transcripts(copy: &Copy, kind: &'static str, played: &Output) -> Vec<((&'static str, String), String)> {
    let place = copy.place.path().join("fixtures/snapshots").join(kind);
    let files = fs::read_dir(&place).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&played.stdout)));
    let read = |file: PathBuf| {
        let name = file.file_name().unwrap().to_str().unwrap().trim_end_matches(".snap.new").to_owned();
        let text = fs::read_to_string(&file).unwrap();
        assert!(!text.contains("\n  FAILS "), "{name} does not go as is expected of it: {text}");
        let of_the_story = |line: &&str| !line.starts_with("assertion_line:");
        ((kind, name), text.lines().filter(of_the_story).collect::<Vec<_>>().join("\n"))
    };
    files.map(|file| read(file.unwrap().path())).collect()
}
