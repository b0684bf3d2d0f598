//! Taking back what was handed over: the other site never answered, is lost for good, and this one is to write again.
//!
//! Only the other site knows whether it went on. So this one does not go on under its old generation, but as one above
//! that which it handed over, in a lane of its own that begins at the record of the hand-over. If the other site did go
//! on, the two are branches of one history: each learns of it when they connect, the one with the older generation is
//! fenced, and its operator decides with `rejoin`. Nothing is merged by guess.
//!
//! The order on disk, so that a crash leaves either the old lane, still asking, or the new one: everything that the journal
//! holds is in the image, durably → the new lane's folder exists → `control.json` names it → the old lane's files go.

use std::sync::Arc;

use farseal_core::lineage::Lineage;
use farseal_core::primary::SwapState;

use super::pair::{PairNode, Side};
use super::sides::flat;
use super::turn::{finish_turn, lane_folder_of};
use crate::control::api::CommandReply;
use crate::control::operator::CommandError;
use crate::lane::recover;
use crate::lane::state::LaneState;
use crate::role::{Control, lane_folder};
use crate::store::files;

impl PairNode {
    /// Writes here again, whether or not the site that was handed over to goes on.
    pub(super) async fn take_back(self: Arc<Self>) -> Result<CommandReply, CommandError> {
        let _one = Arc::clone(&self.turning).lock_owned().await;
        let name = &self.config.name;
        if self.writer().is_none() {
            let state = "the keeper of the copy: it handed nothing over";
            return Err(self.wrong_state("take-back", state, Some(format!("farseal takeover {name}"))));
        }
        if self.look().await?.status.swap != Some(SwapState::Asking) {
            let state = "the side that writes, and no swap of it waits for the other site's answer";
            return Err(self.wrong_state("take-back", state, None));
        }
        self.settled().await?;
        let pair = Arc::clone(&self);
        let lineage = flat(tokio::task::spawn_blocking(move || pair.write_again()).await)?;
        Ok(CommandReply {
            message: format!(
                "this site writes again from record {} on, as generation {}",
                lineage.fork, lineage.generation
            ),
            details: vec![format!(
                "if the other site went on from there after all, what it wrote is a branch: {} is fenced off when the \
                 two connect",
                self.config.peer
            )],
            next: Some(format!("if it comes back fenced: farseal rejoin {name} there")),
            report: None,
        })
    }

    fn write_again(&self) -> anyhow::Result<Lineage> {
        let lane = self.stop_writing()?;
        let (makings, directory) = (&self.makings, self.makings.directory());
        let before = Control::load(&directory)?;
        let ended = lane_folder_of(&before, &lane.settings.generation, self.config.is_primary());
        let generation = lane.settings.generation;
        let parts = makings.lane_parts(&directory.join(&ended), Arc::clone(&lane.home), generation)?;
        // Whatever the journal holds is in the image, durably, when this returns.
        let found = recover::recover(&parts)?;
        let hand_over = found
            .recovered
            .handing_over
            .ok_or_else(|| anyhow::anyhow!("the hand-over was given up meanwhile; restart the node: it writes on"))?;
        let lineage = Lineage::taken_back(&hand_over);
        let epoch_floor = parts.keyring.newest().max(found.state.epoch_floor).max(before.epoch_floor);
        let folder = lane_folder(lineage.generation);
        let place = directory.join(&folder);
        files::create_private_dir(&place)?;
        let LaneState { chosen, way, limits, .. } = found.state;
        let state = LaneState::beginning(lineage.start, lineage.start_chain, epoch_floor);
        LaneState { chosen, way, limits, ..state }.save(&place)?;
        let control = Control::writing(lineage, folder, epoch_floor);
        control.save(&directory)?;
        drop(parts);
        finish_turn(&directory, &control)?;
        self.set_side(Side::Primary(makings.write(&place, &control)?));
        tracing::warn!(pair = self.config.name, generation = lineage.generation.0, "this site writes again");
        Ok(lineage)
    }
}
