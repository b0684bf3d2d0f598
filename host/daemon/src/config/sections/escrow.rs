//! `[escrow]`, a node that keeps keys and no data; and what a pair says of its escrow site.

use farseal_core::units::Millis;

use super::super::problem::ConfigError;
use super::super::read::Table;
use super::super::{EscrowRole, Holders, Peer};
use super::{SOCKET_ADDRESS, section};

/// Between two cells to an escrow: short enough that the first key of a node does not wait, and 16 KiB/s of traffic.
pub(crate) const BEAT: Millis = Millis(1_000);
pub(super) const BEAT_MIN: Millis = Millis(100);
pub(super) const BEAT_MAX: Millis = Millis(3_600_000);

pub(super) fn escrow(root: &mut Table<'_, '_>, has_data: bool) -> Result<Option<EscrowRole>, ConfigError> {
    let Some(mut table) = section(root, "escrow")? else { return Ok(None) };
    if has_data {
        let fix = "run the escrow as a node of its own, with its own folder, best at a third site";
        return Err(table.missing("listen", "no [[pair]] and no [[volume]] on a node that keeps keys", fix));
    }
    let form = SOCKET_ADDRESS;
    let listen = table.need("listen", form, "add listen = \"0.0.0.0:7450\"")?.parsed(form, str::parse)?;
    table.finish()?;
    Ok(Some(EscrowRole { listen }))
}

/// `escrow` and `key-holders` of a pair.
pub(super) fn holders(
    table: &mut Table<'_, '_>,
    peers: &[Peer],
    other: &Peer,
    encrypted: bool,
) -> Result<(Option<String>, Holders), ConfigError> {
    let words = [("secondary", Holders::Secondary), ("escrow", Holders::Escrow), ("both", Holders::Both)];
    let form = "the name of a [[peer]] with addresses, other than the pair's own";
    let field = table.take("escrow");
    let named = match &field {
        Some(field) => {
            let name = field.text(form)?;
            let found = peers.iter().find(|peer| peer.name == name && peer.name != other.name);
            if found.is_none_or(|peer| peer.addresses.is_empty()) {
                let fix = "add a [[peer]] with the escrow's card and addresses = [\"HOST:PORT\"], or correct the name";
                return Err(field.wrong("there is no such escrow", form, fix));
            }
            if !encrypted {
                let fix = "remove the line, or set encrypted = true";
                return Err(field.wrong(
                    "a pair that is not encrypted has no keys",
                    "escrow on an encrypted pair",
                    fix,
                ));
            }
            Some(name.to_owned())
        }
        None => None,
    };
    let word = table.take("key-holders");
    let holders = match (&word, &named) {
        (Some(field), _) => field.one_of(&words)?,
        (None, Some(_)) => Holders::Escrow,
        (None, None) => Holders::Secondary,
    };
    match (&named, holders, word) {
        (None, Holders::Escrow | Holders::Both, Some(word)) => {
            let fix = "add escrow = \"NAME\", or write key-holders = \"secondary\"";
            Err(word.wrong("no escrow is named", "\"escrow\" or \"both\" with escrow = \"NAME\"", fix))
        }
        (Some(_), Holders::Secondary, Some(word)) => {
            let fix = "write \"escrow\" or \"both\", or remove escrow = \"..\"";
            Err(word.wrong("an escrow is named that would hold nothing", "\"escrow\" or \"both\"", fix))
        }
        _ => Ok((named, holders)),
    }
}
