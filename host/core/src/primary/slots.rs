//! The standing schedule of a pair's disguise: what its slots are filled with, and the shams that behave as keys do.

use super::*;
use crate::schedule;

/// Whether the cover before a sham's start has been acknowledged.
pub(super) enum ShamDelivery {
    /// Or there is none that is waited for.
    InTime,
    Awaited,
    /// A record takes the place of the void that a key would leave.
    GivenUp,
}

impl Primary {
    /// Keeps slots fixed ahead while the pair sends in order; otherwise none are used.
    pub(super) fn run_schedule(&mut self, now: Now) {
        if !self.covers() {
            self.schedule.rest();
        } else if self.schedule.wants_slots(now.instant) {
            self.outputs.push_back(Output::PlanSlots);
        }
    }

    pub(super) fn on_slots_planned(&mut self, now: Now, slots: &[schedule::Planned]) {
        // What cannot be carried is no slot.
        let fit = slots.iter().filter(|slot| !self.settings.in_slots || self.fits_slots(slot.blocks)).copied();
        let slots: Vec<schedule::Planned> = fit.collect();
        self.schedule.planned(now.instant, &slots);
        self.rotation.schedule(self.schedule.is_standing());
    }

    /// What goes into the slot whose time has come, if one has and the order lets it: the key that waits, or cover.
    pub(super) fn plan_slot(&mut self, now: Now, due: Due) -> Option<Planned> {
        let open = match due {
            Due::Ordinary { .. } | Due::Hold(Held::HardLimit) => !self.sham_is_late(),
            // Covers are not sealed. Between the key and its start stands the pause's cut alone.
            Due::Hold(Held::PauseRotation) => self.rotation.is_draining(),
            Due::Hold(Held::NoKey | Held::Delivery)
            | Due::Key { .. }
            | Due::CarriedKey { .. }
            | Due::Void { .. }
            | Due::LastPlace { .. }
            | Due::Drop { .. }
            | Due::PauseCut => false,
        };
        if !open || !self.slot_waits(now) {
            return None;
        }
        let epoch = self.rotation.active()?.epoch;
        let slot = self.schedule.take(now.instant)?;
        let gap = schedule::gap(slot.chance);
        self.prepare_beside(now);
        if let Some(key) = self.rotation.take_slot(now, self.next) {
            return Some(self.plan_key(now, key, slot.blocks, gap));
        }
        let start = self.next.plus(self.rotation.lead(self.in_flight(), gap));
        self.schedule.covered(self.next, start);
        Some(Planned { body_blocks: slot.blocks, ..self.place(now, Kind::Cover, epoch, Source::Sham { start }) })
    }

    /// A slot's time has come, and a record of its own goes into it. What is carried has its place beside others.
    pub(super) fn slot_waits(&mut self, now: Now) -> bool {
        !self.settings.in_slots && self.covers() && self.schedule.is_due(now.instant)
    }

    /// The record before a sham's start waits as it would before a key's: for as long, and only if there is one to place.
    pub(super) fn sham_delivery(&mut self, now: Now) -> ShamDelivery {
        if !self.sham_is_late() {
            return ShamDelivery::InTime;
        }
        if !self.ordinary_waits(now) {
            return ShamDelivery::Awaited;
        }
        let (next, acked) = (self.next, self.transfer.acked());
        if self.link_up() && self.schedule.wait_for_delivery(now.instant, next, acked) {
            self.held = Some(Held::Delivery);
            return ShamDelivery::Awaited;
        }
        self.schedule.give_up(next, acked);
        self.rotation.came_late();
        // No cut may stand in an open gap.
        if self.copying.gap_open() { ShamDelivery::InTime } else { ShamDelivery::GivenUp }
    }

    /// Shams whose start has come: what a new key leads to, the driver does for nothing.
    pub(super) fn begin_shams(&mut self, now: Now) {
        for _ in 0..self.schedule.reached(self.next) {
            self.prepare_beside(now);
            self.rotation.came_in_time();
            self.carry_anew(now);
            self.outputs.push_back(Output::ShamInForce);
        }
    }

    fn sham_is_late(&self) -> bool {
        self.schedule.is_late(self.next, self.transfer.acked())
    }

    /// The pair sends, in order: cover goes where it is planned.
    pub(super) fn covers(&self) -> bool {
        let sends = self.link_up() && self.pause.is_none() && self.copying.sends() && !self.transfer.is_full();
        self.settings.paired && sends && self.fenced.is_none() && self.rotation.active().is_some()
    }
}
