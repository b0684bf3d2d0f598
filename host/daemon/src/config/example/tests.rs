//! The example is what the code accepts, field for field.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use super::*;
use crate::config::{Config, LogForm, sections, write};
use crate::keys::capsule::KemId;
use crate::keys::identity::Identity;

fn name() -> NodeName {
    NodeName::new("main").unwrap()
}

fn card() -> String {
    Identity::generate(NodeName::new("remote").unwrap(), KemId::DhP256).unwrap().card().to_string()
}

/// Every example line in force.
fn uncommented() -> String {
    let text = example(&name(), "passphrase");
    let lines = text.lines().map(|line| match line.strip_prefix('#') {
        Some("...") => card(),
        Some("tls = \"off\"") => "tls = \"required\"".to_owned(),
        Some(rest) if !rest.starts_with([' ', '#']) && !rest.is_empty() => rest.to_owned(),
        Some(_) | None => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_example_parses_as_it_is() {
    let config = Config::parse(Path::new("/etc/farseal/farseal.toml"), &example(&name(), "pass \"phrase")).unwrap();
    assert_eq!(config.node.name, name());
    assert_eq!(config.node.control_socket, Path::new("/etc/farseal/state/control.sock"));
    assert_eq!(config.node.log, LogForm::Text);
    assert!(config.pairs.is_empty());
}

#[test]
fn the_example_parses_with_every_line_in_force() {
    let config = Config::parse(Path::new("/etc/farseal/farseal.toml"), &uncommented()).unwrap();
    assert_eq!((config.peers.len(), config.volumes.len(), config.pairs.len()), (1, 1, 1));
}

#[test]
fn a_default_that_the_example_shows_is_the_default() {
    let shown = Config::parse(Path::new("/f/farseal.toml"), &uncommented()).unwrap();
    let text = example(&name(), "passphrase");
    let plain = Config::parse(Path::new("/f/farseal.toml"), &text).unwrap();
    assert_eq!(shown.node, plain.node);
    assert_eq!(shown.plugins, plain.plugins);
    let pair = &shown.pairs[0];
    let least = format!(
        "{text}{}{}\n[[pair]]\nname = \"vault-1\"\nid = \"{}\"\nvolume-id = \"{}\"\npeer = \"remote\"\nrole = \"primary\"\nvolume = \"vault\"\n",
        write::peer_section(&shown.peers[0]),
        write::volume_section(&shown.volumes[0]),
        pair.id,
        pair.volume_id,
    );
    let mut least = Config::parse(Path::new("/f/farseal.toml"), &least).unwrap().pairs.remove(0);
    for (choice, shown) in [
        (&mut least.cipher, &pair.cipher),
        (&mut least.policy, &pair.policy),
        (&mut least.disguise, &pair.disguise),
        (&mut least.recovery, &pair.recovery),
    ] {
        choice.sha256 = shown.sha256;
    }
    assert_eq!(&least, pair);
}

#[test]
fn every_field_that_the_code_knows_is_in_the_example() {
    let text = example(&name(), "passphrase");
    let mut known = sections::known_fields(&uncommented());
    known.extend(sections::known_fields(&secondary()));
    for field in known {
        let (section, name) = field.rsplit_once('.').unwrap_or(("", &field));
        let header = match section.split('.').next().unwrap_or_default().strip_suffix("[]") {
            _ if section.is_empty() => continue,
            Some(list) => format!("[[{list}]]"),
            None => format!("[{section}]"),
        };
        let start = text.find(&header).unwrap_or_else(|| panic!("{header} is not in the example"));
        let body = text[start + header.len()..].split("\n[").next().unwrap_or_default();
        let body = body.split("\n#[").next().unwrap_or_default();
        assert!(body.contains(&format!("{name} = ")), "{field} is not in the example's {header}");
    }
}

fn secondary() -> String {
    let text = uncommented().replace("role = \"primary\"", "role = \"secondary\"\nsize = \"1GiB\"");
    text.replace("volume = \"vault\"", "volume = \"copy\"").replace("pick = \"used\"\n", "")
}

#[test]
fn written_sections_read_back() {
    for text in [uncommented(), secondary()] {
        let config = Config::parse(Path::new("/f/farseal.toml"), &text).unwrap();
        let mut again = example(&name(), "passphrase").replace("#listen = \"0.0.0.0", "listen = \"0.0.0.0");
        again.push_str(&write::peer_section(&config.peers[0]));
        again.push_str(&write::volume_section(&config.volumes[0]));
        again.push_str(&write::pair_section(&config.pairs[0]));
        let again = Config::parse(Path::new("/f/farseal.toml"), &again).unwrap();
        assert_eq!(again.peers, config.peers);
        assert_eq!(again.volumes, config.volumes);
        assert_eq!(again.pairs, config.pairs);
    }
}
