//! What an operator can have this node do about a first copy on a disk: export it, import it, give it up.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use farseal_core::primary::{Mode, PauseState};
use farseal_core::secondary::Status as SecondaryStatus;
use farseal_core::units::Sequence;
use tokio::sync::oneshot;

use super::pair::{PairNode, Side};
use super::sides::failed;
use crate::config::units::size_text;
use crate::control::api::{CommandReply, PairCommand, Role, SeedCommand, SeedStatus, SetMode};
use crate::control::operator::CommandError;
use crate::keys::wire::to_hex;
use crate::lane::state::Seed;
use crate::lane::{Event as LaneEvent, Lane, LaneView};
use crate::replica::{Event as ReplicaEvent, Replica};
use crate::role::{Control, Standing};
use crate::seed::import::{self, Staged, Terms};

impl PairNode {
    pub(super) async fn seed(self: Arc<Self>, command: SeedCommand) -> Result<CommandReply, CommandError> {
        let turning = Arc::clone(&self.turning);
        let _one = turning.lock().await;
        match command {
            SeedCommand::Export { to } => self.seed_export(to).await,
            SeedCommand::Import { from } => self.seed_import(from).await,
            SeedCommand::Abandon => self.seed_abandon().await,
        }
    }

    /// While a seed is under way, nothing may be promised of the remote.
    pub(super) async fn must_fit_a_seed(&self, command: &PairCommand) -> Result<(), CommandError> {
        let waits = matches!(command, PairCommand::SetMode(SetMode { mode }) if *mode != Mode::Async);
        let promises =
            waits || matches!(command, PairCommand::Pause(_) | PairCommand::SwapSides(_) | PairCommand::Verify(_));
        let Side::Primary(_) = self.side() else { return Ok(()) };
        if promises && let Some(seed) = self.look().await?.seed {
            let state = if seed.shipped.is_some() { "waiting for its seed" } else { "being exported to a disk" };
            let would = Some(format!("farseal seed abandon {}", self.config.name));
            return Err(self.wrong_state(command.name(), state, would));
        }
        Ok(())
    }

    pub(super) fn seed_status(&self, view: &LaneView) -> Option<SeedStatus> {
        view.seed.as_ref().map(|seed| SeedStatus {
            id: seed.id.clone(),
            directory: seed.directory.display().to_string(),
            through: seed.shipped,
        })
    }

    /// Why an export does not get on.
    pub(super) fn seed_trouble(&self, view: &LaneView) -> Option<String> {
        let exporting = self.makings.exporting.lock().unwrap_or_else(PoisonError::into_inner);
        exporting.as_ref().filter(|_| view.seed.is_some())?.trouble()
    }

    async fn seed_export(&self, to: PathBuf) -> Result<CommandReply, CommandError> {
        let name = &self.config.name;
        let Side::Primary(lane) = self.side() else { return Err(self.other_side("seed export", Role::Primary)) };
        absolute(&to)?;
        let view = self.look().await?;
        let (status, wrong) = (&view.status, |state: &str, would| Err(self.wrong_state("seed export", state, would)));
        if let Some(seed) = &view.seed {
            let state = if seed.shipped.is_some() { "waiting for its seed" } else { "being exported already" };
            return wrong(state, Some(format!("farseal seed abandon {name}")));
        }
        if status.acked > Sequence::NONE {
            return wrong("copied over the link already: the remote holds records", None);
        }
        if status.diverged.is_some() {
            return wrong("stopped", Some(format!("farseal status {name}")));
        }
        if status.mode != Mode::Async {
            return wrong("in a mode that waits for the remote", Some(format!("farseal mode {name} async")));
        }
        if status.pause != PauseState::Running {
            return wrong("paused", Some(format!("farseal resume {name}")));
        }
        if self.shared.config.is_grouped(&self.config) {
            let reason = "a pair of a group is cut with the others, and a disk cannot be".into();
            return Err(CommandError::Refused {
                reason,
                next: Some("take it out of its group for the first copy".into()),
            });
        }
        let empty = std::fs::read_dir(&to).map_or(true, |mut entries| entries.next().is_none());
        if !empty {
            let reason = format!("{} is not empty", to.display());
            return Err(CommandError::BadParameter { parameter: "to", reason });
        }
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(|_| failed("the random source failed"))?;
        let seed = Seed { id: to_hex(&id), directory: to.clone(), shipped: None };
        let lineage = Control::load(&self.makings.directory()).map_err(|error| failed(&error.to_string()))?.lineage;
        self.makings.link.stop_dialling();
        if let Err(error) = keep(&lane, Some(seed.clone())).await {
            self.makings.dial(&lane, lineage);
            return Err(error);
        }
        let (makings, writer) = (Arc::clone(&self.makings), Arc::clone(&lane));
        let begun = tokio::task::spawn_blocking(move || makings.export_seed(&writer, seed, lineage)).await;
        if let Err(error) = begun.map_err(|error| failed(&error.to_string()))? {
            // Nothing was acknowledged yet: what is owed now was owed before.
            let kept = keep(&lane, None).await;
            self.makings.dial(&lane, lineage);
            return kept.and(Err(failed(&error.to_string())));
        }
        let message = format!("the first copy goes to {}; initiators go on writing", to.display());
        let next = Some(format!("`farseal status {name} --watch` until the seed is on the disk; then ship it"));
        Ok(CommandReply { next, ..CommandReply::new(message) })
    }

