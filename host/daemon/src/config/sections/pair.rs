//! `[[pair]]`: one side of a pair, its plugins, and what must fit between it and the other sections.

use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;

use farseal_core::limits::{
    JOURNAL_BYTES_MAX, JOURNAL_BYTES_MIN, KEY_AGE_MAX, KEY_BYTES_MAX, PATHS_MAX, ROTATION_INTERVAL_DEFAULT,
    ROTATION_INTERVAL_MIN, VOLUME_BLOCKS_MAX,
};
use farseal_core::primary::Mode;
use farseal_core::rotation::{How, KeyLimits};
use farseal_core::units::{BlockBytes, ByteLen, Millis, PairId, VolumeId};
use farseal_plugin::{Digest, Grant};

use super::super::problem::ConfigError;
use super::super::read::{Field, Table};
use super::super::units::{SPAN_FORM, parse_span, size_text, span_text};
use super::super::{Holders, Link, Pair, PairSide, Peer, PluginChoice, Plugins, Transfer, Volume};
use super::{Base, NAME_FORM, Unique, bytes, name, size};
use crate::plugins::proven::beside;
use crate::range::ByteRange;

const ID_FORM: &str = "32 hexadecimal digits, as `farseal pair create` draws them; the same at both sites";

mod exports;
mod flow;
mod layout;
mod order;
mod ranges;
mod retention;
mod witness;

pub(crate) use self::exports::{FOLLOWED, TESTED};

/// The shipped component for each slot.
pub(crate) const DEFAULT_CIPHER: &str = "aes-256-gcm";
pub(crate) const DEFAULT_POLICY: &str = "interval";
pub(crate) const DEFAULT_DISGUISE: &str = "cover";
pub(crate) const DEFAULT_RECOVERY: &str = "on-access";

/// What was read before, and what must stay unique.
#[derive(Debug)]
pub(super) struct Context<'c> {
    base: Base<'c>,
    plugins: &'c Plugins,
    peers: &'c [Peer],
    volumes: &'c [Volume],
    link: &'c Link,
    names: Unique,
    ids: Unique,
    volume_ids: Unique,
    copied: ranges::Copied,
    orders: order::Orders,
    exports: Unique,
    with_copies: exports::Exports,
    images: Unique,
}

impl<'c> Context<'c> {
    pub(super) fn new(
        base: Base<'c>,
        plugins: &'c Plugins,
        peers: &'c [Peer],
        volumes: &'c [Volume],
        link: &'c Link,
    ) -> Self {
        let [names, ids, volume_ids, exports] = std::array::from_fn(|_| Unique::default());
        // One file is one volume's.
        let images = Unique(volumes.iter().map(|volume| volume.path.display().to_string()).collect());
        let (copied, orders) = (ranges::Copied::default(), order::Orders::default());
        let with_copies = exports::Exports::new(volumes);
        Self {
            base,
            plugins,
            peers,
            volumes,
            link,
            names,
            ids,
            volume_ids,
            copied,
            orders,
            exports,
            with_copies,
            images,
        }
    }
}

