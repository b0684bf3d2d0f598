//! What a new plugin's files say, by kind and language.

use anyhow::{Result, bail};

use super::request::Request;
use crate::workspace::Language;

/// The files of a new plugin, and the scenario that is its own.
pub(super) struct Template {
    /// Their places in its folder, and what they say; the first is the one to change.
    pub(super) files: Vec<(&'static str, &'static str)>,
    pub(super) scenario: &'static str,
}

impl Template {
    pub(super) fn of(request: &Request) -> Result<Self> {
        let scenario = match request.kind.as_str() {
            "rotation" => include_str!("../../templates/scenario/rotation.yaml.in"),
            "recovery" => include_str!("../../templates/scenario/recovery.yaml.in"),
            "disguise" => include_str!("../../templates/scenario/disguise.yaml.in"),
            "cipher" => include_str!("../../templates/scenario/cipher.yaml.in"),
            "cipher-raw" => bail!("there is no template for cipher-raw: copy plugins/chacha20-guest"),
            other => bail!("there is no kind {other}; there are: rotation, recovery, disguise, cipher"),
        };
        let readme = ("README.md", include_str!("../../templates/README.md.in"));
        let source = source(request)?;
        let manifest = match (request.language, request.bare) {
            (Language::Rust, false) => ("Cargo.toml", include_str!("../../templates/sdk/Cargo.toml.in")),
            (Language::Rust, true) => ("Cargo.toml", include_str!("../../templates/bare/Cargo.toml.in")),
            (Language::JavaScript, _) => ("plugin.json", include_str!("../../templates/js/plugin.json.in")),
            (Language::Python, _) => ("plugin.json", include_str!("../../templates/python/plugin.json.in")),
        };
        Ok(Self { files: [source, manifest, readme].into_iter().chain(tests(request)).collect(), scenario })
    }

    /// The file of its unit tests, where they are not in the source.
    pub(super) fn tests(&self) -> Option<&str> {
        self.files.iter().map(|(file, _)| *file).find(|file| file.contains("test"))
    }

    /// The file to change.
    pub(super) fn source(&self) -> &'static str {
        self.files.first().map_or("README.md", |(file, _)| file)
    }
}

fn source(request: &Request) -> Result<(&'static str, &'static str)> {
    let text = match (request.language, request.bare, request.kind.as_str()) {
        (Language::Rust, false, "rotation") => include_str!("../../templates/sdk/rotation.rs.in"),
        (Language::Rust, false, "recovery") => include_str!("../../templates/sdk/recovery.rs.in"),
        (Language::Rust, false, "disguise") => include_str!("../../templates/sdk/disguise.rs.in"),
        (Language::Rust, false, _) => include_str!("../../templates/sdk/cipher.rs.in"),
        (Language::Rust, true, "rotation") => include_str!("../../templates/bare/rotation.rs.in"),
        (Language::Rust, true, "recovery") => include_str!("../../templates/bare/recovery.rs.in"),
        (Language::Rust, true, "disguise") => include_str!("../../templates/bare/disguise.rs.in"),
        (Language::Rust, true, _) => include_str!("../../templates/bare/cipher.rs.in"),
        (Language::JavaScript, _, "rotation") => include_str!("../../templates/js/rotation.js.in"),
        (Language::JavaScript, _, "recovery") => include_str!("../../templates/js/recovery.js.in"),
        (Language::Python, _, "rotation") => include_str!("../../templates/python/rotation.py.in"),
        (Language::Python, _, "recovery") => include_str!("../../templates/python/recovery.py.in"),
        (language, _, kind) => bail!(
            "a {kind} in {language} would bring an interpreter to every record: rotation and recovery may be written in \
             {language}, {kind} in Rust"
        ),
    };
    let path = match request.language {
        Language::Rust => "src/lib.rs",
        Language::JavaScript => "plugin.js",
        Language::Python => "plugin.py",
    };
    Ok((path, text))
}

/// Tests without a component; those in Rust are in the source itself.
fn tests(request: &Request) -> Option<(&'static str, &'static str)> {
    match (request.language, request.kind.as_str()) {
        (Language::JavaScript, "rotation") => {
            Some(("plugin.test.js", include_str!("../../templates/js/rotation.test.js.in")))
        }
        (Language::JavaScript, _) => Some(("plugin.test.js", include_str!("../../templates/js/recovery.test.js.in"))),
        (Language::Python, "rotation") => {
            Some(("test_plugin.py", include_str!("../../templates/python/rotation_test.py.in")))
        }
        (Language::Python, _) => Some(("test_plugin.py", include_str!("../../templates/python/recovery_test.py.in"))),
        (Language::Rust, _) => None,
    }
}

/// The plugin in a sentence, for its README.
pub(super) fn about(kind: &str) -> &'static str {
    match kind {
        "rotation" => {
            "A rotation policy: changes the key when it is as old as its interval (30 days unless set), when somebody asks, and at \
             once\nwhen it may be known to others."
        }
        "recovery" => "A recovery strategy: opens what is read at once, and everything else in the background.",
        "disguise" => "A disguise: a record goes at a set beat, whether a key is due or not.",
        _ => "A cipher: every record is sealed by the host as this plugin plans.",
    }
}
