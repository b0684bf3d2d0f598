//! A running node: what the configuration names, put together and taken apart again.
//!
//! Each pair has its folder below the state folder: `pairs/<name>/`; what lies there says [`crate::role`].

use std::collections::BTreeMap;
use std::path::Path as FilePath;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use farseal_core::frame::Refusal;
use farseal_core::units::{Incarnation, Instant};
use farseal_plugin::PluginHost;
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use zeroize::Zeroizing;

use crate::clock::Clock;
use crate::config::{Config, NbdListen, NbdTls, NbdTlsFiles, PairSide, SwapRule, Volume as VolumeConfig};
use crate::control::operator::Operator;
use crate::control::scrapes::Bounds;
use crate::control::server as control;
use crate::escrow::client::EscrowLine;
use crate::escrow::desk::Desk;
use crate::keys::identity::Identity;
use crate::keys::memory::{KeysInSwap, SWAP_FIX, keep_out_of_swap};
use crate::link::listen;
use crate::nbd::pool::Pool;
use crate::nbd::registry::Registry;
use crate::nbd::server::{Config as NbdConfig, Endpoint, Listen, Server};
use crate::nbd::tls::TlsMode;
use crate::parted::PartedVolumes;
use crate::plain::PlainVolume;
use crate::plugins::{FileCache, host_options};
use crate::site::Site;
use crate::site::lead::ToLead;
use crate::store::files::{self, DirLock};
use crate::store::home::RawHome;

mod awaited;
pub mod branch;
pub mod declare;
mod drill;
pub mod escrow;
pub mod flow;
pub mod key;
pub mod makings;
pub mod operate;
pub mod pair;
pub mod plugin;
pub(crate) mod points;
pub mod preset;
mod question;
mod recover;
mod recovery;
mod retire;
mod rotate;
mod search;
mod search_keys;
pub mod seed;
pub mod sides;
pub mod site;
pub mod status;
pub mod takeback;
pub mod turn;
pub mod unheard;
pub mod verify;
pub mod witness;

use pair::PairNode;

/// Everything that a node's parts share.
#[derive(Debug)]
pub struct Shared {
    pub config: Config,
    pub clock: Clock,
    pub identity: Arc<Identity>,
    pub incarnation: Incarnation,
    pub plugins: Arc<PluginHost>,
    pub exports: Registry,
    /// The volumes of which pairs copy ranges.
    pub parted: PartedVolumes,
    pub stop: watch::Sender<bool>,
    /// For what threads outside of it start.
    pub runtime: tokio::runtime::Handle,
    pub started: Instant,
    pub ready: AtomicBool,
    pub keys_in_swap: KeysInSwap,
    pub site: Arc<Site>,
    /// The lines to the escrow sites of pairs, by the names of their peers.
    pub escrows: BTreeMap<String, Arc<EscrowLine>>,
    /// A copy here holds other cuts of its group than before.
    pub cuts_changed: Arc<Notify>,
}

/// A node that runs until it is told to stop.
#[derive(Debug)]
pub struct Node {
    shared: Arc<Shared>,
    pairs: Vec<Arc<PairNode>>,
    nbd: Mutex<Option<Server>>,
    link: Arc<listen::Counters>,
    /// What this node answers as an escrow site.
    desk: Option<Arc<Desk>>,
    _lock: DirLock,
}

/// Runs the node that a configuration describes, until SIGTERM or SIGINT.
pub fn run(config: Config) -> anyhow::Result<()> {
    crate::observe::start_log(config.node.log, &config.node.log_filter)?;
    if let Err(error) = files::raise_descriptor_limit() {
        tracing::warn!(%error, "the limit of open files stays as low as it is");
    }
    if let Err(error) = crate::keys::memory::keep_out_of_core_dumps() {
        tracing::warn!(%error, "a core file of this process could hold keys");
    }
    let keys = keys_in_swap(config.node.keys_in_swap)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("farseal-io").build()?;
    let ended = runtime.block_on(serve(config, keys));
    runtime.shutdown_timeout(Duration::from_secs(2));
    ended
}

