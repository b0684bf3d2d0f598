//! Components of every release, as they were built then: this host loads them, and they keep the contract's rules. And
//! components of later versions of the same track, on this host.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/host.rs"]
mod environment;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use environment::{host, root};
use farseal_plugin::conform::{CodeInMemory, Effort, conform};
use farseal_plugin::{HostOptions, Kind, PluginHost};
use serde_json::Value;

fn releases() -> Vec<PathBuf> {
    let folders = std::fs::read_dir(root().join("fixtures/abi")).unwrap().map(|entry| entry.unwrap().path());
    folders.filter(|path| path.is_dir()).collect()
}

fn components(release: &PathBuf) -> Vec<PathBuf> {
    let files = std::fs::read_dir(release).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|extension| extension == "wasm")).collect()
}

#[test]
fn components_of_every_release_load_and_keep_the_rules() {
    let code_cache = Some(Arc::new(CodeInMemory::default()) as Arc<_>);
    let host = PluginHost::new(HostOptions { code_cache, ..HostOptions::uncached() }).unwrap();
    assert!(!releases().is_empty());
    for release in releases() {
        let mut kinds = BTreeSet::new();
        for path in components(&release) {
            let name = path.display().to_string();
            let bytes = std::fs::read(&path).unwrap();
            let report = conform(&host, &name, &bytes, &Value::Null, Effort { stories: 1, ..Effort::default() });
            let report = report.unwrap_or_else(|error| panic!("{error}"));
            assert!(report.conforms(), "{report:#?}");
            kinds.insert(report.kind);
        }
        assert_eq!(kinds.into_iter().collect::<Vec<_>>(), Kind::ALL, "{}: one of each kind", release.display());
    }
}

/// A component's bytes with another version in its names, which is as long.
fn of_version(path: &PathBuf, version: &str) -> Vec<u8> {
    let (from, to) = (b"@0.1.0".as_slice(), format!("@{version}").into_bytes());
    let mut bytes = std::fs::read(path).unwrap();
    for at in 0..bytes.len() - from.len() {
        if bytes[at..].starts_with(from) {
            bytes[at..at + to.len()].copy_from_slice(&to);
        }
    }
    bytes
}

#[test]
fn a_component_of_a_later_version_of_the_track_loads_and_one_of_another_track_does_not() {
    let path = root().join("fixtures/abi/0.1.0/rotation.wasm");
    let later = host().inspect("later", &of_version(&path, "0.1.7")).unwrap();
    assert_eq!(later.abi, "0.1.7");
    let other = host().inspect("other", &of_version(&path, "0.2.0")).unwrap_err();
    assert_eq!(other.problem.code(), "E12");
}
