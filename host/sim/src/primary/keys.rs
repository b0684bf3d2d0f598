//! Keys that a primary prepares and deposits.

use farseal_core::limits::RECORD_BLOCKS_MAX;
use farseal_core::primary::Input;
use farseal_core::rotation::Slot;
use farseal_core::units::{Epoch, Generation, Millis};

use super::PrimaryEvent;
use crate::faults::Fault;
use crate::mutation::Mutation;
use crate::seal::KeyId;
use crate::world::{Event, Outcome, World};

impl World {
    pub(super) fn epoch_ready(&mut self, epoch: Epoch) -> Outcome {
        if self.faults.strikes_at(Fault::EpochFails, 1) {
            return self.tell_primary(Input::EpochFailed { epoch });
        }
        let newest = self.primary.keys.last_key_value().map(|(_, key)| *key);
        let old = match self.settings.mutation {
            Some(Mutation::EpochReused) => newest,
            Some(Mutation::StaleKeySealsOn) => newest.filter(|_| self.primary.settings.generation > Generation(1)),
            Some(Mutation::KeyOfTheSnapshot) if self.rollback.happened() => self.nonces.key_of(epoch),
            _ => None,
        };
        let key = old.unwrap_or_else(|| KeyId(self.dice_life.draw()));
        if self.faults.strikes(Fault::KeyRefused) {
            self.unopenable.insert(key);
        }
        self.primary.keys.insert(epoch, key);
        let at = self.clock().instant.plus(Millis(self.dice_life.below(200)));
        let blocks = u32::try_from(self.dice_life.between(1, 4)).unwrap_or(1).min(RECORD_BLOCKS_MAX);
        let blocks = if self.disguise.in_slots { 1 } else { blocks };
        self.deposit(epoch);
        let chance = self.disguise.dice.draw();
        self.tell_primary(Input::EpochPrepared { epoch, slot: Slot { at, blocks, chance } })?;
        if self.settings.mutation == Some(Mutation::ReceiptNotAwaited) {
            self.tell_primary(Input::EpochEscrowed { epoch })?;
        }
        Ok(())
    }

    /// The escrow site answers after a while, or after long, or refuses.
    fn deposit(&mut self, epoch: Epoch) {
        if !self.primary.settings.escrowed {
            return;
        }
        let most = if self.faults.strikes(Fault::EscrowSilent) { 30_000_000 } else { 1_500_000 };
        let delay = self.dice_life.between(1_000, most);
        let refused = self.faults.strikes(Fault::EscrowRefuses);
        let answer = if refused { PrimaryEvent::EscrowRefused { epoch } } else { PrimaryEvent::Escrowed { epoch } };
        let life = self.primary.life;
        self.after(delay, Event::Primary { life, event: answer });
    }
}
