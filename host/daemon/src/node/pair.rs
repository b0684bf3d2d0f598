//! One pair at this node: its lane or its replica, its paths, and what becomes of it at a takeover.

use std::path::PathBuf;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};

use farseal_core::flow::{Flow, Way};
use farseal_core::frame::Attach;
use farseal_core::limits::PATHS_MAX;
use farseal_core::primary::{Mode, Settings as LaneSettings};
use farseal_core::secondary::Settings as ReplicaSettings;
use farseal_core::units::{BlockCount, Generation, Instant, PairId, Path, Sequence, VolumeId};

use super::Shared;
use super::preset::Schedule;
use crate::config::{Pair, PairSide, Pick};
use crate::keyring::Keyring;
use crate::keys::card::PeerCard;
use crate::keys::descriptor::Role;
use crate::keys::fingerprint::Fingerprint;
use crate::lane::keywork::KeyWork;
use crate::lane::{Event as LaneEvent, Lane, Parts as LaneParts};
use crate::link::{dial, listen};
use crate::plugins::PairPlugins;
use crate::recovery::{CopySource, Sweep, Sweeper};
use crate::replica::{self, Event as ReplicaEvent, HandOver, Replica};
use crate::store::home::{Home, RawHome};
use crate::store::opened::OpenedHome;
use crate::volume::Volume;

/// A pair at this node.
#[derive(Debug)]
pub struct PairNode {
    pub config: Pair,
    pub shared: Arc<Shared>,
    pub plugins: Arc<PairPlugins>,
    pub blocks: BlockCount,
    pub peer: PeerCard,
    pub side: Side,
    pub link: LinkState,
    pub schedule: Schedule,
}

/// What this node is for the pair.
#[derive(Debug)]
pub enum Side {
    Primary(Arc<Lane>),
    Secondary { replica: Replica, taken: Arc<Mutex<Option<Taken>>> },
}

/// What a takeover brought up.
#[derive(Clone, Debug)]
pub struct Taken {
    /// The last record of the copy that was opened.
    pub through: Sequence,
    pub lane: Arc<Lane>,
    pub home: Arc<OpenedHome<CopySource>>,
    pub sweeper: Sender<Sweep>,
}

/// What the console says of the link.
#[derive(Debug, Default)]
pub struct LinkState {
    /// Why each path is not up.
    pub trouble: Vec<Arc<Mutex<Option<String>>>>,
    /// When the last path was lost; the start counts as such.
    pub lost_at: Arc<Mutex<Option<Instant>>>,
}

impl PairNode {
    /// Opens what is on disk and starts the lane or the replica.
    pub fn start(shared: Arc<Shared>, config: Pair) -> anyhow::Result<Arc<Self>> {
        let plugins = Arc::new(PairPlugins::load(&shared.plugins, &config)?);
        let peer = shared
            .config
            .peer(&config.peer)
            .ok_or_else(|| anyhow::anyhow!("pair {}: peer {} is not configured", config.name, config.peer))?
            .card
            .clone();
        let (side, blocks) = match &config.side {
            PairSide::Primary { volume } => start_primary(&shared, &config, volume, &plugins, &peer)?,
            PairSide::Secondary { size, .. } => {
                let blocks = BlockCount(size.0 / config.block_bytes.as_u64());
                (start_secondary(&shared, &config, blocks, &plugins, &peer)?, blocks)
            }
        };
        let trouble = (0..PATHS_MAX).map(|_| Arc::default()).collect();
        let lost_at = Arc::new(Mutex::new(Some(shared.clock.now().instant)));
        let link = LinkState { trouble, lost_at };
        let schedule = Schedule::open(&directory(&shared, &config))?;
        Ok(Arc::new(Self { config, shared, plugins, blocks, peer, side, link, schedule }))
    }

