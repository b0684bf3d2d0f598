//! Changing sides: an operator takes over or swaps, and the site that wrote becomes the keeper of the other's history.

use farseal_core::frame::HandOver;
use farseal_core::given_up::GivenUp;
use farseal_core::lineage::Lineage;
use farseal_core::owed::OwedMap;
use farseal_core::primary::{Command, Divergence, Input, Primary, SwapState};
use farseal_core::units::{BlockCount, Epoch, Extent, Lba};

use crate::branch::Branch;
use crate::check;
use crate::dice::Dice;
use crate::disk::{Home, to_usize, wide};
use crate::faults::Fault;
use crate::link::Side;
use crate::mutation::Mutation;
use crate::primary::PrimarySite;
use crate::retire::Kept;
use crate::secondary::SecondarySite;
use crate::stats::Sometimes;
use crate::world::{Event, Outcome, World};

/// Who writes, and who is to write.
#[derive(Debug)]
pub struct Sides {
    dice: Dice,
    /// In a thousand operations.
    rate: u64,
    /// The copy was taken over: the history that it goes on with.
    pub forked: Option<Lineage>,
    /// By the old primary's wish.
    pub planned: bool,
    /// By an operator's, who gave up what the old primary wrote since the fork, whatever was promised of it.
    pub adopted: bool,
    /// The old primary knows that it is none any more.
    pub knows: bool,
    /// It knows that it handed over.
    handed: bool,
    turn_due: bool,
    /// They have changed at least once.
    pub changed: bool,
    /// The old primary writes again without having been answered. The copy that was taken over, if it was, is to keep this
    /// history then.
    back: Option<Lineage>,
}

impl Sides {
    /// Some seeds have an operator who changes sides; `often`: all of them, as often as it goes.
    pub fn draw(seed: u64, often: bool) -> Self {
        let mut dice = Dice::new(seed, 8);
        let rate = if dice.chance(400) { dice.between(3, 30) } else { 0 };
        let rate = if often { 100 } else { rate };
        Self {
            dice,
            rate,
            forked: None,
            planned: false,
            adopted: false,
            knows: false,
            handed: false,
            turn_due: false,
            changed: false,
            back: None,
        }
    }

    /// The generation that takes over is being made durable.
    pub fn taking(&mut self, lineage: Lineage, planned: bool) {
        // Whoever took it back without an answer writes beside it, as after a takeover that nobody planned.
        let planned = planned && self.back.is_none_or(|back| back.generation < lineage.generation);
        (self.forked, self.planned, self.changed) = (Some(lineage), planned, true);
    }

    /// It goes on as the copy: what it was asked for was taken back.
    pub fn withdrawn(&mut self) {
        (self.forked, self.planned, self.back) = (None, false, None);
    }

    /// No side is changed in this run.
    pub fn keep(&mut self) {
        self.rate = 0;
    }

    /// This seed has an operator who changes sides.
    pub fn may_change(&self) -> bool {
        self.rate > 0
    }

    pub fn is_changing(&self) -> bool {
        self.forked.is_some()
    }
}

impl World {
    /// What an operator may want at this instant.
    pub fn change_sides(&mut self) -> Outcome {
        if self.primary.handing.is_some() && self.faults.has(Fault::CrashPrimary) && self.sides.dice.chance(200) {
            self.crash(Side::Primary);
        }
        let asks =
            self.primary.machine.as_ref().is_some_and(|machine| machine.status().swap == Some(SwapState::Asking));
        if asks && !self.sides.handed && self.sides.dice.chance(100 + self.sides.rate) {
            return self.take_back();
        }
        if self.sides.is_changing() || !self.sides.dice.chance(self.sides.rate) {
            return Ok(());
        }
        match self.sides.dice.below(10) {
            0..5 => self.tell_primary(Input::Operator(Command::HandOver)),
            5..8 => self.take_over(),
            _ => self.adopt(),
        }
    }

    /// The new generation is durable.
    pub fn taken_over(&mut self) -> Outcome {
        self.stats.see(Sometimes::TakeOver);
        if self.rollback.happened() {
            // What follows has nothing to be compared with.
            self.stats.see(Sometimes::TakeOverAfterASetBack);
            self.over = true;
        }
        self.turn_later();
        Ok(())
    }

    /// The old primary knows that the other site goes on from its last record.
    pub fn handed_over(&mut self, hand_over: &HandOver) -> Outcome {
        check::fence::handed_over(self, hand_over)?;
        (self.sides.handed, self.sides.knows) = (true, true);
        self.turn_later();
        Ok(())
    }

