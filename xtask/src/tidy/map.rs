//! The code map in `ARCHITECTURE.md`: one line a source file, no more and no fewer.

use std::collections::BTreeSet;

use super::{File, Problem};

/// `text` is the document; its map lines are written "- `path/from/root.rs` — purpose".
pub(super) fn check(text: &str, files: &[File]) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut mapped = BTreeSet::new();
    for (number, line) in text.lines().enumerate() {
        let Some((path, rest)) = line.strip_prefix("- `").and_then(|line| line.split_once('`')) else { continue };
        if !path.ends_with(".rs") {
            continue;
        }
        let place = format!("ARCHITECTURE.md:{}", number + 1);
        if rest.strip_prefix(" — ").is_none_or(|purpose| purpose.trim().is_empty()) {
            problems.push(Problem::new(&place, format!("say what `{path}` is for: - `{path}` — purpose")));
        }
        if !mapped.insert(path) {
            problems.push(Problem::new(&place, format!("names `{path}` again; keep one line")));
        }
        if !sources(files).any(|source| source == path) {
            problems.push(Problem::new(&place, format!("names `{path}`, which does not exist; take the line out")));
        }
    }
    for source in sources(files).filter(|source| !mapped.contains(source)) {
        let message = format!("is not in the code map; add to ARCHITECTURE.md: - `{source}` — purpose");
        problems.push(Problem::new(source, message));
    }
    problems
}

fn sources(files: &[File]) -> impl Iterator<Item = &str> {
    let mapped_folders = ["host/", "plugins/", "xtask/"];
    let paths = files.iter().map(|file| file.path.as_str());
    paths.filter(move |path| path.ends_with(".rs") && mapped_folders.iter().any(|folder| path.starts_with(folder)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(text: &str) -> Vec<String> {
        let file = |path: &str| File { path: path.to_owned(), text: String::new() };
        let files = [file("host/a.rs"), file("xtask/b.rs"), file("fixtures/c.rs"), file("host/Cargo.toml")];
        check(text, &files).into_iter().map(|problem| problem.place).collect()
    }

    #[test]
    fn the_map_names_every_source_file_once() {
        assert!(
            places(
                "# Map\n\n- `host/a.rs` — the first\n- `xtask/b.rs` — the second\n- `host/Cargo.toml` is no source\n"
            )
            .is_empty()
        );
    }

    #[test]
    fn missing_gone_repeated_and_bare_lines_are_named() {
        let text = "- `host/a.rs` — the first\n- `host/a.rs` — again\n- `host/gone.rs` — was here\n- `xtask/b.rs`\n";
        assert_eq!(places(text), ["ARCHITECTURE.md:2", "ARCHITECTURE.md:3", "ARCHITECTURE.md:4"]);
        assert_eq!(places(""), ["host/a.rs", "xtask/b.rs"]);
    }
}
