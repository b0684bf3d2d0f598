//! `farseal pair create`: a pair of a volume with a remote site, and the invitation that the site takes up

use std::fs::{self, File};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use farseal_core::flow::Rate;
use farseal_core::layout::{Field as KeyField, Form, Layout};
use farseal_core::rotation::How;
use farseal_core::units::{BlockBytes, ByteLen, PairId, VolumeId};

use super::{defaults, free_name, listening, named, read_card, transfer, unpinned};
use crate::cli::failure::{Exit, Failure};
use crate::cli::flow::TransferArg;
use crate::cli::invitation::{Invitation, OfferedEscrow};
use crate::cli::operate::ModeArg;
use crate::cli::{Place, identity, say, show};
use crate::config::sections::{
    BEAT, DEFAULT_CIPHER, DEFAULT_DISGUISE, DEFAULT_GROUP, DEFAULT_POLICY, DEFAULT_RECOVERY, is_name,
    parse_peer_address,
};
use crate::config::units::{RateError, parse_rate, parse_size};
use crate::config::write::{append, pair_section, peer_section, volume_section};
use crate::config::{Config, Holders, Pair, PairSide, Peer, PeerAddress, Pick, Transfer, Volume};
use crate::keys::card::PeerCard;
use crate::keys::tls::LinkMode;
use crate::range::{self, ByteRange, RANGE_FORM, RangeError};

/// `farseal pair create`.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct Create {
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

pub(super) fn create(place: &Place, create: &Create) -> Result<(), Failure> {
    if create.all_volumes { create_all(place, create) } else { create_one(place, create) }
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
        create_one(place, &one)?;
    }
    Ok(())
}

fn create_one(place: &Place, create: &Create) -> Result<(), Failure> {
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
    let pair = new_pair(&config, create, (&volume, &peer, escrow))?;
    let listen = listening(&config, create.listen)?;
    let invitation = invitation(&config, create, &pair, (size, &own, escrow));
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

/// The pair's section.
fn new_pair(
    config: &Config,
    create: &Create,
    (volume, peer, escrow): (&Volume, &Peer, Option<&Peer>),
) -> Result<Pair, Failure> {
    let (block_bytes, layout) = layout(create)?;
    Ok(Pair {
        escrow: escrow.map(|escrow| escrow.name.clone()),
        holders: match (escrow, create.key_holders) {
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
        ..defaults(config, [&create.cipher, &create.policy, &create.disguise, &create.recovery])?
    })
}

/// What the remote has to know of it.
fn invitation(
    config: &Config,
    create: &Create,
    pair: &Pair,
    (size, own, escrow): (ByteLen, &PeerCard, Option<&Peer>),
) -> Invitation {
    Invitation {
        addresses: own_addresses(config, create),
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
    }
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

/// Where the remote reaches this node. An address that stands for all of a machine's says nothing elsewhere.
fn own_addresses(config: &Config, create: &Create) -> Vec<PeerAddress> {
    if !create.own_address.is_empty() {
        return create.own_address.clone();
    }
    let listens = create.listen.or(config.link.listen).filter(|listens| !listens.ip().is_unspecified());
    listens.and_then(|listens| parse_peer_address(&listens.to_string()).ok()).into_iter().collect()
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

fn byte_range(text: &str) -> Result<ByteRange, String> {
    text.parse().map_err(|error: RangeError| format!("{error}: {RANGE_FORM}"))
}

fn block_bytes(text: &str) -> Result<BlockBytes, String> {
    let number: u32 = text.parse().map_err(|_| "a whole number is needed".to_owned())?;
    BlockBytes::new(number).map_err(|error| error.to_string())
}

fn random_id() -> Result<[u8; 16], Failure> {
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|error| Failure::of(&error))?;
    Ok(id)
}
