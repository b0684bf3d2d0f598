//! This node's part in its site's groups: obeys the lead, and tells it how the pairs here are.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use farseal_core::group::{CutName, KeptCuts, LaneStanding};
use farseal_core::limits::CUT_HOLD_MAX;
use farseal_core::primary::Command;
use farseal_core::units::{CutNumber, Millis, PairId};
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::time::{MissedTickBehavior, interval};

use super::Site;
use super::words::{MemberPair, Order, Part, Report, Unheard};
use crate::control::operator::CommandError;
use crate::lane::intake::Intake;
use crate::lane::{Event as LaneEvent, Lane};
use crate::node::Shared;
use crate::node::pair::PairNode;
use crate::replica::Event as ReplicaEvent;

/// How often standings are looked at: what a lead knows of a lane is never older, and a cut is due four times a second.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// The node's status goes to the lead after this many looks.
const STATUS_EVERY: u32 = 20;

/// What a pair does here now, and how it is reached.
#[derive(Debug)]
pub enum Place {
    Writes(Arc<Lane>),
    Keeps(std::sync::mpsc::Sender<ReplicaEvent>),
}

/// The group's cuts that a copy here holds, as its replica said last; `None` until it has said so.
#[derive(Debug, Default)]
pub struct CutsHere {
    cuts: Mutex<Option<KeptCuts>>,
    /// Wakes the member; shared by all pairs of the node.
    changed: Arc<Notify>,
}

impl CutsHere {
    #[must_use]
    pub fn new(changed: Arc<Notify>) -> Self {
        Self { cuts: Mutex::default(), changed }
    }

    pub fn set(&self, cuts: Option<KeptCuts>) {
        *self.cuts.lock().unwrap_or_else(PoisonError::into_inner) = cuts;
        self.changed.notify_one();
    }

