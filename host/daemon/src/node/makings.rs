//! What a pair's lanes and copies are made of, whichever of them runs now.

use std::path::{Path as FilePath, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use farseal_core::flow::{Flow, Way};
use farseal_core::frame::HandOver as PlannedTurn;
use farseal_core::frame::Shape;
use farseal_core::given_up::GivenUp;
use farseal_core::layout::Layout;
use farseal_core::limits::{PATHS_MAX, UNORDERED_INTERVAL};
use farseal_core::lineage::Lineage;
use farseal_core::owed::{CopyKind, OwedMap};
use farseal_core::primary::Settings as LaneSettings;
use farseal_core::secondary::Settings as ReplicaSettings;
use farseal_core::units::{BlockCount, Extent, Generation, Lba, Path};
use tokio::sync::OwnedSemaphorePermit;

use super::Shared;
use super::awaited::Awaited;
use super::pair::{LinkState, Side, Taken, set};
use super::search::making::Tested;
use crate::arrival::{Arrival, Image};
use crate::config::sections::FOLLOWED;
use crate::config::{Holders, Pair, PairSide, Pick};
use crate::control::api::ArrivedStatus;
use crate::escrow::client::EscrowLine;
use crate::keyring::Keyring;
use crate::keys::card::PeerCard;
use crate::keys::descriptor::Role;
use crate::lane::deposits::{self, Deposits};
use crate::lane::keywork::KeyWork;
use crate::lane::state::{self, LaneState, Seed};
use crate::lane::{Event as LaneEvent, Lane, Parts as LaneParts};
use crate::link::dial;
use crate::plugins::PairPlugins;
use crate::recovery::{AccessRule, CopySource, Sweeper};
use crate::replica::{self, HandOver, Replica};
use crate::retired::Retired;
use crate::role::{Control, lane_folder};
use crate::seed::export::{self, Export, ExportError};
use crate::site::words::Report;
use crate::store::StoreError;
use crate::store::files;
use crate::store::home::{Home, RawHome};
use crate::store::opened::OpenedHome;
use crate::volume::Volume;

/// Everything that does not change when the sites do.
pub struct Makings {
    pub shared: Arc<Shared>,
    pub config: Pair,
    pub plugins: Arc<PairPlugins>,
    pub peer: PeerCard,
    pub link: Arc<LinkState>,
    /// The other site writes in the lane's place.
    pub handed_over: Arc<dyn Fn(PlannedTurn) + Send + Sync>,
    /// The site's image of the volume, opened once and for all: lanes come and go over it.
    pub image: OnceLock<Arc<dyn Home>>,
    /// The group's cuts that the copy here holds.
    pub cuts: Arc<crate::site::member::CutsHere>,
    /// The export of a seed, while it runs.
    pub exporting: Mutex<Option<Export>>,
    /// A takeover whose keys are not here yet.
    pub awaited: Mutex<Option<Awaited>>,
    /// Why the copy that was taken over is not open, though its keys are here.
    pub unopened: Mutex<Option<String>>,
    /// Has them asked for.
    pub keys_wanted: Arc<dyn Fn() + Send + Sync>,
    /// How far the copy is opened as it arrives.
    pub arrived: Arc<Mutex<Option<ArrivedStatus>>>,
    /// It is exported meanwhile: an export of that name is this pair's own.
    pub followed: Arc<AtomicBool>,
    /// The test that runs, whose export is this pair's own.
    pub(super) tested: Mutex<Option<Tested>>,
    /// What the copy answers to a verification.
    pub answers: Arc<crate::verify::Answers>,
}

impl std::fmt::Debug for Makings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Makings").field("pair", &self.config.name).finish_non_exhaustive()
    }
}

impl Makings {
    /// The pair's folder.
    pub fn directory(&self) -> PathBuf {
        self.shared.config.node.state_dir.join("pairs").join(&self.config.name)
    }

