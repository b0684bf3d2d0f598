//! What authors get wrong in JavaScript and Python is named in a sentence, with its place: by the build, or in the transcript of the
//! story in which it happens.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/copy.rs"]
#[expect(dead_code, reason = "what the tests of other kinds need is there, too")]
mod copy;

use std::fs;

use copy::{Copy, builds, succeeded};

const NO_TIME: &str = "a policy gets its time from context.now and its chance from context.entropy";
const NO_NUMBER: &str = "it must be a whole number from 0 to 18446744073709551615";

/// A language with mistakes in it.
struct Planted {
    language: &'static str,
    file: &'static str,
    source: &'static str,
    /// By the request at which they are made, and what is said.
    made: &'static [(&'static str, [&'static str; 2])],
    /// What is written in the place of what, so that it does not build, and what is said.
    unbuilt: &'static [(&'static str, &'static str, [&'static str; 2])],
}

const JAVASCRIPT: Planted = Planted {
    language: "js",
    file: "plugin.js",
    source: include_str!("planted/plugin.js"),
    made: &[
        ("date-now", ["Date.now() is not there", NO_TIME]),
        ("new-date", ["new Date() without a time is not there", NO_TIME]),
        ("math-random", ["Math.random() is not there", "plugins/planted/plugin.js:9"]),
        ("beyond-64-bits", ["wake-at is 1844674", NO_NUMBER]),
        ("negative", ["wake-at is -", NO_NUMBER]),
        ("fraction", ["watch.bytes is 1.5", NO_NUMBER]),
        ("misspelt-key", ["cx.keys[0] has no bytesealed", "did you mean bytesSealed?"]),
        ("misspelt-context", ["cx has no link_up", "did you mean linkUp?"]),
        ("misspelt-setting", ["cx.settings has no intervall", "it has none"]),
        ("misspelt-action", ["tag is \"wakeat\"", "did you mean wake-at?"]),
        ("misspelt-field", ["rotate has no raeson", "did you mean reason?"]),
        ("misspelt-event", ["event is never", "did you mean rotated?"]),
        ("lacking-field", ["rotate lacks reason", ""]),
        ("no-text", ["alert is 5", "it must be a text"]),
        ("log-level", ["the level of log is \"warning\"", "'warn'"]),
        ("thrown", ["TypeError", "plugins/planted/plugin.js:"]),
    ],
    unbuilt: &[
        ("name: 'planted',", "name: 'planted'", ["plugins/planted/plugin.js:27", "SyntaxError"]),
        (
            "export const rotation = plugin.rotation;",
            "",
            ["does not export rotation", "end it with `export const rotation"],
        ),
        ("  summary:", "  sumary:", ["the policy has no sumary (did you mean summary?)", "plugins/planted/plugin.js:"]),
    ],
};

const PYTHON: Planted = Planted {
    language: "python",
    file: "plugin.py",
    source: include_str!("planted/plugin.py"),
    made: &[
        ("time", ["time.time() is not there", NO_TIME]),
        ("datetime-now", ["datetime.now() is not there", NO_TIME]),
        ("from-datetime", ["datetime.now() is not there", NO_TIME]),
        ("random", ["random.random() is not there", NO_TIME]),
        ("choice", ["random.choice() is not there", NO_TIME]),
        ("unseeded", ["random.Random() without a seed is not there", NO_TIME]),
        ("urandom", ["os.urandom() is not there", "plugin.py:20"]),
        ("beyond-64-bits", ["WakeAt is 1844674", NO_NUMBER]),
        ("negative", ["WakeAt is -1", NO_NUMBER]),
        ("fraction", ["Watch.bytes is 1.5", NO_NUMBER]),
        ("misspelt-key", ["did you mean bytes_sealed?", " at plugin.py:24 in <lambda>"]),
        ("misspelt-setting", ["KeyError", " at plugin.py:25 in <lambda>"]),
        ("no-action", ["the action is", "it must be an Action_.. of the contract"]),
        ("no-how", ["Rotate.how is", "it must be How"]),
        ("no-text", ["Alert is 5; it must be a text", " at plugin.py:28 in <lambda>"]),
        ("log-level", ["the level of log is", "warn"]),
        ("raised", ["AttributeError", "plugin.py:"]),
    ],
    unbuilt: &[
        (
            "class Planted(Policy):",
            "class Planted(Policy)",
            ["plugins/planted/plugin.py\", line 34", "SyntaxError: expected ':'"],
        ),
        (
            "def step(self",
            "def stepp(self",
            ["plugins/planted/plugin.py\", line 46", "Planted has no step (did you mean stepp?)"],
        ),
        (
            "Meta, Rotation = exported(Planted())",
            "",
            ["plugin.py exports no Meta", "`Meta, Rotation = exported(Yours())`"],
        ),
    ],
};

#[test]
fn a_mistake_in_javascript_or_python_is_named() {
    std::thread::scope(|scope| {
        for planted in [JAVASCRIPT, PYTHON].into_iter().filter(|planted| builds(planted.language)) {
            scope.spawn(move || plant(&planted));
        }
    });
}

fn plant(planted: &Planted) {
    let Planted { language, file, source, made, unbuilt } = planted;
    let copy = Copy::building_in(&format!("planted-{language}"));
    let place = copy.place.path();
    succeeded(&copy.xtask(&["new-plugin", "rotation", "planted", "--lang", language]));
    let plugin = place.join("plugins/planted").join(file);
    fs::remove_file(place.join("fixtures/rotation/planted.yaml")).unwrap();

    for (right, wrong, said) in *unbuilt {
        assert!(source.contains(right), "{right}");
        fs::write(&plugin, source.replace(right, wrong)).unwrap();
        let output = copy.xtask(&["plugins", "planted"]);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.iter().all(|words| told.contains(words)), "{language}: {told}");
        assert!(
            told.lines().count() < 12 && !told.contains("node_modules"),
            "the tool's own calls are left out: {told}"
        );
    }

    fs::write(&plugin, source).unwrap();
    succeeded(&copy.xtask(&["plugins", "planted"]));
    for (mistake, _) in *made {
        let story = format!(
            "about: A mistake.\nkind: rotation\nplugins: [planted]\ntimeline:\n  - request: {mistake}\nexpect: {{ fault: panic }}\n"
        );
        fs::write(place.join(format!("fixtures/rotation/planted-{mistake}.yaml")), story).unwrap();
    }
    let played = copy.with_host_from_here("snapshot", &["planted"], &["--scenario", "planted-*"]);
    for (mistake, said) in *made {
        let file = place.join(format!("fixtures/snapshots/rotation/planted@planted-{mistake}.snap.new"));
        let told = fs::read_to_string(&file).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&played.stdout)));
        assert!(said.iter().all(|words| told.contains(words)), "{language}, {mistake}: {told}");
        assert!(!told.contains("FAILS"), "{language}, {mistake}: {told}");
    }
}