    #[must_use]
    pub fn get(&self) -> Option<KeptCuts> {
        self.cuts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The pairs of this node, as its lead sees them.
#[derive(Debug)]
pub struct Member {
    pub shared: Arc<Shared>,
    pub site: Arc<Site>,
    pairs: BTreeMap<PairId, Arc<PairNode>>,
    runtime: Handle,
    /// What the lead was told last.
    told: Mutex<BTreeMap<PairId, Told>>,
}

#[derive(Debug, Clone, PartialEq)]
enum Told {
    Writes(LaneStanding),
    Keeps(Option<u64>),
}

impl Told {
    fn same_part(&self, other: &Self) -> bool {
        matches!((self, other), (Self::Writes(_), Self::Writes(_)) | (Self::Keeps(_), Self::Keeps(_)))
    }
}

impl Member {
    /// To be called on the runtime.
    #[must_use]
    pub fn new(shared: Arc<Shared>, site: Arc<Site>, pairs: &[Arc<PairNode>]) -> Self {
        let pairs = pairs.iter().map(|pair| (pair.config.id, Arc::clone(pair))).collect();
        Self { shared, site, pairs, runtime: Handle::current(), told: Mutex::default() }
    }

    /// Everything that a lead must know first.
    #[must_use]
    pub fn hello(&self) -> Report {
        let mut told = BTreeMap::new();
        let mut pairs = Vec::new();
        for (id, pair) in &self.pairs {
            let (part, said) = match pair.place() {
                Place::Writes(lane) => {
                    let standing = lane.intake.standing();
                    (Part::Writes { standing }, Told::Writes(standing))
                }
                Place::Keeps(_) => {
                    let cuts = pair.cuts().get();
                    let revision = cuts.as_ref().map(KeptCuts::revision);
                    (Part::Keeps { cuts }, Told::Keeps(revision))
                }
            };
            told.insert(*id, said);
            let (name, group) = (pair.config.name.clone(), pair.config.group.clone());
            pairs.push(MemberPair { id: *id, name, group, part });
        }
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = told;
        Report::Hello { node: self.shared.config.node.name.to_string(), pairs }
    }

    /// Carries out what the lead says. Never waits for a disk or another node.
    pub fn obey(self: &Arc<Self>, order: Order) {
        match order {
            Order::Open { pair, cut, lanes } => {
                let Some(lane) = self.lane(pair) else { return };
                lane.intake.open_cut(cut, lanes);
                self.site.report(Report::Opened { pair, cut });
                if lanes > 1 {
                    self.let_go_in_time(Arc::clone(&lane.intake), cut);
                }
            }
            Order::Release { pair, cut } => {
                let Some(lane) = self.lane(pair) else { return };
                let whole = lane.intake.release_cut(cut);
                self.site.report(Report::Released { pair, cut, whole });
            }
            Order::Confirm { pair, cut, lanes, name } => {
                if let Some(lane) = self.lane(pair) {
                    let _ = lane.inbox.send(LaneEvent::ConfirmCut { cut, lanes, name });
                }
            }
            Order::Pause { pair } => self.command(pair, Command::Pause),
            Order::Resume { pair } => self.command(pair, Command::Resume),
            Order::PrepareTurn { pair } => self.prepare_turn(pair),
            Order::Quiesce { pair } => self.command(pair, Command::Quiesce),
            Order::GoOn { pair } => self.command(pair, Command::GoOn),
            Order::HandOver { pair } => self.command(pair, Command::HandOver),
            Order::Declare { pair } => self.declare(pair),
            Order::Limit { pair, limit } => self.replica(pair, ReplicaEvent::Limit(limit)),
            Order::PrepareTakeOver { pair, round, at, by_word, unheard } => {
                self.prepare_takeover((pair, round), at, by_word, unheard);
            }
            Order::StillUnheard { pair, round, silence } => self.look_again((pair, round), silence),
            Order::RefuseWord { pair } => self.replica(pair, ReplicaEvent::RefuseWord),
            Order::DropTakeOver { pair } => self.drop_takeover(pair),
            Order::TakeOver { pair, at: None } => self.replica(pair, ReplicaEvent::TakeOver),
            Order::TakeOver { pair, at: Some(_) } => self.take_over_at_point(pair),
            Order::Status(status) => self.site.heard(status),
            Order::Answer { id, reply } => self.site.answered(id, reply),
        }
    }

    /// Tells the lead of what changes, until the node stops.
    pub async fn run(self: Arc<Self>, changed: Arc<Notify>, mut stop: watch::Receiver<bool>) {
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut looks = 0_u32;
        loop {
            tokio::select! {
                _ = look.tick() => looks += 1,
                () = changed.notified() => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            self.tell_what_changed();
            if looks >= STATUS_EVERY {
                looks = 0;
                let member = Arc::clone(&self);
                // A lane that does not answer must not keep the others from being told of.
                tokio::task::spawn_blocking(move || {
                    let pairs: Vec<_> = member.pairs.values().cloned().collect();
                    let status = member.shared.node_status(&pairs);
                    member.site.report(Report::Node(Box::new(status)));
                });
            }
        }
    }

    fn tell_what_changed(&self) {
        let mut anew = false;
        {
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            for (id, pair) in &self.pairs {
                let (now, report) = match pair.place() {
                    Place::Writes(lane) => {
                        let standing = lane.intake.standing();
                        (Told::Writes(standing), Some(Report::Stands { pair: *id, standing }))
                    }
                    Place::Keeps(_) => {
                        let cuts = pair.cuts().get();
                        let revision = cuts.as_ref().map(KeptCuts::revision);
                        (Told::Keeps(revision), cuts.map(|cuts| Report::Cuts { pair: *id, cuts }))
                    }
                };
                let Some(before) = told.get(id) else { continue };
                anew |= !before.same_part(&now);
                // What does not reach the lead is told anew when it is there.
                if *before != now && report.is_none_or(|report| self.site.report(report)) {
                    told.insert(*id, now);
                }
            }
        }
        if anew {
            let hello = self.hello();
            self.site.report(hello);
        }
    }

    /// Initiators wait no longer than this for a lead that is not heard of.
    fn let_go_in_time(&self, intake: Arc<Intake>, cut: CutNumber) {
        self.runtime.spawn(async move {
            tokio::time::sleep(Duration::from_millis(CUT_HOLD_MAX.0)).await;
            intake.release_cut(cut);
        });
    }

    fn lane(&self, pair: PairId) -> Option<Arc<Lane>> {
        match self.pairs.get(&pair)?.place() {
            Place::Writes(lane) => Some(lane),
            Place::Keeps(_) => None,
        }
    }

    fn command(&self, pair: PairId, command: Command) {
        if let Some(lane) = self.lane(pair) {
            let _ = lane.inbox.send(LaneEvent::Operator { command, done: Box::new(|_| {}) });
        }
    }

    /// Blocks of an earlier takeover may have to be opened first, which takes as long as it takes.
    fn prepare_turn(self: &Arc<Self>, id: PairId) {
        let Some(pair) = self.pairs.get(&id).cloned() else { return };
        let site = Arc::clone(&self.site);
        self.runtime.spawn(async move {
            let obstacle = pair.prepare_swap().await.err().map(|refused| refused.to_string());
            site.report(Report::Ready { pair: id, obstacle });
        });
    }

    /// The copy answers when its site has decided for the whole group.
    fn declare(self: &Arc<Self>, id: PairId) {
        let Some(pair) = self.pairs.get(&id).cloned() else { return };
        let member = Arc::clone(self);
        self.runtime.spawn(async move {
            let refusal = pair.declare_with_group().await.err().map(|refused| refused.to_string());
            // That the lane is fenced is known before it is said to be declared: the next operator is told so.
            member.tell_what_changed();
            member.site.report(Report::Declared { pair: id, refusal });
        });
    }

    /// A point is pinned, so that it is still there when the group has decided.
    fn prepare_takeover(
        self: &Arc<Self>,
        (id, round): (PairId, u64),
        at: Option<CutName>,
        by_word: bool,
        unheard: Option<Box<Unheard>>,
    ) {
        let Some(pair) = self.pairs.get(&id).cloned() else { return };
        let member = Arc::clone(self);
        self.runtime.spawn(async move {
            let mut prepared = pair.prepare_takeover(at.as_ref(), by_word).await;
            if let (Ok(_), Some(unheard)) = (&prepared, unheard) {
                prepared = pair.prepare_unheard(&unheard).await.map(|()| None);
            }
            member.say_if_it_can((id, round), prepared);
        });
    }

    /// What takes time is done: this is the lane's last word before it is decided.
    fn look_again(self: &Arc<Self>, (id, round): (PairId, u64), silence: Millis) {
        let Some(pair) = self.pairs.get(&id).cloned() else { return };
        let member = Arc::clone(self);
        self.runtime.spawn(async move {
            let silent = pair.is_unheard(silence).await.map(|()| None);
            member.say_if_it_can((id, round), silent);
        });
    }

    /// The cuts that the copy holds are told first: the lead decides at the newest of all that it knows of by then, and the main site may
    /// have named one that came a moment ago.
    fn say_if_it_can(&self, (pair, round): (PairId, u64), asked: Result<Option<CutNumber>, CommandError>) {
        self.tell_what_changed();
        let (cut, obstacle) = match asked {
            Ok(cut) => (cut, None),
            Err(refused) => (None, Some(refused.to_string())),
        };
        self.site.report(Report::CanTakeOver { pair, round, obstacle, cut });
    }

    fn drop_takeover(&self, id: PairId) {
        if let Some(pair) = self.pairs.get(&id).cloned() {
            self.runtime.spawn(async move { pair.drop_takeover().await });
        }
    }

    /// Told again after a restart, it has been done, or is done now.
    fn take_over_at_point(&self, id: PairId) {
        if let Some(pair) = self.pairs.get(&id).cloned() {
            self.runtime.spawn(async move { pair.carry_takeover_out().await });
        }
    }

    fn replica(&self, pair: PairId, event: ReplicaEvent) {
        if let Some(pair) = self.pairs.get(&pair)
            && let Place::Keeps(inbox) = pair.place()
        {
            let _ = inbox.send(event);
        }
    }
}
