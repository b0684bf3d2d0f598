//! What goes wrong in the world: crashes, broken and cut paths, nonsense, full disks, snapshots, a clock that jumps.

use super::{Event, Outcome, World};
use crate::faults::Fault;
use crate::link::{Message, Side};

impl World {
    pub(super) fn accidents(&mut self) -> Outcome {
        if self.faults.strikes(Fault::CrashBoth) {
            self.crash(Side::Primary);
            self.crash(Side::Secondary);
        }
        if self.faults.strikes(Fault::CrashPrimary) {
            self.crash(Side::Primary);
        }
        if self.faults.strikes(Fault::CrashSecondary) {
            self.crash(Side::Secondary);
        }
        for path in self.link.paths() {
            if self.faults.strikes(Fault::PathLost) {
                self.break_path(path);
            }
            for (fault, cut) in [
                (Fault::PathCut, [true, true]),
                (Fault::OneWay, [self.dice_net.chance(500), self.dice_net.chance(500)]),
            ] {
                if self.faults.strikes_at(fault, 4) {
                    self.link.line(path).cut = cut;
                    let span = self.dice_net.between(1_000, 3_000_000);
                    self.after(span, Event::Mend(path));
                }
            }
            if self.faults.strikes(Fault::Nonsense) {
                self.send(path, Side::Secondary, Message::Nonsense);
            }
        }
        for (fault, full) in [(Fault::JournalFull, 0), (Fault::HomeFull, 1), (Fault::LogFull, 2)] {
            if self.faults.strikes_at(fault, 4) {
                self.fill(full);
                let span = self.dice_disk.between(1_000, 5_000_000);
                self.after(span, Event::FreeSpace);
            }
        }
        if !self.secondary.settings.encrypted && self.dice_life.chance(100) {
            // The operator has found out, sets the bit right and restarts the node.
            self.crash(Side::Secondary);
        }
        self.snapshots();
        self.outages()?;
        if self.faults.strikes(Fault::ClockJump) {
            self.wall_offset = self.dice_life.between(1_600_000_000_000, 1_800_000_000_000);
        }
        Ok(())
    }

    fn fill(&mut self, disk: u8) {
        match disk {
            0 => self.primary.journal_disk_full = true,
            1 => self.primary.home_disk_full = true,
            _ => self.secondary.disk_full = true,
        }
    }

    pub(super) fn free_space(&mut self) {
        self.primary.journal_disk_full = false;
        self.primary.home_disk_full = false;
        self.secondary.disk_full = false;
    }

    pub fn crash(&mut self, side: Side) {
        self.crash_for(side, None);
    }

    /// It comes back after so many microseconds.
    pub fn crash_for(&mut self, side: Side, down: Option<u64>) {
        let lines = self.link.paths();
        match side {
            Side::Primary if self.primary.machine.is_some() => self.crash_primary(),
            Side::Secondary if self.secondary.machine.is_some() => self.crash_secondary(),
            Side::Primary | Side::Secondary => return,
        }
        for path in lines {
            self.break_path(path);
        }
        let down = down.unwrap_or_else(|| self.dice_life.between(100, 2_000_000));
        self.after(down, Event::Restart(side));
    }
}
