//! What an operator can have this node do about sides: rejoin, swap, and what becomes of branches.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use farseal_core::lineage::Lineage;
use farseal_core::owed::OwedMap;
use farseal_core::primary::{Command, CopyState, Divergence, PauseState, Status};
use farseal_core::record::Kind;
use farseal_core::units::{ByteLen, Extent, Lba, Sequence};
use farseal_core::window::Range;
use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::branch::{self, Branch};
use super::pair::{PairNode, Side};
use crate::config::Holders;
use crate::control::api::{BranchCommand, CommandReply, Role};
use crate::control::operator::CommandError;
use crate::keyring::{Keyring, Unsealer};
use crate::lane::recover;
use crate::lane::state::{self, LaneState};
use crate::role::{Control, branches_folder, lane_folder};
use crate::store::files;
use crate::store::home::{Home, RawHome};
use crate::store::journal::Journal;

/// How long a swap waits for the other site's answer before the operator is told that it goes on.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a wait looks again.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Records of a branch that are opened at a time.
const EXPORT_RECORDS: usize = 256;

impl PairNode {
    /// The site that was taken over from becomes the keeper of the new history. What it wrote above the fork is kept.
    pub(super) async fn rejoin(self: Arc<Self>) -> Result<CommandReply, CommandError> {
        let _one = Arc::clone(&self.turning).lock_owned().await;
        let name = &self.config.name;
        if self.writer().is_none() {
            return Err(self.wrong_state("rejoin", "the keeper of the copy already", None));
        }
        let Some(Divergence::Fenced(generation)) = self.look().await?.status.diverged else {
            let state = "the side that writes, and no newer generation of the other site is known";
            return Err(self.wrong_state("rejoin", state, Some(format!("farseal swap {name}"))));
        };
        let Some(lineage) = self.link.heard().filter(|heard| heard.generation >= generation) else {
            return Err(CommandError::Refused {
                reason: format!(
                    "the other site writes as generation {generation} and has not connected to this node yet: \
                     where its history left this one is not known here"
                ),
                next: Some(self.how_to_be_reached()),
            });
        };
        self.settled().await?;
        let pair = Arc::clone(&self);
        let turned = tokio::task::spawn_blocking(move || pair.turn(&lineage, false)).await;
        let turned = flat(turned)?;
        let mut details = Vec::new();
        if !turned.known {
            details.push(
                "the other site went on from before what it had acknowledged here: the whole volume is copied".into(),
            );
        }
        if let Some(branch) = &turned.branch {
            details.push(format!("what it lacks is kept, sealed, as branch {}: {}", branch.name(), told(branch)));
        }
        let message = format!("this site keeps the copy of generation {} now", lineage.generation);
        let next = turned.branch.map(|branch| format!("farseal branches show {name} {}", branch.name()));
        Ok(CommandReply { message, details, next, report: None })
    }

