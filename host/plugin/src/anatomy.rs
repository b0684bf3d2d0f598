//! What a component is made of, read from its bytes without compiling or running anything.

use wasmparser::{Chunk, ComponentExternalKind, ComponentTypeRef, Encoding, Parser, Payload, Validator, WasmFeatures};

use crate::kind::{ABI, Kind, Power};
use crate::load_error::Problem;

/// Names and shape of a component.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Anatomy {
    /// Interfaces asked for, as written.
    pub(crate) imports: Vec<String>,
    /// Interfaces offered, as written.
    pub(crate) exports: Vec<String>,
    nested_code: bool,
}

/// The parts of `farseal:plugin/rotation@0.1.0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Name<'a> {
    interface: &'a str,
    version: &'a str,
}

const PACKAGE: &str = "farseal:plugin/";

impl<'a> Name<'a> {
    fn of(name: &'a str) -> Option<Self> {
        let (interface, version) = name.strip_prefix(PACKAGE)?.split_once('@')?;
        Some(Self { interface, version })
    }

    /// On the track of versions that this host links: `0.1.x`, no pre-release.
    fn on_track(self) -> bool {
        let Some(patch) = self.version.strip_prefix(ABI).and_then(|rest| rest.strip_prefix('.')) else {
            return false;
        };
        !patch.is_empty() && patch.bytes().all(|byte| byte.is_ascii_digit())
    }
}

impl Anatomy {
    /// Reads and validates a component.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, Problem> {
        let magic = bytes.get(..8).ok_or(Problem::NotWasm)?;
        if !magic.starts_with(b"\0asm") {
            return Err(Problem::NotWasm);
        }
        if Parser::is_core_wasm(bytes) {
            return Err(Problem::CoreModule);
        }
        if !Parser::is_component(bytes) {
            return Err(Problem::NotWasm);
        }
        let malformed = |error: wasmparser::BinaryReaderError| Problem::Malformed {
            offset: u64::try_from(error.offset()).unwrap_or(u64::MAX),
            reason: error.message().into(),
        };
        let mut found = Self::default();
        found.walk(bytes).map_err(malformed)?;
        if found.nested_code {
            return Err(Problem::NestedCode);
        }
        Validator::new_with_features(features()).validate_all(bytes).map_err(malformed)?;
        Ok(found)
    }

    fn walk(&mut self, bytes: &[u8]) -> Result<(), wasmparser::BinaryReaderError> {
        let mut parser = Parser::new(0);
        let mut rest = bytes;
        let mut stack: Vec<Parser> = Vec::new();
        // Depth of components around the payload in hand; 0 is the outermost.
        let mut components = 0_usize;
        let mut encodings = Vec::new();
        loop {
            let Chunk::Parsed { consumed, payload } = parser.parse(rest, true)? else { return Ok(()) };
            #[expect(clippy::wildcard_enum_match_arm, reason = "foreign enum; only names and nesting matter here")]
            match payload {
                Payload::Version { encoding, .. } => encodings.push(encoding),
                Payload::ModuleSection { parser: inner, .. } => {
                    self.nested_code |= components > 0;
                    stack.push(std::mem::replace(&mut parser, inner));
                }
                Payload::ComponentSection { parser: inner, .. } => {
                    components += 1;
                    stack.push(std::mem::replace(&mut parser, inner));
                }
                Payload::ComponentImportSection(section) if components == 0 => {
                    for import in section {
                        let import = import?;
                        let instance = matches!(import.ty, ComponentTypeRef::Instance(_));
                        self.imports.push(if instance {
                            import.name.name.into()
                        } else {
                            format!("{} (not an interface)", import.name.name)
                        });
                    }
                }
                Payload::ComponentExportSection(section) if components == 0 => {
                    for export in section {
                        let export = export?;
                        let instance = export.kind == ComponentExternalKind::Instance;
                        self.exports.push(if instance {
                            export.name.name.into()
                        } else {
                            format!("{} (not an interface)", export.name.name)
                        });
                    }
                }
                Payload::End(_) => {
                    if encodings.pop() == Some(Encoding::Component) {
                        components = components.saturating_sub(1);
                    }
                    match stack.pop() {
                        Some(outer) => parser = outer,
                        None => return Ok(()),
                    }
                }
                _ => {}
            }
            rest = rest.get(consumed..).unwrap_or_default();
        }
    }

    /// The kind, from the exports alone.
    pub(crate) fn kind(&self) -> Result<Kind, Problem> {
        let offered = |kind: &&Kind| {
            self.exports.iter().any(|name| Name::of(name).is_some_and(|n| n.interface == kind.interface()))
        };
        let kinds: Vec<Kind> = Kind::ALL.iter().filter(offered).copied().collect();
        match kinds.as_slice() {
            [] => Err(Problem::NoKind { exports: self.exports.clone() }),
            [kind] => Ok(*kind),
            [first, second, ..] => Err(Problem::TwoKinds { first: *first, second: *second }),
        }
    }

    /// Interfaces of the contract beyond its world that the component offers: those of later versions that this host knows
    /// nothing of. The host asks for one that it does know by looking here, before it binds it.
    pub(crate) fn optional(&self, kind: Kind) -> Vec<String> {
        let of_its_world = ["meta", kind.interface(), "raw-cipher"];
        let names = self.exports.iter().filter_map(|name| Name::of(name));
        let beyond = names.map(|name| name.interface).filter(|interface| !of_its_world.contains(interface));
        beyond.map(str::to_owned).collect()
    }

    /// The version of the contract that the component was built for, as written in its names.
    pub(crate) fn abi(&self) -> Option<&str> {
        self.exports.iter().find_map(|name| Name::of(name)).map(|name| name.version)
    }

    /// Compares imports and exports with the world of `kind`: the powers asked for, or what is wrong.
    pub(crate) fn powers(&self, kind: Kind) -> Result<Vec<Power>, Problem> {
        let own_exports = self.exports.iter().filter(|name| name.starts_with(PACKAGE));
        if let Some(foreign) = own_exports
            .chain(self.imports.iter().filter(|name| name.starts_with(PACKAGE)))
            .find(|name| !Name::of(name).is_some_and(Name::on_track))
        {
            return Err(Problem::OtherVersion { name: foreign.clone() });
        }
        self.check_imports(kind)?;
        let raw = self.imports_interface("raw");
        let mut required = vec!["meta", kind.interface()];
        if raw {
            required.push("raw-cipher");
        }
        let missing = required.into_iter().find(|interface| !self.exports_interface(interface));
        if let Some(missing) = missing {
            return Err(Problem::MissingExport { kind, interface: missing });
        }
        let mut powers = Vec::new();
        if self.imports_interface("log") {
            powers.push(Power::Log);
        }
        if raw || self.exports_interface("raw-cipher") {
            powers.push(Power::Raw);
        }
        Ok(powers)
    }

    fn check_imports(&self, kind: Kind) -> Result<(), Problem> {
        let wasi: Vec<&String> = self.imports.iter().filter(|name| name.starts_with("wasi:")).collect();
        if let Some(first) = wasi.first() {
            return Err(Problem::Wasi { first: (*first).clone(), more: wasi.len() - 1, kind });
        }
        let allowed = |interface: &str| match interface {
            "types" | "log" => true,
            "raw" => kind == Kind::Cipher,
            _ => false,
        };
        match self.imports.iter().find(|name| !Name::of(name).is_some_and(|n| allowed(n.interface))) {
            Some(name) => Err(Problem::ForeignImport { name: name.clone(), kind }),
            None => Ok(()),
        }
    }

    fn imports_interface(&self, interface: &str) -> bool {
        self.imports.iter().any(|name| Name::of(name).is_some_and(|n| n.interface == interface))
    }

    fn exports_interface(&self, interface: &str) -> bool {
        self.exports.iter().any(|name| Name::of(name).is_some_and(|n| n.interface == interface))
    }
}

