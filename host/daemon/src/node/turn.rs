//! Changing sides: a site that wrote becomes the keeper of the other site's history.
//!
//! The order on disk, so that a crash at any point leaves one side or the other: everything that the lane's journal
//! holds is in the image, durably → the new copy's folder and the branch's description exist → `control.json` says that
//! this site keeps → the ended lane's files move to the branch, or go. What is done after `control.json` is done again at
//! the next start.

use std::path::Path;
use std::sync::Arc;

use farseal_core::frame::HandOver;
use farseal_core::lineage::Lineage;
use farseal_core::units::{BlockCount, Extent, Generation, Lba};

use super::branch::{self, Branch};
use super::makings::Makings;
use super::pair::{PairNode, Side};
use crate::lane::{Lane, recover};
use crate::recovery::Sweep;
use crate::replica::differs_path;
use crate::role::{Control, Keeps, branches_folder, copy_folder, lane_folder};
use crate::store::files;
use crate::store::home::Home as _;

/// What a lane leaves in its folder.
const LANE_FILES: [&str; 6] = ["journal", "epochs", "owed.map", "lane.json", "policy.json", "keys.journal"];
/// Of a copy in the pair's folder, but for its keys: these have the name of a lane's.
const COPY_FILES: [&str; 5] = ["log", "index", "points", "arrived.json", "arrived.image"];
/// Blocks that are opened between two looks at whether all are.
const SETTLE_BLOCKS: u64 = 1 << 16;

/// What became of a site that wrote.
#[derive(Debug)]
pub struct Turned {
    /// What it wrote above the fork, if anything.
    pub branch: Option<Branch>,
    /// It is known which blocks differ.
    pub known: bool,
}

impl PairNode {
    /// Moves every block of the copy that this site writes over into its image: the image alone is its base from then on.
    pub(super) fn settle(&self) -> anyhow::Result<()> {
        let Some(taken) = self.taken() else { return Ok(()) };
        for first in (0..self.blocks.0).step_by(usize::try_from(SETTLE_BLOCKS)?) {
            let Some(extent) = Extent::new(Lba(first), BlockCount(SETTLE_BLOCKS.min(self.blocks.0 - first))) else {
                continue;
            };
            let swept = taken.home.sweep(extent);
            if let Some(error) = swept.stopped {
                return Err(error.into());
            }
            if let Some(why) = swept.why {
                let count = swept.failed.0;
                anyhow::bail!("{count} blocks of the copy do not open ({why}), the first at {:?}", swept.first_failed);
            }
        }
        Ok(taken.home.sync()?)
    }

    /// Ends the lane and keeps the copy of another history from its start on.
    pub(super) fn turn(&self, lineage: &Lineage, planned: bool) -> anyhow::Result<Turned> {
        let lane = self.stop_writing()?;
        let makings = &self.makings;
        let directory = makings.directory();
        let before = Control::load(&directory)?;
        let folder = lane_folder_of(&before, &lane.settings.generation, self.config.is_primary());
        let turned = end(makings, &directory, &folder, &before, &lane, lineage, planned)?;
        let control = Control::load(&directory)?;
        finish_turn(&directory, &control)?;
        let copy = directory.join(copy_folder(lineage.generation));
        self.set_side(makings.keep(&copy, control)?);
        tracing::warn!(pair = self.config.name, generation = lineage.generation.0, "this site keeps the copy now");
        Ok(turned)
    }

    /// Ends the lane, its export and its paths, and whatever it wrote over.
    pub(super) fn stop_writing(&self) -> anyhow::Result<Arc<Lane>> {
        let lane = self.writer().ok_or_else(|| anyhow::anyhow!("this site does not write"))?;
        self.makings.withdraw();
        self.makings.withdraw_test();
        self.link.stop_dialling();
        if let Side::Secondary { replica, .. } = self.side() {
            if let Some(taken) = self.taken() {
                let _ = taken.sweeper.send(Sweep::Stop);
            }
            replica.stop();
        }
        lane.stop();
        Ok(lane)
    }

    /// The other site writes, as it was asked to.
    pub(super) async fn turn_after_hand_over(self: Arc<Self>, hand_over: HandOver) {
        let _one = self.turning.lock().await;
        if self.writer().is_none_or(|lane| lane.settings.generation >= hand_over.generation) {
            // An operator took it back before the answer was heard of.
            return;
        }
        let lineage = Lineage::at(hand_over.generation, hand_over.at, hand_over.chain);
        let pair = Arc::clone(&self);
        let turned = tokio::task::spawn_blocking(move || pair.turn(&lineage, true)).await;
        let failed = match turned {
            Ok(Ok(_)) => return,
            Ok(Err(error)) => format!("{error:#}"),
            Err(error) => error.to_string(),
        };
        tracing::error!(
            pair = self.config.name,
            "the other site writes, and this one could not become its keeper: {failed}; mend the cause and restart the node"
        );
    }
}