/// Before the first key is here.
fn keys_in_swap(rule: SwapRule) -> anyhow::Result<KeysInSwap> {
    let keys = match rule {
        SwapRule::Accepted => KeysInSwap::Possible { why: "[node] keys-in-swap is \"accepted\"".into() },
        SwapRule::Avoided | SwapRule::Refused => keep_out_of_swap(),
    };
    match &keys {
        KeysInSwap::Locked => tracing::info!("keys cannot get into swap: the node's memory is locked"),
        KeysInSwap::Unswapped => tracing::info!("keys cannot get into swap: the system swaps nothing of this service"),
        KeysInSwap::Possible { why } if rule == SwapRule::Refused => {
            anyhow::bail!("keys could get into swap, which [node] keys-in-swap refuses: {why}; {SWAP_FIX}")
        }
        KeysInSwap::Possible { why } if rule == SwapRule::Accepted => tracing::info!("keys can get into swap: {why}"),
        KeysInSwap::Possible { why } => tracing::warn!("keys can get into swap: {why}; {SWAP_FIX}"),
    }
    Ok(keys)
}

async fn serve(config: Config, keys: KeysInSwap) -> anyhow::Result<()> {
    outlive_file_limits()?;
    let socket = config.node.control_socket.clone();
    let metrics = config.metrics.listen;
    let node = Arc::new(tokio::task::spawn_blocking(move || Node::start(config, keys)).await??);
    let lead = node.join_site().await?;
    node.listen_link().await?;
    node.listen_escrow().await?;
    for pair in &node.pairs {
        tokio::spawn(Arc::clone(pair).follow_presets());
    }
    node.start_nbd()?;
    let operator: Arc<dyn Operator> = Arc::clone(&node) as Arc<dyn Operator>;
    let listener = control::bind(&socket)?;
    let stopped = |mut stop: watch::Receiver<bool>| async move {
        let _ = stop.wait_for(|stop| *stop).await;
    };
    let serving = tokio::spawn(control::serve(listener, Arc::clone(&operator), stopped(node.shared.stop.subscribe())));
    if let Some(address) = metrics {
        let listener = TcpListener::bind(address).await?;
        let stop = stopped(node.shared.stop.subscribe());
        tokio::spawn(control::serve_metrics(listener, operator, Bounds::default(), stop));
    }
    node.shared.ready.store(true, Ordering::Release);
    tracing::info!(node = %node.shared.config.node.name, control = %socket.display(), "the node is up");
    wait_for_signal(node.shared.stop.subscribe()).await?;
    tracing::info!("stopping");
    node.shared.stop.send_replace(true);
    let server = node.nbd.lock().ok().and_then(|mut nbd| nbd.take());
    if let Some(server) = server {
        server.stop().await;
    }
    let _ = serving.await;
    if let Some(lead) = lead {
        let _ = lead.send(ToLead::Stop);
    }
    tokio::task::spawn_blocking(move || node.pairs.iter().for_each(|pair| pair.stop())).await?;
    Ok(())
}

/// What is written beyond a limit on the size of files (`LimitFSIZE=`, RLIMIT_FSIZE) fails with EFBIG, as on a full disk. By default the
/// signal that comes with it ends the process.
fn outlive_file_limits() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw())).map(drop)
}

async fn wait_for_signal(mut stop: watch::Receiver<bool>) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
    Ok(())
}

impl Node {
    /// Opens everything on disk and starts every lane and replica. Nothing listens yet.
    fn start(config: Config, keys_in_swap: KeysInSwap) -> anyhow::Result<Self> {
        files::create_private_dir(&config.node.state_dir)?;
        let lock = DirLock::take(&config.node.state_dir)?;
        let identity = Arc::new(crate::cli::identity::load(&config)?);
        let cache = FileCache::open(&config.node.state_dir.join("code-cache"))?;
        let mac_key = Zeroizing::new(blake3::derive_key("farseal v1 code cache", &identity.to_stored()));
        let mut incarnation = [0; 16];
        getrandom::fill(&mut incarnation).map_err(|error| anyhow::anyhow!("the random source failed: {error}"))?;
        let clock = Clock::start();
        let exports = Registry::default();
        let stop = watch::Sender::new(false);
        let plugins = Arc::new(PluginHost::new(host_options(cache, mac_key, &keys_in_swap))?);
        let desk = escrow::desk(&config, &identity, &plugins)?;
        let shared = Arc::new(Shared {
            escrows: escrow::lines(&config, &identity, &stop)?,
            clock,
            identity,
            incarnation: Incarnation(incarnation),
            plugins,
            parted: PartedVolumes::open(&config, &exports)?,
            exports,
            stop,
            runtime: tokio::runtime::Handle::current(),
            started: clock.now().instant,
            ready: AtomicBool::new(false),
            keys_in_swap,
            site: Arc::default(),
            cuts_changed: Arc::default(),
            config,
        });
        let mut pairs = Vec::new();
        for pair in &shared.config.pairs {
            pairs.push(PairNode::start(Arc::clone(&shared), pair.clone())?);
        }
        for volume in &shared.config.volumes {
            shared.export_unpaired(volume)?;
        }
        let link = Arc::new(listen::Counters::default());
        Ok(Self { shared, pairs, nbd: Mutex::new(None), link, desk, _lock: lock })
    }

