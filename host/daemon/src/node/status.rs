//! What this node tells its console: core's numbers in the operator's words.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use farseal_core::primary::{CopyState, PauseState, SwapState};
use farseal_core::rotation::State as RotationState;
use farseal_core::units::{BlockCount, ByteLen, Generation, Millis, Sequence};

use super::Shared;
use super::awaited::MEND_AND_RESTART;
use super::pair::{PairNode, Side, Taken};
use crate::control::api::{
    HistoryStatus, JournalUse, KeyStatus, Lag, LastError, Marks, Mode, NextRotation, NodeStatus, PairState, PairStatus,
    PluginSlot, PluginStanding, PluginStatus, PointsStatus, Role, RotationWord,
};
use crate::lane::{Event as LaneEvent, Lane, LaneView};
use crate::replica::{Event as ReplicaEvent, Replica};
use crate::role::Control;

/// How long a console waits for a busy lane.
const PATIENCE: Duration = Duration::from_secs(5);

impl Shared {
    pub(crate) fn node_status(&self, pairs: &[Arc<PairNode>]) -> NodeStatus {
        let now = self.clock.now();
        NodeStatus {
            node: self.config.node.name.to_string(),
            version: env!("CARGO_PKG_VERSION").into(),
            fingerprint: self.identity.card().fingerprint().to_string(),
            now: now.wall,
            uptime: now.instant.since(self.started),
            keys_in_swap: Some(self.keys_in_swap.clone()),
            pairs: pairs.iter().map(|pair| pair.status()).collect(),
            site: self.site.status(),
        }
    }
}

impl PairNode {
    pub(super) fn status(&self) -> PairStatus {
        match self.side() {
            Side::Primary(lane) => match look(&lane) {
                Some(view) => self.primary_status(&lane, &view),
                None => self.blank(Role::Primary, PairState::Stopped { why: "the lane does not answer".into() }),
            },
            Side::Secondary { replica, .. } => {
                if let Some(taken) = self.taken() {
                    return self.taken_status(&taken);
                }
                let (sender, status) = std::sync::mpsc::channel();
                let _ =
                    replica.inbox.send(ReplicaEvent::Look { done: Box::new(move |status| drop(sender.send(status))) });
                match status.recv_timeout(PATIENCE) {
                    Ok(status) => PairStatus {
                        points: self.points_status(&replica),
                        arrived: *self.makings.arrived.lock().unwrap_or_else(PoisonError::into_inner),
                        ..self.secondary_status(&status)
                    },
                    Err(_) => self.blank(Role::Secondary, PairState::Stopped { why: "the log does not answer".into() }),
                }
            }
        }
    }

    /// After a takeover: the numbers of the lane that writes here, beside how much of the copy is open.
    fn taken_status(&self, taken: &Taken) -> PairStatus {
        let progress = taken.home.progress();
        match look(&taken.lane) {
            // As long as the other site is away, how much of the copy is open says more than that it is away.
            Some(view) if view.status.link_paths == 0 && view.status.diverged.is_none() => {
                let status = self.primary_status(&taken.lane, &view);
                let state = PairState::TakenOver { opened: progress.opened, of: progress.present };
                let marks = Marks { safe: taken.through, ..status.marks };
                PairStatus { state, marks, lag: Lag::default(), ..status }
            }
            Some(view) => self.primary_status(&taken.lane, &view),
            None => self.blank(Role::Secondary, PairState::Stopped { why: "the lane does not answer".into() }),
        }
    }

    fn primary_status(&self, lane: &Lane, view: &LaneView) -> PairStatus {
        let status = &view.status;
        let now = self.shared.clock.now();
        let owed = status.owed_blocks.byte_len(self.config.block_bytes);
        let time = status.lag_since.map(|since| now.wall.since(since));
        let trouble = self.link.trouble.iter().find_map(|trouble| trouble.lock().ok()?.clone());
        PairStatus {
            generation: lane.settings.generation,
            paths_up: u16::try_from(status.link_paths).unwrap_or(u16::MAX),
            marks: Marks { last: status.last, durable: status.durable, safe: status.acked, homed: status.homed },
            lag: Lag {
                records: status.lag_records,
                bytes: ByteLen(status.lag_bytes.0.saturating_add(owed.0)),
                time: Some(time.unwrap_or(Millis(0))),
            },
            journal: Some(JournalUse { used: ByteLen(view.journal_bytes), max: self.config.journal_max }),
            flow: Some(self.flow_status(view)),
            paths: view.flow.way.paths,
            key: self.key_status(view),
            mode: status.mode,
            mode_kept: status.mode_kept,
            last_error: self.last_error(view, trouble),
            verify: self.verification.status(),
            seed: self.seed_status(view),
            ..self.blank(Role::Primary, self.primary_state(view))
        }
    }

