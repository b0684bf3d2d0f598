//! What lies at the top, and fixtures that nothing uses.

use super::{File, Problem};

/// What the top level holds, besides dot files and what is built.
const TOP: [&str; 13] = [
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "fixtures",
    "host",
    "plugins",
    "rust-toolchain.toml",
    "wit",
    "xtask",
];
/// May lie there as well.
const ALSO: [&str; 3] = ["clippy.toml", "rustfmt.toml", "target"];

/// `top` are the names at the root.
pub(super) fn check(top: &[String], files: &[File]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for name in top {
        if !name.starts_with('.') && !TOP.contains(&name.as_str()) && !ALSO.contains(&name.as_str()) {
            let message = format!("does not belong at the top level; it holds {} and dot files", TOP.join(" "));
            problems.push(Problem::new(name, message));
        }
    }
    for name in TOP {
        if !top.iter().any(|there| there == name) {
            problems.push(Problem::new(name, "is missing at the top level; write it"));
        }
    }
    problems.extend(files.iter().filter_map(|file| unused_snapshot(&file.path, files)));
    problems
}

/// An accepted transcript whose plugin or scenario is gone.
fn unused_snapshot(path: &str, files: &[File]) -> Option<Problem> {
    let (kind, name) = path.strip_prefix("fixtures/snapshots/")?.strip_suffix(".snap")?.split_once('/')?;
    let (plugin, scenario) = name.split_once('@')?;
    let wanted = [format!("plugins/{plugin}/Cargo.toml"), format!("fixtures/{kind}/{scenario}.yaml")];
    let gone = wanted.iter().find(|wanted| !files.iter().any(|file| file.path == **wanted))?;
    Some(Problem::new(path, format!("belongs to {gone}, which does not exist; delete the snapshot")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(top: &[&str], files: &[&str]) -> Vec<String> {
        let top: Vec<String> = top.iter().map(ToString::to_string).collect();
        let file = |path: &&str| File { path: (*path).to_owned(), text: String::new() };
        let files: Vec<File> = files.iter().map(file).collect();
        check(&top, &files).into_iter().map(|problem| problem.place).collect()
    }

    #[test]
    fn what_is_missing_and_what_is_too_much_is_named() {
        assert!(places(&TOP, &[]).is_empty());
        assert_eq!(places(&[&TOP[1..], &["notes.txt", ".gitignore", "target"]].concat(), &[]), ["notes.txt", TOP[0]]);
    }

    #[test]
    fn snapshots_need_their_plugin_and_their_scenario() {
        let both = ["plugins/a/Cargo.toml", "fixtures/rotation/s.yaml"];
        let snapshot = "fixtures/snapshots/rotation/a@s.snap";
        assert!(places(&TOP, &[&both[..], &[snapshot]].concat()).is_empty());
        assert_eq!(places(&TOP, &[both[0], snapshot]), [snapshot]);
        assert_eq!(places(&TOP, &[both[1], snapshot]), [snapshot]);
    }
}
