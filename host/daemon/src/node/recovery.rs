//! What is known of a recovery that is under way or over: how far, how fast, from which epochs, and what did not open.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use farseal_core::units::{BlockCount, Epoch, Extent, Lba, Millis};

use super::pair::PairNode;
use super::sides::failed;
use crate::arrival;
use crate::control::api::{CommandReply, FailedBlocks, OpenedEpoch, PluginSlot, RecoveryReport, WORDS_MAX};
use crate::control::operator::CommandError;
use crate::recovery::account::Beginning;
use crate::recovery::{CopySource, Sweep};
use crate::role::{Control, Standing, lane_folder};
use crate::store::home::Home as _;
use crate::store::opened::OpenedHome;

/// Blocks that are looked at together: 64 MiB of 4 KiB blocks, so that a sparse volume's index costs no memory.
const PART_BLOCKS: u64 = 16_384;

impl PairNode {
    /// Hands an operator's words to the strategy, which answers in the log if at all.
    pub(super) fn tell_strategy(&self, words: String) -> Result<CommandReply, CommandError> {
        let taken = self.taken().ok_or_else(|| self.nothing_opens("recover tell"))?;
        if words.len() > WORDS_MAX {
            return Err(CommandError::Refused {
                reason: format!("{} bytes are more than the {WORDS_MAX} that a strategy is told at once", words.len()),
                next: None,
            });
        }
        let _ = taken.sweeper.send(Sweep::Requested(words));
        Ok(CommandReply::new(
            "the strategy was told; `farseal recover status` shows what it does, the node's log what it says",
        ))
    }

    /// Where the copy lies that this site took over from.
    fn copys_folder(&self) -> Option<PathBuf> {
        let directory = self.makings.directory();
        match Control::load(&directory).ok()?.standing(&directory, self.config.is_primary()) {
            Standing::Keeper { copy } => Some(copy),
            Standing::Writer { .. } => None,
        }
    }

    /// Removes what was opened as it arrived: all of it is in the volume's own image by now.
    pub(super) async fn drop_arrived(&self) -> Result<CommandReply, CommandError> {
        const COMMAND: &str = "recover drop-arrived";
        let taken = self.taken().ok_or_else(|| self.nothing_opens(COMMAND))?;
        let Some((folder, (path, bytes))) =
            self.copys_folder().and_then(|folder| Some((folder.clone(), arrival::left(&folder)?)))
        else {
            return Err(self.wrong_state(COMMAND, "one of which nothing was opened as it arrived", None));
        };
        let progress = taken.home.progress();
        if progress.opened < progress.present {
            return Err(CommandError::Refused {
                reason: format!(
                    "{} of {} blocks are not open yet: the image serves them without a key",
                    progress.present.0 - progress.opened.0,
                    progress.present.0
                ),
                next: Some(format!("`farseal recover status {}` until all are open", self.config.name)),
            });
        }
        let removed = tokio::task::spawn_blocking(move || {
            // What was read from it is durable where it is needed.
            taken.home.sync()?;
            arrival::remove(&folder)
        });
        removed.await.map_err(|error| failed(&error.to_string()))?.map_err(|error| failed(&error.to_string()))?;
        Ok(CommandReply::new(format!("{} is removed: {bytes} bytes", path.display())))
    }

    fn nothing_opens(&self, command: &'static str) -> CommandError {
        let would = Some(format!("farseal recover plan {}", self.config.name));
        self.wrong_state(command, "not a site that took over from its copy", would)
    }

    /// How far opening is, and what is known of it.
    pub(super) async fn recovery_report(&self) -> Result<RecoveryReport, CommandError> {
        let taken = self.taken().ok_or_else(|| self.nothing_opens("recover report"))?;
        let control = Control::load(&self.makings.directory()).map_err(|error| failed(&error.to_string()))?;
        let folder = self.makings.directory().join(lane_folder(control.generation));
        let (home, blocks) = (Arc::clone(&taken.home), self.blocks);
        let looked = tokio::task::spawn_blocking(move || {
            // What accesses opened is kept when somebody asks, and with the sweep's syncs.
            let _ = home.source().account().book().keep(&folder);
            (epochs(&home, blocks), Beginning::load(&folder))
        });
        let (epochs, beginning) = looked.await.map_err(|error| failed(&error.to_string()))?;
        let (source, progress, now) = (taken.home.source(), taken.home.progress(), Instant::now());
        let account = source.account();
        let closed = progress.present.0.saturating_sub(progress.opened.0);
        let rate = account.rate(now);
        Ok(RecoveryReport {
            now: self.shared.clock.now().wall,
            generation: control.generation,
            planned: control.planned,
            through: taken.through,
            evidence: beginning.as_ref().and_then(|beginning: &Beginning| self.evidence(beginning.at)),
            beginning,
            recovery: self.plugins.facts_of(PluginSlot::Recovery).map(|facts| facts.about.name).unwrap_or_default(),
            stage: account.stage(),
            present: progress.present.0,
            opened: progress.opened.0,
            failed: progress.failed.0,
            on_access: account.on_access().0,
            rate,
            searching: *self.search_progress.lock().unwrap_or_else(PoisonError::into_inner),
            left: rate.and_then(|rate| left(closed, rate)),
            arrived: self.copys_folder().and_then(|folder| arrival::left(&folder)),
            times: account.book().times(),
            epochs,
            failures: account
                .failures()
                .into_iter()
                .map(|(first, failure)| FailedBlocks {
                    first,
                    blocks: failure.blocks.0,
                    sequence: failure.sequence,
                    epoch: source.epoch_of(failure.sequence),
                    why: failure.why,
                })
                .collect(),
        })
    }
}

/// How long so many blocks take at this rate.
fn left(blocks: u64, rate: f64) -> Option<Millis> {
    #[expect(clippy::cast_precision_loss, reason = "a forecast is a rough number")]
    let seconds = blocks as f64 / rate;
    std::time::Duration::try_from_secs_f64(seconds)
        .ok()
        .map(|span| Millis(span.as_millis().try_into().unwrap_or(u64::MAX)))
}

fn epochs(home: &OpenedHome<CopySource>, blocks: BlockCount) -> Vec<OpenedEpoch> {
    let mut found = BTreeMap::<Epoch, (u64, u64)>::new();
    for first in (0..blocks.0).step_by(usize::try_from(PART_BLOCKS).unwrap_or(usize::MAX)) {
        let part = Extent::new(Lba(first), BlockCount(PART_BLOCKS.min(blocks.0 - first)));
        let mut at = first;
        for (count, epoch) in part.map(|part| home.source().epochs(part)).unwrap_or_default() {
            let run = Extent::new(Lba(at), count);
            at += count.0;
            if let (Some(epoch), Some(run)) = (epoch, run) {
                let (blocks, opened) = found.entry(epoch).or_default();
                *blocks += count.0;
                *opened += home.in_image(run).0;
            }
        }
    }
    found.into_iter().map(|(epoch, (blocks, opened))| OpenedEpoch { epoch, blocks, opened }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_told_only_while_something_opens() {
        assert_eq!(left(1_000, 500.0), Some(Millis(2_000)));
        assert_eq!(left(1_000, 0.0), None);
        assert_eq!(left(0, 10.0), Some(Millis(0)));
    }
}
