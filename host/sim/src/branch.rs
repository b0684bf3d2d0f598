//! A site's own old history: what its base is the end of while it keeps the copy of another, and how it goes on again.
//!
//! Over a base that differs still the copy is no whole, and a takeover goes on with the base: see [`Secondary::base_differs`].
//! At any later time an operator may adopt the branch all the same, and give up what the other site wrote since the fork.
//!
//! [`Secondary::base_differs`]: farseal_core::secondary::Secondary::base_differs

use farseal_core::chain::Chain;
use farseal_core::lineage::Lineage;
use farseal_core::secondary::{self, Secondary};
use farseal_core::units::{Generation, Sequence};

use crate::check::{self, write_order};
use crate::disk::wide;
use crate::model::{Model, Rec};
use crate::mutation::Mutation;
use crate::secondary::SecondarySite;
use crate::stats::Sometimes;
use crate::world::{Outcome, World};

/// Every record of a history that a site wrote, and the running hash at its end.
#[derive(Clone, Debug)]
pub struct Branch {
    before: Sequence,
    pub history: Vec<Rec>,
    pub chain: Chain,
}

impl Branch {
    /// What a site that stops writing leaves.
    pub fn of(model: &Model, chain: Chain) -> Self {
        Self { before: model.before, history: model.history.clone(), chain }
    }

    pub fn end(&self) -> Sequence {
        self.before.plus(wide(self.history.len()))
    }

    /// As this generation it goes on at its own end; it has the fork in common with the history that is kept.
    fn lineage(&self, generation: Generation, kept: Lineage) -> Lineage {
        Lineage { generation, start: self.end(), start_chain: self.chain, ..kept }
    }
}

impl World {
    /// What the takeover that is under way goes on from.
    pub fn lineage_taken(&self, machine: &Secondary, generation: Generation) -> Lineage {
        let own = self.secondary.own.as_ref().zip(self.secondary.keeps);
        let own = own.filter(|_| self.goes_on_with_own(machine));
        let (fork, chain) = machine.fork();
        own.map_or_else(|| Lineage::at(generation, fork, chain), |(own, kept)| own.lineage(generation, kept))
    }

    fn goes_on_with_own(&self, machine: &Secondary) -> bool {
        machine.base_differs() && self.settings.mutation != Some(Mutation::BaseTakenForTheCopy)
    }

    /// A takeover has something to go on from: the copy, or the history that its base is the end of.
    pub fn may_be_taken_over(&self) -> bool {
        let machine = self.secondary.machine.as_ref();
        machine.is_some_and(|machine| !machine.base_differs() || self.secondary.own.is_some())
            && self.secondary.settings.encrypted
    }

    pub fn take_over(&mut self) -> Outcome {
        if self.may_be_taken_over() {
            self.witness.other_wish();
            return self.tell_secondary(secondary::Input::TakeOver);
        }
        let other = !self.secondary.settings.encrypted && !self.secondary.records.is_empty();
        let Some(before) = self.secondary.machine.as_ref().map(Secondary::generation).filter(|_| other) else {
            return Ok(());
        };
        self.tell_secondary(secondary::Input::TakeOver)?;
        self.stats.see(Sometimes::RefusedToTakeOver);
        check::tamper::not_taken_over(self, before)
    }

    /// What is opened is what was offered, or the own history's end.
    pub fn judge_opened(&mut self, through: Sequence) -> Outcome {
        let differs = self.secondary.machine.as_ref().is_some_and(Secondary::base_differs);
        match &self.secondary.own {
            Some(own) if differs => {
                self.stats.see(Sometimes::TakeOverOfOwnHistory);
                write_order::own_history(self, own)
            }
            Some(_) | None => write_order::offered(self, through),
        }
    }

    /// The site that keeps the copy writes again, from its branch's end on, whatever the other one wrote since the fork.
    pub fn adopt(&mut self) -> Outcome {
        let (Some(kept), Some(own)) = (self.secondary.keeps, self.secondary.own.clone()) else { return Ok(()) };
        let Some(machine) = self.secondary.machine.as_ref().filter(|_| own.end() > kept.fork) else { return Ok(()) };
        self.stats.see(if machine.base_differs() { Sometimes::Adopted } else { Sometimes::AdoptedOverAWholeCopy });
        let generation = Lineage::apart(machine.generation());
        self.crash_secondary();
        self.link.paths().for_each(|path| self.break_path(path));
        let lineage = own.lineage(generation, kept);
        let old = &self.secondary;
        let mut site = SecondarySite::keeper(old, kept, old.base.clone(), old.differs.clone(), Some(own));
        (site.generation, site.taken_over, site.taken_at) = (generation, true, Some(kept.start));
        // Until it hears of it, the other site goes on to answer for both where nothing is to be waited for.
        site.acknowledged = old.acknowledged;
        self.secondary = site;
        self.sides.taking(lineage, false);
        self.sides.adopted = true;
        self.restart_secondary()?;
        self.judge_opened(kept.start)?;
        self.turn_later();
        Ok(())
    }
}
