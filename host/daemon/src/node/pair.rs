//! One pair at this node: its lane or its copy, whichever it is now, and the pair's paths.

use std::sync::{Arc, Mutex, PoisonError};

use farseal_core::frame::{Attach, HandOver, Refusal};
use farseal_core::limits::PATHS_MAX;
use farseal_core::lineage::Lineage;
use farseal_core::units::{BlockCount, Instant, Sequence};
use tokio::sync::mpsc::unbounded_channel;
use tokio::sync::watch;

use super::Shared;
use super::makings::Makings;
use super::preset::Schedule;
use crate::config::Pair;
use crate::control::api::SearchProgress;
use crate::keys::card::PeerCard;
use crate::keys::fingerprint::Fingerprint;
use crate::keys::hedge::Hedge;
use crate::keys::tls::LinkMode;
use crate::lane::{Event as LaneEvent, Lane};
use crate::link::listen;
use crate::plugins::PairPlugins;
use crate::recovery::{CopySource, Sweep};
use crate::replica::{Event as ReplicaEvent, Replica};
use crate::role::{Control, Standing};
use crate::seed::export::Export;
use crate::site::member::{CutsHere, Place};
use crate::store::opened::OpenedHome;
use crate::verify::Verification;

/// A pair at this node.
#[derive(Debug)]
pub struct PairNode {
    pub config: Pair,
    pub shared: Arc<Shared>,
    pub plugins: Arc<PairPlugins>,
    pub blocks: BlockCount,
    pub peer: PeerCard,
    pub link: Arc<LinkState>,
    pub(super) makings: Arc<Makings>,
    side: Mutex<Side>,
    /// One change of sides at a time.
    pub(super) turning: Arc<tokio::sync::Mutex<()>>,
    /// One search at a time.
    pub(super) searching: Arc<tokio::sync::Mutex<()>>,
    /// One change of the witness's statement at a time.
    pub(super) evidence: Mutex<()>,
    /// One takeover with the group at a time, and what hinders it.
    pub(super) carrying_out: tokio::sync::Mutex<()>,
    pub(super) hindered: Mutex<Option<String>>,
    /// How far it is.
    pub(super) search_progress: Arc<Mutex<Option<SearchProgress>>>,
    pub schedule: Schedule,
    /// The verification that runs, or ran last.
    pub(super) verification: Verification,
}

/// What this node is for the pair.
#[derive(Clone, Debug)]
pub enum Side {
    Primary(Arc<Lane>),
    Secondary { replica: Arc<Replica>, taken: Arc<Mutex<Option<Taken>>> },
}

/// What a takeover brought up.
#[derive(Clone, Debug)]
pub struct Taken {
    /// The last record of the copy that was opened.
    pub through: Sequence,
    pub lane: Arc<Lane>,
    pub home: Arc<OpenedHome<CopySource>>,
    pub sweeper: std::sync::mpsc::Sender<Sweep>,
}

/// What the console says of the link, and what stops its paths.
#[derive(Debug, Default)]
pub struct LinkState {
    /// Why each path is not up.
    pub trouble: Vec<Arc<Mutex<Option<String>>>>,
    /// When the last path was lost; the start counts as such.
    pub lost_at: Arc<Mutex<Option<Instant>>>,
    /// The other site's history, as it told when it dialled a site that writes itself.
    pub heard: Mutex<Option<Lineage>>,
    /// The other site's challenges.
    pub hedge: Hedge,
    /// Ends the diallers of the lane that is up.
    dialling: Mutex<Option<watch::Sender<bool>>>,
}

impl LinkState {
    /// A new set of diallers takes the place of the one before.
    pub(super) fn dial_anew(&self) -> watch::Receiver<bool> {
        let (sender, stop) = watch::channel(false);
        let before = self.dialling.lock().unwrap_or_else(PoisonError::into_inner).replace(sender);
        before.into_iter().for_each(|before| _ = before.send(true));
        stop
    }

    pub(super) fn stop_dialling(&self) {
        if let Some(before) = self.dialling.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = before.send(true);
        }
        for trouble in &self.trouble {
            *trouble.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }

    /// What the other site said last of the history that it writes.
    pub(super) fn heard(&self) -> Option<Lineage> {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PairNode {
    /// Opens what is on disk and starts the lane or the copy.
    pub fn start(shared: Arc<Shared>, config: Pair) -> anyhow::Result<Arc<Self>> {
        let directory = shared.config.node.state_dir.join("pairs").join(&config.name);
        crate::store::files::create_private_dir(&directory)?;
        let plugins = Arc::new(PairPlugins::load(&shared.plugins, &config, &directory)?);
        let peer = shared
            .config
            .peer(&config.peer)
            .ok_or_else(|| anyhow::anyhow!("pair {}: peer {} is not configured", config.name, config.peer))?
            .card
            .clone();
        let trouble = (0..PATHS_MAX).map(|_| Arc::default()).collect();
        let lost_at = Arc::new(Mutex::new(Some(shared.clock.now().instant)));
        let link = Arc::new(LinkState { trouble, lost_at, ..LinkState::default() });
        let (handed_over, mut turns) = unbounded_channel::<HandOver>();
        let (keys_wanted, mut wanted) = unbounded_channel::<()>();
        let makings = Makings {
            shared: Arc::clone(&shared),
            config: config.clone(),
            plugins: Arc::clone(&plugins),
            peer: peer.clone(),
            link: Arc::clone(&link),
            handed_over: Arc::new(move |hand_over| _ = handed_over.send(hand_over)),
            awaited: Mutex::default(),
            unopened: Mutex::default(),
            keys_wanted: Arc::new(move || _ = keys_wanted.send(())),
            image: std::sync::OnceLock::new(),
            cuts: Arc::new(CutsHere::new(Arc::clone(&shared.cuts_changed))),
            arrived: Arc::default(),
            followed: Arc::default(),
            answers: Arc::default(),
            exporting: Mutex::default(),
            tested: Mutex::default(),
        };
        let makings = Arc::new(makings);
        let control = Control::load(&directory)?;
        super::turn::finish_turn(&directory, &control)?;
        let blocks = makings.blocks()?;
        let side = match control.standing(&directory, config.is_primary()) {
            Standing::Writer { lane } => Side::Primary(makings.write(&lane, &control)?),
            Standing::Keeper { copy } => makings.keep(&copy, control)?,
        };
        let runtime = shared.runtime.clone();
        let side = Mutex::new(side);
        let (turning, searching, search_progress) = (Arc::default(), Arc::default(), Arc::default());
        let schedule = Schedule::open(&directory)?;
        let verification = Verification::open(&directory);
        let pair = Self {
            config,
            shared,
            plugins,
            blocks,
            peer,
            link,
            makings,
            side,
            turning,
            searching,
            evidence: Mutex::default(),
            carrying_out: tokio::sync::Mutex::default(),
            hindered: Mutex::default(),
            search_progress,
            schedule,
            verification,
        };
        let pair = Arc::new(pair);
        runtime.spawn(Arc::clone(&pair).follow_witness());
        let waits = Arc::clone(&pair);
        runtime.spawn(async move {
            while wanted.recv().await.is_some() {
                Arc::clone(&waits).bring_keys().await;
            }
        });
        let turned = Arc::clone(&pair);
        runtime.spawn(async move {
            while let Some(hand_over) = turns.recv().await {
                Arc::clone(&turned).turn_after_hand_over(hand_over).await;
            }
        });
        Ok(pair)
    }

    /// What this node is for the pair now.
    pub fn side(&self) -> Side {
        self.side.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_side(&self, side: Side) {
        *self.side.lock().unwrap_or_else(PoisonError::into_inner) = side;
    }

    /// The lane that initiators write to, if this site writes.
    pub fn writer(&self) -> Option<Arc<Lane>> {
        match self.side() {
            Side::Primary(lane) => Some(lane),
            Side::Secondary { .. } => self.taken().map(|taken| taken.lane),
        }
    }

    /// What the pair does here now, for its group.
    pub fn place(&self) -> Place {
        match (self.writer(), self.side()) {
            (Some(lane), _) | (None, Side::Primary(lane)) => Place::Writes(lane),
            (None, Side::Secondary { replica, .. }) => Place::Keeps(replica.inbox.clone()),
        }
    }

    /// The group's cuts that the copy here holds.
    pub fn cuts(&self) -> &CutsHere {
        &self.makings.cuts
    }

    /// The copy that was taken over, while this site writes over it.
    pub fn taken(&self) -> Option<Taken> {
        match self.side() {
            Side::Primary(_) => None,
            Side::Secondary { taken, .. } => taken.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    /// Where a primary's path goes, if it is this pair's peer that attaches.
    pub fn route(&self, attach: &Attach, peer: Fingerprint, link: LinkMode) -> Option<Result<listen::Inbox, Refusal>> {
        if attach.pair != self.config.id || peer != self.peer.signing.fingerprint() {
            return None;
        }
        if link != self.config.link {
            return Some(Err(Refusal::OtherLink));
        }
        if let Some(lane) = self.writer() {
            return Some(Ok(self.refusing(lane)));
        }
        let Side::Secondary { replica, .. } = self.side() else { return None };
        let (inbox, lost_at, clock) = (replica.inbox.clone(), Arc::clone(&self.link.lost_at), self.shared.clock);
        Some(Ok(Arc::new(move |path, came| {
            let lost = matches!(came, listen::Came::Lost);
            set(&lost_at, lost.then(|| clock.now().instant));
            let _ = inbox.send(ReplicaEvent::Came { path, came });
        })))
    }

    /// This site writes itself: the other one is refused, and if its generation is newer, this site learns of it.
    fn refusing(&self, lane: Arc<Lane>) -> listen::Inbox {
        let link = Arc::clone(&self.link);
        Arc::new(move |_, came| {
            let listen::Came::Attach(attach, lineage, _, answers) = came else { return };
            let own = lane.settings.generation;
            let refusal = if attach.generation > own {
                *link.heard.lock().unwrap_or_else(PoisonError::into_inner) = lineage;
                let _ = lane.inbox.send(LaneEvent::Fenced { generation: attach.generation });
                Refusal::NotSecondary
            } else {
                Refusal::Fenced(own)
            };
            let _ = answers.send(listen::Answer::Refuse(refusal));
        })
    }

    /// Stops what runs; what was accepted is durable afterwards.
    pub fn stop(&self) {
        self.verification.stop();
        self.makings.exporting.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(Export::stop);
        self.link.stop_dialling();
        match self.side() {
            Side::Primary(lane) => lane.stop(),
            Side::Secondary { replica, .. } => {
                replica.stop();
                if let Some(taken) = self.taken() {
                    let _ = taken.sweeper.send(Sweep::Stop);
                    taken.lane.stop();
                }
            }
        }
    }
}

pub(super) fn set(place: &Mutex<Option<Instant>>, value: Option<Instant>) {
    *place.lock().unwrap_or_else(PoisonError::into_inner) = value;
}
