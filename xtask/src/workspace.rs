//! Where things are, which plugins there are, and running other programs.

use std::env;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::interpreted;

/// The repository that this program was started for.
#[derive(Debug, Clone)]
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
    /// Where Cargo builds.
    pub(crate) target: PathBuf,
}

/// A plugin's folder, and what it says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plugin {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) kind: String,
    pub(crate) language: Language,
    pub(crate) folder: PathBuf,
}

/// What a plugin is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Language {
    Rust,
    JavaScript,
    Python,
}

impl Language {
    /// As options and folders name it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Rust => "rust",
            Self::JavaScript => "js",
            Self::Python => "python",
        }
    }
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rust => "Rust",
            Self::JavaScript => "JavaScript",
            Self::Python => "Python",
        })
    }
}

impl Workspace {
    /// From Cargo, which says where this program's own manifest is.
    pub(crate) fn find() -> Result<Self> {
        let own =
            env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = own.parent().context("xtask lies in no workspace")?.to_path_buf();
        let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |dir| root.join(dir));
        Ok(Self { root, target })
    }

    /// Where the built components are.
    pub(crate) fn components(&self) -> PathBuf {
        self.target.join("plugins")
    }

    /// Where those are that carry an interpreter: tests take every other component, and these take a minute to compile.
    pub(crate) fn interpreted(&self) -> PathBuf {
        self.components().join("interpreted")
    }

    /// A plugin's component.
    pub(crate) fn component(&self, plugin: &Plugin) -> PathBuf {
        let place = if plugin.language == Language::Rust { self.components() } else { self.interpreted() };
        place.join(format!("{}.wasm", plugin.name))
    }

    /// Scenarios and accepted transcripts. The test that plays them obeys the same variable.
    pub(crate) fn fixtures(&self) -> PathBuf {
        env::var_os("FARSEAL_FIXTURES").map_or_else(|| self.root.join("fixtures"), PathBuf::from)
    }

    /// Cargo, to be run at the root.
    pub(crate) fn cargo(&self) -> Command {
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        // Set by the Cargo that started this program, for this program only.
        cargo.current_dir(&self.root).env_remove("CARGO_MANIFEST_DIR");
        cargo.env("CARGO_TARGET_DIR", &self.target);
        cargo
    }

    /// Builds programs of the workspace. The whole workspace is named, for its features: with those of one package alone
    /// Cargo would compile the WebAssembly runtime a second time.
    pub(crate) fn build(&self, words: &[&str]) -> Result<()> {
        let profile = if words.contains(&"--release") { "release" } else { "debug" };
        let was_built = self.target.join(profile).join("farseal").exists();
        if !was_built {
            eprintln!(
                "building farseal with all that it needs ({profile}): on two cores some four minutes where `snapshot` was built, ten where nothing was; this once"
            );
        }
        self.say_who_is_waited_for(profile);
        run(self.cargo().args(["build", "--locked", "--workspace"]).args(quiet_if(was_built)).args(words))
    }

    /// Cargo waits for another that builds into the same folder, and does not say so when it is to be quiet.
    pub(crate) fn say_who_is_waited_for(&self, folder: &str) {
        let lock = self.target.join(folder).join(".cargo-lock");
        let held =
            || fs::File::open(&lock).is_ok_and(|lock| matches!(lock.try_lock(), Err(fs::TryLockError::WouldBlock)));
        if held() {
            eprintln!(
                "waiting: another cargo builds into {} and holds its lock",
                self.shown(&self.target.join(folder))
            );
        }
    }

    /// Every plugin in the repository, by name.
    pub(crate) fn plugins(&self) -> Result<Vec<Plugin>> {
        let output = self.cargo().args(["metadata", "--format-version", "1", "--no-deps"]).output()?;
        if !output.status.success() {
            bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        let metadata: Value = serde_json::from_slice(&output.stdout)?;
        let packages = metadata["packages"].as_array().context("cargo metadata names no packages")?;
        let mut plugins = packages.iter().filter_map(plugin).collect::<Result<Vec<_>>>()?;
        plugins.extend(interpreted::plugins(&self.root)?);
        plugins.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(plugins)
    }

    /// The path as seen from the root, where it lies below it.
    pub(crate) fn shown<'a>(&self, path: &'a Path) -> std::path::Display<'a> {
        path.strip_prefix(&self.root).unwrap_or(path).display()
    }
}

/// A package that says `[package.metadata.farseal] kind`; others are no plugins.
fn plugin(package: &Value) -> Option<Result<Plugin>> {
    let kind = package["metadata"]["farseal"]["kind"].as_str()?;
    let text = |key: &str| package[key].as_str().unwrap_or_default().to_owned();
    let package_name = text("name");
    Some(match package_name.strip_prefix("plugin-") {
        Some(name) => Ok(Plugin {
            name: name.to_owned(),
            version: text("version"),
            kind: kind.to_owned(),
            language: Language::Rust,
            folder: Path::new(&text("manifest_path")).parent().unwrap_or(Path::new("")).to_path_buf(),
        }),
        None => Err(anyhow::anyhow!("the package {package_name} is a plugin: name it plugin-{package_name}")),
    })
}

/// To Cargo: nothing but what is wrong, where it takes seconds. What takes minutes shows how far it is.
pub(crate) fn quiet_if(was_built: bool) -> &'static [&'static str] {
    if was_built { &["--quiet"] } else { &[] }
}

/// Runs a program to its end, its output going where ours goes.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let shown = shown(command);
    let status = command.status().with_context(|| format!("cannot start {shown}"))?;
    if !status.success() {
        bail!("{shown} failed ({status})");
    }
    Ok(())
}

fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let words = command.get_args().map(|word| word.to_string_lossy());
    std::iter::once(program.into()).chain(words).collect::<Vec<_>>().join(" ")
}
