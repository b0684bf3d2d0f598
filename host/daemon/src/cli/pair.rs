//! `farseal pair`: cards, invitations, new pairs. Works on the configuration; a running node takes it up at its next start.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use farseal_core::flow::{Limits, Pacing, Rate};
use farseal_core::layout::{Field as KeyField, Form, Layout};
use farseal_core::limits::{JOURNAL_BYTES_MAX, KEY_AGE_MAX, KEY_BYTES_MAX, ROTATION_INTERVAL_DEFAULT};
use farseal_core::primary::Mode;
use farseal_core::rotation::{How, KeyLimits};
use farseal_core::units::{BlockBytes, ByteLen, PairId, VolumeId};
use farseal_plugin::Digest;

use super::failure::{Exit, Failure};
use super::flow::TransferArg;
use super::invitation::{INVITATION_BYTES_MAX, Invitation, OfferedEscrow};
use super::operate::ModeArg;
use super::{Place, agreed, identity, say, show};
use crate::config::sections::{
    BEAT, DEFAULT_CIPHER, DEFAULT_DISGUISE, DEFAULT_GROUP, DEFAULT_POLICY, DEFAULT_RECOVERY, is_name,
    parse_peer_address,
};
use crate::config::units::{RateError, parse_rate, parse_size};
use crate::config::write::{append, pair_section, peer_section, volume_section};
use crate::config::{Config, Holders, Pair, PairSide, Peer, PeerAddress, Pick, PluginChoice, Transfer, Volume};
use crate::keys::card::PeerCard;
use crate::keys::fingerprint::ShownFingerprint;
use crate::keys::tls::LinkMode;
use crate::range::{self, ByteRange, RANGE_FORM, RangeError};

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

