//! What an operator can have this node do about the copy's truth: compare it with the volume.

use farseal_core::primary::CopyState;
use farseal_core::verify::{Plan, WHOLE};

use super::pair::PairNode;
use crate::config::Pick;
use crate::control::api::{CommandReply, Role, Verify};
use crate::control::operator::CommandError;
use crate::verify::Parts;

impl PairNode {
    /// Begins a verification, or ends the one that runs.
    pub(super) async fn verify(&self, wanted: Verify) -> Result<CommandReply, CommandError> {
        let name = &self.config.name;
        let Some(lane) = self.writer() else { return Err(self.other_side("verify", Role::Primary)) };
        let runs = self.verification.status().is_some_and(|status| status.runs());
        if wanted.stop {
            if !runs {
                return Err(self.wrong_state("verify --stop", "not being verified", None));
            }
            self.verification.stop();
            return Ok(CommandReply::new("the verification ends; what it found is in the status"));
        }
        let already =
            || self.wrong_state("verify", "being verified already", Some(format!("farseal verify {name} --stop")));
        if runs {
            return Err(already());
        }
        if !(1..=WHOLE).contains(&wanted.sample) {
            let reason = format!("1 to {WHOLE} of 10 000 ranges; {} were asked for", wanted.sample);
            return Err(CommandError::BadParameter { parameter: "sample", reason });
        }
        let status = self.look().await?.status;
        let next = Some(format!("`farseal status {name} --watch` until it says copying"));
        if status.link_paths == 0 || status.diverged.is_some() {
            let reason = "the copy cannot be asked: there is no link to it".into();
            return Err(CommandError::Refused { reason, next });
        }
        if status.copy != CopyState::InOrder {
            let reason = "the copy is not whole yet: what it lacks is known and on its way".into();
            return Err(CommandError::Refused { reason, next });
        }
        let mut seed = [0; 8];
        getrandom::fill(&mut seed)
            .map_err(|_| CommandError::Failed { reason: "the random source failed".into(), next: None })?;
        let plan = Plan {
            blocks: lane.settings.blocks,
            block_bytes: lane.settings.block_bytes,
            sample: wanted.sample,
            seed: u64::from_le_bytes(seed),
            rate: wanted.rate,
        };
        let parts = Parts {
            name: name.clone(),
            lane,
            plugins: self.plugins.clone(),
            clock: self.shared.clock,
            answers: self.makings.answers.clone(),
            plan,
            repair: wanted.repair,
            picks_all: self.config.pick != Pick::Written,
        };
        self.verification.start(parts).map_err(|_| already())?;
        Ok(CommandReply {
            next: Some(format!("`farseal status {name} --watch` shows how far it is")),
            ..CommandReply::new("the copy is being verified")
        })
    }
}
