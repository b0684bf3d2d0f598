//! What an operator can have this node do.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use farseal_core::group::{CutName, OfferLimit};
use farseal_core::primary::{Command, Mode, PauseState};
use farseal_core::rotation::Refused;
use farseal_core::units::CutNumber;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use super::Node;
use super::awaited::MEND_AND_RESTART;
use super::pair::PairNode;
use crate::control::api::{
    CommandReply, EscrowAnswer, EscrowView, GroupCommand, NodeStatus, PairCommand, Pause, PluginStatus, Role, SiteView,
    SwapSides, TakeOver,
};
use crate::control::operator::{BoxFuture, CommandError, Operator};
use crate::lane::Event as LaneEvent;
use crate::replica::Event as ReplicaEvent;
use crate::replica::points::Purpose;

/// How long a command waits for what it started.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// A pair that could not be taken over with its group is tried again after this, and later after twice as long each time, up to the other.
const TRY_AGAIN: Duration = Duration::from_millis(500);
const TRY_AGAIN_MOST: Duration = Duration::from_secs(30);
/// How often a wait looks again.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(20);

impl Operator for Node {
    fn status(&self) -> NodeStatus {
        self.shared.node_status(&self.pairs)
    }

    fn command(&self, pair: &str, command: PairCommand) -> BoxFuture<'_, Result<CommandReply, CommandError>> {
        let found = self.pair(pair).cloned();
        let name = pair.to_owned();
        Box::pin(async move {
            let pair = found.ok_or(CommandError::NoSuchPair { pair: name })?;
            if let PairCommand::TakeOver(TakeOver { alone, .. })
            | PairCommand::SwapSides(SwapSides { alone })
            | PairCommand::Pause(Pause { alone, .. }) = &command
            {
                self.must_be_alone(&pair, *alone, command.name())?;
            }
            if let PairCommand::AddPreset(_) | PairCommand::Declare = &command {
                self.must_be_alone(&pair, false, command.name())?;
            }
            if command == PairCommand::Resume {
                self.must_not_be_paused_together(&pair)?;
            }
            pair.carry_out(command).await
        })
    }

    fn group(&self, group: &str, command: GroupCommand) -> BoxFuture<'_, Result<CommandReply, CommandError>> {
        Box::pin(self.command_group(group.to_owned(), command))
    }

    fn escrow(&self) -> Result<EscrowView, CommandError> {
        self.view_escrow()
    }

    fn escrow_answer(&self, answer: EscrowAnswer) -> Result<CommandReply, CommandError> {
        self.answer_request(answer)
    }

    fn site(&self) -> BoxFuture<'_, Result<SiteView, CommandError>> {
        Box::pin(self.view_site())
    }

    fn plugins(&self) -> Vec<PluginStatus> {
        self.pairs.iter().flat_map(|pair| pair.plugin_status()).collect()
    }

    fn metrics(&self, out: &mut String) {
        let counters = [
            ("farseal_link_connections_total", &self.link.accepted),
            ("farseal_link_dropped_total", &self.link.dropped),
        ];
        for (name, counter) in counters {
            let _ = writeln!(out, "# TYPE {name} counter\n{name} {}", counter.load(Ordering::Relaxed));
        }
        if let Ok(nbd) = self.nbd.lock()
            && let Some(server) = nbd.as_ref()
        {
            for (name, value) in server.counters().snapshot() {
                let _ = writeln!(out, "# TYPE farseal_nbd_{name} counter\nfarseal_nbd_{name} {value}");
            }
        }
    }
}

/// What the point of a group's takeover is pinned as.
pub(super) const GROUP_PIN: &str = "taken-over-with-the-group";

fn group_pin() -> Result<CutName, CommandError> {
    CutName::new(GROUP_PIN).map_err(|error| CommandError::Failed { reason: error.to_string(), next: None })
}

