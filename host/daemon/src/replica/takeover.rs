//! The replica's part in a takeover: the main site may ask for it, the generation is made durable, then the copy is handed
//! over as it is.

use std::sync::{Arc, RwLock};

use farseal_core::declare::{Answer as Said, Declare, Keeps, Refusal};
use farseal_core::group::OfferLimit;
use farseal_core::lineage::Lineage;
use farseal_core::owed::OwedMap;
use farseal_core::secondary::Input;
use farseal_core::units::{Generation, Path, Sequence};
use tokio::sync::OwnedSemaphorePermit;

use super::{Control, HandOver, Runner};
use crate::link::listen::Answer;
use crate::recovery::account::Beginning;
use crate::role::lane_folder;
use crate::store::files;

/// The main site's word of a disaster, which waits for its answer.
pub(super) struct Word {
    path: Path,
    id: u64,
    permit: OwnedSemaphorePermit,
}

impl Runner {
    /// The main site says that it is lost. The answer leaves before the takeover closes its path.
    pub(super) fn declared(&mut self, path: Path, declare: Declare, permit: OwnedSemaphorePermit) {
        if !self.paths.contains_key(&path) {
            return self.give(Input::Nonsense { path });
        }
        let said = self.judge_declared(declare);
        let word = Word { path, id: declare.id, permit };
        if matches!(said, Said::TakesOver { .. }) && self.grouped {
            self.words.push(word);
            if !(self.word)() {
                tracing::error!(pair = self.name, "a disaster is declared, and this site's lead cannot be reached");
                self.answer_words(false);
            }
            return;
        }
        self.answer_word(word, said);
        match said {
            Said::TakesOver { .. } => {
                tracing::warn!(pair = self.name, "the main site declares a disaster: this site takes over");
                self.give(Input::Limit(OfferLimit::Everything));
                self.give(Input::TakeOver);
            }
            Said::Refused(refusal) => {
                tracing::warn!(
                    pair = self.name,
                    "the main site declares a disaster, and this site does not take over: {refusal}"
                );
            }
        }
    }

    /// The group is taken over, or is not.
    pub(super) fn answer_words(&mut self, taken: bool) {
        let through = self.secondary.status().offered;
        let said = if taken { Said::TakesOver { through } } else { Said::Refused(Refusal::Grouped) };
        std::mem::take(&mut self.words).into_iter().for_each(|word| self.answer_word(word, said));
    }

    fn answer_word(&self, word: Word, said: Said) {
        let Word { path, id, permit } = word;
        if let Some(answers) = self.paths.get(&path) {
            let _ = answers.send(Answer::Held { id, answer: said.encode(), permit });
        }
    }

    fn judge_declared(&self, declare: Declare) -> Said {
        let status = self.secondary.status();
        declare.judge(&Keeps {
            generation: status.generation,
            offered: status.offered,
            has_point: status.has_point(),
            keys_missing: u64::try_from(self.keyring.missing().len()).unwrap_or(u64::MAX),
            escrowed: self.with_escrow,
        })
    }

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
            control.opened_at = self.opening.filter(|point| *point < through);
            control.planned = self.secondary.was_handed_over();
            control.epoch_floor = control.epoch_floor.max(self.keyring.newest());
        }
        match control.save(&self.pair_directory) {
            Ok(()) => {
                self.control = control;
                if taken_over {
                    self.keep_beginning(through);
                }
                self.secondary.handle(self.clock.now(), Input::GenerationPersisted { generation });
            }
            Err(error) => {
                tracing::error!(pair = self.name, %error, "the generation could not be kept; it is tried again: make room on the disk");
                self.secondary.handle(self.clock.now(), Input::GenerationNotPersisted { generation });
            }
        }
    }

    /// What is known now, before anything is waited for: a restart, or keys that come late, must not change it.
    fn keep_beginning(&self, through: Sequence) {
        let folder = self.pair_directory.join(lane_folder(self.control.generation));
        let kept = files::create_private_dir(&folder).and_then(|()| self.beginning(through).keep(&folder));
        if let Err(error) = kept {
            tracing::warn!(pair = self.name, %error, "what the takeover began with is not kept before it is opened");
        }
    }

    /// After a takeover, once every key that was on its way is checked and everything offered is indexed.
    pub(super) fn hand_over_when_recovered(&mut self) {
        let Some(through) = self.control.taken_over_at else { return };
        if self.backlog.indexed() < through || self.taken_over.is_none() {
            return;
        }
        self.checkpoint();
        let beginning = self.beginning(through);
        let (Some(index), Some(taken_over)) = (self.index.take(), self.taken_over.take()) else { return };
        let own_history = self.secondary.base_differs();
        let mut differs = own_history.then(|| self.differs());
        let index = match self.control.opened_at.and_then(|_| self.beside.take_opened()) {
            // The other site has what came after the point: it is to get the blocks as they were.
            Some(point) => {
                let size = (self.settings.blocks, self.settings.block_bytes);
                let map = differs.get_or_insert_with(|| OwedMap::empty(size.0, size.1));
                point.differences(&index).into_iter().for_each(|extent| map.mark(extent));
                point
            }
            None => index,
        };
        taken_over(HandOver {
            generation: self.control.generation,
            through,
            lineage: self.control.history(),
            planned: self.control.planned,
            epoch_floor: self.control.epoch_floor,
            based: self.control.keeps.is_some(),
            opened_at: self.control.opened_at,
            differs,
            index: Arc::new(RwLock::new(index)),
            reader: self.log.reader(),
            ledger: Arc::new(self.secondary.ledger().clone()),
            beginning,
        });
    }

    fn beginning(&self, through: Sequence) -> Beginning {
        let status = self.secondary.status();
        Beginning {
            format: 1,
            at: self.clock.now().wall,
            through,
            point: self.control.opened_at,
            written: status.durable_wall.filter(|_| status.durable == through),
            held: status.durable,
            chain: status.chain.to_string(),
            catching_up: status.gap_open,
            cut: status.group_cut,
        }
    }
}
