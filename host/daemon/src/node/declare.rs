//! Declaring a disaster at the main site: the remote takes over with what it has, and this site is fenced by it.

use std::sync::Arc;

use farseal_core::declare::{Answer, Declare, Refusal};
use farseal_core::primary::Divergence;
use tokio::time::{Instant, sleep};

use super::operate::{LOOK_EVERY, PATIENCE};
use super::pair::PairNode;
use super::question::Asker;
use super::sides::failed;
use crate::config::Holders;
use crate::control::api::{CommandReply, Role};
use crate::control::operator::CommandError;
use crate::link::dial::Send;

/// How long the word of another pair of the group may take to fence this one.
const OTHERS_WORD: std::time::Duration = std::time::Duration::from_secs(5);

impl PairNode {
    /// As [`Self::declare_disaster`], for the group's lead, which has every pair of it do so. Another pair's word may have come first.
    pub(crate) async fn declare_with_group(self: Arc<Self>) -> Result<(), CommandError> {
        match Arc::clone(&self).declare_disaster().await {
            Ok(_) => Ok(()),
            Err(error) => {
                let deadline = Instant::now() + OTHERS_WORD;
                while Instant::now() < deadline {
                    if matches!(self.look().await?.status.diverged, Some(Divergence::Fenced(_))) {
                        return Ok(());
                    }
                    sleep(LOOK_EVERY).await;
                }
                Err(error)
            }
        }
    }

    /// Has the remote take over now, whatever it lacks.
    pub(super) async fn declare_disaster(self: Arc<Self>) -> Result<CommandReply, CommandError> {
        const COMMAND: &str = "disaster declare";
        let _one = Arc::clone(&self.turning).lock_owned().await;
        let lane = self.writer().ok_or_else(|| self.other_side(COMMAND, Role::Primary))?;
        self.must_not_be_verified(COMMAND)?;
        let (name, status) = (&self.config.name, self.look().await?.status);
        if let Some(divergence) = status.diverged {
            return Err(self.wrong_state(COMMAND, &divergence.to_string(), Some(format!("farseal rejoin {name}"))));
        }
        let (generation, answers) = (lane.settings.generation, Arc::clone(&self.makings.answers));
        let asked = tokio::task::spawn_blocking(move || {
            Asker::new(lane, answers).ask(|id| Send::Declare(Declare { id, generation }))
        });
        let asked = asked.await.map_err(|error| failed(&error.to_string()))?;
        let answer = asked.map_err(|error| CommandError::Refused {
            reason: format!("{error}; this site goes on writing until it hears that the remote has taken over"),
            next: Some(format!("at the remote: farseal takeover {name}")),
        })?;
        match Answer::decode(&answer) {
            Some(Answer::TakesOver { through }) => {
                tracing::warn!(pair = name, %through, "a disaster is declared: the remote takes over");
                self.until_fenced().await?;
                let export = self.config.volume_name();
                let mut details = vec!["what the remote lacks of this site's writes stays here".to_owned()];
                if self.config.holders == Holders::Escrow {
                    details.push("the remote asks the escrow site for the keys, and opens nothing before somebody there says yes".into());
                }
                Ok(CommandReply {
                    message: format!("the remote takes over at record {through} or later; this site is fenced"),
                    details,
                    next: Some(format!(
                        "connect initiators to export {export:?} of {}; when this site is well again: farseal rejoin {name}",
                        self.config.peer
                    )),
                    report: None,
                })
            }
            Some(Answer::Refused(refusal)) => Err(CommandError::Refused {
                reason: format!("the remote does not take over: {refusal}; this site goes on writing"),
                next: match refusal {
                    Refusal::NotWhole => Some(format!(
                        "until `farseal status {name}` shows that the copy is whole, the only one is here: then declare it again"
                    )),
                    Refusal::OtherGeneration { .. } | Refusal::NoKeys { .. } | Refusal::Grouped => None,
                },
            }),
            None => Err(failed("the remote's answer is none that this version reads; this site goes on writing")),
        }
    }

    async fn until_fenced(&self) -> Result<(), CommandError> {
        let deadline = Instant::now() + PATIENCE;
        while !matches!(self.look().await?.status.diverged, Some(Divergence::Fenced(_))) {
            if Instant::now() >= deadline {
                return Err(CommandError::NotYet { what: "the remote's takeover".into() });
            }
            sleep(LOOK_EVERY).await;
        }
        Ok(())
    }
}