pub(super) fn pair(table: &mut Table<'_, '_>, context: &mut Context<'_>) -> Result<Pair, ConfigError> {
    let field = table.need("name", NAME_FORM, "add name = \"NAME\"")?;
    let name = name(&field)?;
    context.names.add(&field, &name, "pair name")?;
    let id = PairId(id(table, "id", &mut context.ids)?);
    let volume_id = VolumeId(self::id(table, "volume-id", &mut context.volume_ids)?);
    let block_bytes = match table.take("block-bytes") {
        Some(field) => block_bytes(&field)?,
        None => BlockBytes::DEFAULT,
    };
    let peer = peer(table, context.peers)?;
    let group = match table.take("group") {
        Some(field) => super::name(&field)?,
        None => super::DEFAULT_GROUP.to_owned(),
    };
    let ranges = ranges::ranges(table, block_bytes)?;
    let side = side(table, context, (&name, &ranges), peer, block_bytes)?;
    let encrypted = table.take("encrypted").map(|field| field.boolean()).transpose()?.unwrap_or(true);
    let layout = layout::layout(table, block_bytes, encrypted)?;
    let (escrow, holders) = super::escrow::holders(table, context.peers, peer, encrypted)?;
    let (transfer, paths) = way(table)?;
    let modes = [("async", Mode::Async), ("sync-flush", Mode::SyncFlush), ("sync", Mode::Sync)];
    let mode = table.take("mode").map(|field| field.one_of(&modes)).transpose()?.unwrap_or(Mode::Async);
    let ordered = order::ordered(table, &mut context.orders, &name, &group, mode)?;
    let ways = [("in-band", How::InBand), ("pause", How::Pause)];
    let rotate_field = table.take("rotate");
    let rotate = rotate_field.as_ref().map(|field| field.one_of(&ways)).transpose()?.unwrap_or(How::InBand);
    let key_limits = key_limits(table)?;
    let journal_max = match table.take("journal-max") {
        Some(field) => journal_max(&field)?,
        None => JOURNAL_BYTES_MAX,
    };
    let retention = retention::terms(table)?;
    let opens_on_arrival = opens_on_arrival(table, layout.is_some(), holders)?;
    let witness_silence = witness::silence(table, escrow.is_some())?;
    let pick = flow::pick(table, matches!(side, PairSide::Primary { .. }))?;
    let (limits, shape, pacing) = (flow::limits(table)?, flow::shape(table)?, flow::pacing(table)?);
    let link = flow::link(table, shape)?;
    let mut choice = |slot, default, grants| plugin(table, context, slot, default, grants);
    let cipher = choice("cipher", DEFAULT_CIPHER, &[("raw", Grant::Raw)])?;
    let policy = choice("policy", DEFAULT_POLICY, &[])?;
    let disguise = choice("disguise", DEFAULT_DISGUISE, &[])?;
    let recovery = choice("recovery", DEFAULT_RECOVERY, &[])?;
    let peer = peer.name.clone();
    let pair = Pair {
        name,
        id,
        volume_id,
        peer,
        escrow,
        holders,
        group,
        side,
        ranges,
        encrypted,
        block_bytes,
        layout,
        paths,
        transfer,
        mode,
        ordered,
        rotate,
        key_limits,
        journal_max,
        retention,
        witness_silence,
        opens_on_arrival,
        pick,
        limits,
        shape,
        link,
        pacing,
        cipher,
        policy,
        disguise,
        recovery,
    };
    context.with_copies.add(&field, &pair)?;
    if let Some(field) = rotate_field.filter(|_| rotate == How::Pause && pair.is_disguised() && pair.shape.is_none()) {
        let allowed = "\"in-band\", or \"pause\" with a shape or with the disguise \"plain\"";
        let fix = "write rotate = \"in-band\", or add shape = \"32MiB/s\"";
        return Err(field.wrong(
            "a pause shows on the link, and the pair's disguise is to hide its keys",
            allowed,
            fix,
        ));
    }
    Ok(pair)
}

fn id(table: &mut Table<'_, '_>, key: &'static str, unique: &mut Unique) -> Result<[u8; 16], ConfigError> {
    let field = table.need(key, ID_FORM, "let `farseal pair create` write this section")?;
    let id = field.parsed(ID_FORM, parse_id)?;
    unique.add(&field, &format!("{id:02x?}"), key)?;
    Ok(id)
}

/// R26 as an option: not where access is by search alone, nor where this site holds no keys.
fn opens_on_arrival(table: &mut Table<'_, '_>, by_search: bool, holders: Holders) -> Result<bool, ConfigError> {
    let Some(field) = table.take("open-on-arrival") else { return Ok(false) };
    let opens = field.boolean()?;
    let fix = "write open-on-arrival = false, or remove this line";
    if opens && by_search {
        return Err(field.wrong("the pair's layout has its copy opened by search alone", "false with a layout", fix));
    }
    if opens && holders == Holders::Escrow {
        return Err(field.wrong(
            "the remote holds no keys to open it with",
            "false with key-holders = \"escrow\"",
            fix,
        ));
    }
    Ok(opens)
}

/// Not an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is no id")]
pub(crate) struct NoId;

pub(crate) fn parse_id(text: &str) -> Result<[u8; 16], NoId> {
    let number = u128::from_str_radix(text, 16).map_err(|_| NoId)?;
    let sound = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit()) && number != 0;
    if sound { Ok(number.to_be_bytes()) } else { Err(NoId) }
}

