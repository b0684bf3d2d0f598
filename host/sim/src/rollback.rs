//! A site's whole disk set back to an earlier moment, as by a restored snapshot: the other site must notice, and
//! nothing of it may be overwritten.

use farseal_core::chain::Digest;
use farseal_core::primary::CopyState;
use farseal_core::units::Sequence;

use crate::check::{Checker, Failure};
use crate::dice::Dice;
use crate::disk::wide;
use crate::faults::Fault;
use crate::link::Side;
use crate::model::Model;
use crate::mutation::Mutation;
use crate::primary::PrimaryDisk;
use crate::secondary::SecondaryDisk;
use crate::stats::Sometimes;
use crate::world::{Outcome, World};

/// Operations between a snapshot and its return.
const OPERATIONS_BETWEEN: u64 = 15;
/// Microseconds that the sites have to find out, once everything else is well.
const PATIENCE_US: u64 = 60_000_000;

#[derive(Debug)]
pub struct Rollback {
    /// The snapshot is of a primary that is behind, and when it comes back the sites do not hear of each other before that
    /// primary's own records reach past what the secondary holds: from then on numbers alone say nothing.
    behind: bool,
    /// Operations that may be added until they do.
    more: u64,
    taken: Option<Taken>,
    restored: Option<Restored>,
}

#[derive(Debug)]
struct Taken {
    at_operation: u64,
    /// The primary's last record.
    last: Sequence,
    disk: Snapshot,
}

#[derive(Debug)]
enum Snapshot {
    Primary(Box<(PrimaryDisk, Model)>),
    Secondary(Box<SecondaryDisk>),
}

/// What was true when the disk was set back.
#[derive(Debug)]
struct Restored {
    side: Side,
    /// What the secondary held durably: its mark, and each record's digest.
    held: Vec<Digest>,
    /// The primary knew that the secondary had this much.
    acked: Sequence,
    /// The life of the primary that knew it.
    life: u32,
}

impl Rollback {
    /// Half of the seeds set back a primary that is behind; `behind`: all of them.
    pub fn draw(seed: u64, behind: bool) -> Self {
        Self { behind: behind || Dice::new(seed, 12).chance(500), more: 1_000, taken: None, restored: None }
    }

    /// What the one site lost, the other may still have: most promises are not what they were.
    pub fn happened(&self) -> bool {
        self.restored.is_some()
    }
}

impl World {
    pub fn snapshots(&mut self) {
        // A disk that comes back from before a change of sides belongs to another history: that is the fence's affair.
        let set_back = [Mutation::GivenUpForgotten, Mutation::KeyOfTheSnapshot];
        let broken = self.settings.mutation.is_some_and(|mutation| !set_back.contains(&mutation));
        if self.rollback.happened()
            || broken
            || self.model.before > Sequence::NONE
            || self.sides.may_change()
            || self.sides.changed
        {
            return;
        }
        for (fault, side) in [(Fault::SnapshotPrimary, Side::Primary), (Fault::SnapshotSecondary, Side::Secondary)] {
            if self.faults.strikes_at(fault, 2) {
                self.snapshot(side);
            }
        }
    }

    /// Takes one, or brings the one back that was taken.
    fn snapshot(&mut self, side: Side) {
        let operation = self.stats.operations;
        match self.rollback.taken.take() {
            None if side == Side::Primary && self.rollback.behind && !self.is_behind() => {}
            None => {
                let disk = match side {
                    Side::Primary => Snapshot::Primary(Box::new((self.primary.disk(), self.model.clone()))),
                    Side::Secondary => Snapshot::Secondary(Box::new(self.secondary.disk())),
                };
                let last = self.primary.machine.as_ref().map_or(Sequence::NONE, |machine| machine.status().last);
                self.rollback.taken = Some(Taken { at_operation: operation, last, disk });
            }
            Some(taken) if operation < taken.at_operation + OPERATIONS_BETWEEN || self.is_too_early(&taken) => {
                self.rollback.taken = Some(taken);
            }
            Some(taken) => self.restore(taken.disk),
        }
    }

    fn is_behind(&self) -> bool {
        self.primary.machine.as_ref().is_some_and(|machine| machine.status().copy == CopyState::Behind)
    }

    /// One operation more, for as long as the sites are kept apart.
    pub fn one_more(&mut self) -> bool {
        let more = self.is_parted() && self.rollback.more > 0;
        self.rollback.more -= u64::from(more);
        more
    }

