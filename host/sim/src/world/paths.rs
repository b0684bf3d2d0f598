//! What goes over the link's paths: dialled, delayed, lost with its connection, and noticed by each side in its own time.

use farseal_core::secondary;
use farseal_core::units::Path;

use super::{Event, Outcome, World};
use crate::faults::Fault;
use crate::link::{Message, Side};

impl World {
    fn net_delay(&mut self) -> u64 {
        let slow = if self.faults.strikes(Fault::SlowLink) { 100 } else { 1 };
        self.dice_net.between(20, 2_000) * slow
    }

    pub fn dial(&mut self, path: Path) {
        if !self.link.line(path).dialling {
            self.link.line(path).dialling = true;
            let delay = self.dice_net.between(1_000, 400_000);
            self.after(delay, Event::Connect(path));
        }
    }

    pub(super) fn connect(&mut self, path: Path) -> Outcome {
        let up = self.primary.machine.is_some() && self.secondary.machine.is_some();
        let parted = self.healed_at.is_none() && self.is_parted();
        let line = self.link.line(path);
        line.dialling = false;
        if line.open {
            return Ok(());
        }
        if !up || parted || line.cut != [false; 2] || line.primary_up {
            self.dial(path);
            return Ok(());
        }
        line.session += 1;
        line.open = true;
        line.primary_up = true;
        self.attach(path)
    }

    pub fn send(&mut self, path: Path, to: Side, message: Message) {
        let delay = self.net_delay();
        let now = self.now;
        let line = self.link.line(path);
        if !line.open {
            return;
        }
        let at = (now + delay).max(line.busy_until[to.direction()]);
        line.busy_until[to.direction()] = at;
        let session = line.session;
        self.after(at - now, Event::Deliver { path, session, to, message });
    }

    pub(super) fn deliver(&mut self, path: Path, session: u64, to: Side, message: Message) -> Outcome {
        let line = self.link.line(path);
        if line.session != session || !line.open {
            return Ok(());
        }
        if line.cut[to.direction()] {
            // Nothing arrives any more; both ends notice after their timeouts.
            self.break_path(path);
            return Ok(());
        }
        match to {
            Side::Primary => self.primary_receives(path, message),
            Side::Secondary => {
                if self.secondary.machine.is_some() {
                    self.witness.heard_us = self.now;
                }
                let line = self.link.line(path);
                if !line.secondary_up {
                    line.secondary_up = true;
                    // The same path came anew before the old connection's end was noticed.
                    self.tell_secondary(secondary::Input::PathLost { path })?;
                }
                self.secondary_receives(path, message)
            }
        }
    }

    /// The connection is dead; each side that is up learns of it in its own time.
    pub fn break_path(&mut self, path: Path) {
        let line = self.link.line(path);
        if !line.open {
            return;
        }
        line.open = false;
        let session = line.session;
        for side in [Side::Primary, Side::Secondary] {
            let delay = self.dice_net.between(10, 600_000);
            self.after(delay, Event::Lost { path, session, side });
        }
    }

    /// This side ends the connection and knows it at once.
    pub fn close_path(&mut self, path: Path, side: Side) {
        match side {
            Side::Primary => self.link.line(path).primary_up = false,
            Side::Secondary => self.link.line(path).secondary_up = false,
        }
        self.break_path(path);
    }

    pub(super) fn path_lost(&mut self, path: Path, session: u64, side: Side) -> Outcome {
        let line = self.link.line(path);
        if line.session != session {
            return Ok(());
        }
        match side {
            Side::Primary => {
                let was_up = std::mem::take(&mut line.primary_up);
                self.primary.carrier = self.primary.carrier.filter(|carrier| *carrier != path);
                self.dial(path);
                if was_up && self.primary.machine.is_some() {
                    return self.tell_primary(farseal_core::primary::Input::PathLost { path });
                }
            }
            Side::Secondary => {
                let was_up = std::mem::take(&mut line.secondary_up);
                if self.link.lines.iter().all(|line| !line.secondary_up) {
                    self.slots.forget();
                }
                if was_up && self.secondary.machine.is_some() {
                    return self.tell_secondary(secondary::Input::PathLost { path });
                }
            }
        }
        Ok(())
    }
}