    fn start_nbd(&self) -> anyhow::Result<()> {
        let nbd = &self.shared.config.nbd;
        let tls = match &nbd.tls {
            NbdTls::Off => TlsMode::Off,
            NbdTls::Allowed(files) => TlsMode::Allowed(nbd_tls(files)?),
            NbdTls::Required(files) => TlsMode::Required(nbd_tls(files)?),
        };
        let listen = nbd
            .listen
            .iter()
            .map(|listen| match listen {
                NbdListen::Unix(path) => Listen { endpoint: Endpoint::Unix(path.clone()), tls: TlsMode::Off },
                NbdListen::Tcp(address) => Listen { endpoint: Endpoint::Tcp(*address), tls: tls.clone() },
            })
            .collect();
        let config = NbdConfig { listen, ..NbdConfig::default() };
        let server = Server::start(&config, self.shared.exports.clone(), Pool::default())?;
        for endpoint in server.endpoints() {
            tracing::info!(%endpoint, "NBD listens");
        }
        if let Ok(mut place) = self.nbd.lock() {
            *place = Some(server);
        }
        Ok(())
    }

    /// Accepts primaries, if this node has secondaries.
    async fn listen_link(&self) -> anyhow::Result<()> {
        let Some(address) = self.shared.config.link.listen else { return Ok(()) };
        let cards: Vec<_> = self.shared.config.peers.iter().map(|peer| &peer.card).collect();
        if cards.is_empty() {
            return Ok(());
        }
        let tls = crate::keys::tls::link_server_config(&self.shared.identity, &cards)?;
        let listener =
            TcpListener::bind(address).await.map_err(|error| anyhow::anyhow!("[link] listen {address}: {error}"))?;
        tracing::info!(address = %listener.local_addr()?, "the link listens");
        let pairs = self.pairs.clone();
        let route: listen::Route = Arc::new(move |attach, peer, link| {
            pairs.iter().find_map(|pair| pair.route(attach, peer, link)).unwrap_or(Err(Refusal::UnknownPair))
        });
        tokio::spawn(listen::run(listener, tls, route, Arc::clone(&self.link), self.shared.stop.subscribe()));
        Ok(())
    }

    fn pair(&self, name: &str) -> Option<&Arc<PairNode>> {
        self.pairs.iter().find(|pair| pair.config.name == name)
    }
}

impl Shared {
    /// A volume that no pair copies is served as it is.
    fn export_unpaired(&self, volume: &VolumeConfig) -> anyhow::Result<()> {
        let paired = self
            .config
            .pairs
            .iter()
            .any(|pair| matches!(&pair.side, PairSide::Primary { volume: name } if *name == volume.name));
        if !paired {
            let home = RawHome::open(&volume.path, volume.size.map(|size| size.0))?;
            let export = PlainVolume::new(Arc::new(home), volume.description.clone());
            self.exports.add(&volume.name, Arc::new(export))?;
        }
        Ok(())
    }
}

fn nbd_tls(files: &NbdTlsFiles) -> anyhow::Result<Arc<rustls::ServerConfig>> {
    let read = |path: &FilePath| {
        std::fs::read(path).map_err(|error| anyhow::anyhow!("[nbd] TLS file {}: {error}", path.display()))
    };
    let (cert, key) = (read(&files.cert)?, Zeroizing::new(read(&files.key)?));
    let authorities = files.client_ca.as_deref().map(read).transpose()?;
    Ok(crate::nbd::tls::server_config(&cert, &key, authorities.as_deref())?)
}