    pub fn blocks(&self) -> anyhow::Result<BlockCount> {
        let bytes = match &self.config.side {
            PairSide::Primary { .. } => self.image()?.bytes(),
            PairSide::Secondary { size, .. } => size.0,
        };
        Ok(BlockCount(bytes / self.config.block_bytes.as_u64()))
    }

    /// The site's image. A secondary's is made when it is needed first.
    pub fn image(&self) -> anyhow::Result<Arc<dyn Home>> {
        if let Some(image) = self.image.get() {
            return Ok(Arc::clone(image));
        }
        if let Some(parted) = self.shared.parted.of(&self.config) {
            let part = parted.part(&self.config);
            if parted.existed {
                self.owe_what_is_there(&part)?;
            }
            return Ok(Arc::clone(self.image.get_or_init(|| Arc::new(part))));
        }
        let home = match &self.config.side {
            PairSide::Primary { volume } => {
                let volume =
                    self.shared.config.volume(volume).ok_or_else(|| {
                        anyhow::anyhow!("pair {}: volume {volume} is not configured", self.config.name)
                    })?;
                let existed = volume.path.exists();
                let size = volume.size.map(|size| size.0);
                let home = RawHome::open_known(&volume.path, size, state::began(&self.directory()))?;
                if existed {
                    self.owe_what_is_there(&home)?;
                }
                home
            }
            PairSide::Secondary { size, image, .. } => {
                crate::store::image::open(&self.directory().join("opened"), image.as_deref(), *size)?
            }
        };
        let home: Arc<dyn Home> = Arc::new(home);
        Ok(Arc::clone(self.image.get_or_init(|| home)))
    }

    fn export(&self, lane: &Arc<Lane>, description: String) -> anyhow::Result<()> {
        let volume = Arc::new(Volume::new(Arc::clone(lane), description));
        match self.shared.parted.of(&self.config) {
            Some(parted) => parted.set(&self.config.name, Some(volume)),
            None => self.shared.exports.add(self.config.volume_name(), volume)?,
        }
        Ok(())
    }

    /// Initiators write here no more.
    pub fn withdraw(&self) {
        match self.shared.parted.of(&self.config) {
            Some(parted) => parted.set(&self.config.name, None),
            None => _ = self.shared.exports.remove(self.config.volume_name()),
        }
    }

