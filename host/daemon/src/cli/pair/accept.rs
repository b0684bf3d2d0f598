//! `farseal pair accept`: takes an invitation up, once a person has compared the main site's fingerprint

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use super::{defaults, free_name, listening, of_file, read_small, transfer, unpinned};
use crate::cli::failure::{Exit, Failure};
use crate::cli::invitation::{Invitation, OfferedEscrow};
use crate::cli::{Place, agreed, say, show};
use crate::config::sections::{BEAT, DEFAULT_CIPHER, DEFAULT_DISGUISE, DEFAULT_POLICY, DEFAULT_RECOVERY, is_name};
use crate::config::write::{append, pair_section, peer_section};
use crate::config::{Config, Holders, Pair, PairSide, Peer};
use crate::keys::fingerprint::ShownFingerprint;
use crate::keys::tls::LinkMode;

/// `farseal pair accept`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Accept {
    /// The file that `farseal pair create` wrote.
    invitation: PathBuf,
    /// Where primaries connect, if the configuration does not say yet.
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// The main node's fingerprint, as its operator reads it out. Without it, you are asked.
    #[arg(long, value_name = "XXXX-..")]
    fingerprint: Option<ShownFingerprint>,
    /// How the copy is opened.
    #[arg(long, default_value = DEFAULT_RECOVERY)]
    recovery: String,
}

pub(super) fn accept(place: &Place, accept: &Accept) -> Result<(), Failure> {
    let config = place.config()?;
    let text = read_small(&accept.invitation)?;
    let invitation: Invitation = text.parse().map_err(|error| of_file(&accept.invitation, &error))?;
    if !is_name(&invitation.pair) || !is_name(&invitation.group) {
        return Err(Failure::new(Exit::Failed, "the invitation's names are unsound", "ask for another one"));
    }
    compare(&invitation, accept)?;
    let fingerprint = invitation.card.fingerprint();
    let known = config.peers.iter().find(|peer| peer.card.fingerprint() == fingerprint);
    let peer = known.cloned().unwrap_or_else(|| Peer {
        name: free_name(&config, invitation.card.node.as_str()),
        addresses: invitation.addresses.clone(),
        card: invitation.card.clone(),
        beat: BEAT,
    });
    let mut sections = if known.is_none() { peer_section(&peer) } else { String::new() };
    let (escrow, holders) = match &invitation.escrow {
        Some(offered) => {
            let (name, section) = escrow_peer(&config, &peer.name, offered)?;
            sections.push_str(&section);
            (Some(name), if offered.both { Holders::Both } else { Holders::Escrow })
        }
        None => (None, Holders::Secondary),
    };
    let listen = listening(&config, accept.listen)?;
    if config.link.listen.is_none() && listen.is_none() {
        let next = "give --listen, as in --listen 0.0.0.0:7440";
        return Err(Failure::new(Exit::Failed, "primaries cannot connect to this node: [link] has no listen", next));
    }
    let pair = invited(&config, accept, invitation, (peer.name, escrow, holders))?;
    sections.push_str(&pair_section(&pair));
    let config = append(&config.file, listen, &sections)?;
    say(&format!(
        "pair {} is in {}\n{}next: start the node, or restart it, with `farseal run --config {}`\n",
        pair.name,
        config.file.display(),
        unpinned(&pair),
        config.file.display(),
    ))
}

/// Shows what is invited to, and has the main site's fingerprint compared: by its word on the command line, or by a person.
fn compare(invitation: &Invitation, accept: &Accept) -> Result<(), Failure> {
    let fingerprint = invitation.card.fingerprint();
    say(&format!(
        "pair {} from {}: {}, {}{}\nfingerprint of {}: {fingerprint}\n",
        invitation.pair,
        invitation.card.node,
        show::size(invitation.size),
        if invitation.encrypted { "encrypted" } else { "NOT encrypted" },
        if invitation.san { ", over a trusted fabric (link = \"san\")" } else { "" },
        invitation.card.node,
    ))?;
    let same = match &accept.fingerprint {
        Some(shown) => Some(fingerprint.is_shown_as(shown)),
        None => agreed("Does the main site's operator read out the same fingerprint?"),
    };
    let (message, next) = match same {
        Some(true) => return Ok(()),
        Some(false) => (
            "the fingerprint is not the main site's; nothing was changed",
            "ask the main site for its fingerprint and a new invitation, over a way you trust",
        ),
        None => (
            "nobody is here to compare fingerprints",
            "give --fingerprint with what the main site's operator reads out",
        ),
    };
    Err(Failure::new(Exit::Refused, message, next))
}

/// The pair's section.
fn invited(
    config: &Config,
    accept: &Accept,
    invitation: Invitation,
    (peer, escrow, holders): (String, Option<String>, Holders),
) -> Result<Pair, Failure> {
    // A name, never a path: whoever invites does not choose a file here.
    let disguise = invitation.disguise.filter(|name| is_name(name) && !name.ends_with(".wasm"));
    let disguise = disguise.unwrap_or_else(|| DEFAULT_DISGUISE.to_owned());
    Ok(Pair {
        name: invitation.pair.clone(),
        id: invitation.id,
        volume_id: invitation.volume_id,
        peer,
        escrow,
        holders,
        group: invitation.group,
        side: PairSide::Secondary { export: invitation.pair, size: invitation.size, image: None },
        encrypted: invitation.encrypted,
        block_bytes: invitation.block_bytes,
        layout: invitation.layout,
        paths: invitation.paths,
        link: if invitation.san { LinkMode::San } else { LinkMode::Tls },
        transfer: transfer(invitation.scheduled),
        ..defaults(config, [DEFAULT_CIPHER, DEFAULT_POLICY, &disguise, &accept.recovery])?
    })
}

/// The section of an escrow site that this node does not know yet, and its name.
fn escrow_peer(config: &Config, main: &str, offered: &OfferedEscrow) -> Result<(String, String), Failure> {
    let fingerprint = offered.card.fingerprint();
    let note = "compare it with what the escrow's operator reads out";
    say(&format!("keys are held by the escrow {}, fingerprint {fingerprint}: {note}\n", offered.card.node))?;
    if let Some(known) = config.peers.iter().find(|peer| peer.card.fingerprint() == fingerprint) {
        return Ok((known.name.clone(), String::new()));
    }
    let mut name = free_name(config, offered.card.node.as_str());
    if name == main {
        name.push_str("-keys");
    }
    let peer = Peer { name, addresses: offered.addresses.clone(), card: offered.card.clone(), beat: BEAT };
    Ok((peer.name.clone(), peer_section(&peer)))
}