fn block_bytes(field: &Field<'_, '_>) -> Result<BlockBytes, ConfigError> {
    let form = "512, 1024, 2048, 4096, 8192, 16384, 32768 or 65536; the same at both sites";
    let number = field.integer(form)?;
    let block = u32::try_from(number).ok().and_then(|number| BlockBytes::new(number).ok());
    block.ok_or_else(|| field.wrong("no block has this size", form, "write block-bytes = 4096"))
}

fn peer<'c>(table: &mut Table<'_, '_>, peers: &'c [Peer]) -> Result<&'c Peer, ConfigError> {
    let field = table.need("peer", "the name of a [[peer]]", "add peer = \"NAME\" and a [[peer]] section")?;
    let name = field.text("the name of a [[peer]]")?;
    peers.iter().find(|peer| peer.name == name).ok_or_else(|| {
        let allowed = listed("the name of a [[peer]]", peers.iter().map(|peer| peer.name.as_str()));
        field.wrong(
            "there is no such [[peer]]",
            &allowed,
            "correct the name, or add a [[peer]] section with the peer's card",
        )
    })
}

/// Of a side: `volume`, `size` and `image`.
type SideFields<'s, 'a> = (Option<Field<'s, 'a>>, Option<Field<'s, 'a>>, Option<Field<'s, 'a>>);

fn side(
    table: &mut Table<'_, '_>,
    context: &mut Context<'_>,
    (pair, ranges): (&str, &[ByteRange]),
    peer: &Peer,
    block: BlockBytes,
) -> Result<PairSide, ConfigError> {
    let roles = "\"primary\" where initiators write, \"secondary\" where the copy is kept";
    let field = table.need("role", roles, "add role = \"primary\" or role = \"secondary\"")?;
    let primary = field.one_of(&[("primary", true), ("secondary", false)])?;
    let (volume, bytes) = (table.take("volume"), table.take("size"));
    let image = table.take("image");
    if primary {
        primary_side(table, context, (pair, ranges), peer, (volume, bytes, image))
    } else {
        if let Some(field) = table.take("range").filter(|_| !ranges.is_empty()) {
            let fix = "remove it; the size is what the ranges have together";
            return Err(field.wrong("ranges are named where initiators write", "range on a primary", fix));
        }
        secondary_side(table, context, pair, block, (volume, bytes, image))
    }
}

fn primary_side(
    table: &Table<'_, '_>,
    context: &mut Context<'_>,
    pair: (&str, &[ByteRange]),
    peer: &Peer,
    (volume, bytes, image): SideFields<'_, '_>,
) -> Result<PairSide, ConfigError> {
    if let Some(field) = bytes {
        let fix = "remove it; the size belongs to the [[volume]]";
        return Err(field.wrong("a primary has the size of its volume", "size on a secondary", fix));
    }
    if let Some(field) = image {
        let fix = "remove it; a primary's image is its [[volume]]";
        return Err(field.wrong("a primary opens nothing of a copy", "image on a secondary", fix));
    }
    let form = "the name of a [[volume]]";
    let field =
        volume.ok_or_else(|| table.missing("volume", form, "add volume = \"NAME\" and a [[volume]] section"))?;
    let name = field.text(form)?;
    let Some(found) = context.volumes.iter().find(|volume| volume.name == name) else {
        let allowed = listed(form, context.volumes.iter().map(|volume| volume.name.as_str()));
        return Err(field.wrong(
            "there is no such [[volume]]",
            &allowed,
            "correct the name, or add a [[volume]] section",
        ));
    };
    context.copied.add(table, &field, pair, found)?;
    if peer.addresses.is_empty() {
        let wrong = format!("peer {} has no addresses, and a primary connects to its secondary", peer.name);
        let fix = format!("add addresses = [\"HOST:PORT\"] to the [[peer]] {}", peer.name);
        return Err(field.wrong(&wrong, "a peer with addresses", &fix));
    }
    Ok(PairSide::Primary { volume: name.to_owned() })
}

