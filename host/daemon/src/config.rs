//! What a node is told to be: one TOML file, read whole, checked whole, into the words of core.
//!
//! ```text
//! example   the annotated file that `farseal init` writes; it names every field that `read` accepts
//! read      the file's tables and fields, each taken once; what nobody took is an error
//! sections  tables into the types below, and the rules between sections
//! units     "64MiB", "15m"
//! write     sections that `farseal pair` appends
//! problem   what is wrong: file, line, field, value, what is allowed, the fix
//! ```

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

pub use farseal_core::flow::Transfer;
use farseal_core::flow::{Limits, Pacing, Rate};
use farseal_core::layout::Layout;
use farseal_core::points::Terms;
use farseal_core::primary::Mode;
use farseal_core::rotation::{How, KeyLimits};
use farseal_core::units::{BlockBytes, ByteLen, Millis, PairId, VolumeId};
use farseal_plugin::{Digest, Grant};

use crate::control::api::PluginSlot;
use crate::keys::card::{NodeName, PeerCard};
use crate::keys::tls::LinkMode;
use crate::range::ByteRange;

pub mod example;
pub mod problem;
mod read;
pub(crate) mod sections;
pub mod units;
pub mod write;

use problem::ConfigError;

/// Bytes of a configuration file at most: 1 024 pairs with hybrid cards take a quarter of it.
pub const CONFIG_BYTES_MAX: u64 = 16 << 20;

/// A node's configuration, checked. Relative paths in the file count from the file's folder and are resolved here.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file that it was read from.
    pub file: PathBuf,
    /// `[node]`.
    pub node: Node,
    /// `[secrets]`.
    pub secrets: Secrets,
    /// `[nbd]`.
    pub nbd: Nbd,
    /// `[link]`.
    pub link: Link,
    /// `[escrow]`: this node keeps keys for other sites, and no data.
    pub escrow: Option<EscrowRole>,
    /// `[site]`.
    pub site: Site,
    /// `[metrics]`.
    pub metrics: Metrics,
    /// `[plugins]`.
    pub plugins: Plugins,
    /// `[[peer]]`; names are unique.
    pub peers: Vec<Peer>,
    /// `[[volume]]`; names and paths are unique.
    pub volumes: Vec<Volume>,
    /// `[[pair]]`; names and ids are unique, peers and volumes exist.
    pub pairs: Vec<Pair>,
    /// `[[group]]`; names are unique. Groups that say nothing need no section.
    pub groups: Vec<Group>,
}

/// Who the node is, and where its own files lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// As in its card.
    pub name: NodeName,
    /// Journals, logs, indexes, the identity.
    pub state_dir: PathBuf,
    /// The Unix socket that the CLI talks to.
    pub control_socket: PathBuf,
    /// What becomes of a start when keys could get into swap.
    pub keys_in_swap: SwapRule,
    /// The form of log lines.
    pub log: LogForm,
    /// Which log lines, in the syntax of `RUST_LOG`: `info`, or `warn,farseal::link=debug`.
    pub log_filter: String,
}

/// What is done about keys in swap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SwapRule {
    /// Memory is locked; where it cannot be, the log says so.
    Avoided,
    /// Where it cannot be, the node does not start.
    Refused,
    /// Nothing is locked.
    Accepted,
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogForm {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What the node's secret is sealed under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Secrets {
    /// A file that holds a passphrase; the identity lies sealed under it in the state folder.
    PassphraseFile(PathBuf),
    /// systemd hands the identity to the service, as the credential `farseal`.
    Credential,
}

/// Where initiators connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nbd {
    /// In the order of the file. Empty: no volume is exported.
    pub listen: Vec<NbdListen>,
    /// What the TCP listeners do about TLS.
    pub tls: NbdTls,
}

/// A place that initiators connect to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum NbdListen {
    /// `unix:PATH`. Never speaks TLS.
    Unix(PathBuf),
    /// `tcp:HOST:PORT`.
    Tcp(SocketAddr),
}

/// What TCP listeners do about TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NbdTls {
    /// STARTTLS is refused.
    Off,
    /// STARTTLS is at the client's option.
    Allowed(NbdTlsFiles),
    /// Nothing works before STARTTLS.
    Required(NbdTlsFiles),
}

/// PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NbdTlsFiles {
    /// The server's certificate first, then its chain.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Clients must show a certificate that one of these signed.
    pub client_ca: Option<PathBuf>,
}

/// Where primaries connect to this node's secondaries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// `None`: nobody can connect; right for a node that has no secondary.
    pub listen: Option<SocketAddr>,
}

/// Who leads this site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Site {
    /// This node; it holds the site's control information.
    Leads {
        /// Where the site's other nodes connect. `None`: this node is alone.
        listen: Option<SocketAddr>,
        /// The `[[peer]]`s that are nodes of this site.
        members: Vec<String>,
    },
    /// Another node.
    Follows {
        /// Its `[[peer]]`, which has addresses.
        lead: String,
    },
}