/// What the engines accept: finished WebAssembly and the component model without threads and async.
fn features() -> WasmFeatures {
    let mut features = WasmFeatures::default();
    features.remove(WasmFeatures::RELAXED_SIMD | WasmFeatures::MEMORY64 | WasmFeatures::THREADS | WasmFeatures::GC);
    features
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn only_the_track_of_this_host_links() {
        for (name, on) in [
            ("farseal:plugin/log@0.1.0", true),
            ("farseal:plugin/log@0.1.9", true),
            ("farseal:plugin/log@0.2.0", false),
            ("farseal:plugin/log@0.10.0", false),
            ("farseal:plugin/log@0.1.1-rc.1", false),
            ("farseal:plugin/log@0.1.", false),
        ] {
            assert_eq!(Name::of(name).unwrap().on_track(), on, "{name}");
        }
    }

    #[test]
    fn an_interface_of_a_later_version_is_seen_and_is_no_reason_to_refuse() {
        let anatomy = Anatomy {
            exports: ["meta", "rotation", "rotation-explain"].map(|name| format!("{PACKAGE}{name}@0.1.4")).to_vec(),
            ..Anatomy::default()
        };
        assert_eq!(anatomy.kind().unwrap(), Kind::Rotation);
        assert_eq!(anatomy.powers(Kind::Rotation).unwrap(), [Power::Log; 0]);
        assert_eq!(anatomy.optional(Kind::Rotation), ["rotation-explain"]);
    }

    #[test]
    fn garbage_is_an_error_and_never_a_panic() {
        for bytes in [
            &b""[..],
            b"\0asm",
            b"#!/bin/sh ..",
            b"\0asm\x0d\0\x01\0\xff\xff\xff\xff\xff",
            b"\0asm\x0d\0\x01\0\x04\x03abc",
        ] {
            assert!(Anatomy::read(bytes).is_err());
        }
    }
}