/// The folder, below the pair's, of the lane that a site writes with.
pub(super) fn lane_folder_of(control: &Control, generation: &Generation, primary: bool) -> String {
    match (&control.writes, control.taken_over_at) {
        (Some(writes), _) => writes.folder.clone(),
        (None, Some(_)) => lane_folder(*generation),
        (None, None) if primary && control.keeps.is_none() => String::new(),
        (None, None) => lane_folder(*generation),
    }
}

/// Everything up to the new `control.json`.
fn end(
    makings: &Arc<Makings>,
    directory: &Path,
    folder: &str,
    before: &Control,
    lane: &Lane,
    lineage: &Lineage,
    planned: bool,
) -> anyhow::Result<Turned> {
    let generation = lane.settings.generation;
    let parts = makings.lane_parts(&directory.join(folder), Arc::clone(&lane.home), generation)?;
    // Whatever the journal holds is in the image, durably, when this returns.
    let found = recover::recover(&parts)?;
    let (recovered, newest) = (&found.recovered, parts.keyring.newest().max(found.state.epoch_floor));
    anyhow::ensure!(
        !planned || recovered.last == lineage.fork,
        "handed over at record {}, and the journal ends at {}",
        lineage.fork,
        recovered.last
    );
    let differing = recovered.differing(lineage, lane.settings.blocks, lane.settings.block_bytes);
    let differs = !planned;
    let copy = copy_folder(lineage.generation);
    let place = directory.join(&copy);
    if place.exists() {
        std::fs::remove_dir_all(&place)?;
    }
    files::create_private_dir(&place)?;
    if differs {
        files::write_atomically(&differs_path(&place), &differing.map.encode())?;
    }
    let lost = Branch::of(&found, lineage, generation, &differing).filter(|_| !planned);
    if let Some(lost) = &lost {
        branch::describe(directory, lost)?;
    }
    let control = Control {
        generation: lineage.generation,
        taken_over_at: None,
        opened_at: None,
        lineage: Some(*lineage),
        planned: false,
        keeps: Some(Keeps {
            folder: copy,
            base_generation: generation,
            base: recovered.last,
            base_chain: recovered.chain,
            differs,
            branch: lost.as_ref().map(Branch::name),
            ended: folder.to_owned(),
        }),
        writes: None,
        epoch_floor: before.epoch_floor.max(newest),
        copy: None,
        seeded: before.seeded.clone(),
    };
    control.save(directory)?;
    Ok(Turned { branch: lost, known: differing.known })
}

/// The ended lane's files move to its branch, or go; so does the copy that it wrote over. A site that writes keeps nothing
/// of before. Done again at each start until it is done.
pub(super) fn finish_turn(directory: &Path, control: &Control) -> anyhow::Result<()> {
    let Some(keeps) = &control.keeps else {
        return control.writes.as_ref().map_or(Ok(()), |writes| clear_before(directory, &writes.folder));
    };
    let ended = directory.join(&keeps.ended);
    let place = keeps.branch.as_ref().map(|name| branches_folder(directory).join(name));
    for name in LANE_FILES {
        let from = ended.join(name);
        if !from.exists() {
            continue;
        }
        match &place {
            Some(place) => {
                files::create_private_dir(place)?;
                let to = place.join(name);
                if !to.exists() {
                    std::fs::rename(&from, &to)?;
                }
            }
            None => remove(&from)?,
        }
    }
    if let Some(place) = place.filter(|place| place.exists()) {
        files::sync_dir(&place)?;
    }
    if ended.exists() {
        files::sync_dir(&ended)?;
    }
    for name in COPY_FILES {
        remove(&directory.join(name))?;
    }
    if !keeps.ended.is_empty() {
        // Those of the first copy: what is retired of a later one's must not stay here.
        remove(&directory.join("epochs"))?;
        remove(&ended)?;
    }
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("copy-") && name != keeps.folder {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

/// A site that writes with a lane of its own folder over its image alone needs no lane and no copy of before.
fn clear_before(directory: &Path, folder: &str) -> anyhow::Result<()> {
    for name in LANE_FILES.into_iter().chain(COPY_FILES) {
        remove(&directory.join(name))?;
    }
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name != folder && (name.starts_with("copy-") || name.starts_with("generation-")) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

fn remove(path: &Path) -> anyhow::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => Ok(std::fs::remove_dir_all(path)?),
        Ok(_) => Ok(std::fs::remove_file(path)?),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error.into()),
    }
}