impl PairNode {
    async fn carry_out(self: Arc<Self>, command: PairCommand) -> Result<CommandReply, CommandError> {
        self.must_fit_a_seed(&command).await?;
        match command {
            PairCommand::Rotate(rotate) => self.rotate(rotate).await,
            PairCommand::Suspect(suspect) => self.suspect(suspect.epoch).await,
            PairCommand::Pause(pause) => self.pause(pause).await,
            PairCommand::Resume => {
                if self.look().await?.status.pause == PauseState::Running {
                    return Err(self.wrong_state(
                        "resume",
                        "not paused",
                        Some(format!("farseal pause {}", self.config.name)),
                    ));
                }
                self.let_go()?;
                self.tell(Command::Resume, "resume").await?;
                Ok(CommandReply::new("the transfer goes on"))
            }
            PairCommand::SetMode(chosen) => self.set_mode(chosen.mode).await,
            PairCommand::SetTransfer(wanted) => self.set_transfer(wanted).await,
            PairCommand::Throttle(wanted) => self.throttle(wanted).await,
            PairCommand::AddPreset(add) => self.add_preset(&add),
            PairCommand::RemovePreset(remove) => self.remove_preset(&remove),
            PairCommand::Rejoin => self.rejoin().await,
            PairCommand::SwapSides(_) => self.swap_sides().await,
            PairCommand::TakeBack => self.take_back().await,
            PairCommand::Declare => self.declare_disaster().await,
            PairCommand::Branch(command) => self.branch(command).await,
            PairCommand::TakeOver(take_over) => self.take_over(take_over.at.as_deref()).await,
            PairCommand::Scrub => self.scrub().await,
            PairCommand::Verify(verify) => self.verify(verify).await,
            PairCommand::Seed(seed) => self.seed(seed).await,
            PairCommand::CopyAll => {
                self.tell(Command::CopyAll, "copy-all").await?;
                Ok(CommandReply::new("the whole volume is owed and is copied afresh"))
            }
            PairCommand::Escrow(command) => self.escrow(command).await,
            PairCommand::Swap(swap) => self.swap(swap).await,
            PairCommand::Plugin(command) => self.plugin(command).await,
            PairCommand::Key(command) => self.key(command).await,
            PairCommand::Recover(command) => self.recover(command).await,
        }
    }

    async fn pause(&self, pause: Pause) -> Result<CommandReply, CommandError> {
        if self.look().await?.status.pause != PauseState::Running && !self.is_held_by_preset() {
            return Err(self.wrong_state(
                "pause",
                "paused already",
                Some(format!("farseal resume {}", self.config.name)),
            ));
        }
        let by = pause.by.map(|by| farseal_plugin::escaped(&by).to_string());
        tracing::info!(pair = self.config.name, by = by.as_deref().unwrap_or("an operator"), "a pause is asked for");
        let taken_from = self.hold(by, pause.span)?;
        self.tell(Command::Pause, "pause").await?;
        let deadline = Instant::now() + PATIENCE;
        if !pause.wait {
            let message = "what came before is still sent; then both sites hold the same state until resume";
            let details = taken_from.map(|preset| format!("preset {preset} does not end this pause any more"));
            return Ok(CommandReply { details: details.into_iter().collect(), ..CommandReply::new(message) });
        }
        loop {
            if self.look().await?.status.pause == PauseState::Paused {
                return Ok(CommandReply::new("both sites hold the same state, and keep it until resume"));
            }
            if Instant::now() >= deadline {
                return Err(CommandError::NotYet { what: "the pause".into() });
            }
            sleep(LOOK_EVERY).await;
        }
    }

    async fn set_mode(&self, mode: Mode) -> Result<CommandReply, CommandError> {
        if self.look().await?.status.mode == mode {
            return Ok(CommandReply::new(format!("initiators are answered in mode {mode} already")));
        }
        if !self.config.ordered && mode != Mode::Async {
            return Err(CommandError::Refused {
                reason: format!(
                    "mode {mode} waits for the remote; pair {} keeps no order (ordered-writes = false), and its remote is \
                     brought up to date now and then",
                    self.config.name
                ),
                next: Some("write ordered-writes = true into the configuration and restart the node".into()),
            });
        }
        self.tell(Command::SetMode(mode), "mode").await?;
        let mut reply = CommandReply::new(format!("initiators are answered in mode {mode}"));
        if !self.look().await?.status.mode_kept {
            reply.next = Some("the remote cannot be waited for now: see `farseal status`".into());
        }
        Ok(reply)
    }

