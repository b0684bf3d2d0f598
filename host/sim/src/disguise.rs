//! The world's disguise: plans slots in a share of the worlds, has slots in the records of others, or does nothing at all.

use farseal_core::limits::SLOTS_PLANNED_MAX;
use farseal_core::primary::Input;
use farseal_core::schedule::Planned;
use farseal_core::units::Millis;

use crate::dice::Dice;

/// What follows from the seed.
#[derive(Debug)]
pub struct Disguise {
    /// It keeps a standing schedule.
    pub stands: bool,
    /// It carries keys in the slots of other records.
    pub in_slots: bool,
    /// Operators and policies may pause for a key all the same.
    pub pause_hidden: bool,
    mean_gap: u64,
    pub dice: Dice,
}

impl Disguise {
    pub fn draw(seed: u64) -> Self {
        let mut dice = Dice::new(seed, 14);
        let stands = dice.chance(500);
        let pause_hidden = !stands || dice.chance(500);
        // A stream of its own: what the other worlds do stays as it was.
        let mut own = Dice::new(seed, 15);
        let in_slots = !stands && own.chance(500);
        // What goes in slots may go when a schedule says so, too.
        let stands = stands || (in_slots && own.chance(500));
        Self { stands, in_slots, pause_hidden, mean_gap: dice.between(20, 2_000), dice }
    }

    /// The answer to a question for slots: now and then it cannot be asked.
    pub fn answer(&mut self) -> Input {
        if !self.stands {
            return Input::SlotsPlanned { slots: Vec::new() };
        }
        if self.dice.chance(20) {
            return Input::SlotsNotPlanned;
        }
        // Seldom more than fit.
        let count = if self.dice.chance(20) { 2 * SLOTS_PLANNED_MAX } else { 16 };
        // A record in slots is short.
        let longest = if self.in_slots { 1 } else { 4 };
        let slots = (0..count).map(|_| Planned {
            gap: Millis(self.dice.below(2 * self.mean_gap)),
            blocks: u32::try_from(self.dice.between(1, longest)).unwrap_or(1),
            chance: self.dice.draw(),
        });
        Input::SlotsPlanned { slots: slots.collect() }
    }
}