    /// What a primary that was behind has sent since is what it is to forget.
    fn is_too_early(&self, taken: &Taken) -> bool {
        let held = self.secondary.machine.as_ref().map_or(Sequence::NONE, |machine| machine.durable().0);
        self.rollback.behind && matches!(taken.disk, Snapshot::Primary(_)) && held <= taken.last
    }

    /// No path comes up yet: see [`Rollback::behind`].
    pub fn is_parted(&self) -> bool {
        let Some(restored) = self.rollback.restored.as_ref().filter(|_| self.rollback.behind) else { return false };
        let last = self.primary.machine.as_ref().map_or(Sequence::NONE, |machine| machine.status().durable);
        restored.side == Side::Primary && last.0 <= wide(restored.held.len())
    }

    fn restore(&mut self, disk: Snapshot) {
        let (Some(primary), Some(secondary)) = (&self.primary.machine, &self.secondary.machine) else { return };
        let (acked, life) = (primary.status().acked, self.primary.life);
        let held = self.secondary.digests(secondary.durable().0);
        let side = match disk {
            Snapshot::Primary(disk) => {
                self.crash(Side::Primary);
                let (disk, model) = *disk;
                self.primary.set_back(disk);
                self.model = model;
                Side::Primary
            }
            Snapshot::Secondary(disk) => {
                self.crash(Side::Secondary);
                let floor = self.secondary.kept.floor;
                self.secondary.set_back(*disk);
                if self.secondary.kept.floor < floor {
                    self.stats.see(Sometimes::FloorSetBack);
                }
                Side::Secondary
            }
        };
        self.stats.see(Sometimes::DiskSetBack);
        if side == Side::Primary && self.rollback.behind {
            self.stats.see(Sometimes::SetBackWhileBehind);
        }
        self.rollback.restored = Some(Restored { side, held, acked, life });
    }

    /// Everything else has healed. Was it noticed?
    pub fn judge_rollback(&mut self, healed_at: u64) -> Outcome {
        let Some(restored) = &self.rollback.restored else { return Ok(()) };
        let (Some(primary), Some(secondary)) = (&self.primary.machine, &self.secondary.machine) else { return Ok(()) };
        let status = primary.status();
        if let Some(divergence) = status.diverged {
            self.trace.note(self.now, || format!("noticed: {divergence}"));
            self.stats.see(Sometimes::SetBackNoticed);
            self.over = true;
            return self.nothing_overwritten();
        }
        if self.now < healed_at + PATIENCE_US {
            return Ok(());
        }
        self.over = true;
        match restored.side {
            // Unnoticed is well only where the secondary held nothing that this primary has forgotten.
            Side::Primary => match self.means_two_things(&restored.held) {
                Some(at) => Err(Failure::new(
                    Checker::Rollback,
                    format!("the secondary held another record {at} than this site, and nobody says so: {status:?}"),
                )),
                None => Ok(()),
            },
            // A primary that has started anew since knows only what it kept.
            Side::Secondary if restored.life == self.primary.life && secondary.durable().0 < restored.acked => {
                let (acked, durable) = (restored.acked, secondary.durable().0);
                Err(Failure::new(
                    Checker::Rollback,
                    format!("the secondary had acknowledged {acked} and holds {durable}; nobody says so: {status:?}"),
                ))
            }
            Side::Secondary => Ok(()),
        }
    }

    /// The first record that the secondary held and that this site has not, or has otherwise.
    fn means_two_things(&self, held: &[Digest]) -> Option<Sequence> {
        let numbered = (1..).map(Sequence).zip(held).filter(|(_, digest)| **digest != Digest([0; 32]));
        let other = |(sequence, digest): &(Sequence, &Digest)| {
            self.model.get(*sequence).is_none_or(|record| record.digest != **digest)
        };
        numbered.into_iter().find(other).map(|(sequence, _)| sequence)
    }

    /// What the secondary held is what it holds: a primary that lost its memory has added nothing to it.
    fn nothing_overwritten(&self) -> Outcome {
        let Some(restored) = self.rollback.restored.as_ref().filter(|restored| restored.side == Side::Primary) else {
            return Ok(());
        };
        let Some(secondary) = &self.secondary.machine else { return Ok(()) };
        let now = self.secondary.digests(secondary.durable().0);
        let changed = restored.held.iter().zip(&now).position(|(before, now)| before != now);
        match changed {
            Some(at) => {
                Err(Failure::new(Checker::Rollback, format!("record {} of the secondary has been replaced", at + 1)))
            }
            None => Ok(()),
        }
    }
}
