//! `farseal pair`: cards, invitations, new pairs. Works on the configuration; a running node takes it up at its next start.

use std::fs::{self, File};
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::Path;

use clap::Subcommand;
use farseal_core::flow::{Limits, Pacing};
use farseal_core::limits::{JOURNAL_BYTES_MAX, KEY_AGE_MAX, KEY_BYTES_MAX, ROTATION_INTERVAL_DEFAULT};
use farseal_core::primary::Mode;
use farseal_core::rotation::{How, KeyLimits};
use farseal_core::units::{BlockBytes, PairId, VolumeId};
use farseal_plugin::Digest;

use super::failure::{Exit, Failure};
use super::invitation::INVITATION_BYTES_MAX;
use super::{Place, identity, say};
use crate::config::sections::{DEFAULT_GROUP, is_name};
use crate::config::{Config, Holders, Pair, PairSide, Pick, PluginChoice, Transfer};
use crate::keys::card::PeerCard;
use crate::keys::tls::LinkMode;
use crate::range;

mod accept;
mod create;

use accept::Accept;
use create::Create;

/// `farseal pair ..`.
#[derive(Debug, Subcommand)]
pub(super) enum PairCommand {
    /// Print this node's card: its public keys, for the other site.
    Card,
    /// Main site: make a pair, and an invitation for the remote.
    Create(Box<Create>),
    /// Remote site: take an invitation up.
    Accept(Accept),
    /// List the configured pairs.
    List,
}

pub(super) fn pair(place: &Place, command: PairCommand) -> Result<(), Failure> {
    match command {
        PairCommand::Card => {
            let card = identity::card(&place.config()?).map_err(|error| Failure::of(&error))?;
            say(&card.to_string())
        }
        PairCommand::Create(create) => create::create(place, &create),
        PairCommand::Accept(accept) => accept::accept(place, &accept),
        PairCommand::List => list(&place.config()?),
    }
}

/// What [link] listens on from now on, if that changes.
fn listening(config: &Config, wanted: Option<SocketAddr>) -> Result<Option<SocketAddr>, Failure> {
    match (config.link.listen, wanted) {
        (Some(has), Some(given)) if has != given => {
            let next = "leave --listen out, or change the configuration";
            Err(Failure::new(Exit::Failed, format!("[link] listens on {has} already"), next))
        }
        (Some(_), _) => Ok(None),
        (None, given) => Ok(given),
    }
}

fn list(config: &Config) -> Result<(), Failure> {
    let mut text = String::new();
    for pair in &config.pairs {
        let role = if pair.is_primary() { "primary" } else { "secondary" };
        let sealed = if pair.encrypted { "encrypted" } else { "not encrypted" };
        let range = if pair.ranges.is_empty() { String::new() } else { format!(" {}", range::text(&pair.ranges)) };
        text.push_str(&format!(
            "{}  {role}  with {}  volume {}{range}  {sealed}  {}\n",
            pair.name,
            pair.peer,
            pair.volume_name(),
            pair.id
        ));
    }
    if text.is_empty() {
        text.push_str("no pairs; `farseal pair create` makes one, `farseal pair accept` takes one up\n");
    }
    say(&text)
}

/// A pair of defaults, its plugins pinned to the bytes that lie in the plugins' folder.
fn defaults(config: &Config, [cipher, policy, disguise, recovery]: [&str; 4]) -> Result<Pair, Failure> {
    let limits = KeyLimits { interval_min: ROTATION_INTERVAL_DEFAULT, age_max: KEY_AGE_MAX, bytes_max: KEY_BYTES_MAX };
    let choose = |component: &str| choose(config, component);
    Ok(Pair {
        name: String::new(),
        id: PairId::default(),
        volume_id: VolumeId::default(),
        peer: String::new(),
        escrow: None,
        holders: Holders::Secondary,
        group: DEFAULT_GROUP.into(),
        side: PairSide::Primary { volume: String::new() },
        ranges: Vec::new(),
        encrypted: true,
        block_bytes: BlockBytes::DEFAULT,
        layout: None,
        paths: 1,
        transfer: Transfer::Ordered,
        mode: Mode::Async,
        ordered: true,
        rotate: How::InBand,
        key_limits: limits,
        journal_max: JOURNAL_BYTES_MAX,
        retention: None,
        witness_silence: None,
        opens_on_arrival: false,
        pick: Pick::default(),
        limits: Limits::default(),
        shape: None,
        link: LinkMode::default(),
        pacing: Pacing::default(),
        cipher: choose(cipher)?,
        policy: choose(policy)?,
        disguise: choose(disguise)?,
        recovery: choose(recovery)?,
    })
}

fn choose(config: &Config, component: &str) -> Result<PluginChoice, Failure> {
    let is_path = component.contains('/') || component.ends_with(".wasm");
    let (component, path) = if is_path {
        let path = fs::canonicalize(component).map_err(|error| Failure::file(Path::new(component), &error))?;
        (path.to_string_lossy().into_owned(), path)
    } else {
        (component.to_owned(), config.plugins.dir.join(format!("{component}.wasm")))
    };
    let sha256 = match fs::read(&path) {
        Ok(bytes) => Some(Digest::of(&bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(Failure::file(&path, &error)),
    };
    Ok(PluginChoice { component, path, sha256, grants: vec![], config: serde_json::json!({}), conformance: None })
}

/// Says which plugins are not there yet.
fn unpinned(pair: &Pair) -> String {
    let choices = [&pair.cipher, &pair.policy, &pair.disguise, &pair.recovery];
    let lines = choices.into_iter().filter(|choice| choice.sha256.is_none()).map(|choice| {
        let path = choice.path.display();
        format!("missing: {path}; put it there and pin it with the sha256 that `farseal plugin inspect {path}` shows\n")
    });
    lines.collect()
}

/// The node's own name, or with a number where another peer has it.
pub(super) fn free_name(config: &Config, node: &str) -> String {
    let node: String = node.chars().take(58).collect();
    let mut names = std::iter::once(node.clone()).chain((2..).map(|number: u32| format!("{node}-{number}")));
    names.find(|name| config.peer(name).is_none()).unwrap_or(node)
}

const fn transfer(scheduled: bool) -> Transfer {
    if scheduled { Transfer::Scheduled } else { Transfer::Ordered }
}

pub(super) fn read_card(path: &Path) -> Result<PeerCard, Failure> {
    read_small(path)?.parse().map_err(|error| of_file(path, &error))
}

fn read_small(path: &Path) -> Result<String, Failure> {
    let failed = |error: std::io::Error| Failure::file(path, &error);
    let mut text = String::new();
    File::open(path).map_err(failed)?.take(INVITATION_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}

fn of_file(path: &Path, error: &dyn std::error::Error) -> Failure {
    let failure = Failure::of(error);
    Failure { message: format!("{}: {}", path.display(), failure.message), ..failure }
}

fn named(text: &str) -> Result<String, String> {
    let form = "1 to 63 characters of a-z, A-Z, 0-9, '.', '_' and '-', first a letter or digit";
    if is_name(text) { Ok(text.to_owned()) } else { Err(form.to_owned()) }
}