    /// Starts the paths of a primary.
    pub fn dial(self: &Arc<Self>) {
        let Side::Primary(lane) = &self.side else { return };
        let addresses = self.shared.config.peer(&self.config.peer).map_or(&[][..], |peer| &peer.addresses);
        let tls = match crate::keys::tls::client_config(&self.shared.identity, &self.peer) {
            Ok(tls) => tls,
            Err(error) => return tracing::error!(pair = self.config.name, %error, "the link cannot be used"),
        };
        for ((path, trouble), address) in (0..PATHS_MAX).zip(&self.link.trouble).zip(addresses.iter().cycle()) {
            let settings = &lane.settings;
            let dialler = dial::Dialler {
                pair: self.config.name.clone(),
                path: Path(path),
                address: address.to_string(),
                peer: crate::keys::tls::server_name(&self.peer),
                tls: Arc::clone(&tls),
                attach: Attach {
                    pair: settings.pair,
                    volume: settings.volume,
                    generation: settings.generation,
                    encrypted: settings.encrypted,
                    block_bytes: settings.block_bytes,
                    blocks: settings.blocks,
                    path,
                    paths: self.config.paths,
                },
                wanted: lane.paths.subscribe(),
                came: self.lane_inbox(lane),
                trouble: Arc::clone(trouble),
                stop: self.shared.stop.subscribe(),
            };
            tokio::spawn(dialler.run());
        }
    }

    /// Where a primary's path goes, if it is this pair's primary that attaches.
    pub fn route(&self, attach: &Attach, peer: Fingerprint) -> Option<listen::Inbox> {
        let Side::Secondary { replica, .. } = &self.side else { return None };
        if attach.pair != self.config.id || peer != self.peer.signing.fingerprint() {
            return None;
        }
        let (inbox, lost_at, clock) = (replica.inbox.clone(), Arc::clone(&self.link.lost_at), self.shared.clock);
        Some(Arc::new(move |path, came| {
            let lost = matches!(came, listen::Came::Lost);
            set(&lost_at, lost.then(|| clock.now().instant));
            let _ = inbox.send(ReplicaEvent::Came { path, came });
        }))
    }

    /// Stops what runs; what was accepted is durable afterwards.
    pub fn stop(&self) {
        match &self.side {
            Side::Primary(lane) => lane.stop(),
            Side::Secondary { replica, taken } => {
                replica.stop();
                if let Some(taken) = taken.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
                    let _ = taken.sweeper.send(Sweep::Stop);
                    taken.lane.stop();
                }
            }
        }
    }

    fn lane_inbox(&self, lane: &Arc<Lane>) -> Box<dyn Fn(Path, dial::Came) + Send + Sync> {
        let (inbox, lost_at, clock) = (lane.inbox.clone(), Arc::clone(&self.link.lost_at), self.shared.clock);
        Box::new(move |path, came| {
            let event = match came {
                dial::Came::Welcomed(welcome, jobs) => {
                    set(&lost_at, None);
                    LaneEvent::Welcomed { path, welcome, jobs }
                }
                dial::Came::Attaching => LaneEvent::Attaching { path },
                dial::Came::Acked(ack) => LaneEvent::Acked { path, ack },
                dial::Came::KeyRefused { key, why } => LaneEvent::KeyRefused { key, why },
                dial::Came::Fenced(generation) => LaneEvent::Fenced { generation },
                dial::Came::Lost => {
                    lost_at.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(clock.now().instant);
                    LaneEvent::PathLost { path }
                }
            };
            let _ = inbox.send(event);
        })
    }
}

fn set(place: &Mutex<Option<Instant>>, value: Option<Instant>) {
    *place.lock().unwrap_or_else(PoisonError::into_inner) = value;
}

/// How copying flows until an operator chooses otherwise.
fn flow_of(config: &Pair) -> Flow {
    let way = Way { transfer: config.transfer, paths: config.paths };
    Flow { way, limits: config.limits, pacing: config.pacing }
}

