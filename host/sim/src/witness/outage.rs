//! What the rule is for, and what it must not take for that: sites that are lost or cut off for long, a witness that is deaf, dumb or
//! new, and links that come back for a moment.

use farseal_core::units::Path;

use super::WitnessEvent;
use super::escrow::Place;
use crate::disk::{to_usize, wide};
use crate::link::Side;
use crate::stats::Sometimes;
use crate::world::{Event, Outcome, World};

/// One step of one.
#[derive(Clone, Debug)]
pub enum Outage {
    Line { place: Place, cut: bool },
    Link { cut: bool },
    Path { path: Path, cut: bool },
    KeeperCrashes { life: u32 },
    EscrowCrashes { down: u64 },
}

impl World {
    /// One after the other, for the most part.
    pub fn outages(&mut self) -> Outcome {
        let often = if self.now < self.witness.out_until_us { 2 } else { 80 };
        if !self.witness.is_in_force() || !self.witness.dice.chance(often) {
            return Ok(());
        }
        let (least, most) = self.witness.profile.outage_us();
        let (main, span) = (self.witness.main(), self.witness.dice.between(least, most));
        self.witness.out_until_us = self.now + span;
        self.trace.note(self.now, || format!("  an outage of {span} us"));
        let drawn = self.witness.dice.below(12);
        match self.witness.profile.sort(drawn, &mut self.witness.dice) {
            0..2 => self.main_is_lost(span),
            2..6 => {
                self.stats.see(Sometimes::MainSiteCutOff);
                self.line_is_cut(main, span);
                self.link_is_cut(span);
            }
            6 => self.link_is_cut(span),
            7 => self.line_is_cut(main, span),
            8 => {
                self.main_is_lost(span);
                self.line_is_cut(main.other(), span / 2);
            }
            9 => {
                self.main_is_lost(span);
                self.escrow_restarts(span / 2);
            }
            10 => self.escrow_restarts(span),
            _ => {
                self.line_is_cut(main, span);
                self.crash(Side::Secondary);
            }
        }
        if self.witness.dice.chance(self.witness.profile.back_for_a_moment()) {
            self.comes_back_for_a_moment(span);
        }
        Ok(())
    }

    fn main_is_lost(&mut self, span: u64) {
        self.stats.see(Sometimes::MainSiteLost);
        self.crash_for(Side::Primary, Some(span));
    }

    fn line_is_cut(&mut self, place: Place, span: u64) {
        self.witness.escrow.cut(place, true);
        self.outage_after(span, Outage::Line { place, cut: false });
    }

    fn link_is_cut(&mut self, span: u64) {
        self.link.paths().for_each(|path| self.link.line(path).cut = [true; 2]);
        self.outage_after(span, Outage::Link { cut: false });
    }

    fn escrow_restarts(&mut self, most: u64) {
        let at = self.witness.dice.below(most);
        let down = self.witness.dice.between(10_000, 6_000_000);
        self.outage_after(at, Outage::EscrowCrashes { down });
    }

    /// One path is whole for less than the time between two looks, or a little more.
    fn comes_back_for_a_moment(&mut self, span: u64) {
        let (at, moment) = (self.witness.dice.below(span), self.witness.dice.between(50_000, 1_200_000));
        self.is_back(at, moment, span);
    }

    /// The same before so much time is over, where the main site is cut off.
    pub(super) fn comes_back_within(&mut self, span: u64) {
        let left = self.witness.out_until_us.saturating_sub(self.now);
        if left > span {
            let (at, moment) = (self.witness.dice.below(span), self.witness.dice.between(50_000, 600_000));
            self.is_back(at, moment, left);
        }
    }

    fn is_back(&mut self, at: u64, moment: u64, span: u64) {
        let any = to_usize(self.witness.dice.below(wide(self.link.lines.len())));
        let Some(path) = self.link.paths().nth(any) else { return };
        self.outage_after(at, Outage::Path { path, cut: false });
        self.outage_after(at + moment, Outage::Path { path, cut: true });
        self.outage_after(span.max(at + moment), Outage::Path { path, cut: false });
    }

    fn outage_after(&mut self, delay: u64, outage: Outage) {
        self.after(delay, Event::Witness(WitnessEvent::Outage(outage)));
    }

    pub(super) fn outage(&mut self, outage: Outage) -> Outcome {
        if self.faults.healed || self.closing {
            return Ok(());
        }
        match outage {
            Outage::Line { place, cut } => self.witness.escrow.cut(place, cut),
            Outage::Link { cut } => self.link.paths().for_each(|path| self.link.line(path).cut = [cut; 2]),
            Outage::Path { path, cut } => {
                self.stats.see(Sometimes::LinkBackForAMoment);
                self.link.line(path).cut = [cut; 2];
            }
            Outage::KeeperCrashes { life } if life == self.secondary.life => self.crash(Side::Secondary),
            Outage::KeeperCrashes { .. } => {}
            Outage::EscrowCrashes { down } => {
                self.stats.see(Sometimes::EscrowRestarted);
                self.witness.escrow.crash();
                self.after(down, Event::Witness(WitnessEvent::EscrowBack));
            }
        }
        Ok(())
    }
}