    /// Hands over to the other site at a record that both hold.
    pub(super) async fn swap_sides(self: Arc<Self>) -> Result<CommandReply, CommandError> {
        self.prepare_swap().await?;
        self.tell(Command::HandOver, "swap").await?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            if self.writer().is_none() {
                let message = "the other site writes now, from the same record on; this one keeps the copy";
                let export = self.config.volume_name();
                let next = format!("connect initiators to export {export:?} of {}", self.config.peer);
                return Ok(CommandReply {
                    message: message.into(),
                    details: Vec::new(),
                    next: Some(next),
                    report: None,
                });
            }
            // A lane that stopped is about to turn.
            if let Ok(view) = self.look().await
                && view.status.swap.is_none()
                && view.status.diverged.is_none()
            {
                return Err(CommandError::Refused {
                    reason: "the other site did not have everything in time: this site goes on writing".into(),
                    next: Some(format!("farseal swap {} again, with less load or a faster link", self.config.name)),
                });
            }
            if Instant::now() >= deadline {
                return Err(CommandError::NotYet { what: "the change of sides".into() });
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Sides can be changed as soon as this returns.
    pub(crate) async fn prepare_swap(self: &Arc<Self>) -> Result<(), CommandError> {
        let _one = self.turning.lock().await;
        if self.writer().is_none() {
            return Err(self.other_side("swap", Role::Primary));
        }
        self.may_swap(&self.look().await?.status)?;
        self.settled().await
    }

    fn may_swap(&self, status: &Status) -> Result<(), CommandError> {
        let name = &self.config.name;
        let wrong = |state: &str, would: Option<String>| Err(self.wrong_state("swap", state, would));
        if self.shared.config.link.listen.is_none() {
            return Err(CommandError::Refused {
                reason: "this node would keep the copy then, and nobody can connect to it: [link] has no listen".into(),
                next: Some(self.how_to_be_reached()),
            });
        }
        if self.config.holders == Holders::Escrow {
            return Err(CommandError::Refused {
                reason: "the escrow site alone holds the keys: the other site could open nothing of what it would write over"
                    .into(),
                next: Some(format!(
                    "there, get the keys with `farseal escrow request {name}`, then `farseal takeover {name}`; or set \
                     key-holders = \"both\" at both sites"
                )),
            });
        }
        match status.diverged {
            Some(Divergence::Fenced(_)) => {
                return wrong("fenced: the other site writes", Some(format!("farseal rejoin {name}")));
            }
            Some(divergence) => return wrong(&divergence.to_string(), None),
            None => {}
        }
        match (status.link_paths, status.pause, status.copy) {
            _ if status.swap.is_some() => wrong("changing sides already", None),
            (0, _, _) => wrong("without a link to the other site", Some("farseal status".into())),
            (_, PauseState::Pausing | PauseState::Paused, _) => wrong("paused", Some(format!("farseal resume {name}"))),
            (_, PauseState::Running, CopyState::InOrder | CopyState::Unpaired) => Ok(()),
            (_, PauseState::Running, CopyState::Behind | CopyState::Resync) => {
                wrong("behind: the other site is owed older writes still", Some("farseal status --watch".into()))
            }
        }
    }

    fn how_to_be_reached(&self) -> String {
        let (node, peer) = (&self.shared.config.node.name, &self.config.peer);
        format!(
            "set [link] listen here, and add this node's address to the [[peer]] of {node} in the configuration of {peer}; restart both"
        )
    }

    /// Everything of a copy that this site writes over is in its image.
    pub(super) async fn settled(self: &Arc<Self>) -> Result<(), CommandError> {
        let pair = Arc::clone(self);
        flat(tokio::task::spawn_blocking(move || pair.settle()).await)
    }

    pub(super) async fn branch(self: Arc<Self>, command: BranchCommand) -> Result<CommandReply, CommandError> {
        match command {
            BranchCommand::List => self.list_branches(),
            BranchCommand::Show { branch } => Ok(self.show_branch(&self.find_branch(&branch)?)),
            BranchCommand::Export { branch, to } => {
                let found = self.find_branch(&branch)?;
                let pair = Arc::clone(&self);
                let exported = tokio::task::spawn_blocking(move || pair.export_branch(&found, &to)).await;
                flat(exported)
            }
            BranchCommand::Adopt { branch } => self.adopt(&branch).await,
            BranchCommand::Drop { branch } => {
                let _one = self.turning.lock().await;
                let found = self.find_branch(&branch)?;
                let place = branches_folder(&self.makings.directory()).join(found.name());
                std::fs::remove_dir_all(&place).map_err(|error| failed(&format!("{}: {error}", place.display())))?;
                Ok(CommandReply::new(format!("branch {} is gone", found.name())))
            }
        }
    }

    fn list_branches(&self) -> Result<CommandReply, CommandError> {
        let branches = branch::list(&self.makings.directory()).map_err(|error| failed(&error.to_string()))?;
        if branches.is_empty() {
            return Ok(CommandReply::new("no branches: every history that this site wrote is in force"));
        }
        let details = branches.iter().map(|branch| format!("{}: {}", branch.name(), told(branch))).collect();
        Ok(CommandReply { message: format!("{} branches", branches.len()), details, next: None, report: None })
    }

    fn find_branch(&self, name: &str) -> Result<Branch, CommandError> {
        let branches = branch::list(&self.makings.directory()).map_err(|error| failed(&error.to_string()))?;
        branches.into_iter().find(|branch| branch.name() == name).ok_or_else(|| CommandError::Refused {
            reason: format!("pair {} has no branch {name:?}", self.config.name),
            next: Some(format!("farseal branches list {}", self.config.name)),
        })
    }

    fn show_branch(&self, branch: &Branch) -> CommandReply {
        let time =
            |wall: Option<farseal_core::units::WallTime>| wall.map_or("-".to_owned(), |wall| format!("{} ms", wall.0));
        let details = vec![
            format!(
                "generation {}, forked at record {} from generation {}",
                branch.generation, branch.fork, branch.won
            ),
            format!(
                "records {} to {}: {} held, {} bytes",
                branch.fork.next(),
                branch.end,
                branch.records,
                branch.bytes
            ),
            format!("made from {} to {} of Unix time", time(branch.from), time(branch.to)),
            format!(
                "the volume differs in at most {} blocks{}",
                branch.differs.0,
                if branch.known { "" } else { ": which is not known, so all of them count" }
            ),
            if self.is_base(branch) {
                "it lies under the copy: it can be adopted".to_owned()
            } else {
                "it does not lie under the copy any more: it can be exported, not adopted".to_owned()
            },
        ];
        CommandReply { message: format!("branch {}", branch.name()), details, next: None, report: None }
    }

    /// Does this site's image hold the end of the branch?
    fn is_base(&self, branch: &Branch) -> bool {
        let keeps = Control::load(&self.makings.directory()).ok().filter(|control| control.taken_over_at.is_none());
        keeps.and_then(|control| control.keeps?.branch).is_some_and(|name| name == branch.name())
    }

    /// Opens what the branch holds: an image that has its blocks and holes elsewhere, and a list of what is where.
    fn export_branch(&self, branch: &Branch, to: &Path) -> anyhow::Result<CommandReply> {
        let place = branches_folder(&self.makings.directory()).join(branch.name());
        files::create_private_dir(to)?;
        let size = self.blocks.byte_len(self.config.block_bytes).0;
        let (image_path, map_path) = (to.join("branch.image"), to.join("branch.json"));
        anyhow::ensure!(!image_path.exists(), "{}: it is there already; name another folder", image_path.display());
        let image = RawHome::open(&image_path, Some(size))?;
        let mut blocks = Vec::new();
        if self.is_base(branch) {
            self.export_base(branch, &image, &mut blocks)?;
        }
        self.export_records(branch, &place, &image, &mut blocks)?;
        image.sync()?;
        let map = Exported { pair: self.config.name.clone(), branch: branch.clone(), blocks };
        files::write_atomically(&map_path, &serde_json::to_vec_pretty(&map)?)?;
        Ok(CommandReply {
            message: format!("branch {} is in {}", branch.name(), to.display()),
            details: vec![
                format!("{}: its blocks, holes elsewhere; NOT encrypted", image_path.display()),
                format!("{}: {} runs of blocks", map_path.display(), map.blocks.len()),
            ],
            next: None,
            report: None,
        })
    }

    /// Where the journal says no more: what the image holds of the granules that differ.
    fn export_base(&self, branch: &Branch, image: &RawHome, blocks: &mut Vec<Run>) -> anyhow::Result<()> {
        let directory = self.makings.directory();
        let Some(keeps) = Control::load(&directory)?.keeps else { return Ok(()) };
        let bytes = std::fs::read(crate::replica::differs_path(&directory.join(&keeps.folder)))?;
        let map = OwedMap::decode(&bytes, self.blocks, self.config.block_bytes)?;
        let base = self.makings.image()?;
        let Some(whole) = Extent::new(Lba(0), self.blocks) else { return Ok(()) };
        let piece = 1 << 20;
        for extent in map.runs(whole) {
            let (from, len) = (extent.first().0, extent.blocks().byte_len(self.config.block_bytes).0);
            let offset = from * self.config.block_bytes.as_u64();
            let mut at = 0;
            while at < len {
                let mut bytes = vec![0; usize::try_from(piece.min(len - at))?];
                base.read(offset + at, &mut bytes)?;
                if bytes.iter().any(|byte| *byte != 0) {
                    image.write(offset + at, &bytes)?;
                }
                at += piece;
            }
            blocks.push(Run {
                sequence: branch.end,
                kind: "end".into(),
                first: from,
                blocks: extent.blocks().0,
                wall: 0,
            });
        }
        Ok(())
    }

    fn export_records(
        &self,
        branch: &Branch,
        place: &Path,
        image: &RawHome,
        blocks: &mut Vec<Run>,
    ) -> anyhow::Result<()> {
        let (shared, own) = (&self.shared, self.shared.identity.card().clone());
        let keyring = Keyring::open(&place.join("epochs"), self.config.id, Arc::clone(&shared.identity), own)?;
        let keyring = Arc::new(keyring.of_encrypted(self.config.encrypted));
        let (journal, recovery) = Journal::open(&place.join("journal"), self.config.id, Sequence::NONE)?;
        let mut unsealer = Unsealer::new(Arc::clone(&keyring), Arc::new(keyring.ledger()), Arc::clone(&self.plugins));
        let reader = journal.reader();
        let above: Vec<_> = recovery.records.iter().filter(|record| record.header.sequence > branch.fork).collect();
        for run in above.chunks(EXPORT_RECORDS) {
            for record in run {
                let header = &record.header;
                let range = Range { first: header.sequence, last: header.sequence };
                let Some(extent) = header.extent() else { continue };
                for bytes in reader.read(range)? {
                    recover::apply(image, &mut unsealer, header, &bytes)?;
                }
                let kind = match header.kind {
                    Kind::Data => "data",
                    Kind::Zero => "zero",
                    Kind::Trim | Kind::Key | Kind::Cover | Kind::Void | Kind::Cut | Kind::Gap => "trim",
                };
                blocks.push(Run {
                    sequence: header.sequence,
                    kind: kind.into(),
                    first: extent.first().0,
                    blocks: extent.blocks().0,
                    wall: header.wall.0,
                });
            }
        }
        Ok(())
    }

    /// This site's own history wins: it writes again from its branch's end on, as a newer generation.
    async fn adopt(self: Arc<Self>, name: &str) -> Result<CommandReply, CommandError> {
        let _one = Arc::clone(&self.turning).lock_owned().await;
        let branch = self.find_branch(name)?;
        if self.writer().is_some() || !self.is_base(&branch) {
            return Err(CommandError::Refused {
                reason: format!(
                    "branch {name} does not lie under a copy that this site keeps: its end is not here any more"
                ),
                next: Some(format!("farseal branches export {} {name} --to DIR", self.config.name)),
            });
        }
        let pair = Arc::clone(&self);
        let generation = flat(tokio::task::spawn_blocking(move || pair.adopt_branch(&branch)).await)?;
        Ok(CommandReply {
            message: format!("this site writes again, from its branch's end on, as generation {generation}"),
            details: vec!["what the other site wrote since the fork becomes a branch there".into()],
            next: Some(format!("on the other site, once it has heard of it: farseal rejoin {}", self.config.name)),
            report: None,
        })
    }

    fn adopt_branch(&self, branch: &Branch) -> anyhow::Result<farseal_core::units::Generation> {
        let directory = self.makings.directory();
        let Side::Secondary { replica, .. } = self.side() else { anyhow::bail!("this site keeps no copy") };
        self.makings.withdraw_test();
        replica.stop();
        // What the copy's thread knew last is on disk.
        let before = Control::load(&directory)?;
        let Some(keeps) = before.keeps.clone() else { anyhow::bail!("this site did not write before") };
        let kept = before.history();
        let generation = Lineage::apart(before.generation);
        let copy = directory.join(&keeps.folder);
        let epochs =
            Keyring::open(&copy.join("epochs"), self.config.id, Arc::clone(&self.shared.identity), self.peer.clone())?;
        let epoch_floor = before.epoch_floor.max(epochs.newest());
        let folder = lane_folder(generation);
        let place = directory.join(&folder);
        files::create_private_dir(&place)?;
        let bytes = std::fs::read(crate::replica::differs_path(&copy))?;
        state::save_owed(&place, &bytes)?;
        LaneState::beginning(keeps.base, keeps.base_chain, epoch_floor).save(&place)?;
        let lineage = Lineage { generation, start: keeps.base, start_chain: keeps.base_chain, ..kept };
        let control = Control::writing(lineage, folder, epoch_floor);
        control.save(&directory)?;
        self.set_side(Side::Primary(self.makings.write(&place, &control)?));
        // Its records are in the image, and the image is the history again.
        std::fs::remove_dir_all(branches_folder(&directory).join(branch.name()))?;
        std::fs::remove_dir_all(&copy)?;
        tracing::warn!(pair = self.config.name, %generation, "this site writes again, from its branch's end on");
        Ok(generation)
    }
}

/// What is exported of a branch.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Exported {
    pair: String,
    branch: Branch,
    /// In the order in which they count: later ones over earlier ones.
    blocks: Vec<Run>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Run {
    sequence: Sequence,
    /// `data`, `zero`, `trim`, or `end`: as the volume stood at the branch's end.
    kind: String,
    first: u64,
    blocks: u64,
    /// When it was made, in ms of Unix time; 0 where that is not known.
    wall: u64,
}

fn told(branch: &Branch) -> String {
    let bytes = ByteLen(branch.bytes).0;
    format!("generation {} after record {}, {} records, {bytes} bytes", branch.generation, branch.fork, branch.records)
}

pub(super) fn failed(reason: &str) -> CommandError {
    CommandError::Failed { reason: reason.into(), next: Some("see the node's log".into()) }
}

pub(super) fn flat<T>(done: Result<anyhow::Result<T>, tokio::task::JoinError>) -> Result<T, CommandError> {
    match done {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(failed(&format!("{error:#}"))),
        Err(error) => Err(failed(&error.to_string())),
    }
}
