//! The end of a run: everything heals and must come back, or what there is of the copy is taken over.

use farseal_core::primary::{Command, CopyState};

use super::{Event, Outcome, World};
use crate::check::{self, liveness};
use crate::disk::to_usize;
use crate::link::Side;
use crate::stats::Sometimes;

impl World {
    /// Faults stop; the operator mends what is broken, or takes over what there is.
    pub(super) fn heal(&mut self) -> Outcome {
        if self.healed_at.is_some() {
            return Ok(());
        }
        if self.sides.is_changing() {
            // First who writes is settled.
            let since = *self.settling_since.get_or_insert(self.now);
            if self.now > since + liveness::BOUND_MS * 1000 {
                return Err(liveness::failed(self));
            }
            if !self.secondary.settings.encrypted {
                // Nothing is offered before the operator has set the bit right.
                self.crash(Side::Secondary);
            }
            self.after(100_000, Event::Operation);
            return Ok(());
        }
        if self.ends_in_takeover && self.may_be_taken_over() {
            self.stats.see(Sometimes::TakeOver);
            (self.ends_in_takeover, self.closing) = (false, true);
            self.take_over()?;
            return self.judge_takeover();
        }
        self.faults.healed = true;
        self.healed_at = Some(self.now);
        self.free_space();
        // Of several paths now and then one alone comes back: it must do.
        let wanted = self.wanted_paths().min(self.link.lines.len());
        let alone = (self.link.lines.len() > 1 && self.dice_net.chance(250))
            .then(|| to_usize(self.dice_net.below(crate::disk::wide(wanted))));
        for (at, line) in self.link.lines.iter_mut().enumerate() {
            line.cut = [alone.is_some_and(|alone| alone != at); 2];
        }
        if alone.is_some() {
            self.stats.see(Sometimes::OnePathHealed);
        }
        if self.primary.broken {
            self.crash(Side::Primary);
        }
        if self.secondary.broken || !self.secondary.settings.encrypted {
            self.crash(Side::Secondary);
        }
        self.after(1000, Event::Look);
        self.let_flow()?;
        self.no_presets();
        if self.primary.machine.is_some() {
            self.tell_primary(farseal_core::primary::Input::Operator(Command::Resume))?;
        }
        Ok(())
    }

    pub(super) fn look(&mut self) -> Outcome {
        if let Some(healed_at) = self.healed_at
            && self.rollback.happened()
        {
            self.judge_rollback(healed_at)?;
            if self.over {
                return Ok(());
            }
        } else if self.rollback.happened() {
            // A takeover of whatever the secondary has: nothing to compare it with.
            self.over = true;
            return Ok(());
        }
        if self.healed_at.is_none() {
            return self.judge_takeover();
        }
        if self.order_ended && self.is_at_the_end() {
            self.over = true;
            let found = self.primary.read_all();
            return check::write_order::read(self, &found);
        }
        if liveness::recovered(self) && !self.rollback.happened() {
            self.over = true;
            check::bounds::at_rest(self)?;
            let found = self.primary.read_all();
            return check::write_order::read(self, &found);
        }
        self.after(50_000, Event::Look);
        // A resume that came while the node was down, and a disk that failed in the last moment.
        let broken = self.primary.broken && !self.order_ended;
        if broken && self.primary.machine.is_some() {
            self.crash(Side::Primary);
        } else if self.secondary.broken && self.secondary.machine.is_some() {
            self.crash(Side::Secondary);
        } else if self.primary.machine.is_some() && self.primary.paused {
            return self.tell_primary(farseal_core::primary::Input::Operator(Command::Resume));
        }
        Ok(())
    }

    /// There are no more numbers: what has one is safe at both sites, but for what a resync that cannot begin owes.
    fn is_at_the_end(&self) -> bool {
        let (Some(primary), Some(secondary)) = (&self.primary.machine, &self.secondary.machine) else { return false };
        let status = primary.status();
        let whole = status.acked == status.last && secondary.offered() == status.last;
        status.homed == status.last && (whole || status.copy != CopyState::InOrder)
    }

    /// What a takeover opens is what was offered, and the old primary is not believed any more.
    fn judge_takeover(&mut self) -> Outcome {
        let through = self.secondary.offered;
        if self.rollback.happened() {
            self.over = true;
            return Ok(());
        }
        if self.secondary.machine.as_ref().is_some_and(|machine| machine.status().taken_over) {
            self.over = true;
            return self.judge_opened(through);
        }
        self.after(1000, Event::Look);
        Ok(())
    }
}
