//! What makes components of plugins in JavaScript and Python: componentize-js from npm and componentize-py from PyPI, each at
//! the version and with the digests that `xtask/toolchains` names, installed into folders of their own below `target/tools`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use sha2::{Digest, Sha256};

use crate::component::world;
use crate::hex::hex;
use crate::mistake;
use crate::python::{self, quietly};
use crate::workspace::{Language, Workspace};

/// The versions and digests, which are part of what a component is made from.
const JS: [(&str, &str); 2] = [
    ("package.json", include_str!("../toolchains/js/package.json")),
    ("package-lock.json", include_str!("../toolchains/js/package-lock.json")),
];
const PYTHON: [(&str, &str); 1] = [("requirements.txt", include_str!("../toolchains/python/requirements.txt"))];
/// What is written in these languages.
const KINDS: [&str; 2] = ["rotation", "recovery"];
/// Says that all is there, and of which versions.
const STAMP: &str = "installed";
/// JavaScript: nothing of WASI is let in, so that nothing is asked for that the loader refuses.
const NO_WASI: [&str; 5] = ["stdio", "random", "clocks", "http", "fetch-event"];

/// The program that makes components of plugins in a language.
#[derive(Debug)]
pub(crate) struct Toolchain {
    language: Language,
    program: PathBuf,
}

impl Toolchain {
    /// Installs it if it is not there at this version, and says so. The registries are those that npm and pip are set up for.
    pub(crate) fn prepare(workspace: &Workspace, language: Language) -> Result<Self> {
        let pinned = pinned(language);
        let dir = workspace.target.join("tools").join(language.name());
        let program = match language {
            Language::JavaScript => dir.join("node_modules/.bin/componentize-js"),
            Language::Python => dir.join("environment/bin/componentize-py"),
            Language::Rust => bail!("Rust needs no toolchain but its own"),
        };
        let stamp = dir.join(STAMP);
        let version = version(language);
        let toolchain = Self { language, program };
        if fs::read_to_string(&stamp).is_ok_and(|installed| installed == version) && toolchain.program.exists() {
            return Ok(toolchain);
        }
        let size = if language == Language::JavaScript { "390 MB" } else { "70 MB" };
        println!(
            "installing what builds plugins in {language} into {}: {size} there, a minute, this once",
            workspace.shown(&dir)
        );
        fs::create_dir_all(&dir)?;
        for (name, text) in pinned {
            fs::write(dir.join(name), text)?;
        }
        install(language, &dir)?;
        // Of every kind, so that no test depends on what was built before it.
        KINDS.iter().try_for_each(|kind| toolchain.types(workspace, kind))?;
        fs::write(&stamp, version)?;
        Ok(toolchain)
    }

    /// What the contract's types are in the language, for tests without a component: Python imports them.
    pub(crate) fn types(&self, workspace: &Workspace, kind: &str) -> Result<()> {
        let Some(world) = world(kind).filter(|_| self.language == Language::Python) else { return Ok(()) };
        let place = workspace.target.join("tools/python/bindings").join(world);
        // It writes over nothing that is there.
        let _old = fs::remove_dir_all(&place);
        let mut command = Command::new(&self.program);
        command.arg("--quiet").arg("-d").arg(workspace.root.join("wit/v0.1")).args(["-w", world, "bindings"]);
        quietly(command.arg(place))
    }

    /// The component of a plugin whose sources lie in `folder`; `sdk` is what they import.
    pub(crate) fn component(&self, workspace: &Workspace, folder: &Path, world: &str) -> Result<Vec<u8>> {
        let made = workspace.target.join("tools").join(format!("{}-{}.wasm", world, std::process::id()));
        let wit = workspace.root.join("wit/v0.1");
        let mut command = Command::new(&self.program);
        command.current_dir(&workspace.root);
        if self.language == Language::JavaScript {
            command.arg(folder.join("plugin.js")).arg("--wit").arg(wit).args(["--world-name", world]);
            command.arg("-d").args(NO_WASI).arg("-o").arg(&made);
        } else {
            command.arg("--quiet").arg("-d").arg(wit).args(["-w", world, "componentize", "--stub-wasi", "-p"]);
            command
                .arg(folder)
                .arg("-p")
                .arg(workspace.root.join("plugins/sdk/python"))
                // Which imports the plugin, and has around it what every plugin has.
                .arg("farseal_component")
                .arg("-o")
                .arg(&made);
            // What Python compiles goes into no folder of the repository.
            command.env("PYTHONDONTWRITEBYTECODE", "1");
        }
        // The tool's own calls say nothing to an author.
        let output = command.env("RUST_BACKTRACE", "0").stdin(Stdio::null()).output();
        let output = output.with_context(|| format!("{} cannot be started", self.program.display()))?;
        if !output.status.success() {
            let said = [output.stderr, output.stdout].concat();
            let shown = workspace.shown(folder).to_string();
            bail!("{}", mistake::told(self.language, &String::from_utf8_lossy(&said), &shown));
        }
        let bytes = fs::read(&made).with_context(|| format!("{} was not written", made.display()))?;
        fs::remove_file(&made)?;
        Ok(bytes)
    }
}

/// The digest of what is pinned.
pub(crate) fn version(language: Language) -> String {
    let mut all = Sha256::new();
    pinned(language).iter().for_each(|(_, text)| all.update(text));
    hex(&all.finalize())
}

const fn pinned(language: Language) -> &'static [(&'static str, &'static str)] {
    match language {
        Language::JavaScript => &JS,
        Language::Python => &PYTHON,
        Language::Rust => &[],
    }
}

fn install(language: Language, dir: &Path) -> Result<()> {
    if language == Language::JavaScript {
        let mut npm = Command::new("npm");
        // Scripts of packages are not run: none is needed, and what is downloaded is checked against the lock file.
        npm.current_dir(dir).args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries", "1"]);
        return quietly(&mut npm).context("componentize-js cannot be had from npm (Node.js 20 or later is needed)");
    }
    let environment = dir.join("environment");
    python::environment(&environment)?;
    let mut pip = Command::new(environment.join("bin/python"));
    pip.current_dir(dir).args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]);
    pip.args(["--retries", "1", "--only-binary", ":all:", "--require-hashes", "-r", "requirements.txt"]);
    quietly(&mut pip).context("componentize-py cannot be had from PyPI")
}