/// What the lead knows of a group beside its pairs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// What `[[pair]]`s call it.
    pub name: String,
    /// Between two cuts; `None`: none are made by themselves.
    pub cuts: Option<Millis>,
}

/// Where Prometheus may scrape. The control socket always serves `/metrics`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metrics {
    /// `None`: on the control socket alone.
    pub listen: Option<SocketAddr>,
}

/// Where components lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plugins {
    /// A component without a path, such as `interval`, is `interval.wasm` in here.
    pub dir: PathBuf,
    /// Every component needs a result of the conformance kit.
    pub require_conformance: bool,
}

/// Another node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// What this file calls it.
    pub name: String,
    /// One for each path to it. Empty where it connects to us.
    pub addresses: Vec<PeerAddress>,
    /// Its public keys.
    pub card: PeerCard,
    /// Where it is an escrow: how often a cell goes to it, with something in it or nothing.
    pub beat: Millis,
}

/// A node that keeps keys for the sites of its `[[peer]]` sections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EscrowRole {
    /// Where sites connect.
    pub listen: SocketAddr,
}

/// Who, besides the site that seals, holds a pair's keys (R25).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Holders {
    /// The site that keeps the copy: it opens it without asking anyone.
    #[default]
    Secondary,
    /// The escrow site alone: whoever takes the copy opens nothing.
    Escrow,
    /// Either can.
    Both,
}

impl std::fmt::Display for Holders {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Secondary => "secondary",
            Self::Escrow => "escrow",
            Self::Both => "both",
        })
    }
}

/// `HOST:PORT`; the host may be a name, an IPv4 address, or an IPv6 address in brackets.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PeerAddress {
    /// Without brackets.
    pub host: String,
    /// Never 0.
    pub port: u16,
}

/// A block device image that this node exports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// The NBD export's name.
    pub name: String,
    /// A file or a block device.
    pub path: PathBuf,
    /// The size of a file that is made when it does not exist; `None`: it exists and its own size counts.
    pub size: Option<ByteLen>,
    /// For people; NBD shows it.
    pub description: String,
}

/// Which side of a pair this node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PairSide {
    /// Initiators write here.
    Primary {
        /// The `[[volume]]` that is copied.
        volume: String,
    },
    /// The copy is kept here.
    Secondary {
        /// The export's name after a takeover. No `[[volume]]` has it.
        export: String,
        /// Bytes of the volume; whole blocks.
        size: ByteLen,
        /// The file that what is opened of the copy is put into; none: one in the pair's folder.
        image: Option<PathBuf>,
    },
}

/// A volume and its copy.
#[derive(Debug, Clone, PartialEq)]
pub struct Pair {
    /// What the CLI calls it.
    pub name: String,
    /// The same at both sites.
    pub id: PairId,
    /// The same at both sites.
    pub volume_id: VolumeId,
    /// The `[[peer]]` with the other side.
    pub peer: String,
    /// The `[[peer]]` that is the pair's escrow site.
    pub escrow: Option<String>,
    /// Who holds the keys. With an escrow site exactly where it is one of them. The same at both sites.
    pub holders: Holders,
    /// Pairs of one group are cut, paused and taken over together.
    pub group: String,
    /// This side.
    pub side: PairSide,
    /// Primary: what of the volume is the pair's, in the order of the volume; all of it where nothing is named.
    pub ranges: Vec<ByteRange>,
    /// Are records sealed? The same at both sites.
    pub encrypted: bool,
    /// The seal unit. The same at both sites.
    pub block_bytes: BlockBytes,
    /// How initiators' records look, where the copy is to be opened by search. The same at both sites, for the pair's life.
    pub layout: Option<Layout>,
    /// Connections of the link, at least 1; spread over the peer's addresses. In order, one carries, the others stand by.
    pub paths: u16,
    /// The order in which records travel, until an operator chooses another.
    pub transfer: Transfer,
    /// When initiators are answered, until an operator chooses another mode.
    pub mode: Mode,
    /// The copy follows in the order of the writes. Else a place that is written often is sent once in a while, and the
    /// copy offers moments at which nothing was owed. Only in mode `Async`, and in a group of its own.
    pub ordered: bool,
    /// The way of rotations that do not say another. Never [`How::AtOnce`].
    pub rotate: How,
    /// The host's limits around the policy. Inside the absolute ones.
    pub key_limits: KeyLimits,
    /// Bytes of the journal before what it holds for the secondary goes to the dirty map.
    pub journal_max: ByteLen,
    /// For how long, and in how much room, this site keeps earlier points of the copy, whenever it keeps one; `None`: only the
    /// newest point, and pins.
    pub retention: Option<Terms>,
    /// Where the copy is kept: this site takes over by itself when neither it nor the pair's escrow has heard the main site for so long
    /// (R27). `None`: never.
    pub witness_silence: Option<Millis>,
    /// Where the copy is kept, it is opened as it comes (R26).
    pub opens_on_arrival: bool,
    /// Primary: what of the volume's content at the pair's first start is copied. `Used` at a secondary.
    pub pick: Pick,
    /// How fast copying may be, until an operator chooses otherwise.
    pub limits: Limits,
    /// What each path of the link shows, whatever goes over it; without one it shows when and how much is sent.
    pub shape: Option<Rate>,
    /// What the pair's records cross; the same at both sites.
    pub link: LinkMode,
    /// How initiators are slowed down before the journal is full.
    pub pacing: Pacing,
    /// What seals the blocks.
    pub cipher: PluginChoice,
    /// When the key changes.
    pub policy: PluginChoice,
    /// How a key travels unseen.
    pub disguise: PluginChoice,
    /// How the copy is opened.
    pub recovery: PluginChoice,
}

