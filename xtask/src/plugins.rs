//! `cargo xtask plugins`: builds plugins into `target/plugins`, with a lock file that names their digests.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::build;
use crate::component::{ABI, Contract, imports};
use crate::hex::hex;
use crate::interpreted;
use crate::workspace::{Language, Plugin, Workspace};

mod repro;

pub(crate) fn run(workspace: &Workspace, words: &[String]) -> Result<()> {
    let (options, names): (Vec<_>, Vec<_>) = words.iter().partition(|word| word.starts_with('-'));
    let check = match options.as_slice() {
        [] => false,
        [only] if *only == "--check" => true,
        [only] if *only == "--repro" => return repro::run(workspace, &names),
        _ => bail!("plugins takes names, and one of --check and --repro"),
    };
    let all = workspace.plugins()?;
    let chosen = choose(&all, &names)?;
    if check {
        return compare(workspace, &chosen);
    }
    let (native, interpreted): (Vec<_>, Vec<_>) = chosen.into_iter().partition(|plugin| is_native(plugin));
    let mut built = build_all(workspace, &native)?;
    let mut missing = Vec::new();
    for plugin in interpreted {
        match build_all(workspace, &[plugin]) {
            Ok(one) => built.extend(one),
            // Whoever asks for it by name is told by a failure.
            Err(error) if names.is_empty() => missing.push(format!("not built: {}: {error:#}", plugin.name)),
            Err(error) => return Err(error),
        }
    }
    for component in &built {
        println!("{}", component.line()?);
    }
    missing.iter().for_each(|line| println!("{line}"));
    write(workspace, &all, &built)
}

/// Builds and writes plugins without a word unless something goes wrong, and says where they are. When `names` is empty: all
/// but those in other languages than Rust, which are no part of the product.
pub(crate) fn build_quietly(workspace: &Workspace, names: &[&String]) -> Result<Vec<PathBuf>> {
    let all = workspace.plugins()?;
    let mut chosen = choose(&all, names)?;
    chosen.retain(|plugin| !names.is_empty() || is_native(plugin));
    let built = build_all(workspace, &chosen)?;
    write(workspace, &all, &built)?;
    Ok(chosen.into_iter().map(|plugin| workspace.component(plugin)).collect())
}

/// Builds the plugins in JavaScript and Python as far as their tools are there or can be had; what is missing is said.
pub(crate) fn build_interpreted(workspace: &Workspace) -> Result<Vec<String>> {
    let all = workspace.plugins()?;
    let mut built = Vec::new();
    let mut missing = Vec::new();
    for plugin in all.iter().filter(|plugin| !is_native(plugin)) {
        match build_all(workspace, &[plugin]) {
            Ok(one) => built.extend(one),
            Err(error) => missing.push(format!("the plugin {} in {}: {error:#}", plugin.name, plugin.language)),
        }
    }
    write(workspace, &all, &built)?;
    Ok(missing)
}

fn is_native(plugin: &Plugin) -> bool {
    plugin.language == Language::Rust
}

/// A plugin and its component's bytes.
struct Built {
    plugin: Plugin,
    bytes: Vec<u8>,
}

impl Built {
    fn digest(&self) -> String {
        hex(&Sha256::digest(&self.bytes))
    }

    fn line(&self) -> Result<String> {
        let Plugin { name, kind, .. } = &self.plugin;
        let kib = self.bytes.len().div_ceil(1024);
        let short = |import: String| import.trim_start_matches("farseal:plugin/").replace(&format!("@{ABI}.0"), "");
        let imports = imports(&self.bytes)?.into_iter().map(short).collect::<Vec<_>>().join(" ");
        Ok(format!("{name:<18} {kind:<10} {kib:>5} KiB  {}  imports {imports}", self.digest()))
    }
}