    /// Before a takeover with its group: can it be, and if so, the point is pinned until it is. Says which cut the name is here:
    /// nothing but a cut of the group is meant, and the lead sees that it is the same one at all pairs.
    pub(crate) async fn prepare_takeover(
        &self,
        at: Option<&CutName>,
        by_word: bool,
    ) -> Result<Option<CutNumber>, CommandError> {
        let replica = self.keeper("takeover")?;
        if self.taken().is_some() {
            return Err(self.wrong_state("takeover", "taken over already", None));
        }
        if by_word && !self.copy_status().await?.is_some_and(|copy| copy.has_point()) {
            return Err(CommandError::Refused {
                reason: "its copy is not whole yet, and holds no state of the volume that could be taken over".into(),
                next: None,
            });
        }
        if !by_word || self.makings.escrow_line().is_none() {
            self.must_have_keys()?;
        }
        self.forget_evidence();
        let Some(at) = at else { return Ok(None) };
        self.drop_takeover().await;
        let (cut, point) = self.find_cut(&replica, at).await?;
        self.open_point(&replica, Some(point), Purpose::Pin(group_pin()?)).await?;
        Ok(Some(cut))
    }

    /// The pin of a takeover that came to nothing.
    pub(crate) async fn drop_takeover(&self) {
        if let (Ok(replica), Ok(name)) = (self.keeper("takeover"), group_pin()) {
            let _ = replica.ask(|done| ReplicaEvent::Unpin { name, done }).await;
        }
    }

