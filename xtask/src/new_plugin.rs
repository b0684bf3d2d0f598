//! `cargo xtask new-plugin`: a folder with a plugin that builds, passes its scenario and loads, to start from.

mod request;
mod templates;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::toolchain::Toolchain;
use crate::workspace::{Language, Workspace, run as run_program};
use request::Request;
use templates::Template;

/// Folders without a crate that the pattern of members would take for one; each on a line of its own.
const EXCLUDED: &str = "exclude = [\n";

pub(crate) fn run(workspace: &Workspace, words: &[String]) -> Result<()> {
    let request = Request::parse(words)?;
    let template = Template::of(&request)?;
    let Request { name, language, .. } = &request;
    let (name, language) = (name.as_str(), *language);
    let plugins = workspace.root.join("plugins");
    let parent = match &request.dir {
        Some(dir) => std::env::current_dir()?.join(dir),
        None => plugins.clone(),
    };
    let place = parent.join(name);
    let scenario = workspace.root.join(format!("fixtures/{}/{name}.yaml", request.kind));
    let taken = workspace.plugins()?.iter().any(|plugin| plugin.name == *name);
    ensure!(!taken, "there is a plugin {name} already; choose another name");
    for path in [&place, &scenario] {
        ensure!(!path.exists(), "{} exists already; choose another name", path.display());
    }
    if language != Language::Rust {
        // First of all: without it nothing that is written here could be built.
        Toolchain::prepare(workspace, language)?.types(workspace, &request.kind)?;
    }

    let names = Names::of(&request, &workspace.root, &parent);
    let sources = template.files.iter().map(|(file, text)| (place.join(file), *text));
    for (path, text) in sources.chain([(scenario.clone(), template.scenario)]) {
        write(&path, &names.fill(text))?;
        println!("wrote {}", workspace.shown(&path));
    }
    match language {
        Language::Rust if parent == plugins => {
            // The lock file names every member; builds are --locked.
            run_program(workspace.cargo().args(["update", "--workspace", "--offline", "--quiet"]))?;
        }
        Language::Rust => {
            println!("add \"{}\" to the members in Cargo.toml, then run cargo update --workspace", place.display());
        }
        Language::JavaScript | Language::Python => {
            exclude(&workspace.root.join("Cargo.toml"), name)?;
            println!("wrote Cargo.toml: plugins/{name} is no crate");
        }
    }
    println!("\nnext:");
    let commands = [
        (unit_tests(language, name), "its unit tests, natively"),
        (format!("cargo xtask plugins {name}"), builds(language)),
        (format!("cargo xtask snapshot {name} --review"), "plays the scenarios to it and shows what it did"),
        (format!("cargo xtask conform {name}"), "tries every rule of the contract on it"),
    ];
    let width = commands.iter().map(|(command, _)| command.len()).max().unwrap_or_default();
    for (command, does) in commands {
        println!("  {command:<width$}   {does}");
    }
    println!(
        "then change {}, and with it what {} and {} expect of it",
        workspace.shown(&place.join(template.source())),
        template
            .tests()
            .map_or_else(|| String::from("its `mod tests`"), |tests| workspace.shown(&place.join(tests)).to_string()),
        workspace.shown(&scenario),
    );
    Ok(())
}

/// What building the component does.
const fn builds(language: Language) -> &'static str {
    match language {
        Language::Rust => "builds the component into target/plugins",
        Language::JavaScript | Language::Python => "builds the component into target/plugins/interpreted",
    }
}

/// The command that runs a plugin's own tests.
fn unit_tests(language: Language, name: &str) -> String {
    match language {
        Language::Rust => format!("cargo test -p plugin-{name}"),
        Language::JavaScript => format!("node --test plugins/{name}/"),
        Language::Python => format!("python3 -m unittest discover plugins/{name}"),
    }
}

/// A name, a kind and a place, as each file spells them.
struct Names {
    replaced: Vec<(&'static str, String)>,
}

impl Names {
    fn of(request: &Request, root: &Path, parent: &Path) -> Self {
        let Request { name, kind, language, .. } = request;
        let capital = |word: &str| {
            let (first, rest) = word.split_at(1);
            first.to_uppercase() + rest
        };
        let up = match parent.strip_prefix(root) {
            Ok(below) => vec![".."; below.components().count() + 1].join("/"),
            Err(_) => root.display().to_string(),
        };
        let test = format!("| `{}` | runs its unit tests natively |\n", unit_tests(*language, name));
        let component = if *language == Language::Rust {
            format!("target/plugins/{name}.wasm")
        } else {
            format!("target/plugins/interpreted/{name}.wasm")
        };
        let replaced = vec![
            ("{name}", name.clone()),
            // `QuarterEnd`
            ("{Name}", name.split('-').map(capital).collect()),
            ("{kind}", kind.clone()),
            ("{about}", String::from(templates::about(kind))),
            // From the plugin's folder to the root, where that is a matter of `..`.
            ("{up}", up),
            ("{test}", test),
            ("{component}", component),
        ];
        Self { replaced }
    }

    fn fill(&self, template: &str) -> String {
        self.replaced.iter().fold(template.to_owned(), |text, (mark, name)| text.replace(mark, name))
    }
}

/// Cargo is told that a folder of `plugins/` is no crate.
fn exclude(manifest: &Path, name: &str) -> Result<()> {
    let text = fs::read_to_string(manifest)?;
    let line = format!("    \"plugins/{name}\",\n");
    if text.contains(&line) {
        return Ok(());
    }
    let (before, after) =
        text.split_once(EXCLUDED).with_context(|| format!("add {} to exclude in Cargo.toml", line.trim()))?;
    fs::write(manifest, [before, EXCLUDED, &line, after].concat())?;
    Ok(())
}

fn write(path: &PathBuf, text: &str) -> Result<()> {
    let folder = path.parent().context("a file without a folder")?;
    fs::create_dir_all(folder)?;
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn a_name_is_spelled_as_each_file_needs_it() {
        let words = ["rotation", "quarter-end"].map(String::from);
        let request = Request::parse(&words).unwrap();
        let names = Names::of(&request, Path::new("/repo"), Path::new("/repo/plugins"));
        assert_eq!(names.fill("{name} {Name} {kind} {up}/wit"), "quarter-end QuarterEnd rotation ../../wit");
    }

    #[test]
    fn the_folder_that_is_named_is_the_one_where_the_component_will_lie() {
        let (root, target) = (PathBuf::from("/repo"), PathBuf::from("/repo/target"));
        let workspace = Workspace { root, target };
        for language in [Language::Rust, Language::JavaScript, Language::Python] {
            let text = |text: &str| text.to_owned();
            let (name, version, kind) = (text("late"), text("0.1.0"), text("rotation"));
            let plugin = crate::workspace::Plugin { name, version, kind, language, folder: PathBuf::new() };
            let place = workspace.component(&plugin);
            let folder = workspace.shown(place.parent().unwrap()).to_string();
            assert_eq!(builds(language), format!("builds the component into {folder}"));
        }
    }

    #[test]
    fn a_folder_is_excluded_once() {
        let place = tempfile::tempdir().unwrap();
        let manifest = place.path().join("Cargo.toml");
        fs::write(&manifest, "[workspace]\nexclude = [\n    \"other\",\n]\n").unwrap();
        for _ in 0..2 {
            exclude(&manifest, "when-quiet").unwrap();
        }
        let text = fs::read_to_string(&manifest).unwrap();
        assert_eq!(text, "[workspace]\nexclude = [\n    \"plugins/when-quiet\",\n    \"other\",\n]\n");
    }
}