impl Pair {
    /// Nobody who watches the link may see when a key changes.
    #[must_use]
    pub fn is_disguised(&self) -> bool {
        self.disguise.path.file_stem().is_none_or(|name| name != "plain")
    }
}

/// What of a volume's content at the pair's first start is copied (R13). What is written from then on always is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pick {
    /// What the file system or the device says may hold data.
    #[default]
    Used,
    /// Every block; those that read as zeroes are sent as such.
    All,
    /// Nothing: the copy is whole where the volume was written since, and zeroes elsewhere.
    Written,
}

/// A component for a slot of a pair.
#[derive(Debug, Clone, PartialEq)]
pub struct PluginChoice {
    /// As the file has it: `interval`, or a path.
    pub component: String,
    /// Where its bytes are.
    pub path: PathBuf,
    /// What its bytes must be. `None` where nobody has pinned it; the node refuses to load it then.
    pub sha256: Option<Digest>,
    /// What it may beyond the ordinary.
    pub grants: Vec<Grant>,
    /// Its settings: a JSON object; empty unless given.
    pub config: serde_json::Value,
    /// Where a result of the conformance kit must be that speaks for it. `None`: none is demanded.
    pub conformance: Option<PathBuf>,
}

impl Pair {
    /// What the configuration puts in a place for a plugin.
    #[must_use]
    pub const fn plugin(&self, slot: PluginSlot) -> &PluginChoice {
        match slot {
            PluginSlot::Cipher => &self.cipher,
            PluginSlot::Policy => &self.policy,
            PluginSlot::Disguise => &self.disguise,
            PluginSlot::Recovery => &self.recovery,
        }
    }
}

impl Config {
    /// Reads and checks a file. Nothing but this file is opened.
    ///
    /// # Errors
    /// [`ConfigError`]: the first thing that is wrong, and its fix.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        let text = read::whole(file)?;
        Self::parse(file, &text)
    }

    /// Checks a text as if it were the content of `file`.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn parse(file: &Path, text: &str) -> Result<Self, ConfigError> {
        sections::config(file, text)
    }

    /// The peer with this name.
    #[must_use]
    pub fn peer(&self, name: &str) -> Option<&Peer> {
        self.peers.iter().find(|peer| peer.name == name)
    }

    /// The volume with this name.
    #[must_use]
    pub fn volume(&self, name: &str) -> Option<&Volume> {
        self.volumes.iter().find(|volume| volume.name == name)
    }

    /// The pair with this name.
    #[must_use]
    pub fn pair(&self, name: &str) -> Option<&Pair> {
        self.pairs.iter().find(|pair| pair.name == name)
    }
}

impl Config {
    /// May pairs of other configurations be in this pair's group, or others of this one?
    #[must_use]
    pub fn is_grouped(&self, pair: &Pair) -> bool {
        let alone = matches!(&self.site, Site::Leads { listen: None, .. });
        !alone || self.pairs.iter().filter(|other| other.group == pair.group).count() > 1
    }
}

impl Node {
    /// The identity, sealed under the passphrase.
    #[must_use]
    pub fn identity_file(&self) -> PathBuf {
        self.state_dir.join("identity.sealed")
    }
}

impl Pair {
    /// Is this node the primary?
    #[must_use]
    pub const fn is_primary(&self) -> bool {
        matches!(self.side, PairSide::Primary { .. })
    }

    /// The volume's name at this site.
    #[must_use]
    pub fn volume_name(&self) -> &str {
        match &self.side {
            PairSide::Primary { volume } => volume,
            PairSide::Secondary { export, .. } => export,
        }
    }
}

impl std::fmt::Display for Pick {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Used => "used",
            Self::All => "all",
            Self::Written => "written",
        })
    }
}

impl std::fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl std::fmt::Display for NbdListen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp:{address}"),
        }
    }
}