    fn primary_state(&self, view: &LaneView) -> PairState {
        let status = &view.status;
        if let Some(divergence) = &status.diverged {
            return PairState::Diverged { why: divergence.to_string() };
        }
        if let Some(why) = &view.last_seal_fault {
            return PairState::Stopped { why: why.clone() };
        }
        let owed = status.owed_blocks.byte_len(self.config.block_bytes);
        if let Some(seed) = &view.seed {
            return PairState::Seeding { shipped: seed.shipped.is_some() };
        }
        if status.link_paths == 0 && status.swap == Some(SwapState::Asking) {
            let why = format!("handed over to {}, which has not said whether it writes now", self.config.peer);
            return PairState::Stopped { why };
        }
        if status.link_paths == 0 {
            let lost = *self.link.lost_at.lock().unwrap_or_else(PoisonError::into_inner);
            let since = lost.map_or(Millis(0), |at| self.shared.clock.now().instant.since(at));
            return PairState::LinkDown { since };
        }
        match (status.pause, status.copy) {
            (PauseState::Paused, _) => PairState::Paused,
            (PauseState::Pausing, _) => PairState::Pausing,
            (PauseState::Running, CopyState::Behind) => PairState::Behind { owed },
            (PauseState::Running, CopyState::Resync) => PairState::CatchingUp { owed },
            (PauseState::Running, CopyState::InOrder | CopyState::Unpaired) => PairState::Copying,
        }
    }

    fn key_status(&self, view: &LaneView) -> Option<KeyStatus> {
        let key = view.status.key.filter(|_| self.config.encrypted)?;
        let now = self.shared.clock.now();
        let step = match &view.status.rotation {
            RotationState::Idle => None,
            RotationState::Preparing { .. } => Some("the key is to be drawn"),
            RotationState::Escrowing { .. } => Some("the escrow has not taken the key yet"),
            RotationState::Waiting { .. } => Some("the key waits for its slot"),
            RotationState::Carrying { .. } => Some("the key goes to the remote in the slots of records"),
            RotationState::Draining { .. } => Some("sealing is held until the remote has everything"),
            RotationState::Delivering { .. } => Some("the remote has not acknowledged the key yet"),
            RotationState::Armed { .. } => Some("the key is delivered and comes into force"),
        };
        let wait = view.rotation_due.map(|at| at.since(now.wall));
        let next = NextRotation {
            by: RotationWord::Policy,
            wait: wait.filter(|_| step.is_none()),
            step: step.map(Into::into),
        };
        Some(KeyStatus {
            epoch: key.epoch,
            age: Some(now.wall.since(key.since)),
            sealed: key.bytes,
            next: (next.wait.is_some() || next.step.is_some()).then_some(next),
            held: view.status.held.map(|held| format!("{held:?}")),
        })
    }

    fn last_error(&self, view: &LaneView, trouble: Option<String>) -> Option<LastError> {
        if view.status.link_paths == 0 && view.status.swap == Some(SwapState::Asking) {
            let trouble = trouble.unwrap_or_else(|| "it cannot be reached".into());
            let message = format!("{} was asked to go on and has not answered: {trouble}", self.config.peer);
            let next = format!(
                "see that it runs: it answers by itself; if it is lost for good: `farseal take-back {}`",
                self.config.name
            );
            return Some(LastError { at: self.shared.clock.now().wall, message, next: Some(next) });
        }
        if let Some(message) = self.seed_trouble(view) {
            let next =
                view.seed.as_ref().map(|_| format!("`farseal seed abandon {}` copies over the link", self.config.name));
            return Some(LastError { at: self.shared.clock.now().wall, message, next });
        }
        if view.status.link_paths == 0
            && view.seed.is_none()
            && let Some(message) = trouble
        {
            let next = Some("it is tried again by itself; see that the remote node runs and is reachable".into());
            return Some(LastError { at: self.shared.clock.now().wall, message, next });
        }
        view.status.alarms.last().map(|(at, alarm)| LastError { at: *at, message: alarm.to_string(), next: None })
    }

    fn secondary_status(&self, status: &farseal_core::secondary::Status) -> PairStatus {
        let now = self.shared.clock.now().wall;
        let state = if status.taken_over {
            PairState::TakingOver
        } else if status.full {
            PairState::Stopped { why: "the log's disk is full".into() }
        } else if status.paths == 0 {
            let lost = *self.link.lost_at.lock().unwrap_or_else(PoisonError::into_inner);
            PairState::LinkDown { since: lost.map_or(Millis(0), |at| self.shared.clock.now().instant.since(at)) }
        } else if status.gap_open {
            PairState::CatchingUp { owed: ByteLen(0) }
        } else {
            PairState::Copying
        };
        PairStatus {
            generation: status.generation,
            paths_up: u16::try_from(status.paths).unwrap_or(u16::MAX),
            marks: Marks { last: status.durable, durable: status.durable, safe: status.offered, homed: Sequence::NONE },
            lag: Lag { records: 0, bytes: ByteLen(0), time: status.durable_wall.map(|wall| now.since(wall)) },
            key: status.epoch.filter(|_| self.config.encrypted).map(|epoch| KeyStatus {
                epoch,
                age: None,
                sealed: ByteLen(0),
                next: None,
                held: None,
            }),
            last_error: self.copys_error(status),
            ..self.blank(Role::Secondary, state)
        }
    }

