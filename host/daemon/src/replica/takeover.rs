//! The replica's part in a takeover: the generation is made durable, then the copy is handed over as it is.

use std::sync::Arc;

use farseal_core::lineage::Lineage;
use farseal_core::secondary::Input;
use farseal_core::units::Generation;

use super::{Control, HandOver, Runner};

impl Runner {
    pub(super) fn persist(&mut self, generation: Generation, taken_over: bool) {
        let (through, chain) = self.secondary.fork();
        let mut control = Control { generation, ..self.control.clone() };
        if taken_over {
            let base = control.keeps.as_ref().filter(|_| self.secondary.base_differs());
            // Over a base that differs the copy is not whole: what goes on is this site's own history.
            control.lineage = Some(match base {
                Some(keeps) => {
                    let kept = self.control.history();
                    Lineage { generation, start: keeps.base, start_chain: keeps.base_chain, ..kept }
                }
                None => Lineage::at(generation, through, chain),
            });
            control.taken_over_at = Some(through);
            control.planned = self.secondary.was_handed_over();
            control.epoch_floor = control.epoch_floor.max(self.keyring.newest());
        }
        match control.save(&self.pair_directory) {
            Ok(()) => {
                self.control = control;
                self.secondary.handle(self.clock.now(), Input::GenerationPersisted { generation });
            }
            Err(error) => tracing::error!(pair = self.name, %error, "the generation could not be kept"),
        }
    }

    /// After a takeover, once every key that was on its way is checked and everything offered is indexed.
    pub(super) fn hand_over_when_recovered(&mut self) {
        let Some(through) = self.control.taken_over_at else { return };
        if self.backlog.indexed() < through || self.taken_over.is_none() {
            return;
        }
        self.checkpoint();
        let (Some(index), Some(taken_over)) = (self.index.take(), self.taken_over.take()) else { return };
        let own_history = self.secondary.base_differs();
        taken_over(HandOver {
            generation: self.control.generation,
            through,
            lineage: self.control.history(),
            planned: self.control.planned,
            epoch_floor: self.control.epoch_floor,
            based: self.control.keeps.is_some(),
            differs: own_history.then(|| self.differs()),
            index: Arc::new(index),
            reader: self.log.reader(),
            ledger: Arc::new(self.secondary.ledger().clone()),
        });
    }
}