fn directory(shared: &Shared, config: &Pair) -> PathBuf {
    shared.config.node.state_dir.join("pairs").join(&config.name)
}

fn start_primary(
    shared: &Arc<Shared>,
    config: &Pair,
    volume: &str,
    plugins: &Arc<PairPlugins>,
    peer: &PeerCard,
) -> anyhow::Result<(Side, BlockCount)> {
    let volume = shared
        .config
        .volume(volume)
        .ok_or_else(|| anyhow::anyhow!("pair {}: volume {volume} is not configured", config.name))?;
    let directory = directory(shared, config);
    crate::store::files::create_private_dir(&directory)?;
    let existed = volume.path.exists();
    let home = RawHome::open(&volume.path, volume.size.map(|size| size.0))?;
    let blocks = BlockCount(home.bytes() / config.block_bytes.as_u64());
    let own = shared.identity.card().clone();
    let settings = LaneSettings {
        pair: config.id,
        volume: config.volume_id,
        generation: Generation(1),
        encrypted: config.encrypted,
        block_bytes: config.block_bytes,
        blocks,
        mode: config.mode,
        paired: true,
        key_limits: config.key_limits,
        rotate_how: config.rotate,
        journal_bytes_max: config.journal_max,
        flow: flow_of(config),
    };
    if existed {
        owe_what_is_there(&directory, &home, &settings, config.pick)?;
    }
    let keyring = Keyring::open(&directory.join("epochs"), config.id, Arc::clone(&shared.identity), own.clone())?;
    let lane = Lane::start(LaneParts {
        name: config.name.clone(),
        directory,
        settings,
        home: Arc::new(home),
        keyring: Arc::new(keyring),
        keywork: KeyWork::new(Arc::clone(plugins), config.block_bytes, shared.incarnation),
        plugins: Arc::clone(plugins),
        clock: shared.clock,
        incarnation: shared.incarnation,
        identity: Arc::clone(&shared.identity),
        recipients: vec![(Role::Own, own), (Role::Secondary, peer.clone())],
    })?;
    let lane = Arc::new(lane);
    let export = Volume::new(Arc::clone(&lane), volume.description.clone());
    shared.exports.add(&volume.name, Arc::new(export))?;
    Ok((Side::Primary(lane), blocks))
}

/// The first start of a pair over a volume that holds data already: what is picked of it is owed.
fn owe_what_is_there(
    directory: &std::path::Path,
    home: &RawHome,
    settings: &LaneSettings,
    pick: Pick,
) -> anyhow::Result<()> {
    use farseal_core::owed::{CopyKind, OwedMap};
    use farseal_core::units::{Extent, Lba};
    if directory.join("lane.json").exists() || directory.join("journal").exists() {
        return Ok(());
    }
    let mut map = OwedMap::empty(settings.blocks, settings.block_bytes);
    let (block, mut at) = (settings.block_bytes.as_u64(), 0);
    for (len, data) in home.allocated(0, settings.blocks.0 * block)? {
        let (first, end) = (at / block, (at + len).div_ceil(block).min(settings.blocks.0));
        let picked = match pick {
            Pick::Used => data,
            Pick::All => true,
            Pick::Written => false,
        };
        if picked && let Some(extent) = Extent::new(Lba(first), BlockCount(end - first)) {
            map.mark(extent);
        }
        at += len;
    }
    map.begin(CopyKind::Initial);
    if !map.is_empty() {
        crate::lane::state::save_owed(directory, &map.encode())?;
    }
    Ok(())
}