    /// What the primary knew and had not kept is gone; it learns it again.
    pub fn primary_forgets(&mut self) {
        if std::mem::take(&mut self.sides.handed) {
            self.sides.knows = false;
        }
    }

    /// An operator who takes the other site for lost does not wait for its answer.
    fn take_back(&mut self) -> Outcome {
        self.crash_primary();
        self.link.paths().for_each(|path| self.break_path(path));
        self.disaster.turned();
        let Some(found) = self.recover_primary()? else { return Ok(()) };
        if let Some(hand_over) = found.recovered.handing_over {
            let mut lineage = Lineage::taken_back(&hand_over);
            if self.settings.mutation == Some(Mutation::TakenBackAsAsked) {
                lineage.generation = hand_over.generation;
            }
            let writes = self.sides.forked.is_some();
            self.stats.see(if writes { Sometimes::TakenBackFromAWriter } else { Sometimes::TakenBack });
            let image = self.primary.home.image();
            self.primary = PrimarySite::writer(&self.primary, &image, lineage, None);
            self.primary.chain = lineage.fork_chain;
            self.begin_segment(lineage.fork.next());
            self.model.restarted(lineage.fork);
            (self.sides.back, self.sides.planned, self.sides.knows) = (Some(lineage), false, false);
        }
        self.restart_primary()
    }

    /// The site that took over, and was taken back from, has written since: a branch, over which it keeps the copy.
    fn rejoin(&mut self, taken: &Lineage, back: Lineage) -> Outcome {
        if self.secondary.machine.is_none() || self.secondary.indexed < taken.fork {
            self.turn_later();
            return Ok(());
        }
        self.crash_secondary();
        self.link.paths().for_each(|path| self.break_path(path));
        let (blocks, size) = (self.primary.settings.blocks, self.primary.settings.block_bytes);
        let known = taken.fork == back.fork;
        let mut differs = if known { OwedMap::empty(blocks, size) } else { OwedMap::full(blocks, size) };
        let mut base = self.secondary.index.clone();
        for _ in 0..self.sides.dice.below(8) {
            let lba = self.sides.dice.below(wide(base.len()));
            // Of no write that the model knows.
            base[to_usize(lba)] = u64::MAX - lba;
            Extent::new(Lba(lba), BlockCount(1)).into_iter().for_each(|extent| differs.mark(extent));
        }
        self.secondary = SecondarySite::keeper(&self.secondary, back, base, Some(differs), None);
        (self.sides.forked, self.sides.back, self.sides.adopted) = (None, None, false);
        self.restart_secondary()
    }

    pub fn turn_later(&mut self) {
        if !self.sides.turn_due {
            self.sides.turn_due = true;
            let wait = self.sides.dice.between(100, 2_000_000);
            self.after(wait, Event::Turn);
        }
    }

    /// What the new writer owes from the first: where its own old history differs, if it goes on with that. Where the other
    /// one differs it is told.
    fn owed_at_first(&self, own: bool) -> Option<OwedMap> {
        let (blocks, size) = (self.primary.settings.blocks, self.primary.settings.block_bytes);
        let own = own && self.settings.mutation != Some(Mutation::OwnHistoryNotOwed);
        let differs = self.secondary.differs.clone().filter(|_| own);
        Some(differs.unwrap_or_else(|| OwedMap::empty(blocks, size)))
    }

