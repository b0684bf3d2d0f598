//! Plugins in JavaScript and Python: from their sources to components that carry their interpreter. Neither tool writes the
//! same bytes twice, so a component is kept for as long as nothing changes that it was made from.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use sha2::{Digest, Sha256};

use crate::component::Contract;
use crate::hex::hex;
use crate::mistake;
use crate::toolchain::{self, Toolchain};
use crate::workspace::{Language, Plugin, Workspace};

/// The component of a plugin: what is there, if it was made from this, else made anew.
pub(crate) fn component(workspace: &Workspace, contract: &Contract, plugin: &Plugin) -> Result<Vec<u8>> {
    let wanted = made_from(workspace, plugin)?;
    let (place, stamp) = (workspace.component(plugin), stamp(workspace, plugin));
    if is_fresh(workspace, plugin)? {
        return fs::read(&place).with_context(|| format!("{} cannot be read", place.display()));
    }
    let toolchain = Toolchain::prepare(workspace, plugin.language)?;
    println!("building {} with its {} interpreter", plugin.name, plugin.language);
    toolchain.types(workspace, &plugin.kind)?;
    if plugin.language == Language::JavaScript {
        let mut files = BTreeSet::new();
        collect(&plugin.folder, &mut files)?;
        for file in files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "js")) {
            let shown = workspace.shown(file).to_string();
            mistake::check_syntax(file, &shown).with_context(|| format!("{} does not build", plugin.name))?;
        }
    }
    let bytes = toolchain
        .component(workspace, &plugin.folder, contract.world_of(plugin)?)
        .with_context(|| format!("{} does not build", workspace.shown(&plugin.folder)))?;
    let bytes = contract.checked(plugin, bytes)?;
    fs::create_dir_all(place.parent().context("a component lies in a folder")?)?;
    fs::write(&place, &bytes).with_context(|| format!("cannot write {}", place.display()))?;
    fs::write(&stamp, wanted)?;
    Ok(bytes)
}

/// Is the component there, and made from what is there now?
pub(crate) fn is_fresh(workspace: &Workspace, plugin: &Plugin) -> Result<bool> {
    let kept = fs::read_to_string(stamp(workspace, plugin)).ok();
    Ok(workspace.component(plugin).is_file() && kept == Some(made_from(workspace, plugin)?))
}

/// Every plugin below `plugins/` that says `plugin.json`.
pub(crate) fn plugins(root: &Path) -> Result<Vec<Plugin>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root.join("plugins"))? {
        let folder = entry?.path();
        let manifest = folder.join("plugin.json");
        if manifest.is_file() {
            let plugin = plugin(&folder, &fs::read_to_string(&manifest)?);
            found.push(plugin.with_context(|| format!("{}", manifest.display()))?);
        }
    }
    Ok(found)
}

fn plugin(folder: &Path, manifest: &str) -> Result<Plugin> {
    let manifest: serde_json::Value = serde_json::from_str(manifest)?;
    let text = |key: &str| manifest[key].as_str().map(str::to_owned).with_context(|| format!("says no {key:?}"));
    let language = match text("language")?.as_str() {
        "js" => Language::JavaScript,
        "python" => Language::Python,
        other => bail!("the language is js or python, not {other:?}"),
    };
    let name = text("name")?;
    if folder.file_name().is_none_or(|last| last != name.as_str()) {
        bail!("the name is {name:?}; it must be the folder's");
    }
    Ok(Plugin { name, version: text("version")?, kind: text("kind")?, language, folder: folder.to_path_buf() })
}

/// A digest over the sources, the SDK, the contract and the tools.
fn made_from(workspace: &Workspace, plugin: &Plugin) -> Result<String> {
    let sdk = workspace.root.join("plugins/sdk").join(plugin.language.name());
    let mut files = BTreeSet::new();
    for folder in [&plugin.folder, &sdk, &workspace.root.join("wit")] {
        collect(folder, &mut files)?;
    }
    let mut all = Sha256::new();
    all.update(toolchain::version(plugin.language));
    for file in files {
        all.update(file.strip_prefix(&workspace.root).unwrap_or(&file).to_string_lossy().as_bytes());
        all.update([0]);
        all.update(Sha256::digest(fs::read(&file)?));
    }
    Ok(hex(&all.finalize()))
}

/// Files that a component is made from: no documents, no tests, and nothing that tools leave behind.
fn collect(folder: &Path, files: &mut BTreeSet<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("{} cannot be read", folder.display()))? {
        let path = entry?.path();
        let is_source = || {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let is_test = name.ends_with(".test.js") || (name.starts_with("test_") && name.ends_with(".py"));
            !is_test && [".js", ".py", ".json", ".wit"].iter().any(|source| name.ends_with(source))
        };
        if path.is_dir() {
            collect(&path, files)?;
        } else if is_source() {
            files.insert(path);
        }
    }
    Ok(())
}

fn stamp(workspace: &Workspace, plugin: &Plugin) -> PathBuf {
    workspace.component(plugin).with_extension("made-from")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn a_manifest_names_its_folder_and_a_language_that_is_known() {
        let manifest = |name: &str, language: &str| {
            format!(r#"{{"name":"{name}","version":"0.1.0","kind":"rotation","language":"{language}"}}"#)
        };
        let folder = Path::new("plugins/when-quiet");
        assert_eq!(plugin(folder, &manifest("when-quiet", "js")).unwrap().language, Language::JavaScript);
        for wrong in [manifest("other", "js"), manifest("when-quiet", "go"), String::from("{}"), String::new()] {
            assert!(plugin(folder, &wrong).is_err(), "{wrong}");
        }
    }
}
