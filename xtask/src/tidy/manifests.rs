//! What each crate says of itself, and which crates may depend on which.

use super::{File, Problem};

/// Every crate takes these from the workspace.
const INHERITED: [&str; 5] = ["version", "edition", "rust-version", "license", "publish"];

/// A dependency that only some crates may have. A name that ends with `*` stands for all that begin so.
struct Arrow {
    to: &'static str,
    only_from: &'static [&'static str],
    why: &'static str,
}

const ARROWS: [Arrow; 10] = [
    Arrow { to: "wasmtime*", only_from: &["farseal-plugin"], why: "one crate runs components" },
    Arrow { to: "tokio*", only_from: &["farseal"], why: "only the daemon waits" },
    Arrow { to: "hyper*", only_from: &["farseal"], why: "only the daemon knows sockets" },
    Arrow { to: "axum*", only_from: &["farseal"], why: "only the daemon knows sockets" },
    Arrow { to: "rustls*", only_from: &["farseal"], why: "only the daemon knows sockets" },
    Arrow { to: "farseal", only_from: &["farseal-fuzz"], why: "the daemon is the top" },
    Arrow { to: "farseal-plugin", only_from: &["farseal"], why: "the core and its simulation know no components" },
    Arrow {
        to: "farseal-core",
        only_from: &["farseal-sim", "farseal-plugin", "farseal", "farseal-fuzz"],
        why: "guests and tools stand apart",
    },
    Arrow { to: "farseal-fuzz", only_from: &[], why: "the targets are for testing" },
    Arrow { to: "farseal-sim", only_from: &["xtask"], why: "the simulation is for testing" },
];

/// Crates that may depend on these crates of ours and on no others.
const SEES: [(&str, &[&str]); 3] =
    [("farseal-core", &[]), ("farseal-sim", &["farseal-core"]), ("farseal-plugin", &["farseal-core"])];

/// What the core must not have at all: randomness, files, clocks are inputs.
const NOT_IN_CORE: [&str; 6] = ["getrandom", "rand", "rustix", "libc", "tempfile", "mio"];

pub(super) fn check(files: &[File]) -> Vec<Problem> {
    // A manifest with a workspace of its own is built by other means than the rest.
    let stands_apart = |file: &File| file.path.starts_with("fixtures/") || file.text.contains("\n[workspace]\n");
    let manifests = files.iter().filter(|file| file.path.ends_with("/Cargo.toml") && !stands_apart(file));
    manifests.flat_map(|file| check_one(&file.path, &Manifest::read(&file.text))).collect()
}

fn check_one(path: &str, manifest: &Manifest<'_>) -> Vec<Problem> {
    let mut messages = Vec::new();
    for field in INHERITED {
        if !manifest.has("package", &format!("{field}.workspace = true")) {
            messages.push(format!("[package] takes {field} from the workspace: write {field}.workspace = true"));
        }
    }
    if !manifest.has("lints", "workspace = true") {
        messages.push(String::from("takes its lints from the workspace: write [lints] and workspace = true"));
    }
    let name = manifest.name();
    let is_plugin = path.starts_with("plugins/") && !path.starts_with("plugins/sdk/");
    if is_plugin && path != format!("plugins/{}/Cargo.toml", name.strip_prefix("plugin-").unwrap_or("?")) {
        messages.push(format!("the package is {name}: a plugin in folder NAME is package plugin-NAME"));
    }
    for dependency in manifest.dependencies() {
        messages.extend(forbidden(name, dependency));
        if is_plugin && dependency.starts_with("farseal") && dependency != "farseal-sdk" {
            messages.push(format!("depends on {dependency}; a plugin depends on farseal-sdk, the contract's side"));
        }
    }
    messages.into_iter().map(|message| Problem::new(path, message)).collect()
}