/// `farseal pair create`.
#[derive(Debug, Clone, Args)]
pub(super) struct Create {
    /// What both sites call the pair, and the volume's export.
    #[arg(value_parser = named)]
    name: String,
    /// A file or a block device.
    #[arg(long, value_name = "PATH", required_unless_present = "all_volumes")]
    volume: Option<PathBuf>,
    /// The whole subsystem: a pair NAME-VOLUME for each configured volume that has none.
    #[arg(long, conflicts_with_all = ["volume", "size"])]
    all_volumes: bool,
    /// What of the volume is copied, as 0..10GiB; several times for several ranges. All of it unless given.
    #[arg(long, value_name = "FROM..TO", value_parser = byte_range, conflicts_with = "all_volumes")]
    range: Vec<ByteRange>,
    /// What the volume holds already and is copied: what may hold data, every block, or nothing.
    #[arg(long, value_enum, default_value = "used")]
    pick: PickArg,
    /// Make the file, this large, when the node starts.
    #[arg(long, value_parser = parse_size)]
    size: Option<ByteLen>,
    /// The remote node's card, from `farseal pair card` there.
    #[arg(long, value_name = "FILE")]
    peer_card: PathBuf,
    /// Where the remote node listens for links; once for each path.
    #[arg(long, value_name = "HOST:PORT", value_parser = parse_peer_address)]
    peer_address: Vec<PeerAddress>,
    /// Where this node listens for links, if the configuration does not say yet: needed for the sites to change sides.
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// Where the remote node reaches this one; --listen's address unless given.
    #[arg(long, value_name = "HOST:PORT", value_parser = parse_peer_address)]
    own_address: Vec<PeerAddress>,
    /// The group that the pair is cut, paused and taken over with; its pairs may be on several nodes of the site.
    #[arg(long, default_value = DEFAULT_GROUP, value_parser = named)]
    group: String,
    /// The pair's escrow site, by the name that `farseal escrow add` gave it: no key is used before it is deposited there.
    #[arg(long, value_name = "NAME", conflicts_with = "no_encrypt")]
    escrow: Option<String>,
    /// With an escrow site: who can open the copy, that site alone, or the secondary too.
    #[arg(long, value_enum, default_value = "escrow", requires = "escrow")]
    key_holders: HoldersArg,
    /// Send records as they are.
    #[arg(long)]
    no_encrypt: bool,
    /// When initiators are answered: "async", "sync-flush" or "sync".
    #[arg(long, value_enum, default_value = "async")]
    mode: ModeArg,
    /// The copy need not follow in the order of the writes: what is written often is sent once a minute.
    #[arg(long)]
    unordered_writes: bool,
    /// How the key changes unless the policy says.
    #[arg(long, value_enum, default_value = "in-band")]
    rotate: Rotate,
    /// What each path of the link shows all the time, as in "32MiB/s"; needed to pause for a key with a disguise.
    #[arg(long, default_value = "none", value_parser = parse_shape)]
    shape: Shape,
    /// What the records cross: "tls", anything; "san", a trusted fabric, where what is sealed is not sealed twice.
    #[arg(long, value_enum, default_value = "tls")]
    link: LinkArg,
    /// Bytes of a seal unit: 512 to 65536, a power of two. 4096 unless given, or the largest below it that divides a record.
    #[arg(long, value_parser = block_bytes)]
    block_bytes: Option<BlockBytes>,
    /// The volume is made of records of so many bytes, whole blocks, which a search of the copy may find; needs --field.
    #[arg(long, value_name = "BYTES", requires = "field", conflicts_with = "no_encrypt")]
    record_bytes: Option<u32>,
    /// A key field of a record: NAME:OFFSET:LENGTH, and :FORM unless it is "raw": "text", "text-no-case", "number-le" or "number-be".
    #[arg(long, value_name = "FIELD", value_parser = key_field, requires = "record_bytes")]
    field: Vec<KeyField>,
    /// Connections of the link, 1 to 16; more than one sends in any order unless --transfer says otherwise.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=16))]
    paths: u16,
    /// "ordered": over one path, the others stand by; "scheduled": over every path, in any order.
    #[arg(long, value_enum)]
    transfer: Option<TransferArg>,
    #[arg(long, default_value = DEFAULT_CIPHER)]
    /// What seals the blocks.
    cipher: String,
    #[arg(long, default_value = DEFAULT_POLICY)]
    /// When the key changes.
    policy: String,
    #[arg(long, default_value = DEFAULT_DISGUISE)]
    /// How a key travels unseen.
    disguise: String,
    #[arg(long, default_value = DEFAULT_RECOVERY)]
    /// How the copy is opened.
    recovery: String,
    /// Where the invitation is written; NAME.invitation unless given. With --all-volumes, the folder for all of them.
    #[arg(long, value_name = "FILE")]
    invitation: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LinkArg {
    Tls,
    San,
}

impl From<LinkArg> for LinkMode {
    fn from(link: LinkArg) -> Self {
        match link {
            LinkArg::Tls => Self::Tls,
            LinkArg::San => Self::San,
        }
    }
}

/// A rate, or none.
#[derive(Debug, Clone, Copy)]
struct Shape(Option<Rate>);

fn parse_shape(text: &str) -> Result<Shape, RateError> {
    parse_rate(text).map(Shape)
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Rotate {
    InBand,
    Pause,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum HoldersArg {
    /// Keys come back only when a person at the escrow approves it.
    Escrow,
    /// The secondary opens the copy without asking, too.
    Both,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum PickArg {
    /// What may hold data.
    Used,
    /// Every block.
    All,
    /// Nothing: only what is written from the pair's first start on.
    Written,
}

impl From<PickArg> for Pick {
    fn from(pick: PickArg) -> Self {
        match pick {
            PickArg::Used => Self::Used,
            PickArg::All => Self::All,
            PickArg::Written => Self::Written,
        }
    }
}

/// `farseal pair accept`.
#[derive(Debug, Args)]
pub(super) struct Accept {
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

pub(super) fn pair(place: &Place, command: PairCommand) -> Result<(), Failure> {
    match command {
        PairCommand::Card => {
            let card = identity::card(&place.config()?).map_err(|error| Failure::of(&error))?;
            say(&card.to_string())
        }
        PairCommand::Create(create) if create.all_volumes => create_all(place, &create),
        PairCommand::Create(create) => self::create(place, &create),
        PairCommand::Accept(accept) => self::accept(place, &accept),
        PairCommand::List => list(&place.config()?),
    }
}

/// A pair for each volume that has none, one after the other: what is made stays made if a later one cannot be.
fn create_all(place: &Place, create: &Create) -> Result<(), Failure> {
    let config = place.config()?;
    let copied =
        |volume: &Volume| config.pairs.iter().any(|pair| pair.is_primary() && pair.volume_name() == volume.name);
    let free: Vec<&Volume> = config.volumes.iter().filter(|volume| !copied(volume)).collect();
    if free.is_empty() {
        let next = "add [[volume]] sections, or give --volume PATH";
        return Err(Failure::new(Exit::Refused, "every configured volume has a pair, or there is none", next));
    }
    for volume in free {
        let name = format!("{}-{}", create.name, volume.name);
        named(&name)
            .map_err(|form| Failure::new(Exit::Failed, format!("pair name {name}: {form}"), "choose a shorter NAME"))?;
        let invitation = create.invitation.as_ref().map(|folder| folder.join(format!("{name}.invitation")));
        let volume = Some(volume.path.clone());
        let one = Create { name, volume, all_volumes: false, invitation, ..create.clone() };
        self::create(place, &one)?;
    }
    Ok(())
}

fn create(place: &Place, create: &Create) -> Result<(), Failure> {
    let config = place.config()?;
    let own = identity::card(&config).map_err(|error| Failure::of(&error))?;
    let card = read_card(&create.peer_card)?;
    if card.fingerprint() == own.fingerprint() {
        let next = "run `farseal pair card` on the remote node and give that file";
        return Err(Failure::new(Exit::Failed, "this is this node's own card", next));
    }
    let volume = volume(&config, create)?;
    let size = match (volume_size(&volume, create)?, &create.range[..]) {
        (size, []) => size,
        (size, ranges) => inside(&volume, size, ranges)?,
    };
    let (peer, new_peer) = peer(&config, create, card)?;
    let escrow = escrow(&config, create)?;
    let (block_bytes, layout) = layout(create)?;
    let pair = Pair {
        escrow: escrow.as_ref().map(|escrow| escrow.name.clone()),
        holders: match (&escrow, create.key_holders) {
            (None, _) => Holders::Secondary,
            (Some(_), HoldersArg::Escrow) => Holders::Escrow,
            (Some(_), HoldersArg::Both) => Holders::Both,
        },
        name: create.name.clone(),
        id: PairId(random_id()?),
        volume_id: VolumeId(random_id()?),
        peer: peer.name.clone(),
        group: create.group.clone(),
        side: PairSide::Primary { volume: volume.name.clone() },
        ranges: create.range.clone(),
        encrypted: !create.no_encrypt,
        block_bytes,
        layout,
        paths: create.paths,
        transfer: create.transfer.map_or_else(|| transfer(create.paths > 1), Into::into),
        pick: create.pick.into(),
        mode: create.mode.into(),
        ordered: !create.unordered_writes,
        rotate: match create.rotate {
            Rotate::InBand => How::InBand,
            Rotate::Pause => How::Pause,
        },
        shape: create.shape.0,
        link: create.link.into(),
        ..defaults(&config, [&create.cipher, &create.policy, &create.disguise, &create.recovery])?
    };
    let listen = listening(&config, create.listen)?;
    let invitation = Invitation {
        addresses: own_addresses(&config, create),
        pair: pair.name.clone(),
        group: pair.group.clone(),
        id: pair.id,
        volume_id: pair.volume_id,
        size,
        block_bytes: pair.block_bytes,
        layout: pair.layout.clone(),
        encrypted: pair.encrypted,
        scheduled: pair.transfer == Transfer::Scheduled,
        paths: pair.paths,
        san: pair.link == LinkMode::San,
        card: own.clone(),
        disguise: Some(create.disguise.clone()).filter(|name| is_name(name) && !name.ends_with(".wasm")),
        escrow: escrow.map(|escrow| OfferedEscrow {
            card: escrow.card.clone(),
            addresses: escrow.addresses.clone(),
            both: create.key_holders == HoldersArg::Both,
        }),
    };
    let mut sections = String::new();
    if new_peer {
        sections.push_str(&peer_section(&peer));
    }
    if config.volume(&volume.name).is_none() {
        sections.push_str(&volume_section(&volume));
    }
    sections.push_str(&pair_section(&pair));

    let file = create.invitation.clone().unwrap_or_else(|| PathBuf::from(format!("{}.invitation", pair.name)));
    let mut written = File::create_new(&file).map_err(|error| Failure::file(&file, &error))?;
    let config = append(&config.file, listen, &sections).inspect_err(|_| drop(fs::remove_file(&file)))?;
    let kept = written.write_all(invitation.to_string().as_bytes()).and_then(|()| written.sync_all());
    kept.map_err(|error| Failure::file(&file, &error))?;

    say(&format!(
        "pair {} of {} ({}) with {} is in {}\n{}\
         invitation for the remote site: {}\n\
         next: there, `farseal pair accept {}`; read it this node's fingerprint: {}\n      \
         then start both nodes, or restart them, with `farseal run`\n",
        pair.name,
        volume.path.display(),
        show::size(size),
        peer.name,
        config.file.display(),
        unpinned(&pair),
        file.display(),
        file.file_name().unwrap_or_default().to_string_lossy(),
        own.fingerprint(),
    ))
}

fn accept(place: &Place, accept: &Accept) -> Result<(), Failure> {
    let config = place.config()?;
    let text = read_small(&accept.invitation)?;
    let invitation: Invitation = text.parse().map_err(|error| of_file(&accept.invitation, &error))?;
    if !is_name(&invitation.pair) || !is_name(&invitation.group) {
        return Err(Failure::new(Exit::Failed, "the invitation's names are unsound", "ask for another one"));
    }
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
    match same {
        Some(true) => {}
        Some(false) => {
            let next = "ask the main site for its fingerprint and a new invitation, over a way you trust";
            return Err(Failure::new(
                Exit::Refused,
                "the fingerprint is not the main site's; nothing was changed",
                next,
            ));
        }
        None => {
            let next = "give --fingerprint with what the main site's operator reads out";
            return Err(Failure::new(Exit::Refused, "nobody is here to compare fingerprints", next));
        }
    }
    let known = config.peers.iter().find(|peer| peer.card.fingerprint() == fingerprint);
    let peer = match known {
        Some(peer) => peer.clone(),
        None => {
            let name = free_name(&config, invitation.card.node.as_str());
            Peer { name, addresses: invitation.addresses.clone(), card: invitation.card, beat: BEAT }
        }
    };
    let mut sections = if known.is_none() { peer_section(&peer) } else { String::new() };
    let (escrow, holders) = match invitation.escrow {
        Some(offered) => {
            let (name, section) = escrow_peer(&config, &peer.name, &offered)?;
            sections.push_str(&section);
            (Some(name), if offered.both { Holders::Both } else { Holders::Escrow })
        }
        None => (None, Holders::Secondary),
    };
    // A name, never a path: whoever invites does not choose a file here.
    let disguise = invitation
        .disguise
        .filter(|name| is_name(name) && !name.ends_with(".wasm"))
        .unwrap_or_else(|| DEFAULT_DISGUISE.to_owned());
    let listen = listening(&config, accept.listen)?;
    if config.link.listen.is_none() && listen.is_none() {
        let next = "give --listen, as in --listen 0.0.0.0:7440";
        return Err(Failure::new(Exit::Failed, "primaries cannot connect to this node: [link] has no listen", next));
    }
    let pair = Pair {
        name: invitation.pair.clone(),
        id: invitation.id,
        volume_id: invitation.volume_id,
        peer: peer.name.clone(),
        escrow,
        holders,
        group: invitation.group,
        side: PairSide::Secondary { export: invitation.pair, size: invitation.size },
        encrypted: invitation.encrypted,
        block_bytes: invitation.block_bytes,
        layout: invitation.layout,
        paths: invitation.paths,
        link: if invitation.san { LinkMode::San } else { LinkMode::Tls },
        transfer: transfer(invitation.scheduled),
        ..defaults(&config, [DEFAULT_CIPHER, DEFAULT_POLICY, &disguise, &accept.recovery])?
    };
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

/// The seal unit, and the record layout over it.
fn layout(create: &Create) -> Result<(BlockBytes, Option<Layout>), Failure> {
    let Some(record) = create.record_bytes else {
        return Ok((create.block_bytes.unwrap_or(BlockBytes::DEFAULT), None));
    };
    let largest = 1 << record.trailing_zeros().min(BlockBytes::DEFAULT.get().trailing_zeros());
    let block = create.block_bytes.or_else(|| BlockBytes::new(largest).ok()).unwrap_or(BlockBytes::DEFAULT);
    let layout = Layout::new(record, block, create.field.clone());
    let next = "correct --record-bytes, --field or --block-bytes";
    let layout = layout.map_err(|error| Failure::new(Exit::Failed, error.to_string(), next))?;
    Ok((block, Some(layout)))
}

/// NAME:OFFSET:LENGTH[:FORM]
fn key_field(text: &str) -> Result<KeyField, String> {
    let form = || format!("{text:?} is not NAME:OFFSET:LENGTH or NAME:OFFSET:LENGTH:FORM");
    let words: Vec<&str> = text.split(':').collect();
    let (name, offset, length, word) = match words[..] {
        [name, offset, length] => (name, offset, length, Form::Raw.word()),
        [name, offset, length, word] => (name, offset, length, word),
        _ => return Err(form()),
    };
    let number = |digits: &str| digits.parse().map_err(|_| form());
    let known = Form::ALL.into_iter().find(|form| form.word() == word);
    let known = known.ok_or_else(|| format!("{word:?} is none of {}", Form::ALL.map(Form::word).join(", ")))?;
    Ok(KeyField { name: name.to_owned(), offset: number(offset)?, length: number(length)?, form: known })
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

/// Where the remote reaches this node. An address that stands for all of a machine's says nothing elsewhere.
fn own_addresses(config: &Config, create: &Create) -> Vec<PeerAddress> {
    if !create.own_address.is_empty() {
        return create.own_address.clone();
    }
    let listens = create.listen.or(config.link.listen).filter(|listens| !listens.ip().is_unspecified());
    listens.and_then(|listens| parse_peer_address(&listens.to_string()).ok()).into_iter().collect()
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

/// The `[[volume]]` with this path, or a new one with the pair's name.
fn volume(config: &Config, create: &Create) -> Result<Volume, Failure> {
    let given = create.volume.clone().unwrap_or_default();
    let path = std::path::absolute(&given).map_err(|error| Failure::file(&given, &error))?;
    let path = fs::canonicalize(&path).unwrap_or(path);
    if let Some(volume) = config.volumes.iter().find(|volume| volume.path == path) {
        return Ok(volume.clone());
    }
    Ok(Volume { name: create.name.clone(), path, size: create.size, description: String::new() })
}

fn volume_size(volume: &Volume, create: &Create) -> Result<ByteLen, Failure> {
    let found = match File::open(&volume.path) {
        // Seeking to the end also measures block devices, whose metadata say 0.
        Ok(mut file) => Some(file.seek(SeekFrom::End(0)).map_err(|error| Failure::file(&volume.path, &error))?),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(Failure::file(&volume.path, &error)),
    };
    let path = volume.path.display();
    let size = match (found.map(ByteLen), volume.size.or(create.size)) {
        (None, None) => {
            let next = "give --size, as in --size 10GiB, to have it made";
            return Err(Failure::new(Exit::Failed, format!("{path} does not exist"), next));
        }
        (Some(has), Some(given)) if has != given => {
            let message = format!("{path} has {} bytes already, not {}", has.0, given.0);
            return Err(Failure::new(Exit::Failed, message, "leave --size out, or choose another path"));
        }
        (Some(size), _) | (None, Some(size)) => size,
    };
    let (block, _) = layout(create)?;
    let ragged = size.0 == 0 || !size.0.is_multiple_of(block.as_u64());
    if ragged && create.range.is_empty() {
        let block = block.get();
        let message = format!("{path} has {} bytes: not whole blocks of {block}", size.0);
        return Err(Failure::new(Exit::Failed, message, "round its size up, or give a smaller --block-bytes"));
    }
    Ok(size)
}

/// What the ranges have together.
fn inside(volume: &Volume, size: ByteLen, ranges: &[ByteRange]) -> Result<ByteLen, Failure> {
    match ranges.iter().find(|range| range.end > size.0) {
        Some(range) => {
            let message = format!("range {range} ends beyond {}, which has {} bytes", volume.path.display(), size.0);
            Err(Failure::new(Exit::Failed, message, "correct the range"))
        }
        None => Ok(range::bytes(ranges)),
    }
}

/// The `[[peer]]` with this card, or a new one; and whether it is new.
fn peer(config: &Config, create: &Create, card: PeerCard) -> Result<(Peer, bool), Failure> {
    let known = config.peers.iter().find(|peer| peer.card.fingerprint() == card.fingerprint());
    if let Some(known) = known.filter(|known| !known.addresses.is_empty()) {
        if !create.peer_address.is_empty() && create.peer_address != known.addresses {
            let message = format!("peer {} is configured with other addresses", known.name);
            return Err(Failure::new(Exit::Failed, message, "leave --peer-address out, or change the configuration"));
        }
        return Ok((known.clone(), false));
    }
    if create.peer_address.is_empty() {
        let next = "give --peer-address HOST:PORT, where the remote listens for links";
        return Err(Failure::new(Exit::Usage, format!("no address of {}", card.node), next));
    }
    if let Some(known) = known {
        let addresses: Vec<String> = create.peer_address.iter().map(|address| format!("\"{address}\"")).collect();
        let next = format!("add addresses = [{}] to its section", addresses.join(", "));
        return Err(Failure::new(Exit::Failed, format!("peer {} is configured without addresses", known.name), next));
    }
    let name = free_name(config, card.node.as_str());
    Ok((Peer { name, addresses: create.peer_address.clone(), card, beat: BEAT }, true))
}

/// The pair's escrow site, which the configuration knows already.
fn escrow<'c>(config: &'c Config, create: &Create) -> Result<Option<&'c Peer>, Failure> {
    let Some(name) = &create.escrow else { return Ok(None) };
    match config.peer(name).filter(|peer| !peer.addresses.is_empty()) {
        Some(peer) => Ok(Some(peer)),
        None => {
            let next = "run `farseal escrow add ESCROW.card --address HOST:PORT` first";
            Err(Failure::new(Exit::Failed, format!("no escrow {name} with addresses is configured"), next))
        }
    }
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

/// The node's own name, or with a number where another peer has it.
pub(super) fn free_name(config: &Config, node: &str) -> String {
    let node: String = node.chars().take(58).collect();
    let mut names = std::iter::once(node.clone()).chain((2..).map(|number: u32| format!("{node}-{number}")));
    names.find(|name| config.peer(name).is_none()).unwrap_or(node)
}

const fn transfer(scheduled: bool) -> Transfer {
    if scheduled { Transfer::Scheduled } else { Transfer::Ordered }
}

fn random_id() -> Result<[u8; 16], Failure> {
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|error| Failure::of(&error))?;
    Ok(id)
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

fn byte_range(text: &str) -> Result<ByteRange, String> {
    text.parse().map_err(|error: RangeError| format!("{error}: {RANGE_FORM}"))
}

fn named(text: &str) -> Result<String, String> {
    let form = "1 to 63 characters of a-z, A-Z, 0-9, '.', '_' and '-', first a letter or digit";
    if is_name(text) { Ok(text.to_owned()) } else { Err(form.to_owned()) }
}

fn block_bytes(text: &str) -> Result<BlockBytes, String> {
    let number: u32 = text.parse().map_err(|_| "a whole number is needed".to_owned())?;
    BlockBytes::new(number).map_err(|error| error.to_string())
}