    /// Starts a lane over the image alone, and its paths.
    pub fn write(self: &Arc<Self>, folder: &FilePath, control: &Control) -> anyhow::Result<Arc<Lane>> {
        let generation = control.history().generation;
        let lane = Arc::new(Lane::start(self.lane_parts(folder, self.image()?, generation)?)?);
        let description = match &self.config.side {
            PairSide::Primary { volume } => self.shared.config.volume(volume).map(|volume| volume.description.clone()),
            PairSide::Secondary { .. } => None,
        };
        self.export(&lane, description.unwrap_or_else(|| format!("pair {}", self.config.name)))?;
        match LaneState::load(folder)?.seed.filter(|seed| seed.shipped.is_none()) {
            Some(seed) => {
                if let Err(error) = self.export_seed(&lane, seed, control.lineage) {
                    tracing::error!(pair = self.config.name, "the seed's export does not go on: {error}");
                    let text = Some(format!("the seed's export does not go on: {error}"));
                    self.link.trouble.iter().take(1).for_each(|place| {
                        place.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&text);
                    });
                }
            }
            None => self.dial(&lane, control.lineage),
        }
        Ok(lane)
    }

    /// What a lane in this folder is made of.
    pub fn lane_parts(
        &self,
        folder: &FilePath,
        home: Arc<dyn Home>,
        generation: Generation,
    ) -> anyhow::Result<LaneParts> {
        files::create_private_dir(folder)?;
        let (config, shared) = (&self.config, &self.shared);
        let own = shared.identity.card().clone();
        let keyring = Keyring::open(&folder.join("epochs"), config.id, Arc::clone(&shared.identity), own.clone())?;
        let escrow = self.escrow_line();
        let keyring = keyring.with_escrow(escrow.as_ref().map(|line| line.card.clone())).of_encrypted(config.encrypted);
        let keyring = keyring.without(Retired::load(&self.directory())?.destroyed)?;
        let mut recipients = vec![(Role::Own, own)];
        if config.holders != Holders::Escrow {
            recipients.push((Role::Secondary, self.peer.clone()));
        }
        let deposits = escrow.as_ref().map(|line| {
            Deposits::new(deposits::Terms {
                line: Arc::clone(line),
                identity: Arc::clone(&shared.identity),
                pair: config.id,
                generation,
                incarnation: shared.incarnation,
                holder: self.peer.fingerprint(),
            })
        });
        let keywork =
            KeyWork::new(Arc::clone(&self.plugins), config.block_bytes, shared.incarnation, self.link.hedge.clone());
        Ok(LaneParts {
            name: config.name.clone(),
            directory: folder.to_owned(),
            settings: LaneSettings {
                pair: config.id,
                volume: config.volume_id,
                generation,
                encrypted: config.encrypted,
                block_bytes: config.block_bytes,
                blocks: BlockCount(home.bytes() / config.block_bytes.as_u64()),
                layout: config.layout.as_ref().map(Layout::mark),
                mode: config.mode,
                paired: true,
                key_limits: config.key_limits,
                escrowed: escrow.is_some(),
                in_slots: self.plugins.disguise.current().is_some_and(|disguise| disguise.is_in_records()),
                rotate_how: config.rotate,
                pause_hidden: !config.is_disguised() || config.shape.is_some(),
                shaped: config.shape.is_some(),
                journal_bytes_max: config.journal_max,
                unordered: (!config.ordered).then_some(UNORDERED_INTERVAL),
                flow: flow_of(config),
            },
            home,
            layout: config.layout.clone(),
            keyring: Arc::new(keyring),
            keywork: keywork.with_deposits(deposits),
            plugins: Arc::clone(&self.plugins),
            clock: shared.clock,
            incarnation: shared.incarnation,
            identity: Arc::clone(&shared.identity),
            recipients,
            handed_over: Arc::clone(&self.handed_over),
        })
    }

    /// The line to the pair's escrow site.
    pub(super) fn escrow_line(&self) -> Option<Arc<EscrowLine>> {
        self.config.escrow.as_ref().and_then(|name| self.shared.escrows.get(name)).cloned()
    }

    /// The first start of a pair over a volume that holds data already: what is picked of it is owed.
    fn owe_what_is_there(&self, home: &dyn Home) -> anyhow::Result<()> {
        let directory = self.directory();
        if state::began(&directory) {
            return Ok(());
        }
        let block = self.config.block_bytes.as_u64();
        let (blocks, mut at) = (BlockCount(home.bytes() / block), 0);
        let mut map = OwedMap::empty(blocks, self.config.block_bytes);
        for (len, data) in home.allocated(0, blocks.0 * block)? {
            let (first, end) = (at / block, (at + len).div_ceil(block).min(blocks.0));
            let picked = match self.config.pick {
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
            // Nothing was ever sent.
            state::save_owed(&directory, &map.encode_with(&GivenUp::default()))?;
        }
        Ok(())
    }

    /// Starts the copy in a folder, or what was made of it when it was taken over.
    pub fn keep(self: &Arc<Self>, folder: &FilePath, control: Control) -> anyhow::Result<Side> {
        files::create_private_dir(folder)?;
        let (config, shared) = (&self.config, &self.shared);
        let epochs = folder.join("epochs");
        let keyring = Keyring::open(&epochs, config.id, Arc::clone(&shared.identity), self.peer.clone())?;
        let keyring = keyring.with_escrow(self.escrow_line().map(|line| line.card.clone()));
        let retired = Retired::load(&self.directory())?;
        let keyring = Arc::new(keyring.of_encrypted(config.encrypted).without(retired.destroyed)?);
        let (based, keeps_copy) = (control.keeps.is_some(), control.taken_over_at.is_none());
        let image = self.arrival_image(folder, keeps_copy);
        let taken: Arc<Mutex<Option<Taken>>> = Arc::default();
        let taken_over = {
            let (makings, keyring, taken) = (Arc::clone(self), Arc::clone(&keyring), Arc::clone(&taken));
            let image = image.clone();
            move |hand_over: HandOver| makings.open_or_await(Awaited { hand_over, keyring, taken, image })
        };
        let base = control.keeps.is_some().then(|| self.image()).transpose()?;
        let replica = Replica::start(replica::Parts {
            name: config.name.clone(),
            pair_directory: self.directory(),
            directory: folder.to_owned(),
            control,
            retired,
            settings: self.replica_settings()?,
            keyring,
            plugins: Arc::clone(&self.plugins),
            clock: shared.clock,
            terms: config.retention,
            base,
            grouped: shared.config.is_grouped(config),
            with_escrow: self.escrow_line().is_some(),
            word: Box::new({
                let (shared, pair) = (Arc::clone(shared), config.id);
                move || shared.site.report(Report::Word { pair })
            }),
            cuts: Box::new({
                let cuts = Arc::clone(&self.cuts);
                // Those of an earlier copy do not count.
                cuts.set(None);
                move |now| cuts.set(Some(now.clone()))
            }),
            taken_over: Box::new(taken_over),
        })?;
        if let Some(image) = image.filter(|_| keeps_copy && self.config.opens_on_arrival) {
            self.open_on_arrival(&replica, image, based);
        }
        Ok(Side::Secondary { replica: Arc::new(replica), taken })
    }

    /// The image of what is opened as it arrives, or was.
    fn arrival_image(&self, folder: &FilePath, keeps_copy: bool) -> Option<Image> {
        let bytes = self.blocks().ok()?.byte_len(self.config.block_bytes).0;
        Image::open(folder, bytes, keeps_copy && self.config.opens_on_arrival).unwrap_or_else(|error| {
            tracing::error!(pair = self.config.name, %error, "the copy is not opened as it arrives");
            None
        })
    }

    /// The export of what is opened as it arrives.
    fn followed_name(&self) -> String {
        format!("{}{FOLLOWED}", self.config.volume_name())
    }

    /// Starts to open what arrives. Over a volume that was written here before the image alone is no state of it: it is kept, and
    /// not shown.
    fn open_on_arrival(&self, replica: &Replica, image: Image, based: bool) {
        let (exports, name) = (self.shared.exports.clone(), self.followed_name());
        let volume =
            image.followed(format!("the copy of pair {} as it arrives", self.config.name), self.config.block_bytes);
        let begun = {
            let (exports, name, followed) = (exports.clone(), name.clone(), Arc::clone(&self.followed));
            move || match (!based).then(|| exports.add(&name, Arc::new(volume))) {
                Some(Ok(())) => followed.store(true, Ordering::SeqCst),
                Some(Err(error)) => tracing::error!(%error, "what is opened as it arrives is not exported"),
                None => {}
            }
        };
        let followed = Arc::clone(&self.followed);
        let ended = move || {
            if followed.swap(false, Ordering::SeqCst) {
                exports.remove(&name);
            }
        };
        Arrival {
            name: self.config.name.clone(),
            image,
            replica: replica.inbox.clone(),
            reader: replica.reader.clone(),
            keyring: Arc::clone(&replica.keyring),
            plugins: Arc::clone(&self.plugins),
            block: self.config.block_bytes,
            shown: Arc::clone(&self.arrived),
            begun: Box::new(begun),
            ended: Box::new(ended),
        }
        .start();
    }

    /// Opens the copy for initiators: an export over a lane of the new generation, whose home opens blocks as they are
    /// needed. Unless the takeover was planned, the lane remembers from its first write on what the other site lacks.
    pub(super) fn bring_up(
        &self,
        keyring: &Arc<Keyring>,
        hand_over: &HandOver,
        image: Option<&Image>,
    ) -> anyhow::Result<Taken> {
        let (config, plugins) = (&self.config, &self.plugins);
        let folder = self.directory().join(lane_folder(hand_over.generation));
        files::create_private_dir(&folder)?;
        hand_over.beginning.keep(&folder)?;
        let by_search = config.layout.is_some();
        let rule = if by_search { AccessRule::unsaid() } else { AccessRule::open() };
        let (keys, block) = (Arc::clone(keyring), config.block_bytes);
        let (source, events) = CopySource::new(hand_over, keys, Arc::clone(plugins), block, rule);
        // What lies under it is written from now on, and is no point in time any more.
        self.withdraw_test();
        if self.followed.swap(false, Ordering::SeqCst) {
            self.shared.exports.remove(&self.followed_name());
        }
        // An earlier point's blocks are not there.
        let arrived = image.filter(|_| hand_over.opened_at.is_none()).and_then(|image| image.arrived(block));
        let source = source.with_arrived(arrived);
        source.account().book().load(&folder);
        let (sweeper, rule, epoch_floor) = (source.sweeper(), source.rule(), source.newest_epoch());
        let image = self.image()?;
        let begun = LaneState::exists(&folder);
        // Made anew, the state would owe the other site nothing of what was written here and has left the journal.
        anyhow::ensure!(
            begun || !folder.join("journal").exists(),
            "{}: it is gone, and there is a journal beside it; restore it from a copy",
            folder.join("lane.json").display()
        );
        let home = Arc::new(OpenedHome::over(image, &folder.join("opened"), config.block_bytes, source, begun)?);
        let blocks = self.blocks()?;
        if !begun {
            if !hand_over.planned {
                let none = || OwedMap::empty(blocks, config.block_bytes);
                let differs = hand_over.differs.clone().unwrap_or_else(none);
                state::save_owed(&folder, &differs.encode_with(&GivenUp::default()))?;
            }
            let floor = epoch_floor.max(hand_over.epoch_floor);
            let Lineage { start, start_chain, .. } = hand_over.lineage;
            LaneState::beginning(start, start_chain, floor).save(&folder)?;
        }
        let parts = self.lane_parts(&folder, Arc::clone(&home) as Arc<dyn Home>, hand_over.generation)?;
        let lane = Arc::new(Lane::start(parts)?);
        self.export(&lane, format!("the copy of pair {} at record {}", config.name, hand_over.through))?;
        Sweeper {
            name: config.name.clone(),
            home: Arc::clone(&home),
            plugins: Arc::clone(plugins),
            blocks,
            rule,
            by_search,
            path: folder.join("recovery.json"),
        }
        .start(events);
        self.dial(&lane, Some(hand_over.lineage));
        tracing::warn!(pair = config.name, through = hand_over.through.0, "this site writes now: the copy is exported");
        Ok(Taken { through: hand_over.through, lane, home, sweeper })
    }

    /// What a replica of this pair is for.
    pub(super) fn replica_settings(&self) -> anyhow::Result<ReplicaSettings> {
        let config = &self.config;
        Ok(ReplicaSettings {
            pair: config.id,
            volume: config.volume_id,
            encrypted: config.encrypted,
            block_bytes: config.block_bytes,
            blocks: self.blocks()?,
            layout: config.layout.as_ref().map(Layout::mark),
        })
    }

    /// Starts the paths of a lane, in place of those of the lane before.
    pub(super) fn dial(&self, lane: &Arc<Lane>, lineage: Option<Lineage>) {
        let stop = self.link.dial_anew();
        let addresses = self.shared.config.peer(&self.config.peer).map_or(&[][..], |peer| &peer.addresses);
        let tls = match crate::keys::tls::link_client_config(&self.shared.identity, &self.peer, self.config.link) {
            Ok(tls) => tls,
            Err(error) => return tracing::error!(pair = self.config.name, %error, "the link cannot be used"),
        };
        if let (true, Some(trouble)) = (addresses.is_empty(), self.link.trouble.first()) {
            let peer = &self.config.peer;
            let text = format!("peer {peer} has no addresses: add addresses = [\"HOST:PORT\"] to the [[peer]] {peer}");
            *trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
        }
        for ((path, trouble), address) in (0..PATHS_MAX).zip(&self.link.trouble).zip(addresses.iter().cycle()) {
            let dialler = dial::Dialler {
                pair: self.config.name.clone(),
                path: Path(path),
                address: address.to_string(),
                peer: crate::keys::tls::server_name(&self.peer),
                tls: Arc::clone(&tls),
                link: self.config.link,
                attach: lane.settings.attach(path, self.config.paths),
                shape: self.config.shape.map(|rate| Shape::of(rate.get())),
                in_slots: lane.settings.in_slots,
                hedge: self.link.hedge.clone(),
                lineage,
                wanted: lane.paths.subscribe(),
                came: self.lane_inbox(lane),
                trouble: Arc::clone(trouble),
                stop: stop.clone(),
            };
            self.shared.runtime.spawn(dialler.run());
        }
    }

    /// The lane copies into a seed's folder instead of over the link, until the seed is whole.
    pub(super) fn export_seed(
        self: &Arc<Self>,
        lane: &Arc<Lane>,
        seed: Seed,
        lineage: Option<Lineage>,
    ) -> Result<(), ExportError> {
        self.link.stop_dialling();
        let (makings, writer, exported) = (Arc::downgrade(self), Arc::clone(lane), seed.clone());
        let done = move |through| {
            let (seed, inbox) = (Seed { shipped: Some(through), ..exported }, writer.inbox.clone());
            let dial = move |kept: Result<(), StoreError>| match (kept, makings.upgrade()) {
                (Ok(()), Some(makings)) => makings.dial(&writer, lineage),
                (Ok(()), None) => {}
                (Err(error), _) => tracing::error!(%error, "that a seed is whole could not be kept: restart the node"),
            };
            let _ = inbox.send(LaneEvent::Seed { seed: Some(seed), done: Box::new(dial) });
        };
        let export = Export::start(export::Parts {
            name: self.config.name.clone(),
            directory: seed.directory,
            id: seed.id,
            lane: Arc::clone(lane),
            plugins: Arc::clone(&self.plugins),
            identity: Arc::clone(&self.shared.identity),
            clock: self.shared.clock,
            done: Box::new(done),
        })?;
        *self.exporting.lock().unwrap_or_else(PoisonError::into_inner) = Some(export);
        Ok(())
    }

    fn lane_inbox(
        &self,
        lane: &Arc<Lane>,
    ) -> Box<dyn Fn(Path, dial::Came, Option<OwnedSemaphorePermit>) + Send + Sync> {
        let (inbox, lost_at, clock) = (lane.inbox.clone(), Arc::clone(&self.link.lost_at), self.shared.clock);
        let answers = Arc::clone(&self.answers);
        Box::new(move |path, came, permit| {
            let event = match came {
                dial::Came::Welcomed(dial::Welcomed { welcome, components }, jobs) => {
                    set(&lost_at, None);
                    LaneEvent::Welcomed { path, welcome, components, jobs }
                }
                dial::Came::Attaching => LaneEvent::Attaching { path },
                dial::Came::Differs(differs) => LaneEvent::Differs(differs),
                dial::Came::Acked(ack) => LaneEvent::Acked { path, ack },
                dial::Came::KeyRefused { key, why } => LaneEvent::KeyRefused { key, why },
                dial::Came::Fenced(generation) => LaneEvent::Fenced { generation },
                dial::Came::HandedOver(generation) => LaneEvent::HandedOver { generation },
                dial::Came::Held { id, answer } => return answers.came(id, answer),
                dial::Came::Lost => {
                    lost_at.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(clock.now().instant);
                    LaneEvent::PathLost { path }
                }
            };
            let _ = inbox.send(match permit {
                Some(permit) => LaneEvent::Said(Box::new(event), permit),
                None => event,
            });
        })
    }
}

/// How copying flows until an operator chooses otherwise.
fn flow_of(config: &Pair) -> Flow {
    let way = Way { transfer: config.transfer, paths: config.paths };
    Flow { way, limits: config.limits, pacing: config.pacing }
}