fn secondary_side(
    table: &Table<'_, '_>,
    context: &mut Context<'_>,
    pair: &str,
    block: BlockBytes,
    (volume, bytes, image): SideFields<'_, '_>,
) -> Result<PairSide, ConfigError> {
    let image = image.map(|field| self::image(context, &field)).transpose()?;
    let form = "the size of the primary's volume, as in \"10GiB\"";
    let field = bytes.ok_or_else(|| table.missing("size", form, "copy it from the invitation"))?;
    let size = size(&field)?;
    let most = VOLUME_BLOCKS_MAX.byte_len(block);
    if !size.0.is_multiple_of(block.as_u64()) || size > most {
        let allowed = format!("whole blocks of {} bytes, at most {}", block.get(), size_text(most));
        return Err(field.wrong("the size does not go with block-bytes", &allowed, "copy both from the invitation"));
    }
    if context.link.listen.is_none() {
        let allowed = "a secondary on a node with [link] listen";
        return Err(field.wrong(
            "primaries cannot connect to this node",
            allowed,
            "add listen = \"0.0.0.0:7440\" to [link]",
        ));
    }
    let export = match volume {
        Some(field) => {
            let export = name(&field)?;
            if context.volumes.iter().any(|volume| volume.name == export) {
                let fix = "choose another name, or remove the line: the pair's name is taken then";
                return Err(field.wrong("a [[volume]] has this name", "the export's name after a takeover", fix));
            }
            context.exports.add(&field, &export, "export name")?;
            export
        }
        None => pair.to_owned(),
    };
    Ok(PairSide::Secondary { export, size, image })
}

fn image(context: &mut Context<'_>, field: &Field<'_, '_>) -> Result<PathBuf, ConfigError> {
    let path = context.base.path(field)?;
    context.images.add(field, &path.display().to_string(), "file")?;
    Ok(path)
}

fn way(table: &mut Table<'_, '_>) -> Result<(Transfer, u16), ConfigError> {
    let words = [("ordered", Transfer::Ordered), ("scheduled", Transfer::Scheduled)];
    let transfer = table.take("transfer").map(|field| field.one_of(&words)).transpose()?;
    let transfer = transfer.unwrap_or(Transfer::Ordered);
    let Some(field) = table.take("paths") else { return Ok((transfer, 1)) };
    let form = "1 to 16 connections";
    let paths = u16::try_from(field.integer(form)?).ok().filter(|paths| (1..=PATHS_MAX).contains(paths));
    let paths = paths.ok_or_else(|| field.wrong("a link does not have so many paths", form, "write paths = 1"))?;
    Ok((transfer, paths))
}

fn key_limits(table: &mut Table<'_, '_>) -> Result<KeyLimits, ConfigError> {
    let mut limits =
        KeyLimits { interval_min: ROTATION_INTERVAL_DEFAULT, age_max: KEY_AGE_MAX, bytes_max: KEY_BYTES_MAX };
    let Some(field) = table.take("key-limits") else { return Ok(limits) };
    let mut table = field.table("{ min-interval = \"1s\", max-age = \"30d\", max-bytes = \"16TiB\" }")?;
    if let Some(field) = table.take("max-age") {
        limits.age_max = span(&field, ROTATION_INTERVAL_DEFAULT, KEY_AGE_MAX)?;
    }
    if let Some(field) = table.take("min-interval") {
        limits.interval_min = span(&field, ROTATION_INTERVAL_MIN, limits.age_max)?;
    }
    if let Some(field) = table.take("max-bytes") {
        limits.bytes_max = size_within(&field, ByteLen(1 << 20), KEY_BYTES_MAX, "write max-bytes = \"16TiB\"")?;
    }
    table.finish()?;
    Ok(limits)
}

pub(super) fn span(field: &Field<'_, '_>, least: Millis, most: Millis) -> Result<Millis, ConfigError> {
    let span = field.parsed(SPAN_FORM, parse_span)?;
    if (least..=most).contains(&span) {
        return Ok(span);
    }
    let allowed = format!("{} to {}", span_text(least), span_text(most));
    Err(field.wrong("this is outside of the host's limits", &allowed, "choose a duration between them"))
}

