//! Checks on what a component says about itself and its settings: bounded, printable, constant.

use crate::bindings::rotation_policy::farseal::plugin::types::Diagnostic;
use crate::fault::LogLine;
use crate::limits;
use crate::load_error::Problem;
use crate::world::About;

/// What the contract demands of `describe` (R-3 and the field comments of `meta.wit`).
pub(crate) fn check(about: &About, logs: &[LogLine]) -> Result<(), Problem> {
    let bad = |reason: &str| Err(Problem::BadAbout { reason: reason.into() });
    if !logs.is_empty() {
        return bad("describe writes to the log");
    }
    if !is_name(&about.name) {
        return bad("the name is not lower-case words joined by hyphens");
    }
    if !is_version(&about.version) {
        return bad("the version is not three numbers with dots between them");
    }
    if about.summary.is_empty() || about.summary.len() > limits::ABOUT_TEXT_BYTES || about.summary.contains('\n') {
        return bad("the summary is not one line of at most 256 bytes");
    }
    if about.config_schema.len() > limits::SCHEMA_BYTES {
        return bad("the settings schema is longer than 64 KiB");
    }
    if !serde_json::from_str::<serde_json::Value>(&about.config_schema).is_ok_and(|schema| schema.is_object()) {
        return bad("the settings schema is not a JSON object");
    }
    if about.understands.len() > limits::NAMES
        || about.understands.iter().any(|name| name.len() > limits::ABOUT_TEXT_BYTES)
    {
        return bad("it understands more than 64 extensions, or one with a name longer than 256 bytes");
    }
    Ok(())
}

/// Diagnostics within what a person reads.
pub(crate) fn capped(mut found: Vec<Diagnostic>) -> Vec<Diagnostic> {
    found.truncate(limits::NAMES);
    for one in &mut found {
        cut(&mut one.path);
        cut(&mut one.message);
        if let Some(help) = &mut one.help {
            cut(help);
        }
    }
    found
}

fn cut(text: &mut String) {
    text.truncate(text.floor_char_boundary(limits::ABOUT_TEXT_BYTES));
}

fn is_name(name: &str) -> bool {
    let word = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    name.len() <= limits::ABOUT_TEXT_BYTES && name.split('-').all(word)
}

fn is_version(version: &str) -> bool {
    let core = version.split(['-', '+']).next().unwrap_or_default();
    let numbers: Vec<_> = core.split('.').collect();
    version.len() <= limits::ABOUT_TEXT_BYTES
        && version.is_ascii()
        && numbers.len() == 3
        && numbers.iter().all(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_versions() {
        for (name, good) in [
            ("interval", true),
            ("on-command", true),
            ("a1-b2", true),
            ("", false),
            ("-a", false),
            ("A", false),
            ("a_b", false),
        ] {
            assert_eq!(is_name(name), good, "{name}");
        }
        for (version, good) in
            [("0.1.0", true), ("1.2.3-rc.1", true), ("1.2", false), ("v1.2.3", false), ("1..3", false)]
        {
            assert_eq!(is_version(version), good, "{version}");
        }
    }
}