    async fn seed_abandon(&self) -> Result<CommandReply, CommandError> {
        let Side::Primary(lane) = self.side() else { return Err(self.other_side("seed abandon", Role::Primary)) };
        if self.look().await?.seed.is_none() {
            return Err(self.wrong_state("seed abandon", "copied over the link: there is no seed", None));
        }
        let export = self.makings.exporting.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(export) = export {
            let ended = tokio::task::spawn_blocking(move || export.end()).await;
            ended.map_err(|error| failed(&error.to_string()))?;
        }
        self.makings.link.stop_dialling();
        keep(&lane, None).await?;
        let control = Control::load(&self.makings.directory()).map_err(|error| failed(&error.to_string()))?;
        self.makings.dial(&lane, control.lineage);
        Ok(CommandReply::new("the seed counts for nothing now: the whole volume is owed, and copied over the link"))
    }

    async fn seed_import(self: &Arc<Self>, from: PathBuf) -> Result<CommandReply, CommandError> {
        let Side::Secondary { replica, .. } = self.side() else {
            return Err(self.other_side("seed import", Role::Secondary));
        };
        absolute(&from)?;
        if self.taken().is_some() {
            return Err(self.wrong_state("seed import", "taken over: initiators work here", None));
        }
        let terms = Terms {
            settings: self.makings.replica_settings().map_err(|error| failed(&error.to_string()))?,
            main: self.peer.clone(),
            identity: Arc::clone(&self.shared.identity),
            directory: self.makings.directory(),
        };
        let staged = tokio::task::spawn_blocking(move || import::stage(&from, &terms)).await;
        let staged = staged.map_err(|error| failed(&error.to_string()))?;
        let staged = staged.map_err(|error| CommandError::Refused { reason: error.to_string(), next: None })?;
        let held = look(&replica).await?.durable;
        if held > Sequence::NONE {
            let state = format!("a copy that holds records up to {held}");
            return Err(self.wrong_state("seed import", &state, None));
        }
        let (pair, bytes, through) = (Arc::clone(self), staged.bytes, staged.seed.through);
        let taken = tokio::task::spawn_blocking(move || pair.take_seed(&replica, &staged)).await;
        taken.map_err(|error| failed(&error.to_string()))?.map_err(|error| failed(&format!("{error:#}")))?;
        let size = size_text(farseal_core::units::ByteLen(bytes));
        let message = format!("the copy holds everything up to record {through}: {size} checked and taken");
        let next = Some("it goes on by itself when the main site connects; the disk is needed no more".into());
        Ok(CommandReply { next, ..CommandReply::new(message) })
    }

    /// The replica stops, and another one begins over the seed.
    fn take_seed(&self, replica: &Replica, staged: &Staged) -> anyhow::Result<()> {
        let directory = self.makings.directory();
        replica.stop();
        let before = Control::load(&directory)?;
        let Standing::Keeper { copy } = before.standing(&directory, self.config.is_primary()) else {
            anyhow::bail!("this site does not keep the copy any more");
        };
        let taken = if holds_records(&copy) {
            Err(anyhow::anyhow!("records came meanwhile: the main site copies over the link"))
        } else {
            staged.take(&directory).map_err(anyhow::Error::from)
        };
        // Whatever came of it, there is a replica again, over what control.json says.
        let control = Control::load(&directory)?;
        let Standing::Keeper { copy } = control.standing(&directory, self.config.is_primary()) else {
            anyhow::bail!("this site does not keep the copy any more");
        };
        self.set_side(self.makings.keep(&copy, control)?);
        taken.map(drop)
    }
}

/// Did a record ever come to a copy's folder?
fn holds_records(copy: &Path) -> bool {
    let segments = std::fs::read_dir(copy.join("log")).into_iter().flatten().flatten();
    segments.map(|entry| entry.path()).any(|path| path.extension().is_some_and(|extension| extension == "fsl"))
}

/// Has the lane keep what is known of a seed; without one, what a disk acknowledged counts for nothing.
async fn keep(lane: &Lane, seed: Option<Seed>) -> Result<(), CommandError> {
    let (sender, kept) = oneshot::channel();
    let done = Box::new(move |kept| _ = sender.send(kept));
    let gone = || failed("the lane has stopped");
    lane.inbox.send(LaneEvent::Seed { seed, done }).map_err(|_| gone())?;
    kept.await.map_err(|_| gone())?.map_err(|error| failed(&error.to_string()))
}

async fn look(replica: &Replica) -> Result<SecondaryStatus, CommandError> {
    replica.ask(|done| ReplicaEvent::Look { done }).await.ok_or_else(|| failed("the log has stopped"))
}

fn absolute(path: &Path) -> Result<(), CommandError> {
    if path.is_absolute() {
        return Ok(());
    }
    Err(CommandError::BadParameter { parameter: "directory", reason: "an absolute path".into() })
}
