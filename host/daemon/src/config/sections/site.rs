//! `[site]` and `[[group]]`: who leads the site's nodes, and how often which group is cut.

use std::net::SocketAddr;

use farseal_core::limits::CUT_INTERVAL_MIN;
use farseal_core::units::Millis;

use super::super::problem::ConfigError;
use super::super::read::{Field, Table};
use super::super::units::{SPAN_FORM, parse_span, span_text};
use super::super::{Group, Peer, Site};
use super::{NAME_FORM, SOCKET_ADDRESS, Unique, name, section};

/// The group of a pair that names none.
pub(crate) const DEFAULT_GROUP: &str = "default";

pub(super) fn site(root: &mut Table<'_, '_>, peers: &[Peer]) -> Result<Site, ConfigError> {
    let Some(mut table) = section(root, "site")? else {
        return Ok(Site::Leads { listen: None, members: Vec::new() });
    };
    let lead = table.take("lead");
    let [listen, members] = ["listen", "members"].map(|name| table.take(name));
    let form = "true where this node leads its site, or the name of the lead's [[peer]]";
    let follows = lead.filter(|field| field.boolean().is_err());
    let site = match follows {
        Some(field) => {
            let lead = known(&field, peers, form)?;
            if let Some(field) = listen.or(members) {
                let allowed = "listen and members where this node leads";
                return Err(field.wrong(
                    "another node leads this site",
                    allowed,
                    "remove this line, or write lead = true",
                ));
            }
            if lead.addresses.is_empty() {
                let wrong = format!("peer {} has no addresses, and a node connects to its lead", lead.name);
                let fix = format!("add addresses = [\"HOST:PORT\"] to the [[peer]] {}", lead.name);
                return Err(field.wrong(&wrong, "a peer with addresses", &fix));
            }
            Site::Follows { lead: lead.name.clone() }
        }
        None => leads(listen, members, peers)?,
    };
    table.finish()?;
    Ok(site)
}

fn leads(listen: Option<Field<'_, '_>>, members: Option<Field<'_, '_>>, peers: &[Peer]) -> Result<Site, ConfigError> {
    let listen: Option<SocketAddr> = listen.map(|field| field.parsed(SOCKET_ADDRESS, str::parse)).transpose()?;
    let form = "a list of names of [[peer]]s, the other nodes of this site";
    let mut names = Vec::new();
    if let Some(field) = members {
        let mut unique = Unique::default();
        for each in field.list(form)? {
            let peer = known(&each, peers, form)?;
            unique.add(&each, &peer.name, "member")?;
            names.push(peer.name.clone());
        }
        if listen.is_none() && !names.is_empty() {
            let fix = "add listen = \"0.0.0.0:7441\" to [site]";
            return Err(field.wrong("they cannot connect to this node", "members with listen", fix));
        }
    }
    Ok(Site::Leads { listen, members: names })
}

fn known<'p>(field: &Field<'_, '_>, peers: &'p [Peer], form: &str) -> Result<&'p Peer, ConfigError> {
    let name = field.text(form)?;
    peers.iter().find(|peer| peer.name == name).ok_or_else(|| {
        field.wrong(
            "there is no such [[peer]]",
            form,
            "correct the name, or add a [[peer]] section with the node's card",
        )
    })
}

pub(super) fn group(table: &mut Table<'_, '_>, names: &mut Unique) -> Result<Group, ConfigError> {
    let field = table.need("name", NAME_FORM, "add name = \"NAME\"")?;
    let name = name(&field)?;
    names.add(&field, &name, "group name")?;
    let cuts = match table.take("cuts") {
        Some(field) => interval(&field)?,
        None => Some(farseal_core::limits::CUT_INTERVAL),
    };
    Ok(Group { name, cuts })
}

fn interval(field: &Field<'_, '_>) -> Result<Option<Millis>, ConfigError> {
    let allowed = format!("\"off\", or {SPAN_FORM}, at least {}", span_text(CUT_INTERVAL_MIN));
    if field.text(&allowed)? == "off" {
        return Ok(None);
    }
    let span = field.parsed(&allowed, parse_span)?;
    if span >= CUT_INTERVAL_MIN {
        return Ok(Some(span));
    }
    Err(field.wrong("a cut could take as long as that", &allowed, "write cuts = \"250ms\""))
}