    fn copys_error(&self, status: &farseal_core::secondary::Status) -> Option<LastError> {
        if let Some(message) = self.awaits_keys() {
            let next = Some("at the escrow site: `farseal escrow requests`".into());
            return Some(LastError { at: self.shared.clock.now().wall, message, next });
        }
        if let Some(message) = self.unopened() {
            let next = Some(MEND_AND_RESTART.into());
            return Some(LastError { at: self.shared.clock.now().wall, message, next });
        }
        if let Some(why) = self.hindered() {
            let message = format!("its group is taken over, and this pair is not yet: {why}");
            let next = Some(self.next_of_hindered());
            return Some(LastError { at: self.shared.clock.now().wall, message, next });
        }
        status.alarms.last().map(|(at, alarm)| LastError { at: *at, message: alarm.to_string(), next: None })
    }

    fn blank(&self, role: Role, state: PairState) -> PairStatus {
        PairStatus {
            name: self.config.name.clone(),
            id: self.config.id.to_string(),
            role,
            peer: self.config.peer.clone(),
            volume: self.config.volume_name().to_owned(),
            range: (!self.config.ranges.is_empty()).then(|| crate::range::text(&self.config.ranges)),
            size: BlockCount(self.blocks.0).byte_len(self.config.block_bytes),
            state,
            mode: Mode::Async,
            mode_kept: true,
            ordered: self.config.ordered,
            encrypted: self.config.encrypted,
            generation: Generation(0),
            paths_up: 0,
            paths: self.config.paths,
            marks: Marks::default(),
            lag: Lag::default(),
            journal: None,
            flow: None,
            key: None,
            plugins: self.plugin_status(),
            last_error: None::<LastError>,
            history: self.history_status(),
            verify: None,
            escrow: self.escrow_status(),
            seed: None,
            points: None,
            arrived: None,
        }
    }

    /// What changes of sides left on disk; nothing, where it cannot be read now.
    fn history_status(&self) -> Option<HistoryStatus> {
        let directory = self.makings.directory();
        let control = Control::load(&directory).ok()?;
        let lineage = control.lineage?;
        let keeps = control.keeps.filter(|_| control.taken_over_at.is_none());
        let branches = super::branch::list(&directory).unwrap_or_default();
        Some(HistoryStatus {
            fork: lineage.fork,
            base: keeps.map(|keeps| (keeps.base_generation, keeps.base)),
            branches: branches.iter().map(super::branch::Branch::name).collect(),
        })
    }

    pub(super) fn plugin_status(&self) -> Vec<PluginStatus> {
        let choices = [&self.config.cipher, &self.config.policy, &self.config.disguise, &self.config.recovery];
        self.plugins
            .facts()
            .into_iter()
            .zip(PluginSlot::ALL)
            .zip(choices)
            .map(|((facts, slot), choice)| {
                let standing = self.plugins.breaker.standing(&facts.digest);
                let stood_in = self.plugins.stood_in(slot);
                PluginStatus {
                    pair: self.config.name.clone(),
                    slot,
                    name: facts.about.name,
                    version: facts.about.version,
                    digest: facts.digest,
                    grants: self
                        .plugins
                        .put_by_operator(slot, choice)
                        .map_or_else(|| choice.grants.clone(), |place| place.now.grants),
                    standing: if standing.quarantined_since.is_some() {
                        PluginStanding::Quarantined
                    } else {
                        PluginStanding::InForce
                    },
                    faults: u64::try_from(standing.strikes.len()).unwrap_or(u64::MAX),
                    last_fault: standing.strikes.last().map(|strike| format!("{:?}", strike.class)),
                    stood_in: stood_in.as_ref().map_or(0, |stood_in| stood_in.times),
                    last_stood_in: stood_in.map(|stood_in| stood_in.last),
                }
            })
            .collect()
    }
}

impl PairNode {
    /// What the copy keeps beside its newest point, if it does.
    fn points_status(&self, replica: &Replica) -> Option<PointsStatus> {
        let (sender, view) = std::sync::mpsc::channel();
        let _ = replica.inbox.send(ReplicaEvent::Points { done: Box::new(move |view| drop(sender.send(view))) });
        let view = view.recv_timeout(PATIENCE).ok()?;
        let now = self.shared.clock.now().wall;
        let pins = u64::try_from(view.points.pins().len()).unwrap_or(u64::MAX);
        if view.terms.is_none() && pins == 0 && view.tested.is_none() {
            return None;
        }
        let oldest = view.points.moments().front().filter(|_| view.window);
        Some(PointsStatus {
            window: view.terms.map(|terms| terms.span),
            oldest: oldest.map(|moment| (moment.sequence, now.since(moment.at))),
            room: view.room,
            shortened: view.shortened().map(|shortened| shortened.why.to_string()),
            pins,
            tested: view.tested,
        })
    }
}

/// A lane's numbers, if it answers.
fn look(lane: &Lane) -> Option<LaneView> {
    let (sender, view) = std::sync::mpsc::channel();
    let _ = lane.inbox.send(LaneEvent::Look { done: Box::new(move |view| drop(sender.send(view))) });
    view.recv_timeout(PATIENCE).ok()
}