fn choose<'a>(all: &'a [Plugin], names: &[&String]) -> Result<Vec<&'a Plugin>> {
    if names.is_empty() {
        return Ok(all.iter().collect());
    }
    let find = |name: &&String| {
        all.iter().find(|plugin| plugin.name == **name).with_context(|| {
            let known = all.iter().map(|plugin| plugin.name.as_str()).collect::<Vec<_>>().join(", ");
            format!("there is no plugin {name}; there are: {known}")
        })
    };
    names.iter().map(find).collect()
}

fn build_all(workspace: &Workspace, plugins: &[&Plugin]) -> Result<Vec<Built>> {
    let contract = Contract::read(&workspace.root)?;
    if plugins.iter().any(|plugin| is_native(plugin)) {
        build::ensure_target(workspace)?;
    }
    let build = |plugin: &&Plugin| {
        let bytes = if is_native(plugin) {
            contract.component(plugin, build::core_module(workspace, plugin)?)?
        } else {
            interpreted::component(workspace, &contract, plugin)?
        };
        Ok(Built { plugin: (*plugin).clone(), bytes })
    };
    plugins.iter().map(build).collect()
}

/// Writes what differs from what is there, and the lock file over all components that are there then.
fn write(workspace: &Workspace, all: &[Plugin], built: &[Built]) -> Result<()> {
    fs::create_dir_all(workspace.components())?;
    for Built { plugin, bytes } in built {
        replace(&workspace.component(plugin), bytes)?;
    }
    remove_strangers(workspace, all)?;
    let lock = lock(workspace, all)?;
    replace(&workspace.components().join("plugins.lock"), lock.as_bytes())
}

/// Components of plugins that are no more: tests take every component they find.
fn remove_strangers(workspace: &Workspace, all: &[Plugin]) -> Result<()> {
    for place in [workspace.components(), workspace.interpreted()] {
        let Ok(entries) = fs::read_dir(place) else { continue };
        for entry in entries {
            let path = entry?.path();
            let known = all.iter().any(|plugin| workspace.component(plugin) == path);
            if path.extension().is_some_and(|extension| extension == "wasm") && !known {
                fs::remove_file(&path)?;
            }
        }
    }
    Ok(())
}

/// What an interpreter is in is not the same twice: then it is asked whether it was made from what is there.
fn compare(workspace: &Workspace, chosen: &[&Plugin]) -> Result<()> {
    for plugin in chosen {
        let path = workspace.component(plugin);
        let same = if is_native(plugin) {
            let built = build_all(workspace, &[plugin])?;
            built.iter().all(|one| fs::read(&path).is_ok_and(|there| there == one.bytes))
        } else {
            interpreted::is_fresh(workspace, plugin)?
        };
        if !same {
            bail!("{} is not what the source builds: run cargo xtask plugins", workspace.shown(&path));
        }
    }
    Ok(())
}

/// Leaves a file alone that has these bytes already; otherwise readers see the old or the new ones, never half.
fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    let beside = path.with_extension(format!("{}.part", std::process::id()));
    fs::write(&beside, bytes).with_context(|| format!("cannot write {}", beside.display()))?;
    fs::rename(&beside, path).with_context(|| format!("cannot write {}", path.display()))
}

/// TOML, by name.
fn lock(workspace: &Workspace, all: &[Plugin]) -> Result<String> {
    let mut lock = String::from("# Written by cargo xtask plugins: the components in this folder by digest.\n");
    for plugin in all {
        let path = workspace.component(plugin);
        let Ok(bytes) = fs::read(&path) else { continue };
        let file = path.strip_prefix(workspace.components()).unwrap_or(&path).display();
        let Plugin { name, version, kind, .. } = plugin;
        let digest = hex(&Sha256::digest(bytes));
        write!(
            lock,
            "\n[[plugin]]\nname = \"{name}\"\nversion = \"{version}\"\nkind = \"{kind}\"\nabi = \"{ABI}\"\n\
             file = \"{file}\"\nsha256 = \"{digest}\"\n",
        )?;
    }
    Ok(lock)
}