    /// As the group decided: the others write already, so that it is tried until it is done.
    pub(crate) async fn carry_takeover_out(&self) {
        let Ok(_one) = self.carrying_out.try_lock() else { return };
        let (mut pause, mut stop) = (TRY_AGAIN, self.shared.stop.subscribe());
        while let Err(error) = self.take_over_prepared().await {
            if matches!(error, CommandError::OtherSide { .. }) {
                // There is no copy any more that it would open.
                break;
            }
            tracing::error!(
                pair = self.config.name,
                next = self.next_of_hindered(),
                "its group is taken over, and this pair is not yet: {error}"
            );
            self.set_hindered(Some(error.to_string()));
            tokio::select! {
                () = sleep(pause) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            pause = (pause * 2).min(TRY_AGAIN_MOST);
        }
        self.set_hindered(None);
    }

    fn set_hindered(&self, why: Option<String>) {
        *self.hindered.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    /// Why this pair does not write yet, though its group is taken over.
    pub(super) fn hindered(&self) -> Option<String> {
        self.hindered.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn next_of_hindered(&self) -> String {
        format!(
            "mend that: it is tried again by itself; what can be gone back to: `farseal recover points {}`",
            self.config.name
        )
    }

    async fn take_over_prepared(&self) -> Result<(), CommandError> {
        let replica = self.keeper("takeover")?;
        if self.taken().is_some() {
            return Ok(());
        }
        let point = self.find_point(&replica, Some(GROUP_PIN)).await?;
        self.open_point(&replica, point, Purpose::TakeOver).await.map(drop)
    }

    async fn take_over(&self, at: Option<&str>) -> Result<CommandReply, CommandError> {
        let replica = self.keeper("takeover")?;
        let up = || self.taken();
        if up().is_some() {
            return Err(self.wrong_state("takeover", "taken over already", None));
        }
        self.must_have_keys()?;
        let point = self.find_point(&replica, at).await?;
        self.forget_evidence();
        // By itself, at its own state: how far its group is does not count.
        match point {
            Some(point) => _ = self.open_point(&replica, Some(point), Purpose::TakeOverAlone).await?,
            None => {
                let _ = replica.inbox.send(ReplicaEvent::Limit(OfferLimit::Everything));
                let _ = replica.inbox.send(ReplicaEvent::TakeOver);
            }
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(taken) = up() {
                let export = self.config.volume_name();
                return Ok(CommandReply {
                    message: format!(
                        "this site writes now, as generation {}; NBD export {export:?} is up",
                        taken.lane.settings.generation
                    ),
                    details: point.map(|point| self.told_of_point(point, taken.through)).into_iter().collect(),
                    next: Some(format!(
                        "connect initiators to export {export:?}; `farseal status` shows how much is open"
                    )),
                    report: None,
                });
            }
            if let Some(reason) = self.unopened() {
                return Err(CommandError::Failed { reason, next: Some(MEND_AND_RESTART.into()) });
            }
            if Instant::now() >= deadline {
                return Err(CommandError::NotYet { what: "the takeover".into() });
            }
            sleep(LOOK_EVERY).await;
        }
    }

    async fn scrub(&self) -> Result<CommandReply, CommandError> {
        let replica = self.keeper("scrub")?;
        let reader = replica.reader.clone();
        let report = tokio::task::spawn_blocking(move || crate::store::scrub::scrub(&reader, &mut |_| {}))
            .await
            .map_err(|error| CommandError::Failed { reason: error.to_string(), next: None })?;
        let details: Vec<String> = report
            .damaged
            .iter()
            .map(|record| format!("{} at byte {}: {}", record.path.display(), record.location.offset, record.flaw))
            .collect();
        if details.is_empty() {
            return Ok(CommandReply::new(format!("{} records checked without a key; none is damaged", report.records)));
        }
        Ok(CommandReply {
            message: format!("{} of {} records are damaged", details.len(), report.records),
            details,
            next: Some("while the main site is there: `farseal copy-all` on it copies the volume afresh".into()),
            report: None,
        })
    }

    /// Has the lane carry out a command; answers how it began.
    pub(super) async fn tell(&self, command: Command, name: &'static str) -> Result<(), CommandError> {
        self.order(command, name).await?.map_err(not_begun)
    }

    /// Gives the lane a command. Refused is what its machine does not begin.
    pub(super) async fn order(
        &self,
        command: Command,
        name: &'static str,
    ) -> Result<Result<(), Refused>, CommandError> {
        let Some(lane) = self.writer() else { return Err(self.other_side(name, Role::Primary)) };
        let (sender, done) = oneshot::channel();
        let event = LaneEvent::Operator { command, done: Box::new(move |result| _ = sender.send(result)) };
        let gone =
            || CommandError::Failed { reason: "the lane has stopped".into(), next: Some("see the node's log".into()) };
        lane.inbox.send(event).map_err(|_| gone())?;
        done.await.map_err(|_| gone())
    }

    /// The lane's numbers.
    pub(super) async fn look(&self) -> Result<crate::lane::LaneView, CommandError> {
        let Some(lane) = self.writer() else { return Err(self.other_side("this", Role::Primary)) };
        let (sender, view) = oneshot::channel();
        let _ = lane.inbox.send(LaneEvent::Look { done: Box::new(move |view| drop(sender.send(view))) });
        view.await.map_err(|_| CommandError::Failed {
            reason: "the lane has stopped".into(),
            next: Some("see the node's log, mend the cause and restart the node".into()),
        })
    }

    pub(super) fn other_side(&self, command: &'static str, needs: Role) -> CommandError {
        let is = if needs == Role::Primary { Role::Secondary } else { Role::Primary };
        CommandError::OtherSide { pair: self.config.name.clone(), command, needs, is }
    }

    pub(super) fn wrong_state(&self, command: &'static str, state: &str, would: Option<String>) -> CommandError {
        CommandError::WrongState { pair: self.config.name.clone(), command, state: state.into(), would }
    }
}

pub(super) fn not_begun(refused: Refused) -> CommandError {
    CommandError::Refused { reason: refused.to_string(), next: None }
}