    /// The sites change places, when both are up and the old primary knows.
    pub fn turn(&mut self) -> Outcome {
        self.sides.turn_due = false;
        let Some(lineage) = self.sides.forked else { return Ok(()) };
        if let Some(back) = self.sides.back.filter(|back| back.generation >= lineage.generation) {
            return self.rejoin(&lineage, back);
        }
        let status = self.primary.machine.as_ref().map(Primary::status);
        let knows =
            self.sides.handed || status.is_some_and(|status| matches!(status.diverged, Some(Divergence::Fenced(_))));
        let opens = self.secondary.machine.is_some() && self.secondary.indexed >= lineage.fork;
        if !opens || self.primary.machine.is_none() || !knows {
            self.turn_later();
            return Ok(());
        }
        let (planned, handed) = (self.sides.planned, self.sides.handed);
        self.crash_primary();
        self.crash_secondary();
        let Some(found) = self.recover_primary()? else { return Ok(()) };
        let (site, last) = (&self.primary, found.recovered.last);
        let differing = found.recovered.differing(&lineage, site.settings.blocks, site.settings.block_bytes);
        self.stats.see(match (handed, differing.known) {
            (true, _) => Sometimes::SwappedSides,
            (false, true) => Sometimes::Rejoined,
            (false, false) => Sometimes::RejoinedUnknown,
        });
        if std::mem::take(&mut self.sides.adopted) {
            self.model.promised_at_both = self.model.promised_at_both.min(lineage.fork);
        }
        check::fence::turned(self, &lineage, last, handed)?;
        let base = self.primary.home.image();
        let lost = (!handed).then(|| Branch::of(&self.model, found.recovered.chain));
        let kept = self.secondary.keeps.filter(|kept| kept.fork == lineage.fork);
        let own = self.secondary.own.take().filter(|own| kept.is_some() && lineage.start == own.end());
        let owed = self.owed_at_first(own.is_some());
        match own {
            Some(own) => {
                check::write_order::own_history(self, &own)?;
                self.model.adopt(own);
            }
            None => {
                self.model.restarted(lineage.fork);
                check::write_order::offered(self, lineage.fork)?;
            }
        }
        self.model.promised = self.model.promised.min(lineage.start);
        let mut keeper =
            SecondarySite::keeper(&self.secondary, lineage, base, (!handed).then_some(differing.map), lost);
        let mut writer = PrimarySite::writer(&self.primary, &self.model.accepted, lineage, owed.filter(|_| !planned));
        // Each site's keys stay with it.
        keeper.kept = Kept::of(self.primary.keys.clone(), self.primary.floor);
        (writer.floor, writer.proved) = (self.secondary.kept.floor, self.primary.floor);
        self.retirement.destroyed = self.retirement.destroyed.raised(self.secondary.kept.floor.epoch());
        writer.keys.retain(|epoch, _| self.secondary.kept.floor.takes(*epoch).is_ok());
        (self.primary, self.secondary) = (writer, keeper);
        self.primary.chain = lineage.start_chain;
        self.begin_segment(lineage.start.next());
        (self.sides.forked, self.sides.planned, self.sides.knows, self.sides.handed) = (None, false, false, false);
        self.sides.back = None;
        self.disaster.turned();
        self.witness.turned();
        for path in self.link.paths() {
            let line = self.link.line(path);
            (line.open, line.primary_up, line.secondary_up) = (false, false, false);
            line.session += 1;
        }
        self.restart_primary()?;
        self.restart_secondary()?;
        self.link.paths().for_each(|path| self.dial(path));
        Ok(())
    }
}

impl PrimarySite {
    /// The site that kept the copy writes from the fork on, or from its own old history's end.
    fn writer(old: &Self, image: &[u64], lineage: Lineage, owed: Option<OwedMap>) -> Self {
        let mut home = Home::new(image.len());
        (0u64..).zip(image).for_each(|(lba, stamp)| home.write(Lba(lba), *stamp));
        let mark = home.mark();
        home.synced(&mark);
        let mut settings = old.settings;
        settings.generation = lineage.generation;
        let kept = |map: OwedMap| (map.encode_with(&GivenUp::default()), lineage.start, lineage.start_chain);
        let mut site = Self::blank(settings, old.segment_bytes, old.journal_capacity);
        site.life = old.life + 1;
        site.home = home;
        site.homed = lineage.start;
        site.map = owed.map(kept);
        site.epoch_floor = old.keys.last_key_value().map_or(Epoch::NONE, |(epoch, _)| *epoch).max(old.epoch_floor);
        site.keys = old.keys.clone();
        (site.floor, site.proved) = (old.floor, old.proved);
        site.durable_on_disk = lineage.start;
        site
    }
}

impl SecondarySite {
    /// The site that wrote keeps the copy, over what it has.
    pub fn keeper(old: &Self, lineage: Lineage, base: Vec<u64>, differs: Option<OwedMap>, own: Option<Branch>) -> Self {
        let mut site = Self::new(old.settings);
        site.life = old.life + 1;
        site.generation = lineage.generation;
        site.kept = Kept::of(old.kept.keyring.clone(), old.kept.floor);
        site.keeps = Some(lineage);
        site.base_differs = differs.is_some();
        site.live = base.clone();
        site.live_through = lineage.start;
        site.index = base.clone();
        site.base = base;
        (site.differs, site.own) = (differs, own);
        site.offered = lineage.start;
        site.acknowledged = lineage.start;
        site
    }
}
