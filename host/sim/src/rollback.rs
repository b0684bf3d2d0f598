//! A site's whole disk set back to an earlier moment, as by a restored snapshot: the other site must notice, and
//! nothing of it may be overwritten.

use farseal_core::chain::Digest;
use farseal_core::units::Sequence;

use crate::check::{Checker, Failure, difference};
use crate::faults::Fault;
use crate::link::Side;
use crate::model::Model;
use crate::primary::PrimaryDisk;
use crate::secondary::SecondaryDisk;
use crate::stats::Sometimes;
use crate::world::{Outcome, World};

/// Operations between a snapshot and its return.
const OPERATIONS_BETWEEN: u64 = 15;
/// Microseconds that the sites have to find out, once everything else is well.
const PATIENCE_US: u64 = 60_000_000;

#[derive(Debug, Default)]
pub struct Rollback {
    taken: Option<Taken>,
    restored: Option<Restored>,
}

#[derive(Debug)]
struct Taken {
    at_operation: u64,
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
    /// What the one site lost, the other may still have: most promises are not what they were.
    pub fn happened(&self) -> bool {
        self.restored.is_some()
    }
}

impl World {
    pub fn snapshots(&mut self) {
        // A disk that comes back from before a change of sides belongs to another history: that is the fence's affair.
        if self.rollback.happened() || self.settings.mutation.is_some() || self.sides.may_change() {
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
            None => {
                let disk = match side {
                    Side::Primary => Snapshot::Primary(Box::new((self.primary.disk(), self.model.clone()))),
                    Side::Secondary => Snapshot::Secondary(Box::new(self.secondary.disk())),
                };
                self.rollback.taken = Some(Taken { at_operation: operation, disk });
            }
            Some(taken) if operation < taken.at_operation + OPERATIONS_BETWEEN => self.rollback.taken = Some(taken),
            Some(taken) => self.restore(taken.disk),
        }
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
                self.secondary.set_back(*disk);
                Side::Secondary
            }
        };
        self.stats.see(Sometimes::DiskSetBack);
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
            // Unnoticed is well only where nothing is lost by it: a full copy has made both sites the same.
            Side::Primary if status.acked == status.last => {
                match difference(&self.secondary.live, &self.model.image(secondary.durable().0)) {
                    Some(found) => Err(Failure::new(
                        Checker::Rollback,
                        format!("the sites differ and nobody says so: {found} at the secondary; {status:?}"),
                    )),
                    None => Ok(()),
                }
            }
            Side::Primary => Ok(()),
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
