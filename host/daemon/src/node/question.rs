//! A question of this site's to the copy's keeper, over whichever path is up, and the wait for its answer.

use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::pair::PairNode;
use crate::control::operator::CommandError;
use crate::lane::{Event as LaneEvent, Lane};
use crate::link::dial::Send;
use crate::verify::Answers;

/// How long an answer is waited for: a page takes milliseconds, a block a read of the disk.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// One at a time in a node: each has the one place that answers come to.
static ONE: Mutex<()> = Mutex::new(());

/// Asks, and hears the answers.
pub(super) struct Asker {
    pub lane: Arc<Lane>,
    heard: Receiver<(u64, Vec<u8>)>,
    answers: Arc<Answers>,
    _one: MutexGuard<'static, ()>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoAnswer {
    #[error("the remote cannot be asked: there is no link to it, or it does not answer")]
    NoLink,
    #[error("the random source failed")]
    Random,
}

impl PairNode {
    /// A verification asks over the same place.
    pub(super) fn must_not_be_verified(&self, command: &'static str) -> Result<(), CommandError> {
        if self.verification.status().is_some_and(|status| status.runs()) {
            let would = Some(format!("farseal verify {} --stop", self.config.name));
            return Err(self.wrong_state(command, "being verified", would));
        }
        Ok(())
    }

    /// The keeper cannot be asked just now, for this reason.
    pub(super) fn unanswered(&self, why: &dyn std::error::Error) -> CommandError {
        let next = Some(format!("`farseal status {}` until it says copying", self.config.name));
        CommandError::Refused { reason: why.to_string(), next }
    }
}

impl Asker {
    /// Blocks while another asks.
    pub(super) fn new(lane: Arc<Lane>, answers: Arc<Answers>) -> Self {
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        Self { lane, heard: answers.listen(), answers, _one: one }
    }

    /// Blocks until the answer is there. `question` makes it of its number.
    ///
    /// # Errors
    /// [`NoAnswer`].
    pub(super) fn ask(&self, question: impl FnOnce(u64) -> Send) -> Result<Vec<u8>, NoAnswer> {
        self.ask_by(|id, done| LaneEvent::Ask { question: question(id), done })
    }

    /// As [`Self::ask`], by an event of the lane's own.
    pub(super) fn ask_by(
        &self,
        event: impl FnOnce(u64, Box<dyn FnOnce(bool) + std::marker::Send>) -> LaneEvent,
    ) -> Result<Vec<u8>, NoAnswer> {
        // An answer that comes after its time is of no question that is open.
        let id = u64::from_le_bytes(random::<8>()?) | 1;
        self.answers.expect(id);
        let went = self.lane.ask(|sent| event(id, Box::new(move |went| _ = sent.send(went))));
        if went != Some(true) {
            return Err(NoAnswer::NoLink);
        }
        loop {
            let (found, answer) = self.heard.recv_timeout(ANSWER_MAX).map_err(|_| NoAnswer::NoLink)?;
            if found == id {
                return Ok(answer);
            }
        }
    }
}

pub(super) fn random<const LEN: usize>() -> Result<[u8; LEN], NoAnswer> {
    let mut bytes = [0; LEN];
    getrandom::fill(&mut bytes).map_err(|_| NoAnswer::Random)?;
    Ok(bytes)
}