fn start_secondary(
    shared: &Arc<Shared>,
    config: &Pair,
    blocks: BlockCount,
    plugins: &Arc<PairPlugins>,
    peer: &PeerCard,
) -> anyhow::Result<Side> {
    let directory = directory(shared, config);
    let keyring =
        Arc::new(Keyring::open(&directory.join("epochs"), config.id, Arc::clone(&shared.identity), peer.clone())?);
    let taken: Arc<Mutex<Option<Taken>>> = Arc::default();
    let taken_over = {
        let (shared, config, plugins) = (Arc::clone(shared), config.clone(), Arc::clone(plugins));
        let (keyring, taken) = (Arc::clone(&keyring), Arc::clone(&taken));
        move |hand_over: HandOver| match bring_up(&shared, &config, blocks, &plugins, &keyring, &hand_over) {
            Ok(up) => *taken.lock().unwrap_or_else(PoisonError::into_inner) = Some(up),
            Err(error) => tracing::error!(pair = config.name, "the copy could not be opened: {error:#}"),
        }
    };
    let replica = Replica::start(replica::Parts {
        name: config.name.clone(),
        directory,
        settings: ReplicaSettings {
            pair: config.id,
            volume: config.volume_id,
            encrypted: config.encrypted,
            block_bytes: config.block_bytes,
            blocks,
        },
        keyring,
        plugins: Arc::clone(plugins),
        clock: shared.clock,
        grouped: false,
        cuts: Box::new(|_| {}),
        taken_over: Box::new(taken_over),
    })?;
    Ok(Side::Secondary { replica, taken })
}

/// Opens the copy for initiators: an export over a lane of the new generation, whose home opens blocks as they are needed.
fn bring_up(
    shared: &Arc<Shared>,
    config: &Pair,
    blocks: BlockCount,
    plugins: &Arc<PairPlugins>,
    keyring: &Arc<Keyring>,
    hand_over: &HandOver,
) -> anyhow::Result<Taken> {
    let generation = hand_over.generation;
    let directory = directory(shared, config).join(format!("generation-{}", generation.0));
    crate::store::files::create_private_dir(&directory)?;
    let (source, events) = CopySource::new(hand_over, Arc::clone(keyring), Arc::clone(plugins), config.block_bytes);
    let (sweeper, refuse) = (source.sweeper(), source.refuse());
    let bytes = blocks.byte_len(config.block_bytes).0;
    let home = Arc::new(OpenedHome::open(&directory.join("opened"), bytes, config.block_bytes, source)?);
    let own = shared.identity.card().clone();
    let own_keyring = Keyring::open(&directory.join("epochs"), config.id, Arc::clone(&shared.identity), own.clone())?;
    let lane = Arc::new(Lane::start(LaneParts {
        name: config.name.clone(),
        directory: directory.clone(),
        settings: LaneSettings {
            pair: PairId(config.id.0),
            volume: VolumeId(config.volume_id.0),
            generation,
            encrypted: config.encrypted,
            block_bytes: config.block_bytes,
            blocks,
            mode: Mode::Async,
            paired: false,
            key_limits: config.key_limits,
            rotate_how: config.rotate,
            journal_bytes_max: config.journal_max,
            flow: flow_of(config),
        },
        home: Arc::clone(&home) as Arc<dyn Home>,
        keyring: Arc::new(own_keyring),
        keywork: KeyWork::new(Arc::clone(plugins), config.block_bytes, shared.incarnation),
        plugins: Arc::clone(plugins),
        clock: shared.clock,
        incarnation: shared.incarnation,
        identity: Arc::clone(&shared.identity),
        recipients: vec![(Role::Own, own)],
    })?);
    let description = format!("the copy of pair {} at record {}", config.name, hand_over.through);
    shared.exports.add(config.volume_name(), Arc::new(Volume::new(Arc::clone(&lane), description)))?;
    Sweeper {
        name: config.name.clone(),
        home: Arc::clone(&home),
        plugins: Arc::clone(plugins),
        blocks,
        refuse,
        path: directory.join("recovery.json"),
    }
    .start(events);
    tracing::warn!(pair = config.name, through = hand_over.through.0, "this site writes now: the copy is exported");
    Ok(Taken { through: hand_over.through, lane, home, sweeper })
}
