//! Records on their way: sealed and appended in their order, sent over paths with what their slots carry, and read for the copy.

use std::sync::Arc;

use bytes::Bytes;
use farseal_core::carriage::{Carriage, CarriageNumber};
use farseal_core::primary::{Input, Planned, Slots, Source, StoreFault, What};
use farseal_core::record::Kind;
use farseal_core::units::{Extent, Path};
use farseal_core::window::Range;
use farseal_plugin::Digest;

use super::{Commit, Runner};
use crate::lane::{destage, reader};
use crate::link::dial::Send;
use crate::link::slots::Told;

impl Runner {
    /// Seals and appends commits in their order; the first that fails holds the others back, and is tried again as it
    /// is: what was sealed once is never sealed again.
    pub(super) fn run_commits(&mut self) {
        while let Some(commit) = self.commits.pop_front() {
            let sealed = match commit {
                Commit::Sealed(sealed) => sealed,
                Commit::Planned(plan) => match self.committer.seal(&self.clock, &plan, &self.writes) {
                    Ok(sealed) => sealed,
                    Err(fault) => {
                        tracing::error!(pair = self.name, %fault, "nothing can be sealed");
                        self.last_seal_fault = Some(fault.to_string());
                        return self.stall(Commit::Planned(plan), StoreFault::Unsealed);
                    }
                },
            };
            let (chain, restart, wall) = (sealed.chain_before, sealed.restart, self.clock.now().wall);
            if let Err(error) = self.journal.append(sealed.header, &sealed.records, chain, restart, wall) {
                self.note_fault("append to the journal", &error);
                return self.stall(Commit::Sealed(sealed), error.fault());
            }
            self.stalled = false;
            self.last_seal_fault = None;
            for (planned, record) in sealed.planned.iter().zip(&sealed.records) {
                self.outbox.push(planned.sequence, record.clone(), self.clock.now().instant);
                let copied = matches!(planned.source, Source::Buffer { ticket, .. } if self.copies.contains(&ticket));
                if let (Kind::Zero, Source::Buffer { ticket, .. }) = (planned.kind, planned.source) {
                    // Of zeroes nothing is kept that could be finished.
                    self.copies.remove(&ticket);
                }
                if !copied {
                    self.destage_queue.extend(destage::Write::of(planned, &self.writes, self.settings.block_bytes));
                }
            }
            for ticket in sealed.finished {
                self.writes.remove(&ticket);
                self.copies.remove(&ticket);
            }
            self.primary.handle(self.clock.now(), Input::Committed { digests: sealed.digests });
        }
    }

    fn stall(&mut self, commit: Commit, fault: StoreFault) {
        self.stalled = true;
        self.commits.push_front(commit);
        self.primary.handle(self.clock.now(), Input::CommitFailed { fault });
    }

    /// Sends a component once over a path, before the records that need it.
    pub(super) fn ship(&mut self, path: Path, digest: Digest) {
        let (Some(jobs), Some(shipped)) = (self.paths.get(&path), self.shipped.get_mut(&path)) else { return };
        if !shipped.insert(digest) {
            return;
        }
        match self.plugins.components.load(digest) {
            Ok(bytes) => drop(jobs.send(Send::Component(digest, bytes))),
            Err(error) => tracing::error!(pair = self.name, %error, "a component cannot be sent to the other site"),
        }
    }

    /// Builds a key record that goes in the slots of others. Without it, it goes as it is when it stands.
    pub(super) fn carry(&mut self, number: CarriageNumber, planned: &Planned) {
        self.carriage = None;
        match self.committer.carry(&self.clock, planned) {
            Ok(record) => match Carriage::new(number, record) {
                Ok(carriage) => self.carriage = Some(Arc::new(carriage)),
                Err(error) => tracing::error!(pair = self.name, %error, "a key cannot be carried"),
            },
            Err(error) => tracing::error!(pair = self.name, %error, "a key cannot be carried"),
        }
    }

    /// Sends a run with what its slots say.
    pub(super) fn send(&mut self, path: Path, range: Range, slots: Slots) {
        let carriage = |number| self.carriage.as_ref().filter(|carriage| carriage.number() == number).map(Arc::clone);
        let told = match slots {
            Slots::Idle => Told::Nothing,
            Slots::Pieces { number, first } => {
                carriage(number).map_or(Told::Nothing, |carriage| Told::Pieces(carriage, first))
            }
            Slots::Stands { number, key } => match carriage(number) {
                Some(carriage) => Told::Stands(carriage),
                None => {
                    self.send_run(path, Range { first: key, last: key }, Told::Nothing);
                    Told::Nothing
                }
            },
        };
        self.send_run(path, range, told);
    }

    /// From memory where the records are there still, else from the journal.
    fn send_run(&mut self, path: Path, range: Range, told: Told) {
        for digest in self.plugins.for_the_other_site().into_iter().flatten() {
            self.ship(path, digest);
        }
        let Some(jobs) = self.paths.get(&path) else { return };
        let records = match self.outbox.records(range) {
            Some(records) => Ok(records),
            None => self.journal_reader.read(range),
        };
        match records {
            Ok(records) => drop(jobs.send(Send::Records(records, told))),
            Err(error) => {
                self.note_fault("read the journal for the link", &error);
                let _ = jobs.send(Send::Close);
            }
        }
    }

    /// Before the next write is taken in. What a connection has placed meanwhile must not be in the copy, which has its
    /// place in front of it.
    pub(super) fn read_at_once(&mut self, extent: Extent) {
        let read = self.read_blocks(extent).map(|bytes| Some(Bytes::from(bytes)));
        if self.buffer.newest(extent) > Some(self.heard) {
            return self.early_copies.push(extent);
        }
        let input = self.copy_read(extent, read);
        self.primary.handle(self.clock.now(), input);
    }

    pub(super) fn copy_read(&mut self, extent: Extent, read: reader::ReadForCopy) -> Input {
        match read {
            Ok(bytes) => {
                let ticket = self.ticket();
                let what = if bytes.is_some() { What::Data } else { What::Zero };
                self.writes.extend(bytes.map(|bytes| (ticket, bytes)));
                self.copies.insert(ticket);
                Input::CopyRead { ticket, what, extent }
            }
            Err(error) => {
                self.note_fault("read for the copy", &error);
                Input::CopyReadFailed { extent }
            }
        }
    }
}