fn journal_max(field: &Field<'_, '_>) -> Result<ByteLen, ConfigError> {
    size_within(field, JOURNAL_BYTES_MIN, ByteLen(1 << 50), "write journal-max = \"4GiB\"")
}

pub(super) fn size_within(
    field: &Field<'_, '_>,
    least: ByteLen,
    most: ByteLen,
    fix: &str,
) -> Result<ByteLen, ConfigError> {
    let size = bytes(field)?;
    if (least..=most).contains(&size) {
        return Ok(size);
    }
    let allowed = format!("{} to {}", size_text(least), size_text(most));
    Err(field.wrong("this is outside of the host's limits", &allowed, fix))
}

fn plugin(
    table: &mut Table<'_, '_>,
    context: &Context<'_>,
    slot: &'static str,
    default: &str,
    grants: &[(&str, Grant)],
) -> Result<PluginChoice, ConfigError> {
    let no_settings = || serde_json::Value::Object(serde_json::Map::new());
    let Some(field) = table.take(slot) else {
        let path = context.plugins.dir.join(format!("{default}.wasm"));
        let conformance = context.plugins.require_conformance.then(|| beside(&path));
        return Ok(PluginChoice {
            component: default.to_owned(),
            path,
            sha256: None,
            grants: vec![],
            config: no_settings(),
            conformance,
        });
    };
    let form = format!("{{ component = {default:?}, sha256 = \"..\" }}");
    let mut table = field.table(&form)?;
    let names = format!("a name in [plugins] dir, as in {default:?}, or a path that ends in .wasm");
    let component = table.need("component", &names, &format!("add component = {default:?}"))?;
    let text = component.text(&names)?;
    let path = match text {
        "" => {
            return Err(component.wrong("this names no component", &names, &format!("write component = {default:?}")));
        }
        text if text.contains('/') || text.ends_with(".wasm") => context.base.path(&component)?,
        text => context.plugins.dir.join(format!("{text}.wasm")),
    };
    let form = "the SHA-256 of the component's bytes, 64 hexadecimal digits";
    let sha256 = table.take("sha256").map(|field| pinned(&field, form)).transpose()?;
    let grants = match table.take("grants") {
        Some(field) => granted(&field, slot, grants)?,
        None => Vec::new(),
    };
    let config = match table.take("config") {
        Some(field) => {
            // Taken as it is: what it means is the plugin's business, so long as it is a table.
            field.table("a table of the plugin's own settings")?;
            field.json()?
        }
        None => no_settings(),
    };
    let conformance = match table.take("conformance") {
        Some(field) if field.text("a path, or \"none\"")? != "none" => Some(context.base.path(&field)?),
        Some(_) | None => context.plugins.require_conformance.then(|| beside(&path)),
    };
    table.finish()?;
    Ok(PluginChoice { component: text.to_owned(), path, sha256, grants, config, conformance })
}

fn pinned(field: &Field<'_, '_>, form: &str) -> Result<Digest, ConfigError> {
    let read = |text: &str| parse::<Digest>(text);
    let text = field.text(form)?;
    read(text).map_err(|error| field.wrong(&error, form, "copy it from `farseal plugin inspect FILE`"))
}

fn parse<T: FromStr<Err: Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: T::Err| error.to_string())
}

fn granted(field: &Field<'_, '_>, slot: &str, known: &[(&str, Grant)]) -> Result<Vec<Grant>, ConfigError> {
    let allowed = match known {
        [] => format!("none: a {slot} needs no grant"),
        known => known.iter().map(|(word, _)| format!("{word:?}")).collect::<Vec<_>>().join(", "),
    };
    let mut grants = Vec::new();
    for each in field.list(&allowed)? {
        let word = each.text(&allowed)?;
        let grant = known.iter().find(|(name, _)| *name == word).map(|(_, grant)| *grant);
        let grant = grant.ok_or_else(|| each.wrong("there is no such grant here", &allowed, "remove it"))?;
        if !grants.contains(&grant) {
            grants.push(grant);
        }
    }
    Ok(grants)
}

fn listed<'n>(what: &str, names: impl Iterator<Item = &'n str>) -> String {
    let names: Vec<&str> = names.take(8).collect();
    if names.is_empty() { format!("{what}; there is none") } else { format!("{what}: {}", names.join(", ")) }
}
