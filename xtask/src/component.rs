//! From the core module that rustc writes to the component that the host loads: metadata, encoding, the world it is
//! held to, its imports, its manifest.

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::json;
use wit_component::{ComponentEncoder, StringEncoding};
use wit_parser::decoding::{DecodedWasm, decode};
use wit_parser::{PackageId, Resolve};

use crate::workspace::Plugin;

/// The minor version of the contract, as the manifest names it.
pub(crate) const ABI: &str = "0.1";
/// The package that a component may import from, and no other.
const PACKAGE: &str = "farseal:plugin/";
/// The custom section with the manifest.
const MANIFEST: &str = "farseal:manifest";

/// The contract, read once.
pub(crate) struct Contract {
    resolve: Resolve,
    package: PackageId,
}

impl Contract {
    pub(crate) fn read(root: &Path) -> Result<Self> {
        let mut resolve = Resolve::default();
        let (package, _) = resolve.push_dir(root.join("wit/v0.1")).context("wit/v0.1 cannot be read")?;
        Ok(Self { resolve, package })
    }

    /// The component of a plugin, from its core module.
    pub(crate) fn component(&self, plugin: &Plugin, mut module: Vec<u8>) -> Result<Vec<u8>> {
        let world_name = self.world_of(plugin)?;
        let world = self.resolve.select_world(&[self.package], Some(world_name))?;
        wit_component::embed_component_metadata(&mut module, &self.resolve, world, StringEncoding::UTF8, false)?;
        let component = ComponentEncoder::default()
            .validate(true)
            .module(&module)
            .and_then(|encoder| encoder.encode())
            .with_context(|| {
                let macro_name = plugin.kind.replace('-', "_");
                format!(
                    "{} does not export world {world_name}: is farseal_sdk::export_{macro_name}! called?",
                    plugin.name
                )
            })?;
        self.checked(plugin, component)
    }

    /// The component with its manifest, if its imports and exports are its world's.
    pub(crate) fn checked(&self, plugin: &Plugin, mut component: Vec<u8>) -> Result<Vec<u8>> {
        for import in imports(&component)? {
            if !import.starts_with(PACKAGE) {
                bail!("{} imports {import}; a plugin imports from {PACKAGE}* only", plugin.name);
            }
        }
        let world_name = self.world_of(plugin)?;
        let world = self.resolve.select_world(&[self.package], Some(world_name))?;
        wit_component::targets(&self.resolve, world, &component, false)
            .with_context(|| format!("{} does not fit world {world_name}", plugin.name))?;
        append_manifest(&mut component, plugin);
        Ok(component)
    }

    /// The world that the plugin's kind exports.
    #[expect(clippy::unused_self, reason = "worlds are the contract's")]
    pub(crate) fn world_of(&self, plugin: &Plugin) -> Result<&'static str> {
        world(&plugin.kind).with_context(|| format!("{}: the kind is one of {}", plugin.folder.display(), kinds()))
    }
}

/// The world that a kind exports.
pub(crate) fn world(kind: &str) -> Option<&'static str> {
    WORLDS.iter().find(|(known, _)| *known == kind).map(|(_, world)| *world)
}

const WORLDS: [(&str, &str); 5] = [
    ("rotation", "rotation-policy"),
    ("disguise", "key-disguise"),
    ("recovery", "recovery-strategy"),
    ("cipher", "cipher-plan"),
    ("cipher-raw", "cipher-raw"),
];

/// The worlds of the contract.
pub(crate) fn worlds() -> impl Iterator<Item = &'static str> {
    WORLDS.iter().map(|(_, world)| *world)
}

fn kinds() -> String {
    WORLDS.map(|(kind, _)| kind).join(", ")
}

/// The interfaces that a component imports, as `namespace:package/interface@version`.
pub(crate) fn imports(component: &[u8]) -> Result<Vec<String>> {
    match decode(component)? {
        DecodedWasm::Component(resolve, world) => {
            let names = resolve.worlds[world].imports.keys().map(|key| resolve.name_world_key(key));
            Ok(names.collect())
        }
        DecodedWasm::WitPackage(..) => bail!("this is a WIT package and no component"),
    }
}

fn append_manifest(component: &mut Vec<u8>, plugin: &Plugin) {
    let Plugin { name, version, kind, .. } = plugin;
    let manifest = json!({ "name": name, "version": version, "kind": kind, "abi": ABI }).to_string();
    let mut section = leb128(MANIFEST.len());
    section.extend_from_slice(MANIFEST.as_bytes());
    section.extend_from_slice(manifest.as_bytes());
    component.push(0); // a custom section
    component.extend_from_slice(&leb128(section.len()));
    component.extend_from_slice(&section);
}

/// Unsigned LEB128, as WebAssembly writes lengths.
fn leb128(number: usize) -> Vec<u8> {
    let mut left = number;
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(left & 0x7f).unwrap_or(0x7f);
        left >>= 7;
        if left == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_written_as_webassembly_does() {
        assert_eq!(leb128(0), [0]);
        assert_eq!(leb128(127), [0x7f]);
        assert_eq!(leb128(624_485), [0xe5, 0x8e, 0x26]);
    }

    #[test]
    fn every_kind_has_a_world() {
        assert_eq!(world("rotation"), Some("rotation-policy"));
        assert_eq!(world("rotations"), None);
    }
}
