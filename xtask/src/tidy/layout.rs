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

/// An accepted transcript whose plugin or scenario is gone, or whose scenario is not for its plugin.
pub(super) fn unused_snapshot(path: &str, files: &[File]) -> Option<Problem> {
    let (kind, name) = path.strip_prefix("fixtures/snapshots/")?.strip_suffix(".snap")?.split_once('/')?;
    let (plugin, scenario) = name.split_once('@')?;
    let gone = |what: &str| Some(Problem::new(path, format!("belongs to {what}; delete the snapshot")));
    let is_there = |file: &str| files.iter().any(|there| there.path == file);
    let manifests = ["Cargo.toml", "plugin.json"].map(|manifest| format!("plugins/{plugin}/{manifest}"));
    if !manifests.iter().any(|manifest| is_there(manifest)) {
        return gone(&format!("plugins/{plugin}, which does not exist"));
    }
    let story = format!("fixtures/{kind}/{scenario}.yaml");
    let Some(file) = files.iter().find(|file| file.path == story) else {
        return gone(&format!("{story}, which does not exist"));
    };
    if is_told(&file.text, plugin) { None } else { gone(&format!("{story}, which is not told to {plugin}")) }
}

/// Does the scenario mean the plugin? `plugins: [a, b]` names all that it is for, `except: [a]` those that it is not for.
fn is_told(scenario: &str, plugin: &str) -> bool {
    let listed = |key: &str| {
        let list =
            scenario.lines().find_map(|line| line.strip_prefix(key)?.trim().strip_prefix('[')?.strip_suffix(']'));
        list.map(|list| list.split(',').any(|name| name.trim() == plugin))
    };
    listed("plugins:").unwrap_or(true) && !listed("except:").unwrap_or(false)
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
        assert!(places(&TOP, &["plugins/a/plugin.json", both[1], snapshot]).is_empty());
        assert_eq!(places(&TOP, &[both[0], snapshot]), [snapshot]);
        assert_eq!(places(&TOP, &[both[1], snapshot]), [snapshot]);
    }

    #[test]
    fn a_scenario_says_to_whom_it_is_told() {
        assert!(is_told("about: x\nkind: rotation\n", "a"));
        assert!(is_told("plugins: [b, a]\n", "a") && !is_told("plugins: [b]\n", "a"));
        assert!(!is_told("except: [a]\n", "a") && is_told("except: [b]\n", "a"));
    }
}
