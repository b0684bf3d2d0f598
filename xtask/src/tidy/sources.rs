//! What every source file owes its reader, what is never left in one, and what the core must not touch.

use super::{File, Problem};

/// Leftovers of unfinished work. Put together here so that this file does not hold them.
const LEFTOVERS: [&str; 6] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("to", "do!("),
    concat!("unimpl", "emented!("),
    concat!("db", "g!("),
    concat!("#[ig", "nore"),
];

/// What the core has no business with: it decides, and every run of it is repeatable.
const NOT_IN_CORE: [&str; 8] =
    ["std::fs", "std::net", "std::thread", "Instant::now", "SystemTime", "HashMap", "HashSet", "std::env"];

/// Modules of the daemon that each know one part of the world, and meet only where it is put together. What a peer is
/// known by (`keys`) lies below them.
const APART: [&str; 4] = ["control", "link", "nbd", "store"];

pub(super) fn check(files: &[File]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for file in files.iter().filter(|file| file.path.ends_with(".rs")) {
        problems.extend(opening(file));
        problems.extend(leftovers(file));
        if file.path.starts_with("host/core/src/") {
            problems.extend(impurities(file));
        }
        problems.extend(entanglements(file));
    }
    problems
}

fn opening(file: &File) -> Option<Problem> {
    let purpose = file.text.lines().next().and_then(|line| line.strip_prefix("//! "));
    purpose.is_none().then(|| Problem::new(&file.path, "begin the file with a //! line that says what it is for"))
}

fn leftovers(file: &File) -> Vec<Problem> {
    let found = numbered(&file.text).flat_map(|(number, line)| {
        LEFTOVERS.iter().filter(move |leftover| line.contains(**leftover)).map(move |leftover| (number, leftover))
    });
    found
        .map(|(number, leftover)| {
            Problem::new(&at(file, number), format!("holds {leftover}: finish it, or write down what is so as it is"))
        })
        .collect()
}

fn impurities(file: &File) -> Vec<Problem> {
    let found = numbered(&file.text).filter_map(|(number, line)| {
        let name = NOT_IN_CORE.iter().find(|name| code(line).contains(**name))?;
        let message = format!(
            "uses {name}; the core has no files, sockets, threads, clock or unordered maps: take what is needed as an \
             input, use BTreeMap",
        );
        Some(Problem::new(&at(file, number), message))
    });
    found.collect()
}

fn entanglements(file: &File) -> Vec<Problem> {
    let Some(rest) = file.path.strip_prefix("host/daemon/src/") else { return Vec::new() };
    let own = rest.split(['/', '.']).next().unwrap_or_default();
    if !APART.contains(&own) {
        return Vec::new();
    }
    let found = numbered(&file.text).filter_map(|(number, line)| {
        let other = APART.iter().find(|other| **other != own && names_module(code(line), other))?;
        let message = format!("{own} uses {other}; let the daemon's main join them, or move what both need below them");
        Some(Problem::new(&at(file, number), message))
    });
    found.collect()
}

/// Is there `crate::module` in the line, or `module` right inside `crate::{..}`?
fn names_module(line: &str, module: &str) -> bool {
    line.match_indices("crate::").any(|(start, path)| {
        let rest = &line[start + path.len()..];
        let is_it = |text: &str| {
            let after = text.trim_start().strip_prefix(module);
            after.is_some_and(|after| !after.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
        };
        match rest.strip_prefix('{') {
            Some(group) => group.split(['{', '}', ',']).any(is_it),
            None => is_it(rest),
        }
    })
}

/// The line without its comment.
fn code(line: &str) -> &str {
    line.split_once("//").map_or(line, |(code, _)| code)
}

fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(place, line)| (place + 1, line))
}

fn at(file: &File, number: usize) -> String {
    format!("{}:{number}", file.path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(path: &str, text: &str) -> Vec<String> {
        let problems = check(&[File { path: path.to_owned(), text: text.to_owned() }]);
        problems.into_iter().map(|problem| problem.place).collect()
    }

    #[test]
    fn a_file_begins_with_its_purpose() {
        assert_eq!(places("xtask/src/a.rs", "use std::fs;\n"), ["xtask/src/a.rs"]);
        assert!(places("xtask/src/a.rs", "//! Purpose.\n").is_empty());
    }

    #[test]
    fn leftovers_are_found_wherever_they_are() {
        for leftover in LEFTOVERS {
            assert_eq!(places("xtask/src/a.rs", &format!("//! Purpose.\n\n// {leftover}\n")), ["xtask/src/a.rs:3"]);
        }
    }

    #[test]
    fn the_core_touches_nothing_outside_itself() {
        let text = "//! Purpose.\nuse std::collections::HashMap;\n// no HashMap here\nlet now = Instant::now();\n";
        assert_eq!(places("host/core/src/a.rs", text), ["host/core/src/a.rs:2", "host/core/src/a.rs:4"]);
        assert!(places("host/daemon/src/a.rs", text).is_empty());
    }

    #[test]
    fn the_daemons_modules_do_not_know_each_other() {
        for uses in ["use crate::link::Frame;", "use crate::{clock, link};", "fn f(x: crate::link::X) {}"] {
            assert_eq!(places("host/daemon/src/nbd/a.rs", &format!("//! P.\n{uses}\n")).len(), 1, "{uses}");
        }
        for uses in ["use crate::nbd::Frame;", "use crate::linkage::X;", "use crate::clock;", "// crate::link"] {
            assert!(places("host/daemon/src/nbd.rs", &format!("//! P.\n{uses}\n")).is_empty(), "{uses}");
        }
        assert!(places("host/daemon/src/node.rs", "//! P.\nuse crate::link::Frame;\n").is_empty());
    }
}
