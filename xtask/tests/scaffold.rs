//! A scaffolded plugin of every kind builds, passes its own unit tests, every scenario and every rule of its kind, and loads, at
//! the first try.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/copy.rs"]
#[expect(dead_code, reason = "what the tests of other languages need is there, too")]
mod copy;

use std::fs;

use copy::{Copy, KINDS, succeeded};

#[test]
fn a_new_plugin_of_every_kind_works_at_the_first_try() {
    let copy = Copy::building_in("scaffold");
    let mut names = Vec::new();
    for kind in KINDS {
        for (flavour, option) in [("sdk", None), ("bare", Some("--bare"))] {
            let name = format!("first-{kind}-{flavour}");
            let words: Vec<&str> = ["new-plugin", kind, &name].into_iter().chain(option).collect();
            let said = succeeded(&copy.xtask(&words));
            assert!(said.contains(&format!("cargo xtask snapshot {name} --review")), "it says what comes next: {said}");
            names.push(name);
        }
    }

    let packages = names.iter().flat_map(|name| [String::from("--package"), format!("plugin-{name}")]);
    let words: Vec<String> = ["test", "--quiet", "--locked"].map(String::from).into_iter().chain(packages).collect();
    succeeded(&copy.cargo(&words.iter().map(String::as_str).collect::<Vec<_>>()));
    let chosen = || names.iter().map(String::as_str);
    let built = succeeded(&copy.xtask(&["plugins"].into_iter().chain(chosen()).collect::<Vec<_>>()));
    assert_eq!(built.lines().filter(|line| line.contains("imports")).count(), names.len(), "{built}");
    // Played three times: what was accepted is compared. All at once, as Cargo looks at the whole workspace each time.
    let chosen: Vec<&str> = chosen().collect();
    succeeded(&copy.with_host_from_here("snapshot", &chosen, &["--accept"]));
    let checked = succeeded(&copy.with_host_from_here("snapshot", &chosen, &["--check"]));
    assert!(checked.contains("  first-rotation-sdk, first-rotation-sdk: "), "each story is told: {checked}");
    assert!(checked.contains(" scenarios: ") && checked.contains(" as accepted; "), "{checked}");
    succeeded(&copy.with_host_from_here("conform", &chosen, &["--stories", "4"]));
    let transcript = "fixtures/snapshots/rotation/first-rotation-sdk@first-rotation-sdk.snap";
    assert!(fs::read_to_string(copy.place.path().join(transcript)).unwrap().contains("requested: before the audit"));

    // What differs is told in a few lines, with the command that goes on from here.
    let story = copy.place.path().join("fixtures/rotation/first-rotation-sdk.yaml");
    let other = fs::read_to_string(&story).unwrap().replace("rotations: ", "rotations: 9");
    fs::write(&story, other).unwrap();
    let words = ["--scenario", "first-rotation-sdk", "--check"];
    let failed = copy.with_host_from_here("snapshot", &["first-rotation-sdk"], &words);
    let said = String::from_utf8_lossy(&failed.stdout).into_owned();
    let (verdict, rest) = said.split_once("first-rotation-sdk.yaml: fails\n").unwrap();
    assert!(verdict.trim_start().starts_with("first-rotation-sdk, fixtures/rotation/"), "{said}");
    assert!(rest.starts_with("  FAILS     rotations: "), "before what differs: {said}");
    let end = String::from_utf8_lossy(&failed.stderr).into_owned();
    assert!(!failed.status.success() && end.contains("1 scenario: 1 fails"), "{end}");

    let words = copy.component("first-rotation-sdk").with_file_name("words.wasm");
    fs::write(&words, "no component").unwrap();
    let refused = copy.with_host_from_here("snapshot", &["words"], &[]);
    fs::remove_file(words).unwrap();
    let said = [refused.stdout, refused.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    assert!(said.contains("words") && !said.contains("panicked") && said.lines().count() < 8, "{said}");

    let again = copy.xtask(&["new-plugin", "rotation", "first-rotation-sdk"]);
    assert!(!again.status.success(), "a name is used once");
}

#[test]
fn what_no_template_is_for_is_refused_with_the_way_out() {
    let copy = Copy::building_in("scaffold-refused");
    for (words, help) in [
        (vec!["cipher", "late", "--lang", "js"], "cipher in Rust"),
        (vec!["cipher-raw", "late"], "copy plugins/chacha20-guest"),
        (vec!["rotation", "interval"], "choose another name"),
    ] {
        let refused = copy.xtask(&["new-plugin"].into_iter().chain(words).collect::<Vec<_>>());
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && said.contains(help), "{said}");
    }
}
