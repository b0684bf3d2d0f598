//! `cargo xtask plugins`: builds plugins into `target/plugins`, with a lock file that names their digests.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::build;
use crate::component::{ABI, Contract, imports};
use crate::workspace::{Plugin, Workspace};

pub(crate) fn run(workspace: &Workspace, words: &[String]) -> Result<()> {
    let (options, names): (Vec<_>, Vec<_>) = words.iter().partition(|word| word.starts_with('-'));
    let check = match options.as_slice() {
        [] => false,
        [only] if *only == "--check" => true,
        _ => bail!("plugins takes names and --check"),
    };
    let all = workspace.plugins()?;
    let chosen = choose(&all, &names)?;
    let built = build_all(workspace, &chosen)?;
    for component in &built {
        println!("{}", component.line()?);
    }
    if check { compare(workspace, &built) } else { write(workspace, &all, &built) }
}

/// Builds and writes plugins without a word unless something goes wrong. All when `names` is empty.
pub(crate) fn build_quietly(workspace: &Workspace, names: &[&String]) -> Result<()> {
    let all = workspace.plugins()?;
    let built = build_all(workspace, &choose(&all, names)?)?;
    write(workspace, &all, &built)
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

    fn file(&self) -> String {
        file(&self.plugin)
    }

    fn line(&self) -> Result<String> {
        let Plugin { name, kind, .. } = &self.plugin;
        let kib = self.bytes.len().div_ceil(1024);
        let short = |import: String| import.trim_start_matches("farseal:plugin/").replace(&format!("@{ABI}.0"), "");
        let imports = imports(&self.bytes)?.into_iter().map(short).collect::<Vec<_>>().join(" ");
        Ok(format!("{name:<16} {kind:<10} {kib:>4} KiB  {}  imports {imports}", self.digest()))
    }
}

fn file(plugin: &Plugin) -> String {
    format!("{}.wasm", plugin.name)
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
    build::ensure_target(workspace)?;
    let contract = Contract::read(&workspace.root)?;
    let build = |plugin: &&Plugin| {
        let module = build::core_module(workspace, plugin)?;
        let bytes = contract.component(plugin, module)?;
        Ok(Built { plugin: (*plugin).clone(), bytes })
    };
    plugins.iter().map(build).collect()
}

/// Writes what differs from what is there, and the lock file over all components that are there then.
fn write(workspace: &Workspace, all: &[Plugin], built: &[Built]) -> Result<()> {
    let place = workspace.components();
    fs::create_dir_all(&place)?;
    for component in built {
        replace(&place.join(component.file()), &component.bytes)?;
    }
    remove_strangers(&place, all)?;
    let lock = lock(&place, all)?;
    replace(&place.join("plugins.lock"), lock.as_bytes())
}

/// Components of plugins that are no more: tests take every component they find.
fn remove_strangers(place: &Path, all: &[Plugin]) -> Result<()> {
    for entry in fs::read_dir(place)? {
        let path = entry?.path();
        let known = all.iter().any(|plugin| path.file_name().is_some_and(|name| name == file(plugin).as_str()));
        if path.extension().is_some_and(|extension| extension == "wasm") && !known {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

fn compare(workspace: &Workspace, built: &[Built]) -> Result<()> {
    for component in built {
        let path = workspace.components().join(component.file());
        if fs::read(&path).ok().as_deref() != Some(component.bytes.as_slice()) {
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
fn lock(place: &Path, all: &[Plugin]) -> Result<String> {
    let mut lock = String::from("# Written by cargo xtask plugins: the components in this folder by digest.\n");
    for plugin in all {
        let file = file(plugin);
        let Ok(bytes) = fs::read(place.join(&file)) else { continue };
        let Plugin { name, version, kind } = plugin;
        let digest = hex(&Sha256::digest(bytes));
        write!(
            lock,
            "\n[[plugin]]\nname = \"{name}\"\nversion = \"{version}\"\nkind = \"{kind}\"\nabi = \"{ABI}\"\n\
             file = \"{file}\"\nsha256 = \"{digest}\"\n",
        )?;
    }
    Ok(lock)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