fn forbidden(name: &str, dependency: &str) -> Option<String> {
    for Arrow { to, only_from, why } in &ARROWS {
        let meant = to.strip_suffix('*').map_or(dependency == *to, |start| dependency.starts_with(start));
        if meant && !only_from.contains(&name) {
            return Some(format!("depends on {dependency}: {why}; move the code that needs it"));
        }
    }
    let ours = dependency.starts_with("farseal");
    if SEES.iter().any(|(from, sees)| *from == name && ours && !sees.contains(&dependency)) {
        return Some(format!("depends on {dependency}: {name} must not know it; turn the dependency round"));
    }
    (name == "farseal-core" && NOT_IN_CORE.contains(&dependency))
        .then(|| format!("depends on {dependency}: the core takes such things as inputs"))
}

/// The lines of a manifest under their tables. Enough TOML for what a manifest of ours holds.
struct Manifest<'a> {
    lines: Vec<(&'a str, &'a str)>,
}

impl<'a> Manifest<'a> {
    fn read(text: &'a str) -> Self {
        let mut table = "";
        let mut lines = Vec::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            match line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                Some(name) => table = name,
                None => lines.push((table, line)),
            }
        }
        Self { lines }
    }

    fn has(&self, table: &str, line: &str) -> bool {
        self.lines.contains(&(table, line))
    }

    fn name(&self) -> &'a str {
        let name = self.lines.iter().find_map(|(table, line)| {
            (*table == "package").then(|| line.strip_prefix("name = "))?.map(|name| name.trim_matches('"'))
        });
        name.unwrap_or_default()
    }

    /// Of every sort: tests prove nothing about a crate that they let in by another door.
    fn dependencies(&self) -> impl Iterator<Item = &'a str> {
        let of_tables = self.lines.iter().filter(|(table, _)| table.ends_with("dependencies"));
        of_tables.filter_map(|(_, line)| line.split(['.', ' ', '=']).next()).map(|name| name.trim_matches('"'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "version.workspace = true\nedition.workspace = true\nrust-version.workspace = true\n\
                        license.workspace = true\npublish.workspace = true\n[lints]\nworkspace = true\n";

    fn messages(path: &str, name: &str, dependencies: &str) -> Vec<String> {
        let text = format!("[package]\nname = \"{name}\"\n{HEAD}[dependencies]\n{dependencies}");
        check(&[File { path: path.to_owned(), text }]).into_iter().map(|problem| problem.message).collect()
    }

    #[test]
    fn what_is_not_inherited_is_named() {
        let text = String::from("[package]\nname = \"x\"\nversion.workspace = true\n");
        let found = check(&[File { path: String::from("host/x/Cargo.toml"), text }]);
        assert_eq!(found.len(), 5, "{found:?}");
    }

    #[test]
    fn arrows_point_one_way() {
        for (name, dependency) in [
            ("farseal-core", "tokio.workspace = true"),
            ("farseal-core", "farseal-plugin.workspace = true"),
            ("farseal-core", "getrandom = \"0.4\""),
            ("farseal-sim", "farseal-plugin.workspace = true"),
            ("farseal", "wasmtime.workspace = true"),
            ("farseal-plugin", "tokio-rustls = { version = \"1\" }"),
            ("xtask", "wasmtime.workspace = true"),
        ] {
            assert_eq!(messages("host/x/Cargo.toml", name, dependency).len(), 1, "{name} {dependency}");
        }
        for (name, dependency) in [
            ("farseal-sim", "farseal-core.workspace = true"),
            ("farseal", "farseal-plugin.workspace = true"),
            ("farseal-plugin", "wasmtime.workspace = true"),
            ("farseal-core", "serde.workspace = true"),
        ] {
            assert!(messages("host/x/Cargo.toml", name, dependency).is_empty(), "{name} {dependency}");
        }
    }

    #[test]
    fn plugins_are_named_after_their_folder_and_see_the_sdk_only() {
        assert!(messages("plugins/a/Cargo.toml", "plugin-a", "farseal-sdk.workspace = true").is_empty());
        assert_eq!(messages("plugins/a/Cargo.toml", "plugin-b", "").len(), 1);
        assert!(!messages("plugins/a/Cargo.toml", "plugin-a", "farseal-core.workspace = true").is_empty());
    }
}
