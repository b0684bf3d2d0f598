//! What a primary says over the link, and hears.

use farseal_core::frame::{Attach, Refusal};
use farseal_core::primary::{Input, Slots};
use farseal_core::units::{Path, Sequence};

use super::strip_flag;
use crate::check;
use crate::check::{Checker, Failure};
use crate::disk::wide;
use crate::faults::Fault;
use crate::link::{Message, Side};
use crate::mutation::Mutation;
use crate::stats::Sometimes;
use crate::world::{Outcome, PAIR, VOLUME, World};

impl World {
    pub fn attach(&mut self, path: Path) -> Outcome {
        let settings = self.primary.settings;
        let attach = Attach {
            layout: None,
            pair: PAIR,
            volume: VOLUME,
            generation: settings.generation,
            encrypted: true,
            block_bytes: settings.block_bytes,
            blocks: settings.blocks,
            path: path.0,
            paths: u16::try_from(self.link.lines.len()).unwrap_or(1),
        };
        self.send(path, Side::Secondary, Message::Attach(attach));
        self.tell_primary(Input::Attaching { path })
    }

    pub(super) fn send_records(&mut self, path: Path, first: Sequence, last: Sequence, slots: Slots) -> Outcome {
        check::owed::sendable(self, first)?;
        let mut bytes = Vec::new();
        for sequence in first.0..=last.0 {
            let Some(rec) = self.model.get(Sequence(sequence)) else {
                return Err(Failure::new(Checker::Panic, format!("record {sequence} is to be sent; there is none")));
            };
            bytes.extend(rec.bytes.iter());
            self.primary.sent.insert(Sequence(sequence), wide(rec.bytes.len()));
        }
        self.count_in_flight();
        if self.settings.mutation != Some(Mutation::UnsyncedSent) {
            self.throttled(wide(bytes.len()))?;
        }
        if self.faults.strikes_at(Fault::FlagStripped, 4) {
            self.stats.see(Sometimes::FlagStripped);
            strip_flag(&mut bytes);
        }
        let records = last.0 - first.0 + 1;
        let twice = self.faults.strikes(Fault::Duplicate);
        self.send_beside_slots(path, bytes.clone(), records, slots);
        if twice {
            self.send_beside_slots(path, bytes, records, Slots::Idle);
        }
        Ok(())
    }

    fn count_in_flight(&mut self) {
        let acked = self.primary.machine.as_ref().map_or(Sequence::NONE, |machine| machine.status().acked);
        self.primary.sent.retain(|sequence, _| *sequence > acked);
        self.in_flight_bytes = self.primary.sent.values().sum();
    }

    pub fn primary_receives(&mut self, path: Path, message: Message) -> Outcome {
        if self.primary.machine.is_none() {
            return Ok(());
        }
        match message {
            Message::Welcome(welcome) => self.tell_primary(Input::Welcomed { path, welcome }),
            Message::Refuse(refusal) => {
                self.stats.see(Sometimes::PathRefused);
                self.close_path(path, Side::Primary);
                match refusal {
                    Refusal::Fenced(generation) => self.tell_primary(Input::Fenced { generation }),
                    Refusal::UnknownPair
                    | Refusal::EncryptionDiffers
                    | Refusal::OtherSize(_)
                    | Refusal::OtherVolume
                    | Refusal::NotSecondary
                    | Refusal::Damaged
                    | Refusal::OtherLink
                    | Refusal::LayoutDiffers => Ok(()),
                }
            }
            Message::Ack(ack) => self.tell_primary(Input::Acked { path, ack }),
            Message::KeyRefused { key, why } => self.tell_primary(Input::KeyRefused { key, why }),
            Message::Differs(differs) => self.tell_primary(Input::Differs { differs }),
            Message::HandedOver(generation) => self.tell_primary(Input::HandedOver { generation }),
            Message::Live { through, at, map } => self.live_told(through, at, *map),
            Message::Retired(proof) => {
                self.proof_comes(&proof);
                Ok(())
            }
            Message::Attach(_)
            | Message::Records(_)
            | Message::Slotted { .. }
            | Message::HandOver(_)
            | Message::AskLive { .. }
            | Message::Retire(_)
            | Message::Declare(_)
            | Message::Nonsense => Ok(()),
        }
    }
}
