//! Source files that nothing compiles, and `mod.rs` files.

use std::collections::BTreeSet;

use super::{File, Problem};

pub(super) fn check(files: &[File]) -> Vec<Problem> {
    let sources: Vec<&File> = files.iter().filter(|file| file.path.ends_with(".rs")).collect();
    let mut reached: BTreeSet<&str> = BTreeSet::new();
    let mut waiting: Vec<&File> = sources.iter().copied().filter(|file| is_root(&file.path)).collect();
    while let Some(file) = waiting.pop() {
        if reached.insert(&file.path) {
            let named = named_files(file);
            waiting.extend(sources.iter().copied().filter(|other| named.contains(&other.path)));
        }
    }
    let mut problems = Vec::new();
    for file in sources {
        if file.path.ends_with("/mod.rs") {
            problems.push(Problem::new(&file.path, "name the file after its module: foo.rs beside the folder foo"));
        } else if !reached.contains(file.path.as_str()) {
            problems.push(Problem::new(&file.path, "no mod line names this file: add one, or delete the file"));
        }
    }
    problems
}

/// Cargo compiles it without being told by another file.
fn is_root(path: &str) -> bool {
    let parts: Vec<&str> = path.split('/').collect();
    match parts.as_slice() {
        [.., "src", "lib.rs" | "main.rs"] | [.., "src", "bin", _] => true,
        [.., "tests" | "benches" | "examples", _] => !path.contains("/src/"),
        [.., "build.rs"] => !path.contains("/src/"),
        _ => false,
    }
}

/// The paths that the `mod` lines of a file may mean.
fn named_files(file: &File) -> Vec<String> {
    let (folder, name) = file.path.rsplit_once('/').unwrap_or(("", &file.path));
    let below =
        if is_root(&file.path) { folder.to_owned() } else { format!("{folder}/{}", name.trim_end_matches(".rs")) };
    let mut named = Vec::new();
    let mut given = None;
    for line in file.text.lines().map(str::trim) {
        if let Some(path) = line.strip_prefix("#[path = \"").and_then(|rest| rest.strip_suffix("\"]")) {
            given = Some(format!("{folder}/{path}"));
        } else if let Some(module) = module_named(line) {
            named.push(given.take().unwrap_or_else(|| format!("{below}/{module}.rs")));
        }
    }
    named
}

/// `x` of `mod x;`, however visible.
fn module_named(line: &str) -> Option<&str> {
    let line = line.strip_suffix(';')?;
    let (before, module) = line.split_once("mod ")?;
    let before = before.trim();
    (before.is_empty() || before == "pub" || (before.starts_with("pub(") && before.ends_with(')')))
        .then_some(module.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(files: &[(&str, &str)]) -> Vec<String> {
        let file = |(path, text): &(&str, &str)| File { path: (*path).to_owned(), text: (*text).to_owned() };
        let files: Vec<File> = files.iter().map(file).collect();
        check(&files).into_iter().map(|problem| problem.place).collect()
    }

    #[test]
    fn files_are_reached_through_mod_lines() {
        let reached = [
            ("a/src/lib.rs", "pub(crate) mod one;\n"),
            ("a/src/one.rs", "mod two;\n#[path = \"elsewhere.rs\"]\nmod three;\n"),
            ("a/src/one/two.rs", ""),
            ("a/src/elsewhere.rs", ""),
            ("a/tests/story.rs", "mod support;\n"),
            ("a/tests/support.rs", ""),
        ];
        assert!(places(&reached).is_empty());
    }

    #[test]
    fn a_file_that_nothing_names_and_a_mod_file_are_found() {
        let files = [("a/src/main.rs", "// mod ghost;\n"), ("a/src/ghost.rs", ""), ("a/src/x/mod.rs", "")];
        assert_eq!(places(&files), ["a/src/ghost.rs", "a/src/x/mod.rs"]);
    }
}
